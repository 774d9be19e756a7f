//! The items of a store: correlated attributes, categories, prices.
//!
//! `x = Lambda f + sqrt(.6) e + mean of the category`, with six factors `f` that explain .4 of each
//! attribute, then standardised over all items. Attribute 0 is the logarithm of the price, 1 the
//! sales, 2 the historical click-through rate; the rest is latent. An item is a function of seed
//! and row, so a catalogue of any size is made in a stream and only the candidates are kept.

use std::ops::ControlFlow;

use super::customers::QUERIES;
use super::{ATTRIBUTES, PAUSE, Part, draws};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::parallel;
use crate::rng::{Origin, Purpose};

/// Factors that the attributes share.
const FACTORS: usize = 6;
/// Part of an attribute's variance that the factors explain, within a category.
const COMMUNALITY: f64 = 0.4;
/// Standard deviation of the categories' means.
const CATEGORY_SPREAD: f64 = 0.3;
/// Exponent of the long-tailed categories: category c has a share in proportion to (c + 1)^-1.1.
const TAIL_EXPONENT: f64 = 1.1;
/// Median price and the standard deviation of its logarithm.
const MEDIAN_PRICE: f64 = 60.0;
const PRICE_SPREAD: f64 = 0.8;
/// Prices in cents lie in this range, so that they are exact in f32, as cents and rounded back
/// from units of money.
const PRICE_RANGE: [f64; 2] = [1.0, 10_000_000.0];

/// Draws an item takes: factors, own parts, and the place of its category if that is random.
const DRAWS: usize = FACTORS + ATTRIBUTES + 1;
/// Items made at a time by one thread.
const CHUNK: u64 = 1 << 16;
/// More items than this are taken for a mistake: rows are numbered with 32 bits.
pub const MOST_ITEMS: u64 = (1 << 32) - 2;

/// How items are spread over the categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Categories {
    /// Category = row mod 18.
    Even,
    /// A long tail: shares fall as a power of the category's number.
    LongTail,
}

/// One item.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Standardised attributes.
    pub attributes: [f32; ATTRIBUTES],
    /// Category.
    pub category: u8,
    /// Price in cents.
    pub cents: u32,
}

/// A world's items.
#[derive(Clone, Debug)]
pub struct Catalogue {
    seed: u64,
    /// Number of items.
    pub items: u64,
    kernels: Kernels,
    categories: Categories,
    /// Where each category ends in [0, 1), if they are not even.
    tail: Vec<f32>,
    loadings: Vec<[f32; FACTORS]>,
    category_means: Vec<[f32; ATTRIBUTES]>,
    mean: [f64; ATTRIBUTES],
    sd: [f64; ATTRIBUTES],
    /// Pooled covariance of the attributes within categories, row by row.
    pub covariance: Vec<f64>,
    /// The first rows of each category, ascending.
    pub candidates: Vec<Vec<u32>>,
}

/// Sums over some items, from which means and covariances follow.
struct Moments {
    counts: [u64; QUERIES],
    sums: Vec<[f64; ATTRIBUTES]>,
    squares: Vec<f64>,
    /// The first rows of each category in these items.
    rows: Vec<Vec<u32>>,
}

impl Catalogue {
    /// Makes the catalogue; keeps the first `candidates` rows of each category.
    pub fn new(
        seed: u64,
        items: u64,
        categories: Categories,
        candidates: usize,
        threads: usize,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let least = (QUERIES * super::PAGE) as u64;
        if !(least..=MOST_ITEMS).contains(&items) {
            return Err(Error::argument("items", format!("{least} to {MOST_ITEMS}"), items));
        }
        let mut source = draws(seed, Part::Loadings, 0);
        let loadings = (0..ATTRIBUTES)
            .map(|_| {
                let direction: [f64; FACTORS] = source.normals();
                let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
                direction.map(|v| (COMMUNALITY.sqrt() * v / norm) as f32)
            })
            .collect();
        let mut source = draws(seed, Part::CategoryMeans, 0);
        let category_means = (0..QUERIES)
            .map(|_| source.normals::<ATTRIBUTES>().map(|v| (CATEGORY_SPREAD * v) as f32))
            .collect();
        let mut catalogue = Self {
            seed,
            items,
            kernels: Kernels::best()?,
            categories,
            tail: tail(),
            loadings,
            category_means,
            mean: [0.0; ATTRIBUTES],
            sd: [1.0; ATTRIBUTES],
            covariance: Vec::new(),
            candidates: vec![Vec::new(); QUERIES],
        };
        let mut total: Option<Moments> = None;
        let work =
            |chunk: u64, go_on: &dyn Fn() -> bool| catalogue.moments(chunk, candidates, go_on);
        let take = |moments: Moments| {
            match &mut total {
                Some(total) => total.add(moments, candidates),
                None => total = Some(moments),
            }
            Ok(ControlFlow::Continue(()))
        };
        parallel::ordered(threads, items.div_ceil(CHUNK), work, take, interrupt)?;
        let total = total.expect("there are items");
        catalogue.standardise(total);
        if let Some((category, rows)) =
            catalogue.candidates.iter().enumerate().find(|(_, rows)| rows.len() < super::PAGE)
        {
            let expected = format!("enough for {} in each category", super::PAGE);
            let got = format!("{items}, of which {} in category {category}", rows.len());
            return Err(Error::argument("items", expected, got));
        }
        Ok(catalogue)
    }

