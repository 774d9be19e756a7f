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
mod config;
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
pub use config::{Config, Hour, Leave, MOST_CANDIDATES, MOST_INDEX, MOST_MEMORY, Strength};
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

/// Version of the worlds: the same version gives the same world for the same seed.
///
/// About one world in seven is no fair test and is refused. Worlds 0 to 4 (`run << 32`) are for
/// tuning and 100 to 104 for reports: this is the first number above 1 under which all ten are fair.
pub const WORLD_VERSION: u32 = 2;

/// Rows of a long answer between two looks at whether it is still wanted.
const PAUSE: usize = 1024;

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
        Self::watched(config, threads, &|| Ok(()))
    }

    /// [`Store::new`]; an error of `interrupt`, which is asked now and then, ends it.
    pub fn watched(
        config: Config,
        threads: Option<usize>,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        config.check()?;
        let threads = parallel::resolve(threads)?;
        let categories = if config.long_tail { Categories::LongTail } else { Categories::Even };
        let Config { seed, items, candidates, day, .. } = config;
        let catalogue = Catalogue::new(seed, items, categories, candidates, threads, interrupt)?;
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
                let (strength, calibration) = world.calibrate(interrupt)?;
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

    /// The items of the rows from `first` to `end`, which is at most their number.
    ///
    /// # Errors
    /// More than memory holds; `interrupt`'s own.
    pub fn items(
        &self,
        first: u64,
        end: u64,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Item>> {
        let (count, mut items) = (end.saturating_sub(first), Vec::new());
        if usize::try_from(count).is_ok_and(|count| items.try_reserve_exact(count).is_err()) {
            return Err(Error::argument("count", "as many items as memory holds", count));
        }
        for row in first..end {
            if row.is_multiple_of(PAUSE as u64) {
                interrupt()?;
            }
            items.push(self.item(row as u32));
        }
        Ok(items)
    }

    /// `ln p(x)` of customers by their codes, which must be within their fields.
    pub fn ln_densities(
        &self,
        codes: &[[u8; FIELDS.len()]],
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<f64>> {
        let mut densities = Vec::with_capacity(codes.len());
        for rows in codes.chunks(PAUSE) {
            interrupt()?;
            densities.extend(rows.iter().map(|row| self.customers.ln_density(row)));
        }
        Ok(densities)
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
    pub fn pages(
        &self,
        actions: &[f32],
        queries: &[u8],
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<u32>> {
        if let Some(query) = queries.iter().find(|query| usize::from(**query) >= QUERIES) {
            return Err(Error::argument("queries", format!("0 to {}", QUERIES - 1), query));
        }
        for actions in actions.chunks(PAUSE * ATTRIBUTES) {
            interrupt()?;
            if let Some(value) = refused_value(actions) {
                let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
                return Err(Error::argument("actions", expected, value));
            }
        }
        let (mut rows, mut scores) = (Vec::with_capacity(queries.len() * PAGE), Vec::new());
        let mut page = [0; PAGE];
        for (row, (action, query)) in actions.chunks(ATTRIBUTES).zip(queries).enumerate() {
            if row.is_multiple_of(PAUSE) {
                interrupt()?;
            }
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
