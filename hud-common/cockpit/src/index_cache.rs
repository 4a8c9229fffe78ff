//! Caches the index of keys in a map: most rows have the key of a recent row, which is then found without hashing.

use core::hash::Hash;

use super::{Map, Tid, TypeId};

/// Index of the last entry for each value of a key's low bits.
#[derive(Clone, Debug)]
pub(super) struct IndexCache(Vec<u32>);

/// The number of a type.
pub(super) fn number_of(id: Option<TypeId>) -> u64 {
    id.map_or(0, |id| id.0.cast_unsigned().wrapping_add(1))
}

/// The number of a thread.
pub(super) fn number_of_thread(tid: Tid) -> u64 {
    u64::from(tid.0.cast_unsigned())
}

impl IndexCache {
    /// A cache of 2^`bits` slots.
    pub(super) fn new(bits: u32) -> Self {
        IndexCache(vec![0; 1 << bits])
    }

    /// The value of a key, which is inserted if missing. The low bits of `number` select the slot. A cached index is checked, so a
    /// cache may be used with several maps.
    #[inline]
    pub(super) fn of<'m, K: Copy + Eq + Hash, V: Default>(
        &mut self,
        map: &'m mut Map<K, V>,
        key: K,
        number: u64,
    ) -> &'m mut V {
        self.find(map, key, number).1
    }

    /// The same, with its index in the map.
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
