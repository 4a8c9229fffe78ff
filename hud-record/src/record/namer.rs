//! The namer: gives the frames of new stacks their module, function, file and line.
//!
//! It runs beside the drain at low priority and owns everything that names need; a name that cannot be had is left out,
//! never guessed.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use addr2line::Loader;
use hud_common::session::{
    Columns as _, FrameColumns, FrameRow, ModuleColumns, ModuleRow, StackColumns, StackRow, Text,
};

use super::{
    origin::origin,
    stacks::{NewStack, Unwind},
    writer::BatchSender,
};
use crate::{
    error::{Error, Result},
    target::{Binary, Mapping, Process, clean, function_name},
};

/// Frames that are kept; further ones have an id no more, and their stacks end before them.
const MAX_FRAMES: usize = 500_000;

/// The namer's thread.
pub(super) struct Namer(JoinHandle<()>);

impl Namer {
    /// Starts it. It ends when the sender of new stacks is gone and all are named.
    pub(super) fn start(
        process: Process,
        names_from: PathBuf,
        mappings: Vec<Mapping>,
        out: BatchSender,
    ) -> Result<(Self, Sender<NewStack>)> {
        let (new, incoming) = mpsc::channel();
        let handle = thread::Builder::new()
            .name("hud-namer".into())
            .spawn(move || {
                // Below everything else on the machine: names can wait, the target cannot.
                let _ = rustix::process::nice(19);
                crate::privilege::enter_namer();
                Names::new(process, names_from, mappings, out).run(&incoming);
            })
            .map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok((Namer(handle), new))
    }

    /// Waits until all stacks are named.
    pub(super) fn finish(self) {
        // A namer that panicked leaves names out; the events are all there.
        let _ = self.0.join();
    }
}

struct Module {
    id: i64,
    mapping: Mapping,
    is_exe: bool,
    symbols: Option<Symbols>,
    opened: bool,
}

struct Symbols {
    loader: Loader,
    binary: Binary,
}

struct Names {
    process: Process,
    names_from: PathBuf,
    modules: Vec<Module>,
    next_module: i64,
    looked: Instant,
    /// Frames at an address, innermost first.
    frames: HashMap<u64, Vec<i64>>,
    next_frame: i64,
    out: BatchSender,
    stack_rows: StackColumns,
    frame_rows: FrameColumns,
    module_rows: ModuleColumns,
}

impl Names {
    fn new(process: Process, names_from: PathBuf, mappings: Vec<Mapping>, out: BatchSender) -> Self {
        let mut names = Names {
            process,
            names_from,
            modules: Vec::new(),
            next_module: 1,
            looked: Instant::now(),
            frames: HashMap::new(),
            next_frame: 1,
            out,
            stack_rows: StackColumns::default(),
            frame_rows: FrameColumns::default(),
            module_rows: ModuleColumns::default(),
        };
        names.learn(mappings);
        // While the target lives: its own binary, and whatever else it had mapped, can be opened through /proc.
        for index in 0..names.modules.len() {
            names.open(index);
        }
        names
    }

