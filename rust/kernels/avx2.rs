//! 256-bit vectors with fused multiply-add.
//!
//! `dense` keeps a tile of 6 rows x 16 columns in 12 accumulators. For each input it loads the
//! panel's 16 weights once, broadcasts each row's value, and makes 12 fused multiply-adds: the
//! panel (8 to 16 KB) stays in the first-level cache while all rows of the call pass over it.
//! Fewer rows use more panels at a time, so that there are always enough independent sums to hide
//! the latency of the multiply-add.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LE_OQ, _mm256_add_epi32, _mm256_and_ps, _mm256_and_si256,
    _mm256_broadcast_ss, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi8, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_ps,
    _mm256_movemask_epi8, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::bytes::DenseBytes;
use super::heads::{Products, Softmax};
use super::scan::{BLOCK, GROUP, Hit, Limits, PAIR, PAIRS, Scan, Width};
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
    // - a bias, or a row of starts, has as many values as out has columns.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); HALVES]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (half, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(match job.start {
                    Start::Bias(bias) => bias.as_ptr().add(column + half * HALF),
                    Start::Rows(rows) => rows[row + r].as_ptr().add(column + half * HALF),
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

/// See [`super::Kernels::within`]: eight comparisons, then their signs as bits.
#[target_feature(enable = "avx2,fma")]
pub fn within(values: &[f32], low: f32, high: f32, words: &mut [u64]) {
    let (lows, highs) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
    let whole = values.as_chunks::<64>().0;
    for (word, values) in words.iter_mut().zip(whole) {
        *word = 0;
        for (index, eight) in values.as_chunks::<8>().0.iter().enumerate() {
            let eight: __m256 = bytemuck::must_cast(*eight);
            let inside = _mm256_and_ps(
                _mm256_cmp_ps::<_CMP_LE_OQ>(lows, eight),
                _mm256_cmp_ps::<_CMP_LE_OQ>(eight, highs),
            );
            *word |= u64::from(_mm256_movemask_ps(inside) as u8) << (8 * index);
        }
    }
    scalar::within(&values[64 * whole.len()..], low, high, &mut words[whole.len()..]);
}

/// See [`super::Kernels::equal_bytes`].
#[target_feature(enable = "avx2,fma")]
pub fn equal_bytes(values: &[u8], wanted: u8, words: &mut [u64]) {
    let wanted_all = _mm256_set1_epi8(wanted as i8);
    let whole = values.as_chunks::<64>().0;
    for (word, values) in words.iter_mut().zip(whole) {
        let half = |half: usize| {
            let bytes: __m256i = bytemuck::must_cast(values.as_chunks::<32>().0[half]);
            u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, wanted_all)) as u32)
        };
        *word = half(0) | half(1) << 32;
    }
    scalar::equal_bytes(&values[64 * whole.len()..], wanted, &mut words[whole.len()..]);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma,popcnt")]
