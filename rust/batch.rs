//! Environments side by side: the rules of an episode on top of [`Sessions`].
//!
//! # One step of a batch, in order
//! 1. Every action is checked before anything changes.
//! 2. Environments whose session ended before (with [`Autoreset::NextStep`]) start their next
//!    session and ignore the action; all others show a page with the executed action.
//! 3. Rewards: the raw reward, shaped by the action norm constraint if there is one.
//! 4. A session that is over is terminated; with VirtualTB-v0's quirks another customer takes its
//!    place at once. With [`Autoreset::SameStep`] its last observation is kept aside and the next
//!    session starts.
//! 5. Observations.
//!
//! Environments are held in chunks, the unit of parallel work. How they are cut, and the number
//! of threads, change no result.

pub(crate) mod actions;
pub(crate) mod checks;
mod rules;
pub(crate) mod snapshot;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod turns;

use std::cell::RefCell;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::{Kernels, TILE};
use crate::parallel;
use crate::session::{Arrival, Lane, Sessions, Workspace};
use crate::simulator::Simulator;

use actions::executed;
pub use checks::MOST_ENVS;
use checks::{check_batch, check_reset, check_step, layout};
pub(crate) use rules::Phase;
pub use rules::{Anc, Autoreset};
use turns::{Numbered, Turns};

/// Environments of a chunk at most: their states pass through the second-level cache.
const MOST_LANES: usize = 8 * TILE;

/// What a page is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reward {
    /// Clicks on the page.
    Clicks,
    /// The second head: probable purchases.
    Deals,
    /// 1 if the second head is positive, else 0.
    Buy,
    /// What the page was worth before its answer was drawn: the probability of a purchase where
    /// answers are outcomes, else the expected clicks.
    Expected,
}

impl Reward {
    /// What callers call them.
    pub const WORDS: [(&str, Self); 4] = [
        ("clicks", Self::Clicks),
        ("deals", Self::Deals),
        ("buy", Self::Buy),
        ("expected", Self::Expected),
    ];
}

/// The rules of an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// VirtualTB-v0: the observation at the end is another customer's, and steps may go on.
    pub quirks: bool,
    /// Whether actions are clipped into the schema's range.
    pub clip: bool,
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
    /// Whether the customer ended the session.
    pub terminated: Vec<bool>,
    /// Whether there were no more pages for one who would have gone on.
    pub truncated: Vec<bool>,
    /// How this page ended: codes of [`crate::logs::OUTCOMES`].
    pub outcomes: Vec<i64>,
    /// Clicks on this page; 1 for a purchase where answers are outcomes.
    pub clicks: Vec<i64>,
    /// The second head on this page; units bought where answers are outcomes.
    pub second: Vec<i64>,
    /// Pages shown so far in the session.
    pub pages: Vec<i64>,
    /// Clicks of the session so far by slots shown so far.
    pub ctr: Vec<f64>,
    /// Clicks of the session so far by pages shown so far: where answers are outcomes, R2P.
    pub clicks_a_page: Vec<f64>,
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
}

/// A chunk's share of a [`Step`].
struct Share<'a> {
    chunk: &'a mut Chunk,
    actions: &'a [f32],
    observations: &'a mut [f32],
    rewards: &'a mut [f64],
    terminated: &'a mut [bool],
    truncated: &'a mut [bool],
    outcomes: &'a mut [i64],
    clicks: &'a mut [i64],
    second: &'a mut [i64],
    pages: &'a mut [i64],
    ctr: &'a mut [f64],
    clicks_a_page: &'a mut [f64],
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
    expected: Vec<f64>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

impl Numbered for Lane {
    fn number(&mut self) -> (&mut u64, &mut u64) {
        (&mut self.seed, &mut self.session)
    }
}

/// Environments that step together.
#[derive(Clone, Debug)]
pub struct SessionBatch {
    simulator: Arc<Simulator>,
    kernels: Kernels,
    rules: Rules,
    threads: usize,
    chunk_lanes: usize,
    chunks: Vec<Chunk>,
    num_envs: usize,
}

