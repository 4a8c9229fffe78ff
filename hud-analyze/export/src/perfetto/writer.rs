//! Packets of a trace on one sequence: interned data is sent with the packet that needs it first.
//!
//! Written packets are not kept. Memory is bounded by distinct values: names of types, threads and annotations, and the
//! stacks and frames sent so far.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

use prost::Message as _;

use super::proto::{
    Callstack, DebugAnnotation, Frame, InternedData, InternedName, InternedString, Mapping, NEEDS_STATE, REALTIME,
    STATE_CLEARED, TracePacket, TracePacketDefaults,
};
use crate::{
    Result,
    names::{Name, Names},
    out::Out,
};

/// The one sequence.
const SEQUENCE: u32 = 1;

/// Writes a trace.
pub(super) struct Trace<'a, 'o> {
    out: Out<'o>,
    names: &'a Names,
    buffer: Vec<u8>,
    is_first: bool,
    pending: InternedData,
    has_pending: bool,
    event_names: HashMap<Name, u64>,
    categories: HashMap<&'static str, u64>,
    annotations: HashMap<&'static str, u64>,
    values: HashMap<Name, u64>,
    functions: HashMap<Name, u64>,
    paths: HashMap<Name, u64>,
    stacks: HashMap<i64, u64>,
    frames: HashSet<u32>,
    modules: HashSet<u32>,
}

/// The number of a name: the next one, where it is new.
fn number<K: std::hash::Hash + Eq>(map: &mut HashMap<K, u64>, key: K) -> (u64, bool) {
    let next = map.len() as u64 + 1;
    let number = *map.entry(key).or_insert(next);
    (number, number == next)
}

impl<'a, 'o> Trace<'a, 'o> {
    pub(super) fn new(out: Out<'o>, names: &'a Names) -> Self {
        Trace {
            out,
            names,
            buffer: Vec::new(),
            is_first: true,
            pending: InternedData::default(),
            has_pending: false,
            event_names: HashMap::new(),
            categories: HashMap::new(),
            annotations: HashMap::new(),
            values: HashMap::new(),
            functions: HashMap::new(),
            paths: HashMap::new(),
            stacks: HashMap::new(),
            frames: HashSet::new(),
            modules: HashSet::new(),
        }
    }

    /// Sends a packet, with the data interned for it.
    pub(super) fn send(&mut self, mut packet: TracePacket) -> Result<()> {
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        packet.sequence_flags = Some(NEEDS_STATE);
        if std::mem::take(&mut self.is_first) {
            packet.sequence_flags = Some(STATE_CLEARED);
            packet.first_packet_on_sequence = Some(true);
            let defaults = packet.trace_packet_defaults.get_or_insert_default();
            *defaults = TracePacketDefaults { timestamp_clock_id: Some(REALTIME), ..defaults.clone() };
        }
        if std::mem::take(&mut self.has_pending) {
            packet.interned_data = Some(Box::new(std::mem::take(&mut self.pending)));
        }
        self.buffer.clear();
        // `Trace.packet`: tag 1, with its length.
        self.buffer.push(0x0a);
        prost::encoding::encode_varint(packet.encoded_len() as u64, &mut self.buffer);
        packet.encode_raw(&mut self.buffer);
        Ok(self.out.write_all(&self.buffer)?)
    }

    /// The total size.
    pub(super) fn finish(self) -> Result<u64> {
        Ok(self.out.finish()?)
    }

    /// The name of an event.
    pub(super) fn name(&mut self, name: &Name) -> u64 {
        let (iid, is_new) = number(&mut self.event_names, Name::clone(name));
        if is_new {
            self.has_pending = true;
            self.pending.event_names.push(InternedName { iid: Some(iid), name: Some(name.to_string()) });
        }
        iid
    }

