//! The task that a thread is polling and the thread's stack, read from outside while the thread sleeps.
//!
//! A thread that has slept since before hud attached causes no event, so the kernel programs know nothing of it. The
//! current task's id is in tokio's thread-local, whose distance from `fsbase` the kernel programs use too; the task's
//! header, and so its type, is found by the words of the stack; the stack is walked by the unwind tables.

use std::collections::HashMap;

use super::{
    memory::{Memory, Span},
    thread_memory::{Blocked, RunningTask, ThreadMemory},
};
use crate::{
    inspect::{Process, Tokio, read_text},
    unwind::walk::{self, Tables, Walked, Words},
};

/// Threads whose `fsbase` is remembered.
const MOST_THREADS: usize = 65_536;
/// Headers to which a stack may point that are read.
const MOST_HEADERS: usize = 512;
/// Pages of memory that one walk reads.
const MOST_PAGES: usize = 128;

/// Whether a thread is asleep, and how often it was switched: the same number twice means that it did not run in
/// between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub(crate) is_asleep: bool,
    pub(crate) switches: u64,
}

impl Scheduled {
    /// Of a thread of this process.
    pub(crate) fn of(pid: u32, tid: u32) -> Option<Self> {
        Self::parse(&read_text(format!("/proc/{pid}/task/{tid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        // A name is first, and cannot contain a line of its own: the kernel escapes it.
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let state = field("State")?.trim_start().chars().next()?;
        let count = |name| field(name)?.trim().parse::<u64>().ok();
        let switches = count("voluntary_ctxt_switches")?.checked_add(count("nonvoluntary_ctxt_switches")?)?;
        Some(Scheduled { is_asleep: matches!(state, 'S' | 'D' | 'I'), switches })
    }
}

/// Reads the current tasks of one process's threads.
#[derive(Debug)]
pub(crate) struct CurrentTasks {
    process: Process,
    threads: ThreadMemory,
    pages: Memory,
    /// The distance of the current task's id from [`ThreadMemory::tls_block`].
    task_id: Option<i64>,
    /// Whether the word before the id is the tag of an `Option`.
    is_tagged: bool,
    fsbase: HashMap<u32, u64>,
    /// The main thread's, once it was searched.
    main: Option<Option<u64>>,
}

impl CurrentTasks {
    /// Of a process whose file with tokio occupies `image`; `None` if its memory cannot be read.
    pub(crate) fn new(process: &Process, tokio: &Tokio, image: (u64, u64)) -> Option<Self> {
        Some(CurrentTasks {
            threads: ThreadMemory::open(process, image, tokio.tls_module)?,
            pages: Memory::open(process).ok()?,
            process: process.clone(),
            task_id: tokio.tls_task_id,
            is_tagged: tokio.tls_tagged,
            fsbase: HashMap::new(),
            main: None,
        })
    }

    /// Sets the distance of the current task's id.
    pub(crate) fn know_task_id(&mut self, at: i64) {
        self.task_id = Some(at);
    }

    /// The registers of a blocked thread.
    pub(crate) fn blocked(&self, tid: u32) -> Option<Blocked> {
        self.threads.blocked(tid)
    }

    /// The id of the task that a thread is polling, 0 if none; `None` if that cannot be read. A worker's loop is a task
    /// too.
    pub(crate) fn task_id(&mut self, tid: u32, sp: u64) -> Option<u64> {
        let fsbase = self.fsbase(tid, sp)?;
        // A thread that has not used tokio's thread-locals polls no task.
        let Some(block) = self.threads.tls_block(fsbase) else { return Some(0) };
        let at = block.checked_add_signed(self.task_id?)?;
        if self.is_tagged && self.threads.word(at.checked_sub(8)?)? & 0xff != 1 {
            return Some(0);
        }
        self.threads.word(at)
    }

    fn fsbase(&mut self, tid: u32, sp: u64) -> Option<u64> {
        if tid == self.process.pid {
            return *self.main.get_or_insert_with(|| self.threads.main_fsbase());
        }
        if let Some(&known) = self.fsbase.get(&tid)
            && self.threads.word(known) == Some(known)
        {
            return Some(known);
        }
        if self.fsbase.len() >= MOST_THREADS {
            self.fsbase.clear();
        }
        let found = self.threads.stack(sp)?.fsbase;
        self.fsbase.insert(tid, found);
        Some(found)
    }

    /// The task with this id that a thread is polling, by the words of its stack.
    pub(crate) fn running_task(&mut self, tid: u32, sp: u64, task_id: u64) -> Option<RunningTask> {
        let fsbase = self.fsbase(tid, sp)?;
        let words = match self.threads.stack(sp) {
            Some(stack) => stack.words,
            None => self.threads.words_above(sp),
        };
        let end = if fsbase > sp { fsbase } else { sp.saturating_add(words.len() as u64 * 8) };
        let headers = self.threads.headers(words.iter(), sp, end).take(MOST_HEADERS);
        let mut tasks = headers.filter_map(|at| self.threads.running_task(at));
        tasks.find(|task| task.task_id == task_id)
    }

    /// The stack of a thread that is blocked with these registers.
    pub(crate) fn stack(&self, tables: &impl Tables, at: Blocked) -> Walked {
        walk::walk(tables, &mut Pages { memory: &self.pages, read: HashMap::new() }, at.pc, at.sp)
    }
}

/// Memory that is read page by page, each once.
pub(crate) struct Pages<'a> {
    memory: &'a Memory,
    read: HashMap<u64, Option<Vec<u8>>>,
}

impl<'a> Pages<'a> {
    const SIZE: u64 = 4096;

    fn bytes(&mut self, at: u64, into: &mut [u8]) -> Option<()> {
        let start = at - at % Self::SIZE;
        if self.read.len() >= MOST_PAGES && !self.read.contains_key(&start) {
            return None;
        }
        let memory = self.memory;
        let read = || memory.bytes(Span { start, end: start.checked_add(Self::SIZE)? });
        let page = self.read.entry(start).or_insert_with(read).as_ref()?;
        let from = usize::try_from(at - start).ok()?;
        into.copy_from_slice(page.get(from..from.checked_add(into.len())?)?);
        Some(())
    }
}

impl Words for Pages<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        let in_page = usize::try_from((Self::SIZE - address % Self::SIZE).min(8)).ok()?;
        let (one, other) = word.split_at_mut(in_page);
        self.bytes(address, one)?;
        if !other.is_empty() {
            self.bytes(address.checked_add(u64::try_from(in_page).ok()?)?, other)?;
        }
        Some(u64::from_le_bytes(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_thread_is_known_by_its_status() {
        let status = "Name:\tState: R\nUmask:\t0022\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(Scheduled::parse(status), Some(Scheduled { is_asleep: true, switches: 15 }));
        let running = status.replace("S (", "R (");
        assert_eq!(Scheduled::parse(&running), Some(Scheduled { is_asleep: false, switches: 15 }));
        assert_eq!(Scheduled::parse("State:\tS (sleeping)\nvoluntary_ctxt_switches:\t12\n"), None);
        assert_eq!(Scheduled::parse(""), None);
    }

    #[test]
    fn words_are_read_across_pages() {
        let process = Process { pid: std::process::id(), exe: "/proc/self/exe".into(), library: None };
        let memory = Memory::open(&process).unwrap_or_else(|e| panic!("{e}"));
        let bytes: Vec<u8> = (0..3 * 4096_usize).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
        let start = bytes.as_ptr() as u64;
        let mut pages = Pages { memory: &memory, read: HashMap::new() };
        let boundary = start.next_multiple_of(4096);
        for at in boundary - 9..boundary + 9 {
            let from = usize::try_from(at - start).unwrap_or(0);
            let expected = bytes.get(from..from + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
            assert_eq!(pages.word(at), expected, "{at:#x}");
        }
        assert_eq!((pages.word(0), pages.word(u64::MAX), pages.word(u64::MAX - 7)), (None, None, None));
    }
}
