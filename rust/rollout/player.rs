//! Playing one block of sessions on one thread.

use std::ops::Range;

use super::{Scene, Summary};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::logs::{Columns, Shape};
use crate::policy::{Actor, Buffers, Seen};
use crate::session::refused_value;
use crate::simulator::LARGEST_ACTION;

/// Who chooses the actions of a block.
pub enum Chooser<'a> {
    /// A native policy.
    Native(&'a Actor),
    /// A function of observations.
    Called(&'a mut dyn FnMut(Observed<'_>, &mut [f32]) -> Result<()>),
}

/// What a function that chooses actions is shown: one row a session that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Observations, row-major.
    pub observations: &'a [f32],
    /// Session numbers.
    pub sessions: &'a [i64],
    /// Page numbers, from 0.
    pub pages: &'a [i64],
}

/// The rows of a block in the order in which they were played.
#[derive(Debug, Default)]
struct Played {
    /// Rows; the columns below may be longer.
    rows: usize,
    slot: Vec<u32>,
    page: Vec<i16>,
    clicks: Vec<u8>,
    second: Vec<u8>,
    outcome: Vec<u8>,
    action: Vec<f32>,
    action_logp: Vec<f32>,
    /// The customer of each page, if they change within a session.
    customer: Vec<u8>,
    /// What only a store has.
    value: Vec<f32>,
    hour: Vec<f32>,
    items: Vec<u32>,
}

impl Played {
    /// Makes room for `rows` more rows; does nothing once the buffers are as large as a block.
    fn reserve(&mut self, rows: usize, shape: Shape, customers: bool) {
        let rows = self.rows + rows;
        if rows > self.slot.len() {
            let room = rows.next_power_of_two();
            self.slot.resize(room, 0);
            self.page.resize(room, 0);
            self.clicks.resize(room, 0);
            self.second.resize(room, 0);
            self.outcome.resize(room, 0);
            self.action.resize(room * shape.action, 0.0);
            self.action_logp.resize(room, 0.0);
            self.customer.resize(if customers { room * shape.fields } else { 0 }, 0);
            if shape.of_store() {
                self.value.resize(room, 0.0);
                self.hour.resize(room, 0.0);
                self.items.resize(room * shape.items, 0);
            }
        }
    }
}

/// Buffers of one thread, used for block after block.
#[derive(Debug)]
pub struct Player<'a, S: Scene> {
    scene: &'a S,
    kernels: Kernels,
    seed: u64,
    shape: Shape,
    lanes: usize,
    sessions: S::Sessions,
    workspace: S::Workspace,
    buffers: Buffers,
    /// Lanes whose session is under way, and those that a session enters.
    active: Vec<usize>,
    entering: Vec<usize>,
    played: Played,
    /// The customer of each session of the block, if they do not change.
    customers: Vec<u8>,
    lengths: Vec<u32>,
    /// What a callback is shown.
    observations: Vec<f32>,
    numbers: [Vec<i64>; 2],
    /// The block's rows, ordered.
    pub columns: Columns,
    /// The block's counts.
    pub summary: Summary,
}

impl<'a, S: Scene> Player<'a, S> {
    /// A player of `lanes` sessions side by side.
    pub fn new(scene: &'a S, kernels: Kernels, seed: u64, lanes: usize) -> Self {
        Self {
            scene,
            kernels,
            seed,
            shape: scene.shape(),
            lanes,
            sessions: scene.lanes(lanes),
            workspace: S::Workspace::default(),
            buffers: Buffers::default(),
            active: Vec::with_capacity(lanes),
            entering: Vec::with_capacity(lanes),
            played: Played::default(),
            customers: Vec::new(),
            lengths: Vec::new(),
            observations: Vec::new(),
            numbers: Default::default(),
            columns: Columns::default(),
            summary: Summary::default(),
        }
    }

