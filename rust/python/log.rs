//! `_core.Log`.

use std::path::PathBuf;

use arrow_array::RecordBatchIterator;
use arrow_array::ffi::FFI_ArrowSchema;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use numpy::ndarray::{ArrayViewD, IxDyn};
use numpy::{Element, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use super::errors::{interruptible, to_py};
use crate::error::Error;
use crate::logs::{Log, OUTCOMES, check_file, digest_file};

/// The pages of some sessions, as columns.
#[pyclass(name = "Log", module = "virtualtb_fast._core", frozen)]
pub struct PyLog(pub Log);

/// A read-only NumPy view of a column, `width` values a row if it is given.
fn view<'py, T: Element>(
    owner: &Bound<'py, PyLog>,
    values: &[T],
    width: Option<usize>,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let shape = match width {
        None => vec![values.len()],
        Some(width) => vec![values.len() / width.max(1), width],
    };
    let array = ArrayViewD::from_shape(IxDyn(&shape), values)
        .map_err(|error| to_py(Error::State(format!("a column of odd length: {error}"))))?;
    // SAFETY: the values lie in a buffer that `owner` holds. It is frozen, so the buffer neither
    // moves nor changes, and the array keeps `owner` alive as its base.
    let array = unsafe { PyArrayDyn::borrow_from_array(&array, owner.clone().into_any()) };
    array.readwrite().make_nonwriteable();
    Ok(array)
}

#[pymethods]
impl PyLog {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn columns<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let (columns, log) = (PyDict::new(slf.py()), &slf.get().0);
        columns.set_item("session", view(slf, &log.session, None)?)?;
        columns.set_item("page", view(slf, &log.page, None)?)?;
        columns.set_item("day", view(slf, &log.day, None)?)?;
        columns.set_item("customer", view(slf, &log.customer, Some(log.shape.fields))?)?;
        columns.set_item("action", view(slf, &log.action, Some(log.shape.action))?)?;
        columns.set_item("action_logp", view(slf, &log.action_logp, None)?)?;
        columns.set_item("clicks", view(slf, &log.clicks, None)?)?;
        columns.set_item("second", view(slf, &log.second, None)?)?;
        columns.set_item("outcome", view(slf, &log.outcome, None)?)?;
        columns.set_item("units", view(slf, &log.units, None)?)?;
        if log.shape.of_store() {
            columns.set_item("value", view(slf, &log.value, None)?)?;
            columns.set_item("hour", view(slf, &log.hour, None)?)?;
            columns.set_item("items", view(slf, &log.items, Some(log.shape.items))?)?;
        }
        Ok(columns)
    }

    fn metadata(&self) -> std::collections::BTreeMap<String, String> {
        self.0.metadata.clone()
    }

    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        interruptible(py, |interrupt| self.0.digest(interrupt))
    }

    #[staticmethod]
    fn digest_file(py: Python<'_>, path: PathBuf) -> PyResult<String> {
        interruptible(py, |interrupt| digest_file(&path, interrupt))
    }

    #[staticmethod]
    fn check_file(py: Python<'_>, path: PathBuf) -> PyResult<bool> {
        interruptible(py, |interrupt| check_file(&path, interrupt))
    }

    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        interruptible(py, |interrupt| Log::read(&path, interrupt)).map(Self)
    }

    fn write(&self, py: Python<'_>, path: PathBuf, overwrite: bool) -> PyResult<()> {
        interruptible(py, |interrupt| self.0.write(&path, overwrite, interrupt))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.arrow_schema().as_ref())
            .map_err(|error| to_py(Error::State(error.to_string())))?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    /// A consumer may ask for other types, but only gets these: the interface allows it.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batch = self.0.to_arrow().map_err(to_py)?;
        let schema = batch.schema();
        let reader = RecordBatchIterator::new([Ok(batch)], schema);
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

/// Adds what is defined here to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("OUTCOMES", OUTCOMES)?;
    module.add_class::<PyLog>()
}
