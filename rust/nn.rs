//! Multilayer perceptrons, checked and packed once, run without allocation.
//!
//! Rows pass through all layers [`TILE`] at a time, so that their activations never leave the
//! nearest caches. A one-hot first layer is a sum of table rows ([`OneHotTable`]), which a
//! session keeps for all its pages.
//!
//! A layer can be *reduced* to weights of eight bits, for those who would rather have speed than
//! the last bits: [`Mlp::reduce`].

mod reduce;

use crate::error::{Error, Result};
use crate::kernels::bytes::{BytePanels, DenseBytes, groups};
use crate::kernels::{Dense, Kernels, PANEL, Panels, Start, TILE, leaky_relu};

pub use reduce::Moments;

/// What follows a dense layer's sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(x, slope * x)`; slope 0 is the ReLU.
    LeakyRelu(f32),
    /// Hyperbolic tangent.
    Tanh,
}

/// A weight matrix as files hold it: row-major, one row an output.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `outputs * inputs` values.
    pub weight: &'a [f32],
    /// `outputs` values.
    pub bias: &'a [f32],
    /// Inputs of the layer.
    pub inputs: usize,
}

impl Weights<'_> {
    /// The largest magnitude an output can reach when no input exceeds `bound`.
    fn bound(&self, bound: f64) -> f64 {
        let rows = self.weight.chunks(self.inputs).zip(self.bias);
        rows.map(|(row, bias)| {
            row.iter().map(|w| f64::from(w.abs())).sum::<f64>() * bound + f64::from(bias.abs())
        })
        .fold(0.0, f64::max)
    }
}

/// Sums beyond this are refused when a network is loaded: f32 overflows at 3.4e38.
const LARGEST_SUM: f64 = 1e30;

/// Refuses a network that could overflow for inputs of at most `input_bound`.
pub fn check_range(layers: &[Weights<'_>], input_bound: f64, name: &str) -> Result<()> {
    let mut bound = input_bound;
    for layer in layers {
        bound = layer.bound(bound);
        // At each layer: zeros in the next one would hide that its inputs are infinite.
        if bound > LARGEST_SUM {
            let got = format!("weights under which one could reach {bound:.1e}");
            return Err(Error::argument(name, format!("sums of at most {LARGEST_SUM:.0e}"), got));
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Layer {
    weights: Packed,
    bias: Vec<f32>,
    activation: Activation,
}

#[derive(Clone, Debug)]
enum Packed {
    Floats(Panels),
    Bytes(BytePanels),
}

impl Layer {
    fn inputs(&self) -> usize {
        match &self.weights {
            Packed::Floats(panels) => panels.inputs(),
            Packed::Bytes(panels) => panels.inputs(),
        }
    }

    /// Outputs with padding.
    fn padded(&self) -> usize {
        match &self.weights {
            Packed::Floats(panels) => panels.padded(),
            Packed::Bytes(panels) => panels.padded(),
        }
    }

    fn slope(&self) -> Option<f32> {
        match self.activation {
            Activation::LeakyRelu(slope) => Some(slope),
            Activation::Identity | Activation::Tanh => None,
        }
    }
}

/// A packed multilayer perceptron.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
}

/// Rows that a network is run on.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// How many, at most [`TILE`].
    pub count: usize,
    /// Inputs, one row every `stride`.
    pub x: &'a [f32],
    /// Distance of two rows.
    pub stride: usize,
    /// Where the first layer's sums start, if not at its bias: a slice a row.
    pub sums: Option<&'a [&'a [f32]]>,
}

/// Two buffers that the layers write in turn, each of [`TILE`] rows, and the codes of the inputs of
/// reduced layers.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    buffers: [Vec<f32>; 2],
    words: Vec<i32>,
    steps: Vec<f32>,
}

impl Scratch {
    /// Makes room for networks whose widest layer has `width` outputs; never shrinks.
    pub fn reserve(&mut self, width: usize) {
        for buffer in &mut self.buffers {
            if buffer.len() < TILE * width {
                buffer.resize(TILE * width, 0.0);
            }
        }
        if self.words.len() < TILE * groups(width) {
            self.words.resize(TILE * groups(width), 0);
        }
        self.steps.resize(TILE, 0.0);
    }
}

