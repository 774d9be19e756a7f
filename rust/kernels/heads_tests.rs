//! Sums of rows, products and probabilities: every instruction set against `scalar`, bit for bit,
//! `scalar` against plain f64, and such as are wrong on purpose.

use proptest::prelude::*;

use super::heads::{Products, Softmax};
use super::tests::{bits, sets, values};
use super::*;

/// Sums of table rows: whether a kernel adds them in their order.
fn sums_rows(
    seed: u64,
    width: usize,
    rows: &[usize],
    run: impl Fn(&[f32], &[f32], &[usize], &mut [f32]),
) -> bool {
    let (start, table) = (values(seed, 11, width), values(seed, 12, 20 * width));
    let mut got = vec![9.0; width];
    run(&start, &table, rows, &mut got);
    let sum = |column: usize| rows.iter().fold(start[column], |s, r| s + table[r * width + column]);
    bits(&got) == bits(&(0..width).map(sum).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn rows_are_summed_in_order_everywhere(
        seed in any::<u64>(), halves in 0..30usize, rows in prop::collection::vec(0..20usize, 0..14),
    ) {
        for kernels in sets() {
            let run = |start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]| {
                kernels.sum_rows(start, table, rows, out);
            };
            prop_assert!(sums_rows(seed, halves * HALF, &rows, run), "{:?}", kernels);
        }
    }
}

#[test]
fn wrong_sums_of_rows_are_caught() {
    let rows = [3, 17, 4, 4, 11, 0, 8];
    let scalar = |start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]| {
        Kernels(Isa::Scalar).sum_rows(start, table, rows, out);
    };
    for width in [8, 16, 64, 88, 152] {
        assert!(sums_rows(1, width, &rows, scalar));
        let backwards = |start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]| {
            scalar(start, table, &rows.iter().rev().copied().collect::<Vec<_>>(), out);
        };
        let without_one = |start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]| {
            scalar(start, table, &rows[1..], out);
        };
        let half = |start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]| {
            scalar(start, table, rows, out);
            out[width - HALF..].fill(0.0);
        };
        assert!(!sums_rows(1, width, &rows, backwards));
        assert!(!sums_rows(1, width, &rows, without_one));
        assert!(!sums_rows(1, width, &rows, half));
    }
}

/// Some pairs of vectors with a start each: their sums of products.
fn products_of(seed: u64, rows: usize, width: usize, run: impl Fn(Products<'_>)) -> Vec<f32> {
    let stride = width + 3;
    let (left, right) = (values(seed, 7, rows * stride), values(seed, 8, rows * stride));
    let mut out = values(seed, 9, 2 * rows);
    run(Products { rows, width, left: &left, right: &right, stride, out: &mut out, out_stride: 2 });
    out
}

/// Some rows of logits of two heads: their probabilities.
fn softmax_of(seed: u64, rows: usize, sizes: [usize; 2], run: impl Fn(Softmax<'_>)) -> Vec<f32> {
    let stride = sizes[0] + sizes[1] + 2;
    let heads = [Head { first: 0, size: sizes[0] }, Head { first: sizes[0] + 1, size: sizes[1] }];
    let mut logits = values(seed, 10, rows * stride);
    run(Softmax { rows, logits: &mut logits, stride, heads: &heads });
    logits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn products_and_probabilities_are_the_same_everywhere(
        seed in any::<u64>(), rows in 0..60usize, width in 0..70usize,
        sizes in (1..40usize, 1..40usize),
    ) {
        let sizes = [sizes.0, sizes.1];
        let scalar = Kernels(Isa::Scalar);
        let products = products_of(seed, rows, width, |job| scalar.products(job));
        let softmax = softmax_of(seed, rows, sizes, |job| scalar.softmax(job));
        for kernels in sets() {
            let got = products_of(seed, rows, width, |job| kernels.products(job));
            prop_assert_eq!(bits(&got), bits(&products), "{:?}", kernels);
            let got = softmax_of(seed, rows, sizes, |job| kernels.softmax(job));
            prop_assert_eq!(bits(&got), bits(&softmax), "{:?}", kernels);
        }
    }
}

/// Scalar products and probabilities against f64, and such as are wrong on purpose.
#[test]
fn wrong_products_and_probabilities_are_caught() {
    let (rows, width, sizes) = (9, 27, [11, 3]);
    let products_fit = |run: &dyn Fn(Products<'_>)| {
        let stride = width + 3;
        let (left, right) = (values(3, 7, rows * stride), values(3, 8, rows * stride));
        let starts = values(3, 9, 2 * rows);
        let got = products_of(3, rows, width, run);
        (0..rows).all(|row| {
            let pairs = left[row * stride..][..width].iter().zip(&right[row * stride..][..width]);
            let terms = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b));
            let start = f64::from(starts[2 * row]);
            let size = terms.clone().map(f64::abs).sum::<f64>() + start.abs();
            let want = terms.sum::<f64>() + start;
            (f64::from(got[2 * row]) - want).abs() <= 40.0 * size * f64::from(f32::EPSILON)
                && got[2 * row + 1] == starts[2 * row + 1]
        })
    };
    let scalar = Kernels(Isa::Scalar);
    assert!(products_fit(&|job| scalar.products(job)));
    assert!(!products_fit(&|job| scalar.products(Products { width: 26, ..job })), "one less");
    assert!(!products_fit(&|job| scalar.products(Products { rows: 8, ..job })), "a row left out");
    assert!(!products_fit(&|job| scalar.products(Products { right: job.left, ..job })), "squares");

    let softmax_fits = |run: &dyn Fn(Softmax<'_>)| {
        let stride = sizes[0] + sizes[1] + 2;
        let logits = values(3, 10, rows * stride);
        let got = softmax_of(3, rows, sizes, run);
        got.chunks(stride).zip(logits.chunks(stride)).all(|(got, logits)| {
            [0..11, 12..15].into_iter().all(|head| {
                let most = logits[head.clone()].iter().copied().fold(f32::MIN, f32::max);
                let raised = |logit: f32| f64::from(logit - most).exp();
                let total: f64 = logits[head.clone()].iter().map(|l| raised(*l)).sum();
                let near = |at: usize| f64::from(got[at]) - raised(logits[at]) / total;
                head.into_iter().all(|at| near(at).abs() < 1e-6)
            })
        })
    };
    assert!(softmax_fits(&|job| scalar.softmax(job)));
    let first = [Head { first: 0, size: 11 }];
    assert!(!softmax_fits(&|job| scalar.softmax(Softmax { heads: &first, ..job })), "one head");
    let shifted = [Head { first: 0, size: 11 }, Head { first: 11, size: 3 }];
    assert!(!softmax_fits(&|job| scalar.softmax(Softmax { heads: &shifted, ..job })), "shifted");
}
