//! Finds every task of a process by a search of its memory.
//!
//! A task's `Cell` (tokio/src/runtime/task/core.rs) begins, at a multiple of 128, with its `Header`: state, next in
//! queue, vtable, owner. So one word in sixteen is compared with the vtables. Freed cells and copies keep the vtable's
//! address; they differ in the reference count and the queue link, which allocators overwrite, and in the owner, which
//! a task gets at its final address. (75,000 of 75,000 tasks were found so, and 2,400 stale cells rejected.)

use std::{collections::HashMap, time::Instant};

use super::memory::{MOST_PIECES, Memory, Span};
use crate::{error::Result, inspect::TaskVtable};

/// Alignment of a `Cell` on x86_64.
const ALIGN: u64 = 128;
/// Bytes that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// The limits of a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that are read.
    pub(super) bytes: u64,
    /// Tasks that are found.
    pub(super) tasks: usize,
    /// When it ends.
    pub(super) deadline: Instant,
}

/// The state word of a header (tokio/src/runtime/task/state.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

impl State {
    pub(super) fn is_running(self) -> bool {
        self.0 & 1 != 0
    }
    pub(super) fn is_complete(self) -> bool {
        self.0 & 2 != 0
    }
    pub(super) fn is_notified(self) -> bool {
        self.0 & 4 != 0
    }
    pub(super) fn is_cancelled(self) -> bool {
        self.0 & 32 != 0
    }
    fn references(self) -> u64 {
        self.0 >> 6
    }
}

/// A task as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Address of its header.
    pub(super) at: u64,
    /// Index of its vtable.
    pub(super) vtable: usize,
    pub(super) state: State,
    pub(super) id: u64,
    /// The list that owns the task: one per runtime and `LocalSet`. 0 for work of the blocking pool.
    pub(super) owner: u64,
}

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) tasks: Vec<Found>,
    /// Bytes that were read.
    pub(super) read: u64,
    /// Message: the limit that ended it early.
    pub(super) stopped: Option<&'static str>,
}

/// The vtables to search for.
#[derive(Debug)]
pub(super) struct Vtables {
    tables: Vec<TaskVtable>,
    by_address: HashMap<u64, usize>,
    range: (u64, u64),
}

impl Vtables {
    /// Of a binary with this load bias.
    pub(super) fn new(tables: Vec<TaskVtable>, load_bias: u64) -> Self {
        let address = |t: &TaskVtable| t.address.wrapping_add(load_bias);
        let by_address = tables.iter().map(address).zip(0..).collect();
        let range = tables.iter().map(address).fold((u64::MAX, 0), |(low, high), a| (low.min(a), high.max(a)));
        Vtables { tables, by_address, range }
    }

    pub(super) fn get(&self, index: usize) -> Option<&TaskVtable> {
        self.tables.get(index)
    }

    fn find(&self, address: u64) -> Option<usize> {
        (self.range.0..=self.range.1).contains(&address).then(|| self.by_address.get(&address).copied())?
    }

    /// The task with this header, if it is one. `id` reads its id.
    pub(super) fn task(&self, at: u64, header: &[u8; 32], id: impl FnOnce(u64) -> Option<u64>) -> Option<Found> {
        let [state, next, vtable, owner] = words(header);
        let index = self.find(vtable)?;
        let table = self.tables.get(index)?;
        let state = State(state);
        let is_live = at.is_multiple_of(ALIGN)
            && (1..1 << 24).contains(&state.references())
            && next.is_multiple_of(ALIGN)
            && next < 1 << 47
            && !(state.is_running() && state.is_complete())
            && owner < 1 << 20
            && (owner != 0 || !table.is_future());
        if !is_live {
            return None;
        }
        let id = id(table.id).filter(|id| (1..1 << 40).contains(id))?;
        Some(Found { at, vtable: index, state, id, owner })
    }
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// Searches all memory that may contain tasks.
pub(super) fn scan(memory: &mut Memory, vtables: &Vtables, limits: Limits) -> Result<Scan> {
    let mut present = Vec::new();
    let mut scan = Scan::default();
    for heap in memory.heaps()? {
        present.extend(memory.present_pages(heap, limits.deadline));
    }
    memory.remember(present.clone());
    let mut batch = Batch::default();
    for span in present {
        let mut start = span.start;
        while start < span.end && scan.stopped.is_none() {
            let end = span.end.min(start + (AT_ONCE - batch.size));
            batch.add(Span { start, end });
            start = end;
            if batch.is_full() {
                batch.search(memory, vtables, limits, &mut scan);
            }
        }
    }
    batch.search(memory, vtables, limits, &mut scan);
    scan.tasks = distinct(scan.tasks);
    Ok(scan)
}

/// Ids are unique. Work that waits for the blocking pool has no owner, and copies of it stay in memory: 76 of one item
/// after a second, with tokio 1.38. One that was polled is the task; if all wait, none can be distinguished from a
/// copy.
fn distinct(mut tasks: Vec<Found>) -> Vec<Found> {
    let is_copy = |t: &Found| t.owner == 0 && !t.state.is_running() && !t.state.is_complete();
    tasks.sort_by_key(|t| (t.id, is_copy(t), t.at));
    let mut distinct = Vec::with_capacity(tasks.len());
    for same in tasks.chunk_by(|one, other| one.id == other.id) {
        if let [first, rest @ ..] = same
            && (rest.is_empty() || !is_copy(first))
        {
            distinct.push(*first);
        }
    }
    distinct
}

/// Ranges that are read at once.
#[derive(Default)]
struct Batch {
    pieces: Vec<Span>,
    size: u64,
    buffer: Vec<u8>,
}

impl Batch {
    fn add(&mut self, piece: Span) {
        self.size += piece.size();
        self.pieces.push(piece);
    }

