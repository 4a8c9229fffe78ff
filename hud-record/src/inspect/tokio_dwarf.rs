//! Debug information about tokio: the type and source line of each poll function's task, and the offset of the current
//! task's id in tokio's thread-local context.
//!
//! This runs in the sandboxed child, see [`crate::sandbox`]. It reads rustc's DWARF (LLVM, versions 4 and 5), checked
//! with rustc 1.95: a coroutine's environment is a structure with a variant part whose variant `0` (Unresumed) is
//! declared at the line of the `async` function or block.

use std::collections::{BTreeSet, HashMap, HashSet};

use addr2line::Context;
use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, UnitOffset, UnitRef};
use serde::{Deserialize, Serialize};

use hud_common::wire::WorkerPlace;

use super::{binary::Slice, demangle, tokio_symbols::is_context};

/// A source line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceLine {
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// Debug information about one poll function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PollType {
    /// `poll<T, S>`; several if the linker folded functions.
    pub(crate) names: BTreeSet<String>,
    /// Where the future is declared, if it is the same line for all of them.
    pub(crate) place: Option<SourceLine>,
}

/// Debug information about tokio.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokioDebug {
    /// Poll functions by address.
    pub(crate) polls: HashMap<u64, PollType>,
    /// The offset of the current task's id in tokio's thread-local context.
    pub(crate) task_id_offset: Option<u64>,
    /// The words of a [`WorkerPlace`](hud_common::wire::WorkerPlace).
    pub(crate) worker: Option<[u64; 4]>,
}

/// Depth of DIEs, or of nested types, that is followed. rustc nests namespaces by module, so real trees stay below 40.
const MAX_DEPTH: usize = 256;
/// Bytes of a name that are read. Names of generic futures are long, but shorter.
const LONGEST_NAME: usize = 64 << 10;

/// Types of the poll functions at `addresses`. Reads the units that contain them, and others of the same crates only if
/// a type's line is missing. `between` is called after each unit.
pub(crate) fn poll_types(dwarf: Dwarf<Slice<'_>>, addresses: &[u64], between: impl Fn()) -> HashMap<u64, PollType> {
    let wanted: HashSet<u64> = addresses.iter().copied().collect();
    let Ok(context) = Context::from_dwarf(dwarf) else {
        return HashMap::new();
    };
    let mut read = HashSet::new();
    let mut facts = Facts::default();
    for &address in addresses {
        if let Some(unit) = context.find_dwarf_and_unit(address).skip_all_loads()
            && read.insert(unit.header.offset())
        {
            facts.read(unit, &wanted);
            between();
        }
    }
    let homeless: HashSet<String> = facts
        .polls
        .values()
        .flatten()
        .filter(|name| facts.place(name).is_none())
        .filter_map(|name| Some(crate_of(future(name)?).to_string()))
        .collect();
    for &address in addresses.first().into_iter() {
        let Some(any) = context.find_dwarf_and_unit(address).skip_all_loads() else { continue };
        let mut units = any.dwarf.units();
        while let Ok(Some(header)) = units.next() {
            if read.contains(&header.offset()) {
                continue;
            }
            let Ok(unit) = any.dwarf.unit(header) else { continue };
            let unit = UnitRef::new(any.dwarf, &unit);
            let name = unit_name(unit).unwrap_or_default();
            if homeless.iter().any(|krate| name.contains(&format!("/@/{krate}."))) {
                facts.read(unit, &wanted);
            }
            between();
        }
    }
    let typed = |(&address, names): (&u64, &BTreeSet<String>)| {
        let mut places = names.iter().map(|name| facts.place(name));
        let first = places.next().flatten();
        let place = first.filter(|first| places.all(|other| other.as_ref() == Some(first)));
        (address, PollType { names: names.clone(), place })
    };
    facts.polls.iter().map(typed).collect()
}

/// `T` of `poll<T, S>`.
fn future(poll: &str) -> Option<&str> {
    demangle::generic_arguments(poll).first().copied()
}

/// The crate of a type; for a `BlockingTask` that of its closure.
fn crate_of(future: &str) -> &str {
    let inner = demangle::generic_arguments(future);
    let path = if future.starts_with("tokio::") { inner.first().copied().unwrap_or(future) } else { future };
    path.split("::").next().unwrap_or_default()
}

