//! Draws in f64 for the construction of worlds and the arrival of customers: uniform, normal,
//! gamma, Dirichlet.
//!
//! The functions behind them (logarithm, exponential) come from the crate `libm`, which is plain
//! Rust arithmetic: unlike `std`'s, which ask the platform, they give the same bits everywhere.

use crate::kernels::Kernels;
use crate::rng::{LANES, Origin};

/// Words of one refill: a block for each lane.
const WORDS: usize = 4 * LANES;

/// A stream of draws, taken in order from one origin.
#[derive(Clone, Debug)]
pub struct Draws {
    origin: Origin,
    block: u32,
    words: [u32; WORDS],
    next: usize,
    /// The second of a pair of normal draws.
    spare: Option<f64>,
}

impl Draws {
    /// The stream of an origin, from its start.
    pub fn new(origin: Origin) -> Self {
        Self { origin, block: 0, words: [0; WORDS], next: WORDS, spare: None }
    }

    #[inline]
    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        self.next += 1;
        self.words[self.next - 1]
    }

    #[inline(never)]
    fn refill(&mut self) {
        // The same words on every instruction set.
        let kernels = Kernels::best().unwrap_or(Kernels::SCALAR);
        kernels.words(self.origin, self.block, &mut self.words);
        self.block += LANES as u32;
        self.next = 0;
    }

    /// A uniform in [0, 1) of 53 bits: the middle of none of its cells, exact in f64.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        let bits = u64::from(self.word()) << 32 | u64::from(self.word());
        (bits >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A uniform in (0, 1): safe to take the logarithm of.
    fn positive(&mut self) -> f64 {
        self.uniform() + 0.5 / 9_007_199_254_740_992.0
    }

    /// A standard normal (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.positive() - 1.0, 2.0 * self.positive() - 1.0);
            let square = x * x + y * y;
            if 0.0 < square && square < 1.0 {
                let scale = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(scale * y);
                return scale * x;
            }
        }
    }

    /// Standard normals.
    pub fn normals<const N: usize>(&mut self) -> [f64; N] {
        std::array::from_fn(|_| self.normal())
    }

    /// The logarithm of a gamma draw of a shape above 0 (Marsaglia and Tsang 2000). The logarithm,
    /// since draws of small shapes are smaller than any f64.
    pub fn ln_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.ln_gamma(shape + 1.0) + libm::log(self.positive()) / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let ln_v = 3.0 * libm::log(v);
            let v = v * v * v;
            if libm::log(self.positive()) < 0.5 * x * x + d - d * v + d * ln_v {
                return libm::log(d) + ln_v;
            }
        }
    }

    /// Shares that sum to 1: a Dirichlet draw.
    pub fn dirichlet(&mut self, shapes: &[f64]) -> Vec<f64> {
        let logs: Vec<f64> = shapes.iter().map(|shape| self.ln_gamma(*shape)).collect();
        softmax(&logs)
    }
}

/// Shares in proportion to the exponentials.
pub fn softmax(logs: &[f64]) -> Vec<f64> {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raised: Vec<f64> = logs.iter().map(|log| libm::exp(log - largest)).collect();
    let total: f64 = raised.iter().sum();
    raised.into_iter().map(|share| share / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn draws(session: u64) -> Draws {
        Draws::new(Origin { seed: 5, session, page: 0, purpose: Purpose::World })
    }

    /// Mean and variance of 200,000 draws, and the bounds of four standard errors.
    fn check(name: &str, mean: f64, variance: f64, mut draw: impl FnMut() -> f64) {
        let count = 200_000;
        let values: Vec<f64> = (0..count).map(|_| draw()).collect();
        let n = f64::from(count);
        let got = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - got).powi(2)).collect::<Vec<_>>();
        let spread = squares.iter().sum::<f64>() / n;
        let fourth = squares.iter().map(|s| s * s).sum::<f64>() / n;
        assert!((got - mean).abs() < 4.0 * (variance / n).sqrt(), "{name}: mean {got}");
        let bound = 4.0 * ((fourth - spread * spread) / n).sqrt();
        assert!((spread - variance).abs() < bound, "{name}: variance {spread} not {variance}");
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut source = draws(0);
        check("uniform", 0.5, 1.0 / 12.0, || source.uniform());
        check("normal", 0.0, 1.0, || source.normal());
        for shape in [0.3, 0.9, 1.0, 2.5, 20.0] {
            check("gamma", shape, shape, || source.ln_gamma(shape).exp());
        }
        // A share of Dir(a) is Beta(a_1, a - a_1).
        let shapes = [0.5, 2.0, 1.5];
        let variance = 0.125 * 0.875 / 5.0;
        check("dirichlet", 0.125, variance, || source.dirichlet(&shapes)[0]);
    }

    /// A wrong sampler, to show that the check can fail: the boost of small shapes left out.
    #[test]
    #[should_panic(expected = "gamma")]
    fn the_check_notices_a_wrong_gamma() {
        let mut source = draws(1);
        check("gamma", 0.3, 0.3, || source.ln_gamma(1.3).exp());
    }

    #[test]
    fn streams_are_reproducible_and_apart() {
        let take = |session| -> Vec<u64> {
            let mut source = draws(session);
            (0..100).map(|_| source.uniform().to_bits()).collect()
        };
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn tiny_shapes_give_shares_without_nan() {
        let mut source = draws(2);
        for _ in 0..1000 {
            let shares = source.dirichlet(&[0.001, 0.001, 0.001]);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{shares:?}");
        }
    }
}
