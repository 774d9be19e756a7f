//! The checksum of a log's file: Parquet as others read it has none that they compare.
//!
//! The footer's metadata hold, as their last key, `checksum`: the CRC-32 of the whole file with
//! these eight digits zeroed, so that no bit of rows or footer changes unseen. CRC-32 rather than
//! the SHA-256 of other files, because it finds the same accidents (every burst of up to 32 bits,
//! others but for one in 2^32) at several times the speed, and a log is written while it is played.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crc32fast::Hasher;

use crate::error::{Error, Result};

/// The key in the footer's metadata.
pub const KEY: &str = "checksum";
/// What stands there until the rest of the file is known.
pub const BLANK: &str = "00000000";
/// The key and the frame of its value as Thrift's compact protocol writes them.
const MARK: &[u8] = b"\x18\x08checksum\x18\x08";
/// Bytes after the footer: its length, and "PAR1".
const TAIL: u64 = 8;
const STRIDE: usize = 1 << 18;

/// Where the digits stand. The last place counts: what comes before may be anybody's text.
fn digits(footer: &[u8]) -> Option<Range<usize>> {
    let at = footer.windows(MARK.len()).rposition(|window| window == MARK)? + MARK.len();
    footer.get(at..at + BLANK.len()).map(|_| at..at + BLANK.len())
}

/// Fills in the digits of a footer (with the file's last bytes) that comes after bytes of `sum`.
pub fn fill(footer: &mut [u8], mut sum: Hasher) {
    let digits = digits(footer).expect("the footer was just written");
    sum.update(footer);
    footer[digits].copy_from_slice(format!("{:08x}", sum.finalize()).as_bytes());
}

/// What is known of a file's checksum.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is that of the file.
    Right,
    /// There is none: no log, or one whose footer is damaged.
    Missing,
    /// The file was altered: the checksum that it says, and the one that it has.
    Wrong {
        /// As the footer has it.
        stored: String,
        /// Of the file as it is.
        computed: String,
    },
}

/// The footer with the file's last bytes, and where its digits stand.
fn footer(file: &mut File) -> io::Result<Option<(Vec<u8>, Range<usize>)>> {
    let length = file.seek(SeekFrom::End(0))?;
    if length < TAIL {
        return Ok(None);
    }
    let mut tail = [0; TAIL as usize];
    file.seek(SeekFrom::Start(length - TAIL))?;
    file.read_exact(&mut tail)?;
    let size = u64::from(u32::from_le_bytes(*tail.first_chunk().expect("eight bytes"))) + TAIL;
    if size > length || tail[4..] != *b"PAR1" {
        return Ok(None);
    }
    let mut footer = vec![0; size as usize];
    file.seek(SeekFrom::Start(length - size))?;
    file.read_exact(&mut footer)?;
    Ok(digits(&footer).map(|digits| (footer, digits)))
}

/// Reads the whole file, a piece at a time, and asks before each whether to go on.
pub fn check(file: &mut File, path: &Path, interrupt: &dyn Fn() -> Result<()>) -> Result<Outcome> {
    let Some((mut footer, digits)) = footer(file).map_err(Error::io(path))? else {
        file.rewind().map_err(Error::io(path))?;
        return Ok(Outcome::Missing);
    };
    let stored = String::from_utf8_lossy(&footer[digits.clone()]).into_owned();
    footer[digits].copy_from_slice(BLANK.as_bytes());

    let length = file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
    let (mut sum, mut left) = (Hasher::new(), length - footer.len() as u64);
    let mut piece = vec![0; STRIDE.min(left as usize)];
    file.rewind().map_err(Error::io(path))?;
    while left > 0 {
        interrupt()?;
        let most = piece.len().min(left as usize);
        file.read_exact(&mut piece[..most]).map_err(Error::io(path))?;
        sum.update(&piece[..most]);
        left -= most as u64;
    }
    sum.update(&footer);
    file.rewind().map_err(Error::io(path))?;
    let computed = format!("{:08x}", sum.finalize());
    Ok(if computed == stored { Outcome::Right } else { Outcome::Wrong { stored, computed } })
}

/// Gives an altered file a checksum that fits, for tests of what lies behind it. One without a
/// footer is left alone.
pub fn reseal(file: &mut [u8]) {
    let Some(start) = file.len().checked_sub(TAIL as usize) else { return };
    let size = u32::from_le_bytes(*file[start..].first_chunk().expect("eight bytes")) as usize;
    let Some(at) = start.checked_sub(size) else { return };
    let Some(digits) = digits(&file[at..]) else { return };
    file[at..][digits].copy_from_slice(BLANK.as_bytes());
    let mut sum = Hasher::new();
    sum.update(&file[..at]);
    fill(&mut file[at..], sum);
}
