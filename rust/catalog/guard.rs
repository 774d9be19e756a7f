//! A mapped file that is cut short under us must not end the process.
//!
//! Reading a mapped page that the file no longer has raises SIGBUS, and no check before the read
//! can rule that out: another process may cut the file right after it. So mappings are entered in
//! a table, and a SIGBUS within one of them puts pages of zeros in place of the whole mapping and
//! marks it as lost. The read goes on, and whoever asked for it looks at the mark afterwards and
//! gets an error instead of a result made of zeros. Every other SIGBUS goes to the handler that
//! was there before.
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
        handler::install()?;
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
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use libc::{c_int, c_void, sigaction, siginfo_t};

    use super::TABLE;
    use crate::error::{Error, Result};

    static BEFORE: OnceLock<sigaction> = OnceLock::new();

    /// Puts the handler in place, once a process.
    pub fn install() -> Result<()> {
        static DONE: OnceLock<Result<(), String>> = OnceLock::new();
        let outcome = DONE.get_or_init(|| {
            // SAFETY: a zeroed `sigaction` is a valid one (default action, empty mask). The old
            // one is kept before the new one can run; the handler is async-signal-safe (see its
            // own comment) and takes the three arguments that SA_SIGINFO promises.
            unsafe {
                let mut before = MaybeUninit::zeroed().assume_init();
                if libc::sigaction(libc::SIGBUS, null(), &raw mut before) != 0 {
                    return Err(std::io::Error::last_os_error().to_string());
                }
                BEFORE.get_or_init(|| before);
                let mut ours: sigaction = MaybeUninit::zeroed().assume_init();
                let entry: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus_error;
                ours.sa_sigaction = entry as usize;
                // On the alternative stack where a thread has one; other signals may come.
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                if libc::sigaction(libc::SIGBUS, &raw const ours, null_mut()) != 0 {
                    return Err(std::io::Error::last_os_error().to_string());
                }
            }
            Ok(())
        });
        outcome.clone().map_err(|reason| {
            Error::State(format!("cannot guard mapped files against being cut short: {reason}"))
        })
    }

    /// Replaces a lost mapping by zeros; passes everything else on.
    extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: the system gives a valid `info`. Only atomics are touched, and `mmap`,
        // `sigaction` and `raise` are called, which are bare system calls. The range that is
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
            let Some(before) = BEFORE.get().filter(|b| b.sa_sigaction > libc::SIG_IGN) else {
                // The default: to end the process, which happens when the read is tried again.
                let mut default: sigaction = MaybeUninit::zeroed().assume_init();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, null_mut());
                return;
            };
            let entry = before.sa_sigaction as *const ();
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                type Full = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                std::mem::transmute::<*const (), Full>(entry)(signal, info, context);
            } else {
                type Short = extern "C" fn(c_int);
                std::mem::transmute::<*const (), Short>(entry)(signal);
            }
        }
    }
}

#[cfg(not(unix))]
mod handler {
    pub fn install() -> crate::error::Result<()> {
        Ok(())
    }
}
