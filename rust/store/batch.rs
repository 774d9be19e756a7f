//! Environments side by side in a store: the rules of an episode on top of the page loop.
//!
//! One step of a batch goes as in [`crate::batch`]: every action is checked before anything
//! changes; environments whose session ended before start their next one (with
//! [`Autoreset::NextStep`]) and ignore the action; all others show a page; rewards; ends of
//! sessions; observations. How environments are cut into chunks, and the number of threads, change
//! no result.

mod state;

use std::cell::RefCell;
use std::sync::Arc;

use super::counters::Counters;
use super::lane::{End, Lane};
use super::page::{Sessions, Workspace};
use super::{ATTRIBUTES, PAGE, Store};
use crate::batch::actions::executed;
use crate::batch::checks::{check_batch, check_reset, check_step, layout};
use crate::batch::turns::{Numbered, Turns};
use crate::batch::{Anc, Autoreset, Phase};
use crate::error::Result;
use crate::parallel;

/// Environments of a chunk at most. More share a query than in smaller ones, and so are scored
/// together.
const MOST_LANES: usize = 1024;

/// What a page is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reward {
    /// 1 if the customer buys, else 0.
    Buy,
    /// The price of what is bought.
    Value,
}

/// The rules of an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// When the next session starts.
    pub autoreset: Autoreset,
    /// The raw reward.
    pub reward: Reward,
    /// The action norm constraint, if any.
    pub anc: Option<Anc>,
}

/// What a step returns; one entry an environment unless said otherwise.
#[derive(Debug, Default)]
pub struct Step {
    /// Observations, `observation_width` an environment.
    pub observations: Vec<f32>,
    /// Rewards, shaped.
    pub rewards: Vec<f64>,
    /// Whether the customer bought or left.
    pub terminated: Vec<bool>,
    /// Whether there are no more pages for a customer who would have gone on.
    pub truncated: Vec<bool>,
    /// Rows of the page's items, [`PAGE`] an environment.
    pub items: Vec<i64>,
    /// Which of the slots was bought, -1 if none.
    pub slots: Vec<i64>,
    /// How the page ended (codes of [`crate::logs::OUTCOMES`]).
    pub outcomes: Vec<i64>,
    /// Units bought.
    pub units: Vec<i64>,
    /// Price of what was bought.
    pub values: Vec<f64>,
    /// Pages shown so far in the session.
    pub pages: Vec<i64>,
    /// Purchases of the session so far by pages shown so far.
    pub r2p: Vec<f64>,
    /// Rewards before shaping.
    pub raw_rewards: Vec<f64>,
    /// Whether the action was clipped.
    pub clipped: Vec<bool>,
    /// Whether a page was shown: not where a session has just started in its place.
    pub shown: Vec<bool>,
    /// With [`Autoreset::SameStep`]: the environments whose session ended, ascending.
    pub finished: Vec<i64>,
    /// Their last observations, `observation_width` each.
    pub final_observations: Vec<f32>,
}

#[derive(Clone, Debug)]
struct Chunk {
    first: usize,
    sessions: Sessions,
    phases: Vec<Phase>,
    counters: Counters,
}

/// A chunk's share of a [`Step`].
struct Share<'a> {
    chunk: &'a mut Chunk,
    actions: &'a [f32],
    observations: &'a mut [f32],
    rewards: &'a mut [f64],
    terminated: &'a mut [bool],
    truncated: &'a mut [bool],
    items: &'a mut [i64],
    slots: &'a mut [i64],
    outcomes: &'a mut [i64],
    units: &'a mut [i64],
    values: &'a mut [f64],
    pages: &'a mut [i64],
    r2p: &'a mut [f64],
    raw_rewards: &'a mut [f64],
    clipped: &'a mut [bool],
    shown: &'a mut [bool],
}

