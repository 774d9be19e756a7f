//! Who comes: samplers of customers.
//!
//! | kind | draws of one customer |
//! |---|---|
//! | `mlp` | z: the `latent` uniforms of a purpose; the network's softmax of field f is drawn with \
//! uniform f of another |
//! | `mixture` | uniform 0: the component; uniform 1 + f: field f, by itself |
//! | `rows` | uniforms 0 and 1 together: which row |
//! | `autoregressive` | uniform f: field f, from the network of the fields before it |
//!
//! All but the first kind draw from [`Purpose::Customer`]. Cumulative probabilities of a mixture
//! are rounded to f32 once, in the constructor; a draw only compares.

mod autoregressive;
mod mixture;

use std::ops::ControlFlow;
use std::sync::Arc;

use super::shapes::check_slope;
use super::{CustomerConfig, Field, Workspace, grow, heads, layers};
use crate::error::{Error, Result};
use crate::kernels::{Categorical, Head, Kernels, TILE};
use crate::nn::{self, Activation, Mlp};
use crate::parallel;
use crate::rng::{LANES, Origin, Purpose};
use crate::tensor_file::{Data, Tensors, check_tensors};

use autoregressive::Autoregressive;
use mixture::Mixture;

/// Customers that [`Customers::sample`] draws before it looks up.
const CHUNK: usize = 64 * TILE;

/// Whose customer is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The session's own customer: a new session starts.
    Session,
    /// VirtualTB-v0's quirk: when a session is done, another customer takes its place, with
    /// feedback wiped, but page number and totals as they were.
    Replacement,
}

/// A packed sampler of customers.
#[derive(Clone, Debug)]
pub struct Customers {
    /// One head a field, in the columns of a one-hot customer.
    heads: Vec<Head>,
    sampler: Sampler,
}

#[derive(Clone, Debug)]
enum Sampler {
    Mlp(Mlp),
    Mixture(Mixture),
    Rows(Arc<[u8]>),
    Autoregressive(Autoregressive),
}

impl Customers {
    /// Checks and packs tensors; names and shapes must be those that fields and `config` imply.
    pub fn new(
        fields: &[Field],
        config: &CustomerConfig,
        slope: f32,
        tensors: &Tensors,
    ) -> Result<Self> {
        config.check(fields)?;
        check_slope(slope)?;
        check_tensors(tensors, &config.tensors(fields))?;
        Self::pack(fields, config, slope, tensors)
    }

    /// The same for tensors of which names, shapes and types have been checked.
    pub(super) fn pack(
        fields: &[Field],
        config: &CustomerConfig,
        slope: f32,
        tensors: &Tensors,
    ) -> Result<Self> {
        let sampler = match config {
            CustomerConfig::Mlp { .. } => {
                let (name, shape) = &config.networks(fields)[0];
                let generator = layers(tensors, name, shape);
                nn::check_range(&generator, 1.0, name)?;
                let hidden = Activation::LeakyRelu(slope);
                Sampler::Mlp(Mlp::pack(&generator, 0, hidden, Activation::Identity))
            }
            CustomerConfig::Mixture { .. } => Sampler::Mixture(Mixture::new(fields, tensors)?),
            CustomerConfig::Rows { .. } => Sampler::Rows(checked_rows(fields, tensors)?),
            CustomerConfig::Autoregressive { .. } => {
                let networks = config.networks(fields);
                Sampler::Autoregressive(Autoregressive::new(fields, &networks, slope, tensors)?)
            }
        };
        let sizes: Vec<_> = fields.iter().map(|field| field.size).collect();
        Ok(Self { heads: heads(&sizes), sampler })
    }

    /// Fields of a customer.
    pub fn fields(&self) -> usize {
        self.heads.len()
    }

    /// One head a field: where its columns are in a one-hot customer.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Makes room for [`Self::draw`].
    pub(crate) fn reserve(&self, workspace: &mut Workspace) {
        let draws = self.fields() + 1;
        grow(&mut workspace.uniforms, TILE * draws);
        grow(&mut workspace.drawn, TILE * draws);
        match &self.sampler {
            Sampler::Mlp(generator) => {
                workspace.scratch.reserve(generator.widest());
                grow(&mut workspace.x, TILE * generator.inputs());
            }
            Sampler::Autoregressive(networks) => networks.reserve(workspace),
            Sampler::Mixture(_) | Sampler::Rows(_) => {}
        }
    }

    /// Draws at most [`TILE`] customers into `workspace.drawn`, a code a field; there has to be
    /// room. The purposes of the origins do not matter.
    pub(crate) fn draw(
        &self,
        kernels: Kernels,
        workspace: &mut Workspace,
        origins: &[Origin],
        arrival: Arrival,
    ) {
        match &self.sampler {
            Sampler::Mlp(generator) => {
                self.generate(generator, kernels, workspace, origins, arrival);
            }
            Sampler::Mixture(mixture) => {
                let draws = 1 + self.fields();
                uniforms(kernels, workspace, origins, draws);
                let drawn = workspace.drawn.chunks_mut(self.fields());
                for (uniforms, out) in
                    workspace.uniforms.chunks(draws).zip(drawn).take(origins.len())
                {
                    mixture.draw(&self.heads, uniforms, out);
                }
            }
            Sampler::Rows(rows) => self.pick(rows, kernels, workspace, origins),
            Sampler::Autoregressive(networks) => {
                uniforms(kernels, workspace, origins, self.fields());
                networks.draw(kernels, workspace, &self.heads, origins.len());
            }
        }
    }