    /// Attributes before standardisation, and the category.
    fn raw(&self, row: u64, values: &mut [f32; DRAWS]) -> ([f32; ATTRIBUTES], usize) {
        let origin =
            Origin { seed: self.seed, session: row, page: 0, purpose: Purpose::WorldItems };
        self.kernels.uniforms(origin, values);
        let category = match self.categories {
            Categories::Even => (row % QUERIES as u64) as usize,
            Categories::LongTail => {
                let place = values[DRAWS - 1];
                self.tail.iter().filter(|end| **end <= place).count().min(QUERIES - 1)
            }
        };
        self.kernels.normals(&mut values[..DRAWS - 1]);
        let (factors, own) = values[..DRAWS - 1].split_at(FACTORS);
        let scale = (1.0 - COMMUNALITY).sqrt() as f32;
        let means = &self.category_means[category];
        let attributes = std::array::from_fn(|attribute| {
            // Not fused: without the instruction, each such step would be a call.
            let mut sum = scale * own[attribute] + means[attribute];
            for (loading, factor) in self.loadings[attribute].iter().zip(factors) {
                sum += loading * factor;
            }
            sum
        });
        (attributes, category)
    }

    fn moments(&self, chunk: u64, candidates: usize, go_on: &dyn Fn() -> bool) -> Moments {
        let mut moments = Moments {
            counts: [0; QUERIES],
            sums: vec![[0.0; ATTRIBUTES]; QUERIES],
            squares: vec![0.0; ATTRIBUTES * ATTRIBUTES],
            rows: vec![Vec::new(); QUERIES],
        };
        let mut values = [0.0; DRAWS];
        for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(self.items) {
            if row.is_multiple_of(PAUSE as u64) && !go_on() {
                break;
            }
            let (raw, category) = self.raw(row, &mut values);
            let wide = raw.map(f64::from);
            moments.counts[category] += 1;
            for (sum, value) in moments.sums[category].iter_mut().zip(&wide) {
                *sum += value;
            }
            for (squares, left) in moments.squares.chunks_exact_mut(ATTRIBUTES).zip(&wide) {
                for (square, right) in squares.iter_mut().zip(&wide) {
                    *square += left * right;
                }
            }
            if moments.rows[category].len() < candidates {
                moments.rows[category].push(row as u32);
            }
        }
        moments
    }

    /// Means and standard deviations over all items, and the covariance within categories.
    fn standardise(&mut self, total: Moments) {
        let items = self.items as f64;
        self.mean = std::array::from_fn(|attribute| {
            total.sums.iter().map(|sums| sums[attribute]).sum::<f64>() / items
        });
        let square = |a: usize, b: usize| total.squares[a * ATTRIBUTES + b];
        self.sd = std::array::from_fn(|a| (square(a, a) / items - self.mean[a].powi(2)).sqrt());
        let filled = total.counts.iter().filter(|count| **count > 0).count() as f64;
        self.covariance = (0..ATTRIBUTES * ATTRIBUTES)
            .map(|cell| {
                let (a, b) = (cell / ATTRIBUTES, cell % ATTRIBUTES);
                let between: f64 = (total.sums.iter().zip(&total.counts))
                    .filter(|(_, count)| **count > 0)
                    .map(|(sums, count)| sums[a] * sums[b] / *count as f64)
                    .sum();
                (square(a, b) - between) / (items - filled) / (self.sd[a] * self.sd[b])
            })
            .collect();
        self.candidates = total.rows;
    }

