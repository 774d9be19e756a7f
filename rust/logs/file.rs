//! A log's file while it grows, and after.
//!
//! A file is written to `FILE.partial` and renamed when it is complete. That of a rollout has a
//! [`Journal`] beside it, which says what was asked and which row groups are wholly in the file:
//! whatever stops the run, another one goes on after the last of them, and the bytes are those of
//! a run that was never stopped.
//!
//! A run that is stopped and has the time to leaves `FILE.partial` as a readable Parquet file of
//! the row groups so far, with `complete` = `false` in its metadata. Even a full disk does: the row
//! group that did not fit is cut off and the footer takes its place. Where not even that is
//! possible, or after a kill, only a rollout that goes on can use it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::journal::{Journal, Record};
use super::parquet::{Encoder, Layout, MAGIC, RowGroup, Written, checksums};
use super::syncer::{Syncer, Unsynced};
use super::{BLOCK, Log, Metadata, Shape};
use crate::error::{Error, Result};
use crate::parallel;
use crate::tensor_file::{hexadecimal, partial};

/// What a file is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Its final name.
    pub path: &'a Path,
    /// Whether a file of that name is replaced, or of the name beside it unless that is resumed.
    pub overwrite: bool,
    /// What its rows look like.
    pub shape: Shape,
    /// All rows have the same action.
    pub constant_actions: bool,
    /// What is asked, if somebody may go on with it one day.
    pub asked: Option<&'a Metadata>,
}

/// A log's file while it grows.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    partial: PathBuf,
    overwrite: bool,
    file: File,
    journal: Journal,
    journaled: bool,
    syncer: Syncer,
    layout: Layout,
    /// The row groups that are wholly in the file.
    groups: Vec<Group>,
    /// Whether a sync has failed, so that the file is not fit to be read.
    unsynced: bool,
    /// The process that writes. One that was forked from it has the same file, but not the thread
    /// that syncs, and would write into what the other one writes.
    process: u64,
}

/// A row group that is wholly in the file.
#[derive(Debug)]
struct Group {
    about: RowGroupMetaData,
    /// Where it ends.
    end: u64,
    /// The sum of the file up to there.
    sum: Hasher,
}

/// Where the row groups so far end, and the sum of the file up to there.
fn reached(groups: &[Group]) -> (u64, Hasher) {
    groups.last().map_or_else(
        || {
            let mut sum = Hasher::new();
            sum.update(MAGIC);
            (MAGIC.len() as u64, sum)
        },
        |last| (last.end, last.sum.clone()),
    )
}

/// The sum of two parts, one after the other.
fn joined(mut before: Hasher, after: &Hasher) -> Hasher {
    before.combine(after);
    before
}

impl FileWriter {
    /// Starts a new file.
    pub fn create(opening: Opening<'_>) -> Result<Self> {
        let Opening { path, overwrite, asked, .. } = opening;
        refuse_existing(path, overwrite, NEW)?;
        let mut journal = Journal::claim(path)?;
        // Whoever had the output until now may have finished it.
        refuse_existing(path, overwrite, NEW)?;
        // What a stopped run left is nobody's to wipe.
        refuse_existing(&partial(path), overwrite, NEW_BESIDE)?;
        // The old rows go before the journal that tells of them: a journal without rows can be gone
        // on with, rows without a journal cannot.
        let file = match open(path, true) {
            Ok(file) => file,
            Err(error) => {
                journal.remove();
                return Err(error);
            }
        };
        match asked {
            Some(asked) => journal.begin(asked)?,
            None => journal.clear()?,
        }
        Self::start(opening, file, journal, Vec::new())
    }

    /// Goes on with the file that a stopped run of the same rollout left, or starts a new one if
    /// there is none. Returns the notes of the row groups that are in it; where one is not what a
    /// note is, nothing is touched.
    pub fn resume<N: DeserializeOwned>(
        opening: Opening<'_>,
        tick: &dyn Fn() -> Result<()>,
    ) -> Result<(Self, Vec<N>)> {
        let Opening { path, overwrite, asked, .. } = opening;
        let asked = asked.expect("only what was asked can be resumed");
        refuse_existing(path, overwrite, NEW)?;
        let mut journal = Journal::claim(path)?;
        refuse_existing(path, overwrite, NEW)?;
        let records = journal.read(asked)?;
        let file = open(path, false)?;
        let length = file.metadata().map_err(Error::io(&partial(path)))?.len();
        let Some(records) = records else {
            // A header is written before any row: there never was more, or it is lost.
            if length > MAGIC.len() as u64 {
                let origin = partial(path).display().to_string();
                let expected = "expected beside it the journal of the rollout that left it";
                let remedy =
                    "it cannot be resumed (overwrite=True without resume=True starts again)";
                return Err(Error::format(origin, format!("{expected}, got none: {remedy}")));
            }
            journal.begin(asked)?;
            return Ok((Self::start(opening, file, journal, Vec::new())?, Vec::new()));
        };
        let layout = layout(opening)?;
        let (groups, notes) = found(&file, &layout, records, path, tick)?;
        let notes = notes.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        let notes = notes.map_err(|error| {
            let journal = super::journal::journal(path).display().to_string();
            Error::format(journal, format!("expected a block's counts, got {error}"))
        })?;
        journal.keep(groups.len())?;
        Ok((Self::start(opening, file, journal, groups)?, notes))
    }

