//! Layers in whole numbers: every instruction set against `scalar`, bit for bit, and `scalar`
//! against what floats give within the width of the codes.

use proptest::prelude::*;

use super::bytes::{BytePanels, DenseBytes, ZERO, groups};
use super::tests::{bits, sets, values};
use super::*;

/// Runs a layer; returns codes, what their units are worth, and outputs.
fn run(
    kernels: Kernels,
    x: &[f32],
    spare: usize,
    panels: &BytePanels,
    bias: &[f32],
    slope: Option<f32>,
) -> (Vec<i32>, Vec<f32>, Vec<f32>) {
    let x_stride = panels.inputs() + spare;
    let rows = x.len() / x_stride;
    let mut words = vec![-1; rows * groups(panels.inputs())];
    let mut steps = vec![-1.0; rows];
    let out_stride = panels.padded() + spare;
    let mut out = vec![7.0; rows * out_stride];
    kernels.dense_bytes(DenseBytes {
        rows,
        x,
        x_stride,
        words: &mut words,
        steps: &mut steps,
        panels,
        bias,
        slope,
        out: &mut out,
        out_stride,
    });
    (words, steps, out)
}

proptest! {
    #[test]
    fn sets_agree_and_codes_are_as_good_as_their_width(
        rows in 0..=TILE,
        inputs in 1..70usize,
        outputs in 1..70usize,
        spare in 0..5usize,
        slope in prop_oneof![Just(None), Just(Some(0.01))],
        seed in any::<u64>(),
    ) {
        let x = values(seed, 1, rows * (inputs + spare));
        let codes: Vec<_> = values(seed, 2, inputs * outputs)
            .iter()
            .map(|value| (value * 1e3).clamp(-127.0, 127.0) as i8)
            .collect();
        let scales: Vec<_> = values(seed, 3, outputs).iter().map(|scale| scale.abs()).collect();
        let mut bias = values(seed, 4, outputs);
        bias.resize(outputs.next_multiple_of(PANEL), 0.0);
        let panels = BytePanels::pack(inputs, &codes, scales);
        let want = run(Kernels::SCALAR, &x, spare, &panels, &bias, slope);
        for kernels in sets() {
            let got = run(kernels, &x, spare, &panels, &bias, slope);
            prop_assert_eq!(&got.0, &want.0);
            prop_assert_eq!(bits(&got.1), bits(&want.1));
            prop_assert_eq!(bits(&got.2), bits(&want.2));
        }
        for (row, x) in x.chunks(inputs + spare).enumerate() {
            let x = &x[..inputs];
            let out = &want.2[row * (panels.padded() + spare)..];
            prop_assert!(out[panels.padded()..][..spare].iter().all(|value| *value == 7.0));
            let step = f64::from(want.1[row]);
            let widest = x.iter().fold(0f64, |widest, x| widest.max(f64::from(x.abs())));
            prop_assert!(step <= 1.01 * widest / f64::from(ZERO));
            for output in 0..outputs {
                let weights = (0..inputs).map(|input| panels.weight(output, input));
                let (mut sum, mut allowed) = (f64::from(bias[output]), 0.0);
                for (x, weight) in x.iter().zip(weights) {
                    sum += f64::from(*x) * weight;
                    allowed += 0.51 * step * weight.abs() + f64::from(x.abs()) * weight.abs() * 1e-5;
                }
                let got = f64::from(out[output]);
                let expected = if sum < 0.0 { sum * f64::from(slope.unwrap_or(1.0)) } else { sum };
                let allowed = allowed + 1e-5 * f64::from(bias[output].abs()) + 1e-30;
                prop_assert!((got - expected).abs() <= allowed, "{got} {expected} {allowed}");
            }
        }
    }
}

#[test]
fn a_row_of_zeros_gives_the_bias() {
    let panels = BytePanels::pack(5, &[1, 2, 3, 4, 5], vec![0.5]);
    let bias = [3.0; PANEL];
    for kernels in sets() {
        let (_, steps, out) = run(kernels, &[0.0; 5], 0, &panels, &bias, None);
        assert_eq!((steps[0], out[0]), (0.0, 3.0));
    }
}

#[test]
fn whole_numbers_come_through_as_they_are() {
    // -16 to 239 in steps of 1: codes are the values and what 0 has.
    let x: Vec<_> = (-ZERO..=255 - ZERO).map(|value| value as f32).collect();
    let codes: Vec<_> = (0..=255).map(|value: i32| (value % 255 - 127) as i8).collect();
    let panels = BytePanels::pack(256, &codes, vec![2.0]);
    let want: i32 = (-ZERO..).zip(&codes).map(|(x, code)| x * i32::from(*code)).sum();
    for kernels in sets() {
        let (words, steps, out) = run(kernels, &x, 0, &panels, &[1.0; PANEL], None);
        let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(bytes, (0..=255).collect::<Vec<_>>());
        assert_eq!((steps[0], out[0]), (1.0, 2.0 * want as f32 + 1.0));
    }
}
