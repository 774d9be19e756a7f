//! 256-bit vectors with fused multiply-add.
//!
//! `dense` keeps a tile of 6 rows x 16 columns in 12 accumulators. For each input it loads the
//! panel's 16 weights once, broadcasts each row's value, and makes 12 fused multiply-adds: the
//! panel (8 to 16 KB) stays in the first-level cache while all rows of the call pass over it.
//! Fewer rows use more panels at a time, so that there are always enough independent sums to hide
//! the latency of the multiply-add.

use std::arch::x86_64::{
    _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{Categorical, Dense, HALF, PANEL, Start, scalar};
use crate::rng::{LANES, Origin};

/// Rows of the largest tile.
const ROWS: usize = 6;

/// See [`Dense`]; the caller has checked its bounds.
#[target_feature(enable = "avx2,fma")]
pub fn dense(mut job: Dense<'_>) {
    let mut panel = 0;
    while panel < job.panels.full_panels() {
        // One or two rows alone would leave the multipliers waiting: widen the tile instead.
        let wide = job.rows <= 2 && panel + 3 <= job.panels.full_panels();
        if wide {
            columns::<6>(&mut job, panel);
        } else {
            columns::<2>(&mut job, panel);
        }
        panel += if wide { 3 } else { 1 };
    }
    if job.panels.has_half() {
        columns::<1>(&mut job, panel);
    }
}

/// All rows of `HALVES` x 8 columns, from a panel on.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn columns<const HALVES: usize>(job: &mut Dense<'_>, panel: usize) {
    let mut row = 0;
    while row < job.rows {
        row += match (job.rows - row, HALVES) {
            (1, _) => tile::<1, HALVES>(job, panel, row),
            (2, _) | (_, 6) => tile::<2, HALVES>(job, panel, row),
            (3, _) => tile::<3, HALVES>(job, panel, row),
            (4, _) => tile::<4, HALVES>(job, panel, row),
            (5, _) => tile::<5, HALVES>(job, panel, row),
            // Eight columns alone need twice the rows for as many independent sums.
            (12.., 1) => tile::<{ 2 * ROWS }, HALVES>(job, panel, row),
            _ => tile::<ROWS, HALVES>(job, panel, row),
        };
    }
}

/// `R` rows x `HALVES` * 8 columns; returns R.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tile<const R: usize, const HALVES: usize>(
    job: &mut Dense<'_>,
    panel: usize,
    row: usize,
) -> usize {
    let inputs = job.panels.inputs;
    let column = panel * PANEL;
    // The half panel that may come last has 8 columns, every other one 16.
    let step = if HALVES == 1 { HALF } else { PANEL };
    debug_assert!(row + R <= job.rows && column + HALVES * HALF <= job.panels.padded());
    let weights = job.panels.data[column * inputs..].as_ptr();
    let x = job.x[row * job.x_stride..].as_ptr();
    let out = job.out[row * job.out_stride + column..].as_mut_ptr();
    // SAFETY: `Dense::check` holds, so that
    // - weights has `inputs` steps for each panel from `panel` on, and the tile ends within them;
    // - each of the R rows of x has `inputs` values, and each of out has HALVES * 8 from `column`;
    // - a bias has as many values as out has columns.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); HALVES]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + half * HALF),
                    Start::Output => out.add(r * job.out_stride + half * HALF).cast_const(),
                });
            }
        }
        for k in 0..inputs {
            let mut w = [_mm256_setzero_ps(); HALVES];
            for (half, w) in w.iter_mut().enumerate() {
                let at = (half / 2) * PANEL * inputs + k * step + (half % 2) * HALF;
                *w = _mm256_loadu_ps(weights.add(at));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = _mm256_broadcast_ss(&*x.add(r * job.x_stride + k));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm256_fmadd_ps(value, w, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                // max(a, b) is `a > b ? a : b`, the scalar definition with a = slope * x.
                let value = match job.slope {
                    Some(slope) => _mm256_max_ps(_mm256_mul_ps(_mm256_set1_ps(slope), sum), sum),
                    None => sum,
                };
                _mm256_storeu_ps(out.add(r * job.out_stride + half * HALF), value);
            }
        }
    }
    R
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn categorical(job: Categorical<'_>) {
    scalar::categorical(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn uniforms(origin: Origin, out: &mut [f32]) {
    scalar::uniforms(origin, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn first_uniforms(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    scalar::first_uniforms(origins, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn normals(values: &mut [f32]) {
    scalar::normals(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn tanh(values: &mut [f32]) {
    scalar::tanh(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn select(scores: &[f32], out: &mut [u32]) {
    scalar::select(scores, out);
}
