//! Search among a short list: every row of it is scored, and nothing else is looked at.
//!
//! Many queries share the rows, so these are packed once and multiplied as a dense layer whose
//! outputs are the rows: its sums are the scores, in the same order of the same roundings. A few
//! queries, or one with a list of its own, score the rows where they lie.
//!
//! For a page's worth of answers the rows are put in order first, so that a selection which leaves
//! ties to the lower place leaves them to the lower row.

use crate::error::Result;
use crate::kernels::{Dense, Kernels, PANEL, Panels, Start};
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

/// Buffers of a thread that answers one query after the other.
#[derive(Debug, Default)]
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

/// The best rows of one query among those in the buffers. Writes k rows and scores, padded; nothing
/// of use once `go_on` says no.
#[allow(clippy::too_many_arguments, reason = "one call, all of it needed")]
pub fn run_own(
    kernels: Kernels,
    view: &View<'_>,
    query: usize,
    weights: &[f32],
    buffers: &mut Buffers,
    go_on: &dyn Fn() -> bool,
    rows: &mut [u32],
    scores: &mut [f32],
) -> Result<()> {
    let Buffers { rows: list, positions, scores: scored } = buffers;
    scored.resize(list.len(), 0.0);
    kernels.dots(weights, view.attributes, positions, scored);
    if !all_finite(scored) {
        positions.sort_unstable();
        let allowed = Allowed::Positions(positions);
        reference::checked(kernels, view, query, weights, rows.len(), allowed, go_on)?;
    }
    let k = rows.len();
    if k <= PANEL && list.len() <= ONE_PIECE {
        kernels.select(scored, rows);
        for (row, score) in rows.iter_mut().zip(scores) {
            (*row, *score) = match list.get(*row as usize) {
                Some(found) => (*found, scored[*row as usize]),
                None => (NO_ROW, f32::NEG_INFINITY),
            };
        }
        return Ok(());
    }
    let all = list.iter().zip(scored.iter());
    let mut best: Vec<_> = all.map(|(row, score)| Scored { score: *score, row: *row }).collect();
    keep_best(&mut best, k);
    best.sort_unstable_by(Scored::before);
    let padding = Scored { score: f32::NEG_INFINITY, row: NO_ROW };
    let answers = best.into_iter().chain(std::iter::repeat(padding));
    for ((row, score), best) in rows.iter_mut().zip(scores).zip(answers) {
        (*row, *score) = (best.row, best.score);
    }
    Ok(())
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
    let mut stride = rows.len();
    let mut scores;
    if queries < MANY {
        scores = vec![0.0; queries * stride];
        for (weights, scores) in weights.chunks_exact(dimensions).zip(scores.chunks_mut(stride)) {
            kernels.dots(weights, view.attributes, &places, scores);
        }
    } else {
        let attributes: Vec<f32> = places
            .iter()
            .flat_map(|place| &view.attributes[*place as usize * dimensions..][..dimensions])
            .copied()
            .collect();
        let packed = PackedRows::pack(&attributes, dimensions);
        stride = packed.stride();
        scores = vec![0.0; queries * stride];
        packed.score(kernels, queries, weights, &mut scores);
    }
    let mut chosen = [0; PANEL];
    let one = |(query, scores): (usize, &[f32])| {
        if !all_finite(&scores[..rows.len()]) {
            let weights = &weights[query * dimensions..][..dimensions];
            let allowed = Allowed::Positions(positions);
            reference::checked(kernels, view, first + query, weights, k, allowed, go_on)?;
        }
        kernels.select(&scores[..rows.len()], &mut chosen[..k]);
        let found = chosen[..k].iter().filter_map(|place| {
            let row = *rows.get(*place as usize)?;
            Some(Scored { score: scores[*place as usize], row })
        });
        Ok(found.collect())
    };
    scores.chunks(stride).enumerate().map(one).collect()
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
