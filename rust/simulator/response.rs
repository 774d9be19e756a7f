//! How a page is answered: from the customer, the page's number and the action to drawn heads.
//!
//! ```text
//! mlp:     logits = network(customer, page * scale, action)
//! linear:  logits = network(customer, page * scale),  logit of buying += (W x + v) . action
//! heads:   clicks and second [and leave]   or   turn, buy, leave
//! ```
//!
//! What a customer adds does not change from page to page, so it is summed once and *kept*: the
//! first layer's sums and, of a linear response, the effects W x + v.

use std::ops::{ControlFlow, Range};

use super::{
    Heads, LARGEST_ACTION, Parts, ResponseKind, Simulator, Workspace, grow, heads, layers,
};
use crate::error::{Error, Result};
use crate::kernels::heads::{Products, Softmax};
use crate::kernels::{Head, Kernels, TILE};
use crate::logs::BUY;
use crate::nn::{self, Activation, Mlp, OneHotTable, Rows, Scratch, Weights};
use crate::parallel;

/// Pages that [`Simulator::respond`] answers before it looks up.
const CHUNK: usize = 32 * TILE;

/// A page that a customer is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What was kept of the customer.
    pub kept: &'a [f32],
    /// The page's number, from 0.
    pub page: u32,
    /// The action.
    pub action: &'a [f32],
}

/// The packed answering network.
#[derive(Clone, Debug)]
pub struct Response {
    heads: Vec<Head>,
    /// Whether a purchase is one of the answers; else clicks are.
    outcome: bool,
    page_scale: f32,
    pub(super) action: usize,
    table: OneHotTable,
    pub(super) network: Mlp,
    /// Effects of the action's dimensions on buying, by customer.
    effects: Option<OneHotTable>,
}

impl Response {
    /// Packs tensors that have been checked.
    pub(super) fn new(parts: &Parts<'_>) -> Result<Self> {
        let Parts { schema, config, tensors } = parts;
        let network = layers(tensors, "action", &config.action_shape(schema));
        let width = schema.customer_width();
        let effects = (config.response.kind == ResponseKind::Linear).then(|| Weights {
            weight: tensors["effect.weight"].values(),
            bias: tensors["effect.bias"].values(),
            inputs: width,
        });
        nn::check_range(&network, f64::from(LARGEST_ACTION), "action")?;
        if let Some(effects) = &effects {
            // The dot product with an action is one more layer, of one output.
            let actions = vec![LARGEST_ACTION; schema.action];
            let products = Weights { weight: &actions, bias: &[0.0], inputs: schema.action };
            nn::check_range(&[*effects, products], 1.0, "effect")?;
        }
        let sizes = schema.sizes();
        let hidden = Activation::LeakyRelu(config.slope);
        Ok(Self {
            heads: heads(&config.heads()),
            outcome: matches!(config.response.heads, Heads::Outcome { .. }),
            page_scale: config.response.page_scale,
            action: schema.action,
            table: OneHotTable::new(&network[0], &sizes),
            network: Mlp::pack(&network, width, hidden, Activation::Identity),
            effects: effects.map(|effects| OneHotTable::new(&effects, &sizes)),
        })
    }

    /// The heads of an answer; one uniform draws each.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Categories of all heads together.
    pub fn width(&self) -> usize {
        self.heads.iter().map(|head| head.size).sum()
    }

    /// Numbers that are kept of a customer.
    pub fn kept_width(&self) -> usize {
        self.table.width() + self.effects.as_ref().map_or(0, OneHotTable::width)
    }

    /// What is kept of a customer.
    pub fn keep(&self, kernels: Kernels, codes: &[u8], out: &mut [f32]) {
        let (sums, rest) = out.split_at_mut(self.table.width());
        self.table.sum(kernels, codes, sums);
        if let Some(effects) = &self.effects {
            effects.sum(kernels, codes, rest);
        }
    }

