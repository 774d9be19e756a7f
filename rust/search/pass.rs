//! The integer pass of some queries over some panels.

use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::scan::{
    CHUNK, CHUNKS, Hit, Limits, NEVER, PAIR, PAIRS, PANEL_ROWS, Scan, Width, groups,
};
use crate::search::best::{Best, Scored};
use crate::search::index::View;
use crate::search::query::Queries;

/// A pass; see [`Pass::run`].
#[derive(Debug)]
pub struct Pass<'a> {
    /// Kernels.
    pub kernels: Kernels,
    /// The catalogue.
    pub view: &'a View<'a>,
    /// Width of the codes to read.
    pub width: Width,
    /// Rows to find for each query.
    pub k: usize,
    /// The positions to look at, one bit each; `None` for all.
    pub allowed: Option<&'a [u64]>,
    /// See [`Queries::new`].
    pub slack: f64,
}

impl Pass<'_> {
    /// The best rows of each query among those of every `every`-th panel from `first` on; nothing
    /// of use once `go_on` says no.
    pub fn run(
        &self,
        weights: &[f32],
        first: usize,
        every: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<Scored>>> {
        let queries = Queries::new(self.view, weights, self.width, self.slack);
        let count = queries.terms.len();
        let mut best: Vec<Best<'_>> = (0..count)
            .map(|query| Best::new(self.kernels, self.view, queries.of(query), self.k))
            .collect();
        let mut state = State {
            thresholds: vec![f32::NEG_INFINITY; count],
            least: vec![[0; CHUNKS]; count],
            base: vec![[0.0; CHUNKS]; count],
            error: vec![[0.0; CHUNKS]; count],
            slots: Vec::with_capacity(count),
            slot_least: Vec::with_capacity(count),
            hits: Vec::with_capacity(count * PAIRS),
        };
        for panel in (first..self.view.panels()).step_by(every) {
            if !go_on() {
                break;
            }
            for chunk in 0..self.view.chunks(panel) {
                // Thresholds rise fastest at the start.
                if chunk == 0 || panel == first && chunk.is_power_of_two() {
                    for (threshold, best) in state.thresholds.iter_mut().zip(&best) {
                        *threshold = best.threshold();
                    }
                    self.kernels.limits(Limits {
                        panel: self.view.panel(panel),
                        weights,
                        dimensions: self.view.dimensions,
                        terms: &queries.terms,
                        thresholds: &state.thresholds,
                        least: &mut state.least,
                        base: &mut state.base,
                        error: &mut state.error,
                    });
                }
                self.chunk(panel, chunk, &queries, &mut state, &mut best);
            }
        }
        Ok(best.into_iter().map(Best::finish).collect())
    }

    /// One chunk: the integer sums, and what they let through.
    fn chunk(
        &self,
        panel: usize,
        chunk: usize,
        queries: &Queries<'_>,
        state: &mut State,
        best: &mut [Best<'_>],
    ) {
        let first = panel * PANEL_ROWS + chunk * CHUNK;
        let allowed = std::array::from_fn(|pair| self.lanes(first + pair * PAIR));
        if allowed == [0; PAIRS] {
            return;
        }
        state.slots.clear();
        state.slot_least.clear();
        for (query, least) in state.least.iter().enumerate() {
            if least[chunk] != NEVER {
                state.slots.push(query as u32);
                state.slot_least.push(least[chunk]);
            }
        }
        self.kernels.scan(Scan {
            codes: self.view.chunk(panel, chunk, self.width),
            width: self.width,
            groups: groups(self.view.dimensions),
            allowed,
            queries: &queries.codes,
            slots: &state.slots,
            least: &state.slot_least,
            hits: &mut state.hits,
        });
        let scale = self.view.panel(panel)[self.view.dimensions * CHUNKS + chunk];
        for hit in state.hits.drain(..) {
            let query = state.slots[hit.slot as usize] as usize;
            let terms = &queries.terms[query];
            let (base, error) = (state.base[query][chunk], state.error[query][chunk]);
            let start = first + hit.pair as usize * PAIR;
            let mut lanes = hit.lanes;
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                lanes &= lanes - 1;
                let units = hit.sums[lane] as f32 - terms.zero;
                let score = base + scale * terms.unit * units;
                best[query].offer(score, error, (start + lane) as u32);
            }
        }
    }

    /// The allowed rows of the pair that starts at a position.
    fn lanes(&self, start: usize) -> u32 {
        let left = self.view.rows().saturating_sub(start).min(PAIR);
        let exist = u32::MAX.checked_shr((PAIR - left) as u32).unwrap_or(0);
        match self.allowed {
            None => exist,
            Some(_) if left == 0 => 0,
            Some(bits) => exist & (bits[start / 64] >> (start % 64)) as u32,
        }
    }
}

/// Working memory of a pass.
struct State {
    thresholds: Vec<f32>,
    least: Vec<[i32; CHUNKS]>,
    base: Vec<[f32; CHUNKS]>,
    error: Vec<[f32; CHUNKS]>,
    slots: Vec<u32>,
    slot_least: Vec<i32>,
    hits: Vec<Hit>,
}
