//! Whole sessions under a policy: sessions 0 to N - 1 of a seed's stream, to columns or a file.
//!
//! # How a rollout goes
//! 1. Sessions are cut into blocks of [`BLOCK`]. Blocks are played in parallel, each by one
//!    thread ([`Player`]).
//! 2. Within a block, up to `batch_size` sessions play side by side: every step shows one page to
//!    each. A session that is over makes room for the block's next one.
//! 3. The block's rows are put into the order (session, page) and, for a file, encoded as a row
//!    group, still on that thread.
//! 4. Blocks are taken in order by the calling thread, which counts and appends.
//!
//! A rollout to a file that was stopped, in whatever way, can be resumed: the blocks that are in the
//! file are not played again ([`FileWriter`](crate::logs::FileWriter)).
//!
//! Draws belong to sessions and pages, so neither threads nor `batch_size` change any result, nor
//! a byte of a file.

mod finished;
mod player;
mod scene;
mod sink;
mod summary;

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::logs::{self, BLOCK, Encoder, Log, Metadata, RowGroup};
use crate::parallel;
use crate::policy::{Actor, Policy};
use crate::rng::STREAM_VERSION;

use player::{Chooser, Player};
use sink::Sink;

pub use player::Observed;
pub use scene::{Page, Scene};
pub use summary::Summary;

/// More sessions than this are taken for a mistake.
pub const MOST_SESSIONS: u64 = 1 << 40;
/// Other readers of Parquet count row groups with 16 bits.
const MOST_FILE_SESSIONS: u64 = BLOCK * i16::MAX as u64;
/// Sessions that play side by side if nothing is said: their state stays in the nearer caches.
const LANES: usize = 768;

/// How long to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Sessions 0 to N - 1.
    Sessions(u64),
    /// The fewest sessions, from 0 on, that have at least this many pages.
    Pages(u64),
}

/// Who chooses the actions.
pub enum Source<'a> {
    /// A native policy: blocks are played in parallel.
    Policy(&'a Policy),
    /// A function of observations, called on the calling thread.
    Callback {
        /// What logs call it.
        name: String,
        /// Fills in the actions.
        choose: &'a mut dyn FnMut(Observed<'_>, &mut [f32]) -> Result<()>,
    },
}

/// Where the rows go.
#[derive(Clone, Debug)]
pub enum Output {
    /// Nowhere: only counts are kept.
    Nowhere,
    /// Into a [`Log`].
    Memory,
    /// Into a Parquet file.
    File {
        /// Its final name.
        path: PathBuf,
        /// Whether a file of that name is replaced.
        overwrite: bool,
        /// Whether to go on with what an earlier run of the same rollout left.
        resume: bool,
    },
}

/// A rollout's arguments.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the stream.
    pub seed: u64,
    /// How long to play.
    pub target: Target,
    /// Threads; `None`: one a core.
    pub threads: Option<usize>,
    /// Sessions side by side within a block.
    pub batch_size: Option<usize>,
    /// Where the rows go.
    pub output: Output,
}

/// What the caller is told, and asked, about 40 times a second on its own thread.
pub struct Watch<'a> {
    /// An error ends the rollout.
    pub interrupt: &'a dyn Fn() -> Result<()>,
    /// Pages and sessions played so far.
    pub progress: &'a dyn Fn(u64, u64),
}

/// What came of a rollout.
#[derive(Debug)]
pub struct Played {
    /// The rows, if they were to be kept in memory.
    pub log: Option<Log>,
    /// The counts of all blocks.
    pub summary: Summary,
    /// Pages that an earlier run had played.
    pub resumed: u64,
}

