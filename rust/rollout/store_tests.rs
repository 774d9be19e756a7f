//! Rollouts of a store.

use std::collections::BTreeMap;

use super::tests::{QUIET, options, temporary};
use super::*;
use crate::policy::{NetworkConfig, NonLinearity, schema_digest};
use crate::simulator::Tensor;
use crate::store::{ATTRIBUTES, Config, Hour, Leave, PAGE, Store, Strength, page};
use crate::testing;

/// A world that need not be calibrated, with every switch that changes customers or their hours.
fn config() -> Config {
    Config {
        hour: Hour::Uniform,
        memory: 2,
        max_index: 12,
        repeat: false,
        leave: Leave::Respawn,
        new_request: 0.2,
        strength: Some(Strength { tau: 1.0, b0: -3.0 }),
        ..Config::new(5)
    }
}

fn play(store: &Store, policy: &str, options: &Options) -> (Log, Summary) {
    let policy = Policy::parse(policy).unwrap();
    let Played { log, summary, .. } =
        rollout(store, Source::Policy(&policy), options, &QUIET).unwrap();
    (log.unwrap(), summary)
}

#[test]
fn equals_sessions_played_one_at_a_time() {
    let store = Store::new(config(), Some(1)).unwrap();
    let (log, summary) = play(&store, "gaussian:0.05", &options(200));
    let (mut workspace, mut row) = (page::Workspace::default(), 0);
    let (mut cents, mut changes) = (0, 0);
    for session in 0..200 {
        let mut one = page::Sessions::new(&store, 1);
        (one.lanes[0].seed, one.lanes[0].session) = (7, session);
        one.open(&store, &[0]);
        for page in 0.. {
            let customer = one.customer(0).to_vec();
            let action = &log.action[row * ATTRIBUTES..][..ATTRIBUTES];
            one.show(&store, &mut workspace, &[0], |_, _| action).unwrap();
            let lane = one.lanes[0];
            assert_eq!((log.session[row], log.page[row]), (session as i64, page));
            assert_eq!(&log.customer[row * 11..][..11], customer);
            assert_eq!(&log.items[row * PAGE..][..PAGE], one.items(0));
            assert_eq!((log.outcome[row], log.units[row]), (lane.outcome, lane.units().into()));
            assert_eq!((log.hour[row] * 1.0, log.day[row]), (lane.hour, 0));
            assert_eq!((f64::from(log.value[row]) * 100.0).round() as u32, lane.cents);
            cents += u64::from(lane.cents);
            changes += usize::from(customer != one.customer(0));
            row += 1;
            if lane.over() {
                break;
            }
        }
    }
    assert_eq!((row, row as u64, cents), (log.len(), summary.pages, summary.cents));
    assert!(summary.units > 0 && changes > 0, "{} units, {changes} changes", summary.units);
}

#[test]
fn neither_threads_nor_batches_nor_files_matter() {
    let store = Store::new(config(), Some(1)).unwrap();
    let sessions = BLOCK + 300;
    let (want, counts) = play(&store, "random", &options(sessions));
    for (threads, batch_size) in [(1, 3), (2, 77), (3, 1 << 30)] {
        let run =
            Options { threads: Some(threads), batch_size: Some(batch_size), ..options(sessions) };
        let (log, summary) = play(&store, "random", &run);
        assert_eq!(
            (log.digest(&|| Ok(())).unwrap(), &summary),
            (want.digest(&|| Ok(())).unwrap(), &counts)
        );
        let path = temporary(&format!("store-{threads}"));
        let output = Output::File { path: path.clone(), overwrite: false, resume: false };
        let run = Options { output, ..run };
        let policy = Policy::parse("random").unwrap();
        let summary = rollout(&store, Source::Policy(&policy), &run, &QUIET).unwrap().summary;
        let back = Log::read(&path, &|| Ok(())).unwrap();
        assert_eq!(
            (back.digest(&|| Ok(())).unwrap(), &back.metadata),
            (want.digest(&|| Ok(())).unwrap(), &want.metadata)
        );
        assert_eq!(summary, counts);
        assert_eq!(back.to_arrow().unwrap(), want.to_arrow().unwrap());
        std::fs::remove_file(path).unwrap();
    }
    let timeless = Store::new(Config { hour: Hour::None, ..config() }, Some(1)).unwrap();
    let (log, _) = play(&timeless, "random", &options(50));
    assert_ne!(
        log.digest(&|| Ok(())).unwrap(),
        play(&store, "random", &options(50)).0.digest(&|| Ok(())).unwrap()
    );
    assert_eq!(log.to_arrow().unwrap()["hour"].null_count(), log.len());
}

