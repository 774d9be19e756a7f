//! Searches in a catalogue, and what they check before and after.

use std::ops::ControlFlow;

use super::format::Kind;
use super::{Catalog, Condition, Selection};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::parallel;
use crate::search::list::Buffers;
use crate::search::{self, MOST_K, NO_ROW, Search, list};

/// Most queries with rows of their own that a thread answers in one piece.
const TILE: usize = 256;

/// Queries with rows of their own whose answers are selected together.
const TOGETHER: usize = 8;

/// Rows that are scored between two looks at the clock, unless a query has more.
const PAUSE: usize = 10_000;

/// A query's rows and scores, to be written.
type Out<'a> = (&'a mut [u32], &'a mut [f32]);

/// Rows that each query brings, of which those that meet all conditions may be found.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The rows of all queries, in any order, one query after the other.
    pub lists: &'a [u32],
    /// Where each query's rows end.
    pub ends: &'a [usize],
    /// What is asked of rows besides.
    pub conditions: &'a [Condition],
}

impl<'a> Own<'a> {
    fn rows(&self, query: usize) -> &'a [u32] {
        let start = query.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.lists[start..self.ends[query]]
    }
}

impl Catalog {
    /// Finds the best `k` of the selected rows for each query (q x D): rows and scores (q x k),
    /// the best first, ties by row. Where fewer match, rows are [`NO_ROW`] and scores minus
    /// infinity.
    #[allow(clippy::too_many_arguments, reason = "one call, all of it needed")]
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        selection: &Selection,
        threads: Option<usize>,
        interrupt: &dyn Fn() -> Result<()>,
        rows: &mut [u32],
        scores: &mut [f32],
    ) -> Result<()> {
        let threads = self.check_search(queries, k, threads)?;
        let (kernels, view) = (Kernels::best()?, self.view());
        let job = Search { queries, first: 0, k, allowed: selection.allowed(), threads };
        search::search(kernels, &view, job, interrupt, rows, scores)?;
        self.check_found(rows)
    }

    /// [`Catalog::search`] among rows that each query brings.
    #[allow(clippy::too_many_arguments, reason = "one call, all of it needed")]
    pub fn search_own(
        &self,
        queries: &[f32],
        k: usize,
        own: Own<'_>,
        threads: Option<usize>,
        interrupt: &dyn Fn() -> Result<()>,
        rows: &mut [u32],
        scores: &mut [f32],
    ) -> Result<()> {
        let threads = self.check_search(queries, k, threads)?;
        self.check_own(queries.len() / self.dimensions(), own)?;
        let (kernels, view, dimensions) = (Kernels::best()?, self.view(), self.dimensions());
        let place = self.values::<u32>(Kind::Positions, 0);
        let weights = |query: usize| &queries[query * dimensions..][..dimensions];
        let filtered = |query: usize, go_on: &dyn Fn() -> bool, (rows, scores): Out<'_>| {
            let selection = self.select_among(own.conditions, own.rows(query))?;
            let (queries, allowed) = (weights(query), selection.allowed());
            let job = Search { queries, first: query, k, allowed, threads: 1 };
            let tick = || if go_on() { Ok(()) } else { Err(Error::Interrupted) };
            search::search(kernels, &view, job, &tick, rows, scores)
        };
        let scored = |query: usize, buffers: &mut Buffers, go_on: &dyn Fn() -> bool| {
            if !buffers.take(own.rows(query), place) {
                return Err(self.altered("positions of items"));
            }
            list::score_own(kernels, &view, query, weights(query), k, buffers, go_on)
        };
        let tile = own.ends.len().div_ceil(threads).clamp(1, TILE);
        let work = |index: u64, go_on: &dyn Fn() -> bool| {
            let first = index as usize * tile;
            let count = tile.min(own.ends.len() - first);
            let (mut rows, mut scores) = (vec![NO_ROW; count * k], vec![0.0; count * k]);
            let mut buffers = vec![Buffers::default(); TOGETHER.min(count)];
            let out = rows.chunks_mut(TOGETHER * k).zip(scores.chunks_mut(TOGETHER * k));
            let mut looked = 0;
            for (first, (rows, scores)) in (first..).step_by(TOGETHER).zip(out) {
                let buffers = &mut buffers[..rows.len() / k];
                for (place, buffers) in buffers.iter_mut().enumerate() {
                    let query = first + place;
                    // A look at the clock costs as much as some rows.
                    looked += own.rows(query).len();
                    if looked > PAUSE {
                        looked = 0;
                        if !go_on() {
                            return Ok((Vec::new(), Vec::new()));
                        }
                    }
                    if own.conditions.is_empty() {
                        scored(query, buffers, go_on)?;
                    } else {
                        let out = place * k..(place + 1) * k;
                        filtered(query, go_on, (&mut rows[out.clone()], &mut scores[out]))?;
                    }
                }
                if own.conditions.is_empty() {
                    list::select_own(kernels, buffers, rows, scores);
                }
            }
            Ok((rows, scores))
        };
        let (mut rows_left, mut scores_left) = (&mut *rows, scores);
        let take = |found: Result<(Vec<u32>, Vec<f32>)>| {
            let found = found?;
            let into = rows_left.split_off_mut(..found.0.len());
            into.expect("room for each query").copy_from_slice(&found.0);
            let into = scores_left.split_off_mut(..found.1.len());
            into.expect("room for each query").copy_from_slice(&found.1);
            Ok(ControlFlow::Continue(()))
        };
        let tiles = own.ends.len().div_ceil(tile) as u64;
        parallel::ordered(threads, tiles, work, take, interrupt)?;
        self.check_found(rows)
    }

    fn check_search(&self, queries: &[f32], k: usize, threads: Option<usize>) -> Result<usize> {
        self.mapped.check()?;
        if let Some(at) = queries.iter().position(|weight| !weight.is_finite()) {
            let (row, column) = (at / self.dimensions(), at % self.dimensions());
            let got = format!("{} in row {row}, column {column}", queries[at]);
            return Err(Error::argument("weights", "finite numbers", got));
        }
        if !(1..=MOST_K).contains(&k) {
            return Err(Error::argument("k", format!("1 to {MOST_K}"), k));
        }
        parallel::resolve(threads)
    }

    /// Refuses lists that are not one a query, or name rows that there are not.
    fn check_own(&self, queries: usize, own: Own<'_>) -> Result<()> {
        if own.ends.len() != queries {
            let expected = format!("{queries}, one a query");
            return Err(Error::argument("ends", expected, own.ends.len()));
        }
        if !own.ends.is_sorted() || own.ends.last().is_some_and(|end| *end > own.lists.len()) {
            let expected = format!("ascending, up to {}", own.lists.len());
            return Err(Error::argument("ends", expected, "others"));
        }
        self.check_rows(own.lists)
    }

    /// Refuses rows that there are not.
    pub fn check_rows(&self, rows: &[u32]) -> Result<()> {
        match rows.iter().position(|row| u64::from(*row) >= self.rows()) {
            Some(at) => {
                let expected = format!("rows below {}", self.rows());
                Err(Error::argument("rows", expected, format!("{} at place {at}", rows[at])))
            }
            None => Ok(()),
        }
    }

    /// Refuses what was found in a file that changed meanwhile.
    fn check_found(&self, rows: &[u32]) -> Result<()> {
        self.mapped.check_kept()?;
        let beyond = |row: &&u32| **row != NO_ROW && u64::from(**row) >= self.rows();
        match rows.iter().find(beyond) {
            Some(_) => Err(self.altered("rows of items")),
            None => Ok(()),
        }
    }
}
