//! Customer sessions as a struct of arrays: the hot path.
//!
//! # One simulation step, in order
//! A session plays in a *lane* of the arrays. [`Sessions::open`] puts a new customer into lanes:
//!
//! 1. z: `latent` uniforms of (seed, session).
//! 2. generator(z): one softmax a field; each field is drawn with a uniform of its own. The
//!    customer is a code a field.
//! 3. The customer's one-hots enter two first layers as sums of table rows. The sum for the
//!    answering network is kept in the lane: it serves every page of the session.
//! 4. leave(customer): a softmax over page limits; the session's limit is drawn.
//!
//! [`Sessions::show`] shows one page (an action) to the customers in some lanes:
//!
//! 5. The kept sum + page number + action go through the answering network: two softmaxes.
//! 6. Clicks and the second head are drawn with two uniforms of (seed, session, page).
//! 7. Feedback, totals and page number move on; the session is over when the number of pages
//!    shown reaches the limit (Shi et al., AAAI 2019, as released in VirtualTB-v0).
//!
//! Lanes go through the networks a tile at a time. Results do not depend on which lanes share a
//! tile, since every row is computed by itself.

use crate::kernels::{Categorical, Kernels, TILE};
use crate::nn::Scratch;
use crate::rng::{LANES, Origin, Purpose};
use crate::simulator::{LARGEST_ACTION, Simulator};

/// Buffers of one thread, sized once for a simulator.
#[derive(Debug, Default)]
pub struct Workspace {
    scratch: Scratch,
    x: Vec<f32>,
    uniforms: Vec<f32>,
    drawn: Vec<u8>,
}

impl Workspace {
    fn reserve(&mut self, simulator: &Simulator) {
        let networks = [&simulator.generator, &simulator.answer, &simulator.leave];
        let widest = networks.iter().map(|network| network.widest()).max().unwrap_or(0);
        let tables = simulator.answer_table.width().max(simulator.leave_table.width());
        self.scratch.reserve(widest.max(tables));
        let inputs = [&simulator.generator, &simulator.answer, &simulator.leave];
        let inputs = inputs.iter().map(|network| network.inputs()).max().unwrap_or(0);
        let inputs = inputs.max(simulator.leave_table.width());
        let draws = simulator.field_heads.len().max(2);
        grow(&mut self.x, TILE * inputs);
        grow(&mut self.uniforms, TILE * draws);
        grow(&mut self.drawn, TILE * draws);
    }
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}

/// Whose customer [`Sessions::open`] draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The session's own customer: the lane starts a new session.
    Session,
    /// VirtualTB-v0's quirk: when a session is done, another customer takes the lane, with
    /// feedback wiped, but page number and totals as they were.
    Replacement,
}

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
    /// Clicks on the last page (the feedback that is observed).
    pub clicks: u8,
    /// Second head on the last page.
    pub second: u8,
    /// Pages after which the session ends.
    pub limit: u8,
}

impl Lane {
    /// Whether the session has reached its limit.
    pub fn over(&self) -> bool {
        self.page >= u32::from(self.limit)
    }
}

/// The sessions of some lanes.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// One entry a lane.
    pub lanes: Vec<Lane>,
    /// Field codes, `fields` a lane.
    customers: Vec<u8>,
    /// First-layer sums of the answering network, `width` a lane.
    sums: Vec<f32>,
    fields: usize,
    width: usize,
}

