//! Finds the threads that run the loop of a runtime's worker, by their stacks.
//!
//! Tokio runs a worker's loop as one long poll of a blocking task. `raw::poll(header)` and the frames around it keep
//! the address of that task's `Header` on the stack, near its outermost end. So the words of the stack are searched
//! from that end for the address of a header of such a task type whose task is running.
//!
//! A thread that is off CPU shows its stack pointer in `/proc/PID/task/TID/syscall`; for others the caller may know
//! one. The stack ends at the thread control block, which is right above it (glibc and musl alike) and begins with its
//! own address; that address is the thread's `fsbase`.

use std::{collections::HashSet, fs::File, os::unix::fs::FileExt as _};

use hud_common::wire::WorkerPlace;

use crate::inspect::{Process, TaskKind, Tokio, VTABLE_ID_OFFSET, read_text};

/// Bytes of stack that are read at once: a page, so that a readable part is read.
const PAGE: usize = 4096;
/// Bytes of one stack that are read.
const MOST_STACK: u64 = 512 << 10;
/// Addresses of one stack that are checked for a header.
const MOST_CANDIDATES: usize = 128;
/// Words of thread-local storage that are searched for a task id.
const MOST_WORDS: u64 = 512;
/// `tokio::runtime::task::core::Cell` is `repr(align(128))` on x86_64.
const HEADER_ALIGN: u64 = 128;
/// The flags of a task that is being polled (tokio/src/runtime/task/state.rs: RUNNING, COMPLETE).
const LIFECYCLE: u64 = 0b11;
const RUNNING: u64 = 0b01;
/// Largest accepted offset of the id in a task.
const MOST_ID_OFFSET: u64 = 4096;

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
    pid: u32,
    memory: File,
    /// Addresses of the poll functions of such loops.
    polls: HashSet<u64>,
    /// The binary's address range in the process.
    image: (u64, u64),
    /// `CONTEXT`: its distance from `fsbase`, and its size in words.
    context: Option<(i64, u64)>,
    /// The distance of the current task's id from `fsbase`.
    task_id: Option<i64>,
    place: Option<WorkerPlace>,
}

impl WorkerLoops {
    /// For a process whose binary occupies `image` with this `load_bias`. `None` if it has no workers, or its memory
    /// cannot be read.
    pub(crate) fn new(process: &Process, tokio: &Tokio, image: (u64, u64), load_bias: u64) -> Option<Self> {
        let loops = tokio.poll_fns.iter().filter(|p| p.kind == TaskKind::Worker);
        let polls: HashSet<u64> = loops.map(|p| p.address.wrapping_add(load_bias)).collect();
        if polls.is_empty() {
            return None;
        }
        Some(WorkerLoops {
            pid: process.pid,
            memory: File::open(format!("/proc/{}/mem", process.pid)).ok()?,
            polls,
            image,
            context: tokio.tls_context,
            task_id: tokio.tls_task_id,
            place: tokio.worker_place.filter(|p| p.scheduler != 0),
        })
    }

    /// Sets the word of `CONTEXT` that holds the current task's id.
    pub(crate) fn know_task_id_word(&mut self, word: u64) {
        if let Some((context, _)) = self.context {
            self.task_id = context.checked_add_unsigned(word.saturating_mul(8));
        }
    }

    /// The loop that a thread runs. `last_seen` gives a stack pointer if the thread is running or runnable.
    pub(crate) fn of_thread(&self, tid: u32, last_seen: impl FnOnce() -> Option<u64>) -> Option<WorkerLoop> {
        let sp = self.blocked_at(tid).or_else(last_seen)?;
        let stack = self.stack(sp)?;
        let mut last = 0;
        let candidates = stack.words.iter().rev().filter(|&&w| self.may_be_header(w, sp, stack.fsbase));
        for at in candidates.map(|w| w & !(HEADER_ALIGN - 1)).take(MOST_CANDIDATES) {
            if at == std::mem::replace(&mut last, at) {
                continue;
            }
            let Some((task_id, poll_addr)) = self.running_loop(at) else { continue };
            let place = self.place.and_then(|place| self.place(stack.fsbase, place));
            let is_its_own = match (place, self.task_id) {
                (Some(_), _) => true,
                // It runs the loop, or a task in it.
                (None, Some(task_id)) => self.word(stack.fsbase.checked_add_signed(task_id)?)? != 0,
                (None, None) => self.context_holds(stack.fsbase, task_id),
            };
            return is_its_own.then_some(WorkerLoop { tid, task_id, poll_addr, place });
        }
        None
    }

