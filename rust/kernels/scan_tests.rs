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
