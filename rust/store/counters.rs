//! Exact counts of a store's sessions.

use super::lane::Lane;

/// Counts, in integers (money in cents), so that they do not depend on the order of adding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages shown.
    pub pages: u64,
    /// Sessions played to their end.
    pub sessions: u64,
    /// Pages with a purchase.
    pub buy_pages: u64,
    /// Units bought (TV).
    pub units: u64,
    /// Price of all that was bought, in cents (TT).
    pub cents: u64,
    /// Sum over sessions of purchases squared.
    pub buys_squared: u64,
    /// Sum over sessions of pages squared.
    pub pages_squared: u64,
    /// Sum over sessions of purchases times pages.
    pub buys_times_pages: u64,
    /// Sessions by number of pages; entry 0 is 0.
    pub sessions_by_length: Vec<u64>,
    /// Pages by how they ended, in the order of [`crate::logs::OUTCOMES`].
    pub outcomes: [u64; 4],
}

impl Counters {
    /// Counts the page that a lane was just shown, and its session if that is over.
    pub fn count(&mut self, lane: &Lane) {
        self.pages += 1;
        self.buy_pages += u64::from(lane.units() > 0);
        self.units += u64::from(lane.units());
        self.cents += u64::from(lane.cents);
        self.outcomes[usize::from(lane.outcome)] += 1;
        if lane.over() {
            let (pages, buys) = (u64::from(lane.shown), u64::from(lane.buys));
            self.sessions += 1;
            self.buys_squared += buys * buys;
            self.pages_squared += pages * pages;
            self.buys_times_pages += buys * pages;
            let length = lane.shown as usize;
            if self.sessions_by_length.len() <= length {
                self.sessions_by_length.resize(length + 1, 0);
            }
            self.sessions_by_length[length] += 1;
        }
    }

    /// Adds the counts of other sessions.
    pub fn merge(&mut self, other: &Self) {
        self.pages += other.pages;
        self.sessions += other.sessions;
        self.buy_pages += other.buy_pages;
        self.units += other.units;
        self.cents += other.cents;
        self.buys_squared += other.buys_squared;
        self.pages_squared += other.pages_squared;
        self.buys_times_pages += other.buys_times_pages;
        if self.sessions_by_length.len() < other.sessions_by_length.len() {
            self.sessions_by_length.resize(other.sessions_by_length.len(), 0);
        }
        let lengths = self.sessions_by_length.iter_mut().zip(&other.sessions_by_length);
        lengths.for_each(|(mine, theirs)| *mine += theirs);
        let outcomes = self.outcomes.iter_mut().zip(&other.outcomes);
        outcomes.for_each(|(mine, theirs)| *mine += theirs);
    }
}
