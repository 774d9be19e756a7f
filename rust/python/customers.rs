//! `_core.Customers`, and what a simulator answers without sessions.

use numpy::{PyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{exact, two};
use super::errors::{interruptible, to_py};
use super::refused_argument;
use super::simulator::{PySimulator, parse, read_tensors};
use crate::simulator::{Customers, Questions, Told};

/// A sampler of customers, by itself.
#[pyclass(name = "Customers", module = "virtualtb_fast._core", frozen)]
pub struct PyCustomers(Customers);

#[pymethods]
impl PyCustomers {
    #[staticmethod]
    fn from_tensors(
        fields: &str,
        config: &str,
        slope: f32,
        tensors: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (fields, config) = (parse::<Vec<_>>("fields", fields)?, parse("config", config)?);
        let read = read_tensors(tensors)?;
        Customers::new(&fields, &config, slope, &read).map(Self).map_err(to_py)
    }

    fn sample<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        first: u64,
        count: u64,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<u8>>> {
        sample(py, &self.0, seed, first, count, num_threads)
    }
}

/// The customers of sessions `first` and on of a stream.
pub fn sample<'py>(
    py: Python<'py>,
    customers: &Customers,
    seed: u64,
    first: u64,
    count: u64,
    num_threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let sampled = interruptible(py, |interrupt| {
        customers.sample(seed, first, count, num_threads, interrupt)
    })?;
    two(py, sampled, customers.fields())
}

/// The answers to some pages: probabilities, or their logits.
pub fn respond<'py>(
    simulator: &PySimulator,
    codes: &Bound<'py, PyAny>,
    pages: &Bound<'py, PyAny>,
    actions: &Bound<'py, PyAny>,
    logits: bool,
    num_threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (py, simulator) = (codes.py(), &simulator.0);
    let rows = match pages.cast::<PyUntypedArray>() {
        Ok(array) if array.ndim() == 1 => array.len(),
        _ => 0,
    };
    let shape = [rows, simulator.schema.customer.len()];
    let codes = exact::<u8>(codes, "codes", &shape, refused_argument)?;
    let pages = exact::<u32>(pages, "pages", &[rows], refused_argument)?;
    let shape = [rows, simulator.schema.action];
    let actions = exact::<f32>(actions, "actions", &shape, refused_argument)?;
    let questions = Questions {
        codes: codes.as_slice()?,
        pages: pages.as_slice()?,
        actions: actions.as_slice()?,
    };
    let told = if logits { Told::Logits } else { Told::Probabilities };
    let answered =
        interruptible(py, |interrupt| simulator.respond(questions, told, num_threads, interrupt))?;
    two(py, answered, simulator.response.width())
}
