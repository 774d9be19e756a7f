//! The only user of rayon: work split over a stated number of threads.
//!
//! Pools are kept by process and size. A forked child has none of its parent's threads, so it
//! finds no pool under its own process number and builds one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;

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

fn pool(threads: usize) -> Result<Arc<ThreadPool>> {
    type Pools = HashMap<(u32, usize), Arc<ThreadPool>>;
    static POOLS: Mutex<Option<Pools>> = Mutex::new(None);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pools = pools.get_or_insert_default();
    let key = (std::process::id(), threads);
    if let Some(pool) = pools.get(&key) {
        return Ok(Arc::clone(pool));
    }
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("virtualtb-{index}"))
        .build()
        .map_err(|error| Error::State(format!("cannot start {threads} threads: {error}")))?;
    let built = Arc::new(built);
    pools.insert(key, Arc::clone(&built));
    Ok(built)
}

/// Calls `work` on every item, on at most `threads` threads.
pub fn for_each<T: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) + Sync + Send,
) -> Result<()> {
    if threads <= 1 || items.len() <= 1 {
        items.into_iter().for_each(work);
        return Ok(());
    }
    pool(threads)?.install(|| items.into_par_iter().with_max_len(1).for_each(work));
    Ok(())
}

/// Calls `work` on every item, on at most `threads` threads; results in the order of the items.
pub fn map<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync + Send,
) -> Result<Vec<R>> {
    if threads <= 1 || items.len() <= 1 {
        return Ok(items.into_iter().map(work).collect());
    }
    Ok(pool(threads)?.install(|| items.into_par_iter().with_max_len(1).map(work).collect()))
}
