//! Names of ids: threads, task types, tasks, stacks, frames, modules.
//!
//! They are kept in memory: their number depends not on a session's length but on its distinct values, which the
//! recorder bounds. Tasks are the exception: beyond [`MOST_TASKS`], types are unknown. Names come from an untrusted
//! process, so they are sanitized and cut here and nowhere else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hud_common::{clean_name, session::Table};

use crate::{
    Result, Rows,
    column::{ints, lists, texts},
};

/// Tasks whose types are kept.
const MOST_TASKS: usize = 1 << 20;
/// Threads whose names are kept.
const MOST_THREADS: usize = 1 << 16;
/// Frames of a stack that are read: the recorder keeps 128 addresses, each with the functions inlined there.
const MOST_FRAMES: usize = 4096;

/// A shared name.
pub(crate) type Name = Arc<str>;

/// A thread, by its last row.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    /// Its unique name: `worker 3`, `tokio-rt-worker (blocking)`.
    pub(crate) label: Name,
}

/// A type of task.
#[derive(Clone, Debug)]
pub(crate) struct TaskType {
    pub(crate) name: Name,
    /// Whether it is a task, not a worker's loop or work of the blocking pool.
    pub(crate) is_task: bool,
}

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The function; else the file in angle brackets.
    pub(crate) name: Name,
    pub(crate) is_named: bool,
    pub(crate) file: Option<Name>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    /// An index into the modules.
    pub(crate) module: Option<u32>,
    /// In the file's own address space.
    pub(crate) address: u64,
    /// 0 for the function that holds the address.
    pub(crate) inline_depth: u32,
    pub(crate) origin: Origin,
}

/// Origin of a frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Own,
    Dependency,
    Tokio,
    Std,
    Libc,
    Kernel,
    System,
    Unknown,
}

impl Origin {
    fn of(text: &str) -> Self {
        match text {
            "own" => Origin::Own,
            "dependency" => Origin::Dependency,
            "tokio" => Origin::Tokio,
            "std" => Origin::Std,
            "libc" => Origin::Libc,
            "kernel" => Origin::Kernel,
            "system" => Origin::System,
            _ => Origin::Unknown,
        }
    }
}

/// A mapped file.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) path: Name,
    /// Hexadecimal, or nothing.
    pub(crate) build_id: Option<Name>,
}

/// The names of a session.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) threads: HashMap<i32, Thread>,
    types: HashMap<i64, TaskType>,
    type_of: HashMap<i64, i64>,
    /// Tasks beyond those whose types are known.
    pub(crate) tasks_left_out: u64,
    frames: Vec<Frame>,
    pub(crate) modules: Vec<Module>,
    /// The range of a stack's frames in `stacked`.
    stacks: HashMap<i64, (u32, u32)>,
    stacked: Vec<u32>,
    texts: HashSet<Name>,
}

impl Names {
    /// Reads them; stacks and their frames only on request.
    pub(crate) fn read(rows: &dyn Rows, with_stacks: bool) -> Result<Self> {
        let mut names = Names::default();
        names.read_threads(rows)?;
        names.read_types(rows)?;
        names.read_tasks(rows, Table::Tasks)?;
        names.read_tasks(rows, Table::Spawns)?;
        if with_stacks {
            names.read_stacks(rows)?;
        }
        Ok(names)
    }

    fn text(&mut self, text: &str) -> Name {
        let text = clean_name(text);
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Name = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn read_threads(&mut self, rows: &dyn Rows) -> Result<()> {
        rows.scan(Table::Threads, &["tid", "name", "role", "worker", "runtime_id"], None, &mut |batch| {
            let (tid, worker, runtime) = (ints(batch, "tid")?, ints(batch, "worker")?, ints(batch, "runtime_id")?);
            let (name, role) = (texts(batch, "name")?, texts(batch, "role")?);
            for row in 0..batch.num_rows() {
                let tid = tid.small(row);
                if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&tid) {
                    continue;
                }
                let label = match (role.at(row), worker.get(row), runtime.get(row)) {
                    ("worker", Some(worker), Some(runtime)) if runtime != 0 => format!("worker {runtime}.{worker}"),
                    ("worker", Some(worker), _) => format!("worker {worker}"),
                    ("blocking", ..) => format!("{} (blocking)", name.at(row)),
                    _ if name.at(row).is_empty() => format!("thread {tid}"),
                    _ => name.at(row).to_string(),
                };
                let label = self.text(&label);
                self.threads.insert(tid, Thread { label });
            }
            Ok(())
        })
    }

    fn read_types(&mut self, rows: &dyn Rows) -> Result<()> {
        rows.scan(Table::TaskTypes, &["type_id", "name", "kind"], None, &mut |batch| {
            let (id, name, kind) = (ints(batch, "type_id")?, texts(batch, "name")?, texts(batch, "kind")?);
            for row in 0..batch.num_rows() {
                let name = self.text(name.at(row));
                self.types.insert(id.at(row), TaskType { name, is_task: kind.at(row) == "task" });
            }
            Ok(())
        })
    }

    fn read_tasks(&mut self, rows: &dyn Rows, table: Table) -> Result<()> {
        rows.scan(table, &["task_id", "type_id"], None, &mut |batch| {
            let (task, type_id) = (ints(batch, "task_id")?, ints(batch, "type_id")?);
            for row in 0..batch.num_rows() {
                let Some(type_id) = type_id.get(row) else { continue };
                let task = task.at(row);
                if self.type_of.len() < MOST_TASKS {
                    self.type_of.entry(task).or_insert(type_id);
                } else if !self.type_of.contains_key(&task) {
                    self.tasks_left_out += 1;
                }
            }
            Ok(())
        })
    }

