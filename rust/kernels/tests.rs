//! Every instruction set against `scalar`, bit for bit, and `scalar` against plain f64.

use proptest::prelude::*;

use super::*;
use crate::rng::Purpose;

pub(super) fn sets() -> Vec<Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| Kernels::of(isa).ok()).collect()
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A dense layer with everything that can vary.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    spare: usize,
    from_rows: bool,
    slope: Option<f32>,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let slope = prop_oneof![Just(None), Just(Some(0.0)), Just(Some(0.01)), Just(Some(0.99))];
    (0..=TILE, 0..70usize, 1..150usize, 0..9usize, any::<bool>(), slope, any::<u64>()).prop_map(
        |(rows, inputs, outputs, spare, from_rows, slope, seed)| Case {
            rows,
            inputs,
            outputs,
            spare,
            from_rows,
            slope,
            seed,
        },
    )
}

/// Values of both signs over ten orders of magnitude, zeros among them.
pub(super) fn values(seed: u64, session: u64, count: usize) -> Vec<f32> {
    let mut uniforms = vec![0.0; 2 * count];
    crate::rng::fill(
        crate::rng::Origin { seed, session, page: 0, purpose: Purpose::Policy },
        &mut uniforms,
    );
    uniforms
        .chunks(2)
        .map(|pair| match (pair[0] * 20.0) as u32 {
            0 => 0.0,
            1 => -0.0,
            power => (pair[1] - 0.5) * 10f32.powi(power as i32 / 2 - 5),
        })
        .collect()
}

