//! A thread's registers, stack and thread control block, read from outside while it sleeps.
//!
//! A blocked thread shows its stack pointer and program counter in `/proc/PID/task/TID/syscall`. The stack of a thread
//! that another one started ends at the thread control block, which is right above it (glibc and musl alike) and begins
//! with its own address; that address is the thread's `fsbase`.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::memory::{Span, private};
use crate::inspect::{Process, VTABLE_ID_OFFSET, read_text};

/// Bytes of stack that are read at once: a page, so that a readable part is read.
const PAGE: usize = 4096;
/// Bytes of one stack that are read.
const MOST_STACK: u64 = 512 << 10;
/// `tokio::runtime::task::core::Cell` is `repr(align(128))` on x86_64.
const HEADER_ALIGN: u64 = 128;
/// The flags of a task that is being polled (tokio/src/runtime/task/state.rs: RUNNING, COMPLETE).
const LIFECYCLE: u64 = 0b11;
const RUNNING: u64 = 0b01;
/// Largest accepted offset of the id in a task.
const MOST_ID_OFFSET: u64 = 4096;
/// Bytes of the thread control block in which the thread's id is searched; at 720 in glibc's `struct pthread`.
const CONTROL_BLOCK: usize = 1024;
/// Largest mapping that is searched for the main thread's control block, and bytes that are searched in all.
const MOST_BLOCK: u64 = 64 << 10;
const MOST_SEARCHED: u64 = 1 << 20;

/// The registers that a blocked thread shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) sp: u64,
    pub(crate) pc: u64,
}

impl Blocked {
    /// Of a line of `syscall`: the system call's number and six arguments, or -1, then stack pointer and program counter
    /// (proc(5)). `None` if it says "running".
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut from_end = text.split_ascii_whitespace().rev();
        let mut register = || u64::from_str_radix(from_end.next()?.strip_prefix("0x")?, 16).ok();
        let (pc, sp) = (register()?, register()?);
        Some(Blocked { sp, pc })
    }
}

/// A thread's stack, innermost word first.
pub(super) struct Stack {
    pub(super) words: Vec<u64>,
    pub(super) fsbase: u64,
}

/// A task that is being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunningTask {
    pub(crate) task_id: u64,
    /// Address of its poll function in the process.
    pub(crate) poll_addr: u64,
    /// The list of tasks to which it belongs; 0 = none.
    pub(crate) owner: u64,
}

/// The memory of the threads of one process.
#[derive(Debug)]
pub(super) struct ThreadMemory {
    pid: u32,
    memory: File,
    /// The address range of the file with tokio in the process.
    image: (u64, u64),
    /// See [`crate::inspect::Tokio::tls_module`].
    tls_module: u64,
}

impl ThreadMemory {
    /// Of a process whose file with tokio occupies `image`; `None` if its memory cannot be read.
    pub(super) fn open(process: &Process, image: (u64, u64), tls_module: u64) -> Option<Self> {
        let memory = File::open(format!("/proc/{}/mem", process.pid)).ok()?;
        Some(ThreadMemory { pid: process.pid, memory, image, tls_module })
    }

    /// The registers of a blocked thread.
    pub(super) fn blocked(&self, tid: u32) -> Option<Blocked> {
        Blocked::of(&read_text(format!("/proc/{}/task/{tid}/syscall", self.pid)).ok()?)
    }

