//! A simulator: the customer networks as one frozen value, and its file.
//!
//! # File
//! One safetensors file. Tensors are `<model>.<layer>.<weight|bias>`, f32, for the models
//! `generator`, `action` and `leave`, layers numbered 0, 2, 4, ... Metadata:
//!
//! | key | value |
//! |---|---|
//! | `format`, `format_version` | `virtualtb_fast.simulator`, `1` |
//! | `name` | what the simulator is called |
//! | `config` | JSON of [`Config`]: inputs, heads, leave, customer sampler, hidden sizes |
//! | `schema` | JSON of [`Schema`]: the customer's fields, the action |
//! | `provenance` | JSON of where it came from |
//! | `digest` | SHA-256 of the whole file with these 64 digits zeroed |
//!
//! A reader knows every tensor's name, type and shape from `config` and `schema` and refuses
//! what is missing, surplus, misshaped, not finite, too large or altered.

mod file;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::{Head, Kernels, TILE};
use crate::nn::{self, Activation, Mlp, OneHotTable, Scratch, Weights};

pub use file::{Tensor, Tensors};

/// Actions of a larger magnitude are refused: with them, sums could overflow.
pub const LARGEST_ACTION: f32 = 1e6;

/// One categorical field of a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Column name in logs.
    pub name: String,
    /// Number of categories, 2 to 256.
    pub size: usize,
}

/// What customers and actions look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The customer's fields, in the order of the one-hot columns.
    pub customer: Vec<Field>,
    /// Dimensions of the action.
    pub action: usize,
    /// Lowest and highest value of each dimension of the action.
    pub action_range: [f32; 2],
}

impl Schema {
    /// Columns of the one-hot customer.
    pub fn customer_width(&self) -> usize {
        self.customer.iter().map(|field| field.size).sum()
    }

    /// Columns of an observation: customer, last clicks, last second head, page.
    pub fn observation_width(&self) -> usize {
        self.customer_width() + 3
    }

    fn sizes(&self) -> Vec<usize> {
        self.customer.iter().map(|field| field.size).collect()
    }
}

/// How a session's customer is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum CustomerConfig {
    /// A network from uniform noise in [0, 1) to one softmax a field.
    Mlp {
        /// Dimensions of the noise.
        latent: usize,
        /// Sizes of the hidden layers.
        hidden: Vec<usize>,
    },
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LeaveConfig {
    /// A page limit drawn once, when the session starts, from the customer alone.
    Once {
        /// Limits are 0 to `classes - 1`; 0 also plays one page.
        classes: usize,
        /// Sizes of the hidden layers.
        hidden: Vec<usize>,
    },
}

/// How a page is answered: from customer, page and action, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseConfig {
    /// The page number is multiplied by this before it enters.
    pub page_scale: f32,
    /// Categories of the first head: 0 to `clicks - 1` clicks.
    pub clicks: usize,
    /// Categories of the second head (in VirtualTB-v0 probably purchases).
    pub second: usize,
    /// Sizes of the hidden layers.
    pub hidden: Vec<usize>,
}

/// The networks' shapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Sampler of customers.
    pub customers: CustomerConfig,
    /// Answers to pages.
    pub response: ResponseConfig,
    /// End of sessions.
    pub leave: LeaveConfig,
    /// Slope of the leaky ReLU between layers.
    pub slope: f32,
}

impl Config {
    fn generator_shape(&self, schema: &Schema) -> Vec<usize> {
        let CustomerConfig::Mlp { latent, hidden } = &self.customers;
        [&[*latent][..], hidden, &[schema.customer_width()]].concat()
    }

    fn action_shape(&self, schema: &Schema) -> Vec<usize> {
        let inputs = schema.customer_width() + 1 + schema.action;
        let outputs = self.response.clicks + self.response.second;
        [&[inputs][..], &self.response.hidden, &[outputs]].concat()
    }

    fn leave_shape(&self, schema: &Schema) -> Vec<usize> {
        let LeaveConfig::Once { classes, hidden } = &self.leave;
        [&[schema.customer_width()][..], hidden, &[*classes]].concat()
    }

