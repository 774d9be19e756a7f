//! Session logs as columns: one row a page, in the order (session, page).
//!
//! | column | NumPy | Arrow and Parquet | |
//! |---|---|---|---|
//! | `session` | i64 | int64 | number within the seed's stream |
//! | `page` | i16 | int16 | page within the session, from 0 |
//! | `day` | i16 | int16 | of the store; 0: a simulator has no calendar |
//! | `customer` | u8, fields wide | fixed-size list of uint8 | category codes |
//! | `action` | f32, A wide | fixed-size list of float32 | what was shown, clipped into the range |
//! | `action_logp` | f32 | float32 | log-density of the draw before clipping |
//! | `clicks` | u8 | uint8 | the first head; where answers are outcomes 1 for a purchase |
//! | `second` | u8 | uint8 | the second head; where answers are outcomes units bought |
//! | `outcome` | u8 code | dictionary of strings | `turn`, `buy`, `leave`, `max_pages` |
//! | `units` | u16 | uint16 | units bought: the second head, as far as known |
//! | `value` | f32, in a store | float32, null without prices | price of what was bought |
//!
//! and for a store, whose customers see items and live in a calendar:
//!
//! | column | NumPy | Arrow and Parquet | |
//! |---|---|---|---|
//! | `hour` | f32 | float32 | of the day; not a number (null) if the store has none |
//! | `items` | u32, 10 wide | fixed-size list of uint32 | rows of the catalogue, best first |
//!
//! Prices are whole cents and less than 2^24 of them, so that a `value` rounded to cents is exact.
//!
//! [`Columns`] is a log that grows; [`Log`] is one that is complete, shared without copies with
//! NumPy and Arrow.

mod checksum;
mod digest;
mod file;
mod journal;
mod parquet;
mod read;
mod syncer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Float32Type, Int16Type, Int64Type, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, Float32Array, PrimitiveArray, RecordBatch,
    StringArray, new_null_array,
};
use arrow_buffer::{ArrowNativeType, NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};

use crate::error::{Error, Result};
use crate::simulator::Schema;

#[doc(hidden)]
pub use checksum::reseal;
pub use digest::Digester;
pub use file::{FileWriter, Opening};
pub use journal::{Journal, journal, same};
pub use parquet::{Encoder, RowGroup};
pub use read::{check_file, digest_file, each_piece};

/// Sessions of a row group, and of a rollout's unit of work. Part of the files' layout.
pub const BLOCK: u64 = 8192;
/// More rows than this for each byte of a file are taken for damage: what is constant everywhere
/// takes a seventh of a byte a row.
pub const MOST_ROWS_A_BYTE: u64 = 64;
/// Rows that are decoded or hashed at a time.
const PIECE: usize = 32_768;
/// How a page ended, in the order of the codes.
pub const OUTCOMES: [&str; 4] = ["turn", "buy", "leave", "max_pages"];
/// Code of a page that the customer turned.
pub const TURN: u8 = 0;
/// Code of a page on which the customer bought.
pub const BUY: u8 = 1;
/// Code of a page after which the customer left.
pub const LEAVE: u8 = 2;
/// Code of a page that the customer turned, with no page left to show.
pub const MAX_PAGES: u8 = 3;

/// Text by key: seed, policy, simulator and so on.
pub type Metadata = BTreeMap<String, String>;

/// The metadata's `format`.
pub const FORMAT: &str = "virtualtb_fast.sessions";
/// The metadata's `format_version`.
pub const FORMAT_VERSION: &str = "1";

/// What a log's rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Fields of a customer.
    pub fields: usize,
    /// Dimensions of an action.
    pub action: usize,
    /// Items on a page; 0 for a simulator, whose logs have none of a store's columns.
    pub items: usize,
}

impl From<&Schema> for Shape {
    fn from(schema: &Schema) -> Self {
        Self { fields: schema.customer.len(), action: schema.action, items: 0 }
    }
}

impl Shape {
    /// Whether the columns of a store are there.
    pub fn of_store(self) -> bool {
        self.items > 0
    }

    /// The Arrow schema, without metadata.
    pub fn arrow_schema(self) -> arrow_schema::Schema {
        let list = |size: usize, item: DataType| {
            DataType::FixedSizeList(Arc::new(Field::new("item", item, false)), size as i32)
        };
        let outcome = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
        let mut columns = vec![
            Field::new("session", DataType::Int64, false),
            Field::new("page", DataType::Int16, false),
            Field::new("day", DataType::Int16, false),
            Field::new("customer", list(self.fields, DataType::UInt8), false),
            Field::new("action", list(self.action, DataType::Float32), false),
            Field::new("action_logp", DataType::Float32, false),
            Field::new("clicks", DataType::UInt8, false),
            Field::new("second", DataType::UInt8, false),
            Field::new("outcome", outcome, false),
            Field::new("units", DataType::UInt16, false),
            Field::new("value", DataType::Float32, true),
        ];
        if self.of_store() {
            columns.push(Field::new("hour", DataType::Float32, true));
            columns.push(Field::new("items", list(self.items, DataType::UInt32), false));
        }
        arrow_schema::Schema::new(columns)
    }
}

