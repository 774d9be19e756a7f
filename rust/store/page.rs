//! Sessions in a store as a struct of arrays: the page loop.
//!
//! # One page, in order
//! A session plays in a *lane* of the arrays. [`Sessions::open`] puts a new customer into lanes:
//!
//! 1. The hour (if sessions have their own), the archetype and the customer's fields are drawn
//!    with uniforms of (seed, session, pages shown so far).
//!
//! [`Sessions::show`] shows one page (an action) to the customers in some lanes:
//!
//! 2. Lanes are taken query by query, so that those with the same candidates are scored together.
//! 3. `score = (w_base + action) x` for each candidate; items shown before are struck out unless
//!    they may be repeated; the ten best are the page, ties to the lower row.
//! 4. The model gives weights for buying each item, turning and leaving; the answer is drawn with
//!    a uniform of (seed, session, pages shown so far).
//! 5. Page number and feedback move on. Buying and leaving end the session, and so does a page
//!    number beyond the last, or too few items left; or another customer takes over, as the
//!    store's configuration says. A customer who turns the page may ask for something else.
//!
//! Results do not depend on which lanes are shown a page together: every lane is computed by
//! itself.

use super::customers::{FIELDS, QUERIES, QUERY_FIELD};
use super::draws::Draws;
use super::lane::{End, Lane};
use super::model::{CHOICES, DAY_SWING, LEAVE, TURN};
use super::view::Pages;
use super::{ATTRIBUTES, Hour, Leave, PAGE, Part, Store, draws};
use crate::error::{Error, Result};
use crate::kernels::TILE;
use crate::logs;
use crate::rng::{LANES, Purpose};

/// Columns of an observation after the customer: units bought on the last page, whether it was
/// turned, page number.
pub const TAIL: usize = 3;
/// A session is cut after so many pages, whatever its customers do: logs count with 16 bits. One
/// that nothing ends is in no log, and goes on.
pub const MOST_PAGES: u32 = 32_767;

/// Buffers of one thread, sized once for a store.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Places in `lanes` query by query.
    order: Vec<u32>,
    actions: Vec<f32>,
    weights: Vec<f32>,
    scores: Vec<f32>,
    positions: Vec<u32>,
    answers: Vec<[f64; CHOICES]>,
    arriving: Vec<usize>,
}

/// The sessions of some lanes.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// One entry a lane.
    pub lanes: Vec<Lane>,
    /// Field codes of each lane's customer.
    customers: Vec<[u8; FIELDS.len()]>,
    /// Rows of the items on each lane's last page.
    items: Vec<[u32; PAGE]>,
    /// The actions before the next one, newest first, `memory - 1` a lane.
    history: Vec<f32>,
    /// Which candidates were shown, a bit each, if items are not repeated.
    struck: Vec<u64>,
    memory: usize,
    words: usize,
}

impl Sessions {
    /// Empty lanes; [`Self::open`] fills them.
    pub fn new(store: &Store, lanes: usize) -> Self {
        let config = &store.config;
        let per_query = config.candidates.div_ceil(64);
        let words = match (config.repeat, config.new_request > 0.0) {
            (true, _) => 0,
            (false, false) => per_query,
            // A later request may ask for what was asked for before.
            (false, true) => per_query * QUERIES,
        };
        Self {
            lanes: vec![Lane::default(); lanes],
            customers: vec![[0; FIELDS.len()]; lanes],
            items: vec![[0; PAGE]; lanes],
            history: vec![0.0; lanes * (config.memory - 1) * ATTRIBUTES],
            struck: vec![0; lanes * words],
            memory: config.memory,
            words,
        }
    }

    /// The customer's field codes.
    pub fn customer(&self, lane: usize) -> &[u8] {
        &self.customers[lane]
    }

    /// Rows of the items on the last page.
    pub fn items(&self, lane: usize) -> &[u32; PAGE] {
        &self.items[lane]
    }

    /// The actions before the next one, newest first, `memory - 1` of them.
    pub fn history(&self, lane: usize) -> &[f32] {
        let width = (self.memory - 1) * ATTRIBUTES;
        &self.history[lane * width..][..width]
    }

    /// Bits of the candidates that were shown; empty if items may be repeated.
    pub fn struck(&self, lane: usize) -> &[u64] {
        &self.struck[lane * self.words..][..self.words]
    }

    /// The part of a lane's bits that is its query's.
    fn struck_of(&self, lane: usize, candidates: usize) -> std::ops::Range<usize> {
        let per_query = candidates.div_ceil(64);
        let query = usize::from(self.lanes[lane].query);
        let first = lane * self.words + if self.words > per_query { query * per_query } else { 0 };
        first..first + per_query
    }

