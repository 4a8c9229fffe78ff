//! Ids of a table's rows.

use std::collections::HashSet;

/// A set of ids that are mostly consecutive from 1, which takes little memory.
#[derive(Debug, Default)]
pub struct Ids {
    /// Contains all ids from 1 to this.
    all_up_to: i64,
    others: HashSet<i64>,
}

impl Ids {
    /// Whether it contains an id.
    pub fn contains(&self, id: i64) -> bool {
        (1..=self.all_up_to).contains(&id) || self.others.contains(&id)
    }

    /// Adds an id; returns whether it is new.
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