/// Runs a case; the second value is the naive sum in f64 with the bound of its rounding.
fn run(case: &Case, dense: impl Fn(Dense<'_>)) -> (Vec<f32>, Vec<(f64, f64)>) {
    let Case { rows, inputs, outputs, spare, .. } = *case;
    let (x_stride, padded) = (inputs + spare, Panels::padded_outputs(outputs));
    let out_stride = padded + spare;
    let x = values(case.seed, 1, rows * x_stride);
    let weights = values(case.seed, 2, inputs * outputs);
    let mut bias = values(case.seed, 3, outputs);
    bias.resize(padded, 0.0);
    let starts = values(case.seed, 4, rows * out_stride);
    let start_rows: Vec<_> = starts.chunks(out_stride).collect();
    let mut out = vec![f32::NAN; rows * out_stride];
    let panels = Panels::pack(inputs, outputs, |output, input| weights[output * inputs + input]);
    let mut naive = Vec::new();
    for row in 0..rows {
        for output in 0..outputs {
            let start = if case.from_rows { start_rows[row][output] } else { bias[output] };
            let terms = (0..inputs).map(|k| {
                f64::from(x[row * x_stride + k]) * f64::from(weights[output * inputs + k])
            });
            let sum = f64::from(start) + terms.clone().sum::<f64>();
            let size = f64::from(start.abs()) + terms.map(f64::abs).sum::<f64>();
            let value = match case.slope {
                Some(slope) if sum < 0.0 => sum * f64::from(slope),
                _ => sum,
            };
            naive.push((value, (inputs + 2) as f64 * size * f64::from(f32::EPSILON) + 1e-30));
        }
    }
    dense(Dense {
        rows,
        x: &x,
        x_stride,
        panels: &panels,
        start: if case.from_rows { Start::Rows(&start_rows) } else { Start::Bias(&bias) },
        slope: case.slope,
        out: &mut out,
        out_stride,
    });
    (out, naive)
}

/// Whether a kernel agrees with the reference, which itself must agree with f64.
fn agrees(case: &Case, dense: impl Fn(Dense<'_>)) -> bool {
    let (want, naive) = run(case, |job| Kernels(Isa::Scalar).dense(job));
    let stride = Panels::padded_outputs(case.outputs) + case.spare;
    for (index, (value, bound)) in naive.iter().enumerate() {
        let at = index / case.outputs * stride + index % case.outputs;
        let got = f64::from(want[at]);
        assert!(
            (got - value).abs() <= *bound,
            "scalar {got} against {value} +- {bound:e}: {case:?}"
        );
    }
    bits(&run(case, dense).0) == bits(&want)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn dense_is_the_same_everywhere(case in cases()) {
        for kernels in sets() {
            prop_assert!(agrees(&case, |job| kernels.dense(job)), "{:?} differs: {case:?}", kernels);
        }
    }

    #[test]
    fn categorical_is_the_same_everywhere(
        rows in 0..40usize,
        sizes in prop::collection::vec(1..=256usize, 1..6),
        scale in prop_oneof![Just(0.0f32), Just(1.0), Just(30.0), Just(1e30)],
        seed in any::<u64>(),
    ) {
        let mut first = 0;
        let heads: Vec<_> = sizes.iter().map(|size| {
            first += size;
            Head { first: first - size, size: *size }
        }).collect();
        let logits: Vec<f32> = values(seed, 5, rows * first).iter().map(|v| v * scale).collect();
        let mut uniforms = vec![0.0; rows * heads.len()];
        crate::rng::fill(
            crate::rng::Origin { seed, session: 6, page: 0, purpose: Purpose::Fields },
            &mut uniforms,
        );
        let run = |kernels: Kernels| {
            let mut out = vec![0; uniforms.len()];
            kernels.categorical(Categorical {
                rows, logits: &logits, stride: first, heads: &heads, uniforms: &uniforms, out: &mut out,
            });
            out
        };
        let want = run(Kernels(Isa::Scalar));
        for (drawn, head) in want.iter().zip(heads.iter().cycle()) {
            prop_assert!(usize::from(*drawn) < head.size);
        }
        for kernels in sets() {
            prop_assert_eq!(&run(kernels), &want, "{:?}", kernels);
        }
    }

    #[test]
    fn draws_are_the_same_everywhere(
        seed in any::<u64>(), session in any::<u64>(), page in any::<u32>(), count in 0..200usize,
    ) {
        let origin = crate::rng::Origin { seed, session, page, purpose: Purpose::Latent };
        let run = |kernels: Kernels| {
            let mut uniforms = vec![0.0; count];
            kernels.uniforms(origin, &mut uniforms);
            let mut first = [[0.0; LANES]; 4];
            kernels.first_uniforms(&[origin; 5], &mut first);
            let mut normals = uniforms.clone();
            kernels.normals(&mut normals);
            let mut tanh = normals.clone();
            kernels.tanh(&mut tanh);
            let mut words = [0; 4 * LANES];
            kernels.words(origin, session as u32 % 1000, &mut words);
            let first = bits(first.as_flattened());
            [bits(&uniforms), bits(&normals), bits(&tanh), first, words.to_vec()]
        };
        let want = run(Kernels(Isa::Scalar));
        for kernels in sets() {
            prop_assert_eq!(&run(kernels), &want, "{:?}", kernels);
        }
    }
}

/// The tests above can fail: kernels made wrong on purpose do.
#[test]
fn wrong_kernels_are_caught() {
    let case = Case {
        rows: 7,
        inputs: 33,
        outputs: 21,
        spare: 3,
        from_rows: false,
        slope: Some(0.01),
        seed: 5,
    };
    let scalar = Kernels(Isa::Scalar);
    assert!(agrees(&case, |job| scalar.dense(job)));
    assert!(!agrees(&case, |job| scalar.dense(Dense { slope: None, ..job })), "no activation");
    assert!(!agrees(&case, |job| scalar.dense(Dense { rows: 6, ..job })), "a row left out");
    let nothing = [[0.0; 24]; 7];
    let rows: Vec<_> = nothing.iter().map(|row| &row[..]).collect();
    let start = Start::Rows(&rows);
    assert!(!agrees(&case, |job| scalar.dense(Dense { start, ..job })), "no bias");
    // Two sums instead of one: as good a result, but other roundings.
    let split = |job: Dense<'_>| {
        for row in 0..job.rows {
            for column in 0..job.panels.padded() {
                let Start::Bias(bias) = job.start else { unreachable!() };
                let width = if column < PANEL { PANEL } else { HALF };
                let panel = column / PANEL * PANEL * job.panels.inputs;
                let mut sums = [bias[column], 0.0];
                for k in 0..job.panels.inputs {
                    let weight = job.panels.data[panel + k * width + column % PANEL];
                    sums[k % 2] = job.x[row * job.x_stride + k].mul_add(weight, sums[k % 2]);
                }
                let sum = sums[0] + sums[1];
                job.out[row * job.out_stride + column] = leaky_relu(sum, job.slope.unwrap());
            }
        }
    };
    assert!(!agrees(&case, split), "a sum in another order");
}

#[test]
fn categorical_inverts_the_cumulative_distribution() {
    let heads = [Head { first: 0, size: 4 }];
    let probabilities = [0.1_f32, 0.0, 0.4, 0.5];
    let logits: Vec<f32> =
        probabilities.iter().map(|p| if *p > 0.0 { p.ln() } else { -1e9 }).collect();
    let draw = |uniform: f32| {
        let mut out = [9];
        let stride = 4;
        let uniforms = &[uniform];
        Kernels(Isa::Scalar).categorical(Categorical {
            rows: 1,
            logits: &logits,
            stride,
            heads: &heads,
            uniforms,
            out: &mut out,
        });
        out[0]
    };
    let below_one = 1.0 - f32::EPSILON / 2.0;
    let want = [(0.0, 0), (0.0999, 0), (0.1001, 2), (0.4999, 2), (0.5001, 3), (below_one, 3)];
    for (uniform, category) in want {
        assert_eq!(draw(uniform), category, "{uniform}");
    }
}

#[test]
fn an_unknown_instruction_set_is_refused() {
    let error = Kernels::choose(Some("mmx")).unwrap_err().to_string();
    assert_eq!(error, "VIRTUALTB_FAST_ISA: expected scalar, neon, avx2 or avx512, got mmx");
    assert_eq!(Kernels::choose(Some("scalar")).unwrap().isa(), Isa::Scalar);
    #[cfg(target_arch = "x86_64")]
    assert!(Kernels::choose(Some("neon")).unwrap_err().to_string().contains("scalar"));
}

proptest! {
    #[test]
    fn answers_are_bits_on_every_instruction_set(
        seed in any::<u64>(), count in 0_usize..400, low in -0.1_f32..1.1, width in 0.0_f32..1.0
    ) {
        let mut values = vec![0.0; count];
        crate::rng::fill(Origin { seed, session: 0, page: 0, purpose: Purpose::Latent }, &mut values);
        values.iter_mut().step_by(7).for_each(|value| *value = f32::NAN);
        values.iter_mut().skip(3).step_by(11).for_each(|value| *value = low);
        let codes: Vec<u8> = values.iter().map(|value| (value * 5.0) as u8).collect();
        let high = low + width;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let kernels = Kernels::of(isa).unwrap();
            let mut words = vec![u64::MAX; count.div_ceil(64)];
            let bit = |words: &[u64], at: usize| words[at / 64] >> (at % 64) & 1 == 1;
            kernels.within(&values, low, high, &mut words);
            for at in 0..64 * words.len() {
                let inside = values.get(at).is_some_and(|value| low <= *value && *value <= high);
                prop_assert_eq!(bit(&words, at), inside, "{} of {}", at, count);
            }
            let inside = values.iter().filter(|value| (low..=high).contains(*value)).count();
            prop_assert_eq!(kernels.ones(&words), inside as u64);
            kernels.equal_bytes(&codes, 2, &mut words);
            for at in 0..64 * words.len() {
                prop_assert_eq!(bit(&words, at), codes.get(at) == Some(&2));
            }
        }
    }
}

