//! The Python module `virtualtb_fast._core`: borrow, check, detach, call one pure function, wrap.

mod arrays;
mod batch;
mod catalog;
mod customers;
pub mod errors;
mod infos;
mod log;
mod policy;
mod rollout;
mod simulator;
mod store;
mod store_batch;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Error;
use crate::kernels::{Isa, Kernels};
use errors::{exception, to_py};

/// One of some words, or an error that lists them.
fn word<T: Copy>(what: &str, value: &str, words: &[(&str, T)]) -> PyResult<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let expected: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        to_py(Error::argument(what, format!("one of {}", expected.join(", ")), value))
    })
}

fn refused_action(message: String) -> PyErr {
    exception("InvalidActionError", (message,))
}

fn refused_argument(message: String) -> PyErr {
    exception("InvalidArgumentError", (message,))
}

/// What this CPU offers and what is in use.
#[pyfunction]
fn cpu_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    let kernels = Kernels::best().map_err(errors::to_py)?;
    let available: Vec<_> =
        Isa::ALL.iter().filter(|isa| isa.available()).map(|isa| isa.name()).collect();
    info.set_item("isa", kernels.isa().name())?;
    info.set_item("available", available)?;
    info.set_item("cores", crate::parallel::resolve(None).map_err(errors::to_py)?)?;
    Ok(info)
}

/// Tells the pools that this process is a forked child.
#[pyfunction]
fn _forked() {
    crate::parallel::forked();
}

/// Does once, while nobody can fork, what a fork in the middle of would leave half done in the
/// child for ever; and asks to be told of forks.
fn prepare_for_forks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Kernels::best().map_err(to_py)?;
    let os = module.py().import("os")?;
    let Ok(register) = os.getattr("register_at_fork") else { return Ok(()) };
    let told = PyDict::new(module.py());
    told.set_item("after_in_child", wrap_pyfunction!(_forked, module)?)?;
    register.call((), Some(&told)).map(drop)
}

/// The native module.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    prepare_for_forks(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("STREAM_VERSION", crate::rng::STREAM_VERSION)?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add_function(wrap_pyfunction!(cpu_info, module)?)?;
    module.add_class::<simulator::PySimulator>()?;
    module.add_class::<customers::PyCustomers>()?;
    module.add_class::<batch::PySessionBatch>()?;
    module.add_class::<store::PyStore>()?;
    module.add_class::<store_batch::PyStoreBatch>()?;
    catalog::register(module)?;
    log::register(module)?;
    policy::register(module)?;
    rollout::register(module)
}
