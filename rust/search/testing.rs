//! Catalogues for tests, of every kind that has broken a search somewhere.

use crate::kernels::{Isa, Kernels};
use crate::rng::{Origin, Purpose, fill};
use crate::search::index::{Encoder, View};
use crate::search::plan::Plan;

/// All instruction sets of this CPU.
pub fn sets() -> Vec<Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| Kernels::of(isa).ok()).collect()
}

/// Uniforms in [0, 1).
pub fn uniforms(session: u64, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    fill(Origin { seed: 11, session, page: 0, purpose: Purpose::Policy }, &mut out);
    out
}

/// Standard normal draws.
pub fn normals(session: u64, count: usize) -> Vec<f32> {
    let mut out = uniforms(session, count);
    Kernels::SCALAR.normals(&mut out);
    out
}

/// Names, dimensions and row-major attributes of catalogues with so many rows.
pub fn catalogues(rows: usize) -> Vec<(&'static str, usize, Vec<f32>)> {
    let mut all: Vec<_> = ["clustered", "uniform", "correlated", "duplicates", "equal", "huge"]
        .into_iter()
        .map(|kind| (kind, 27, catalogue(kind, rows, 27)))
        .collect();
    for (kind, dimensions) in [("clustered", 1), ("uniform", 5), ("correlated", 64), ("huge", 3)] {
        all.push((kind, dimensions, catalogue(kind, rows, dimensions)));
    }
    all.push(("tiny", 6, catalogue("tiny", rows, 6)));
    all.push(("correlated", 257, catalogue("correlated", rows.min(2_000), 257)));
    all
}

/// One catalogue.
pub fn catalogue(kind: &str, rows: usize, dimensions: usize) -> Vec<f32> {
    let count = rows * dimensions;
    let noise = normals(dimensions as u64, count);
    match kind {
        "uniform" => uniforms(1, count),
        // A falling spectrum, rotated by sums of neighbours.
        "correlated" => (0..count)
            .map(|at| {
                let d = at % dimensions;
                (0..=d.min(3)).map(|back| noise[at - back] / (1.0 + d as f32)).sum()
            })
            .collect(),
        "clustered" => {
            let centres = normals(2, 40 * dimensions);
            let members = uniforms(3, rows);
            (0..count)
                .map(|at| {
                    let centre = (members[at / dimensions] * 40.0) as usize;
                    3.0 * centres[centre * dimensions + at % dimensions] + 0.1 * noise[at]
                })
                .collect()
        }
        "duplicates" => (0..count).map(|at| noise[at % (20 * dimensions)]).collect(),
        "equal" => (0..count).map(|at| noise[at % dimensions]).collect(),
        // Sixty orders of magnitude, both signs, zeros.
        "huge" => {
            let powers = uniforms(4, count);
            (0..count)
                .map(|at| match (powers[at] * 62.0) as i32 {
                    0 => 0.0,
                    power => noise[at] * 10_f32.powi(power - 31),
                })
                .collect()
        }
        // All results below what single precision holds normally.
        "tiny" => noise.iter().map(|x| x * 1e-22).collect(),
        other => unreachable!("{other}"),
    }
}

/// A catalogue in storage order with its index.
pub struct Built {
    pub plan: Plan,
    pub dimensions: usize,
    pub attributes: Vec<f32>,
    pub codes: Vec<u8>,
    pub bounds: Vec<f32>,
    pub order: Vec<u32>,
}

impl Built {
    /// Builds from rows in the user's order.
    pub fn new(rows: &[f32], dimensions: usize) -> Self {
        let count = rows.len() / dimensions;
        // Far more rows are claimed than there are, so that small tests have many clusters.
        let plan = Plan::learn(rows, dimensions, 20 * count as u64).unwrap();
        let mut clusters = vec![0; count];
        plan.clusters_of(Kernels::best().unwrap(), rows, &mut clusters);
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by_key(|row| (clusters[*row as usize], *row));
        let row = |row: &u32| &rows[*row as usize * dimensions..][..dimensions];
        let attributes: Vec<f32> = order.iter().flat_map(row).copied().collect();
        let (mut codes, mut bounds) = (Vec::new(), Vec::new());
        let mut encoder = Encoder::new(&plan);
        encoder.push(&attributes, &mut codes, &mut bounds);
        encoder.finish(&mut codes, &mut bounds);
        Self { plan, dimensions, attributes, codes, bounds, order }
    }

    pub fn view(&self) -> View<'_> {
        View {
            plan: &self.plan,
            dimensions: self.dimensions,
            attributes: &self.attributes,
            codes: &self.codes,
            bounds: &self.bounds,
            order: &self.order,
        }
    }
}
