//! A batch against sessions played one at a time, and its rules.

use super::*;
use crate::testing;

fn rules(autoreset: Autoreset) -> Rules {
    Rules { quirks: false, clip: true, autoreset, reward: Reward::Clicks, anc: None }
}

fn batch(envs: usize, threads: usize, rules: Rules) -> SessionBatch {
    SessionBatch::new(testing::simulator(9), envs, Some(threads), rules).unwrap()
}

/// The action of environment `env` at its page number `page` of session `session`.
fn action(env: usize, session: u64, page: u64) -> Vec<f32> {
    (0..5)
        .map(|i| ((env as u64 * 7 + session * 13 + page * 5 + i) % 23) as f32 / 10.0 - 1.1)
        .collect()
}

/// Rows (environment, session, page, clicks, second, terminated) of the first `sessions` sessions.
fn play(
    envs: usize,
    threads: usize,
    rules: Rules,
    sessions: u64,
) -> Vec<(usize, u64, u64, i64, i64, bool)> {
    let mut batch = batch(envs, threads, rules);
    let seeds: Vec<u64> = (100..100 + envs as u64).collect();
    batch.reset(Some(&seeds), None).unwrap();
    let mut at = vec![(0, 0); envs];
    let mut resetting = vec![false; envs];
    let mut rows = Vec::new();
    while at.iter().any(|(session, _)| *session < sessions) {
        let actions: Vec<f32> = at
            .iter()
            .enumerate()
            .flat_map(|(env, (session, page))| action(env, *session, *page))
            .collect();
        let step = batch.step(&actions).unwrap();
        let mut mask = vec![false; envs];
        for env in 0..envs {
            let (session, page) = &mut at[env];
            if std::mem::take(&mut resetting[env]) {
                assert_eq!(
                    (step.clicks[env], step.rewards[env], step.terminated[env]),
                    (0, 0.0, false)
                );
                continue;
            }
            rows.push((
                env,
                *session,
                *page,
                step.clicks[env],
                step.second[env],
                step.terminated[env],
            ));
            *page += 1;
            if step.terminated[env] {
                (*session, *page) = (*session + 1, 0);
                resetting[env] = rules.autoreset == Autoreset::NextStep;
                mask[env] = true;
            }
        }
        if rules.autoreset == Autoreset::Disabled && mask.contains(&true) {
            batch.reset(None, Some(&mask)).unwrap();
        }
    }
    rows.retain(|row| row.1 < sessions);
    rows.sort_unstable();
    rows
}

#[test]
fn the_same_sessions_in_every_form() {
    let want = play(200, 1, rules(Autoreset::SameStep), 4);
    assert!(want.iter().any(|row| row.3 > 0) && want.iter().any(|row| row.2 > 5));
    for autoreset in [Autoreset::SameStep, Autoreset::NextStep, Autoreset::Disabled] {
        for threads in [1, 2, 3, 8] {
            assert_eq!(play(200, threads, rules(autoreset), 4), want, "{autoreset:?} {threads}");
        }
        let alone = play(1, 1, rules(autoreset), 4);
        let first: Vec<_> = want.iter().filter(|row| row.0 == 0).copied().collect();
        assert_eq!(alone, first, "{autoreset:?} alone");
    }
}

#[test]
fn snapshots_repeat_and_are_checked() {
    let mut batch = batch(70, 2, rules(Autoreset::SameStep));
    batch.reset(Some(&(0..70).collect::<Vec<_>>()), None).unwrap();
    let actions = vec![0.3; 70 * 5];
    batch.step(&actions).unwrap();
    let state = batch.get_state();
    let first: Vec<_> = (0..20).map(|_| batch.step(&actions).unwrap().observations).collect();
    let later = batch.get_state();
    batch.set_state(&state).unwrap();
    let second: Vec<_> = (0..20).map(|_| batch.step(&actions).unwrap().observations).collect();
    assert_eq!(first, second);
    assert_eq!(batch.get_state(), later);

    for length in 0..state.len() {
        assert!(batch.set_state(&state[..length]).is_err(), "cut at {length}");
    }
    // Magic, size, digest; then the first lane's limit, clicks, second head, outcome, phase, field.
    let lane = [(24, 13), (25, 1), (26, 5), (27, 4), (28, 4), (29, 3), (30, 3)];
    let lane = lane.map(|(at, value)| (80 + at, value));
    for (at, value) in [(0, 0), (8, 71), (20, b'x')].into_iter().chain(lane) {
        let mut bad = state.clone();
        bad[at] = value;
        assert!(batch.set_state(&bad).is_err(), "byte {at} = {value}");
    }
    assert_eq!(batch.get_state(), later, "errors change nothing");
}

#[test]
fn bad_calls_say_what_they_expected_and_change_nothing() {
    let mut batch = batch(3, 1, rules(Autoreset::Disabled));
    let fresh = batch.get_state();
    let message = |result: Result<Step>| result.unwrap_err().to_string();
    assert!(message(batch.step(&[0.0; 15])).contains("no reset yet"));
    assert!(batch.reset(None, None).unwrap_err().to_string().contains("expected a seed"));
    assert!(batch.reset(Some(&[1, 2]), None).unwrap_err().to_string().contains("3 values"));
    assert_eq!(batch.get_state(), fresh);
    batch.reset(Some(&[1, 2, 3]), None).unwrap();
    let state = batch.get_state();
    for (bad, value) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e7, "10000000")] {
        let mut actions = [0.0; 15];
        actions[2 * 5 + 1] = bad;
        let got = message(batch.step(&actions));
        assert!(got.starts_with("action of environment 2: expected finite"), "{got}");
        assert!(got.ends_with(&format!("got {value}")), "{got}");
    }
    assert!(message(batch.step(&[0.0; 14])).contains("expected 15 values, got 14"));
    assert_eq!(batch.get_state(), state);
    for anc in [(-1.0, 0.0), (1.0, f64::NAN)] {
        let bad = Rules { anc: Some(Anc { rho: anc.0, mu: anc.1 }), ..rules(Autoreset::Disabled) };
        assert!(SessionBatch::new(testing::simulator(9), 1, None, bad).is_err());
    }
    assert!(SessionBatch::new(testing::simulator(9), 0, None, rules(Autoreset::Disabled)).is_err());
    let threads = SessionBatch::new(testing::simulator(9), 1, Some(0), rules(Autoreset::Disabled));
    assert!(threads.is_err());
}

#[test]
fn a_session_that_is_over_waits_for_its_reset() {
    let mut batch = batch(1, 1, rules(Autoreset::Disabled));
    batch.reset(Some(&[4]), None).unwrap();
    while !batch.step(&[0.1; 5]).unwrap().terminated[0] {}
    let error = batch.step(&[0.1; 5]).unwrap_err().to_string();
    assert!(error.contains("a session that is over; call reset first"), "{error}");
    batch.reset(None, None).unwrap();
    batch.step(&[0.1; 5]).unwrap();
}

#[test]
fn action_norm_constraint_is_exact() {
    let anc = Anc { rho: 1.0, mu: 0.5 };
    assert_eq!(
        anc.shape(3.0, &[0.3, 0.4]),
        3.0 / (1.0 + (0.3f32 as f64).hypot(0.4f32 as f64) - 0.5)
    );
    assert_eq!(anc.shape(3.0, &[0.25, 0.0]), 3.0);
    assert_eq!(anc.shape(3.0, &[1.5, 0.0]), 1.5);
    assert_eq!(Anc { rho: 0.0, mu: 0.0 }.shape(7.0, &[9.0; 27]), 7.0);
}
