//! Logs as Parquet: how rows are encoded, and what a file says of them at its end.
//!
//! Row groups are encoded apart from the file ([`Encoder`], on any thread) and appended in order,
//! so that the bytes do not depend on threads. A row group holds [`BLOCK`](super::BLOCK) sessions.
//! It is written without knowing where in the file it stands, and placed afterwards: that is how
//! the row groups of a run that was killed become those of the run that goes on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use crc32fast::Hasher;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::{ColumnPath, SchemaDescPtr};
use twox_hash::xxhash3_128;

use super::checksum;
use super::{Columns, Log, Metadata, Shape};
use crate::error::{Error, Result};

/// What a Parquet file starts with, and ends with.
pub const MAGIC: &[u8; 4] = b"PAR1";
/// Bytes that are read at a time to be checked.
const PIECE: usize = 1 << 20;

/// Chosen by measurement: random actions do not compress, and a dictionary of them costs time and
/// space; codes and counts are small dictionaries; sessions, pages and the codes of a customer are
/// small differences. Encoding costs about a seventh of playing.
fn properties(constant_actions: bool) -> WriterProperties {
    let column =
        |path: &str| ColumnPath::from(path.split('.').map(String::from).collect::<Vec<_>>());
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("virtualtb_fast {}", env!("CARGO_PKG_VERSION")))
        .set_dictionary_enabled(true)
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None)
        .set_column_statistics_enabled(column("session"), EnabledStatistics::Chunk)
        // One value for most policies; where each row has its own, the dictionary is given up soon.
        .set_column_dictionary_page_size_limit(column("action_logp"), 1 << 12)
        .set_data_page_size_limit(1 << 20)
        .set_write_batch_size(8192);
    for (path, encoding) in [
        ("session", Encoding::DELTA_BINARY_PACKED),
        ("page", Encoding::DELTA_BINARY_PACKED),
        ("customer.list.item", Encoding::DELTA_BINARY_PACKED),
        ("action.list.item", Encoding::PLAIN),
    ] {
        properties = properties
            .set_column_dictionary_enabled(column(path), false)
            .set_column_encoding(column(path), encoding);
    }
    if constant_actions {
        let path = column("action.list.item");
        properties = properties.set_column_compression(path, Compression::LZ4_RAW);
    }
    properties.build()
}

/// What the footer says beside the rows: the metadata, and the Arrow schema, which holds it too,
/// since that is where Arrow's own readers look. The checksum's digits come last and are filled in
/// when all that comes before them is known.
fn pairs(shape: Shape, metadata: Metadata) -> Vec<KeyValue> {
    let schema = shape.arrow_schema().with_metadata(metadata.clone());
    let mut arrow = WriterProperties::default();
    add_encoded_arrow_schema_to_metadata(&schema, &mut arrow);
    let arrow = arrow.key_value_metadata().cloned().unwrap_or_default();
    let own = metadata.into_iter().map(|(key, value)| KeyValue::new(key, value));
    let sum = KeyValue::new(checksum::KEY.to_owned(), checksum::BLANK.to_owned());
    own.chain(arrow).chain([sum]).collect()
}

/// Turns rows into the encoded columns of a row group.
#[derive(Clone, Debug)]
pub struct Encoder {
    factory: Arc<ArrowRowGroupWriterFactory>,
    shape: Shape,
}

/// An encoded row group.
#[derive(Debug)]
pub struct RowGroup(Vec<ArrowColumnChunk>);

impl Encoder {
    /// Encodes the rows of a block, which are there again afterwards.
    pub fn encode(&self, columns: &mut Columns) -> Result<RowGroup> {
        let log = std::mem::take(columns).freeze(self.shape, Metadata::new());
        let outcome = self.encode_log(&log);
        *columns = log.thaw();
        outcome
    }

    pub(super) fn encode_log(&self, log: &Log) -> Result<RowGroup> {
        let batch = log.to_arrow()?;
        self.encode_batch(&batch)
            .map(RowGroup)
            .map_err(|error| Error::State(format!("the log cannot be encoded as Parquet: {error}")))
    }

    fn encode_batch(&self, batch: &RecordBatch) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let writers = self.factory.create_column_writers(0)?;
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).zip(writers);
        columns
            .map(|((field, array), mut writer)| {
                // Every column of a log is a single leaf.
                for leaf in compute_leaves(field, array)? {
                    writer.write(&leaf)?;
                }
                writer.close()
            })
            .collect()
    }
}

/// The layout that all row groups of a file share.
#[derive(Clone, Debug)]
pub struct Layout {
    schema: SchemaDescPtr,
    properties: Arc<WriterProperties>,
    encoder: Encoder,
}

/// A row group that is in a file.
#[derive(Debug)]
pub struct Written {
    /// Its bytes.
    pub bytes: u64,
    /// Their checksum.
    pub checksum: String,
    /// Their share of the file's.
    pub sum: Hasher,
    /// What the footer says of it, encoded; offsets count from its start.
    pub footer: Vec<u8>,
}

impl Layout {
    /// `constant_actions`: all rows have the same action, which is then worth compressing.
    pub fn new(shape: Shape, constant_actions: bool) -> Result<Self, ParquetError> {
        let schema: SchemaRef = Arc::new(shape.arrow_schema());
        let properties = Arc::new(properties(constant_actions));
        let root = ArrowSchemaConverter::new().convert(&schema)?.root_schema_ptr();
        let writer = SerializedFileWriter::new(io::sink(), root, Arc::clone(&properties))?;
        let factory = Arc::new(ArrowRowGroupWriterFactory::new(&writer, schema));
        let schema = Arc::new(writer.schema_descr().clone());
        Ok(Self { schema, properties, encoder: Encoder { factory, shape } })
    }