/// Buffers of a thread.
#[derive(Default)]
struct Local {
    workspace: Workspace,
    turns: Turns,
    executed: Vec<f32>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// Calls `work` with the thread's buffers, or with fresh ones if they are in use: a customer model
/// may itself play in a store.
fn with_local<T>(work: impl FnOnce(&mut Local) -> T) -> T {
    LOCAL.with(|local| match local.try_borrow_mut() {
        Ok(mut local) => work(&mut local),
        Err(_) => work(&mut Local::default()),
    })
}

impl Numbered for Lane {
    fn number(&mut self) -> (&mut u64, &mut u64) {
        (&mut self.seed, &mut self.session)
    }
}

/// Environments of a store that step together.
#[derive(Clone, Debug)]
pub struct StoreBatch {
    store: Arc<Store>,
    rules: Rules,
    threads: usize,
    chunk_lanes: usize,
    chunks: Vec<Chunk>,
    num_envs: usize,
}

impl StoreBatch {
    /// A batch that has to be reset before it steps.
    pub fn new(
        store: Arc<Store>,
        num_envs: usize,
        threads: Option<usize>,
        rules: Rules,
    ) -> Result<Self> {
        check_batch(num_envs, rules.anc)?;
        let (threads, chunk_lanes) = layout(num_envs, threads, MOST_LANES)?;
        let chunk = |first: usize| {
            let lanes = chunk_lanes.min(num_envs - first);
            let phases = vec![Phase::New; lanes];
            let sessions = Sessions::new(&store, lanes);
            Chunk { first, sessions, phases, counters: Counters::default() }
        };
        let chunks = (0..num_envs).step_by(chunk_lanes).map(chunk).collect();
        Ok(Self { rules, threads, chunk_lanes, chunks, num_envs, store })
    }

    /// The store that all sessions play in.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Number of environments.
    pub fn num_envs(&self) -> usize {
        self.num_envs
    }

    /// Threads that a step uses.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes held for each environment.
    pub fn bytes_per_session(&self) -> usize {
        self.chunks[0].sessions.bytes_per_lane() + size_of::<Phase>()
    }

    /// Columns of an observation.
    pub fn observation_width(&self) -> usize {
        self.store.observation_width()
    }

    fn phases(&self) -> impl Iterator<Item = Phase> {
        self.chunks.iter().flat_map(|chunk| chunk.phases.iter().copied())
    }

    /// Starts sessions in the environments of `mask` (all, without one): session 0 of new streams
    /// if there are `seeds`, else the next session of each environment's stream.
    pub fn reset(&mut self, seeds: Option<&[u64]>, mask: Option<&[bool]>) -> Result<()> {
        check_reset(self.num_envs, self.phases(), seeds, mask)?;
        let store = &*self.store;
        parallel::for_each(self.threads, self.chunks.iter_mut().collect(), |chunk| {
            with_local(|Local { turns, .. }| {
                let Chunk { first, sessions, phases, .. } = chunk;
                turns.reset(*first, &mut sessions.lanes, phases, seeds, mask);
                sessions.open(store, &turns.starting);
            });
        })
    }

    /// Shows every environment one page; `actions` has 27 values an environment.
    ///
    /// # Errors
    /// For actions that cannot be shown; no environment has moved then. An error of the customer
    /// model comes after some have: all of them need a reset with seeds then.
    pub fn step(&mut self, actions: &[f32]) -> Result<Step> {
        check_step(self.num_envs, self.phases(), self.rules.autoreset, actions, ATTRIBUTES)?;
        let (envs, width) = (self.num_envs, self.observation_width());
        let mut step = Step {
            observations: vec![0.0; envs * width],
            rewards: vec![0.0; envs],
            terminated: vec![false; envs],
            truncated: vec![false; envs],
            items: vec![0; envs * PAGE],
            slots: vec![0; envs],
            outcomes: vec![0; envs],
            units: vec![0; envs],
            values: vec![0.0; envs],
            pages: vec![0; envs],
            r2p: vec![0.0; envs],
            raw_rewards: vec![0.0; envs],
            clipped: vec![false; envs],
            shown: vec![false; envs],
            finished: Vec::new(),
            final_observations: Vec::new(),
        };
        let (store, rules, size) = (&*self.store, &self.rules, self.chunk_lanes);
        let mut observations = step.observations.chunks_mut(size * width);
        let mut rewards = step.rewards.chunks_mut(size);
        let mut terminated = step.terminated.chunks_mut(size);
        let mut truncated = step.truncated.chunks_mut(size);
        let mut items = step.items.chunks_mut(size * PAGE);
        let mut slots = step.slots.chunks_mut(size);
        let mut outcomes = step.outcomes.chunks_mut(size);
        let mut units = step.units.chunks_mut(size);
        let mut values = step.values.chunks_mut(size);
        let mut pages = step.pages.chunks_mut(size);
        let mut r2p = step.r2p.chunks_mut(size);
        let mut raw_rewards = step.raw_rewards.chunks_mut(size);
        let mut clipped = step.clipped.chunks_mut(size);
        let mut shown = step.shown.chunks_mut(size);
        let chunks = self.chunks.iter_mut().zip(actions.chunks(size * ATTRIBUTES));
        let shares = chunks.filter_map(|(chunk, actions)| {
            Some(Share {
                chunk,
                actions,
                observations: observations.next()?,
                rewards: rewards.next()?,
                terminated: terminated.next()?,
                truncated: truncated.next()?,
                items: items.next()?,
                slots: slots.next()?,
                outcomes: outcomes.next()?,
                units: units.next()?,
                values: values.next()?,
                pages: pages.next()?,
                r2p: r2p.next()?,
                raw_rewards: raw_rewards.next()?,
                clipped: clipped.next()?,
                shown: shown.next()?,
            })
        });
        let finals = parallel::map(self.threads, shares.collect(), |share| {
            with_local(|local| share.step(store, rules, local))
        })?;
        for outcome in finals {
            match outcome {
                Ok((finished, observations)) => {
                    step.finished.extend(finished);
                    step.final_observations.extend(observations);
                }
                Err(error) => {
                    self.chunks.iter_mut().for_each(|chunk| chunk.phases.fill(Phase::New));
                    return Err(error);
                }
            }
        }
        Ok(step)
    }

