//! The kernels of catalogue search: every instruction set against `scalar`.

use proptest::prelude::*;

use super::scan::*;
use super::*;

fn sets() -> Vec<Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| Kernels::of(isa).ok()).collect()
}

/// Bytes that repeat after a prime number of steps, extremes among them.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match state >> 61 {
                0 => 255,
                1 => 0,
                _ => (state >> 40) as u8,
            }
        })
        .collect()
}

/// A scan with everything that can vary.
#[derive(Clone, Debug)]
struct Case {
    groups: usize,
    queries: usize,
    width: Width,
    allowed: [u32; PAIRS],
    least: i32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let width = prop_oneof![Just(Width::Eight), Just(Width::Four)];
    let least = prop_oneof![Just(-NEVER), Just(NEVER), -400_000..400_000i32, -9_000..9_000i32];
    let allowed = prop::array::uniform8(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]);
    (1..129usize, 0..20usize, width, allowed, least, any::<u64>()).prop_map(
        |(groups, queries, width, allowed, least, seed)| Case {
            groups,
            queries,
            width,
            allowed,
            least,
            seed,
        },
    )
}

/// Runs a case; hits sorted by slot and pair.
fn run(case: &Case, scan: impl Fn(Scan<'_>)) -> Vec<Hit> {
    let stride = case.groups * GROUP;
    let codes = bytes(case.seed, case.width.chunk_bytes(case.groups));
    let most = MOST_WEIGHT as i16;
    let queries: Vec<i8> = bytes(case.seed ^ 5, (case.queries + 1) * stride)
        .into_iter()
        .map(|byte| (i16::from(byte) - 128).clamp(-most, most) as i8)
        .collect();
    // Every query but one, backwards.
    let slots: Vec<u32> = (0..case.queries as u32).rev().collect();
    let least: Vec<i32> =
        slots.iter().map(|slot| (case.least + 17 * *slot as i32).min(NEVER)).collect();
    let mut hits = Vec::new();
    scan(Scan {
        codes: &codes,
        width: case.width,
        groups: case.groups,
        allowed: case.allowed,
        queries: &queries,
        slots: &slots,
        least: &least,
        hits: &mut hits,
    });
    hits.sort_by_key(|hit| (hit.slot, hit.pair));
    hits
}

fn agrees(case: &Case, scan: impl Fn(Scan<'_>)) -> bool {
    run(case, scan) == run(case, |job| Kernels::SCALAR.scan(job))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn scans_are_the_same_everywhere(case in cases()) {
        for kernels in sets() {
            prop_assert!(agrees(&case, |job| kernels.scan(job)), "{kernels:?}: {case:?}");
        }
    }

    #[test]
    fn dots_are_the_same_everywhere(
        dimensions in 1..300usize, rows in 0..40usize, seed in any::<u64>(),
    ) {
        let value = |byte: &u8| (f32::from(*byte) - 99.0) * 1.01;
        let attributes: Vec<f32> = bytes(seed, 64 * dimensions).iter().map(value).collect();
        let weights: Vec<f32> = bytes(seed ^ 9, dimensions).iter().map(value).collect();
        let rows: Vec<u32> = bytes(seed ^ 3, rows).iter().map(|row| u32::from(row % 64)).collect();
        let want: Vec<f32> = rows.iter().map(|row| {
            let row = &attributes[*row as usize * dimensions..][..dimensions];
            weights.iter().zip(row).fold(0.0, |sum, (w, x)| w.mul_add(*x, sum))
        }).collect();
        for kernels in sets() {
            let mut got = vec![9.0; rows.len()];
            kernels.dots(&weights, &attributes, &rows, &mut got);
            prop_assert_eq!(&got, &want, "{:?}", kernels);
        }
    }
}

/// The comparison of dots can fail: other orders of the same terms, and products that are rounded
/// before they are added, give other sums.
#[test]
fn wrong_dots_are_caught() {
    let value = |byte: &u8| (f32::from(*byte) - 99.0) * 1.01;
    let fused = |sum: f32, (w, x): (&f32, &f32)| w.mul_add(*x, sum);
    let rounded = |sum: f32, (w, x): (&f32, &f32)| sum + w * x;
    let (mut backwards, mut twice) = (0, 0);
    for seed in 0..20 {
        let attributes: Vec<f32> = bytes(7 * seed, 200).iter().map(value).collect();
        let weights: Vec<f32> = bytes(!seed, 200).iter().map(value).collect();
        let pairs = || weights.iter().zip(&attributes);
        let mut got = [9.0];
        Kernels::SCALAR.dots(&weights, &attributes, &[0], &mut got);
        assert_eq!(got[0], pairs().fold(0.0, fused));
        backwards += usize::from(pairs().rev().fold(0.0, fused) != got[0]);
        twice += usize::from(pairs().fold(0.0, rounded) != got[0]);
    }
    assert!(backwards > 5 && twice > 5, "{backwards} {twice}");
}

/// Scalar sums against sums written down plainly, and scans made wrong on purpose.
#[test]
fn wrong_scans_are_caught() {
    for width in [Width::Eight, Width::Four] {
        let case =
            Case { groups: 7, queries: 9, width, allowed: [u32::MAX; PAIRS], least: 900, seed: 3 };
        let scalar = |job: Scan<'_>| Kernels::SCALAR.scan(job);
        assert!(!run(&case, scalar).is_empty());
        assert!(agrees(&case, scalar));
        let allowed = [u32::MAX, u32::MAX, u32::MAX, 0x7FFF_FFFF, 0, 1, 2, 3];
        assert!(!agrees(&case, |job| scalar(Scan { allowed, ..job })), "another filter");
        let higher: Vec<i32> = vec![3_000; 9];
        assert!(!agrees(&case, |job| scalar(Scan { least: &higher, ..job })), "the least sums");
        let first: Vec<u32> = vec![0; 9];
        assert!(!agrees(&case, |job| scalar(Scan { slots: &first, ..job })), "one query for all");
        let shifted = |job: Scan<'_>| {
            let mut codes = job.codes.to_vec();
            codes.rotate_left(1);
            scalar(Scan { codes: &codes, ..job });
        };
        assert!(!agrees(&case, shifted), "codes off by one");
        // Sums that saturate where AVX2 adds two products: what wider weights would do.
        let saturate = |job: Scan<'_>| {
            let first = job.hits.len();
            scalar(Scan { hits: job.hits, ..job });
            job.hits[first..].iter_mut().for_each(|hit| {
                hit.sums.iter_mut().for_each(|sum| *sum = (*sum).clamp(-32_768, 32_767));
            });
        };
        let least = if width == Width::Eight { -NEVER } else { -400_000 };
        let long = Case { groups: 128, least, ..case };
        assert!(agrees(&long, scalar) && (width == Width::Four || !agrees(&long, saturate)));
    }
}

