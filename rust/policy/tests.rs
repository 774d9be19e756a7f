use super::*;
use crate::kernels::Isa;
use crate::session::{Arrival, Workspace};
use crate::tensor_file::{Expected, Tensor};
use crate::testing;

/// Lanes with customers and some feedback.
fn sessions(simulator: &Simulator, kernels: Kernels, count: usize) -> (Sessions, Vec<usize>) {
    let (mut sessions, mut workspace) = (Sessions::new(simulator, count), Workspace::default());
    let lanes: Vec<usize> = (0..count).collect();
    for lane in &lanes {
        (sessions.lanes[*lane].seed, sessions.lanes[*lane].session) = (5, *lane as u64);
    }
    sessions.open(simulator, kernels, &mut workspace, &lanes, Arrival::Session);
    for lane in &lanes {
        let lane = &mut sessions.lanes[*lane];
        (lane.clicks, lane.second) = ((lane.session % 5) as u8, (lane.session % 4) as u8);
        lane.page = (lane.session % 13) as u32;
    }
    (sessions, lanes)
}

fn act(policy: &Policy, isa: Isa, count: usize) -> (Vec<f32>, Vec<f32>) {
    let simulator = testing::simulator(1);
    let kernels = Kernels::of(isa).unwrap();
    let (sessions, lanes) = sessions(&simulator, kernels, count);
    let actor = policy.bind(Place::from(&*simulator)).unwrap();
    let mut buffers = Buffers::default();
    let (mut actions, mut densities) = (vec![9.0; count * 5], vec![9.0; count]);
    actor.act(kernels, &mut buffers, &sessions, &lanes, &mut actions, &mut densities);
    (actions, densities)
}

/// A network of two hidden layers for the simulator of `testing`.
fn network(sampled: bool, change: impl FnOnce(&mut NetworkConfig, &mut Tensors)) -> Result<Policy> {
    let schema = testing::schema();
    let mut config = NetworkConfig {
        layers: vec![schema.observation_width(), 9, 24, 5],
        activation: NonLinearity::Tanh,
        output: NonLinearity::Identity,
        sampled,
        observation_clip: Some(4.0),
        action_clip: None,
        schema_digest: schema_digest(&schema),
    };
    let mut tensors = Tensors::new();
    let mut value = 0.3_f32;
    for Expected { name, shape, .. } in config.expected_tensors() {
        let data = (0..shape.iter().product()).map(|_| {
            value = (value * 97.3).fract();
            if name == "observation.sd" { value + 0.01 } else { value - 0.5 }
        });
        let data = data.collect();
        tensors.insert(name, Tensor::floats(shape, data));
    }
    change(&mut config, &mut tensors);
    Policy::network(config, serde_json::json!({}), tensors)
}

/// The same network in f64, from the whole observation.
fn reference(policy: &Policy, observation: &[f32]) -> Vec<f64> {
    let (config, tensors) = (policy.network_config().unwrap(), policy.tensors().unwrap());
    let get = |name: &str| tensors[name].values().iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (mean, sd) = (get("observation.mean"), get("observation.sd"));
    let clip = f64::from(config.observation_clip.unwrap_or(f32::MAX));
    let mut x: Vec<f64> = observation.iter().map(|x| f64::from(*x)).collect();
    for (x, (mean, sd)) in x.iter_mut().zip(mean.iter().zip(&sd)) {
        *x = ((*x - mean) / sd).clamp(-clip, clip);
    }
    let last = config.layers.len() - 2;
    for layer in 0..=last {
        let weight = get(&format!("policy.{}.weight", 2 * layer));
        let bias = get(&format!("policy.{}.bias", 2 * layer));
        let rows = weight.chunks(x.len()).zip(&bias);
        let sum = |(row, bias): (&[f64], &f64)| {
            let sum = bias + row.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>();
            if layer < last { sum.tanh() } else { sum }
        };
        x = rows.map(sum).collect();
    }
    x
}