impl SessionBatch {
    /// A batch that has to be reset before it steps.
    pub fn new(
        simulator: Arc<Simulator>,
        num_envs: usize,
        threads: Option<usize>,
        rules: Rules,
    ) -> Result<Self> {
        check_batch(num_envs, rules.anc)?;
        if rules.quirks && simulator.config.ends_by_hazard() {
            let expected = "one whose page limit is drawn once, as published (leave \"once\")";
            return Err(Error::argument("simulator of VirtualTB-v0", expected, "leave \"hazard\""));
        }
        let (threads, chunk_lanes) = layout(num_envs, threads, MOST_LANES)?;
        let kernels = Kernels::best()?;
        let chunk = |first: usize| {
            let lanes = chunk_lanes.min(num_envs - first);
            Chunk {
                first,
                sessions: Sessions::new(&simulator, lanes),
                phases: vec![Phase::New; lanes],
            }
        };
        let chunks = (0..num_envs).step_by(chunk_lanes).map(chunk).collect();
        Ok(Self { kernels, rules, threads, chunk_lanes, chunks, num_envs, simulator })
    }

    /// The simulator that all sessions play in.
    pub fn simulator(&self) -> &Arc<Simulator> {
        &self.simulator
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
        self.simulator.schema.observation_width()
    }

    /// Starts sessions in the environments of `mask` (all, without one): session 0 of new streams
    /// if there are `seeds`, else the next session of each environment's stream.
    pub fn reset(&mut self, seeds: Option<&[u64]>, mask: Option<&[bool]>) -> Result<()> {
        check_reset(self.num_envs, self.phases(), seeds, mask)?;
        let (simulator, kernels) = (&*self.simulator, self.kernels);
        parallel::for_each(self.threads, self.chunks.iter_mut().collect(), |chunk| {
            LOCAL.with_borrow_mut(|Local { workspace, turns, .. }| {
                let Chunk { first, sessions, phases } = chunk;
                turns.reset(*first, &mut sessions.lanes, phases, seeds, mask);
                sessions.open(simulator, kernels, workspace, &turns.starting, Arrival::Session);
            });
        })
    }

    /// Shows every environment one page; `actions` has `schema.action` values an environment.
    pub fn step(&mut self, actions: &[f32]) -> Result<Step> {
        let size = self.simulator.schema.action;
        check_step(self.num_envs, self.phases(), self.rules.autoreset, actions, size)?;
        let (envs, width) = (self.num_envs, self.observation_width());
        let mut step = Step {
            observations: vec![0.0; envs * width],
            rewards: vec![0.0; envs],
            terminated: vec![false; envs],
            truncated: vec![false; envs],
            outcomes: vec![0; envs],
            clicks: vec![0; envs],
            second: vec![0; envs],
            pages: vec![0; envs],
            ctr: vec![0.0; envs],
            clicks_a_page: vec![0.0; envs],
            raw_rewards: vec![0.0; envs],
            clipped: vec![false; envs],
            shown: vec![false; envs],
            finished: Vec::new(),
            final_observations: Vec::new(),
        };
        let (simulator, kernels, rules) = (&*self.simulator, self.kernels, &self.rules);
        let size = self.chunk_lanes;
        let mut rewards = step.rewards.chunks_mut(size);
        let mut terminated = step.terminated.chunks_mut(size);
        let mut truncated = step.truncated.chunks_mut(size);
        let mut outcomes = step.outcomes.chunks_mut(size);
        let mut clicks = step.clicks.chunks_mut(size);
        let mut second = step.second.chunks_mut(size);
        let mut pages = step.pages.chunks_mut(size);
        let mut ctr = step.ctr.chunks_mut(size);
        let mut clicks_a_page = step.clicks_a_page.chunks_mut(size);
        let mut raw_rewards = step.raw_rewards.chunks_mut(size);
        let mut clipped = step.clipped.chunks_mut(size);
        let mut shown = step.shown.chunks_mut(size);
        let shares = self
            .chunks
            .iter_mut()
            .zip(actions.chunks(size * simulator.schema.action))
            .zip(step.observations.chunks_mut(size * width))
            .filter_map(|((chunk, actions), observations)| {
                Some(Share {
                    chunk,
                    actions,
                    observations,
                    rewards: rewards.next()?,
                    terminated: terminated.next()?,
                    truncated: truncated.next()?,
                    outcomes: outcomes.next()?,
                    clicks: clicks.next()?,
                    second: second.next()?,
                    pages: pages.next()?,
                    ctr: ctr.next()?,
                    clicks_a_page: clicks_a_page.next()?,
                    raw_rewards: raw_rewards.next()?,
                    clipped: clipped.next()?,
                    shown: shown.next()?,
                })
            });
        let finals = parallel::map(self.threads, shares.collect(), |share| {
            LOCAL.with_borrow_mut(|local| share.step(simulator, kernels, rules, local))
        })?;
        for (finished, observations) in finals {
            step.finished.extend(finished);
            step.final_observations.extend(observations);
        }
        Ok(step)
    }

