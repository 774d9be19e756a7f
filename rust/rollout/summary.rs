//! Exact counts of a rollout.

use serde::{Deserialize, Serialize};

use crate::logs::Columns;

/// Counts, in integers, so that they do not depend on the order of adding. What
/// [`Counters`](crate::store::counters::Counters) counts too goes by the same names there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Pages shown.
    pub pages: u64,
    /// Sessions played.
    pub sessions: u64,
    /// Clicks.
    pub clicks: u64,
    /// Sum of the second head.
    pub second: u64,
    /// Pages with at least one click.
    pub click_pages: u64,
    /// Sum over sessions of clicks squared.
    pub clicks_squared: u64,
    /// Sum over sessions of pages squared.
    pub pages_squared: u64,
    /// Sum over sessions of clicks times pages.
    pub clicks_times_pages: u64,
    /// Pages on which something was bought.
    pub buy_pages: u64,
    /// Sum over sessions of pages with a purchase, squared.
    pub buys_squared: u64,
    /// Sum over sessions of pages with a purchase times pages.
    pub buys_times_pages: u64,
    /// Units bought: TV.
    pub units: u64,
    /// Price of all that was bought, in cents: TT. 0 where there are no prices.
    pub cents: u64,
    /// Sessions by number of pages; entry 0 is 0.
    pub sessions_by_length: Vec<u64>,
    /// Clicks by page number.
    pub clicks_by_page: Vec<u64>,
    /// Pages by page number.
    pub pages_by_page: Vec<u64>,
}

impl Summary {
    /// Counts ordered rows of sessions with these lengths.
    pub fn of(columns: &Columns, lengths: &[u32]) -> Self {
        let mut summary = Self::default();
        let mut start = 0;
        for length in lengths {
            let rows = start..start + *length as usize;
            summary.count(&columns.clicks[rows.clone()], &columns.second[rows.clone()]);
            summary.count_purchases(&columns.units[rows.clone()], columns.value.get(rows.clone()));
            start = rows.end;
        }
        summary
    }

    /// Counts one session.
    fn count(&mut self, clicks: &[u8], second: &[u8]) {
        let pages = clicks.len();
        if self.clicks_by_page.len() < pages {
            self.clicks_by_page.resize(pages, 0);
            self.pages_by_page.resize(pages, 0);
            self.sessions_by_length.resize(pages + 1, 0);
        }
        let mut total = 0;
        let by_page = self.clicks_by_page.iter_mut().zip(&mut self.pages_by_page);
        for (clicks, (clicks_by_page, pages_by_page)) in clicks.iter().zip(by_page) {
            total += u64::from(*clicks);
            *clicks_by_page += u64::from(*clicks);
            *pages_by_page += 1;
            self.click_pages += u64::from(*clicks > 0);
        }
        let length = pages as u64;
        self.sessions_by_length[pages] += 1;
        self.pages += length;
        self.sessions += 1;
        self.clicks += total;
        self.second += second.iter().map(|second| u64::from(*second)).sum::<u64>();
        self.clicks_squared += total * total;
        self.pages_squared += length * length;
        self.clicks_times_pages += total * length;
    }

    /// Counts what was bought in one session.
    fn count_purchases(&mut self, units: &[u16], value: Option<&[f32]>) {
        let purchases = units.iter().filter(|units| **units > 0).count() as u64;
        self.buy_pages += purchases;
        self.buys_squared += purchases * purchases;
        self.buys_times_pages += purchases * units.len() as u64;
        self.units += units.iter().map(|units| u64::from(*units)).sum::<u64>();
        // Prices are whole cents, few enough for f32 to tell them apart.
        let cents = |value: &f32| (f64::from(*value) * 100.0).round() as u64;
        self.cents += value.unwrap_or_default().iter().map(cents).sum::<u64>();
    }

    /// Adds the counts of other sessions.
    pub fn merge(&mut self, other: &Self) {
        self.pages += other.pages;
        self.sessions += other.sessions;
        self.clicks += other.clicks;
        self.second += other.second;
        self.click_pages += other.click_pages;
        self.clicks_squared += other.clicks_squared;
        self.pages_squared += other.pages_squared;
        self.clicks_times_pages += other.clicks_times_pages;
        self.buy_pages += other.buy_pages;
        self.buys_squared += other.buys_squared;
        self.buys_times_pages += other.buys_times_pages;
        self.units += other.units;
        self.cents += other.cents;
        let pairs = [
            (&mut self.sessions_by_length, &other.sessions_by_length),
            (&mut self.clicks_by_page, &other.clicks_by_page),
            (&mut self.pages_by_page, &other.pages_by_page),
        ];
        for (mine, theirs) in pairs {
            if mine.len() < theirs.len() {
                mine.resize(theirs.len(), 0);
            }
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }
}
