//! The best rows of one query so far: some scored, some only bounded.
//!
//! The integer pass gives a lower and an upper bound for a row. Rows wait with their bounds until
//! there are many; then the k-th largest lower bound becomes the threshold, which most upper bounds
//! fail. Scoring what is left at the very end touches a few rows more than k. Where bounds decide
//! nothing (equal rows), waiting rows are scored early, so that there are never many.

use std::cmp::Ordering;

use crate::kernels::Kernels;
use crate::search::index::View;

/// Up to so many best rows are kept in order.
const FEW: usize = 64;

/// A row and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The score, a number.
    pub score: f32,
    /// The row.
    pub row: u32,
}

impl Scored {
    /// The order of answers: higher scores first, of equal ones the lower row.
    pub fn before(&self, other: &Self) -> Ordering {
        // Zeros of both signs are equal; whatever else, the order is total.
        (other.score + 0.0).total_cmp(&(self.score + 0.0)).then(self.row.cmp(&other.row))
    }
}

/// Leaves the best k, in no order.
pub fn keep_best(rows: &mut Vec<Scored>, k: usize) {
    if rows.len() > k {
        rows.select_nth_unstable_by(k - 1, Scored::before);
        rows.truncate(k);
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    lower: f32,
    upper: f32,
    position: u32,
}

/// The best rows of one query.
#[derive(Debug)]
pub struct Best<'a> {
    kernels: Kernels,
    view: &'a View<'a>,
    weights: &'a [f32],
    k: usize,
    scored: Vec<Scored>,
    waiting: Vec<Waiting>,
    threshold: f32,
}

impl<'a> Best<'a> {
    /// No rows yet.
    pub fn new(kernels: Kernels, view: &'a View<'a>, weights: &'a [f32], k: usize) -> Self {
        // More than there are take no room.
        let k = k.min(view.rows()).max(1);
        let waiting = Vec::with_capacity(Self::room(k));
        let threshold = f32::NEG_INFINITY;
        Self { kernels, view, weights, k, scored: Vec::new(), waiting, threshold }
    }

    /// Rows that may wait.
    fn room(k: usize) -> usize {
        2 * k + 32
    }

    /// What a row's score must reach to be among the best: no more than the k-th best score.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Takes a row whose score is within `error` of `score`.
    #[inline]
    pub fn offer(&mut self, score: f32, error: f32, position: u32) {
        let upper = score + error;
        if upper < self.threshold {
            return;
        }
        // Bounds that are not numbers bound nothing.
        let lower = if error < f32::INFINITY { score - error } else { f32::NEG_INFINITY };
        self.waiting.push(Waiting { lower, upper, position });
        if self.waiting.len() == Self::room(self.k) {
            self.tighten();
        }
    }

    /// Raises the threshold to what the rows so far allow.
    fn tighten(&mut self) {
        if self.scored.len() + self.waiting.len() >= self.k {
            let scored = self.scored.iter().map(|row| row.score);
            let mut lower: Vec<f32> =
                scored.chain(self.waiting.iter().map(|row| row.lower)).collect();
            let (_, least, _) = lower.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
            self.threshold = self.threshold.max(*least);
        }
        let threshold = self.threshold;
        // An upper bound that is not a number bounds nothing.
        self.waiting.retain(|row| row.upper >= threshold || row.upper.is_nan());
        if self.waiting.len() > Self::room(self.k) / 2 + self.k / 2 {
            self.score();
        }
    }

    /// Scores the rows that wait.
    fn score(&mut self) {
        let positions: Vec<u32> = self.waiting.iter().map(|row| row.position).collect();
        self.waiting.clear();
        self.take(&positions);
    }

    /// Scores rows and keeps the best.
    fn take(&mut self, positions: &[u32]) {
        let mut scores = vec![0.0; positions.len()];
        self.kernels.dots(self.weights, self.view.attributes, positions, &mut scores);
        self.take_scores(positions, &scores);
    }

    /// Keeps the best of scored rows; says whether all scores are finite.
    pub fn take_scores(&mut self, positions: &[u32], scores: &[f32]) -> bool {
        // Runs without any good score are the rule.
        const RUN: usize = 16;
        if self.threshold == f32::NEG_INFINITY {
            self.threshold = self.guess(scores);
        }
        let mut sum = 0.0;
        for (positions, scores) in positions.chunks(RUN).zip(scores.chunks(RUN)) {
            // Zero, unless a score is not finite.
            sum += scores.iter().map(|score| score * 0.0).sum::<f32>();
            if !scores.iter().fold(false, |any, score| any | (*score >= self.threshold)) {
                continue;
            }
            for (score, position) in scores.iter().zip(positions) {
                if *score >= self.threshold {
                    let row = self.view.order[*position as usize];
                    self.keep(Scored { score: *score, row });
                }
            }
        }
        if self.k > FEW && self.scored.len() >= self.k {
            keep_best(&mut self.scored, self.k);
            let least = self.scored.iter().fold(f32::INFINITY, |least, row| least.min(row.score));
            self.threshold = self.threshold.max(least);
        }
        sum == 0.0
    }

    /// A threshold that at least k of these scores reach: the k-th of 32 lanes' largest.
    fn guess(&self, scores: &[f32]) -> f32 {
        const LANES: usize = 32;
        if self.k > LANES || scores.len() < 2 * LANES {
            return f32::NEG_INFINITY;
        }
        let mut largest = [f32::NEG_INFINITY; LANES];
        for scores in scores.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                largest[lane] =
                    if scores[lane] > largest[lane] { scores[lane] } else { largest[lane] };
            }
        }
        largest.sort_unstable_by(|a, b| b.total_cmp(a));
        largest[self.k - 1]
    }

    /// Adds a row. A short list stays in order, so that it is always the best k; a long one is cut
    /// when it has doubled, and by the caller.
    fn keep(&mut self, row: Scored) {
        if self.k > FEW {
            self.scored.push(row);
            if self.scored.len() >= 2 * self.k {
                keep_best(&mut self.scored, self.k);
            }
            return;
        }
        let at = self.scored.partition_point(|other| other.before(&row) == Ordering::Less);
        if at < self.k {
            self.scored.truncate(self.k - 1);
            self.scored.insert(at, row);
            if self.scored.len() == self.k {
                self.threshold = self.threshold.max(self.scored[self.k - 1].score);
            }
        }
    }

    /// The best rows, at most k, in no order.
    pub fn finish(mut self) -> Vec<Scored> {
        self.tighten();
        self.score();
        self.scored
    }
}
