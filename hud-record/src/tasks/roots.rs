//! The futures that threads run by `block_on`: they are no tasks, and are on the threads' stacks.
//!
//! A blocked thread's stack pointer is in `/proc/PID/task/TID/syscall`. Among the words above it is the return address
//! into `block_on<F>`, which names `F`, and above it is `F` itself. Each word is tried, and `F` is where a whole chain
//! is consistent: each coroutine suspended, down to a leaf with valid pointers. Copies that were moved away are not:
//! they were never polled. (On two runtimes, one of 35 and one of 6 addresses with a plausible first byte remained.)

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::time::ClockId;

use super::{
    chain::{Broken, Chain, Types, Walk, What},
    layout::{MOST_CALLERS, Root},
    memory::{Memory, Span},
    thread_memory::Blocked,
};
use crate::inspect::{Process, read_text};

/// In nanoseconds.
const CENTURY: u64 = 100 * 365 * 86_400 * 1_000_000_000;
/// Bytes of one stack that are read.
const MOST_STACK: u64 = 256 << 10;
/// Threads that are examined, and bytes of their stacks in all.
const MOST_THREADS: usize = 4096;
const MOST_STACKS: usize = 64 << 20;

/// A blocked thread's stack.
pub(super) struct Stack {
    pub(super) tid: u32,
    pub(super) name: String,
    /// Its lowest address: the stack pointer.
    at: u64,
    bytes: Vec<u8>,
    /// The system call, its arguments, the stack pointer and the program counter.
    blocked: String,
}

impl Stack {
    /// The stacks of all blocked threads.
    pub(super) fn all(process: &Process, memory: &Memory) -> Vec<Self> {
        let mut threads = process.threads();
        threads.truncate(MOST_THREADS);
        threads.sort_unstable();
        let (mut stacks, mut bytes) = (Vec::new(), 0);
        for tid in threads {
            if bytes >= MOST_STACKS {
                break;
            }
            if let Some(stack) = Self::of(process, memory, tid) {
                bytes += stack.bytes.len();
                stacks.push(stack);
            }
        }
        stacks
    }

    fn of(process: &Process, memory: &Memory, tid: u32) -> Option<Self> {
        let blocked = blocked(process, tid)?;
        let at = Blocked::of(&blocked)?.sp.next_multiple_of(8);
        let bytes = memory.bytes(Span { start: at, end: memory.end_of_present(at, MOST_STACK)? })?;
        let name = process.thread_name(tid).unwrap_or_default();
        Some(Stack { tid, name, at, bytes, blocked })
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
    }

    /// Whether the thread has not run since, as far as can be seen.
    fn is_unchanged(&self, process: &Process, memory: &Memory) -> bool {
        let span = Span { start: self.at, end: self.at.saturating_add(self.bytes.len() as u64) };
        memory.bytes(span).is_some_and(|now| now == self.bytes)
            && blocked(process, self.tid).is_some_and(|now| now == self.blocked)
    }

    /// The innermost future that it runs by `block_on`.
    pub(super) fn runs<'a>(&self, roots: &'a [(u64, Root)], bias: u64) -> Option<&'a Root> {
        let called = |word: u64| roots.iter().find(|(address, _)| *address == word.wrapping_sub(bias));
        self.words().find_map(called).map(|(_, root)| root)
    }

    /// Its chain, if its place is certain; or the trait objects whose types are needed.
    pub(super) fn chain(
        &self,
        process: &Process,
        memory: &Memory,
        types: &Types,
        bias: u64,
        root: &Root,
        deadline: Instant,
    ) -> Result<Option<Chain>, BTreeSet<u64>> {
        let since = began(process).unwrap_or(0);
        let (mut found, mut wanted): (Vec<Chain>, BTreeSet<u64>) = (Vec::new(), BTreeSet::new());
        for offset in (0..self.bytes.len() as u64).step_by(8) {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            match Walk::chain(memory, types, bias, (self.at, &self.bytes), (root.of, offset)) {
                // A pointer to it has the same chain.
                Ok(chain) if makes_sense(&chain, memory, types, since) && !found.contains(&chain) => found.push(chain),
                Err(Broken::Objects(objects)) => wanted.extend(objects),
                _ => {}
            }
        }
        if !wanted.is_empty() {
            return Err(wanted);
        }
        Ok(if found.len() == 1 && self.is_unchanged(process, memory) { found.pop() } else { None })
    }
}

/// Return addresses of stacks in the code, as addresses in the binary's file.
pub(super) fn returns(stacks: &[Stack], code: Span, bias: u64) -> Vec<u64> {
    let words = stacks.iter().flat_map(Stack::words);
    let places: BTreeSet<u64> =
        words.filter(|word| (code.start..code.end).contains(word)).map(|word| word.wrapping_sub(bias)).collect();
    places.into_iter().take(MOST_CALLERS).collect()
}

fn blocked(process: &Process, tid: u32) -> Option<String> {
    read_text(format!("/proc/{}/task/{tid}/syscall", process.pid)).ok()
}

/// When a process began, in ns of CLOCK_MONOTONIC; a second early, as ticks are coarse.
fn began(process: &Process) -> Option<u64> {
    let stat = read_text(format!("/proc/{}/stat", process.pid)).ok()?;
    // In ticks of CLOCK_BOOTTIME; the name before may contain anything but ends with a parenthesis.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let now = |clock| Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default();
    let asleep = now(ClockId::Boottime).saturating_sub(now(ClockId::Monotonic));
    let began = Duration::from_secs(ticks / per_second).saturating_sub(asleep + Duration::from_secs(1));
    u64::try_from(began.as_nanos()).ok()
}

/// Whether a chain is that of a waiting future.
fn makes_sense(chain: &Chain, memory: &Memory, types: &Types, since: u64) -> bool {
    let (Some(first), Some(last)) = (chain.steps.first(), chain.steps.last()) else { return false };
    let is_leaf = |step: usize| matches!(chain.steps.get(step).map(|s| s.what), Some(What::Leaf(_)));
    let leads_somewhere = |step: usize| {
        let Some(What::Leaf(of)) = chain.steps.get(step).map(|s| s.what) else { return true };
        let Some(resource) = types.resource(of) else { return true };
        chain.waits.iter().filter(|wait| wait.step == step).any(|wait| match resource.leads_to_memory() {
            true => memory.is_present(Span { start: wait.at, end: wait.at.saturating_add(8) }),
            // Timers are set after the program began, and for less than a century.
            false => (since..since.saturating_add(CENTURY)).contains(&wait.at),
        })
    };
    matches!(first.what, What::Await(..))
        && matches!(last.what, What::Leaf(_))
        && (0..chain.steps.len()).filter(|&step| is_leaf(step)).all(leads_somewhere)
}
