//! How customers answer a page: the seam where a learned model takes the referee's place.

use super::taste::Taste;
use super::view::Pages;
use super::{ARCHETYPES, ATTRIBUTES, Config, PAGE, QUERIES, Shelf, Strength};
use crate::error::{Error, Result};

/// Answers a customer chooses from: buy one of ten, turn, leave.
pub const CHOICES: usize = PAGE + 2;
/// The answer "turn the page".
pub const TURN: usize = PAGE;
/// The answer "leave".
pub const LEAVE: usize = PAGE + 1;

/// Fall of an item's utility with each page.
const BUY_FALL: f64 = 0.03;
/// Utility of turning the first page, and its fall with each page.
const TURN_LEVEL: f64 = 0.0;
const TURN_FALL: f64 = 0.02;
/// Utility of leaving at the first page, and its rise with each page.
const LEAVE_LEVEL: f64 = -2.3;
const LEAVE_RISE: f64 = 0.05;
/// Swing of an item's utility over the day.
pub const DAY_SWING: f64 = 0.11;

/// How customers answer. The page loop asks for some pages at a time and draws the answers
/// itself, so a model is a pure function and results stay reproducible.
pub trait CustomerModel: std::fmt::Debug + Send + Sync {
    /// What logs call it: models of the same name answer alike.
    fn name(&self) -> String;

    /// Weights of the answers to each page, in proportion to their probabilities: at least 0,
    /// finite, not all 0.
    ///
    /// # Errors
    /// Whatever keeps it from answering; the page loop then stops and no customer has moved.
    fn answer(&self, pages: &Pages<'_>, weights: &mut [[f64; CHOICES]]) -> Result<()>;
}

/// The levels of a page number: what multiplies an item's weight, and the weights of the rest.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// `exp(b0 - b1 n)`, times which `exp(theta x)` is an item's weight.
    pub buy: f64,
    /// Weight of turning the page.
    pub turn: f64,
    /// Weight of leaving.
    pub leave: f64,
}

/// The levels of all page numbers.
pub fn levels(b0: f64, max_index: u32) -> Vec<Level> {
    (0..=max_index)
        .map(|page| {
            let n = f64::from(page);
            Level {
                buy: libm::exp(b0 - BUY_FALL * n),
                turn: libm::exp(TURN_LEVEL - TURN_FALL * n),
                leave: libm::exp(LEAVE_LEVEL + LEAVE_RISE * n),
            }
        })
        .collect()
}

/// The true customers: a multinomial logit with the archetype's taste.
#[derive(Debug)]
pub struct Referee {
    levels: Vec<Level>,
    /// `exp(theta_k x)` of each query's candidates, all archetypes one after the other.
    appeal: Vec<Vec<f64>>,
    candidates: Vec<usize>,
}

impl Referee {
    pub(super) fn new(
        config: &Config,
        strength: Strength,
        taste: &Taste,
        shelves: &[Shelf],
    ) -> Self {
        let appeal = shelves.iter().map(|shelf| {
            let of = |theta: &[f64; ATTRIBUTES]| -> Vec<f64> {
                let utility = |x: &[f32]| strength.tau * utility(theta, x);
                shelf.attributes.chunks(ATTRIBUTES).map(|x| libm::exp(utility(x))).collect()
            };
            taste.archetypes.iter().flat_map(of).collect()
        });
        Self {
            levels: levels(strength.b0, config.max_index),
            appeal: appeal.collect(),
            candidates: shelves.iter().map(|shelf| shelf.rows.len()).collect(),
        }
    }

    /// `exp(theta_k x)` of a query's candidates.
    pub fn appeal(&self, archetype: u8, query: u8) -> &[f64] {
        let count = self.candidates[usize::from(query)];
        &self.appeal[usize::from(query)][usize::from(archetype) * count..][..count]
    }

    /// The bytes that its part of a digest is made of.
    pub(super) fn extend(&self, bytes: &mut Vec<u8>) {
        debug_assert_eq!(self.appeal.len(), QUERIES);
        for appeal in &self.appeal {
            debug_assert_eq!(appeal.len() % ARCHETYPES, 0);
            bytes.extend(appeal.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
}

/// `theta x`, summed in order.
pub(super) fn utility(theta: &[f64; ATTRIBUTES], x: &[f32]) -> f64 {
    theta.iter().zip(x).fold(0.0, |sum, (theta, x)| sum + theta * f64::from(*x))
}

impl CustomerModel for Referee {
    fn name(&self) -> String {
        "referee".into()
    }

    fn answer(&self, pages: &Pages<'_>, weights: &mut [[f64; CHOICES]]) -> Result<()> {
        for (row, weights) in weights.iter_mut().enumerate() {
            let lane = pages.lane(row);
            let appeal = self.appeal(lane.archetype, lane.query);
            let level = &self.levels[lane.page as usize];
            let buy = level.buy * lane.time_of_day;
            for (weight, position) in weights.iter_mut().zip(pages.positions(row)) {
                *weight = buy * appeal[*position as usize];
            }
            weights[TURN] = level.turn;
            weights[LEAVE] = level.leave;
        }
        Ok(())
    }
}

/// Customers who answer every page alike, whatever it shows: the simplest model there is, with
/// known figures (R2P = `buy`, and a geometric session length).
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    buy: f64,
    turn: f64,
}

impl Constant {
    /// Customers who buy (each item alike) and turn the page with these probabilities.
    pub fn new(buy: f64, turn: f64) -> Result<Self> {
        if buy >= 0.0 && turn >= 0.0 && buy + turn <= 1.0 {
            return Ok(Self { buy, turn });
        }
        let expected = "probabilities of buying and turning that sum to at most 1";
        Err(Error::argument("constant customer", expected, format!("({buy}, {turn})")))
    }
}

impl CustomerModel for Constant {
    fn name(&self) -> String {
        format!("constant:{}:{}", self.buy, self.turn)
    }

    fn answer(&self, _pages: &Pages<'_>, weights: &mut [[f64; CHOICES]]) -> Result<()> {
        for weights in weights {
            weights[..PAGE].fill(self.buy / PAGE as f64);
            weights[TURN] = self.turn;
            weights[LEAVE] = (1.0 - self.buy - self.turn).max(0.0);
        }
        Ok(())
    }
}