/// Collected from units.
#[derive(Default)]
struct Facts {
    /// `poll<T, S>` by address.
    polls: HashMap<u64, BTreeSet<String>>,
    /// Where a coroutine is declared, by the path of its environment.
    environments: HashMap<String, SourceLine>,
    /// Where a function or coroutine body is declared, by its path.
    bodies: HashMap<String, SourceLine>,
}

impl Facts {
    fn read(&mut self, unit: UnitRef<'_, Slice<'_>>, wanted: &HashSet<u64>) {
        let mut entries = unit.entries();
        // Tag and name of each open DIE.
        let mut open: Vec<(gimli::DwTag, String)> = Vec::new();
        // Names of abstract instances, for out-of-line copies that refer to them.
        let mut abstracts: HashMap<UnitOffset, String> = HashMap::new();
        let mut by_reference = Vec::new();
        while let Ok(Some(entry)) = entries.next_dfs() {
            let level = usize::try_from(entry.depth()).unwrap_or(0);
            if level > MAX_DEPTH {
                continue;
            }
            open.truncate(level);
            let name = text(unit, entry, gimli::DW_AT_name).unwrap_or_default();
            match entry.tag() {
                gimli::DW_TAG_subprogram => {
                    if let Some(AttributeValue::Addr(address)) = entry.attr_value(gimli::DW_AT_low_pc)
                        && wanted.contains(&address)
                    {
                        if name.is_empty() {
                            by_reference.push((
                                address,
                                reference(unit, entry, gimli::DW_AT_abstract_origin)
                                    .or_else(|| reference(unit, entry, gimli::DW_AT_specification)),
                            ));
                        } else {
                            self.polls.entry(address).or_default().insert(name.clone());
                        }
                    }
                    if name.starts_with("poll<") {
                        abstracts.insert(entry.offset(), name.clone());
                    } else if name.starts_with('{')
                        && let Some(place) = place(unit, entry)
                    {
                        self.bodies.entry(path(&open, &name)).or_insert(place);
                    }
                }
                // structure → variant part → variant → member `0`
                gimli::DW_TAG_member if name == "0" && open.len() >= 3 => {
                    let (scope, inside) = open.split_at(open.len() - 3);
                    if let Some((gimli::DW_TAG_structure_type, structure)) = inside.first()
                        && let Some(place) = place(unit, entry)
                    {
                        self.environments.entry(path(scope, structure)).or_insert(place);
                    }
                }
                _ => {}
            }
            open.push((entry.tag(), name));
        }
        for (address, origin) in by_reference {
            if let Some(name) = origin.and_then(|o| abstracts.get(&o)) {
                self.polls.entry(address).or_default().insert(name.clone());
            }
        }
    }

    /// Where the future of `poll<T, S>` is declared.
    fn place(&self, poll: &str) -> Option<SourceLine> {
        let of = |future: &str| {
            let body = future
                .replace("{async_fn_env#", "{async_fn#")
                .replace("{async_block_env#", "{async_block#")
                .replace("{closure_env#", "{closure#");
            self.environments.get(future).or_else(|| self.bodies.get(&body)).cloned()
        };
        let future = future(poll)?;
        // `BlockingTask<app::f::{closure_env#0}>`: where its closure is declared.
        of(future).or_else(|| of(demangle::generic_arguments(future).first()?))
    }
}

/// The path of a name inside open namespaces and types.
fn path(open: &[(gimli::DwTag, String)], name: &str) -> String {
    let mut path = String::new();
    for (tag, part) in open {
        if *tag != gimli::DW_TAG_compile_unit {
            path.push_str(part);
            path.push_str("::");
        }
    }
    path.push_str(name);
    path
}

/// Offsets in tokio's thread-local `CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// Offset of `current_task_id` from the symbol, storage wrapper included.
    pub(crate) task_id: u64,
    /// The path to the worker of a multi-threaded runtime, if the program has one.
    pub(crate) worker: Option<WorkerPlace>,
}

