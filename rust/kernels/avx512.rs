//! 512-bit vectors.
//!
//! The same tile as `avx2.rs` with twice the width: 12 rows x 32 columns in 24 accumulators of
//! the 32 registers, or more columns for one or two rows. CPUs that run a 512-bit multiply-add as two
//! halves gain little over AVX2, those with two full units up to twice. A last half panel has only
//! eight columns and is left to the AVX2 tile.

mod bytes;
mod select;

use select::load;
pub use select::select;

use std::arch::x86_64::{
    __m512i, _CMP_LE_OQ, _mm512_add_epi32, _mm512_and_si512, _mm512_cmp_ps_mask,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps,
    _mm512_movepi32_mask, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use super::bytes::DenseBytes;
use super::heads::{Products, Softmax};
use super::scan::{BLOCK, GROUP, Hit, Limits, PAIR, PAIRS, Scan, Width};
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
    // - a bias, or a row of starts, has as many values as out has columns.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); PANELS]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + p * PANEL),
                    Start::Rows(rows) => rows[row + r].as_ptr().add(column + p * PANEL),
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

/// See [`super::Kernels::within`]: sixteen comparisons at a time give sixteen bits.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn within(values: &[f32], low: f32, high: f32, words: &mut [u64]) {
    let (lows, highs) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    let whole = values.as_chunks::<64>().0;
    for (word, values) in words.iter_mut().zip(whole) {
        *word = 0;
        for (index, block) in values.as_chunks().0.iter().enumerate() {
            let block = load(block);
            let inside = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(lows, block)
                & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(block, highs);
            *word |= u64::from(inside) << (PANEL * index);
        }
    }
    scalar::within(&values[64 * whole.len()..], low, high, &mut words[whole.len()..]);
}

/// Bound by memory: wider registers would not help.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn equal_bytes(values: &[u8], wanted: u8, words: &mut [u64]) {
    super::avx2::equal_bytes(values, wanted, words);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
pub fn ones(words: &[u64]) -> u64 {
    scalar::ones(words)
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn words(origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
    scalar::words(origin, block, out);
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
pub fn products(job: Products<'_>) {
    scalar::products(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn softmax(job: Softmax<'_>) {
    scalar::softmax(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn limits(job: Limits<'_>) {
    scalar::limits(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn dots(weights: &[f32], attributes: &[f32], rows: &[u32], out: &mut [f32]) {
    scalar::dots(weights, attributes, rows, out);
}

/// See [`DenseBytes`]; the caller has checked its bounds. Needs the byte dot product of VNNI; CPUs
/// without it take the scalar source.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn dense_bytes(job: DenseBytes<'_>) {
    if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the CPU has these features.
        unsafe { bytes::dense_bytes(job) };
    } else {
        scalar::dense_bytes(job);
    }
}

/// See [`Scan`]; the caller has checked its bounds. Needs the byte dot product of VNNI; CPUs
/// without it use the AVX2 kernel.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn scan(job: Scan<'_>) {
    if is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
    {
        // SAFETY: the CPU has these features.
        unsafe { scan_vnni(job) };
    } else {
        avx2::scan(job);
    }
}

/// See [`scan`].
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma")]
fn scan_vnni(mut job: Scan<'_>) {
    let mut first = 0;
    while first < job.slots.len() {
        let left = job.slots.len() - first;
        first += match (left, job.width) {
            (8.., Width::Eight) => scan_tile::<8, false>(&mut job, first),
            (4.., Width::Eight) => scan_tile::<4, false>(&mut job, first),
            (2.., Width::Eight) => scan_tile::<2, false>(&mut job, first),
            (_, Width::Eight) => scan_tile::<1, false>(&mut job, first),
            (4.., Width::Four) => scan_tile::<4, true>(&mut job, first),
            (2.., Width::Four) => scan_tile::<2, true>(&mut job, first),
            (_, Width::Four) => scan_tile::<1, true>(&mut job, first),
        };
    }
}

/// `R` queries over the live pairs of a chunk; returns R.
///
/// Every sum starts at minus its least sum, so that hits are the lanes whose sign is clear, and
/// one AND over all sums of a pair, which is all that most pairs need, tells whether there is any.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma")]
fn scan_tile<const R: usize, const FOUR: bool>(job: &mut Scan<'_>, first: usize) -> usize {
    let stride = GROUP * job.groups;
    let bytes = BLOCK * GROUP;
    let low = _mm512_set1_epi8(15);
    let mut queries = [job.queries.as_ptr(); R];
    let mut starts = [_mm512_setzero_si512(); R];
    for r in 0..R {
        queries[r] = job.queries[job.slots[first + r] as usize * stride..][..stride].as_ptr();
        starts[r] = _mm512_set1_epi32(-job.least[first + r]);
    }
    for pair in (0..PAIRS).filter(|pair| job.allowed[*pair] != 0) {
        let [at, second] = job.offsets(pair, 0);
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for r in 0..R {
            sums[r] = [starts[r]; 2];
        }
        // SAFETY: `Scan::check` holds, so that from `at` (and from `second`) there are 64 bytes a
        // group in `codes`, and each query has four weights a group; a hit has 16 sums from each block's first.
        unsafe {
            let codes = [job.codes.as_ptr().add(at), job.codes.as_ptr().add(second)];
            for group in 0..job.groups {
                let items = if FOUR {
                    let both = _mm512_loadu_si512(codes[0].add(group * bytes).cast());
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
                    [_mm512_and_si512(both, low), high]
                } else {
                    codes.map(|codes| _mm512_loadu_si512(codes.add(group * bytes).cast()))
                };
                for r in 0..R {
                    let weights = queries[r].add(group * GROUP).cast::<i32>().read_unaligned();
                    let weights = _mm512_set1_epi32(weights);
                    for block in 0..2 {
                        sums[r][block] = _mm512_dpbusd_epi32(sums[r][block], items[block], weights);
                    }
                }
            }
            let none = |sums: [__m512i; 2]| _mm512_and_si512(sums[0], sums[1]);
            let all = sums.into_iter().map(none).reduce(|a, b| _mm512_and_si512(a, b));
            if all.is_some_and(|all| _mm512_movepi32_mask(all) == u16::MAX) {
                continue;
            }
            for r in 0..R {
                let [first_block, second_block] = sums[r].map(|sums| _mm512_movepi32_mask(sums));
                let missed = u32::from(first_block) | u32::from(second_block) << BLOCK;
                let lanes = !missed & job.allowed[pair];
                if lanes != 0 {
                    let (slot, pair) = ((first + r) as u32, pair as u32);
                    let mut hit = Hit { sums: [0; PAIR], lanes, slot, pair };
                    for block in 0..2 {
                        let sums = _mm512_add_epi32(
                            sums[r][block],
                            _mm512_set1_epi32(job.least[first + r]),
                        );
                        let out = hit.sums[block * BLOCK..][..BLOCK].as_mut_ptr();
                        _mm512_storeu_si512(out.cast(), sums);
                    }
                    job.hits.push(hit);
                }
            }
        }
    }
    R
}
