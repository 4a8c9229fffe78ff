//! What many rows in a row add to a few places of a map: gathered aside, where a place is found without hashing.

use std::{vec, vec::Vec};

use super::{Map, Merge};

/// Places that are found at once.
const SLOTS: usize = 256;

/// What was gathered, until it is settled into the map that it is for.
#[derive(Clone, Debug)]
pub(super) struct Tally<K, V> {
    /// For the low bits of a number, which of the items has it, counted from 1; 0 for none.
    slots: Vec<u16>,
    items: Vec<(K, V, usize)>,
}

impl<K, V> Default for Tally<K, V> {
    fn default() -> Self {
        Tally { slots: vec![0; SLOTS], items: Vec::new() }
    }
}

impl<K: Copy + Eq + core::hash::Hash, V: Merge + Default> Tally<K, V> {
    /// Adds to the value of a key; `number` is one that tells most keys apart by its low bits. Where another key was there
    /// before, it is added to `map` right away.
    #[inline]
    pub(super) fn of(&mut self, map: &mut Map<K, V>, key: K, number: u64, then: impl FnOnce(&mut V)) {
        let place = usize::try_from(number).unwrap_or(0) % SLOTS;
        if let Some(slot) = self.slots.get_mut(place) {
            if *slot == 0 {
                self.items.push((key, V::default(), place));
                *slot = u16::try_from(self.items.len()).unwrap_or(0);
            }
            let item = usize::from(*slot).checked_sub(1).and_then(|at| self.items.get_mut(at));
            if let Some((_, value, _)) = item.filter(|(of, ..)| *of == key) {
                return then(value);
            }
        }
        then(map.entry(key).or_default());
    }

    /// Adds what was gathered to the map.
    pub(super) fn settle(&mut self, map: &mut Map<K, V>) {
        for (key, value, place) in self.items.drain(..) {
            map.entry(key).or_default().merge(&value);
            if let Some(slot) = self.slots.get_mut(place) {
                *slot = 0;
            }
        }
    }
}
