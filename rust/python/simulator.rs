//! `_core.Simulator`.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArray2, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde::de::DeserializeOwned;

use super::errors::{detached, exception, interruptible, to_py};
use super::{arrays, customers};
use crate::error::Error;
use crate::simulator::{Data, Simulator, Tensor, Tensors};

/// Frozen customer networks.
#[pyclass(name = "Simulator", module = "virtualtb_fast._core", frozen)]
pub struct PySimulator(pub Arc<Simulator>);

/// An argument that is JSON.
pub fn parse<T: DeserializeOwned>(what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text)
        .map_err(|error| to_py(Error::argument(what, "JSON as the docs describe it", error)))
}

/// JSON for Python.
pub fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| to_py(Error::State(error.to_string())))
}

/// Tensors from a dictionary of float32 (or, for codes, uint8) arrays.
pub fn read_tensors(tensors: &Bound<'_, PyDict>) -> PyResult<Tensors> {
    let mut read = Tensors::new();
    for (key, value) in tensors {
        let key: String = key.extract()?;
        let refuse = |message| exception("InvalidArgumentError", (message,));
        let what = format!("tensor {key}");
        let tensor = if let Ok(array) = value.cast::<PyArrayDyn<u8>>() {
            let shape = array.shape().to_vec();
            let array = arrays::exact::<u8>(&value, &what, &shape, refuse)?;
            Tensor::codes(shape, array.as_slice()?)
        } else {
            let shape = match value.cast::<PyArrayDyn<f32>>() {
                Ok(array) => array.shape().to_vec(),
                Err(_) => Vec::new(),
            };
            let array = arrays::exact::<f32>(&value, &what, &shape, refuse)?;
            Tensor::floats(shape, array.as_slice()?.to_vec())
        };
        read.insert(key, tensor);
    }
    Ok(read)
}

/// The same the other way, as fresh arrays.
pub fn write_tensors<'py>(py: Python<'py>, tensors: &Tensors) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    for (name, tensor) in tensors {
        let shape = tensor.shape.clone();
        match &tensor.data {
            Data::F32(values) => {
                out.set_item(name, arrays::one(py, values.clone()).reshape(shape)?)
            }
            Data::U8(codes) => out.set_item(name, arrays::one(py, codes.to_vec()).reshape(shape)?),
        }?;
    }
    Ok(out)
}

#[pymethods]
impl PySimulator {
    #[staticmethod]
    fn from_tensors(
        name: String,
        schema: &str,
        config: &str,
        provenance: &str,
        tensors: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (schema, config) = (parse("schema", schema)?, parse("config", config)?);
        let provenance = parse("provenance", provenance)?;
        let read = read_tensors(tensors)?;
        Simulator::new(name, schema, config, provenance, read).map(Self).map_err(to_py)
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detached(py, || Simulator::load(&path)).map(Self)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8], origin: &str) -> PyResult<Self> {
        detached(py, || Simulator::from_bytes(data, origin)).map(Self)
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        detached(py, || self.0.save(&path))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &detached(py, || Ok(self.0.to_bytes()))?))
    }

    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        write_tensors(py, self.0.tensors())
    }

    fn forward<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        x: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let shape = match x.cast::<PyArray2<f32>>() {
            Ok(array) => array.shape().to_vec(),
            Err(_) => vec![0, 0],
        };
        let refuse = |message| exception("InvalidArgumentError", (message,));
        let array = arrays::exact::<f32>(x, "x", &shape, refuse)?;
        let values = array.as_slice()?;
        let out = interruptible(py, |interrupt| self.0.forward(model, values, interrupt))?;
        let width = out.len() / shape[0].max(1);
        arrays::two(py, out, width)
    }

    fn reduced(&self, py: Python<'_>) -> PyResult<Self> {
        interruptible(py, |interrupt| self.0.reduced(interrupt)).map(Self)
    }

    fn reduced_weights<'py>(
        &self,
        py: Python<'py>,
        layer: usize,
    ) -> PyResult<Option<Bound<'py, PyArray2<f64>>>> {
        let Some(weights) = self.0.reduced_weights(layer) else { return Ok(None) };
        arrays::two(py, weights, self.0.response.inputs_of(layer)).map(Some)
    }

    fn customers<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        first: u64,
        count: u64,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<u8>>> {
        customers::sample(py, &self.0.customers, seed, first, count, num_threads)
    }

    fn respond<'py>(
        &self,
        codes: &Bound<'py, PyAny>,
        pages: &Bound<'py, PyAny>,
        actions: &Bound<'py, PyAny>,
        logits: bool,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        customers::respond(self, codes, pages, actions, logits, num_threads)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn digest(&self) -> &str {
        &self.0.digest
    }

    #[getter]
    fn is_reduced(&self) -> bool {
        self.0.is_reduced
    }

    #[getter]
    fn schema(&self) -> PyResult<String> {
        json(&self.0.schema)
    }

    #[getter]
    fn config(&self) -> PyResult<String> {
        json(&self.0.config)
    }

    #[getter]
    fn provenance(&self) -> PyResult<String> {
        json(&self.0.provenance)
    }
}