pub fn ones(words: &[u64]) -> u64 {
    scalar::ones(words)
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn words(origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
    scalar::words(origin, block, out);
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
pub fn dense_bytes(job: DenseBytes<'_>) {
    scalar::dense_bytes(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn products(job: Products<'_>) {
    scalar::products(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn softmax(job: Softmax<'_>) {
    scalar::softmax(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    scalar::sum_rows(start, table, rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn select(rows: &[&[f32]], out: &mut [u32]) {
    scalar::select(rows, out);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn limits(job: Limits<'_>) {
    scalar::limits(job);
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx2,fma")]
pub fn dots(weights: &[f32], attributes: &[f32], rows: &[u32], out: &mut [f32]) {
    scalar::dots(weights, attributes, rows, out);
}

/// See [`Scan`]; the caller has checked its bounds.
#[target_feature(enable = "avx2,fma")]
pub fn scan(mut job: Scan<'_>) {
    let mut first = 0;
    while first < job.slots.len() {
        first += match (job.slots.len() - first, job.width) {
            (2.., Width::Eight) => scan_tile::<2, false>(&mut job, first),
            (_, Width::Eight) => scan_tile::<1, false>(&mut job, first),
            (2.., Width::Four) => scan_tile::<2, true>(&mut job, first),
            (_, Width::Four) => scan_tile::<1, true>(&mut job, first),
        };
    }
}

/// `R` queries over the live pairs of a chunk, eight rows a register; returns R. As in
/// `avx512.rs`, sums start at minus their least sum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scan_tile<const R: usize, const FOUR: bool>(job: &mut Scan<'_>, first: usize) -> usize {
    let stride = GROUP * job.groups;
    let bytes = BLOCK * GROUP;
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for pair in (0..PAIRS).filter(|pair| job.allowed[*pair] != 0) {
        let [at, second] = job.offsets(pair, 0);
        let mut sums = [[_mm256_setzero_si256(); 4]; R];
        let mut queries = [job.queries.as_ptr(); R];
        for r in 0..R {
            queries[r] = job.queries[job.slots[first + r] as usize * stride..][..stride].as_ptr();
            sums[r] = [_mm256_set1_epi32(-job.least[first + r]); 4];
        }
        // SAFETY: `Scan::check` holds, so that from `at` (and from `second`) there are 64 bytes a
        // group in `codes`, and each query has four weights a group; a hit has 8 sums from each quarter's first.
        unsafe {
            let codes = [job.codes.as_ptr().add(at), job.codes.as_ptr().add(second)];
            for group in 0..job.groups {
                let half = |codes: *const u8, half: usize| {
                    _mm256_loadu_si256(codes.add(group * bytes + half * bytes / 2).cast())
                };
                let items = if FOUR {
                    let both = [half(codes[0], 0), half(codes[0], 1)];
                    let high = both.map(|both| _mm256_and_si256(_mm256_srli_epi16::<4>(both), low));
                    let both = both.map(|both| _mm256_and_si256(both, low));
                    [both[0], both[1], high[0], high[1]]
                } else {
                    [half(codes[0], 0), half(codes[0], 1), half(codes[1], 0), half(codes[1], 1)]
                };
                for r in 0..R {
                    let weights = queries[r].add(group * GROUP).cast::<i32>().read_unaligned();
                    let weights = _mm256_set1_epi32(weights);
                    for quarter in 0..4 {
                        // No saturation: 2 * 255 * 64 < 2^15.
                        let pairs = _mm256_maddubs_epi16(items[quarter], weights);
                        let fours = _mm256_madd_epi16(pairs, ones);
                        sums[r][quarter] = _mm256_add_epi32(sums[r][quarter], fours);
                    }
                }
            }
            for r in 0..R {
                let none = sums[r].into_iter().reduce(|a, b| _mm256_and_si256(a, b));
                if none.is_some_and(|none| _mm256_movemask_ps(_mm256_castsi256_ps(none)) == 255) {
                    continue;
                }
                let reached = |(quarter, sums): (usize, &__m256i)| {
                    let missed = _mm256_movemask_ps(_mm256_castsi256_ps(*sums)) as u32;
                    (!missed & 255) << (quarter * LANES)
                };
                let lanes = sums[r].iter().enumerate().map(reached).fold(0, |a, b| a | b);
                let lanes = lanes & job.allowed[pair];
                if lanes == 0 {
                    continue;
                }
                let (slot, pair) = ((first + r) as u32, pair as u32);
                let mut hit = Hit { sums: [0; PAIR], lanes, slot, pair };
                for quarter in 0..4 {
                    let least = _mm256_set1_epi32(job.least[first + r]);
                    let sums = _mm256_add_epi32(sums[r][quarter], least);
                    let out = hit.sums[quarter * LANES..][..LANES].as_mut_ptr();
                    _mm256_storeu_si256(out.cast(), sums);
                }
                job.hits.push(hit);
            }
        }
    }
    R
}
