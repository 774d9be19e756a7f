//! Customer sessions as a struct of arrays: the hot path.
//!
//! # One simulation step, in order
//! A session plays in a *lane* of the arrays. [`Sessions::open`] puts a new customer into lanes:
//!
//! 1. The customer is drawn, a code a field, by the simulator's sampler
//!    ([`Customers`](crate::simulator::Customers)): a network from noise, a mixture, rows of a
//!    table, or one field after the other.
//! 2. What the customer's one-hots add to the answers is summed and kept in the lane: it serves
//!    every page of the session.
//! 3. The page limit. If sessions end by a limit drawn once, the customer's one-hots go through a
//!    network of its own and the limit is drawn. Else it is the same for all.
//!
//! [`Sessions::show`] shows one page (an action) to the customers in some lanes:
//!
//! 4. What was kept + page number + action go through the answering network
//!    ([`Response`](crate::simulator::Response)): a softmax a head.
//! 5. One uniform of (seed, session, page) draws each head: clicks and the second head, and where
//!    leaving is drawn on every page, whether the customer leaves; or turn, buy or leave at once.
//! 6. Feedback, totals and page number move on. The session is over when the customer has bought
//!    or left, or when the number of pages shown reaches the limit. (With a limit drawn once that
//!    is the customer's leaving: Shi et al., AAAI 2019, as released in VirtualTB-v0.)
//!
//! Lanes go through the networks a tile at a time. Results do not depend on which lanes share a
//! tile, since every row is computed by itself.

#[cfg(test)]
mod tests;

use crate::kernels::{Categorical, Kernels, TILE};
use crate::logs::{BUY, LEAVE, MAX_PAGES, TURN};
use crate::rng::{LANES, Origin, Purpose};
use crate::simulator::{LARGEST_ACTION, Leave, Limits, Shown, Simulator};

pub use crate::simulator::{Arrival, Workspace};

/// What a lane's session is, beyond its customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lane {
    /// Seed of the stream.
    pub seed: u64,
    /// Session number within the stream.
    pub session: u64,
    /// Pages shown so far in this session.
    pub page: u32,
    /// Clicks so far in this session.
    pub total_clicks: u32,
    /// Pages after which the session ends.
    pub limit: u16,
    /// Clicks on the last page as observed: 1 for a purchase where answers are outcomes.
    pub clicks: u8,
    /// Second head on the last page as observed: where answers are outcomes, whether the customer
    /// turned it.
    pub second: u8,
    /// How the last page ended: a code of [`crate::logs::OUTCOMES`].
    pub outcome: u8,
}

impl Lane {
    /// Whether the page shown last was the session's last.
    pub fn over(&self) -> bool {
        self.outcome != TURN
    }

    /// Units bought on the last page, as far as known.
    pub fn units(&self, simulator: &Simulator) -> u8 {
        if simulator.config.answers_outcome() { self.clicks } else { self.second }
    }

    /// Whether the session ended although the customer would have gone on.
    pub fn truncated(&self) -> bool {
        self.outcome == MAX_PAGES
    }
}

/// The sessions of some lanes.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// One entry a lane.
    pub lanes: Vec<Lane>,
    /// Field codes, `fields` a lane.
    customers: Vec<u8>,
    /// What is kept of each customer for the answers, `width` a lane.
    kept: Vec<f32>,
    fields: usize,
    width: usize,
}

impl Sessions {
    /// Empty lanes; [`Self::open`] fills them.
    pub fn new(simulator: &Simulator, lanes: usize) -> Self {
        let (fields, width) = (simulator.customers.fields(), simulator.response.kept_width());
        Self {
            lanes: vec![Lane::default(); lanes],
            customers: vec![0; lanes * fields],
            kept: vec![0.0; lanes * width],
            fields,
            width,
        }
    }

    /// The customer's field codes.
    pub fn customer(&self, lane: usize) -> &[u8] {
        &self.customers[lane * self.fields..][..self.fields]
    }

    /// Bytes held per lane.
    pub fn bytes_per_lane(&self) -> usize {
        size_of::<Lane>() + self.fields + self.width * size_of::<f32>()
    }

