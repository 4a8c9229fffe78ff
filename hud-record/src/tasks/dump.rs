//! All tasks of a process at one moment, for `hud dump`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    chain::{Broken, Chain, Types, Walk},
    chains::Chains,
    layout::{Layouts, Root},
    memory::{MOST_PIECES, Memory, Span},
    roots::{self, Stack},
    scan::{Found, Limits, State, Vtables, scan},
    spawn_sites::SpawnSites,
    threads::{Thread, ThreadReader},
};
use crate::{
    error::{Error, Result},
    inspect::{Inspection, PollFn, Process, Scheduler, TaskKind, TaskVtables, future, kind, type_name},
    privilege,
    sandbox::Sandbox,
    symbols::{BinaryId, Cache, Resolver, Sources},
};

/// The limits of one dump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Bytes of memory that are searched.
    pub(super) memory: u64,
    /// Tasks that are found.
    pub(super) tasks: usize,
    /// Time of reading the target's memory.
    pub(super) time: Duration,
}

/// For a dump that somebody waits for.
const MOST: Most = Most { memory: 256 << 30, tasks: 2 << 20, time: Duration::from_secs(60) };
/// Bytes of one task that are read at once.
const MOST_CELL: u64 = 64 << 10;
/// Bytes of tasks that are read at once.
const AT_ONCE: u64 = 4 << 20;
/// Reads of a task that changes while it is read.
const TRIES: usize = 4;
/// Rounds of requests for types: trait objects inside trait objects.
const ROUNDS: usize = 16;
/// Trait objects in one request.
const MOST_OBJECTS: usize = 4096;
/// Lower bound of the size of tokio's `Trailer`.
const TRAILER: u64 = 32;

/// Requests layouts: of poll functions with the offsets of their ids, of trait objects, of return addresses in
/// `block_on`.
type Ask<'a> = dyn FnMut(Vec<(u64, u64)>, Vec<u64>, Vec<u64>) -> std::result::Result<Layouts, String> + 'a;

/// A process's tasks.
#[derive(Debug)]
pub(crate) struct Dump {
    pub(crate) process: Process,
    /// Sorted by id.
    pub(super) tasks: Vec<Task>,
    pub(super) types: Vec<TaskType>,
    pub(super) layouts: Types,
    pub(super) detail: Detail,
    /// Missing data, and the reasons.
    pub(super) notes: Vec<String>,
    /// Whether all memory was searched.
    pub(super) is_complete: bool,
    /// Bytes of the target's memory that were searched, and the duration of the dump.
    pub(super) searched: u64,
    pub(super) took: Duration,
    load_bias: u64,
    deadline: Instant,
    /// CLOCK_MONOTONIC (ns) when the tasks were read.
    pub(super) read_at: u64,
    /// Free permits, by the address of a semaphore.
    pub(super) free: HashMap<u64, u64>,
    /// The threads, if they were asked for.
    pub(super) threads: Option<Vec<Thread>>,
}

/// The available detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Await chains, by type information.
    Chains,
    /// Task types by name or location only.
    Types,
}

/// A task type.
#[derive(Clone, Debug)]
pub(super) struct TaskType {
    pub(super) name: String,
    pub(super) kind: TaskKind,
    pub(super) scheduler: Option<Scheduler>,
    pub(super) root: Option<Root>,
    /// The address of its poll function, at run time; 0 for a future that is no task.
    pub(super) poll: u64,
    /// Where its future is declared, if known from the code alone.
    pub(super) written_at: Option<(String, u32)>,
}

/// A task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) of: usize,
    pub(super) owner: u64,
    /// Address of its header.
    pub(super) at: u64,
    pub(super) is: Is,
    /// Where it waits; `None` if unknown, or if it does not wait.
    pub(super) chain: Option<Arc<Chain>>,
    /// The thread that runs the future by `block_on`; then it is no task and has no id.
    pub(super) thread: Option<(u32, String)>,
    /// Where it was spawned: known if built with `tokio_unstable`.
    pub(super) spawned_at: Option<(String, u32)>,
}

/// A task's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Is {
    /// Being polled, or changed at every read.
    Running,
    /// Woken and in a queue.
    Scheduled,
    /// Waiting.
    Suspended,
    /// Spawned and not polled yet.
    NeverPolled,
    /// Finished; its handle still exists.
    Finished,
    /// Aborted and not dropped yet.
    Cancelled,
}

impl Is {
    pub(super) const ALL: [Is; 6] =
        [Is::Running, Is::Scheduled, Is::Suspended, Is::NeverPolled, Is::Finished, Is::Cancelled];

