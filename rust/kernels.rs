//! The arithmetic of the hot path: dense layers, categorical draws, uniforms.
//!
//! ```text
//! dense:        out[r][c] = act(start[r][c] + x[r][0]*w[0][c] + x[r][1]*w[1][c] + ...)
//! categorical:  first c with u * total < cumulative[c],  cumulative of exp(logit - max)
//! ```
//!
//! # One answer on every CPU
//! `scalar` defines the semantics: every output sums over its inputs in increasing order, each
//! step one fused multiply-add, and `exp` is our own polynomial. The vector versions put *outputs*
//! (or sessions) side by side in lanes and never split a sum, so they make the same roundings in
//! the same order and agree with `scalar` to the last bit. Only dense layers, selection and scans are
//! worth intrinsics; the rest is the scalar source compiled once more with wider registers.
//!
//! `bytes` has layers in whole numbers for those who would rather have speed; they agree as well.
//!
//! Bench: `cargo bench --bench kernels`. Property tests: at the end of this file.

/// Calls `$name` in the module of the instruction set.
macro_rules! dispatch {
    ($self:ident, $name:ident($($argument:expr),*)) => {
        match $self.isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Kernels` is only made for an instruction set that the CPU has.
            $crate::kernels::Isa::Avx512 => unsafe {
                $crate::kernels::avx512::$name($($argument),*)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::kernels::Isa::Avx2 => unsafe { $crate::kernels::avx2::$name($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            $crate::kernels::Isa::Neon => unsafe { $crate::kernels::neon::$name($($argument),*) },
            _ => $crate::kernels::scalar::$name($($argument),*),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bytes;
#[cfg(test)]
mod bytes_tests;
pub mod heads;
#[cfg(test)]
mod heads_tests;
pub mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub mod scan;
#[cfg(test)]
mod scan_tests;
mod select;
#[cfg(test)]
mod tests;

pub use scalar::leaky_relu;

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::rng::{LANES, Origin};

/// Columns of a packed panel.
pub const PANEL: usize = 16;
/// Columns of the narrower panel that may come last.
pub const HALF: usize = 8;
/// Rows that pass through all layers together: their activations stay in the nearest caches.
pub const TILE: usize = 48;
/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "VIRTUALTB_FAST_ISA";

/// Instruction sets, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust; defines the semantics.
    Scalar,
    /// 128-bit vectors of 64-bit Arm.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors (F and VL).
    Avx512,
}

impl Isa {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name used by [`ISA_VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this CPU has it.
    pub fn available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[allow(unreachable_patterns, reason = "the sets of the other architecture")]
            _ => false,
        }
    }
}

/// A dense layer's weights, packed for the kernels: panels of 16 outputs (the last may have 8),
/// each laid out input by input; columns beyond the last output are zero.
#[derive(Clone, Debug)]
pub struct Panels {
    data: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Panels {
    /// Packs `weight(output, input)`.
    pub fn pack(inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let padded = Self::padded_outputs(outputs);
        let mut data = Vec::with_capacity(inputs * padded);
        let mut first = 0;
        while first < padded {
            let width = (padded - first).min(PANEL);
            for input in 0..inputs {
                for output in first..first + width {
                    data.push(if output < outputs { weight(output, input) } else { 0.0 });
                }
            }
            first += width;
        }
        Self { data, inputs, outputs }
    }

    /// The row stride that a kernel writes: `outputs` rounded up to a whole half panel.
    pub fn padded_outputs(outputs: usize) -> usize {
        outputs.next_multiple_of(HALF)
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
        Self::padded_outputs(self.outputs)
    }

    /// One weight.
    pub fn weight(&self, output: usize, input: usize) -> f32 {
        assert!(output < self.outputs && input < self.inputs);
        let panel = output / PANEL;
        let width = if panel < self.full_panels() { PANEL } else { HALF };
        self.data[panel * PANEL * self.inputs + input * width + output % PANEL]
    }

    /// Full panels; one half panel follows if `padded` is not a multiple of 16.
    fn full_panels(&self) -> usize {
        self.padded() / PANEL
    }

    fn has_half(&self) -> bool {
        !self.padded().is_multiple_of(PANEL)
    }
}

/// Where a dense layer's sums start.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// At the bias, padded like the outputs.
    Bias(&'a [f32]),
    /// At a value of each row and output: a slice a row, padded like the outputs.
    Rows(&'a [&'a [f32]]),
}