    /// The published form: a network from noise to one softmax a field.
    fn generate(
        &self,
        generator: &Mlp,
        kernels: Kernels,
        workspace: &mut Workspace,
        origins: &[Origin],
        arrival: Arrival,
    ) {
        let (latent, fields) = (generator.inputs(), self.fields());
        let (for_latent, for_fields) = match arrival {
            Arrival::Session => (Purpose::Latent, Purpose::Fields),
            Arrival::Replacement => (Purpose::NextLatent, Purpose::NextFields),
        };
        let Workspace { scratch, x, uniforms, drawn } = workspace;
        for (row, origin) in origins.iter().enumerate() {
            let of = |purpose| Origin { purpose, ..*origin };
            kernels.uniforms(of(for_latent), &mut x[row * latent..][..latent]);
            kernels.uniforms(of(for_fields), &mut uniforms[row * fields..][..fields]);
        }
        let (rows, stride) = (origins.len(), generator.output_stride());
        let logits = generator.forward(kernels, rows, x, latent, scratch);
        let heads = &self.heads;
        kernels.categorical(Categorical { rows, logits, stride, heads, uniforms, out: drawn });
    }

    /// A row of a table for each customer.
    fn pick(&self, rows: &[u8], kernels: Kernels, workspace: &mut Workspace, origins: &[Origin]) {
        let fields = self.fields();
        let count = (rows.len() / fields) as u64;
        let mut words = [[0.0; LANES]; 4];
        let drawn = workspace.drawn.chunks_mut(LANES * fields);
        for (origins, out) in origins.chunks(LANES).zip(drawn) {
            let mut group = [origins[0]; LANES];
            for (to, origin) in group.iter_mut().zip(origins) {
                *to = Origin { purpose: Purpose::Customer, ..*origin };
            }
            kernels.first_uniforms(&group[..origins.len()], &mut words);
            for (lane, out) in out.chunks_mut(fields).take(origins.len()).enumerate() {
                let row = pick_row([words[0][lane], words[1][lane]], count) as usize;
                out.copy_from_slice(&rows[row * fields..][..fields]);
            }
        }
    }

    /// The customers of sessions `first`, `first + 1`, ... of a seed's stream: `count` rows of a
    /// code a field.
    ///
    /// # Errors
    /// More customers than memory holds or than the stream has; `interrupt`'s own.
    pub fn sample(
        &self,
        seed: u64,
        first: u64,
        count: u64,
        threads: Option<usize>,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u8>> {
        if first.checked_add(count).is_none() {
            let expected = format!("at most {} after session {first}", u64::MAX - first);
            return Err(Error::argument("count", expected, count));
        }
        let mut out = Vec::new();
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(self.fields()));
        if bytes.is_none_or(|bytes| out.try_reserve_exact(bytes).is_err()) {
            return Err(Error::argument("count", "as many customers as memory holds", count));
        }
        let (threads, kernels) = (parallel::resolve(threads)?, Kernels::best()?);
        let work = |chunk: u64, _: &dyn Fn() -> bool| {
            let from = chunk * CHUNK as u64;
            let rows = (count - from).min(CHUNK as u64) as usize;
            self.sample_chunk(kernels, seed, first + from, rows)
        };
        let take = |codes: Vec<u8>| {
            out.extend(codes);
            Ok(ControlFlow::Continue(()))
        };
        parallel::ordered(threads, count.div_ceil(CHUNK as u64), work, take, interrupt)?;
        Ok(out)
    }

    fn sample_chunk(&self, kernels: Kernels, seed: u64, first: u64, rows: usize) -> Vec<u8> {
        let mut workspace = Workspace::default();
        self.reserve(&mut workspace);
        let mut out = Vec::with_capacity(rows * self.fields());
        let mut left = first..first + rows as u64;
        while !left.is_empty() {
            let tile = left.by_ref().take(TILE);
            let origin = |session| Origin { seed, session, page: 0, purpose: Purpose::Customer };
            let origins: Vec<_> = tile.map(origin).collect();
            self.draw(kernels, &mut workspace, &origins, Arrival::Session);
            out.extend(&workspace.drawn[..origins.len() * self.fields()]);
        }
        out
    }
}

/// The first `draws` uniforms of each origin, one row each.
fn uniforms(kernels: Kernels, workspace: &mut Workspace, origins: &[Origin], draws: usize) {
    for (origin, out) in origins.iter().zip(workspace.uniforms.chunks_mut(draws)) {
        kernels.uniforms(Origin { purpose: Purpose::Customer, ..*origin }, out);
    }
}

/// A number below `count` (at most 2^24, so that no row is 2^-24 likelier than another) of two
/// uniforms of 24 bits.
fn pick_row([high, low]: [f32; 2], count: u64) -> u64 {
    let bits = |uniform: f32| (uniform * 16_777_216.0) as u64;
    let word = (bits(high) << 24) | bits(low);
    ((u128::from(word) * u128::from(count)) >> 48) as u64
}

/// The table of rows, every code within its field.
fn checked_rows(fields: &[Field], tensors: &Tensors) -> Result<Arc<[u8]>> {
    let name = "customers.rows";
    let Data::U8(rows) = &tensors[name].data else { unreachable!("checked") };
    for (row, codes) in rows.chunks(fields.len()).enumerate() {
        let beyond = codes.iter().zip(fields).find(|(code, f)| usize::from(**code) >= f.size);
        if let Some((code, field)) = beyond {
            let what = format!("tensor {name}, row {row}, field {:?}", field.name);
            let expected = format!("a code below {}", field.size);
            return Err(Error::argument(what, expected, code));
        }
    }
    Ok(Arc::clone(rows))
}
