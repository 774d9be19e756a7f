//! A world before it is calibrated, and the pages that simple policies show in it.

use super::customers::{ARCHETYPES, Customers, QUERIES};
use super::draws::Draws;
use super::model::utility;
use super::taste::{LOGGED_SD, Taste};
use super::{ACTION_RANGE, ATTRIBUTES, Config, PAGE, Part, Shelf, draws};
use crate::kernels::Kernels;

/// Sampled pages (or sequences of pages) of all queries together, and of each at least. Frequent
/// queries get more: the sampling error of the share of pages that sell is then about .0006.
const SAMPLES: f64 = 3_000.0;
const LEAST_SAMPLES: f64 = 16.0;
/// So many times as many samples check the result.
pub(super) const CHECK_SAMPLES: f64 = 4.0;

/// Positions of a page's items.
pub type Page = [u32; PAGE];

/// Pages that a policy shows: for each query, samples of one page or of a sequence of pages.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Pages of a sequence of each query: 1 where items may be repeated, else at most as many as
    /// its candidates fill.
    pub(super) lengths: Vec<usize>,
    /// `samples * length` pages a query.
    pub(super) pages: Vec<Vec<Page>>,
}

/// A world in which the course of sessions can be computed.
pub struct World<'a> {
    pub(super) seed: u64,
    pub(super) max_index: u32,
    pub(super) repeat: bool,
    kernels: Kernels,
    pub(super) shelves: &'a [Shelf],
    pub(super) production: [f32; ATTRIBUTES],
    pub(super) taste: &'a Taste,
    pub(super) customers: &'a Customers,
    /// `theta_k x / tau` of each query's candidates, all archetypes one after the other.
    pub(super) utilities: Vec<Vec<f64>>,
}

impl<'a> World<'a> {
    /// The world of a configuration; its strength plays no part.
    pub fn new(
        config: &Config,
        kernels: Kernels,
        shelves: &'a [Shelf],
        taste: &'a Taste,
        customers: &'a Customers,
    ) -> Self {
        let utilities = shelves.iter().map(|shelf| {
            let of = |theta: &'a [f64; ATTRIBUTES]| {
                shelf.attributes.chunks(ATTRIBUTES).map(|x| utility(theta, x))
            };
            taste.archetypes.iter().flat_map(of).collect()
        });
        Self {
            seed: config.seed,
            max_index: config.max_index,
            repeat: config.repeat,
            kernels,
            shelves,
            production: taste.production.map(|value| value as f32),
            utilities: utilities.collect(),
            taste,
            customers,
        }
    }

    /// The same world with items that may be repeated.
    pub(super) fn repeating(&self) -> World<'a> {
        Self { repeat: true, utilities: self.utilities.clone(), ..*self }
    }

    /// Pages under weights that depend on query, sample and page of the sequence; so many samples
    /// of each query.
    pub fn pages(
        &self,
        samples: impl Fn(usize) -> usize,
        mut weights: impl FnMut(usize, usize, usize) -> [f32; ATTRIBUTES],
    ) -> Pages {
        let mut scores = Vec::new();
        let most = if self.repeat { 1 } else { self.max_index as usize + 1 };
        let lengths: Vec<usize> =
            self.shelves.iter().map(|shelf| most.min(shelf.rows.len() / PAGE)).collect();
        let pages =
            self.shelves.iter().zip(&lengths).enumerate().map(|(query, (shelf, length))| {
                scores.resize(shelf.packed.stride(), 0.0);
                let mut pages = vec![[0; PAGE]; samples(query) * length];
                for index in 0..pages.len() {
                    let (sample, number) = (index / length, index % length);
                    shelf.packed.score(
                        self.kernels,
                        1,
                        &weights(query, sample, number),
                        &mut scores,
                    );
                    for shown in pages[index - number..index].as_flattened() {
                        scores[*shown as usize] = f32::NEG_INFINITY;
                    }
                    self.kernels.select(&[&scores], &mut pages[index]);
                }
                pages
            });
        let pages = pages.collect();
        Pages { lengths, pages }
    }

    /// Pages under constant weights.
    pub fn constant(&self, weights: &[f32; ATTRIBUTES]) -> Pages {
        self.pages(|_| 1, |_, _, _| *weights)
    }

    /// The pages that sell best to each archetype: the ten items that it likes most.
    pub fn oracle(&self) -> Vec<Pages> {
        let best = |theta: &[f64; ATTRIBUTES]| self.constant(&theta.map(|value| value as f32));
        self.taste.archetypes.iter().map(best).collect()
    }

    /// Pages of the logging policy.
    pub(super) fn logged(&self, part: Part, times: f64) -> Pages {
        self.drawn(part, times, |source| (LOGGED_SD * source.normal()) as f32)
    }

    /// Pages of actions that are uniform on the box.
    pub(super) fn uniform(&self) -> Pages {
        let [low, high] = ACTION_RANGE;
        self.drawn(Part::Uniform, 1.0, |source| low + (high - low) * source.uniform() as f32)
    }

    /// Pages of actions whose dimensions are drawn one by one.
    fn drawn(&self, part: Part, times: f64, draw: impl Fn(&mut Draws) -> f32) -> Pages {
        let mut streams: Vec<Draws> =
            (0..QUERIES as u64).map(|query| draws(self.seed, part, query)).collect();
        let samples = |query: usize| {
            let share: f64 = (0..ARCHETYPES).map(|k| self.customers.cell(k, query)).sum();
            (times * SAMPLES * share).max(LEAST_SAMPLES).round() as usize
        };
        self.pages(samples, |query, _, _| {
            self.production.map(|production| production + draw(&mut streams[query]))
        })
    }

    /// Share of the ten slots of a first page that hold an item which is not on the other page.
    pub(super) fn changed(&self, base: &Pages, pages: &Pages) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for query in 0..QUERIES {
            let share: f64 = (0..ARCHETYPES).map(|k| self.customers.cell(k, query)).sum();
            let reference = &base.pages[query][0];
            let first = pages.pages[query].iter().step_by(pages.lengths[query]);
            let new = first.clone().flatten().filter(|item| !reference.contains(item)).count();
            sum += share * new as f64 / (first.len() * PAGE) as f64;
            total += share;
        }
        sum / total
    }
}
