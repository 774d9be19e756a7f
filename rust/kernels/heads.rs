//! What is computed of the logits of answers beside the draws: products on top, probabilities.

use super::{Head, Kernels};

/// Adds to one number of some rows the products of two vectors, pair by pair in their order.
#[derive(Debug)]
pub struct Products<'a> {
    /// Rows to compute.
    pub rows: usize,
    /// Values of a vector.
    pub width: usize,
    /// One vector of each pair, every `stride`.
    pub left: &'a [f32],
    /// The other.
    pub right: &'a [f32],
    /// Distance of two vectors of either side.
    pub stride: usize,
    /// The numbers, every `out_stride`.
    pub out: &'a mut [f32],
    /// Distance of two numbers.
    pub out_stride: usize,
}

/// Turns logits into the probabilities that [`Kernels::categorical`] draws with.
#[derive(Debug)]
pub struct Softmax<'a> {
    /// Rows to compute.
    pub rows: usize,
    /// Logits, then probabilities, one row every `stride`.
    pub logits: &'a mut [f32],
    /// Distance of two rows.
    pub stride: usize,
    /// The heads of a row.
    pub heads: &'a [Head],
}

impl Kernels {
    /// Computes products.
    pub fn products(self, job: Products<'_>) {
        if job.rows > 0 {
            let last = (job.rows - 1) * job.stride + job.width;
            assert!(job.width <= job.stride && job.left.len() >= last && job.right.len() >= last);
            assert!(job.out.len() > (job.rows - 1) * job.out_stride);
        }
        dispatch!(self, products(job));
    }

    /// Computes probabilities.
    pub fn softmax(self, job: Softmax<'_>) {
        assert!(job.logits.len() >= job.rows * job.stride);
        for head in job.heads {
            assert!(head.size > 0 && head.first + head.size <= job.stride);
        }
        dispatch!(self, softmax(job));
    }
}
