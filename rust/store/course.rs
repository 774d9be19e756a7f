//! How sessions go under a policy, and so the share of pages that sell.
//!
//! A page's items decide the answer together with archetype and page number, and nothing else, so
//! nothing has to be simulated: for each cell (archetype, query), whose probability is known, the
//! chance that a session gets as far as page n follows from the chances before. Sums run over
//! cells and over sampled pages of the policy. That has the aim of simulating 3,000 customers, and
//! the noise of none; the pages depend on neither number, so they are scored once.
//!
//! Where items are not repeated, page n depends on the pages before it: whole sequences of pages
//! are sampled instead, and a session's chances are followed along each.

use super::Strength;
use super::customers::{ARCHETYPES, QUERIES};
use super::model::{Level, levels};
use super::world::{Page, Pages, World};

/// A session's chance below which it is not followed further.
const NEGLIGIBLE: f64 = 1e-8;

/// How sessions go under a policy.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Expected purchases of a session.
    pub buys: f64,
    /// Expected pages of a session.
    pub pages: f64,
    /// Probability that a session has n + 1 pages.
    pub lengths: Vec<f64>,
}

impl Course {
    /// Share of pages that sell.
    pub fn r2p(&self) -> f64 {
        self.buys / self.pages
    }

    /// Adds sessions of another course, with this weight.
    pub(super) fn add(&mut self, other: &Self, weight: f64) {
        self.buys += weight * other.buys;
        self.pages += weight * other.pages;
        if self.lengths.len() < other.lengths.len() {
            self.lengths.resize(other.lengths.len(), 0.0);
        }
        let lengths = self.lengths.iter_mut().zip(&other.lengths);
        lengths.for_each(|(mine, theirs)| *mine += weight * theirs);
    }

    /// The fewest pages that this share of sessions do not exceed.
    pub(super) fn quantile(&self, share: f64) -> u32 {
        let mut sum = 0.0;
        let reaches = |p: &f64| {
            sum += p;
            sum >= share
        };
        self.lengths.iter().position(reaches).unwrap_or(self.lengths.len()) as u32 + 1
    }

    /// Adds sessions of some probability whose chances of buying and turning follow from the page.
    fn follow(
        &mut self,
        probability: f64,
        levels: &[Level],
        chances: impl Fn(usize, &Level) -> (f64, f64),
    ) {
        let mut alive = probability;
        for (page, level) in levels.iter().enumerate() {
            let (buy, turn) = chances(page, level);
            self.pages += alive;
            self.buys += alive * buy;
            let last = page + 1 == levels.len() || alive * turn < probability * NEGLIGIBLE;
            let goes_on = if last { 0.0 } else { alive * turn };
            if self.lengths.len() <= page {
                self.lengths.push(0.0);
            }
            self.lengths[page] += alive - goes_on;
            alive = goes_on;
            if last {
                break;
            }
        }
    }
}

/// `exp(theta_k x)` of each query's candidates, all archetypes one after the other.
pub(super) type Appeal = Vec<Vec<f64>>;

/// The weight of buying on each page that is shown to an archetype with a query.
pub(super) struct Cell {
    probability: f64,
    /// Pages of a sequence.
    length: usize,
    masses: Vec<f64>,
}

/// Mean chances of buying and of turning the page over sampled pages. Eight sums side by side, in
/// an order of their own, so that compilers can use wide registers.
fn chances(masses: &[f64], level: &Level) -> (f64, f64) {
    const WIDE: usize = 8;
    let others = level.turn + level.leave;
    let (blocks, rest) = masses.as_chunks::<WIDE>();
    let mut sums = [0.0; WIDE];
    for block in blocks {
        for (sum, mass) in sums.iter_mut().zip(block) {
            *sum += 1.0 / (level.buy * mass + others);
        }
    }
    let rest: f64 = rest.iter().map(|mass| 1.0 / (level.buy * mass + others)).sum();
    let mean = (sums.iter().sum::<f64>() + rest) / masses.len() as f64;
    (1.0 - others * mean, level.turn * mean)
}

impl World<'_> {
    /// `exp(theta_k x)` of all candidates.
    pub(super) fn appeal(&self, tau: f64) -> Appeal {
        let of = |utilities: &Vec<f64>| utilities.iter().map(|u| libm::exp(tau * u)).collect();
        self.utilities.iter().map(of).collect()
    }

    /// The weight of buying anything on each page, `sum exp(theta_k x)`, for each cell.
    pub(super) fn masses<'p>(
        &self,
        appeal: &Appeal,
        pages: impl Fn(usize) -> &'p Pages,
    ) -> Vec<Cell> {
        let mut cells = Vec::with_capacity(QUERIES * ARCHETYPES);
        for query in 0..QUERIES {
            let count = self.shelves[query].rows.len();
            for archetype in 0..ARCHETYPES {
                let appeal = &appeal[query][archetype * count..][..count];
                let pages = pages(archetype);
                let sum = |page: &Page| page.iter().map(|item| appeal[*item as usize]).sum();
                cells.push(Cell {
                    probability: self.customers.cell(archetype, query),
                    length: pages.lengths[query],
                    masses: pages.pages[query].iter().map(sum).collect(),
                });
            }
        }
        cells
    }

    /// How sessions go, by the masses of their pages.
    pub(super) fn course(&self, cells: &[Cell], b0: f64) -> Course {
        let levels = levels(b0, self.max_index);
        let mut course = Course::default();
        for Cell { probability, length, masses } in cells {
            if self.repeat {
                course.follow(*probability, &levels, |_, level| chances(masses, level));
            } else {
                let sequences = masses.chunks(*length);
                let each = *probability / sequences.len() as f64;
                for sequence in sequences {
                    let levels = &levels[..sequence.len()];
                    course
                        .follow(each, levels, |page, level| chances(&sequence[page..=page], level));
                }
            }
        }
        course
    }

    /// How sessions go under a policy that does not know archetypes.
    pub fn course_under(&self, strength: Strength, pages: &Pages) -> Course {
        self.course(&self.masses(&self.appeal(strength.tau), |_| pages), strength.b0)
    }

    /// How sessions go under pages that are made for each archetype.
    pub fn course_for(&self, strength: Strength, pages: &[Pages]) -> Course {
        let appeal = self.appeal(strength.tau);
        self.course(&self.masses(&appeal, |archetype| &pages[archetype]), strength.b0)
    }
}
