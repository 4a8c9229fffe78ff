//! Tokio inside the target's binary: its poll functions with their task types, and its thread-local context.
//!
//! Names are those of tokio 1.23 to 1.54: `tokio::runtime::task::raw::poll::<T, S>` (tokio/src/runtime/task/raw.rs) is
//! an entry of each task type's vtable, so it keeps a symbol of its own even under fat LTO.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    NoTokio,
    binary::Binary,
    dwarf::PollType,
    glue,
    image::Image,
    names,
    shape::{self, Shape},
    site, task_id,
};
use crate::intake::protocol::TokioDebug;
use hud_common::wire::WorkerPlace;
use serde::{Deserialize, Serialize};

/// Offset of `id_offset` in a task type's vtable (tokio/src/runtime/task/raw.rs, `struct Vtable`), since 1.23.
pub(crate) const VTABLE_ID_OFFSET: u32 = 72;

/// What hud needs to know of the target's tokio.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tokio {
    /// Its version, by the paths that its panics carry.
    pub version: Option<String>,
    /// Every poll function of the binary.
    pub poll_fns: Vec<PollFn>,
    /// The distance from `fsbase` to the current task's id.
    pub tls_task_id: Option<i64>,
    /// The distance from `fsbase` to tokio's thread-local context, and its size in words.
    pub tls_context: Option<(i64, u64)>,
    /// How the kernel program finds which worker a thread is.
    #[serde(skip)]
    pub worker_place: Option<WorkerPlace>,
    /// Whether the word before the current task's id tells if there is one: so up to tokio 1.39, where the field is an
    /// `Option<u64>` and the number stays when the task is no longer polled.
    pub tls_tagged: bool,
    /// Places in the file of `wake_by_val` and `wake_by_ref`, by which a task is woken: near their entries, where its header
    /// is still in `rdi`.
    pub wakes: Vec<u64>,
    /// Places in the file of `OwnedTasks::bind_inner`, by which a task joins its runtime.
    pub spawns: Vec<u64>,
    /// Places in the file of std's `rust_panic`, by which a panic begins to unwind.
    pub panics: Vec<u64>,
    /// What could not be found, in words.
    pub notes: Vec<String>,
    /// The symbols of poll functions, by address: of functions that the linker has folded into one, all.
    polls: BTreeMap<u64, BTreeSet<String>>,
}

/// One `raw::poll::<T, S>`, that is, one task type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollFn {
    /// Its address in the binary.
    pub address: u64,
    /// Its place in the file.
    pub file_offset: u64,
    /// The type as people write it.
    pub name: String,
    /// The type as the compiler names it.
    pub raw_name: String,
    /// What kind of work tasks of this type are.
    pub kind: TaskKind,
    /// The scheduler that runs it, where known.
    pub scheduler: Option<Scheduler>,
    /// Where the future is written.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<u32>,
}

impl PollFn {
    /// The function at an address, of the types in `types`: `…poll<T, S>`, or `…poll` where its symbols hide them.
    fn new(address: u64, file_offset: u64, types: &BTreeSet<String>) -> Self {
        let mut poll = PollFn {
            address,
            file_offset,
            name: unnamed(address, TaskKind::Task, None),
            raw_name: String::new(),
            kind: TaskKind::Task,
            scheduler: None,
            file: None,
            line: None,
        };
        poll.name(types.iter().map(|name| names::generic_arguments(name)));
        poll
    }

