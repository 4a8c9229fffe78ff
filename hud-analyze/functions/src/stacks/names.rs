//! Names of stacks: their frames, the frames' functions and source locations, and the origin of the code.
//!
//! Each text is kept once. A frame without a function is named by its file (`<libc.so.6>`), else `<unknown>`, as in
//! `queries/hotspots.sql`. If an id occurs twice the first row counts, and of a module's paths the least.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, Int32Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type},
};
use datafusion::{
    common::exec_datafusion_err,
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
};
use hashbrown::{HashMap, HashSet};

/// Memory is reserved in steps of this size.
const STEP: usize = 256 << 10;
/// Bytes of a map's entry beside key and value, with half of the map empty.
const ENTRY: usize = 2;

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its function, or a placeholder.
    pub function: Arc<str>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line in it.
    pub line: Option<i32>,
    /// Origin of the code, as in `frames.origin`.
    pub origin: Option<Arc<str>>,
    /// Path of the mapped file that it is in.
    pub module: Option<Arc<str>>,
    /// Whether its function has a name.
    pub is_named: bool,
}

/// The source of a session's stacks, frames and modules.
pub trait StackSource: fmt::Debug + Send + Sync {
    /// Passes every batch of the tables `stacks`, `frames` and `modules` to `names`. Called when a query first needs a
    /// name, by a thread that may wait; again only after a failure.
    fn load(&self, names: &mut NamesBuilder) -> Result<()>;
}

/// The stacks of a session and their names.
#[derive(Debug, Default)]
pub struct Names {
    stacks: HashMap<i64, (usize, usize)>,
    /// In order.
    stack_ids: Vec<i64>,
    /// Of all stacks, each from its leaf.
    frame_ids: Vec<i64>,
    frames: HashMap<i64, Frame>,
}

impl Names {
    /// Loads the names of a session, and reserves their memory in `pool` while they grow; dropping the reservation
    /// frees it.
    pub fn load(source: &dyn StackSource, pool: &Arc<dyn MemoryPool>) -> Result<(Names, MemoryReservation)> {
        let mut builder = NamesBuilder::new(MemoryConsumer::new("names of stacks").register(pool));
        source.load(&mut builder)?;
        builder.build()
    }

    /// The ids of a stack's frames, leaf first; `None` where there is no such stack.
    pub fn frame_ids(&self, stack: i64) -> Option<&[i64]> {
        let (from, to) = *self.stacks.get(&stack)?;
        self.frame_ids.get(from..to)
    }

    /// A frame; `None` where there is none of that id.
    pub fn frame(&self, id: i64) -> Option<&Frame> {
        self.frames.get(&id)
    }

    /// The ids of all stacks, in order.
    pub fn stack_ids(&self) -> &[i64] {
        &self.stack_ids
    }

    /// The frame to which a stack is attributed, as in `queries/hotspots.sql`: the first named one from the leaf that
    /// is the program's own, else the first named one of a dependency or of tokio, else the leaf. `None` if nothing is
    /// known of that frame.
    pub fn blamed(&self, stack: i64) -> Option<&Frame> {
        let ids = self.frame_ids(stack)?;
        let mut near = None;
        for frame in ids.iter().filter_map(|id| self.frame(*id)).filter(|frame| frame.is_named) {
            match frame.origin.as_deref() {
                Some("own") => return Some(frame),
                Some("dependency" | "tokio") => near = near.or(Some(frame)),
                _ => {}
            }
        }
        near.or_else(|| self.frame(*ids.first()?))
    }
}

/// Accepts the batches of `stacks`, `frames` and `modules`, in any order.
pub struct NamesBuilder {
    names: Names,
    modules: HashMap<i64, Arc<str>>,
    module_of: Vec<(i64, i64)>,
    texts: HashSet<Arc<str>>,
    reserved: MemoryReservation,
    used: usize,
}

impl NamesBuilder {
    fn new(reserved: MemoryReservation) -> Self {
        let (names, modules, module_of, texts) = Default::default();
        NamesBuilder { names, modules, module_of, texts, reserved, used: 0 }
    }