/// Finds the structure `tokio::runtime::context::Context` in the thread-local with the symbol `CONTEXT`, inside the
/// wrapper of std for thread-locals with a destructor (`std::sys::thread_local::native::eager::Storage<Context>`,
/// member `val`), and the structures between it and a worker.
pub(crate) fn local(dwarf: &Dwarf<Slice<'_>>) -> Option<Local> {
    let (mut context, mut way, mut worker) = (None, None, None);
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        let Ok(unit) = dwarf.unit(header) else { continue };
        let unit = UnitRef::new(dwarf, &unit);
        // One of tokio's own units: `…/tokio-1.54.1/src/lib.rs/@/tokio.0-cgu.1`. Units keep their names with fat LTO.
        if !unit_name(unit).is_some_and(|n| n.contains("tokio")) {
            continue;
        }
        let structures = Structures::read(unit);
        context = context.or_else(|| structures.context());
        way = way.or_else(|| structures.way_to_worker());
        worker = worker.or_else(|| structures.worker());
        if context.is_some() && way.is_some() && worker.is_some() {
            break;
        }
    }
    let (task_id, scheduler) = context?;
    let place = |scheduler: u64, worker_at: u64, (handle, index): (u64, u64)| {
        scheduler.is_multiple_of(8).then_some(WorkerPlace {
            scheduler: 1 + scheduler / 8,
            worker: worker_at,
            handle,
            index,
        })
    };
    let worker = scheduler.zip(way).zip(worker).and_then(|((scheduler, way), worker)| place(scheduler, way, worker));
    Some(Local { task_id, worker })
}

/// A unit's name: its source file, `/@/`, crate and codegen unit.
fn unit_name(unit: UnitRef<'_, Slice<'_>>) -> Option<String> {
    let mut entries = unit.entries();
    let root = entries.next_dfs().ok()??;
    text(unit, root, gimli::DW_AT_name)
}

/// Names of structures and members that are searched.
const SOUGHT: [&str; 10] =
    ["current_task_id", "scheduler", "MultiThread", "__0", "Context", "worker", "Worker", "core", "handle", "index"];

/// The one of them that a name equals; empty for others.
fn sought<'a>(unit: UnitRef<'_, Slice<'a>>, entry: &DebuggingInformationEntry<Slice<'a>>) -> &'static str {
    let name = entry.attr_value(gimli::DW_AT_name).and_then(|value| unit.attr_string(value).ok());
    name.and_then(|name| SOUGHT.into_iter().find(|s| s.as_bytes() == name.slice())).unwrap_or_default()
}

