//! Each kernel beside a naive version, the answers compared before they are timed.
//!
//! `cargo bench --bench kernels`

#![allow(missing_docs, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use virtualtb_fast::kernels::scan::{CHUNK, GROUP, NEVER, PAIRS, Scan, Width, groups};
use virtualtb_fast::kernels::{Categorical, Dense, Head, Isa, Kernels, Panels, Start, TILE, math};
use virtualtb_fast::rng::{Origin, Purpose, fill};

fn values(session: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    fill(Origin { seed: 1, session, page: 0, purpose: Purpose::Policy }, &mut out);
    out.iter_mut().for_each(|value| *value -= 0.5);
    out
}

fn sets() -> Vec<Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| Kernels::of(isa).ok()).collect()
}

/// The middle layer of the answering network, where four fifths of a page's work is.
fn dense(c: &mut Criterion) {
    let (inputs, outputs) = (128, 256);
    let (x, weights) = (values(1, TILE * inputs), values(2, inputs * outputs));
    let bias = values(3, outputs);
    let panels = Panels::pack(inputs, outputs, |output, input| weights[output * inputs + input]);
    let naive = |out: &mut [f32]| {
        for (x, out) in x.chunks(inputs).zip(out.chunks_mut(outputs)) {
            for ((out, bias), weights) in out.iter_mut().zip(&bias).zip(weights.chunks(inputs)) {
                *out = x.iter().zip(weights).fold(*bias, |sum, (x, w)| x.mul_add(*w, sum));
            }
        }
    };
    let ours = |kernels: Kernels, out: &mut [f32]| {
        kernels.dense(Dense {
            rows: TILE,
            x: &x,
            x_stride: inputs,
            panels: &panels,
            start: Start::Bias(&bias),
            slope: None,
            out,
            out_stride: outputs,
        });
    };
    let (mut want, mut got) = (vec![0.0; TILE * outputs], vec![0.0; TILE * outputs]);
    naive(&mut want);
    let mut group = c.benchmark_group("dense 48x128x256");
    group.throughput(Throughput::ElementsAndBytes {
        elements: (2 * TILE * inputs * outputs) as u64,
        bytes: (4 * inputs * outputs) as u64,
    });
    group.bench_function("naive", |b| b.iter(|| naive(black_box(&mut want))));
    for kernels in sets() {
        ours(kernels, &mut got);
        assert_eq!(got, want);
        group.bench_function(kernels.isa().name(), |b| {
            b.iter(|| ours(kernels, black_box(&mut got)))
        });
    }
    group.finish();
}

/// The two heads of a page for a tile of sessions.
fn categorical(c: &mut Criterion) {
    let (stride, heads) = (24, [Head { first: 0, size: 11 }, Head { first: 11, size: 10 }]);
    let logits: Vec<f32> = values(4, TILE * stride).iter().map(|value| value * 8.0).collect();
    let uniforms: Vec<f32> = values(5, TILE * heads.len()).iter().map(|u| u + 0.5).collect();
    let naive = |out: &mut [u8]| {
        for (row, logits) in logits.chunks(stride).enumerate() {
            for (index, head) in heads.iter().enumerate() {
                let logits = &logits[head.first..][..head.size];
                let largest = logits.iter().copied().fold(f32::MIN, f32::max);
                let weights: Vec<f32> =
                    logits.iter().map(|l| math::exp_nonpositive(l - largest)).collect();
                let mut left = uniforms[row * 2 + index] * weights.iter().sum::<f32>();
                let mut category = 0;
                while left >= weights[category] && category + 1 < head.size {
                    left -= weights[category];
                    category += 1;
                }
                out[row * 2 + index] = category as u8;
            }
        }
    };
    let ours = |kernels: Kernels, out: &mut [u8]| {
        let (rows, logits, uniforms) = (TILE, &logits, &uniforms);
        kernels.categorical(Categorical { rows, logits, stride, heads: &heads, uniforms, out });
    };
    let (mut want, mut got) = (vec![0; TILE * 2], vec![0; TILE * 2]);
    naive(&mut want);
    let mut group = c.benchmark_group("categorical 48x(11+10)");
    group.throughput(Throughput::Elements((TILE * 2) as u64));
    group.bench_function("naive", |b| b.iter(|| naive(black_box(&mut want))));
    for kernels in sets() {
        ours(kernels, &mut got);
        assert_eq!(got, want);
        group.bench_function(kernels.isa().name(), |b| {
            b.iter(|| ours(kernels, black_box(&mut got)))
        });
    }
    group.finish();
}

/// The noise of one customer.
fn uniforms(c: &mut Criterion) {
    let origin = Origin { seed: 3, session: 4, page: 0, purpose: Purpose::Latent };
    let (mut want, mut got) = (vec![0.0; 128], vec![0.0; 128]);
    Kernels::of(Isa::Scalar).expect("always there").uniforms(origin, &mut want);
    let mut group = c.benchmark_group("uniforms 128");
    group.throughput(Throughput::Elements(128));
    for kernels in sets() {
        kernels.uniforms(origin, &mut got);
        assert_eq!(got, want);
        group.bench_function(kernels.isa().name(), |b| {
            b.iter(|| kernels.uniforms(black_box(origin), black_box(&mut got)));
        });
    }
    group.finish();
}