    /// Accepts rows of `stacks`.
    pub fn add_stacks(&mut self, batch: &RecordBatch) -> Result<()> {
        let ids = integers(batch, "stacks", "stack_id")?;
        let lists = column(batch, "stacks", "frame_ids")?;
        let lists = lists
            .as_list_opt::<i32>()
            .ok_or_else(|| exec_datafusion_err!("stacks.frame_ids is {}, not a list", lists.data_type()))?;
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            let list =
                if lists.is_null(row) { None } else { Some(as_integers(&lists.value(row), "stacks.frame_ids")?) };
            let length = list.as_ref().map_or(0, |list| list.len() - list.null_count());
            self.need(length * size_of::<i64>() + ENTRY * size_of::<(i64, (usize, usize))>() + size_of::<i64>())?;
            if self.names.stacks.contains_key(&id) {
                continue;
            }
            let from = self.names.frame_ids.len();
            self.names.frame_ids.extend(list.iter().flat_map(|list| list.iter().flatten()));
            self.names.stacks.insert(id, (from, self.names.frame_ids.len()));
            self.names.stack_ids.push(id);
        }
        Ok(())
    }

    /// Accepts rows of `frames`.
    pub fn add_frames(&mut self, batch: &RecordBatch) -> Result<()> {
        let ids = integers(batch, "frames", "frame_id")?;
        let modules = integers(batch, "frames", "module_id")?;
        let lines = as_lines(&column(batch, "frames", "line")?)?;
        let functions = texts(batch, "frames", "function")?;
        let files = texts(batch, "frames", "file")?;
        let origins = texts(batch, "frames", "origin")?;
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            self.need(ENTRY * size_of::<(i64, Frame)>() + size_of::<(i64, i64)>())?;
            if self.names.frames.contains_key(&id) {
                continue;
            }
            let function = self.text(cell(&functions, row))?;
            let frame = Frame {
                is_named: function.is_some(),
                function: match function {
                    Some(function) => function,
                    None => self.only("<unknown>")?,
                },
                file: self.text(cell(&files, row))?,
                line: lines.is_valid(row).then(|| lines.value(row)),
                origin: self.text(cell(&origins, row))?,
                module: None,
            };
            self.names.frames.insert(id, frame);
            if modules.is_valid(row) {
                self.module_of.push((id, modules.value(row)));
            }
        }
        Ok(())
    }

    /// Accepts rows of `modules`.
    pub fn add_modules(&mut self, batch: &RecordBatch) -> Result<()> {
        let ids = integers(batch, "modules", "module_id")?;
        let paths = texts(batch, "modules", "path")?;
        for (row, id) in ids.iter().enumerate() {
            let (Some(id), Some(path)) = (id, self.text(cell(&paths, row))?) else { continue };
            self.need(ENTRY * size_of::<(i64, Arc<str>)>())?;
            let known = self.modules.entry(id).or_insert_with(|| Arc::clone(&path));
            if path < *known {
                *known = path;
            }
        }
        Ok(())
    }

    /// The names, and the memory that is reserved for them.
    fn build(mut self) -> Result<(Names, MemoryReservation)> {
        for (frame, module) in std::mem::take(&mut self.module_of) {
            let Some(path) = self.modules.get(&module).map(Arc::clone) else { continue };
            let label = format!("<{}>", path.rsplit('/').next().unwrap_or(&path));
            let is_named = self.names.frames.get(&frame).is_some_and(|frame| frame.is_named);
            let label = if is_named { None } else { Some(self.only(&label)?) };
            if let Some(frame) = self.names.frames.get_mut(&frame) {
                frame.module = Some(path);
                if let Some(label) = label {
                    frame.function = label;
                }
            }
        }
        self.names.stack_ids.sort_unstable();
        self.reserved.try_resize(self.used)?;
        Ok((self.names, self.reserved))
    }

    /// The one copy of a text.
    fn text(&mut self, text: Option<&str>) -> Result<Option<Arc<str>>> {
        text.map(|text| self.only(text)).transpose()
    }

    fn only(&mut self, text: &str) -> Result<Arc<str>> {
        if let Some(known) = self.texts.get(text) {
            return Ok(Arc::clone(known));
        }
        self.need(text.len() + 2 * size_of::<usize>() + ENTRY * size_of::<Arc<str>>())?;
        let text = Arc::<str>::from(text);
        self.texts.insert(Arc::clone(&text));
        Ok(text)
    }

    fn need(&mut self, bytes: usize) -> Result<()> {
        self.used = self.used.saturating_add(bytes);
        let held = self.reserved.size();
        if self.used > held {
            self.reserved.try_grow((self.used - held).max(STEP))?;
        }
        Ok(())
    }
}

fn column(batch: &RecordBatch, table: &str, name: &str) -> Result<ArrayRef> {
    batch.column_by_name(name).cloned().ok_or_else(|| exec_datafusion_err!("{table} has no column {name}"))
}

fn as_integers(array: &ArrayRef, what: &str) -> Result<Int64Array> {
    let array = cast(array, &DataType::Int64)?;
    let integers = array.as_primitive_opt::<Int64Type>().cloned();
    integers.ok_or_else(|| exec_datafusion_err!("{what} is no integer"))
}

fn integers(batch: &RecordBatch, table: &str, name: &str) -> Result<Int64Array> {
    as_integers(&column(batch, table, name)?, name)
}

fn as_lines(array: &ArrayRef) -> Result<Int32Array> {
    let array = cast(array, &DataType::Int32)?;
    array.as_primitive_opt::<Int32Type>().cloned().ok_or_else(|| exec_datafusion_err!("frames.line is no integer"))
}

fn texts(batch: &RecordBatch, table: &str, name: &str) -> Result<StringArray> {
    let array = cast(&column(batch, table, name)?, &DataType::Utf8)?;
    array.as_string_opt::<i32>().cloned().ok_or_else(|| exec_datafusion_err!("{table}.{name} is no text"))
}

fn cell(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}
