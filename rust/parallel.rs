//! The only user of rayon: work split over a stated number of threads.
//!
//! Pools are kept by process and size, and are lent: no two calls share one, since each waits for
//! its own work alone, and work may wait for another call. Work that itself calls here goes on on
//! its own thread.
//!
//! A forked child has none of its parent's threads, and what one of them had locked stays locked in
//! the child for ever. So every process has a place of its own, which it takes without waiting for
//! anybody, and nothing in another's place is touched.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{Scope, ThreadPool};

use crate::error::{Error, Result};

/// More threads than this are taken for a mistake.
pub const MOST_THREADS: usize = 1024;

/// The number of threads to use: what was asked for, or one a core.
pub fn resolve(threads: Option<usize>) -> Result<usize> {
    match threads {
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        Some(threads) if (1..=MOST_THREADS).contains(&threads) => Ok(threads),
        Some(threads) => {
            Err(Error::argument("num_threads", format!("1 to {MOST_THREADS}, or None"), threads))
        }
    }
}

/// Pools that are not lent, by size.
type Pools = Mutex<BTreeMap<usize, Vec<ThreadPool>>>;

/// What one process keeps.
struct Place {
    /// [`process`], once the place is taken.
    owner: AtomicU64,
    pools: Pools,
}

/// Processes that come of one another by forks, each of which has started threads.
const PLACES: usize = 256;

static TAKEN: [Place; PLACES] =
    [const { Place { owner: AtomicU64::new(0), pools: Mutex::new(BTreeMap::new()) } }; PLACES];

/// Forks between the process that loaded this and the one that runs.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// To be called in every forked child: a process number alone may come again.
pub fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Tells this process from those that it was forked from.
pub fn process() -> u64 {
    u64::from(FORKS.load(Ordering::Relaxed)) << 32 | u64::from(std::process::id())
}

fn pools_of(process: u64) -> Result<&'static Pools> {
    let mine = |place: &&Place| {
        let taken = place.owner.compare_exchange(0, process, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(process)
    };
    TAKEN.iter().find(mine).map(|place| &place.pools).ok_or_else(|| {
        Error::State(format!("expected at most {PLACES} forks within forks, got one more"))
    })
}

/// A pool that nobody else has meanwhile.
struct Lent {
    /// Until it is given back.
    pool: Option<ThreadPool>,
    threads: usize,
    process: u64,
}

impl Lent {
    fn new(threads: usize) -> Result<Self> {
        let process = process();
        let mut pools = pools_of(process)?.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pools.get_mut(&threads).and_then(Vec::pop);
        drop(pools);
        let build = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("virtualtb-{index}"))
                .build()
                .map_err(|error| Error::State(format!("cannot start {threads} threads: {error}")))
        };
        let pool = Some(kept.map_or_else(build, Ok)?);
        Ok(Self { pool, threads, process })
    }

    /// Does some work on this thread, and what that spawns on those of the pool.
    fn scope<'scope, R>(&self, work: impl FnOnce(&Scope<'scope>) -> R) -> R {
        self.pool.as_ref().expect("it is given back last").in_place_scope(work)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A child that was forked within the call has none of the threads: it leaves all as it is.
        match (self.pool.take(), pools_of(self.process)) {
            (Some(pool), Ok(pools)) if self.process == process() => {
                let mut pools = pools.lock().unwrap_or_else(PoisonError::into_inner);
                pools.entry(self.threads).or_default().push(pool);
            }
            (pool, _) => std::mem::forget(pool),
        }
    }
}

/// Whether this is work of a pool already: it may not wait for more of it, since a pool's thread
/// that waits takes up other work meanwhile, on top of what it is at.
fn is_within() -> bool {
    rayon::current_thread_index().is_some()
}

/// Calls `work` on every item, on at most `threads` threads.
pub fn for_each<T: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) + Sync + Send,
) -> Result<()> {
    map(threads, items, work).map(drop)
}

/// Calls `work` on every item, on at most `threads` threads; results in the order of the items.
///
/// The calling thread is one of them: it begins at once, while the others wake up, and leaves to
/// them what they come in time for.
pub fn map<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync + Send,
) -> Result<Vec<R>> {
    if threads <= 1 || items.len() <= 1 || is_within() {
        return Ok(items.into_iter().map(work).collect());
    }
    let mut results: Vec<_> = items.iter().map(|_| None).collect();
    let others = (threads - 1).min(items.len() - 1);
    // No thread more than is needed: one too many wakes up on the caller's core now and then, and
    // takes turns with the caller there while another core idles.
    let lent = Lent::new(threads - 1)?;
    let left = Mutex::new(items.into_iter().zip(&mut results));
    let take = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let serve = || {
        while let Some((item, result)) = take() {
            *result = Some(work(item));
        }
    };
    lent.scope(|scope| {
        (0..others).for_each(|_| scope.spawn(|_| serve()));
        serve();
        if lent.process != process() {
            left_behind();
        }
    });
    // Every one is there: a panic in the work has gone on to the caller.
    Ok(results.into_iter().flatten().collect())
}