/// Plays a rollout.
pub fn rollout<S: Scene>(
    scene: &S,
    source: Source<'_>,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Played> {
    scene.check()?;
    let run = Run::new(scene, &source, options)?;
    let actor = match &source {
        Source::Policy(policy) => Some(policy.bind(scene.place())?),
        Source::Callback { .. } => None,
    };
    let constant = matches!(&source, Source::Policy(policy) if policy.is_constant());
    if let Some(summary) = run.finished(&options.output, watch)? {
        let resumed = summary.pages;
        return Ok(Played { log: None, summary, resumed });
    }
    let tick = || run.tick(watch);
    let mut sink = Sink::new(&options.output, scene.shape(), constant, &run.asked(), &tick)?;
    let resumed = sink.summary.pages;
    run.pages.store(resumed, Ordering::Relaxed);
    run.sessions.store(sink.summary.sessions, Ordering::Relaxed);
    let outcome = match (source, actor) {
        (Source::Callback { choose, .. }, _) => run.called(choose, &mut sink, watch),
        (Source::Policy(_), Some(actor)) => run.native(&actor, &mut sink, watch),
        (Source::Policy(_), None) => unreachable!("a native policy was bound"),
    };
    let metadata = run.metadata(&sink.summary);
    match outcome {
        Ok(()) => {
            (watch.progress)(sink.summary.pages, sink.summary.sessions);
            // The last report may have failed as well: the file must not be complete then.
            if let Err(error) = (watch.interrupt)() {
                return Err(sink.abandon(metadata, error));
            }
            let (log, summary) = sink.finish(metadata, watch.interrupt)?;
            Ok(Played { log, summary, resumed })
        }
        Err(error) => Err(sink.abandon(metadata, error)),
    }
}

/// A rollout's checked arguments, and how far it is.
struct Run<'a, S> {
    scene: &'a S,
    kernels: Kernels,
    policy: String,
    seed: u64,
    target: Target,
    threads: usize,
    lanes: usize,
    pages: AtomicU64,
    sessions: AtomicU64,
}

/// A block that was played, and its rows as a row group if they go to a file.
type Block<'a, S> = (Player<'a, S>, Option<RowGroup>);

impl<'a, S: Scene> Run<'a, S> {
    fn new(scene: &'a S, source: &Source<'_>, options: &Options) -> Result<Self> {
        let (policy, lanes) = match source {
            Source::Policy(policy) => (policy.name(), LANES),
            Source::Callback { name, .. } => (name.clone(), BLOCK as usize),
        };
        // A session has a page at least, so the same bound keeps a target in pages within a file.
        let most = match options.output {
            Output::Nowhere | Output::Memory => MOST_SESSIONS,
            Output::File { .. } => MOST_FILE_SESSIONS,
        };
        let (what, count) = match options.target {
            Target::Sessions(count) => ("sessions", count),
            Target::Pages(count) => ("pages", count),
        };
        if !(1..=most).contains(&count) {
            return Err(Error::argument(what, format!("1 to {most}"), count));
        }
        let lanes = options.batch_size.unwrap_or(lanes);
        if lanes == 0 {
            return Err(Error::argument("batch_size", "at least 1, or None", lanes));
        }
        Ok(Self {
            scene,
            kernels: Kernels::best()?,
            policy,
            seed: options.seed,
            target: options.target,
            threads: parallel::resolve(options.threads)?,
            lanes: lanes.min(BLOCK as usize).min(count as usize),
            pages: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        })
    }

    /// Blocks that may be needed after those that are there: a session has at least one page.
    fn blocks(&self, sink: &Sink) -> u64 {
        match self.target {
            Target::Pages(most) if sink.summary.pages >= most => 0,
            Target::Sessions(most) | Target::Pages(most) => most.div_ceil(BLOCK) - sink.blocks,
        }
    }

    /// Sessions of a block that may be needed.
    fn block_sessions(&self, block: u64) -> Range<u64> {
        let first = block * BLOCK;
        match self.target {
            Target::Sessions(count) => first..count.min(first + BLOCK),
            Target::Pages(_) => first..first + BLOCK,
        }
    }

    fn tick(&self, watch: &Watch<'_>) -> Result<()> {
        let (pages, sessions) = (&self.pages, &self.sessions);
        (watch.progress)(pages.load(Ordering::Relaxed), sessions.load(Ordering::Relaxed));
        (watch.interrupt)()
    }

    /// Plays blocks in parallel.
    fn native(&self, actor: &Actor, sink: &mut Sink, watch: &Watch<'_>) -> Result<()> {
        let shared = Shared::new(sink);
        let (first, count) = (sink.blocks, self.blocks(sink));
        let work = |block, go_on: &dyn Fn() -> bool| {
            self.block(&shared, &mut Chooser::Native(actor), first + block, go_on)
        };
        let take = |played: Result<Block<'a, S>>| self.take(&shared, sink, played?);
        parallel::ordered(self.threads, count, work, take, &|| self.tick(watch))
    }