    fn run(mut self, incoming: &Receiver<NewStack>) {
        loop {
            match incoming.recv_timeout(Duration::from_millis(100)) {
                Ok(stack) => {
                    self.name(stack);
                    if self.stack_rows.len() >= 1024 || self.frame_rows.len() >= 4096 {
                        self.flush();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
    }

    /// Names before the rows that refer to them: modules, frames, stacks.
    fn flush(&mut self) {
        self.out.send(&mut self.module_rows);
        self.out.send(&mut self.frame_rows);
        self.out.send(&mut self.stack_rows);
    }

    fn name(&mut self, stack: NewStack) {
        let mut frame_ids = Vec::with_capacity(stack.addresses.len());
        let mut unwind = stack.unwind;
        for (depth, &address) in stack.addresses.iter().enumerate() {
            // A caller is known by its return address, which may already belong to the next line or function.
            let address = if depth == 0 { address } else { address.wrapping_sub(1) };
            if let Some(known) = self.frames.get(&address) {
                frame_ids.extend_from_slice(known);
            } else if self.frames.len() < MAX_FRAMES {
                let new = self.resolve(address);
                frame_ids.extend_from_slice(&new);
                self.frames.insert(address, new);
            } else {
                unwind = Unwind::Truncated;
                break;
            }
        }
        self.stack_rows.push(StackRow { stack_id: stack.stack_id, frame_ids, unwind: Text::Borrowed(unwind.name()) });
    }

    /// Makes the frames at an address and gives their ids.
    fn resolve(&mut self, address: u64) -> Vec<i64> {
        let module = self.module(address);
        let Some(index) = module else {
            return vec![self.frame(None, address, FrameName::default(), 0, None)];
        };
        self.open(index);
        let Some(module) = self.modules.get(index) else { return Vec::new() };
        let (id, is_exe) = (Some(module.id), module.is_exe);
        let offset = address - module.mapping.start + module.mapping.offset;
        let (vaddr, names) = match &module.symbols {
            Some(symbols) => match symbols.binary.vaddr(offset) {
                Some(vaddr) => (vaddr, look_up(&symbols.loader, vaddr)),
                None => (offset, Vec::new()),
            },
            None => (offset, Vec::new()),
        };
        let names = if names.is_empty() { vec![FrameName::default()] } else { names };
        let outermost = names.len() - 1;
        names
            .into_iter()
            .enumerate()
            .map(|(i, name)| {
                let whose = origin(name.file.as_deref(), name.function.as_deref(), is_exe);
                self.frame(id, vaddr, name, i32::try_from(outermost - i).unwrap_or(i32::MAX), whose)
            })
            .collect()
    }

    fn frame(
        &mut self,
        module_id: Option<i64>,
        address: u64,
        name: FrameName,
        inline_depth: i32,
        whose: Option<&'static str>,
    ) -> i64 {
        let frame_id = self.next_frame;
        self.next_frame += 1;
        self.frame_rows.push(FrameRow {
            frame_id,
            module_id,
            address: address.cast_signed(),
            function: name.function.map(Into::into),
            file: name.file.map(Into::into),
            line: name.line,
            inline_depth,
            origin: whose.map(Into::into),
        });
        frame_id
    }

    /// The module that holds an address; asks again for the mappings, at most once a second, when none does.
    fn module(&mut self, address: u64) -> Option<usize> {
        let find =
            |modules: &[Module]| modules.iter().position(|m| (m.mapping.start..m.mapping.end).contains(&address));
        if let Some(index) = find(&self.modules) {
            return Some(index);
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
        let bare = |path: &str| path.strip_suffix(" (deleted)").unwrap_or(path).to_string();
        let exe = bare(&self.process.exe.to_string_lossy());
        for mapping in mappings {
            if self.modules.iter().any(|m| m.mapping == mapping) {
                continue;
            }
            // What was unmapped must not answer for what is mapped there now.
            self.modules.retain(|m| m.mapping.end <= mapping.start || m.mapping.start >= mapping.end);
            let id = self.next_module;
            self.next_module += 1;
            self.modules.push(Module { id, is_exe: bare(&mapping.path) == exe, mapping, symbols: None, opened: false });
        }
    }

    /// Opens a module's file, once, and writes its row.
    fn open(&mut self, index: usize) {
        let Some(module) = self.modules.get_mut(index) else { return };
        if module.opened {
            return;
        }
        module.opened = true;
        // What is mapped, not what lies at its path now: that may be another build, or a pipe that nobody writes to.
        let path = if module.is_exe { self.names_from.clone() } else { self.process.mapped_file(&module.mapping) };
        if module.mapping.path.starts_with('/') && path.metadata().is_ok_and(|m| m.is_file()) {
            module.symbols = Loader::new(&path)
                .ok()
                .zip(Binary::open(&path, &path).ok())
                .map(|(loader, binary)| Symbols { loader, binary });
        }
        let build_id = module.symbols.as_ref().and_then(|s| s.binary.build_id()).map(str::to_string);
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

#[derive(Default)]
struct FrameName {
    function: Option<String>,
    file: Option<String>,
    line: Option<i32>,
}

/// The functions at an address, innermost first.
fn look_up(loader: &Loader, address: u64) -> Vec<FrameName> {
    let mut names = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            names.push(FrameName {
                function: frame.function.and_then(|f| Some(function_name(&f.raw_name().ok()?))),
                file: frame.location.as_ref().and_then(|l| Some(clean(l.file?))),
                line: frame.location.as_ref().and_then(|l| i32::try_from(l.line?).ok()),
            });
        }
    }
    // Debug information without a function, or none at all: the symbol table.
    let symbol = || loader.find_symbol(address).map(function_name);
    match names.last_mut() {
        Some(outermost) if outermost.function.is_none() => outermost.function = symbol(),
        Some(_) => {}
        None => {
            if let Some(function) = symbol() {
                names.push(FrameName { function: Some(function), ..FrameName::default() });
            }
        }
    }
    names
}
