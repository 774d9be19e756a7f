//! Columns of a table in the few types that a build takes.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray,
};
use arrow_schema::DataType;

use crate::error::{Error, Result};

/// A column as f32.
pub fn floats(name: &str, column: &ArrayRef) -> Result<Float32Array> {
    if let DataType::Float32 = column.data_type() {
        return Ok(column.as_primitive::<Float32Type>().clone());
    }
    if let DataType::Float64 = column.data_type() {
        let wide: &Float64Array = column.as_primitive::<Float64Type>();
        return Ok(wide.unary(|number| number as f32));
    }
    if let DataType::UInt64 = column.data_type() {
        return Ok(column.as_primitive::<UInt64Type>().unary(|number| number as f32));
    }
    Ok(integers(name, column)?.unary(|number| number as f32))
}

/// A column as i64.
pub fn integers(name: &str, column: &ArrayRef) -> Result<Int64Array> {
    Ok(match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().clone(),
        DataType::Int8 => column.as_primitive::<Int8Type>().unary(i64::from),
        DataType::Int16 => column.as_primitive::<Int16Type>().unary(i64::from),
        DataType::Int32 => column.as_primitive::<Int32Type>().unary(i64::from),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().unary(i64::from),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().unary(i64::from),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().unary(i64::from),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().try_unary(|number| {
            i64::try_from(number).map_err(|_| {
                Error::argument(format!("column {name}"), "numbers below 2^63", number)
            })
        })?,
        DataType::Boolean => {
            let flags: &BooleanArray = column.as_boolean();
            flags.iter().map(|flag| flag.map(i64::from)).collect()
        }
        DataType::Dictionary(..) => {
            let (keys, values) = dictionary(column);
            let values = integers(name, &values)?;
            let get = |key: usize| (!values.is_null(key)).then(|| values.value(key));
            keys.into_iter().map(|key| key.and_then(get)).collect()
        }
        other => {
            let expected = "a column of whole numbers";
            return Err(Error::argument(format!("column {name}"), expected, other));
        }
    })
}

/// A column as texts.
pub fn texts(name: &str, column: &ArrayRef) -> Result<StringArray> {
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().clone(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().collect(),
        DataType::Utf8View => column.as_string_view().iter().collect(),
        DataType::Dictionary(..) => {
            let (keys, values) = dictionary(column);
            let values = texts(name, &values)?;
            let mut all = StringBuilder::new();
            for key in keys {
                let text = key.filter(|key| !values.is_null(*key)).map(|key| values.value(key));
                all.append_option(text);
            }
            all.finish()
        }
        other => {
            return Err(Error::argument(format!("column {name}"), "a column of texts", other));
        }
    })
}

/// A dictionary's keys as places, and its values.
fn dictionary(column: &ArrayRef) -> (Vec<Option<usize>>, ArrayRef) {
    let all = column.as_any_dictionary();
    let keys = all.normalized_keys();
    let keys = keys.into_iter().enumerate();
    let keys = keys.map(|(row, key)| (!all.keys().is_null(row)).then_some(key)).collect();
    (keys, Arc::clone(all.values()))
}