#[test]
fn a_store_without_ends_is_refused() {
    let store = Store::new(Config { continuing: true, ..config() }, Some(1)).unwrap();
    let policy = Policy::parse("zero").unwrap();
    let error = rollout(&store, Source::Policy(&policy), &options(1), &QUIET).unwrap_err();
    assert!(error.to_string().contains("expected one whose sessions end"), "{error}");
}

#[test]
fn the_logger_is_what_logs_were_made_with() {
    let store = Store::new(config(), Some(1)).unwrap();
    let (log, _) = play(&store, "logger", &options(2_000));
    let mut norms: Vec<f32> = log
        .action
        .chunks(ATTRIBUTES)
        .map(|action| action.iter().map(|value| value * value).sum::<f32>().sqrt())
        .collect();
    norms.sort_by(f32::total_cmp);
    let median = norms[norms.len() / 2];
    assert!((0.0295..0.0305).contains(&median), "a median norm of .030: {median}");
    // The other logger adds a mean that belongs to the query, and nothing else.
    let (moved, _) = play(&store, "logger:query", &options(1));
    let query = usize::from(moved.customer[9]);
    let mean = store.logged_means[query];
    for (dimension, mean) in mean.iter().enumerate() {
        let difference = moved.action[dimension] - log.action[dimension];
        assert!((difference - mean).abs() < 1e-6, "{difference} {mean}");
    }
    assert_eq!(moved.action_logp[0], log.action_logp[0]);
    let policy = Policy::parse("logger").unwrap();
    let simulator = testing::simulator(1);
    let error = rollout(&*simulator, Source::Policy(&policy), &options(1), &QUIET).unwrap_err();
    assert!(error.to_string().contains("which has no logger"), "{error}");
}

/// One layer, without noise: what it does natively is what a function does with observations.
#[test]
fn a_network_sees_what_a_function_is_shown() {
    let store = Store::new(config(), Some(1)).unwrap();
    let (inputs, outputs) = (store.observation_width(), ATTRIBUTES);
    let weight: Vec<f32> = (0..inputs * outputs).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
    let tensor = |shape: &[usize], data: Vec<f32>| Tensor::floats(shape.to_vec(), data);
    let tensors = BTreeMap::from([
        ("observation.mean".into(), tensor(&[inputs], vec![0.0; inputs])),
        ("observation.sd".into(), tensor(&[inputs], vec![1.0; inputs])),
        ("policy.0.weight".into(), tensor(&[outputs, inputs], weight.clone())),
        ("policy.0.bias".into(), tensor(&[outputs], vec![0.0; outputs])),
    ]);
    let config = NetworkConfig {
        layers: vec![inputs, outputs],
        activation: NonLinearity::Tanh,
        output: NonLinearity::Identity,
        sampled: false,
        observation_clip: None,
        action_clip: None,
        schema_digest: schema_digest(&store.schema),
    };
    let policy = Policy::network(config, serde_json::json!({}), tensors).unwrap();
    let run = options(100);
    let native = rollout(&store, Source::Policy(&policy), &run, &QUIET).unwrap().log;
    let mut choose = |seen: Observed<'_>, actions: &mut [f32]| {
        let rows = seen.observations.chunks(inputs).zip(actions.chunks_mut(outputs));
        for (observation, action) in rows {
            for (weights, action) in weight.chunks(inputs).zip(action) {
                *action = weights.iter().zip(observation).map(|(w, x)| w * x).sum();
            }
        }
        Ok(())
    };
    let source = Source::Callback { name: "linear".into(), choose: &mut choose };
    let called = rollout(&store, source, &run, &QUIET).unwrap().log;
    let (native, called) = (native.unwrap(), called.unwrap());
    assert_eq!(native.len(), called.len());
    let pairs = native.action.iter().zip(called.action.iter());
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(native.action.iter().any(|value| value.abs() > 0.1));
}