    /// Values of a row of [`Self::logits`]'s inputs: page and action, and for a linear response
    /// the effects between them.
    fn stride(&self) -> usize {
        1 + self.action * if self.effects.is_some() { 2 } else { 1 }
    }

    /// Inputs of a layer; of the first, those that are not the customer.
    pub fn inputs_of(&self, layer: usize) -> usize {
        self.network.inputs_of(layer)
    }

    /// Row stride of the logits.
    pub fn logit_stride(&self) -> usize {
        self.network.output_stride()
    }

    /// Makes room for an answer.
    pub(crate) fn reserve(&self, workspace: &mut Workspace) {
        workspace.scratch.reserve(self.network.widest());
        grow(&mut workspace.x, TILE * self.stride());
        grow(&mut workspace.uniforms, TILE * self.heads.len());
        grow(&mut workspace.drawn, TILE * self.heads.len());
    }

    /// Writes what the network is to see of at most [`TILE`] pages.
    pub(super) fn rows<'x, 'a: 'x>(
        &self,
        rows: usize,
        shown: impl Fn(usize) -> Shown<'a>,
        x: &'x mut [f32],
        sums: &'x mut [&'a [f32]; TILE],
    ) -> Rows<'x> {
        let (width, stride) = (self.table.width(), self.stride());
        for row in 0..rows {
            let Shown { kept, page, action } = shown(row);
            let (kept, effects) = kept.split_at(width);
            sums[row] = kept;
            let x = &mut x[row * stride..][..stride];
            x[0] = page as f32 * self.page_scale;
            let (between, last) = x[1..].split_at_mut(stride - 1 - self.action);
            between.copy_from_slice(&effects[..between.len()]);
            last.copy_from_slice(action);
        }
        Rows { count: rows, x, stride, sums: Some(sums) }
    }

    /// Logits of at most [`TILE`] pages, one row every [`Self::logit_stride`]; `x` and `scratch`
    /// are a reserved [`Workspace`]'s.
    pub(crate) fn logits<'s, 'a>(
        &self,
        kernels: Kernels,
        rows: usize,
        shown: impl Fn(usize) -> Shown<'a>,
        x: &mut [f32],
        scratch: &'s mut Scratch,
    ) -> &'s mut [f32] {
        let mut sums = [&[][..]; TILE];
        let given = self.rows(rows, shown, x, &mut sums);
        let (x, stride) = (given.x, given.stride);
        let logits = self.network.run(kernels, given, scratch);
        if self.effects.is_some() {
            kernels.products(Products {
                rows,
                width: self.action,
                left: &x[1..],
                right: &x[1 + self.action..],
                stride,
                out: &mut logits[usize::from(BUY)..],
                out_stride: self.logit_stride(),
            });
        }
        logits
    }

    /// Turns logits into probabilities.
    pub(crate) fn probabilities(&self, kernels: Kernels, rows: usize, logits: &mut [f32]) {
        let stride = self.logit_stride();
        kernels.softmax(Softmax { rows, logits, stride, heads: &self.heads });
    }

    /// What a page with these probabilities is worth before its answer is drawn: the probability
    /// of a purchase, or the expected clicks.
    pub(crate) fn expected(&self, probabilities: &[f32]) -> f64 {
        if self.outcome {
            return f64::from(probabilities[usize::from(BUY)]);
        }
        let clicks = probabilities[..self.heads[0].size].iter().enumerate();
        clicks.fold(0.0, |sum, (clicks, chance)| sum + clicks as f64 * f64::from(*chance))
    }
}

/// Pages of customers for [`Simulator::respond`], one row each.
#[derive(Clone, Copy, Debug)]
pub struct Questions<'a> {
    /// Field codes.
    pub codes: &'a [u8],
    /// Page numbers, from 0.
    pub pages: &'a [u32],
    /// Actions.
    pub actions: &'a [f32],
}

/// What [`Simulator::respond`] tells of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// What sessions draw from.
    Probabilities,
    /// What those are the softmax of, head by head.
    Logits,
}

