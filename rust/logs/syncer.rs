//! Syncing a file that grows, in the background.
//!
//! What a killed process wrote is in the system's hands; what a power cut leaves is what the system
//! was told to sync. That waits for the disk, so a thread of its own does it, every [`PAUSE`].
//!
//! A sync that fails is the end: the system may have dropped the bytes and go on to call them clean,
//! so that the next sync would pass. Only what an earlier sync covered is sure to be there.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;

/// Between two syncs; what a power cut can cost.
const PAUSE: Duration = Duration::from_secs(2);
/// How often somebody who waits is asked whether to go on.
const TICK: Duration = Duration::from_millis(25);

/// A thread that syncs.
#[derive(Debug)]
pub struct Syncer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Pieces that were written, and those of them that are sure to be on the disk.
    written: usize,
    synced: usize,
    failure: Option<io::Error>,
    /// The last sync is wanted; nothing is wanted any more.
    last: bool,
    quit: bool,
    /// The thread has ended.
    over: bool,
}

/// A sync that failed.
#[derive(Debug)]
pub struct Unsynced {
    /// Pieces that are sure to be on the disk.
    pub synced: usize,
    /// What the system said.
    pub source: io::Error,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn run(&self, mut sync: impl FnMut() -> io::Result<()>) {
        let mut state = self.lock();
        let mut since = Instant::now();
        while !state.quit {
            let due = state.written > state.synced && since.elapsed() >= PAUSE;
            if !due && !state.last {
                state = self.wait(state, PAUSE);
                continue;
            }
            let (written, last) = (state.written, state.last);
            drop(state);
            let outcome = sync();
            state = self.lock();
            since = Instant::now();
            match outcome {
                Ok(()) => state.synced = written,
                Err(error) => state.failure = Some(error),
            }
            if last || state.failure.is_some() {
                break;
            }
        }
        state.over = true;
        self.changed.notify_all();
    }
}

impl Syncer {
    /// Starts a thread that syncs what `synced` pieces and more are written to.
    pub fn start(
        synced: usize,
        sync: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let state = State { written: synced, synced, ..State::default() };
        *shared.lock() = state;
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("virtualtb-sync".into());
        thread.spawn(move || its.run(sync))?;
        Ok(Self(shared))
    }

    /// So many pieces were written. Tells if an earlier sync has failed.
    pub fn written(&self, pieces: usize) -> Result<(), Unsynced> {
        let mut state = self.0.lock();
        state.written = pieces;
        Self::failure(&mut state)
    }

    /// Syncs once more and waits for it; an error of `tick` ends the waiting.
    pub fn finish(&self, tick: &dyn Fn() -> Result<()>) -> Result<Result<(), Unsynced>> {
        let mut state = self.0.lock();
        state.last = true;
        self.0.changed.notify_all();
        while !state.over {
            state = self.0.wait(state, TICK);
            if !state.over {
                drop(state);
                tick()?;
                state = self.0.lock();
            }
        }
        Ok(Self::failure(&mut state))
    }

    fn failure(state: &mut State) -> Result<(), Unsynced> {
        let synced = state.synced;
        state.failure.take().map_or(Ok(()), |source| Err(Unsynced { synced, source }))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        // A sync that is under way may take seconds; nobody waits for it.
        self.0.lock().quit = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn the_last_sync_is_waited_for() {
        let count = Arc::new(AtomicUsize::new(0));
        let its = Arc::clone(&count);
        let syncer = Syncer::start(0, move || {
            std::thread::sleep(Duration::from_millis(60));
            its.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        syncer.written(3).unwrap();
        syncer.finish(&|| Ok(())).unwrap().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn waiting_can_be_ended() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let syncer = Syncer::start(0, move || {
            // As long as the test waits for it.
            let _ = ended.recv();
            Ok(())
        })
        .unwrap();
        let outcome = syncer.finish(&|| Err(Error::Interrupted));
        assert!(matches!(outcome, Err(Error::Interrupted)));
        drop(syncer);
        drop(end);
    }

    #[test]
    fn a_failure_says_what_was_synced() {
        let broken = || Err(io::Error::from_raw_os_error(5));
        let syncer = Syncer::start(4, broken).unwrap();
        syncer.written(7).unwrap();
        let failure = syncer.finish(&|| Ok(())).unwrap().unwrap_err();
        assert_eq!((failure.synced, failure.source.raw_os_error()), (4, Some(5)));
    }
}
