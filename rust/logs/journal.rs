//! The journal of a rollout's file: what was asked, and of each row group what it takes to go on.
//!
//! `FILE.journal` stands beside `FILE.partial` and goes when `FILE` is complete. It is locked as
//! long as somebody writes, so that of two processes on one output the second is refused; the lock
//! is the system's and goes with the process, however that ends.
//!
//! It is text. A line is a digest and JSON; the digest is of the digest before and of the JSON, so
//! that lines cannot be changed, left out or swapped. The first line says what was asked, every
//! other one is a [`Record`]. A line comes after what it tells of, and what it tells of carries its
//! own checksum. So the journal holds, whatever a kill or a power cut leaves of it:
//!
//! | found | taken for |
//! |---|---|
//! | a last line without its end, or with zeros in it | a write that was cut short: it never was |
//! | any other line whose digest is wrong | damage: refused |
//! | a record whose row group is not in the file as recorded | the rollout goes on from there |

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::error::{Error, Result};
use crate::tensor_file::{bears, hash, json};

/// The header's `format` and `format_version`.
const FORMAT: &str = "virtualtb_fast.rollout_journal";
const FORMAT_VERSION: &str = "1";
/// A longer line is damage, and not written. Headers of simulators and policies, which the first
/// line repeats, have at most a quarter of this.
const LONGEST_LINE: u64 = 4 << 20;
/// How often a journal is opened that others finish in the meantime.
const TRIES: usize = 16;

/// A row group that is wholly in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its bytes, which follow those of the row group before.
    pub bytes: u64,
    /// Their XXH3, 128 bits, in hexadecimal.
    pub checksum: String,
    /// Its part of the footer, as Parquet writes it, in hexadecimal; offsets count from its start.
    pub footer: String,
    /// What the writer's caller wants back.
    pub note: serde_json::Value,
}

/// The journal of one output, held by this process.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// The header's and each record's line: where it ends, and its digest.
    lines: Vec<(u64, String)>,
    /// Whether nobody misses it.
    disposable: bool,
}

/// `FILE.journal`.
pub fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

