use std::cell::Cell;
use std::path::PathBuf;

use super::*;
use crate::kernels::Isa;
use crate::session::{Arrival, Lane, Sessions, Workspace};
use crate::simulator::Simulator;
use crate::testing;

pub(super) const QUIET: Watch<'_> = Watch { interrupt: &|| Ok(()), progress: &|_, _| () };

pub(super) fn options(sessions: u64) -> Options {
    Options {
        seed: 7,
        target: Target::Sessions(sessions),
        threads: Some(1),
        batch_size: None,
        output: Output::Memory,
    }
}

fn play(simulator: &Simulator, policy: &str, options: &Options) -> (Log, Summary) {
    let policy = Policy::parse(policy).unwrap();
    let played = rollout(simulator, Source::Policy(&policy), options, &QUIET).unwrap();
    (played.log.unwrap(), played.summary)
}

/// A file's name that no other test uses.
pub(super) fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("virtualtb-{}-{name}.parquet", std::process::id()))
}

#[test]
fn equals_sessions_played_one_at_a_time() {
    let simulator = testing::simulator(3);
    let (log, summary) = play(&simulator, "gaussian:0.5", &options(300));
    let kernels = Kernels::of(Isa::Scalar).unwrap();
    let (mut workspace, mut row) = (Workspace::default(), 0);
    let size = simulator.schema.action;
    for session in 0..300 {
        let mut one = Sessions::new(&simulator, 1);
        one.lanes[0] = Lane { seed: 7, session, ..Lane::default() };
        one.open(&simulator, kernels, &mut workspace, &[0], Arrival::Session);
        for page in 0.. {
            let action = &log.action[row * size..][..size];
            one.show(&simulator, kernels, &mut workspace, &[0], |_, _| action, None);
            let lane = one.lanes[0];
            assert_eq!((log.session[row], log.page[row]), (session as i64, page));
            assert_eq!((log.clicks[row], log.second[row]), (lane.clicks, lane.second));
            assert_eq!(&log.customer[row * 3..][..3], one.customer(0));
            assert_eq!(log.outcome[row], if lane.over() { logs::LEAVE } else { logs::TURN });
            row += 1;
            if lane.over() {
                break;
            }
        }
    }
    assert_eq!((row, row as u64), (log.len(), summary.pages));
}

#[test]
fn neither_threads_nor_batches_nor_the_target_matter() {
    let simulator = testing::simulator(3);
    let sessions = 2 * BLOCK + 1500;
    let (want, counts) = play(&simulator, "random", &options(sessions));
    for (threads, batch_size) in [(1, 1), (2, 77), (3, 4096), (8, 1 << 30)] {
        let varied =
            Options { threads: Some(threads), batch_size: Some(batch_size), ..options(sessions) };
        let (log, summary) = play(&simulator, "random", &varied);
        assert_eq!(
            (log.digest(&|| Ok(())).unwrap(), &summary),
            (want.digest(&|| Ok(())).unwrap(), &counts)
        );
        let varied = Options { target: Target::Pages(counts.pages), ..varied };
        assert_eq!(
            play(&simulator, "random", &varied).0.digest(&|| Ok(())).unwrap(),
            want.digest(&|| Ok(())).unwrap()
        );
    }
    let other = Options { seed: 8, ..options(sessions) };
    assert_ne!(
        play(&simulator, "random", &other).0.digest(&|| Ok(())).unwrap(),
        want.digest(&|| Ok(())).unwrap()
    );
}

#[test]
fn a_target_of_pages_takes_the_fewest_sessions() {
    let simulator = testing::simulator(3);
    for pages in [1, 2, 999, 60_000] {
        let (log, summary) =
            play(&simulator, "zero", &Options { target: Target::Pages(pages), ..options(1) });
        let last = log.session[log.len() - 1];
        let before = log.session.partition_point(|session| *session < last) as u64;
        assert!(before < pages && pages <= summary.pages, "{before} {pages} {}", summary.pages);
        assert_eq!((summary.sessions, log.len() as u64), (last as u64 + 1, summary.pages));
    }
}

