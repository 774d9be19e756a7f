//! Search among a short list: every row of it is scored, and nothing else is looked at.
//!
//! Many queries share the rows, so these are packed once and multiplied as a dense layer whose
//! outputs are the rows: its sums are the scores, in the same order of the same roundings. A few
//! queries, or one with a list of its own, score the rows where they lie.
//!
//! For a page's worth of answers the rows are put in order first, so that a selection which leaves
//! ties to the lower place leaves them to the lower row.

use crate::error::Result;
use crate::kernels::{Dense, Kernels, PANEL, Panels, Start, TILE};
use crate::search::best::{Best, Scored, keep_best};
use crate::search::index::View;
use crate::search::packed::PackedRows;
use crate::search::{Allowed, NO_ROW, reference};

/// Fewer queries than this do not pay for packing.
const MANY: usize = 8;
/// Rows scored between two looks at the thresholds.
const STRIDE: usize = 256;

/// Lists up to this long are selected from in one piece, if few rows are wanted.
const ONE_PIECE: usize = 4096;

/// Rows of one query, and what they score.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    rows: Vec<u32>,
    positions: Vec<u32>,
    scores: Vec<f32>,
}

impl Buffers {
    /// Takes the rows of one query, in any order, and their positions, `place[row]`; says whether
    /// these are all within the catalogue.
    pub fn take(&mut self, list: &[u32], place: &[u32]) -> bool {
        self.rows.clear();
        self.rows.extend_from_slice(list);
        if !list.is_sorted_by(|left, right| left < right) {
            self.rows.sort_unstable();
            self.rows.dedup();
        }
        self.positions.clear();
        self.positions.extend(self.rows.iter().map(|row| place[*row as usize]));
        self.positions.iter().all(|position| (*position as usize) < place.len())
    }
}

/// Whether all scores are numbers.
fn all_finite(scores: &[f32]) -> bool {
    // Zero, unless one is not finite; eight sums, because one alone would wait for itself.
    let (eights, rest) = scores.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, score) in sums.iter_mut().zip(eight) {
            *sum += score * 0.0;
        }
    }
    sums.iter().chain(rest).all(|score| score * 0.0 == 0.0)
}

/// Scores the rows in the buffers for one query; nothing of use once `go_on` says no.
pub fn score_own(
    kernels: Kernels,
    view: &View<'_>,
    query: usize,
    weights: &[f32],
    k: usize,
    buffers: &mut Buffers,
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    let Buffers { positions, scores, .. } = buffers;
    scores.resize(positions.len(), 0.0);
    kernels.dots(weights, view.attributes, positions, scores);
    if !all_finite(scores) {
        positions.sort_unstable();
        let allowed = Allowed::Positions(positions);
        reference::checked(kernels, view, query, weights, k, allowed, go_on)?;
    }
    Ok(())
}

/// The best rows of some queries, each among those scored in its buffers: k rows and scores a
/// query, padded.
pub fn select_own(kernels: Kernels, own: &[Buffers], rows: &mut [u32], scores: &mut [f32]) {
    let k = rows.len().checked_div(own.len()).unwrap_or(0);
    if k <= PANEL && own.iter().all(|own| own.rows.len() <= ONE_PIECE) {
        let each: Vec<&[f32]> = own.iter().map(|own| &own.scores[..]).collect();
        kernels.select(&each, rows);
        let answers = rows.chunks_mut(k).zip(scores.chunks_mut(k));
        for (Buffers { rows: list, scores: scored, .. }, (rows, scores)) in own.iter().zip(answers)
        {
            for (row, score) in rows.iter_mut().zip(scores) {
                (*row, *score) = match list.get(*row as usize) {
                    Some(found) => (*found, scored[*row as usize]),
                    None => (NO_ROW, f32::NEG_INFINITY),
                };
            }
        }
        return;
    }
    let padding = Scored { score: f32::NEG_INFINITY, row: NO_ROW };
    for (own, (rows, scores)) in own.iter().zip(rows.chunks_mut(k).zip(scores.chunks_mut(k))) {
        let all = own.rows.iter().zip(&own.scores);
        let mut best: Vec<_> =
            all.map(|(row, score)| Scored { score: *score, row: *row }).collect();
        keep_best(&mut best, k);
        best.sort_unstable_by(Scored::before);
        let answers = best.into_iter().chain(std::iter::repeat(padding));
        for ((row, score), best) in rows.iter_mut().zip(scores).zip(answers) {
            (*row, *score) = (best.row, best.score);
        }
    }
}

/// [`run`] for few answers from a list of one piece.
fn run_piece(
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
    let mut listed: Vec<_> = positions.iter().map(|p| (view.order[*p as usize], *p)).collect();
    listed.sort_unstable();
    let (rows, places): (Vec<u32>, Vec<u32>) = listed.into_iter().unzip();
    let few = queries < MANY;
    let packed = (!few).then(|| {
        let row = |place: &u32| &view.attributes[*place as usize * dimensions..][..dimensions];
        let attributes: Vec<f32> = places.iter().flat_map(row).copied().collect();
        PackedRows::pack(&attributes, dimensions)
    });
    let stride = packed.as_ref().map_or(rows.len(), PackedRows::stride);
    let mut scores = vec![0.0; queries.min(TILE) * stride];
    let mut chosen = [0; TILE * PANEL];
    let mut found = Vec::with_capacity(queries);
    for (tile, weights) in weights.chunks(TILE * dimensions).enumerate() {
        let count = weights.len() / dimensions;
        let scores = &mut scores[..count * stride];
        match &packed {
            Some(packed) => packed.score(kernels, count, weights, scores),
            None => {
                let each = weights.chunks_exact(dimensions).zip(scores.chunks_mut(stride));
                each.for_each(|(w, scores)| kernels.dots(w, view.attributes, &places, scores));
            }
        }
        let each: Vec<&[f32]> = scores.chunks(stride).map(|s| &s[..rows.len()]).collect();
        for (query, (weights, scores)) in weights.chunks(dimensions).zip(&each).enumerate() {
            if !all_finite(scores) {
                let query = first + tile * TILE + query;
                let allowed = Allowed::Positions(positions);
                reference::checked(kernels, view, query, weights, k, allowed, go_on)?;
            }
        }
        let chosen = &mut chosen[..count * k];
        kernels.select(&each, chosen);
        for (scores, chosen) in each.iter().zip(chosen.chunks(k)) {
            let scored = |place: &u32| {
                let row = *rows.get(*place as usize)?;
                Some(Scored { score: scores[*place as usize], row })
            };
            let mut best = Vec::with_capacity(k);
            best.extend(chosen.iter().filter_map(scored));
            found.push(best);
        }
    }
    Ok(found)
}

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
    if k <= PANEL && (1..=ONE_PIECE).contains(&positions.len()) {
        return run_piece(kernels, view, weights, first, k, positions, go_on);
    }
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
                if !go_on() {
                    break;
                }
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