    /// Bytes held per lane.
    pub fn bytes_per_lane(&self) -> usize {
        size_of::<Lane>()
            + size_of_val(&self.customers[0])
            + size_of_val(&self.items[0])
            + (self.memory - 1) * ATTRIBUTES * size_of::<f32>()
            + self.words * size_of::<u64>()
    }

    /// Puts the first customer of the session into lanes whose seed and session are set.
    pub fn open(&mut self, store: &Store, lanes: &[usize]) {
        for index in lanes {
            let Lane { seed, session, .. } = self.lanes[*index];
            self.lanes[*index] = Lane { seed, session, slot: PAGE as u8, ..Lane::default() };
            self.arrive(store, *index);
        }
    }

    /// Puts a new customer into a lane. The hour is the session's: only its first customer sets it.
    fn arrive(&mut self, store: &Store, index: usize) {
        let lane = &mut self.lanes[index];
        let mut source = Draws::new(lane.origin(Purpose::StoreCustomer));
        let uniform = source.uniform();
        if lane.shown == 0 {
            lane.hour = match store.config.hour {
                Hour::None => f32::NAN,
                Hour::At(hour) => hour as f32,
                Hour::Uniform => (24.0 * uniform) as f32,
            };
            lane.time_of_day = store.time_of_day(lane.hour);
        }
        let codes = &mut self.customers[index];
        lane.archetype = store.customers.draw(&mut source, codes);
        lane.query = codes[QUERY_FIELD];
        (lane.page, lane.bought, lane.turned) = (0, 0, 0);
        let width = (self.memory - 1) * ATTRIBUTES;
        self.history[index * width..][..width].fill(0.0);
        self.struck[index * self.words..][..self.words].fill(0);
    }

