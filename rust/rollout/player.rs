//! Playing one block of sessions on one thread.

use std::ops::Range;

use super::Summary;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::logs::{Columns, LEAVE, Shape, TURN};
use crate::policy::{Actor, Buffers};
use crate::session::{Arrival, Sessions, Workspace, refused_value};
use crate::simulator::{LARGEST_ACTION, Simulator};

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
    /// Observations, row-major (see [`Sessions::observe`]).
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
}

impl Played {
    /// Makes room for `rows` more rows; does nothing once the buffers are as large as a block.
    fn reserve(&mut self, rows: usize, action: usize) {
        let rows = self.rows + rows;
        if rows > self.slot.len() {
            let room = rows.next_power_of_two();
            self.slot.resize(room, 0);
            self.page.resize(room, 0);
            self.clicks.resize(room, 0);
            self.second.resize(room, 0);
            self.outcome.resize(room, 0);
            self.action.resize(room * action, 0.0);
            self.action_logp.resize(room, 0.0);
        }
    }
}

/// Buffers of one thread, used for block after block.
#[derive(Debug)]
pub struct Player<'a> {
    simulator: &'a Simulator,
    kernels: Kernels,
    seed: u64,
    shape: Shape,
    sessions: Sessions,
    workspace: Workspace,
    buffers: Buffers,
    /// Lanes whose session is under way, and those that a session enters.
    active: Vec<usize>,
    entering: Vec<usize>,
    played: Played,
    /// A row a session of the block.
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

impl<'a> Player<'a> {
    /// A player of `lanes` sessions side by side.
    pub fn new(simulator: &'a Simulator, kernels: Kernels, seed: u64, lanes: usize) -> Self {
        Self {
            simulator,
            kernels,
            seed,
            shape: Shape::from(&simulator.schema),
            sessions: Sessions::new(simulator, lanes),
            workspace: Workspace::default(),
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
        self.customers.resize(count * self.shape.fields, 0);
        self.lengths.clear();
        self.lengths.resize(count, 0);
        self.entering.clear();
        self.entering.extend(0..self.sessions.lanes.len().min(count));
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
        for (session, lane) in (next..).zip(&self.entering) {
            let lane = &mut self.sessions.lanes[*lane];
            (lane.seed, lane.session) = (self.seed, session);
        }
        let (kernels, workspace) = (self.kernels, &mut self.workspace);
        self.sessions.open(self.simulator, kernels, workspace, &self.entering, Arrival::Session);
        let fields = self.shape.fields;
        for (slot, lane) in ((next - first) as usize..).zip(&self.entering) {
            let customer = &mut self.customers[slot * fields..][..fields];
            customer.copy_from_slice(self.sessions.customer(*lane));
        }
        next + self.entering.len() as u64
    }

    /// Shows one page to every session under way and records it.
    fn step(&mut self, chooser: &mut Chooser<'_>, first: u64) -> Result<()> {
        let (rows, size) = (self.active.len(), self.shape.action);
        self.played.reserve(rows, size);
        let start = self.played.rows;
        self.choose(chooser, start)?;
        let Self { simulator, kernels, sessions, workspace, active, played, .. } = self;
        let actions = &mut played.action[start * size..][..rows * size];
        let [low, high] = simulator.schema.action_range;
        actions.iter_mut().for_each(|value| *value = value.clamp(low, high));
        let action = |row: usize, _| &actions[row * size..][..size];
        sessions.show(simulator, *kernels, workspace, active, action);
        for (row, lane) in (start..).zip(active.iter()) {
            let lane = &sessions.lanes[*lane];
            let slot = (lane.session - first) as usize;
            self.lengths[slot] += 1;
            played.slot[row] = slot as u32;
            played.page[row] = (lane.page - 1) as i16;
            played.clicks[row] = lane.clicks;
            played.second[row] = lane.second;
            played.outcome[row] = if lane.over() { LEAVE } else { TURN };
        }
        played.rows += rows;
        Ok(())
    }

    /// Fills in the actions from row `start` on.
    fn choose(&mut self, chooser: &mut Chooser<'_>, start: usize) -> Result<()> {
        let Self { simulator, kernels, sessions, buffers, active, played, .. } = self;
        let size = self.shape.action;
        let actions = &mut played.action[start * size..][..active.len() * size];
        let densities = &mut played.action_logp[start..][..active.len()];
        let choose = match chooser {
            Chooser::Native(actor) => {
                actor.act(*kernels, buffers, sessions, active, actions, densities);
                return Ok(());
            }
            Chooser::Called(choose) => choose,
        };
        let width = simulator.schema.observation_width();
        self.observations.resize(active.len() * width, 0.0);
        let [numbers, pages] = &mut self.numbers;
        numbers.clear();
        pages.clear();
        for (lane, row) in active.iter().zip(self.observations.chunks_mut(width)) {
            sessions.observe(simulator, *lane, row);
            numbers.push(sessions.lanes[*lane].session as i64);
            pages.push(i64::from(sessions.lanes[*lane].page));
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
        let Self { sessions, active, entering, .. } = self;
        entering.clear();
        let mut over = 0;
        active.retain(|lane| {
            if !sessions.lanes[*lane].over() {
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
        let Self { shape, played, columns, customers, lengths, .. } = self;
        let Shape { fields, action } = *shape;
        columns.resize(played.rows, *shape);
        let mut starts = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for (slot, length) in lengths.iter().enumerate() {
            starts.push(start as u32);
            let rows = start..start + *length as usize;
            columns.session[rows.clone()].fill((first + slot as u64) as i64);
            let customer = &customers[slot * fields..][..fields];
            for row in columns.customer[rows.start * fields..rows.end * fields].chunks_mut(fields) {
                row.copy_from_slice(customer);
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
        }
    }
}
