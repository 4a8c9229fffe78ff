//! The namer: gives the frames of new stacks their module, function, file and line.
//!
//! It runs beside the drain at low priority. A name that is not available is left out, never guessed. The target's
//! files are parsed elsewhere, see [`crate::sandbox`].

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hud_common::session::{
    Clock, Columns as _, DropColumns, DropRow, FrameColumns, FrameRow, ModuleColumns, ModuleRow, StackColumns,
    StackRow, Table, Text,
};

use super::{
    drop_log::CAPACITY,
    queue::BatchSender,
    stacks::{NewFrames, NewStack, Unwind},
};
use crate::{
    error::{Error, Result},
    inspect::{Mapping, Process, bare, clean},
    kernel,
    symbols::{BinaryId, KernelSymbols, ModuleKind, ResolvedAddress, ResolvedFrame, Resolver, Sources, is_kernel},
    tasks::{AwaitFrame, AwaitStack},
};

/// Addresses whose frames are kept; stacks end before further ones, and `drops` counts their missing frames.
const MAX_ADDRESSES: usize = 500_000;
/// Stacks that are named together, to combine their requests.
const BATCH: usize = 64;
/// How long rows are collected before they are sent.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Interval of checks for the session's end if there are no rows to send.
const IDLE: Duration = Duration::from_millis(500);
/// How long a session that has ended waits for symbols.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest vdso (bytes), the kernel's code in the target.
const LARGEST_VDSO: u64 = 1 << 20;
/// The kernel's path in `modules`.
const KERNEL: &str = "[kernel]";

/// The namer's thread.
pub(super) struct Namer {
    thread: JoinHandle<Vec<String>>,
    is_ending: Arc<AtomicBool>,
}

impl Namer {
    /// Starts it. It ends when the sender of new stacks is dropped and all are named.
    pub(super) fn start(
        process: Process,
        names_from: PathBuf,
        mappings: Vec<Mapping>,
        sources: Arc<Sources>,
        clock: Clock,
        out: BatchSender,
    ) -> Result<(Self, Sender<NewStack>)> {
        let (new, incoming) = mpsc::channel();
        let is_ending = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&is_ending);
        let thread = thread::Builder::new()
            .name("hud-namer".into())
            .spawn(move || {
                // Symbols can wait, the target cannot.
                crate::privilege::lower_priority();
                crate::privilege::enter_namer();
                Names::new(process, names_from, mappings, sources, clock, out).run(&incoming, &ending)
            })
            .map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok((Namer { thread, is_ending }, new))
    }

    /// Waits until all stacks are named. Returns messages about those that could not be.
    pub(super) fn finish(self) -> Vec<String> {
        self.is_ending.store(true, Ordering::Relaxed);
        // If the namer panicked, names are missing; all events are stored.
        self.thread.join().unwrap_or_else(|_| vec!["functions have no names: a thread of hud panicked".into()])
    }
}

struct Module {
    id: i64,
    mapping: Mapping,
    /// Whether it is the file with tokio.
    has_tokio: bool,
    binary: Option<BinaryId>,
    opened: bool,
}

/// An address whose rows are written.
#[derive(Clone)]
struct Known {
    /// Innermost first.
    frames: Rc<[i64]>,
    is_signal_return: bool,
}

struct Names {
    process: Process,
    names_from: PathBuf,
    resolver: Resolver,
    modules: Vec<Module>,
    next_module: i64,
    looked: Instant,
    /// Read when the first kernel address is seen.
    kernel: Option<(i64, Option<KernelSymbols>)>,
    known: HashMap<u64, Known>,
    /// Functions of await stacks whose rows are written.
    awaits: HashMap<AwaitFrame, i64>,
    next_frame: i64,
    most_addresses: usize,
    clock: Clock,
    /// When rows were last sent (ns since the epoch), and frames missing in stacks since.
    flushed: i64,
    lost: usize,
    out: BatchSender,
    stack_rows: StackColumns,
    frame_rows: FrameColumns,
    module_rows: ModuleColumns,
}

