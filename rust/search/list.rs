//! Search among a short list: every row of it is scored, and nothing else is looked at.
//!
//! Many queries share the rows, so these are packed once and multiplied as a dense layer whose
//! outputs are the rows: its sums are the scores, in the same order of the same roundings. A few
//! queries score the rows where they lie.

use crate::error::Result;
use crate::kernels::{Dense, Kernels, Panels, Start};
use crate::search::best::{Best, Scored};
use crate::search::index::View;
use crate::search::{Allowed, reference};

/// Fewer queries than this do not pay for packing.
const MANY: usize = 8;
/// Rows scored between two looks at the thresholds.
const STRIDE: usize = 128;

/// The best rows of each query among the positions; `first` is the first query's number, for
/// errors. Nothing of use once `go_on` says no.
pub fn run(
    kernels: Kernels,
    view: &View<'_>,
    weights: &[f32],
    first: usize,
    k: usize,
    positions: &[u32],
    go_on: &dyn Fn() -> bool,
) -> Result<Vec<Vec<Scored>>> {
    let dimensions = view.dimensions;
    let queries = weights.len() / dimensions;
    let mut best: Vec<Best<'_>> =
        weights.chunks_exact(dimensions).map(|w| Best::new(kernels, view, w, k)).collect();
    let mut finite = vec![true; queries];
    if queries < MANY {
        let mut scores = [0.0; STRIDE];
        for (query, (weights, best)) in weights.chunks_exact(dimensions).zip(&mut best).enumerate()
        {
            for positions in positions.chunks(STRIDE) {
                let scores = &mut scores[..positions.len()];
                kernels.dots(weights, view.attributes, positions, scores);
                finite[query] &= best.take_scores(positions, scores);
            }
        }
    } else {
        let zeros = [0.0; STRIDE];
        let mut scores = vec![0.0; queries * STRIDE];
        for positions in positions.chunks(STRIDE) {
            if !go_on() {
                break;
            }
            let row = |row: usize| &view.attributes[positions[row] as usize * dimensions..];
            kernels.dense(Dense {
                rows: queries,
                x: weights,
                x_stride: dimensions,
                panels: &Panels::pack(dimensions, positions.len(), |r, d| row(r)[d]),
                start: Start::Bias(&zeros),
                slope: None,
                out: &mut scores,
                out_stride: STRIDE,
            });
            for (query, (scores, best)) in scores.chunks(STRIDE).zip(&mut best).enumerate() {
                finite[query] &= best.take_scores(positions, &scores[..positions.len()]);
            }
        }
    }
    if let Some(query) = finite.iter().position(|finite| !finite) {
        let weights = &weights[query * dimensions..][..dimensions];
        let allowed = Allowed::Positions(positions);
        reference::checked(kernels, view, first + query, weights, k, allowed, go_on)?;
    }
    Ok(best.into_iter().map(Best::finish).collect())
}
