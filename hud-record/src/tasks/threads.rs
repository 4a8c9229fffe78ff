//! Each thread of a process with its stack, for `hud dump --threads`: read from outside, so only of threads that sleep.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::{
    current_tasks::{CurrentTasks, Scheduled},
    worker_loops::{WorkerLoop, WorkerLoops},
};
use crate::{
    error::Result,
    inspect::{Inspection, Mapping, Process, Tokio, bare, clean},
    sandbox::Sandbox,
    symbols::{BinaryId, ModuleKind, ResolvedAddress, Resolver},
    unwind::{Prepared, PreparedTables, walk::Walked},
};
use hud_common::unwind::Outcome;

/// Threads that are shown.
const MOST_THREADS: usize = 4096;

/// A thread.
#[derive(Clone, Debug)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) is_asleep: bool,
    /// The task that it is polling, which is no worker's loop.
    pub(super) task: Option<u64>,
    /// Its stack, leaf first; empty if it runs.
    pub(super) stack: Vec<CodeFrame>,
    /// Whether the stack ends at the thread's first function.
    pub(super) is_complete: bool,
}

/// What a thread does for tokio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A worker, with its number if that is known.
    Worker(Option<u64>),
    Pool,
    Other,
}

/// A function on a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CodeFrame {
    /// Its name, or the file that contains it.
    pub(super) function: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) origin: Option<&'static str>,
}

/// Reads the threads of one process.
pub(super) struct ThreadReader {
    process: Process,
    tokio: Tokio,
    tables: PreparedTables,
    tasks: Option<CurrentTasks>,
    loops: Option<WorkerLoops>,
    mappings: Vec<Mapping>,
    /// By the start of their mapping.
    binaries: HashMap<u64, Option<BinaryId>>,
}

impl ThreadReader {
    /// Builds the unwind tables of all mapped code.
    pub(super) fn open(process: &Process, sandbox: &Sandbox, looked: &Inspection) -> Result<Self> {
        let bias = looked.load_bias.unwrap_or(0);
        let image = (looked.image.0.wrapping_add(bias), looked.image.1.wrapping_add(bias));
        let tokio = looked.tokio.clone().unwrap_or_else(Tokio::none);
        Ok(ThreadReader {
            tables: Prepared::of(process, sandbox)?.into_tables(),
            tasks: CurrentTasks::new(process, &tokio, image),
            loops: WorkerLoops::new(process, &tokio, image, bias),
            mappings: process.mappings()?,
            process: process.clone(),
            tokio,
            binaries: HashMap::new(),
        })
    }

    /// Applies debug information about tokio.
    pub(super) fn learn(&mut self, resolver: &mut Resolver, binary: BinaryId, looked: &Inspection) {
        if let Ok(debug) = resolver.tokio(binary, self.tokio.poll_addresses()) {
            self.tokio.learn(&debug);
            let bias = looked.load_bias.unwrap_or(0);
            let image = (looked.image.0.wrapping_add(bias), looked.image.1.wrapping_add(bias));
            self.tasks = CurrentTasks::new(&self.process, &self.tokio, image);
            self.loops = WorkerLoops::new(&self.process, &self.tokio, image, bias);
        }
    }

    /// All threads, by their ids.
    pub(super) fn read(&mut self, resolver: &mut Resolver) -> Vec<Thread> {
        let mut tids = self.process.threads();
        tids.sort_unstable();
        tids.truncate(MOST_THREADS);
        let mut found: Vec<(Thread, Walked)> = Vec::new();
        let mut loops: Vec<WorkerLoop> = Vec::new();
        for tid in tids {
            let Some(scheduled) = Scheduled::of(self.process.pid, tid) else { continue };
            let name = clean(&self.process.thread_name(tid).unwrap_or_default());
            let own = self.loops.as_ref().and_then(|loops| loops.of_thread(tid, || None));
            let (task, walked) = self.of_thread(tid, scheduled).unwrap_or_else(|| (None, nowhere()));
            let task = task.filter(|id| *id != 0 && own.is_none_or(|own| own.task_id != *id));
            let role = if own.is_some() { Role::Worker(None) } else { Role::Other };
            loops.extend(own);
            let is_complete = walked.outcome == Outcome::Complete;
            let is_asleep = !walked.addresses.is_empty();
            found.push((Thread { tid, name, role, is_asleep, task, stack: Vec::new(), is_complete }, walked));
        }
        number(&mut found, &mut loops);
        let named = self.names(resolver, found.iter().map(|(_, walked)| walked.addresses.as_slice()));
        let named = found.into_iter().map(|(mut thread, walked)| {
            thread.stack = stack(&walked.addresses, &named);
            let is_of_pool = |f: &CodeFrame| f.function.contains("tokio::runtime::blocking::pool");
            if thread.role == Role::Other && thread.stack.iter().any(is_of_pool) {
                thread.role = Role::Pool;
            }
            thread
        });
        named.collect()
    }

