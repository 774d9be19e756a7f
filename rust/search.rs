//! Exact top-k by inner product.
//!
//! ```text
//! score(w, x):  s = 0;  for d in 0..D:  s = fma(w[d], x[d], s)         in single precision
//! answer:       the k rows of highest score, of equal scores the lower rows first
//! ```
//!
//! # How it is fast and stays exact
//! 1. A pass over integer codes (`index`) gives each row's score within a proven bound, at a
//!    quarter (or, for few queries, an eighth) of the bytes and the multiplications.
//! 2. The k-th largest lower bound so far is a threshold no higher than the k-th best score, so a
//!    row whose upper bound is below it is no answer. It becomes one integer per query and chunk,
//!    and all that most rows cost is a comparison of integers.
//! 3. Chunks whose own bound is below the threshold are not looked at.
//! 4. Rows that remain are scored as above and ranked.
//!
//! So which rows are *looked at* depends on batches, threads and instruction sets, but not which
//! are found.
//!
//! # The bound
//! A chunk has a centre `c`, a scale `s` and codes `u` with `x = c + s*step*(u - m) + e` and
//! `|e| <= 0.5001 * cell * s * step`, where `cell` is 1 and `m` 127.5 for eight bits, 17 and 7.5
//! for four. With `v = w * step = unit * q + r`, `q` an integer of at most 64,
//!
//! ```text
//! w.x = w.c + s*cell*unit * sum(q*(u - m)) + s*cell * sum(r*(u - m)) + w.e
//! |s*cell * sum(r*(u - m))| <= s * 127.5 * sum|r|           as |u - m| * cell <= 127.5
//! |w.e|                     <= s * 0.5001 * cell * sum|v|
//! ```
//!
//! A fused dot product in single precision misses the true one by at most
//! `g = D*2^-24 / (1 - D*2^-24)` times `sum|w||x| <= |w||x|`, plus `D * 2^-150` for results too small
//! to be normal; that goes for the score and for `w.c`, and the chunk's magnitude bounds both `|x|`
//! and `|c|`. The rest is the rounding of the bound's own arithmetic: a handful of operations, each
//! within `2^-24` of its result, for which a 2e-6 part of `|w.c|`, of `s * 127.5 * sum|v|` (no
//! integer term is larger) and of the threshold is added, and 1e-36 for everything near zero. The
//! least integer sum is lowered by four: the three roundings that make it are below two units at
//! magnitudes of 2^23, and its truncation is below one.
//!
//! The bounds of a whole chunk are `w.c + |w| * radius` and `|w| * norm` (Cauchy and Schwarz).
//! Comparisons are written so that a bound which is not a number skips nothing.
//!
//! # Overflow
//! Products of `|w|` and the longest row below 1e37 cannot overflow anywhere, which is checked for
//! each query first. Other queries score every allowed row, and the lowest row whose score is not
//! finite is reported; so is the lowest such query. Short lists are scored whole, which tells.

mod best;
pub mod index;
pub mod list;
pub mod packed;
mod pass;
mod plan;
mod query;
pub mod reference;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::scan::Width;
use crate::parallel;
use best::{Scored, keep_best};
use index::View;
use pass::Pass;

pub use plan::Plan;

/// The row that stands where fewer than k rows match; its score is minus infinity.
pub const NO_ROW: u32 = u32::MAX;
/// Largest k.
pub const MOST_K: usize = 1 << 16;

/// Which rows may be found.
#[derive(Clone, Copy, Debug)]
pub enum Allowed<'a> {
    /// All of them.
    All,
    /// Those at these positions, which rise.
    Positions(&'a [u32]),
    /// Those whose position has its bit set: bit `p % 64` of word `p / 64`, as many words as
    /// needed, bits past the last row clear or not.
    Bits(&'a [u64]),
}

/// What to search for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Weights, row-major, one query a row.
    pub queries: &'a [f32],
    /// What errors call the first of them.
    pub first: usize,
    /// Rows to find for each query, 1 to [`MOST_K`].
    pub k: usize,
    /// Which rows may be found.
    pub allowed: Allowed<'a>,
    /// Threads.
    pub threads: usize,
}

