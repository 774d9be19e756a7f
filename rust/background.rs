//! A value on which work goes on in the background: what `send` and `recv` are made of.
//!
//! [`Lent::send`] moves the value and its work to another thread and returns at once;
//! [`Lent::wait`] brings the value back with the work's outcome. In between nobody can touch the
//! value, and every other use is an error that says so.
//!
//! Each value has a thread of its own, started by its first `send`, and not one of
//! [`crate::parallel`]'s: a pool's thread that waits for its own pool would take up another piece
//! of work meanwhile, and two values of one thread each are to go on side by side. The work itself
//! may be split over a pool.
//!
//! A forked child has none of its parent's threads. A value that was away when it was forked stays
//! with the parent, and the child is told so; any other gets a new thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::parallel;

type Work<T, R> = Box<dyn FnOnce(&mut T) -> R + Send>;
type Outcome<R> = std::thread::Result<R>;

/// A value that is here, or away with work that was sent.
pub struct Lent<T, R> {
    /// None while it is away.
    value: Option<T>,
    thread: Option<Thread<T, R>>,
}

impl<T: Send + 'static, R: Send + 'static> Lent<T, R> {
    /// A value that is here.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), thread: None }
    }

    /// The value, for the call `what`.
    pub fn get(&self, what: &str) -> Result<&T> {
        self.value.as_ref().ok_or_else(|| self.away(what))
    }

    /// The value, for the call `what`.
    pub fn get_mut(&mut self, what: &str) -> Result<&mut T> {
        match self.value {
            Some(ref mut value) => Ok(value),
            None => Err(self.away(what)),
        }
    }

    /// Starts work on the value. On an error the value is here as it was.
    pub fn send(&mut self, work: impl FnOnce(&mut T) -> R + Send + 'static) -> Result<()> {
        self.get("send")?;
        if !self.thread.as_ref().is_some_and(Thread::is_ours) {
            self.thread = Some(Thread::start()?);
        }
        if let (Some(thread), Some(value)) = (&self.thread, self.value.take())
            && let Err(value) = thread.send(value, Box::new(work))
        {
            self.value = Some(value);
            return Err(gone());
        }
        Ok(())
    }

    /// Waits for the work that was sent, at most so long, and returns its outcome, or None if it
    /// still goes on. The outcome is an error if the work panicked.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Outcome<R>>> {
        if self.value.is_some() {
            let message = "recv: expected a step under way, got none; call send first";
            return Err(Error::State(message.into()));
        }
        let away = self.away("recv");
        let Some(thread) = self.thread.as_mut().filter(|thread| thread.is_ours()) else {
            return Err(away);
        };
        Ok(thread.wait(timeout)?.map(|(value, outcome)| {
            self.value = Some(value);
            outcome
        }))
    }

    fn away(&self, what: &str) -> Error {
        let got = match &self.thread {
            Some(thread) if !thread.is_ours() => {
                "one that was sent before this process was forked and is its parent's; \
                 make the environments anew"
            }
            _ => "one that was sent; call recv first",
        };
        Error::State(format!("{what}: expected no step under way, got {got}"))
    }
}

/// A thread that does one piece of work after the other, and the process that it belongs to.
struct Thread<T, R> {
    process: u64,
    channels: Option<Channels<T, R>>,
}

struct Channels<T, R> {
    work: Sender<(T, Work<T, R>)>,
    /// The lock makes it shareable; it is never waited for.
    done: Mutex<Receiver<(T, Outcome<R>)>>,
}

impl<T: Send + 'static, R: Send + 'static> Thread<T, R> {
    fn start() -> Result<Self> {
        let (work, inbox) = channel::<(T, Work<T, R>)>();
        let (outbox, done) = channel();
        let serve = move || {
            while let Ok((mut value, work)) = inbox.recv() {
                let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut value)));
                // Nobody listens any more once the owner is gone; the value goes too.
                if outbox.send((value, outcome)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("virtualtb-step".into())
            .spawn(serve)
            .map_err(|error| Error::State(format!("send: cannot start a thread: {error}")))?;
        let channels = Some(Channels { work, done: Mutex::new(done) });
        Ok(Self { process: parallel::process(), channels })
    }