impl Names {
    fn new(
        process: Process,
        names_from: PathBuf,
        mappings: Vec<Mapping>,
        sources: Arc<Sources>,
        clock: Clock,
        out: BatchSender,
    ) -> Self {
        let mut names = Names {
            resolver: Resolver::new(sources, Some(process.pid)),
            process,
            names_from,
            modules: Vec::new(),
            next_module: 1,
            looked: Instant::now(),
            kernel: None,
            known: HashMap::new(),
            awaits: HashMap::new(),
            next_frame: 1,
            most_addresses: MAX_ADDRESSES,
            clock,
            flushed: clock.epoch(kernel::now()),
            lost: 0,
            out,
            stack_rows: StackColumns::default(),
            frame_rows: FrameColumns::default(),
            module_rows: ModuleColumns::default(),
        };
        names.learn(mappings);
        // Opened while the target lives: its files can be opened through /proc.
        for index in 0..names.modules.len() {
            names.open(index);
        }
        names
    }

    fn run(mut self, incoming: &Receiver<NewStack>, is_ending: &AtomicBool) -> Vec<String> {
        let mut deadline = None;
        loop {
            if deadline.is_none() && is_ending.load(Ordering::Relaxed) {
                let until = Instant::now() + PATIENCE;
                self.resolver.give_up_at(until);
                deadline = Some(until);
            }
            let is_done = self.module_rows.is_empty() && self.frame_rows.is_empty() && self.stack_rows.is_empty();
            match incoming.recv_timeout(if is_done && self.lost == 0 { IDLE } else { FLUSH_AFTER }) {
                Ok(first) => {
                    let stacks: Vec<_> = std::iter::once(first).chain(incoming.try_iter().take(BATCH - 1)).collect();
                    self.ask(&stacks);
                    for stack in stacks {
                        self.name(stack);
                    }
                    if self.stack_rows.len() >= 1024 || self.frame_rows.len() >= 4096 {
                        self.flush();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
        self.resolver.save();
        self.resolver.notes().to_vec()
    }

    /// Names before the rows that refer to them: modules, frames, stacks.
    fn flush(&mut self) {
        self.out.burst().add(&mut self.module_rows).add(&mut self.frame_rows).add(&mut self.stack_rows);
        let now = self.clock.epoch(kernel::now());
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let mut drops = DropColumns::default();
            drops.push(DropRow {
                ts: self.flushed,
                dur: now - self.flushed,
                stream: Table::Frames.name().into(),
                stage: CAPACITY.into(),
                lost: i64::try_from(lost).unwrap_or(i64::MAX),
            });
            self.out.send(&mut drops);
        }
        self.flushed = now;
    }

    /// Requests all new addresses of some stacks, module by module.
    fn ask(&mut self, stacks: &[NewStack]) {
        let mut wanted: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
        for stack in stacks {
            let NewFrames::Addresses(addresses) = &stack.frames else { continue };
            for (depth, &address) in addresses.iter().enumerate() {
                let address = if depth == 0 { address } else { address.wrapping_sub(1) };
                if !is_kernel(address)
                    && !self.known.contains_key(&address)
                    && let Some(module) = self.module(address)
                {
                    wanted.entry(module).or_default().push(address);
                }
            }
        }
        for (module, mut addresses) in wanted {
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(self.most_addresses.saturating_sub(self.known.len()));
            self.resolve(module, &addresses);
        }
    }

    fn name(&mut self, stack: NewStack) {
        let NewStack { stack_id, frames, unwind } = stack;
        let (frame_ids, unwind) = match frames {
            NewFrames::Addresses(addresses) => self.frames_of(&addresses, unwind),
            NewFrames::Await(functions) => self.await_frames(&functions, unwind),
        };
        self.stack_rows.push(StackRow { stack_id, frame_ids, unwind: Text::Borrowed(unwind.name()) });
    }

    /// The frames of a stack of addresses.
    fn frames_of(&mut self, addresses: &[u64], mut unwind: Unwind) -> (Vec<i64>, Unwind) {
        let mut frame_ids = Vec::with_capacity(addresses.len());
        // A caller is identified by its return address, which may already belong to the next line or function, so the
        // address before it is used. The leaf did not call, nor did code interrupted by a signal or by an entry into
        // the kernel.
        let mut is_exact = true;
        for (depth, &pc) in addresses.iter().enumerate() {
            let Some(mut known) = self.frames_at(if is_exact { pc } else { pc.wrapping_sub(1) }) else {
                unwind = Unwind::Truncated;
                self.lost += addresses.len() - depth;
                break;
            };
            let is_signal_return = known.is_signal_return && !is_exact;
            if is_signal_return && let Some(there) = self.frames_at(pc) {
                known = there;
            }
            frame_ids.extend_from_slice(&known.frames);
            let next = addresses.get(depth + 1);
            is_exact = is_signal_return || is_kernel(pc) && next.is_some_and(|&next| !is_kernel(next));
        }
        (frame_ids, unwind)
    }

    /// The frames of an await stack.
    fn await_frames(&mut self, functions: &AwaitStack, mut unwind: Unwind) -> (Vec<i64>, Unwind) {
        let mut frame_ids = Vec::with_capacity(functions.len());
        for (depth, function) in functions.iter().enumerate() {
            let frame = match self.awaits.get(function) {
                Some(frame) => *frame,
                None if self.awaits.len() >= self.most_addresses => {
                    unwind = Unwind::Truncated;
                    self.lost += functions.len() - depth;
                    break;
                }
                None => {
                    let AwaitFrame { function: name, file, line, origin } = function.clone();
                    let name = ResolvedFrame { function: Some(name), file, line, ..ResolvedFrame::default() };
                    let frame = self.frame(None, 0, name, 0, origin);
                    self.awaits.insert(function.clone(), frame);
                    frame
                }
            };
            frame_ids.push(frame);
        }
        (frame_ids, unwind)
    }

    /// The frames at an address; `None` if there are too many addresses.
    fn frames_at(&mut self, address: u64) -> Option<Known> {
        if !self.known.contains_key(&address) {
            if self.known.len() >= self.most_addresses {
                return None;
            }
            self.resolve_one(address);
        }
        self.known.get(&address).cloned()
    }

    /// Creates the frames at one address.
    fn resolve_one(&mut self, address: u64) {
        if is_kernel(address) {
            self.resolve_kernel(address);
        } else if let Some(module) = self.module(address) {
            self.resolve(module, &[address]);
        } else {
            let frames = Rc::from([self.frame(None, address, ResolvedFrame::default(), 0, None)]);
            self.known.insert(address, Known { frames, is_signal_return: false });
        }
    }

    /// Creates the frames at addresses of a module.
    fn resolve(&mut self, module: i64, addresses: &[u64]) {
        let Some(index) = self.modules.iter().position(|m| m.id == module) else { return };
        self.open(index);
        let Some(module) = self.modules.get(index) else { return };
        let kind = if module.has_tokio { ModuleKind::Program } else { ModuleKind::by_path(bare(&module.mapping.path)) };
        let (id, binary) = (module.id, module.binary);
        let (start, base) = (module.mapping.start, module.mapping.offset);
        let offsets: Vec<u64> = addresses.iter().map(|a| a.wrapping_sub(start).wrapping_add(base)).collect();
        let located = match binary {
            Some(binary) => self.resolver.resolve(binary, &offsets),
            None => offsets.iter().map(|&address| ResolvedAddress { address, ..ResolvedAddress::default() }).collect(),
        };
        for (&address, located) in addresses.iter().zip(located) {
            let mut names = located.frames;
            if names.is_empty() {
                names.push(ResolvedFrame::default());
            }
            let outermost = names.len() - 1;
            let frames = names
                .into_iter()
                .enumerate()
                .map(|(i, name)| {
                    let origin = kind.origin(name.origin);
                    let depth = i32::try_from(outermost - i).unwrap_or(i32::MAX);
                    self.frame(Some(id), located.address, name, depth, origin)
                })
                .collect();
            self.known.insert(address, Known { frames, is_signal_return: located.is_signal_return });
        }
    }

    /// Creates the frame at an address of the kernel.
    fn resolve_kernel(&mut self, address: u64) {
        if self.kernel.is_none() {
            let module_id = self.next_module;
            self.next_module += 1;
            let (path, start, end) = (KERNEL.into(), i64::MIN, -1);
            self.module_rows.push(ModuleRow { module_id, path, build_id: None, start, end, offset: 0 });
            self.kernel = Some((module_id, KernelSymbols::read()));
        }
        let Some((module, symbols)) = &self.kernel else { return };
        let function = symbols.as_ref().and_then(|s| s.find(address)).map(clean);
        let name = ResolvedFrame { function, ..ResolvedFrame::default() };
        let module = *module;
        let frames = Rc::from([self.frame(Some(module), address, name, 0, Some("kernel"))]);
        self.known.insert(address, Known { frames, is_signal_return: false });
    }

    fn frame(
        &mut self,
        module_id: Option<i64>,
        address: u64,
        name: ResolvedFrame,
        inline_depth: i32,
        origin: Option<&'static str>,
    ) -> i64 {
        let frame_id = self.next_frame;
        self.next_frame += 1;
        let number = |n: Option<u32>| n.and_then(|n| i32::try_from(n).ok());
        self.frame_rows.push(FrameRow {
            frame_id,
            module_id,
            address: address.cast_signed(),
            function: name.function.map(Into::into),
            file: name.file.map(Into::into),
            line: number(name.line),
            col: number(name.column),
            inline_depth,
            origin: origin.map(Into::into),
        });
        frame_id
    }

    /// The module that contains an address; if there is none, the mappings are read again, at most once a second.
    fn module(&mut self, address: u64) -> Option<i64> {
        let find = |modules: &[Module]| {
            modules.iter().find(|m| (m.mapping.start..m.mapping.end).contains(&address)).map(|m| m.id)
        };
        if let Some(module) = find(&self.modules) {
            return Some(module);
        }
        if self.looked.elapsed() < Duration::from_secs(1) {
            return None;
        }
        self.looked = Instant::now();
        let mappings = self.process.mappings().unwrap_or_default();
        self.learn(mappings);
        find(&self.modules)
    }

    fn learn(&mut self, mappings: Vec<Mapping>) {
        let with_tokio = self.process.tokio_file();
        for mapping in mappings {
            if self.modules.iter().any(|m| m.mapping == mapping) {
                continue;
            }
            // An unmapped module must not answer for the addresses of a new one.
            self.modules.retain(|m| m.mapping.end <= mapping.start || m.mapping.start >= mapping.end);
            let id = self.next_module;
            self.next_module += 1;
            self.modules.push(Module {
                id,
                has_tokio: Path::new(bare(&mapping.path)) == with_tokio,
                mapping,
                binary: None,
                opened: false,
            });
        }
    }

    /// Opens a module's file, once, and writes its row.
    fn open(&mut self, index: usize) {
        let Some(module) = self.modules.get_mut(index) else { return };
        if module.opened {
            return;
        }
        module.opened = true;
        let shown = PathBuf::from(bare(&module.mapping.path));
        module.binary = if module.mapping.path == VDSO {
            vdso(&self.process, &module.mapping).and_then(|file| self.resolver.open_file(file, &shown))
        } else if !module.mapping.path.starts_with('/') {
            None
        } else if module.has_tokio {
            // Debug files are beside the file that the user gave, if any.
            let beside = if self.names_from.starts_with("/proc") { &shown } else { &self.names_from };
            self.resolver.open(&self.names_from, beside)
        } else {
            // The mapped file, not the one at its path now: that may be another build, or a FIFO without a writer.
            self.resolver.open(&self.process.mapped_file(&module.mapping), &shown)
        };
        let build_id = module.binary.and_then(|binary| self.resolver.build_id(binary));
        let build_id: Option<String> = build_id.map(|id| id.iter().map(|b| format!("{b:02x}")).collect());
        self.module_rows.push(ModuleRow {
            module_id: module.id,
            path: clean(&module.mapping.path).into(),
            build_id: build_id.map(Into::into),
            start: module.mapping.start.cast_signed(),
            end: module.mapping.end.cast_signed(),
            offset: module.mapping.offset.cast_signed(),
        });
    }
}

/// The kernel's code in user space.
const VDSO: &str = "[vdso]";

/// The vdso from the target's memory, as it is no file.
fn vdso(process: &Process, mapping: &Mapping) -> Option<File> {
    let size = mapping.end.checked_sub(mapping.start).filter(|&size| size <= LARGEST_VDSO)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let memory = File::open(format!("/proc/{}/mem", process.pid)).ok()?;
    memory.read_exact_at(&mut bytes, mapping.start).ok()?;
    let file = File::from(rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC).ok()?);
    file.write_all_at(&bytes, 0).ok()?;
    Some(file)
}
