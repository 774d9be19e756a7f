//! Columns while a catalogue is built: kept by row, written by position.

use std::collections::HashMap;

use super::format::{Column, ColumnKind};
use crate::error::{Error, Result};

/// What one entry of a category column may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(&'a str),
}

/// Categories of one kind in the order in which they came.
#[derive(Debug)]
pub enum Dictionary {
    /// Whole numbers.
    Integers(HashMap<i64, u32>),
    /// Texts.
    Texts(HashMap<Box<str>, u32>),
}

/// A column of categories: a code a row, [`MISSING`] for none.
#[derive(Debug)]
pub struct Categories {
    codes: Vec<u32>,
    dictionary: Dictionary,
}

/// The code of a row without a category.
pub const MISSING: u32 = u32::MAX;

impl Categories {
    /// An empty column; `texts` says of which kind.
    pub fn new(texts: bool) -> Self {
        let dictionary = match texts {
            true => Dictionary::Texts(HashMap::new()),
            false => Dictionary::Integers(HashMap::new()),
        };
        Self { codes: Vec::new(), dictionary }
    }

    /// The next row's category. One of the wrong kind is a mistake of the caller.
    pub fn push(&mut self, value: Option<Value<'_>>) {
        let code = match (&mut self.dictionary, value) {
            (_, None) => MISSING,
            (Dictionary::Integers(known), Some(Value::Integer(number))) => {
                let next = known.len() as u32;
                *known.entry(number).or_insert(next)
            }
            (Dictionary::Texts(known), Some(Value::Text(text))) => match known.get(text) {
                Some(code) => *code,
                None => {
                    let next = known.len() as u32;
                    known.insert(text.into(), next);
                    next
                }
            },
            (_, Some(value)) => unreachable!("{value:?} in a column of another kind"),
        };
        self.codes.push(code);
    }

    /// Sorts the categories and renumbers the rows' codes; missing ones get the number of
    /// categories.
    pub fn finish(mut self, name: &str) -> FinishedCategories {
        let mut renumbered = vec![0; self.values() as usize];
        let values = match self.dictionary {
            Dictionary::Integers(known) => {
                let mut sorted: Vec<_> = known.into_iter().collect();
                sorted.sort_unstable();
                for (new, (_, old)) in sorted.iter().enumerate() {
                    renumbered[*old as usize] = new as u32;
                }
                FinishedValues::Integers(sorted.into_iter().map(|(number, _)| number).collect())
            }
            Dictionary::Texts(known) => {
                let mut sorted: Vec<_> = known.into_iter().collect();
                sorted.sort_unstable();
                let (mut offsets, mut bytes) = (vec![0], Vec::new());
                for (new, (text, old)) in sorted.iter().enumerate() {
                    renumbered[*old as usize] = new as u32;
                    bytes.extend(text.as_bytes());
                    offsets.push(bytes.len() as u64);
                }
                FinishedValues::Texts { offsets, bytes }
            }
        };
        let missing = renumbered.len() as u32;
        let mut counts = vec![0; renumbered.len()];
        for code in &mut self.codes {
            *code = match *code {
                MISSING => missing,
                old => renumbered[old as usize],
            };
            if let Some(count) = counts.get_mut(*code as usize) {
                *count += 1;
            }
        }
        let present = counts.iter().sum();
        let kind = match values {
            FinishedValues::Integers(_) => ColumnKind::Integers { values: missing },
            FinishedValues::Texts { .. } => ColumnKind::Texts { values: missing },
        };
        let column = Column { name: name.to_owned(), kind, present };
        FinishedCategories { codes: self.codes, values, counts, column }
    }

    fn values(&self) -> u32 {
        match &self.dictionary {
            Dictionary::Integers(known) => known.len() as u32,
            Dictionary::Texts(known) => known.len() as u32,
        }
    }
}

/// The distinct categories, ascending.
#[derive(Debug)]
pub enum FinishedValues {
    /// Whole numbers.
    Integers(Vec<i64>),
    /// Texts end to end.
    Texts {
        /// One more than texts.
        offsets: Vec<u64>,
        /// Their bytes.
        bytes: Vec<u8>,
    },
}

/// A column of categories that is complete.
#[derive(Debug)]
pub struct FinishedCategories {
    /// A code a row.
    pub codes: Vec<u32>,
    /// What the codes mean.
    pub values: FinishedValues,
    /// Rows of each category.
    pub counts: Vec<u64>,
    /// The header's entry.
    pub column: Column,
}

impl FinishedCategories {
    /// Where each category's list starts, and where the last one ends.
    pub fn starts(&self) -> Vec<u64> {
        let mut starts = vec![0];
        starts.extend(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }));
        starts
    }

    /// Positions by category, ascending; `order` gives the row at each position.
    pub fn lists(&self, order: &[u32]) -> Vec<u32> {
        let mut next = self.starts();
        let mut lists = vec![0; self.column.present as usize];
        for (position, row) in order.iter().enumerate() {
            let code = self.codes[*row as usize] as usize;
            if code < self.counts.len() {
                lists[next[code] as usize] = position as u32;
                next[code] += 1;
            }
        }
        lists
    }
}

/// The header's entry for a column of numbers, which must be finite or NaN.
pub fn finish_numbers(name: &str, numbers: &[f32]) -> Result<Column> {
    if let Some(row) = numbers.iter().position(|number| number.is_infinite()) {
        let got = format!("{} in row {row}", numbers[row]);
        return Err(Error::argument(name, "finite numbers, or NaN for none", got));
    }
    let present = numbers.iter().filter(|number| !number.is_nan()).count() as u64;
    Ok(Column { name: name.to_owned(), kind: ColumnKind::Number, present })
}

/// Positions that have a number, by (number, position).
pub fn sorted(numbers: &[f32], order: &[u32]) -> Vec<u32> {
    let key = |(position, row): (usize, &u32)| {
        let number = numbers[*row as usize];
        // Adding zero turns -0 into 0; then bits, with the sign turned, sort as the numbers do.
        let bits = (number + 0.0).to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        (!number.is_nan()).then_some(u64::from(ordered) << 32 | position as u64)
    };
    let mut keys: Vec<u64> = order.iter().enumerate().filter_map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}
