//! 512-bit vectors.
//!
//! The same tile as `avx2.rs` with twice the width: 12 rows x 32 columns in 24 accumulators of
//! the 32 registers, or more columns for one or two rows. CPUs that run a 512-bit multiply-add as two
//! halves gain little over AVX2, those with two full units up to twice. A last half panel has only
//! eight columns and is left to the AVX2 tile.

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::{Categorical, Dense, PANEL, Start, avx2, scalar};
use crate::rng::{LANES, Origin};

/// Rows of the largest tile.
const ROWS: usize = 12;

/// See [`Dense`]; the caller has checked its bounds.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn dense(mut job: Dense<'_>) {
    let full = job.panels.full_panels();
    let mut panel = 0;
    while panel < full {
        let wide = job.rows <= 2 && panel + 4 <= full;
        let pair = panel + 2 <= full;
        match (wide, pair) {
            (true, _) => columns::<4>(&mut job, panel),
            (false, true) => columns::<2>(&mut job, panel),
            (false, false) => columns::<1>(&mut job, panel),
        }
        panel += if wide { 4 } else { 1 + usize::from(pair) };
    }
    if job.panels.has_half() {
        avx2::columns::<1>(&mut job, panel);
    }
}

/// All rows of `PANELS` x 16 columns, from a panel on.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn columns<const PANELS: usize>(job: &mut Dense<'_>, panel: usize) {
    let mut row = 0;
    while row < job.rows {
        let left = job.rows - row;
        row += match (left, PANELS) {
            (1, _) => tile::<1, PANELS>(job, panel, row),
            (2 | 3, _) | (_, 4) => tile::<2, PANELS>(job, panel, row),
            (4..6, _) => tile::<4, PANELS>(job, panel, row),
            (6..12, _) => tile::<6, PANELS>(job, panel, row),
            _ => tile::<ROWS, PANELS>(job, panel, row),
        };
    }
}

/// `R` rows x `PANELS` * 16 columns; returns R.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn tile<const R: usize, const PANELS: usize>(
    job: &mut Dense<'_>,
    panel: usize,
    row: usize,
) -> usize {
    let inputs = job.panels.inputs;
    let column = panel * PANEL;
    debug_assert!(row + R <= job.rows && column + PANELS * PANEL <= job.panels.padded());
    let weights = job.panels.data[column * inputs..].as_ptr();
    let x = job.x[row * job.x_stride..].as_ptr();
    let out = job.out[row * job.out_stride + column..].as_mut_ptr();
    // SAFETY: `Dense::check` holds, so that
    // - weights has `inputs` * 16 values for each of the PANELS panels from `panel` on;
    // - each of the R rows of x has `inputs` values, and each of out has PANELS * 16 from `column`;
    // - a bias has as many values as out has columns.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); PANELS]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + p * PANEL),
                    Start::Output => out.add(r * job.out_stride + p * PANEL).cast_const(),
                });
            }
        }
        for k in 0..inputs {
            let mut w = [_mm512_setzero_ps(); PANELS];
            for (p, w) in w.iter_mut().enumerate() {
                *w = _mm512_loadu_ps(weights.add((p * inputs + k) * PANEL));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*x.add(r * job.x_stride + k));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = _mm512_fmadd_ps(value, w, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, &sum) in sums.iter().enumerate() {
                // max(a, b) is `a > b ? a : b`, the scalar definition with a = slope * x.
                let value = match job.slope {
                    Some(slope) => _mm512_max_ps(_mm512_mul_ps(_mm512_set1_ps(slope), sum), sum),
                    None => sum,
                };
                _mm512_storeu_ps(out.add(r * job.out_stride + p * PANEL), value);
            }
        }
    }
    R
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn categorical(job: Categorical<'_>) {
    scalar::categorical(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn uniforms(origin: Origin, out: &mut [f32]) {
    scalar::uniforms(origin, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn first_uniforms(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    scalar::first_uniforms(origins, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn normals(values: &mut [f32]) {
    scalar::normals(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn tanh(values: &mut [f32]) {
    scalar::tanh(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn select(scores: &[f32], out: &mut [u32]) {
    scalar::select(scores, out);
}
