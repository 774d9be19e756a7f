//! What a lane's session is, beyond its customer's fields.

use crate::logs;
use crate::rng::{Origin, Purpose};

/// How a session stands after a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// It goes on.
    #[default]
    Open = 0,
    /// The customer bought or left.
    Terminated = 1,
    /// The customer would have gone on, but there are no more pages.
    Truncated = 2,
}

/// What a lane's session is, beyond its customer's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lane {
    /// Seed of the stream.
    pub seed: u64,
    /// Session number within the stream.
    pub session: u64,
    /// Pages shown so far in this session, to all of its customers.
    pub shown: u32,
    /// Pages shown so far to this customer: the number of the next page.
    pub page: u32,
    /// Purchases so far in this session.
    pub buys: u32,
    /// Price of what was bought on the last page, in cents; 0 if nothing was.
    pub cents: u32,
    /// Hour of the day, not a number if there is none.
    pub hour: f32,
    /// What the hour multiplies the weight of buying by.
    pub time_of_day: f64,
    /// The customer's archetype, hidden from learners.
    pub archetype: u8,
    /// The customer's query.
    pub query: u8,
    /// Units bought on the last page, as observed: 0 for a new customer.
    pub bought: u8,
    /// Whether the last page was turned, as observed: 0 for a new customer.
    pub turned: u8,
    /// How the last page ended (codes of [`logs::OUTCOMES`]).
    pub outcome: u8,
    /// Which slot was bought on the last page; [`super::PAGE`] if none was.
    pub slot: u8,
    /// How the session stands.
    pub end: End,
}

impl Lane {
    /// Whether the session is over.
    pub fn over(&self) -> bool {
        self.end != End::Open
    }

    /// Units bought on the last page.
    pub fn units(&self) -> u8 {
        u8::from(self.outcome == logs::BUY)
    }

    /// Where draws of a purpose start for the page that is shown next.
    pub fn origin(&self, purpose: Purpose) -> Origin {
        Origin { seed: self.seed, session: self.session, page: self.shown, purpose }
    }
}