    /// Shows one page to the customers in `lanes`. `action(row, lane)` is the action for
    /// `lanes[row]`, finite and within the box.
    ///
    /// # Errors
    /// Those of the model; some of the customers may then have been shown their page.
    pub fn show<'a>(
        &mut self,
        store: &Store,
        workspace: &mut Workspace,
        lanes: &[usize],
        action: impl Fn(usize, usize) -> &'a [f32],
    ) -> Result<()> {
        // Step 2: a counting sort by query.
        let mut starts = [0_u32; QUERIES + 1];
        for lane in lanes {
            starts[usize::from(self.lanes[*lane].query) + 1] += 1;
        }
        for query in 0..QUERIES {
            starts[query + 1] += starts[query];
        }
        let ends = starts;
        workspace.order.resize(lanes.len(), 0);
        for (place, lane) in lanes.iter().enumerate() {
            let next = &mut starts[usize::from(self.lanes[*lane].query)];
            workspace.order[*next as usize] = place as u32;
            *next += 1;
        }
        workspace.arriving.clear();
        let order = std::mem::take(&mut workspace.order);
        let outcome = (0..QUERIES).try_for_each(|query| {
            let places = &order[ends[query] as usize..ends[query + 1] as usize];
            places
                .chunks(TILE)
                .try_for_each(|tile| self.show_tile(store, workspace, lanes, tile, query, &action))
        });
        workspace.order = order;
        outcome?;
        for lane in &workspace.arriving {
            self.arrive(store, *lane);
        }
        Ok(())
    }

    /// Steps 3 to 5 for customers of one query.
    fn show_tile<'a>(
        &mut self,
        store: &Store,
        workspace: &mut Workspace,
        lanes: &[usize],
        places: &[u32],
        query: usize,
        action: &impl Fn(usize, usize) -> &'a [f32],
    ) -> Result<()> {
        let Workspace { actions, weights, scores, positions, answers, arriving, .. } = workspace;
        let (rows, shelf, kernels) = (places.len(), &store.shelves[query], store.kernels());
        let stride = shelf.packed.stride();
        actions.resize(TILE * ATTRIBUTES, 0.0);
        weights.resize(TILE * ATTRIBUTES, 0.0);
        positions.resize(TILE * PAGE, 0);
        answers.resize(TILE, [0.0; CHOICES]);
        if scores.len() < TILE * stride {
            scores.resize(TILE * stride, 0.0);
        }
        // Step 3.
        for (row, place) in places.iter().enumerate() {
            let action = action(*place as usize, lanes[*place as usize]);
            actions[row * ATTRIBUTES..][..ATTRIBUTES].copy_from_slice(action);
        }
        let sums = weights.chunks_exact_mut(ATTRIBUTES).zip(actions.chunks_exact(ATTRIBUTES));
        for (weights, actions) in sums.take(rows) {
            for dimension in 0..ATTRIBUTES {
                weights[dimension] = store.production[dimension] + actions[dimension];
            }
        }
        shelf.packed.score(kernels, rows, weights, scores);
        if self.words > 0 {
            for (scores, place) in scores.chunks_mut(stride).zip(places) {
                let bits = self.struck_of(lanes[*place as usize], store.config.candidates);
                strike_out(&self.struck[bits], scores);
            }
        }
        let mut each: [&[f32]; TILE] = [&[]; TILE];
        each.iter_mut().zip(scores.chunks(stride)).for_each(|(each, scores)| *each = scores);
        kernels.select(&each[..rows], &mut positions[..rows * PAGE]);
        // Step 4.
        let answers = &mut answers[..rows];
        let pages = Pages { store, sessions: self, lanes, places, positions, actions };
        store.model.answer(&pages, answers)?;
        let mut uniforms = [[0.0; LANES]; 4];
        for (group, places) in places.chunks(LANES).enumerate() {
            let origin =
                |place: &u32| self.lanes[lanes[*place as usize]].origin(Purpose::StoreAnswer);
            let mut origins = [origin(&places[0]); LANES];
            for (to, place) in origins.iter_mut().zip(places) {
                *to = origin(place);
            }
            kernels.first_uniforms(&origins[..places.len()], &mut uniforms);
            for (lane, place) in places.iter().enumerate() {
                let row = group * LANES + lane;
                let drawn = [0, 1, 2, 3].map(|word| uniforms[word][lane]);
                let choice = choose(&answers[row], drawn[0], drawn[1], store)?;
                let page = &positions[row * PAGE..][..PAGE];
                let action = &actions[row * ATTRIBUTES..][..ATTRIBUTES];
                let index = lanes[*place as usize];
                if self.answered(store, index, choice, page, action, [drawn[2], drawn[3]]) {
                    arriving.push(index);
                }
            }
        }
        Ok(())
    }

    /// Step 5; returns whether another customer takes over.
    fn answered(
        &mut self,
        store: &Store,
        index: usize,
        choice: usize,
        page: &[u32],
        action: &[f32],
        drawn: [f32; 2],
    ) -> bool {
        let config = &store.config;
        let shelf = &store.shelves[usize::from(self.lanes[index].query)];
        for (item, position) in self.items[index].iter_mut().zip(page) {
            *item = shelf.rows[*position as usize];
        }
        if self.memory > 1 {
            let width = (self.memory - 1) * ATTRIBUTES;
            let history = &mut self.history[index * width..][..width];
            history.copy_within(..width - ATTRIBUTES, ATTRIBUTES);
            history[..ATTRIBUTES].copy_from_slice(action);
        }
        if self.words > 0 {
            let bits = self.struck_of(index, config.candidates);
            let bits = &mut self.struck[bits];
            page.iter().for_each(|p| bits[*p as usize / 64] |= 1 << (p % 64));
        }
        let lane = &mut self.lanes[index];
        lane.shown = lane.shown.wrapping_add(1);
        lane.page += 1;
        (lane.bought, lane.turned, lane.cents, lane.slot) = (0, 0, 0, PAGE as u8);
        match choice {
            TURN => {
                lane.turned = 1;
                lane.outcome = logs::TURN;
            }
            LEAVE => lane.outcome = logs::LEAVE,
            slot => {
                (lane.bought, lane.slot, lane.outcome) = (1, slot as u8, logs::BUY);
                lane.cents = shelf.cents[page[slot] as usize];
                lane.buys += 1;
            }
        }
        if choice == TURN {
            // A 24-bit uniform is never 1, so a probability of 1 always holds.
            if f64::from(drawn[0]) < config.new_request {
                let request = store.customers.request(lane.archetype, f64::from(drawn[1]));
                lane.query = request;
                self.customers[index][QUERY_FIELD] = request;
            }
            let more = lane.page <= config.max_index && self.left(store, index) >= PAGE;
            let lane = &mut self.lanes[index];
            if more && (config.continuing || lane.shown < MOST_PAGES) {
                return false;
            }
            lane.outcome = logs::MAX_PAGES;
            if !config.continuing {
                lane.end = End::Truncated;
            }
        } else if !(config.continuing || choice == LEAVE && config.leave == Leave::Respawn) {
            lane.end = End::Terminated;
        } else if lane.shown >= MOST_PAGES && !config.continuing {
            (lane.end, lane.outcome) = (End::Truncated, logs::MAX_PAGES);
        }
        !self.lanes[index].over()
    }

    /// Candidates that were not shown yet.
    fn left(&self, store: &Store, index: usize) -> usize {
        let query = usize::from(self.lanes[index].query);
        let count = store.shelves[query].rows.len();
        if self.words == 0 {
            return count;
        }
        let bits = &self.struck[self.struck_of(index, store.config.candidates)];
        count - bits.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// Writes the observation of a lane into zeros.
    pub fn observe_into_zeros(&self, store: &Store, index: usize, out: &mut [f32]) {
        let mut first = 0;
        for (code, size) in self.customer(index).iter().zip(FIELDS) {
            out[first + usize::from(*code)] = 1.0;
            first += size;
        }
        let tail = self.tail(store, index);
        out[first..first + TAIL].copy_from_slice(&tail);
        out[first + TAIL..].copy_from_slice(self.history(index));
    }

    /// The columns of an observation after the customer: units bought on the last page, whether it
    /// was turned, page number; zeros for what the store does not let be seen.
    pub fn tail(&self, store: &Store, index: usize) -> [f32; TAIL] {
        let (lane, config) = (&self.lanes[index], &store.config);
        let seen = |value: f32, visible: bool| if visible { value } else { 0.0 };
        [
            seen(f32::from(lane.bought), config.observe_feedback),
            seen(f32::from(lane.turned), config.observe_feedback),
            seen(lane.page as f32, config.observe_page),
        ]
    }

    /// Whether the candidates that a saved lane was shown are such as its session can go on with.
    pub fn struck_fits(&self, store: &Store, saved: &Saved) -> bool {
        if self.words == 0 {
            return true;
        }
        let per_query = store.config.candidates.div_ceil(64);
        let own = if self.words > per_query { usize::from(saved.lane.query) } else { 0 };
        saved.struck.chunks(per_query).enumerate().all(|(index, bits)| {
            let query = if self.words > per_query { index } else { saved.lane.query.into() };
            let count = store.shelves[query].rows.len();
            let beyond = bits.iter().enumerate().any(|(word, bits)| {
                let inside = count.saturating_sub(64 * word).min(64);
                inside < 64 && bits >> inside != 0
            });
            let left =
                count as u32 - bits.iter().map(|b| b.count_ones()).sum::<u32>().min(count as u32);
            !beyond && (index != own || saved.lane.over() || left as usize >= PAGE)
        })
    }

    /// Puts back a lane that was saved, with what belongs to it. All lengths and codes are valid.
    pub fn restore(&mut self, index: usize, saved: Saved) {
        self.lanes[index] = saved.lane;
        self.customers[index] = saved.customer;
        self.items[index] = saved.items;
        let width = (self.memory - 1) * ATTRIBUTES;
        self.history[index * width..][..width].copy_from_slice(&saved.history);
        self.struck[index * self.words..][..self.words].copy_from_slice(&saved.struck);
    }
}

