//! Tokio in the target's binary: its poll functions with their task types, and its thread-local context.
//!
//! Symbols are those of tokio 1.23 to 1.54: `tokio::runtime::task::raw::poll::<T, S>` (tokio/src/runtime/task/raw.rs)
//! is an entry of each task type's vtable, so it keeps a symbol of its own even with fat LTO.

use std::collections::{BTreeMap, BTreeSet};

use hud_common::wire::WorkerPlace;
use serde::{Deserialize, Serialize};

use super::{
    binary::Binary,
    demangle,
    image::Image,
    legacy_symbols, probe_site,
    stripped::{self, Shape},
    task_id,
    task_type::{Scheduler, TaskKind, future, kind, scheduler_of},
    tokio_dwarf::{PollType, TokioDebug},
    tokio_symbols::{is_context, is_panic, is_poll, is_spawn, is_tagged, is_wake, version},
};

/// Why no tokio was found in a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoTokio {
    /// It has symbols, but none of tokio's.
    NotTokio,
    /// It has no symbols, and nothing in it has the shape of tokio's tasks.
    Stripped,
}

/// Offset of `id_offset` in a task type's vtable (tokio/src/runtime/task/raw.rs, `struct Vtable`), since 1.23.
pub(crate) const VTABLE_ID_OFFSET: u32 = 72;

/// The facts about the target's tokio that hud needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tokio {
    /// Its version, by the source paths in its panics.
    pub version: Option<String>,
    /// Every poll function of the binary.
    pub poll_fns: Vec<PollFn>,
    /// The distance from `fsbase` to the current task's id.
    pub tls_task_id: Option<i64>,
    /// The distance from `fsbase` to tokio's thread-local context, and its size in words.
    pub tls_context: Option<(i64, u64)>,
    /// The module whose block those distances are from, instead of `fsbase`: a shared library's id for the loader; else 0.
    pub tls_module: u64,
    /// The offsets by which the kernel program finds a thread's worker.
    #[serde(skip)]
    pub worker_place: Option<WorkerPlace>,
    /// Whether the word before the current task's id shows if there is one. True up to tokio 1.39, where the field is
    /// an `Option<u64>` whose number stays after the poll.
    pub tls_tagged: bool,
    /// File offsets in `wake_by_val` and `wake_by_ref`, by which a task is woken: near their entries, where its header
    /// is still in `rdi`.
    pub wakes: Vec<u64>,
    /// File offsets of `OwnedTasks::bind_inner`, by which a task joins its runtime.
    pub spawns: Vec<u64>,
    /// File offsets of std's `rust_panic`, with which unwinding begins.
    pub panics: Vec<u64>,
    /// Messages about facts that were not found.
    pub notes: Vec<String>,
    /// The symbols of poll functions, by address: several if the linker folded functions.
    polls: BTreeMap<u64, BTreeSet<String>>,
}

/// A `raw::poll::<T, S>`, that is, a task type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollFn {
    /// Its address in the binary.
    pub address: u64,
    /// Its offset in the file.
    pub file_offset: u64,
    /// The type in readable form.
    pub name: String,
    /// The type as the compiler names it.
    pub raw_name: String,
    /// The kind of work.
    pub kind: TaskKind,
    /// The scheduler that runs it, if known.
    pub scheduler: Option<Scheduler>,
    /// Where the future is declared.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<u32>,
}