    /// The category of an event.
    pub(super) fn category(&mut self, name: &'static str) -> u64 {
        let (iid, is_new) = number(&mut self.categories, name);
        if is_new {
            self.has_pending = true;
            self.pending.event_categories.push(InternedName { iid: Some(iid), name: Some(name.into()) });
        }
        iid
    }

    fn annotation(&mut self, name: &'static str) -> DebugAnnotation {
        let (iid, is_new) = number(&mut self.annotations, name);
        if is_new {
            self.has_pending = true;
            self.pending.debug_annotation_names.push(InternedName { iid: Some(iid), name: Some(name.into()) });
        }
        DebugAnnotation { name_iid: Some(iid), ..DebugAnnotation::default() }
    }

    pub(super) fn integer(&mut self, name: &'static str, value: i64) -> DebugAnnotation {
        DebugAnnotation { int_value: Some(value), ..self.annotation(name) }
    }

    pub(super) fn truth(&mut self, name: &'static str, value: bool) -> DebugAnnotation {
        DebugAnnotation { bool_value: Some(value), ..self.annotation(name) }
    }

    /// Text that is rarely repeated.
    pub(super) fn text(&mut self, name: &'static str, value: String) -> DebugAnnotation {
        DebugAnnotation { string_value: Some(value), ..self.annotation(name) }
    }

    /// Text that is often repeated.
    pub(super) fn value(&mut self, name: &'static str, value: &Name) -> DebugAnnotation {
        let (iid, is_new) = number(&mut self.values, Name::clone(value));
        if is_new {
            self.has_pending = true;
            self.pending.debug_annotation_string_values.push(string(iid, value.as_bytes()));
        }
        DebugAnnotation { string_value_iid: Some(iid), ..self.annotation(name) }
    }

    /// A stack; none if nothing is known of it.
    pub(super) fn callstack(&mut self, id: Option<i64>) -> Option<u64> {
        let frames = self.names.stack(id);
        let id = id.filter(|_| !frames.is_empty())?;
        let (iid, is_new) = number(&mut self.stacks, id);
        if is_new {
            frames.iter().for_each(|frame| self.frame(*frame));
            // Outermost first.
            let frame_ids = frames.iter().rev().map(|frame| u64::from(*frame) + 1).collect();
            self.has_pending = true;
            self.pending.callstacks.push(Callstack { iid: Some(iid), frame_ids });
        }
        Some(iid)
    }

    fn frame(&mut self, index: u32) {
        if !self.frames.insert(index) {
            return;
        }
        let names = self.names;
        let Some(frame) = names.frame(index) else { return };
        let (function, is_new) = number(&mut self.functions, Name::clone(&frame.name));
        if is_new {
            self.pending.function_names.push(string(function, frame.name.as_bytes()));
        }
        let path = frame.file.as_ref().map(|file| {
            let (path, is_new) = number(&mut self.paths, Name::clone(file));
            if is_new {
                self.pending.source_paths.push(string(path, file.as_bytes()));
            }
            path
        });
        if let Some((module, known)) = frame.module.and_then(|index| Some((index, names.module(Some(index))?)))
            && self.modules.insert(module)
        {
            let iid = u64::from(module) + 1;
            let build_id = known.build_id.as_deref().map(|id| {
                self.pending.build_ids.push(string(iid, &bytes(id)));
                iid
            });
            self.pending.mapping_paths.push(string(iid, known.path.as_bytes()));
            self.pending.mappings.push(Mapping { iid: Some(iid), build_id, path_string_ids: vec![iid] });
        }
        self.has_pending = true;
        self.pending.frames.push(Frame {
            iid: Some(u64::from(index) + 1),
            function_name_id: Some(function),
            mapping_id: frame.module.map(|index| u64::from(index) + 1),
            rel_pc: Some(frame.address),
            source_path_iid: path,
            line_number: frame.line,
        });
    }
}

fn string(iid: u64, text: &[u8]) -> InternedString {
    InternedString { iid: Some(iid), str: Some(text.to_vec()) }
}

/// The bytes of hexadecimal digits.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
