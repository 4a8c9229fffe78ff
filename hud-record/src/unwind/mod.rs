//! Complete stacks without frame pointers: unwind tables of all code that the target has mapped, in the kernel
//! program's maps.
//!
//! They are built before the recording starts. Afterwards a thread of low priority checks for new mappings every few
//! seconds, and soon after a stack walk has reached code outside of all known mappings.

pub mod table;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfLoader, maps::Map};
use hud_common::unwind::{Active, MAX_MAPPINGS, Mapping};
use rustix::fs::{MemfdFlags, memfd_create};
use table::Table;

use crate::{
    bpf,
    error::{Error, Result},
    inspect::{self, Process, clean},
    privilege,
    sandbox::{
        AskError, Sandbox,
        protocol::{Answer, Request},
    },
    symbols::Sources,
};

/// Interval of the regular checks for new mappings.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Least pause between two requested checks, doubled after each that finds nothing new.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// Where the kernel executes the instructions that probes replaced, and where probed functions return to. It has no
/// code of the target, and the kernel program can unwind out of it.
const PROBES: &str = "[uprobes]";
/// The kernel's code in the target.
const VDSO: &str = "[vdso]";
/// Longest vDSO that is read.
const LARGEST_VDSO: u64 = 1 << 20;
/// Space for later mappings: rows, and index entries (of 256 bytes of code).
const HEADROOM: (usize, usize) = (256 << 10, 128 << 10);

/// A file, by device and inode, and its path for mappings without a file.
type FileId = (String, u64, String);

/// Position of a file's table in the maps.
#[derive(Clone, Debug)]
struct Placed {
    rows: u32,
    index: u32,
    buckets: u32,
    table: TableShape,
}

/// The part of a [`Table`] that is kept after it is loaded.
#[derive(Clone, Debug, Default)]
struct TableShape {
    base: u64,
    segments: Vec<table::Segment>,
}

/// Tables that are built but not loaded yet.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    code: Vec<inspect::Mapping>,
    tables: HashMap<FileId, Result<Table, String>>,
}

impl Prepared {
    /// Builds the tables of all mapped code of the process.
    pub(crate) fn of(process: &Process, sandbox: &Sandbox) -> Result<Self> {
        let mut prepared = Prepared { code: process.code()?, tables: HashMap::new() };
        for mapping in &prepared.code {
            let id = file_id(mapping);
            if has_content(mapping) && !prepared.tables.contains_key(&id) {
                prepared.tables.insert(id, build(process, mapping, sandbox));
            }
        }
        Ok(prepared)
    }

    /// Sets the size of the kernel program's maps.
    pub(crate) fn size(&self, loader: &mut EbpfLoader<'_>) {
        let (rows, index) = self.room();
        let entries = |n| u32::try_from(n).unwrap_or(u32::MAX);
        loader.map_max_entries("UNWIND_ROWS", entries(rows)).map_max_entries("UNWIND_INDEX", entries(index));
    }

    fn room(&self) -> (usize, usize) {
        let tables = self.tables.values().flatten();
        tables.fold(HEADROOM, |(rows, index), t| (rows + t.rows.len(), index + t.index.len()))
    }

    /// The files without a table, each with the reason.
    pub(crate) fn notes(&self) -> Vec<String> {
        let why = |(id, table): (&FileId, &Result<Table, String>)| {
            table.as_ref().err().map(|why| format!("no unwind table of {}: {why}", clean(&id.2)))
        };
        self.tables.iter().filter_map(why).collect()
    }
}

fn file_id(mapping: &inspect::Mapping) -> FileId {
    (mapping.file.0.clone(), mapping.file.1, mapping.path.clone())
}

/// Whether a table can be built of it.
fn has_content(mapping: &inspect::Mapping) -> bool {
    mapping.path.starts_with('/') || mapping.path == VDSO
}

/// Builds a file's table in the sandboxed child: the recorder itself reads nothing of the file.
fn build(process: &Process, mapping: &inspect::Mapping, sandbox: &Sandbox) -> Result<Table, String> {
    // Twice, because another file may have ended the child.
    for _ in 0..2 {
        let file = content(process, mapping).map_err(|e| e.to_string())?;
        return match sandbox.ask(None, Request::Unwind, vec![file]) {
            Ok((_, Answer::Unwind(table))) => table.unpack().ok_or_else(|| "the table is inconsistent".into()),
            Ok((_, Answer::Refused(why))) => Err(clean(&why)),
            Ok(_) => Err("the sandboxed child gave an unexpected answer".into()),
            Err(AskError::Restarted) => continue,
            Err(e) => Err(e.to_string()),
        };
    }
    Err(AskError::Restarted.to_string())
}