/// A lane with all that belongs to it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "see Sessions")]
pub struct Saved {
    pub lane: Lane,
    pub customer: [u8; FIELDS.len()],
    pub items: [u32; PAGE],
    pub history: Vec<f32>,
    pub struck: Vec<u64>,
}

/// Takes the scores of candidates that were shown out of the running.
fn strike_out(bits: &[u64], scores: &mut [f32]) {
    for (word, scores) in bits.iter().zip(scores.chunks_mut(64)) {
        let mut left = *word;
        while left != 0 {
            scores[left.trailing_zeros() as usize] = f32::NEG_INFINITY;
            left &= left - 1;
        }
    }
}

/// Draws an answer by inverting the cumulative weights, with a uniform of 48 bits in two parts.
fn choose(weights: &[f64; CHOICES], high: f32, low: f32, store: &Store) -> Result<usize> {
    let mut cumulative = [0.0; CHOICES];
    let (mut total, mut least) = (0.0, 0.0_f64);
    for (sum, weight) in cumulative.iter_mut().zip(weights) {
        total += weight;
        least = least.min(*weight);
        *sum = total;
    }
    if !(total > 0.0 && total < f64::INFINITY && least >= 0.0) {
        let expected = "weights of at least 0, finite, not all 0";
        let reason = format!("{:?}: expected {expected}, got {weights:?}", store.model.name());
        return Err(Error::Model { reason, source: None });
    }
    let uniform = f64::from(high) + f64::from(low) * (1.0 / 16_777_216.0);
    let threshold = uniform * total;
    Ok(cumulative[..CHOICES - 1].iter().map(|sum| usize::from(*sum <= threshold)).sum())
}

impl Store {
    /// What an hour multiplies the weight of buying by; 1 if it is not a number.
    pub fn time_of_day(&self, hour: f32) -> f64 {
        if hour.is_nan() {
            return 1.0;
        }
        let turn = std::f64::consts::TAU * (f64::from(hour) - self.phase) / 24.0;
        libm::exp(DAY_SWING * libm::sin(turn))
    }
}

/// The hour at which buying crosses its mean on the way up: `h0`.
pub(super) fn phase(seed: u64) -> f64 {
    24.0 * draws(seed, Part::Phase, 0).uniform()
}
