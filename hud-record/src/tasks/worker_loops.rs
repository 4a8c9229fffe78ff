//! Finds the threads that run the loop of a runtime's worker, by their stacks.
//!
//! Tokio runs a worker's loop as one long poll of a blocking task. `raw::poll(header)` and the frames around it keep
//! the address of that task's `Header` on the stack, near its outermost end. So the words of the stack are searched
//! from that end for the address of a header of such a task type whose task is running.
//!
//! A thread that is off CPU shows its stack pointer; for others the caller may know one.

use std::collections::HashSet;

use hud_common::wire::WorkerPlace;

use super::thread_memory::ThreadMemory;
use crate::inspect::{Process, TaskKind, Tokio};

/// Addresses of one stack that are checked for a header.
const MOST_CANDIDATES: usize = 128;
/// Words of thread-local storage that are searched for a task id.
const MOST_WORDS: u64 = 512;

/// A worker's loop on a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerLoop {
    /// The thread that runs it.
    pub(crate) tid: u32,
    /// The id of the loop's task.
    pub(crate) task_id: u64,
    /// Address of its poll function in the process.
    pub(crate) poll_addr: u64,
    /// The address of the runtime's handle and the worker's index, if debug information gives their offsets.
    pub(crate) place: Option<(u64, u64)>,
}

/// Finds the worker loops of one process.
#[derive(Debug)]
pub(crate) struct WorkerLoops {
    memory: ThreadMemory,
    /// Addresses of the poll functions of such loops.
    polls: HashSet<u64>,
    /// `CONTEXT`: its distance from [`ThreadMemory::tls_block`], and its size in words.
    context: Option<(i64, u64)>,
    /// The distance of the current task's id from there.
    task_id: Option<i64>,
    place: Option<WorkerPlace>,
}

impl WorkerLoops {
    /// For a process whose file with tokio occupies `image` with this `load_bias`. `None` if it has no workers, or its memory
    /// cannot be read.
    pub(crate) fn new(process: &Process, tokio: &Tokio, image: (u64, u64), load_bias: u64) -> Option<Self> {
        let loops = tokio.poll_fns.iter().filter(|p| p.kind == TaskKind::Worker);
        let polls: HashSet<u64> = loops.map(|p| p.address.wrapping_add(load_bias)).collect();
        if polls.is_empty() {
            return None;
        }
        Some(WorkerLoops {
            memory: ThreadMemory::open(process, image, tokio.tls_module)?,
            polls,
            context: tokio.tls_context,
            task_id: tokio.tls_task_id,
            place: tokio.worker_place.filter(|p| p.scheduler != 0),
        })
    }

    /// Sets the distance of the current task's id.
    pub(crate) fn know_task_id(&mut self, at: i64) {
        self.task_id = Some(at);
    }

    /// The loop that a thread runs. `last_seen` gives a stack pointer if the thread is running or runnable.
    pub(crate) fn of_thread(&self, tid: u32, last_seen: impl FnOnce() -> Option<u64>) -> Option<WorkerLoop> {
        let sp = self.memory.blocked(tid).map(|blocked| blocked.sp).or_else(last_seen)?;
        let stack = self.memory.stack(sp)?;
        for at in self.memory.headers(stack.words.iter().rev(), sp, stack.fsbase).take(MOST_CANDIDATES) {
            let Some((task_id, poll_addr)) = self.running_loop(at) else { continue };
            let block = self.memory.tls_block(stack.fsbase)?;
            let place = self.place.and_then(|place| self.place(block, place));
            let is_its_own = match (place, self.task_id) {
                (Some(_), _) => true,
                // It runs the loop, or a task in it.
                (None, Some(task_id)) => self.memory.word(block.checked_add_signed(task_id)?)? != 0,
                (None, None) => self.context_holds(block, task_id),
            };
            return is_its_own.then_some(WorkerLoop { tid, task_id, poll_addr, place });
        }
        None
    }

    /// Id and poll function of the task at an address, if that is a worker's loop being polled.
    fn running_loop(&self, at: u64) -> Option<(u64, u64)> {
        let task = self.memory.running_task(at)?;
        (task.owner == 0 && self.polls.contains(&task.poll_addr)).then_some((task.task_id, task.poll_addr))
    }

    /// The runtime's handle and the worker's index, by the scheduler context that the thread has entered.
    fn place(&self, block: u64, place: WorkerPlace) -> Option<(u64, u64)> {
        let scheduler = block.wrapping_add_signed(self.context?.0).wrapping_add((place.scheduler - 1).wrapping_mul(8));
        let context = self.memory.word(scheduler).filter(|&c| c != 0)?;
        let worker = self.memory.word(context.wrapping_add(place.worker))?;
        let handle = self.memory.word(worker.wrapping_add(place.handle))?;
        Some((handle, self.memory.word(worker.wrapping_add(place.index))?))
    }

    /// Whether a word of the thread's `CONTEXT` is this task's id.
    fn context_holds(&self, block: u64, task_id: u64) -> bool {
        let Some((context, words)) = self.context else { return false };
        let at = block.wrapping_add_signed(context);
        let words = usize::try_from(words.min(MOST_WORDS)).unwrap_or(0);
        let mut bytes = vec![0; words * 8];
        self.memory.read(&mut bytes, at).is_some()
            && bytes.as_chunks::<8>().0.iter().any(|word| u64::from_le_bytes(*word) == task_id)
    }
}