    /// The stack from `sp` to the thread control block. The main thread has none above its stack.
    pub(super) fn stack(&self, sp: u64) -> Option<Stack> {
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

    /// From where the thread-locals of the file with tokio are counted: `fsbase`, or the thread's block of a library.
    /// `None` if the thread has none, or it cannot be read. `tls_block` in hud-ebpf/src/task.rs does the same.
    pub(super) fn tls_block(&self, fsbase: u64) -> Option<u64> {
        if self.tls_module == 0 {
            return Some(fsbase);
        }
        let dtv = self.word(fsbase.checked_add(8)?)?;
        let count = self.word(dtv.checked_sub(16)?)?;
        let entry = || self.word(dtv.checked_add(self.tls_module.checked_mul(16)?)?);
        (self.tls_module <= count).then(entry)?.filter(|&block| block != u64::MAX)
    }

    /// The words of a stack of which only the control block's address is known, from `sp` on.
    pub(super) fn words_above(&self, sp: u64) -> Vec<u64> {
        let (mut words, mut page) = (Vec::new(), [0; PAGE]);
        let mut at = sp.next_multiple_of(8);
        while words.len() < usize::try_from(MOST_STACK / 8).unwrap_or(0) {
            let Ok(size) = usize::try_from(4096 - at % 4096) else { break };
            let Some(bytes) = page.get_mut(..size).filter(|_| at < 1 << 47) else { break };
            if self.memory.read_exact_at(bytes, at).is_err() {
                break;
            }
            words.extend(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
            at += 4096 - at % 4096;
        }
        words
    }

    /// The main thread's `fsbase`. Its control block is no part of its stack: the dynamic loader maps it, or it lies at
    /// the start of the heap of a static binary.
    pub(super) fn main_fsbase(&self) -> Option<u64> {
        // As the thread itself sees it: in a container, ids are others.
        let status = read_text(format!("/proc/{}/status", self.pid)).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let id = ids.split_ascii_whitespace().next_back()?.parse().ok()?;
        let maps = read_text(format!("/proc/{}/maps", self.pid)).ok()?;
        let mut searched = 0;
        for span in maps.lines().filter_map(small) {
            let (start, size) = (span.start, span.size().min(MOST_BLOCK));
            searched += size;
            if searched > MOST_SEARCHED {
                return None;
            }
            let mut bytes = vec![0; usize::try_from(size).ok()?];
            if self.memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            let words = bytes.as_chunks::<8>().0.iter().zip((start..).step_by(8));
            let mut blocks = words.filter(|(word, at)| u64::from_le_bytes(**word) == *at).map(|(_, at)| at);
            if let Some(found) = blocks.find(|at| self.is_control_block(*at) && self.holds(*at, id)) {
                return Some(found);
            }
        }
        None
    }

    /// Whether a thread control block contains a thread's id.
    fn holds(&self, at: u64, id: u32) -> bool {
        let mut block = [0; CONTROL_BLOCK];
        self.read(&mut block, at).is_some()
            && block.as_chunks::<4>().0.iter().any(|word| u32::from_le_bytes(*word) == id)
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

    /// Addresses of headers of tasks to which words of a stack may point, each once if they are next to each other.
    pub(super) fn headers<'a>(
        &'a self,
        words: impl Iterator<Item = &'a u64>,
        sp: u64,
        fsbase: u64,
    ) -> impl Iterator<Item = u64> {
        let mut last = 0;
        let may_be = move |word: u64| {
            word.is_multiple_of(8)
                && word >= 0x10000
                && word >> 47 == 0
                && !(sp..=fsbase).contains(&word)
                && !(self.image.0..self.image.1).contains(&word)
        };
        let headers = words.copied().filter(move |&word| may_be(word)).map(|word| word & !(HEADER_ALIGN - 1));
        headers.filter(move |&at| at != std::mem::replace(&mut last, at))
    }

    /// The task whose header is at an address, if it is being polled.
    pub(super) fn running_task(&self, at: u64) -> Option<RunningTask> {
        // `Header`: state, queue_next, vtable, owner_id.
        let [state, _, vtable, owner] = self.words(at)?;
        if state & LIFECYCLE != RUNNING || !(self.image.0..self.image.1).contains(&vtable) {
            return None;
        }
        let poll_addr = self.word(vtable)?;
        let offset = self.word(vtable.checked_add(VTABLE_ID_OFFSET.into())?).filter(|&o| o <= MOST_ID_OFFSET)?;
        let task_id = self.word(at.checked_add(offset)?).filter(|&id| id != 0)?;
        Some(RunningTask { task_id, poll_addr, owner })
    }

    pub(super) fn word(&self, at: u64) -> Option<u64> {
        self.words::<1>(at).map(|[word]| word)
    }

    pub(super) fn words<const N: usize>(&self, at: u64) -> Option<[u64; N]> {
        let mut words = [0; N];
        self.read(bytemuck::bytes_of_mut(&mut words), at)?;
        Some(words.map(u64::from_le))
    }

    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> Option<()> {
        self.memory.read_exact_at(bytes, at).ok()
    }
}

/// The range of a mapping that may hold the main thread's control block.
fn small(line: &str) -> Option<Span> {
    let (span, name) = private(line)?;
    (name == "[heap]" || (name.is_empty() && span.size() <= MOST_BLOCK)).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_registers_of_a_blocked_thread_only() {
        let line = "202 0x55 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd8e5b10a8 0x7f1b2c0e1abc\n";
        assert_eq!(Blocked::of(line), Some(Blocked { sp: 0x7ffd_8e5b_10a8, pc: 0x7f1b_2c0e_1abc }));
        assert_eq!(Blocked::of("-1 0x7ffd8e5b10a8 0x10\n"), Some(Blocked { sp: 0x7ffd_8e5b_10a8, pc: 0x10 }));
        for other in ["running\n", "", "-1", "0x1", "1 x y", "202 0x5 0xfffffffffffffffff 0x1"] {
            assert_eq!(Blocked::of(other), None, "{other}");
        }
    }

    #[test]
    fn finds_the_main_threads_control_block() {
        let process = Process { pid: std::process::id(), exe: "/proc/self/exe".into(), library: None };
        let memory = ThreadMemory::open(&process, (0, 0), 0).unwrap_or_else(|| panic!("own memory"));
        let found = memory.main_fsbase().unwrap_or_else(|| panic!("no control block"));
        assert!(memory.is_control_block(found) && memory.holds(found, process.pid));
        // This test's own thread is another one.
        let own: u64;
        // SAFETY: reads the first word of the thread control block.
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) own, options(nostack, readonly)) };
        assert!(memory.is_control_block(own) && own != found && !memory.holds(own, process.pid));
    }
}