    /// What encodes row groups.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Writes a row group where the file stands.
    pub fn write(&self, group: RowGroup, file: &File) -> Result<Written, ParquetError> {
        let (schema, properties) = (Arc::clone(&self.schema), Arc::clone(&self.properties));
        let mut target = TrackedWrite::new(Hashed { file, sums: Sums::default() });
        let mut writer = SerializedRowGroupWriter::new(schema, properties, &mut target, 0, None);
        for column in group.0 {
            column.append_to_row_group(&mut writer)?;
        }
        let metadata = writer.close()?.as_ref().clone();
        target.flush()?;
        let footer = self.encoded(std::slice::from_ref(&metadata), metadata.num_rows(), None)?;
        let (bytes, (checksum, sum)) =
            (target.bytes_written() as u64, target.inner().sums.finish());
        Ok(Written { bytes, checksum, sum, footer })
    }

    /// What the footer says of a row group that starts at `start` and is number `ordinal`. That
    /// of a group written just now comes out of its encoded form too, which does not hold all of
    /// what Parquet's writer had in mind: so no run can be told from one that was resumed.
    pub fn placed(
        &self,
        footer: &[u8],
        start: u64,
        ordinal: usize,
    ) -> Result<RowGroupMetaData, ParquetError> {
        let (group, start) = (self.decoded(footer)?, start as i64);
        let columns = group.columns().iter().map(|column| {
            let dictionary = column.dictionary_page_offset().map(|offset| offset + start);
            let data = column.data_page_offset() + start;
            let column = column.clone().into_builder();
            column.set_data_page_offset(data).set_dictionary_page_offset(dictionary).build()
        });
        RowGroupMetaData::builder(Arc::clone(&self.schema))
            .set_column_metadata(columns.collect::<Result<_, _>>()?)
            .set_total_byte_size(group.total_byte_size())
            .set_num_rows(group.num_rows())
            .set_ordinal(ordinal as i32)
            .set_file_offset(start)
            .build()
    }

    /// What is to be written after the row groups, which end a file of this sum.
    pub fn footer(
        &self,
        groups: &[RowGroupMetaData],
        sum: Hasher,
        mut metadata: Metadata,
        complete: bool,
    ) -> Result<Vec<u8>, ParquetError> {
        let rows = groups.iter().map(RowGroupMetaData::num_rows).sum::<i64>();
        metadata.insert("rows".into(), rows.to_string());
        metadata.insert("complete".into(), complete.to_string());
        let pairs = pairs(self.encoder.shape, metadata);
        let mut footer = self.encoded(groups, rows, Some(pairs))?;
        checksum::fill(&mut footer, sum);
        Ok(footer)
    }

    /// The row group of a footer that has one.
    fn decoded(&self, bytes: &[u8]) -> Result<RowGroupMetaData, ParquetError> {
        // The footer's length and the magic bytes follow it.
        let bytes = &bytes[..bytes.len().saturating_sub(8)];
        let whole = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
        let parsed = ParquetMetaDataReader::decode_metadata_with_options(bytes, Some(&whole))?;
        let expected = (1, self.schema.num_columns());
        let first = parsed.row_groups().first();
        let got = (parsed.num_row_groups(), first.map_or(0, RowGroupMetaData::num_columns));
        match first {
            Some(group) if expected == got => Ok(group.clone()),
            _ => Err(ParquetError::General(format!(
                "expected {expected:?} row groups and columns, got {got:?}"
            ))),
        }
    }

    fn encoded(
        &self,
        groups: &[RowGroupMetaData],
        rows: i64,
        pairs: Option<Vec<KeyValue>>,
    ) -> Result<Vec<u8>, ParquetError> {
        let (version, creator) =
            (self.properties.writer_version().as_num(), self.properties.created_by().to_owned());
        let schema = Arc::clone(&self.schema);
        let about = FileMetaData::new(version, rows, Some(creator), pairs, schema, None);
        let mut bytes = Vec::new();
        let about = ParquetMetaData::new(about, groups.to_vec());
        ParquetMetaDataWriter::new(&mut bytes, &about).finish()?;
        Ok(bytes)
    }
}

/// The checksums of a row group: the journal's, and the row group's share of the file's.
#[derive(Default)]
struct Sums {
    hash: xxhash3_128::Hasher,
    sum: Hasher,
}

impl Sums {
    fn update(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
        self.sum.update(bytes);
    }

    fn finish(&self) -> (String, Hasher) {
        (format!("{:032x}", self.hash.finish_128()), self.sum.clone())
    }
}

/// Writes to a file what it hashes.
struct Hashed<'a> {
    file: &'a File,
    sums: Sums,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sums.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The checksums of so many bytes of a file from `start` on; `None` if it ends before.
pub fn checksums(mut file: &File, start: u64, bytes: u64) -> io::Result<Option<(String, Hasher)>> {
    file.seek(SeekFrom::Start(start))?;
    let mut sums = Sums::default();
    let mut piece = vec![0; PIECE.min(bytes as usize)];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(PIECE as u64) as usize;
        let read = file.read(&mut piece[..most])?;
        if read == 0 {
            return Ok(None);
        }
        sums.update(&piece[..read]);
        left -= read as u64;
    }
    Ok(Some(sums.finish()))
}
