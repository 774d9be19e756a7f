//! Ranking policies that run natively: an action a page, from the observation.
//!
//! | name | action | log-density |
//! |---|---|---|
//! | `random` | uniform on the action box | `-A ln(high - low)` |
//! | `zero` | zeros | 0 |
//! | `constant` | one vector | 0 |
//! | `gaussian:SIGMA` | normal, mean 0, standard deviation SIGMA | of the draw |
//! | `logger` | what a store's logs were made with: normal, mean 0 | of the draw |
//! | `logger:query` | the same with a mean that depends on the customer's query | of the draw |
//! | network | a multilayer perceptron of the observation, from a file | 0, or of the draw |
//!
//! A log-density is that of the draw, before the action is clipped into the simulator's range; a
//! deterministic policy has none and gives 0. Draws come from [`Purpose::Policy`] of (seed,
//! session, page), so neither batches nor threads change them.
//!
//! A [`Policy`] is a value that can be named and saved; [`Policy::bind`] packs it for one
//! simulator or store ([`Place`]) as an [`Actor`], which sees sessions through [`Seen`].

mod network;

use std::path::Path;

use crate::error::{Error, Result};
use crate::kernels::{Kernels, TILE, math};
use crate::rng::{Origin, Purpose};
use crate::session::{Lane, Sessions};
use crate::simulator::{LARGEST_ACTION, Schema, Simulator};
use crate::tensor_file::{self, Tensors};

use network::{BoundNetwork, Network};
pub use network::{NetworkConfig, NonLinearity};

/// Standard deviations beyond this are taken for a mistake.
const LARGEST_SIGMA: f32 = 1e3;

/// Sessions as a policy sees them.
pub trait Seen {
    /// The customer's field codes.
    fn customer(&self, lane: usize) -> &[u8];
    /// The columns of the observation after the customer.
    fn tail(&self, lane: usize, out: &mut [f32]);
    /// Where the draws for the page that is chosen now start.
    fn origin(&self, lane: usize) -> Origin;
}

impl Seen for Sessions {
    fn customer(&self, lane: usize) -> &[u8] {
        Sessions::customer(self, lane)
    }

    fn tail(&self, lane: usize, out: &mut [f32]) {
        let lane = &self.lanes[lane];
        let columns = [f32::from(lane.clicks), f32::from(lane.second), lane.page as f32];
        out.copy_from_slice(&columns);
    }

    fn origin(&self, lane: usize) -> Origin {
        let Lane { seed, session, page, .. } = self.lanes[lane];
        Origin { seed, session, page, purpose: Purpose::Policy }
    }
}

impl<S: Seen + ?Sized> Seen for &S {
    fn customer(&self, lane: usize) -> &[u8] {
        (**self).customer(lane)
    }

    fn tail(&self, lane: usize, out: &mut [f32]) {
        (**self).tail(lane, out);
    }

    fn origin(&self, lane: usize) -> Origin {
        (**self).origin(lane)
    }
}

/// What a policy is packed for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// Customers and actions.
    pub schema: &'a Schema,
    /// Columns of an observation, the customer's included.
    pub observation_width: usize,
    /// The policy that its logs were made with, if it has one.
    pub logger: Option<Logger<'a>>,
}

/// A store's logging policy.
#[derive(Clone, Copy, Debug)]
pub struct Logger<'a> {
    /// Standard deviation of each dimension.
    pub sd: f32,
    /// The field that is the query.
    pub query: usize,
    /// Means of the state-dependent form, one row a query.
    pub means: &'a [f32],
}

impl<'a> From<&'a Simulator> for Place<'a> {
    fn from(simulator: &'a Simulator) -> Self {
        let Simulator { name, schema, .. } = simulator;
        Self { name, schema, observation_width: schema.observation_width(), logger: None }
    }
}

/// A ranking policy.
#[derive(Clone, Debug)]
pub struct Policy(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Random,
    Zero,
    Constant(Vec<f32>),
    Gaussian(f32),
    Logger { by_query: bool },
    Network(Box<Network>),
}

impl Policy {
    /// `random`, `zero`, `gaussian:SIGMA`, `logger` or `logger:query`.
    pub fn parse(text: &str) -> Result<Self> {
        let expected = "random, zero, gaussian:SIGMA, logger or logger:query";
        match text.split_once(':') {
            None if text == "random" => Ok(Self(Kind::Random)),
            None if text == "zero" => Ok(Self(Kind::Zero)),
            None if text == "logger" => Ok(Self(Kind::Logger { by_query: false })),
            Some(("logger", "query")) => Ok(Self(Kind::Logger { by_query: true })),
            Some(("gaussian", sigma)) => {
                let parsed = sigma.trim().parse::<f32>().ok();
                match parsed.filter(|sigma| (f32::MIN_POSITIVE..=LARGEST_SIGMA).contains(sigma)) {
                    Some(sigma) => Ok(Self(Kind::Gaussian(sigma))),
                    None => {
                        let expected = format!("a number above 0, at most {LARGEST_SIGMA}");
                        Err(Error::argument("SIGMA of policy gaussian:SIGMA", expected, sigma))
                    }
                }
            }
            _ => Err(Error::argument("policy", expected, format!("{text:?}"))),
        }
    }

