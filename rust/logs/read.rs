//! Reading a log back from Parquet.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int16Type, Int64Type, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::ScalarBuffer;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::checksum::{self, Outcome};
use super::{
    Columns, Digester, FORMAT, FORMAT_VERSION, Log, MOST_ROWS_A_BYTE, Metadata, OUTCOMES, PIECE,
    Shape,
};
use crate::error::{Error, Result};
use crate::simulator::Schema;
use crate::strict_file::StrictFile;

/// More items than this on a page are taken for damage.
const MOST_ITEMS: usize = 1 << 16;

/// A log's file, open for reading.
struct Reader {
    batches: ParquetRecordBatchReader,
    shape: Shape,
    metadata: Metadata,
    rows: u64,
}

/// Runs the decoder, which may panic over a damaged file.
fn guarded<T>(origin: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::format(origin, "expected a Parquet file that can be decoded, got a damaged one"))
    })
}

fn open(path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<Reader> {
    let origin = path.display().to_string();
    let fail = |reason: String| Error::format(&*origin, reason);
    let mut file = File::open(path).map_err(Error::io(path))?;
    let about = file.metadata().map_err(Error::io(path))?;
    let length = about.len();
    if about.is_dir() {
        return Err(fail("expected a Parquet file, got a directory".into()));
    }
    // Before anything is parsed: what accidents leave is not what decoders are made for.
    let checked = checked(&mut file, path, interrupt)?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(StrictFile::new(file)).map_err(|error| {
            if path.extension().is_some_and(|ending| ending == "partial") {
                let got = "one that is not finished: its rollout was killed, or is still at work";
                let remedy = "rollout(..., resume=True) (--resume) goes on with it";
                return fail(format!("expected a Parquet file, got {got}; {remedy} ({error})"));
            }
            fail(format!("expected a Parquet file, got {error}"))
        })?;
    let footer = builder.metadata().file_metadata();
    let rows = footer.num_rows() as u64;
    let mut metadata: Metadata = footer
        .key_value_metadata()
        .into_iter()
        .flatten()
        .filter(|pair| pair.key != parquet::arrow::ARROW_SCHEMA_META_KEY)
        .map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default()))
        .collect();
    let text = |key: &str| {
        metadata.get(key).ok_or_else(|| {
            fail(format!(
                "expected metadata key {key:?}, got none: not a virtualtb_fast session log"
            ))
        })
    };
    for (key, expected) in [("format", FORMAT), ("format_version", FORMAT_VERSION)] {
        let got = text(key)?;
        if got != expected {
            return Err(fail(format!("expected {key} {expected:?}, got {got:?}")));
        }
    }
    if !checked {
        let got = "none: an earlier version or another tool wrote this file";
        return Err(fail(format!("expected a checksum of the file, got {got}")));
    }
    let schema: Schema = serde_json::from_str(text("schema")?)
        .map_err(|error| fail(format!("expected schema as JSON of this version, got {error}")))?;
    schema.check().map_err(|error| fail(error.to_string()))?;
    let items = match metadata.get("page_items") {
        None => 0,
        Some(items) => items
            .parse()
            .ok()
            .filter(|items| (1..=MOST_ITEMS).contains(items))
            .ok_or_else(|| {
                fail(format!("expected page_items as a number, 1 to {MOST_ITEMS}, got {items:?}"))
            })?,
    };
    let shape = Shape { items, ..Shape::from(&schema) };
    if rows > length.saturating_mul(MOST_ROWS_A_BYTE) {
        return Err(fail(format!("expected rows that {length} bytes can hold, got {rows}")));
    }
    if *text("rows")? != rows.to_string() {
        return Err(fail(format!("expected {} rows, got {rows}", text("rows")?)));
    }
    let (want, got) = (shape.arrow_schema(), builder.schema());
    let pairs = want.fields().iter().zip(got.fields());
    if let Some((want, got)) = pairs.into_iter().find(|(want, got)| {
        (want.name(), want.data_type(), want.is_nullable())
            != (got.name(), got.data_type(), got.is_nullable())
    }) {
        let [want, got] = [want, got].map(|field| {
            let gaps = if field.is_nullable() { ", with gaps" } else { "" };
            format!("{}: {}{gaps}", field.name(), field.data_type())
        });
        return Err(fail(format!("expected column {want}, got {got}")));
    }
    if want.fields().len() != got.fields().len() {
        let (want, got) = (want.fields().len(), got.fields().len());
        return Err(fail(format!("expected {want} columns, got {got}")));
    }
    // It is of this file, not of the rows.
    metadata.remove(checksum::KEY);
    let batches = builder
        .with_batch_size(PIECE)
        .build()
        .map_err(|error| fail(format!("expected a Parquet file, got {error}")))?;
    Ok(Reader { batches, shape, metadata, rows })
}

