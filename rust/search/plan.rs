//! How a catalogue is ordered and quantised, learned from a sample of its rows.
//!
//! Search skips chunks whose bound is below what the best rows reach. A chunk's bound is tight when
//! its rows lie close together and are of one length, so rows are stored by *cluster*: a band of
//! lengths, the longest first, and within it the nearest of some centroids. Long rows first also
//! means that the first chunks of a scan hold most of the answers, so that little passes later.
//!
//! A plan is a guess about the data; whatever it says, answers are exact.

use crate::error::{Error, Result};
use crate::kernels::{Dense, Kernels, Panels, Start};
use crate::rng::{Origin, Purpose, fill};
use crate::search::index::{MOST_DIMENSIONS, MOST_ROWS};

/// Rows that a cluster should have at least, on average: two chunks.
const CLUSTER_ROWS: u64 = 512;
/// Most centroids.
const MOST_CENTROIDS: u64 = 64;
/// Most bands.
const MOST_BANDS: u64 = 64;
/// Rows of the sample that centroids are fitted to, for each of them.
const ROWS_A_CENTROID: usize = 128;
/// Rounds of moving centroids.
const ROUNDS: usize = 8;
/// Opens a plan's bytes.
const MAGIC: [u8; 8] = *b"vtbplan1";

/// How a catalogue is ordered and quantised; see the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Worth of one code step in each dimension, for a chunk of scale one; positive.
    step: Vec<f32>,
    /// Centroids, row-major.
    centroids: Vec<f32>,
    /// Squared lengths that part the bands, falling; one fewer than bands.
    edges: Vec<f32>,
    panels: Panels,
    bias: Vec<f32>,
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        (&self.step, &self.centroids, &self.edges) == (&other.step, &other.centroids, &other.edges)
    }
}

