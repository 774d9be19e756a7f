//! What customers like: `theta_k` of each archetype, the production weights, and their drift.
//!
//! Inner products are `<u, v> = u' S v` with S the covariance of the attributes within a category,
//! so that the square norm of a taste is the variance of its utility among a query's candidates.

use super::customers::ARCHETYPES;
use super::draws::Draws;
use super::{ATTRIBUTES, Part, draws};

/// A vector of attribute weights.
pub type Weights = [f64; ATTRIBUTES];

/// Part of a taste's variance that is the archetype's own.
const OWN: f64 = 0.6;
/// Norm of the production weights: twice the median norm of a logged action. This ratio decides
/// how much an action matters.
const PRODUCTION_NORM: f64 = 0.06;
/// Part of the production weights that is the shared taste.
const PRODUCTION_SHARED: f64 = 0.7;
/// Standard deviation of each dimension of a logged action: a median norm of .030.
pub const LOGGED_SD: f64 = 0.03 / 5.1325;
/// The mean of the state-dependent logger is at most so many standard deviations.
const STATE_DEPENDENCE: f64 = 0.5;
/// Degrees by which tastes have turned, by day.
const DRIFT: [(f64, f64); 4] = [(0.0, 0.0), (1.0, 20.0), (7.0, 45.0), (30.0, 70.0)];
/// The last day that drift is defined for.
pub const LAST_DAY: u32 = 30;

/// The tastes of a world, for `tau` = 1.
#[derive(Clone, Debug)]
pub struct Taste {
    /// The taste that all share, of S-norm 1.
    pub shared: Weights,
    /// `theta_k / tau`.
    pub archetypes: Vec<Weights>,
    /// `w_base`.
    pub production: Weights,
}

impl Taste {
    /// The tastes of a world with this covariance, on a day.
    pub fn new(seed: u64, covariance: &[f64], day: u32) -> Self {
        let metric = Metric(covariance);
        let mut source = draws(seed, Part::Taste, 0);
        let mut shared: Weights = source.normals();
        // A lower price, more sales and a higher click-through rate are liked by all.
        shared[0] = -shared[0].abs();
        shared[1] = shared[1].abs();
        shared[2] = shared[2].abs();
        let shared = metric.unit(&shared);
        let archetypes = (0..ARCHETYPES).map(|archetype| {
            let mut source = draws(seed, Part::Taste, 1 + archetype as u64);
            let own = metric.random_orthogonal(&mut source, &[shared]);
            combine((1.0 - OWN).sqrt(), &shared, OWN.sqrt(), &own)
        });
        let mut archetypes: Vec<Weights> = archetypes.collect();
        let mut source = draws(seed, Part::Production, 0);
        let other = metric.random_orthogonal(&mut source, &[shared]);
        let beside = (1.0 - PRODUCTION_SHARED * PRODUCTION_SHARED).sqrt();
        let direction = combine(PRODUCTION_SHARED, &shared, beside, &other);
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
        let production = direction.map(|v| PRODUCTION_NORM * v / length);
        if day > 0 {
            let along = metric.unit(&production);
            for (archetype, taste) in archetypes.iter_mut().enumerate() {
                let mut source = draws(seed, Part::Rotation, archetype as u64);
                *taste = metric.rotate(taste, &along, angle(day), &mut source);
            }
        }
        Self { shared, archetypes, production }
    }
}

/// The mean of the state-dependent logger for each query: uniform in +-.5 standard deviations.
pub fn logged_means(seed: u64, queries: usize) -> Vec<[f32; ATTRIBUTES]> {
    let mut source = draws(seed, Part::LoggedMeans, 0);
    let mut mean = || (STATE_DEPENDENCE * LOGGED_SD * (2.0 * source.uniform() - 1.0)) as f32;
    (0..queries).map(|_| std::array::from_fn(|_| mean())).collect()
}

/// Degrees by which tastes have turned on a day.
pub fn angle(day: u32) -> f64 {
    let day = f64::from(day.min(LAST_DAY));
    let [.., (mut angle, _)] = DRIFT;
    for pair in DRIFT.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        if (from..=to).contains(&day) {
            angle = low + (high - low) * (day - from) / (to - from);
        }
    }
    angle
}