    /// Cuts the file after these row groups, from where it grows.
    fn start(
        opening: Opening<'_>,
        mut file: File,
        journal: Journal,
        groups: Vec<Group>,
    ) -> Result<Self> {
        let Opening { path, overwrite, asked, .. } = opening;
        let partial = partial(path);
        let layout = layout(opening)?;
        let mut cut = || {
            file.set_len(groups.last().map_or(0, |last| last.end))?;
            if groups.is_empty() {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(MAGIC)?;
            }
            file.try_clone()
        };
        let (data, lines) = (cut().map_err(Error::io(&partial))?, journal.handle()?);
        if asked.is_some() {
            // No power cut may leave rows without what was asked.
            lines.sync_data().map_err(Error::io(&partial))?;
            sync_folder(path);
        }
        let sync = move || {
            data.sync_data()?;
            lines.sync_data()
        };
        let syncer = Syncer::start(groups.len(), sync).map_err(Error::io(&partial))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            overwrite,
            file,
            journal,
            journaled: asked.is_some(),
            syncer,
            layout,
            groups,
            unsynced: false,
            process: parallel::process(),
        })
    }

    fn is_foreign(&self) -> bool {
        self.process != parallel::process()
    }

    fn check_process(&self) -> Result<()> {
        if self.is_foreign() {
            let expected = "expected the process that started the rollout to go on with it";
            let path = self.path.display();
            return Err(Error::State(format!("{path}: {expected}, got one forked from it")));
        }
        Ok(())
    }

    /// What encodes this file's row groups.
    pub fn encoder(&self) -> Encoder {
        self.layout.encoder().clone()
    }

    /// Row groups that are wholly in the file.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Where the next row group goes.
    fn end(&self) -> u64 {
        reached(&self.groups).0
    }

    /// Appends a row group. Whoever resumes the file gets the note back.
    pub fn append(&mut self, group: RowGroup, note: Value) -> Result<()> {
        self.check_process()?;
        let (start, before) = reached(&self.groups);
        let write = || {
            (&self.file).seek(SeekFrom::Start(start))?;
            let written = self.layout.write(group, &self.file)?;
            let placed = self.layout.placed(&written.footer, start, self.groups.len())?;
            Ok((placed, written))
        };
        let (about, Written { bytes, checksum, sum, footer }) =
            write().map_err(|error| io_error(&self.partial, error))?;
        if self.journaled {
            let footer = hexadecimal(&footer);
            self.journal.append(&Record { bytes, checksum, footer, note })?;
        }
        self.groups.push(Group { about, end: start + bytes, sum: joined(before, &sum) });
        self.syncer.written(self.groups.len()).map_err(|error| self.cut_back(error))
    }

    /// Completes the file and gives it its name. `tick` is asked while the disk is waited for.
    pub fn finish(mut self, metadata: Metadata, tick: &dyn Fn() -> Result<()>) -> Result<()> {
        let outcome = self.complete(metadata.clone(), tick);
        if outcome.is_ok() {
            self.leave(false);
        } else {
            self.abandon(metadata);
        }
        outcome
    }

    fn complete(&mut self, metadata: Metadata, tick: &dyn Fn() -> Result<()>) -> Result<()> {
        self.check_process()?;
        self.close(metadata, true)?;
        self.syncer.finish(tick)?.map_err(|error| self.cut_back(error))?;
        refuse_existing(&self.path, self.overwrite, NEW)?;
        std::fs::rename(&self.partial, &self.path).map_err(Error::io(&self.path))?;
        sync_folder(&self.path);
        Ok(())
    }

    /// Leaves `FILE.partial`, marked as incomplete, and readable if that is possible. If it is
    /// not, and nobody can go on with it either, no file is left. The disk is not waited for.
    pub fn abandon(mut self, metadata: Metadata) {
        if self.is_foreign() {
            // The other process writes on. Not even dropping is safe: the thread that syncs may
            // have had a lock when this process was forked.
            return std::mem::forget(self);
        }
        let readable = !self.unsynced && self.close(metadata, false).is_ok();
        // The failure that led here is what the caller needs to hear.
        if !readable && self.journaled {
            let _ = self.file.set_len(self.end());
        } else if !readable {
            let _ = std::fs::remove_file(&self.partial);
        }
    }

    /// Leaves nothing beside the file, and nothing of it either if it is to be discarded.
    fn leave(self, discarded: bool) {
        if self.is_foreign() {
            return std::mem::forget(self);
        }
        if discarded {
            let _ = std::fs::remove_file(&self.partial);
        }
        self.journal.remove();
    }

    /// Writes the footer after the last whole row group, over whatever stands there.
    fn close(&mut self, metadata: Metadata, complete: bool) -> Result<()> {
        let (end, sum) = reached(&self.groups);
        let groups: Vec<_> = self.groups.iter().map(|group| group.about.clone()).collect();
        let write = || {
            let footer = self.layout.footer(&groups, sum, metadata, complete)?;
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            self.file.write_all(&footer)?;
            Ok(())
        };
        write().map_err(|error| io_error(&self.partial, error))
    }

    /// Forgets the row groups that may never have reached the disk.
    fn cut_back(&mut self, Unsynced { synced, source }: Unsynced) -> Error {
        self.unsynced = true;
        self.groups.truncate(synced);
        // Nothing more can be done if the disk refuses this too.
        let _ = self.file.set_len(self.end());
        if self.journaled {
            let _ = self.journal.keep(synced);
        }
        Error::Io { path: self.partial.clone(), source }
    }
}

