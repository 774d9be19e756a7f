//! The best k of each of some rows, eight rows at a time.
//!
//! ```text
//! bound:   the k-th largest of 32 maxima of the row; at least k scores reach it
//! pass:    the scores that reach the bound, packed without branches (about 12 of 200)
//! rank:    these as integers that order by score, then position; sorted
//! ```
//!
//! Bound and rank sort sixteen values of each of the eight rows, a row in each lane, by a network of
//! comparisons: the same instructions whatever the scores. Rows of which too many pass (ties) or
//! that have too few scores are left to the scalar source.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm512_add_epi32, _mm512_add_ps, _mm512_castpd_ps,
    _mm512_castps_pd, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi64_epi32, _mm512_loadu_ps, _mm512_mask_compress_ps, _mm512_mask_mov_ps,
    _mm512_maskz_compress_epi32, _mm512_max_epi64, _mm512_max_ps, _mm512_min_epi64, _mm512_min_ps,
    _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4,
    _mm512_srai_epi32, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_epi32,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps, _mm512_xor_si512, _mm512_zextsi256_si512,
};

use super::super::{PANEL, scalar};

/// Rows that go side by side.
const ROWS: usize = 8;
/// Scores of a row that may pass.
const MOST: usize = PANEL;

/// Sorts sixteen vectors, largest first in each lane: a network of 60 comparators in ten layers.
macro_rules! sort {
    ($values:ident, $max:ident, $min:ident) => {
        sort!($values, $max, $min,
            0 13, 1 12, 2 15, 3 14, 4 8, 5 6, 7 11, 9 10,
            0 5, 1 7, 2 9, 3 4, 6 13, 8 14, 10 15, 11 12,
            0 1, 2 3, 4 5, 6 8, 7 9, 10 11, 12 13, 14 15,
            0 2, 1 3, 4 10, 5 11, 6 7, 8 9, 12 14, 13 15,
            1 2, 3 12, 4 6, 5 7, 8 10, 9 11, 13 14,
            1 4, 2 6, 5 8, 7 10, 9 13, 11 14,
            2 4, 3 6, 9 12, 11 13,
            3 5, 6 8, 7 9, 10 12,
            3 4, 5 6, 7 8, 9 10, 11 12,
            6 7, 8 9)
    };
    ($values:ident, $max:ident, $min:ident, $($a:literal $b:literal),*) => {$(
        ($values[$a], $values[$b]) =
            ($max($values[$a], $values[$b]), $min($values[$a], $values[$b]));
    )*};
}

/// See [`super::super::Kernels::select`].
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
pub fn select(rows: &[&[f32]], out: &mut [u32]) {
    let k = out.len().checked_div(rows.len()).unwrap_or(0);
    if k == 0 || k > MOST {
        return one_by_one(rows, out);
    }
    let mut passed = [Passed::NONE; ROWS];
    for (group, rows) in rows.chunks(ROWS).enumerate() {
        let out = &mut out[group * ROWS * k..];
        if rows.iter().any(|row| row.len() < PANEL) {
            one_by_one(rows, &mut out[..rows.len() * k]);
            continue;
        }
        let bounds = bounds(rows, k);
        let mut usual = [false; ROWS];
        for row in 0..rows.len() {
            passed[row].fill(rows[row], bounds[row]);
            usual[row] = bounds[row] > f32::NEG_INFINITY && passed[row].count <= MOST;
        }
        let ranked = rank(&passed);
        for row in 0..rows.len() {
            let out = &mut out[row * k..];
            match out.first_chunk_mut() {
                _ if !usual[row] => one_by_one(&rows[row..row + 1], &mut out[..k]),
                // What is too much is in the places of rows to come.
                Some(to) => spill(ranked[row], to),
                None => {
                    let mut places = [0; PANEL];
                    spill(ranked[row], &mut places);
                    out[..k].copy_from_slice(&places[..k]);
                }
            }
        }
    }
}

/// The scalar source, compiled for this instruction set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
fn one_by_one(rows: &[&[f32]], out: &mut [u32]) {
    scalar::select(rows, out);
}

