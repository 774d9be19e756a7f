//! Exact top-k by inner product.

pub mod packed;
