//! Complete stacks without frame pointers: unwind tables of all code that the target has mapped, in the kernel
//! program's maps.
//!
//! They are built before the recording starts. Afterwards a thread of low priority checks for new mappings every few
//! seconds, and soon after a stack walk has reached code outside of all known mappings.

pub mod table;
pub(crate) mod walk;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfLoader, maps::Map};
use hud_common::unwind::{Active, MAX_MAPPINGS, Mapping, Row};
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

    /// The tables, for walks in this process.
    pub(crate) fn into_tables(self) -> PreparedTables {
        let mut mappings: Vec<(Mapping, Option<FileId>)> = Vec::new();
        for code in self.code.iter().filter(|m| m.path != PROBES) {
            let id = file_id(code);
            let placed = self.tables.get(&id).and_then(|table| table.as_ref().ok()).and_then(|table| {
                let vaddr = table::vaddr(&table.segments, code.offset)?;
                Some(table.base.wrapping_add(code.start.wrapping_sub(vaddr)))
            });
            let mapping = Mapping { start: code.start, end: code.end, base: placed.unwrap_or(0), ..Mapping::default() };
            mappings.push((mapping, placed.map(|_| id)));
        }
        mappings.sort_by_key(|(mapping, _)| mapping.start);
        let tables = self.tables.into_iter().filter_map(|(id, table)| Some((id, table.ok()?))).collect();
        PreparedTables { mappings, tables }
    }

    /// The files without a table, each with the reason.
    pub(crate) fn notes(&self) -> Vec<String> {
        let why = |(id, table): (&FileId, &Result<Table, String>)| {
            table.as_ref().err().map(|why| format!("no unwind table of {}: {why}", clean(&id.2)))
        };
        self.tables.iter().filter_map(why).collect()
    }
}

/// Tables in this process's memory.
pub(crate) struct PreparedTables {
    /// The mapped code, by address, each with the file of its table.
    mappings: Vec<(Mapping, Option<FileId>)>,
    tables: HashMap<FileId, Table>,
}

impl walk::Tables for PreparedTables {
    fn row(&self, address: u64) -> Option<(u64, Row)> {
        let after = self.mappings.partition_point(|(m, _)| m.start <= address);
        let (mapping, file) = self.mappings.get(after.checked_sub(1)?).filter(|(m, _)| address < m.end)?;
        let found = file.as_ref().and_then(|id| self.tables.get(id)).and_then(|table| {
            let at = |n: u32| usize::try_from(n).ok();
            let buckets = u32::try_from(table.index.len().checked_sub(1)?).ok()?;
            let index = |n| table.index.get(at(n)?).copied();
            walk::find_row(address.wrapping_sub(mapping.base), buckets, index, |n| table.rows.get(at(n)?).copied())
        });
        Some(found_in(mapping, found))
    }
}

/// A row and its first address.
fn found_in(mapping: &Mapping, row: Option<Row>) -> (u64, Row) {
    match row {
        Some(row) => (mapping.base.wrapping_add(row.address.into()).max(mapping.start), row),
        None => (mapping.start, Row::default()),
    }
}

/// The kernel program's tables, read from its maps.
#[derive(Clone)]
pub(crate) struct LoadedTables(Arc<Loaded>);

struct Loaded {
    rows: OwnedFd,
    index: OwnedFd,
    /// The mappings in use, by address.
    active: Mutex<Vec<Mapping>>,
}

impl Loaded {
    fn active(&self) -> std::sync::MutexGuard<'_, Vec<Mapping>> {
        // The list is replaced as a whole.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl walk::Tables for LoadedTables {
    fn row(&self, address: u64) -> Option<(u64, Row)> {
        let Loaded { rows, index, .. } = &*self.0;
        let mapping = {
            let active = self.0.active();
            let after = active.partition_point(|m| m.start <= address);
            *active.get(after.checked_sub(1)?).filter(|m| address < m.end)?
        };
        let found = walk::find_row(
            address.wrapping_sub(mapping.base),
            mapping.buckets,
            |n| bpf::read_array(index.as_fd(), mapping.index.checked_add(n)?).ok(),
            |n| bpf::read_array(rows.as_fd(), mapping.rows.checked_add(n)?).ok(),
        );
        Some(found_in(&mapping, found))
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
    half: u32,
}

struct Maps {
    loaded: Arc<Loaded>,
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
        let (rows, index) = (descriptor("UNWIND_ROWS")?, descriptor("UNWIND_INDEX")?);
        Ok(Maps {
            loaded: Arc::new(Loaded { rows, index, active: Mutex::default() }),
            mappings: descriptor("UNWIND_MAPPINGS")?,
            active: descriptor("UNWIND_ACTIVE")?,
        })
    }
}

impl Tables {
    /// Loads the prepared tables.
    fn load(maps: Maps, prepared: Prepared) -> Result<Self> {
        let mut tables = Tables { maps, used: (0, 0), room: prepared.room(), files: HashMap::new(), half: 0 };
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
        bpf::write_array(self.maps.loaded.rows.as_fd(), placed.rows, &table.rows)?;
        bpf::write_array(self.maps.loaded.index.as_fd(), placed.index, &table.index)?;
        self.used = end;
        Ok(Some(placed))
    }