/// Integer sums of a chunk of 256 items x 27 for 64 queries, against plain f32 dot products.
fn scan(c: &mut Criterion) {
    let (dimensions, count) = (27, 64);
    let groups = groups(dimensions);
    let codes: Vec<u8> = values(4, Width::Eight.chunk_bytes(groups))
        .iter()
        .map(|v| (v * 255.0 + 127.5) as u8)
        .collect();
    let queries: Vec<i8> =
        values(5, count * groups * GROUP).iter().map(|v| (v * 128.0) as i8).collect();
    let slots: Vec<u32> = (0..count as u32).collect();
    // Nothing reaches the least sum, as it is with all but a few chunks.
    let least = vec![NEVER / 2; count];
    let (items, weights) = (values(6, CHUNK * dimensions), values(7, count * dimensions));
    let naive = |found: &mut u32| {
        for weights in weights.chunks(dimensions) {
            for item in items.chunks(dimensions) {
                let score = item.iter().zip(weights).fold(0.0, |s, (x, w)| w.mul_add(*x, s));
                *found += u32::from(score > 100.0);
            }
        }
    };
    let mut hits = Vec::new();
    for width in [Width::Eight, Width::Four] {
        let mut group = c.benchmark_group(format!("scan 256x27, 64 queries, {width:?} bits"));
        group.throughput(Throughput::Elements((CHUNK * count) as u64));
        group.bench_function("naive f32", |b| {
            let mut found = 0;
            b.iter(|| naive(black_box(&mut found)));
            assert_eq!(found, 0);
        });
        for kernels in sets() {
            let mut run = |least: &[i32]| {
                hits.clear();
                kernels.scan(Scan {
                    codes: black_box(&codes[..width.chunk_bytes(groups)]),
                    width,
                    groups,
                    allowed: [u32::MAX; PAIRS],
                    queries: &queries,
                    slots: &slots,
                    least,
                    hits: &mut hits,
                });
                hits.len()
            };
            assert_eq!(run(&vec![-NEVER; count]), count * PAIRS);
            assert_eq!(run(&least), 0);
            group.bench_function(kernels.isa().name(), |b| b.iter(|| run(&least)));
        }
        group.finish();
    }
}

/// Scores of 200 items x 27 where they lie.
fn dots(c: &mut Criterion) {
    let dimensions = 27;
    let (items, weights) = (values(8, 5_000 * dimensions), values(9, dimensions));
    let rows: Vec<u32> = (0..200).map(|row| row * 25).collect();
    let naive = |out: &mut [f32]| {
        for (row, out) in rows.iter().zip(out) {
            let item = &items[*row as usize * dimensions..][..dimensions];
            *out = item.iter().zip(&weights).fold(0.0, |s, (x, w)| w.mul_add(*x, s));
        }
    };
    let (mut want, mut got) = (vec![0.0; 200], vec![0.0; 200]);
    naive(&mut want);
    let mut group = c.benchmark_group("dots 200x27");
    group.throughput(Throughput::Elements(200));
    group.bench_function("naive", |b| b.iter(|| naive(black_box(&mut want))));
    for kernels in sets() {
        kernels.dots(&weights, &items, &rows, &mut got);
        assert_eq!(got, want);
        group.bench_function(kernels.isa().name(), |b| {
            b.iter(|| kernels.dots(black_box(&weights), &items, &rows, black_box(&mut got)));
        });
    }
    group.finish();
}

/// The ten best of a query's 200 candidates.
fn top_ten(c: &mut Criterion) {
    let scores: Vec<f32> = values(6, 208 * TILE);
    let naive = |out: &mut [u32]| {
        for (scores, out) in scores.chunks(208).zip(out.chunks_mut(10)) {
            let mut order: Vec<u32> = (0..208).collect();
            order.sort_by(|a, b| {
                let (left, right) = (scores[*a as usize], scores[*b as usize]);
                right.total_cmp(&left).then(a.cmp(b))
            });
            out.copy_from_slice(&order[..10]);
        }
    };
    let ours = |kernels: Kernels, out: &mut [u32]| {
        kernels.select(&scores.chunks(208).collect::<Vec<_>>(), out);
    };
    let (mut want, mut got) = (vec![0; TILE * 10], vec![0; TILE * 10]);
    naive(&mut want);
    let mut group = c.benchmark_group("top_ten of 208");
    group.throughput(Throughput::Elements(TILE as u64));
    group.bench_function("naive", |b| b.iter(|| naive(black_box(&mut want))));
    for kernels in sets() {
        ours(kernels, &mut got);
        assert_eq!(got, want);
        group.bench_function(kernels.isa().name(), |b| {
            b.iter(|| ours(kernels, black_box(&mut got)))
        });
    }
    group.finish();
}

criterion_group!(benches, scan, dots, dense, categorical, uniforms, top_ten);
criterion_main!(benches);