/// The mapped content, as a file.
fn content(process: &Process, mapping: &inspect::Mapping) -> io::Result<OwnedFd> {
    if mapping.path != VDSO {
        return Ok(process.open_mapped(mapping)?.into());
    }
    let size = usize::try_from((mapping.end - mapping.start).min(LARGEST_VDSO)).unwrap_or(0);
    let image = process.memory(mapping.start, size)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&image)?;
    Ok(file.into())
}

/// The tables in the kernel program's maps.
struct Tables {
    maps: Maps,
    /// Used entries of the maps: rows, index entries.
    used: (usize, usize),
    room: (usize, usize),
    files: HashMap<FileId, Option<Placed>>,
    active: Vec<Mapping>,
    half: u32,
}

struct Maps {
    rows: OwnedFd,
    index: OwnedFd,
    mappings: OwnedFd,
    active: OwnedFd,
}

impl Maps {
    /// Duplicates the maps' descriptors: programs that are loaded later still need the originals.
    fn of(bpf: &Ebpf) -> Result<Self> {
        let descriptor = |name: &str| match bpf.map(name) {
            Some(Map::Array(data)) => data
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| Error::Io { action: "duplicate a descriptor", source }),
            _ => Err(Error::Kernel {
                what: format!("the kernel object has no {name}"),
                why: "hud-ebpf/prebuilt is out of date; run `cargo xtask build-ebpf`".into(),
            }),
        };
        Ok(Maps {
            rows: descriptor("UNWIND_ROWS")?,
            index: descriptor("UNWIND_INDEX")?,
            mappings: descriptor("UNWIND_MAPPINGS")?,
            active: descriptor("UNWIND_ACTIVE")?,
        })
    }
}

impl Tables {
    /// Loads the prepared tables.
    fn load(maps: Maps, prepared: Prepared) -> Result<Self> {
        let mut tables =
            Tables { maps, used: (0, 0), room: prepared.room(), files: HashMap::new(), active: Vec::new(), half: 0 };
        let failed = |e: io::Error| Error::Kernel { what: "loading the unwind tables".into(), why: e.to_string() };
        for (id, table) in prepared.tables {
            let placed = match table {
                Ok(table) => tables.place(table).map_err(failed)?,
                Err(_) => None,
            };
            tables.files.insert(id, placed);
        }
        tables.activate(&prepared.code).map_err(failed)?;
        Ok(tables)
    }

    /// Writes a table to the maps; `None` if they are full.
    fn place(&mut self, table: Table) -> io::Result<Option<Placed>> {
        let end = (self.used.0 + table.rows.len(), self.used.1 + table.index.len());
        let number = |n: usize| u32::try_from(n).map_err(io::Error::other);
        if end.0 > self.room.0 || end.1 > self.room.1 || table.index.len() < 2 {
            return Ok(None);
        }
        let placed = Placed {
            rows: number(self.used.0)?,
            index: number(self.used.1)?,
            buckets: number(table.index.len() - 1)?,
            table: TableShape { base: table.base, segments: table.segments },
        };
        bpf::write_array(self.maps.rows.as_fd(), placed.rows, &table.rows)?;
        bpf::write_array(self.maps.index.as_fd(), placed.index, &table.index)?;
        self.used = end;
        Ok(Some(placed))
    }

    /// Activates the mappings. Returns whether they have changed.
    fn activate(&mut self, code: &[inspect::Mapping]) -> io::Result<bool> {
        let most = usize::try_from(MAX_MAPPINGS).unwrap_or(0);
        let mut mappings: Vec<Mapping> =
            code.iter().filter(|m| m.path != PROBES).take(most).map(|m| self.mapping(m)).collect();
        mappings.sort_by_key(|m| m.start);
        if mappings == self.active {
            return Ok(false);
        }
        // The inactive half.
        let first = self.half * MAX_MAPPINGS;
        bpf::write_array(self.maps.mappings.as_fd(), first, &mappings)?;
        let count = u32::try_from(mappings.len()).map_err(io::Error::other)?;
        bpf::write_array(self.maps.active.as_fd(), 0, &[Active { first, count }])?;
        self.half ^= 1;
        self.active = mappings;
        Ok(true)
    }