/// Chunks, queries and thresholds around what the chunks can reach.
struct Bounded {
    dimensions: usize,
    panel: Vec<f32>,
    weights: Vec<f32>,
    terms: Vec<Terms>,
    thresholds: Vec<f32>,
}

/// What [`Limits`] leaves: least sums, bases, errors.
type Left = (Vec<[i32; CHUNKS]>, Vec<[f32; CHUNKS]>, Vec<[f32; CHUNKS]>);

impl Bounded {
    fn new(dimensions: usize, queries: usize, seed: u64) -> Self {
        let draw = |seed: u64, count: usize| -> Vec<f32> {
            bytes(seed, count).iter().map(|byte| f32::from(*byte) / 255.0).collect()
        };
        let signed = |seed: u64, count| draw(seed, count).iter().map(|u| 2.0 * u - 1.0).collect();
        let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt() * 1.01;
        let weights: Vec<f32> = signed(seed ^ 0x5A5A, queries * dimensions);
        let mut panel: Vec<f32> = signed(seed, dimensions * CHUNKS);
        let radius: Vec<f32> = draw(seed ^ 0x77, CHUNKS).iter().map(|u| 0.05 + u).collect();
        let norms: Vec<f32> = (0..CHUNKS)
            .map(|lane| {
                length(&mut panel.iter().skip(lane).step_by(CHUNKS).copied()) + radius[lane]
            })
            .collect();
        panel.extend(radius.iter().map(|radius| radius / 200.0));
        panel.extend(&radius);
        panel.extend(&norms);
        panel.extend(&norms);
        let mut terms = Vec::new();
        for weights in weights.chunks(dimensions) {
            let norm = length(&mut weights.iter().copied());
            let (unit, error) = (norm / 64.0, 0.3 * norm);
            terms.push(Terms { unit, error, zero: 321.0, norm, rounding: norm * 1e-6 });
        }
        let spread = draw(seed ^ 0x1234, queries);
        let thresholds = (0..queries).map(|query| 4.0 * (spread[query] - 0.5) * terms[query].norm);
        let thresholds = thresholds.collect();
        Self { dimensions, panel, weights, terms, thresholds }
    }

