//! The byte dot product of VNNI on dense layers: 12 rows x 32 columns, as for floats.

use std::arch::x86_64::{
    _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permutexvar_epi32, _mm512_reduce_max_ps,
    _mm512_reduce_min_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::super::PANEL;
use super::super::bytes::{DenseBytes, ZERO, encode, groups, step};
use super::select::{load, spill};

/// Rows of the largest tile.
const ROWS: usize = 12;
/// Inputs whose codes fill a register.
const FULL: usize = 64;

/// The codes of the inputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn encode_rows(job: &mut DenseBytes<'_>) {
    let words = job.panels.groups();
    for row in 0..job.rows {
        let x = &job.x[row * job.x_stride..][..job.panels.inputs()];
        let (blocks, rest) = x.as_chunks::<PANEL>();
        let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for block in blocks {
            let block = load(block);
            (low, high) = (_mm512_min_ps(low, block), _mm512_max_ps(high, block));
        }
        let bounds = (_mm512_reduce_min_ps(low), _mm512_reduce_max_ps(high));
        let bounds = rest.iter().fold(bounds, |(low, high), x| (low.min(*x), high.max(*x)));
        let (step, inverse) = step(bounds);
        job.steps[row] = step;
        let out = &mut job.words[row * words..][..words];
        let (full, rest) = x.as_chunks::<FULL>();
        let (to, to_rest) = out.split_at_mut(words - groups(rest.len()));
        for (x, to) in full.iter().zip(to.as_chunks_mut().0) {
            encode_full(x, inverse, to);
        }
        encode(rest, inverse, to_rest);
    }
}

/// The codes of 64 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn encode_full(x: &[f32; FULL], inverse: f32, words: &mut [i32; PANEL]) {
    let (inverse, zero) = (_mm512_set1_ps(inverse), _mm512_set1_epi32(ZERO));
    let mut codes = [_mm512_setzero_si512(); FULL / PANEL];
    for (codes, x) in codes.iter_mut().zip(x.as_chunks().0) {
        // To the nearest whole number, ties to even.
        *codes = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(load(x), inverse)), zero);
    }
    let pairs = [_mm512_packs_epi32(codes[0], codes[1]), _mm512_packs_epi32(codes[2], codes[3])];
    // Packing goes by quarters of a register; this puts their words in order.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    spill(_mm512_permutexvar_epi32(order, _mm512_packus_epi16(pairs[0], pairs[1])), words);
}

/// See [`DenseBytes`]; the caller has checked its bounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub fn dense_bytes(mut job: DenseBytes<'_>) {
    encode_rows(&mut job);
    let panels = job.panels.padded() / PANEL;
    for panel in (0..panels).step_by(2) {
        let pair = panel + 2 <= panels;
        let mut row = 0;
        while row < job.rows {
            row += match (job.rows - row, pair) {
                (ROWS.., true) => tile::<ROWS, 2>(&mut job, panel, row),
                (4.., true) => tile::<4, 2>(&mut job, panel, row),
                (_, true) => tile::<1, 2>(&mut job, panel, row),
                (ROWS.., false) => tile::<ROWS, 1>(&mut job, panel, row),
                (4.., false) => tile::<4, 1>(&mut job, panel, row),
                (_, false) => tile::<1, 1>(&mut job, panel, row),
            };
        }
    }
}

/// `R` rows x `P` * 16 columns; returns R.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn tile<const R: usize, const P: usize>(
    job: &mut DenseBytes<'_>,
    panel: usize,
    row: usize,
) -> usize {
    let groups = job.panels.groups();
    let column = panel * PANEL;
    debug_assert!(row + R <= job.rows && column + P * PANEL <= job.panels.padded());
    let weights = job.panels.words[panel * groups..].as_ptr();
    let words = job.words[row * groups..].as_ptr();
    let starts = job.panels.starts[column..].as_ptr();
    let scales = job.panels.scales[column..].as_ptr();
    let bias = job.bias[column..].as_ptr();
    let steps = job.steps[row..].as_ptr();
    let out = job.out[row * job.out_stride + column..].as_mut_ptr();
    // SAFETY: `Kernels::dense_bytes` has checked, and `BytePanels` is made so, that
    // - weights has `groups` blocks for each of the P panels from `panel` on, and starts, scales
    //   and bias have P * 16 values from `column`;
    // - each of the R rows of words has `groups` of them, each of out has P * 16 values from
    //   `column`, and there is a step for each row.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); P]; R];
        for sums in &mut sums {
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_si512(starts.add(p * PANEL).cast());
            }
        }
        for group in 0..groups {
            let mut panel = [_mm512_setzero_si512(); P];
            for (p, panel) in panel.iter_mut().enumerate() {
                *panel = _mm512_loadu_si512(weights.add(p * groups + group).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let codes = _mm512_set1_epi32(*words.add(r * groups + group));
                for (sum, panel) in sums.iter_mut().zip(panel) {
                    *sum = _mm512_dpbusd_epi32(*sum, codes, panel);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let step = _mm512_set1_ps(*steps.add(r));
            for (p, &sum) in sums.iter().enumerate() {
                let worth = _mm512_mul_ps(step, _mm512_loadu_ps(scales.add(p * PANEL)));
                let bias = _mm512_loadu_ps(bias.add(p * PANEL));
                let mut value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), worth, bias);
                if let Some(slope) = job.slope {
                    value = _mm512_max_ps(_mm512_mul_ps(_mm512_set1_ps(slope), value), value);
                }
                _mm512_storeu_ps(out.add(r * job.out_stride + p * PANEL), value);
            }
        }
    }
    R
}