/// One dense layer over some rows.
#[derive(Debug)]
pub struct Dense<'a> {
    /// Rows to compute.
    pub rows: usize,
    /// Inputs, one row every `x_stride`.
    pub x: &'a [f32],
    /// Distance of two input rows.
    pub x_stride: usize,
    /// Weights.
    pub panels: &'a Panels,
    /// First term of every sum.
    pub start: Start<'a>,
    /// Slope of the leaky ReLU for negative sums, in [0, 1); `None` leaves sums as they are.
    pub slope: Option<f32>,
    /// Outputs, one row every `out_stride`; padding columns are overwritten.
    pub out: &'a mut [f32],
    /// Distance of two output rows.
    pub out_stride: usize,
}

impl Dense<'_> {
    /// The bounds that the vector kernels rely on.
    fn check(&self) {
        let padded = self.panels.padded();
        assert_eq!(self.panels.data.len(), self.panels.inputs * padded);
        assert!(self.x_stride >= self.panels.inputs && self.out_stride >= padded);
        if self.rows > 0 {
            assert!(self.x.len() >= (self.rows - 1) * self.x_stride + self.panels.inputs);
            assert!(self.out.len() >= (self.rows - 1) * self.out_stride + padded);
        }
        match self.start {
            Start::Bias(bias) => assert!(bias.len() >= padded),
            Start::Rows(rows) => {
                assert!(rows[..self.rows].iter().all(|row| row.len() >= padded));
            }
        }
    }
}

/// A softmax head: `size` consecutive logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// First logit.
    pub first: usize,
    /// Number of categories, 1 to 256.
    pub size: usize,
}

/// Draws one category per head for some rows by inverting the cumulative distribution.
#[derive(Debug)]
pub struct Categorical<'a> {
    /// Rows to draw for.
    pub rows: usize,
    /// Logits, one row every `stride`.
    pub logits: &'a [f32],
    /// Distance of two rows of logits.
    pub stride: usize,
    /// The heads of a row.
    pub heads: &'a [Head],
    /// Uniforms in [0, 1), one a head, `heads.len()` a row.
    pub uniforms: &'a [f32],
    /// The categories drawn, laid out like `uniforms`.
    pub out: &'a mut [u8],
}

impl Categorical<'_> {
    fn check(&self) {
        let draws = self.rows * self.heads.len();
        assert!(self.uniforms.len() >= draws && self.out.len() >= draws);
        for head in self.heads {
            assert!((1..=256).contains(&head.size));
            assert!(head.first + head.size <= self.stride);
        }
        assert!(self.logits.len() >= self.rows * self.stride);
    }
}

/// The kernels of one instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels(Isa);

impl Kernels {
    /// The reference, which every CPU has.
    pub const SCALAR: Self = Self(Isa::Scalar);

    /// The kernels of one instruction set, if this CPU has it.
    pub fn of(isa: Isa) -> Result<Self> {
        if isa.available() {
            Ok(Self(isa))
        } else {
            let have: Vec<_> =
                Isa::ALL.iter().filter(|i| i.available()).map(|i| i.name()).collect();
            Err(Error::argument(
                "instruction set",
                format!("one of {}", have.join(", ")),
                isa.name(),
            ))
        }
    }