    fn is_ours(&self) -> bool {
        self.process == parallel::process()
    }

    fn send(&self, value: T, work: Work<T, R>) -> std::result::Result<(), T> {
        let Some(channels) = &self.channels else { return Err(value) };
        channels.work.send((value, work)).map_err(|SendError((value, _))| value)
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<(T, Outcome<R>)>> {
        let channels = self.channels.as_mut().ok_or_else(gone)?;
        let done = channels.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        match done.recv_timeout(timeout) {
            Ok(back) => Ok(Some(back)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl<T, R> Drop for Thread<T, R> {
    fn drop(&mut self) {
        // In a forked child the parent's thread may have held a lock of theirs for good.
        if self.process != parallel::process() {
            std::mem::forget(self.channels.take());
        }
    }
}

fn gone() -> Error {
    Error::State("expected the thread of the environments, got none any more".into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn numbers() -> Lent<Vec<u32>, Result<u32>> {
        Lent::new(vec![1, 2])
    }

    /// Work that waits for leave to go on.
    fn held(leave: Receiver<()>) -> impl FnOnce(&mut Vec<u32>) -> Result<u32> + Send + 'static {
        move |numbers| {
            leave.recv().unwrap();
            numbers.push(3);
            Ok(numbers.iter().sum())
        }
    }

    #[test]
    fn work_goes_on_elsewhere_and_comes_back() {
        let mut lent = numbers();
        for want in [6, 9, 12] {
            let (go, leave) = channel();
            lent.send(held(leave)).unwrap();
            assert!(lent.wait(Duration::from_millis(1)).unwrap().is_none());
            for error in [
                lent.get("get").unwrap_err(),
                lent.get_mut("get").unwrap_err(),
                lent.send(|_| Ok(0)).unwrap_err(),
            ] {
                assert!(error.to_string().contains("call recv first"), "{error}");
            }
            go.send(()).unwrap();
            assert_eq!(lent.wait(LONG).unwrap().unwrap().unwrap().unwrap(), want);
            assert_eq!(lent.get("get").unwrap().iter().sum::<u32>(), want);
            let error = lent.wait(LONG).unwrap_err().to_string();
            assert!(error.contains("call send first"), "{error}");
        }
    }

    #[test]
    fn errors_and_panics_arrive_and_the_value_stays() {
        let mut lent = numbers();
        lent.send(|_| Err(Error::State("as planned".into()))).unwrap();
        assert!(lent.wait(LONG).unwrap().unwrap().unwrap().is_err());
        lent.send(|_| panic!("as planned")).unwrap();
        assert!(lent.wait(LONG).unwrap().unwrap().is_err());
        lent.send(|numbers| Ok(numbers[1])).unwrap();
        assert_eq!(lent.wait(LONG).unwrap().unwrap().unwrap().unwrap(), 2);
    }

    #[test]
    fn an_owner_may_leave_while_work_goes_on() {
        let (go, leave) = channel();
        let mut lent = numbers();
        lent.send(held(leave)).unwrap();
        drop(lent);
        go.send(()).unwrap();
    }

    #[test]
    fn values_go_on_side_by_side() {
        let (mut one, mut two) = (numbers(), numbers());
        let (go, leave) = channel();
        one.send(held(leave)).unwrap();
        two.send(move |_| go.send(()).map(|()| 5).map_err(|_| Error::Interrupted)).unwrap();
        assert_eq!(two.wait(LONG).unwrap().unwrap().unwrap().unwrap(), 5);
        assert_eq!(one.wait(LONG).unwrap().unwrap().unwrap().unwrap(), 6);
    }
}
