//! Rows on their way through a build: where their attributes wait, and a sample of them.

use crate::catalog::ids::mix;
use crate::catalog::target::Scratch;
use crate::error::Result;

/// Rows that the plan is learned from: at most so many, and so many bytes.
const SAMPLE_ROWS: usize = 200_000;
const SAMPLE_BYTES: usize = 64 << 20;

/// Ids while they come.
#[derive(Debug)]
pub enum OwnedIds {
    Rows,
    Integers(Vec<u64>),
    Texts { offsets: Vec<u64>, bytes: Vec<u8> },
}

/// Where attributes are until they have their place.
pub enum Rows<'a> {
    Memory(&'a [f32]),
    Scratch(Scratch),
}

impl Rows<'_> {
    /// Some consecutive rows' values, from value number `first`.
    pub fn read<'b>(
        &'b self,
        first: usize,
        values: usize,
        buffer: &'b mut Vec<f32>,
    ) -> Result<&'b [f32]> {
        match self {
            Self::Memory(all) => Ok(&all[first..][..values]),
            Self::Scratch(scratch) => {
                read_values(values, buffer, |bytes| scratch.read(4 * first as u64, bytes))?;
                Ok(buffer)
            }
        }
    }
}

/// Reads values through bytes, without a copy of its own.
pub fn read_values(
    count: usize,
    buffer: &mut Vec<f32>,
    read: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(count, 0.0);
    read(bytemuck::cast_slice_mut(buffer))
}

/// A bounded choice of rows that depends on the rows alone: those whose number's hash is small.
#[derive(Debug)]
pub struct Sample {
    pub rows: Vec<f32>,
    keys: Vec<u64>,
    most: usize,
    threshold: u64,
}

impl Sample {
    pub fn new(dimensions: usize) -> Self {
        let most = SAMPLE_ROWS.min(SAMPLE_BYTES / (4 * dimensions));
        Self { rows: Vec::new(), keys: Vec::new(), most, threshold: u64::MAX }
    }

    pub fn push(&mut self, row: u64, values: &[f32]) {
        let key = mix(row);
        if key > self.threshold {
            return;
        }
        self.keys.push(key);
        self.rows.extend(values);
        if self.keys.len() > self.most {
            self.threshold /= 2;
            let mut kept = 0;
            for index in 0..self.keys.len() {
                if self.keys[index] <= self.threshold {
                    self.keys[kept] = self.keys[index];
                    let width = values.len();
                    self.rows.copy_within(index * width..(index + 1) * width, kept * width);
                    kept += 1;
                }
            }
            self.keys.truncate(kept);
            self.rows.truncate(kept * values.len());
        }
    }
}