/// What lanes of 32 bits may be: numbers, of which every pattern of bits is one.
pub trait Lane: Copy {}
impl Lane for f32 {}
impl Lane for i32 {}
impl Lane for u32 {}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn load<T: Lane>(block: &[T; PANEL]) -> __m512 {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 16 values of 32 bits are read from an array of 16.
    unsafe { _mm512_loadu_ps(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub fn spill<T: Lane>(values: __m512i, to: &mut [T; PANEL]) {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 16 values of 32 bits, of which none is invalid, are written to an array of 16.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), values) }
}

/// Whole blocks of a row of at least one; its last sixteen scores; and which of these stand in no
/// whole block.
#[inline]
fn blocks(row: &[f32]) -> (&[[f32; PANEL]], &[f32; PANEL], u16) {
    let (blocks, rest) = row.as_chunks();
    let mask = (u32::from(u16::MAX) << (PANEL - rest.len())) as u16;
    (blocks, row.last_chunk().expect("a whole block"), mask)
}

/// For each of up to eight rows, a score that at least k of its scores reach, or minus infinity.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn bounds(rows: &[&[f32]], k: usize) -> [f32; ROWS] {
    let mut maxima = [_mm512_setzero_ps(); 2 * ROWS];
    for (row, scores) in rows.iter().enumerate() {
        let (blocks, last, mask) = blocks(scores);
        let (pairs, rest) = blocks.as_chunks::<2>();
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        let (mut even, mut odd) = (_mm512_mask_mov_ps(none, mask, load(last)), none);
        for pair in pairs {
            even = _mm512_max_ps(load(&pair[0]), even);
            odd = _mm512_max_ps(load(&pair[1]), odd);
        }
        rest.iter().for_each(|block| odd = _mm512_max_ps(load(block), odd));
        (maxima[row], maxima[ROWS + row]) = (even, odd);
    }
    let mut sorted = transposed(maxima);
    sort!(sorted, _mm512_max_ps, _mm512_min_ps);
    // Lanes 0 to 7 hold the rows' even maxima, lanes 8 to 15 the odd ones, each sorted. The best k
    // of both are the larger ones of the i-th of one and the (k - i)-th of the other.
    let mut least = _mm512_set1_ps(f32::INFINITY);
    for place in 0..k {
        let other =
            _mm512_shuffle_f32x4::<0b0100_1110>(sorted[k - 1 - place], sorted[k - 1 - place]);
        least = _mm512_min_ps(_mm512_max_ps(sorted[place], other), least);
    }
    let mut bits = [0; PANEL];
    spill(_mm512_castps_si512(least), &mut bits);
    std::array::from_fn(|row| f32::from_bits(bits[row]))
}

/// What passed of a row: scores (as bits), minus infinity behind them, and their positions.
#[derive(Clone, Copy)]
struct Passed {
    scores: [u32; 2 * PANEL],
    positions: [u32; 2 * PANEL],
    count: usize,
}

impl Passed {
    const NONE: Self = Self { scores: [0; 2 * PANEL], positions: [0; 2 * PANEL], count: 0 };

    /// Packs the scores of a row that reach the bound, until there are more than 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
    fn fill(&mut self, row: &[f32], bound: f32) {
        let (blocks, last, rest) = blocks(row);
        let bound = _mm512_set1_ps(bound);
        let mut position = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        self.count = 0;
        for block in blocks {
            let values = load(block);
            self.pack(values, _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values, bound), position);
            if self.count > MOST {
                return;
            }
            position = _mm512_add_epi32(position, _mm512_set1_epi32(PANEL as i32));
        }
        if rest != 0 {
            let values = load(last);
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values, bound);
            position = _mm512_sub_epi32(position, _mm512_set1_epi32(rest.count_zeros() as i32));
            self.pack(values, mask & rest, position);
        }
    }

    /// Adds the lanes of the mask; at most 16 are there before.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma,popcnt")]
    fn pack(&mut self, values: __m512, mask: u16, positions: __m512i) {
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        let kept = _mm512_castps_si512(_mm512_mask_compress_ps(none, mask, values));
        if let Some(to) = self.scores[self.count..].first_chunk_mut() {
            spill(kept, to);
        }
        if let Some(to) = self.positions[self.count..].first_chunk_mut() {
            spill(_mm512_maskz_compress_epi32(mask, positions), to);
        }
        self.count += mask.count_ones() as usize;
    }
}

