//! Customers of a mixture: a component is drawn, then each field by itself.

use crate::error::{Error, Result};
use crate::kernels::Head;
use crate::simulator::Field;
use crate::tensor_file::Tensors;

/// Probabilities that sum to 1 within this are taken as meant to: f32 rounds 256 of them by less.
const TOLERANCE: f64 = 1e-4;
/// Up to so many cumulative probabilities are compared one and all, without a branch.
const FEW: usize = 32;

/// Cumulative probabilities. Those of a category that never occurs equal the one before, and the
/// last is 1, so that no uniform in [0, 1) draws it.
#[derive(Clone, Debug)]
pub struct Mixture {
    shares: Vec<f32>,
    /// One row of columns a component, cumulative within each field.
    fields: Vec<f32>,
    width: usize,
}

impl Mixture {
    /// From tensors of the right shapes.
    pub fn new(fields: &[Field], tensors: &Tensors) -> Result<Self> {
        let [shares, columns] =
            ["customers.shares", "customers.fields"].map(|name| tensors[name].values());
        let width: usize = fields.iter().map(|field| field.size).sum();
        let mut mixture = Self { shares: shares.to_vec(), fields: columns.to_vec(), width };
        accumulate(&mut mixture.shares, || "tensor customers.shares".into())?;
        for (component, mut columns) in mixture.fields.chunks_mut(width).enumerate() {
            for field in fields {
                let (block, rest) = columns.split_at_mut(field.size);
                accumulate(block, || {
                    let name = &field.name;
                    format!("tensor customers.fields, component {component}, field {name:?}")
                })?;
                columns = rest;
            }
        }
        Ok(mixture)
    }

    /// One customer, of a uniform for the component and one a field.
    pub fn draw(&self, heads: &[Head], uniforms: &[f32], out: &mut [u8]) {
        let component = place(&self.shares, uniforms[0]);
        let columns = &self.fields[component * self.width..][..self.width];
        for ((head, uniform), out) in heads.iter().zip(&uniforms[1..]).zip(out) {
            *out = place(&columns[head.first..][..head.size], *uniform) as u8;
        }
    }
}

/// How many of the cumulative probabilities, the last left out, a uniform has reached.
fn place(cumulative: &[f32], uniform: f32) -> usize {
    let all_but_last = &cumulative[..cumulative.len() - 1];
    if all_but_last.len() <= FEW {
        all_but_last.iter().map(|sum| usize::from(*sum <= uniform)).sum()
    } else {
        all_but_last.partition_point(|sum| *sum <= uniform)
    }
}

/// Turns probabilities into cumulative ones, scaled to end at 1.
fn accumulate(probabilities: &mut [f32], what: impl Fn() -> String) -> Result<()> {
    if let Some(value) = probabilities.iter().find(|value| **value < 0.0) {
        return Err(Error::argument(what(), "probabilities of at least 0", value));
    }
    let total: f64 = probabilities.iter().map(|value| f64::from(*value)).sum();
    if (total - 1.0).abs() > TOLERANCE {
        let expected = format!("probabilities that sum to 1 within {TOLERANCE:e}");
        return Err(Error::argument(what(), expected, format!("a sum of {total}")));
    }
    let mut sum = 0.0;
    for value in probabilities {
        sum += f64::from(*value);
        *value = (sum / total) as f32;
    }
    Ok(())
}
