//! `_core.Catalog`.

mod filter;
mod info;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::ffi_stream::RecordBatchStreamReader;
use numpy::{PyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyList, PyString};

use super::arrays::{exact, one, two};
use super::errors::{Told, detached, exception, interruptible, to_py};
use crate::catalog::build::{Options, Watch};
use crate::catalog::format::{ColumnKind, IdKind};
use crate::catalog::ids::{Id, Ids};
use crate::catalog::source::{Columns, from_batches, from_parquet};
use crate::catalog::{Catalog, Own, Value};
use crate::error::{Error, Result};
use crate::search::NO_ROW;
use filter::{PyFilter, conditions, selection};
use info::info;
use whole::{Whole, build_whole, text_pieces};

/// A catalogue of items.
#[pyclass(name = "Catalog", module = "virtualtb_fast._core", frozen)]
pub struct PyCatalog(Arc<Catalog>);

/// Which columns of a table are what; see [`Columns`].
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct PyColumns {
    attributes: Vec<String>,
    ids: Option<String>,
    numbers: Vec<(String, String)>,
    categories: Vec<(String, String)>,
}

fn refuse(message: String) -> PyErr {
    exception("InvalidArgumentError", (message,))
}

fn vector<'py, T: numpy::Element>(
    value: &Bound<'py, PyAny>,
    what: &str,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let length = value.len().unwrap_or(0);
    exact(value, what, &[length], refuse)
}

/// The value of a category as a Python object.
fn value<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Text(text) => text.into_pyobject(py)?.into_any(),
    })
}

/// Rows of a long answer between two looks at whether Ctrl-C was pressed.
pub const PAUSE: usize = 1 << 14;

/// Calls `work` on every row, with the interpreter; Ctrl-C ends it.
fn each(py: Python<'_>, rows: &[u32], mut work: impl FnMut(&u32) -> PyResult<()>) -> PyResult<()> {
    for rows in rows.chunks(PAUSE) {
        py.check_signals()?;
        rows.iter().try_for_each(&mut work)?;
    }
    Ok(())
}

/// What `work` finds for every row, without the interpreter; Ctrl-C ends it.
fn in_parts<T: Send>(
    py: Python<'_>,
    rows: &[u32],
    work: impl Fn(&[u32]) -> Result<Vec<T>> + Sync,
) -> PyResult<Vec<T>> {
    interruptible(py, |interrupt| {
        let mut all = Vec::with_capacity(rows.len());
        for rows in rows.chunks(PAUSE) {
            interrupt()?;
            all.append(&mut work(rows)?);
        }
        Ok(all)
    })
}

/// The texts of a list; Ctrl-C ends it.
fn texts(py: Python<'_>, list: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let mut all = Vec::with_capacity(list.len()?);
    for text in list.try_iter()? {
        if all.len() % PAUSE == 0 {
            py.check_signals()?;
        }
        all.push(text?.extract()?);
    }
    Ok(all)
}

impl PyCatalog {
    /// What rows are called: integers as an array, texts as a list; none as -1 or "".
    fn named<'py>(&self, py: Python<'py>, rows: &[u32]) -> PyResult<Bound<'py, PyAny>> {
        self.0.check().map_err(to_py)?;
        let ids = self.0.ids();
        let damaged = || {
            let path = self.0.path().map_or("catalogue".into(), |path| path.display().to_string());
            to_py(Error::format(path, "expected an id for each row, got a damaged one"))
        };
        let number = |row: &u32| match ids.get(*row) {
            _ if *row == NO_ROW => Ok(u64::MAX),
            Some(Id::Integer(number)) => Ok(number),
            _ => Err(damaged()),
        };
        let named = match (self.0.header().ids, ids) {
            (_, Ids::Texts { .. }) => {
                let texts = PyList::empty(py);
                let text = |row: &u32| match ids.get(*row) {
                    _ if *row == NO_ROW => Ok(""),
                    Some(Id::Text(text)) => std::str::from_utf8(text).map_err(|_| damaged()),
                    _ => Err(damaged()),
                };
                each(py, rows, |row| texts.append(text(row)?))?;
                texts.into_any()
            }
            (IdKind::LargeIntegers, _) => {
                let mut numbers = Vec::with_capacity(rows.len());
                each(py, rows, |row| number(row).map(|id| numbers.push(id)))?;
                one(py, numbers).into_any()
            }
            _ => {
                let mut numbers = Vec::with_capacity(rows.len());
                each(py, rows, |row| number(row).map(|id| numbers.push(id as i64)))?;
                one(py, numbers).into_any()
            }
        };
        // The file may have been cut while its ids were read.
        self.0.check().map_err(to_py)?;
        Ok(named)
    }
}

