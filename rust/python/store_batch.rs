//! `_core.StoreBatch`.

use numpy::PyArray1;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::arrays::{exact, one, two};
use super::batch::{Observations, OneTuple, Resets, StepTuple, sizes};
use super::errors::{awaited, detached, exclusive, shared, to_py};
use super::infos::{Infos, key};
use super::store::PyStore;
use super::{refused_action, word};
use crate::background::Lent;
use crate::batch::{Anc, Autoreset};
use crate::error::Result;
use crate::store::batch::{Reward, Rules, Step, StoreBatch};
use crate::store::{ATTRIBUTES, PAGE};

/// Environments that step together.
#[pyclass(name = "StoreBatch", module = "virtualtb_fast._core")]
pub struct PyStoreBatch {
    batch: Lent<StoreBatch, Result<Step>>,
    num_threads: usize,
}

#[pymethods]
impl PyStoreBatch {
    #[new]
    #[pyo3(signature = (store, num_envs, *, num_threads, autoreset, reward, anc))]
    fn new(
        py: Python<'_>,
        store: &PyStore,
        num_envs: i64,
        num_threads: Option<i64>,
        autoreset: &str,
        reward: &str,
        anc: Option<(f64, f64)>,
    ) -> PyResult<Self> {
        let rules = Rules {
            autoreset: word("autoreset_mode", autoreset, &Autoreset::WORDS)?,
            reward: word("reward", reward, &[("buy", Reward::Buy), ("value", Reward::Value)])?,
            anc: anc.map(|(rho, mu)| Anc { rho, mu }),
        };
        let [num_envs, num_threads] = sizes(num_envs, num_threads)?;
        let store = store.0.clone();
        let num_envs = num_envs.unwrap_or(0);
        let batch = detached(py, || StoreBatch::new(store, num_envs, num_threads, rules))?;
        Ok(Self { num_threads: batch.threads(), batch: Lent::new(batch) })
    }

    #[getter]
    fn num_threads(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Ok(shared(slf)?.num_threads)
    }

    #[getter]
    fn bytes_per_session(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let this = &*shared(slf)?;
        Ok(this.here("bytes_per_session")?.bytes_per_session())
    }

    /// Refuses the call `what` while a step is under way.
    fn check_here(slf: &Bound<'_, Self>, what: &str) -> PyResult<()> {
        let this = &*shared(slf)?;
        this.here(what).map(drop)
    }

