//! Filters: conditions on items, combined into the positions that may be found.
//!
//! Every condition knows how many items meet it before it looks at any of them: lists of
//! categories have their lengths, and ranges two places in the sorted positions. The rarest comes
//! first. If few items meet it, they are listed and each is tried on the other conditions, so a
//! filter that leaves 200 of ten million items touches some hundreds. Otherwise conditions become
//! bitmaps, either from their lists or by a scan of the column, whichever is less work.

mod cache;
mod scan;

use std::sync::Arc;

use super::Catalog;
use super::format::{Column, ColumnKind, Kind};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::search::Allowed;
use scan::{Codes, Wanted, listed, scan, stripes};

pub use cache::Cache;

/// Up to one item in so many, or so many items, are a list; more are a bitmap.
const LISTED: u64 = 64;
const SHORT: u64 = 4096;
/// Conditions that leave at most one in so many are listed before the others are tried.
const RARE: u64 = 32;

/// What an item has to meet.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One of these categories.
    Categories {
        /// Number of the column.
        column: u32,
        /// Codes, ascending.
        codes: Vec<u32>,
    },
    /// A number from `low` to `high`, both included.
    Range {
        /// Number of the column.
        column: u32,
        /// The smallest.
        low: f32,
        /// The largest.
        high: f32,
    },
    /// One of these rows.
    Rows(Vec<u32>),
}

/// The positions that may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// These, ascending.
    Positions(Vec<u32>),
    /// Those with a bit, and how many.
    Bits(Vec<u64>, u64),
}

impl Selection {
    /// How a search takes it.
    pub fn allowed(&self) -> Allowed<'_> {
        match self {
            Self::All => Allowed::All,
            Self::Positions(positions) => Allowed::Positions(positions),
            Self::Bits(bits, _) => Allowed::Bits(bits),
        }
    }

    /// Items in it, of so many.
    pub fn count(&self, rows: u64) -> u64 {
        match self {
            Self::All => rows,
            Self::Positions(positions) => positions.len() as u64,
            Self::Bits(_, count) => *count,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Positions(positions) => 4 * positions.len(),
            Self::Bits(bits, _) => 8 * bits.len(),
        }
    }
}

/// A condition with all it needs, and how many items meet it.
struct Part<'a> {
    count: u64,
    test: Test<'a>,
}

enum Test<'a> {
    Categories {
        column: u32,
        codes: &'a [u32],
        of: Codes<'a>,
        wanted: Wanted,
    },
    Range {
        column: u32,
        low: f32,
        high: f32,
        numbers: &'a [f32],
        first: u64,
        end: u64,
    },
    /// Positions, ascending.
    Listed(Vec<u32>),
}

impl Catalog {
    /// The positions that meet all conditions.
    pub fn select(&self, conditions: &[Condition]) -> Result<Arc<Selection>> {
        self.mapped.check()?;
        let kept = !conditions.iter().any(|condition| matches!(condition, Condition::Rows(_)));
        if kept && let Some(known) = self.cache().and_then(|mut cache| cache.get(conditions)) {
            return Ok(known);
        }
        let selection = Arc::new(self.combine(&conditions.iter().collect::<Vec<_>>())?);
        self.mapped.check_kept()?;
        if kept && let Some(mut cache) = self.cache() {
            cache.put(conditions.to_vec(), Arc::clone(&selection));
        }
        Ok(selection)
    }

    /// The positions that meet all conditions and are among these rows, for one query of many: the
    /// file is checked by the caller, and nothing is kept.
    pub(super) fn select_among(&self, conditions: &[Condition], rows: &[u32]) -> Result<Selection> {
        let own = Condition::Rows(rows.to_vec());
        let conditions: Vec<_> = conditions.iter().chain([&own]).collect();
        self.combine(&conditions)
    }

    fn combine(&self, conditions: &[&Condition]) -> Result<Selection> {
        let rows = self.rows();
        let mut parts = Vec::new();
        for condition in conditions {
            let part = self.part(condition)?;
            match part.count {
                0 => return Ok(Selection::Positions(Vec::new())),
                count if count == rows => {}
                _ => parts.push(part),
            }
        }
        parts.sort_by_key(|part| part.count);
        let Some((rarest, others)) = parts.split_first() else { return Ok(Selection::All) };
        let list = matches!(rarest.test, Test::Listed(_)) || rarest.count <= rows / RARE;
        if list {
            let mut positions = self.positions(rarest)?;
            for other in others {
                self.retain(&mut positions, other);
            }
            return Ok(self.compact(positions));
        }
        let mut bits = self.bits(rarest)?;
        for other in others {
            self.intersect(&mut bits, other)?;
        }
        let count = Kernels::best()?.ones(&bits);
        if count <= SHORT.max(rows / LISTED) {
            return Ok(Selection::Positions(listed(&bits)));
        }
        Ok(Selection::Bits(bits, count))
    }

