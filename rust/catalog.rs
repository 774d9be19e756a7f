//! The item store: attributes, ids, and what items can be filtered by, in one mapped file.
//!
//! ```text
//! build:   pieces of rows -> Builder -> FILE.partial -> FILE        (catalog::build)
//! search:  conditions -> Selection (positions) -> search -> rows -> ids
//! ```
//!
//! A *row* is an item's number in the order in which items were given. A *position* is its place
//! in *storage order*, in which similar items lie together so that search can skip them.
//!
//! # What is checked when
//! - Opening reads the header and the plan: both are under checksums, and every offset and length
//!   is compared with what rows, dimensions and columns demand. That takes a millisecond, however
//!   large the file.
//! - Lists of positions, and what leads to them, are checked against their checksums at their
//!   first use, in blocks.
//! - [`Catalog::verify`] reads everything.
//!
//! Whatever else the bytes are, nothing is indexed by them unchecked. [`mapped`] says what happens
//! when the file changes while it is open.

pub mod build;
mod check;
mod columns;
mod filter;
pub mod format;
mod guard;
pub mod ids;
mod mapped;
mod search;
pub mod source;
mod target;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, TryLockError};

use bytemuck::AnyBitPattern;
use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::search::Plan;
use crate::search::index::{self, View};
use check::check_sum;
use format::{BLOCK, Column, ColumnKind, Header, IdKind, Kind, Section};
use ids::{Id, Ids};
use mapped::Mapped;

#[doc(hidden)]
pub use check::reseal;
pub use columns::Value;
pub use filter::{Condition, Selection};
pub use search::Own;

#[cfg(target_endian = "big")]
compile_error!("catalogues are read where they lie, and their numbers are little-endian");

/// Ids that are looked up between two looks at whether they are still wanted.
const PAUSE: usize = 1 << 14;

/// A catalogue, open for reading by any number of threads.
#[derive(Debug)]
pub struct Catalog {
    mapped: Mapped,
    header: Header,
    digest: String,
    plan: Plan,
    /// A flag a section: its checksum was compared.
    seen: Box<[AtomicBool]>,
    /// A bit a block of each column's positions, the same.
    seen_blocks: Box<[Box<[AtomicU64]>]>,
    cache: Mutex<filter::Cache>,
}