    /// Pages of each session of the block.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Plays these sessions to their ends. After every step `go_on` hears how many pages were
    /// shown and how many sessions ended; its error ends the block.
    pub fn play(
        &mut self,
        chooser: &mut Chooser<'_>,
        sessions: Range<u64>,
        mut go_on: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let count = (sessions.end - sessions.start) as usize;
        self.played.rows = 0;
        if !S::CUSTOMERS_CHANGE {
            self.customers.resize(count * self.shape.fields, 0);
        }
        self.lengths.clear();
        self.lengths.resize(count, 0);
        self.entering.clear();
        self.entering.extend(0..self.lanes.min(count));
        self.active.clone_from(&self.entering);
        let mut next = sessions.start;
        while !self.active.is_empty() {
            next = self.enter(sessions.start, next);
            self.step(chooser, sessions.start)?;
            let pages = self.active.len();
            let over = self.advance(sessions.end - next);
            go_on(pages as u64, over as u64)?;
        }
        self.order(sessions.start);
        self.summary = Summary::of(&self.columns, &self.lengths);
        Ok(())
    }

    /// Keeps the first `sessions` sessions of the block that was played.
    pub fn cut(&mut self, sessions: usize) {
        self.lengths.truncate(sessions);
        let rows = self.lengths.iter().map(|length| *length as usize).sum();
        self.columns.resize(rows, self.shape);
        self.summary = Summary::of(&self.columns, &self.lengths);
    }

    /// Starts the sessions from `next` on in the lanes that they enter; returns the one after.
    fn enter(&mut self, first: u64, next: u64) -> u64 {
        let Self { scene, kernels, sessions, workspace, entering, .. } = self;
        scene.enter(sessions, *kernels, workspace, entering, self.seed, next);
        if !S::CUSTOMERS_CHANGE {
            let (seen, fields) = (scene.seen(sessions), self.shape.fields);
            for (slot, lane) in ((next - first) as usize..).zip(entering.iter()) {
                let customer = &mut self.customers[slot * fields..][..fields];
                customer.copy_from_slice(seen.customer(*lane));
            }
        }
        next + self.entering.len() as u64
    }

    /// Shows one page to every session under way and records it.
    fn step(&mut self, chooser: &mut Chooser<'_>, first: u64) -> Result<()> {
        let (rows, size) = (self.active.len(), self.shape.action);
        self.played.reserve(rows, self.shape, S::CUSTOMERS_CHANGE);
        let start = self.played.rows;
        self.choose(chooser, start)?;
        let Self { scene, kernels, sessions, workspace, active, played, .. } = self;
        let Shape { fields, items, .. } = self.shape;
        if S::CUSTOMERS_CHANGE {
            let seen = scene.seen(sessions);
            let rows = played.customer[start * fields..].chunks_mut(fields);
            rows.zip(active.iter())
                .for_each(|(row, lane)| row.copy_from_slice(seen.customer(*lane)));
        }
        let actions = &mut played.action[start * size..][..rows * size];
        let [low, high] = scene.place().schema.action_range;
        actions.iter_mut().for_each(|value| *value = value.clamp(low, high));
        scene.show(sessions, *kernels, workspace, active, actions)?;
        for (row, lane) in (start..).zip(active.iter()) {
            let page = scene.shown(sessions, *lane);
            let slot = (page.session - first) as usize;
            self.lengths[slot] += 1;
            played.slot[row] = slot as u32;
            played.page[row] = page.page as i16;
            played.clicks[row] = page.clicks;
            played.second[row] = page.second;
            played.outcome[row] = page.outcome;
            if items > 0 {
                played.value[row] = page.value;
                played.hour[row] = page.hour;
                played.items[row * items..][..items].copy_from_slice(scene.items(sessions, *lane));
            }
        }
        played.rows += rows;
        Ok(())
    }

