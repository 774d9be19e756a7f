//! Weights in eight bits, rounded one input after the other so that outputs change least.
//!
//! ```text
//! H = mean of x x' over inputs x that the layer sees, and a little on its diagonal
//! U = upper triangular, H^-1 = U'U;  inputs in the order of falling H[i][i]
//! for each input i:  code = round(w[i] / scale);  error = (w[i] - code * scale) / U[i][i]
//!                    w[j] -= error * U[i][j]  for the inputs j that are still to come
//! ```
//!
//! What rounding one weight does is made up for by those not rounded yet (GPTQ: Frantar et al.,
//! ICLR 2023, algorithm 1). All in f64 and in one order, so that every CPU rounds alike.

use super::{Mlp, Packed};
use crate::kernels::Panels;
use crate::kernels::bytes::BytePanels;

/// Codes go from minus this to this.
const MOST: f64 = 127.0;
/// What is added to H's diagonal, of its mean.
const DAMPING: f64 = 0.001;

/// The second moments of a layer's inputs.
#[derive(Clone, Debug)]
pub struct Moments {
    inputs: usize,
    sums: Vec<f64>,
}

impl Moments {
    /// Of no inputs yet.
    pub fn new(inputs: usize) -> Self {
        Self { inputs, sums: vec![0.0; inputs * inputs] }
    }

    /// Adds rows of inputs, one every `stride`.
    pub fn add(&mut self, x: &[f32], stride: usize) {
        for row in x.chunks(stride) {
            let row = &row[..self.inputs];
            for (sums, a) in self.sums.chunks_mut(self.inputs).zip(row) {
                for (sum, b) in sums.iter_mut().zip(row) {
                    *sum += f64::from(*a) * f64::from(*b);
                }
            }
        }
    }

    /// Adds those of a group, which count as much as any other group's whatever their size.
    pub fn add_group(&mut self, group: &Self) {
        let trace = group.trace();
        if trace > 0.0 {
            for (sum, other) in self.sums.iter_mut().zip(&group.sums) {
                *sum += other / trace;
            }
        }
    }

    fn trace(&self) -> f64 {
        self.sums.iter().step_by(self.inputs + 1).sum()
    }

    /// The order in which inputs are rounded, and U of the inputs in this order.
    fn factor(&self) -> (Vec<usize>, Vec<f64>) {
        let n = self.inputs;
        let diagonal = |input: usize| self.sums[input * (n + 1)];
        let mut order: Vec<_> = (0..n).collect();
        order.sort_by(|a, b| diagonal(*b).total_cmp(&diagonal(*a)));
        let damping = match DAMPING * self.trace() / n as f64 {
            0.0 => 1.0,
            damping => damping,
        };
        let mut h = vec![0.0; n * n];
        for (i, row) in order.iter().enumerate() {
            for (j, column) in order.iter().enumerate() {
                h[i * n + j] = self.sums[row * n + column];
            }
            h[i * (n + 1)] += damping;
        }
        (order, inverse(&root(&h, n), n))
    }
}

/// The upper triangular R with H = R R'.
fn root(h: &[f64], n: usize) -> Vec<f64> {
    let mut r = vec![0.0; n * n];
    for j in (0..n).rev() {
        for i in (0..=j).rev() {
            let beyond = r[i * n..][j + 1..n].iter().zip(&r[j * n..][j + 1..n]);
            let rest = h[i * n + j] - beyond.map(|(a, b)| a * b).sum::<f64>();
            r[i * n + j] = if i == j { rest.sqrt() } else { rest / r[j * (n + 1)] };
        }
    }
    r
}

/// The inverse of an upper triangular matrix.
fn inverse(r: &[f64], n: usize) -> Vec<f64> {
    let mut u = vec![0.0; n * n];
    for j in 0..n {
        u[j * (n + 1)] = 1.0 / r[j * (n + 1)];
        for i in (0..j).rev() {
            let sum: f64 = (i + 1..=j).map(|k| r[i * n + k] * u[k * n + j]).sum();
            u[i * n + j] = -sum / r[i * (n + 1)];
        }
    }
    u
}

impl Mlp {
    /// Replaces the weights of a layer by ones of eight bits, for inputs with these moments.
    pub fn reduce(&mut self, layer: usize, moments: &Moments) {
        let layer = &mut self.layers[layer];
        if let Packed::Floats(panels) = &layer.weights {
            let panels = reduce(panels, moments);
            layer.bias.resize(panels.padded(), 0.0);
            layer.weights = Packed::Bytes(panels);
        }
    }

    /// What the weights of a reduced layer are taken for, a row an output; `None` of any other.
    pub fn reduced_weights(&self, layer: usize) -> Option<Vec<f64>> {
        let Packed::Bytes(panels) = &self.layers.get(layer)?.weights else { return None };
        let row = |output| (0..panels.inputs()).map(move |input| panels.weight(output, input));
        Some((0..panels.outputs()).flat_map(row).collect())
    }
}

