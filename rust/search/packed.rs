//! Exact top-k over a few hundred rows that are searched again and again: a query's candidates.
//!
//! Rows are packed once in panels, as a dense layer whose outputs are the rows, so that a score is
//! the fixed-order fused dot product of the scalar kernel: `s = 0; s = fma(w[d], x[d], s)`. Ties
//! go to the lower row. Queries that share their candidates are best scored together.
//!
//! Bench: `cargo bench --bench kernels`, group `top_ten`.

use crate::kernels::{Dense, Kernels, Panels, Start};

/// What stands for "no row" where fewer than k are left.
pub const NO_ROW: u32 = u32::MAX;

/// Rows of attributes, packed for scoring.
#[derive(Clone, Debug)]
pub struct PackedRows {
    panels: Panels,
    /// 0 for a row, minus infinity for a column of padding: no query ever chooses that.
    start: Vec<f32>,
}

impl PackedRows {
    /// Packs row-major attributes, `dimensions` a row. Attributes must be finite.
    pub fn pack(attributes: &[f32], dimensions: usize) -> Self {
        assert!(dimensions > 0 && attributes.len().is_multiple_of(dimensions));
        let rows = attributes.len() / dimensions;
        let panels = Panels::pack(dimensions, rows, |row, dimension| {
            attributes[row * dimensions + dimension]
        });
        let mut start = vec![0.0; rows];
        start.resize(panels.padded(), f32::NEG_INFINITY);
        Self { panels, start }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.panels.outputs()
    }

    /// Distance of two queries' scores.
    pub fn stride(&self) -> usize {
        self.panels.padded()
    }

    /// Scores of all rows for `queries` weight vectors, one every `dimensions`, into `out`, one
    /// every [`Self::stride`]. Scores overflow if weights do: the caller bounds them.
    pub fn score(&self, kernels: Kernels, queries: usize, weights: &[f32], out: &mut [f32]) {
        kernels.dense(Dense {
            rows: queries,
            x: weights,
            x_stride: self.panels.inputs(),
            panels: &self.panels,
            start: Start::Bias(&self.start),
            slope: None,
            out,
            out_stride: self.stride(),
        });
    }

    /// The `k` best rows for each weight vector, best first, into `out` (`k` a query); where there
    /// are fewer rows, [`NO_ROW`]. `scores` is a buffer.
    pub fn top_k(
        &self,
        kernels: Kernels,
        queries: usize,
        weights: &[f32],
        k: usize,
        scores: &mut Vec<f32>,
        out: &mut [u32],
    ) {
        assert!(k > 0 && out.len() == queries * k);
        scores.resize(queries * self.stride(), 0.0);
        self.score(kernels, queries, weights, scores);
        kernels.select(&scores.chunks(self.stride()).collect::<Vec<_>>(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use proptest::prelude::*;

    /// Full sort of scalar scores.
    fn reference(attributes: &[f32], dimensions: usize, weights: &[f32], k: usize) -> Vec<u32> {
        let score =
            |row: &[f32]| row.iter().zip(weights).fold(0.0_f32, |s, (x, w)| w.mul_add(*x, s));
        let scores: Vec<f32> = attributes.chunks(dimensions).map(score).collect();
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|a, b| {
            let (left, right) = (scores[*a as usize], scores[*b as usize]);
            right.partial_cmp(&left).expect("finite").then(a.cmp(b))
        });
        order.resize(k.max(order.len()), NO_ROW);
        order.truncate(k);
        order
    }

    fn found(
        isa: Isa,
        attributes: &[f32],
        dimensions: usize,
        weights: &[f32],
        k: usize,
    ) -> Vec<u32> {
        let packed = PackedRows::pack(attributes, dimensions);
        let queries = weights.len() / dimensions;
        let mut out = vec![0; queries * k];
        let kernels = Kernels::of(isa).expect("available");
        packed.top_k(kernels, queries, weights, k, &mut Vec::new(), &mut out);
        out
    }

    /// Values with many ties, signed zeros among them, or few.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![Just(0.0), Just(-0.0), (-3..3).prop_map(|v| v as f32), -1.0_f32..1.0]
    }

    proptest! {
        #[test]
        fn the_best_rows_are_those_of_a_full_sort(
            (dimensions, attributes, weights, k) in (1..30_usize, 1..300_usize).prop_flat_map(
                |(dimensions, rows)| (
                    Just(dimensions),
                    prop::collection::vec(value(), dimensions * rows),
                    prop::collection::vec(value(), dimensions * 3),
                    prop_oneof![Just(10), 1..16_usize, 17..40_usize],
                )
            )
        ) {
            let expected: Vec<u32> = weights
                .chunks(dimensions)
                .flat_map(|weights| reference(&attributes, dimensions, weights, k))
                .collect();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let got = found(isa, &attributes, dimensions, &weights, k);
                prop_assert_eq!(&got, &expected, "{}", isa.name());
            }
        }
    }

    #[test]
    fn a_tie_goes_to_the_lower_row_and_its_opposite_would_show() {
        let attributes = vec![1.0; 200];
        let best = found(Isa::Scalar, &attributes, 1, &[2.0], 10);
        assert_eq!(best, (0..10).collect::<Vec<_>>());
        assert_ne!(best, (190..200).rev().collect::<Vec<_>>());
    }
}
