//! A policy network and its file.
//!
//! # File
//! A safetensors file of the form that `tensor_file.rs` describes, format `virtualtb_fast.policy`.
//! Metadata: `config`, JSON of [`NetworkConfig`], and `provenance`, JSON of where it came from.
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `policy.0.weight`, `policy.0.bias`, `policy.2.weight`, ... | `[out, in]`, `[out]` | the layers |
//! | `observation.mean`, `observation.sd` | `[inputs]` | `(observation - mean) / sd` enters |
//! | `log_sd` | `[outputs]` | noise around the output; only if `sampled` |
//!
//! # One action, in order
//! 1. The observation is normalised, and clipped to `+-observation_clip` if there is one.
//! 2. It passes through the layers. The customer's one-hot columns do not change within a
//!    session and take two values each, so they enter as sums of table rows.
//! 3. If `sampled`, noise is added: the draw. Its log-density is what a log records.
//! 4. The draw is clipped to `action_clip`, if there is one, and then, like every action, into
//!    the simulator's range.

use serde::{Deserialize, Serialize};

use super::{Noise, Place, Seen, schema_digest};
use crate::error::{Error, Result};
use crate::kernels::{Kernels, TILE};
use crate::nn::{self, Activation, Mlp, OneHotTable, Rows, Scratch, Weights};
use crate::simulator::LARGEST_ACTION;
use crate::tensor_file::{self, Expected, Kind, Tensors, check_tensors, json};

const KIND: Kind = Kind {
    format: "virtualtb_fast.policy",
    version: "1",
    noun: "policy",
    keys: &["config", "provenance"],
};

/// No column of an observation exceeds this: pages are counted with 16 bits at most.
const LARGEST_OBSERVATION: f64 = 65_536.0;

/// What follows a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum NonLinearity {
    /// Nothing.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, slope * x)`.
    LeakyRelu {
        /// In [0, 1).
        slope: f32,
    },
}

impl NonLinearity {
    fn activation(self) -> Activation {
        match self {
            Self::Identity => Activation::Identity,
            Self::Tanh => Activation::Tanh,
            Self::Relu => Activation::LeakyRelu(0.0),
            Self::LeakyRelu { slope } => Activation::LeakyRelu(slope),
        }
    }

    fn check(self, what: &str) -> Result<()> {
        match self {
            Self::LeakyRelu { slope } if !(0.0..1.0).contains(&slope) => {
                Err(Error::argument(what, "a slope in [0, 1)", slope))
            }
            _ => Ok(()),
        }
    }
}

/// A network's shape and how its output becomes an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Sizes from the observation to the action.
    pub layers: Vec<usize>,
    /// What follows every layer but the last.
    pub activation: NonLinearity,
    /// What follows the last layer.
    pub output: NonLinearity,
    /// Whether noise is added; else the output is the action.
    pub sampled: bool,
    /// Bound of the normalised observation.
    #[serde(default)]
    pub observation_clip: Option<f32>,
    /// Lowest and highest value of an action, within the simulator's range.
    #[serde(default)]
    pub action_clip: Option<[f32; 2]>,
    /// SHA-256 of the JSON of the simulator's schema that the policy was made for.
    pub schema_digest: String,
}

impl NetworkConfig {
    fn check(&self) -> Result<()> {
        let layers = &self.layers;
        if !(2..=16).contains(&layers.len()) {
            return Err(Error::argument("layers", "2 to 16 sizes", layers.len()));
        }
        if let Some(size) = layers.iter().find(|size| !(1..=16_384).contains(*size)) {
            return Err(Error::argument("layers", "sizes of 1 to 16384", size));
        }
        self.activation.check("activation")?;
        self.output.check("output")?;
        if let Some(clip) = self.observation_clip
            && !(clip > 0.0 && clip <= 1e6)
        {
            return Err(Error::argument("observation_clip", "a number in (0, 1e6]", clip));
        }
        if let Some([low, high]) = self.action_clip
            && !(low < high && low >= -LARGEST_ACTION && high <= LARGEST_ACTION)
        {
            let expected = format!("low < high within +-{LARGEST_ACTION:e}");
            return Err(Error::argument("action_clip", expected, format!("[{low}, {high}]")));
        }
        Ok(())
    }

    fn inputs(&self) -> usize {
        self.layers[0]
    }

    fn outputs(&self) -> usize {
        self.layers[self.layers.len() - 1]
    }

