//! The ground-truth store: a shop whose customers' true behaviour is known (the referee).
//!
//! ```text
//! draws -> customers, catalogue -> taste -> world -> course -> calibrate   a world from its seed
//!                    model -> page -> batch                                its page loop, batched
//! ```
//!
//! A world is a mixture of customer archetypes with a known density, items with correlated
//! attributes, and a taste for each archetype. A customer's query selects candidates; the page is
//! the ten of them that score best under `w_base + action`; the customer answers by a multinomial
//! logit over buying one of the ten, turning the page, and leaving. Two numbers, the strength of
//! tastes and the level of buying, are calibrated so that the logging policy sells on 9 % of the
//! pages and an oracle on 20 %. Everything here is a function of the configuration, to the last bit
//! and on every CPU.

pub mod batch;
mod calibrate;
mod catalogue;
pub mod counters;
mod course;
mod customers;
mod draws;
pub mod expect;
pub mod lane;
pub mod model;
pub mod page;
mod taste;
pub mod view;
mod world;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::parallel;
use crate::rng::{Origin, Purpose};
use crate::search::packed::PackedRows;
use crate::session::refused_value;
use crate::simulator::{Field, LARGEST_ACTION, Schema};
use crate::tensor_file;

pub use calibrate::Calibration;
pub use catalogue::{Categories, Item, MOST_ITEMS};
pub use course::Course;
pub use customers::{ARCHETYPES, Customers, FIELDS, QUERIES, QUERY_FIELD};
pub use draws::Draws;
pub use taste::{LAST_DAY, LOGGED_SD, Taste};
pub use world::World;

use catalogue::Catalogue;
use model::{CustomerModel, Referee};

/// Dimensions of attributes and of actions.
pub const ATTRIBUTES: usize = 27;
/// Items on a page.
pub const PAGE: usize = 10;
/// Actions lie in this box.
pub const ACTION_RANGE: [f32; 2] = [-1.0, 1.0];
/// Candidates of a query at most.
pub const MOST_CANDIDATES: usize = 1 << 16;
/// Page numbers at most; logs count pages with 16 bits.
pub const MOST_INDEX: u32 = 32_000;
/// Actions that a customer's answer may depend on at most.
pub const MOST_MEMORY: usize = 64;

/// Version of the worlds: the same version gives the same world for the same seed.
///
/// About one world in eight is no fair test and is refused. The spec names ten seeds, five to tune
/// on and five to report on; this is the first number above 1 under which all ten are fair.
pub const WORLD_VERSION: u32 = 2;

/// What a stream of construction draws is for: the page of its counters.
#[derive(Clone, Copy, Debug)]
enum Part {
    Shares = 0,
    Fields = 1,
    ShareSteps = 2,
    Loadings = 3,
    CategoryMeans = 4,
    Taste = 5,
    Production = 6,
    Rotation = 7,
    LoggedMeans = 8,
    Phase = 9,
    /// Logged actions that calibration scores.
    Logged = 10,
    /// Fresh ones, by which the result is checked.
    LoggedAgain = 11,
    Uniform = 12,
    Search = 13,
    Check = 14,
}

/// A stream of construction draws.
fn draws(seed: u64, part: Part, index: u64) -> Draws {
    let page = part as u32 | WORLD_VERSION << 8;
    Draws::new(Origin { seed, session: index, page, purpose: Purpose::World })
}

/// The hour of a session's day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Hour {
    /// There is none: buying does not depend on it.
    None,
    /// One hour for all, in [0, 24).
    At(f64),
    /// Each session has its own, uniform over the day.
    Uniform,
}

/// What follows when a customer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// The session ends.
    End,
    /// Another customer takes over in the same session.
    Respawn,
}

/// All that a store is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Seed of the world.
    pub seed: u64,
    /// Items of the catalogue.
    pub items: u64,
    /// Candidates of a query: the first so many of its category.
    pub candidates: usize,
    /// Whether categories have a long tail; else category = row mod 18.
    pub long_tail: bool,
    /// Days since the day that tastes were calibrated for.
    pub day: u32,
    /// Hour of the day.
    pub hour: Hour,
    /// The last actions that are observed, and that a customer model may look at; 1: this page's.
    pub memory: usize,
    /// A customer's last page has this number, from 0.
    pub max_index: u32,
    /// Whether an item may be shown again in a session.
    pub repeat: bool,
    /// Whether nothing ends a session: the next customer always takes over.
    pub continuing: bool,
    /// What follows when a customer leaves.
    pub leave: Leave,
    /// Probability that a customer who turns the page asks for something else.
    pub new_request: f64,
    /// Whether page numbers are observed.
    pub observe_page: bool,
    /// Whether the last answer is observed.
    pub observe_feedback: bool,
    /// Strength of tastes and level of buying, if they are not calibrated.
    pub strength: Option<Strength>,
}

/// The two numbers that are calibrated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Standard deviation of an archetype's utility among the candidates.
    pub tau: f64,
    /// Utility of an average item on the first page.
    pub b0: f64,
}

