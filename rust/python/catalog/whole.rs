//! Columns that Python gives whole, and builds of them.

use arrow_array::builder::StringBuilder;
use arrow_array::{Int64Array, StringArray};
use numpy::PyReadonlyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::catalog::Catalog;
use crate::catalog::build::{Builder, Cells, IdCells, Kinds, Options, Piece, Shape, Watch};
use crate::error::{Error, Result};
use crate::python::errors::to_py;

/// Rows of arrays that are taken at a time.
const PIECE: usize = 1 << 14;

/// Python's texts, None as null, as Arrow keeps them.
fn texts(list: &Bound<'_, PyList>) -> PyResult<StringArray> {
    let mut all = StringBuilder::new();
    for text in list {
        match text.is_none() {
            true => all.append_null(),
            false => all.append_value(text.cast::<PyString>()?.to_cow()?),
        }
    }
    Ok(all.finish())
}

/// Lists of texts in pieces, so that no Arrow array outgrows its 32-bit offsets.
pub fn text_pieces(what: &str, list: &Bound<'_, PyAny>, rows: usize) -> PyResult<Vec<StringArray>> {
    let list = list.cast::<PyList>()?;
    if list.len() != rows {
        let expected = format!("{rows} values, one an item");
        return Err(to_py(Error::argument(what, expected, list.len())));
    }
    let starts = (0..list.len()).step_by(PIECE);
    let piece = |first: usize| {
        list.py().check_signals()?;
        texts(&list.get_slice(first, first + PIECE))
    };
    starts.map(piece).collect()
}

/// A column of arrays that are given whole.
pub enum Whole<'py> {
    Numbers(PyReadonlyArrayDyn<'py, f32>),
    Integers(PyReadonlyArrayDyn<'py, i64>, Option<PyReadonlyArrayDyn<'py, bool>>),
    Ids(PyReadonlyArrayDyn<'py, u64>),
    Texts(Vec<StringArray>),
}

/// The same, borrowed, for use without the interpreter.
pub enum Slice<'a> {
    Numbers(&'a [f32]),
    Integers(&'a [i64], Option<&'a [bool]>),
    Ids(&'a [u64]),
    Texts(&'a [StringArray]),
}

impl Whole<'_> {
    /// For use without the interpreter.
    pub fn borrow(&self) -> PyResult<Slice<'_>> {
        Ok(match self {
            Self::Numbers(all) => Slice::Numbers(all.as_slice()?),
            Self::Integers(all, missing) => {
                let missing = missing.as_ref().map(|missing| missing.as_slice()).transpose()?;
                Slice::Integers(all.as_slice()?, missing)
            }
            Self::Ids(all) => Slice::Ids(all.as_slice()?),
            Self::Texts(all) => Slice::Texts(all),
        })
    }
}

impl Slice<'_> {
    fn numbers(&self, from: usize, to: usize) -> Vec<f32> {
        match self {
            Self::Numbers(all) => all[from.min(all.len())..to.min(all.len())].to_vec(),
            _ => unreachable!("a column of numbers"),
        }
    }

    fn cells(&self, from: usize, to: usize) -> Cells {
        match self {
            Self::Integers(all, missing) => {
                let (from, to) = (from.min(all.len()), to.min(all.len()));
                let absent = |row: usize| missing.is_some_and(|missing| missing[row]);
                let cells = (from..to).map(|row| (!absent(row)).then(|| all[row]));
                Cells::Integers(Int64Array::from_iter(cells))
            }
            Self::Texts(all) => Cells::Texts(piece_of(all, from)),
            _ => unreachable!("a column of categories"),
        }
    }

    fn ids(&self, from: usize, to: usize) -> IdCells {
        match self {
            Self::Ids(all) => {
                IdCells::Integers(all[from.min(all.len())..to.min(all.len())].to_vec())
            }
            Self::Texts(all) => IdCells::Texts(piece_of(all, from)),
            _ => unreachable!("a column of ids"),
        }
    }
}

fn piece_of(all: &[StringArray], from: usize) -> StringArray {
    let empty = || StringArray::from(Vec::<&str>::new());
    all.get(from / PIECE).cloned().unwrap_or_else(empty)
}

/// Builds of whole arrays.
pub fn build_whole(
    options: &Options,
    dimensions: usize,
    attributes: &[f32],
    ids: Option<&Slice<'_>>,
    numbers: &[(String, Slice<'_>)],
    categories: &[(String, Slice<'_>)],
    watch: &Watch<'_>,
) -> Result<Catalog> {
    let kind = |slice: &Slice<'_>| match slice {
        Slice::Texts(_) => Kinds::Texts,
        _ => Kinds::Integers,
    };
    let shape = Shape {
        dimensions,
        ids: ids.map(kind),
        numbers: numbers.iter().map(|(name, _)| name.clone()).collect(),
        categories: categories.iter().map(|(name, all)| (name.clone(), kind(all))).collect(),
    };
    let mut builder = Builder::new(options, shape, false)?;
    let rows = attributes.len() / dimensions;
    for from in (0..rows).step_by(PIECE) {
        let to = rows.min(from + PIECE);
        (watch.progress)("reading rows", from as u64, rows as u64);
        (watch.interrupt)()?;
        builder.push(Piece {
            attributes: &attributes[from * dimensions..to * dimensions],
            ids: ids.map(|all| all.ids(from, to)),
            numbers: numbers.iter().map(|(_, all)| all.numbers(from, to)).collect(),
            categories: categories.iter().map(|(_, all)| all.cells(from, to)).collect(),
        })?;
    }
    builder.finish_with(attributes, watch)
}
