//! The layout of a catalogue's file, and the checks that come before anything in it is used.
//!
//! ```text
//! bytes  0..8     "VTBCAT\x1a\n"
//!        8..12    format version, u32
//!       12..16    zero
//!       16..24    length of the header, u64: a multiple of a page
//!       24..32    length of the file, u64
//!       32..64    SHA-256 of the header with these 32 bytes zeroed
//!       64..      JSON: what the catalogue holds, and the table of its sections; then spaces
//! then the sections, each on a page of its own, zeros up to the next page
//! ```
//!
//! All numbers are little-endian. A section's SHA-256 stands in the table and covers its last page
//! to the end, so every byte of the file is under some checksum. N rows, D dimensions:
//!
//! | section | holds | |
//! |---|---|---|
//! | `plan` | how rows are clustered | read when the file is opened |
//! | `attributes` | f32, N x D | storage order, as are `codes` and `bounds` |
//! | `codes`, `bounds` | what makes search fast | |
//! | `order` | u32, N | `order[position] = row` |
//! | `positions` | u32, N | `positions[row] = position` |
//! | `ids` | u64, N, or with texts N + 1 offsets | by row; absent if ids are row numbers |
//! | `id_texts` | bytes | |
//! | `id_table` | u32 | hash table of rows (see [`super::ids`]) |
//! | `numbers` | f32, N | a number column by position, NaN where there is none |
//! | `sorted` | u32, M | positions that have a number, by (number, position) |
//! | `codes_of` | u8, u16 or u32, N | a category column by position; V where there is none |
//! | `values` | i64, V, or with texts V + 1 offsets | the categories, ascending |
//! | `value_texts` | bytes | |
//! | `starts` | u64, V + 1 | where each category's list starts in `lists` |
//! | `lists` | u32, M | positions, ascending within a category |
//! | `sums` | u64 a block | checksums of the blocks of `sorted` or `lists` |

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::tensor_file::hexadecimal;

/// First bytes of a catalogue.
pub const MAGIC: [u8; 8] = *b"VTBCAT\x1a\n";
/// Version of the layout.
pub const VERSION: u32 = 1;
/// Sections start at multiples of this.
pub const PAGE: u64 = 4096;
/// Most items: row numbers fit 32 bits, and the last two values mean other things.
pub const MOST_ROWS: u64 = (1 << 32) - 2;
/// Most attributes an item.
pub const MOST_DIMENSIONS: usize = 512;
/// Most columns of categories and numbers.
pub const MOST_COLUMNS: usize = 256;
/// Positions of `sorted` and `lists` that share a checksum.
pub const BLOCK: u64 = 1 << 14;
const FRAME: usize = 64;
const DIGEST: std::ops::Range<usize> = 32..64;
const LARGEST_HEADER: u64 = 1 << 20;
const LONGEST_NAME: usize = 256;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the module's table says it")]
pub enum Kind {
    Plan,
    Attributes,
    Codes,
    Bounds,
    Order,
    Positions,
    Ids,
    IdTexts,
    IdTable,
    Numbers,
    Sorted,
    CodesOf,
    Values,
    ValueTexts,
    Starts,
    Lists,
    Sums,
}

/// A section's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What it holds.
    pub kind: Kind,
    /// Of which column; 0 for sections of the whole.
    pub column: u32,
    /// First byte within the file.
    pub offset: u64,
    /// Bytes, padding not counted.
    pub bytes: u64,
    /// Checksum, padding included.
    pub sha256: String,
}

/// What items are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// By their row number.
    Rows,
    /// By a number below 2^63.
    Integers,
    /// By a number, some of them not below 2^63.
    LargeIntegers,
    /// By a text.
    Texts,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ColumnKind {
    /// Numbers, for filters by range.
    Number,
    /// Categories that are whole numbers.
    Integers {
        /// Different ones.
        values: u32,
    },
    /// Categories that are texts.
    Texts {
        /// Different ones.
        values: u32,
    },
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Rows that have a value.
    pub present: u64,
}

impl Column {
    /// Bytes of a category's code.
    pub fn code_width(values: u32) -> u64 {
        match values {
            0..=0xFF => 1,
            0x100..=0xFFFF => 2,
            _ => 4,
        }
    }
}

/// What the header's JSON says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Items.
    pub rows: u64,
    /// Attributes of an item.
    pub dimensions: u32,
    /// What items are called.
    pub ids: IdKind,
    /// Columns of numbers and categories.
    pub columns: Vec<Column>,
    /// The program that wrote it.
    pub made_by: String,
    /// Where everything is, in the order of the file.
    pub sections: Vec<Section>,
}

