//! Queries as the integer pass takes them.

use crate::kernels::scan::{GROUP, MOST_WEIGHT, Terms, Width, groups};
use crate::search::index::{View, up};

/// Some queries, quantised.
#[derive(Debug)]
pub struct Queries<'a> {
    /// The weights, row-major.
    pub weights: &'a [f32],
    /// Quantised weights, whole groups a query.
    pub codes: Vec<i8>,
    /// What bounds are made of.
    pub terms: Vec<Terms>,
}

/// Below this, no sum of products can leave single precision, whatever the order of its terms:
/// 512 dimensions make a centre at most 23 times as long as the longest row.
const SAFE: f64 = 1e37;

/// Whether no score of these weights can overflow, nor any bound be other than a number.
pub fn safe(weights: &[f32], longest: f32) -> bool {
    length(weights) * f64::from(longest) < SAFE
}

fn length(weights: &[f32]) -> f64 {
    weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() * (1.0 + 1e-12)
}

impl<'a> Queries<'a> {
    /// Quantises queries for codes of one width. `slack` is 1; tests give less, to see that they
    /// would notice.
    pub fn new(view: &View<'_>, weights: &'a [f32], width: Width, slack: f64) -> Self {
        let dimensions = view.dimensions;
        let count = weights.len() / dimensions;
        let stride = GROUP * groups(dimensions);
        let mut codes = vec![0; count * stride];
        let terms = weights
            .chunks_exact(dimensions)
            .zip(codes.chunks_exact_mut(stride))
            .map(|(weights, codes)| quantise(weights, view.plan.step(), width, slack, codes))
            .collect();
        Self { weights, codes, terms }
    }

    /// The weights of one query.
    pub fn of(&self, query: usize) -> &'a [f32] {
        let dimensions = self.weights.len() / self.terms.len();
        &self.weights[query * dimensions..][..dimensions]
    }
}

/// One query; the derivation is in `search`.
fn quantise(weights: &[f32], step: &[f32], width: Width, slack: f64, codes: &mut [i8]) -> Terms {
    let scaled = |d: usize| f64::from(weights[d]) * f64::from(step[d]);
    let largest = (0..weights.len()).fold(0.0_f64, |largest, d| largest.max(scaled(d).abs()));
    // Rounded to f32 before anything is made of it, so that no rounding of it is left to bound.
    let unit = (largest / f64::from(MOST_WEIGHT)) as f32;
    let most = f64::from(MOST_WEIGHT);
    let (mut total, mut lost, mut sum) = (0.0, 0.0, 0);
    for d in 0..weights.len() {
        let value = scaled(d);
        let code =
            if unit > 0.0 { (value / f64::from(unit)).round().clamp(-most, most) } else { 0.0 };
        codes[d] = code as i8;
        sum += code as i32;
        total += value.abs();
        lost += (value - f64::from(unit) * code).abs();
    }
    // A code's cell in steps, and the code of the centre.
    let (cell, middle) = match width {
        Width::Eight => (1.0, 127.5),
        Width::Four => (17.0, 7.5),
    };
    let dimensions = weights.len() as f64;
    let epsilon = f64::from(f32::EPSILON) / 2.0;
    let gamma = dimensions * epsilon / (1.0 - dimensions * epsilon);
    let norm = length(weights);
    let error = 0.5001 * cell * total + 127.5 * lost + 127.5 * 2e-6 * total;
    Terms {
        unit: unit * cell as f32,
        error: up(error * (1.0 + 1e-6) * slack),
        zero: middle as f32 * sum as f32,
        norm: up(norm),
        rounding: up(3.0 * gamma * norm * (1.0 + 1e-6) * slack),
    }
}
