//! Where in a map a key was met last: most rows are of keys that were met just now, and are found without hashing.

use core::hash::Hash;
use std::{vec, vec::Vec};

use super::{Map, Tid, TypeId};

/// For the low bits of a number, a place in a list that may be the one that is looked for.
#[derive(Clone, Debug)]
pub(super) struct Hints(Vec<u32>);

/// A type's number among hints.
pub(super) fn number_of(id: Option<TypeId>) -> u64 {
    id.map_or(0, |id| id.0.cast_unsigned().wrapping_add(1))
}

/// A thread's.
pub(super) fn number_of_thread(tid: Tid) -> u64 {
    u64::from(tid.0.cast_unsigned())
}

impl Hints {
    /// As many as a power of two.
    pub(super) fn new(bits: u32) -> Self {
        Hints(vec![0; 1 << bits])
    }

    /// The value of a key, which is there then; `number` is one that tells most keys apart by its low bits. A hint of
    /// another map is none that is followed.
    #[inline]
    pub(super) fn of<'m, K: Copy + Eq + Hash, V: Default>(
        &mut self,
        map: &'m mut Map<K, V>,
        key: K,
        number: u64,
    ) -> &'m mut V {
        self.find(map, key, number).1
    }

    /// The same, with its place in the map.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "below the length by the mask, and where an entry was just found")]
    pub(super) fn find<'m, K: Copy + Eq + Hash, V: Default>(
        &mut self,
        map: &'m mut Map<K, V>,
        key: K,
        number: u64,
    ) -> (usize, &'m mut V) {
        let hint = usize::try_from(number).unwrap_or(0) & (self.0.len() - 1);
        let mut place = usize::try_from(self.0[hint]).unwrap_or(usize::MAX);
        if map.get_index(place).is_none_or(|(known, _)| *known != key) {
            let entry = map.entry(key);
            place = entry.index();
            entry.or_default();
            self.0[hint] = u32::try_from(place).unwrap_or(u32::MAX);
        }
        (place, &mut map[place])
    }
}