    fn of(state: State) -> Self {
        match state {
            s if s.is_complete() => Is::Finished,
            s if s.is_running() => Is::Running,
            s if s.is_cancelled() => Is::Cancelled,
            s if s.is_notified() => Is::Scheduled,
            _ => Is::Suspended,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Is::Running => "running",
            Is::Scheduled => "scheduled",
            Is::Suspended => "suspended",
            Is::NeverPolled => "never polled",
            Is::Finished => "finished, not joined",
            Is::Cancelled => "cancelled",
        }
    }
}

/// Reads dumps of one process, and keeps its debug information between them.
pub(crate) struct Reader {
    process: Process,
    memory: Memory,
    vtables: Vtables,
    sites: SpawnSites,
    polls: Vec<PollFn>,
    resolver: Resolver,
    threads: Option<ThreadReader>,
    binary: Option<BinaryId>,
    load_bias: u64,
    /// When the first dump began.
    began: Option<Instant>,
    most: Most,
    /// For later dumps of the same process.
    chains: Chains,
}

impl Reader {
    /// Opens a process, for its threads too if `has_threads`. Needs the rights of a debugger, and neither stops it nor
    /// writes to it.
    pub(crate) fn open(mut process: Process, has_threads: bool) -> Result<Self> {
        let began = Instant::now();
        let sandbox = Sandbox::start_urgent(None)?;
        let looked = Inspection::of_running(&mut process, &sandbox)?;
        let found = TaskVtables::of_running(&process, &sandbox)?;
        let memory = Memory::open(&process)?;
        privilege::enter_namer();
        let load_bias = found.load_bias;
        if found.tables.is_empty() {
            return Err(looked.into_tokio(&process.exe).err().unwrap_or(Error::NotTokio { path: process.exe }));
        }
        let mut threads = match has_threads {
            true => Some(ThreadReader::open(&process, &sandbox, &looked)?),
            false => None,
        };
        let mut resolver = Resolver::new(Arc::new(Sources::new(sandbox, Cache::default())), Some(process.pid));
        let binary = resolver.open(&process.tokio_path(), &process.tokio_file());
        if let (Some(threads), Some(binary)) = (&mut threads, binary) {
            threads.learn(&mut resolver, binary, &looked);
        }
        Ok(Reader {
            memory,
            vtables: Vtables::new(found.tables, load_bias),
            sites: SpawnSites::new(&process, found.data, load_bias),
            polls: looked.tokio.map(|tokio| tokio.poll_fns).unwrap_or_default(),
            process,
            resolver,
            threads,
            binary,
            load_bias,
            began: Some(began),
            most: MOST,
            chains: Chains::default(),
        })
    }

    /// For a process that is being recorded, by its recorder's sandboxed child; `polls` are the poll functions of its
    /// tasks, `names_from` is the binary with its debug information.
    pub(super) fn of_recorded(
        process: &Process,
        polls: Vec<PollFn>,
        names_from: &Path,
        sources: Arc<Sources>,
        most: Most,
    ) -> Result<Self> {
        let found = TaskVtables::of_running(process, sources.sandbox())?;
        let memory = Memory::open(process)?;
        let load_bias = found.load_bias;
        if found.tables.is_empty() {
            return Err(Error::NotTokio { path: process.exe.clone() });
        }
        let mut resolver = Resolver::new(sources, Some(process.pid));
        // Debug files are beside the file that the user gave, if any.
        let beside = if names_from.starts_with("/proc") { process.tokio_file() } else { names_from.to_path_buf() };
        let binary = resolver.open(names_from, &beside);
        Ok(Reader {
            memory,
            vtables: Vtables::new(found.tables, load_bias),
            sites: SpawnSites::new(process, found.data, load_bias),
            polls,
            process: process.clone(),
            resolver,
            threads: None,
            binary,
            load_bias,
            began: None,
            most,
            chains: Chains::default(),
        })
    }

