use std::cell::Cell;

use super::tests::{QUIET, options, temporary};
use super::*;
use crate::simulator::Simulator;
use crate::tensor_file::partial;
use crate::testing;

fn to_file(path: &std::path::Path, target: Target, resume: bool) -> Options {
    let output = Output::File { path: path.to_owned(), overwrite: false, resume };
    Options { target, output, ..options(1) }
}

fn play(simulator: &Simulator, run: &Options) -> Result<Played> {
    let policy = Policy::parse("gaussian:0.5").unwrap();
    rollout(simulator, Source::Policy(&policy), run, &QUIET)
}

/// Stops when so many sessions were played, which is seen when a block's worth more is.
fn stop(simulator: &Simulator, run: &Options, after: u64) {
    let policy = Policy::parse("gaussian:0.5").unwrap();
    let seen = Cell::new(0);
    let watch = Watch {
        interrupt: &|| if seen.get() >= after { Err(Error::Interrupted) } else { Ok(()) },
        progress: &|_, sessions| seen.set(sessions),
    };
    let error = rollout(simulator, Source::Policy(&policy), run, &watch).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
}

#[test]
fn stopping_and_going_on_changes_nothing() {
    let simulator = testing::simulator(3);
    let sessions = 4 * BLOCK + 100;
    let whole = temporary("resume-whole");
    let path = temporary("resume");
    let mut pages = 0;
    for target in [Target::Sessions(sessions), Target::Pages(0)] {
        let target = if pages == 0 { target } else { Target::Pages(pages) };
        let want = play(&simulator, &to_file(&whole, target, false)).unwrap();
        assert_eq!(want.resumed, 0);
        pages = want.summary.pages - 50;
        let run = to_file(&path, target, true);
        // The last report comes before the file has its name.
        stop(&simulator, &run, want.summary.sessions);
        assert!(!path.exists());
        let names = [partial(&path), logs::journal(&path)];
        let [data, lines] = names.clone().map(|name| std::fs::read(name).unwrap());
        let lines: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(lines.len() > 3, "{}", lines.len());
        let mut resumed = 0;
        for blocks in 0..lines.len() {
            let threads = Some(1 + blocks % 2);
            let run = Options { threads, ..run.clone() };
            std::fs::write(&names[0], &data).unwrap();
            std::fs::write(&names[1], lines[..=blocks].concat()).unwrap();
            let played = play(&simulator, &run).unwrap();
            assert_eq!(played.summary, want.summary);
            assert!(played.resumed > resumed || blocks == 0);
            resumed = played.resumed;
            assert!(std::fs::read(&path).unwrap() == std::fs::read(&whole).unwrap());
            assert!(names.iter().all(|name| !name.exists()));
            // It is finished: there is nothing left to do but to count.
            let again = play(&simulator, &run).unwrap();
            assert_eq!((again.resumed, &again.summary), (want.summary.pages, &want.summary));
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_file(&whole).unwrap();
    }
}

#[test]
fn something_else_is_not_resumed() {
    let simulator = testing::simulator(3);
    let path = temporary("resume-else");
    let run = to_file(&path, Target::Sessions(BLOCK + 10), true);
    stop(&simulator, &run, 1);
    let others = [
        ("seed", "gaussian:0.5", Options { seed: 8, ..run.clone() }),
        ("policy", "gaussian:0.25", run.clone()),
        ("sessions", "gaussian:0.5", Options { target: Target::Sessions(BLOCK), ..run.clone() }),
        ("sessions", "gaussian:0.5", Options { target: Target::Pages(BLOCK), ..run.clone() }),
        // What is there would do, but is not what is asked.
        ("sessions", "gaussian:0.5", Options { target: Target::Pages(1), ..run.clone() }),
    ];
    let refuse = |finished: bool| {
        for (field, policy, other) in &others {
            let policy = Policy::parse(policy).unwrap();
            let played = rollout(&*simulator, Source::Policy(&policy), other, &QUIET);
            let error = played.unwrap_err();
            let text = error.to_string();
            // A finished file does not say whether sessions or pages were asked.
            let pages = finished && matches!(other.target, Target::Pages(_));
            let field = if pages { "pages" } else { field };
            assert!(matches!(error, Error::Argument { .. }), "{text}");
            assert!(text.contains(&format!("{field} of a resumed rollout: expected")), "{text}");
        }
        let error = play(&testing::simulator(4), &run).unwrap_err();
        assert!(error.to_string().contains("simulator_digest of a resumed"), "{error}");
    };
    refuse(false);
    play(&simulator, &run).unwrap();
    refuse(true);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn functions_go_on_where_they_failed() {
    let simulator = testing::simulator(3);
    let mut files = Vec::new();
    for fails_at in [None, Some(BLOCK as i64 + 5), Some(2 * BLOCK as i64 + 50)] {
        let path = temporary("resume-function");
        let run = to_file(&path, Target::Sessions(2 * BLOCK + 100), true);
        for fails_at in [fails_at, None] {
            let mut choose = |seen: Observed<'_>, actions: &mut [f32]| {
                actions.fill(0.25);
                match fails_at {
                    Some(session) if seen.sessions.contains(&session) => {
                        Err(Error::Policy("as planned".into()))
                    }
                    _ => Ok(()),
                }
            };
            let source = Source::Callback { name: "python:f".into(), choose: &mut choose };
            let played = rollout(&*simulator, source, &run, &QUIET);
            assert_eq!(played.is_err(), fails_at.is_some());
            let blocks = fails_at.map(|session| session as u64 / BLOCK);
            if let Some(blocks) = blocks {
                let sessions =
                    Log::read(&partial(&path), &|| Ok(())).unwrap().metadata["sessions"].clone();
                assert_eq!(sessions, (blocks * BLOCK).to_string());
            }
        }
        files.push(std::fs::read(&path).unwrap());
        std::fs::remove_file(path).unwrap();
    }
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}