impl PollFn {
    /// The function at an address, of the types in `types`: `…poll<T, S>`, or `…poll` if its symbols do not contain
    /// them.
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
        poll.name(types.iter().map(|name| demangle::generic_arguments(name)));
        poll
    }

    /// Names it by `T, S` of each type that it may belong to, if any.
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
        let shown: BTreeSet<String> = raw.iter().map(|raw| demangle::type_name(future(raw))).collect();
        self.name = shown.into_iter().collect::<Vec<_>>().join(" | ");
        self.raw_name = demangle::clean(&raw.join(" | "));
        // Functions are merged if they do the same: so all have the kind of any one of them.
        let kinds: BTreeSet<TaskKind> = raw.iter().map(|raw| kind(raw)).collect();
        self.kind =
            [TaskKind::Worker, TaskKind::Blocking].into_iter().find(|k| kinds.contains(k)).unwrap_or(TaskKind::Task);
        if let (Some(Some(scheduler)), 1) = (schedulers.first(), schedulers.len()) {
            self.scheduler = Some(*scheduler);
        }
    }

    /// Applies debug information. If it has lines of functions only, the location from the code stays.
    fn learn(&mut self, known: &PollType) {
        self.name(known.names.iter().map(|name| demangle::generic_arguments(name)));
        if let Some(place) = &known.place {
            (self.file, self.line) = (Some(place.file.clone()), Some(place.line));
        }
    }

    /// Whether it is named by its type; else the name is its location or its address.
    fn is_named(&self) -> bool {
        !self.raw_name.is_empty()
    }

    /// Applies the evidence from the code.
    fn take(&mut self, found: legacy_symbols::Found) {
        if let Some(shape) = found.shape {
            self.kind = shape.kind;
            self.scheduler = shape.scheduler;
            (self.file, self.line) = shape.place.map(|(file, line)| (demangle::clean(&file), line)).unzip();
            self.name = match (&self.file, shape.near) {
                (None, Some((file, line))) => format!("task near {}:{line}", short(&demangle::clean(&file))),
                _ => unnamed(self.address, self.kind, self.file.as_deref().zip(self.line)),
            };
        }
        self.name(found.arguments.iter().map(|arguments| demangle::split_arguments(arguments)));
    }
}

impl Tokio {
    /// The distance from `fsbase` of a word of `CONTEXT`.
    pub(crate) fn context_word(&self, word: u64) -> Option<i64> {
        self.tls_context?.0.checked_add_unsigned(word.saturating_mul(8))
    }

