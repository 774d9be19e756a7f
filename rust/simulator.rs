//! A simulator: who comes, how a page is answered and when a session ends, as one frozen value,
//! and its file.
//!
//! # File
//! One safetensors file. Networks are tensors `<model>.<layer>.<weight|bias>`, layers numbered 0,
//! 2, 4, ...; `simulator/shapes.rs` has the table of all tensors. Metadata:
//!
//! | key | value |
//! |---|---|
//! | `format`, `format_version` | `virtualtb_fast.simulator`, `1` |
//! | `name` | what the simulator is called |
//! | `config` | JSON of [`Config`]: customer sampler, response and its heads, leave, sizes |
//! | `schema` | JSON of [`Schema`]: the customer's fields, the action |
//! | `provenance` | JSON of where it came from |
//! | `digest` | SHA-256 of the whole file with these 64 digits zeroed |
//!
//! A reader knows every tensor's name, type and shape from `config` and `schema` and refuses
//! what is missing, surplus, misshaped, not finite, too large or altered.

mod config;
mod customers;
mod file;
mod reduced;
mod response;
mod schema;
mod shapes;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernels::{Head, Kernels, TILE};
use crate::nn::{self, Activation, Mlp, OneHotTable, Scratch, Weights};

pub use config::{Config, CustomerConfig, Heads, LeaveConfig, ResponseConfig, ResponseKind};
pub use customers::{Arrival, Customers};
pub use file::{Data, Tensor, Tensors};
pub use response::{Questions, Response, Shown, Told};
pub use schema::{Field, Schema};
pub use shapes::LARGEST_ACTION;

/// Buffers of one thread, sized once for a simulator.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) scratch: Scratch,
    pub(crate) x: Vec<f32>,
    pub(crate) uniforms: Vec<f32>,
    pub(crate) drawn: Vec<u8>,
}

/// Makes a buffer at least so long.
fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}

/// What a simulator's parts are packed from.
struct Parts<'a> {
    schema: &'a Schema,
    config: &'a Config,
    tensors: &'a Tensors,
}

/// How sessions end.
#[derive(Debug)]
pub enum Leave {
    /// A page limit is drawn from the customer when the session starts.
    Once(Limits),
    /// Leaving is among what is drawn for a page; after so many pages there are no more.
    Hazard(u16),
}

/// The network of page limits: a first layer over the customer, the rest, and its one head.
#[derive(Debug)]
pub struct Limits {
    pub(crate) table: OneHotTable,
    pub(crate) rest: Mlp,
    pub(crate) head: [Head; 1],
}

impl Leave {
    fn new(parts: &Parts<'_>) -> Result<Self> {
        let Parts { schema, config, tensors } = parts;
        match &config.leave {
            LeaveConfig::Hazard { longest } => Ok(Self::Hazard(*longest as u16)),
            LeaveConfig::Once { classes, hidden } => {
                let shape = [&[schema.customer_width()][..], hidden, &[*classes]].concat();
                let leave = layers(tensors, "leave", &shape);
                nn::check_range(&leave, 1.0, "leave")?;
                let hidden = Activation::LeakyRelu(config.slope);
                Ok(Self::Once(Limits {
                    table: OneHotTable::new(&leave[0], &schema.sizes()),
                    rest: Mlp::pack(&leave[1..], 0, hidden, Activation::Identity),
                    head: [Head { first: 0, size: *classes }],
                }))
            }
        }
    }

    /// The largest page limit that a session can have.
    pub fn most_pages(&self) -> usize {
        match self {
            Self::Once(limits) => limits.head[0].size - 1,
            Self::Hazard(longest) => usize::from(*longest),
        }
    }

    fn reserve(&self, workspace: &mut Workspace) {
        if let Self::Once(limits) = self {
            workspace.scratch.reserve(limits.rest.widest());
            grow(&mut workspace.x, TILE * limits.table.width());
            grow(&mut workspace.uniforms, TILE);
            grow(&mut workspace.drawn, TILE);
        }
    }
}

/// Customers, packed, with what is known of them. Cheap to share: see [`Arc`].
#[derive(Debug)]
pub struct Simulator {
    /// What it is called.
    pub name: String,
    /// Customers and actions.
    pub schema: Schema,
    /// Kinds and sizes of its parts.
    pub config: Config,
    /// Where it came from, JSON.
    pub provenance: serde_json::Value,
    /// SHA-256 of its file, in hexadecimal; of a reduced one a number of its own.
    pub digest: String,
    /// Whether layers have weights of eight bits: see [`Simulator::reduced`].
    pub is_reduced: bool,
    /// Who comes.
    pub customers: Customers,
    /// How a page is answered.
    pub response: Response,
    /// How a session ends.
    pub leave: Leave,
    tensors: Tensors,
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
        file::check_tensors(&tensors, &config.tensors(&schema))?;
        let parts = Parts { schema: &schema, config: &config, tensors: &tensors };
        Ok(Self {
            customers: Customers::pack(
                &schema.customer,
                &config.customers,
                config.slope,
                &tensors,
            )?,
            response: Response::new(&parts)?,
            leave: Leave::new(&parts)?,
            digest: String::new(),
            is_reduced: false,
            name,
            schema,
            config,
            provenance,
            tensors,
        })
    }

    /// Makes room for everything that a session computes.
    pub(crate) fn reserve(&self, workspace: &mut Workspace) {
        self.customers.reserve(workspace);
        self.response.reserve(workspace);
        self.leave.reserve(workspace);
    }

    /// Reads a file's bytes; `origin` names them in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Arc<Self>> {
        file::read(bytes, origin).map(Arc::new)
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Arc<Self>> {
        file::load(path).map(Arc::new)
    }

    /// The file's bytes: the same simulator always gives the same.
    pub fn to_bytes(&self) -> Vec<u8> {
        file::write(self)
    }

    /// Writes beside `path`, reads back, then renames.
    pub fn save(&self, path: &Path) -> Result<()> {
        file::save(self, path)
    }

    /// Outputs of one network (`action` and what else there is) for rows of dense inputs, as files
    /// lay them out: for tests and for looking inside, not for the hot path.
    pub fn forward(
        &self,
        model: &str,
        x: &[f32],
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<f32>> {
        let networks = self.config.networks(&self.schema);
        let Some((_, shape)) = networks.iter().find(|(name, _)| *name == model) else {
            let names: Vec<_> = networks.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::argument("model", format!("one of {}", names.join(", ")), model));
        };
        let (inputs, outputs) = (shape[0], shape[shape.len() - 1]);
        if x.is_empty() || !x.len().is_multiple_of(inputs) {
            return Err(Error::argument("x", format!("rows of {inputs} values"), x.len()));
        }
        let layers = layers(&self.tensors, model, shape);
        let hidden = Activation::LeakyRelu(self.config.slope);
        let network = Mlp::pack(&layers, 0, hidden, Activation::Identity);
        let mut scratch = Scratch::default();
        scratch.reserve(network.widest());
        let kernels = Kernels::best()?;
        let mut out = Vec::with_capacity(x.len() / inputs * outputs);
        for tile in x.chunks(TILE * inputs) {
            interrupt()?;
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
        weight: tensors[&format!("{model}.{}.weight", 2 * index)].values(),
        bias: tensors[&format!("{model}.{}.bias", 2 * index)].values(),
        inputs: *inputs,
    };
    shape[..shape.len() - 1].iter().enumerate().map(layer).collect()
}
