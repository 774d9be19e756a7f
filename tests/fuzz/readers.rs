//! What a user does with a file of each kind: reads it and, if that goes well, uses all of it.
//!
//! Shared by the mutator (`files.rs`) and by the targets of cargo-fuzz.

use std::path::Path;
use std::sync::Arc;

use virtualtb_fast::Result;
use virtualtb_fast::batch::{Autoreset, Reward, Rules, SessionBatch};
use virtualtb_fast::catalog::build::Watch as Verifying;
use virtualtb_fast::catalog::{Catalog, Condition, Value};
use virtualtb_fast::logs::{Log, digest_file};
use virtualtb_fast::policy::Policy;
use virtualtb_fast::rollout::{self, Options, Output, Source, Target};
use virtualtb_fast::simulator::Simulator;

/// Opens a new session and plays a few pages, with actions up to the edge of what is allowed.
pub fn play(simulator: Arc<Simulator>) -> Result<()> {
    const ENVS: usize = 3;
    let rules = Rules {
        quirks: false,
        clip: true,
        autoreset: Autoreset::SameStep,
        reward: Reward::Clicks,
        anc: None,
    };
    let (size, schema) = (simulator.schema.action, simulator.schema.clone());
    let mut batch = SessionBatch::new(simulator, ENVS, Some(1), rules)?;
    batch.reset(Some(&[1, 2, 3]), None)?;
    for value in [0.0, schema.action_range[0], schema.action_range[1]] {
        let step = batch.step(&vec![value; ENVS * size])?;
        assert!(step.rewards.iter().all(|reward| reward.is_finite()), "{:?}", step.rewards);
        assert!(step.observations.iter().all(|value| value.is_finite()));
    }
    Ok(())
}

/// Plays whole sessions under a policy.
pub fn follow(simulator: &Simulator, policy: &Policy) -> Result<()> {
    let options = Options {
        seed: 1,
        target: Target::Sessions(3),
        threads: Some(1),
        batch_size: Some(3),
        output: Output::Memory,
    };
    let watch = rollout::Watch { interrupt: &|| Ok(()), progress: &|_, _| () };
    let played = rollout::rollout(simulator, Source::Policy(policy), &options, &watch)?;
    let log = played.log.expect("kept in memory");
    assert!(log.action.iter().all(|value| value.is_finite()));
    Ok(())
}

/// Looks at a log as Arrow sees it, in one piece and in two.
pub fn look(path: &Path, log: &Log) -> Result<()> {
    let whole = log.to_arrow()?;
    assert_eq!(whole.num_rows(), log.len());
    let half = log.len() / 2;
    let rest = log.slice(half, log.len() - half);
    assert_eq!(rest.to_arrow()?.num_rows(), rest.len());
    let go = || Ok(());
    assert_eq!(log.digest(&go)?, digest_file(path, &go)?);
    Ok(())
}

/// Searches a catalogue with every kind of filter, reads its columns, verifies it.
pub fn search(catalog: &Catalog) -> Result<()> {
    let rows: Vec<u32> = (0..catalog.rows().min(100) as u32).collect();
    let query = vec![0.5; catalog.dimensions()];
    let mut conditions = vec![Condition::Rows(rows.clone())];
    let columns: Vec<_> = catalog.header().columns.iter().map(|c| c.name.clone()).collect();
    for name in &columns {
        if let Ok(column) = catalog.column(name, true) {
            conditions.extend(catalog.between(column, Some(3.0), Some(30.0)));
            let _ = catalog.numbers(column, &rows);
        } else if let Ok(column) = catalog.column(name, false) {
            let wanted = [Value::Text("brand 1"), Value::Text("brand 4")];
            conditions.extend(catalog.any_of(column, &wanted));
            conditions.extend(catalog.any_of(column, &[Value::Integer(0), Value::Integer(2)]));
            let _ = catalog.categories(column, &rows);
        }
    }
    let go = || Ok(());
    for conditions in conditions.chunks(1).chain([&conditions[..], &[]]) {
        let Ok(selection) = catalog.select(conditions) else { continue };
        let (mut found, mut scores) = ([0; 20], [0.0; 20]);
        let _ = catalog.search(&query, 20, &selection, Some(1), &go, &mut found, &mut scores);
    }
    let ids = catalog.ids();
    let _ = catalog.find("ids", rows.iter().filter_map(|row| ids.get(*row)), &go);
    let _ = catalog.attributes(&rows, &mut Vec::new());
    catalog.verify(&Verifying::NONE)
}