impl Journal {
    /// Opens and locks the journal of the output `path`, or refuses if somebody else has it.
    pub fn claim(path: &Path) -> Result<Self> {
        let name = journal(path);
        for _ in 0..TRIES {
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(true).truncate(false);
            // The name that the caller knows is the one to complain about.
            let file = open.open(&name).map_err(Error::io(path))?;
            // A file system without locks cannot refuse anybody.
            if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
                break;
            }
            // Between opening and locking, its holder may have finished and removed it.
            if bears(&file, &name) {
                let disposable = file.metadata().is_ok_and(|about| about.len() == 0);
                return Ok(Self { file, path: name, lines: Vec::new(), disposable });
            }
        }
        let text = "expected an output that nobody writes, got one that another process, or \
                    another rollout of this one, is at work on";
        let source = io::Error::new(io::ErrorKind::ResourceBusy, text);
        Err(Error::Io { path: path.to_owned(), source })
    }

    /// Empties it and writes down what is asked.
    pub fn begin(&mut self, asked: &Metadata) -> Result<()> {
        self.lines.clear();
        self.cut()?;
        let mut header = asked.clone();
        header.insert("format".into(), FORMAT.into());
        header.insert("format_version".into(), FORMAT_VERSION.into());
        self.write(&json(&header))?;
        self.disposable = false;
        Ok(())
    }

    /// Empties it for an output that nobody can go on with: it is a lock and nothing else.
    pub fn clear(&mut self) -> Result<()> {
        self.lines.clear();
        self.disposable = true;
        self.cut()
    }

    /// Reads what stands in it, for a rollout that asks the same. `None`: not even a header.
    pub fn read(&mut self, asked: &Metadata) -> Result<Option<Vec<Record>>> {
        let mut reader = BufReader::new(self.file.try_clone().map_err(Error::io(&self.path))?);
        reader.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path))?;
        let (mut records, mut line) = (Vec::new(), Vec::new());
        self.lines.clear();
        loop {
            line.clear();
            let mut limited = io::Read::take(&mut reader, LONGEST_LINE);
            limited.read_until(b'\n', &mut line).map_err(Error::io(&self.path))?;
            let whole = line.last() == Some(&b'\n');
            if line.contains(&0) || (!whole && (line.len() as u64) < LONGEST_LINE) {
                break;
            }
            let text = self.verified(&line)?;
            if self.lines.is_empty() {
                self.compare(text, asked)?;
            } else {
                let record = serde_json::from_str(text).map_err(|error| {
                    self.damaged(format!("expected a record of a row group, got {error}"))
                })?;
                records.push(record);
            }
            let digest = text_digest(&line).to_owned();
            self.lines.push((self.end() + line.len() as u64, digest));
        }
        Ok((!self.lines.is_empty()).then_some(records))
    }

    /// A line's JSON.
    fn verified<'a>(&self, line: &'a [u8]) -> Result<&'a str> {
        let known = str::from_utf8(line).ok().and_then(|line| {
            let (digest, text) = line.strip_suffix('\n')?.split_once(' ')?;
            (digest == self.chained(text)).then_some(text)
        });
        known.ok_or_else(|| {
            let number = self.lines.len() + 1;
            let got = format!("expected line {number} as it was written, got another");
            self.damaged(got)
        })
    }

    /// Refuses to go on with something else than was asked.
    fn compare(&self, header: &str, asked: &Metadata) -> Result<()> {
        let mut was: Metadata = serde_json::from_str(header).map_err(|error| {
            self.damaged(format!("expected what a rollout was asked, got {error}"))
        })?;
        for (key, expected) in [("format", FORMAT), ("format_version", FORMAT_VERSION)] {
            let got = was.remove(key).unwrap_or_default();
            if got != expected {
                return Err(self.damaged(format!("expected {key} {expected:?}, got {got:?}")));
            }
        }
        same(&was, asked, &self.path)
    }

    fn damaged(&self, reason: String) -> Error {
        let remedy =
            "the rollout cannot be resumed (overwrite=True without resume=True starts again)";
        Error::format(self.path.display().to_string(), format!("{reason}: {remedy}"))
    }

    /// Writes down one more row group.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        self.write(&json(record))
    }

    /// Keeps the header and so many records.
    pub fn keep(&mut self, records: usize) -> Result<()> {
        self.lines.truncate(records + 1);
        self.cut()
    }

    /// The same file, to be synced.
    pub fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io(&self.path))
    }

    /// Removes it: the file that it tells of is complete, or of no use.
    pub fn remove(mut self) {
        self.disposable = true;
    }

    fn end(&self) -> u64 {
        self.lines.last().map_or(0, |(end, _)| *end)
    }

    /// The digest of a line that comes next.
    fn chained(&self, text: &str) -> String {
        let before = self.lines.last().map_or("", |(_, digest)| digest);
        hash(format!("{before}{text}").as_bytes())
    }

    /// Cuts off what follows the last line.
    fn cut(&mut self) -> Result<()> {
        self.file.set_len(self.end()).map_err(Error::io(&self.path))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let digest = self.chained(text);
        let line = format!("{digest} {text}\n");
        if line.len() as u64 > LONGEST_LINE {
            let got = format!("expected at most {LONGEST_LINE} bytes a line, got {}", line.len());
            return Err(Error::format(self.path.display().to_string(), got));
        }
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.end()))?;
            self.file.write_all(line.as_bytes())
        };
        if let Err(source) = write() {
            // Half a line would do no harm, but it takes the room that the next attempt may need.
            let _ = self.cut();
            return Err(Error::Io { path: self.path.clone(), source });
        }
        self.lines.push((self.end() + line.len() as u64, digest));
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.disposable {
            // A leftover is taken over by the next rollout.
            let _ = std::fs::remove_file(&self.path);
        }
        // Whoever still syncs the file must not hold the lock.
        let _ = self.file.unlock();
    }
}

fn text_digest(line: &[u8]) -> &str {
    let line = str::from_utf8(line).unwrap_or_default();
    line.split(' ').next().unwrap_or_default()
}

/// Refuses what is asked if it differs from what was asked, and says in what.
pub fn same(was: &Metadata, asked: &Metadata, origin: &Path) -> Result<()> {
    let value = |of: &Metadata, key: &str| of.get(key).map_or("none", String::as_str).to_owned();
    for key in was.keys().chain(asked.keys()) {
        let (was, asked) = (value(was, key), value(asked, key));
        if was != asked {
            let expected = format!("{was} as in {}", origin.display());
            return Err(Error::argument(format!("{key} of a resumed rollout"), expected, asked));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_what_cannot_be_read_is_not_written() {
        let path = std::env::temp_dir().join(format!("virtualtb-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(journal(&path));
        let asked = |bytes: u64| Metadata::from([("schema".into(), "x".repeat(bytes as usize))]);
        let mut held = Journal::claim(&path).unwrap();
        held.begin(&asked(LONGEST_LINE - 4096)).unwrap();
        drop(held);
        let mut held = Journal::claim(&path).unwrap();
        assert_eq!(held.read(&asked(LONGEST_LINE - 4096)).unwrap(), Some(Vec::new()));
        let error = held.begin(&asked(LONGEST_LINE)).unwrap_err();
        assert!(error.to_string().contains("expected at most 4194304 bytes a line"), "{error}");
        held.remove();
        assert!(!journal(&path).exists());
    }
}