    /// Where each environment stands.
    fn phases(&self) -> impl Iterator<Item = Phase> {
        self.chunks.iter().flat_map(|chunk| chunk.phases.iter().copied())
    }

    /// Observations of all environments, `observation_width` each.
    pub fn observations(&self) -> Vec<f32> {
        let width = self.observation_width();
        let mut out = vec![0.0; self.num_envs * width];
        let mut rows = out.chunks_mut(width);
        for chunk in &self.chunks {
            for (lane, out) in (0..chunk.phases.len()).zip(&mut rows) {
                chunk.sessions.observe_into_zeros(&self.simulator, lane, out);
            }
        }
        out
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
    fn step(
        self,
        simulator: &Simulator,
        kernels: Kernels,
        rules: &Rules,
        local: &mut Local,
    ) -> (Vec<i64>, Vec<f32>) {
        let Self { chunk, actions, .. } = self;
        let Chunk { first, sessions, phases } = chunk;
        let Local { workspace, turns, executed: buffer, expected } = local;
        let size = simulator.schema.action;
        let width = simulator.schema.observation_width();

        // 2. The executed actions; sessions that ended before start again.
        turns.begin(&mut sessions.lanes, phases);
        sessions.open(simulator, kernels, workspace, &turns.starting, Arrival::Session);
        let actions = if rules.clip {
            let range = simulator.schema.action_range;
            executed(actions, size, range, &turns.playing, self.clipped, buffer)
        } else {
            actions
        };
        let action = |lane: usize| &actions[lane * size..][..size];
        expected.resize(turns.playing.len(), 0.0);
        let worth = (rules.reward == Reward::Expected).then_some(&mut expected[..]);
        let playing = &turns.playing;
        sessions.show(simulator, kernels, workspace, playing, |_, lane| action(lane), worth);

        // 3. Rewards.
        let slots = simulator.config.page_items() as f64;
        for (lane, expected) in playing.iter().copied().zip(expected) {
            let session = &sessions.lanes[lane];
            let units = session.units(simulator);
            let raw = match rules.reward {
                Reward::Clicks => f64::from(session.clicks),
                Reward::Deals => f64::from(units),
                Reward::Buy => f64::from(u8::from(units > 0)),
                Reward::Expected => *expected,
            };
            self.raw_rewards[lane] = raw;
            self.rewards[lane] = rules.anc.map_or(raw, |anc| anc.shape(raw, action(lane)));
            self.outcomes[lane] = i64::from(session.outcome);
            self.clicks[lane] = i64::from(session.clicks);
            self.second[lane] = i64::from(units);
            self.pages[lane] = i64::from(session.page);
            self.shown[lane] = true;
            let clicks_a_page = f64::from(session.total_clicks) / f64::from(session.page);
            self.clicks_a_page[lane] = clicks_a_page;
            self.ctr[lane] = clicks_a_page / slots;
            if session.over() {
                self.truncated[lane] = session.truncated();
                self.terminated[lane] = !session.truncated();
                turns.ended.push(lane);
            }
        }

        // 4. Ends of sessions.
        let mut finished = (Vec::new(), Vec::new());
        if rules.quirks {
            sessions.open(simulator, kernels, workspace, &turns.ended, Arrival::Replacement);
        }
        match rules.autoreset {
            Autoreset::SameStep => {
                let observe = |lane, out: &mut [f32]| {
                    sessions.observe_into_zeros(simulator, lane, out);
                };
                finished = turns.finished(*first, width, observe);
                turns.advance(&mut sessions.lanes);
                sessions.open(simulator, kernels, workspace, &turns.ended, Arrival::Session);
            }
            // With the quirks a caller who disables the autoreset may step past the end.
            Autoreset::Disabled if rules.quirks => {}
            Autoreset::NextStep | Autoreset::Disabled => {
                turns.ended.iter().for_each(|lane| phases[*lane] = Phase::Over);
            }
        }

        // 5. Observations.
        for (lane, out) in self.observations.chunks_mut(width).enumerate() {
            sessions.observe_into_zeros(simulator, lane, out);
        }
        finished
    }
}