#[test]
fn files_hold_the_same_rows_and_the_same_bytes() {
    let simulator = testing::simulator(3);
    let (log, counts) = play(&simulator, "gaussian:0.5", &options(BLOCK + 10));
    let policy = Policy::parse("gaussian:0.5").unwrap();
    let mut files = Vec::new();
    for threads in [1, 2, 3] {
        let path = temporary(&format!("same-{threads}"));
        let output = Output::File { path: path.clone(), overwrite: false, resume: false };
        let run = Options { threads: Some(threads), output, ..options(BLOCK + 10) };
        let played = rollout(&*simulator, Source::Policy(&policy), &run, &QUIET).unwrap();
        assert!(played.log.is_none());
        assert_eq!(played.summary, counts);
        let error = rollout(&*simulator, Source::Policy(&policy), &run, &QUIET).unwrap_err();
        assert!(error.to_string().contains("got a file that exists"), "{error}");
        files.push(std::fs::read(&path).unwrap());
        let back = Log::read(&path, &|| Ok(())).unwrap();
        assert_eq!(
            (back.digest(&|| Ok(())).unwrap(), &back.metadata),
            (log.digest(&|| Ok(())).unwrap(), &log.metadata)
        );
        assert_eq!(logs::digest_file(&path, &|| Ok(())).unwrap(), log.digest(&|| Ok(())).unwrap());
        std::fs::remove_file(path).unwrap();
    }
    let path = temporary("written");
    log.write(&path, false, &|| Ok(())).unwrap();
    files.push(std::fs::read(&path).unwrap());
    std::fs::remove_file(path).unwrap();
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn an_interrupted_run_leaves_whole_blocks_in_a_partial_file() {
    let simulator = testing::simulator(3);
    let policy = Policy::parse("random").unwrap();
    for threads in [1, 2] {
        let path = temporary(&format!("stopped-{threads}"));
        let output = Output::File { path: path.clone(), overwrite: false, resume: false };
        let run = Options { threads: Some(threads), output, ..options(MOST_FILE_SESSIONS) };
        let seen = Cell::new(0);
        let watch = Watch {
            interrupt: &|| if seen.get() > 2 * BLOCK { Err(Error::Interrupted) } else { Ok(()) },
            progress: &|_, sessions| seen.set(sessions),
        };
        let error = rollout(&*simulator, Source::Policy(&policy), &run, &watch).unwrap_err();
        assert!(matches!(error, Error::Interrupted));
        assert!(!path.exists());
        let partial = crate::tensor_file::partial(&path);
        let log = Log::read(&partial, &|| Ok(())).unwrap();
        assert_eq!(log.metadata["complete"], "false");
        let sessions: u64 = log.metadata["sessions"].parse().unwrap();
        assert_eq!(sessions % BLOCK, 0);
        let whole = Options { batch_size: Some(500), ..options(sessions) };
        if sessions > 0 {
            assert_eq!(
                play(&simulator, "random", &whole).0.digest(&|| Ok(())).unwrap(),
                log.digest(&|| Ok(())).unwrap()
            );
        }
        std::fs::remove_file(partial).unwrap();
        std::fs::remove_file(path.with_extension("parquet.journal")).unwrap();
    }
}

#[test]
fn functions_see_what_native_policies_see() {
    let simulator = testing::simulator(3);
    let action = [0.25, -0.5, 1.0, 0.0, -1.0];
    let policy = Policy::constant(action.to_vec()).unwrap();
    let want = rollout(&*simulator, Source::Policy(&policy), &options(2000), &QUIET).unwrap();
    let want = want.log.unwrap();
    let width = simulator.schema.observation_width();
    let mut pages_seen = 0;
    for batch_size in [1, 33, 5000] {
        let mut choose = |seen: Observed<'_>, actions: &mut [f32]| {
            assert_eq!(seen.observations.len(), seen.sessions.len() * width);
            for (row, page) in seen.observations.chunks(width).zip(seen.pages) {
                assert_eq!(row[width - 1], *page as f32);
                assert_eq!(row[..width - 3].iter().sum::<f32>(), 3.0);
            }
            pages_seen += seen.pages.len();
            actions.chunks_mut(5).for_each(|row| row.copy_from_slice(&action));
            Ok(())
        };
        let source = Source::Callback { name: "test".into(), choose: &mut choose };
        let run = Options { batch_size: Some(batch_size), ..options(2000) };
        let played = rollout(&*simulator, source, &run, &QUIET).unwrap();
        assert_eq!(
            played.log.unwrap().digest(&|| Ok(())).unwrap(),
            want.digest(&|| Ok(())).unwrap()
        );
    }
    assert_eq!(pages_seen, 3 * want.len());
}