    /// Names it by `T, S` of each type that it may belong to, if there is any.
    fn name<'a>(&mut self, types: impl Iterator<Item = Vec<&'a str>>) {
        let (mut futures, mut schedulers) = (BTreeSet::new(), BTreeSet::new());
        for arguments in types {
            futures.extend(arguments.first().copied().filter(|future| !future.is_empty()));
            schedulers.insert(arguments.get(1).copied().and_then(scheduler_of));
        }
        let raw: Vec<&str> = futures.into_iter().collect();
        if raw.is_empty() {
            return;
        }
        let shown: BTreeSet<String> = raw.iter().map(|raw| names::type_name(future(raw))).collect();
        self.name = shown.into_iter().collect::<Vec<_>>().join(" | ");
        self.raw_name = names::clean(&raw.join(" | "));
        // Functions are merged if they do the same: what one of them is, all are.
        let kinds: BTreeSet<TaskKind> = raw.iter().map(|raw| kind(raw)).collect();
        self.kind =
            [TaskKind::Worker, TaskKind::Blocking].into_iter().find(|k| kinds.contains(k)).unwrap_or(TaskKind::Task);
        if let (Some(Some(scheduler)), 1) = (schedulers.first(), schedulers.len()) {
            self.scheduler = Some(*scheduler);
        }
    }

    /// Takes over what debug information tells. Where it has lines of functions only, the place that the code tells stays.
    fn learn(&mut self, known: &PollType) {
        self.name(known.names.iter().map(|name| names::generic_arguments(name)));
        if let Some(place) = &known.place {
            (self.file, self.line) = (Some(place.file.clone()), Some(place.line));
        }
    }

    /// Whether the name is that of the type: else it is the place at which the future is written, or the address.
    fn is_named(&self) -> bool {
        !self.raw_name.is_empty()
    }

    /// Takes over what the code tells.
    fn take(&mut self, found: glue::Found) {
        if let Some(shape) = found.shape {
            self.kind = shape.kind;
            self.scheduler = shape.scheduler;
            (self.file, self.line) = shape.place.map(|(file, line)| (names::clean(&file), line)).unzip();
            self.name = unnamed(self.address, self.kind, self.file.as_deref().zip(self.line));
        }
        self.name(found.arguments.iter().map(|arguments| names::split_arguments(arguments)));
    }
}

/// What kind of work a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskKind {
    /// A future that was spawned.
    Task,
    /// The loop of a runtime's worker thread, which tokio runs as one long poll.
    Worker,
    /// Work of the blocking pool.
    Blocking,
}

impl TaskKind {
    /// Its name in the session.
    pub const fn name(self) -> &'static str {
        match self {
            TaskKind::Task => "task",
            TaskKind::Worker => "worker",
            TaskKind::Blocking => "blocking",
        }
    }
}

/// What runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scheduler {
    /// A runtime's workers.
    MultiThread,
    /// A runtime's one thread.
    CurrentThread,
    /// A `LocalSet`.
    Local,
    /// The blocking pool.
    Blocking,
}

impl Scheduler {
    /// Its name in the session.
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::MultiThread => "multi_thread",
            Scheduler::CurrentThread => "current_thread",
            Scheduler::Local => "local",
            Scheduler::Blocking => "blocking",
        }
    }
}

