//! Where a catalogue is built: a file beside its final name, or memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use memmap2::MmapMut;
use sha2::{Digest, Sha256};

use super::format::PAGE;
use crate::error::{Error, Result};
use crate::tensor_file::{bears, hexadecimal, partial};

/// A file that several places are written to and read from at once.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    /// Creates a file in a folder that nobody else sees: it has lost its name by the time this
    /// returns, where the system allows it, so that not even a kill leaves it behind.
    ///
    /// The folder may be one that others write to: whatever stands there under the name, a link
    /// too, is left alone and another name is tried; and nobody but its owner may open the file.
    pub fn unnamed(folder: &Path, prefix: &str) -> Result<Self> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
        let mut taken = None;
        for _ in 0..TRIES {
            let path = folder.join(format!("{prefix}{:016x}.partial", random()));
            match open.open(&path) {
                Ok(file) => {
                    #[cfg(unix)]
                    std::fs::remove_file(&path).map_err(Error::io(&path))?;
                    return Ok(Self { file, path });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                // The name is nothing to anyone, but the folder is.
                Err(source) => return Err(Error::Io { path: folder.to_owned(), source }),
            }
        }
        let source = taken.expect("names were tried");
        Err(Error::Io { path: folder.to_owned(), source })
    }

    /// Writes at a place.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_at(&self.file, offset, bytes).map_err(Error::io(&self.path))
    }

    /// Reads what was written.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        read_at(&self.file, offset, bytes).map_err(Error::io(&self.path))
    }
}

/// Names that are tried before a folder is given up.
const TRIES: usize = 16;

/// A number that others cannot foretell.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(not(unix))]
impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been renamed, and a leftover is harmless.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        (offset, bytes) = (offset + written as u64, &bytes[written..]);
    }
    Ok(())
}

#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (offset, bytes) = (offset + read as u64, &mut bytes[read..]);
    }
    Ok(())
}

/// A catalogue's file while it is built: `FILE.partial`, locked, so that of two builders of one
/// file the second is refused, while what a killed one left is nobody's and is built over.
#[derive(Debug)]
pub struct Beside {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    overwrite: bool,
    done: bool,
}

impl Beside {
    /// Creates the file.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        refuse_existing(path, overwrite)?;
        let partial = partial(path);
        for _ in 0..TRIES {
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(true).truncate(false);
            // The name that the caller knows is the one to complain about.
            let file = open.open(&partial).map_err(Error::io(path))?;
            if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
                break;
            }
            // Between opening and locking, another builder may have finished: then what is locked
            // here is its catalogue, which has its final name by now and must not be touched.
            if bears(&file, &partial) {
                file.set_len(0).map_err(Error::io(&partial))?;
                return Ok(Self { file, partial, path: path.to_owned(), overwrite, done: false });
            }
            refuse_existing(path, overwrite)?;
        }
        let text = "expected a file that nobody builds, got one that another process builds";
        let source = io::Error::new(io::ErrorKind::ResourceBusy, text);
        Err(Error::Io { path: path.to_owned(), source })
    }

    /// The final name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn finish(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.partial))?;
        refuse_existing(&self.path, self.overwrite)?;
        std::fs::rename(&self.partial, &self.path).map_err(Error::io(&self.path))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done && bears(&self.file, &self.partial) {
            // Nothing can be made of half a catalogue; a leftover is harmless.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Refuses to replace a file unasked.
fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    let fail =
        |kind, text| Err(Error::Io { path: path.to_owned(), source: io::Error::new(kind, text) });
    if path.is_dir() {
        return fail(io::ErrorKind::IsADirectory, "expected a file name, got a directory");
    }
    if overwrite || !path.exists() {
        return Ok(());
    }
    let text =
        "expected a new file or overwrite=True, got a file that exists (it is left as it is)";
    fail(io::ErrorKind::AlreadyExists, text)
}

/// Where the bytes go.
#[derive(Debug)]
pub enum Target {
    /// Into a file.
    File(Beside),
    /// Into memory, once the length is known.
    Memory(Mutex<MmapMut>),
}

impl Target {
    /// Makes room for the whole.
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        match self {
            Self::File(beside) => beside.file.set_len(bytes).map_err(Error::io(&beside.partial)),
            Self::Memory(memory) => {
                let length = usize::try_from(bytes).unwrap_or(usize::MAX);
                let map = MmapMut::map_anon(length).map_err(Error::io(Path::new("memory")))?;
                *memory = Mutex::new(map);
                Ok(())
            }
        }
    }

    /// Writes at a place.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(beside) => {
                write_at(&beside.file, offset, bytes).map_err(Error::io(&beside.partial))
            }
            Self::Memory(memory) => {
                let mut memory = memory.lock().expect("no writer panics");
                memory[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Reads what was written.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        match self {
            Self::File(beside) => {
                read_at(&beside.file, offset, bytes).map_err(Error::io(&beside.partial))
            }
            Self::Memory(memory) => {
                let memory = memory.lock().expect("no writer panics");
                bytes.copy_from_slice(&memory[offset as usize..][..bytes.len()]);
                Ok(())
            }
        }
    }

    /// Gives the file its name, or the memory.
    pub fn finish(self) -> Result<Option<MmapMut>> {
        match self {
            Self::File(mut beside) => beside.finish().map(|()| None),
            Self::Memory(memory) => Ok(Some(memory.into_inner().expect("no writer panics"))),
        }
    }
}

/// One section while it is written from its start to its end.
pub struct Writer<'a> {
    target: &'a Target,
    offset: u64,
    bytes: u64,
    written: u64,
    hash: Sha256,
}

impl<'a> Writer<'a> {
    /// A section of so many bytes.
    pub fn new(target: &'a Target, offset: u64, bytes: u64) -> Self {
        Self { target, offset, bytes, written: 0, hash: Sha256::new() }
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.target.write(self.offset + self.written, bytes)?;
        self.seen(bytes);
        Ok(())
    }

    /// The next bytes, which stand there already.
    pub fn seen(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
    }

    /// The checksum.
    pub fn finish(mut self) -> String {
        assert_eq!(self.written, self.bytes, "a section of the size that was announced");
        self.hash.update(padding(self.bytes));
        hexadecimal(&self.hash.finalize())
    }
}

/// The zeros after a section of so many bytes.
pub fn padding(bytes: u64) -> &'static [u8] {
    static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    &ZEROS[..(bytes.next_multiple_of(PAGE) - bytes) as usize]
}
