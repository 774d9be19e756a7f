//! Columns of codes, and the bits that a look at a whole column gives.

use crate::catalog::format::Column;

/// Tables of category codes beyond this are not worth their memory.
const LARGEST_TABLE: usize = 1 << 16;

/// A category column's codes by position.
#[derive(Clone, Copy)]
pub enum Codes<'a> {
    One(&'a [u8]),
    Two(&'a [u16]),
    Four(&'a [u32]),
}

impl Codes<'_> {
    /// The code at a position.
    pub fn get(self, position: u32) -> u32 {
        match self {
            Self::One(codes) => codes[position as usize].into(),
            Self::Two(codes) => codes[position as usize].into(),
            Self::Four(codes) => codes[position as usize],
        }
    }
}

/// Whether a code is one of some.
pub enum Wanted {
    One(u32),
    Table(Vec<bool>),
    Sorted(Vec<u32>),
}

impl Wanted {
    /// Of a column with so many categories.
    pub fn new(codes: &[u32], values: u32) -> Self {
        if let [code] = codes {
            return Self::One(*code);
        }
        // Whatever a damaged column holds, a code of its width is inside.
        let size = match Column::code_width(values) {
            1 => 1 << 8,
            2 => 1 << 16,
            _ => values as usize + 1,
        };
        if size > LARGEST_TABLE {
            return Self::Sorted(codes.to_vec());
        }
        let mut table = vec![false; size];
        codes.iter().for_each(|code| table[*code as usize] = true);
        Self::Table(table)
    }

    /// Whether this one is.
    pub fn has(&self, code: u32) -> bool {
        match self {
            Self::One(wanted) => code == *wanted,
            Self::Table(table) => table[code as usize],
            Self::Sorted(codes) => codes.binary_search(&code).is_ok(),
        }
    }
}

/// Values whose answers are made at a time.
const STRIPE: usize = 64 * 256;

/// `put`s a word for every 64 values, its bits made by `answer`.
pub fn stripes<T>(
    values: &[T],
    bits: &mut [u64],
    answer: impl Fn(&[T], &mut [u64]),
    put: impl Fn(&mut u64, u64),
) {
    let mut found = [0; STRIPE / 64];
    for (values, bits) in values.chunks(STRIPE).zip(bits.chunks_mut(STRIPE / 64)) {
        let found = &mut found[..bits.len()];
        answer(values, found);
        bits.iter_mut().zip(found).for_each(|(word, found)| put(word, *found));
    }
}

/// The same with the answers of a function.
pub fn scan<T: Copy>(
    values: &[T],
    bits: &mut [u64],
    test: impl Fn(T) -> bool,
    put: impl Fn(&mut u64, u64),
) {
    for (values, word) in values.chunks(64).zip(bits) {
        let answers = values.iter().enumerate();
        put(word, answers.fold(0, |sum, (bit, value)| sum | u64::from(test(*value)) << bit));
    }
}

/// Positions of the bits that are set.
pub fn listed(bits: &[u64]) -> Vec<u32> {
    let mut positions = Vec::new();
    for (index, word) in bits.iter().enumerate() {
        let mut word = *word;
        while word != 0 {
            positions.push(64 * index as u32 + word.trailing_zeros());
            word &= word - 1;
        }
    }
    positions
}
