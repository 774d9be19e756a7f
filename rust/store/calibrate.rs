//! Calibration: the strength of tastes and the level of buying that make a world a fair test.
//!
//! Both are found by bisecting the share of pages that sell, which [`super::course`] computes.

use super::world::{CHECK_SAMPLES, Pages, World};
use super::{ATTRIBUTES, Part, Strength, draws};
use crate::error::{Error, Result};

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
/// Steps of the search for the best constant action, from each of its starts.
const SEARCH_STEPS: usize = 1_500;
/// Customers by whom structure is checked, and how much there has to be (nat).
const CHECKED_CUSTOMERS: u64 = 20_000;
const LEAST_CORRELATION: f64 = 1.0;

/// Asked now and then; an error of it ends the calibration.
type Interrupt<'a> = &'a dyn Fn() -> Result<()>;

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

impl World<'_> {
    /// Bisects `tau` and `b0`, then checks that the world is a fair test.
    ///
    /// Where items are not repeated, each page is worse than the one before, and no strength of
    /// tastes lets an oracle sell on 20 % of the pages. Such a store is a tier of its own: tastes
    /// are as strong as where items are repeated, only the level is the form's, and the oracle is
    /// reported as found.
    ///
    /// # Errors
    /// [`Error::World`] for a world that is none; `interrupt`'s own.
    pub fn calibrate(&self, interrupt: Interrupt<'_>) -> Result<(Strength, Calibration)> {
        let tau =
            if self.repeat { self.tau(interrupt)? } else { self.repeating().tau(interrupt)? };
        let b0 = self.level(&self.logged(Part::Logged, 1.0), tau, interrupt)?;
        let by = format!("level of buying (tastes of strength {tau:.2})");
        self.reached(("R2P of the logger", LOGGER), &by, b0, LEVEL_RANGE, LEVEL_STEPS)?;
        let strength = Strength { tau, b0 };
        let calibration = self.figures(strength, &self.oracle(), interrupt)?;
        self.check(&calibration)?;
        Ok((strength, calibration))
    }

    /// The strength of tastes at which the oracle sells as much as it is to.
    fn tau(&self, interrupt: Interrupt<'_>) -> Result<f64> {
        let (logged, oracle) = (self.logged(Part::Logged, 1.0), self.oracle());
        let tau = bisected(TAU_RANGE, STRENGTH_STEPS, |tau| {
            let strength = Strength { tau, b0: self.level(&logged, tau, interrupt)? };
            Ok(self.course_for(strength, &oracle).r2p() < ORACLE)
        })?;
        let by = "strength of tastes";
        self.reached(("R2P of the oracle", ORACLE), by, tau, TAU_RANGE, STRENGTH_STEPS)?;
        Ok(tau)
    }

    /// The level of buying at which the logger sells as much as it is to.
    fn level(&self, logged: &Pages, tau: f64, interrupt: Interrupt<'_>) -> Result<f64> {
        let cells = self.masses(&self.appeal(tau), |_| logged);
        bisected(LEVEL_RANGE, LEVEL_STEPS, |b0| {
            interrupt()?;
            Ok(self.course(&cells, b0).r2p() < LOGGER)
        })
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
    fn figures(
        &self,
        strength: Strength,
        oracle: &[Pages],
        interrupt: Interrupt<'_>,
    ) -> Result<Calibration> {
        // Pages of its own: a check on those that were fitted would say little.
        let logged = self.logged(Part::LoggedAgain, CHECK_SAMPLES);
        let course = self.course_under(strength, &logged);
        let zero = self.constant(&self.production);
        let (best_constant, best_weights) = self.best_constant(strength, interrupt)?;
        let (entropy, total_correlation) =
            self.customers.entropy(self.seed, CHECKED_CUSTOMERS, interrupt)?;
        Ok(Calibration {
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
        })
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

    /// The best constant action: a search that keeps what is better, from three starts, with
    /// steps that grow when they help and shrink when they do not.
    fn best_constant(
        &self,
        strength: Strength,
        interrupt: Interrupt<'_>,
    ) -> Result<(f64, [f32; ATTRIBUTES])> {
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
        let mut found: Option<(f64, [f32; ATTRIBUTES])> = None;
        for (index, start) in starts.into_iter().enumerate() {
            let mut source = draws(self.seed, Part::Search, index as u64);
            let (mut best, mut step) = (unit(start), 0.1);
            let mut reached = value(&best);
            for _ in 0..SEARCH_STEPS {
                interrupt()?;
                let tried = unit(best.map(|w| f64::from(w) + step * source.normal()));
                let got = value(&tried);
                if got > reached {
                    (best, reached, step) = (tried, got, (step * 1.5_f64).min(0.3));
                } else {
                    step = (step * 0.93).max(0.005);
                }
            }
            if found.is_none_or(|found| reached > found.0) {
                found = Some((reached, best));
            }
        }
        Ok(found.expect("there are starts"))
    }
}

/// Where a figure that rises with a number is no longer too low.
fn bisected(
    (low, high): (f64, f64),
    steps: usize,
    too_low: impl Fn(f64) -> Result<bool>,
) -> Result<f64> {
    let (low, high) = (0..steps).try_fold((low, high), |(low, high), _| {
        let middle = 0.5 * (low + high);
        too_low(middle).map(|too_low| if too_low { (middle, high) } else { (low, middle) })
    })?;
    Ok(0.5 * (low + high))
}