/// The row groups that are in the file as recorded, and their notes.
type Found = (Vec<Group>, Vec<Value>);

fn found(
    mut file: &File,
    layout: &Layout,
    records: Vec<Record>,
    path: &Path,
    tick: &dyn Fn() -> Result<()>,
) -> Result<Found> {
    let partial = partial(path);
    let (mut groups, mut notes) = (Vec::new(), Vec::new());
    let mut magic = [0; MAGIC.len()];
    let length = file.metadata().map_err(Error::io(&partial))?.len();
    if length < magic.len() as u64 {
        return Ok((groups, notes));
    }
    file.read_exact(&mut magic).map_err(Error::io(&partial))?;
    if magic != *MAGIC {
        return Ok((groups, notes));
    }
    for Record { bytes, checksum: expected, footer, note } in records {
        tick()?;
        let (start, before) = reached(&groups);
        if length.saturating_sub(start) < bytes {
            break;
        }
        let sum = match checksums(file, start, bytes).map_err(Error::io(&partial))? {
            Some((checksum, sum)) if checksum == expected => joined(before, &sum),
            _ => break,
        };
        let group = unhexadecimal(&footer)
            .ok_or_else(|| ParquetError::General("not hexadecimal".into()))
            .and_then(|footer| layout.placed(&footer, start, groups.len()));
        let about = group.map_err(|error| {
            let journal = super::journal::journal(path).display().to_string();
            Error::format(
                journal,
                format!("expected a row group's part of the footer, got {error}"),
            )
        })?;
        groups.push(Group { about, end: start + bytes, sum });
        notes.push(note);
    }
    Ok((groups, notes))
}

fn layout(Opening { path, shape, constant_actions, .. }: Opening<'_>) -> Result<Layout> {
    Layout::new(shape, constant_actions).map_err(|error| io_error(path, error))
}

/// Opens `FILE.partial`, emptied or as it is.
fn open(path: &Path, empty: bool) -> Result<File> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(empty);
    // The name that the caller knows is the one to complain about.
    open.open(partial(path)).map_err(Error::io(path))
}

/// Makes sure that a power cut does not take the names away. Not every system can.
fn sync_folder(path: &Path) {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    }
}

const NEW: &str =
    "expected a new file or overwrite=True, got a file that exists (it is left as it is)";
const NEW_BESIDE: &str = "expected no earlier run's rest, resume=True (to go on with it) or \
                          overwrite=True, got a file that exists (it is left as it is)";

/// Refuses to replace a file unasked.
fn refuse_existing(path: &Path, overwrite: bool, text: &str) -> Result<()> {
    if path.is_dir() {
        let source =
            io::Error::new(io::ErrorKind::IsADirectory, "expected a file name, got a directory");
        return Err(Error::Io { path: path.to_owned(), source });
    }
    if overwrite || !path.exists() {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::AlreadyExists, text);
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

/// The inverse of [`hexadecimal`].
fn unhexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    if digits.1.is_empty() { digits.0.iter().map(byte).collect() } else { None }
}

/// Writes a log as the rollout that made it would have.
pub(super) fn write(
    log: &Log,
    path: &Path,
    overwrite: bool,
    interrupt: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let constant_actions = {
        let mut rows = log.action.chunks(log.shape.action.max(1));
        let first = rows.next();
        rows.all(|row| Some(row) == first)
    };
    let shape = log.shape;
    let opening = Opening { path, overwrite, shape, constant_actions, asked: None };
    let mut file = FileWriter::create(opening)?;
    let encoder = file.encoder();
    // What fails leaves nothing: the log is in memory.
    let mut append = || {
        let mut first = 0;
        while first < log.len() {
            interrupt()?;
            let block = log.session[first] as u64 / BLOCK;
            let rows = log.session[first..].partition_point(|s| *s as u64 / BLOCK == block);
            file.append(encoder.encode_log(&log.slice(first, rows))?, Value::Null)?;
            first += rows;
        }
        Ok(())
    };
    let outcome = append().and_then(|()| file.complete(log.metadata.clone(), interrupt));
    file.leave(outcome.is_err());
    outcome
}

#[cfg(test)]
mod tests;