    /// The stack pointer of a blocked thread: `syscall` has the system call's number and six arguments, or -1, then
    /// stack pointer and program counter (proc(5)).
    fn blocked_at(&self, tid: u32) -> Option<u64> {
        let text = read_text(format!("/proc/{}/task/{tid}/syscall", self.pid)).ok()?;
        let sp = text.split_ascii_whitespace().rev().nth(1)?;
        u64::from_str_radix(sp.strip_prefix("0x")?, 16).ok()
    }

    /// The stack from `sp` to the thread control block. The main thread has none above its stack.
    fn stack(&self, sp: u64) -> Option<Stack> {
        let mut words = Vec::new();
        let mut at = sp.next_multiple_of(8);
        let end = at.checked_add(MOST_STACK)?;
        let mut page = [0; PAGE];
        let page_size = u64::try_from(PAGE).ok()?;
        while at < end {
            let size = page_size - at % page_size;
            let bytes = page.get_mut(..usize::try_from(size).ok()?)?;
            self.memory.read_exact_at(bytes, at).ok()?;
            for (word, address) in bytes.as_chunks::<8>().0.iter().zip((at..).step_by(8)) {
                let word = u64::from_le_bytes(*word);
                if word == address && self.is_control_block(address) {
                    return Some(Stack { words, fsbase: address });
                }
                words.push(word);
            }
            at += size;
        }
        None
    }

    /// Whether an address that holds itself is a thread control block. glibc has it once more (`tcbhead_t::self`,
    /// sysdeps/x86_64/nptl/tls.h), musl has a ring of them (`struct pthread`'s `prev` and `next`,
    /// src/internal/pthread_impl.h).
    fn is_control_block(&self, at: u64) -> bool {
        match self.word(at.saturating_add(16)) {
            Some(word) if word == at => true,
            Some(prev) => self.word(prev.saturating_add(24)) == Some(at),
            None => false,
        }
    }

    /// Whether a word may be the address of a task's header or core: outside of the stack and of the binary.
    fn may_be_header(&self, word: u64, sp: u64, fsbase: u64) -> bool {
        word.is_multiple_of(8)
            && word >= 0x10000
            && word >> 47 == 0
            && !(sp..=fsbase).contains(&word)
            && !(self.image.0..self.image.1).contains(&word)
    }

    /// Id and poll function of the task at an address, if that is a worker's loop being polled.
    fn running_loop(&self, at: u64) -> Option<(u64, u64)> {
        // `Header`: state, queue_next, vtable, owner_id.
        let [state, _, vtable, owner] = self.words(at)?;
        if state & LIFECYCLE != RUNNING || owner != 0 || !(self.image.0..self.image.1).contains(&vtable) {
            return None;
        }
        let poll_addr = self.word(vtable)?;
        if !self.polls.contains(&poll_addr) {
            return None;
        }
        let offset = self.word(vtable.checked_add(VTABLE_ID_OFFSET.into())?).filter(|&o| o <= MOST_ID_OFFSET)?;
        let id = self.word(at.checked_add(offset)?).filter(|&id| id != 0)?;
        Some((id, poll_addr))
    }

    /// The runtime's handle and the worker's index, by the scheduler context that the thread has entered.
    fn place(&self, fsbase: u64, place: WorkerPlace) -> Option<(u64, u64)> {
        let scheduler = fsbase.wrapping_add_signed(self.context?.0).wrapping_add((place.scheduler - 1).wrapping_mul(8));
        let context = self.word(scheduler).filter(|&c| c != 0)?;
        let worker = self.word(context.wrapping_add(place.worker))?;
        let handle = self.word(worker.wrapping_add(place.handle))?;
        Some((handle, self.word(worker.wrapping_add(place.index))?))
    }

    /// Whether a word of the thread's `CONTEXT` is this task's id.
    fn context_holds(&self, fsbase: u64, task_id: u64) -> bool {
        let Some((context, words)) = self.context else { return false };
        let at = fsbase.wrapping_add_signed(context);
        let words = usize::try_from(words.min(MOST_WORDS)).unwrap_or(0);
        let mut bytes = vec![0; words * 8];
        self.memory.read_exact_at(&mut bytes, at).is_ok()
            && bytes.as_chunks::<8>().0.iter().any(|word| u64::from_le_bytes(*word) == task_id)
    }

    fn word(&self, at: u64) -> Option<u64> {
        self.words::<1>(at).map(|[word]| word)
    }

    fn words<const N: usize>(&self, at: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        self.memory.read_exact_at(bytemuck::bytes_of_mut(&mut words), at).ok()?;
        Some(words.map(u64::from_le))
    }
}

/// A thread's stack, innermost word first.
struct Stack {
    words: Vec<u64>,
    fsbase: u64,
}
