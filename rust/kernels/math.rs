//! Elementary functions in f32, made of operations that IEEE 754 rounds exactly (add, multiply,
//! fused multiply-add, square root), so every CPU and every instruction set gives the same bits.

// Digits as published: fewer would be other numbers, and the surplus documents the source.
#![allow(clippy::excessive_precision)]

/// 1.5 * 2^23: adding and subtracting it rounds a small f32 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts whose first has few bits, so that `n * LN2_HIGH` is exact.
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e to the power `x` for x <= 0, to about 1 ulp; below -87 the value at -87 (no subnormals).
///
/// Range reduction by powers of two; minimax coefficients of Cephes `expf` (Moshier).
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569_15e-4_f32;
    p = p.mul_add(r, 1.398_199_950_7e-3);
    p = p.mul_add(r, 8.333_451_907_3e-3);
    p = p.mul_add(r, 4.166_579_589_4e-2);
    p = p.mul_add(r, 1.666_666_545_9e-1);
    p = p.mul_add(r, 5.000_000_120_1e-1);
    let value = p.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` hold n: move them into the exponent field.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    value * scale
}

/// The natural logarithm of a positive normal f32, to about 1 ulp.
///
/// Minimax coefficients of Cephes `logf` (Moshier).
#[inline(always)]
pub fn ln_positive(x: f32) -> f32 {
    // x = 2^e * m with m in [sqrt(1/2), sqrt(2)).
    let offset = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (offset as i32 >> 23) as f32;
    let m = f32::from_bits((offset & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let z = m * m;
    let mut p = 7.037_683_629_2e-2_f32;
    p = p.mul_add(m, -1.151_461_031_0e-1);
    p = p.mul_add(m, 1.167_699_874_0e-1);
    p = p.mul_add(m, -1.242_014_084_6e-1);
    p = p.mul_add(m, 1.424_932_278_7e-1);
    p = p.mul_add(m, -1.666_805_766_5e-1);
    p = p.mul_add(m, 2.000_071_476_5e-1);
    p = p.mul_add(m, -2.499_999_399_3e-1);
    p = p.mul_add(m, 3.333_333_117_4e-1);
    let tail = e.mul_add(LN2_LOW, z * -0.5 + m * z * p);
    e.mul_add(LN2_HIGH, m + tail)
}

/// The standard normal quantile of a uniform of 24 bits, taken at the middle of its cell.
///
/// Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), single precision.
#[inline(always)]
pub fn normal(uniform: f32) -> f32 {
    // (2k + 1 - 2^24) / 2^24 for the k-th cell: exact, and never -1 or 1.
    let x = uniform.mul_add(2.0, 1.0 / 16_777_216.0 - 1.0);
    let w = -ln_positive((1.0 - x) * (1.0 + x));
    let near = w - 2.5;
    let mut p = 2.810_226_36e-8_f32;
    p = p.mul_add(near, 3.432_739_39e-7);
    p = p.mul_add(near, -3.523_387_7e-6);
    p = p.mul_add(near, -4.391_506_54e-6);
    p = p.mul_add(near, 2.185_808_7e-4);
    p = p.mul_add(near, -1.253_725_03e-3);
    p = p.mul_add(near, -4.177_681_64e-3);
    p = p.mul_add(near, 2.466_407_27e-1);
    p = p.mul_add(near, 1.501_409_41);
    let far = w.sqrt() - 3.0;
    let mut q = -2.002_142_57e-4_f32;
    q = q.mul_add(far, 1.009_505_58e-4);
    q = q.mul_add(far, 1.349_343_22e-3);
    q = q.mul_add(far, -3.673_428_44e-3);
    q = q.mul_add(far, 5.739_507_73e-3);
    q = q.mul_add(far, -7.622_461_3e-3);
    q = q.mul_add(far, 9.438_870_47e-3);
    q = q.mul_add(far, 1.001_674_06);
    q = q.mul_add(far, 2.832_976_82);
    let ratio = if w < 5.0 { p } else { q };
    std::f32::consts::SQRT_2 * (ratio * x)
}

/// The hyperbolic tangent, to about 1e-7 absolute.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let e = exp_nonpositive(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps() {
        let mut worst = 0.0_f64;
        for step in 0..2_000_000 {
            let x = -87.0 * step as f32 / 2_000_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_nonpositive(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-1e30), exp_nonpositive(-87.0));
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), exp_nonpositive(-87.0));
    }

    #[test]
    fn ln_is_accurate() {
        let mut worst = 0.0_f64;
        for step in 1..2_000_000 {
            let x = (step as f32 / 100_000.0).powi(3) + 1e-7;
            let exact = f64::from(x).ln();
            let error = (f64::from(ln_positive(x)) - exact).abs();
            worst = worst.max(error / exact.abs().max(0.1));
        }
        assert!(worst < 3.0 * f64::from(f32::EPSILON), "{worst:e}");
    }

    #[test]
    fn tanh_is_accurate() {
        for step in -200_000..200_000 {
            let x = step as f32 / 10_000.0;
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 1.5e-7, "{x}: {error:e}");
        }
    }

    /// The normal distribution function by its continued fraction and series, in f64.
    fn cdf(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let erf = if z < 2.5 {
            let mut term = z;
            let mut sum = z;
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut fraction = 0.0;
            for n in (1..200).rev() {
                fraction = f64::from(n) / 2.0 / (z + fraction);
            }
            1.0 - (-z * z).exp() / ((z + fraction) * std::f64::consts::PI.sqrt())
        };
        if x < 0.0 { 0.5 * (1.0 - erf) } else { 0.5 * (1.0 + erf) }
    }

    #[test]
    fn normal_inverts_the_distribution_function() {
        for step in 0..(1 << 24) {
            if step % 997 != 0 && step > 100 && step < (1 << 24) - 100 {
                continue;
            }
            let u = step as f32 / 16_777_216.0;
            let x = f64::from(normal(u));
            let want = (f64::from(step) + 0.5) / 16_777_216.0;
            let got = cdf(x);
            let scale = want.min(1.0 - want);
            assert!((got - want).abs() <= 1e-5 * scale + 1e-9, "{u} -> {x}: {got} {want}");
        }
        assert_eq!(normal(0.5), -normal(0.5 - 1.0 / 16_777_216.0));
    }
}
