//! The vtables of task types, by the shape of their data.
//!
//! A task's vtable (tokio/src/runtime/task/raw.rs, `struct Vtable`, since 1.23) is seven functions and three offsets
//! into the task.

use serde::{Deserialize, Serialize};

use super::{binary::Binary, image::Image};

/// Functions in a vtable: poll, schedule, dealloc, try_read_output, drop_join_handle_slow, drop_abort_handle, shutdown.
pub(super) const FUNCTIONS: usize = 7;

/// `size_of::<Header>()` without tracing.
const HEADER: u64 = 32;

/// Largest accepted alignment of a future, and size of a scheduler.
const MAX_GAP: u64 = 4096;

/// Largest accepted task.
const MAX_TASK: u64 = 1 << 32;

/// The function table of a task type.
#[derive(Clone, Copy)]
pub(super) struct Vtable {
    pub(super) functions: [u64; FUNCTIONS],
    /// Offsets of the trailer, the scheduler and the id in a task.
    offsets: [u64; 3],
}

/// A task type's vtable, with the fields needed to find and read its tasks. Addresses are those of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskVtable {
    pub(crate) address: u64,
    pub(crate) poll: u64,
    /// One function for each type of scheduler.
    pub(crate) schedule: u64,
    /// Offsets in a task.
    pub(crate) trailer: u64,
    pub(crate) scheduler: u64,
    pub(crate) id: u64,
    /// Offset of the address of the `Location` at which the task was spawned: with `tokio_unstable` only.
    pub(crate) spawned_at: Option<u64>,
}

impl TaskVtable {
    /// Whether its tasks are spawned futures, not work of the blocking pool.
    pub(crate) fn is_future(&self) -> bool {
        self.id.saturating_sub(self.scheduler) == POINTER
    }
}

/// Size of the schedulers of spawned futures. Those of the blocking pool have grown from nothing to two pointers, and
/// more.
const POINTER: u64 = 8;

/// Vtables that are reported. Large programs have thousands.
const MOST_VTABLES: usize = 64 << 10;

/// All task vtables of a binary, by the shape of its data alone: seven pointers to code and three offsets. (No false
/// one, and none missing of 184 to 265, in six builds with symbols to compare. The tasks that refer to them are checked
/// again.)
pub(super) fn find(binary: &Binary, image: &Image) -> Vec<TaskVtable> {
    let found = image.addresses().filter_map(|address| {
        let vtable = Vtable::read(binary, image, address)?;
        let [trailer, scheduler, id] = vtable.offsets;
        let after = image.word(address.checked_add((FUNCTIONS as u64 + 3) * 8)?);
        let spawned_at = after.filter(|&offset| offset == id + 8);
        Some(TaskVtable {
            address,
            poll: vtable.poll(),
            schedule: vtable.schedule(),
            trailer,
            scheduler,
            id,
            spawned_at,
        })
    });
    found.take(MOST_VTABLES).collect()
}

impl Vtable {
    /// The table at an address, if the data there can be one.
    pub(super) fn read(binary: &Binary, image: &Image, at: u64) -> Option<Self> {
        let mut functions = [0; FUNCTIONS];
        for (place, function) in (at..).step_by(8).zip(&mut functions) {
            *function = image.pointer(place).filter(|&f| binary.is_code(f))?;
        }
        let offset = |n: u64| image.word(at.checked_add(FUNCTIONS as u64 * 8 + n * 8)?);
        let (trailer, scheduler, id) = (offset(0)?, offset(1)?, offset(2)?);
        let is_sane = [trailer, scheduler, id].iter().all(|o| o % 8 == 0)
            && (HEADER..=MAX_GAP).contains(&scheduler)
            && (scheduler..=scheduler + MAX_GAP).contains(&id)
            // The id, and the future or its result.
            && (id + 16..MAX_TASK).contains(&trailer);
        is_sane.then_some(Vtable { functions, offsets: [trailer, scheduler, id] })
    }

    /// `poll`.
    pub(super) fn poll(&self) -> u64 {
        let [poll, ..] = self.functions;
        poll
    }

    pub(super) fn schedule(&self) -> u64 {
        let [_, schedule, ..] = self.functions;
        schedule
    }

    /// `dealloc`, which drops the task.
    pub(super) fn dealloc(&self) -> u64 {
        let [_, _, dealloc, ..] = self.functions;
        dealloc
    }

    /// Whether the task is a spawned future.
    pub(super) fn is_task(&self) -> bool {
        let [_, scheduler, id] = self.offsets;
        id - scheduler == POINTER
    }
}
