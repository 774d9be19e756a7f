//! `_core.Store`.

use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::arrays::{exact, one, two};
use super::catalog::PAUSE;
use super::errors::{detached, exception, interruptible, to_py};
use super::simulator::json;
use super::{refused_action, refused_argument, word};
use crate::error::{Error, Result};
use crate::session::refused_value;
use crate::simulator::LARGEST_ACTION;
use crate::store::expect::Shown;
use crate::store::model::{CHOICES, Constant, CustomerModel};
use crate::store::view::Pages;
use crate::store::{ATTRIBUTES, Config, FIELDS, Hour, Leave, PAGE, QUERIES, Store, Strength};

/// Attributes, categories, prices in cents.
type ItemColumns<'py> =
    (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<i64>>);

/// A frozen store.
#[pyclass(name = "Store", module = "virtualtb_fast._core", frozen)]
pub struct PyStore(pub Arc<Store>);

/// Customers that answer by a Python function of batches.
#[derive(Debug)]
struct Called {
    function: Py<PyAny>,
    name: String,
}

impl Called {
    fn weights(&self, pages: &Pages<'_>, weights: &mut [[f64; CHOICES]]) -> PyResult<()> {
        Python::attach(|py| {
            let rows = 0..pages.len();
            let batch = PyDict::new(py);
            let customers = rows.clone().flat_map(|row| pages.customer(row).to_vec()).collect();
            batch.set_item("customer", two(py, customers, FIELDS.len())?)?;
            let number = |values: Vec<i64>| one(py, values);
            let page = rows.clone().map(|row| i64::from(pages.page(row))).collect();
            batch.set_item("page", number(page))?;
            let hour = rows.clone().map(|row| pages.hour(row)).collect();
            batch.set_item("hour", one(py, hour))?;
            let items = rows.clone().flat_map(|row| pages.items(row)).map(i64::from).collect();
            batch.set_item("items", two(py, items, PAGE)?)?;
            let attributes: Vec<f32> = rows
                .clone()
                .flat_map(|row| {
                    (0..PAGE).flat_map(move |slot| pages.attributes(row, slot).to_vec())
                })
                .collect();
            let attributes = one(py, attributes).reshape([pages.len(), PAGE, ATTRIBUTES])?;
            batch.set_item("attributes", attributes)?;
            let memory = pages.memory();
            let actions: Vec<f32> = rows
                .flat_map(|row| (0..memory).flat_map(move |back| pages.action(row, back)))
                .collect();
            let actions = one(py, actions).reshape([pages.len(), memory, ATTRIBUTES])?;
            batch.set_item("actions", actions)?;
            let answer = self.function.bind(py).call1((batch,))?;
            let shape = [pages.len(), CHOICES];
            let refuse = |message| exception("CustomerModelError", (message,));
            let answer = exact::<f64>(&answer, "customer model", &shape, refuse)?;
            let answer = answer.as_slice()?.as_chunks::<CHOICES>().0;
            weights.copy_from_slice(answer);
            Ok(())
        })
    }
}

impl CustomerModel for Called {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn answer(&self, pages: &Pages<'_>, weights: &mut [[f64; CHOICES]]) -> Result<()> {
        self.weights(pages, weights).map_err(|error| Error::Model {
            reason: format!("{:?}: {error}", self.name),
            source: Some(Box::new(error)),
        })
    }
}

/// `None`, an hour, or the word `uniform`.
fn hour(value: Option<&Bound<'_, PyAny>>) -> PyResult<Hour> {
    let Some(value) = value else { return Ok(Hour::None) };
    if let Ok(text) = value.extract::<String>() {
        return word("hour", &text, &[("uniform", Hour::Uniform)]);
    }
    Ok(Hour::At(value.extract()?))
}

