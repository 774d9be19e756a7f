//! The customers of a store: a mixture of archetypes with a known density.

use super::draws::{Draws, softmax};
use super::{PAUSE, Part, draws};
use crate::error::Result;

/// Categories of each customer field.
pub const FIELDS: [usize; 11] = [8, 8, 11, 11, 11, 11, 2, 2, 3, 18, 3];
/// The field that is the customer's query: a category of items.
pub const QUERY_FIELD: usize = 9;
/// Queries, and so categories of items.
pub const QUERIES: usize = FIELDS[QUERY_FIELD];
/// Archetypes of customers.
pub const ARCHETYPES: usize = 16;
/// Columns of a one-hot customer.
const COLUMNS: usize = 88;

/// How often each category of each field occurs among the 100,000 rows of the data set that was
/// published with VirtualTaobao (Shi et al., AAAI 2019; github.com/eyounx/VirtualTaobao,
/// `dataset.txt`): its exact column sums.
const PUBLISHED_COUNTS: [u32; COLUMNS] = [
    11_490, 24_299, 14_674, 18_645, 8_285, 3_776, 1_415, 17_416, // field 0
    9_409, 17_695, 3_433, 37_358, 1_118, 7_530, 750, 22_707, // field 1
    1_552, 30_553, 6_461, 11_359, 2_430, 14_650, 3_521, 2_305, 797, 6_013, 20_359, // field 2
    7_036, 9_204, 3_301, 473, 56_942, 3_094, 824, 2_342, 1_054, 4_565, 11_165, // field 3
    5_663, 38, 28, 74, 114, 2_533, 13_805, 1_241, 19_164, 2_729, 54_611, // field 4
    4_993, 93, 181, 12, 817, 3_735, 69_519, 4_924, 5_290, 1_486, 8_950, // field 5
    98_191, 1_809, // field 6
    98_482, 1_518, // field 7
    4_037, 88_326, 7_637, // field 8
    272, 210, 4_051, 2_479, 20_731, 1_474, 25_697, 3_387, 27_996, 451, 5_044, 510, 4_265, 1_296,
    1_649, 48, 62, 378, // field 9
    6_394, 9_904, 83_702, // field 10
];
const PUBLISHED_ROWS: f64 = 100_000.0;

/// Dirichlet shape of the archetypes' shares.
const SHARE_SHAPE: f64 = 2.0;
/// Part of a field's distribution that is the archetype's own; the rest is the published shares.
const OWN: f64 = 0.98;
/// Dirichlet shapes of an archetype's own part: `SPREAD * categories * share + FLOOR`.
const SPREAD: f64 = 0.3;
const FLOOR: f64 = 0.001;
/// Standard deviation of a day's step in the logarithms of the archetypes' shares.
const DAILY_STEP: f64 = 0.1;

/// `pi_k` and `P(x_f | k)`.
#[derive(Clone, Debug)]
pub struct Customers {
    /// Shares of the archetypes.
    pub shares: Vec<f64>,
    /// `P(x_f = c | k)`, 88 columns an archetype.
    pub probabilities: Vec<f64>,
    cumulative_shares: Vec<f64>,
    /// Cumulative within each field, 88 columns an archetype.
    cumulative: Vec<f64>,
}

impl Customers {
    /// The customers of a world on a day.
    pub fn new(seed: u64, day: u32) -> Self {
        let shapes = [SHARE_SHAPE; ARCHETYPES];
        let mut shares = draws(seed, Part::Shares, 0).dirichlet(&shapes);
        let mut probabilities = Vec::with_capacity(ARCHETYPES * COLUMNS);
        for archetype in 0..ARCHETYPES {
            let mut source = draws(seed, Part::Fields, archetype as u64);
            let mut first = 0;
            for size in FIELDS {
                let base: Vec<f64> = PUBLISHED_COUNTS[first..first + size]
                    .iter()
                    .map(|count| f64::from(*count) / PUBLISHED_ROWS)
                    .collect();
                let shapes: Vec<f64> =
                    base.iter().map(|share| SPREAD * size as f64 * share + FLOOR).collect();
                let own = source.dirichlet(&shapes);
                probabilities.extend(
                    own.iter().zip(&base).map(|(own, base)| OWN * own + (1.0 - OWN) * base),
                );
                first += size;
            }
        }
        if day > 0 {
            let mut logs: Vec<f64> = shares.iter().map(|share| libm::log(*share)).collect();
            for passed in 1..=day {
                let mut steps = draws(seed, Part::ShareSteps, u64::from(passed));
                logs.iter_mut().for_each(|log| *log += DAILY_STEP * steps.normal());
            }
            shares = softmax(&logs);
        }
        let mut cumulative = Vec::with_capacity(probabilities.len());
        for columns in probabilities.chunks(COLUMNS) {
            let mut first = 0;
            for size in FIELDS {
                cumulative.extend(running(&columns[first..first + size]));
                first += size;
            }
        }
        Self { cumulative_shares: running(&shares), shares, probabilities, cumulative }
    }