impl Plan {
    /// Learns a plan for so many `rows` from a `sample` of them (row-major, finite, not empty).
    pub fn learn(sample: &[f32], dimensions: usize, rows: u64) -> Result<Self> {
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            let expected = format!("1 to {MOST_DIMENSIONS}");
            return Err(Error::argument("dimensions", expected, dimensions));
        }
        if rows > MOST_ROWS {
            return Err(Error::argument("rows", format!("at most {MOST_ROWS}"), rows));
        }
        if !sample.len().is_multiple_of(dimensions) {
            let expected = format!("whole rows of {dimensions} values");
            return Err(Error::argument("sample", expected, format!("{} values", sample.len())));
        }
        let clusters = (rows / CLUSTER_ROWS).max(1);
        let centroids = (clusters as f64).sqrt() as u64;
        let centroids = centroids.clamp(1, MOST_CENTROIDS);
        let bands = (clusters / centroids).clamp(1, MOST_BANDS);
        let edges = edges(sample, dimensions, bands as usize);
        let plan = Self::new(step(sample, dimensions), Vec::new(), edges);
        let centroids = plan.fit(sample, centroids as usize);
        Ok(Self::new(plan.step, centroids, plan.edges))
    }

    fn new(step: Vec<f32>, centroids: Vec<f32>, edges: Vec<f32>) -> Self {
        let dimensions = step.len();
        let count = centroids.len() / dimensions;
        let panels = Panels::pack(dimensions, count, |c, d| centroids[c * dimensions + d]);
        // The nearest centroid has the largest x.c - |c|^2 / 2.
        let mut bias: Vec<f32> = centroids
            .chunks_exact(dimensions)
            .map(|c| -0.5 * c.iter().map(|x| x * x).sum::<f32>())
            .collect();
        bias.resize(Panels::padded_outputs(count), 0.0);
        Self { step, centroids, edges, panels, bias }
    }

    /// Attributes of an item.
    pub fn dimensions(&self) -> usize {
        self.step.len()
    }

    /// Worth of one code step in each dimension, for a chunk of scale one.
    pub(super) fn step(&self) -> &[f32] {
        &self.step
    }

    /// Number of clusters.
    pub fn clusters(&self) -> u32 {
        ((self.edges.len() + 1) * self.count()) as u32
    }

    fn count(&self) -> usize {
        (self.centroids.len() / self.dimensions()).max(1)
    }

    /// The cluster of one row.
    pub fn cluster(&self, row: &[f32]) -> u32 {
        let mut out = [0];
        self.clusters_of(Kernels::SCALAR, row, &mut out);
        out[0]
    }

    /// The clusters of some rows (row-major); the same on every instruction set.
    pub fn clusters_of(&self, kernels: Kernels, rows: &[f32], out: &mut [u32]) {
        const TILE: usize = 64;
        let dimensions = self.dimensions();
        assert_eq!(rows.len(), out.len() * dimensions);
        let width = self.panels.padded();
        let mut scores = vec![0.0; TILE * width];
        for (rows, out) in rows.chunks(TILE * dimensions).zip(out.chunks_mut(TILE)) {
            kernels.dense(Dense {
                rows: out.len(),
                x: rows,
                x_stride: dimensions,
                panels: &self.panels,
                start: Start::Bias(&self.bias),
                slope: None,
                out: &mut scores,
                out_stride: width,
            });
            for (at, (row, out)) in rows.chunks_exact(dimensions).zip(out).enumerate() {
                let scores = &scores[at * width..][..self.count().min(width)];
                let mut nearest = 0;
                for (centroid, score) in scores.iter().enumerate() {
                    // Overflown scores are not above any; all that costs is a loose bound.
                    if *score > scores[nearest] {
                        nearest = centroid;
                    }
                }
                let square = square(row);
                let band = self.edges.partition_point(|edge| square < *edge);
                *out = (band * self.count() + nearest) as u32;
            }
        }
    }

    /// Fits centroids to an evenly drawn part of the sample.
    fn fit(&self, sample: &[f32], count: usize) -> Vec<f32> {
        let dimensions = self.dimensions();
        let rows = sample.len() / dimensions;
        let taken = rows.min(count * ROWS_A_CENTROID);
        if count <= 1 || taken < count {
            return vec![0.0; dimensions];
        }
        let row = |at: usize| &sample[at * rows / taken * dimensions..][..dimensions];
        let part: Vec<f32> = (0..taken).flat_map(row).copied().collect();
        let mut starts = vec![0.0; count];
        fill(Origin { seed: 0, session: 0, page: 0, purpose: Purpose::Latent }, &mut starts);
        let mut centroids: Vec<f32> = starts
            .iter()
            .flat_map(|u| &part[(u * taken as f32) as usize * dimensions..][..dimensions])
            .copied()
            .collect();
        let mut nearest = vec![0; taken];
        for _ in 0..ROUNDS {
            let plan = Self::new(self.step.clone(), centroids, Vec::new());
            plan.clusters_of(Kernels::best().unwrap_or(Kernels::SCALAR), &part, &mut nearest);
            let mut sums = vec![0.0_f64; count * dimensions];
            let mut members = vec![0_u32; count];
            for (row, nearest) in part.chunks_exact(dimensions).zip(&nearest) {
                members[*nearest as usize] += 1;
                let sums = &mut sums[*nearest as usize * dimensions..][..dimensions];
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            centroids = plan.centroids;
            for (c, members) in members.into_iter().enumerate().filter(|(_, members)| *members > 0)
            {
                for d in c * dimensions..(c + 1) * dimensions {
                    centroids[d] = (sums[d] / f64::from(members)) as f32;
                }
            }
        }
        centroids
    }

    /// The plan as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let sizes = [self.step.len(), self.centroids.len() / self.step.len(), self.edges.len()];
        let values = self.step.iter().chain(&self.centroids).chain(&self.edges);
        let mut out = MAGIC.to_vec();
        out.extend(sizes.iter().flat_map(|size| (*size as u32).to_le_bytes()));
        out.extend(values.flat_map(|value| value.to_le_bytes()));
        out
    }

    /// Reads [`Self::to_bytes`], refusing anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |reason: String| Error::format("the plan of a catalogue", reason);
        let header = bytes
            .get(..20)
            .ok_or_else(|| refuse(format!("expected at least 20 bytes, got {}", bytes.len())))?;
        if header[..8] != MAGIC {
            let (expected, got) = (MAGIC.escape_ascii(), header[..8].escape_ascii());
            return Err(refuse(format!("expected it to start with \"{expected}\", got \"{got}\"")));
        }
        let word = |at: usize| {
            u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let (dimensions, centroids, edges) = (word(8), word(12), word(16));
        let sane = (1..=MOST_DIMENSIONS).contains(&dimensions)
            && (1..=MOST_CENTROIDS as usize).contains(&centroids)
            && edges < MOST_BANDS as usize;
        if !sane {
            return Err(refuse(format!(
                "expected 1 to {MOST_DIMENSIONS} dimensions, 1 to {MOST_CENTROIDS} centroids and \
                 fewer than {MOST_BANDS} edges, got {dimensions}, {centroids} and {edges}"
            )));
        }
        let expected = 20 + 4 * (dimensions + centroids * dimensions + edges);
        if bytes.len() != expected {
            return Err(refuse(format!("expected {expected} bytes, got {}", bytes.len())));
        }
        let values: Vec<f32> =
            bytes[20..].as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let (step, rest) = values.split_at(dimensions);
        let (centroids, edges) = rest.split_at(centroids * dimensions);
        let refused = |what: &str, got: &f32| Err(refuse(format!("expected {what}, got {got}")));
        if let Some(step) = step.iter().find(|one| !(SMALLEST_STEP..=LARGEST_STEP).contains(one)) {
            return refused(&format!("steps of {SMALLEST_STEP:e} to {LARGEST_STEP:e}"), step);
        }
        if let Some(value) = edges.iter().chain(centroids).find(|value| !value.is_finite()) {
            return refused("finite centroids and edges", value);
        }
        if let Some(pair) = edges.windows(2).find(|pair| pair[0] < pair[1]) {
            return refused(&format!("edges that fall, after {} none above it", pair[0]), &pair[1]);
        }
        Ok(Self::new(step.to_vec(), centroids.to_vec(), edges.to_vec()))
    }
}

