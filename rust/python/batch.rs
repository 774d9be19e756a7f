//! `_core.SessionBatch`.

use numpy::{PyArray1, PyArray2, PyReadonlyArrayDyn};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::arrays::{exact, one, two};
use super::errors::{awaited, detached, exclusive, shared, to_py};
use super::infos::{Infos, key};
use super::simulator::PySimulator;
use super::{refused_action, refused_argument, word};
use crate::background::Lent;
use crate::batch::{Anc, Autoreset, Reward, Rules, SessionBatch, Step};
use crate::error::{Error, Result};

/// Environments that step together.
#[pyclass(name = "SessionBatch", module = "virtualtb_fast._core")]
pub struct PySessionBatch {
    batch: Lent<SessionBatch, Result<Step>>,
    num_threads: usize,
}

pub type Observations<'py> = Bound<'py, PyArray2<f32>>;
/// Observations, rewards, terminated, truncated, infos; the environments that finished, and their
/// final observations.
pub type StepTuple<'py> = (
    Observations<'py>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyDict>,
    Bound<'py, PyArray1<i64>>,
    Observations<'py>,
);
pub type OneTuple<'py> = (Bound<'py, PyArray1<f32>>, f64, bool, bool, Bound<'py, PyDict>);

/// The number of environments and of threads; negative numbers become 0, which the batch refuses.
pub fn sizes(num_envs: i64, num_threads: Option<i64>) -> PyResult<[Option<usize>; 2]> {
    let values = [Some(num_envs), num_threads];
    for (what, value) in ["num_envs", "num_threads"].into_iter().zip(values) {
        if let Some(value) = value.filter(|value| *value < 1) {
            return Err(to_py(Error::argument(what, "a positive number", value)));
        }
    }
    Ok(values.map(|value| value.map(|value| usize::try_from(value).unwrap_or(0))))
}

/// What a reset of `N` environments takes: u64 seeds (N,), or none to go on in the same streams, and
/// a mask bool (N,) of those that reset, or none for all.
pub struct Resets<'py> {
    seeds: Option<PyReadonlyArrayDyn<'py, u64>>,
    mask: Option<PyReadonlyArrayDyn<'py, bool>>,
}

impl<'py> Resets<'py> {
    /// Refuses arrays of another type or shape.
    pub fn new(
        seeds: Option<&Bound<'py, PyAny>>,
        mask: Option<&Bound<'py, PyAny>>,
        num_envs: usize,
    ) -> PyResult<Self> {
        let shape = [num_envs];
        let seeds = seeds.map(|seeds| exact(seeds, "seeds", &shape, refused_argument));
        let mask = mask.map(|mask| exact(mask, "reset_mask", &shape, refused_argument));
        Ok(Self { seeds: seeds.transpose()?, mask: mask.transpose()? })
    }

    /// The seeds, for use without the interpreter.
    pub fn seeds(&self) -> PyResult<Option<&[u64]>> {
        Ok(self.seeds.as_ref().map(|seeds| seeds.as_slice()).transpose()?)
    }

    /// The mask, for use without the interpreter.
    pub fn mask(&self) -> PyResult<Option<&[bool]>> {
        Ok(self.mask.as_ref().map(|mask| mask.as_slice()).transpose()?)
    }
}

#[pymethods]
impl PySessionBatch {
    #[new]
    #[pyo3(signature = (simulator, num_envs, *, num_threads, quirks, clip, autoreset, reward, anc))]
    #[allow(clippy::too_many_arguments, reason = "keywords of one Python call")]
    fn new(
        py: Python<'_>,
        simulator: &PySimulator,
        num_envs: i64,
        num_threads: Option<i64>,
        quirks: bool,
        clip: bool,
        autoreset: &str,
        reward: &str,
        anc: Option<(f64, f64)>,
    ) -> PyResult<Self> {
        let rules = Rules {
            quirks,
            clip,
            autoreset: word("autoreset_mode", autoreset, &Autoreset::WORDS)?,
            reward: word("reward", reward, &Reward::WORDS)?,
            anc: anc.map(|(rho, mu)| Anc { rho, mu }),
        };
        let [num_envs, num_threads] = sizes(num_envs, num_threads)?;
        let simulator = simulator.0.clone();
        let num_envs = num_envs.unwrap_or(0);
        let batch = detached(py, || SessionBatch::new(simulator, num_envs, num_threads, rules))?;
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
        let shape = [batch.simulator().schema.action];
        let action = exact::<f32>(action, "action", &shape, refused_action)?;
        let action = action.as_slice()?;
        let step = detached(py, || batch.step(action))?;
        let info = PyDict::new(py);
        info.set_item(intern!(py, "clicks"), step.clicks[0])?;
        info.set_item(intern!(py, "deals"), step.second[0])?;
        info.set_item(intern!(py, "CTR"), step.ctr[0])?;
        let config = &batch.simulator().config;
        if config.ends_by_hazard() {
            info.set_item(intern!(py, "outcome"), step.outcomes[0])?;
        }
        if config.answers_outcome() {
            info.set_item(intern!(py, "R2P"), step.clicks_a_page[0])?;
        }
        info.set_item(intern!(py, "raw_reward"), step.raw_rewards[0])?;
        info.set_item(intern!(py, "clipped"), step.clipped[0])?;
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
        let page = lanes.iter().map(|lane| i64::from(lane.page));
        info.set_item("page", one(py, page.collect()))?;
        let clicks = lanes.iter().map(|lane| i64::from(lane.total_clicks));
        info.set_item("total_clicks", one(py, clicks.collect()))?;
        Ok(info)
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

impl PySessionBatch {
    fn here(&self, what: &str) -> PyResult<&SessionBatch> {
        self.batch.get(what).map_err(to_py)
    }
}

/// The shape of a step's actions.
fn shape(batch: &SessionBatch) -> [usize; 2] {
    [batch.num_envs(), batch.simulator().schema.action]
}

fn told<'py>(py: Python<'py>, batch: &SessionBatch, step: Step) -> PyResult<StepTuple<'py>> {
    let width = batch.observation_width();
    let config = &batch.simulator().config;
    let infos = Infos::new(py, step.shown, &step.finished);
    infos.put(key!(py, "clicks"), step.clicks)?;
    infos.put(key!(py, "deals"), step.second)?;
    infos.put(key!(py, "CTR"), step.ctr)?;
    if config.ends_by_hazard() {
        infos.put(key!(py, "outcome"), step.outcomes)?;
    }
    if config.answers_outcome() {
        infos.put(key!(py, "R2P"), step.clicks_a_page)?;
    }
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
