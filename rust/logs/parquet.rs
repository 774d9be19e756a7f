//! Logs as Parquet files.
//!
//! A file is written to `FILE.partial` and renamed when it is complete. Row groups are encoded
//! apart from the file ([`Encoder`], on any thread) and appended in order ([`FileWriter`]), so
//! that the bytes do not depend on threads. A row group holds [`BLOCK`] sessions.
//!
//! A run that is stopped leaves `FILE.partial` as a readable Parquet file of the row groups so
//! far, with `complete` = `false` in its metadata. Even a full disk does: the row group that did
//! not fit is cut off and the footer takes its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescPtr};

use super::BLOCK;
use super::{Columns, Log, Metadata, Shape};
use crate::error::{Error, Result};
use crate::tensor_file::partial;

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
/// since that is where Arrow's own readers look.
fn pairs(shape: Shape, metadata: Metadata) -> Vec<KeyValue> {
    let schema = shape.arrow_schema().with_metadata(metadata.clone());
    let mut arrow = WriterProperties::default();
    add_encoded_arrow_schema_to_metadata(&schema, &mut arrow);
    let arrow = arrow.key_value_metadata().cloned().unwrap_or_default();
    let own = metadata.into_iter().map(|(key, value)| KeyValue::new(key, value));
    own.chain(arrow).collect()
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

    fn encode_log(&self, log: &Log) -> Result<RowGroup> {
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

/// A log's file while it grows.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    partial: PathBuf,
    overwrite: bool,
    /// The same file as the writer's, for the footer.
    file: File,
    /// Gone once the file is closed.
    writer: Option<SerializedFileWriter<File>>,
    encoder: Encoder,
    schema: SchemaDescPtr,
    properties: Arc<WriterProperties>,
    /// The row groups that are wholly in the file, and where they end.
    groups: Vec<RowGroupMetaData>,
    end: u64,
}

impl FileWriter {
    /// Creates `FILE.partial`. `constant_actions`: all rows have the same action, which is then
    /// worth compressing.
    pub fn create(
        path: &Path,
        overwrite: bool,
        shape: Shape,
        constant_actions: bool,
    ) -> Result<Self> {
        refuse_existing(path, overwrite)?;
        let partial = partial(path);
        let mut open = OpenOptions::new();
        open.read(true).write(true);
        if overwrite {
            open.create(true).truncate(true);
        } else {
            // What a stopped run left, or another process is writing, is nobody's to wipe.
            refuse_existing(&partial, overwrite)?;
            open.create_new(true);
        }
        // The name that the caller knows is the one to complain about.
        let file = open.open(&partial).map_err(Error::io(path))?;
        let schema: SchemaRef = Arc::new(shape.arrow_schema());
        let properties = Arc::new(properties(constant_actions));
        let io = |error| io_error(&partial, error);
        let root = ArrowSchemaConverter::new().convert(&schema).map_err(io)?.root_schema_ptr();
        let copy = file.try_clone().map_err(Error::io(&partial))?;
        let mut writer =
            SerializedFileWriter::new(copy, root, Arc::clone(&properties)).map_err(io)?;
        writer.flush().map_err(Error::io(&partial))?;
        let factory = Arc::new(ArrowRowGroupWriterFactory::new(&writer, schema));
        Ok(Self {
            path: path.to_owned(),
            overwrite,
            file,
            encoder: Encoder { factory, shape },
            schema: Arc::new(writer.schema_descr().clone()),
            properties,
            groups: Vec::new(),
            end: writer.bytes_written() as u64,
            writer: Some(writer),
            partial,
        })
    }

    /// What encodes this file's row groups.
    pub fn encoder(&self) -> Encoder {
        self.encoder.clone()
    }

    /// Appends a row group.
    pub fn append(&mut self, group: RowGroup) -> Result<()> {
        let writer = self.writer.as_mut().expect("the file is open");
        let append = || {
            let mut target = writer.next_row_group()?;
            for column in group.0 {
                column.append_to_row_group(&mut target)?;
            }
            let metadata = target.close()?;
            writer.flush()?;
            Ok((metadata, writer.bytes_written()))
        };
        let (metadata, end) = append().map_err(|error| io_error(&self.partial, error))?;
        self.groups.push(metadata.as_ref().clone());
        self.end = end as u64;
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self, metadata: Metadata) -> Result<()> {
        let outcome = self.close(metadata.clone(), true).and_then(|()| {
            refuse_existing(&self.path, self.overwrite)?;
            std::fs::rename(&self.partial, &self.path).map_err(Error::io(&self.path))
        });
        if outcome.is_err() {
            self.abandon(metadata);
        }
        outcome
    }

    /// Leaves `FILE.partial`, readable and marked as incomplete; or, if even that is impossible,
    /// no file, since one without a footer is of no use.
    pub fn abandon(mut self, metadata: Metadata) {
        if self.close(metadata, false).is_err() {
            // The failure that led here is what the caller needs to hear.
            let _ = std::fs::remove_file(&self.partial);
        }
    }

    /// Writes the footer after the last whole row group, over whatever stands there.
    fn close(&mut self, mut metadata: Metadata, complete: bool) -> Result<()> {
        // What its buffer may still hold is cut off below.
        drop(self.writer.take());
        let rows = self.groups.iter().map(RowGroupMetaData::num_rows).sum();
        metadata.insert("rows".into(), format!("{rows}"));
        metadata.insert("complete".into(), complete.to_string());
        let properties = &self.properties;
        let footer = FileMetaData::new(
            properties.writer_version().as_num(),
            rows,
            Some(properties.created_by().to_owned()),
            Some(pairs(self.encoder.shape, metadata)),
            Arc::clone(&self.schema),
            None,
        );
        let footer = ParquetMetaData::new(footer, self.groups.clone());
        let mut write = || {
            self.file.set_len(self.end)?;
            self.file.seek(SeekFrom::Start(self.end))?;
            ParquetMetaDataWriter::new(&mut self.file, &footer).finish()?;
            self.file.sync_all()?;
            Ok(())
        };
        write().map_err(|error| io_error(&self.partial, error))
    }
}

/// Refuses to replace a file unasked.
fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if path.is_dir() {
        let source =
            io::Error::new(io::ErrorKind::IsADirectory, "expected a file name, got a directory");
        return Err(Error::Io { path: path.to_owned(), source });
    }
    if overwrite || !path.exists() {
        return Ok(());
    }
    let source = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "expected a new file or overwrite=True, got a file that exists (it is left as it is)",
    );
    Err(Error::Io { path: path.to_owned(), source })
}

/// The operating system's error within a Parquet error, or that error itself.
fn io_error(path: &Path, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    };
    Error::Io { path: path.to_owned(), source }
}

/// Writes a log as the rollout that made it would have.
pub(super) fn write(log: &Log, path: &Path, overwrite: bool) -> Result<()> {
    let constant = {
        let mut rows = log.action.chunks(log.shape.action.max(1));
        let first = rows.next();
        rows.all(|row| Some(row) == first)
    };
    let mut file = FileWriter::create(path, overwrite, log.shape, constant)?;
    let encoder = file.encoder();
    let mut append = || {
        let mut first = 0;
        while first < log.len() {
            let block = log.session[first] as u64 / BLOCK;
            let rows = log.session[first..].partition_point(|s| *s as u64 / BLOCK == block);
            file.append(encoder.encode_log(&log.slice(first, rows))?)?;
            first += rows;
        }
        Ok(())
    };
    match append() {
        Ok(()) => file.finish(log.metadata.clone()),
        Err(error) => {
            file.abandon(log.metadata.clone());
            Err(error)
        }
    }
}