/// Steps are kept between these, so that products with them stay numbers.
const SMALLEST_STEP: f32 = 1e-18;
/// See [`SMALLEST_STEP`].
const LARGEST_STEP: f32 = 1e18;

/// The squared length of a row, saturated to a finite number.
fn square(row: &[f32]) -> f32 {
    row.iter().fold(0.0_f32, |sum, x| x.mul_add(*x, sum)).min(f32::MAX)
}

/// The standard deviation of each dimension: what matters is their proportion.
fn step(sample: &[f32], dimensions: usize) -> Vec<f32> {
    let rows = (sample.len() / dimensions).max(1) as f64;
    let mut sums = vec![[0.0_f64; 2]; dimensions];
    for row in sample.chunks_exact(dimensions) {
        for ([sum, squares], x) in sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
            *squares += f64::from(*x).powi(2);
        }
    }
    let deviation = |[sum, squares]: [f64; 2]| {
        let variance = squares / rows - (sum / rows).powi(2);
        let step = variance.max(0.0).sqrt() as f32;
        // Nothing is known of a dimension that never varied in the sample.
        if step > 0.0 { step.clamp(SMALLEST_STEP, LARGEST_STEP) } else { 1.0 }
    };
    sums.into_iter().map(deviation).collect()
}

/// Squared lengths that part the sample into bands of equal size, falling.
fn edges(sample: &[f32], dimensions: usize, bands: usize) -> Vec<f32> {
    let mut squares: Vec<f32> = sample.chunks_exact(dimensions).map(square).collect();
    squares.sort_unstable_by(|a, b| b.total_cmp(a));
    match squares.len() {
        0 => Vec::new(),
        rows => (1..bands).map(|band| squares[band * rows / bands]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::testing;

    #[test]
    fn plans_come_back_from_their_bytes_and_nothing_else_does() {
        let (_, dimensions, rows) = testing::catalogues(4_000).swap_remove(0);
        let plan = Plan::learn(&rows, dimensions, 1_000_000).unwrap();
        assert!(plan.clusters() > 500);
        let bytes = plan.to_bytes();
        assert_eq!(Plan::from_bytes(&bytes).unwrap(), plan);
        for cut in [0, 7, 19, 20, bytes.len() - 1] {
            assert!(Plan::from_bytes(&bytes[..cut]).is_err());
        }
        assert!(Plan::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for (at, value) in [(0, 0xFF), (8, 0xFF), (12, 0), (13, 0xFF), (18, 0xFF), (23, 0x7F)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            if at == 23 {
                wrong[22] = 0xC0;
            }
            assert!(Plan::from_bytes(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn clusters_are_the_same_on_every_instruction_set() {
        for (name, dimensions, rows) in testing::catalogues(300) {
            let plan = Plan::learn(&rows, dimensions, 500_000).unwrap();
            let one_by_one: Vec<u32> =
                rows.chunks_exact(dimensions).map(|row| plan.cluster(row)).collect();
            assert!(one_by_one.iter().all(|cluster| *cluster < plan.clusters()));
            for kernels in testing::sets() {
                let mut out = vec![0; 300];
                plan.clusters_of(kernels, &rows, &mut out);
                assert_eq!(out, one_by_one, "{name} {kernels:?}");
            }
        }
    }
}