    /// One action for every page.
    pub fn constant(action: Vec<f32>) -> Result<Self> {
        match crate::session::refused_value(&action) {
            None if !action.is_empty() => Ok(Self(Kind::Constant(action))),
            None => Err(Error::argument("constant action", "at least one number", "none")),
            Some(value) => {
                let expected = format!("finite numbers within +-{LARGEST_ACTION:e}");
                Err(Error::argument("constant action", expected, value))
            }
        }
    }

    /// A network from its tensors; names and shapes must be those that `config` implies.
    pub fn network(
        config: NetworkConfig,
        provenance: serde_json::Value,
        tensors: Tensors,
    ) -> Result<Self> {
        Ok(Self(Kind::Network(Box::new(Network::new(config, provenance, tensors)?))))
    }

    /// Reads a file's bytes; `origin` names them in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Self> {
        Ok(Self(Kind::Network(Box::new(Network::read(bytes, origin)?))))
    }

    /// Reads a policy file.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&tensor_file::read_capped(path)?, &path.display().to_string())
    }

    /// Writes a network's file beside `path`, reads it back, then renames.
    pub fn save(&self, path: &Path) -> Result<()> {
        tensor_file::save(&self.to_bytes()?, path, |back, origin| {
            Self::from_bytes(back, origin).map(drop)
        })
    }

    /// The bytes of a network's file: the same policy always gives the same.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.as_network().map(Network::to_bytes)
    }

    /// The network's configuration, if this is one.
    pub fn network_config(&self) -> Option<&NetworkConfig> {
        self.as_network().ok().map(|network| &network.config)
    }

    /// The network's tensors, if this is one.
    pub fn tensors(&self) -> Option<&Tensors> {
        self.as_network().ok().map(|network| &network.tensors)
    }

    /// Where the network came from, if this is one.
    pub fn provenance(&self) -> Option<&serde_json::Value> {
        self.as_network().ok().map(|network| &network.provenance)
    }

    fn as_network(&self) -> Result<&Network> {
        match &self.0 {
            Kind::Network(network) => Ok(network),
            _ => Err(Error::argument("policy file", "a network", self.name())),
        }
    }

    /// What logs say: the same name is the same policy.
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Random => "random".into(),
            Kind::Zero => "zero".into(),
            Kind::Gaussian(sigma) => format!("gaussian:{sigma}"),
            Kind::Logger { by_query: false } => "logger".into(),
            Kind::Logger { by_query: true } => "logger:query".into(),
            Kind::Constant(action) => {
                let bytes: Vec<u8> = action.iter().flat_map(|value| value.to_le_bytes()).collect();
                format!("constant:{}", tensor_file::hash(&bytes))
            }
            Kind::Network(network) => format!("network:{}", network.digest),
        }
    }

    /// Whether every page of every session is shown the same action.
    pub fn is_constant(&self) -> bool {
        matches!(self.0, Kind::Zero | Kind::Constant(_))
    }

    /// Packs the policy for a place whose schema it must fit.
    pub fn bind(&self, place: Place<'_>) -> Result<Actor> {
        let [low, high] = place.schema.action_range;
        let size = place.schema.action;
        let kind = match &self.0 {
            Kind::Random => {
                let width = high - low;
                Acting::Uniform { low, width, density: -(size as f32) * ln(width) }
            }
            Kind::Zero => Acting::Constant(vec![0.0; size]),
            Kind::Constant(action) if action.len() == size => Acting::Constant(action.clone()),
            Kind::Constant(action) => {
                let expected = format!("{size} numbers, one a dimension of an action");
                return Err(Error::argument("constant action", expected, action.len()));
            }
            Kind::Gaussian(sigma) => Acting::Noise(Noise::new(vec![ln(*sigma); size])),
            Kind::Logger { by_query } => {
                let Some(Logger { sd, query, means }) = place.logger else {
                    let expected = "a policy for a simulator, which has no logger as a store has";
                    return Err(Error::argument("policy", expected, self.name()));
                };
                let noise = Noise::new(vec![ln(sd); size]);
                let means = means.to_vec();
                if *by_query {
                    Acting::ByQuery { query, means, noise }
                } else {
                    Acting::Noise(noise)
                }
            }
            Kind::Network(network) => Acting::Network(Box::new(network.bind(place)?)),
        };
        Ok(Actor { kind, size })
    }
}