/// Most queries that pass over the codes together.
const TILE: usize = 256;
/// Tiles smaller than this are not made to occupy threads.
const SMALL_TILE: usize = 32;
/// Most parts that a catalogue is split into; each finds its own threshold.
const MOST_PARTS: usize = 64;
/// Up to so many queries read the smaller codes.
const FEW: usize = 2;
/// Whether a list is scored row by row: scoring a row takes as long as passing over some sixty.
fn is_short(list: &[u32], rows: usize) -> bool {
    list.len() <= 1024 || list.len() <= rows / 64
}

/// Finds the best rows: `rows` and `scores` are k a query, in the order of answers, with
/// [`NO_ROW`] and minus infinity where fewer match. `tick` is called now and then on the calling
/// thread, and its error ends the search.
pub fn search(
    kernels: Kernels,
    view: &View<'_>,
    job: Search<'_>,
    tick: &dyn Fn() -> Result<()>,
    rows: &mut [u32],
    scores: &mut [f32],
) -> Result<()> {
    search_with(kernels, view, job, tick, rows, scores, Tuning::USUAL)
}

/// What tests change, to reach every path with few rows and to see that they would notice.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// Part of the error bound that is heeded.
    slack: f64,
    /// Codes to read, if that is not to depend on the number of queries.
    width: Option<Width>,
    /// Rows times queries that are worth a thread of their own.
    worth: usize,
}

impl Tuning {
    const USUAL: Self = Self { slack: 1.0, width: None, worth: 500_000 };
}

fn search_with(
    kernels: Kernels,
    view: &View<'_>,
    job: Search<'_>,
    tick: &dyn Fn() -> Result<()>,
    rows: &mut [u32],
    scores: &mut [f32],
    tuning: Tuning,
) -> Result<()> {
    let Tuning { slack, width, worth } = tuning;
    let count = check(view, &job, rows, scores)?;
    let longest = OnceLock::new();
    let made;
    let (list, allowed) = match job.allowed {
        Allowed::All => (None, None),
        Allowed::Bits(bits) => (None, Some(bits)),
        Allowed::Positions(list) if is_short(list, view.rows()) => (Some(list), None),
        Allowed::Positions(list) => {
            let mut bits = vec![0_u64; view.rows().div_ceil(64)];
            list.iter().for_each(|p| bits[*p as usize / 64] |= 1 << (p % 64));
            made = bits;
            (None, Some(&made[..]))
        }
    };
    let weights = |queries: Range<usize>| {
        &job.queries[queries.start * view.dimensions..queries.end * view.dimensions]
    };
    let split = Split::of(count, view.rows(), job.threads, list.is_some(), worth);
    let work = |task: u64, go_on: &dyn Fn() -> bool| {
        let (queries, part) = split.task(task as usize);
        if let Some(list) = list {
            let (first, weights) = (job.first + queries.start, weights(queries));
            return list::run(kernels, view, weights, first, job.k, list, go_on);
        }
        let longest = *longest.get_or_init(|| view.longest());
        let dangerous = |query: &usize| !query::safe(weights(*query..query + 1), longest);
        if queries.clone().any(|query| dangerous(&query)) {
            // Rare, and slow: row by row, all of the tile, so that the lowest query is reported.
            let one = |query: usize| {
                let weights = weights(query..query + 1);
                let query = job.first + query;
                reference::checked(kernels, view, query, weights, job.k, job.allowed, go_on)
            };
            let nothing = vec![Vec::new(); queries.len()];
            return if part == 0 { queries.map(one).collect() } else { Ok(nothing) };
        }
        let chosen = if queries.len() <= FEW { Width::Four } else { Width::Eight };
        let width = width.unwrap_or(chosen);
        Pass { kernels, view, width, k: job.k, allowed, slack }.run(
            weights(queries),
            part,
            split.parts,
            go_on,
        )
    };
    let mut task = 0;
    let mut found: Vec<Vec<Scored>> = Vec::new();
    let take = |result: Result<Vec<Vec<Scored>>>| {
        let (queries, part) = split.task(task);
        if part == 0 {
            found = result?;
        } else {
            found.iter_mut().zip(result?).for_each(|(found, more)| found.extend(more));
        }
        if part + 1 == split.parts {
            for (query, mut found) in queries.zip(found.drain(..)) {
                keep_best(&mut found, job.k);
                found.sort_unstable_by(Scored::before);
                let at = query * job.k..(query + 1) * job.k;
                let padding = Scored { score: f32::NEG_INFINITY, row: NO_ROW };
                let all = found.into_iter().chain(std::iter::repeat(padding));
                for ((row, score), best) in
                    rows[at.clone()].iter_mut().zip(&mut scores[at]).zip(all)
                {
                    (*row, *score) = (best.row, best.score);
                }
            }
        }
        task += 1;
        Ok(ControlFlow::Continue(()))
    };
    parallel::ordered(job.threads, split.tasks() as u64, work, take, tick)
}