#[test]
fn words_are_parsed_or_refused() {
    for (text, name) in [
        ("random", "random"),
        ("zero", "zero"),
        ("gaussian:0.02", "gaussian:0.02"),
        ("gaussian: 1e-1", "gaussian:0.1"),
    ] {
        assert_eq!(Policy::parse(text).unwrap().name(), name);
    }
    for text in [
        "",
        "Random",
        "gaussian",
        "gaussian:",
        "gaussian:-1",
        "gaussian:0",
        "gaussian:nan",
        "zero:1",
    ] {
        assert!(matches!(Policy::parse(text), Err(Error::Argument { .. })), "{text}");
    }
    for action in [vec![], vec![f32::NAN], vec![0.0, f32::INFINITY], vec![2e6]] {
        assert!(Policy::constant(action).is_err());
    }
    let short = Policy::constant(vec![0.0; 4]).unwrap();
    let error = short.bind(Place::from(&*testing::simulator(1))).unwrap_err().to_string();
    assert!(error.contains("expected 5 numbers"), "{error}");
}

#[test]
fn draws_have_their_distributions_and_densities() {
    let count = 20_000;
    let (uniform, density) = act(&Policy::parse("random").unwrap(), Isa::Scalar, count);
    assert!(uniform.iter().all(|value| (-1.0..1.0).contains(value)));
    let mean = uniform.iter().map(|value| f64::from(*value)).sum::<f64>() / (5 * count) as f64;
    assert!(mean.abs() < 0.01, "{mean}");
    assert!((density[0] + 5.0 * 2.0_f32.ln()).abs() < 1e-5);

    let (normal, density) = act(&Policy::parse("gaussian:0.2").unwrap(), Isa::Scalar, count);
    let square = normal.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    let sd = (square / (5 * count) as f64).sqrt();
    assert!((sd - 0.2).abs() < 0.002, "{sd}");
    for (row, density) in normal.chunks(5).zip(&density) {
        let log = |x: &f32| {
            let z = f64::from(*x) / 0.2;
            -0.5 * z * z - 0.2_f64.ln() - 0.5 * std::f64::consts::TAU.ln()
        };
        let want: f64 = row.iter().map(log).sum();
        assert!((want - f64::from(*density)).abs() < 1e-4, "{want} {density}");
    }
    assert_eq!(act(&Policy::parse("zero").unwrap(), Isa::Scalar, 3), (vec![0.0; 15], vec![0.0; 3]));
}

#[test]
fn every_instruction_set_chooses_the_same() {
    let policies = [
        Policy::parse("random").unwrap(),
        Policy::parse("gaussian:0.02").unwrap(),
        network(true, |_, _| ()).unwrap(),
        network(false, |config, _| config.activation = NonLinearity::Relu).unwrap(),
    ];
    for policy in policies {
        let want = act(&policy, Isa::Scalar, 101);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            assert_eq!(act(&policy, isa, 101), want, "{} {isa:?}", policy.name());
        }
    }
}

#[test]
fn a_network_is_the_network_of_its_tensors() {
    let simulator = testing::simulator(1);
    let policy = network(false, |_, _| ()).unwrap();
    let (actions, densities) = act(&policy, Kernels::best().unwrap().isa(), 101);
    let (sessions, lanes) = sessions(&simulator, Kernels::best().unwrap(), 101);
    let mut observation = vec![0.0; simulator.schema.observation_width()];
    for (lane, row) in lanes.iter().zip(actions.chunks(5)) {
        sessions.observe(&simulator, *lane, &mut observation);
        for (want, got) in reference(&policy, &observation).iter().zip(row) {
            assert!((want - f64::from(*got)).abs() < 1e-5, "{want} {got}");
        }
    }
    assert_eq!(densities, vec![0.0; 101]);
}

