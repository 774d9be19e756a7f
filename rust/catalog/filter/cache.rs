//! Selections that were made before: a shop asks for the same pages again and again.

use std::sync::Arc;

use super::{Condition, Selection};

/// Selections made before.
#[derive(Debug, Default)]
pub struct Cache(Vec<(Vec<Condition>, Arc<Selection>)>);

impl Cache {
    const ENTRIES: usize = 32;
    const BYTES: usize = 64 << 20;

    /// The selection of these conditions.
    pub fn get(&mut self, conditions: &[Condition]) -> Option<Arc<Selection>> {
        let index = self.0.iter().position(|(known, _)| known == conditions)?;
        let entry = self.0.remove(index);
        let selection = Arc::clone(&entry.1);
        self.0.push(entry);
        Some(selection)
    }

    /// Remembers a selection.
    pub fn put(&mut self, conditions: Vec<Condition>, selection: Arc<Selection>) {
        self.0.push((conditions, selection));
        let bytes = |cache: &Self| cache.0.iter().map(|(_, s)| s.bytes()).sum::<usize>();
        while self.0.len() > Self::ENTRIES || bytes(self) > Self::BYTES {
            // The one that was not asked for longest.
            self.0.remove(0);
        }
    }
}
