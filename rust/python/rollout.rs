//! `_core.rollout`.

use std::path::PathBuf;

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{exact, one, two};
use super::errors::{Raised, detached, exception, to_py};
use super::log::PyLog;
use super::policy::PyPolicy;
use super::simulator::PySimulator;
use super::store::PyStore;
use crate::error::Error;
use crate::rollout::{
    Observed, Options, Output, Played, Source, Summary, Target, Watch, rollout as play,
};

/// Calls the policy on fresh arrays; it has to give float32 (rows, `size`).
fn choose(
    policy: &Py<PyAny>,
    observed: Observed<'_>,
    actions: &mut [f32],
    size: usize,
) -> PyResult<()> {
    Python::attach(|py| {
        let rows = observed.sessions.len();
        let width = observed.observations.len() / rows;
        let observations = two(py, observed.observations.to_vec(), width)?;
        let sessions = PyArray1::from_slice(py, observed.sessions);
        let pages = PyArray1::from_slice(py, observed.pages);
        let chosen = policy.bind(py).call1((observations, sessions, pages))?;
        let refuse = |message| exception("PolicyError", (message,));
        let chosen = exact::<f32>(&chosen, "the policy's actions", &[rows, size], refuse)?;
        actions.copy_from_slice(chosen.as_slice()?);
        Ok(())
    })
}

fn summary<'py>(py: Python<'py>, counts: &Summary) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    for (name, value) in [
        ("pages", counts.pages),
        ("sessions", counts.sessions),
        ("clicks", counts.clicks),
        ("second", counts.second),
        ("click_pages", counts.click_pages),
        ("clicks_squared", counts.clicks_squared),
        ("pages_squared", counts.pages_squared),
        ("clicks_times_pages", counts.clicks_times_pages),
        ("buy_pages", counts.buy_pages),
        ("buys_squared", counts.buys_squared),
        ("buys_times_pages", counts.buys_times_pages),
        ("units", counts.units),
        ("cents", counts.cents),
    ] {
        out.set_item(name, value)?;
    }
    for (name, values) in [
        ("sessions_by_length", &counts.sessions_by_length),
        ("clicks_by_page", &counts.clicks_by_page),
        ("pages_by_page", &counts.pages_by_page),
    ] {
        out.set_item(name, one(py, values.iter().map(|count| *count as i64).collect()))?;
    }
    Ok(out)
}

/// What sessions are played in.
#[derive(FromPyObject)]
enum Place {
    Simulator(Py<PySimulator>),
    Store(Py<PyStore>),
}

/// Plays whole sessions.
#[pyfunction]
#[pyo3(signature = (place, policy, *, name, seed, sessions, pages, num_threads, batch_size, keep, out,
                    overwrite, resume, progress))]
#[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
fn rollout<'py>(
    py: Python<'py>,
    place: Place,
    policy: &Bound<'py, PyAny>,
    name: &str,
    seed: u64,
    sessions: Option<u64>,
    pages: Option<u64>,
    num_threads: Option<usize>,
    batch_size: Option<usize>,
    keep: bool,
    out: Option<PathBuf>,
    overwrite: bool,
    resume: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Option<PyLog>, Bound<'py, PyDict>, u64)> {
    let target = match (sessions, pages) {
        (Some(sessions), None) => Target::Sessions(sessions),
        (None, Some(pages)) => Target::Pages(pages),
        _ => {
            let got = if sessions.is_some() { "both" } else { "neither" };
            return Err(to_py(Error::argument("sessions, pages", "one of the two", got)));
        }
    };
    let output = match out {
        Some(path) => Output::File { path, overwrite, resume },
        None if keep => Output::Memory,
        None => Output::Nowhere,
    };
    let options = Options { seed, target, threads: num_threads, batch_size, output };
    let size = match &place {
        Place::Simulator(simulator) => simulator.get().0.schema.action,
        Place::Store(store) => store.get().0.schema.action,
    };
    let native = policy.cast::<PyPolicy>().ok().map(Bound::get);
    let callable = policy.clone().unbind();
    let raised = Raised::default();
    let played = detached(py, || {
        let watch = Watch {
            interrupt: &|| raised.check_signals(),
            progress: &|pages, sessions| {
                let Some(progress) = &progress else { return };
                let told = Python::attach(|py| progress.call1(py, (pages, sessions)).map(drop));
                if let Err(error) = told {
                    raised.keep(error);
                }
            },
        };
        let mut called = |observed: Observed<'_>, actions: &mut [f32]| {
            choose(&callable, observed, actions, size).map_err(|error| raised.keep(error))
        };
        let source = match native {
            Some(policy) => Source::Policy(&policy.0),
            None => Source::Callback { name: name.to_owned(), choose: &mut called },
        };
        match &place {
            Place::Simulator(simulator) => play(&*simulator.get().0, source, &options, &watch),
            Place::Store(store) => play(&*store.get().0, source, &options, &watch),
        }
    });
    let Played { log, summary: counts, resumed } = raised.finish(played)?;
    Ok((log.map(PyLog), summary(py, &counts)?, resumed))
}

/// Adds what is defined here to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("BLOCK", crate::logs::BLOCK)?;
    module.add_function(wrap_pyfunction!(rollout, module)?)
}