impl Tokio {
    /// Finds tokio in `binary` by its symbols, in a moment however large the binary is, or, where it is stripped, by the
    /// shape of its code and of its data, which `image` gives. What the symbols don't tell is [guessed](Tokio::guess) and
    /// [learned](Tokio::learn).
    pub fn find(binary: &Binary, image: impl FnOnce() -> Image) -> Result<Self, NoTokio> {
        let symbols = binary
            .symbols(|name| is_poll(name) || is_context(name) || is_wake(name) || is_spawn(name) || is_panic(name));
        let places = |is: fn(&str) -> bool| -> Vec<u64> {
            let places: BTreeSet<u64> =
                symbols.iter().filter(|s| is(&s.name)).filter_map(|s| binary.file_offset(s.address)).collect();
            places.into_iter().collect()
        };
        let (spawns, panics) = (places(is_spawn), places(is_panic));
        let wakes: BTreeSet<u64> = symbols
            .iter()
            .filter(|s| is_wake(&s.name))
            .filter_map(|s| {
                let code = binary.bytes(s.address, s.size.min(256)).unwrap_or_default();
                binary.file_offset(s.address.checked_add(site::cheapest(code))?)
            })
            .collect();
        let wakes: Vec<u64> = wakes.into_iter().collect();
        let mut polls: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for symbol in symbols.iter().filter(|s| is_poll(&s.name)) {
            polls.entry(symbol.address).or_default().insert(symbol.name.clone());
        }
        // Older standard libraries have functions of that name as well.
        let context = symbols.into_iter().find(|s| is_context(&s.name) && s.is_tls);
        if polls.is_empty() {
            let why = if binary.has_symbols() { NoTokio::NotTokio } else { NoTokio::Stripped };
            return Self::find_stripped(binary, &image()).ok_or(why);
        }
        let version = version(binary);
        let tls_tagged = is_tagged(version.as_deref());
        let tls_context =
            context.as_ref().and_then(|context| Some((binary.tls_offset(context.address)?, context.size / 8)));
        let mut notes = Vec::new();
        if tls_context.is_none() {
            notes.push(
                "the current task's id in thread-local storage is not found (it takes a symbol table): samples and \
                 stretches off CPU have a task only while exact polls are on"
                    .into(),
            );
        }
        for (places, what) in [(&wakes, "wakes"), (&spawns, "spawns")] {
            if places.is_empty() {
                notes.push(format!("{what} are not recorded: the binary has no symbol of tokio's function for them"));
            }
        }
        let poll_fns = polls.iter().filter_map(|(&address, symbols)| {
            // `…::poll::<T, S>`
            let demangled = |symbol: &String| format!("{:#}", rustc_demangle::demangle(symbol)).replace("::<", "<");
            let types: BTreeSet<String> = symbols.iter().map(demangled).collect();
            Some(PollFn::new(address, binary.file_offset(address)?, &types))
        });
        let poll_fns = poll_fns.collect();
        Ok(Tokio {
            version,
            poll_fns,
            tls_task_id: None,
            tls_context,
            worker_place: None,
            tls_tagged,
            wakes,
            spawns,
            panics,
            notes,
            polls,
        })
    }

    /// That of a program in which there is none: no task types, nothing to probe, and a note that says why.
    pub(crate) fn none(why: NoTokio) -> Self {
        let only = "only its threads are recorded: CPU samples, off-CPU intervals, stacks";
        let note = match why {
            NoTokio::NotTokio => format!("no tokio found in the program's own binary, {only}"),
            NoTokio::Stripped => format!(
                "no tokio found: the binary is stripped, and nothing in it has the shape of tokio's tasks; {only}. If it runs \
                 tokio 1.23 or newer, give the unstripped file of the same build with --target BIN"
            ),
        };
        Tokio {
            version: None,
            poll_fns: Vec::new(),
            tls_task_id: None,
            tls_context: None,
            worker_place: None,
            tls_tagged: false,
            wakes: Vec::new(),
            spawns: Vec::new(),
            panics: Vec::new(),
            notes: vec![note],
            polls: BTreeMap::new(),
        }
    }

    /// Finds tokio in a binary without symbols.
    fn find_stripped(binary: &Binary, image: &Image) -> Option<Self> {
        let shapes = shape::find(binary, image)?;
        let poll_fns: Vec<PollFn> = shapes.tasks.into_iter().filter_map(|task| nameless(binary, task)).collect();
        if poll_fns.is_empty() {
            return None;
        }
        let wakes = shapes.wakes.iter();
        let wakes = wakes.filter_map(|(f, code)| binary.file_offset(f.checked_add(site::cheapest(code))?));
        let wakes: BTreeSet<u64> = wakes.collect();
        let version = version(binary);
        let what = if wakes.is_empty() { "wakes, spawns and panics are" } else { "spawns and panics are" };
        let note = format!(
            "the binary is stripped: tokio was found by its shape; {} of {} task types are named by the place at which their \
             future is written, the others by their address; {what} not recorded",
            poll_fns.iter().filter(|p| p.file.is_some()).count(),
            poll_fns.len(),
        );
        Some(Tokio {
            tls_tagged: is_tagged(version.as_deref()),
            version,
            poll_fns,
            tls_task_id: None,
            // The symbol of tokio's part is gone: it is somewhere in the executable's.
            tls_context: binary.tls_offset(0).zip(binary.tls_size().map(|size| size / 8)),
            wakes: wakes.into_iter().collect(),
            worker_place: None,
            spawns: Vec::new(),
            panics: Vec::new(),
            notes: vec![note],
            polls: BTreeMap::new(),
        })
    }