    /// Reads all tasks of the process.
    pub(crate) fn dump(&mut self) -> Result<Dump> {
        let began = self.began.take().unwrap_or_else(Instant::now);
        let deadline = Instant::now() + self.most.time;
        let Reader {
            process, memory, vtables, sites, polls, resolver, threads, binary, load_bias, most, chains, ..
        } = self;
        chains.begin();
        // A zombie has no binary.
        if std::fs::read_link(process.exe_path()).is_err() {
            return Err(Error::Exited(process.pid));
        }
        memory.swapped = 0;
        let limits = Limits { bytes: most.memory, tasks: most.tasks, deadline };
        let scan = scan(memory, vtables, limits)?;
        // The search for present pages may have taken all of the time.
        let is_complete = scan.stopped.is_none() && Instant::now() < deadline;
        let mut notes = Vec::new();
        notes.extend(scan.stopped.map(|why| format!("not all memory was searched: {why}")));
        if memory.swapped > 0 {
            let swapped = hud_common::units::size(memory.swapped);
            notes.push(format!("{swapped} of memory are in swap, and tasks there are not shown"));
        }
        let mut dump = Dump {
            process: process.clone(),
            tasks: Vec::new(),
            types: Vec::new(),
            layouts: Types::default(),
            detail: Detail::Types,
            notes,
            is_complete,
            searched: scan.read,
            took: Duration::ZERO,
            load_bias: *load_bias,
            deadline,
            read_at: 0,
            free: HashMap::new(),
            threads: None,
        };
        let mut ask = |polls, objects, callers| match *binary {
            Some(binary) => resolver.layouts(binary, polls, objects, callers),
            None => Err("cannot read the file".into()),
        };
        dump.read((memory, chains), vtables, &scan.tasks, polls, &mut ask);
        let by_id: HashMap<u64, &Found> = scan.tasks.iter().map(|found| (found.at, found)).collect();
        for task in &mut dump.tasks {
            let table = by_id.get(&task.at).and_then(|found| vtables.get(found.vtable));
            task.spawned_at = table.and_then(|t| sites.of(memory, task.at.checked_add(t.spawned_at?)?));
        }
        if dump.detail == Detail::Chains {
            dump.read_roots(memory, &mut ask);
        }
        dump.count_free(memory);
        dump.threads = threads.as_mut().map(|threads| threads.read(resolver));
        dump.took = began.elapsed();
        Ok(dump)
    }
}

impl Dump {
    /// Reads the tasks that were found.
    fn read(
        &mut self,
        (memory, chains): (&Memory, &mut Chains),
        vtables: &Vtables,
        found: &[Found],
        polls: &[PollFn],
        ask: &mut Ask<'_>,
    ) {
        let live: BTreeSet<usize> = found.iter().map(|f| f.vtable).collect();
        let tables = live.iter().filter_map(|&v| vtables.get(v));
        let wanted: BTreeMap<u64, u64> = tables.map(|t| (t.poll, t.id)).collect();
        let mut roots: HashMap<u64, Root> = HashMap::new();
        match ask(wanted.into_iter().collect(), Vec::new(), Vec::new()) {
            Ok(mut layouts) => {
                if layouts.has_types {
                    self.detail = Detail::Chains;
                }
                roots.extend(layouts.roots.drain(..));
                self.layouts.add(layouts, &[]);
            }
            Err(how) => self.notes.push(format!("the debug information was not read: the sandboxed child {how}")),
        }
        let mut of: HashMap<usize, usize> = HashMap::new();
        for &vtable in &live {
            let Some(table) = vtables.get(vtable) else { continue };
            let known = polls.iter().find(|p| p.address == table.poll);
            let root = roots.get(&table.poll).cloned();
            // The scheduler's size shows which of the two it is; only names distinguish a worker's loop from other work
            // of the pool.
            let by_name = root.as_ref().map(|root| kind(&root.name)).or(known.map(|p| p.kind));
            let kind = match by_name {
                _ if table.is_future() => TaskKind::Task,
                Some(TaskKind::Worker) => TaskKind::Worker,
                _ => TaskKind::Blocking,
            };
            let name =
                root.as_ref().map(|root| type_name(future(&root.name))).or_else(|| known.map(|p| p.name.clone()));
            let name = name.unwrap_or_else(|| format!("task type {:#x}", table.poll));
            of.insert(vtable, self.types.len());
            let written_at = known.and_then(|p| p.file.clone().zip(p.line));
            let (scheduler, poll) = (known.and_then(|p| p.scheduler), table.poll.wrapping_add(self.load_bias));
            self.types.push(TaskType { name, kind, scheduler, root, poll, written_at });
        }
        self.read_at = crate::kernel::now();
        let mut todo: Vec<Found> = found.to_vec();
        for _ in 0..ROUNDS {
            let mut objects = BTreeSet::new();
            todo = self.round((memory, chains), vtables, &of, &todo, &mut objects);
            if todo.is_empty() || Instant::now() >= self.deadline {
                break;
            }
            let asked: Vec<u64> = objects.into_iter().take(MOST_OBJECTS).collect();
            let layouts = ask(Vec::new(), asked.clone(), Vec::new()).unwrap_or_default();
            self.layouts.add(layouts, &asked);
        }
        if !todo.is_empty() {
            self.notes.push(format!("it is unknown where {} tasks wait: the time limit was reached", todo.len()));
        }
        let left = todo.iter().filter_map(|found| Some(bare(*found, *of.get(&found.vtable)?, Is::of(found.state))));
        self.tasks.extend(left);
        self.tasks.sort_by_key(|task| task.id);
    }

