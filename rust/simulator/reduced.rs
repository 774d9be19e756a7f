//! The same customers at less precision and more speed.
//!
//! Layers between hidden units get weights of eight bits ([`Mlp::reduce`](crate::nn::Mlp::reduce)): those of answers but
//! for the first, which sees the action, and the last, whose outputs are drawn from; and those of
//! page limits. Which inputs they were rounded for is fixed, so a simulator has one reduced form.

use std::ops::Range;
use std::sync::Arc;

use super::{Leave, Limits, Response, Shown, Simulator, Workspace};
use crate::error::{Error, Result};
use crate::kernels::{Kernels, TILE};
use crate::nn::{Moments, Rows};
use crate::rng::{self, Origin, Purpose};
use crate::tensor_file::hash;

/// The actions of pages that are looked at: uniform on this share of the action box, about its
/// middle. Wider ones drive hidden units further, so each counts for itself.
const SPANS: [f32; 4] = [1.0, 0.3, 0.1, 0.0];
/// Pages for each of them.
const PAGES: usize = 200 * TILE;
/// The chance that another page follows: sessions of eight in the mean, about as published.
const ANOTHER: f32 = 0.875;
/// Pages of the longest session.
const LONGEST: usize = 100;
/// The stream that customers and actions come from.
const SEED: u64 = 0x5245_4455_4345;

impl Simulator {
    /// This simulator with layers of eight bits: other answers, but seldom; the same file.
    ///
    /// # Errors
    /// There is no layer between hidden units; `interrupt`'s own.
    pub fn reduced(&self, interrupt: &dyn Fn() -> Result<()>) -> Result<Arc<Self>> {
        let mut reduced = Self::build(
            self.name.clone(),
            self.schema.clone(),
            self.config.clone(),
            self.provenance.clone(),
            self.tensors.clone(),
        )?;
        let codes = reduced.customers.sample(SEED, 0, PAGES as u64, Some(1), interrupt)?;
        let fields = reduced.customers.fields();
        let kernels = Kernels::best()?;
        let mut workspace = Workspace::default();
        reduced.reserve(&mut workspace);
        let pages = Pages {
            codes: &codes,
            fields,
            longest: reduced.leave.most_pages().clamp(1, LONGEST) as u32,
            range: self.schema.action_range,
            kernels,
            interrupt,
        };
        let mut layers = pages.reduce_response(&mut reduced.response, &mut workspace)?;
        if let Leave::Once(limits) = &mut reduced.leave {
            layers += pages.reduce_limits(limits, self.config.slope, &mut workspace)?;
        }
        if layers == 0 {
            return Err(Error::argument(
                "simulator",
                "a response of at least two hidden layers",
                "one with no layer between hidden units",
            ));
        }
        reduced.digest = hash(format!("{} reduced 1", self.digest).as_bytes());
        reduced.is_reduced = true;
        Ok(Arc::new(reduced))
    }

    /// What the weights of a layer of answers are taken for, a row an output, if it is reduced: for
    /// those who work out how far from the exact form answers can be.
    pub fn reduced_weights(&self, layer: usize) -> Option<Vec<f64>> {
        self.response.network.reduced_weights(layer)
    }
}

/// Pages that layers are rounded for.
struct Pages<'a> {
    codes: &'a [u8],
    fields: usize,
    longest: u32,
    range: [f32; 2],
    kernels: Kernels,
    /// Asked before every tile of pages.
    interrupt: &'a dyn Fn() -> Result<()>,
}

impl Pages<'_> {
    fn customer(&self, page: usize) -> &[u8] {
        &self.codes[page * self.fields..][..self.fields]
    }

    /// How many pages came before it in its session.
    fn number(&self, page: usize) -> u32 {
        let mut draws = [0.0; LONGEST];
        let purpose = Purpose::Response;
        rng::fill(Origin { seed: SEED, session: page as u64, page: 0, purpose }, &mut draws);
        let before = draws.iter().take_while(|draw| **draw < ANOTHER).count() as u32;
        before.min(self.longest - 1)
    }

    /// Reduces layers of answers one after the other, each for what it sees once those before it
    /// are reduced; returns how many.
    fn reduce_response(&self, response: &mut Response, workspace: &mut Workspace) -> Result<usize> {
        let between = 1..response.network.depth().saturating_sub(1);
        for layer in between.clone() {
            let mut moments = Moments::new(response.network.inputs_of(layer));
            for span in SPANS {
                let mut group = Moments::new(response.network.inputs_of(layer));
                self.watch_answers(response, layer, span, workspace, &mut group)?;
                moments.add_group(&group);
            }
            response.network.reduce(layer, &moments);
        }
        Ok(between.len())
    }

    fn watch_answers(
        &self,
        response: &Response,
        layer: usize,
        span: f32,
        workspace: &mut Workspace,
        moments: &mut Moments,
    ) -> Result<()> {
        let [low, high] = self.range;
        let width = response.kept_width();
        let mut kept = vec![0.0; TILE * width];
        let mut actions = vec![0.0; TILE * response.action];
        for tile in tiles() {
            (self.interrupt)()?;
            for (row, page) in tile.clone().enumerate() {
                response.keep(self.kernels, self.customer(page), &mut kept[row * width..][..width]);
                let action = &mut actions[row * response.action..][..response.action];
                let purpose = Purpose::Policy;
                let origin = Origin { seed: SEED, session: page as u64, page: 0, purpose };
                rng::fill(origin, action);
                for value in action {
                    *value = 0.5 * (low + high) + span * (high - low) * (*value - 0.5);
                }
            }
            let numbers: Vec<_> = tile.clone().map(|page| self.number(page)).collect();
            let shown = |row: usize| Shown {
                kept: &kept[row * width..][..width],
                page: numbers[row],
                action: &actions[row * response.action..][..response.action],
            };
            let Workspace { x, scratch, .. } = workspace;
            let mut sums = [&[][..]; TILE];
            let rows = response.rows(tile.len(), shown, x, &mut sums);
            let (seen, stride) = response.network.seen(self.kernels, layer, rows, scratch);
            moments.add(seen, stride);
        }
        Ok(())
    }

    /// Reduces all layers of page limits.
    fn reduce_limits(
        &self,
        limits: &mut Limits,
        slope: f32,
        workspace: &mut Workspace,
    ) -> Result<usize> {
        let width = limits.table.width();
        for layer in 0..limits.rest.depth() {
            let mut moments = Moments::new(limits.rest.inputs_of(layer));
            for tile in tiles() {
                (self.interrupt)()?;
                let Workspace { x, scratch, .. } = &mut *workspace;
                for (row, page) in tile.clone().enumerate() {
                    let out = &mut x[row * width..][..width];
                    limits.table.sum_activated(self.kernels, self.customer(page), slope, out);
                }
                let x = &x[..tile.len() * width];
                let rows = Rows { count: tile.len(), x, stride: width, sums: None };
                let (seen, stride) = limits.rest.seen(self.kernels, layer, rows, scratch);
                moments.add(seen, stride);
            }
            limits.rest.reduce(layer, &moments);
        }
        Ok(limits.rest.depth())
    }
}

fn tiles() -> impl Iterator<Item = Range<usize>> {
    (0..PAGES).step_by(TILE).map(|first| first..first + TILE)
}
