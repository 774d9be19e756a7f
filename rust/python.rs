//! The Python module `virtualtb_fast._core`: borrow, check, detach, call one pure function, wrap.

mod arrays;
mod batch;
mod catalog;
pub mod errors;
mod log;
mod policy;
mod rollout;
mod simulator;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::kernels::{Isa, Kernels};

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

/// The native module.
#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("STREAM_VERSION", crate::rng::STREAM_VERSION)?;
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add_function(wrap_pyfunction!(cpu_info, module)?)?;
    module.add_class::<simulator::PySimulator>()?;
    module.add_class::<batch::PySessionBatch>()?;
    catalog::register(module)?;
    log::register(module)?;
    policy::register(module)?;
    rollout::register(module)
}