    fn run(&self, limits: impl Fn(Limits<'_>)) -> Left {
        let count = self.terms.len();
        let (mut least, mut base, mut error) =
            (vec![[7; CHUNKS]; count], vec![[7.0; CHUNKS]; count], vec![[7.0; CHUNKS]; count]);
        limits(Limits {
            panel: &self.panel,
            weights: &self.weights,
            dimensions: self.dimensions,
            terms: &self.terms,
            thresholds: &self.thresholds,
            least: &mut least,
            base: &mut base,
            error: &mut error,
        });
        (least, base, error)
    }

    /// Whether the limits are what double precision says: nothing that could matter is skipped,
    /// and what cannot is, but for roundings of f32.
    fn holds(&self, (least, base, error): &Left) -> bool {
        let value = |row: usize, lane: usize| f64::from(self.panel[row * CHUNKS + lane]);
        let mut pairs =
            (0..self.terms.len()).flat_map(|query| (0..CHUNKS).map(move |c| (query, c)));
        pairs.all(|(query, lane)| {
            let weights = &self.weights[query * self.dimensions..][..self.dimensions];
            let terms = self.terms[query];
            let [scale, radius, norm] = [0, 1, 2].map(|extra| value(self.dimensions + extra, lane));
            let products = weights.iter().enumerate().map(|(d, w)| f64::from(*w) * value(d, lane));
            let centre: f64 = products.sum();
            let threshold = f64::from(self.thresholds[query]);
            let slack = 1e-5 * (f64::from(terms.norm) * norm + threshold.abs());
            let unit = scale * f64::from(terms.unit);
            let missed = scale * f64::from(terms.error);
            let reach =
                |sum: i32| centre + unit * (f64::from(sum) - f64::from(terms.zero)) + missed;
            let ball = centre + f64::from(terms.norm) * radius;
            let most = ball.min(f64::from(terms.norm) * norm);
            let told = f64::from(error[query][lane]);
            let bounded = match least[query][lane] {
                NEVER => most < threshold + slack || reach(NEVER) < threshold + slack,
                least => {
                    let tight = reach(least + 9) > threshold - slack || least == -NEVER;
                    most > threshold - slack && reach(least - 1) < threshold + slack && tight
                }
            };
            bounded
                && (f64::from(base[query][lane]) - centre).abs() < slack
                && told > missed * (1.0 - 1e-6)
                && told < missed + slack
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn limits_hold_and_are_the_same_everywhere(
        dimensions in 1..300usize, queries in 0..20usize, seed in any::<u64>(),
    ) {
        let case = Bounded::new(dimensions, queries, seed);
        let want = case.run(|job| Kernels::SCALAR.limits(job));
        prop_assert!(case.holds(&want));
        for kernels in sets() {
            prop_assert_eq!(&case.run(|job| kernels.limits(job)), &want, "{:?}", kernels);
        }
    }
}

/// The void guards of the test above: limits made wrong on purpose do not hold.
#[test]
fn wrong_limits_are_caught() {
    let case = Bounded::new(27, 12, 3);
    let scalar = |job: Limits<'_>| Kernels::SCALAR.limits(job);
    let right = case.run(scalar);
    assert!(case.holds(&right));
    let skipped = right.0.as_flattened().iter().filter(|least| **least == NEVER).count();
    assert!((20..12 * CHUNKS - 20).contains(&skipped), "{skipped}");

    let changed = |change: &dyn Fn(&mut Left)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        case.holds(&wrong)
    };
    let every = |change: fn(i32) -> i32| {
        move |left: &mut Left| {
            left.0.as_flattened_mut().iter_mut().for_each(|least| *least = change(*least));
        }
    };
    assert!(changed(&|_| {}));
    assert!(!changed(&every(|_| -NEVER)), "nothing is skipped");
    assert!(!changed(&every(|_| NEVER)), "everything is skipped");
    assert!(!changed(&every(|least| if least == NEVER { least } else { least + 12 })), "too high");
    assert!(!changed(&every(|least| if least == NEVER { least } else { least - 12 })), "too low");
    assert!(!changed(&|left| left.2.as_flattened_mut().fill(0.0)), "no error");

    let of = |edit: &dyn Fn(&mut Bounded)| {
        let Bounded { dimensions, ref panel, ref weights, ref terms, ref thresholds } = case;
        let (panel, weights) = (panel.clone(), weights.clone());
        let (terms, thresholds) = (terms.clone(), thresholds.clone());
        let mut other = Bounded { dimensions, panel, weights, terms, thresholds };
        edit(&mut other);
        case.holds(&other.run(scalar))
    };
    assert!(of(&|_| {}));
    assert!(!of(&|other| other.weights.rotate_left(1)), "weights off by one");
    assert!(!of(&|other| other.panel.rotate_left(1)), "chunks off by one");
    assert!(!of(&|other| other.thresholds.rotate_left(1)), "another query's threshold");
    assert!(!of(&|other| other.terms.iter_mut().for_each(|t| t.zero = 0.0)), "no zero point");
    assert!(!of(&|other| other.terms.iter_mut().for_each(|t| t.error = 0.0)), "exact codes");
    assert!(!of(&|other| other.terms.iter_mut().for_each(|t| t.norm *= 0.5)), "half the length");
}