#[test]
fn functions_that_fail_end_the_rollout() {
    let simulator = testing::simulator(3);
    let mut choose = |_: Observed<'_>, actions: &mut [f32]| {
        actions.fill(0.0);
        actions[7] = f32::NAN;
        Ok(())
    };
    let source = Source::Callback { name: "test".into(), choose: &mut choose };
    let error = rollout(&*simulator, source, &options(10), &QUIET).unwrap_err().to_string();
    assert!(error.contains("got NaN for session 1, page 0"), "{error}");
    let mut choose = |_: Observed<'_>, _: &mut [f32]| Err(Error::Policy("no".into()));
    let source = Source::Callback { name: "test".into(), choose: &mut choose };
    assert!(rollout(&*simulator, source, &options(10), &QUIET).is_err());
}

#[test]
fn actions_are_clipped_into_the_range() {
    let simulator = testing::simulator(3);
    let policy = Policy::constant(vec![3.0, -3.0, 0.5, 1.0, -1.0]).unwrap();
    let played = rollout(&*simulator, Source::Policy(&policy), &options(5), &QUIET).unwrap();
    assert_eq!(played.log.unwrap().action[..5], [1.0, -1.0, 0.5, 1.0, -1.0]);
}

#[test]
fn bad_arguments_are_refused() {
    let simulator = testing::simulator(3);
    let good = options(10);
    let refused = [
        Options { target: Target::Sessions(0), ..good.clone() },
        Options { target: Target::Pages(0), ..good.clone() },
        Options { target: Target::Sessions(MOST_SESSIONS + 1), ..good.clone() },
        Options { threads: Some(0), ..good.clone() },
        Options { batch_size: Some(0), ..good },
    ];
    for options in refused {
        let policy = Policy::parse("zero").unwrap();
        let error = rollout(&*simulator, Source::Policy(&policy), &options, &QUIET).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
    }
}

#[test]
fn counts_are_those_of_the_rows() {
    let simulator = testing::simulator(3);
    let (log, summary) = play(&simulator, "random", &options(BLOCK + 5));
    let clicks: u64 = log.clicks.iter().map(|clicks| u64::from(*clicks)).sum();
    let second: u64 = log.second.iter().map(|second| u64::from(*second)).sum();
    assert_eq!((summary.clicks, summary.second), (clicks, second));
    assert!(clicks > 0 && second > 0);
    assert_eq!(summary.clicks_by_page.iter().sum::<u64>(), clicks);
    assert_eq!(summary.pages_by_page.iter().sum::<u64>(), summary.pages);
    assert_eq!(summary.sessions_by_length.iter().sum::<u64>(), BLOCK + 5);
    let (mut squares, mut products) = ([0, 0], 0);
    for session in 0..BLOCK + 5 {
        let from = log.session.partition_point(|s| *s < session as i64);
        let to = log.session.partition_point(|s| *s <= session as i64);
        let clicks: u64 = log.clicks[from..to].iter().map(|clicks| u64::from(*clicks)).sum();
        let pages = (to - from) as u64;
        squares = [squares[0] + clicks * clicks, squares[1] + pages * pages];
        products += clicks * pages;
    }
    assert_eq!([summary.clicks_squared, summary.pages_squared], squares);
    assert_eq!(summary.clicks_times_pages, products);
}
