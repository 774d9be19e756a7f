//! Rust errors as the Python classes of `virtualtb_fast.errors`, and the one gate to long calls.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;

use crate::error::{Error, Result};

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
        Error::Model(_) => exception("CustomerModelError", (message,)),
        Error::Policy(_) => exception("PolicyError", (message,)),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        Error::Io { path, source } => match source.raw_os_error() {
            Some(code) => {
                // The system's own words, without the code that OSError adds by itself.
                let text = source.to_string();
                let text = text.split(" (os error").next().unwrap_or_default().to_owned();
                exception("OutputError", (code, text, path.display().to_string()))
            }
            None => exception("OutputError", (message,)),
        },
    }
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
