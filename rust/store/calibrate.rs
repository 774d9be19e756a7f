//! Calibration: the strength of tastes and the level of buying that make a world a fair test.
//!
//! # How the share of pages that sell is computed
//! A page's items decide the answer together with archetype and page number, and nothing else, so
//! nothing has to be simulated: for each cell (archetype, query), whose probability is known, the
//! chance that a session gets as far as page n follows from the chances before. Sums run over
//! cells and over sampled pages of the policy. That has the aim of simulating 3,000 customers, and
//! the noise of none; the pages depend on neither number, so they are scored once.
//!
//! Where items are not repeated, page n depends on the pages before it: whole sequences of pages
//! are sampled instead, and a session's chances are followed along each.

use super::customers::{ARCHETYPES, Customers, QUERIES};
use super::draws::Draws;
use super::model::{Level, levels, utility};
use super::taste::{LOGGED_SD, Taste};
use super::{ACTION_RANGE, ATTRIBUTES, Config, PAGE, Part, Shelf, Strength, draws};
use crate::error::{Error, Result};
use crate::kernels::Kernels;

/// Bisection bounds of the strength of tastes.
pub const TAU_RANGE: (f64, f64) = (0.05, 8.0);
/// Bisection bounds of the level of buying.
const LEVEL_RANGE: (f64, f64) = (-14.0, 4.0);
/// Explicit levels of buying lie within this bound: their exponentials are finite.
pub const MOST_LEVEL: f64 = 100.0;
/// Halvings of either range.
const STRENGTH_STEPS: usize = 12;
const LEVEL_STEPS: usize = 18;
/// The share of pages that sell under the logger and under the oracle.
const LOGGER: f64 = 0.090;
const ORACLE: f64 = 0.200;
/// Sampled pages (or sequences of pages) of all queries together, and of each at least. Frequent
/// queries get more: the sampling error of the share of pages that sell is then about .0006.
const SAMPLES: f64 = 3_000.0;
const LEAST_SAMPLES: f64 = 16.0;
/// So many times as many samples check the result.
pub(super) const CHECK_SAMPLES: f64 = 4.0;
/// Steps of the search for the best constant action, from each of its starts.
const SEARCH_STEPS: usize = 1_500;
/// A session's chance below which it is not followed further.
const NEGLIGIBLE: f64 = 1e-8;
/// Customers by whom structure is checked, and how much there has to be (nat).
const CHECKED_CUSTOMERS: u64 = 20_000;
const LEAST_CORRELATION: f64 = 1.0;

/// What calibration found, and was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Share of pages that sell under the logging policy, on pages of its own.
    pub logger: f64,
    /// Under the oracle, which knows each customer's archetype.
    pub oracle: f64,
    /// With no action at all.
    pub zero: f64,
    /// Under actions uniform on the box.
    pub uniform: f64,
    /// Under the best constant action that was found.
    pub best_constant: f64,
    /// The weights of that action.
    pub best_weights: [f32; ATTRIBUTES],
    /// Share of the ten slots that a logged action changes.
    pub slots_changed: f64,
    /// Mean pages of a session under the logging policy.
    pub mean_length: f64,
    /// Quantiles 10, 50, 90 and 99 % of that.
    pub length_quantiles: [u32; 4],
    /// Entropy of the customers, in nat.
    pub entropy: f64,
    /// Total correlation of their fields, in nat.
    pub total_correlation: f64,
}

/// Positions of a page's items.
pub type Page = [u32; PAGE];

/// Pages that a policy shows: for each query, samples of one page or of a sequence of pages.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Pages of a sequence of each query: 1 where items may be repeated, else at most as many as
    /// its candidates fill.
    lengths: Vec<usize>,
    /// `samples * length` pages a query.
    pages: Vec<Vec<Page>>,
}

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
    fn quantile(&self, share: f64) -> u32 {
        let mut sum = 0.0;
        let reaches = |p: &f64| {
            sum += p;
            sum >= share
        };
        self.lengths.iter().position(reaches).unwrap_or(self.lengths.len()) as u32 + 1
    }
}

