//! Exactness: every path against the scalar reference, and that against double precision.

use super::testing::{Built, catalogues, normals, sets, uniforms};
use super::*;

/// Answers of a search that no signal interrupts.
fn find(
    kernels: Kernels,
    view: &View<'_>,
    job: Search<'_>,
    slack: f64,
    width: Option<Width>,
) -> Result<Vec<Vec<(u32, f32)>>> {
    let count = job.queries.len() / view.dimensions * job.k;
    let (mut rows, mut scores) = (vec![7; count], vec![7.0; count]);
    let tick = || Ok(());
    search_with(kernels, view, job, &tick, &mut rows, &mut scores, slack, width)?;
    let pairs: Vec<_> = rows.into_iter().zip(scores).collect();
    Ok(pairs.chunks(job.k).map(<[_]>::to_vec).collect())
}

/// The reference's answers, padded.
fn wanted(view: &View<'_>, job: &Search<'_>) -> Vec<Vec<(u32, f32)>> {
    job.queries
        .chunks(view.dimensions)
        .map(|weights| {
            let mut top = reference::top(view, weights, job.k, job.allowed).unwrap();
            top.resize(job.k, (NO_ROW, f32::NEG_INFINITY));
            top
        })
        .collect()
}

/// Weights that suit a catalogue: some plain, some sparse, some zero, all so small that nothing
/// overflows.
fn weights(name: &str, dimensions: usize, queries: usize) -> Vec<f32> {
    let mut out = normals(77, dimensions * queries);
    let which = uniforms(78, queries);
    for (weights, which) in out.chunks_mut(dimensions).zip(which) {
        match (which * 20.0) as u32 {
            0 => weights.fill(0.0),
            1 => weights.iter_mut().skip(1).for_each(|w| *w = 0.0),
            2 => weights.iter_mut().for_each(|w| *w = -w.abs()),
            3 => weights.iter_mut().for_each(|w| *w *= 1e-20),
            _ => {}
        }
        if name == "huge" {
            weights.iter_mut().for_each(|w| *w *= 1e-3);
        }
    }
    out
}

/// Whether a search agrees with the reference for all instruction sets, widths and batchings.
fn agrees(
    name: &str,
    built: &Built,
    view: &View<'_>,
    queries: usize,
    k: usize,
    slack: f64,
) -> bool {
    let weights = weights(name, built.dimensions, queries);
    let job = Search { queries: &weights, k, allowed: Allowed::All, threads: 1 };
    let want = wanted(&built.view(), &job);
    sets().into_iter().all(|kernels| {
        [Some(Width::Eight), Some(Width::Four)].into_iter().all(|width| {
            let got = find(kernels, view, job, slack, width).unwrap();
            got == want
        })
    })
}

#[test]
fn every_path_ranks_as_the_reference() {
    for (name, dimensions, rows) in catalogues(9_000) {
        let built = Built::new(&rows, dimensions);
        let view = built.view();
        for (queries, k) in [(37, 10), (9, 1), (5, 1000)] {
            assert!(agrees(name, &built, &view, queries, k, 1.0), "{name} {dimensions} {k}");
        }
    }
}