    #[pyo3(signature = (seeds, mask))]
    fn reset<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
        seeds: Option<&Bound<'py, PyAny>>,
        mask: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Observations<'py>> {
        let this = &mut *exclusive(slf)?;
        let batch = this.batch.get_mut("reset").map_err(to_py)?;
        let resets = Resets::new(seeds, mask, batch.num_envs())?;
        let (seeds, mask) = (resets.seeds()?, resets.mask()?);
        let width = batch.observation_width();
        let observations = detached(py, || {
            batch.reset(seeds, mask)?;
            Ok(batch.observations())
        })?;
        two(py, observations, width)
    }

    fn step<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
        actions: &Bound<'py, PyAny>,
    ) -> PyResult<StepTuple<'py>> {
        let this = &mut *exclusive(slf)?;
        let batch = this.batch.get_mut("step").map_err(to_py)?;
        let actions = exact::<f32>(actions, "actions", &shape(batch), refused_action)?;
        let actions = actions.as_slice()?;
        let step = detached(py, || batch.step(actions))?;
        told(py, batch, step)
    }

    /// Starts a step in the background.
    fn send(slf: &Bound<'_, Self>, py: Python<'_>, actions: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = &mut *exclusive(slf)?;
        let batch = this.batch.get("send").map_err(to_py)?;
        let actions = exact::<f32>(actions, "actions", &shape(batch), refused_action)?;
        // The caller may write into the array while the step goes on.
        let actions = actions.as_slice()?.to_vec();
        detached(py, || this.batch.send(move |batch| batch.step(&actions)))
    }

    /// What `step` would have returned for the actions that were sent.
    fn recv<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<StepTuple<'py>> {
        let this = &mut *exclusive(slf)?;
        let step = awaited(py, &mut this.batch)?;
        told(py, this.here("recv")?, step)
    }

    /// A step of a batch of one that does not reset by itself, with scalars where it can.
    fn step_one<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
        action: &Bound<'py, PyAny>,
    ) -> PyResult<OneTuple<'py>> {
        let this = &mut *exclusive(slf)?;
        let batch = this.batch.get_mut("step").map_err(to_py)?;
        let action = exact::<f32>(action, "action", &[ATTRIBUTES], refused_action)?;
        let action = action.as_slice()?;
        let step = detached(py, || batch.step(action))?;
        let info = PyDict::new(py);
        info.set_item(intern!(py, "items"), one(py, step.items))?;
        info.set_item(intern!(py, "slot"), step.slots[0])?;
        info.set_item(intern!(py, "outcome"), step.outcomes[0])?;
        info.set_item(intern!(py, "units"), step.units[0])?;
        info.set_item(intern!(py, "value"), step.values[0])?;
        info.set_item(intern!(py, "R2P"), step.r2p[0])?;
        info.set_item(intern!(py, "raw_reward"), step.raw_rewards[0])?;
        info.set_item(intern!(py, "clipped"), step.clipped[0])?;
        info.set_item(intern!(py, "page"), step.pages[0])?;
        let (terminated, truncated) = (step.terminated[0], step.truncated[0]);
        Ok((one(py, step.observations), step.rewards[0], terminated, truncated, info))
    }

    fn observe<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Observations<'py>> {
        let this = &*shared(slf)?;
        let batch = this.here("observe")?;
        two(py, batch.observations(), batch.observation_width())
    }

    fn sessions<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let this = &*shared(slf)?;
        let batch = this.here("sessions")?;
        let lanes: Vec<_> = batch.sessions().map(|(sessions, lane)| sessions.lanes[lane]).collect();
        let info = PyDict::new(py);
        info.set_item("seed", one(py, lanes.iter().map(|lane| lane.seed).collect()))?;
        info.set_item("session", one(py, lanes.iter().map(|lane| lane.session).collect()))?;
        let page = lanes.iter().map(|lane| i64::from(lane.shown));
        info.set_item("page", one(py, page.collect()))?;
        let buys = lanes.iter().map(|lane| i64::from(lane.buys));
        info.set_item("buys", one(py, buys.collect()))?;
        info.set_item("hour", one(py, lanes.iter().map(|lane| lane.hour).collect()))?;
        Ok(info)
    }

    /// Exact counts of all pages shown since the batch was made.
    fn counters<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let this = &*shared(slf)?;
        let counts = this.here("counters")?.counters();
        let out = PyDict::new(py);
        for (name, value) in [
            ("pages", counts.pages),
            ("sessions", counts.sessions),
            ("buy_pages", counts.buy_pages),
            ("units", counts.units),
            ("cents", counts.cents),
            ("buys_squared", counts.buys_squared),
            ("pages_squared", counts.pages_squared),
            ("buys_times_pages", counts.buys_times_pages),
        ] {
            out.set_item(name, value)?;
        }
        out.set_item("outcomes", counts.outcomes.to_vec())?;
        out.set_item("sessions_by_length", counts.sessions_by_length)?;
        Ok(out)
    }

    /// The archetypes of the customers: hidden from learners.
    fn reveal<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let this = &*shared(slf)?;
        let batch = this.here("reveal")?;
        let lanes = batch.sessions().map(|(sessions, lane)| &sessions.lanes[lane]);
        Ok(one(py, lanes.map(|lane| i64::from(lane.archetype)).collect()))
    }

    fn get_state<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let this = &*shared(slf)?;
        Ok(PyBytes::new(py, &this.here("get_state")?.get_state()))
    }

    fn set_state(slf: &Bound<'_, Self>, py: Python<'_>, state: &[u8]) -> PyResult<()> {
        let this = &mut *exclusive(slf)?;
        let batch = this.batch.get_mut("set_state").map_err(to_py)?;
        detached(py, || batch.set_state(state))
    }
}

impl PyStoreBatch {
    fn here(&self, what: &str) -> PyResult<&StoreBatch> {
        self.batch.get(what).map_err(to_py)
    }
}

/// The shape of a step's actions.
fn shape(batch: &StoreBatch) -> [usize; 2] {
    [batch.num_envs(), ATTRIBUTES]
}

fn told<'py>(py: Python<'py>, batch: &StoreBatch, step: Step) -> PyResult<StepTuple<'py>> {
    let width = batch.observation_width();
    let infos = Infos::new(py, step.shown, &step.finished);
    infos.put_rows(key!(py, "items"), step.items, PAGE)?;
    infos.put(key!(py, "slot"), step.slots)?;
    infos.put(key!(py, "outcome"), step.outcomes)?;
    infos.put(key!(py, "units"), step.units)?;
    infos.put(key!(py, "value"), step.values)?;
    infos.put(key!(py, "R2P"), step.r2p)?;
    infos.put(key!(py, "raw_reward"), step.raw_rewards)?;
    infos.put(key!(py, "clipped"), step.clipped)?;
    infos.put(key!(py, "page"), step.pages)?;
    let infos = infos.finish()?;
    Ok((
        two(py, step.observations, width)?,
        one(py, step.rewards),
        one(py, step.terminated),
        one(py, step.truncated),
        infos,
        one(py, step.finished),
        two(py, step.final_observations, width)?,
    ))
}