/// SHA-256 of a schema's JSON: what ties a policy's file to the simulators that it fits.
pub fn schema_digest(schema: &Schema) -> String {
    tensor_file::hash(tensor_file::json(schema).as_bytes())
}

/// A policy packed for one simulator.
#[derive(Debug)]
pub struct Actor {
    kind: Acting,
    size: usize,
}

#[derive(Debug)]
enum Acting {
    Constant(Vec<f32>),
    Uniform {
        low: f32,
        width: f32,
        density: f32,
    },
    Noise(Noise),
    /// A mean for each category of the query, `size` a row.
    ByQuery {
        query: usize,
        means: Vec<f32>,
        noise: Noise,
    },
    Network(Box<BoundNetwork>),
}

impl Actor {
    /// Chooses the action for each of `lanes` into `actions` (the action's size a row) and its
    /// log-density into `densities`. Actions are finite, but may lie outside the range.
    pub fn act(
        &self,
        kernels: Kernels,
        buffers: &mut Buffers,
        sessions: &impl Seen,
        lanes: &[usize],
        actions: &mut [f32],
        densities: &mut [f32],
    ) {
        let size = self.size;
        match &self.kind {
            Acting::Constant(action) => {
                actions.chunks_mut(size).for_each(|row| row.copy_from_slice(action));
                densities.fill(0.0);
            }
            Acting::Uniform { low, width, density } => {
                for (row, lane) in actions.chunks_mut(size).zip(lanes) {
                    kernels.uniforms(sessions.origin(*lane), row);
                    row.iter_mut().for_each(|value| *value = low + *value * width);
                }
                densities.fill(*density);
            }
            Acting::Noise(noise) => {
                actions.fill(0.0);
                noise.add(kernels, buffers, sessions, lanes, actions, densities);
            }
            Acting::ByQuery { query, means, noise } => {
                for (row, lane) in actions.chunks_mut(size).zip(lanes) {
                    let query = usize::from(sessions.customer(*lane)[*query]);
                    row.copy_from_slice(&means[query * size..][..size]);
                }
                noise.add(kernels, buffers, sessions, lanes, actions, densities);
            }
            Acting::Network(network) => {
                network.act(kernels, buffers, sessions, lanes, actions, densities);
            }
        }
    }
}

/// Buffers of one thread, grown to what the policy needs on first use.
#[derive(Debug, Default)]
pub struct Buffers {
    noise: Vec<f32>,
    network: network::Buffers,
}

/// Independent normal noise, a standard deviation a dimension.
#[derive(Debug)]
struct Noise {
    sd: Vec<f32>,
    /// The log-density at the mean.
    peak: f32,
}

/// ln(2 pi) / 2.
const HALF_LN_TWO_PI: f32 = 0.918_938_5;

impl Noise {
    fn new(log_sd: Vec<f32>) -> Self {
        let peak = log_sd.iter().fold(0.0, |sum, log_sd| sum - (log_sd + HALF_LN_TWO_PI));
        Self { sd: log_sd.into_iter().map(exp).collect(), peak }
    }

    /// Adds noise to the means in `actions`.
    fn add(
        &self,
        kernels: Kernels,
        buffers: &mut Buffers,
        sessions: &impl Seen,
        lanes: &[usize],
        actions: &mut [f32],
        densities: &mut [f32],
    ) {
        let size = self.sd.len();
        let noise = &mut buffers.noise;
        if noise.len() < TILE * size {
            noise.resize(TILE * size, 0.0);
        }
        let tiles = lanes.chunks(TILE);
        let rows = actions.chunks_mut(TILE * size).zip(densities.chunks_mut(TILE));
        for (tile, (actions, densities)) in tiles.zip(rows) {
            let noise = &mut noise[..tile.len() * size];
            for (row, lane) in noise.chunks_mut(size).zip(tile) {
                kernels.uniforms(sessions.origin(*lane), row);
            }
            kernels.normals(noise);
            let rows = actions.chunks_mut(size).zip(densities);
            for (z, (action, density)) in noise.chunks(size).zip(rows) {
                let mut squares = 0.0;
                for ((action, z), sd) in action.iter_mut().zip(z).zip(&self.sd) {
                    *action += sd * z;
                    squares += z * z;
                }
                *density = self.peak - 0.5 * squares;
            }
        }
    }
}

/// The natural logarithm from our own polynomial: the same bits on every platform.
fn ln(x: f32) -> f32 {
    math::ln_positive(x)
}

/// The exponential, likewise.
fn exp(x: f32) -> f32 {
    if x > 0.0 { 1.0 / math::exp_nonpositive(-x) } else { math::exp_nonpositive(x) }
}

#[cfg(test)]
mod tests;