    /// Draws customers and page limits for lanes whose seed and session are set.
    pub fn open(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        lanes: &[usize],
        arrival: Arrival,
    ) {
        simulator.reserve(workspace);
        for tile in lanes.chunks(TILE) {
            self.draw_customers(simulator, kernels, workspace, tile, arrival);
            for lane in tile {
                self.keep(simulator, kernels, *lane);
            }
            match &simulator.leave {
                Leave::Once(limits) => {
                    self.draw_limits(simulator, limits, kernels, workspace, tile, arrival);
                }
                Leave::Hazard(longest) => {
                    tile.iter().for_each(|lane| self.lanes[*lane].limit = *longest);
                }
            }
            for lane in tile {
                let lane = &mut self.lanes[*lane];
                (lane.clicks, lane.second, lane.outcome) = (0, 0, TURN);
                if arrival == Arrival::Session {
                    (lane.page, lane.total_clicks) = (0, 0);
                }
            }
        }
    }

    /// Step 1.
    fn draw_customers(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        tile: &[usize],
        arrival: Arrival,
    ) {
        let fields = self.fields;
        let mut origins = [self.origin(tile[0], Purpose::Customer, arrival); TILE];
        for (origin, lane) in origins.iter_mut().zip(tile) {
            *origin = self.origin(*lane, Purpose::Customer, arrival);
        }
        simulator.customers.draw(kernels, workspace, &origins[..tile.len()], arrival);
        for (lane, drawn) in tile.iter().zip(workspace.drawn.chunks(fields)) {
            self.customers[lane * fields..][..fields].copy_from_slice(drawn);
        }
    }

    /// Step 2.
    fn keep(&mut self, simulator: &Simulator, kernels: Kernels, lane: usize) {
        let codes = &self.customers[lane * self.fields..][..self.fields];
        let kept = &mut self.kept[lane * self.width..][..self.width];
        simulator.response.keep(kernels, codes, kept);
    }

    /// Step 3, for limits that are drawn.
    fn draw_limits(
        &mut self,
        simulator: &Simulator,
        limits: &Limits,
        kernels: Kernels,
        workspace: &mut Workspace,
        tile: &[usize],
        arrival: Arrival,
    ) {
        let Limits { table, rest, head } = limits;
        let width = table.width();
        // The table is the first layer and `rest` the others, so the activation stands between.
        for (row, lane) in tile.iter().enumerate() {
            table.sum_activated(
                kernels,
                self.customer(*lane),
                simulator.config.slope,
                &mut workspace.x[row * width..][..width],
            );
        }
        let purpose = match arrival {
            Arrival::Session => Purpose::Leave,
            Arrival::Replacement => Purpose::NextLeave,
        };
        self.first_uniforms(kernels, tile, purpose, arrival, 1, &mut workspace.uniforms);
        let rows = tile.len();
        let logits = rest.forward(kernels, rows, &workspace.x, width, &mut workspace.scratch);
        kernels.categorical(Categorical {
            rows,
            logits,
            stride: rest.output_stride(),
            heads: head,
            uniforms: &workspace.uniforms,
            out: &mut workspace.drawn,
        });
        for (lane, limit) in tile.iter().zip(&workspace.drawn) {
            self.lanes[*lane].limit = u16::from(*limit);
        }
    }