#[test]
fn noise_is_added_to_the_output_and_clipped_after() {
    let (plain, _) = act(&network(false, |_, _| ()).unwrap(), Isa::Scalar, 50);
    let log_sd = |tensors: &mut Tensors| tensors.get_mut("log_sd").unwrap().values_mut().fill(0.0);
    let noisy = network(true, |_, tensors| log_sd(tensors)).unwrap();
    let (sampled, density) = act(&noisy, Isa::Scalar, 50);
    let (noise, want) = act(&Policy::parse("gaussian:1").unwrap(), Isa::Scalar, 50);
    for ((plain, sampled), noise) in plain.iter().zip(&sampled).zip(&noise) {
        assert!((plain + noise - sampled).abs() < 1e-6);
    }
    assert_eq!(density, want);
    let clipped = network(true, |config, tensors| {
        log_sd(tensors);
        config.action_clip = Some([-0.25, 0.5]);
    });
    let (actions, density) = act(&clipped.unwrap(), Isa::Scalar, 50);
    let want_clipped: Vec<f32> = sampled.iter().map(|value| value.clamp(-0.25, 0.5)).collect();
    assert_eq!((actions, density), (want_clipped, want));
}

#[test]
fn files_come_back_and_damage_is_seen() {
    let policy = network(true, |_, _| ()).unwrap();
    let bytes = policy.to_bytes().unwrap();
    let back = Policy::from_bytes(&bytes, "file").unwrap();
    assert_eq!(back.name(), policy.name());
    assert_eq!(back.to_bytes().unwrap(), bytes);
    for length in 0..bytes.len() {
        assert!(Policy::from_bytes(&bytes[..length], "file").is_err(), "{length}");
    }
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(Policy::from_bytes(&bytes, "file").is_err(), "{at}");
    }
    let simulator = testing::simulator(1).to_bytes();
    let error = Policy::from_bytes(&simulator, "file").unwrap_err().to_string();
    assert!(error.contains("expected format \"virtualtb_fast.policy\""), "{error}");
    assert!(Policy::parse("zero").unwrap().to_bytes().is_err());
}

#[test]
fn networks_that_cannot_be_are_refused() {
    type Change = fn(&mut NetworkConfig, &mut Tensors);
    let changes: [(&str, Change); 12] = [
        ("layers", |config, _| config.layers = vec![5]),
        ("layers", |config, _| config.layers[1] = 0),
        ("activation", |config, _| config.activation = NonLinearity::LeakyRelu { slope: 1.5 }),
        ("observation_clip", |config, _| config.observation_clip = Some(0.0)),
        ("action_clip", |config, _| config.action_clip = Some([1.0, -1.0])),
        ("observation.sd", |_, tensors| {
            tensors.get_mut("observation.sd").unwrap().values_mut()[2] = 0.0
        }),
        ("log_sd", |_, tensors| tensors.get_mut("log_sd").unwrap().values_mut()[0] = 99.0),
        ("policy.2.bias", |_, tensors| drop(tensors.remove("policy.2.bias"))),
        ("policy.2.bias", |_, tensors| {
            tensors.get_mut("policy.2.bias").unwrap().values_mut()[1] = f32::NAN;
        }),
        ("known names", |config, _| config.sampled = false),
        ("1e30", |_, tensors| {
            tensors.get_mut("policy.0.weight").unwrap().values_mut().fill(1e30);
        }),
        ("1e30", |_, tensors| {
            // What overflows in a hidden layer does so whatever follows: infinity times 0.
            tensors.get_mut("policy.0.weight").unwrap().values_mut().fill(f32::MAX);
            tensors.get_mut("policy.2.weight").unwrap().values_mut().fill(0.0);
        }),
    ];
    for (word, change) in changes {
        let error = network(true, change).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("expected"), "{word}: {error}");
    }
    let other = network(true, |config, _| config.schema_digest = "0".repeat(64)).unwrap();
    let error = other.bind(Place::from(&*testing::simulator(1))).unwrap_err().to_string();
    assert!(error.contains("expected schema"), "{error}");
}

#[test]
fn no_truncation_and_no_flipped_bit_loads() {
    for sampled in [false, true] {
        let mut bytes = network(sampled, |_, _| ()).unwrap().to_bytes().unwrap();
        for length in 0..bytes.len() {
            let cut = Policy::from_bytes(&bytes[..length], "cut");
            assert!(matches!(cut, Err(Error::Format { .. })), "{length}");
        }
        assert!(8 * bytes.len() > 20_000);
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = Policy::from_bytes(&bytes, "flipped");
            assert!(matches!(flipped, Err(Error::Format { .. })), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Policy::from_bytes(&bytes, "whole").unwrap();
    }
}
