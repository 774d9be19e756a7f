//! A mapped file that is cut short under us must not end the process.
//!
//! Reading a mapped page that the file no longer has raises SIGBUS, and no check before the read
//! can rule that out: another process may cut the file right after it. So mappings are entered in
//! a table, and a SIGBUS within one of them puts pages of zeros in place of the whole mapping and
//! marks it as lost. The read goes on, and whoever asked for it looks at the mark afterwards and
//! gets an error instead of a result made of zeros. Every other SIGBUS goes to the handler that
//! was there before.
//!
//! Others may install a handler after us (`faulthandler.enable()` does), so whether ours is in
//! place is asked at each use of a catalogue, before anything is read. A handler that another
//! thread installs in the middle of a search stays without ours until the next use; a file that is
//! cut in that very search then ends the process.
//!
//! The handler touches atomics and calls `mmap`, nothing else. Where there is no SIGBUS (Windows
//! does not let a mapped file be cut) this does nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Files that may be mapped at a time.
const SLOTS: usize = 4096;

struct Slot {
    taken: AtomicBool,
    /// Address range of the mapping; `end` is 0 while there is none.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];

/// One mapping's entry in the table, for as long as this lives.
#[derive(Debug)]
pub struct Guard(usize);

impl Guard {
    /// Guards the bytes, which are a whole mapping. It must be dropped before they are unmapped.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        handler::ensure()?;
        let free = |slot: &Slot| {
            let (old, new) = (false, true);
            slot.taken.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let index = TABLE.iter().position(free).ok_or_else(|| {
            Error::State(format!("expected at most {SLOTS} open catalogue files, got one more"))
        })?;
        let (slot, start) = (&TABLE[index], bytes.as_ptr().addr());
        slot.lost.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        slot.end.store(start + bytes.len(), Ordering::Release);
        Ok(Self(index))
    }

    /// Puts the handler back if another was installed since, as `faulthandler.enable()` does.
    pub fn renew(&self) -> Result<()> {
        handler::ensure()
    }

    /// Whether pages of the mapping were gone when they were read.
    pub fn lost(&self) -> bool {
        TABLE[self.0].lost.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slot = &TABLE[self.0];
        slot.end.store(0, Ordering::Release);
        slot.taken.store(false, Ordering::Release);
    }
}

#[cfg(unix)]
mod handler {
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
    use std::time::Duration;

    use libc::{c_int, c_void, sigaction, siginfo_t};

    use super::TABLE;
    use crate::error::{Error, Result};

    /// Handlers that ours took the place of, oldest first: as many as are told apart. They are kept
    /// for good, because a signal may be handled at any time.
    static BEFORE: [OnceLock<sigaction>; 8] = [const { OnceLock::new() }; 8];

    /// How many handlers, counted from the newest, the signal at hand has been passed to: one that
    /// calls the handler it replaced, ours, must not be called again.
    static DEPTH: AtomicUsize = AtomicUsize::new(0);

    /// The address that was passed on last, and how often in a row. A handler that does nothing any
    /// more (`faulthandler.disable()`) would be called for ever.
    static LAST: AtomicUsize = AtomicUsize::new(0);
    static REPEATED: AtomicUsize = AtomicUsize::new(0);
    /// After so many times, an older handler has its turn.
    const PATIENCE: usize = 1000;

    fn entry() -> usize {
        let entry: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus_error;
        entry as usize
    }

    static INSTALLING: Mutex<()> = Mutex::new(());

    /// The right to enter a handler. None if its owner does not give it up in some milliseconds:
    /// that was a thread of the process that this one was forked from, which is no more.
    fn installing() -> Option<MutexGuard<'static, ()>> {
        for _ in 0..PATIENCE {
            match INSTALLING.try_lock() {
                Ok(one) => return Some(one),
                Err(TryLockError::Poisoned(one)) => return Some(one.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(10)),
            }
        }
        None
    }

    /// Puts the handler in place, unless it is.
    pub fn ensure() -> Result<()> {
        // SAFETY: a zeroed `sigaction` is a valid one (default action, empty mask). The old one is
        // kept before the new one can run; the handler is async-signal-safe (see its own comment)
        // and takes the three arguments that SA_SIGINFO promises.
        let outcome = unsafe {
            let mut before: sigaction = MaybeUninit::zeroed().assume_init();
            if libc::sigaction(libc::SIGBUS, null(), &raw mut before) != 0 {
                Err(std::io::Error::last_os_error())
            } else if before.sa_sigaction == entry() {
                return Ok(());
            } else {
                // One at a time, so that none is entered twice.
                let one = installing();
                if one.is_some() {
                    remember(before);
                }
                let mut ours: sigaction = MaybeUninit::zeroed().assume_init();
                ours.sa_sigaction = entry();
                // On the alternative stack where a thread has one; other signals may come.
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                match libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) {
                    0 => return Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            }
        };
        outcome.map_err(|reason| {
            Error::State(format!("cannot guard mapped files against being cut short: {reason}"))
        })
    }

    /// Enters a handler as the newest, unless it is known: then its place stays.
    fn remember(before: sigaction) {
        let known = BEFORE.iter().map_while(OnceLock::get);
        if before.sa_sigaction == entry()
            || known.clone().any(|known| known.sa_sigaction == before.sa_sigaction)
        {
            return;
        }
        if let Some(free) = BEFORE.get(known.count()) {
            free.get_or_init(|| before);
        }
    }

    /// Replaces a lost mapping by zeros; passes everything else on.
    extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: the system gives a valid `info`. Only atomics and a constant-initialised
        // thread-local number are touched, and `mmap` and `sigaction` are called, which are bare
        // system calls. The range that is
        // mapped anew is a mapping of ours: an entry is taken out of the table before its mapping
        // goes. What was there before is called as its flags say.
        unsafe {
            let fault = (*info).si_addr().addr();
            for slot in &TABLE {
                let end = slot.end.load(Ordering::Acquire);
                let start = slot.start.load(Ordering::Relaxed);
                if fault < start || fault >= end {
                    continue;
                }
                slot.lost.store(true, Ordering::Release);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
                let at = start as *mut c_void;
                let made = libc::mmap(at, end - start, libc::PROT_READ, flags, -1, 0);
                if made != libc::MAP_FAILED {
                    return;
                }
            }
            // The newest handler that this signal has not been to yet.
            if LAST.swap(fault, Ordering::Relaxed) != fault {
                REPEATED.store(0, Ordering::Relaxed);
            }
            let useless = REPEATED.fetch_add(1, Ordering::Relaxed) / PATIENCE;
            let depth = DEPTH.load(Ordering::Relaxed);
            let mut known = BEFORE.iter().rev().filter_map(OnceLock::get);
            let before =
                known.nth(depth + useless).filter(|before| before.sa_sigaction > libc::SIG_IGN);
            let Some(before) = before else {
                // The default: to end the process, which happens when the read is tried again.
                let mut default: sigaction = MaybeUninit::zeroed().assume_init();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, null_mut());
                return;
            };
            DEPTH.store(depth + 1, Ordering::Relaxed);
            let entry = before.sa_sigaction as *const ();
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                type Full = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                std::mem::transmute::<*const (), Full>(entry)(signal, info, context);
            } else {
                type Short = extern "C" fn(c_int);
                std::mem::transmute::<*const (), Short>(entry)(signal);
            }
            DEPTH.store(depth, Ordering::Relaxed);
        }
    }
}

#[cfg(not(unix))]
mod handler {
    pub fn ensure() -> crate::error::Result<()> {
        Ok(())
    }
}