    /// Shows one page to the customers in `lanes`. `action(row, lane)` is the action for
    /// `lanes[row]`; it must be finite and at most [`LARGEST_ACTION`] in magnitude. `expected`, if
    /// there is one, is told what the page of each row was worth before its answer was drawn: the
    /// probability of a purchase, or the expected clicks.
    pub fn show<'a>(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        lanes: &[usize],
        action: impl Fn(usize, usize) -> &'a [f32],
        mut expected: Option<&mut [f64]>,
    ) {
        simulator.reserve(workspace);
        let response = &simulator.response;
        let (heads, stride, width) = (response.heads(), response.logit_stride(), self.width);
        let hazard = simulator.config.ends_by_hazard();
        let answers_outcome = simulator.config.answers_outcome();
        for (index, tile) in lanes.chunks(TILE).enumerate() {
            let rows = tile.len();
            let page = Arrival::Replacement;
            let uniforms = &mut workspace.uniforms;
            self.first_uniforms(kernels, tile, Purpose::Response, page, heads.len(), uniforms);
            // Step 4.
            let shown = |row: usize| Shown {
                kept: &self.kept[tile[row] * width..][..width],
                page: self.lanes[tile[row]].page,
                action: action(index * TILE + row, tile[row]),
            };
            let Workspace { x, scratch, uniforms, drawn } = workspace;
            let logits = response.logits(kernels, rows, shown, x, scratch);
            // Step 5.
            kernels.categorical(Categorical { rows, logits, stride, heads, uniforms, out: drawn });
            if let Some(expected) = &mut expected {
                response.probabilities(kernels, rows, logits);
                let expected = expected[index * TILE..].iter_mut();
                for (expected, chances) in expected.zip(logits.chunks(stride)).take(rows) {
                    *expected = response.expected(chances);
                }
            }
            // Step 6.
            for (lane, drawn) in tile.iter().zip(drawn.chunks(heads.len())) {
                let lane = &mut self.lanes[*lane];
                lane.outcome = if answers_outcome {
                    let outcome = drawn[0];
                    (lane.clicks, lane.second) =
                        ((outcome == BUY).into(), (outcome == TURN).into());
                    outcome
                } else {
                    (lane.clicks, lane.second) = (drawn[0], drawn[1]);
                    if hazard && drawn[2] == 1 { LEAVE } else { TURN }
                };
                lane.total_clicks = lane.total_clicks.saturating_add(lane.clicks.into());
                lane.page = lane.page.saturating_add(1);
                if lane.outcome == TURN && lane.page >= u32::from(lane.limit) {
                    lane.outcome = if hazard { MAX_PAGES } else { LEAVE };
                }
            }
        }
    }

    /// Writes the observation of a lane: customer one-hot, last clicks, last second head, page.
    pub fn observe(&self, simulator: &Simulator, lane: usize, out: &mut [f32]) {
        out.fill(0.0);
        self.observe_into_zeros(simulator, lane, out);
    }

    /// The same for an `out` that holds zeros.
    pub fn observe_into_zeros(&self, simulator: &Simulator, lane: usize, out: &mut [f32]) {
        let width = out.len() - 3;
        for (head, code) in simulator.customers.heads().iter().zip(self.customer(lane)) {
            out[head.first + usize::from(*code)] = 1.0;
        }
        let lane = &self.lanes[lane];
        out[width] = f32::from(lane.clicks);
        out[width + 1] = f32::from(lane.second);
        out[width + 2] = lane.page as f32;
    }

    /// Puts back a lane that was saved: what is kept of its customer is computed anew.
    pub fn restore(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        lane: usize,
        saved: Lane,
        customer: &[u8],
    ) {
        self.lanes[lane] = saved;
        self.customers[lane * self.fields..][..self.fields].copy_from_slice(customer);
        self.keep(simulator, kernels, lane);
    }

    /// Draws of a session are counted at page 0, those of a page or a replacement at the page.
    fn origin(&self, lane: usize, purpose: Purpose, arrival: Arrival) -> Origin {
        let Lane { seed, session, page, .. } = self.lanes[lane];
        let page = if arrival == Arrival::Session { 0 } else { page };
        Origin { seed, session, page, purpose }
    }

    /// The first `words` (at most 4) uniforms of every lane, `words` a row.
    fn first_uniforms(
        &self,
        kernels: Kernels,
        tile: &[usize],
        purpose: Purpose,
        arrival: Arrival,
        words: usize,
        out: &mut [f32],
    ) {
        let mut drawn = [[0.0; LANES]; 4];
        for (lanes, out) in tile.chunks(LANES).zip(out.chunks_mut(LANES * words)) {
            let mut origins = [self.origin(lanes[0], purpose, arrival); LANES];
            for (origin, lane) in origins.iter_mut().zip(lanes) {
                *origin = self.origin(*lane, purpose, arrival);
            }
            kernels.first_uniforms(&origins[..lanes.len()], &mut drawn);
            for (lane, out) in out.chunks_mut(words).take(lanes.len()).enumerate() {
                for (word, out) in out.iter_mut().enumerate() {
                    *out = drawn[word][lane];
                }
            }
        }
    }
}

/// The first value of some actions that no network may see, if there is one: they are finite, and
/// at most [`LARGEST_ACTION`] in magnitude.
pub fn refused_value(actions: &[f32]) -> Option<f32> {
    let fits = |value: f32| value.abs() <= LARGEST_ACTION;
    // The usual case first, without an early exit: such a loop becomes vector code.
    if actions.iter().fold(true, |all, value| all & fits(*value)) {
        return None;
    }
    actions.iter().copied().find(|value| !fits(*value))
}