    /// Name and shape of every tensor.
    pub(super) fn expected_tensors(&self) -> Vec<Expected> {
        let mut expected = vec![
            Expected::floats("observation.mean", &[self.inputs()]),
            Expected::floats("observation.sd", &[self.inputs()]),
        ];
        for (index, pair) in self.layers.windows(2).enumerate() {
            let name = |what| format!("policy.{}.{what}", 2 * index);
            expected.push(Expected::floats(name("weight"), &[pair[1], pair[0]]));
            expected.push(Expected::floats(name("bias"), &[pair[1]]));
        }
        if self.sampled {
            expected.push(Expected::floats("log_sd", &[self.outputs()]));
        }
        expected
    }
}

/// A checked network, as files hold it.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub config: NetworkConfig,
    pub provenance: serde_json::Value,
    pub tensors: Tensors,
    /// SHA-256 of its file.
    pub digest: String,
}

impl Network {
    pub fn new(
        config: NetworkConfig,
        provenance: serde_json::Value,
        tensors: Tensors,
    ) -> Result<Self> {
        config.check()?;
        check_tensors(&tensors, &config.expected_tensors())?;
        if let Some(sd) = tensors["observation.sd"].values().iter().find(|sd| **sd < 1e-8) {
            return Err(Error::argument("tensor observation.sd", "numbers above 1e-8", sd));
        }
        let log_sd = tensors.get("log_sd").map_or(&[][..], |tensor| tensor.values());
        if let Some(value) = log_sd.iter().find(|value| value.abs() > 20.0) {
            return Err(Error::argument("tensor log_sd", "numbers within +-20", value));
        }
        let network = Self { config, provenance, tensors, digest: String::new() };
        nn::check_range(&network.layers(), network.largest_input(), "policy")?;
        let digest = tensor_file::digest(&KIND, &network.metadata(), &network.tensors);
        Ok(Self { digest, ..network })
    }

    pub fn read(bytes: &[u8], origin: &str) -> Result<Self> {
        let contents = tensor_file::read(&KIND, bytes, origin)?;
        let config = contents.parse("config", origin)?;
        let provenance = contents.parse("provenance", origin)?;
        let network = Self::new(config, provenance, contents.tensors)
            .map_err(|error| Error::format(origin, error.to_string()))?;
        // Other JSON may say the same (spaces, order of keys): the file's own digest counts.
        Ok(Self { digest: contents.digest, ..network })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        tensor_file::write(&KIND, &self.metadata(), &self.tensors)
    }

    fn metadata(&self) -> [(&'static str, String); 2] {
        [("config", json(&self.config)), ("provenance", json(&self.provenance))]
    }

    fn layers(&self) -> Vec<Weights<'_>> {
        let layer = |(index, pair): (usize, &[usize])| Weights {
            weight: self.tensors[&format!("policy.{}.weight", 2 * index)].values(),
            bias: self.tensors[&format!("policy.{}.bias", 2 * index)].values(),
            inputs: pair[0],
        };
        self.config.layers.windows(2).enumerate().map(layer).collect()
    }

    /// The largest magnitude of a normalised observation.
    fn largest_input(&self) -> f64 {
        let (mean, sd) = self.normalisation();
        let largest = mean
            .iter()
            .zip(sd)
            .map(|(mean, sd)| (LARGEST_OBSERVATION + f64::from(mean.abs())) / f64::from(*sd))
            .fold(0.0, f64::max);
        self.config.observation_clip.map_or(largest, |clip| largest.min(f64::from(clip)))
    }

    fn normalisation(&self) -> (&[f32], &[f32]) {
        (self.tensors["observation.mean"].values(), self.tensors["observation.sd"].values())
    }

    /// Packs the network for a place.
    pub fn bind(&self, place: Place<'_>) -> Result<BoundNetwork> {
        let (schema, config) = (place.schema, &self.config);
        let want = (place.observation_width, schema.action);
        if (config.inputs(), config.outputs()) != want {
            let expected =
                format!("{} observation columns and {} action dimensions", want.0, want.1);
            let got = format!("layers {:?}", config.layers);
            return Err(Error::argument("policy network", expected, got));
        }
        let digest = schema_digest(schema);
        if config.schema_digest != digest {
            let expected = format!("schema {digest} of {:?}", place.name);
            return Err(Error::argument("policy network", expected, &config.schema_digest));
        }
        let sizes: Vec<usize> = schema.customer.iter().map(|field| field.size).collect();
        let width = schema.customer_width();
        let mut layers = self.layers();
        let table = self.normalised_rows(&layers[0], &sizes);
        let first = Weights { weight: &table, bias: layers[0].bias, inputs: width };
        let table = OneHotTable::new(&first, &sizes);
        let hidden = config.activation.activation();
        let rest = Mlp::pack(&layers, width, hidden, config.output.activation());
        layers.clear();
        let (mean, sd) = self.normalisation();
        Ok(BoundNetwork {
            table,
            rest,
            mean: mean[width..].to_vec(),
            sd: sd[width..].to_vec(),
            observation_clip: config.observation_clip.unwrap_or(f32::MAX),
            action_clip: config.action_clip,
            outputs: config.outputs(),
            noise: self.tensors.get("log_sd").map(|log_sd| Noise::new(log_sd.values().to_vec())),
        })
    }

