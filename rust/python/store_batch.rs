//! `_core.StoreBatch`.

use numpy::PyArray1;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::arrays::{exact, one, two};
use super::batch::{Observations, OneTuple, Resets, sizes};
use super::errors::detached;
use super::store::PyStore;
use super::{refused_action, word};
use crate::batch::{Anc, Autoreset};
use crate::store::batch::{Reward, Rules, Step, StoreBatch};
use crate::store::{ATTRIBUTES, PAGE};

/// Environments that step together.
#[pyclass(name = "StoreBatch", module = "virtualtb_fast._core")]
pub struct PyStoreBatch(StoreBatch);

type StepTuple<'py> = (
    Observations<'py>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyDict>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<i64>>,
    Observations<'py>,
);

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
        detached(py, || StoreBatch::new(store, num_envs.unwrap_or(0), num_threads, rules)).map(Self)
    }

    #[getter]
    fn num_threads(&self) -> usize {
        self.0.threads()
    }

    #[getter]
    fn bytes_per_session(&self) -> usize {
        self.0.bytes_per_session()
    }

    #[pyo3(signature = (seeds, mask))]
    fn reset<'py>(
        &mut self,
        py: Python<'py>,
        seeds: Option<&Bound<'py, PyAny>>,
        mask: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Observations<'py>> {
        let resets = Resets::new(seeds, mask, self.0.num_envs())?;
        let (seeds, mask) = (resets.seeds()?, resets.mask()?);
        let batch = &mut self.0;
        let observations = detached(py, || {
            batch.reset(seeds, mask)?;
            Ok(batch.observations())
        })?;
        two(py, observations, self.0.observation_width())
    }

    fn step<'py>(
        &mut self,
        py: Python<'py>,
        actions: &Bound<'py, PyAny>,
    ) -> PyResult<StepTuple<'py>> {
        let shape = [self.0.num_envs(), ATTRIBUTES];
        let actions = exact::<f32>(actions, "actions", &shape, refused_action)?;
        let actions = actions.as_slice()?;
        let batch = &mut self.0;
        let step = detached(py, || batch.step(actions))?;
        let width = self.0.observation_width();
        let info = PyDict::new(py);
        info.set_item(intern!(py, "items"), two(py, step.items, PAGE)?)?;
        info.set_item(intern!(py, "slot"), one(py, step.slots))?;
        info.set_item(intern!(py, "outcome"), one(py, step.outcomes))?;
        info.set_item(intern!(py, "units"), one(py, step.units))?;
        info.set_item(intern!(py, "value"), one(py, step.values))?;
        info.set_item(intern!(py, "R2P"), one(py, step.r2p))?;
        info.set_item(intern!(py, "raw_reward"), one(py, step.raw_rewards))?;
        info.set_item(intern!(py, "clipped"), one(py, step.clipped))?;
        info.set_item(intern!(py, "page"), one(py, step.pages))?;
        Ok((
            two(py, step.observations, width)?,
            one(py, step.rewards),
            one(py, step.terminated),
            one(py, step.truncated),
            info,
            one(py, step.shown),
            one(py, step.finished),
            two(py, step.final_observations, width)?,
        ))
    }

    /// A step of a batch of one that does not reset by itself, with scalars where it can.
    fn step_one<'py>(
        &mut self,
        py: Python<'py>,
        action: &Bound<'py, PyAny>,
    ) -> PyResult<OneTuple<'py>> {
        let action = exact::<f32>(action, "action", &[ATTRIBUTES], refused_action)?;
        let action = action.as_slice()?;
        let batch = &mut self.0;
        let step: Step = detached(py, || batch.step(action))?;
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

    fn observe<'py>(&self, py: Python<'py>) -> PyResult<Observations<'py>> {
        two(py, self.0.observations(), self.0.observation_width())
    }

    fn sessions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let lanes: Vec<_> =
            self.0.sessions().map(|(sessions, lane)| sessions.lanes[lane]).collect();
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
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.0.counters();
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
    fn reveal<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let lanes = self.0.sessions().map(|(sessions, lane)| &sessions.lanes[lane]);
        one(py, lanes.map(|lane| i64::from(lane.archetype)).collect())
    }

    fn get_state<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.get_state())
    }

    fn set_state(&mut self, py: Python<'_>, state: &[u8]) -> PyResult<()> {
        let batch = &mut self.0;
        detached(py, || batch.set_state(state))
    }
}