    /// Plays blocks one after the other; actions come from a function.
    fn called(
        &self,
        choose: &mut dyn FnMut(Observed<'_>, &mut [f32]) -> Result<()>,
        sink: &mut Sink,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let shared = Shared::new(sink);
        let (first, count) = (sink.blocks, self.blocks(sink));
        let work = |block, go_on: &dyn Fn() -> bool| {
            self.block(&shared, &mut Chooser::Called(choose), first + block, go_on)
        };
        let take = |played: Result<Block<'a, S>>| self.take(&shared, sink, played?);
        parallel::serial(count, work, take, &|| self.tick(watch))
    }

    /// Plays one block, and encodes it for a file.
    fn block(
        &self,
        shared: &Shared<'a, S>,
        chooser: &mut Chooser<'_>,
        block: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Block<'a, S>> {
        let mut player = shared
            .player()
            .unwrap_or_else(|| Player::new(self.scene, self.kernels, self.seed, self.lanes));
        player.play(chooser, self.block_sessions(block), |pages, sessions| {
            self.pages.fetch_add(pages, Ordering::Relaxed);
            self.sessions.fetch_add(sessions, Ordering::Relaxed);
            if go_on() { Ok(()) } else { Err(Error::Interrupted) }
        })?;
        let encoded = shared.encode(&mut player)?;
        Ok((player, encoded))
    }

    /// Appends a block, or of the last one what is wanted.
    fn take(
        &self,
        shared: &Shared<'a, S>,
        sink: &mut Sink,
        (mut player, mut encoded): Block<'a, S>,
    ) -> Result<ControlFlow<()>> {
        let wanted = self.wanted(player.lengths(), sink.summary.pages);
        if wanted.is_some_and(|sessions| sessions < player.lengths().len()) {
            player.cut(wanted.unwrap_or_default());
            encoded = shared.encode(&mut player)?;
        }
        sink.take(&player, encoded)?;
        shared.give_back(player);
        Ok(if wanted.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// If a block of sessions of these lengths reaches the pages that are wanted, on top of those
    /// before it: how many of the sessions that takes.
    fn wanted(&self, lengths: &[u32], before: u64) -> Option<usize> {
        let Target::Pages(wanted) = self.target else { return None };
        let mut pages = before;
        let reaches = |length: &u32| {
            pages += u64::from(*length);
            pages >= wanted
        };
        lengths.iter().position(reaches).map(|last| last + 1)
    }

    /// What a log says of itself. Nothing here depends on threads, batches or the machine.
    fn metadata(&self, summary: &Summary) -> Metadata {
        let pairs = [
            ("format", logs::FORMAT.to_owned()),
            ("format_version", logs::FORMAT_VERSION.to_owned()),
            ("sessions", summary.sessions.to_string()),
            ("rows", summary.pages.to_string()),
            ("complete", "true".to_owned()),
        ];
        let mut metadata = self.origin();
        metadata.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
        metadata
    }

    /// What decides every row: who is shown what, and the draws.
    fn origin(&self) -> Metadata {
        let pairs = [
            ("policy", self.policy.clone()),
            ("seed", self.seed.to_string()),
            ("stream_version", STREAM_VERSION.to_string()),
        ];
        let pairs = pairs.into_iter().chain(self.scene.metadata());
        pairs.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What decides every byte of the file: a run that asks the same can go on with it.
    fn asked(&self) -> Metadata {
        let (what, count) = match self.target {
            Target::Sessions(count) => ("sessions", count),
            Target::Pages(count) => ("pages", count),
        };
        let pairs = [
            ("log_version", logs::FORMAT_VERSION.to_owned()),
            ("package_version", env!("CARGO_PKG_VERSION").to_owned()),
            (what, count.to_string()),
        ];
        let mut asked = self.origin();
        asked.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
        asked
    }
}

/// What the threads of a rollout share.
struct Shared<'a, S: Scene> {
    encoder: Option<Encoder>,
    /// Players that wait for a block.
    spare: Mutex<Vec<Player<'a, S>>>,
}

impl<'a, S: Scene> Shared<'a, S> {
    fn new(sink: &Sink) -> Self {
        Self { encoder: sink.encoder(), spare: Mutex::default() }
    }

    fn player(&self) -> Option<Player<'a, S>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, player: Player<'a, S>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(player);
    }

    fn encode(&self, player: &mut Player<'_, S>) -> Result<Option<RowGroup>> {
        self.encoder.as_ref().map(|encoder| encoder.encode(&mut player.columns)).transpose()
    }
}

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
