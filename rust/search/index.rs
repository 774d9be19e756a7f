//! What a catalogue keeps beside its attributes so that exact search is fast.
//!
//! Rows are kept in *storage order*: by (cluster, row), see [`Plan`]. Every 256 of them make a
//! chunk with a centre `c`, a scale `s` and two planes of integer codes, such that for every row
//! and dimension
//!
//! ```text
//! x[d] = c[d] + s * step[d] * (u - 127.5) + e,            u in 0..=255,  |e| <= 0.5001 * s * step[d]
//! x[d] = c[d] + 17 * s * step[d] * (v - 7.5) + e',        v in 0..=15,   |e'| <= 0.5001 * 17 * s * step[d]
//! ```
//!
//! `step` belongs to the plan, so that a query is quantised once; the centre is the middle of what
//! the chunk spans and the scale as large as it must be, so that no value is ever clipped and the
//! bounds hold for data the plan never saw. Four more figures a chunk are its *bounds*: scale;
//! radius (largest distance of a row from the centre); norm (largest length of a row); magnitude
//! (the larger of norm and the centre's own length), all rounded up.
//!
//! ```text
//! codes   a panel of 16 chunks after the other: its chunks' eight-bit codes, then their four-bit
//!         codes (`kernels::scan` has the layout of a chunk); rows past the last are zero bytes
//! bounds  a panel after the other: [D centres, scale, radius, norm, magnitude] x 16 chunks
//! ```

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::kernels::scan::{BLOCK, CHUNK, CHUNKS, EXTRAS, GROUP, PAIR, PANEL_ROWS, Width, groups};

/// Most dimensions of an item.
pub const MOST_DIMENSIONS: usize = 512;
/// Most rows of a catalogue: two numbers are left to mean something else.
pub const MOST_ROWS: u64 = u32::MAX as u64 - 1;

/// Sizes of an index, which follow from rows and dimensions alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of codes.
    pub codes: u64,
    /// Values of bounds.
    pub bounds: u64,
}

impl Sizes {
    /// The sizes for so many rows of so many dimensions.
    pub fn of(rows: u64, dimensions: usize) -> Self {
        let chunks = rows.div_ceil(CHUNK as u64);
        let panels = rows.div_ceil(PANEL_ROWS as u64);
        Self {
            codes: chunks * chunk_bytes(dimensions) as u64,
            bounds: panels * panel_values(dimensions) as u64,
        }
    }
}

/// Bytes of a chunk's codes, both planes.
fn chunk_bytes(dimensions: usize) -> usize {
    let groups = groups(dimensions);
    Width::Eight.chunk_bytes(groups) + Width::Four.chunk_bytes(groups)
}

/// Values of a panel's bounds.
fn panel_values(dimensions: usize) -> usize {
    (dimensions + EXTRAS) * CHUNKS
}

/// The smallest f32 that is not below a value.
pub(super) fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

/// Turns rows in storage order into codes and bounds.
///
/// Feed it with [`Encoder::push`] any number of rows at a time, then call [`Encoder::finish`];
/// both append what is complete. It holds one panel (4,096 rows).
#[derive(Debug)]
pub struct Encoder<'a> {
    plan: &'a Plan,
    waiting: Vec<f32>,
}

impl<'a> Encoder<'a> {
    /// An encoder that has seen nothing.
    pub fn new(plan: &'a Plan) -> Self {
        Self { plan, waiting: Vec::with_capacity(PANEL_ROWS * plan.dimensions()) }
    }

