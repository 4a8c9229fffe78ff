//! The tables of one thread: strings, functions, frames, stacks, samples and markers, a column each.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    libraries::Libraries,
    values::{Category, millis, text},
};
use crate::names::{Name, Names};

/// A thread's samples and markers, and the tables that they reference.
#[derive(Default)]
pub(super) struct Thread {
    strings: Vec<Name>,
    string_of: HashMap<Name, u32>,
    functions: Vec<Function>,
    function_of: HashMap<(Name, Option<Name>, Option<u32>), u32>,
    frames: Vec<Frame>,
    frame_of: HashMap<u32, u32>,
    stacks: Vec<(Option<u32>, u32)>,
    stack_of: HashMap<(Option<u32>, u32), u32>,
    /// By the session's own id.
    known: HashMap<i64, Option<u32>>,
    /// The library of each resource, and its name.
    resources: Vec<(u32, u32)>,
    resource_of: HashMap<u32, u32>,
    samples: Vec<Sample>,
    markers: Vec<Marker>,
}

struct Function {
    name: u32,
    file: Option<u32>,
    resource: Option<u32>,
}

struct Frame {
    address: Option<u64>,
    inline_depth: u32,
    category: Category,
    function: u32,
    line: Option<u32>,
    column: Option<u32>,
}

struct Sample {
    /// Since the profile's start (ns).
    at: i64,
    stack: Option<u32>,
    weight: i64,
}

struct Marker {
    from: i64,
    to: i64,
    name: u32,
    category: Category,
    kind: &'static str,
    stack: Option<u32>,
    /// Numbers in milliseconds or whole, and strings by their numbers.
    fields: Vec<(&'static str, Value)>,
}

/// A field of a marker.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Text(u32),
    Count(i64),
    Duration(i64),
}

/// A thread's metadata in the file.
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) tid: i32,
    pub(super) pid: u32,
    pub(super) process: &'a str,
    pub(super) end: f64,
}