impl Mlp {
    /// Packs layers from `skip` inputs of the first layer on; `hidden` follows every layer but
    /// the last, `last` the last one.
    pub fn pack(layers: &[Weights<'_>], skip: usize, hidden: Activation, last: Activation) -> Self {
        let packed = layers.iter().enumerate().map(|(index, layer)| {
            let skip = if index == 0 { skip } else { 0 };
            let outputs = layer.bias.len();
            let mut bias = layer.bias.to_vec();
            bias.resize(Panels::padded_outputs(outputs), 0.0);
            Layer {
                weights: Packed::Floats(Panels::pack(
                    layer.inputs - skip,
                    outputs,
                    |output, input| layer.weight[output * layer.inputs + skip + input],
                )),
                bias,
                activation: if index + 1 == layers.len() { last } else { hidden },
            }
        });
        Self { layers: packed.collect() }
    }

    /// Inputs of the first packed layer.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, Layer::inputs)
    }

    /// Row stride of the outputs.
    pub fn output_stride(&self) -> usize {
        self.layers.last().map_or(0, Layer::padded)
    }

    /// The widest that goes into or comes out of a layer, reduced or not: what
    /// [`Scratch::reserve`] takes.
    pub fn widest(&self) -> usize {
        let most = |layer: &Layer| layer.inputs().max(layer.padded().next_multiple_of(PANEL));
        self.layers.iter().map(most).max().unwrap_or(0)
    }

    /// How many layers there are.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// Inputs of a layer.
    pub fn inputs_of(&self, layer: usize) -> usize {
        self.layers[layer].inputs()
    }

    /// What a layer sees, one row every `stride`: the pair is (inputs, `stride`).
    pub fn seen<'s>(
        &self,
        kernels: Kernels,
        layer: usize,
        rows: Rows<'s>,
        scratch: &'s mut Scratch,
    ) -> (&'s [f32], usize) {
        let Some(before) = layer.checked_sub(1) else { return (rows.x, rows.stride) };
        let stride = self.layers[before].padded();
        (&self.first(kernels, layer, rows, scratch)[..rows.count * stride], stride)
    }

    /// Outputs for `rows` (at most [`TILE`]) rows of `x`, at [`Self::output_stride`].
    pub fn forward<'s>(
        &self,
        kernels: Kernels,
        rows: usize,
        x: &[f32],
        x_stride: usize,
        scratch: &'s mut Scratch,
    ) -> &'s mut [f32] {
        let rows = Rows { count: rows, x, stride: x_stride, sums: None };
        self.run(kernels, rows, scratch)
    }

    /// Outputs for rows, at [`Self::output_stride`].
    pub fn run<'s>(
        &self,
        kernels: Kernels,
        rows: Rows<'_>,
        scratch: &'s mut Scratch,
    ) -> &'s mut [f32] {
        self.first(kernels, self.depth(), rows, scratch)
    }

    /// The first `depth` layers.
    fn first<'s>(
        &self,
        kernels: Kernels,
        depth: usize,
        rows: Rows<'_>,
        scratch: &'s mut Scratch,
    ) -> &'s mut [f32] {
        let Rows { count: rows, x, stride, sums } = rows;
        assert!(rows <= TILE, "at most {TILE} rows at a time, got {rows}");
        let Scratch { buffers: [target, source], words, steps } = scratch;
        let (mut source, mut target) = (source, target);
        for (index, layer) in self.layers[..depth].iter().enumerate() {
            let (x, x_stride) = match index.checked_sub(1) {
                Some(previous) => (&source[..], self.layers[previous].padded()),
                None => (x, stride),
            };
            let out_stride = layer.padded();
            match &layer.weights {
                Packed::Floats(panels) => kernels.dense(Dense {
                    rows,
                    x,
                    x_stride,
                    panels,
                    start: match sums {
                        Some(sums) if index == 0 => Start::Rows(sums),
                        _ => Start::Bias(&layer.bias),
                    },
                    slope: layer.slope(),
                    out: target,
                    out_stride,
                }),
                Packed::Bytes(panels) => kernels.dense_bytes(DenseBytes {
                    rows,
                    x,
                    x_stride,
                    words,
                    steps,
                    panels,
                    bias: &layer.bias,
                    slope: layer.slope(),
                    out: target,
                    out_stride,
                }),
            }
            if layer.activation == Activation::Tanh {
                kernels.tanh(&mut target[..rows * out_stride]);
            }
            (source, target) = (target, source);
        }
        source
    }
}

/// A first layer over one-hot inputs: bias plus one row of the transposed weights a field.
#[derive(Clone, Debug)]
pub struct OneHotTable {
    rows: Vec<f32>,
    bias: Vec<f32>,
    first: Vec<usize>,
}

