//! Tables as the rows of a catalogue: Arrow batches, from a stream or a Parquet file.

mod cast;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Catalog;
use super::build::{Builder, Cells, IdCells, Kinds, Options, Piece, Shape, Watch};
use crate::error::{Error, Result};
use crate::strict_file::StrictFile;
use cast::{floats, integers, texts};

/// Bytes of attributes that are decoded at a time, about.
const BATCH_BYTES: usize = 4 << 20;

/// Which columns of a table are what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// One column of lists, or columns of numbers. Empty: the only column of lists, or all columns
    /// of floating-point numbers that are nothing else.
    pub attributes: Vec<String>,
    /// What items are called; `None`: their row numbers.
    pub ids: Option<String>,
    /// Numbers to filter by: name in the catalogue and in the table.
    pub numbers: Vec<(String, String)>,
    /// Categories to filter by, the same.
    pub categories: Vec<(String, String)>,
}

/// Builds a catalogue of a Parquet file, which is read in pieces.
pub fn from_parquet(
    path: &Path,
    columns: &Columns,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Catalog> {
    let origin = path.display().to_string();
    let fail = |error: &dyn std::fmt::Display| {
        Error::format(&*origin, format!("expected a Parquet file, got {error}"))
    };
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.is_dir() {
        return Err(fail(&"a directory"));
    }
    let builder = guarded(&origin, || {
        ParquetRecordBatchReaderBuilder::try_new(StrictFile::new(file))
            .map_err(|error| fail(&error))
    })?;
    let total = builder.metadata().file_metadata().num_rows().max(0) as u64;
    let schema = Arc::clone(builder.schema());
    let table = Table::new(&schema, columns)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), table.places(&schema));
    // Bytes of a row are known only if lists have a fixed size; 64 numbers is a fair guess.
    let width = table.width(&schema).unwrap_or(64);
    let rows = (BATCH_BYTES / (4 * width)).clamp(256, 1 << 14);
    let reader = guarded(&origin, || {
        builder.with_projection(mask).with_batch_size(rows).build().map_err(|error| fail(&error))
    })?;
    from_batches(reader, &origin, columns, total, options, watch)
}

/// Builds a catalogue of a stream of Arrow batches; `total` rows of them are expected, if known.
pub fn from_batches(
    mut reader: impl RecordBatchReader,
    origin: &str,
    columns: &Columns,
    total: u64,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Catalog> {
    let table = Table::new(&reader.schema(), columns)?;
    let mut builder = None;
    let mut waiting = Vec::new();
    loop {
        let batch = guarded(origin, || {
            let next = reader.next().transpose();
            next.map_err(|error| {
                Error::format(origin, format!("expected rows that can be decoded, got {error}"))
            })
        })?;
        let Some(batch) = batch else { break };
        if batch.num_rows() == 0 {
            continue;
        }
        // How wide lists without a fixed size are is known once a row was seen.
        let building = match &mut builder {
            Some(building) => building,
            none => {
                let dimensions = table.dimensions(&batch)?;
                none.insert(Builder::new(options, table.shape(dimensions), true)?)
            }
        };
        let first = building.rows();
        (watch.progress)("reading rows", first, total);
        (watch.interrupt)()?;
        table.attributes(&batch, first, building.dimensions(), &mut waiting)?;
        let piece = Piece {
            attributes: &waiting,
            ids: table.ids(&batch, first)?,
            numbers: table.numbers(&batch)?,
            categories: table.categories(&batch)?,
        };
        building.push(piece)?;
    }
    match builder {
        Some(builder) => builder.finish(watch),
        None => Err(Error::argument("attributes", "at least one item", "none")),
    }
}

/// Runs a decoder, which may panic over a damaged file.
fn guarded<T>(origin: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::format(origin, "expected rows that can be decoded, got damaged ones"))
    })
}

/// Which columns of a schema are what, by name.
struct Table {
    /// One column of lists?
    lists: bool,
    attributes: Vec<String>,
    ids: Option<(String, Kinds)>,
    numbers: Vec<(String, String)>,
    categories: Vec<(String, String, Kinds)>,
}

fn is_list(kind: &DataType) -> bool {
    matches!(kind, DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_))
}

fn is_float(kind: &DataType) -> bool {
    matches!(kind, DataType::Float32 | DataType::Float64)
}

fn is_number(kind: &DataType) -> bool {
    is_float(kind) || kind.is_integer()
}

/// Texts or whole numbers.
fn kind_of(name: &str, kind: &DataType) -> Result<Kinds> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Kinds::Texts),
        DataType::Boolean => Ok(Kinds::Integers),
        DataType::Dictionary(_, values) => kind_of(name, values),
        kind if kind.is_integer() => Ok(Kinds::Integers),
        other => {
            let expected = "a column of texts or whole numbers";
            Err(Error::argument(format!("column {name}"), expected, other))
        }
    }
}