    fn part<'a>(&'a self, condition: &'a Condition) -> Result<Part<'a>> {
        Ok(match condition {
            Condition::Categories { column, codes } => {
                let ends = self.starts(*column)?;
                let lengths = codes.iter().map(|code| {
                    let code = *code as usize;
                    ends[code + 1] - ends[code]
                });
                let (count, of) = (lengths.sum(), self.codes(*column));
                let wanted = Wanted::new(codes, self.categories_of(*column));
                Part { count, test: Test::Categories { column: *column, codes, of, wanted } }
            }
            Condition::Range { column, low, high } => {
                let numbers = self.values::<f32>(Kind::Numbers, *column);
                let first = self.first_sorted(*column, numbers, |number| number >= *low)?;
                let end = self.first_sorted(*column, numbers, |number| number > *high)?;
                let (column, low, high) = (*column, *low, *high);
                let test = Test::Range { column, low, high, numbers, first, end };
                Part { count: end.saturating_sub(first), test }
            }
            Condition::Rows(rows) => {
                let positions = self.values::<u32>(Kind::Positions, 0);
                let mut listed = Vec::with_capacity(rows.len());
                for row in rows {
                    listed.push(self.checked_position(positions[*row as usize])?);
                }
                listed.sort_unstable();
                listed.dedup();
                Part { count: listed.len() as u64, test: Test::Listed(listed) }
            }
        })
    }