/// The calling thread looks up from its work this often, to answer Ctrl-C.
const TICK: Duration = Duration::from_millis(25);

/// Calls `work` on 0, 1, ... `count - 1`, on at most `threads` threads, and `take` on the results,
/// in order, on the calling thread, until it breaks off.
///
/// Meanwhile `tick` is called there every [`TICK`]; its error, or one of `take`, ends the work.
/// `work` is given a function that says whether to go on: long work asks it every few
/// milliseconds and returns anything at all once it says no. At most two results a thread exist at
/// a time, so slow taking holds the work back.
pub fn ordered<R: Send>(
    threads: usize,
    count: u64,
    work: impl Fn(u64, &dyn Fn() -> bool) -> R + Sync,
    mut take: impl FnMut(R) -> Result<ControlFlow<()>>,
    tick: &dyn Fn() -> Result<()>,
) -> Result<()> {
    if threads <= 1 || count <= 1 || is_within() {
        return serial(count, work, take, tick);
    }
    let lent = Lent::new(threads)?;
    // Whoever calls back may fork. The child has none of the threads that are waited for here.
    let tick = &|| {
        let outcome = tick();
        if process() != lent.process {
            left_behind();
        }
        outcome
    };
    let clock = Clock::new(tick);
    let stop = AtomicBool::new(false);
    let (send, receive) = channel();
    lent.scope(|scope| {
        let (work, stop) = (&work, &stop);
        let submit = |index: u64| {
            let send = send.clone();
            scope.spawn(move |_| {
                let go_on = || !stop.load(Ordering::Relaxed);
                if !go_on() {
                    return;
                }
                let result = catch_unwind(AssertUnwindSafe(|| work(index, &go_on)));
                // Nobody listens any more once the caller has stopped.
                let _ = send.send((index, result));
            });
        };
        let mut submitted = count.min(2 * threads as u64);
        (0..submitted).for_each(submit);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut run = || {
            while next < count {
                clock.poll()?;
                match receive.recv_timeout(TICK) {
                    Ok((index, Ok(result))) => drop(waiting.insert(index, result)),
                    Ok((_, Err(panic))) => {
                        stop.store(true, Ordering::Relaxed);
                        resume_unwind(panic);
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => unreachable!("the sender is held here"),
                }
                while let Some(result) = waiting.remove(&next) {
                    if take(result)?.is_break() {
                        return Ok(());
                    }
                    next += 1;
                    if submitted < count {
                        submit(submitted);
                        submitted += 1;
                    }
                }
            }
            Ok(())
        };
        let outcome = run();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Ends a forked child that comes back into the work of its parent: it can neither go on with it,
/// without the threads, nor leave it, since they are at work on what the caller's stack holds.
fn left_behind() -> ! {
    eprintln!(
        "virtualtb_fast: expected a process that was forked within a call to end there \
         (os._exit), got one that returned to its parent's work; it is aborted"
    );
    std::process::abort()
}

/// [`ordered`] on the calling thread alone.
pub fn serial<R>(
    count: u64,
    mut work: impl FnMut(u64, &dyn Fn() -> bool) -> R,
    mut take: impl FnMut(R) -> Result<ControlFlow<()>>,
    tick: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let clock = Clock::new(tick);
    let failure = RefCell::new(None);
    for index in 0..count {
        let result = work(index, &|| match clock.poll() {
            Ok(()) => true,
            Err(error) => {
                failure.borrow_mut().get_or_insert(error);
                false
            }
        });
        if let Some(error) = failure.take() {
            return Err(error);
        }
        // Short work does not ask by itself.
        clock.poll()?;
        if take(result)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Calls `tick` when a [`TICK`] has passed since the last time.
struct Clock<'a> {
    tick: &'a dyn Fn() -> Result<()>,
    last: Cell<Instant>,
}

impl<'a> Clock<'a> {
    fn new(tick: &'a dyn Fn() -> Result<()>) -> Self {
        Self { tick, last: Cell::new(Instant::now()) }
    }

    fn poll(&self) -> Result<()> {
        if self.last.get().elapsed() < TICK {
            return Ok(());
        }
        let outcome = (self.tick)();
        self.last.set(Instant::now());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_few_at_a_time() {
        for threads in [1, 2, 5] {
            let (started, mut taken) = (AtomicU64::new(0), 0);
            let work = |index, _: &dyn Fn() -> bool| {
                started.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(100 * (7 - index % 7)));
                index
            };
            let take = |index| {
                assert_eq!(index, taken);
                assert!(started.load(Ordering::Relaxed) <= taken + 2 * threads as u64);
                taken += 1;
                Ok(ControlFlow::Continue(()))
            };
            ordered(threads, 100, work, take, &|| Ok(())).unwrap();
            assert_eq!(taken, 100);
        }
    }

    #[test]
    fn breaking_off_and_errors_end_the_work() {
        for threads in [1, 3] {
            let mut taken = 0;
            let work = |index, _: &dyn Fn() -> bool| index;
            let take = |index: u64| {
                taken += 1;
                Ok(if index == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            ordered(threads, u64::MAX, work, take, &|| Ok(())).unwrap();
            assert_eq!(taken, 5);
            let take = |_: u64| Err(Error::State("no".into()));
            assert!(ordered(threads, 9, work, take, &|| Ok(())).is_err());
        }
    }

    #[test]
    fn a_tick_reaches_into_long_work() {
        for threads in [1, 3] {
            let work = |_, go_on: &dyn Fn() -> bool| {
                while go_on() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let take = |()| Ok(ControlFlow::Continue(()));
            let outcome = ordered(threads, 9, work, take, &|| Err(Error::Interrupted));
            assert!(matches!(outcome, Err(Error::Interrupted)));
        }
    }

    #[test]
    fn a_tick_is_heard_between_pieces_of_short_work() {
        for threads in [1, 3] {
            let work = |_, _: &dyn Fn() -> bool| std::thread::sleep(Duration::from_millis(1));
            let take = |()| Ok(ControlFlow::Continue(()));
            let outcome = ordered(threads, u64::MAX, work, take, &|| Err(Error::Interrupted));
            assert!(matches!(outcome, Err(Error::Interrupted)));
        }
    }

    #[test]
    fn a_process_has_pools_of_its_own() {
        let child = process() ^ 1 << 40;
        let mine = pools_of(process()).unwrap();
        assert!(std::ptr::eq(mine, pools_of(process()).unwrap()));
        // Held, as by a thread that a child does not have.
        let _held = mine.lock().unwrap();
        let its = pools_of(child).unwrap();
        assert!(!std::ptr::eq(mine, its));
        assert!(its.try_lock().unwrap().is_empty());
    }

    #[test]
    fn calls_do_not_wait_for_the_work_of_others() {
        let patience = Duration::from_secs(60);
        for threads in [2, 3] {
            let (ended, end) = channel();
            let end = Mutex::new(end);
            // Every piece of the first call waits for the whole of the second one.
            let wait = |_| end.lock().unwrap().recv_timeout(patience).is_ok();
            std::thread::scope(|scope| {
                let first = scope.spawn(|| map(threads, vec![(); 6], wait).unwrap());
                let second = map(threads, vec![1; 6], |one| one).unwrap();
                assert_eq!(second.len(), 6);
                (0..6).for_each(|_| ended.send(()).unwrap());
                assert_eq!(first.join().unwrap(), [true; 6]);
            });
        }
    }

    #[test]
    fn work_may_call_for_work_of_its_own() {
        for threads in [1, 2, 3] {
            let sum = |inner: fn(usize, u64) -> u64| {
                let mut total = 0;
                let take = |part| {
                    total += part;
                    Ok(ControlFlow::Continue(()))
                };
                let work = |index, _: &dyn Fn() -> bool| inner(threads, index);
                ordered(threads, 9, work, take, &|| Ok(())).unwrap();
                total
            };
            let mapped =
                sum(|threads, index| map(threads, vec![index; 5], |one| one).unwrap().iter().sum());
            assert_eq!(mapped, 5 * 36);
            let nested = sum(|threads, index| {
                let mut total = 0;
                let take = |one: u64| {
                    total += one + index;
                    Ok(ControlFlow::Continue(()))
                };
                ordered(threads, 5, |one, _| one, take, &|| Ok(())).unwrap();
                total
            });
            assert_eq!(nested, 9 * 10 + 5 * 36);
        }
    }

    #[test]
    fn a_panic_in_the_work_reaches_the_caller() {
        let work = |index: u64, _: &dyn Fn() -> bool| assert_ne!(index, 3, "as planned");
        let take = |()| Ok(ControlFlow::Continue(()));
        let run = || ordered(3, 9, work, take, &|| Ok(()));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
