//! Search without any index: what every other path must agree with.

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::search::Allowed;
use crate::search::best::{Scored, keep_best};
use crate::search::index::View;

/// Rows scored at a time.
const STRIDE: usize = 4096;

/// Whether a position is allowed.
fn allows(allowed: Allowed<'_>, position: u32) -> bool {
    match allowed {
        Allowed::All => true,
        Allowed::Positions(list) => list.binary_search(&position).is_ok(),
        Allowed::Bits(bits) => bits[position as usize / 64] >> (position % 64) & 1 == 1,
    }
}

/// The best k rows of one query, each allowed row scored; the lowest row whose score is not
/// finite is an error. Used for weights so large that a score may overflow.
pub(super) fn checked(
    kernels: Kernels,
    view: &View<'_>,
    query: usize,
    weights: &[f32],
    k: usize,
    allowed: Allowed<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<Scored>> {
    let mut best = Vec::new();
    let mut overflown = None;
    let mut scores = vec![0.0; STRIDE];
    let rows = view.rows() as u32;
    for first in (0..rows).step_by(STRIDE) {
        if !go_on() {
            break;
        }
        let positions: Vec<u32> = (first..rows.min(first.saturating_add(STRIDE as u32)))
            .filter(|position| allows(allowed, *position))
            .collect();
        let scores = &mut scores[..positions.len()];
        kernels.dots(weights, view.attributes, &positions, scores);
        for (score, position) in scores.iter().zip(positions) {
            let row = view.order[position as usize];
            if score.is_finite() {
                best.push(Scored { score: *score, row });
            } else {
                overflown = Some(overflown.map_or(row, |least: u32| least.min(row)));
            }
        }
        keep_best(&mut best, k);
    }
    match overflown {
        None => Ok(best),
        Some(row) => Err(Error::argument(
            format!("weights[{query}]"),
            "scores within single precision",
            format!("an overflow with item row {row}"),
        )),
    }
}

/// The best k rows of one query by the definition alone: scalar kernel, every allowed row, a full
/// sort. For tests and for people who want to check.
pub fn top(view: &View<'_>, weights: &[f32], k: usize, allowed: Allowed<'_>) -> Vec<(u32, f32)> {
    let positions: Vec<u32> =
        (0..view.rows() as u32).filter(|position| allows(allowed, *position)).collect();
    let mut scores = vec![0.0; positions.len()];
    Kernels::SCALAR.dots(weights, view.attributes, &positions, &mut scores);
    let rows = positions.iter().map(|position| view.order[*position as usize]);
    let mut all: Vec<Scored> =
        scores.into_iter().zip(rows).map(|(score, row)| Scored { score, row }).collect();
    all.sort_by(Scored::before);
    all.truncate(k);
    all.into_iter().map(|best| (best.row, best.score)).collect()
}
