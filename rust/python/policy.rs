//! `_core.Policy`.

use std::path::PathBuf;

use numpy::{PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::arrays::exact;
use super::errors::{detached, exception, to_py};
use super::simulator::{json, parse, read_tensors, write_tensors};
use crate::policy::Policy;
use crate::simulator::{Schema, Tensors};

/// A ranking policy that runs natively.
#[pyclass(name = "Policy", module = "virtualtb_fast._core", frozen)]
pub struct PyPolicy(pub Policy);

#[pymethods]
impl PyPolicy {
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        Policy::parse(text).map(Self).map_err(to_py)
    }

    #[staticmethod]
    fn constant(action: &Bound<'_, PyAny>) -> PyResult<Self> {
        let shape = match action.cast::<PyArray1<f32>>() {
            Ok(array) => array.shape().to_vec(),
            Err(_) => vec![0],
        };
        let refuse = |message| exception("InvalidArgumentError", (message,));
        let action = exact::<f32>(action, "constant action", &shape, refuse)?;
        Policy::constant(action.as_slice()?.to_vec()).map(Self).map_err(to_py)
    }

    #[staticmethod]
    fn from_tensors(config: &str, provenance: &str, tensors: &Bound<'_, PyDict>) -> PyResult<Self> {
        let (config, provenance) = (parse("config", config)?, parse("provenance", provenance)?);
        let tensors = read_tensors(tensors)?;
        Policy::network(config, provenance, tensors).map(Self).map_err(to_py)
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detached(py, || Policy::load(&path)).map(Self)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8], origin: &str) -> PyResult<Self> {
        detached(py, || Policy::from_bytes(data, origin)).map(Self)
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        detached(py, || self.0.save(&path))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &detached(py, || self.0.to_bytes())?))
    }

    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        write_tensors(py, self.0.tensors().unwrap_or(&Tensors::new()))
    }

    #[getter]
    fn name(&self) -> String {
        self.0.name()
    }

    #[getter]
    fn config(&self) -> PyResult<Option<String>> {
        self.0.network_config().map(json).transpose()
    }

    #[getter]
    fn provenance(&self) -> PyResult<Option<String>> {
        self.0.provenance().map(json).transpose()
    }
}

/// What a policy's file refers to.
#[pyfunction]
fn schema_digest(schema: &str) -> PyResult<String> {
    parse::<Schema>("schema", schema).map(|schema| crate::policy::schema_digest(&schema))
}

/// Adds what is defined here to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPolicy>()?;
    module.add_function(wrap_pyfunction!(schema_digest, module)?)
}
