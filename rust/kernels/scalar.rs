//! The reference: what every kernel computes, operation by operation.
//!
//! Everything here but [`dense`] is also compiled into the vector modules, where the compiler
//! turns the fixed lanes into registers; `inline(always)` is what lets it.

use super::{Categorical, Dense, HALF, Head, PANEL, Panels, Start, math, select};
use crate::rng::{self, LANES, Origin};

/// The leaky ReLU as a maximum: equal to it for slopes in [0, 1), and what `max` instructions do.
#[inline(always)]
pub fn leaky_relu(x: f32, slope: f32) -> f32 {
    let scaled = slope * x;
    if scaled > x { scaled } else { x }
}

/// See [`Dense`].
pub fn dense(job: Dense<'_>) {
    let padded = job.panels.padded();
    for row in 0..job.rows {
        let x = &job.x[row * job.x_stride..][..job.panels.inputs];
        let out = &mut job.out[row * job.out_stride..][..padded];
        for (column, out) in out.iter_mut().enumerate() {
            let mut sum = match job.start {
                Start::Bias(bias) => bias[column],
                Start::Output => *out,
            };
            for (weight, x) in column_of(job.panels, column).zip(x) {
                sum = x.mul_add(weight, sum);
            }
            *out = job.slope.map_or(sum, |slope| leaky_relu(sum, slope));
        }
    }
}

/// The weights of one output, input by input.
fn column_of(panels: &Panels, column: usize) -> impl Iterator<Item = f32> + '_ {
    let panel = column / PANEL;
    let width = if panel < panels.full_panels() { PANEL } else { HALF };
    panels.data[panel * PANEL * panels.inputs..]
        .iter()
        .skip(column % PANEL)
        .step_by(width)
        .take(panels.inputs)
        .copied()
}

/// See [`Categorical`]. Eight rows go side by side.
#[inline(always)]
pub fn categorical(job: Categorical<'_>) {
    let heads = job.heads.len();
    let mut first = 0;
    while first < job.rows {
        let rows = (job.rows - first).min(LANES);
        for (index, head) in job.heads.iter().enumerate() {
            let mut uniforms = [0.0; LANES];
            for lane in 0..rows {
                uniforms[lane] = job.uniforms[(first + lane) * heads + index];
            }
            let logits = &job.logits[first * job.stride..];
            let drawn = if head.size <= 32 {
                draw::<32>(logits, job.stride, rows, *head, uniforms)
            } else {
                draw::<256>(logits, job.stride, rows, *head, uniforms)
            };
            for lane in 0..rows {
                job.out[(first + lane) * heads + index] = drawn[lane] as u8;
            }
        }
        first += rows;
    }
}

/// The categories of one head of at most `MOST` for up to eight rows.
#[inline(always)]
fn draw<const MOST: usize>(
    logits: &[f32],
    stride: usize,
    rows: usize,
    head: Head,
    uniforms: [f32; LANES],
) -> [u32; LANES] {
    // Lanes beyond the last row repeat it; nobody reads what they draw.
    let row = |lane: usize| &logits[lane.min(rows - 1) * stride + head.first..][..head.size];
    let lanes: [&[f32]; LANES] = std::array::from_fn(row);
    let mut values = [[0.0; LANES]; MOST];
    let values = &mut values[..head.size];
    for (index, values) in values.iter_mut().enumerate() {
        for lane in 0..LANES {
            values[lane] = lanes[lane][index];
        }
    }
    let mut largest = values[0];
    for logits in values.iter() {
        for lane in 0..LANES {
            largest[lane] = if logits[lane] > largest[lane] { logits[lane] } else { largest[lane] };
        }
    }
    let mut total = [0.0; LANES];
    for values in values.iter_mut() {
        for lane in 0..LANES {
            total[lane] += math::exp_nonpositive(values[lane] - largest[lane]);
        }
        *values = total;
    }
    // The cumulative sums never fall, so the first one above the threshold is the number of those
    // that are not; the last is left out, so that rounding cannot run past the end.
    let mut category = [0; LANES];
    for cumulative in &values[..head.size - 1] {
        for lane in 0..LANES {
            category[lane] += u32::from(cumulative[lane] <= uniforms[lane] * total[lane]);
        }
    }
    category
}

/// See [`rng::fill`].
#[inline(always)]
pub fn uniforms(origin: Origin, out: &mut [f32]) {
    rng::fill(origin, out);
}

/// See [`rng::fill_first`].
#[inline(always)]
pub fn first_uniforms(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    rng::fill_first(origins, out);
}

/// See [`math::normal`].
#[inline(always)]
pub fn normals(values: &mut [f32]) {
    for value in values {
        *value = math::normal(*value);
    }
}

/// See [`math::tanh`].
#[inline(always)]
pub fn tanh(values: &mut [f32]) {
    for value in values {
        *value = math::tanh(*value);
    }
}

/// See [`super::Kernels::select`].
#[inline(always)]
pub fn select(scores: &[f32], out: &mut [u32]) {
    select::select(scores, out);
}

/// See [`super::Kernels::sum_rows`].
#[inline(always)]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    let width = start.len();
    for (block, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
        add_rows(start, table, rows, width, block * PANEL, out);
    }
    let rest = width - width % PANEL;
    for (block, out) in out[rest..].as_chunks_mut::<HALF>().0.iter_mut().enumerate() {
        add_rows(start, table, rows, width, rest + block * HALF, out);
    }
}

/// `N` columns of [`sum_rows`], from `column` on.
#[inline(always)]
fn add_rows<const N: usize>(
    start: &[f32],
    table: &[f32],
    rows: &[usize],
    width: usize,
    column: usize,
    out: &mut [f32; N],
) {
    let mut sums = [0.0; N];
    sums.copy_from_slice(&start[column..][..N]);
    for row in rows {
        for (sum, weight) in sums.iter_mut().zip(&table[row * width + column..][..N]) {
            *sum += weight;
        }
    }
    *out = sums;
}