/// Sizes that follow from neither rows nor columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the plan.
    pub plan: u64,
    /// Bytes of the codes.
    pub codes: u64,
    /// Bytes of the bounds.
    pub bounds: u64,
}

/// Slots of the hash table of so many ids: at most three quarters are taken.
pub fn table_slots(rows: u64) -> u64 {
    (rows * 4).div_ceil(3).next_power_of_two()
}

impl Header {
    /// The sections that there must be, in order, with their sizes; `None` where the size is free.
    pub fn expected(&self) -> Vec<(Kind, u32, Option<u64>)> {
        let n = self.rows;
        let mut all = vec![
            (Kind::Plan, 0, None),
            (Kind::Attributes, 0, Some(n * u64::from(self.dimensions) * 4)),
            (Kind::Codes, 0, None),
            (Kind::Bounds, 0, None),
            (Kind::Order, 0, Some(n * 4)),
            (Kind::Positions, 0, Some(n * 4)),
        ];
        match self.ids {
            IdKind::Rows => {}
            IdKind::Integers | IdKind::LargeIntegers => all.push((Kind::Ids, 0, Some(n * 8))),
            IdKind::Texts => {
                all.push((Kind::Ids, 0, Some((n + 1) * 8)));
                all.push((Kind::IdTexts, 0, None));
            }
        }
        if self.ids != IdKind::Rows {
            all.push((Kind::IdTable, 0, Some(table_slots(n) * 4)));
        }
        for (index, column) in self.columns.iter().enumerate() {
            let (index, lists) = (index as u32, Some(column.present * 4));
            match column.kind {
                ColumnKind::Number => {
                    all.push((Kind::Numbers, index, Some(n * 4)));
                    all.push((Kind::Sorted, index, lists));
                }
                ColumnKind::Integers { values } | ColumnKind::Texts { values } => {
                    let width = Column::code_width(values);
                    all.push((Kind::CodesOf, index, Some(n * width)));
                    if let ColumnKind::Texts { .. } = column.kind {
                        all.push((Kind::Values, index, Some((u64::from(values) + 1) * 8)));
                        all.push((Kind::ValueTexts, index, None));
                    } else {
                        all.push((Kind::Values, index, Some(u64::from(values) * 8)));
                    }
                    all.push((Kind::Starts, index, Some((u64::from(values) + 1) * 8)));
                    all.push((Kind::Lists, index, lists));
                }
            }
            all.push((Kind::Sums, index, Some(column.present.div_ceil(BLOCK) * 8)));
        }
        all
    }

