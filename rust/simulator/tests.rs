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

#[test]
fn files_of_every_kind_come_back_and_no_other_loads() {
    for simulator in testing::learned(1) {
        let mut bytes = simulator.to_bytes();
        let back = Simulator::from_bytes(&bytes, "memory").unwrap();
        assert_eq!((back.to_bytes(), &back.digest), (bytes.clone(), &simulator.digest));
        assert_eq!((back.tensors(), &back.config), (simulator.tensors(), &simulator.config));
        for length in (0..bytes.len()).step_by(7) {
            assert!(Simulator::from_bytes(&bytes[..length], "cut").is_err());
        }
        for bit in (0..8 * bytes.len()).step_by(5) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Simulator::from_bytes(&bytes, "flipped").is_err(), "bit {bit} loads");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// The error of a learned simulator with one tensor spoilt.
fn refused_tensor(name: &str, spoil: impl FnOnce(&mut Tensor)) -> String {
    let has = |simulator: &Arc<Simulator>| simulator.tensors().contains_key(name);
    let simulator = testing::learned(1).into_iter().find(has).unwrap();
    let mut tensors = simulator.tensors().clone();
    spoil(tensors.get_mut(name).unwrap());
    let (schema, config) = (simulator.schema.clone(), simulator.config.clone());
    let built = Simulator::new("bad".into(), schema, config, serde_json::json!({}), tensors);
    built.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn spoilt_customers_are_named() {
    let error = refused_tensor("customers.shares", |t| t.values_mut()[0] += 0.01);
    assert!(
        error.starts_with("tensor customers.shares: expected probabilities that sum"),
        "{error}"
    );
    let error = refused_tensor("customers.fields", |t| t.values_mut()[2 * 11 + 3] += 0.01);
    let place = "tensor customers.fields, component 2, field \"field_1\": expected probabilities";
    assert!(error.starts_with(place), "{error}");
    let error = refused_tensor("customers.fields", |t| {
        let values = t.values_mut();
        (values[0], values[1]) = (-0.1, values[0] + values[1] + 0.1);
    });
    assert!(error.contains("component 0") && error.ends_with("got -0.1"), "{error}");
    let rows = |codes: Vec<u8>| Tensor::codes(vec![37, 3], codes);
    let mut codes = vec![0; 111];
    codes[3 * 5 + 1] = 2;
    let error = refused_tensor("customers.rows", |t| *t = rows(codes));
    let place = "tensor customers.rows, row 5, field \"field_1\": expected a code below 2, got 2";
    assert_eq!(error, place);
    let error =
        refused_tensor("customers.rows", |t| *t = Tensor::floats(vec![37, 3], vec![0.0; 111]));
    assert_eq!(error, "tensor customers.rows: expected U8, got F32");
    let error = refused_tensor("customers.0.bias", |t| *t = Tensor::codes(vec![3], [0, 1, 2]));
    assert_eq!(error, "tensor customers.0.bias: expected F32, got U8");
    let error = refused_tensor("customers.2.0.weight", |t| t.values_mut().fill(1e35));
    assert!(error.starts_with("customers.2: expected sums of at most 1e30"), "{error}");
    let error = refused_tensor("effect.weight", |t| t.values_mut().fill(1e28));
    assert!(error.starts_with("effect: expected sums of at most 1e30"), "{error}");
}

#[test]
fn kinds_that_do_not_go_together_are_named() {
    let outcome = Heads::Outcome { items: 10 };
    let error = refused(|_, config, _| config.response.heads = outcome);
    assert!(error.starts_with("leave.kind: expected \"hazard\""), "{error}");
    let error = refused(|_, config, _| config.response.kind = ResponseKind::Linear);
    assert!(error.starts_with("response.heads: expected \"outcome\""), "{error}");
    for longest in [0, 32_768] {
        let error = refused(|_, config, _| config.leave = LeaveConfig::Hazard { longest });
        assert!(error.starts_with("leave.longest: expected 1 to 32767 pages"), "{error}");
    }
    let error = refused(|_, config, _| {
        config.customers = CustomerConfig::Autoregressive { hidden: vec![5, 5] };
    });
    assert!(error.starts_with("customers.hidden: expected one hidden layer"), "{error}");
    for customers in [CustomerConfig::Rows { rows: 0 }, CustomerConfig::Mixture { components: 0 }] {
        let error = refused(|_, config, _| config.customers = customers);
        assert!(error.contains(": expected 1 to "), "{error}");
    }
}

/// Sampling in chunks, on threads and in tiles gives each session its own customer.
#[test]
fn customers_do_not_depend_on_company() {
    let go_on = || Ok(());
    for simulator in testing::learned(2) {
        let customers = &simulator.customers;
        let whole = customers.sample(3, 10, 4_000, Some(2), &go_on).unwrap();
        for (first, count) in [(10, 1), (3_000, 49), (3_105, 700)] {
            let some = customers.sample(3, first, count, Some(1), &go_on).unwrap();
            let start = (first as usize - 10) * 3;
            assert_eq!(some[..], whole[start..start + 3 * count as usize]);
        }
        assert!(customers.sample(3, u64::MAX, 2, None, &go_on).is_err());
        assert!(customers.sample(3, 0, u64::MAX / 2, None, &go_on).is_err());
        let stop = || Err(Error::Interrupted);
        let stopped = customers.sample(3, 0, 1 << 27, Some(2), &stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}

#[test]
fn questions_are_checked() {
    let simulator = &testing::learned(1)[1];
    let ask = |codes: &[u8], pages: &[u32], actions: &[f32]| {
        let given = Questions { codes, pages, actions };
        let answered = simulator.respond(given, Told::Probabilities, None, &|| Ok(()));
        answered.map_err(|error| error.to_string())
    };
    assert_eq!(ask(&[0, 1, 5], &[3], &[0.5; 5]).unwrap().len(), 3);
    assert_eq!(ask(&[], &[], &[]).unwrap().len(), 0);
    let error = ask(&[0, 2, 5], &[3], &[0.5; 5]).unwrap_err();
    assert_eq!(error, "codes, row 0, field \"field_1\": expected a code below 2, got 2");
    assert!(ask(&[0, 1], &[3], &[0.5; 5]).unwrap_err().starts_with("codes: expected 1 rows of 3"));
    assert!(ask(&[0, 1, 5], &[1 << 30], &[0.5; 5]).unwrap_err().starts_with("pages, row 0"));
    for value in [f32::NAN, f32::INFINITY, 2e6] {
        let error = ask(&[0, 1, 5], &[3], &[value; 5]).unwrap_err();
        assert!(error.starts_with("actions, row 0: expected finite values"), "{error}");
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
        let error =
            refused(|_, _, tensors| tensors.get_mut(weight).unwrap().values_mut()[7] = value);
        assert!(error.contains("expected finite values") && error.contains("index 7"), "{error}");
    }
    let error = refused(|_, _, tensors| tensors.get_mut(weight).unwrap().values_mut().fill(1e35));
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
    let error = refused(|_, config, _| {
        config.response.heads = Heads::Clicks { clicks: 300, second: 4 };
    });
    assert!(error.starts_with("response.clicks"), "{error}");
}

#[test]
fn forward_checks_what_it_is_given() {
    let simulator = testing::simulator(1);
    assert_eq!(simulator.forward("action", &[0.0; 17 * 100], &|| Ok(())).unwrap().len(), 9 * 100);
    assert!(simulator.forward("action", &[0.0; 16], &|| Ok(())).is_err());
    assert!(simulator.forward("actions", &[0.0; 17], &|| Ok(())).is_err());
}
