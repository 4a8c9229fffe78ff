//! The chains of tasks that have not changed since the last snapshot, which are not walked again.
//!
//! Most tasks wait for long. A chain depends on the task's memory and on what was read outside of it for the chain; if all of
//! it is the same, so is the chain.

use std::{collections::HashMap, sync::Arc};

use super::{
    chain::{Chain, Walked},
    memory::{MOST_PIECES, Memory, Span},
    scan::Found,
};

/// Chains that are kept, at some hundred bytes each, and bytes of memory that are kept for them.
const MOST: usize = 100_000;
const MOST_BYTES: usize = 32 << 20;

/// The chains of one process.
#[derive(Default)]
pub(super) struct Chains {
    /// By the address of the task.
    known: HashMap<u64, Known>,
    /// Bytes of memory that they depend on.
    bytes: usize,
    round: u64,
}

struct Known {
    id: u64,
    /// The task's memory, and that outside.
    cell: Box<[u8]>,
    outside: (Vec<Span>, Box<[u8]>),
    chain: Arc<Chain>,
    round: u64,
}

impl Known {
    fn bytes(&self) -> usize {
        self.cell.len() + self.outside.1.len()
    }
}

impl Chains {
    /// Begins a snapshot, and forgets the tasks that the last one did not find.
    pub(super) fn begin(&mut self) {
        let last = self.round;
        self.known.retain(|_, known| known.round == last);
        self.bytes = self.known.values().map(Known::bytes).sum();
        self.round += 1;
    }

    /// The chain of a task, if the memory that it depends on has not changed.
    pub(super) fn get(&mut self, memory: &Memory, found: &Found, cell: &[u8]) -> Option<Arc<Chain>> {
        let known = self.known.get_mut(&found.at).filter(|known| known.id == found.id && *known.cell == *cell)?;
        let (spans, outside) = &known.outside;
        if !spans.is_empty() {
            // The task once more: all of it has to be of one moment.
            let task = Span { start: found.at, end: found.at.saturating_add(cell.len() as u64) };
            let pieces: Vec<Span> = [task].into_iter().chain(spans.iter().copied()).collect();
            let size = usize::try_from(pieces.iter().map(|piece| piece.size()).sum::<u64>()).ok()?;
            let mut bytes = vec![0; size];
            if !spans.iter().all(|&span| memory.is_present(span)) || memory.read(&pieces, &mut bytes) != size {
                return None;
            }
            let (now, rest) = bytes.split_at_checked(cell.len())?;
            if now != cell || *rest != **outside {
                return None;
            }
        }
        known.round = self.round;
        Some(Arc::clone(&known.chain))
    }

    /// Keeps the chain of a task.
    pub(super) fn add(&mut self, found: &Found, cell: &[u8], walked: Walked) -> Arc<Chain> {
        let Walked { chain, outside, has_gaps } = walked;
        let chain = Arc::new(chain);
        if let Some(before) = self.known.remove(&found.at) {
            self.bytes = self.bytes.saturating_sub(before.bytes());
        }
        let bytes = cell.len() + outside.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let has_room = self.known.len() < MOST && self.bytes + bytes <= MOST_BYTES && outside.len() < MOST_PIECES;
        if has_room && !has_gaps {
            let (spans, outside): (_, Vec<_>) = outside.into_iter().unzip();
            let (cell, outside, round) = (cell.into(), (spans, outside.concat().into()), self.round);
            self.known.insert(found.at, Known { id: found.id, cell, outside, chain: Arc::clone(&chain), round });
            self.bytes += bytes;
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{inspect::Process, tasks::scan::State};

    #[test]
    fn a_chain_holds_while_all_memory_that_it_depends_on_is_the_same() {
        let memory =
            Memory::open(&Process { pid: std::process::id(), exe: "/proc/self/exe".into(), library: None }).unwrap();
        let (mut task, mut other) = (Box::new([7_u8; 64]), Box::new([8_u8; 32]));
        let span =
            |bytes: &[u8]| Span { start: bytes.as_ptr() as u64, end: bytes.as_ptr() as u64 + bytes.len() as u64 };
        let walked = |other: &[u8], has_gaps| Walked {
            chain: Chain::default(),
            outside: vec![(span(other), other.to_vec())],
            has_gaps,
        };
        let found = Found { at: span(&task[..]).start, vtable: 0, state: State(0x80), id: 5, owner: 1 };
        let mut chains = Chains::default();
        chains.begin();
        assert_eq!(chains.get(&memory, &found, &task[..]), None);
        chains.add(&found, &task[..], walked(&other[..], true));
        assert_eq!(chains.get(&memory, &found, &task[..]), None, "it may have missed something");
        let chain = chains.add(&found, &task[..], walked(&other[..], false));
        assert_eq!(chains.get(&memory, &found, &task[..]), Some(chain));
        // Another task at the same address, and changes here and there.
        assert_eq!(chains.get(&memory, &Found { id: 6, ..found }, &task[..]), None);
        other[3] = 1;
        assert_eq!(chains.get(&memory, &found, &task[..]), None);
        other[3] = 8;
        assert!(chains.get(&memory, &found, &task[..]).is_some());
        let before = *task;
        task[9] = 1;
        assert_eq!(chains.get(&memory, &found, &before), None, "it has changed since it was read");
        task[9] = 7;
        // Not found by one snapshot: forgotten by the next.
        chains.begin();
        chains.begin();
        assert_eq!(chains.get(&memory, &found, &task[..]), None);
    }
}