impl Sessions {
    /// Empty lanes; [`Self::open`] fills them.
    pub fn new(simulator: &Simulator, lanes: usize) -> Self {
        let (fields, width) = (simulator.schema.customer.len(), simulator.answer_table.width());
        Self {
            lanes: vec![Lane::default(); lanes],
            customers: vec![0; lanes * fields],
            sums: vec![0.0; lanes * width],
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
        workspace.reserve(simulator);
        for tile in lanes.chunks(TILE) {
            self.draw_customers(simulator, kernels, workspace, tile, arrival);
            for lane in tile {
                self.keep_sum(simulator, kernels, *lane);
            }
            self.draw_limits(simulator, kernels, workspace, tile, arrival);
            for lane in tile {
                let lane = &mut self.lanes[*lane];
                (lane.clicks, lane.second) = (0, 0);
                if arrival == Arrival::Session {
                    (lane.page, lane.total_clicks) = (0, 0);
                }
            }
        }
    }

    /// Steps 1 and 2.
    fn draw_customers(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        tile: &[usize],
        arrival: Arrival,
    ) {
        let (latent, fields) = (simulator.generator.inputs(), self.fields);
        let (for_latent, for_fields) = match arrival {
            Arrival::Session => (Purpose::Latent, Purpose::Fields),
            Arrival::Replacement => (Purpose::NextLatent, Purpose::NextFields),
        };
        for (row, lane) in tile.iter().enumerate() {
            let origin = self.origin(*lane, for_latent, arrival);
            kernels.uniforms(origin, &mut workspace.x[row * latent..][..latent]);
            let origin = Origin { purpose: for_fields, ..origin };
            kernels.uniforms(origin, &mut workspace.uniforms[row * fields..][..fields]);
        }
        let stride = simulator.generator.output_stride();
        let logits = simulator.generator.forward(
            kernels,
            tile.len(),
            &workspace.x,
            latent,
            &mut workspace.scratch,
        );
        kernels.categorical(Categorical {
            rows: tile.len(),
            logits,
            stride,
            heads: &simulator.field_heads,
            uniforms: &workspace.uniforms,
            out: &mut workspace.drawn,
        });
        for (lane, drawn) in tile.iter().zip(workspace.drawn.chunks(fields)) {
            self.customers[lane * fields..][..fields].copy_from_slice(drawn);
        }
    }

    /// Step 3, for the answering network.
    fn keep_sum(&mut self, simulator: &Simulator, kernels: Kernels, lane: usize) {
        let codes = &self.customers[lane * self.fields..][..self.fields];
        simulator.answer_table.sum(
            kernels,
            codes,
            &mut self.sums[lane * self.width..][..self.width],
        );
    }

    /// Step 4 (and step 3 for the leave network).
    fn draw_limits(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        tile: &[usize],
        arrival: Arrival,
    ) {
        let table = &simulator.leave_table;
        let width = table.width();
        // The table is the first layer and `leave` the rest, so the activation stands between.
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
        let stride = simulator.leave.output_stride();
        let rows = tile.len();
        let scratch = &mut workspace.scratch;
        let logits = simulator.leave.forward(kernels, rows, &workspace.x, width, scratch);
        kernels.categorical(Categorical {
            rows,
            logits,
            stride,
            heads: &simulator.leave_head,
            uniforms: &workspace.uniforms,
            out: &mut workspace.drawn,
        });
        for (lane, limit) in tile.iter().zip(&workspace.drawn) {
            self.lanes[*lane].limit = *limit;
        }
    }

    /// Shows one page to the customers in `lanes`. `action(row, lane)` is the action for
    /// `lanes[row]`; it must be finite and at most [`LARGEST_ACTION`] in magnitude.
    pub fn show<'a>(
        &mut self,
        simulator: &Simulator,
        kernels: Kernels,
        workspace: &mut Workspace,
        lanes: &[usize],
        action: impl Fn(usize, usize) -> &'a [f32],
    ) {
        workspace.reserve(simulator);
        let inputs = simulator.answer.inputs();
        for (index, tile) in lanes.chunks(TILE).enumerate() {
            // Step 5.
            let sums = workspace.scratch.sums();
            for (row, lane) in tile.iter().enumerate() {
                let width = self.width;
                sums[row * width..][..width].copy_from_slice(&self.sums[lane * width..][..width]);
                let x = &mut workspace.x[row * inputs..][..inputs];
                x[0] = self.lanes[*lane].page as f32 * simulator.config.response.page_scale;
                x[1..].copy_from_slice(action(index * TILE + row, *lane));
            }
            let rows = tile.len();
            let stride = simulator.answer.output_stride();
            let purpose = Purpose::Response;
            self.first_uniforms(
                kernels,
                tile,
                purpose,
                Arrival::Replacement,
                2,
                &mut workspace.uniforms,
            );
            let scratch = &mut workspace.scratch;
            let logits =
                simulator.answer.forward_from_sums(kernels, rows, &workspace.x, inputs, scratch);
            // Step 6.
            kernels.categorical(Categorical {
                rows,
                logits,
                stride,
                heads: &simulator.answer_heads,
                uniforms: &workspace.uniforms,
                out: &mut workspace.drawn,
            });
            // Step 7.
            for (lane, drawn) in tile.iter().zip(workspace.drawn.chunks(2)) {
                let lane = &mut self.lanes[*lane];
                (lane.clicks, lane.second) = (drawn[0], drawn[1]);
                lane.total_clicks = lane.total_clicks.saturating_add(drawn[0].into());
                lane.page = lane.page.saturating_add(1);
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
        for (head, code) in simulator.field_heads.iter().zip(self.customer(lane)) {
            out[head.first + usize::from(*code)] = 1.0;
        }
        let lane = &self.lanes[lane];
        out[width] = f32::from(lane.clicks);
        out[width + 1] = f32::from(lane.second);
        out[width + 2] = lane.page as f32;
    }

    /// Puts back a lane that was saved: its customer's sum is computed anew.
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
        self.keep_sum(simulator, kernels, lane);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use crate::testing;

    /// Plays three pages of sessions 0 to `count - 1`, in tiles as `order` lays the lanes out.
    fn play(kernels: Kernels, count: usize, order: &[usize]) -> Vec<(Lane, Vec<u8>, Vec<f32>)> {
        let simulator = testing::simulator(3);
        let mut sessions = Sessions::new(&simulator, count);
        for (session, lane) in sessions.lanes.iter_mut().enumerate() {
            (lane.seed, lane.session) = (11, session as u64);
        }
        let mut workspace = Workspace::default();
        sessions.open(&simulator, kernels, &mut workspace, order, Arrival::Session);
        let actions: Vec<f32> = (0..count * 5).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        for _ in 0..3 {
            let action = |_, lane: usize| &actions[lane * 5..][..5];
            sessions.show(&simulator, kernels, &mut workspace, order, action);
        }
        let width = simulator.schema.observation_width();
        let seen = |lane: usize| {
            let mut out = vec![0.0; width];
            sessions.observe(&simulator, lane, &mut out);
            (sessions.lanes[lane], sessions.customer(lane).to_vec(), out)
        };
        (0..count).map(seen).collect()
    }

    #[test]
    fn sessions_do_not_depend_on_company_order_or_instruction_set() {
        let count = 131;
        let forward: Vec<_> = (0..count).collect();
        let backward: Vec<_> = (0..count).rev().collect();
        let want = play(Kernels::of(Isa::Scalar).unwrap(), count, &forward);
        assert!(want.iter().any(|(lane, ..)| lane.total_clicks > 0));
        for isa in Isa::ALL {
            if let Ok(kernels) = Kernels::of(isa) {
                assert_eq!(play(kernels, count, &forward), want, "{isa:?}");
                assert_eq!(play(kernels, count, &backward), want, "{isa:?} backward");
                assert_eq!(play(kernels, 1, &[0])[..], want[..1], "{isa:?} alone");
            }
        }
    }

    #[test]
    fn a_replacement_changes_the_customer_but_not_the_count() {
        let simulator = testing::simulator(3);
        let kernels = Kernels::best().unwrap();
        let mut workspace = Workspace::default();
        let lanes: Vec<_> = (0..64).collect();
        let mut sessions = Sessions::new(&simulator, lanes.len());
        sessions.lanes.iter_mut().enumerate().for_each(|(i, lane)| lane.session = i as u64);
        sessions.open(&simulator, kernels, &mut workspace, &lanes, Arrival::Session);
        sessions.show(&simulator, kernels, &mut workspace, &lanes, |_, _| &[0.5; 5]);
        let before = sessions.clone();
        sessions.open(&simulator, kernels, &mut workspace, &lanes, Arrival::Replacement);
        for lane in 0..lanes.len() {
            let (old, new) = (before.lanes[lane], sessions.lanes[lane]);
            assert_eq!((old.page, old.total_clicks), (new.page, new.total_clicks));
            assert_eq!((new.clicks, new.second), (0, 0));
        }
        let changed =
            lanes.iter().filter(|l| before.customer(**l) != sessions.customer(**l)).count();
        assert!(changed > 32, "{changed} of 64 customers replaced");
    }
}