    /// Puts sections of these sizes one after the other; the lengths of header and file.
    pub fn place(&mut self, sizes: &[u64]) -> (u64, u64) {
        let expected = self.expected();
        assert_eq!(expected.len(), sizes.len());
        let blank = |((kind, column, _), bytes): ((Kind, u32, Option<u64>), &u64)| Section {
            kind,
            column,
            offset: u64::MAX,
            bytes: *bytes,
            sha256: "0".repeat(64),
        };
        self.sections = expected.into_iter().zip(sizes).map(blank).collect();
        // Offsets are written with at most as many digits as now.
        let header = (FRAME + self.json().len()) as u64;
        let header = header.next_multiple_of(PAGE);
        let mut offset = header;
        for section in &mut self.sections {
            section.offset = offset;
            offset += section.bytes.next_multiple_of(PAGE);
        }
        (header, offset)
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// The header as it stands in the file.
    pub fn to_bytes(&self, header: u64, file: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(header as usize);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(header.to_le_bytes());
        bytes.extend(file.to_le_bytes());
        bytes.extend([0; 32]);
        bytes.extend(self.json().as_bytes());
        assert!(bytes.len() as u64 <= header);
        bytes.resize(header as usize, b' ');
        sign(&mut bytes);
        bytes
    }

    /// Reads and checks the header of a whole file; also gives its digest.
    pub fn parse(bytes: &[u8], origin: &str) -> Result<(Self, String)> {
        let fail = |reason: String| Error::format(origin, reason);
        let length = bytes.len() as u64;
        if length < FRAME as u64 || bytes[..8] != MAGIC {
            return Err(fail(format!("expected a catalogue file, got another of {length} bytes")));
        }
        let word = |at: usize| {
            u64::from_le_bytes(*bytes[at..].first_chunk().expect("the frame was checked"))
        };
        let (version, zero) = (word(8) as u32, word(8) >> 32);
        if version != VERSION || zero != 0 {
            return Err(fail(format!(
                "expected format version {VERSION}, got {version} (flags {zero:#x})"
            )));
        }
        let (header, file) = (word(16), word(24));
        if file != length {
            return Err(fail(format!("expected {file} bytes, got {length}: cut short or altered")));
        }
        let most = LARGEST_HEADER.min(length);
        if header < PAGE || header > most || !header.is_multiple_of(PAGE) {
            return Err(fail(format!(
                "expected a header of {PAGE} to {most} bytes in whole pages, got {header}"
            )));
        }
        let mut text = bytes[..header as usize].to_vec();
        text[DIGEST].fill(0);
        let digest = Sha256::digest(&text);
        if digest[..] != bytes[DIGEST] {
            let [expected, got] = [hexadecimal(&bytes[DIGEST]), hexadecimal(&digest)];
            return Err(fail(format!(
                "expected a header of digest {expected}, got {got}: the file was altered"
            )));
        }
        let parsed: Self = serde_json::from_slice(&text[FRAME..])
            .map_err(|error| fail(format!("expected a catalogue's header, got {error}")))?;
        parsed.check(header, file).map_err(fail)?;
        Ok((parsed, hexadecimal(&digest)))
    }

    fn check(&self, header: u64, file: u64) -> std::result::Result<(), String> {
        if !(1..=MOST_ROWS).contains(&self.rows) {
            return Err(format!("expected 1 to {MOST_ROWS} rows, got {}", self.rows));
        }
        if !(1..=MOST_DIMENSIONS as u32).contains(&self.dimensions) {
            return Err(format!(
                "expected 1 to {MOST_DIMENSIONS} dimensions, got {}",
                self.dimensions
            ));
        }
        check_names(self.columns.iter().map(|column| &*column.name))?;
        for column in &self.columns {
            let most_values = match column.kind {
                ColumnKind::Number => 0,
                ColumnKind::Integers { values } | ColumnKind::Texts { values } => values,
            };
            if column.present > self.rows || u64::from(most_values) > column.present {
                return Err(format!(
                    "column {}: expected at most {} entries and as many values, got {} and \
                     {most_values}",
                    column.name, self.rows, column.present
                ));
            }
        }
        let expected = self.expected();
        if expected.len() != self.sections.len() {
            let (want, got) = (expected.len(), self.sections.len());
            return Err(format!("expected {want} sections, got {got}"));
        }
        let mut offset = header;
        for ((kind, column, bytes), section) in expected.into_iter().zip(&self.sections) {
            let fits = section.kind == kind
                && section.column == column
                && bytes.is_none_or(|bytes| bytes == section.bytes)
                && section.offset == offset
                && section.bytes <= file - offset
                && section.sha256.len() == 64;
            if !fits {
                let size = bytes.map_or_else(|| "some".into(), |bytes| bytes.to_string());
                return Err(format!(
                    "expected {size} bytes of {kind:?} of column {column} at byte {offset}, got \
                     {} of {:?} of column {} at {}",
                    section.bytes, section.kind, section.column, section.offset
                ));
            }
            offset += section.bytes.next_multiple_of(PAGE);
            if offset > file {
                return Err(format!("expected sections up to byte {file}, got {offset}"));
            }
        }
        if offset == file {
            Ok(())
        } else {
            Err(format!("expected sections up to byte {file}, got {offset}"))
        }
    }
}

/// Writes a header's checksum into it; a file of which it claims more than there is stays as it is.
pub fn sign(file: &mut [u8]) {
    let length = u64::from_le_bytes(*file[16..].first_chunk().expect("a whole frame"));
    let Some(header) = usize::try_from(length).ok().and_then(|length| file.get_mut(..length))
    else {
        return;
    };
    if header.len() >= FRAME {
        header[DIGEST].fill(0);
        let digest = Sha256::digest(&*header);
        header[DIGEST].copy_from_slice(&digest);
    }
}

/// Refuses names that are no names, or given twice.
pub fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> std::result::Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(format!(
                "expected column names of 1 to {LONGEST_NAME} bytes, got {name:?}"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("expected each column once, got {name:?} twice"));
        }
    }
    if seen.len() > MOST_COLUMNS {
        return Err(format!("expected at most {MOST_COLUMNS} columns, got {}", seen.len()));
    }
    Ok(())
}

/// The checksum of a block of positions: the first eight bytes of their SHA-256.
pub fn block_sum(positions: &[u8]) -> u64 {
    u64::from_le_bytes(*Sha256::digest(positions).first_chunk().expect("32 bytes"))
}