    /// Reads tasks, and returns those that need more types, or for which there was no time.
    fn round(
        &mut self,
        (memory, chains): (&Memory, &mut Chains),
        vtables: &Vtables,
        of: &HashMap<usize, usize>,
        todo: &[Found],
        objects: &mut BTreeSet<u64>,
    ) -> Vec<Found> {
        let mut later = Vec::new();
        for batch in batches(todo, vtables) {
            if Instant::now() >= self.deadline {
                later.extend(batch);
                continue;
            }
            for (found, cell) in read(memory, vtables, batch) {
                let Some(&of) = of.get(&found.vtable) else { continue };
                let mut task = self.task((memory, chains), found, of, cell.as_deref());
                if matches!(task, Err(Broken::Torn)) {
                    task = self.retry((memory, chains), vtables, found, of);
                }
                match task {
                    Ok(task) => self.tasks.extend(task),
                    Err(Broken::Torn) => self.tasks.push(bare(found, of, Is::Running)),
                    Err(Broken::Objects(wanted)) => {
                        objects.extend(wanted);
                        later.push(found);
                    }
                }
            }
        }
        later
    }

    /// Reads the futures that threads run by `block_on`.
    fn read_roots(&mut self, memory: &Memory, ask: &mut Ask<'_>) {
        let bias = self.load_bias;
        let mappings = self.process.tokio_mappings().unwrap_or_default();
        let own = || mappings.iter();
        let code =
            Span { start: own().map(|m| m.start).min().unwrap_or(0), end: own().map(|m| m.end).max().unwrap_or(0) };
        let stacks = Stack::all(&self.process, memory);
        let Ok(mut layouts) = ask(Vec::new(), Vec::new(), roots::returns(&stacks, code, bias)) else { return };
        let blocked = std::mem::take(&mut layouts.blocked);
        self.layouts.add(layouts, &[]);
        for stack in stacks {
            let Some(root) = stack.runs(&blocked, bias) else { continue };
            let mut chain = None;
            for _ in 0..ROUNDS {
                match stack.chain(&self.process, memory, &self.layouts, bias, root, self.deadline) {
                    Ok(found) => {
                        chain = found;
                        break;
                    }
                    Err(wanted) => {
                        let asked: Vec<u64> = wanted.into_iter().take(MOST_OBJECTS).collect();
                        let layouts = ask(Vec::new(), asked.clone(), Vec::new()).unwrap_or_default();
                        self.layouts.add(layouts, &asked);
                    }
                }
            }
            let root = root.clone();
            let name = type_name(&root.name);
            self.types.push(TaskType {
                name,
                kind: TaskKind::Task,
                scheduler: None,
                root: Some(root),
                poll: 0,
                written_at: None,
            });
            self.tasks.push(Task {
                id: 0,
                of: self.types.len() - 1,
                owner: 0,
                at: 0,
                is: Is::Suspended,
                chain: chain.map(Arc::new),
                thread: Some((stack.tid, hud_common::clean_name(&stack.name))),
                spawned_at: None,
            });
        }
    }

    /// The task whose memory was read, or `None` if it has ended.
    fn task(
        &self,
        (memory, chains): (&Memory, &mut Chains),
        found: Found,
        of: usize,
        cell: Option<&[u8]>,
    ) -> std::result::Result<Option<Task>, Broken> {
        let mut task = bare(found, of, Is::of(found.state));
        if matches!(task.is, Is::Running | Is::Finished) {
            return Ok(Some(task));
        }
        let cell = cell.ok_or(Broken::Torn)?;
        if let Some(TaskType { root: Some(root), kind: TaskKind::Task, .. }) = self.types.get(of) {
            let chain = match chains.get(memory, &found, cell) {
                Some(chain) => chain,
                None => {
                    let from = (root.of, root.offset);
                    let walked = Walk::walked(memory, &self.layouts, self.load_bias, (found.at, cell), from)?;
                    chains.add(&found, cell, walked)
                }
            };
            if task.is == Is::Scheduled && chain.is_unresumed() {
                task.is = Is::NeverPolled;
            }
            task.chain = Some(chain);
        }
        Ok(Some(task))
    }