    /// Fills in the actions from row `start` on.
    fn choose(&mut self, chooser: &mut Chooser<'_>, start: usize) -> Result<()> {
        let Self { scene, kernels, sessions, buffers, active, played, .. } = self;
        let size = self.shape.action;
        let actions = &mut played.action[start * size..][..active.len() * size];
        let densities = &mut played.action_logp[start..][..active.len()];
        let choose = match chooser {
            Chooser::Native(actor) => {
                actor.act(*kernels, buffers, &scene.seen(sessions), active, actions, densities);
                return Ok(());
            }
            Chooser::Called(choose) => choose,
        };
        let width = scene.place().observation_width;
        self.observations.clear();
        self.observations.resize(active.len() * width, 0.0);
        let seen = scene.seen(sessions);
        let [numbers, pages] = &mut self.numbers;
        numbers.clear();
        pages.clear();
        for (lane, row) in active.iter().zip(self.observations.chunks_mut(width)) {
            scene.observe(sessions, *lane, row);
            let origin = seen.origin(*lane);
            numbers.push(origin.session as i64);
            pages.push(i64::from(origin.page));
        }
        let observations = &self.observations;
        choose(Observed { observations, sessions: numbers, pages }, actions)?;
        densities.fill(0.0);
        if let Some(value) = refused_value(actions) {
            // The first such value's row, for the message.
            let is_it = |other: &f32| other.to_bits() == value.to_bits();
            let row = actions.iter().position(is_it).unwrap_or(0) / size;
            return Err(Error::Policy(format!(
                "expected finite actions within +-{LARGEST_ACTION:e}, got {value} for session {}, \
                 page {}",
                numbers[row], pages[row]
            )));
        }
        Ok(())
    }

    /// Lanes whose session is over are given to the block's next sessions, of which `left` are
    /// left, or drop out. Returns how many sessions ended.
    fn advance(&mut self, left: u64) -> usize {
        let Self { scene, sessions, active, entering, .. } = self;
        entering.clear();
        let mut over = 0;
        active.retain(|lane| {
            if !scene.over(sessions, *lane) {
                return true;
            }
            over += 1;
            let taken = (entering.len() as u64) < left;
            if taken {
                entering.push(*lane);
            }
            taken
        });
        over
    }

    /// Puts the rows into the order (session, page).
    fn order(&mut self, first: u64) {
        let Self { scene, shape, played, columns, customers, lengths, .. } = self;
        let Shape { fields, action, items } = *shape;
        columns.resize(played.rows, *shape);
        columns.day.fill(scene.day());
        let mut starts = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for (slot, length) in lengths.iter().enumerate() {
            starts.push(start as u32);
            let rows = start..start + *length as usize;
            columns.session[rows.clone()].fill((first + slot as u64) as i64);
            if !S::CUSTOMERS_CHANGE {
                let customer = &customers[slot * fields..][..fields];
                let rows = &mut columns.customer[rows.start * fields..rows.end * fields];
                rows.chunks_mut(fields).for_each(|row| row.copy_from_slice(customer));
            }
            start = rows.end;
        }
        for row in 0..played.rows {
            let page = played.page[row];
            let to = starts[played.slot[row] as usize] as usize + page as usize;
            columns.page[to] = page;
            columns.action_logp[to] = played.action_logp[row];
            columns.clicks[to] = played.clicks[row];
            columns.second[to] = played.second[row];
            columns.outcome[to] = played.outcome[row];
            columns.units[to] = u16::from(played.second[row]);
            let target = &mut columns.action[to * action..][..action];
            target.copy_from_slice(&played.action[row * action..][..action]);
            if S::CUSTOMERS_CHANGE {
                let target = &mut columns.customer[to * fields..][..fields];
                target.copy_from_slice(&played.customer[row * fields..][..fields]);
            }
            if items > 0 {
                columns.value[to] = played.value[row];
                columns.hour[to] = played.hour[row];
                let target = &mut columns.items[to * items..][..items];
                target.copy_from_slice(&played.items[row * items..][..items]);
            }
        }
    }
}