    /// Finds tokio in `binary` by its symbols, quickly even in a large binary, or, if it is stripped, by the shape of
    /// its code and data (`image`). Facts that symbols do not contain come from [`Tokio::guess`] and [`Tokio::learn`].
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
                binary.file_offset(s.address.checked_add(probe_site::cheapest(code))?)
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
                "the current task's id was not found in thread-local storage (a symbol table is needed): samples and \
                 off-CPU intervals have a task only with exact polls"
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
            tls_module: binary.tls_module(),
            worker_place: None,
            tls_tagged,
            wakes,
            spawns,
            panics,
            notes,
            polls,
        })
    }

    /// For a program without tokio: no task types, nothing to probe, and a note with the reason.
    pub(crate) fn none(why: NoTokio) -> Self {
        let only = "only its threads are recorded: CPU samples, off-CPU intervals, stacks";
        let note = match why {
            NoTokio::NotTokio => format!("no tokio found in the program's binary and shared libraries, {only}"),
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
            tls_module: 0,
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
        let shapes = stripped::find(binary, image)?;
        let near = shapes.tasks.iter().filter(|task| task.near.is_some()).count();
        let poll_fns: Vec<PollFn> = shapes.tasks.into_iter().filter_map(|task| nameless(binary, task)).collect();
        if poll_fns.is_empty() {
            return None;
        }
        let wakes = shapes.wakes.iter();
        let wakes = wakes.filter_map(|(f, code)| binary.file_offset(f.checked_add(probe_site::cheapest(code))?));
        let wakes: BTreeSet<u64> = wakes.collect();
        let version = version(binary);
        let what = if wakes.is_empty() { "wakes, spawns and panics are" } else { "spawns and panics are" };
        let note = format!(
            "the binary is stripped: tokio was found by its shape; {} of {} task types are named by their future's \
             source location{}, the others by their address; {what} not recorded",
            poll_fns.iter().filter(|p| p.file.is_some()).count(),
            poll_fns.len(),
            if near > 0 {
                format!(", {near} by that of a future which is theirs or awaited by it")
            } else {
                String::new()
            },
        );
        Some(Tokio {
            tls_tagged: is_tagged(version.as_deref()),
            version,
            poll_fns,
            tls_task_id: None,
            // The symbol of tokio's part is missing: it is somewhere in the executable's.
            tls_context: binary.tls_offset(0).zip(binary.tls_size().map(|size| size / 8)),
            tls_module: binary.tls_module(),
            wakes: wakes.into_iter().collect(),
            worker_place: None,
            spawns: Vec::new(),
            panics: Vec::new(),
            notes: vec![note],
            polls: BTreeMap::new(),
        })
    }

    /// The addresses of its poll functions, whose types debug information may contain.
    pub(crate) fn poll_addresses(&self) -> Vec<u64> {
        self.polls.keys().copied().collect()
    }

    /// Applies debug information: task types, where they are declared, and the offset of the current task's id.
    pub(crate) fn learn(&mut self, debug: &TokioDebug) {
        for poll in self.poll_fns.iter_mut().filter(|poll| self.polls.contains_key(&poll.address)) {
            if let Some(known) = debug.polls.get(&poll.address) {
                poll.learn(known);
            }
        }
        // In a binary without symbols the context's position in the executable's storage is unknown.
        if let Some((context, _)) = self.tls_context.filter(|_| !self.polls.is_empty())
            && let Some(offset) = debug.task_id_offset
        {
            self.worker_place = debug.worker.map(bytemuck::cast);
            let offset = if self.tls_tagged { offset.saturating_add(8) } else { offset };
            self.tls_task_id = context.checked_add_unsigned(offset);
        }
        if !self.polls.is_empty() {
            self.notes.extend(self.note_on_names());
        }
    }

    /// A note on task types without a certain name.
    fn note_on_names(&self) -> Option<String> {
        let nameless: Vec<&PollFn> =
            self.poll_fns.iter().filter(|p| !p.is_named() && p.kind != TaskKind::Worker).collect();
        let placed = nameless.iter().filter(|p| p.file.is_some()).count();
        let count = |n: usize, by: &str| (n > 0).then(|| format!("{n} of {} by {by}", self.poll_fns.len()));
        let by = [count(placed, "their future's source location"), count(nameless.len() - placed, "their address")];
        let by: Vec<String> = by.into_iter().flatten().collect();
        (!by.is_empty()).then(|| {
            format!(
                "task types without a certain name are named otherwise, {}: build with debug information, or with v0 \
                 symbol mangling",
                by.join(" and ")
            )
        })
    }

    /// The word of the thread-local context that holds the current task's id, if known.
    pub fn task_id_word(&self) -> Option<u64> {
        let distance = self.tls_task_id?.checked_sub(self.tls_context?.0)?;
        u64::try_from(distance).ok().filter(|d| d % 8 == 0).map(|d| d / 8)
    }

    /// Finds by the process's code what symbols do not contain: names of task types, and the current task's id. Debug
    /// information overrides it. Takes milliseconds.
    pub fn guess(&mut self, binary: &Binary, image: impl FnOnce() -> Image) {
        let image = image();
        self.guess_types(binary, &image);
        self.guess_task_id(binary, &image);
    }

    /// Names types by the coroutine bodies that their code calls and the drop glue in the vtables, or else by the future's
    /// location.
    fn guess_types(&mut self, binary: &Binary, image: &Image) {
        let unnamed: BTreeSet<u64> =
            self.poll_fns.iter().filter(|p| p.raw_name.is_empty()).map(|p| p.address).collect();
        if unnamed.is_empty() {
            return;
        }
        let mut types = legacy_symbols::types(binary, image, &unnamed);
        for poll in self.poll_fns.iter_mut().filter(|p| p.raw_name.is_empty()) {
            if let Some(found) = types.remove(&poll.address) {
                poll.take(found);
            }
        }
    }

    /// Finds where the current task's id lies by the code that sets it.
    fn guess_task_id(&mut self, binary: &Binary, image: &Image) {
        let Some((context, words)) = self.tls_context else { return };
        let polls = self.poll_fns.iter().filter(|p| p.kind == TaskKind::Task).map(|p| p.address).collect::<Vec<_>>();
        let found = task_id::distance(binary, image, &polls, self.tls_tagged);
        let is_inside = |distance: &i64| {
            distance.checked_sub(context).and_then(|d| u64::try_from(d).ok()).is_some_and(|d| d / 8 < words)
        };
        self.tls_task_id = found.filter(is_inside);
    }

    /// The poll functions to probe, with their index: all but the worker's loop, which is one poll for the thread's
    /// whole life.
    pub fn exact_polls(&self) -> impl Iterator<Item = (usize, &PollFn)> {
        self.poll_fns.iter().enumerate().filter(|(_, p)| p.kind != TaskKind::Worker)
    }
}

/// A task type known by its shape only.
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
    poll.take(legacy_symbols::Found { arguments: Vec::new(), shape: Some(task) });
    Some(poll)
}

/// The name shown for a task type without a name.
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