impl Catalog {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(Mapped::open(path)?)
    }

    /// Takes the bytes of a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut memory =
            MmapMut::map_anon(bytes.len().max(1)).map_err(Error::io("memory".as_ref()))?;
        memory[..bytes.len()].copy_from_slice(bytes);
        Self::from_memory(memory)
    }

    fn from_memory(memory: MmapMut) -> Result<Self> {
        Self::new(Mapped::memory(memory)?)
    }

    fn new(mapped: Mapped) -> Result<Self> {
        let origin = mapped.origin();
        let (header, digest) = Header::parse(mapped.bytes(), &origin)?;
        let find = |section: &&Section| section.kind == Kind::Plan;
        let section = header.sections.iter().find(find).expect("the header was checked");
        let plan = part(&mapped, section.offset, section.bytes);
        check_sum(&mapped, section)?;
        let plan =
            Plan::from_bytes(plan).map_err(|error| Error::format(&*origin, error.to_string()))?;
        if plan.dimensions() != header.dimensions as usize {
            let (expected, got) = (header.dimensions, plan.dimensions());
            let reason = format!("expected a plan for {expected} dimensions, got {got}");
            return Err(Error::format(&*origin, reason));
        }
        let sizes = index::Sizes::of(header.rows, plan.dimensions());
        for (kind, expected) in [(Kind::Codes, sizes.codes), (Kind::Bounds, 4 * sizes.bounds)] {
            let section = header.sections.iter().find(|section| section.kind == kind);
            let got = section.expect("the header was checked").bytes;
            if got != expected {
                let reason = format!("expected {expected} bytes of {kind:?}, got {got}");
                return Err(Error::format(&*origin, reason));
            }
        }
        mapped.check_kept()?;
        let seen = header.sections.iter().map(|_| AtomicBool::new(false)).collect();
        let words = |column: &Column| column.present.div_ceil(BLOCK).div_ceil(64);
        let seen_blocks = header
            .columns
            .iter()
            .map(|column| (0..words(column)).map(|_| AtomicU64::new(0)).collect())
            .collect();
        let cache = Mutex::default();
        Ok(Self { mapped, header, digest, plan, seen, seen_blocks, cache })
    }

    /// Items.
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// Attributes of an item.
    pub fn dimensions(&self) -> usize {
        self.header.dimensions as usize
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of the header, which holds those of all sections: equal for equal content.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The whole path of the file, unless the catalogue is in memory.
    pub fn path(&self) -> Option<&Path> {
        self.mapped.path()
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Result<&[u8]> {
        self.mapped.check()?;
        Ok(self.mapped.bytes())
    }

    /// How rows are clustered.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Refuses to go on if the file is no longer what was opened.
    pub fn check(&self) -> Result<()> {
        self.mapped.check()
    }

    /// The catalogue as search sees it.
    pub fn view(&self) -> View<'_> {
        View {
            plan: &self.plan,
            dimensions: self.dimensions(),
            attributes: self.values(Kind::Attributes, 0),
            codes: self.values(Kind::Codes, 0),
            bounds: self.values(Kind::Bounds, 0),
            order: self.values(Kind::Order, 0),
        }
    }

    /// What items are called.
    pub fn ids(&self) -> Ids<'_> {
        match self.header.ids {
            IdKind::Rows => Ids::Rows(self.rows()),
            IdKind::Integers | IdKind::LargeIntegers => Ids::Integers(self.values(Kind::Ids, 0)),
            IdKind::Texts => Ids::Texts {
                offsets: self.values(Kind::Ids, 0),
                bytes: self.values(Kind::IdTexts, 0),
            },
        }
    }

    /// The rows of some ids; the message about an unknown one calls them `what`.
    pub fn find<'a>(
        &self,
        what: &str,
        ids: impl IntoIterator<Item = Id<'a>>,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u32>> {
        self.mapped.check()?;
        let known = self.ids();
        let table = match known {
            Ids::Rows(_) => &[],
            _ => self.values(Kind::IdTable, 0),
        };
        let find = |(index, id): (usize, Id<'_>)| {
            if index.is_multiple_of(PAUSE) {
                interrupt()?;
            }
            let row = known.find(id, table).filter(|row| u64::from(*row) < self.rows());
            row.ok_or_else(|| {
                let mut got = format!("{id} at place {index}, which is unknown");
                // Neither ids nor their table are compared with a checksum before they are used.
                if !table.is_empty() && self.path().is_some() {
                    got += " (if it was known before, the file's ids or their table were altered: \
                            verify() tells)";
                }
                Error::argument(what, "ids of the catalogue", got)
            })
        };
        let rows = ids.into_iter().enumerate().map(find).collect::<Result<_>>();
        self.mapped.check()?;
        rows
    }

    /// Copies the attributes of rows.
    pub fn attributes(&self, rows: &[u32], out: &mut Vec<f32>) -> Result<()> {
        self.mapped.check()?;
        let (all, d) = (self.values::<f32>(Kind::Attributes, 0), self.dimensions());
        for row in rows {
            let position = self.position(*row)? as usize;
            out.extend(&all[position * d..][..d]);
        }
        self.mapped.check()
    }

    /// The numbers of a column for some rows, NaN where there is none.
    pub fn numbers(&self, column: u32, rows: &[u32]) -> Result<Vec<f32>> {
        self.mapped.check()?;
        let all = self.values::<f32>(Kind::Numbers, column);
        let numbers = rows.iter().map(|row| Ok(all[self.position(*row)? as usize])).collect();
        self.mapped.check()?;
        numbers
    }

    /// The categories of a column for some rows: codes, [`u32::MAX`] where there is none.
    pub fn categories(&self, column: u32, rows: &[u32]) -> Result<Vec<u32>> {
        self.mapped.check()?;
        let values = self.categories_of(column);
        let code = |row: &u32| {
            let code = self.code(column, self.position(*row)?);
            Ok(if code < values { code } else { u32::MAX })
        };
        let codes = rows.iter().map(code).collect();
        self.mapped.check()?;
        codes
    }

    /// A category of a column by its code.
    ///
    /// It lies in the file: whoever copied the last of some asks [`Catalog::check`] again.
    pub fn category(&self, column: u32, code: u32) -> Result<Value<'_>> {
        self.check_once(Kind::Values, column)?;
        let at = code as usize;
        if let ColumnKind::Integers { .. } = self.header.columns[column as usize].kind {
            let value = self.values::<i64>(Kind::Values, column)[at];
            // Not the whole `check`: searches of sorted categories ask for many.
            self.mapped.check_kept()?;
            return Ok(Value::Integer(value));
        }
        self.check_once(Kind::ValueTexts, column)?;
        let offsets = self.values::<u64>(Kind::Values, column);
        let texts = self.values::<u8>(Kind::ValueTexts, column);
        let ends = offsets[at] as usize..offsets[at + 1] as usize;
        self.mapped.check_kept()?;
        texts
            .get(ends)
            .and_then(|text| std::str::from_utf8(text).ok())
            .map(Value::Text)
            .ok_or_else(|| self.altered("texts of categories"))
    }

    /// The number of a column.
    pub fn column(&self, name: &str, numbers: bool) -> Result<u32> {
        let of_kind = |column: &&Column| (column.kind == ColumnKind::Number) == numbers;
        let found = self.header.columns.iter().position(|column| column.name == name);
        found
            .filter(|index| of_kind(&&self.header.columns[*index]))
            .map(|index| index as u32)
            .ok_or_else(|| {
                let known = self.header.columns.iter().filter(of_kind);
                let known: Vec<_> = known.map(|column| &*column.name).collect();
                let kind = if numbers { "numbers" } else { "categories" };
                let expected = match known.len() {
                    0 => format!("a catalogue with columns of {kind}"),
                    _ => format!("a column of {kind} ({})", known.join(", ")),
                };
                Error::argument("filter", expected, format!("{name:?}"))
            })
    }

    /// The condition that a column of categories holds one of these. Categories that no item has
    /// match nothing.
    pub fn any_of(&self, column: u32, wanted: &[Value<'_>]) -> Result<Condition> {
        self.mapped.check()?;
        let mut codes = Vec::with_capacity(wanted.len());
        for value in wanted {
            codes.extend(self.code_of(column, *value)?);
        }
        codes.sort_unstable();
        codes.dedup();
        Ok(Condition::Categories { column, codes })
    }

    fn code_of(&self, column: u32, wanted: Value<'_>) -> Result<Option<u32>> {
        let Column { name, kind, .. } = &self.header.columns[column as usize];
        match (kind, wanted) {
            (ColumnKind::Integers { .. }, Value::Integer(_))
            | (ColumnKind::Texts { .. }, Value::Text(_)) => {}
            (ColumnKind::Texts { .. }, Value::Integer(number)) => {
                return Err(Error::argument(name.clone(), "texts", number));
            }
            (_, Value::Text(text)) => {
                return Err(Error::argument(name.clone(), "whole numbers", format!("{text:?}")));
            }
            (ColumnKind::Number, Value::Integer(_)) => unreachable!("not a column of categories"),
        }
        let (mut low, mut high) = (0, self.categories_of(column));
        while low < high {
            let middle = low.midpoint(high);
            let order = match (self.category(column, middle)?, wanted) {
                (Value::Integer(here), Value::Integer(wanted)) => here.cmp(&wanted),
                (Value::Text(here), Value::Text(wanted)) => here.cmp(wanted),
                _ => unreachable!("the kinds were compared"),
            };
            match order {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }

    /// The condition that a number lies between two others, both included. They are rounded to
    /// f32, as the column's numbers are.
    pub fn between(&self, column: u32, low: Option<f64>, high: Option<f64>) -> Result<Condition> {
        let name = &self.header.columns[column as usize].name;
        let (low, high) = (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
        if low.is_nan() || high.is_nan() || low > high {
            let got = format!("({low}, {high})");
            return Err(Error::argument(&**name, "(low, high) with low <= high", got));
        }
        // Zero of either sign is the same bound, and so has one name in the cache.
        Ok(Condition::Range { column, low: low as f32 + 0.0, high: high as f32 + 0.0 })
    }

    /// None while another thread has it, which in a forked child may be for ever: then selections
    /// are made again.
    fn cache(&self) -> Option<MutexGuard<'_, filter::Cache>> {
        match self.cache.try_lock() {
            Ok(cache) => Some(cache),
            Err(TryLockError::Poisoned(cache)) => Some(cache.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn section(&self, kind: Kind, column: u32) -> (usize, &Section) {
        let mut all = self.header.sections.iter().enumerate();
        all.find(|(_, section)| section.kind == kind && section.column == column)
            .expect("the header was checked")
    }

    fn values<T: AnyBitPattern>(&self, kind: Kind, column: u32) -> &[T] {
        let (_, section) = self.section(kind, column);
        // Sections start on pages, and their lengths were checked.
        bytemuck::cast_slice(part(&self.mapped, section.offset, section.bytes))
    }

    fn position(&self, row: u32) -> Result<u32> {
        let position = self.values::<u32>(Kind::Positions, 0).get(row as usize);
        let Some(position) = position else {
            let expected = format!("rows below {}", self.rows());
            return Err(Error::argument("rows", expected, row));
        };
        self.checked_position(*position)
    }

    fn checked_position(&self, position: u32) -> Result<u32> {
        if u64::from(position) < self.rows() {
            Ok(position)
        } else {
            Err(self.altered("positions of items"))
        }
    }

    fn altered(&self, expected: &str) -> Error {
        let reason = format!("expected {expected}, got others: the file was altered");
        Error::format(self.mapped.origin(), reason)
    }
}

fn part(mapped: &Mapped, offset: u64, bytes: u64) -> &[u8] {
    &mapped.bytes()[offset as usize..(offset + bytes) as usize]
}
