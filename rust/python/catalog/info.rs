//! What a catalogue holds, for Python.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::catalog::Catalog;
use crate::catalog::format::{ColumnKind, IdKind};

/// What a catalogue holds; `Catalog.info` describes the keys.
pub fn info<'py>(py: Python<'py>, catalog: &Catalog) -> PyResult<Bound<'py, PyDict>> {
    let (info, header) = (PyDict::new(py), catalog.header());
    let ids = match header.ids {
        IdKind::Rows => "rows",
        IdKind::Integers | IdKind::LargeIntegers => "integers",
        IdKind::Texts => "texts",
    };
    let last = header.sections.last();
    let bytes = last.map_or(0, |last| last.offset + last.bytes.next_multiple_of(4096));
    info.set_item("items", header.rows)?;
    info.set_item("dimensions", header.dimensions)?;
    info.set_item("ids", ids)?;
    info.set_item("bytes", bytes)?;
    info.set_item("clusters", catalog.plan().clusters())?;
    info.set_item("made_by", &header.made_by)?;
    info.set_item("digest", catalog.digest())?;
    let columns = PyList::empty(py);
    for column in &header.columns {
        let entry = PyDict::new(py);
        let (kind, values) = match column.kind {
            ColumnKind::Number => ("number", None),
            ColumnKind::Integers { values } => ("integers", Some(values)),
            ColumnKind::Texts { values } => ("texts", Some(values)),
        };
        entry.set_item("name", &column.name)?;
        entry.set_item("kind", kind)?;
        entry.set_item("categories", values)?;
        entry.set_item("items", column.present)?;
        columns.append(entry)?;
    }
    info.set_item("columns", columns)?;
    let sections = PyDict::new(py);
    for section in &header.sections {
        let name = format!("{:?}", section.kind).to_lowercase();
        let before: u64 =
            sections.get_item(&name)?.map_or(Ok(0), |bytes| bytes.extract::<u64>())?;
        sections.set_item(name, before + section.bytes)?;
    }
    info.set_item("sections", sections)?;
    Ok(info)
}