/// As bits: JSON keeps them exactly.
impl Serialize for Strength {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.tau.to_bits(), self.b0.to_bits()].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Strength {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [tau, b0] = <[u64; 2]>::deserialize(deserializer)?.map(f64::from_bits);
        Ok(Self { tau, b0 })
    }
}

impl Config {
    /// The world of a seed with everything as the referee is calibrated.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            items: 5_000,
            candidates: 200,
            long_tail: false,
            day: 0,
            hour: Hour::None,
            memory: 1,
            max_index: 100,
            repeat: true,
            continuing: false,
            leave: Leave::End,
            new_request: 0.0,
            observe_page: true,
            observe_feedback: true,
            strength: None,
        }
    }

    /// Refuses what makes no store.
    fn check(&self) -> Result<()> {
        let within = |what: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::argument(what, format!("{low} to {high}"), value))
        };
        within("candidates", self.candidates as u64, PAGE as u64, MOST_CANDIDATES as u64)?;
        within("day", self.day.into(), 0, LAST_DAY.into())?;
        within("memory", self.memory as u64, 1, MOST_MEMORY as u64)?;
        within("max_index", self.max_index.into(), 0, MOST_INDEX.into())?;
        if let Hour::At(hour) = self.hour
            && !(0.0..24.0).contains(&hour)
        {
            return Err(Error::argument("hour", "at least 0 and below 24, or None", hour));
        }
        if !(0.0..=1.0).contains(&self.new_request) {
            return Err(Error::argument("new_request", "a probability", self.new_request));
        }
        if let Some(Strength { tau, b0 }) = self.strength {
            let (low, high) = calibrate::TAU_RANGE;
            if !(0.0..=high).contains(&tau) {
                return Err(Error::argument(
                    "tau",
                    format!("0 to {high} (usual: {low} to 3)"),
                    tau,
                ));
            }
            if b0.is_nan() || b0.abs() > calibrate::MOST_LEVEL {
                let expected = format!("a number within +-{}", calibrate::MOST_LEVEL);
                return Err(Error::argument("b0", expected, b0));
            }
        }
        Ok(())
    }
}

/// The candidates of one query.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Attributes, packed.
    pub packed: PackedRows,
    /// Row in the catalogue of each candidate, ascending.
    pub rows: Vec<u32>,
    /// Price of each, in cents.
    pub cents: Vec<u32>,
    /// Attributes, row by row.
    pub attributes: Vec<f32>,
}

/// A frozen store. A copy shares catalogue and shelves, so it costs little.
#[derive(Clone, Debug)]
pub struct Store {
    /// What it was made of.
    pub config: Config,
    /// Customers, items and actions, as a simulator's schema.
    pub schema: Schema,
    /// SHA-256 of the configuration and of what was made of it.
    pub digest: String,
    /// Figures of the calibration; `None` with explicit parameters.
    pub calibration: Option<Calibration>,
    /// `w_base`, as it is added to actions.
    pub production: [f32; ATTRIBUTES],
    /// Candidates of each query.
    pub shelves: Arc<[Shelf]>,
    /// Means of the state-dependent logger, by query.
    pub logged_means: Vec<[f32; ATTRIBUTES]>,
    /// The world's tastes on its day, before they are scaled by `tau`. Hidden from learners.
    pub taste: Taste,
    /// The world's customers on its day. Hidden from learners.
    pub customers: Customers,
    /// The calibrated numbers. Hidden from learners.
    pub strength: Strength,
    /// How customers answer.
    pub model: Arc<dyn CustomerModel>,
    /// The hour at which buying crosses its mean on the way up. Hidden from learners.
    pub phase: f64,
    catalogue: Arc<Catalogue>,
    referee: Arc<Referee>,
    kernels: Kernels,
}

impl Store {
    /// Makes a world, calibrates it unless its strength is given, and moves it to its day.
    ///
    /// # Errors
    /// [`Error::Argument`] for a configuration that makes no store, [`Error::World`] for a seed
    /// whose world is not fair: too easy, too hard, or without structure.
    pub fn new(config: Config, threads: Option<usize>) -> Result<Self> {
        config.check()?;
        let threads = parallel::resolve(threads)?;
        let categories = if config.long_tail { Categories::LongTail } else { Categories::Even };
        let Config { seed, items, candidates, day, .. } = config;
        let catalogue = Catalogue::new(seed, items, categories, candidates, threads)?;
        let shelves: Arc<[Shelf]> =
            catalogue.candidates.iter().map(|r| shelf(&catalogue, r)).collect();
        let kernels = Kernels::best()?;
        let taste = Taste::new(seed, &catalogue.covariance, 0);
        let production = taste.production.map(|value| value as f32);
        let customers = Customers::new(seed, 0);
        let (strength, calibration) = match config.strength {
            Some(strength) => (strength, None),
            None => {
                let world = World::new(&config, kernels, &shelves, &taste, &customers);
                let (strength, calibration) = world.calibrate()?;
                (strength, Some(calibration))
            }
        };
        let taste = Taste::new(seed, &catalogue.covariance, day);
        let customers = Customers::new(seed, day);
        let referee = Arc::new(Referee::new(&config, strength, &taste, &shelves));
        let logged_means = taste::logged_means(seed, QUERIES);
        let digest = digest(&config, strength, &production, &shelves, referee.as_ref());
        Ok(Self {
            schema: schema(),
            digest,
            calibration,
            production,
            shelves,
            logged_means,
            taste,
            customers,
            phase: page::phase(seed),
            strength,
            model: referee.clone(),
            referee,
            catalogue: Arc::new(catalogue),
            kernels,
            config,
        })
    }

