//! What items are called, and the way back from a name to its row.
//!
//! The table is open addressing with linear probing: slot `hash % slots` or the next free one
//! holds a row number, [`FREE`] means none. A lookup reads one or two slots and compares the id
//! itself, so a damaged table finds too little but never a wrong item.

use super::format::table_slots;
use crate::error::{Error, Result};

/// A slot without a row.
pub const FREE: u32 = u32::MAX;

/// Ids by row, in memory or in a file.
#[derive(Clone, Copy, Debug)]
pub enum Ids<'a> {
    /// Item `i` is called `i`.
    Rows(u64),
    /// Numbers.
    Integers(&'a [u64]),
    /// Texts: row `i` is the bytes from `offsets[i]` to `offsets[i + 1]`.
    Texts {
        /// One more than rows.
        offsets: &'a [u64],
        /// The texts end to end.
        bytes: &'a [u8],
    },
}

/// An id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// A number.
    Integer(u64),
    /// A text.
    Text(&'a [u8]),
}

impl std::fmt::Display for Id<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => write!(out, "{number}"),
            Self::Text(bytes) => write!(out, "{:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

impl<'a> Ids<'a> {
    /// The id of a row; `None` for one that does not exist or whose offsets are damaged.
    pub fn get(&self, row: u32) -> Option<Id<'a>> {
        let at = row as usize;
        match *self {
            Self::Rows(rows) => (u64::from(row) < rows).then_some(Id::Integer(row.into())),
            Self::Integers(ids) => ids.get(at).map(|id| Id::Integer(*id)),
            Self::Texts { offsets, bytes } => {
                let (first, end) = (*offsets.get(at)?, *offsets.get(at + 1)?);
                bytes.get(first as usize..end as usize).map(Id::Text)
            }
        }
    }

    /// The row of an id.
    pub fn find(&self, id: Id<'_>, table: &[u32]) -> Option<u32> {
        if let Self::Rows(rows) = *self {
            return match id {
                Id::Integer(number) if number < rows => Some(number as u32),
                _ => None,
            };
        }
        let slots = table.len();
        let first = hash(id) as usize & slots.checked_sub(1)?;
        for slot in (first..slots).chain(0..first) {
            match table[slot] {
                FREE => return None,
                row if self.get(row) == Some(id) => return Some(row),
                _ => {}
            }
        }
        None
    }
}

/// Builds the table of ids; refuses one that is there twice.
pub fn table(ids: Ids<'_>, rows: u32, mut tick: impl FnMut(u32) -> Result<()>) -> Result<Vec<u32>> {
    let slots = table_slots(rows.into()) as usize;
    let mut table = vec![FREE; slots];
    for row in 0..rows {
        if row % (1 << 16) == 0 {
            tick(row)?;
        }
        let id = ids.get(row).expect("an id a row");
        let mut slot = hash(id) as usize & (slots - 1);
        while table[slot] != FREE {
            if ids.get(table[slot]) == Some(id) {
                let got = format!("{id} in rows {} and {row}", table[slot]);
                return Err(Error::argument("ids", "each id once", got));
            }
            slot = (slot + 1) & (slots - 1);
        }
        table[slot] = row;
    }
    Ok(table)
}

/// Part of the file format: where an id's search starts.
fn hash(id: Id<'_>) -> u64 {
    match id {
        Id::Integer(number) => mix(number),
        Id::Text(bytes) => {
            let (words, rest) = bytes.as_chunks::<8>();
            let mut state = bytes.len() as u64;
            for word in words {
                state = mix(state ^ u64::from_le_bytes(*word));
            }
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            mix(state ^ u64::from_le_bytes(last))
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