/// A log that grows.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the columns of the table above")]
pub struct Columns {
    pub session: Vec<i64>,
    pub page: Vec<i16>,
    pub day: Vec<i16>,
    pub customer: Vec<u8>,
    pub action: Vec<f32>,
    pub action_logp: Vec<f32>,
    pub clicks: Vec<u8>,
    pub second: Vec<u8>,
    pub outcome: Vec<u8>,
    pub units: Vec<u16>,
    pub value: Vec<f32>,
    pub hour: Vec<f32>,
    pub items: Vec<u32>,
}

/// Calls a macro on every column.
macro_rules! each_column {
    ($visit:ident) => {
        $visit!(
            session,
            page,
            day,
            customer,
            action,
            action_logp,
            clicks,
            second,
            outcome,
            units,
            value,
            hour,
            items
        )
    };
}
use each_column;

impl Columns {
    /// Rows.
    pub fn len(&self) -> usize {
        self.session.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.session.is_empty()
    }

    /// Appends rows.
    pub fn append(&mut self, other: &Self) {
        macro_rules! extend {
            ($($name:ident),*) => { $(self.$name.extend_from_slice(&other.$name);)* };
        }
        each_column!(extend);
    }

    /// Appends the rows of a complete log.
    pub fn append_log(&mut self, other: &Log) {
        macro_rules! extend {
            ($($name:ident),*) => { $(self.$name.extend_from_slice(&other.$name);)* };
        }
        each_column!(extend);
    }

    /// Makes it `rows` rows, whose values are whatever stood there or 0.
    pub fn resize(&mut self, rows: usize, shape: Shape) {
        self.customer.resize(rows * shape.fields, 0);
        self.action.resize(rows * shape.action, 0.0);
        self.session.resize(rows, 0);
        self.page.resize(rows, 0);
        self.day.resize(rows, 0);
        self.action_logp.resize(rows, 0.0);
        self.clicks.resize(rows, 0);
        self.second.resize(rows, 0);
        self.outcome.resize(rows, 0);
        self.units.resize(rows, 0);
        let priced = if shape.of_store() { rows } else { 0 };
        self.value.resize(priced, 0.0);
        self.hour.resize(priced, 0.0);
        self.items.resize(rows * shape.items, 0);
    }

    /// Drops the first `rows` rows.
    pub fn drop_first(&mut self, rows: usize, shape: Shape) {
        let Shape { fields, action, items } = shape;
        let priced = if shape.of_store() { rows } else { 0 };
        self.customer.drain(..rows * fields);
        self.action.drain(..rows * action);
        self.session.drain(..rows);
        self.page.drain(..rows);
        self.day.drain(..rows);
        self.action_logp.drain(..rows);
        self.clicks.drain(..rows);
        self.second.drain(..rows);
        self.outcome.drain(..rows);
        self.units.drain(..rows);
        self.value.drain(..priced);
        self.hour.drain(..priced);
        self.items.drain(..rows * items);
    }

    /// Gives back memory that no row uses.
    pub fn shrink(&mut self) {
        macro_rules! shrink {
            ($($name:ident),*) => { $(self.$name.shrink_to_fit();)* };
        }
        each_column!(shrink);
    }

    /// Completes the log; nothing is copied.
    pub fn freeze(self, shape: Shape, metadata: Metadata) -> Log {
        macro_rules! frozen {
            ($($name:ident),*) => { Log { shape, metadata, $($name: self.$name.into(),)* } };
        }
        each_column!(frozen)
    }
}

/// A complete log.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns of the table above")]
pub struct Log {
    pub shape: Shape,
    pub metadata: Metadata,
    pub session: ScalarBuffer<i64>,
    pub page: ScalarBuffer<i16>,
    pub day: ScalarBuffer<i16>,
    pub customer: ScalarBuffer<u8>,
    pub action: ScalarBuffer<f32>,
    pub action_logp: ScalarBuffer<f32>,
    pub clicks: ScalarBuffer<u8>,
    pub second: ScalarBuffer<u8>,
    pub outcome: ScalarBuffer<u8>,
    pub units: ScalarBuffer<u16>,
    pub value: ScalarBuffer<f32>,
    pub hour: ScalarBuffer<f32>,
    pub items: ScalarBuffer<u32>,
}

impl Log {
    /// Rows.
    pub fn len(&self) -> usize {
        self.session.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.session.is_empty()
    }

