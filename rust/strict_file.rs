//! A Parquet file that ends where it ends.
//!
//! The decoder skips over fields of a page's header that it does not know, and takes a read that
//! gives nothing for a read that went well: a damaged header can claim two billion numbers, and each
//! of them is then looked for behind the end of the file. Here the first such read is an error.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// A file to decode.
#[derive(Debug)]
pub struct StrictFile(File);

impl StrictFile {
    /// Takes a file, wherever it stands.
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl Length for StrictFile {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for StrictFile {
    type T = BufReader<Strict>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let mut file = self.0.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(Strict(file)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Before memory is asked for.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            let reason = format!("expected {length} bytes from byte {start}, got fewer");
            return Err(ParquetError::EOF(reason));
        }
        self.0.get_bytes(start, length)
    }
}

/// Reads bytes, or fails.
#[derive(Debug)]
pub struct Strict(File);

impl Read for Strict {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_an_error() {
        let path = std::env::temp_dir().join(format!("virtualtb-strict-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = StrictFile::new(File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let mut reader = file.get_read(8).unwrap();
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"89");
        let skipped = io::copy(&mut reader.take(8), &mut io::sink());
        assert_eq!(skipped.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(&*file.get_bytes(3, 4).unwrap(), b"3456");
        for (start, length) in [(8, 3), (11, 1), (u64::MAX, 2), (0, usize::MAX)] {
            assert!(file.get_bytes(start, length).is_err());
        }
    }
}