#[pymethods]
impl PyStore {
    #[new]
    #[pyo3(signature = (seed, *, items, candidates, categories, day, hour, memory, max_index, repeat,
        continuing, leave, new_request, observe_page, observe_feedback, strength, num_threads))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn new(
        py: Python<'_>,
        seed: u64,
        items: u64,
        candidates: usize,
        categories: &str,
        day: u32,
        #[pyo3(from_py_with = hour_of)] hour: Hour,
        memory: usize,
        max_index: u32,
        repeat: bool,
        continuing: bool,
        leave: &str,
        new_request: f64,
        observe_page: bool,
        observe_feedback: bool,
        strength: Option<(f64, f64)>,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let config = Config {
            seed,
            items,
            candidates,
            long_tail: word("categories", categories, &[("even", false), ("long-tail", true)])?,
            day,
            hour,
            memory,
            max_index,
            repeat,
            continuing,
            leave: word("leave", leave, &[("end", Leave::End), ("respawn", Leave::Respawn)])?,
            new_request,
            observe_page,
            observe_feedback,
            strength: strength.map(|(tau, b0)| Strength { tau, b0 }),
        };
        interruptible(py, |interrupt| Store::watched(config, num_threads, interrupt))
            .map(|store| Self(Arc::new(store)))
    }

    /// The store again, from [`Self::to_bytes`]: nothing has to be calibrated.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8], num_threads: Option<usize>) -> PyResult<Self> {
        let fail = |error: serde_json::Error| Error::format("store", error.to_string());
        let config: Config = serde_json::from_slice(data).map_err(|e| to_py(fail(e)))?;
        interruptible(py, |interrupt| Store::watched(config, num_threads, interrupt))
            .map(|store| Self(Arc::new(store)))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let strength = Some(self.0.strength);
        Ok(PyBytes::new(py, json(&Config { strength, ..self.0.config.clone() })?.as_bytes()))
    }

    /// The same store with customers who buy and turn with these probabilities.
    fn with_constant(&self, buy: f64, turn: f64) -> PyResult<Self> {
        Ok(self.with(Arc::new(Constant::new(buy, turn).map_err(to_py)?)))
    }

    /// The same store with customers that answer by a function.
    fn with_function(&self, function: Py<PyAny>, name: String) -> Self {
        self.with(Arc::new(Called { function, name }))
    }

    #[getter]
    fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Items of the catalogue.
    #[getter]
    fn size(&self) -> u64 {
        self.0.config.items
    }

    #[getter]
    fn max_index(&self) -> u32 {
        self.0.config.max_index
    }

    #[getter]
    fn memory(&self) -> usize {
        self.0.config.memory
    }

    /// What tells it apart, for people.
    fn describe(&self) -> String {
        let Config { seed, items, day, .. } = &self.0.config;
        format!("seed={seed} items={items} day={day}")
    }

    #[getter]
    fn model(&self) -> String {
        self.0.model.name()
    }

    #[getter]
    fn schema(&self) -> PyResult<String> {
        json(&self.0.schema)
    }

    #[getter]
    fn observation_width(&self) -> usize {
        self.0.observation_width()
    }

    #[getter]
    fn production<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        one(py, self.0.production.to_vec())
    }

    /// Rows of a query's candidates.
    fn candidates<'py>(
        &self,
        py: Python<'py>,
        query: usize,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let shelf = self.0.shelves.get(query).ok_or_else(|| {
            to_py(Error::argument("query", format!("0 to {}", QUERIES - 1), query))
        })?;
        Ok(one(py, shelf.rows.iter().map(|row| i64::from(*row)).collect()))
    }

    /// Attributes, categories and prices in cents of the items from `first` on.
    fn items<'py>(&self, py: Python<'py>, first: u64, count: u64) -> PyResult<ItemColumns<'py>> {
        let end = first.saturating_add(count);
        let items = self.0.config.items;
        if end > items {
            let expected = format!("at most {items}, the number of items");
            return Err(to_py(Error::argument("first + count", expected, end)));
        }
        let store = &self.0;
        let made = interruptible(py, |interrupt| store.items(first, end, interrupt))?;
        let attributes = made.iter().flat_map(|item| item.attributes).collect();
        Ok((
            two(py, attributes, ATTRIBUTES)?,
            one(py, made.iter().map(|item| item.category).collect()),
            one(py, made.iter().map(|item| i64::from(item.cents)).collect()),
        ))
    }

    /// Rows of the pages that actions show to customers with these queries.
    fn pages<'py>(
        &self,
        py: Python<'py>,
        actions: &Bound<'py, PyAny>,
        queries: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let rows = actions.len().unwrap_or(0);
        let actions = exact::<f32>(actions, "actions", &[rows, ATTRIBUTES], refused_action)?;
        let queries = exact::<u8>(queries, "queries", &[rows], refused_argument)?;
        let (actions, queries) = (actions.as_slice()?, queries.as_slice()?);
        for part in actions.chunks(PAUSE * ATTRIBUTES) {
            py.check_signals()?;
            check_values("actions", part)?;
        }
        let store = &self.0;
        let items = interruptible(py, |interrupt| {
            let items = store.pages(actions, queries, interrupt)?;
            let mut wide = Vec::with_capacity(items.len());
            for part in items.chunks(PAUSE) {
                interrupt()?;
                wide.extend(part.iter().map(|item| i64::from(*item)));
            }
            Ok(wide)
        })?;
        two(py, items, PAGE)
    }

    /// Share of pages that sell, mean session length, and the distribution of lengths.
    fn expected<'py>(
        &self,
        py: Python<'py>,
        policy: &str,
        action: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(f64, f64, Bound<'py, PyArray1<f64>>)> {
        let mut constant = [0.0; ATTRIBUTES];
        if let Some(action) = action {
            let action = exact::<f32>(action, "action", &[ATTRIBUTES], refused_action)?;
            constant.copy_from_slice(action.as_slice()?);
            check_values("action", &constant)?;
        }
        let shown = word(
            "policy",
            policy,
            &[
                ("constant", Shown::Constant(&constant)),
                ("logger", Shown::Logger),
                ("uniform", Shown::Uniform),
                ("oracle", Shown::Oracle),
            ],
        )?;
        let course = detached(py, || self.0.expected(shown))?;
        Ok((course.r2p(), course.pages, one(py, course.lengths)))
    }

    /// Everything that is hidden from learners.
    fn reveal<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let store = &*self.0;
        let hidden = PyDict::new(py);
        hidden.set_item("tau", store.strength.tau)?;
        hidden.set_item("b0", store.strength.b0)?;
        hidden.set_item("phase", store.phase)?;
        hidden.set_item("shared", one(py, store.taste.shared.to_vec()))?;
        let scale = |value: f64| store.strength.tau * value;
        let theta = store.taste.archetypes.iter().flat_map(|theta| theta.map(scale)).collect();
        hidden.set_item("theta", two(py, theta, ATTRIBUTES)?)?;
        hidden.set_item("covariance", two(py, store.covariance().to_vec(), ATTRIBUTES)?)?;
        hidden.set_item("shares", one(py, store.customers.shares.clone()))?;
        let columns = store.customers.probabilities.clone();
        hidden.set_item("fields", two(py, columns, FIELDS.iter().sum())?)?;
        let means = store.logged_means.iter().flatten().copied().collect();
        hidden.set_item("logged_means", two(py, means, ATTRIBUTES)?)?;
        if let Some(found) = &store.calibration {
            let figures = PyDict::new(py);
            for (name, value) in [
                ("logger", found.logger),
                ("oracle", found.oracle),
                ("zero", found.zero),
                ("uniform", found.uniform),
                ("best_constant", found.best_constant),
                ("slots_changed", found.slots_changed),
                ("mean_length", found.mean_length),
                ("entropy", found.entropy),
                ("total_correlation", found.total_correlation),
            ] {
                figures.set_item(name, value)?;
            }
            figures.set_item("length_quantiles", found.length_quantiles.to_vec())?;
            let action = (0..ATTRIBUTES).map(|d| found.best_weights[d] - store.production[d]);
            figures.set_item("best_action", one(py, action.collect()))?;
            hidden.set_item("calibration", figures)?;
        }
        Ok(hidden)
    }

    /// `ln p(x)` of customers, (n, 11) codes.
    fn ln_density<'py>(
        &self,
        py: Python<'py>,
        codes: PyReadonlyArray2<'py, u8>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let shape = codes.shape();
        let expected = || format!("(n, {}) codes below {FIELDS:?}", FIELDS.len());
        let refuse = |got| to_py(Error::argument("codes", expected(), got));
        if shape[1] != FIELDS.len() {
            return Err(refuse(format!("shape {shape:?}")));
        }
        let mut rows = Vec::with_capacity(shape[0]);
        for (number, row) in codes.as_array().rows().into_iter().enumerate() {
            let row: [u8; FIELDS.len()] = std::array::from_fn(|field| row[field]);
            if row.iter().zip(FIELDS).any(|(code, size)| usize::from(*code) >= size) {
                return Err(refuse(format!("{row:?} in row {number}")));
            }
            rows.push(row);
        }
        let store = &self.0;
        let densities = interruptible(py, |interrupt| store.ln_densities(&rows, interrupt))?;
        Ok(one(py, densities))
    }
}

/// Refuses what no environment executes.
fn check_values(what: &str, actions: &[f32]) -> PyResult<()> {
    let Some(value) = refused_value(actions) else { return Ok(()) };
    let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
    Err(refused_action(format!("{what}: expected {expected}, got {value}")))
}

fn hour_of(value: &Bound<'_, PyAny>) -> PyResult<Hour> {
    hour((!value.is_none()).then_some(value))
}

impl PyStore {
    /// The same store with other customers; catalogue and shelves are shared.
    fn with(&self, model: Arc<dyn CustomerModel>) -> Self {
        Self(Arc::new(Store::clone(&self.0).with_model(model)))
    }
}
