//! The bytes of a catalogue: a mapped file, or memory of our own.
//!
//! # What is promised of a file that others change
//! - It is cut short while open: an error, at the latest after the search that ran into it; never
//!   a crash ([`super::guard`]).
//! - It is written to, or another file takes its name: an error at the next use. Length and time
//!   of modification are compared before each use, and so is who bears the name. (A file that is
//!   deleted stays readable, as is usual.)
//! - It is written to in the middle of a search: that search may give a wrong answer, the next one
//!   an error. Whatever bytes come, nothing is indexed by them unchecked.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::{Mmap, MmapMut};

use super::guard::Guard;
use crate::error::{Error, Result};

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let identity = None;
        Self { length: metadata.len(), modified: metadata.modified().ok(), identity }
    }
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    // Before the mapping, so that it is dropped first.
    guard: Guard,
}

/// See the module.
#[derive(Debug)]
pub struct Mapped {
    source: Option<Source>,
    map: Mmap,
}

impl Mapped {
    /// Maps a file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if !metadata.is_file() {
            let reason = "expected a catalogue file, got a directory or device";
            return Err(Error::format(path.display().to_string(), reason));
        }
        if metadata.len() == 0 {
            return Err(Error::format(
                path.display().to_string(),
                "expected a catalogue file, got an empty one",
            ));
        }
        // The path is kept whole, so that a change of directory does not lead to another file.
        let whole = std::path::absolute(path).map_err(Error::io(path))?;
        // SAFETY: the mapping is private to this value and only read. Other processes may change
        // or cut the file; the module's comment says how each case is met.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let guard = Guard::new(&map)?;
        let stamp = Stamp::of(&metadata);
        Ok(Self { source: Some(Source { path: whole, file, stamp, guard }), map })
    }

    /// Takes memory as a catalogue.
    pub fn memory(bytes: MmapMut) -> Result<Self> {
        let path = Path::new("memory");
        Ok(Self { source: None, map: bytes.make_read_only().map_err(Error::io(path))? })
    }

    /// The whole path of the file.
    pub fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| &*source.path)
    }

    /// What messages call it.
    pub fn origin(&self) -> String {
        self.path().map_or_else(|| "catalogue in memory".into(), |path| path.display().to_string())
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Refuses to go on if the file is no longer what was opened.
    pub fn check(&self) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        source.guard.renew()?;
        self.check_kept()?;
        let fail = |reason: String| Err(Error::format(self.origin(), reason));
        let now = Stamp::of(&source.file.metadata().map_err(Error::io(&source.path))?);
        if now.length != source.stamp.length {
            let (expected, got) = (source.stamp.length, now.length);
            return fail(format!("expected {expected} bytes as when it was opened, got {got}"));
        }
        if now != source.stamp {
            return fail("expected the file as it was opened, got one that was written to".into());
        }
        match std::fs::metadata(&source.path) {
            Ok(named) if Stamp::of(&named).identity != now.identity => fail(
                "expected the file as it was opened, got another of this name: open it again"
                    .into(),
            ),
            // A file without a name, or in a folder that is closed by now, is still whole.
            _ => Ok(()),
        }
    }

    /// Refuses results that were made of pages that the file no longer has.
    pub fn check_kept(&self) -> Result<()> {
        match &self.source {
            Some(source) if source.guard.lost() => {
                let expected = source.stamp.length;
                let reason = format!(
                    "expected {expected} bytes as when it was opened, got fewer: cut short"
                );
                Err(Error::format(self.origin(), reason))
            }
            _ => Ok(()),
        }
    }
}