    /// The addresses of its poll functions, of which debug information may tell the types.
    pub(crate) fn poll_addresses(&self) -> Vec<u64> {
        self.polls.keys().copied().collect()
    }

    /// Makes use of what debug information tells, if it does: what types the tasks are of, where they are written, and
    /// where the current task's id lies.
    pub(crate) fn learn(&mut self, told: &TokioDebug) {
        for poll in self.poll_fns.iter_mut().filter(|poll| self.polls.contains_key(&poll.address)) {
            if let Some(known) = told.polls.get(&poll.address) {
                poll.learn(known);
            }
        }
        // Of a binary without symbols it is not known where in the executable's storage the context lies.
        if let Some((context, _)) = self.tls_context.filter(|_| !self.polls.is_empty())
            && let Some(offset) = told.task_id_offset
        {
            self.worker_place = told.worker.map(bytemuck::cast);
            let offset = if self.tls_tagged { offset.saturating_add(8) } else { offset };
            self.tls_task_id = context.checked_add_unsigned(offset);
        }
        if !self.polls.is_empty() {
            self.notes.extend(self.note_on_names());
        }
    }

    /// What to say of the task types whose names are not known.
    fn note_on_names(&self) -> Option<String> {
        let nameless: Vec<&PollFn> =
            self.poll_fns.iter().filter(|p| !p.is_named() && p.kind != TaskKind::Worker).collect();
        let placed = nameless.iter().filter(|p| p.file.is_some()).count();
        let count = |n: usize, by: &str| (n > 0).then(|| format!("{n} of {} by {by}", self.poll_fns.len()));
        let by = [
            count(placed, "the place at which their future is written"),
            count(nameless.len() - placed, "their address"),
        ];
        let by: Vec<String> = by.into_iter().flatten().collect();
        (!by.is_empty()).then(|| {
            format!(
                "task types whose names are not certain are named otherwise, {}: build with debug information, or with v0 \
                 symbol mangling",
                by.join(" and ")
            )
        })
    }

    /// Which word of the thread-local context holds the current task's id, where that is known.
    pub fn task_id_word(&self) -> Option<u64> {
        let distance = self.tls_task_id?.checked_sub(self.tls_context?.0)?;
        u64::try_from(distance).ok().filter(|d| d % 8 == 0).map(|d| d / 8)
    }

    /// Names the task types that their own symbols do not tell, by the code of the process: the coroutine bodies that it calls
    /// and the drop glue that the vtables lead to, or else the place at which the future is written. Takes milliseconds.
    pub fn guess(&mut self, binary: &Binary, image: impl FnOnce() -> Image) {
        let unnamed: BTreeSet<u64> =
            self.poll_fns.iter().filter(|p| p.raw_name.is_empty()).map(|p| p.address).collect();
        if unnamed.is_empty() {
            return;
        }
        let mut types = glue::types(binary, &image(), &unnamed);
        for poll in self.poll_fns.iter_mut().filter(|p| p.raw_name.is_empty()) {
            if let Some(found) = types.remove(&poll.address) {
                poll.take(found);
            }
        }
    }

    /// Finds where the current task's id lies by the code that sets it; debug information may correct it. Takes milliseconds.
    pub fn find_task_id(&mut self, binary: &Binary, image: impl FnOnce() -> Image) {
        let Some((context, words)) = self.tls_context else { return };
        let polls = self.poll_fns.iter().filter(|p| p.kind == TaskKind::Task).map(|p| p.address).collect::<Vec<_>>();
        let found = task_id::distance(binary, &image(), &polls, self.tls_tagged);
        let is_inside = |distance: &i64| {
            distance.checked_sub(context).and_then(|d| u64::try_from(d).ok()).is_some_and(|d| d / 8 < words)
        };
        self.tls_task_id = found.filter(is_inside);
    }