    /// Observations of all environments, `observation_width` each.
    pub fn observations(&self) -> Vec<f32> {
        let width = self.observation_width();
        let mut out = vec![0.0; self.num_envs * width];
        for ((sessions, lane), out) in self.sessions().zip(out.chunks_mut(width)) {
            sessions.observe_into_zeros(&self.store, lane, out);
        }
        out
    }

    /// Exact counts of all pages shown since the batch was made; snapshots do not touch them.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.chunks.iter().for_each(|chunk| sum.merge(&chunk.counters));
        sum
    }

    /// The sessions in the order of the environments, with the lane that each plays in.
    pub fn sessions(&self) -> impl Iterator<Item = (&Sessions, usize)> {
        self.chunks
            .iter()
            .flat_map(|chunk| (0..chunk.phases.len()).map(|lane| (&chunk.sessions, lane)))
    }
}

impl Share<'_> {
    /// One step; returns what finished, with last observations.
    fn step(self, store: &Store, rules: &Rules, local: &mut Local) -> Result<(Vec<i64>, Vec<f32>)> {
        let Self { chunk, actions, .. } = self;
        let Chunk { first, sessions, phases, counters } = chunk;
        let Local { workspace, turns, executed: buffer } = local;
        let width = store.observation_width();

        // The executed actions; sessions that ended before start again.
        turns.begin(&mut sessions.lanes, phases);
        sessions.open(store, &turns.starting);
        let range = store.schema.action_range;
        let actions = executed(actions, ATTRIBUTES, range, &turns.playing, self.clipped, buffer);
        let action = |lane: usize| &actions[lane * ATTRIBUTES..][..ATTRIBUTES];
        sessions.show(store, workspace, &turns.playing, |_, lane| action(lane))?;

        // Rewards, and what is told of the page.
        for index in turns.playing.iter().copied() {
            let lane = &sessions.lanes[index];
            counters.count(lane);
            let units = lane.units();
            let value = f64::from(lane.cents) / 100.0;
            let raw = match rules.reward {
                Reward::Buy => f64::from(units),
                Reward::Value => value,
            };
            self.raw_rewards[index] = raw;
            self.rewards[index] = rules.anc.map_or(raw, |anc| anc.shape(raw, action(index)));
            self.outcomes[index] = i64::from(lane.outcome);
            self.units[index] = i64::from(units);
            self.values[index] = value;
            self.slots[index] = if units > 0 { i64::from(lane.slot) } else { -1 };
            self.pages[index] = i64::from(lane.shown);
            self.r2p[index] = f64::from(lane.buys) / f64::from(lane.shown);
            self.shown[index] = true;
            let items = self.items[index * PAGE..].iter_mut().zip(sessions.items(index));
            items.for_each(|(to, item)| *to = i64::from(*item));
            if lane.over() {
                self.terminated[index] = lane.end == End::Terminated;
                self.truncated[index] = lane.end == End::Truncated;
                turns.ended.push(index);
            }
        }

        // Ends of sessions.
        let mut finished = (Vec::new(), Vec::new());
        if rules.autoreset == Autoreset::SameStep {
            let observe = |lane, out: &mut [f32]| sessions.observe_into_zeros(store, lane, out);
            finished = turns.finished(*first, width, observe);
            turns.advance(&mut sessions.lanes);
            sessions.open(store, &turns.ended);
        } else {
            turns.ended.iter().for_each(|lane| phases[*lane] = Phase::Over);
        }

        for (lane, out) in self.observations.chunks_mut(width).enumerate() {
            sessions.observe_into_zeros(store, lane, out);
        }
        Ok(finished)
    }
}