    /// The layer sizes of every model.
    fn shapes(&self, schema: &Schema) -> [(&'static str, Vec<usize>); 3] {
        [
            ("generator", self.generator_shape(schema)),
            ("action", self.action_shape(schema)),
            ("leave", self.leave_shape(schema)),
        ]
    }

    /// Sizes that the rest of the crate relies on.
    fn check(&self, schema: &Schema) -> Result<()> {
        let categories = |what: &str, size: usize| match size {
            2..=256 => Ok(()),
            _ => Err(Error::argument(what, "2 to 256 categories", size)),
        };
        for field in &schema.customer {
            categories(&format!("customer field {:?}", field.name), field.size)?;
        }
        let LeaveConfig::Once { classes, .. } = &self.leave;
        categories("leave.classes", *classes)?;
        categories("response.clicks", self.response.clicks)?;
        categories("response.second", self.response.second)?;
        match schema.customer.len() {
            1..=256 => {}
            fields => return Err(Error::argument("schema.customer", "1 to 256 fields", fields)),
        }
        for (model, shape) in self.shapes(schema) {
            if shape.len() < 3 || shape.len() > 16 {
                let expected = "1 to 14 hidden layers";
                return Err(Error::argument(format!("{model}.hidden"), expected, shape.len() - 2));
            }
            if let Some(size) = shape.iter().find(|size| !(1..=16_384).contains(*size)) {
                return Err(Error::argument(model, "layers of 1 to 16384 units", size));
            }
        }
        let [low, high] = schema.action_range;
        if !(low < high && low >= -LARGEST_ACTION && high <= LARGEST_ACTION) {
            let expected = format!("low < high within +-{LARGEST_ACTION:e}");
            return Err(Error::argument(
                "schema.action_range",
                expected,
                format!("[{low}, {high}]"),
            ));
        }
        if !(0.0..1.0).contains(&self.slope) {
            return Err(Error::argument("slope", "a number in [0, 1)", self.slope));
        }
        if !(0.0..=1e6).contains(&self.response.page_scale.abs()) {
            let got = self.response.page_scale;
            return Err(Error::argument("response.page_scale", "a number within +-1e6", got));
        }
        Ok(())
    }
}

/// The customer networks, packed, with what is known of them. Cheap to share: see [`Arc`].
#[derive(Debug)]
pub struct Simulator {
    /// What it is called.
    pub name: String,
    /// Customers and actions.
    pub schema: Schema,
    /// Shapes of the networks.
    pub config: Config,
    /// Where it came from, JSON.
    pub provenance: serde_json::Value,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    tensors: Tensors,
    pub(crate) generator: Mlp,
    pub(crate) answer_table: OneHotTable,
    pub(crate) answer: Mlp,
    pub(crate) leave_table: OneHotTable,
    pub(crate) leave: Mlp,
    pub(crate) field_heads: Vec<Head>,
    pub(crate) answer_heads: Vec<Head>,
    pub(crate) leave_head: Vec<Head>,
}

impl Simulator {
    /// Checks and packs tensors; names and shapes must be those that `config` and `schema` imply.
    pub fn new(
        name: String,
        schema: Schema,
        config: Config,
        provenance: serde_json::Value,
        tensors: Tensors,
    ) -> Result<Arc<Self>> {
        let mut simulator = Self::build(name, schema, config, provenance, tensors)?;
        simulator.digest = file::digest(&simulator);
        Ok(Arc::new(simulator))
    }

    fn build(
        name: String,
        schema: Schema,
        config: Config,
        provenance: serde_json::Value,
        tensors: Tensors,
    ) -> Result<Self> {
        config.check(&schema)?;
        let expected = expected_tensors(&config, &schema);
        file::check_tensors(&tensors, &expected)?;
        let generator = layers(&tensors, "generator", &config.generator_shape(&schema));
        let action = layers(&tensors, "action", &config.action_shape(&schema));
        let leave = layers(&tensors, "leave", &config.leave_shape(&schema));
        nn::check_range(&generator, 1.0, "generator")?;
        nn::check_range(&action, f64::from(LARGEST_ACTION), "action")?;
        nn::check_range(&leave, 1.0, "leave")?;

        let hidden = Activation::LeakyRelu(config.slope);
        let sizes = schema.sizes();
        let width = schema.customer_width();
        let field_heads = heads(&sizes);
        let answer_heads = heads(&[config.response.clicks, config.response.second]);
        let LeaveConfig::Once { classes, .. } = &config.leave;
        let leave_head = heads(&[*classes]);
        Ok(Self {
            generator: Mlp::pack(&generator, 0, hidden, Activation::Identity),
            answer_table: OneHotTable::new(&action[0], &sizes),
            answer: Mlp::pack(&action, width, hidden, Activation::Identity),
            leave_table: OneHotTable::new(&leave[0], &sizes),
            leave: Mlp::pack(&leave[1..], 0, hidden, Activation::Identity),
            field_heads,
            answer_heads,
            leave_head,
            digest: String::new(),
            name,
            schema,
            config,
            provenance,
            tensors,
        })
    }