/// Full sorts of scores, the first k positions each.
fn sorted(rows: &[&[f32]], k: usize) -> Vec<u32> {
    let one = |scores: &&[f32]| {
        let finite = |at: &u32| scores[*at as usize] != f32::NEG_INFINITY;
        let mut order: Vec<u32> = (0..scores.len() as u32).filter(finite).collect();
        // Stable, so that the lower of two equal ones comes first.
        order.sort_by(|a, b| scores[*b as usize].partial_cmp(&scores[*a as usize]).unwrap());
        order.resize(order.len().max(k), u32::MAX);
        order.truncate(k);
        order
    };
    rows.iter().flat_map(one).collect()
}

/// Rows of different lengths: mostly different scores, or few different ones, or many struck out.
fn scores() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let value = prop_oneof![
        6 => (-1.0_f32..1.0).prop_map(|v| v * v * v),
        1 => Just(0.0), 1 => Just(-0.0),
    ];
    let tied = prop_oneof![3 => (-2..3).prop_map(|v| v as f32), 1 => Just(f32::NEG_INFINITY)];
    let struck = prop_oneof![1 => -1.0_f32..1.0, 4 => Just(f32::NEG_INFINITY)];
    let row = prop_oneof![
        4 => prop::collection::vec(value, 0..300),
        1 => prop::collection::vec(tied, 0..300),
        1 => prop::collection::vec(struck, 0..300),
    ];
    prop::collection::vec(row, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn selections_are_those_of_a_full_sort(rows in scores(), k in prop_oneof![Just(10), 1..40_usize]) {
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let want = sorted(&rows, k);
        for kernels in sets() {
            let mut got = vec![9; rows.len() * k];
            kernels.select(&rows, &mut got);
            prop_assert_eq!(&got, &want, "{:?}", kernels);
        }
    }

    /// A row's selection does not depend on the rows beside it, nor leaks into what they have.
    #[test]
    fn rows_are_selected_from_by_themselves(rows in scores()) {
        for kernels in sets() {
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let mut together = vec![9; rows.len() * 10];
            kernels.select(&rows, &mut together);
            for (row, together) in rows.iter().zip(together.chunks(10)) {
                let mut alone = [9; 10];
                kernels.select(&[row], &mut alone);
                prop_assert_eq!(&alone[..], together, "{:?}", kernels);
            }
        }
    }
}

/// The comparison with a full sort can fail: selections made wrong on purpose do.
#[test]
fn wrong_selections_are_caught() {
    let rows: Vec<Vec<f32>> = (0..9).map(|row| values(row, 7, 200)).collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let select = |rows: &[&[f32]]| {
        let mut out = vec![0; rows.len() * 10];
        Kernels::SCALAR.select(rows, &mut out);
        out
    };
    let want = sorted(&rows, 10);
    assert_eq!(select(&rows), want);
    let short: Vec<&[f32]> = rows.iter().map(|row| &row[..192]).collect();
    assert_ne!(select(&short), want, "the last block left out");
    let rounded: Vec<Vec<f32>> =
        rows.iter().map(|row| row.iter().map(|v| (v / 4096.0).round()).collect()).collect();
    assert_ne!(select(&rounded.iter().map(Vec::as_slice).collect::<Vec<_>>()), want, "rounded");
    let shifted: Vec<&[f32]> = rows.iter().cycle().skip(1).take(9).copied().collect();
    assert_ne!(select(&shifted), want, "a row's neighbour in its place");
    // Ties the other way round.
    let equal = [1.0; 40];
    assert_eq!(select(&[&equal]), (0..10).collect::<Vec<_>>());
    assert_ne!(select(&[&equal]), (30..40).rev().collect::<Vec<_>>());
}
