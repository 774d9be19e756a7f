//! A small simulator for tests: random weights, odd sizes.

use std::sync::Arc;

use crate::rng::{Origin, Purpose, fill};
use crate::simulator::{
    Config, CustomerConfig, Field, LeaveConfig, ResponseConfig, Schema, Simulator, Tensor, Tensors,
};

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
        response: ResponseConfig { page_scale: 0.25, clicks: 5, second: 4, hidden: vec![20, 9] },
        leave: LeaveConfig::Once { classes: 13, hidden: vec![7, 17] },
        slope: 0.01,
    }
}

pub fn tensors(schema: &Schema, config: &Config, seed: u64) -> Tensors {
    let mut session = 0;
    let mut make = |shape: Vec<usize>| {
        session += 1;
        let mut data = vec![0.0; shape.iter().product()];
        fill(Origin { seed, session, page: 0, purpose: Purpose::Latent }, &mut data);
        data.iter_mut().for_each(|value| *value -= 0.5);
        Tensor { shape, data }
    };
    crate::simulator::expected_tensors(config, schema)
        .into_iter()
        .map(|(name, shape)| (name, make(shape)))
        .collect()
}