impl Table {
    fn new(schema: &Schema, columns: &Columns) -> Result<Self> {
        let find = |name: &str| -> Result<&Field> {
            let found = schema.fields().iter().map(AsRef::as_ref);
            let found = found.filter(|field: &&Field| field.name() == name);
            match found.collect::<Vec<_>>().as_slice() {
                [field] => Ok(*field),
                other => {
                    let known: Vec<_> =
                        schema.fields().iter().map(|field| field.name().as_str()).collect();
                    let expected = format!("one of {}", known.join(", "));
                    let got = match other.len() {
                        0 => format!("{name:?}"),
                        _ => format!("{name:?}, which is there {} times", other.len()),
                    };
                    Err(Error::argument("column", expected, got))
                }
            }
        };
        let ids = match &columns.ids {
            None => None,
            Some(name) => Some((name.clone(), kind_of(name, find(name)?.data_type())?)),
        };
        for (_, name) in &columns.numbers {
            let kind = find(name)?.data_type();
            if !is_number(kind) {
                return Err(Error::argument(format!("column {name}"), "a column of numbers", kind));
            }
        }
        let mut categories = Vec::new();
        for (called, name) in &columns.categories {
            categories.push((
                called.clone(),
                name.clone(),
                kind_of(name, find(name)?.data_type())?,
            ));
        }
        let mut attributes = columns.attributes.clone();
        if attributes.is_empty() {
            let taken = |name: &String| {
                columns.ids.as_ref() == Some(name)
                    || columns.numbers.iter().chain(&columns.categories).any(|(_, of)| of == name)
            };
            let free = schema.fields().iter().filter(|field| !taken(field.name()));
            let (lists, others): (Vec<_>, Vec<_>) =
                free.partition(|field| is_list(field.data_type()));
            let chosen = match lists.len() {
                0 => others.into_iter().filter(|field| is_float(field.data_type())).collect(),
                _ => lists,
            };
            attributes = chosen.into_iter().map(|field| field.name().clone()).collect();
        }
        let mut lists = 0;
        for name in &attributes {
            let kind = find(name)?.data_type();
            if is_list(kind) {
                lists += 1;
            } else if !is_number(kind) {
                return Err(Error::argument(format!("column {name}"), "numbers, or lists", kind));
            }
        }
        if attributes.is_empty() || (lists > 0 && attributes.len() > 1) {
            let expected = "one column of lists, or columns of numbers (name them)";
            return Err(Error::argument("attributes", expected, format!("{attributes:?}")));
        }
        let numbers = columns.numbers.clone();
        Ok(Self { lists: lists == 1, attributes, ids, numbers, categories })
    }

    /// Numbers of all columns that are needed.
    fn places(&self, schema: &SchemaRef) -> Vec<usize> {
        let ids = self.ids.iter().map(|(name, _)| name);
        let numbers = self.numbers.iter().map(|(_, name)| name);
        let categories = self.categories.iter().map(|(_, name, _)| name);
        let all = self.attributes.iter().chain(ids).chain(numbers).chain(categories);
        all.filter_map(|name| schema.index_of(name).ok()).collect()
    }

    /// Attributes of an item, where the schema alone says it.
    fn width(&self, schema: &SchemaRef) -> Option<usize> {
        if !self.lists {
            return Some(self.attributes.len());
        }
        match schema.field_with_name(&self.attributes[0]).ok()?.data_type() {
            DataType::FixedSizeList(_, width) => usize::try_from(*width).ok().filter(|w| *w > 0),
            _ => None,
        }
    }

    fn shape(&self, dimensions: usize) -> Shape {
        Shape {
            dimensions,
            ids: self.ids.as_ref().map(|(_, kind)| *kind),
            numbers: self.numbers.iter().map(|(called, _)| called.clone()).collect(),
            categories: self
                .categories
                .iter()
                .map(|(name, _, kind)| (name.clone(), *kind))
                .collect(),
        }
    }

    /// Attributes of an item: of the batch's first, if lists have no fixed size.
    fn dimensions(&self, batch: &RecordBatch) -> Result<usize> {
        if !self.lists {
            return Ok(self.attributes.len());
        }
        let column = named(batch, &self.attributes[0])?;
        Ok(match column.data_type() {
            DataType::FixedSizeList(_, width) => *width as usize,
            DataType::List(_) => column.as_list::<i32>().value_length(0) as usize,
            _ => column.as_list::<i64>().value_length(0) as usize,
        })
    }

