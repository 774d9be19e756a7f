//! Dense layers in whole numbers: inputs of eight bits without a sign, weights of eight with one.
//!
//! ```text
//! code[k] = round(x[k] / step) + ZERO,   all of the row's within 0 to 255
//! out[c]  = act(bias[c] + step * scale[c] * sum of (code[k] - ZERO) * w[k][c])
//! ```
//!
//! [`ZERO`] is low because what comes out of a leaky ReLU goes far above 0 and little below.
//!
//! Sums of whole numbers do not depend on their order, so every instruction set gives the same
//! bits here too; what is given up is the precision of the products, four of which an instruction
//! that multiplies bytes adds where one of floats does.

use super::{Kernels, PANEL};

/// Inputs that one instruction multiplies and adds.
pub const BYTES: usize = 4;
/// The code of 0.
pub const ZERO: i32 = 16;
/// The largest code of an input.
const MOST: i32 = 255;
/// Added to a small number, it leaves the nearest whole one in the lowest bits, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// The weights of a layer, packed: panels of 16 outputs, four inputs of each output in a word;
/// inputs and outputs beyond the last have the weight 0.
#[derive(Clone, Debug)]
pub struct BytePanels {
    /// Words of the panels, one after the other: 16 for each four inputs.
    pub(super) words: Vec<[i32; PANEL]>,
    /// What a code's unit is worth, for each output.
    pub(super) scales: Vec<f32>,
    /// Where sums start: minus [`ZERO`] times the sum of an output's codes.
    pub(super) starts: Vec<i32>,
    inputs: usize,
    outputs: usize,
}

impl BytePanels {
    /// Packs codes, a row an output, that are worth `scales` of each output.
    pub fn pack(inputs: usize, codes: &[i8], mut scales: Vec<f32>) -> Self {
        let outputs = scales.len();
        assert_eq!(codes.len(), inputs * outputs);
        let padded = outputs.next_multiple_of(PANEL);
        let code = |output: usize, input: usize| {
            if output < outputs && input < inputs { codes[output * inputs + input] } else { 0 }
        };
        let mut words = Vec::with_capacity(padded / PANEL * groups(inputs));
        for first in (0..padded).step_by(PANEL) {
            for group in 0..groups(inputs) {
                words.push(std::array::from_fn(|column| {
                    let byte = |k: usize| code(first + column, group * BYTES + k) as u8;
                    i32::from_ne_bytes(std::array::from_fn(byte))
                }));
            }
        }
        let start = |row: &[i8]| -ZERO * row.iter().map(|code| i32::from(*code)).sum::<i32>();
        let mut starts: Vec<i32> = codes.chunks(inputs.max(1)).map(start).collect();
        starts.resize(padded, 0);
        scales.resize(padded, 0.0);
        Self { words, scales, starts, inputs, outputs }
    }

    /// Inputs of the layer.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of the layer, padding not counted.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Outputs with padding: the columns a kernel writes.
    pub fn padded(&self) -> usize {
        self.scales.len()
    }

    /// What one weight is taken for.
    pub fn weight(&self, output: usize, input: usize) -> f64 {
        assert!(output < self.outputs && input < self.inputs);
        let word = self.words[output / PANEL * self.groups() + input / BYTES][output % PANEL];
        let code = word.to_ne_bytes()[input % BYTES] as i8;
        f64::from(code) * f64::from(self.scales[output])
    }

    /// Words of a row of inputs.
    pub fn groups(&self) -> usize {
        groups(self.inputs)
    }
}

/// Words that hold so many codes.
pub fn groups(inputs: usize) -> usize {
    inputs.div_ceil(BYTES)
}