    /// Takes the next rows (row-major, finite) and appends the panels they complete.
    pub fn push(&mut self, mut rows: &[f32], codes: &mut Vec<u8>, bounds: &mut Vec<f32>) {
        let dimensions = self.plan.dimensions();
        assert!(rows.len().is_multiple_of(dimensions), "whole rows");
        let full = PANEL_ROWS * dimensions;
        while !rows.is_empty() {
            let (now, later) = rows.split_at(rows.len().min(full - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            rows = later;
            if self.waiting.len() == full {
                self.panel(codes, bounds);
            }
        }
    }

    /// Appends the last, partial panel.
    pub fn finish(mut self, codes: &mut Vec<u8>, bounds: &mut Vec<f32>) {
        if !self.waiting.is_empty() {
            self.panel(codes, bounds);
        }
    }

    fn panel(&mut self, codes: &mut Vec<u8>, bounds: &mut Vec<f32>) {
        let dimensions = self.plan.dimensions();
        let rows = self.waiting.len() / dimensions;
        let chunks = rows.div_ceil(CHUNK);
        let groups = groups(dimensions);
        let (first_code, first_bound) = (codes.len(), bounds.len());
        codes.resize(first_code + chunks * chunk_bytes(dimensions), 0);
        bounds.resize(first_bound + panel_values(dimensions), 0.0);
        let (eight, four) =
            codes[first_code..].split_at_mut(chunks * Width::Eight.chunk_bytes(groups));
        let bounds = &mut bounds[first_bound..];
        let pieces = self
            .waiting
            .chunks(CHUNK * dimensions)
            .zip(eight.chunks_mut(Width::Eight.chunk_bytes(groups)))
            .zip(four.chunks_mut(Width::Four.chunk_bytes(groups)));
        for (lane, ((rows, eight), four)) in pieces.enumerate() {
            let chunk = Chunk::of(self.plan, rows);
            for (value, bound) in chunk.values().enumerate() {
                bounds[value * CHUNKS + lane] = bound;
            }
            chunk.encode(self.plan, rows, eight, four);
        }
        self.waiting.clear();
    }
}

/// The figures of a chunk.
struct Chunk {
    centre: Vec<f32>,
    extras: [f32; EXTRAS],
}

impl Chunk {
    fn of(plan: &Plan, rows: &[f32]) -> Self {
        let dimensions = plan.dimensions();
        let mut low = rows[..dimensions].to_vec();
        let mut high = low.clone();
        let mut longest = 0.0_f64;
        for row in rows.chunks_exact(dimensions) {
            let mut square = 0.0;
            for ((low, high), x) in low.iter_mut().zip(&mut high).zip(row) {
                *low = low.min(*x);
                *high = high.max(*x);
                square += f64::from(*x) * f64::from(*x);
            }
            longest = longest.max(square);
        }
        let centre: Vec<f32> = low
            .iter()
            .zip(&high)
            .map(|(low, high)| ((f64::from(*low) + f64::from(*high)) / 2.0) as f32)
            .collect();
        let mut scale = 0.0_f64;
        for (d, centre) in centre.iter().enumerate() {
            let above = f64::from(high[d]) - f64::from(*centre);
            let below = f64::from(*centre) - f64::from(low[d]);
            scale = scale.max(above.max(below) / (127.5 * f64::from(plan.step()[d])));
        }
        let mut farthest = 0.0_f64;
        for row in rows.chunks_exact(dimensions) {
            let gap = |(x, c): (&f32, &f32)| (f64::from(*x) - f64::from(*c)).powi(2);
            farthest = farthest.max(row.iter().zip(&centre).map(gap).sum());
        }
        // Sums of 512 squares in f64 are good to 1e-13.
        let length = |square: f64| square.sqrt() * (1.0 + 1e-12);
        let own = centre.iter().map(|c| f64::from(*c).powi(2)).sum::<f64>();
        let magnitude = length(own.max(longest));
        let extras = [scale * (1.0 + 1e-12), length(farthest), length(longest), magnitude].map(up);
        Self { centre, extras }
    }

    fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.centre.iter().chain(&self.extras).copied()
    }

    fn encode(&self, plan: &Plan, rows: &[f32], eight: &mut [u8], four: &mut [u8]) {
        let dimensions = plan.dimensions();
        let groups = groups(dimensions);
        let scale = f64::from(self.extras[0]);
        let inverse: Vec<f64> = plan.step().iter().map(|s| 1.0 / (scale * f64::from(*s))).collect();
        for (row, x) in rows.chunks_exact(dimensions).enumerate() {
            let (block, lane) = (row / BLOCK, row % BLOCK);
            let (pair, high) = (row / PAIR, block % 2 == 1);
            for (d, x) in x.iter().enumerate() {
                // A scale of zero or infinity gives NaN here, which becomes 0: rows equal to their
                // centre need no code, and an infinite scale makes every bound infinite.
                let steps = (f64::from(*x) - f64::from(self.centre[d])) * inverse[d];
                let fine = (steps + 127.5).round().clamp(0.0, 255.0) as u8;
                let coarse = (steps / 17.0 + 7.5).round().clamp(0.0, 15.0) as u8;
                let at =
                    |unit: usize| ((unit * groups + d / GROUP) * BLOCK + lane) * GROUP + d % GROUP;
                eight[at(block)] = fine;
                four[at(pair)] |= if high { coarse << 4 } else { coarse };
            }
        }
    }
}

/// A searchable catalogue: attributes in storage order, and what [`Encoder`] made of them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The plan that the order and the codes follow.
    pub plan: &'a Plan,
    /// Attributes of an item.
    pub dimensions: usize,
    /// Attributes, row-major, in storage order.
    pub attributes: &'a [f32],
    /// Codes.
    pub codes: &'a [u8],
    /// Bounds.
    pub bounds: &'a [f32],
    /// The row at each position.
    pub order: &'a [u32],
}

