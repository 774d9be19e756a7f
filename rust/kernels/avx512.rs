//! 512-bit vectors.
//!
//! The same tile as `avx2.rs` with twice the width: 12 rows x 32 columns in 24 accumulators of
//! the 32 registers, or more columns for one or two rows. CPUs that run a 512-bit multiply-add as two
//! halves gain little over AVX2, those with two full units up to twice. A last half panel has only
//! eight columns and is left to the AVX2 tile.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_EQ_OQ, _CMP_GE_OQ, _CMP_GT_OQ, _mm512_add_epi32, _mm512_alignr_epi32,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cmplt_epi32_mask,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_mask_compress_ps,
    _mm512_mask_reduce_min_ps, _mm512_maskz_compress_epi32, _mm512_max_ps, _mm512_mul_ps,
    _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_storeu_ps, _mm512_storeu_si512,
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

/// See [`super::select`]: the same bound and ranks, with 16 scores to a register. Scores that
/// pass are packed without branches, since which of them do cannot be predicted.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn select(scores: &[f32], out: &mut [u32]) {
    let k = out.len();
    if k == 0 || k > PANEL {
        return scalar::select(scores, out);
    }
    let (blocks, rest) = scores.as_chunks::<PANEL>();
    let mut last = [f32::NEG_INFINITY; PANEL];
    last[..rest.len()].copy_from_slice(rest);
    let maxima = blocks.iter().fold(load(&last), |most, block| _mm512_max_ps(load(block), most));
    let mut bound = kth_largest(maxima, k as i32);
    if bound == f32::NEG_INFINITY {
        return scalar::select(scores, out);
    }
    let mut passed = [f32::NEG_INFINITY; 2 * PANEL];
    let mut positions = [0; 2 * PANEL];
    let count = loop {
        let count = pass(blocks, &last, bound, &mut passed, &mut positions);
        if count <= PANEL {
            break count;
        }
        // More than a register of them: the k-th of the first 16 is a higher bound, but for ties.
        let higher = kth_largest(load(&passed.as_chunks().0[0]), k as i32);
        if higher <= bound {
            return scalar::select(scores, out);
        }
        bound = higher;
    };
    let before = ranks(load(&passed.as_chunks().0[0]));
    let mut ordered = [u32::MAX; PANEL];
    let mut ranks = [0_u32; PANEL];
    // SAFETY: 16 values are written to an array of 16.
    unsafe { _mm512_storeu_si512(ranks.as_mut_ptr().cast(), before) };
    for lane in 0..count {
        ordered[ranks[lane] as usize % PANEL] = positions[lane];
    }
    out.copy_from_slice(&ordered[..k]);
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn load(block: &[f32; PANEL]) -> __m512 {
    // SAFETY: 16 values are read from an array of 16.
    unsafe { _mm512_loadu_ps(block.as_ptr()) }
}

/// Packs the scores that reach the bound, and their positions, until there are more than 16;
/// returns their number. What stands behind them is minus infinity.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn pass(
    blocks: &[[f32; PANEL]],
    last: &[f32; PANEL],
    bound: f32,
    passed: &mut [f32; 2 * PANEL],
    positions: &mut [u32; 2 * PANEL],
) -> usize {
    let bound = _mm512_set1_ps(bound);
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut position = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let mut count = 0;
    for block in blocks.iter().chain(std::iter::once(last)) {
        let values = load(block);
        let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values, bound);
        let kept = _mm512_mask_compress_ps(none, mask, values);
        let places = _mm512_maskz_compress_epi32(mask, position);
        // SAFETY: `count` is at most 16 here, so that 16 more values fit into arrays of 32.
        unsafe {
            _mm512_storeu_ps(passed.as_mut_ptr().add(count), kept);
            _mm512_storeu_si512(positions.as_mut_ptr().add(count).cast(), places);
        }
        count += mask.count_ones() as usize;
        if count > PANEL {
            break;
        }
        position = _mm512_add_epi32(position, _mm512_set1_epi32(PANEL as i32));
    }
    count
}

/// For each lane, how many come before it: larger ones, and equal ones in lower lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn ranks(values: __m512) -> __m512i {
    let mut before = _mm512_setzero_si512();
    let one = _mm512_set1_epi32(1);
    // Each lane against the lane `turn` places on, round the register.
    macro_rules! turns {
        ($($turn:literal)*) => {$(
            let as_bits = _mm512_castps_si512(values);
            let rival = _mm512_castsi512_ps(_mm512_alignr_epi32::<$turn>(as_bits, as_bits));
            // Rivals of the lowest 16 - turn lanes stand in higher lanes: they must be larger.
            let larger = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(rival, values);
            let equal = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(rival, values);
            let lower = !(0xffff_u16 >> $turn);
            before = _mm512_mask_add_epi32(before, larger | (equal & lower), before, one);
        )*};
    }
    turns!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    before
}

/// The k-th largest lane, 1 <= k <= 16: the smallest that fewer than k are larger than.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn kth_largest(values: __m512, k: i32) -> f32 {
    let mut larger = _mm512_setzero_si512();
    let one = _mm512_set1_epi32(1);
    macro_rules! turns {
        ($($turn:literal)*) => {$(
            let as_bits = _mm512_castps_si512(values);
            let rival = _mm512_castsi512_ps(_mm512_alignr_epi32::<$turn>(as_bits, as_bits));
            let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(rival, values);
            larger = _mm512_mask_add_epi32(larger, mask, larger, one);
        )*};
    }
    turns!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let among = _mm512_cmplt_epi32_mask(larger, _mm512_set1_epi32(k));
    _mm512_mask_reduce_min_ps(among, values)
}