fn next(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Thread {
    pub(super) fn string(&mut self, text: &Name) -> u32 {
        if let Some(known) = self.string_of.get(text) {
            return *known;
        }
        let number = next(self.strings.len());
        self.strings.push(Name::clone(text));
        self.string_of.insert(Name::clone(text), number);
        number
    }

    /// The index of the stack of that id, which is added to the tables if new.
    fn stack(&mut self, names: &Names, libraries: &mut Libraries, id: Option<i64>) -> Option<u32> {
        let id = id?;
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        let mut stack = None;
        for index in names.stack(Some(id)).iter().rev() {
            let frame = self.frame(names, libraries, *index);
            let number = next(self.stacks.len());
            let found = *self.stack_of.entry((stack, frame)).or_insert(number);
            if found == number {
                self.stacks.push((stack, frame));
            }
            stack = Some(found);
        }
        self.known.insert(id, stack);
        stack
    }

    fn frame(&mut self, names: &Names, libraries: &mut Libraries, index: u32) -> u32 {
        if let Some(known) = self.frame_of.get(&index) {
            return *known;
        }
        let number = next(self.frames.len());
        self.frame_of.insert(index, number);
        let Some(frame) = names.frame(index) else { return number };
        let resource = frame.module.map(|module| self.resource(names, libraries, module));
        let key = (Name::clone(&frame.name), frame.file.clone(), resource);
        let function = match self.function_of.get(&key) {
            Some(known) => *known,
            None => {
                let function = next(self.functions.len());
                let (name, file) = (self.string(&frame.name), frame.file.as_ref().map(|file| self.string(file)));
                self.functions.push(Function { name, file, resource });
                self.function_of.insert(key, function);
                function
            }
        };
        self.frames.push(Frame {
            address: frame.module.map(|_| frame.address),
            inline_depth: frame.inline_depth,
            category: Category::of(frame.origin),
            function,
            line: frame.line,
            column: frame.column,
        });
        number
    }

    fn resource(&mut self, names: &Names, libraries: &mut Libraries, module: u32) -> u32 {
        if let Some(known) = self.resource_of.get(&module) {
            return *known;
        }
        let number = next(self.resources.len());
        let path = names.module(Some(module)).map_or_else(|| "".into(), |module| Name::clone(&module.path));
        let name = self.string(&path.rsplit('/').next().unwrap_or_default().into());
        self.resources.push((libraries.number(module), name));
        self.resource_of.insert(module, number);
        number
    }

    pub(super) fn sample(
        &mut self,
        names: &Names,
        libraries: &mut Libraries,
        at: i64,
        stack: Option<i64>,
        weight: i64,
    ) {
        let stack = self.stack(names, libraries, stack);
        self.samples.push(Sample { at, stack, weight });
    }

    #[expect(clippy::too_many_arguments, reason = "what a marker is")]
    pub(super) fn marker(
        &mut self,
        names: &Names,
        libraries: &mut Libraries,
        (from, to): (i64, i64),
        kind: &'static str,
        name: &Name,
        category: Category,
        stack: Option<i64>,
        fields: Vec<(&'static str, Value)>,
    ) {
        let (stack, name) = (self.stack(names, libraries, stack), self.string(name));
        self.markers.push(Marker { from, to, name, category, kind, stack, fields });
    }

    /// Writes it as an object. The columns are those of version 55 of the format.
    pub(super) fn write(&self, out: &mut impl Write, about: &About<'_>) -> io::Result<()> {
        write!(out, "{{")?;
        self.write_code(out)?;
        self.write_samples(out)?;
        self.write_markers(out)?;
        column(out, "stringArray", self.strings.iter().map(|text| &**text))?;
        let (name, process) = (text(about.name), text(about.process));
        let (tid, pid, end) = (about.tid, about.pid, about.end);
        let is_main = u32::try_from(tid).is_ok_and(|tid| tid == pid);
        write!(
            out,
            "\"name\":{name},\"isMainThread\":{is_main},\"pid\":\"{pid}\",\"tid\":\"{tid}\",\"processName\":{process},\
             \"processType\":\"default\",\"processStartupTime\":0,\"processShutdownTime\":{end},\"registerTime\":0,\
             \"unregisterTime\":null,\"pausedRanges\":[],\"showMarkersInTimeline\":true}}"
        )
    }

    fn write_code(&self, out: &mut impl Write) -> io::Result<()> {
        open(out, "frameTable", self.frames.len())?;
        // -1: no parent.
        column(out, "address", self.frames.iter().map(|f| f.address.map_or(-1_i128, i128::from)))?;
        column(out, "inlineDepth", self.frames.iter().map(|f| f.inline_depth))?;
        column(out, "category", self.frames.iter().map(|f| f.category as u8))?;
        column(out, "subcategory", self.frames.iter().map(|_| 0))?;
        column(out, "func", self.frames.iter().map(|f| f.function))?;
        column(out, "nativeSymbol", self.frames.iter().map(|_| ()))?;
        column(out, "innerWindowID", self.frames.iter().map(|_| 0))?;
        column(out, "line", self.frames.iter().map(|f| f.line))?;
        last(out, "column", self.frames.iter().map(|f| f.column))?;
        open(out, "funcTable", self.functions.len())?;
        column(out, "name", self.functions.iter().map(|f| f.name))?;
        column(out, "isJS", self.functions.iter().map(|_| false))?;
        column(out, "relevantForJS", self.functions.iter().map(|_| false))?;
        column(out, "resource", self.functions.iter().map(|f| f.resource.map_or(-1, i64::from)))?;
        column(out, "fileName", self.functions.iter().map(|f| f.file))?;
        column(out, "lineNumber", self.functions.iter().map(|_| ()))?;
        last(out, "columnNumber", self.functions.iter().map(|_| ()))?;
        open(out, "stackTable", self.stacks.len())?;
        column(out, "prefix", self.stacks.iter().map(|(prefix, _)| prefix))?;
        last(out, "frame", self.stacks.iter().map(|(_, frame)| frame))?;
        open(out, "resourceTable", self.resources.len())?;
        column(out, "lib", self.resources.iter().map(|(lib, _)| lib))?;
        column(out, "name", self.resources.iter().map(|(_, name)| name))?;
        column(out, "host", self.resources.iter().map(|_| ()))?;
        // 1: a library.
        last(out, "type", self.resources.iter().map(|_| 1))?;
        open(out, "nativeSymbols", 0)?;
        for name in ["address", "functionSize", "libIndex"] {
            column(out, name, std::iter::empty::<()>())?;
        }
        last(out, "name", std::iter::empty::<()>())
    }

    fn write_samples(&self, out: &mut impl Write) -> io::Result<()> {
        open(out, "samples", self.samples.len())?;
        write!(out, "\"weightType\":\"tracing-ms\",")?;
        column(out, "stack", self.samples.iter().map(|s| s.stack))?;
        let mut before = 0;
        let deltas = self.samples.iter().map(|sample| {
            let delta = sample.at.saturating_sub(std::mem::replace(&mut before, sample.at));
            millis(delta)
        });
        column(out, "timeDeltas", deltas)?;
        column(out, "weight", self.samples.iter().map(|s| millis(s.weight)))?;
        // Microseconds.
        last(out, "threadCPUDelta", self.samples.iter().map(|s| s.weight / 1000))
    }

    fn write_markers(&self, out: &mut impl Write) -> io::Result<()> {
        open(out, "markers", self.markers.len())?;
        column(out, "category", self.markers.iter().map(|m| m.category as u8))?;
        write!(out, "\"data\":[")?;
        for (number, marker) in self.markers.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(out, "{comma}{{\"type\":\"{}\"", marker.kind)?;
            if let Some(stack) = marker.stack {
                write!(out, ",\"cause\":{{\"stack\":{stack}}}")?;
            }
            for (key, value) in &marker.fields {
                match value {
                    Value::Text(number) => write!(out, ",\"{key}\":{number}")?,
                    Value::Count(count) => write!(out, ",\"{key}\":{count}")?,
                    Value::Duration(ns) => write!(out, ",\"{key}\":{}", millis(*ns))?,
                }
            }
            write!(out, "}}")?;
        }
        write!(out, "],")?;
        column(out, "startTime", self.markers.iter().map(|m| millis(m.from)))?;
        column(out, "endTime", self.markers.iter().map(|m| millis(m.to)))?;
        column(out, "name", self.markers.iter().map(|m| m.name))?;
        // 1: an interval.
        last(out, "phase", self.markers.iter().map(|_| 1))
    }
}

fn open(out: &mut impl Write, name: &str, length: usize) -> io::Result<()> {
    write!(out, "\"{name}\":{{\"length\":{length},")
}

fn values<T: Serialize>(out: &mut impl Write, name: &str, values: impl Iterator<Item = T>) -> io::Result<()> {
    write!(out, "\"{name}\":[")?;
    for (number, value) in values.enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, &value)?;
    }
    out.write_all(b"]")
}

/// A column that others follow.
fn column<T: Serialize>(out: &mut impl Write, name: &str, column: impl Iterator<Item = T>) -> io::Result<()> {
    values(out, name, column)?;
    out.write_all(b",")
}

/// A table's last column.
fn last<T: Serialize>(out: &mut impl Write, name: &str, column: impl Iterator<Item = T>) -> io::Result<()> {
    values(out, name, column)?;
    out.write_all(b"},")
}