    fn mapping(&self, code: &inspect::Mapping) -> Mapping {
        let bare = Mapping { start: code.start, end: code.end, ..Mapping::default() };
        let Some(Some(placed)) = self.files.get(&file_id(code)) else { return bare };
        let Some(vaddr) = table::vaddr(&placed.table.segments, code.offset) else { return bare };
        let bias = code.start.wrapping_sub(vaddr);
        Mapping {
            base: placed.table.base.wrapping_add(bias),
            rows: placed.rows,
            index: placed.index,
            buckets: placed.buckets,
            ..bare
        }
    }

    /// Reads the current mappings. Returns whether they have changed.
    fn update(&mut self, process: &Process, sandbox: &Sandbox) -> io::Result<bool> {
        let code = process.code().map_err(io::Error::other)?;
        let mut new = HashSet::new();
        for mapping in &code {
            let id = file_id(mapping);
            if !has_content(mapping) || self.files.contains_key(&id) {
                continue;
            }
            let placed = match build(process, mapping, sandbox) {
                Ok(table) => self.place(table)?,
                Err(why) => {
                    tracing::debug!("no unwind table of {}: {why}", clean(&mapping.path));
                    None
                }
            };
            if placed.is_some() {
                new.insert(id.clone());
            }
            self.files.insert(id, placed);
        }
        let has_changed = self.activate(&code)?;
        for mapping in code.iter().filter(|m| new.contains(&file_id(m))) {
            tracing::debug!("{} was mapped, and has an unwind table", clean(&mapping.path));
        }
        Ok(has_changed)
    }
}

/// Keeps the tables up to date, on a thread of its own, until dropped.
pub(crate) struct Unwinder {
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Number of walks into unknown code at the last request.
    unmapped: u64,
}

/// Tables being loaded into the maps: a tenth of a second for a binary of 200 MB.
pub(crate) struct LoadingTables(JoinHandle<Result<Tables>>);

impl LoadingTables {
    /// Starts to load the prepared tables.
    pub(crate) fn begin(bpf: &Ebpf, prepared: Prepared) -> Result<Self> {
        let maps = Maps::of(bpf)?;
        let started = thread::Builder::new().name("hud-unwinder".into()).spawn(|| Tables::load(maps, prepared));
        started.map(LoadingTables).map_err(|source| Error::Io { action: "start a thread", source })
    }

    fn wait(self) -> Result<Tables> {
        let ended = self.0.join();
        ended.unwrap_or_else(|_| {
            Err(Error::Kernel { what: "loading the unwind tables".into(), why: "a thread ended".into() })
        })
    }
}

impl Unwinder {
    /// Waits until the tables are loaded, and starts the thread.
    pub(crate) fn start(tables: LoadingTables, process: Process, sources: Arc<Sources>) -> Result<Self> {
        let mut tables = tables.wait()?;
        let (ask, asked) = mpsc::sync_channel(1);
        let keep_up = move || {
            privilege::enter_namer();
            privilege::lower_priority();
            let (mut looked, mut pause) = (Instant::now(), LEAST_PAUSE);
            loop {
                match asked.recv_timeout(LOOK_EVERY) {
                    Ok(()) => thread::sleep(pause.saturating_sub(looked.elapsed())),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                // An exited process has no new mappings; its exit is detected elsewhere.
                pause = match tables.update(&process, sources.sandbox()) {
                    Ok(true) => LEAST_PAUSE,
                    _ => (pause * 2).min(LOOK_EVERY),
                };
                looked = Instant::now();
            }
        };
        let thread = thread::Builder::new().name("hud-unwinder".into()).spawn(keep_up);
        let thread = thread.map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(Unwinder { ask: Some(ask), thread: Some(thread), unmapped: 0 })
    }

    /// Requests a check soon if walks have reached unknown code since the last request; `unmapped` counts them.
    pub(crate) fn request_update(&mut self, unmapped: u64) {
        if unmapped != self.unmapped {
            self.unmapped = unmapped;
            if let Some(ask) = &self.ask {
                // One pending request suffices.
                let _ = ask.try_send(());
            }
        }
    }
}

impl Drop for Unwinder {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
