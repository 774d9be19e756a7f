//! Simulated customers of an online shop, for training and judging ranking policies.
//!
//! ```text
//! kernels -> nn -> simulator -> session -> batch            (environments)
//!                                       -> rollout -> logs  (whole sessions to columns, Parquet)
//! kernels -> search -> store                                (a shop with known customers)
//! kernels -> catalog -> search                               (items, exact top-k)
//! ```
//!
//! The Python package `virtualtb_fast` is this crate's main user; the module it imports lives
//! behind the feature `python`, and nothing else here knows of it.

pub mod background;
pub mod batch;
pub mod catalog;
pub mod error;
pub mod kernels;
pub mod logs;
pub mod nn;
pub mod parallel;
pub mod policy;
#[cfg(feature = "python")]
mod python;
pub mod rng;
pub mod rollout;
pub mod search;
pub mod session;
pub mod simulator;
pub mod store;
mod strict_file;
pub mod tensor_file;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