    fn is_full(&self) -> bool {
        self.size >= AT_ONCE || self.pieces.len() >= MOST_PIECES
    }

    /// Reads and empties it.
    fn search(&mut self, memory: &Memory, vtables: &Vtables, limits: Limits, scan: &mut Scan) {
        self.buffer.resize(usize::try_from(self.size).unwrap_or(0), 0);
        let mut left = self.pieces.as_slice();
        while !left.is_empty() && scan.stopped.is_none() {
            let read = memory.read(left, &mut self.buffer);
            let mut bytes = self.buffer.get(..read).unwrap_or_default();
            scan.read += u64::try_from(read).unwrap_or(0);
            let mut done = 0;
            for piece in left {
                let Some((these, rest)) = usize::try_from(piece.size()).ok().and_then(|n| bytes.split_at_checked(n))
                else {
                    break;
                };
                search(memory, piece.start, these, vtables, scan);
                bytes = rest;
                done += 1;
            }
            // The range that could not be read was unmapped meanwhile, at least in part.
            left = left.get(done + 1..).unwrap_or_default();
            scan.stopped = match () {
                () if scan.read >= limits.bytes => Some("the limit of bytes was reached"),
                () if scan.tasks.len() >= limits.tasks => Some("the limit of tasks was reached"),
                () if Instant::now() >= limits.deadline => Some("the time limit was reached"),
                () => None,
            };
        }
        self.pieces.clear();
        self.size = 0;
    }
}

fn search(memory: &Memory, start: u64, bytes: &[u8], vtables: &Vtables, scan: &mut Scan) {
    // Spans begin at a page.
    for (at, cell) in (start..).step_by(128).zip(bytes.as_chunks::<128>().0) {
        let Some((header, _)) = cell.split_first_chunk::<32>() else { continue };
        let [.., vtable, _] = words(header);
        if vtables.find(vtable).is_none() {
            continue;
        }
        let id = |offset: u64| match usize::try_from(offset).ok().and_then(|o| cell.get(o..)?.first_chunk()) {
            Some(word) => Some(u64::from_le_bytes(*word)),
            None => {
                let start = at.checked_add(offset)?;
                let bytes = memory.bytes(Span { start, end: start.checked_add(8)? })?;
                Some(u64::from_le_bytes(bytes.try_into().ok()?))
            }
        };
        scan.tasks.extend(vtables.task(at, header, id));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TASK: TaskVtable =
        TaskVtable { address: 0x1000, poll: 1, schedule: 2, trailer: 128, scheduler: 32, id: 40, spawned_at: None };
    const WORK: TaskVtable = TaskVtable { address: 0x1100, id: 48, ..TASK };

    fn task(at: u64, header: [u64; 4], id: u64) -> Option<u64> {
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(header) {
            *to = word.to_le_bytes();
        }
        Vtables::new(vec![TASK, WORK], 0x5000).task(at, &bytes, |_| Some(id)).map(|found| found.id)
    }

    #[test]
    fn ignores_copies_of_a_task() {
        let work = |at, id, state| Found { at, vtable: 1, state: State(state), id, owner: 0 };
        let (queued, running, one) = (work(0x80, 1, 0xcc), work(0x100, 2, 0xc9), work(0x180, 3, 0xcc));
        let copies = [work(0x200, 1, 0xcc), work(0x280, 2, 0xcc)];
        assert_eq!(distinct([&[queued, running, one][..], &copies].concat()), [running, one]);
        let task = Found { owner: 4, ..one };
        assert_eq!(distinct(vec![one, task]), [task]);
    }

    #[test]
    fn only_live_headers_are_tasks() {
        let live = [0x80, 0, 0x6000, 3];
        assert_eq!(task(0x80, live, 7), Some(7));
        assert_eq!(task(0x80, [0xc4, 0x7f00_0000_0080, 0x6000, 3], 7), Some(7), "queued behind another one");
        assert_eq!(task(0x80, [0x81, 0, 0x6100, 0], 7), Some(7), "work of the blocking pool has no owner");
        for (at, header, id, why) in [
            (0x84, live, 7, "not aligned"),
            (0x80, [0, 0, 0x6000, 3], 7, "freed: no references"),
            (0x80, [0x7f12_3456_7890, 0, 0x6000, 3], 7, "freed: the allocator's link"),
            (0x80, [0x80, 0x1234_5678_9abc_def0, 0x6000, 3], 7, "freed: glibc's key"),
            (0x80, [0x83, 0, 0x6000, 3], 7, "running and complete"),
            (0x80, [0x80, 0, 0x6000, 0], 7, "a copy that no list owns"),
            (0x80, [0x80, 0, 0x6000, 1 << 30], 7, "no list has that number"),
            (0x80, [0x80, 0, 0x6010, 3], 7, "not a vtable"),
            (0x80, live, 0, "no id"),
            (0x80, live, u64::MAX, "no id of this century"),
        ] {
            assert_eq!(task(at, header, id), None, "{why}");
        }
    }
}
