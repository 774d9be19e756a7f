//! The file: round trip, and every way to spoil it.

use super::*;
use crate::rng::{Origin, Purpose, fill};
use crate::testing;

#[test]
fn a_file_comes_back_as_it_was() {
    let simulator = testing::simulator(1);
    let bytes = simulator.to_bytes();
    assert_eq!(bytes, simulator.to_bytes(), "the same simulator gives the same bytes");
    let back = Simulator::from_bytes(&bytes, "memory").unwrap();
    assert_eq!(back.to_bytes(), bytes);
    assert_eq!(back.digest, simulator.digest);
    assert_eq!(back.tensors(), simulator.tensors());
    assert_eq!(
        (&back.name, &back.schema, &back.config),
        (&simulator.name, &simulator.schema, &simulator.config)
    );
    assert_ne!(testing::simulator(2).digest, simulator.digest);

    let path = std::env::temp_dir().join(format!("vtb-{}.safetensors", std::process::id()));
    simulator.save(&path).unwrap();
    simulator.save(&path).unwrap();
    assert_eq!(Simulator::load(&path).unwrap().digest, simulator.digest);
    std::fs::remove_file(&path).unwrap();
    let missing = path.join("nowhere");
    assert!(matches!(simulator.save(&missing), Err(Error::Io { .. })));
    assert!(matches!(Simulator::load(&missing), Err(Error::Io { .. })));
}

#[test]
fn no_truncation_loads() {
    let bytes = testing::simulator(1).to_bytes();
    for length in 0..bytes.len() {
        let error = Simulator::from_bytes(&bytes[..length], "cut").unwrap_err().to_string();
        assert!(error.starts_with("cut: "), "{error}");
    }
    assert!(Simulator::from_bytes(&[&bytes[..], b"x"].concat(), "longer").is_err());
}

#[test]
fn no_flipped_bit_loads() {
    let mut bytes = testing::simulator(1).to_bytes();
    // Every bit of a small file: some 50,000.
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Simulator::from_bytes(&bytes, "flipped").is_err(), "bit {bit} loads");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(Simulator::from_bytes(&bytes, "whole").is_ok());
}

#[test]
fn random_bytes_never_load_or_panic() {
    let whole = testing::simulator(1).to_bytes();
    for session in 0..2_000 {
        let mut noise = vec![0.0; 40];
        fill(Origin { seed: 1, session, page: 0, purpose: Purpose::Latent }, &mut noise);
        let mut bytes = whole.clone();
        for pair in noise.chunks(2) {
            // Half of the damage goes into the header, where parsing happens.
            let span = if pair[0] < 0.5 { 2_000.min(bytes.len()) } else { bytes.len() };
            let at = (pair[0] * 2.0 % 1.0 * span as f32) as usize;
            bytes[at.min(whole.len() - 1)] = (pair[1] * 256.0) as u8;
        }
        if bytes != whole {
            assert!(Simulator::from_bytes(&bytes, "noise").is_err());
        }
    }
    for header in [u64::MAX, 1 << 40, 1 << 20 | 1, whole.len() as u64] {
        let bytes = [&header.to_le_bytes()[..], &whole[8..]].concat();
        let error = Simulator::from_bytes(&bytes, "header").unwrap_err().to_string();
        assert!(error.contains("expected a safetensors header of at most"), "{error}");
    }
}

/// Builds from spoilt parts; returns the error.
fn refused(spoil: impl FnOnce(&mut Schema, &mut Config, &mut Tensors)) -> String {
    let (mut schema, mut config) = (testing::schema(), testing::config());
    let mut tensors = testing::tensors(&schema, &config, 1);
    spoil(&mut schema, &mut config, &mut tensors);
    let built = Simulator::new("bad".into(), schema, config, serde_json::json!({}), tensors);
    built.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn spoilt_tensors_are_named() {
    let weight = "action.2.weight";
    let error = refused(|_, _, tensors| drop(tensors.remove(weight)));
    assert!(
        error.starts_with("tensor action.2.weight: expected shape [9, 20], got no such"),
        "{error}"
    );
    let error = refused(|_, _, tensors| {
        let tensor = tensors[weight].clone();
        tensors.insert("action.9.weight".into(), tensor);
    });
    assert_eq!(error, "tensors: expected 16 known names, got action.9.weight");
    let error = refused(|_, _, tensors| tensors.get_mut(weight).unwrap().shape = vec![20, 9]);
    assert_eq!(error, "tensor action.2.weight: expected shape [9, 20], got [20, 9]");
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let error = refused(|_, _, tensors| tensors.get_mut(weight).unwrap().data[7] = value);
        assert!(error.contains("expected finite values") && error.contains("index 7"), "{error}");
    }
    let error = refused(|_, _, tensors| tensors.get_mut(weight).unwrap().data.fill(1e35));
    assert!(error.starts_with("action: expected sums of at most 1e30"), "{error}");
}

#[test]
fn spoilt_shapes_are_named() {
    let error = refused(|schema, _, _| schema.customer[1].size = 1);
    assert_eq!(error, "customer field \"field_1\": expected 2 to 256 categories, got 1");
    let error = refused(|schema, _, _| schema.customer.clear());
    assert!(error.contains("1 to 256 fields"), "{error}");
    let error = refused(|schema, _, _| schema.action_range = [1.0, -1.0]);
    assert!(error.contains("low < high"), "{error}");
    let error = refused(|_, config, _| config.slope = f32::NAN);
    assert!(error.starts_with("slope"), "{error}");
    let error = refused(|_, config, _| config.response.page_scale = f32::INFINITY);
    assert!(error.starts_with("response.page_scale"), "{error}");
    let error = refused(|_, config, _| config.response.hidden = vec![1 << 20]);
    assert!(error.contains("layers of 1 to 16384 units"), "{error}");
    let error = refused(|_, config, _| config.response.clicks = 300);
    assert!(error.starts_with("response.clicks"), "{error}");
}

#[test]
fn forward_checks_what_it_is_given() {
    let simulator = testing::simulator(1);
    assert_eq!(simulator.forward("action", &[0.0; 17 * 100]).unwrap().len(), 9 * 100);
    assert!(simulator.forward("action", &[0.0; 16]).is_err());
    assert!(simulator.forward("actions", &[0.0; 17]).is_err());
}