fn combine(a: f64, left: &Weights, b: f64, right: &Weights) -> Weights {
    std::array::from_fn(|i| a * left[i] + b * right[i])
}

/// The inner product of a covariance.
pub struct Metric<'a>(pub &'a [f64]);

impl Metric<'_> {
    /// `u' S v`.
    pub fn inner(&self, u: &Weights, v: &Weights) -> f64 {
        let row = |row: &[f64]| row.iter().zip(v).map(|(s, v)| s * v).sum::<f64>();
        self.0.chunks(ATTRIBUTES).zip(u).map(|(s, u)| u * row(s)).sum()
    }

    /// The vector scaled to norm 1.
    pub fn unit(&self, v: &Weights) -> Weights {
        let norm = self.inner(v, v).sqrt();
        v.map(|value| value / norm)
    }

    /// What of `v` is orthogonal to some unit vectors, which are orthogonal to one another.
    fn orthogonal(&self, v: &Weights, to: &[Weights]) -> Weights {
        to.iter().fold(*v, |v, unit| combine(1.0, &v, -self.inner(&v, unit), unit))
    }

    /// A random unit vector orthogonal to such vectors.
    fn random_orthogonal(&self, source: &mut Draws, to: &[Weights]) -> Weights {
        let drawn: Weights = source.normals();
        self.unit(&self.orthogonal(&drawn, to))
    }

    /// Turns the part of `v` that is orthogonal to the unit vector `along` by some degrees, towards
    /// a random direction that is orthogonal to both.
    fn rotate(&self, v: &Weights, along: &Weights, degrees: f64, source: &mut Draws) -> Weights {
        let part = self.orthogonal(v, &[*along]);
        let norm = self.inner(&part, &part).sqrt();
        let unit = self.unit(&part);
        let towards = self.random_orthogonal(source, &[*along, unit]);
        let angle = degrees * std::f64::consts::PI / 180.0;
        let turned = combine(norm * libm::cos(angle), &unit, norm * libm::sin(angle), &towards);
        combine(1.0, &turned, self.inner(v, along), along)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A covariance with structure: ones on the diagonal, .3 beside it.
    fn covariance() -> Vec<f64> {
        let cell = |cell: usize| match (cell / ATTRIBUTES).abs_diff(cell % ATTRIBUTES) {
            0 => 1.0,
            1 => 0.3,
            _ => 0.0,
        };
        (0..ATTRIBUTES * ATTRIBUTES).map(cell).collect()
    }

    #[test]
    fn tastes_have_the_norms_and_angles_of_the_definition() {
        let covariance = covariance();
        let (taste, metric) = (Taste::new(5, &covariance, 0), Metric(&covariance));
        assert!((metric.inner(&taste.shared, &taste.shared) - 1.0).abs() < 1e-12);
        assert!(taste.shared[0] < 0.0 && taste.shared[1] > 0.0 && taste.shared[2] > 0.0);
        for theta in &taste.archetypes {
            assert!((metric.inner(theta, theta) - 1.0).abs() < 1e-12);
            assert!((metric.inner(theta, &taste.shared) - 0.4_f64.sqrt()).abs() < 1e-12);
        }
        let norm = taste.production.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((norm - 0.06).abs() < 1e-12);
        let along = metric.unit(&taste.production);
        assert!((metric.inner(&along, &taste.shared) - 0.7).abs() < 1e-12);
    }

    #[test]
    fn drift_turns_what_is_orthogonal_to_the_production_weights() {
        let covariance = covariance();
        let metric = Metric(&covariance);
        let today = Taste::new(5, &covariance, 0);
        let along = metric.unit(&today.production);
        for (day, degrees) in [(1, 20.0), (4, 32.5), (7, 45.0), (30, 70.0)] {
            let later = Taste::new(5, &covariance, day);
            assert_eq!(later.production, today.production);
            for (old, new) in today.archetypes.iter().zip(&later.archetypes) {
                let kept = metric.inner(new, &along) - metric.inner(old, &along);
                assert!(kept.abs() < 1e-12);
                let (old, new) =
                    (metric.orthogonal(old, &[along]), metric.orthogonal(new, &[along]));
                let cosine = metric.inner(&metric.unit(&old), &metric.unit(&new));
                assert!((cosine.acos().to_degrees() - degrees).abs() < 1e-6, "day {day}");
            }
        }
    }
}