impl Simulator {
    /// The answers to some pages, all heads of a page one after the other: those that sessions
    /// draw from, to the last bit.
    ///
    /// # Errors
    /// Codes beyond their fields, page numbers that f32 cannot tell apart, actions beyond
    /// [`LARGEST_ACTION`]; `interrupt`'s own.
    pub fn respond(
        &self,
        questions: Questions<'_>,
        told: Told,
        threads: Option<usize>,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<f32>> {
        self.check_questions(questions)?;
        let count = questions.pages.len();
        let (threads, kernels) = (parallel::resolve(threads)?, Kernels::best()?);
        let mut out = Vec::with_capacity(count * self.response.width());
        let work = |chunk: u64, _: &dyn Fn() -> bool| {
            let first = chunk as usize * CHUNK;
            self.respond_chunk(kernels, questions, told, first..count.min(first + CHUNK))
        };
        let take = |answers: Vec<f32>| {
            out.extend(answers);
            Ok(ControlFlow::Continue(()))
        };
        parallel::ordered(threads, count.div_ceil(CHUNK) as u64, work, take, interrupt)?;
        Ok(out)
    }

    fn check_questions(&self, questions: Questions<'_>) -> Result<()> {
        let Questions { codes, pages, actions } = questions;
        let (fields, size) = (&self.schema.customer, self.schema.action);
        let count = pages.len();
        let lengths = [("codes", codes.len(), fields.len()), ("actions", actions.len(), size)];
        for (what, length, width) in lengths {
            if length != count * width {
                let expected = format!("{count} rows of {width} values, one a page");
                return Err(Error::argument(what, expected, format!("{length} values")));
            }
        }
        for (row, codes) in codes.chunks(fields.len()).enumerate() {
            let beyond = codes.iter().zip(fields).find(|(code, f)| usize::from(**code) >= f.size);
            if let Some((code, field)) = beyond {
                let what = format!("codes, row {row}, field {:?}", field.name);
                return Err(Error::argument(what, format!("a code below {}", field.size), code));
            }
        }
        // Beyond this a page number is no longer exact in f32.
        if let Some(row) = pages.iter().position(|page| *page > 1 << 24) {
            let expected = format!("a page number of at most {}", 1 << 24);
            return Err(Error::argument(format!("pages, row {row}"), expected, pages[row]));
        }
        let fits = |value: &f32| value.abs() <= LARGEST_ACTION;
        if let Some(at) = actions.iter().position(|value| !fits(value)) {
            let what = format!("actions, row {}", at / size);
            let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
            return Err(Error::argument(what, expected, actions[at]));
        }
        Ok(())
    }

    fn respond_chunk(
        &self,
        kernels: Kernels,
        questions: Questions<'_>,
        told: Told,
        range: Range<usize>,
    ) -> Vec<f32> {
        let Questions { codes, pages, actions } = questions;
        let (response, fields, size) =
            (&self.response, self.schema.customer.len(), self.schema.action);
        let mut workspace = Workspace::default();
        response.reserve(&mut workspace);
        let Workspace { scratch, x, .. } = &mut workspace;
        let (kept_width, width) = (response.kept_width(), response.width());
        let mut kept = vec![0.0; TILE * kept_width];
        let mut out = Vec::with_capacity(range.len() * width);
        for first in range.clone().step_by(TILE) {
            let rows = (range.end - first).min(TILE);
            for (row, kept) in kept.chunks_mut(kept_width).take(rows).enumerate() {
                response.keep(kernels, &codes[(first + row) * fields..][..fields], kept);
            }
            let shown = |row: usize| Shown {
                kept: &kept[row * kept_width..][..kept_width],
                page: pages[first + row],
                action: &actions[(first + row) * size..][..size],
            };
            let logits = response.logits(kernels, rows, shown, x, scratch);
            if told == Told::Probabilities {
                response.probabilities(kernels, rows, logits);
            }
            let rows = logits.chunks(response.logit_stride()).take(rows);
            out.extend(rows.flat_map(|row| &row[..width]));
        }
        out
    }
}