impl OneHotTable {
    /// From the first `sum(sizes)` inputs of a layer.
    pub fn new(layer: &Weights<'_>, sizes: &[usize]) -> Self {
        let width = Panels::padded_outputs(layer.bias.len());
        let mut bias = layer.bias.to_vec();
        bias.resize(width, 0.0);
        let inputs: usize = sizes.iter().sum();
        let mut rows = vec![0.0; inputs * width];
        for (output, weights) in layer.weight.chunks(layer.inputs).enumerate() {
            for (input, weight) in weights[..inputs].iter().enumerate() {
                rows[input * width + output] = *weight;
            }
        }
        let first = sizes.iter().scan(0, |next, size| {
            let first = *next;
            *next += size;
            Some(first)
        });
        Self { rows, bias, first: first.collect() }
    }

    /// Width of a row, a multiple of the kernels' half panel.
    pub fn width(&self) -> usize {
        self.bias.len()
    }

    /// `out = bias + row(field 0) + row(field 1) + ...`, in the order of the fields: what the
    /// dense layer would sum, since a product with 1 is exact and one with 0 adds nothing.
    pub fn sum(&self, kernels: Kernels, codes: &[u8], out: &mut [f32]) {
        // A customer has at most 256 fields, and most have so few that clearing room for all of
        // them would take longer than the sum.
        match self.first.len() {
            0..=16 => self.sum_of::<16>(kernels, codes, out),
            _ => self.sum_of::<256>(kernels, codes, out),
        }
    }

    fn sum_of<const MOST: usize>(&self, kernels: Kernels, codes: &[u8], out: &mut [f32]) {
        let mut rows = [0; MOST];
        for (row, (code, first)) in rows.iter_mut().zip(codes.iter().zip(&self.first)) {
            *row = first + usize::from(*code);
        }
        let fields = self.first.len();
        kernels.sum_rows(&self.bias, &self.rows, &rows[..fields], &mut out[..self.bias.len()]);
    }

    /// [`Self::sum`] followed by the leaky ReLU, for a network whose whole first layer this is.
    pub fn sum_activated(&self, kernels: Kernels, codes: &[u8], slope: f32, out: &mut [f32]) {
        self.sum(kernels, codes, out);
        for sum in &mut out[..self.width()] {
            *sum = leaky_relu(*sum, slope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(
        values: &mut impl Iterator<Item = f32>,
        inputs: usize,
        outputs: usize,
    ) -> (Vec<f32>, Vec<f32>) {
        (values.take(inputs * outputs).collect(), values.take(outputs).collect())
    }

    #[test]
    fn table_equals_the_dense_first_layer() {
        let mut values =
            (0..).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8.4e6 - 1.0);
        let (weight, bias) = weights(&mut values, 9, 21);
        let (weight2, bias2) = weights(&mut values, 21, 5);
        let layers = [
            Weights { weight: &weight, bias: &bias, inputs: 9 },
            Weights { weight: &weight2, bias: &bias2, inputs: 21 },
        ];
        let whole = Mlp::pack(&layers, 0, Activation::LeakyRelu(0.01), Activation::Identity);
        let rest = Mlp::pack(&layers, 7, Activation::LeakyRelu(0.01), Activation::Identity);
        let table = OneHotTable::new(&layers[0], &[3, 4]);
        let kernels = Kernels::best().unwrap();
        let mut scratch = Scratch::default();
        scratch.reserve(whole.widest());
        let x = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.25, -3.5];
        let want = whole.forward(kernels, 1, &x, 9, &mut scratch)[..5].to_vec();
        let mut sums = [0.0; 24];
        table.sum(kernels, &[1, 3], &mut sums);
        let rows = Rows { count: 1, x: &x[7..], stride: 2, sums: Some(&[&sums]) };
        let got = rest.run(kernels, rows, &mut scratch)[..5].to_vec();
        assert_eq!(want, got);
    }

    #[test]
    fn range_check_refuses_what_could_overflow() {
        let (weight, bias) = (vec![1e20; 4], vec![0.0; 2]);
        let layer = Weights { weight: &weight, bias: &bias, inputs: 2 };
        assert!(check_range(&[layer], 1.0, "net").is_ok());
        let error = check_range(&[layer, layer], 1.0, "net").unwrap_err().to_string();
        assert!(error.contains("expected sums of at most 1e30"), "{error}");
    }
}
