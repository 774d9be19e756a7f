//! Checksums: of what is used, at its first use; of everything, on demand.

use std::ops::Range;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use super::build::Watch;
use super::format::{self, BLOCK, Header, Kind, Section};
use super::mapped::Mapped;
use super::{Catalog, part};
use crate::error::{Error, Result};
use crate::tensor_file::hexadecimal;

/// Bytes that [`Catalog::verify`] hashes between two looks at the clock.
const STRIDE: usize = 1 << 20;

impl Catalog {
    /// Reads the whole file and compares every checksum.
    pub fn verify(&self, watch: &Watch<'_>) -> Result<()> {
        self.mapped.check()?;
        let total = self.mapped.bytes().len() as u64;
        for section in &self.header.sections {
            let padded = section.bytes.next_multiple_of(format::PAGE);
            let mut hash = Sha256::new();
            let pieces = part(&self.mapped, section.offset, padded).chunks(STRIDE);
            for (index, piece) in pieces.enumerate() {
                (watch.progress)("verifying", section.offset + (index * STRIDE) as u64, total);
                (watch.interrupt)()?;
                hash.update(piece);
            }
            compare(&self.mapped, section, hash)?;
        }
        let order = self.values::<u32>(Kind::Order, 0);
        let positions = self.values::<u32>(Kind::Positions, 0);
        let mut pairs = positions.iter().enumerate();
        if pairs.any(|(row, position)| order.get(*position as usize) != Some(&(row as u32))) {
            return Err(self.altered("an order of all rows"));
        }
        self.mapped.check()
    }

    /// Compares a section's checksum, the first time.
    pub(super) fn check_once(&self, kind: Kind, column: u32) -> Result<()> {
        let (index, section) = self.section(kind, column);
        if !self.seen[index].load(Ordering::Acquire) {
            check_sum(&self.mapped, section)?;
            self.seen[index].store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Where each category's list starts, and where the last one ends: ascending from 0 to the
    /// number of entries.
    pub(super) fn starts(&self, column: u32) -> Result<&[u64]> {
        let (index, _) = self.section(Kind::Starts, column);
        let starts = self.values::<u64>(Kind::Starts, column);
        if !self.seen[index].load(Ordering::Acquire) {
            // A checksum says that nothing was altered by accident, not that it makes sense.
            let present = self.header.columns[column as usize].present;
            let whole = (starts.first(), starts.last()) == (Some(&0), Some(&present));
            if !whole || !starts.is_sorted() {
                return Err(self.altered("starts of lists, ascending"));
            }
            self.check_once(Kind::Starts, column)?;
        }
        Ok(starts)
    }

    /// Some of a column's positions, whose blocks are checked the first time.
    pub(super) fn list(&self, kind: Kind, column: u32, range: Range<u64>) -> Result<&[u32]> {
        self.check_once(Kind::Sums, column)?;
        let all = self.values::<u32>(kind, column);
        let sums = self.values::<u64>(Kind::Sums, column);
        let wanted = all.get(range.start as usize..range.end as usize);
        let wanted = wanted.ok_or_else(|| self.altered("lists within their section"))?;
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let seen = &self.seen_blocks[column as usize];
        for block in range.start / BLOCK..=(range.end - 1) / BLOCK {
            let (word, bit) = (&seen[block as usize / 64], 1 << (block % 64));
            if word.load(Ordering::Acquire) & bit != 0 {
                continue;
            }
            let first = (block * BLOCK) as usize;
            let held = &all[first..all.len().min(first + BLOCK as usize)];
            if format::block_sum(bytemuck::cast_slice(held)) != sums[block as usize] {
                return Err(self.altered("lists of positions as they were written"));
            }
            word.fetch_or(bit, Ordering::AcqRel);
        }
        Ok(wanted)
    }
}

/// Gives altered bytes checksums that fit, for tests of what lies behind them. Bytes whose header
/// is damaged are left alone.
#[doc(hidden)]
pub fn reseal(file: &mut [u8]) {
    if file.len() >= 64 {
        format::sign(file);
    }
    let Ok((mut header, _)) = Header::parse(file, "altered") else { return };
    for section in &mut header.sections {
        let end = section.offset + section.bytes.next_multiple_of(format::PAGE);
        let held = &file[section.offset as usize..end as usize];
        section.sha256 = hexadecimal(&Sha256::digest(held));
    }
    let first = header.sections[0].offset;
    let written = header.to_bytes(first, file.len() as u64);
    file[..written.len()].copy_from_slice(&written);
}

/// Compares a section's checksum.
pub(super) fn check_sum(mapped: &Mapped, section: &Section) -> Result<()> {
    let padded = section.bytes.next_multiple_of(format::PAGE);
    let hash = Sha256::new_with_prefix(part(mapped, section.offset, padded));
    compare(mapped, section, hash)
}

fn compare(mapped: &Mapped, section: &Section, hash: Sha256) -> Result<()> {
    let got = hexadecimal(&hash.finalize());
    if got == section.sha256 {
        return Ok(());
    }
    mapped.check_kept()?;
    let Section { kind, column, sha256, .. } = section;
    let reason = format!(
        "section {kind:?} of column {column}: expected SHA-256 {sha256}, got {got}: the file was \
         altered"
    );
    Err(Error::format(mapped.origin(), reason))
}