/// A layer's weights in eight bits, for inputs with these moments.
pub fn reduce(weights: &Panels, moments: &Moments) -> BytePanels {
    let (inputs, outputs) = (weights.inputs(), weights.outputs());
    assert_eq!(moments.inputs, inputs);
    let (order, u) = moments.factor();
    let mut codes = vec![0; inputs * outputs];
    let mut scales = Vec::with_capacity(outputs);
    for (output, codes) in codes.chunks_mut(inputs).enumerate() {
        let mut row: Vec<_> =
            order.iter().map(|input| f64::from(weights.weight(output, *input))).collect();
        let largest = row.iter().fold(0f64, |largest, weight| largest.max(weight.abs()));
        let scale = (largest / MOST) as f32;
        scales.push(scale);
        if scale < f32::MIN_POSITIVE {
            continue;
        }
        let scale = f64::from(scale);
        for i in 0..inputs {
            let code = (row[i] / scale).round_ties_even().clamp(-MOST, MOST);
            codes[order[i]] = code as i8;
            let error = (row[i] - code * scale) / u[i * (inputs + 1)];
            for (weight, factor) in row[i + 1..].iter_mut().zip(&u[i * inputs..][i + 1..inputs]) {
                *weight -= error * factor;
            }
        }
    }
    BytePanels::pack(inputs, &codes, scales)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{self, Origin, Purpose};

    fn values(session: u64, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count];
        rng::fill(Origin { seed: 5, session, page: 0, purpose: Purpose::Policy }, &mut out);
        out.iter_mut().for_each(|value| *value -= 0.5);
        out
    }

    /// Inputs of which some go with others, as hidden units do.
    fn inputs(rows: usize, width: usize) -> Vec<f32> {
        let (own, shared) = (values(1, rows * width), values(2, rows * 3));
        let row = |i: usize| i / width;
        let mix = |(i, x): (usize, &f32)| {
            let column = i % width;
            (0.2 * x + shared[row(i) * 3 + column % 3]) * (1 + column % 5) as f32
        };
        own.iter().enumerate().map(mix).collect()
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let (n, x) = (7, inputs(40, 7));
        let mut moments = Moments::new(n);
        moments.add(&x, n);
        let (order, u) = moments.factor();
        let damping = DAMPING * moments.trace() / n as f64;
        // U'U H is the identity.
        for i in 0..n {
            for j in 0..n {
                let inverse = |k: usize| (0..n).map(|m| u[m * n + i] * u[m * n + k]).sum::<f64>();
                let h = |k: usize| {
                    let value = moments.sums[order[k] * n + order[j]];
                    if k == j { value + damping } else { value }
                };
                let product: f64 = (0..n).map(|k| inverse(k) * h(k)).sum();
                let want = if i == j { 1.0 } else { 0.0 };
                assert!((product - want).abs() < 1e-9, "{i} {j}: {product}");
            }
        }
    }

    /// The mean square of what rounding changes in the outputs.
    fn damage(x: &[f32], width: usize, weights: &Panels, reduced: &BytePanels) -> f64 {
        let outputs = weights.outputs();
        let mut sum = 0.0;
        for row in x.chunks(width) {
            for output in 0..outputs {
                let change = row.iter().enumerate().map(|(input, x)| {
                    let exact = f64::from(weights.weight(output, input));
                    f64::from(*x) * (reduced.weight(output, input) - exact)
                });
                sum += change.sum::<f64>().powi(2);
            }
        }
        sum / (x.len() / width * outputs) as f64
    }

    #[test]
    fn errors_are_made_up_for() {
        let (width, outputs) = (32, 9);
        let x = inputs(400, width);
        let (mut seen, mut plain) = (Moments::new(width), Moments::new(width));
        seen.add(&x, width);
        // Nothing is known of how inputs go together: each weight is rounded by itself.
        (0..width).for_each(|i| plain.sums[i * (width + 1)] = 1.0);
        let raw = values(3, width * outputs);
        let weights = Panels::pack(width, outputs, |output, input| raw[output * width + input]);
        let [ours, by_itself] =
            [&seen, &plain].map(|moments| damage(&x, width, &weights, &reduce(&weights, moments)));
        assert!(ours < 0.3 * by_itself, "{ours} {by_itself}");
        for output in 0..outputs {
            for input in 0..width {
                let exact = f64::from(weights.weight(output, input));
                let rounded = reduce(&weights, &plain).weight(output, input);
                assert!((rounded - exact).abs() < 0.51 * 0.5 / MOST, "{rounded} {exact}");
            }
        }
    }

    #[test]
    fn inputs_that_are_always_zero_and_outputs_without_weights_do_no_harm() {
        let weights = Panels::pack(3, 2, |output, input| (output * (input + 1)) as f32);
        let reduced = reduce(&weights, &Moments::new(3));
        for (output, input, want) in [(0, 0, 0.0), (0, 2, 0.0), (1, 0, 1.0), (1, 2, 3.0)] {
            assert!((reduced.weight(output, input) - want).abs() < 0.02);
        }
    }
}
