//! 512-bit vectors.
//!
//! The same tile as `avx2.rs` with twice the width: 12 rows x 32 columns in 24 accumulators of
//! the 32 registers, or more columns for one or two rows. CPUs that run a 512-bit multiply-add as two
//! halves gain little over AVX2, those with two full units up to twice. A last half panel has only
//! eight columns and is left to the AVX2 tile.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_EQ_OQ, _CMP_GE_OQ, _CMP_GT_OQ, _mm512_add_epi32, _mm512_alignr_epi32,
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cmplt_epi32_mask, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_add_epi32, _mm512_mask_compress_ps, _mm512_mask_reduce_min_ps,
    _mm512_maskz_compress_epi32, _mm512_max_ps, _mm512_movepi32_mask, _mm512_mul_ps,
    _mm512_set_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512,
};

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

/// Bound by memory: wider registers would not help.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn within(values: &[f32], low: f32, high: f32, words: &mut [u64]) {
    super::avx2::within(values, low, high, words);
}

/// Bound by memory: wider registers would not help.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn equal_bytes(values: &[u8], wanted: u8, words: &mut [u64]) {
    super::avx2::equal_bytes(values, wanted, words);
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
    let mut passed = [f32::NEG_INFINITY.to_bits(); 2 * PANEL];
    let mut positions = [0; 2 * PANEL];
    let count = loop {
        let count = pass(blocks, &last, bound, &mut passed, &mut positions);
        if count <= PANEL {
            break count;
        }
        // More than a register of them: the k-th of the first 16 is a higher bound, but for ties.
        let higher = kth_largest(first(&passed), k as i32);
        if higher <= bound {
            return scalar::select(scores, out);
        }
        bound = higher;
    };
    let before = ranks(first(&passed));
    let mut ordered = [u32::MAX; PANEL];
    let mut ranks = [0_u32; PANEL];
    spill(before, &mut ranks);
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

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn spill(values: __m512i, to: &mut [u32; PANEL]) {
    // SAFETY: 16 values are written to an array of 16.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), values) }
}

/// The first 16 scores that passed.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn first(passed: &[u32; 2 * PANEL]) -> __m512 {
    load(&std::array::from_fn(|lane| f32::from_bits(passed[lane])))
}

/// Packs the scores (as bits) that reach the bound, and their positions, until there are more than 16;
/// returns their number. What stands behind them is minus infinity.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn pass(
    blocks: &[[f32; PANEL]],
    last: &[f32; PANEL],
    bound: f32,
    passed: &mut [u32; 2 * PANEL],
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
        // `count` is at most 16 here, so that 16 more values fit.
        if let Some(to) = passed[count..].first_chunk_mut() {
            spill(_mm512_castps_si512(kept), to);
        }
        if let Some(to) = positions[count..].first_chunk_mut() {
            spill(places, to);
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
