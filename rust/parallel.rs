//! The only user of rayon: work split over a stated number of threads.
//!
//! Pools are kept by process and size. A forked child has none of its parent's threads, and what
//! one of them had locked stays locked in the child for ever. So every process has a place of its
//! own, which it takes without waiting for anybody, and nothing in another's place is touched.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::ThreadPool;

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

/// Pools by size.
type Pools = Mutex<BTreeMap<usize, Arc<ThreadPool>>>;

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

fn pools() -> Result<&'static Pools> {
    let this = process();
    let mine = |place: &&Place| {
        let taken = place.owner.compare_exchange(0, this, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(this)
    };
    TAKEN.iter().find(mine).map(|place| &place.pools).ok_or_else(|| {
        Error::State(format!("expected at most {PLACES} forks within forks, got one more"))
    })
}

fn pool(threads: usize) -> Result<Arc<ThreadPool>> {
    let mut pools = pools()?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads) {
        return Ok(Arc::clone(pool));
    }
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("virtualtb-{index}"))
        .build()
        .map_err(|error| Error::State(format!("cannot start {threads} threads: {error}")))?;
    let built = Arc::new(built);
    pools.insert(threads, Arc::clone(&built));
    Ok(built)
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
    if threads <= 1 || items.len() <= 1 {
        return Ok(items.into_iter().map(work).collect());
    }
    let mut results: Vec<_> = items.iter().map(|_| None).collect();
    let others = (threads - 1).min(items.len() - 1);
    // No thread more than is needed: one too many wakes up on the caller's core now and then, and
    // takes turns with the caller there while another core idles.
    let pool = pool(threads - 1)?;
    let left = Mutex::new(items.into_iter().zip(&mut results));
    let take = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let serve = || {
        while let Some((item, result)) = take() {
            *result = Some(work(item));
        }
    };
    pool.in_place_scope(|scope| {
        (0..others).for_each(|_| scope.spawn(|_| serve()));
        serve();
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
    if threads <= 1 || count <= 1 {
        return serial(count, work, take, tick);
    }
    // Whoever calls back may fork. The child has none of the threads that are waited for here.
    let started = process();
    let tick = &|| {
        let outcome = tick();
        if process() != started {
            left_behind();
        }
        outcome
    };
    let clock = Clock::new(tick);
    let stop = AtomicBool::new(false);
    let (send, receive) = channel();
    pool(threads)?.in_place_scope(|scope| {
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
        let (one, pool_of_one) = (process(), pool(2).unwrap());
        assert!(Arc::ptr_eq(&pool_of_one, &pool(2).unwrap()));
        // Held, as by a thread that a child does not have.
        let _held = pools().unwrap().lock().unwrap();
        forked();
        assert_ne!(process(), one);
        assert!(!Arc::ptr_eq(&pool_of_one, &pool(2).unwrap()));
        FORKS.fetch_sub(1, Ordering::Relaxed);
    }

    #[test]
    fn a_panic_in_the_work_reaches_the_caller() {
        let work = |index: u64, _: &dyn Fn() -> bool| assert_ne!(index, 3, "as planned");
        let take = |()| Ok(ControlFlow::Continue(()));
        let run = || ordered(3, 9, work, take, &|| Ok(()));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