    /// Draws a customer: the archetype, and the fields' codes into `codes`.
    pub fn draw(&self, source: &mut Draws, codes: &mut [u8]) -> u8 {
        let archetype = pick(&self.cumulative_shares, source.uniform());
        let mut rest = &self.cumulative[archetype * COLUMNS..][..COLUMNS];
        for (code, size) in codes.iter_mut().zip(FIELDS) {
            let (field, others) = rest.split_at(size);
            *code = pick(field, source.uniform()) as u8;
            rest = others;
        }
        archetype as u8
    }

    /// The query of a customer of an archetype, by a uniform: what a new request asks for.
    pub fn request(&self, archetype: u8, uniform: f64) -> u8 {
        let first: usize = FIELDS[..QUERY_FIELD].iter().sum();
        let field = &self.cumulative[usize::from(archetype) * COLUMNS + first..][..QUERIES];
        pick(field, uniform) as u8
    }

    /// `P(archetype and query)`.
    pub fn cell(&self, archetype: usize, query: usize) -> f64 {
        let first: usize = FIELDS[..QUERY_FIELD].iter().sum();
        self.shares[archetype] * self.probabilities[archetype * COLUMNS + first + query]
    }

    /// `ln p(x)` of a customer's codes, which must be within their fields.
    pub fn ln_density(&self, codes: &[u8]) -> f64 {
        let logs: Vec<f64> = (0..ARCHETYPES)
            .map(|archetype| {
                let columns = &self.probabilities[archetype * COLUMNS..][..COLUMNS];
                let (mut first, mut sum) = (0, libm::log(self.shares[archetype]));
                for (code, size) in codes.iter().zip(FIELDS) {
                    sum += libm::log(columns[first + usize::from(*code)]);
                    first += size;
                }
                sum
            })
            .collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + libm::log(logs.iter().map(|log| libm::exp(log - largest)).sum::<f64>())
    }

    /// `P(x_f = c)` of all columns.
    pub fn marginals(&self) -> Vec<f64> {
        let mut marginals = vec![0.0; COLUMNS];
        for (share, columns) in self.shares.iter().zip(self.probabilities.chunks(COLUMNS)) {
            marginals.iter_mut().zip(columns).for_each(|(sum, p)| *sum += share * p);
        }
        marginals
    }

    /// Entropy and total correlation in nat, by the exact density of `count` drawn customers and
    /// the exact marginals.
    pub fn entropy(
        &self,
        seed: u64,
        count: u64,
        interrupt: &dyn Fn() -> Result<()>,
    ) -> Result<(f64, f64)> {
        let mut codes = [0; FIELDS.len()];
        let mut sum = 0.0;
        for customer in 0..count {
            if customer.is_multiple_of(PAUSE as u64) {
                interrupt()?;
            }
            self.draw(&mut draws(seed, Part::Check, customer), &mut codes);
            sum -= self.ln_density(&codes);
        }
        let entropy = sum / count as f64;
        let of_fields: f64 = self.marginals().iter().map(|p| -p * libm::log(*p)).sum();
        Ok((entropy, of_fields - entropy))
    }
}

/// Running sums.
fn running(values: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    values
        .iter()
        .map(|value| {
            sum += value;
            sum
        })
        .collect()
}

/// The category in which a uniform falls; the last one also takes what rounding leaves over.
fn pick(cumulative: &[f64], uniform: f64) -> usize {
    let inside = &cumulative[..cumulative.len() - 1];
    inside.iter().filter(|sum| **sum <= uniform).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_eleven_fields_of_a_hundred_thousand() {
        assert_eq!(FIELDS.iter().sum::<usize>(), COLUMNS);
        let mut first = 0;
        for size in FIELDS {
            let total: u32 = PUBLISHED_COUNTS[first..first + size].iter().sum();
            assert_eq!(total, 100_000, "field at column {first}");
            first += size;
        }
    }

    #[test]
    fn every_field_of_every_archetype_is_a_distribution() {
        let customers = Customers::new(3, 0);
        let marginals = customers.marginals();
        let mut first = 0;
        for size in FIELDS {
            let sum: f64 = marginals[first..first + size].iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "field at column {first}: {sum}");
            first += size;
        }
        for columns in customers.probabilities.chunks(COLUMNS) {
            assert!(columns.iter().all(|p| *p > 0.0));
        }
    }

    #[test]
    fn drift_moves_shares_but_not_fields() {
        let (today, later) = (Customers::new(3, 0), Customers::new(3, 30));
        assert_eq!(today.probabilities, later.probabilities);
        assert_ne!(today.shares, later.shares);
        assert!((later.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
