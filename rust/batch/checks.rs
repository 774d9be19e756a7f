//! What every kind of batch checks before anything changes, and how it is cut into chunks.

use super::{Anc, Autoreset, Phase};
use crate::error::{Error, Result};
use crate::kernels::TILE;
use crate::parallel;
use crate::session::refused_value;
use crate::simulator::LARGEST_ACTION;

/// More environments than this are taken for a mistake.
pub const MOST_ENVS: usize = 1 << 24;
/// Chunks for each thread, so that the last ones to finish leave little idle time.
const CHUNKS_A_THREAD: usize = 8;

/// Refuses a number of environments, or a constraint, that makes no batch.
pub fn check_batch(num_envs: usize, anc: Option<Anc>) -> Result<()> {
    if !(1..=MOST_ENVS).contains(&num_envs) {
        return Err(Error::argument("num_envs", format!("1 to {MOST_ENVS}"), num_envs));
    }
    if let Some(Anc { rho, mu }) = anc {
        let fits = |value: f64| value.is_finite() && value >= 0.0;
        if !(fits(rho) && fits(mu)) {
            let expected = "finite (rho, mu), neither negative";
            return Err(Error::argument("anc", expected, format!("({rho}, {mu})")));
        }
    }
    Ok(())
}

/// Threads to use, and environments of a chunk, of which there are `most_lanes` at most.
pub fn layout(
    num_envs: usize,
    threads: Option<usize>,
    most_lanes: usize,
) -> Result<(usize, usize)> {
    // A tile is the least that is worth another thread.
    let threads = parallel::resolve(threads)?.min(num_envs.div_ceil(TILE));
    let chunks = match threads {
        1 => num_envs.div_ceil(most_lanes),
        _ => (threads * CHUNKS_A_THREAD).max(num_envs.div_ceil(most_lanes)),
    };
    Ok((threads, num_envs.div_ceil(chunks).max(TILE.min(num_envs))))
}

/// Refuses seeds or a mask of another length than there are environments, and a first reset
/// without seeds.
pub fn check_reset(
    envs: usize,
    mut phases: impl Iterator<Item = Phase>,
    seeds: Option<&[u64]>,
    mask: Option<&[bool]>,
) -> Result<()> {
    for (what, length) in [("seeds", seeds.map(<[_]>::len)), ("reset_mask", mask.map(<[_]>::len))] {
        if let Some(length) = length.filter(|length| *length != envs) {
            let expected = format!("{envs} values, one an environment");
            return Err(Error::argument(what, expected, length));
        }
    }
    if seeds.is_some() {
        return Ok(());
    }
    let masked = |env: usize| mask.is_none_or(|mask| mask[env]);
    let mut env = 0..;
    let is_new = |phase: Phase| env.next().is_some_and(masked) && phase == Phase::New;
    match phases.position(is_new) {
        None => Ok(()),
        Some(env) => Err(Error::State(format!(
            "environment {env}: expected a seed at the first reset, got none"
        ))),
    }
}

/// Refuses a step while an environment has no session in play, and actions of another number or
/// that are not finite.
pub fn check_step(
    envs: usize,
    mut phases: impl Iterator<Item = Phase>,
    autoreset: Autoreset,
    actions: &[f32],
    size: usize,
) -> Result<()> {
    if actions.len() != envs * size {
        return Err(Error::argument("actions", format!("{} values", envs * size), actions.len()));
    }
    let mut env = 0;
    let stuck = phases.find(|phase| {
        env += 1;
        match phase {
            Phase::New => true,
            Phase::Playing => false,
            Phase::Over => autoreset == Autoreset::Disabled,
        }
    });
    if let Some(phase) = stuck {
        let got = if phase == Phase::New { "no reset yet" } else { "a session that is over" };
        return Err(Error::State(format!(
            "step of environment {}: expected a session in play, got {got}; call reset first",
            env - 1
        )));
    }
    if refused_value(actions).is_none() {
        return Ok(());
    }
    for (lane, action) in actions.chunks(size).enumerate() {
        if let Some(value) = refused_value(action) {
            let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
            return Err(Error::Action { lane, expected, got: value.to_string() });
        }
    }
    Ok(())
}