/// Whether the file has a checksum, which then is right.
fn checked(file: &mut File, path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<bool> {
    match checksum::check(file, path, interrupt)? {
        Outcome::Right => Ok(true),
        Outcome::Missing => Ok(false),
        Outcome::Wrong { stored, computed } => {
            let reason = format!(
                "expected a file of checksum {stored}, got {computed}: the file was altered"
            );
            Err(Error::format(path.display().to_string(), reason))
        }
    }
}

/// Whether a file has a checksum, which then is right; no more of it is read. Other tools that
/// rewrite a log leave it out.
pub fn check_file(path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<bool> {
    checked(&mut File::open(path).map_err(Error::io(path))?, path, interrupt)
}

/// Calls `take` with the log's rows, piece by piece; returns what the metadata says. An error of
/// `take`, or of `interrupt`, which is asked before every piece, ends the reading.
pub fn each_piece(
    path: &Path,
    interrupt: &dyn Fn() -> Result<()>,
    mut take: impl FnMut(&Log) -> Result<()>,
) -> Result<(Shape, Metadata)> {
    let origin = path.display().to_string();
    guarded(&origin, || {
        let reader = open(path, interrupt)?;
        let mut rows = 0;
        for batch in reader.batches {
            interrupt()?;
            let batch = batch.map_err(|error| {
                Error::format(&*origin, format!("expected rows that can be decoded, got {error}"))
            })?;
            let piece = piece(&batch, reader.shape, &reader.metadata)
                .map_err(|reason| Error::format(&*origin, reason))?;
            rows += piece.len() as u64;
            if rows > reader.rows {
                break;
            }
            take(&piece)?;
        }
        if rows != reader.rows {
            let reason = format!("expected {} rows, got {rows}", reader.rows);
            return Err(Error::format(&*origin, reason));
        }
        Ok((reader.shape, reader.metadata))
    })
}

pub(super) fn read(path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<Log> {
    let mut columns = Columns::default();
    let (shape, metadata) = each_piece(path, interrupt, |piece| {
        columns.append_log(piece);
        Ok(())
    })?;
    Ok(columns.freeze(shape, metadata))
}

/// [`Log::digest`] of a file, a piece at a time.
pub fn digest_file(path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<String> {
    let mut digester = None;
    let (shape, metadata) = each_piece(path, interrupt, |piece| {
        digester
            .get_or_insert_with(|| Digester::new(piece.shape, piece.metadata.get("schema")))
            .update(piece);
        Ok(())
    })?;
    let digester = digester.unwrap_or_else(|| Digester::new(shape, metadata.get("schema")));
    Ok(digester.finish())
}

/// A batch as a log; its types are those that [`open`] has checked.
fn piece(batch: &RecordBatch, shape: Shape, metadata: &Metadata) -> Result<Log, String> {
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let nulls = array.null_count();
        let may_be_null = match field.name().as_str() {
            "value" => !shape.of_store(),
            name => name == "hour",
        };
        if nulls > 0 && !may_be_null {
            return Err(format!("column {}: expected no nulls, got {nulls}", field.name()));
        }
    }
    let column = |index: usize| batch.column(index);
    // A sliced list keeps its values whole: offsets are counted in lists.
    let list = |index: usize| column(index).as_fixed_size_list().values().clone();
    let outcome = column(8).as_dictionary::<UInt8Type>();
    let names = outcome.values().as_string::<i32>();
    let codes: Vec<u8> = names
        .iter()
        .map(|name| {
            let code = OUTCOMES.iter().position(|known| Some(*known) == name);
            let known = OUTCOMES.join(", ");
            code.map(|code| code as u8).ok_or_else(|| {
                format!("column outcome: expected {known}, got {:?}", name.unwrap_or_default())
            })
        })
        .collect::<Result<_, _>>()?;
    let outcome = outcome.keys().values().iter().map(|key| codes[usize::from(*key)]);
    let outcome: ScalarBuffer<u8> = outcome.collect();
    let (value, hour, items) = if shape.of_store() {
        let hours = column(11).as_primitive::<Float32Type>();
        let hour = hours.iter().map(|hour| hour.unwrap_or(f32::NAN)).collect();
        let value = column(10).as_primitive::<Float32Type>().values().clone();
        (value, hour, list(12).as_primitive::<UInt32Type>().values().clone())
    } else {
        Default::default()
    };
    Ok(Log {
        shape,
        metadata: metadata.clone(),
        session: column(0).as_primitive::<Int64Type>().values().clone(),
        page: column(1).as_primitive::<Int16Type>().values().clone(),
        day: column(2).as_primitive::<Int16Type>().values().clone(),
        customer: list(3).as_primitive::<UInt8Type>().values().clone(),
        action: list(4).as_primitive::<Float32Type>().values().clone(),
        action_logp: column(5).as_primitive::<Float32Type>().values().clone(),
        clicks: column(6).as_primitive::<UInt8Type>().values().clone(),
        second: column(7).as_primitive::<UInt8Type>().values().clone(),
        outcome,
        units: column(9).as_primitive::<UInt16Type>().values().clone(),
        value,
        hour,
        items,
    })
}
