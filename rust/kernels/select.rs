//! The best k of a few hundred scores.
//!
//! ```text
//! bound:   the k-th largest of 16 lane maxima; at least k scores reach it
//! pass:    the scores that reach the bound, in order (about 15 of 200)
//! rank:    of each that passed, by counting those before it; no branches
//! ```

/// Lanes of the bound.
const LANES: usize = 16;
/// More scores that pass than this (ties, mostly) are left to insertion.
const MOST: usize = 48;

/// Positions of the `out.len()` largest scores, largest first, ties to the lower position;
/// `u32::MAX` where the scores that are not minus infinity run out. No score is NaN.
#[inline(always)]
pub fn select(scores: &[f32], out: &mut [u32]) {
    let k = out.len();
    if k == 0 || k > LANES {
        return insert(scores, out);
    }
    let (blocks, rest) = scores.as_chunks::<LANES>();
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let mut maxima = last;
    for block in blocks {
        for lane in 0..LANES {
            maxima[lane] = if block[lane] > maxima[lane] { block[lane] } else { maxima[lane] };
        }
    }
    let bound = kth_largest(&maxima, k);
    if bound == f32::NEG_INFINITY {
        return insert(scores, out);
    }
    let mut passed = [f32::NEG_INFINITY; MOST];
    let mut positions = [0_u32; MOST];
    let mut count = 0;
    for (index, block) in blocks.iter().chain(std::iter::once(&last)).enumerate() {
        let mut mask = 0_u32;
        for lane in 0..LANES {
            mask |= u32::from(block[lane] >= bound) << lane;
        }
        while mask != 0 {
            if count == MOST {
                return insert(scores, out);
            }
            let lane = mask.trailing_zeros();
            passed[count] = block[lane as usize];
            positions[count] = (index * LANES) as u32 + lane;
            count += 1;
            mask &= mask - 1;
        }
    }
    let mut ordered = [u32::MAX; MOST];
    if count <= LANES {
        rank::<LANES>(&passed, &positions, count, &mut ordered);
    } else {
        rank::<MOST>(&passed, &positions, count, &mut ordered);
    }
    out.copy_from_slice(&ordered[..k]);
}

/// The k-th largest, 1 <= k <= 16.
#[inline(always)]
fn kth_largest(values: &[f32; LANES], k: usize) -> f32 {
    let mut before = [0_u32; LANES];
    for (other, rival) in values.iter().enumerate() {
        for lane in 0..LANES {
            let first = (*rival > values[lane]) | ((*rival == values[lane]) & (other < lane));
            before[lane] += u32::from(first);
        }
    }
    let mut found = f32::NEG_INFINITY;
    for lane in 0..LANES {
        found = if before[lane] == k as u32 - 1 { values[lane] } else { found };
    }
    found
}

/// Puts the first `count` (at most `N`) positions into the order of their scores.
#[inline(always)]
fn rank<const N: usize>(
    scores: &[f32; MOST],
    positions: &[u32; MOST],
    count: usize,
    ordered: &mut [u32; MOST],
) {
    let mut before = [0_u32; N];
    for (other, rival) in scores[..count].iter().enumerate() {
        for lane in 0..N {
            let first = (*rival > scores[lane]) | ((*rival == scores[lane]) & (other < lane));
            before[lane] += u32::from(first);
        }
    }
    for lane in 0..count {
        ordered[before[lane] as usize % MOST] = positions[lane];
    }
}

/// The same for any k: each score is inserted into the best so far.
#[inline(always)]
fn insert(scores: &[f32], out: &mut [u32]) {
    let mut count = 0;
    for (position, score) in scores.iter().enumerate() {
        if *score == f32::NEG_INFINITY
            || (count == out.len()
                && out.last().is_none_or(|last| *score <= scores[*last as usize]))
        {
            continue;
        }
        let mut place = if count < out.len() { count } else { count - 1 };
        count = (count + 1).min(out.len());
        while place > 0 && *score > scores[out[place - 1] as usize] {
            out[place] = out[place - 1];
            place -= 1;
        }
        out[place] = position as u32;
    }
    out[count..].fill(u32::MAX);
}
