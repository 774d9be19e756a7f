//! Customers field by field: each from a network of the fields before it.

use crate::error::Result;
use crate::kernels::{Categorical, Head, Kernels, TILE};
use crate::nn::{self, Activation, Mlp, OneHotTable};
use crate::simulator::{Field, Workspace, grow, layers};
use crate::tensor_file::Tensors;

/// One network a field; the first field, which nothing precedes, has logits alone.
#[derive(Clone, Debug)]
pub struct Autoregressive {
    first: Vec<f32>,
    rest: Vec<Conditional>,
    slope: f32,
}

/// The network of one field: a first layer over the one-hots of the fields before it, the rest.
#[derive(Clone, Debug)]
struct Conditional {
    table: OneHotTable,
    rest: Mlp,
}

impl Autoregressive {
    /// From tensors of the right shapes; `networks` are those of the second field and on.
    pub fn new(
        fields: &[Field],
        networks: &[(String, Vec<usize>)],
        slope: f32,
        tensors: &Tensors,
    ) -> Result<Self> {
        let sizes: Vec<_> = fields.iter().map(|field| field.size).collect();
        let conditional = |(index, (name, shape)): (usize, &(String, Vec<usize>))| {
            let layers = layers(tensors, name, shape);
            nn::check_range(&layers, 1.0, name)?;
            Ok(Conditional {
                table: OneHotTable::new(&layers[0], &sizes[..=index]),
                rest: Mlp::pack(
                    &layers[1..],
                    0,
                    Activation::LeakyRelu(slope),
                    Activation::Identity,
                ),
            })
        };
        Ok(Self {
            first: tensors["customers.0.bias"].values().to_vec(),
            rest: networks.iter().enumerate().map(conditional).collect::<Result<_>>()?,
            slope,
        })
    }

    /// Makes room for [`Self::draw`].
    pub fn reserve(&self, workspace: &mut Workspace) {
        let widths = self.rest.iter().map(|network| network.table.width());
        let width = widths.max().unwrap_or(0).max(self.first.len());
        grow(&mut workspace.x, TILE * width);
        let widest = self.rest.iter().map(|network| network.rest.widest());
        workspace.scratch.reserve(widest.max().unwrap_or(0));
    }

    /// Draws `count` customers into `workspace.drawn`, with a uniform a field out of
    /// `workspace.uniforms`.
    pub fn draw(&self, kernels: Kernels, workspace: &mut Workspace, heads: &[Head], count: usize) {
        let fields = heads.len();
        let Workspace { scratch, x, uniforms, drawn } = workspace;
        for (field, head) in heads.iter().enumerate() {
            let (logits, stride) = match field.checked_sub(1) {
                None => {
                    let rows = x.chunks_mut(head.size).take(count);
                    rows.for_each(|row| row.copy_from_slice(&self.first));
                    (&x[..], head.size)
                }
                Some(before) => {
                    let Conditional { table, rest } = &self.rest[before];
                    let width = table.width();
                    for (codes, sums) in drawn.chunks(fields).zip(x.chunks_mut(width)).take(count) {
                        table.sum_activated(kernels, &codes[..field], self.slope, sums);
                    }
                    let logits = rest.forward(kernels, count, x, width, scratch);
                    (&*logits, rest.output_stride())
                }
            };
            let mut column = [0.0; TILE];
            for (to, row) in column.iter_mut().zip(uniforms.chunks(fields)).take(count) {
                *to = row[field];
            }
            let mut codes = [0; TILE];
            kernels.categorical(Categorical {
                rows: count,
                logits,
                stride,
                heads: &[Head { first: 0, size: head.size }],
                uniforms: &column,
                out: &mut codes,
            });
            for (row, code) in drawn.chunks_mut(fields).zip(codes).take(count) {
                row[field] = code;
            }
        }
    }
}
