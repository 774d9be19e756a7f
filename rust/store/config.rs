//! What a store is made of.

use serde::{Deserialize, Serialize};

use super::PAGE;
use super::calibrate::{MOST_LEVEL, TAU_RANGE};
use super::taste::LAST_DAY;
use crate::error::{Error, Result};

/// Candidates of a query at most.
pub const MOST_CANDIDATES: usize = 1 << 16;
/// Page numbers at most; logs count pages with 16 bits.
pub const MOST_INDEX: u32 = 32_000;
/// Actions that a customer's answer may depend on at most.
pub const MOST_MEMORY: usize = 64;

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
    pub(super) fn check(&self) -> Result<()> {
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
            let (low, high) = TAU_RANGE;
            if !(0.0..=high).contains(&tau) {
                return Err(Error::argument(
                    "tau",
                    format!("0 to {high} (usual: {low} to 3)"),
                    tau,
                ));
            }
            if b0.is_nan() || b0.abs() > MOST_LEVEL {
                let expected = format!("a number within +-{MOST_LEVEL}");
                return Err(Error::argument("b0", expected, b0));
            }
        }
        Ok(())
    }
}