/// Members of a structure: name, offset and type.
type Members = Vec<(&'static str, u64, Option<UnitOffset>)>;

/// The structures of a unit.
struct Structures {
    by_offset: HashMap<UnitOffset, (&'static str, Members)>,
    /// Types of variables that are tokio's `CONTEXT`.
    contexts: Vec<UnitOffset>,
}

impl Structures {
    fn read(unit: UnitRef<'_, Slice<'_>>) -> Self {
        let mut by_offset: HashMap<UnitOffset, (&'static str, Members)> = HashMap::new();
        let mut contexts = Vec::new();
        let mut open: Vec<(gimli::DwTag, UnitOffset)> = Vec::new();
        let mut entries = unit.entries();
        while let Ok(Some(entry)) = entries.next_dfs() {
            let level = usize::try_from(entry.depth()).unwrap_or(0);
            if level > MAX_DEPTH {
                continue;
            }
            open.truncate(level);
            match entry.tag() {
                gimli::DW_TAG_structure_type => {
                    by_offset.insert(entry.offset(), (sought(unit, entry), Vec::new()));
                }
                gimli::DW_TAG_member => {
                    if let Some((gimli::DW_TAG_structure_type, parent)) = open.last()
                        && let Some((_, members)) = by_offset.get_mut(parent)
                        && let Some(at) =
                            entry.attr_value(gimli::DW_AT_data_member_location).and_then(|v| v.udata_value())
                    {
                        members.push((sought(unit, entry), at, reference(unit, entry, gimli::DW_AT_type)));
                    }
                }
                gimli::DW_TAG_variable => {
                    if let Some(name) = text(unit, entry, gimli::DW_AT_linkage_name)
                        && is_context(&name)
                        && let Some(of) = reference(unit, entry, gimli::DW_AT_type)
                    {
                        contexts.push(of);
                    }
                }
                _ => {}
            }
            open.push((entry.tag(), entry.offset()));
        }
        Structures { by_offset, contexts }
    }

    /// Offsets of `current_task_id` and of `scheduler` in the thread-local.
    fn context(&self) -> Option<(u64, Option<u64>)> {
        // Depth first from the variable's type to the member, adding up offsets.
        let mut todo: Vec<(UnitOffset, u64, usize)> = self.contexts.iter().map(|&v| (v, 0, 0)).collect();
        let mut seen = HashSet::new();
        while let Some((at, base, depth)) = todo.pop() {
            // Types of real programs are trees of dozens; hostile ones may be anything.
            if !seen.insert((at, base)) || seen.len() > 10_000 {
                continue;
            }
            let Some((_, members)) = self.by_offset.get(&at) else { continue };
            if let Some(task_id) = offset_of(members, "current_task_id") {
                let scheduler = offset_of(members, "scheduler").and_then(|at| base.checked_add(at));
                return Some((base.checked_add(task_id)?, scheduler));
            }
            for (_, offset, of) in members {
                if let Some(of) = of
                    && depth < 6
                {
                    todo.push((*of, base.checked_add(*offset)?, depth + 1));
                }
            }
        }
        None
    }

    /// Offset of the worker's address in `runtime::scheduler::Context`, an enum: in its variant `MultiThread`.
    fn way_to_worker(&self) -> Option<u64> {
        self.by_offset.values().filter(|(name, _)| *name == "MultiThread").find_map(|(_, members)| {
            let (_, at, of) = members.iter().find(|(name, ..)| *name == "__0")?;
            let (_, inner) = self.by_offset.get(of.as_ref()?).filter(|(name, _)| *name == "Context")?;
            at.checked_add(offset_of(inner, "worker")?)
        })
    }

    /// Offsets of the handle's address and of the index, from where an `Arc` of `multi_thread::worker::Worker` points.
    fn worker(&self) -> Option<(u64, u64)> {
        // `ArcInner` begins with two counts.
        const DATA: u64 = 16;
        self.by_offset.values().filter(|(name, _)| *name == "Worker").find_map(|(_, members)| {
            offset_of(members, "core")?;
            let (handle, index) = (offset_of(members, "handle")?, offset_of(members, "index")?);
            Some((handle.checked_add(DATA)?, index.checked_add(DATA)?))
        })
    }
}

fn offset_of(members: &Members, name: &str) -> Option<u64> {
    members.iter().find(|(n, ..)| *n == name).map(|(_, at, _)| *at)
}

fn text<'a>(
    unit: UnitRef<'_, Slice<'a>>,
    entry: &DebuggingInformationEntry<Slice<'a>>,
    attribute: gimli::DwAt,
) -> Option<String> {
    let value = unit.attr_string(entry.attr_value(attribute)?).ok()?;
    let bytes = value.slice();
    Some(String::from_utf8_lossy(bytes.get(..LONGEST_NAME).unwrap_or(bytes)).into_owned())
}

/// A reference within the unit.
fn reference<'a>(
    unit: UnitRef<'_, Slice<'a>>,
    entry: &DebuggingInformationEntry<Slice<'a>>,
    attribute: gimli::DwAt,
) -> Option<UnitOffset> {
    match entry.attr_value(attribute)? {
        AttributeValue::UnitRef(offset) => Some(offset),
        AttributeValue::DebugInfoRef(offset) => offset.to_unit_offset(&unit.header),
        _ => None,
    }
}

/// `DW_AT_decl_file` and `DW_AT_decl_line`, the file as a whole path.
fn place<'a>(unit: UnitRef<'_, Slice<'a>>, entry: &DebuggingInformationEntry<Slice<'a>>) -> Option<SourceLine> {
    let line = entry.attr_value(gimli::DW_AT_decl_line)?.udata_value()?;
    let AttributeValue::FileIndex(index) = entry.attr_value(gimli::DW_AT_decl_file)? else {
        return None;
    };
    let program = unit.line_program.as_ref()?.header();
    let file = program.file(index)?;
    let part = |value| -> Option<String> { Some(unit.attr_string(value).ok()?.to_string_lossy().into_owned()) };
    let name = part(file.path_name())?;
    let mut path = std::path::PathBuf::new();
    if let Some(dir) = unit.comp_dir {
        path.push(dir.to_string_lossy().as_ref());
    }
    if let Some(dir) = file.directory(program) {
        path.push(part(dir)?);
    }
    path.push(name);
    Some(SourceLine { file: demangle::clean(&path.to_string_lossy()), line: u32::try_from(line).ok()? })
}