    /// Activates the mappings. Returns whether they have changed.
    fn activate(&mut self, code: &[inspect::Mapping]) -> io::Result<bool> {
        let most = usize::try_from(MAX_MAPPINGS).unwrap_or(0);
        let mut mappings: Vec<Mapping> =
            code.iter().filter(|m| m.path != PROBES).take(most).map(|m| self.mapping(m)).collect();
        mappings.sort_by_key(|m| m.start);
        if mappings == *self.maps.loaded.active() {
            return Ok(false);
        }
        // The inactive half.
        let first = self.half * MAX_MAPPINGS;
        bpf::write_array(self.maps.mappings.as_fd(), first, &mappings)?;
        let count = u32::try_from(mappings.len()).map_err(io::Error::other)?;
        bpf::write_array(self.maps.active.as_fd(), 0, &[Active { first, count }])?;
        self.half ^= 1;
        *self.maps.loaded.active() = mappings;
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
    loaded: Arc<Loaded>,
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
        let loaded = Arc::clone(&tables.maps.loaded);
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
        Ok(Unwinder { ask: Some(ask), thread: Some(thread), unmapped: 0, loaded })
    }

    /// The tables, for walks from outside.
    pub(crate) fn tables(&self) -> LoadedTables {
        LoadedTables(Arc::clone(&self.loaded))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{
        os::unix::fs::FileExt as _,
        path::Path,
        sync::{Condvar, Mutex, mpsc::channel},
    };

    use hud_common::unwind::Outcome;

    use super::{walk::Words, *};

    struct OwnMemory(File);

    impl Words for OwnMemory {
        fn word(&mut self, address: u64) -> Option<u64> {
            let mut word = [0; 8];
            self.0.read_exact_at(&mut word, address).ok()?;
            Some(u64::from_le_bytes(word))
        }
    }

    fn own_tables() -> PreparedTables {
        let code = inspect::mappings(Path::new("/proc/self/maps")).unwrap();
        let table = |m: &inspect::Mapping| {
            Some((file_id(m), table::build(&std::fs::read(&m.path).ok()?).map_err(|e| e.to_string())))
        };
        let tables = code.iter().filter(|m| m.path.starts_with('/')).filter_map(table).collect();
        Prepared { code, tables }.into_tables()
    }

    /// Calls itself, so that the frames of the wait are behind some of this crate.
    #[inline(never)]
    fn deep(depth: u64, wait: &dyn Fn()) -> u64 {
        match depth {
            0 => wait(),
            _ => drop(std::hint::black_box(deep(depth - 1, wait))),
        }
        std::hint::black_box(depth)
    }

    /// Every way in which a thread of a Rust program sleeps; most pass through the standard library, whose frames are
    /// addressed by a frame pointer that no register of a blocked thread shows.
    #[test]
    fn walks_from_a_system_call_to_the_threads_start() {
        static LOCK: Mutex<()> = Mutex::new(());
        static PAIR: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
        let held = LOCK.lock().unwrap();
        let waits: [(&str, fn()); 5] = [
            ("mutex", || drop(LOCK.lock())),
            ("condvar", || drop(PAIR.1.wait_while(PAIR.0.lock().unwrap(), |ended| !*ended))),
            ("park", thread::park),
            ("sleep", || thread::sleep(Duration::from_secs(20))),
            ("read", || drop(std::io::Read::read(&mut std::io::pipe().unwrap().0, &mut [0]))),
        ];
        let tables = own_tables();
        let mut memory = OwnMemory(File::open("/proc/self/mem").unwrap());
        for (name, wait) in waits {
            let (said, tid) = channel();
            let sleeper = thread::spawn(move || {
                said.send(rustix::thread::gettid()).unwrap();
                deep(5, &wait)
            });
            let tid = tid.recv().unwrap().as_raw_nonzero();
            let (mut before, mut registers) = (String::new(), None);
            // Asleep once it is at the same place twice.
            while registers.is_none() {
                thread::sleep(Duration::from_millis(20));
                let now = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).unwrap();
                let fields: Vec<&str> = now.split_whitespace().collect();
                let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
                registers = match fields[..] {
                    [.., sp, pc] if now == before => Some((hex(pc), hex(sp))),
                    _ => None,
                };
                before = now;
            }
            let (pc, sp) = registers.unwrap();
            let walked = walk::walk(&tables, &mut memory, pc, sp);
            assert_eq!(walked.outcome, Outcome::Complete, "{name}: {:x?}", walked.addresses);
            // Five of the six calls return to the same place.
            let repeated = walked.addresses.windows(2).filter(|pair| pair[0] == pair[1]).count();
            assert!(repeated >= 4, "{name}: {:x?}", walked.addresses);
            match name {
                "park" => sleeper.thread().unpark(),
                _ => drop(sleeper),
            }
        }
        drop(held);
        *PAIR.0.lock().unwrap() = true;
        PAIR.1.notify_all();
    }
}