/// A world in which the course of sessions can be computed.
pub struct World<'a> {
    seed: u64,
    max_index: u32,
    repeat: bool,
    kernels: Kernels,
    shelves: &'a [Shelf],
    production: [f32; ATTRIBUTES],
    taste: &'a Taste,
    customers: &'a Customers,
    /// `theta_k x / tau` of each query's candidates, all archetypes one after the other.
    utilities: Vec<Vec<f64>>,
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

    /// Bisects `tau` and `b0`, then checks that the world is a fair test.
    ///
    /// Where items are not repeated, each page is worse than the one before, and no strength of
    /// tastes lets an oracle sell on 20 % of the pages. Such a store is a tier of its own: tastes
    /// are as strong as where items are repeated, only the level is the form's, and the oracle is
    /// reported as found.
    pub fn calibrate(&self) -> Result<(Strength, Calibration)> {
        let tau = if self.repeat { self.tau()? } else { self.repeating().tau()? };
        let b0 = self.level(&self.logged(Part::Logged, 1.0), tau);
        let by = format!("level of buying (tastes of strength {tau:.2})");
        self.reached(("R2P of the logger", LOGGER), &by, b0, LEVEL_RANGE, LEVEL_STEPS)?;
        let strength = Strength { tau, b0 };
        let calibration = self.figures(strength, &self.oracle());
        self.check(&calibration)?;
        Ok((strength, calibration))
    }

    /// The same world with items that may be repeated.
    fn repeating(&self) -> World<'a> {
        Self { repeat: true, utilities: self.utilities.clone(), ..*self }
    }

    /// The strength of tastes at which the oracle sells as much as it is to.
    fn tau(&self) -> Result<f64> {
        let (logged, oracle) = (self.logged(Part::Logged, 1.0), self.oracle());
        let tau = bisected(TAU_RANGE, STRENGTH_STEPS, |tau| {
            let strength = Strength { tau, b0: self.level(&logged, tau) };
            self.course_for(strength, &oracle).r2p() < ORACLE
        });
        let by = "strength of tastes";
        self.reached(("R2P of the oracle", ORACLE), by, tau, TAU_RANGE, STRENGTH_STEPS)?;
        Ok(tau)
    }

    /// The level of buying at which the logger sells as much as it is to.
    fn level(&self, logged: &Pages, tau: f64) -> f64 {
        let cells = self.masses(&self.appeal(tau), |_| logged);
        bisected(LEVEL_RANGE, LEVEL_STEPS, |b0| self.course(&cells, b0).r2p() < LOGGER)
    }

    /// Refuses what a bisection found if it is a bound of its range: the target lies beyond.
    fn reached(
        &self,
        (what, target): (&'static str, f64),
        by: &str,
        found: f64,
        (low, high): (f64, f64),
        steps: usize,
    ) -> Result<()> {
        let step = (high - low) / f64::from(1 << steps);
        let side = match found {
            found if found < low + step => "more",
            found if found > high - step => "less",
            _ => return Ok(()),
        };
        let got = format!("{side} with any {by} from {low} to {high}");
        Err(Error::World { seed: self.seed, what, expected: format!("{target:.3}"), got })
    }

    /// Everything that is asserted or expected of a world of this strength.
    fn figures(&self, strength: Strength, oracle: &[Pages]) -> Calibration {
        // Pages of its own: a check on those that were fitted would say little.
        let logged = self.logged(Part::LoggedAgain, CHECK_SAMPLES);
        let course = self.course_under(strength, &logged);
        let zero = self.constant(&self.production);
        let (best_constant, best_weights) = self.best_constant(strength);
        let (entropy, total_correlation) = self.customers.entropy(self.seed, CHECKED_CUSTOMERS);
        Calibration {
            logger: course.r2p(),
            oracle: self.course_for(strength, oracle).r2p(),
            zero: self.course_under(strength, &zero).r2p(),
            uniform: self.course_under(strength, &self.uniform()).r2p(),
            best_constant,
            best_weights,
            slots_changed: self.changed(&zero, &logged),
            mean_length: course.pages,
            length_quantiles: [0.1, 0.5, 0.9, 0.99].map(|share| course.quantile(share)),
            entropy,
            total_correlation,
        }
    }

    /// Refuses a world in which policies cannot be told apart, or customers have no structure.
    fn check(&self, found: &Calibration) -> Result<()> {
        let within = |what, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let expected = format!("{low:.3} to {high:.3}");
            Err(Error::World { seed: self.seed, what, expected, got: format!("{value:.4}") })
        };
        within("R2P of the logger", found.logger, LOGGER - 0.003, LOGGER + 0.003)?;
        let correlation = found.total_correlation;
        within("total correlation of the customers' fields", correlation, LEAST_CORRELATION, 9.0)?;
        if !self.repeat {
            // The other bounds belong to the form in which items are repeated.
            return within("R2P of the oracle", found.oracle, 1.2 * found.logger, 1.0);
        }
        within("R2P of the oracle", found.oracle, ORACLE - 0.01, ORACLE + 0.01)?;
        within("slots changed by a logged action", found.slots_changed, 0.30, 0.45)?;
        within("R2P of uniform actions", found.uniform, 0.0, 0.8 * found.logger)?;
        within("R2P of the best constant action", found.best_constant, 0.12, 0.15)
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
                    self.kernels.select(&scores, &mut pages[index]);
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

    /// `exp(theta_k x)` of all candidates.
    fn appeal(&self, tau: f64) -> Appeal {
        let of = |utilities: &Vec<f64>| utilities.iter().map(|u| libm::exp(tau * u)).collect();
        self.utilities.iter().map(of).collect()
    }

    /// The weight of buying anything on each page, `sum exp(theta_k x)`, for each cell.
    fn masses<'p>(&self, appeal: &Appeal, pages: impl Fn(usize) -> &'p Pages) -> Vec<Cell> {
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
    fn course(&self, cells: &[Cell], b0: f64) -> Course {
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

    /// The best constant action: a search that keeps what is better, from three starts, with
    /// steps that grow when they help and shrink when they do not.
    fn best_constant(&self, strength: Strength) -> (f64, [f32; ATTRIBUTES]) {
        let appeal = self.appeal(strength.tau);
        let value = |weights: &[f32; ATTRIBUTES]| {
            let pages = self.constant(weights);
            self.course(&self.masses(&appeal, |_| &pages), strength.b0).r2p()
        };
        let unit = |weights: [f64; ATTRIBUTES]| {
            let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
            weights.map(|w| (w / norm) as f32)
        };
        let mut average = [0.0; ATTRIBUTES];
        for (share, theta) in self.customers.shares.iter().zip(&self.taste.archetypes) {
            average.iter_mut().zip(theta).for_each(|(sum, value)| *sum += share * value);
        }
        let starts = [average, self.taste.shared, self.production.map(f64::from)];
        let searches = starts.into_iter().enumerate().map(|(index, start)| {
            let mut source = draws(self.seed, Part::Search, index as u64);
            let (mut best, mut step) = (unit(start), 0.1);
            let mut reached = value(&best);
            for _ in 0..SEARCH_STEPS {
                let tried = unit(best.map(|w| f64::from(w) + step * source.normal()));
                let got = value(&tried);
                if got > reached {
                    (best, reached, step) = (tried, got, (step * 1.5_f64).min(0.3));
                } else {
                    step = (step * 0.93).max(0.005);
                }
            }
            (reached, best)
        });
        searches.reduce(|a, b| if b.0 > a.0 { b } else { a }).expect("there are starts")
    }

    /// Share of the ten slots of a first page that hold an item which is not on the other page.
    fn changed(&self, base: &Pages, pages: &Pages) -> f64 {
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

/// Where a figure that rises with a number is no longer too low.
fn bisected((low, high): (f64, f64), steps: usize, too_low: impl Fn(f64) -> bool) -> f64 {
    let (low, high) = (0..steps).fold((low, high), |(low, high), _| {
        let middle = 0.5 * (low + high);
        if too_low(middle) { (middle, high) } else { (low, middle) }
    });
    0.5 * (low + high)
}

/// `exp(theta_k x)` of each query's candidates, all archetypes one after the other.
type Appeal = Vec<Vec<f64>>;

/// The weight of buying on each page that is shown to an archetype with a query.
struct Cell {
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

impl Course {
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
