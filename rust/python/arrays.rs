//! Arrays at the border: nothing is converted silently, and every refusal says what came.

use numpy::{
    Element, IntoPyArray, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods,
    PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;

/// A C-contiguous array of exactly this type and shape; `refuse` makes the exception.
pub fn exact<'py, T: Element>(
    value: &Bound<'py, PyAny>,
    what: &str,
    shape: &[usize],
    refuse: impl Fn(String) -> PyErr,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let py = value.py();
    let wanted = dtype::<T>(py);
    let got = match value.cast::<PyUntypedArray>() {
        Err(_) => format!("an object of type {}", value.get_type().qualname()?),
        Ok(array) if !array.dtype().is_equiv_to(&wanted) || array.shape() != shape => {
            format!("{} of shape {}", array.dtype(), tuple(array.shape()))
        }
        Ok(array) if !array.is_c_contiguous() => {
            "one that is not contiguous (np.ascontiguousarray makes a copy that is)".to_owned()
        }
        Ok(_) => match value.cast::<PyArrayDyn<T>>()?.try_readonly() {
            Ok(array) => return Ok(array),
            Err(error) => error.to_string(),
        },
    };
    let wanted = format!("a C-contiguous {wanted} array of shape {}", tuple(shape));
    Err(refuse(format!("{what}: expected {wanted}, got {got}")))
}

/// A shape as Python writes it.
fn tuple(shape: &[usize]) -> String {
    let sizes: Vec<_> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    format!("({}{comma})", sizes.join(", "))
}

/// Bytes up to which a copy is cheaper than an object that keeps a vector alive.
const SMALL: usize = 2048;

/// A vector as a one-dimensional array, without a copy unless it is small.
pub fn one<T: Element + Copy>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    if size_of_val(&values[..]) <= SMALL {
        return PyArray1::from_slice(py, &values);
    }
    values.into_pyarray(py)
}

/// A vector as rows of `width`, without a copy unless it is small.
pub fn two<T: Element + Copy>(
    py: Python<'_>,
    values: Vec<T>,
    width: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    let rows = values.len() / width.max(1);
    one(py, values).reshape([rows, width])
}
