//! What a customer model is shown: pages, as they stand before they are answered.

use super::lane::Lane;
use super::page::Sessions;
use super::{ATTRIBUTES, PAGE, Store};

/// Pages for a [`super::model::CustomerModel`] to answer. All customers have the same query.
#[derive(Debug)]
pub struct Pages<'a> {
    pub(super) store: &'a Store,
    pub(super) sessions: &'a Sessions,
    pub(super) lanes: &'a [usize],
    pub(super) places: &'a [u32],
    pub(super) positions: &'a [u32],
    pub(super) actions: &'a [f32],
}

impl Pages<'_> {
    /// Number of pages.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn index(&self, row: usize) -> usize {
        self.lanes[self.places[row] as usize]
    }

    /// The session that is shown a page, as it stands before it. The referee's alone: archetypes
    /// are hidden from all other models.
    pub(super) fn lane(&self, row: usize) -> &Lane {
        &self.sessions.lanes[self.index(row)]
    }

    /// The page's number for the customer, from 0.
    pub fn page(&self, row: usize) -> u32 {
        self.lane(row).page
    }

    /// Hour of the session's day, not a number if there is none.
    pub fn hour(&self, row: usize) -> f32 {
        self.lane(row).hour
    }

    /// Actions that may be looked at.
    pub fn memory(&self) -> usize {
        self.store.config.memory
    }

    /// Field codes of the customer.
    pub fn customer(&self, row: usize) -> &[u8] {
        self.sessions.customer(self.index(row))
    }

    /// Positions of the page's items among the candidates of the customer's query.
    pub fn positions(&self, row: usize) -> &[u32] {
        &self.positions[row * PAGE..][..PAGE]
    }

    /// Rows of the page's items in the catalogue.
    pub fn items(&self, row: usize) -> [u32; PAGE] {
        let rows = &self.store.shelves[usize::from(self.lane(row).query)].rows;
        std::array::from_fn(|slot| rows[self.positions(row)[slot] as usize])
    }

    /// Attributes of a slot's item.
    pub fn attributes(&self, row: usize, slot: usize) -> &[f32] {
        let shelf = &self.store.shelves[usize::from(self.lane(row).query)];
        &shelf.attributes[self.positions(row)[slot] as usize * ATTRIBUTES..][..ATTRIBUTES]
    }

    /// The action `back` pages before this one (0: this page's), zeros before the session's first
    /// page; `back` below the store's memory.
    pub fn action(&self, row: usize, back: usize) -> [f32; ATTRIBUTES] {
        let values = match back {
            0 => &self.actions[row * ATTRIBUTES..][..ATTRIBUTES],
            _ => &self.sessions.history(self.index(row))[(back - 1) * ATTRIBUTES..][..ATTRIBUTES],
        };
        std::array::from_fn(|dimension| values[dimension])
    }
}