    /// The first of a column's sorted positions from which on `from` holds.
    fn first_sorted(
        &self,
        column: u32,
        numbers: &[f32],
        from: impl Fn(f32) -> bool,
    ) -> Result<u64> {
        let (mut low, mut high) = (0, self.header.columns[column as usize].present);
        while low < high {
            let middle = low.midpoint(high);
            let position = self.list(Kind::Sorted, column, middle..middle + 1)?[0];
            if from(numbers[self.checked_position(position)? as usize]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The positions that meet one condition, ascending.
    fn positions(&self, part: &Part<'_>) -> Result<Vec<u32>> {
        let mut positions = Vec::with_capacity(part.count as usize);
        let single = self.each_list(part, |list| positions.extend(list))?;
        if !single {
            positions.sort_unstable();
        }
        // Ascending and within bounds, whatever the file holds: what follows relies on it.
        let ascending = positions.is_sorted_by(|left, right| left < right);
        match positions.last() {
            Some(last) if !ascending || u64::from(*last) >= self.rows() => Err(Error::format(
                self.mapped.origin(),
                "expected lists of positions, ascending, got others: the file was altered",
            )),
            _ => Ok(positions),
        }
    }

    /// Calls `take` with the lists that a condition consists of; whether it is a single one that
    /// ascends.
    fn each_list(&self, part: &Part<'_>, mut take: impl FnMut(&[u32])) -> Result<bool> {
        match &part.test {
            Test::Listed(positions) => {
                take(positions);
                Ok(true)
            }
            Test::Range { column, first, end, .. } => {
                take(self.list(Kind::Sorted, *column, *first..*end)?);
                Ok(false)
            }
            Test::Categories { column, codes, .. } => {
                let starts = self.starts(*column)?;
                for code in *codes {
                    let at = *code as usize;
                    take(self.list(Kind::Lists, *column, starts[at]..starts[at + 1])?);
                }
                Ok(codes.len() == 1)
            }
        }
    }

    fn retain(&self, positions: &mut Vec<u32>, part: &Part<'_>) {
        match &part.test {
            Test::Listed(listed) => positions.retain(|at| listed.binary_search(at).is_ok()),
            Test::Categories { of, wanted, .. } => positions.retain(|at| wanted.has(of.get(*at))),
            Test::Range { low, high, numbers, .. } => positions.retain(|at| {
                let number = numbers[*at as usize];
                *low <= number && number <= *high
            }),
        }
    }

    /// A list, or a bitmap if it is long.
    fn compact(&self, positions: Vec<u32>) -> Selection {
        if positions.len() as u64 == self.rows() {
            return Selection::All;
        }
        if positions.len() as u64 <= SHORT.max(self.rows() / LISTED) {
            return Selection::Positions(positions);
        }
        Selection::Bits(self.bitmap(&positions), positions.len() as u64)
    }

    fn bitmap(&self, positions: &[u32]) -> Vec<u64> {
        let mut bits = vec![0; self.rows().div_ceil(64) as usize];
        for position in positions {
            bits[*position as usize / 64] |= 1 << (position % 64);
        }
        bits
    }

    /// Whether a look at the whole column is less work than setting a bit for each item of the
    /// condition's lists: the scans in vector registers cost far less an item than the others, and
    /// lists of categories ascend while those of ranges jump about.
    fn prefers_scan(&self, part: &Part<'_>) -> bool {
        let share = match &part.test {
            Test::Listed(_) => return true,
            Test::Categories { of: Codes::One(_), wanted: Wanted::One(_), .. } => 16,
            Test::Categories { .. } => 2,
            Test::Range { .. } => 24,
        };
        part.count > self.rows() / share
    }

    /// A condition as a bitmap.
    fn bits(&self, part: &Part<'_>) -> Result<Vec<u64>> {
        let words = self.rows().div_ceil(64) as usize;
        let mut bits = vec![0; words];
        if self.prefers_scan(part) {
            self.scan(&mut bits, part, |word, found| *word = found)?;
            return Ok(bits);
        }
        let (rows, mut fine) = (self.rows(), true);
        self.each_list(part, |list| {
            for position in list {
                if u64::from(*position) < rows {
                    bits[*position as usize / 64] |= 1 << (position % 64);
                } else {
                    fine = false;
                }
            }
        })?;
        if fine {
            Ok(bits)
        } else {
            let reason = "expected positions of items, got others: the file was altered";
            Err(Error::format(self.mapped.origin(), reason))
        }
    }

    fn intersect(&self, bits: &mut [u64], part: &Part<'_>) -> Result<()> {
        if self.prefers_scan(part) {
            self.scan(bits, part, |word, found| *word &= found)?;
        } else {
            let other = self.bits(part)?;
            bits.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
        }
        Ok(())
    }

    /// Goes through a column; `put` gets each word with the 64 answers for it.
    fn scan(&self, bits: &mut [u64], part: &Part<'_>, put: impl Fn(&mut u64, u64)) -> Result<()> {
        let kernels = Kernels::best()?;
        match &part.test {
            Test::Listed(listed) => {
                let other = self.bitmap(listed);
                bits.iter_mut().zip(other).for_each(|(word, other)| put(word, other));
            }
            Test::Range { low, high, numbers, .. } => {
                let answer = |numbers: &[f32], words: &mut [u64]| {
                    kernels.within(numbers, *low, *high, words);
                };
                stripes(numbers, bits, answer, put);
            }
            Test::Categories { of: Codes::One(codes), wanted: Wanted::One(one), .. } => {
                let answer = |codes: &[u8], words: &mut [u64]| {
                    kernels.equal_bytes(codes, *one as u8, words);
                };
                stripes(codes, bits, answer, put);
            }
            Test::Categories { of, wanted, .. } => match of {
                Codes::One(codes) => scan(codes, bits, |code| wanted.has(code.into()), put),
                Codes::Two(codes) => scan(codes, bits, |code| wanted.has(code.into()), put),
                Codes::Four(codes) => scan(codes, bits, |code| wanted.has(code), put),
            },
        }
        Ok(())
    }

    fn codes(&self, column: u32) -> Codes<'_> {
        match Column::code_width(self.categories_of(column)) {
            1 => Codes::One(self.values(Kind::CodesOf, column)),
            2 => Codes::Two(self.values(Kind::CodesOf, column)),
            _ => Codes::Four(self.values(Kind::CodesOf, column)),
        }
    }

    /// A category column's code at a position.
    pub(super) fn code(&self, column: u32, position: u32) -> u32 {
        self.codes(column).get(position)
    }

    /// Categories of a column; 0 for numbers.
    pub(super) fn categories_of(&self, column: u32) -> u32 {
        match self.header.columns[column as usize].kind {
            ColumnKind::Number => 0,
            ColumnKind::Integers { values } | ColumnKind::Texts { values } => values,
        }
    }
}