/// The positions of what passed in each row, by rank: those of the largest scores first, of equal
/// scores the lowest position first.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn rank(passed: &[Passed; ROWS]) -> [__m512i; ROWS] {
    let first =
        |values: &[u32; 2 * PANEL]| load(&std::array::from_fn(|lane| f32::from_bits(values[lane])));
    let zero = _mm512_setzero_ps();
    let all = _mm512_set1_epi32(-1);
    let (mut low, mut high) = ([zero; ROWS], [zero; ROWS]);
    for (row, passed) in passed.iter().enumerate() {
        // As a signed integer, a negative float orders the wrong way round; and zeros are equal.
        let bits = _mm512_castps_si512(_mm512_add_ps(first(&passed.scores), zero));
        let wrong = _mm512_srli_epi32::<1>(_mm512_srai_epi32::<31>(bits));
        let key = _mm512_xor_si512(bits, wrong);
        let place = _mm512_xor_si512(_mm512_castps_si512(first(&passed.positions)), all);
        low[row] = _mm512_castsi512_ps(_mm512_unpacklo_epi32(place, key));
        high[row] = _mm512_castsi512_ps(_mm512_unpackhi_epi32(place, key));
    }
    let (low, high) = (transposed_pairs(low), transposed_pairs(high));
    let mut keys = [_mm512_castps_si512(zero); MOST];
    for entry in 0..ROWS {
        keys[entry] = _mm512_castps_si512(low[entry]);
        keys[ROWS + entry] = _mm512_castps_si512(high[entry]);
    }
    sort!(keys, _mm512_max_epi64, _mm512_min_epi64);
    let mut places = [zero; MOST];
    for (places, keys) in places.iter_mut().zip(keys) {
        let low = _mm512_zextsi256_si512(_mm512_cvtepi64_epi32(keys));
        *places = _mm512_castsi512_ps(_mm512_xor_si512(low, all));
    }
    let columns = transposed(places);
    let mut rows = [_mm512_castps_si512(zero); ROWS];
    for (row, places) in rows.iter_mut().enumerate() {
        *places = _mm512_castps_si512(columns[row]);
    }
    rows
}

/// Sixteen rows of sixteen values as columns, a row in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn transposed(rows: [__m512; 16]) -> [__m512; 16] {
    // Of four rows each, value 4 l + e in quarter l of the register for e.
    let mut fours = rows;
    for four in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * four + row]);
        let [low, high] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)];
        let [low_next, high_next] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)];
        let [first, second] = interleaved(low, low_next);
        let [third, fourth] = interleaved(high, high_next);
        [fours[four], fours[4 + four], fours[8 + four], fours[12 + four]] =
            [first, second, third, fourth];
    }
    let mut columns = rows;
    for (value, fours) in fours.as_chunks::<4>().0.iter().enumerate() {
        for (quarter, column) in quarters(*fours).into_iter().enumerate() {
            columns[4 * quarter + value] = column;
        }
    }
    columns
}

/// Eight rows of eight pairs of values as columns, a row in each pair of lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn transposed_pairs(rows: [__m512; 8]) -> [__m512; 8] {
    let mut twos = rows;
    for two in 0..4 {
        [twos[two], twos[4 + two]] = interleaved(rows[2 * two], rows[2 * two + 1]);
    }
    let mut columns = rows;
    for (pair, twos) in twos.as_chunks::<4>().0.iter().enumerate() {
        for (quarter, column) in quarters(*twos).into_iter().enumerate() {
            columns[2 * quarter + pair] = column;
        }
    }
    columns
}

/// In each quarter, the first pairs of two registers, and the second pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn interleaved(a: __m512, b: __m512) -> [__m512; 2] {
    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
    [_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))]
}

/// Four registers of four quarters as columns.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    const EVEN: i32 = 0b1000_1000;
    const ODD: i32 = 0b1101_1101;
    let even = [_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<EVEN>(c, d)];
    let odd = [_mm512_shuffle_f32x4::<ODD>(a, b), _mm512_shuffle_f32x4::<ODD>(c, d)];
    [
        _mm512_shuffle_f32x4::<EVEN>(even[0], even[1]),
        _mm512_shuffle_f32x4::<EVEN>(odd[0], odd[1]),
        _mm512_shuffle_f32x4::<ODD>(even[0], even[1]),
        _mm512_shuffle_f32x4::<ODD>(odd[0], odd[1]),
    ]
}