    /// The item of a row, below [`Self::items`].
    pub fn item(&self, row: u32) -> Item {
        let (raw, category) = self.raw(u64::from(row), &mut [0.0; DRAWS]);
        let standard = |a: usize| (f64::from(raw[a]) - self.mean[a]) / self.sd[a];
        let price = MEDIAN_PRICE * libm::exp(PRICE_SPREAD * standard(0));
        let [low, high] = PRICE_RANGE;
        Item {
            attributes: std::array::from_fn(|attribute| standard(attribute) as f32),
            category: category as u8,
            cents: (100.0 * price).round().clamp(low, high) as u32,
        }
    }
}

impl Moments {
    fn add(&mut self, other: Self, candidates: usize) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        self.squares.iter_mut().zip(&other.squares).for_each(|(mine, theirs)| *mine += theirs);
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            let room = candidates - mine.len();
            mine.extend(theirs.iter().take(room));
        }
    }
}

/// Where each of the long-tailed categories ends.
fn tail() -> Vec<f32> {
    let weight = |c: usize| libm::exp(-TAIL_EXPONENT * libm::log((c + 1) as f64));
    let total: f64 = (0..QUERIES).map(weight).sum();
    let mut sum = 0.0;
    (0..QUERIES)
        .map(|c| {
            sum += weight(c);
            (sum / total) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(items: u64, categories: Categories, threads: usize) -> Catalogue {
        Catalogue::new(7, items, categories, 200, threads, &|| Ok(())).expect("valid")
    }

    #[test]
    fn attributes_are_standardised_and_correlated() {
        let catalogue = catalogue(5_000, Categories::Even, 1);
        let items: Vec<Item> = (0..5_000).map(|row| catalogue.item(row)).collect();
        for attribute in 0..ATTRIBUTES {
            let column: Vec<f64> =
                items.iter().map(|item| f64::from(item.attributes[attribute])).collect();
            let mean = column.iter().sum::<f64>() / 5_000.0;
            let square = column.iter().map(|v| v * v).sum::<f64>() / 5_000.0;
            assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5, "{mean} {square}");
        }
        // Two attributes share at most .4 of their variance, and some of them a good part of it.
        let off: Vec<f64> = (0..ATTRIBUTES * ATTRIBUTES)
            .filter(|cell| cell / ATTRIBUTES != cell % ATTRIBUTES)
            .map(|cell| catalogue.covariance[cell].abs())
            .collect();
        assert!(off.iter().all(|c| *c < 0.5));
        assert!(off.iter().filter(|c| **c > 0.2).count() > 50);
    }

    #[test]
    fn neither_threads_nor_size_change_an_item_before_standardisation() {
        let (one, two) = (
            catalogue(200_000, Categories::LongTail, 1),
            catalogue(200_000, Categories::LongTail, 2),
        );
        assert_eq!(one.covariance, two.covariance);
        assert_eq!(one.candidates, two.candidates);
        assert_eq!(one.item(199_999).attributes, two.item(199_999).attributes);
    }

    #[test]
    fn candidates_are_the_first_rows_of_their_category() {
        for categories in [Categories::Even, Categories::LongTail] {
            let catalogue = catalogue(70_000, categories, 2);
            let mut seen = vec![Vec::new(); QUERIES];
            for row in 0..70_000 {
                let rows = &mut seen[usize::from(catalogue.item(row).category)];
                if rows.len() < 200 {
                    rows.push(row);
                }
            }
            assert_eq!(catalogue.candidates, seen);
        }
    }

    #[test]
    fn the_tail_is_long() {
        let catalogue = catalogue(70_000, Categories::LongTail, 1);
        let mut counts = [0; QUERIES];
        (0..70_000).for_each(|row| counts[usize::from(catalogue.item(row).category)] += 1);
        assert!(counts[0] > 15 * counts[17] && counts[17] > 500, "{counts:?}");
    }

    #[test]
    fn prices_are_log_normal() {
        let catalogue = catalogue(20_000, Categories::Even, 1);
        let mut cents: Vec<u32> = (0..20_000).map(|row| catalogue.item(row).cents).collect();
        cents.sort_unstable();
        let quantile = |q: usize| f64::from(cents[q]) / 100.0;
        assert!((quantile(10_000) / MEDIAN_PRICE - 1.0).abs() < 0.05);
        // One standard deviation up and down.
        let spread = (quantile(16_827) / quantile(3_173)).ln() / 2.0;
        assert!((spread - PRICE_SPREAD).abs() < 0.05, "{spread}");
    }

    #[test]
    fn too_few_items_are_refused() {
        for (items, categories) in [(179, Categories::Even), (400, Categories::LongTail)] {
            assert!(Catalogue::new(1, items, categories, 200, 1, &|| Ok(())).is_err());
        }
    }
}