    /// The batch's attributes, row-major.
    fn attributes(
        &self,
        batch: &RecordBatch,
        first: u64,
        dimensions: usize,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        out.clear();
        if self.lists {
            let name = &self.attributes[0];
            let column = named(batch, name)?;
            no_nulls(name, column, first)?;
            return self.list_values(name, column, first, dimensions, out);
        }
        out.resize(batch.num_rows() * dimensions, 0.0);
        for (index, name) in self.attributes.iter().enumerate() {
            let column = named(batch, name)?;
            no_nulls(name, column, first)?;
            let numbers = floats(name, column)?;
            for (row, number) in numbers.values().iter().enumerate() {
                out[row * dimensions + index] = *number;
            }
        }
        Ok(())
    }

    fn list_values(
        &self,
        name: &str,
        column: &ArrayRef,
        first: u64,
        dimensions: usize,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let other = |row: usize, length: usize| {
            let expected = format!("lists of {dimensions} numbers");
            let got = format!("{length} in row {}", first + row as u64);
            Err(Error::argument(format!("column {name}"), expected, got))
        };
        let lengths: Vec<usize> = match column.data_type() {
            DataType::FixedSizeList(_, width) if *width as usize == dimensions => Vec::new(),
            DataType::FixedSizeList(_, width) => return other(0, *width as usize),
            DataType::List(_) => column.as_list::<i32>().offsets().lengths().collect(),
            _ => column.as_list::<i64>().offsets().lengths().collect(),
        };
        if let Some(row) = lengths.iter().position(|length| *length != dimensions) {
            return other(row, lengths[row]);
        }
        let inside = match column.data_type() {
            DataType::FixedSizeList(..) => {
                let list = column.as_fixed_size_list();
                let start = list.value_offset_at(0);
                list.values().slice(start, column.len() * dimensions)
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                list.values().slice(list.value_offsets()[0] as usize, column.len() * dimensions)
            }
            _ => {
                let list = column.as_list::<i64>();
                list.values().slice(list.value_offsets()[0] as usize, column.len() * dimensions)
            }
        };
        if let Some(at) = (inside.null_count() > 0).then(|| first_null(&inside)) {
            let got = format!(
                "null in row {}, column {}",
                first + (at / dimensions) as u64,
                at % dimensions
            );
            return Err(Error::argument("attributes", "finite numbers", got));
        }
        out.extend_from_slice(floats(name, &inside)?.values());
        Ok(())
    }

    fn ids(&self, batch: &RecordBatch, first: u64) -> Result<Option<IdCells>> {
        let Some((name, kind)) = &self.ids else { return Ok(None) };
        let column = named(batch, name)?;
        no_nulls(name, column, first)?;
        if *kind == Kinds::Texts {
            return Ok(Some(IdCells::Texts(texts(name, column)?)));
        }
        if let DataType::UInt64 = column.data_type() {
            let ids = column.as_primitive::<UInt64Type>().values().to_vec();
            return Ok(Some(IdCells::Integers(ids)));
        }
        let numbers = integers(name, column)?;
        let ids = numbers.values().iter().enumerate().map(|(row, id)| {
            u64::try_from(*id).map_err(|_| {
                let got = format!("{id} in row {}", first + row as u64);
                Error::argument("ids", "whole numbers from 0 up, or texts", got)
            })
        });
        Ok(Some(IdCells::Integers(ids.collect::<Result<_>>()?)))
    }

    fn numbers(&self, batch: &RecordBatch) -> Result<Vec<Vec<f32>>> {
        let numbers = self.numbers.iter().map(|(_, name)| {
            let numbers = floats(name, named(batch, name)?)?;
            Ok(numbers.iter().map(|number| number.unwrap_or(f32::NAN)).collect())
        });
        numbers.collect()
    }

    fn categories(&self, batch: &RecordBatch) -> Result<Vec<Cells>> {
        let cells = self.categories.iter().map(|(_, name, kind)| {
            let column = named(batch, name)?;
            Ok(match kind {
                Kinds::Integers => Cells::Integers(integers(name, column)?),
                Kinds::Texts => Cells::Texts(texts(name, column)?),
            })
        });
        cells.collect()
    }
}

fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Error::argument("column", format!("{name:?} in every batch"), "none"))
}

fn first_null(column: &dyn Array) -> usize {
    (0..column.len()).find(|index| column.is_null(*index)).unwrap_or(0)
}

fn no_nulls(name: &str, column: &ArrayRef, first: u64) -> Result<()> {
    if column.null_count() == 0 {
        return Ok(());
    }
    let got = format!("one in row {}", first + first_null(column) as u64);
    Err(Error::argument(format!("column {name}"), "no nulls", got))
}