    /// First-layer weights under which a one-hot field adds what all its normalised columns add:
    /// category c of a field gets `sum over columns j of weight[j] * normalise(j == c)`. In f64,
    /// so that a column with a tiny standard deviation loses nothing.
    fn normalised_rows(&self, layer: &Weights<'_>, sizes: &[usize]) -> Vec<f32> {
        let (mean, sd) = self.normalisation();
        let clip = self.config.observation_clip.map_or(f64::MAX, f64::from);
        let normalise = |column: usize, value: f64| {
            ((value - f64::from(mean[column])) / f64::from(sd[column])).clamp(-clip, clip)
        };
        let width: usize = sizes.iter().sum();
        let mut rows = Vec::with_capacity(layer.bias.len() * width);
        for weights in layer.weight.chunks(layer.inputs) {
            let mut first = 0;
            for size in sizes {
                let columns = first..first + size;
                let off = |j: usize| f64::from(weights[j]) * normalise(j, 0.0);
                let all_off: f64 = columns.clone().map(off).sum();
                rows.extend(columns.map(|c| {
                    (all_off - off(c) + f64::from(weights[c]) * normalise(c, 1.0)) as f32
                }));
                first += size;
            }
        }
        rows
    }
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    scratch: Scratch,
    sums: Vec<f32>,
    tails: Vec<f32>,
}

/// A network packed for one simulator.
#[derive(Debug)]
pub(super) struct BoundNetwork {
    table: OneHotTable,
    /// All layers, the first one from the columns after the customer on.
    rest: Mlp,
    /// Of the columns after the customer.
    mean: Vec<f32>,
    sd: Vec<f32>,
    observation_clip: f32,
    action_clip: Option<[f32; 2]>,
    outputs: usize,
    noise: Option<Noise>,
}

impl BoundNetwork {
    /// See [`super::Actor::act`].
    pub fn act(
        &self,
        kernels: Kernels,
        buffers: &mut super::Buffers,
        sessions: &impl Seen,
        lanes: &[usize],
        actions: &mut [f32],
        densities: &mut [f32],
    ) {
        let Buffers { scratch, sums, tails } = &mut buffers.network;
        scratch.reserve(self.rest.widest());
        let tail_width = self.mean.len();
        tails.resize(TILE * tail_width, 0.0);
        let (width, stride) = (self.table.width(), self.rest.output_stride());
        sums.resize(TILE * width, 0.0);
        for (tile, actions) in lanes.chunks(TILE).zip(actions.chunks_mut(TILE * self.outputs)) {
            let to = sums.chunks_mut(width).zip(tails.chunks_mut(tail_width));
            for (lane, (sum, tail)) in tile.iter().zip(to) {
                self.table.sum(kernels, sessions.customer(*lane), sum);
                sessions.tail(*lane, tail);
                for (value, (mean, sd)) in tail.iter_mut().zip(self.mean.iter().zip(&self.sd)) {
                    let clip = self.observation_clip;
                    *value = ((*value - mean) / sd).clamp(-clip, clip);
                }
            }
            let mut starts = [&[][..]; TILE];
            starts.iter_mut().zip(sums.chunks(width)).for_each(|(start, sum)| *start = sum);
            let rows =
                Rows { count: tile.len(), x: tails, stride: tail_width, sums: Some(&starts) };
            let outputs = self.rest.run(kernels, rows, scratch);
            let rows = actions.chunks_mut(self.outputs).zip(outputs.chunks(stride));
            rows.for_each(|(action, output)| action.copy_from_slice(&output[..self.outputs]));
        }
        match &self.noise {
            Some(noise) => noise.add(kernels, buffers, sessions, lanes, actions, densities),
            None => densities.fill(0.0),
        }
        if let Some([low, high]) = self.action_clip {
            actions.iter_mut().for_each(|value| *value = value.clamp(low, high));
        }
    }
}
