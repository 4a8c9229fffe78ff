//! Ids of a table's rows.

use std::collections::HashSet;

/// Ids, most of which are given out in sequence, so that few of them take room.
#[derive(Debug, Default)]
pub struct Ids {
    /// All from 1 to this are there.
    all_up_to: i64,
    others: HashSet<i64>,
}

impl Ids {
    /// Whether an id is there.
    pub fn contains(&self, id: i64) -> bool {
        (1..=self.all_up_to).contains(&id) || self.others.contains(&id)
    }

    /// Adds an id; false where it is there already.
    pub fn insert(&mut self, id: i64) -> bool {
        if self.contains(id) {
            return false;
        }
        self.others.insert(id);
        while self.others.remove(&self.all_up_to.saturating_add(1)) {
            self.all_up_to += 1;
        }
        true
    }
}
