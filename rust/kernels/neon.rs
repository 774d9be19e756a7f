//! 128-bit vectors of 64-bit Arm.
//!
//! The tile of `avx2.rs` for 32 registers of four lanes: 6 rows x 16 columns in 24 accumulators,
//! four registers of weights and one broadcast value.

use std::arch::aarch64::{
    vaddq_s32, vandq_u8, vbslq_f32, vcgtq_f32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, veorq_u8,
    vfmaq_f32, vget_low_s8, vld1q_f32, vld1q_u8, vmaxvq_s32, vmull_high_s8, vmull_s8, vmulq_f32,
    vpadalq_s16, vpaddq_s16, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshrq_n_u8, vst1q_f32,
    vst1q_s32,
};

use super::bytes::DenseBytes;
use super::heads::{Products, Softmax};
use super::scan::{BLOCK, GROUP, Hit, Limits, PAIR, PAIRS, Scan, Width};
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
    // - a bias, or a row of starts, has as many values as out has columns.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (q, sum) in sums.iter_mut().enumerate() {
                *sum = vld1q_f32(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + q * QUARTER),
                    Start::Rows(rows) => rows[row + r].as_ptr().add(column + q * QUARTER),
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
pub fn within(values: &[f32], low: f32, high: f32, words: &mut [u64]) {
    scalar::within(values, low, high, words);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn equal_bytes(values: &[u8], wanted: u8, words: &mut [u64]) {
    scalar::equal_bytes(values, wanted, words);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn ones(words: &[u64]) -> u64 {
    scalar::ones(words)
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn words(origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
    scalar::words(origin, block, out);
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
pub fn dense_bytes(job: DenseBytes<'_>) {
    scalar::dense_bytes(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn products(job: Products<'_>) {
    scalar::products(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn softmax(job: Softmax<'_>) {
    scalar::softmax(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn select(rows: &[&[f32]], out: &mut [u32]) {
    scalar::select(rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn limits(job: Limits<'_>) {
    scalar::limits(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "neon")]
pub fn dots(weights: &[f32], attributes: &[f32], rows: &[u32], out: &mut [f32]) {
    scalar::dots(weights, attributes, rows, out);
}

/// See [`Scan`]; the caller has checked its bounds.
#[target_feature(enable = "neon")]
pub fn scan(mut job: Scan<'_>) {
    for slot in 0..job.slots.len() {
        scan_query(&mut job, slot);
    }
}

/// One query over the live pairs of a chunk, four rows a register. Codes are shifted to signed
/// ones, because the plain instruction set multiplies like with like; what that takes from a sum
/// is given back through its start.
#[inline]
#[target_feature(enable = "neon")]
fn scan_query(job: &mut Scan<'_>, slot: usize) {
    let stride = GROUP * job.groups;
    let bytes = BLOCK * GROUP;
    let weights = &job.queries[job.slots[slot] as usize * stride..][..stride];
    let least = job.least[slot];
    let shift = 128 * weights.iter().map(|weight| i32::from(*weight)).sum::<i32>();
    for pair in (0..PAIRS).filter(|pair| job.allowed[*pair] != 0) {
        let mut sums = [vdupq_n_s32(shift - least); PAIR / 4];
        for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
            let weights =
                vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(weights.map(|w| w as u8))));
            let offsets = job.offsets(pair, group);
            for (at, sum) in sums.iter_mut().enumerate() {
                let (block, quarter) = (at / 4, at % 4);
                let codes = job.codes[offsets[block]..][..bytes][quarter * 16..][..16].as_ptr();
                // SAFETY: `codes` has 16 bytes.
                let codes = unsafe { vld1q_u8(codes) };
                let codes = match (job.width, block) {
                    (Width::Eight, _) => codes,
                    (Width::Four, 0) => vandq_u8(codes, vdupq_n_u8(15)),
                    (Width::Four, _) => vshrq_n_u8::<4>(codes),
                };
                let codes = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(128)));
                // No overflow: 2 * 128 * 64 < 2^15.
                let low = vmull_s8(vget_low_s8(codes), vget_low_s8(weights));
                let high = vmull_high_s8(codes, weights);
                *sum = vpadalq_s16(*sum, vpaddq_s16(low, high));
            }
        }
        if sums.iter().all(|sum| vmaxvq_s32(*sum) < 0) {
            continue;
        }
        let mut hit = Hit { sums: [0; PAIR], lanes: 0, slot: slot as u32, pair: pair as u32 };
        for (sum, out) in sums.into_iter().zip(hit.sums.as_chunks_mut::<4>().0) {
            // SAFETY: `out` has 4 values.
            unsafe { vst1q_s32(out.as_mut_ptr(), vaddq_s32(sum, vdupq_n_s32(least))) };
        }
        for (lane, sum) in hit.sums.iter().enumerate() {
            hit.lanes |= u32::from(*sum >= least) << lane;
        }
        hit.lanes &= job.allowed[pair];
        if hit.lanes != 0 {
            job.hits.push(hit);
        }
    }
}