    /// The columns, to grow again; copied only if an Arrow array still shares them.
    pub fn thaw(self) -> Columns {
        macro_rules! thawed {
            ($($name:ident),*) => { Columns { $($name: self.$name.into(),)* } };
        }
        each_column!(thawed)
    }

    /// The Arrow schema with the metadata.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(self.shape.arrow_schema().with_metadata(self.metadata.clone()))
    }

    /// The columns as Arrow arrays; nothing but the null column is made anew.
    pub fn to_arrow(&self) -> Result<RecordBatch> {
        let schema = self.arrow_schema();
        self.arrays(&schema)
            .and_then(|arrays| RecordBatch::try_new(schema, arrays))
            .map_err(|error| Error::State(format!("the log's columns disagree: {error}")))
    }

    fn arrays(&self, schema: &arrow_schema::Schema) -> Result<Vec<ArrayRef>, ArrowError> {
        let lists = |name: &str, values: ArrayRef| match schema.field_with_name(name)?.data_type() {
            DataType::FixedSizeList(item, size) => {
                FixedSizeListArray::try_new(Arc::clone(item), *size, values, None)
            }
            other => unreachable!("{name} is a list, not {other}"),
        };
        let names = Arc::new(StringArray::from(OUTCOMES.to_vec()));
        let codes = PrimitiveArray::<UInt8Type>::new(self.outcome.clone(), None);
        let mut arrays: Vec<ArrayRef> = vec![
            primitive::<Int64Type>(&self.session),
            primitive::<Int16Type>(&self.page),
            primitive::<Int16Type>(&self.day),
            Arc::new(lists("customer", primitive::<UInt8Type>(&self.customer))?),
            Arc::new(lists("action", primitive::<Float32Type>(&self.action))?),
            primitive::<Float32Type>(&self.action_logp),
            primitive::<UInt8Type>(&self.clicks),
            primitive::<UInt8Type>(&self.second),
            Arc::new(DictionaryArray::try_new(codes, names)?),
            primitive::<UInt16Type>(&self.units),
        ];
        if self.shape.of_store() {
            arrays.push(primitive::<Float32Type>(&self.value));
            let known = self.hour.iter().map(|hour| !hour.is_nan());
            let known = NullBuffer::from_iter(known);
            arrays.push(Arc::new(Float32Array::new(self.hour.clone(), Some(known))));
            arrays.push(Arc::new(lists("items", primitive::<UInt32Type>(&self.items))?));
        } else {
            arrays.push(new_null_array(&DataType::Float32, self.len()));
        }
        Ok(arrays)
    }

    /// Rows `first..first + rows`; nothing is copied.
    pub fn slice(&self, first: usize, rows: usize) -> Self {
        fn cut<T: ArrowNativeType>(
            column: &ScalarBuffer<T>,
            first: usize,
            rows: usize,
            width: usize,
        ) -> ScalarBuffer<T> {
            column.slice(first * width, rows * width)
        }
        let Shape { fields, action, items } = self.shape;
        let priced = usize::from(self.shape.of_store());
        Self {
            shape: self.shape,
            metadata: self.metadata.clone(),
            session: cut(&self.session, first, rows, 1),
            page: cut(&self.page, first, rows, 1),
            day: cut(&self.day, first, rows, 1),
            customer: cut(&self.customer, first, rows, fields),
            action: cut(&self.action, first, rows, action),
            action_logp: cut(&self.action_logp, first, rows, 1),
            clicks: cut(&self.clicks, first, rows, 1),
            second: cut(&self.second, first, rows, 1),
            outcome: cut(&self.outcome, first, rows, 1),
            units: cut(&self.units, first, rows, 1),
            value: cut(&self.value, first, rows, priced),
            hour: cut(&self.hour, first, rows, priced),
            items: cut(&self.items, first, rows, items),
        }
    }

    /// SHA-256 of the schema and of every column's values: equal for equal rows, wherever they
    /// are held, and blind to how they came about.
    pub fn digest(&self, interrupt: &dyn Fn() -> Result<()>) -> Result<String> {
        let mut digester = Digester::new(self.shape, self.metadata.get("schema"));
        for first in (0..self.len()).step_by(PIECE) {
            interrupt()?;
            digester.update(&self.slice(first, PIECE.min(self.len() - first)));
        }
        Ok(digester.finish())
    }

    /// Reads a file that [`Self::write`] or a rollout wrote; one that was altered is refused.
    pub fn read(path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<Self> {
        read::read(path, interrupt)
    }

    /// Writes the file that the rollout would have written.
    pub fn write(
        &self,
        path: &Path,
        overwrite: bool,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        file::write(self, path, overwrite, interrupt)
    }
}

fn primitive<T: arrow_array::ArrowPrimitiveType>(values: &ScalarBuffer<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.clone(), None))
}

#[cfg(test)]
mod tests;