impl<'a> View<'a> {
    /// Refuses parts that do not belong together. What they *hold* is not checked, and may be
    /// anything without harm to more than the answers; rows beyond the catalogue are refused
    /// when an answer would name them.
    pub fn check(&self) -> Result<()> {
        let rows = self.order.len() as u64;
        let sizes = Sizes::of(rows, self.dimensions);
        let expect = |what: &str, expected: u64, got: usize| {
            if expected == got as u64 {
                Ok(())
            } else {
                Err(Error::format("the index", format!("expected {expected} {what}, got {got}")))
            }
        };
        expect("dimensions in the plan", self.dimensions as u64, self.plan.dimensions())?;
        expect("attributes", rows * self.dimensions as u64, self.attributes.len())?;
        expect("bytes of codes", sizes.codes, self.codes.len())?;
        expect("bounds", sizes.bounds, self.bounds.len())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.rows().div_ceil(PANEL_ROWS)
    }

    /// Chunks of a panel: 16, fewer in the last.
    pub(super) fn chunks(&self, panel: usize) -> usize {
        (self.rows() - panel * PANEL_ROWS).div_ceil(CHUNK).min(CHUNKS)
    }

    /// The bounds of a panel.
    pub(super) fn panel(&self, panel: usize) -> &'a [f32] {
        let values = panel_values(self.dimensions);
        &self.bounds[panel * values..][..values]
    }

    /// The codes of a chunk.
    pub(super) fn chunk(&self, panel: usize, chunk: usize, width: Width) -> &'a [u8] {
        let groups = groups(self.dimensions);
        let eight = Width::Eight.chunk_bytes(groups);
        let first = panel * CHUNKS * chunk_bytes(self.dimensions);
        let offset = match width {
            Width::Eight => chunk * eight,
            Width::Four => self.chunks(panel) * eight + chunk * width.chunk_bytes(groups),
        };
        &self.codes[first + offset..][..width.chunk_bytes(groups)]
    }

    /// The largest norm of any row, or more.
    pub(super) fn longest(&self) -> f32 {
        (0..self.panels())
            .flat_map(|panel| &self.panel(panel)[(self.dimensions + 2) * CHUNKS..][..CHUNKS])
            .fold(
                0.0,
                |longest, norm| if *norm > longest || norm.is_nan() { *norm } else { longest },
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::testing;

    /// The inequalities at the top of this file, for every value, and the bounds of every chunk.
    fn holds(plan: &Plan, rows: &[f32], codes: &[u8], bounds: &[f32]) -> bool {
        let dimensions = plan.dimensions();
        let order: Vec<u32> = (0..(rows.len() / dimensions) as u32).collect();
        let view = View { plan, dimensions, attributes: rows, codes, bounds, order: &order };
        view.check().unwrap();
        let groups = groups(dimensions);
        rows.chunks(dimensions).enumerate().all(|(position, x)| {
            let (panel, rest) = (position / PANEL_ROWS, position % PANEL_ROWS);
            let (lane, row) = (rest / CHUNK, rest % CHUNK);
            let figure = |value: usize| f64::from(view.panel(panel)[value * CHUNKS + lane]);
            let length = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let near = length(&mut (0..dimensions).map(|d| f64::from(x[d]) - figure(d)))
                <= figure(dimensions + 1);
            let short = length(&mut x.iter().map(|x| f64::from(*x))) <= figure(dimensions + 2);
            let coded = x.iter().enumerate().all(|(d, x)| {
                let at = |unit: usize| {
                    ((unit * groups + d / GROUP) * BLOCK + row % BLOCK) * GROUP + d % GROUP
                };
                let fine = view.chunk(panel, lane, Width::Eight)[at(row / BLOCK)];
                let both = view.chunk(panel, lane, Width::Four)[at(row / PAIR)];
                let coarse = if row / BLOCK % 2 == 1 { both >> 4 } else { both & 15 };
                let unit = figure(dimensions) * f64::from(plan.step()[d]);
                let gap = |code: f64, unit: f64| {
                    let error = f64::from(*x) - figure(d) - unit * code;
                    error.abs() <= 0.5001 * unit
                };
                gap(f64::from(fine) - 127.5, unit) && gap(f64::from(coarse) - 7.5, 17.0 * unit)
            });
            near && short && coded
        })
    }

    #[test]
    fn codes_and_bounds_hold_for_every_row() {
        for (name, dimensions, rows) in testing::catalogues(700) {
            let plan = Plan::learn(&rows[..dimensions * 50], dimensions, 700).unwrap();
            let (mut codes, mut bounds) = (Vec::new(), Vec::new());
            let mut encoder = Encoder::new(&plan);
            for piece in rows.chunks(dimensions * 37) {
                encoder.push(piece, &mut codes, &mut bounds);
            }
            encoder.finish(&mut codes, &mut bounds);
            assert!(holds(&plan, &rows, &codes, &bounds), "{name}");
            // The check can fail: a scale one part in a hundred too small is found out.
            let scales = dimensions * CHUNKS..(dimensions + 1) * CHUNKS;
            if bounds[scales.start] > 0.0 {
                let mut wrong = bounds.clone();
                wrong[scales].iter_mut().for_each(|scale| *scale *= 0.99);
                assert!(!holds(&plan, &rows, &codes, &wrong), "{name}");
            }
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let plan = Plan::learn(&[1.0, 2.0], 2, 1).unwrap();
        let (mut codes, mut bounds) = (Vec::new(), Vec::new());
        let mut encoder = Encoder::new(&plan);
        encoder.push(&[1.0, 2.0], &mut codes, &mut bounds);
        encoder.finish(&mut codes, &mut bounds);
        let view = View {
            plan: &plan,
            dimensions: 2,
            attributes: &[1.0, 2.0],
            codes: &codes,
            bounds: &bounds,
            order: &[0],
        };
        assert!(view.check().is_ok());
        assert!(View { codes: &codes[1..], ..view }.check().is_err());
        assert!(View { bounds: &bounds[1..], ..view }.check().is_err());
        assert!(View { order: &[0, 1], ..view }.check().is_err());
        assert!(View { dimensions: 1, ..view }.check().is_err());
    }
}
