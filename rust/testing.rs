//! A small simulator for tests: random weights, odd sizes.

use std::sync::Arc;

use crate::rng::{Origin, Purpose, fill};
use crate::simulator::{
    Config, CustomerConfig, Field, Heads, LeaveConfig, ResponseConfig, ResponseKind, Schema,
    Simulator, Tensor, Tensors,
};
use crate::tensor_file::Expected;

/// Three fields, five action dimensions, sizes that leave every kind of panel remainder.
pub fn simulator(seed: u64) -> Arc<Simulator> {
    let (schema, config) = (schema(), config());
    let tensors = tensors(&schema, &config, seed);
    let provenance = serde_json::json!({ "made_by": "tests" });
    Simulator::new("test".into(), schema, config, provenance, tensors).expect("sizes agree")
}

pub fn schema() -> Schema {
    let field = |(index, size): (usize, usize)| Field { name: format!("field_{index}"), size };
    Schema {
        customer: [3, 2, 6].into_iter().enumerate().map(field).collect(),
        action: 5,
        action_range: [-1.0, 1.0],
    }
}

pub fn config() -> Config {
    Config {
        customers: CustomerConfig::Mlp { latent: 10, hidden: vec![12] },
        response: ResponseConfig {
            kind: ResponseKind::Mlp,
            heads: Heads::Clicks { clicks: 5, second: 4 },
            page_scale: 0.25,
            hidden: vec![20, 9],
        },
        leave: LeaveConfig::Once { classes: 13, hidden: vec![7, 17] },
        slope: 0.01,
    }
}

/// One simulator of every kind of customers, with answers of every kind among them.
pub fn learned(seed: u64) -> Vec<Arc<Simulator>> {
    let outcome = |kind| ResponseConfig {
        kind,
        heads: Heads::Outcome { items: 10 },
        page_scale: 0.25,
        hidden: vec![20],
    };
    let kinds = [
        (CustomerConfig::Mixture { components: 4 }, config().response),
        (CustomerConfig::Rows { rows: 37 }, outcome(ResponseKind::Linear)),
        (CustomerConfig::Autoregressive { hidden: vec![11] }, outcome(ResponseKind::Mlp)),
    ];
    let make = |(customers, response)| {
        let schema = schema();
        let leave = LeaveConfig::Hazard { longest: 7 };
        let config = Config { customers, response, leave, slope: 0.2 };
        let tensors = tensors(&schema, &config, seed);
        Simulator::new("learned".into(), schema, config, serde_json::json!({}), tensors)
            .expect("sizes agree")
    };
    kinds.into_iter().map(make).collect()
}

pub fn tensors(schema: &Schema, config: &Config, seed: u64) -> Tensors {
    let mut session = 0;
    let mut uniforms = |count: usize| {
        session += 1;
        let mut data = vec![0.0; count];
        fill(Origin { seed, session, page: 0, purpose: Purpose::Latent }, &mut data);
        data
    };
    let sizes = schema.sizes();
    let mut make = |Expected { name, shape, codes }: Expected| {
        let mut data = uniforms(shape.iter().product());
        let tensor = if codes {
            let pairs = data.iter().zip(sizes.iter().cycle());
            let codes: Vec<_> = pairs.map(|(u, size)| (u * *size as f32) as u8).collect();
            Tensor::codes(shape, codes)
        } else if name == "customers.shares" {
            normalise(&mut data);
            Tensor::floats(shape, data)
        } else if name == "customers.fields" {
            for mut row in data.chunks_mut(schema.customer_width()) {
                for size in &sizes {
                    let (block, rest) = row.split_at_mut(*size);
                    normalise(block);
                    row = rest;
                }
            }
            Tensor::floats(shape, data)
        } else {
            data.iter_mut().for_each(|value| *value -= 0.5);
            Tensor::floats(shape, data)
        };
        (name, tensor)
    };
    config.tensors(schema).into_iter().map(&mut make).collect()
}

/// Makes probabilities of positive numbers.
fn normalise(values: &mut [f32]) {
    let total: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= total);
}