    /// The task and the stack of a thread that sleeps. `None` if it does not, or woke up meanwhile.
    fn of_thread(&mut self, tid: u32, scheduled: Scheduled) -> Option<(Option<u64>, Walked)> {
        let tasks = self.tasks.as_mut().filter(|_| scheduled.is_asleep)?;
        let at = tasks.blocked(tid)?;
        let task = tasks.task_id(tid, at.sp);
        let walked = tasks.stack(&self.tables, at);
        (Scheduled::of(self.process.pid, tid) == Some(scheduled)).then_some((task, walked))
    }

    /// The functions at each address of some stacks. A caller is looked up before its return address.
    fn names<'a>(&mut self, resolver: &mut Resolver, stacks: impl Iterator<Item = &'a [u64]>) -> HashMap<u64, Named> {
        let mut wanted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut names = HashMap::new();
        for (depth, &pc) in stacks.flat_map(|stack| stack.iter().enumerate()) {
            // A return from a signal handler is no call, so it has to be looked up as well.
            for address in if depth == 0 { pc..=pc } else { pc.saturating_sub(1)..=pc } {
                if names.contains_key(&address) {
                    continue;
                }
                names.insert(address, Named::default());
                if let Some(mapping) = self.mappings.iter().find(|m| (m.start..m.end).contains(&address)) {
                    wanted.entry(mapping.start).or_default().push(address);
                }
            }
        }
        for (start, addresses) in wanted {
            let Some(mapping) = self.mappings.iter().find(|m| m.start == start).cloned() else { continue };
            let path = bare(&mapping.path).to_string();
            let has_tokio = Path::new(&path) == self.process.tokio_file();
            let kind = if has_tokio { ModuleKind::Program } else { ModuleKind::by_path(&path) };
            let place = if has_tokio { self.process.tokio_path() } else { self.process.mapped_file(&mapping) };
            let open = || if path.starts_with('/') { resolver.open(&place, path.as_ref()) } else { None };
            let binary = *self.binaries.entry(start).or_insert_with(open);
            let offsets: Vec<u64> =
                addresses.iter().map(|a| a.wrapping_sub(mapping.start).wrapping_add(mapping.offset)).collect();
            let found = match binary {
                Some(binary) => resolver.resolve(binary, &offsets),
                None => vec![ResolvedAddress::default(); offsets.len()],
            };
            let file = clean(path.rsplit('/').next().unwrap_or(&path));
            for (address, found) in addresses.into_iter().zip(found) {
                let is_signal_return = found.is_signal_return;
                let mut frames: Vec<CodeFrame> = found
                    .frames
                    .into_iter()
                    .map(|f| CodeFrame {
                        function: f.function.unwrap_or_else(|| format!("<{file}>")),
                        file: f.file,
                        line: f.line,
                        origin: kind.origin(f.origin),
                    })
                    .collect();
                if frames.is_empty() {
                    let (function, origin) = (format!("<{file}>"), kind.origin(None));
                    frames.push(CodeFrame { function, file: None, line: None, origin });
                }
                names.insert(address, Named { frames, is_signal_return });
            }
        }
        names
    }
}

/// The functions at an address, innermost first.
#[derive(Clone, Debug, Default)]
struct Named {
    frames: Vec<CodeFrame>,
    is_signal_return: bool,
}

fn nowhere() -> Walked {
    Walked { addresses: Vec::new(), outcome: Outcome::Failed }
}

/// The frames of a stack. Code that was interrupted by a signal did not call.
fn stack(addresses: &[u64], named: &HashMap<u64, Named>) -> Vec<CodeFrame> {
    let (mut frames, mut is_exact) = (Vec::new(), true);
    for &pc in addresses {
        let mut of = named.get(&if is_exact { pc } else { pc.saturating_sub(1) });
        let is_signal_return = !is_exact && named.get(&pc).is_some_and(|at| at.is_signal_return);
        if is_signal_return {
            of = named.get(&pc);
        }
        match of.map(|of| of.frames.as_slice()) {
            Some(known @ [_, ..]) => frames.extend_from_slice(known),
            _ => frames.push(CodeFrame { function: format!("{pc:#x}"), file: None, line: None, origin: None }),
        }
        is_exact = is_signal_return;
    }
    frames
}

/// Numbers the workers: by tokio's own index, or in the order in which their loops were started.
fn number(threads: &mut [(Thread, Walked)], loops: &mut [WorkerLoop]) {
    loops.sort_unstable_by_key(|one| one.task_id);
    let has_index = loops.iter().any(|one| one.place.is_some());
    for (rank, one) in (0_u64..).zip(loops.iter()) {
        let index = match one.place {
            Some((_, index)) => Some(index),
            None => (!has_index).then_some(rank),
        };
        if let Some((thread, _)) = threads.iter_mut().find(|(thread, _)| thread.tid == one.tid) {
            thread.role = Role::Worker(index);
        }
    }
}