    /// Reads a file's bytes; `origin` names them in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Arc<Self>> {
        file::read(bytes, origin).map(Arc::new)
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Arc<Self>> {
        let bytes = file::read_capped(path)?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// The file's bytes: the same simulator always gives the same.
    pub fn to_bytes(&self) -> Vec<u8> {
        file::write(self)
    }

    /// Writes beside `path`, reads back, then renames.
    pub fn save(&self, path: &Path) -> Result<()> {
        file::save(self, path)
    }

    /// Outputs of one model (`generator`, `action`, `leave`) for rows of dense inputs, as files lay
    /// them out: for tests and for looking inside, not for the hot path.
    pub fn forward(&self, model: &str, x: &[f32]) -> Result<Vec<f32>> {
        let shapes = self.config.shapes(&self.schema);
        let Some((_, shape)) = shapes.into_iter().find(|(name, _)| *name == model) else {
            return Err(Error::argument("model", "generator, action or leave", model));
        };
        let (inputs, outputs) = (shape[0], shape[shape.len() - 1]);
        if x.is_empty() || !x.len().is_multiple_of(inputs) {
            return Err(Error::argument("x", format!("rows of {inputs} values"), x.len()));
        }
        let layers = layers(&self.tensors, model, &shape);
        let hidden = Activation::LeakyRelu(self.config.slope);
        let network = Mlp::pack(&layers, 0, hidden, Activation::Identity);
        let mut scratch = Scratch::default();
        scratch.reserve(network.widest());
        let kernels = Kernels::best()?;
        let mut out = Vec::with_capacity(x.len() / inputs * outputs);
        for tile in x.chunks(TILE * inputs) {
            let rows = tile.len() / inputs;
            let rows = network.forward(kernels, rows, tile, inputs, &mut scratch);
            let stride = network.output_stride();
            out.extend(rows.chunks(stride).take(tile.len() / inputs).flat_map(|r| &r[..outputs]));
        }
        Ok(out)
    }

    /// The tensors as files hold them.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}

/// Heads of these sizes, one after the other.
fn heads(sizes: &[usize]) -> Vec<Head> {
    let mut next = 0;
    let head = |size: &usize| {
        next += size;
        Head { first: next - size, size: *size }
    };
    sizes.iter().map(head).collect()
}

/// The layers of one model of this shape; the tensors have been checked.
fn layers<'a>(tensors: &'a Tensors, model: &str, shape: &[usize]) -> Vec<Weights<'a>> {
    let layer = |(index, inputs): (usize, &usize)| Weights {
        weight: &tensors[&format!("{model}.{}.weight", 2 * index)].data,
        bias: &tensors[&format!("{model}.{}.bias", 2 * index)].data,
        inputs: *inputs,
    };
    shape[..shape.len() - 1].iter().enumerate().map(layer).collect()
}

/// Name and shape of every tensor that a simulator of this shape has.
pub(crate) fn expected_tensors(config: &Config, schema: &Schema) -> Vec<(String, Vec<usize>)> {
    let mut expected = Vec::new();
    for (model, shape) in config.shapes(schema) {
        for (index, pair) in shape.windows(2).enumerate() {
            expected.push((format!("{model}.{}.weight", 2 * index), vec![pair[1], pair[0]]));
            expected.push((format!("{model}.{}.bias", 2 * index), vec![pair[1]]));
        }
    }
    expected
}