    fn retry(
        &self,
        (memory, chains): (&Memory, &mut Chains),
        vtables: &Vtables,
        found: Found,
        of: usize,
    ) -> std::result::Result<Option<Task>, Broken> {
        let mut last = Err(Broken::Torn);
        for _ in 0..TRIES {
            let Some((found, cell)) = read(memory, vtables, &[found]).pop() else { return Ok(None) };
            last = self.task((memory, chains), found, of, cell.as_deref());
            if !matches!(last, Err(Broken::Torn)) {
                break;
            }
        }
        last
    }

    /// Reads the number of free permits of each semaphore that a task waits for.
    fn count_free(&mut self, memory: &Memory) {
        let waits = self.tasks.iter().filter_map(|t| t.chain.as_ref()).flat_map(|chain| &chain.waits);
        let semaphores: HashMap<u64, u64> = waits.filter_map(|wait| Some((wait.at, wait.permits?))).collect();
        for (semaphore, permits) in semaphores {
            let word = permits.checked_add(8).and_then(|end| memory.bytes(Span { start: permits, end }));
            if let Some(Ok(word)) = word.map(<[u8; 8]>::try_from) {
                // The lowest bit means closed.
                self.free.insert(semaphore, u64::from_le_bytes(word) >> 1);
            }
        }
    }
}

impl Chain {
    fn is_unresumed(&self) -> bool {
        matches!(self.steps[..], [super::chain::Step { what: super::chain::What::Unresumed(_), .. }])
    }
}

fn bare(found: Found, of: usize, is: Is) -> Task {
    Task { id: found.id, of, owner: found.owner, at: found.at, is, chain: None, thread: None, spawned_at: None }
}

/// The part of a task that is read.
fn cell(found: &Found, vtables: &Vtables) -> Span {
    let size = vtables.get(found.vtable).map_or(0, |t| t.trailer.saturating_add(TRAILER));
    Span { start: found.at, end: found.at.saturating_add(size.min(MOST_CELL)) }
}

/// Tasks in batches that are read at once: each takes two ranges.
fn batches<'a>(found: &'a [Found], vtables: &Vtables) -> Vec<&'a [Found]> {
    let mut batches = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (index, task) in found.iter().enumerate() {
        bytes += 2 * cell(task, vtables).size();
        if bytes >= AT_ONCE || index + 1 - begin >= MOST_PIECES / 2 || index + 1 == found.len() {
            batches.extend(found.get(begin..=index));
            (begin, bytes) = (index + 1, 0);
        }
    }
    batches
}

/// Reads each task twice in a row, and returns those that still exist, with their memory if it was the same both times.
fn read(memory: &Memory, vtables: &Vtables, batch: &[Found]) -> Vec<(Found, Option<Vec<u8>>)> {
    let spans: Vec<Span> = batch.iter().map(|found| present(cell(found, vtables), memory)).collect();
    let pieces: Vec<Span> = spans.iter().flat_map(|&span| [span, span]).collect();
    let size: u64 = pieces.iter().map(|p| p.size()).sum();
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
    let got = memory.read(&pieces, &mut buffer);
    if got != buffer.len() {
        if batch.len() < 2 {
            return Vec::new();
        }
        // A part of it is unmapped: retried by halves.
        let (one, other) = batch.split_at(batch.len() / 2);
        let mut all = read(memory, vtables, one);
        all.extend(read(memory, vtables, other));
        return all;
    }
    let mut rest = buffer.as_slice();
    let mut all = Vec::new();
    for (found, span) in batch.iter().zip(&spans) {
        let size = usize::try_from(span.size()).unwrap_or(0);
        let Some((first, after)) = rest.split_at_checked(size) else { break };
        let Some((second, after)) = after.split_at_checked(size) else { break };
        rest = after;
        let again = |cell: &[u8]| {
            let id = |offset: u64| {
                let at = usize::try_from(offset).ok()?;
                Some(u64::from_le_bytes(*cell.get(at..)?.first_chunk()?))
            };
            vtables.task(found.at, cell.first_chunk()?, id)
        };
        let Some(now) = again(second).filter(|now| now.id == found.id && now.vtable == found.vtable) else { continue };
        let is_same = first == second;
        all.push((now, is_same.then(|| second.to_vec())));
    }
    all
}

/// The present part of a span, from its start.
fn present(span: Span, memory: &Memory) -> Span {
    if memory.is_present(span) {
        return span;
    }
    const PAGE: u64 = 4096;
    Span { end: span.end.min(span.start / PAGE * PAGE + PAGE), ..span }
}
