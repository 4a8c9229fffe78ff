//! Aggregates that can be merged in any order and grouping: maps, capped lists, extremes.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;

use super::Counts;

/// A map without a defined order. Entries lie in a list of their own, so that growing moves only the index, and iterating
/// is iterating over the list.
pub type Map<K, V> = IndexMap<K, V, DefaultHashBuilder>;

/// An aggregate that can be merged in any order and grouping.
pub trait Merge {
    /// Merges the other one into this one.
    fn merge(&mut self, other: &Self);
}

/// The first `MOST` items in their order, and a count of the others.
#[derive(Clone, Debug)]
pub struct Kept<T, const MOST: usize> {
    /// At most twice `MOST`; only the first `sorted` are in order.
    items: Vec<T>,
    is_sorted: bool,
    left_out: i64,
}

impl<T, const MOST: usize> Default for Kept<T, MOST> {
    fn default() -> Self {
        Kept { items: Vec::new(), is_sorted: true, left_out: 0 }
    }
}

impl<T: Ord + Copy, const MOST: usize> Kept<T, MOST> {
    /// Adds one.
    pub fn push(&mut self, item: T) {
        self.is_sorted = self.is_sorted && self.items.last().is_none_or(|last| *last <= item);
        self.items.push(item);
        if self.items.len() >= 2 * MOST {
            self.settle();
        }
    }

    /// Sorts the items and discards excess ones. Required before [`Kept::items`].
    pub fn settle(&mut self) {
        if !self.is_sorted {
            self.items.sort_unstable();
            self.is_sorted = true;
        }
        if let Some(too_many) = self.items.len().checked_sub(MOST) {
            self.items.truncate(MOST);
            self.left_out = self.left_out.saturating_add(i64::try_from(too_many).unwrap_or(i64::MAX));
        }
    }

    /// Number of items, settled or not.
    #[expect(clippy::len_without_is_empty, reason = "only sizes are asked for")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The items in order, once settled.
    pub fn items(&self) -> &[T] {
        debug_assert!(self.is_sorted && self.items.len() <= MOST, "not settled");
        &self.items
    }

    /// Number of discarded items, once settled.
    pub fn left_out(&self) -> i64 {
        self.left_out
    }
}

impl<T: Ord + Copy, const MOST: usize> PartialEq for Kept<T, MOST> {
    fn eq(&self, other: &Self) -> bool {
        let settled = |kept: &Self| {
            let mut kept = kept.clone();
            kept.settle();
            kept
        };
        let (a, b) = (settled(self), settled(other));
        a.items == b.items && a.left_out == b.left_out
    }
}

impl<T: Ord + Copy, const MOST: usize> Merge for Kept<T, MOST> {
    fn merge(&mut self, other: &Self) {
        self.left_out = self.left_out.saturating_add(other.left_out);
        for item in &other.items {
            self.push(*item);
        }
        self.settle();
    }
}

/// The minimum of some integers, if there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Least(pub Option<i64>);

/// The maximum of some integers, if there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Greatest(pub Option<i64>);

impl Least {
    /// Adds one.
    pub fn add(&mut self, value: i64) {
        self.0 = Some(self.0.map_or(value, |least| least.min(value)));
    }
}

impl Greatest {
    /// Adds one.
    pub fn add(&mut self, value: i64) {
        self.0 = Some(self.0.map_or(value, |greatest| greatest.max(value)));
    }
}

impl Merge for Least {
    fn merge(&mut self, other: &Self) {
        other.0.into_iter().for_each(|value| self.add(value));
    }
}

impl Merge for Greatest {
    fn merge(&mut self, other: &Self) {
        other.0.into_iter().for_each(|value| self.add(value));
    }
}

impl Merge for i64 {
    fn merge(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

impl Merge for u64 {
    fn merge(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

impl<K: Clone + Eq + core::hash::Hash, V: Merge + Default + Clone> Merge for Map<K, V> {
    fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            // One copy instead of a lookup per entry.
            return self.clone_from(other);
        }
        for (key, value) in other {
            match self.get_mut(key) {
                Some(known) => known.merge(value),
                None => drop(self.insert(key.clone(), value.clone())),
            }
        }
    }
}

impl Merge for Counts {
    fn merge(&mut self, other: &Self) {
        Counts::merge(self, other);
    }
}
