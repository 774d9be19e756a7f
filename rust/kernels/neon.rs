//! 128-bit vectors of 64-bit Arm.
//!
//! The tile of `avx2.rs` for 32 registers of four lanes: 6 rows x 16 columns in 24 accumulators,
//! four registers of weights and one broadcast value.

use std::arch::aarch64::{
    vbslq_f32, vcgtq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmulq_f32, vst1q_f32,
};

use super::{Categorical, Dense, HALF, PANEL, Start, scalar};
use crate::rng::{LANES, Origin};

/// Rows of the largest tile.
const ROWS: usize = 6;
/// Columns of a register.
const QUARTER: usize = 4;

/// See [`Dense`]; the caller has checked its bounds.
#[target_feature(enable = "neon")]
pub fn dense(mut job: Dense<'_>) {
    let full = job.panels.full_panels();
    for panel in 0..full {
        columns::<4>(&mut job, panel);
    }
    if job.panels.has_half() {
        columns::<2>(&mut job, full);
    }
}

/// All rows of `QUARTERS` x 4 columns of a panel.
#[inline]
#[target_feature(enable = "neon")]
fn columns<const QUARTERS: usize>(job: &mut Dense<'_>, panel: usize) {
    let mut row = 0;
    while row < job.rows {
        match job.rows - row {
            1 => tile::<1, QUARTERS>(job, panel, row),
            2 => tile::<2, QUARTERS>(job, panel, row),
            3 => tile::<3, QUARTERS>(job, panel, row),
            4 => tile::<4, QUARTERS>(job, panel, row),
            5 => tile::<5, QUARTERS>(job, panel, row),
            _ => tile::<ROWS, QUARTERS>(job, panel, row),
        }
        row += ROWS.min(job.rows - row);
    }
}

/// `R` rows x `QUARTERS` * 4 columns.
#[inline]
#[target_feature(enable = "neon")]
fn tile<const R: usize, const QUARTERS: usize>(job: &mut Dense<'_>, panel: usize, row: usize) {
    let inputs = job.panels.inputs;
    let column = panel * PANEL;
    // The half panel that may come last has 8 columns, every other one 16.
    let step = if QUARTERS * QUARTER == HALF { HALF } else { PANEL };
    debug_assert!(row + R <= job.rows && column + QUARTERS * QUARTER <= job.panels.padded());
    let weights = job.panels.data[column * inputs..].as_ptr();
    let x = job.x[row * job.x_stride..].as_ptr();
    let out = job.out[row * job.out_stride + column..].as_mut_ptr();
    // SAFETY: `Dense::check` holds, so that
    // - weights has `inputs` * `step` values from `panel` on;
    // - each of the R rows of x has `inputs` values, and each of out has QUARTERS * 4 from
    //   `column`;
    // - a bias has as many values as out has columns.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (q, sum) in sums.iter_mut().enumerate() {
                *sum = vld1q_f32(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + q * QUARTER),
                    Start::Output => out.add(r * job.out_stride + q * QUARTER).cast_const(),
                });
            }
        }
        for k in 0..inputs {
            let mut w = [vdupq_n_f32(0.0); QUARTERS];
            for (q, w) in w.iter_mut().enumerate() {
                *w = vld1q_f32(weights.add(k * step + q * QUARTER));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = vdupq_n_f32(*x.add(r * job.x_stride + k));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = vfmaq_f32(*sum, value, w);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (q, &sum) in sums.iter().enumerate() {
                // Compare and select, as the scalar definition: `fmax` treats NaN otherwise.
                let value = match job.slope {
                    Some(slope) => {
                        let scaled = vmulq_f32(vdupq_n_f32(slope), sum);
                        vbslq_f32(vcgtq_f32(scaled, sum), scaled, sum)
                    }
                    None => sum,
                };
                vst1q_f32(out.add(r * job.out_stride + q * QUARTER), value);
            }
        }
    }
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn categorical(job: Categorical<'_>) {
    scalar::categorical(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn uniforms(origin: Origin, out: &mut [f32]) {
    scalar::uniforms(origin, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn first_uniforms(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    scalar::first_uniforms(origins, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn normals(values: &mut [f32]) {
    scalar::normals(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn tanh(values: &mut [f32]) {
    scalar::tanh(values);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn select(scores: &[f32], out: &mut [u32]) {
    scalar::select(scores, out);
}
