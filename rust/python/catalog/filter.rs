//! Filters as Python gives them.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::catalog::{Catalog, Condition, Selection, Value};
use crate::error::Result;

/// One category or id.
#[derive(FromPyObject)]
pub enum PyValue {
    Text(String),
    Integer(i64),
}

/// A filter: categories by column, or a range.
#[derive(FromPyObject)]
pub enum PyFilter {
    Categories(String, Vec<PyValue>),
    Range(String, Option<f64>, Option<f64>),
}

/// What the filters ask of items.
pub fn conditions(catalog: &Catalog, filters: &[PyFilter]) -> Result<Vec<Condition>> {
    let condition = |filter: &PyFilter| match filter {
        PyFilter::Range(name, low, high) => {
            catalog.between(catalog.column(name, true)?, *low, *high)
        }
        PyFilter::Categories(name, wanted) => {
            let value = |value| match value {
                &PyValue::Integer(number) => Value::Integer(number),
                PyValue::Text(text) => Value::Text(text),
            };
            let wanted: Vec<_> = wanted.iter().map(value).collect();
            catalog.any_of(catalog.column(name, false)?, &wanted)
        }
    };
    filters.iter().map(condition).collect()
}

/// The items that meet the filters, of all or of these rows.
pub fn selection(
    catalog: &Catalog,
    filters: &[PyFilter],
    rows: Option<&[u32]>,
) -> Result<Arc<Selection>> {
    let mut conditions = conditions(catalog, filters)?;
    if let Some(rows) = rows {
        catalog.check_rows(rows)?;
        conditions.push(Condition::Rows(rows.to_vec()));
    }
    catalog.select(&conditions)
}