    /// The same store with customers that answer in another way.
    pub fn with_model(self, model: Arc<dyn CustomerModel>) -> Self {
        let digest = tensor_file::hash(format!("{} {}", self.digest, model.name()).as_bytes());
        Self { model, digest, ..self }
    }

    /// The referee: how customers truly answer.
    pub fn referee(&self) -> &Arc<Referee> {
        &self.referee
    }

    /// The kernels that everything here is computed with.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// The item of a row below `config.items`.
    pub fn item(&self, row: u32) -> Item {
        self.catalogue.item(row)
    }

    /// Covariance of the attributes within categories, row by row.
    pub fn covariance(&self) -> &[f64] {
        &self.catalogue.covariance
    }

    /// Columns of an observation: customer, feedback (2), page, and the actions before the last
    /// page's where the memory is longer than 1.
    pub fn observation_width(&self) -> usize {
        self.schema.observation_width() + (self.config.memory - 1) * ATTRIBUTES
    }

    /// Rows of the pages that actions (27 values each) show to customers with these queries. As in
    /// the page loop, actions are clipped into the box.
    pub fn pages(&self, actions: &[f32], queries: &[u8]) -> Result<Vec<u32>> {
        if let Some(query) = queries.iter().find(|query| usize::from(**query) >= QUERIES) {
            return Err(Error::argument("queries", format!("0 to {}", QUERIES - 1), query));
        }
        if let Some(value) = refused_value(actions) {
            let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
            return Err(Error::argument("actions", expected, value));
        }
        let (mut rows, mut scores) = (Vec::with_capacity(queries.len() * PAGE), Vec::new());
        let mut page = [0; PAGE];
        for (action, query) in actions.chunks(ATTRIBUTES).zip(queries) {
            let weights: [f32; ATTRIBUTES] =
                std::array::from_fn(|d| self.production[d] + clipped(action[d]));
            let shelf = &self.shelves[usize::from(*query)];
            shelf.packed.top_k(self.kernels, 1, &weights, PAGE, &mut scores, &mut page);
            rows.extend(page.iter().map(|position| shelf.rows[*position as usize]));
        }
        Ok(rows)
    }

    /// A world to compute exact figures with: the share of pages that sell under given pages.
    pub fn world(&self) -> World<'_> {
        World::new(&self.config, self.kernels, &self.shelves, &self.taste, &self.customers)
    }
}

/// A value of an action, as it is executed.
fn clipped(value: f32) -> f32 {
    value.clamp(ACTION_RANGE[0], ACTION_RANGE[1])
}

/// Attributes and prices of a query's candidates.
fn shelf(catalogue: &Catalogue, rows: &[u32]) -> Shelf {
    let items: Vec<Item> = rows.iter().map(|row| catalogue.item(*row)).collect();
    let attributes: Vec<f32> = items.iter().flat_map(|item| item.attributes).collect();
    Shelf {
        packed: PackedRows::pack(&attributes, ATTRIBUTES),
        rows: rows.to_vec(),
        cents: items.iter().map(|item| item.cents).collect(),
        attributes,
    }
}

/// Customers and actions as a simulator's schema: what policies and logs refer to.
pub fn schema() -> Schema {
    let field = |(index, size): (usize, usize)| Field { name: format!("field_{index}"), size };
    Schema {
        customer: FIELDS.into_iter().enumerate().map(field).collect(),
        action: ATTRIBUTES,
        action_range: ACTION_RANGE,
    }
}

fn digest(
    config: &Config,
    strength: Strength,
    production: &[f32],
    shelves: &[Shelf],
    referee: &Referee,
) -> String {
    let given = Config { strength: Some(strength), ..config.clone() };
    let mut bytes = tensor_file::json(&given).into_bytes();
    bytes.extend(production.iter().flat_map(|value| value.to_le_bytes()));
    for shelf in shelves {
        bytes.extend(shelf.rows.iter().flat_map(|row| row.to_le_bytes()));
        bytes.extend(shelf.cents.iter().flat_map(|cents| cents.to_le_bytes()));
        bytes.extend(shelf.attributes.iter().flat_map(|value| value.to_le_bytes()));
    }
    referee.extend(&mut bytes);
    tensor_file::hash(&bytes)
}

#[cfg(test)]
mod tests;