    /// The best kernels of this CPU, or those that [`ISA_VARIABLE`] names; chosen once a process.
    pub fn best() -> Result<Self> {
        static CHOICE: OnceLock<std::result::Result<Kernels, String>> = OnceLock::new();
        CHOICE
            .get_or_init(|| {
                Self::choose(std::env::var(ISA_VARIABLE).ok().as_deref()).map_err(|e| e.to_string())
            })
            .clone()
            .map_err(|message| {
                Error::argument(ISA_VARIABLE, "an instruction set of this CPU", message)
            })
    }

    fn choose(forced: Option<&str>) -> Result<Self> {
        match forced {
            None | Some("") => {
                let best = Isa::ALL.into_iter().rev().find(|isa| isa.available());
                Ok(Self(best.unwrap_or(Isa::Scalar)))
            }
            Some(name) => {
                let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name);
                Self::of(isa.ok_or_else(|| {
                    Error::argument(ISA_VARIABLE, "scalar, neon, avx2 or avx512", name)
                })?)
            }
        }
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.0
    }

    /// Computes a dense layer.
    pub fn dense(self, job: Dense<'_>) {
        job.check();
        dispatch!(self, dense(job));
    }

    /// Draws categories.
    pub fn categorical(self, job: Categorical<'_>) {
        job.check();
        dispatch!(self, categorical(job));
    }

    /// `out = start + table[rows[0]] + table[rows[1]] + ...`, added in this order, all as wide as
    /// `start`, which is a whole number of half panels.
    pub fn sum_rows(self, start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
        assert!(start.len().is_multiple_of(HALF) && out.len() == start.len());
        dispatch!(self, sum_rows(start, table, rows, out));
    }

    /// Sets bit `i % 64` of word `i / 64` where value `i` lies from `low` to `high`, both included,
    /// and clears the others, those past the last value too.
    pub fn within(self, values: &[f32], low: f32, high: f32, words: &mut [u64]) {
        assert_eq!(words.len(), values.len().div_ceil(64));
        dispatch!(self, within(values, low, high, words));
    }

    /// The same where a value is the one that is wanted.
    pub fn equal_bytes(self, values: &[u8], wanted: u8, words: &mut [u64]) {
        assert_eq!(words.len(), values.len().div_ceil(64));
        dispatch!(self, equal_bytes(values, wanted, words));
    }

    /// Fills `out` with the uniforms of one origin (see [`crate::rng::fill`]).
    pub fn uniforms(self, origin: Origin, out: &mut [f32]) {
        dispatch!(self, uniforms(origin, out));
    }

    /// The first four uniforms of up to eight origins (see [`crate::rng::fill_first`]).
    pub fn first_uniforms(self, origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
        assert!(origins.len() <= LANES);
        dispatch!(self, first_uniforms(origins, out));
    }

    /// The words of eight blocks of an origin, from one of them on, in order (see
    /// [`crate::rng::fill_words`]).
    pub fn words(self, origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
        dispatch!(self, words(origin, block, out));
    }

    /// How many bits are set.
    pub fn ones(self, words: &[u64]) -> u64 {
        dispatch!(self, ones(words))
    }

    /// Replaces uniforms in [0, 1) by standard normal draws (see [`math::normal`]).
    pub fn normals(self, values: &mut [f32]) {
        dispatch!(self, normals(values));
    }

    /// Of each row of scores, the positions of its k largest, largest first, ties to the lower
    /// position, and `u32::MAX` where the scores above minus infinity run out. `out` has k places a
    /// row. No score may be NaN.
    pub fn select(self, rows: &[&[f32]], out: &mut [u32]) {
        assert!(rows.is_empty() && out.is_empty() || out.len().is_multiple_of(rows.len()));
        dispatch!(self, select(rows, out));
    }

    /// Replaces values by their hyperbolic tangents (see [`math::tanh`]).
    pub fn tanh(self, values: &mut [f32]) {
        dispatch!(self, tanh(values));
    }
}