/// How work is split: ranges of queries, and each over parts of the panels.
struct Split {
    queries: usize,
    tile: usize,
    parts: usize,
}

impl Split {
    fn of(queries: usize, rows: usize, threads: usize, list: bool, worth: usize) -> Self {
        let tile = queries.div_ceil(threads).clamp(1, TILE);
        // Queries of a small tile share little of their work: split the catalogue instead, unless
        // that is so little work that waking threads takes longer.
        let parts = threads.min(queries.saturating_mul(rows) / worth).min(MOST_PARTS);
        if tile < SMALL_TILE && threads > 1 && !list {
            return Self { queries, tile: TILE, parts: parts.max(1) };
        }
        Self { queries, tile, parts: 1 }
    }

    fn tasks(&self) -> usize {
        self.queries.div_ceil(self.tile) * self.parts
    }

    fn task(&self, task: usize) -> (Range<usize>, usize) {
        let first = task / self.parts * self.tile;
        (first..(first + self.tile).min(self.queries), task % self.parts)
    }
}

/// Checks what a caller gave; returns the number of queries.
fn check(view: &View<'_>, job: &Search<'_>, rows: &[u32], scores: &[f32]) -> Result<usize> {
    view.check()?;
    let dimensions = view.dimensions;
    if !job.queries.len().is_multiple_of(dimensions) {
        let got = format!("{} values", job.queries.len());
        return Err(Error::argument("weights", format!("rows of {dimensions} values"), got));
    }
    let count = job.queries.len() / dimensions;
    if let Some(at) = job.queries.iter().position(|weight| !weight.is_finite()) {
        let what = format!("weights[{}, {}]", job.first + at / dimensions, at % dimensions);
        return Err(Error::argument(what, "a finite number", job.queries[at]));
    }
    if !(1..=MOST_K).contains(&job.k) {
        return Err(Error::argument("k", format!("1 to {MOST_K}"), job.k));
    }
    if rows.len() != count * job.k || scores.len() != count * job.k {
        let got = format!("{} and {}", rows.len(), scores.len());
        return Err(Error::argument("outputs", format!("{} values each", count * job.k), got));
    }
    match job.allowed {
        Allowed::All => {}
        Allowed::Positions(list) => {
            let rise = list.is_sorted_by(|a, b| a < b);
            let last = list.last().is_none_or(|last| (*last as usize) < view.rows());
            if !rise || !last {
                let expected = format!("rising, below {}", view.rows());
                return Err(Error::argument("positions", expected, "others"));
            }
        }
        Allowed::Bits(bits) => {
            let words = view.rows().div_ceil(64);
            if bits.len() != words {
                return Err(Error::argument("bits", format!("{words} words"), bits.len()));
            }
        }
    }
    Ok(count)
}