/// One dense layer over some rows.
#[derive(Debug)]
pub struct DenseBytes<'a> {
    /// Rows to compute.
    pub rows: usize,
    /// Inputs, one row every `x_stride`.
    pub x: &'a [f32],
    /// Distance of two input rows.
    pub x_stride: usize,
    /// Room for the inputs' codes, [`BytePanels::groups`] words a row.
    pub words: &'a mut [i32],
    /// Room for what a unit of each row is worth; 0 if all of the row is 0.
    pub steps: &'a mut [f32],
    /// Weights.
    pub panels: &'a BytePanels,
    /// Bias, padded like the outputs.
    pub bias: &'a [f32],
    /// Slope of the leaky ReLU for negative sums, in [0, 1); `None` leaves sums as they are.
    pub slope: Option<f32>,
    /// Outputs, one row every `out_stride`; padding columns are overwritten.
    pub out: &'a mut [f32],
    /// Distance of two output rows.
    pub out_stride: usize,
}

impl Kernels {
    /// Computes a dense layer in whole numbers.
    pub fn dense_bytes(self, job: DenseBytes<'_>) {
        let (inputs, padded) = (job.panels.inputs, job.panels.padded());
        assert!(job.words.len() >= job.rows * job.panels.groups() && job.steps.len() >= job.rows);
        assert!(job.x_stride >= inputs && job.out_stride >= padded && job.bias.len() >= padded);
        if job.rows > 0 {
            assert!(job.x.len() >= (job.rows - 1) * job.x_stride + inputs);
            assert!(job.out.len() >= (job.rows - 1) * job.out_stride + padded);
        }
        dispatch!(self, dense_bytes(job));
    }
}

/// What a unit of a row of values between these bounds is worth, and the inverse of that.
#[inline(always)]
pub(super) fn step((low, high): (f32, f32)) -> (f32, f32) {
    let (up, down) = (high * (1.0 / (MOST - ZERO) as f32), -low * (1.0 / ZERO as f32));
    let step = if up > down { up } else { down };
    // What is so small that its inverse would overflow is 0.
    if step < f32::MIN_POSITIVE { (0.0, 0.0) } else { (step, 1.0 / step) }
}

/// The codes of values.
#[inline(always)]
pub(super) fn encode(x: &[f32], inverse: f32, words: &mut [i32]) {
    let code = |x: f32| {
        let whole = (x * inverse + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        (whole + ZERO).clamp(0, MOST) as u8
    };
    let (whole, rest) = x.as_chunks::<BYTES>();
    for (word, x) in words.iter_mut().zip(whole) {
        *word = i32::from_ne_bytes(x.map(code));
    }
    if !rest.is_empty() {
        let byte = |k: usize| rest.get(k).map_or(0, |x| code(*x));
        words[whole.len()] = i32::from_ne_bytes(std::array::from_fn(byte));
    }
}

/// See [`DenseBytes`].
#[inline(always)]
pub fn dense_bytes(job: DenseBytes<'_>) {
    let groups = job.panels.groups();
    for row in 0..job.rows {
        let x = &job.x[row * job.x_stride..][..job.panels.inputs];
        let bounds = x.iter().fold((0f32, 0f32), |(low, high), x| {
            (if *x < low { *x } else { low }, if *x > high { *x } else { high })
        });
        let (step, inverse) = step(bounds);
        let words = &mut job.words[row * groups..][..groups];
        job.steps[row] = step;
        encode(x, inverse, words);
        for column in (0..job.panels.padded()).step_by(PANEL) {
            let starts = &job.panels.starts[column..][..PANEL];
            let mut sums: [i32; PANEL] = std::array::from_fn(|lane| starts[lane]);
            let panel = &job.panels.words[column / PANEL * groups..][..groups];
            for (word, weights) in words.iter().zip(panel) {
                let codes = word.to_ne_bytes();
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let weights = weights.to_ne_bytes();
                    for k in 0..BYTES {
                        *sum += i32::from(codes[k]) * i32::from(weights[k] as i8);
                    }
                }
            }
            for (lane, sum) in sums.into_iter().enumerate() {
                let worth = step * job.panels.scales[column + lane];
                let value = (sum as f32).mul_add(worth, job.bias[column + lane]);
                job.out[row * job.out_stride + column + lane] =
                    job.slope.map_or(value, |slope| super::leaky_relu(value, slope));
            }
        }
    }
}
