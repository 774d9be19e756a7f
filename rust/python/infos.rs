//! A step's infos, as Gymnasium's own vector environments give them.

use numpy::{Element, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::arrays::{one, two};

/// A key and that of its mask.
macro_rules! key {
    ($py:expr, $name:literal) => {
        [pyo3::intern!($py, $name), pyo3::intern!($py, concat!("_", $name))]
    };
}
pub(super) use key;

/// A dictionary of columns, an entry an environment, and of masks, False where an environment has
/// just been reset.
///
/// Where a session ended and another has started within the step, the column holds 0, and its last
/// value stands in `final_info`, which holds 0 everywhere else.
pub struct Infos<'a, 'py> {
    py: Python<'py>,
    infos: Bound<'py, PyDict>,
    /// Whether the page is one of the session that is now in play.
    shown: Vec<bool>,
    finished: &'a [i64],
    last: Option<Last<'py>>,
}

/// What is told of the sessions that ended.
struct Last<'py> {
    infos: Bound<'py, PyDict>,
    mask: Bound<'py, PyArray1<bool>>,
}

impl<'a, 'py> Infos<'a, 'py> {
    /// `shown` says where a page was shown, `finished` where its session made room for the next.
    pub fn new(py: Python<'py>, mut shown: Vec<bool>, finished: &'a [i64]) -> Self {
        let last = (!finished.is_empty()).then(|| {
            let mut mask = vec![false; shown.len()];
            for env in places(finished) {
                shown[env] = false;
                mask[env] = true;
            }
            Last { infos: PyDict::new(py), mask: one(py, mask) }
        });
        Self { py, infos: PyDict::new(py), shown, finished, last }
    }

    /// Adds a column of one value an environment.
    pub fn put<T: Element + Copy + Default>(
        &self,
        keys: [&Bound<'py, PyString>; 2],
        values: Vec<T>,
    ) -> PyResult<()> {
        self.add(keys, values, |values| Ok(one(self.py, values).into_any()), 1)
    }

    /// Adds a column of `width` values an environment.
    pub fn put_rows<T: Element + Copy + Default>(
        &self,
        keys: [&Bound<'py, PyString>; 2],
        values: Vec<T>,
        width: usize,
    ) -> PyResult<()> {
        let rows = |values| Ok(two(self.py, values, width)?.into_any());
        self.add(keys, values, rows, width)
    }

    fn add<T: Element + Copy + Default>(
        &self,
        [key, mask_key]: [&Bound<'py, PyString>; 2],
        mut values: Vec<T>,
        array: impl Fn(Vec<T>) -> PyResult<Bound<'py, PyAny>>,
        width: usize,
    ) -> PyResult<()> {
        if let Some(Last { infos, mask }) = &self.last {
            let mut last = vec![T::default(); values.len()];
            for env in places(self.finished) {
                let place = env * width..(env + 1) * width;
                last[place.clone()].copy_from_slice(&values[place.clone()]);
                values[place].fill(T::default());
            }
            infos.set_item(key, array(last)?)?;
            infos.set_item(mask_key, mask)?;
        }
        self.infos.set_item(key, array(values)?)?;
        self.infos.set_item(mask_key, PyArray1::from_slice(self.py, &self.shown))
    }

    /// All of it.
    pub fn finish(self) -> PyResult<Bound<'py, PyDict>> {
        if let Some(Last { infos, mask }) = self.last {
            let [key, mask_key] = key!(self.py, "final_info");
            self.infos.set_item(key, infos)?;
            self.infos.set_item(mask_key, mask)?;
        }
        Ok(self.infos)
    }
}

fn places(finished: &[i64]) -> impl Iterator<Item = usize> {
    finished.iter().map(|env| *env as usize)
}