#[pymethods]
impl PyCatalog {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detached(py, || Catalog::open(&path)).map(|catalog| Self(Arc::new(catalog)))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        detached(py, || Catalog::from_bytes(data)).map(|catalog| Self(Arc::new(catalog)))
    }

    #[staticmethod]
    #[pyo3(signature = (attributes, *, ids, numbers, categories, path, overwrite, num_threads, progress))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn build_arrays(
        py: Python<'_>,
        attributes: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
        numbers: Vec<(String, Bound<'_, PyAny>)>,
        categories: Vec<(String, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)>,
        path: Option<PathBuf>,
        overwrite: bool,
        num_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let shape = match attributes.cast::<numpy::PyUntypedArray>() {
            Ok(array) if array.ndim() == 2 => array.shape().to_vec(),
            _ => vec![0, 0],
        };
        let attributes = exact::<f32>(attributes, "attributes", &shape, refuse)?;
        let ids = match ids {
            None => None,
            Some(ids) if ids.is_instance_of::<PyList>() => {
                Some(Whole::Texts(text_pieces("ids", ids, shape[0])?))
            }
            Some(ids) => Some(Whole::Ids(exact(ids, "ids", &shape[..1], refuse)?)),
        };
        let mut columns = Vec::new();
        for (name, all) in &numbers {
            columns.push((name.clone(), Whole::Numbers(exact(all, name, &shape[..1], refuse)?)));
        }
        let split = columns.len();
        for (name, all, missing) in &categories {
            let all = match all.is_instance_of::<PyList>() {
                true => Whole::Texts(text_pieces(name, all, shape[0])?),
                false => {
                    let missing = missing.as_ref();
                    let missing =
                        missing.map(|m| exact(m, name, &shape[..1], refuse)).transpose()?;
                    Whole::Integers(exact(all, name, &shape[..1], refuse)?, missing)
                }
            };
            columns.push((name.clone(), all));
        }
        let values = attributes.as_slice()?;
        let ids = ids.as_ref().map(Whole::borrow).transpose()?;
        let mut columns: Vec<_> = columns
            .iter()
            .map(|(name, all)| Ok((name.clone(), all.borrow()?)))
            .collect::<PyResult<_>>()?;
        let categories = columns.split_off(split);
        let options = Options { path, overwrite, threads: num_threads };
        let told = Told::new(progress);
        let outcome = detached(py, || {
            told.watch(|interrupt, progress| {
                let watch = Watch { interrupt, progress };
                let ids = ids.as_ref();
                build_whole(&options, shape[1], values, ids, &columns, &categories, &watch)
            })
        });
        told.finish(outcome).map(|catalog| Self(Arc::new(catalog)))
    }

    #[staticmethod]
    #[pyo3(signature = (source, columns, *, path, overwrite, num_threads, progress))]
    fn build_table(
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        columns: PyColumns,
        path: Option<PathBuf>,
        overwrite: bool,
        num_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let PyColumns { attributes, ids, numbers, categories } = columns;
        let columns = Columns { attributes, ids, numbers, categories };
        let options = Options { path, overwrite, threads: num_threads };
        let told = Told::new(progress);
        let outcome = if source.is_instance_of::<PyString>() {
            let file: PathBuf = source.extract()?;
            detached(py, || {
                told.watch(|interrupt, progress| {
                    from_parquet(&file, &columns, &options, &Watch { interrupt, progress })
                })
            })
        } else {
            let capsule = source.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
            let stream = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast();
            // SAFETY: the name of the capsule says that it holds an Arrow stream; the reader takes
            // it out and leaves an empty one, which is what the interface asks for.
            let reader = unsafe { RecordBatchStreamReader::from_raw(stream.as_ptr()) };
            let reader = reader.map_err(|error| {
                to_py(Error::argument("attributes", "an Arrow stream", error.to_string()))
            })?;
            detached(py, || {
                told.watch(|interrupt, progress| {
                    let watch = Watch { interrupt, progress };
                    from_batches(reader, "Arrow stream", &columns, 0, &options, &watch)
                })
            })
        };
        told.finish(outcome).map(|catalog| Self(Arc::new(catalog)))
    }

    fn __len__(&self) -> usize {
        self.0.rows() as usize
    }

    #[getter]
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    #[getter]
    fn digest(&self) -> &str {
        self.0.digest()
    }

    /// Whether items are called by texts.
    #[getter]
    fn has_text_ids(&self) -> bool {
        self.0.header().ids == IdKind::Texts
    }

    /// Names of the columns of categories.
    #[getter]
    fn category_columns(&self) -> Vec<&str> {
        let categories =
            self.0.header().columns.iter().filter(|column| column.kind != ColumnKind::Number);
        categories.map(|column| column.name.as_str()).collect()
    }

    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.0.path().map(Into::into)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.0.bytes().map_err(to_py)?))
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        info(py, &self.0)
    }

    #[pyo3(signature = (progress))]
    fn verify(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let told = Told::new(progress);
        let outcome = detached(py, || {
            told.watch(|interrupt, progress| self.0.verify(&Watch { interrupt, progress }))
        });
        told.finish(outcome)
    }

    /// Items that meet the filters.
    fn count(
        &self,
        py: Python<'_>,
        filters: Vec<PyFilter>,
        rows: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let rows = rows.map(|rows| vector::<u32>(rows, "rows")).transpose()?;
        let rows = rows.as_ref().map(|rows| rows.as_slice()).transpose()?;
        detached(py, || Ok(selection(&self.0, &filters, rows)?.count(self.0.rows())))
    }

    /// Rows of ids, given as an array of integers or a list of texts.
    fn find<'py>(
        &self,
        py: Python<'py>,
        what: &str,
        ids: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let rows = if ids.is_instance_of::<PyList>() {
            let texts = texts(py, ids)?;
            let ids = texts.iter().map(|id| Id::Text(id.as_bytes()));
            interruptible(py, |interrupt| self.0.find(what, ids, interrupt))?
        } else {
            let ids = vector::<u64>(ids, what)?;
            let ids = ids.as_slice()?.iter().map(|id| Id::Integer(*id));
            interruptible(py, |interrupt| self.0.find(what, ids, interrupt))?
        };
        Ok(one(py, rows))
    }

    /// What rows are called.
    fn ids<'py>(&self, py: Python<'py>, rows: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let rows = vector::<u32>(rows, "rows")?;
        self.0.check_rows(rows.as_slice()?).map_err(to_py)?;
        self.named(py, rows.as_slice()?)
    }

    fn attributes<'py>(
        &self,
        py: Python<'py>,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = vector::<u32>(rows, "rows")?;
        let rows = rows.as_slice()?;
        self.0.check_rows(rows).map_err(to_py)?;
        let values = interruptible(py, |interrupt| {
            let (mut values, size) = (Vec::new(), rows.len().saturating_mul(self.0.dimensions()));
            let room = values.try_reserve_exact(size);
            let expected = "as many as memory holds the attributes of";
            room.map_err(|_| Error::argument("rows", expected, rows.len()))?;
            for rows in rows.chunks(PAUSE) {
                interrupt()?;
                self.0.attributes(rows, &mut values)?;
            }
            Ok(values)
        })?;
        Ok(two(py, values, self.0.dimensions())?.into_any())
    }

    /// A column's values for rows: an array of numbers, or a list of categories.
    fn column<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        rows: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = vector::<u32>(rows, "rows")?;
        let rows = rows.as_slice()?;
        self.0.check_rows(rows).map_err(to_py)?;
        if let Ok(column) = self.0.column(name, true) {
            let numbers = in_parts(py, rows, |rows| self.0.numbers(column, rows))?;
            return Ok(one(py, numbers).into_any());
        }
        let column = self.0.column(name, false).map_err(to_py)?;
        let codes = in_parts(py, rows, |rows| self.0.categories(column, rows))?;
        let all = PyList::empty(py);
        each(py, &codes, |code| match *code {
            u32::MAX => all.append(py.None()),
            code => all.append(value(py, self.0.category(column, code).map_err(to_py)?)?),
        })?;
        self.0.check().map_err(to_py)?;
        Ok(all.into_any())
    }

    /// The best items for each query: ids, rows u32 (q, k) and scores f32 (q, k).
    #[pyo3(signature = (weights, k, *, filters, rows, ends, num_threads))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn search<'py>(
        &self,
        py: Python<'py>,
        weights: &Bound<'py, PyAny>,
        k: usize,
        filters: Vec<PyFilter>,
        rows: Option<&Bound<'py, PyAny>>,
        ends: Option<Vec<usize>>,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let count = weights.len()?;
        let weights = exact::<f32>(weights, "weights", &[count, self.0.dimensions()], refuse)?;
        let weights = weights.as_slice()?;
        let rows = rows.map(|rows| vector::<u32>(rows, "rows")).transpose()?;
        let rows = rows.as_ref().map(|rows| rows.as_slice()).transpose()?;
        let told = Told::new(None);
        let outcome = detached(py, || {
            told.watch(|interrupt, _| {
                let size = count.checked_mul(k).filter(|size| *size <= isize::MAX as usize / 4);
                let size = size.ok_or_else(|| Error::argument("k", "a smaller number", k))?;
                let (mut found, mut scores) = (Vec::new(), Vec::new());
                let room = found.try_reserve_exact(size).and(scores.try_reserve_exact(size));
                room.map_err(|_| Error::argument("k", "results that fit into memory", k))?;
                found.resize(size, NO_ROW);
                scores.resize(size, 0.0);
                let (into, scored) = (&mut found[..], &mut scores[..]);
                if let (Some(ends), Some(lists)) = (&ends, rows) {
                    let conditions = &conditions(&self.0, &filters)?[..];
                    let own = Own { lists, ends, conditions };
                    self.0.search_own(weights, k, own, num_threads, interrupt, into, scored)?;
                } else {
                    let of = selection(&self.0, &filters, rows)?;
                    self.0.search(weights, k, &of, num_threads, interrupt, into, scored)?;
                }
                Ok((found, scores))
            })
        });
        let (found, scores) = told.finish(outcome)?;
        let ids = self.named(py, &found)?;
        Ok((ids, two(py, found, k)?.into_any(), two(py, scores, k)?.into_any()))
    }
}

/// Adds what is defined here to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MOST_K", crate::search::MOST_K)?;
    module.add_class::<PyCatalog>()
}
