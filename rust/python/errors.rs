//! Rust errors as the Python classes of `virtualtb_fast.errors`, and the one gate to long calls.

use std::cell::Cell;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::PyClass;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::False;

use crate::background::Lent;
use crate::error::{Error, KEPT, Result};

/// Python hears of long work at most this often.
const PAUSE: Duration = Duration::from_millis(10);

/// An exception of the class `name` of `virtualtb_fast.errors`.
pub fn exception(name: &str, arguments: impl for<'py> pyo3::call::PyCallArgs<'py>) -> PyErr {
    Python::attach(|py| {
        let made = py
            .import("virtualtb_fast.errors")
            .and_then(|module| module.getattr(name))
            .and_then(|class| class.call1(arguments));
        match made {
            Ok(value) => PyErr::from_value(value),
            Err(error) => error,
        }
    })
}

/// The Python exception for an error of the crate.
pub fn to_py(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Argument { .. } => exception("InvalidArgumentError", (message,)),
        Error::Action { .. } => exception("InvalidActionError", (message,)),
        Error::World { .. } => exception("DegenerateWorldError", (message,)),
        Error::State(_) => exception("StateError", (message,)),
        Error::Format { .. } => exception("FileFormatError", (message,)),
        Error::Model { source, .. } => customer_model(message, source),
        Error::Policy(_) => exception("PolicyError", (message,)),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        Error::Io { path, source } => output(message, &path, &source, ""),
        Error::Unfinished { path, source } => output(message, &path, &source, &format!("; {KEPT}")),
    }
}

/// The exception for a refusal of the operating system.
fn output(message: String, path: &Path, source: &std::io::Error, addition: &str) -> PyErr {
    match source.raw_os_error() {
        Some(code) => {
            // The system's own words, without the code that OSError adds by itself.
            let text = source.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let text = format!("{text}{addition}");
            exception("OutputError", (code, text, path.display().to_string()))
        }
        None => exception("OutputError", (message,)),
    }
}

/// What a model raised is the cause, unless it already says what is wrong with the model, or is
/// no error (`KeyboardInterrupt`, `SystemExit`): those pass as they are.
fn customer_model(message: String, source: Option<Box<dyn StdError + Send + Sync>>) -> PyErr {
    let made = exception("CustomerModelError", (message,));
    let Some(raised) = source.and_then(|source| source.downcast::<PyErr>().ok()) else {
        return made;
    };
    Python::attach(|py| {
        if raised.is_instance(py, &made.get_type(py)) || !raised.is_instance_of::<PyException>(py) {
            return *raised;
        }
        made.set_cause(py, Some(*raised));
        made
    })
}

fn in_use() -> PyErr {
    let got = "one that another call is at work in, on another thread or around this one, or that \
               was when this process was forked (make it again then)";
    exception(
        "StateError",
        (format!("expected an environment used by one thread at a time, got {got}"),),
    )
}

/// An object, for a call that changes it: refused while another call has it.
pub fn exclusive<'py, T: PyClass<Frozen = False>>(
    object: &Bound<'py, T>,
) -> PyResult<PyRefMut<'py, T>> {
    object.try_borrow_mut().map_err(|_| in_use())
}

/// An object, for a call that only reads it: refused while another call changes it.
pub fn shared<'py, T: PyClass>(object: &Bound<'py, T>) -> PyResult<PyRef<'py, T>> {
    object.try_borrow().map_err(|_| in_use())
}

/// Runs `work` without holding the interpreter; a panic becomes an ordinary exception.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_or_else(
        |panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(PyRuntimeError::new_err(format!("internal error, please report it: {text}")))
        },
        |result| result.map_err(to_py),
    )
}

/// Waits for the work that `lent` was sent away with, without holding the interpreter; Ctrl-C ends
/// the waiting, not the work.
pub fn awaited<T: Send + 'static, R: Send + 'static>(
    py: Python<'_>,
    lent: &mut Lent<T, Result<R>>,
) -> PyResult<R> {
    loop {
        let outcome = detached(py, || match lent.wait(PAUSE)? {
            Some(Ok(outcome)) => outcome.map(Some),
            Some(Err(panic)) => resume_unwind(panic),
            None => Ok(None),
        })?;
        match outcome {
            Some(outcome) => return Ok(outcome),
            None => py.check_signals()?,
        }
    }
}

/// [`detached`] for work that asks now and then whether Ctrl-C was pressed.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T> + Send,
) -> PyResult<T> {
    let told = Told::new(None);
    let outcome = detached(py, || told.watch(|interrupt, _| work(interrupt)));
    told.finish(outcome)
}

/// The first exception that Python code raised during a long call: it ends the work, and is what
/// the caller gets.
#[derive(Default)]
pub struct Raised(Mutex<Option<PyErr>>);

impl Raised {
    /// Keeps the exception, unless there is one already, and gives what ends the work.
    pub fn keep(&self, error: PyErr) -> Error {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(error);
        Error::Interrupted
    }

    /// Ends the work if something was raised.
    pub fn check(&self) -> Result<()> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_some() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Ends the work if something was raised, or if Ctrl-C was pressed.
    pub fn check_signals(&self) -> Result<()> {
        self.check()?;
        Python::attach(|py| py.check_signals()).map_err(|error| self.keep(error))
    }

    /// The work's outcome, or the exception that ended it.
    pub fn finish<T>(self, outcome: PyResult<T>) -> PyResult<T> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => outcome,
        }
    }
}

/// A long call that, now and then, listens for Ctrl-C and tells a Python function how far it is.
pub struct Told {
    progress: Option<Py<PyAny>>,
    raised: Raised,
}

impl Told {
    /// `progress` is called with what is going on, how much is done, and of how much.
    pub fn new(progress: Option<Py<PyAny>>) -> Self {
        Self { progress, raised: Raised::default() }
    }

    /// Runs `work`, without the interpreter, with something to ask and something to tell.
    pub fn watch<T>(
        &self,
        work: impl FnOnce(&dyn Fn() -> Result<()>, &dyn Fn(&'static str, u64, u64)) -> Result<T>,
    ) -> Result<T> {
        let due = |last: &Cell<Option<Instant>>| {
            let due = last.get().is_none_or(|last| last.elapsed() >= PAUSE);
            if due {
                last.set(Some(Instant::now()));
            }
            due
        };
        // The start of the work needs no look at signals: the caller has just left Python.
        let (asked, told) = (Cell::new(Some(Instant::now())), Cell::new(None));
        let interrupt = || match due(&asked) {
            true => self.raised.check_signals(),
            false => self.raised.check(),
        };
        let progress = |stage: &'static str, done: u64, total: u64| {
            let Some(progress) = &self.progress else { return };
            if due(&told) {
                let called =
                    Python::attach(|py| progress.call1(py, (stage, done, total)).map(drop));
                if let Err(error) = called {
                    // Ends the work when it next asks.
                    self.raised.keep(error);
                }
            }
        };
        work(&interrupt, &progress)
    }

    /// The work's outcome, or the exception that ended it.
    pub fn finish<T>(self, outcome: PyResult<T>) -> PyResult<T> {
        self.raised.finish(outcome)
    }
}