    /// The poll functions to probe, with their index: all but the worker's own loop, which is one poll for the
    /// thread's whole life.
    pub fn exact_polls(&self) -> impl Iterator<Item = (usize, &PollFn)> {
        self.poll_fns.iter().enumerate().filter(|(_, p)| p.kind != TaskKind::Worker)
    }
}

/// Whether a symbol is a `tokio::runtime::task::raw::poll`, by legacy or v0 mangling.
fn is_poll(name: &str) -> bool {
    // Legacy: the path, a hash and nothing else. v0: an instance (`_RI`) of the path, with its arguments behind it.
    name.starts_with("_ZN5tokio7runtime4task3raw4poll17h")
        || (name.starts_with("_RI") && name.contains("5tokio7runtime4task3raw4poll"))
}

/// Whether a symbol is `tokio::runtime::task::waker::wake_by_val` or `wake_by_ref`.
fn is_wake(name: &str) -> bool {
    const PATHS: [&str; 2] = ["5tokio7runtime4task5waker11wake_by_val", "5tokio7runtime4task5waker11wake_by_ref"];
    PATHS.iter().any(|path| match name.strip_prefix("_ZN") {
        Some(legacy) => legacy.strip_prefix(path).is_some_and(|rest| rest.starts_with("17h")),
        None => name.starts_with("_RNv") && name.ends_with(path),
    })
}

/// Whether a symbol is a `tokio::runtime::task::list::OwnedTasks::<S>::bind_inner`.
fn is_spawn(name: &str) -> bool {
    name.contains("5tokio7runtime4task4list") && name.contains("OwnedTasks") && name.contains("10bind_inner")
}

/// Whether a symbol is `std::panicking::rust_panic`, which had a plain name before Rust 1.88.
fn is_panic(name: &str) -> bool {
    name == "rust_panic"
        || name.starts_with("_RNv") && name.ends_with("10rust_panic")
        || name.starts_with("_ZN3std9panicking10rust_panic17h")
}

/// Whether a symbol is the thread-local `tokio::runtime::context::CONTEXT`.
pub(super) fn is_context(name: &str) -> bool {
    name.contains("5tokio7runtime7context7CONTEXT") && (name.contains("VAL") || name.contains("__getit"))
}

/// A task type of which only the shape is known.
fn nameless(binary: &Binary, task: Shape) -> Option<PollFn> {
    let mut poll = PollFn {
        address: task.poll,
        file_offset: binary.file_offset(task.poll)?,
        name: String::new(),
        raw_name: String::new(),
        kind: task.kind,
        scheduler: None,
        file: None,
        line: None,
    };
    poll.take(glue::Found { arguments: Vec::new(), shape: Some(task) });
    Some(poll)
}

/// What a task type is called whose name is not known.
fn unnamed(address: u64, kind: TaskKind, place: Option<(&str, u32)>) -> String {
    match (place, kind) {
        (Some((file, line)), _) => format!("future at {}:{line}", short(file)),
        (None, TaskKind::Task) => format!("task type {address:#x}"),
        (None, TaskKind::Blocking) => format!("blocking task type {address:#x}"),
        (None, TaskKind::Worker) => "worker".into(),
    }
}

/// A source file without the folder in which cargo keeps dependencies.
fn short(file: &str) -> &str {
    file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/')).map_or(file, |(_, rest)| rest)
}

/// What runs: the closure inside a `BlockingTask`, else the future itself.
pub(crate) fn future(raw: &str) -> &str {
    if raw.starts_with("tokio::runtime::blocking::task::BlockingTask<") {
        names::generic_arguments(raw).first().copied().unwrap_or(raw)
    } else {
        raw
    }
}