    fn read_stacks(&mut self, rows: &dyn Rows) -> Result<()> {
        let mut module_of: HashMap<i64, u32> = HashMap::new();
        rows.scan(Table::Modules, &["module_id", "path", "build_id"], None, &mut |batch| {
            let (id, path, build_id) = (ints(batch, "module_id")?, texts(batch, "path")?, texts(batch, "build_id")?);
            for row in 0..batch.num_rows() {
                let Ok(place) = u32::try_from(self.modules.len()) else { break };
                module_of.insert(id.at(row), place);
                let is_hex = |id: &&str| !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_hexdigit());
                let build_id = build_id.get(row).filter(is_hex).map(|id| self.text(id));
                let path = self.text(path.at(row));
                self.modules.push(Module { path, build_id });
            }
            Ok(())
        })?;

        let mut frame_of: HashMap<i64, u32> = HashMap::new();
        let unknown = self.text("<unknown>");
        self.frames.push(Frame {
            name: Arc::clone(&unknown),
            is_named: false,
            file: None,
            line: None,
            column: None,
            module: None,
            address: 0,
            inline_depth: 0,
            origin: Origin::Unknown,
        });
        let columns = ["frame_id", "module_id", "address", "function", "file", "line", "col", "inline_depth", "origin"];
        rows.scan(Table::Frames, &columns, None, &mut |batch| {
            let (id, module, address) = (ints(batch, "frame_id")?, ints(batch, "module_id")?, ints(batch, "address")?);
            let (line, column, depth) = (ints(batch, "line")?, ints(batch, "col")?, ints(batch, "inline_depth")?);
            let (function, file, origin) = (texts(batch, "function")?, texts(batch, "file")?, texts(batch, "origin")?);
            let positive = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0);
            for row in 0..batch.num_rows() {
                let module = module.get(row).and_then(|id| module_of.get(&id).copied());
                let path = self.module(module).map(|module| Arc::clone(&module.path)).filter(|path| !path.is_empty());
                let name = match (function.get(row), path) {
                    (Some(function), _) => self.text(function),
                    (None, Some(path)) => self.text(&format!("<{}>", path.rsplit('/').next().unwrap_or_default())),
                    (None, None) => Arc::clone(&unknown),
                };
                let file = file.get(row).filter(|file| !file.is_empty()).map(|file| self.text(file));
                let Ok(place) = u32::try_from(self.frames.len()) else { break };
                frame_of.insert(id.at(row), place);
                self.frames.push(Frame {
                    name,
                    is_named: function.get(row).is_some(),
                    file,
                    line: positive(line.get(row)),
                    column: positive(column.get(row)),
                    module,
                    address: address.at(row).cast_unsigned(),
                    inline_depth: positive(depth.get(row)).unwrap_or(0),
                    origin: Origin::of(origin.at(row)),
                });
            }
            Ok(())
        })?;

        rows.scan(Table::Stacks, &["stack_id", "frame_ids"], None, &mut |batch| {
            let (id, frames) = (ints(batch, "stack_id")?, lists(batch, "frame_ids")?);
            for row in 0..batch.num_rows() {
                let frames = frames.at(row);
                let frames = frames.iter().take(MOST_FRAMES).map(|id| frame_of.get(id).copied().unwrap_or(0));
                let start = self.stacked.len();
                self.stacked.extend(frames);
                let len = self.stacked.len() - start;
                let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(len)) else { break };
                self.stacks.insert(id.at(row), (start, len));
            }
            Ok(())
        })
    }

    /// The frames of a stack, leaf first, as indices; none if nothing is known of it.
    pub(crate) fn stack(&self, id: Option<i64>) -> &[u32] {
        let place = id.and_then(|id| self.stacks.get(&id));
        place
            .and_then(|(start, len)| self.stacked.get(*start as usize..).and_then(|s| s.get(..*len as usize)))
            .unwrap_or(&[])
    }

    pub(crate) fn frame(&self, index: u32) -> Option<&Frame> {
        self.frames.get(index as usize)
    }

    pub(crate) fn module(&self, index: Option<u32>) -> Option<&Module> {
        self.modules.get(index? as usize)
    }

    /// The type of a task: from its poll, or from the `tasks` table.
    pub(crate) fn type_of(&self, task: Option<i64>, known: Option<i64>) -> Option<i64> {
        known.or_else(|| self.type_of.get(&task?).copied())
    }

    /// The type of that id.
    pub(crate) fn task_type(&self, type_id: Option<i64>) -> Option<&TaskType> {
        self.types.get(&type_id?)
    }

    /// The name of a task: its type.
    pub(crate) fn task(&self, type_id: Option<i64>) -> Name {
        self.task_type(type_id).map_or_else(|| "<unknown type>".into(), |t| Arc::clone(&t.name))
    }

    /// The type of a task that is not a worker's loop: code in loops is outside of tasks.
    pub(crate) fn task_of(&self, task: Option<i64>) -> Option<&TaskType> {
        self.task_type(self.type_of(task, None)).filter(|t| t.is_task)
    }

    /// The name of a thread.
    pub(crate) fn thread(&self, tid: i32) -> Name {
        self.threads.get(&tid).map_or_else(|| format!("thread {tid}").into(), |t| Arc::clone(&t.label))
    }

    /// The source location to which a task's stack is attributed: its first own frame from the leaf, as in the views.
    pub(crate) fn blamed(&self, stack: Option<i64>) -> Option<&Frame> {
        let named = || self.stack(stack).iter().filter_map(|f| self.frame(*f)).filter(|f| f.is_named);
        let near = |f: &&Frame| matches!(f.origin, Origin::Dependency | Origin::Tokio);
        named().find(|f| f.origin == Origin::Own).or_else(|| named().find(near)).or_else(|| named().next())
    }
}