/// What kind of work a future is.
pub(crate) fn kind(raw: &str) -> TaskKind {
    if !raw.starts_with("tokio::runtime::blocking::task::BlockingTask<") {
        TaskKind::Task
    } else if raw.contains("multi_thread::worker::") {
        // `launch` and, for block_in_place, `maybe_move_runtime`: both run a worker, and LLVM may merge them into one.
        TaskKind::Worker
    } else {
        TaskKind::Blocking
    }
}

fn scheduler_of(raw: &str) -> Option<Scheduler> {
    [
        ("multi_thread", Scheduler::MultiThread),
        ("current_thread", Scheduler::CurrentThread),
        ("task::local", Scheduler::Local),
        ("BlockingSchedule", Scheduler::Blocking),
    ]
    .into_iter()
    .find_map(|(part, scheduler)| raw.contains(part).then_some(scheduler))
}

/// [`Tokio::tls_tagged`] of a version.
fn is_tagged(version: Option<&str>) -> bool {
    version.is_some_and(|v| is_before(v, 40))
}

/// Whether a version of tokio 1 is older than 1.`minor`.
fn is_before(version: &str, minor: u32) -> bool {
    version.strip_prefix("1.").and_then(|v| v.split('.').next()?.parse::<u32>().ok()).is_some_and(|m| m < minor)
}

/// Tokio's version, by the paths of its sources that panics carry (`…/tokio-1.54.1/src/…`).
fn version(binary: &Binary) -> Option<String> {
    const BEFORE: &[u8] = b"/tokio-";
    let mut found = None;
    binary.rodata(|data| {
        for at in memchr::memmem::find_iter(data, BEFORE) {
            let rest = data.get(at + BEFORE.len()..).unwrap_or_default();
            let end = rest.iter().take(24).position(|&b| b == b'/');
            if let Some(text) = end.and_then(|end| std::str::from_utf8(rest.get(..end)?).ok())
                && text.starts_with(|c: char| c.is_ascii_digit())
            {
                found.get_or_insert_with(|| names::clean(text));
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_symbols_of_both_manglings() {
        assert!(is_poll("_ZN5tokio7runtime4task3raw4poll17h0123456789abcdefE"));
        assert!(is_poll("_RINvNtNtNtCs6k_5tokio7runtime4task3raw4pollNCNvCs1_3app7handler0E"));
        assert!(!is_poll("_ZN5tokio7runtime4task3raw7dealloc17h0123456789abcdefE"));
        assert!(!is_poll("_ZN5tokio7runtime4task3raw4poll28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"));
    }

    #[test]
    fn symbols_of_wakes_spawns_and_panics() {
        assert!(is_wake("_ZN5tokio7runtime4task5waker11wake_by_val17h0123456789abcdefE"));
        assert!(is_wake("_RNvNtNtNtCs6k_5tokio7runtime4task5waker11wake_by_ref"));
        assert!(!is_wake("_ZN5tokio7runtime4task5waker10clone_waker17h0123456789abcdefE"));
        assert!(is_spawn("_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17h0123456789abcdefE"));
        assert!(!is_spawn("_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$6remove17h0123456789abcdefE"));
        assert!(is_panic("_RNvCsfLfy6EI15iL_7___rustc10rust_panic") && is_panic("rust_panic"));
        assert!(!is_panic("_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE"));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(is_before("1.9.0", 40) && is_before("1.38.2", 40));
        assert!(!is_before("1.40.0", 40) && !is_before("1.54.1", 40) && !is_before("2.0.0", 40));
    }

    #[test]
    fn kinds_of_work() {
        let blocking = |f: &str| format!("tokio::runtime::blocking::task::BlockingTask<{f}>");
        assert_eq!(kind("app::f::{async_fn_env#0}"), TaskKind::Task);
        assert_eq!(kind(&blocking("app::f::{closure_env#0}")), TaskKind::Blocking);
        assert_eq!(
            kind(&blocking("tokio::runtime::scheduler::multi_thread::worker::{impl#0}::launch::{closure_env#0}")),
            TaskKind::Worker
        );
    }
}
