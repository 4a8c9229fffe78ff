//! A pprof profile: CPU samples and off-CPU time by stack, labelled with task type and thread.
//!
//! Each sample has four values, in the order of `sample_type`: samples, CPU time, off-CPU intervals, their time; those
//! of the other kind are 0. Addresses are file addresses, so every mapping begins at 0: its address in memory adds
//! nothing to names and build ids.

mod proto;

use std::{
    collections::HashMap,
    io::{self, Write},
};

use flate2::{Compression, write::GzEncoder};
use hud_common::{clean_name, session::Table};
use prost::Message;
use proto::{Function, Label, Line, Location, Mapping, Numbers, Sample, ValueType};

use crate::{
    Options, Result, Rows, Summary,
    events::Reader,
    names::{Frame, Name, Names},
    notes,
    out::Out,
    weigh::{self, Key, Weight},
};

/// Strings, each once; the first is the empty one.
#[derive(Default)]
struct Strings {
    all: Vec<Name>,
    known: HashMap<Name, i64>,
}

impl Strings {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let number = i64::try_from(self.all.len()).unwrap_or(0);
        let text: Name = text.into();
        self.all.push(Name::clone(&text));
        self.known.insert(text, number);
        number
    }
}

struct Profile<'a, W: Write> {
    out: W,
    buffer: Vec<u8>,
    names: &'a Names,
    strings: Strings,
    functions: HashMap<(Name, Option<Name>), u64>,
    /// By the frames at one address, the innermost first.
    locations: HashMap<Vec<u32>, u64>,
    /// A module, added when one of its frames is first used.
    modules: Vec<Option<Mapping>>,
}

impl<W: Write> Profile<'_, W> {
    fn put(&mut self, field: u32, message: &impl Message) -> io::Result<()> {
        self.buffer.clear();
        prost::encoding::message::encode(field, message, &mut self.buffer);
        self.out.write_all(&self.buffer)
    }

    fn value_type(&mut self, field: u32, (name, unit): (&str, &str)) -> io::Result<()> {
        let value = ValueType { r#type: self.strings.number(name), unit: self.strings.number(unit) };
        self.put(field, &value)
    }

    fn sample(&mut self, key: &Key, value: Vec<i64>) -> io::Result<()> {
        let mut label = Vec::with_capacity(4);
        let thread = self.names.thread(key.tid);
        let texts = [("task_type", key.task.as_deref()), ("thread", Some(&*thread)), ("off_cpu_state", key.reason)];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            label.push(Label { key: self.strings.number(name), str: self.strings.number(text), num: 0 });
        }
        label.push(Label { key: self.strings.number("tid"), str: 0, num: key.tid.into() });
        let names = self.names;
        let mut location_id = Vec::new();
        let mut rest = names.stack(key.stack);
        while !rest.is_empty() {
            let (here, further) = rest.split_at(at_one_address(names, rest));
            location_id.push(self.location(here)?);
            rest = further;
        }
        self.put(proto::SAMPLE, &Sample { location_id, value, label })
    }

    /// The location of frames at one address.
    fn location(&mut self, frames: &[u32]) -> io::Result<u64> {
        if let Some(known) = self.locations.get(frames) {
            return Ok(*known);
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(frames.to_vec(), id);
        let names = self.names;
        let known = || frames.iter().filter_map(|index| names.frame(*index));
        let mut line = Vec::with_capacity(frames.len());
        for frame in known() {
            line.push(Line { function_id: self.function(frame)?, line: frame.line.unwrap_or(0).into() });
        }
        let holder = known().next_back();
        let location = Location {
            id,
            mapping_id: self.mapping(known(), frames.len() > 1),
            address: holder.map_or(0, |frame| frame.address),
            line,
        };
        self.put(proto::LOCATION, &location)?;
        Ok(id)
    }

    fn function(&mut self, frame: &Frame) -> io::Result<u64> {
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((Name::clone(&frame.name), frame.file.clone())).or_insert(next);
        if id == next {
            let name = self.strings.number(&frame.name);
            let filename = frame.file.as_deref().map_or(0, |file| self.strings.number(file));
            self.put(proto::FUNCTION, &Function { id, name, system_name: name, filename })?;
        }
        Ok(id)
    }

    /// The mapping of these frames, extended to their address; 0 if there is none.
    fn mapping<'f>(&mut self, frames: impl Iterator<Item = &'f Frame>, has_inline: bool) -> u64 {
        let mut id = 0;
        for frame in frames {
            let Some(index) = frame.module else { continue };
            let Some(place) = self.modules.get_mut(index as usize) else { continue };
            id = u64::from(index) + 1;
            let mapping = place.get_or_insert(Mapping { id, has_functions: true, ..Mapping::default() });
            // To the end of its page.
            mapping.memory_limit = mapping.memory_limit.max((frame.address | 0xfff).saturating_add(1));
            mapping.has_functions &= frame.is_named;
            mapping.has_filenames |= frame.file.is_some();
            mapping.has_line_numbers |= frame.line.is_some();
            mapping.has_inline_frames |= has_inline;
        }
        id
    }

    /// The mappings, that of the program first, and all strings.
    fn finish(mut self, exe: &str) -> io::Result<W> {
        let names = self.names;
        let of_program = |index: usize| names.modules.get(index).is_some_and(|module| *module.path == *exe);
        let mut order: Vec<usize> = (0..self.modules.len()).collect();
        order.sort_by_key(|index| !of_program(*index));
        for index in order {
            let Some(Some(mapping)) = self.modules.get(index).copied() else { continue };
            let Some(module) = names.modules.get(index) else { continue };
            let filename = self.strings.number(&module.path);
            let build_id = module.build_id.as_deref().map_or(0, |id| self.strings.number(id));
            self.put(proto::MAPPING, &Mapping { filename, build_id, ..mapping })?;
        }
        for text in std::mem::take(&mut self.strings.all) {
            self.buffer.clear();
            prost::encoding::string::encode(proto::STRING_TABLE, &text.to_string(), &mut self.buffer);
            self.out.write_all(&self.buffer)?;
        }
        Ok(self.out)
    }
}

/// The number of these frames, from the first one, at its address: the inlined functions and their enclosing function.
fn at_one_address(names: &Names, frames: &[u32]) -> usize {
    let inlined_into = |pair: &[u32]| match pair {
        [inner, outer] => names.frame(*inner).zip(names.frame(*outer)).is_some_and(|(inner, outer)| {
            (inner.module, inner.address) == (outer.module, outer.address)
                && inner.inline_depth == outer.inline_depth.saturating_add(1)
        }),
        _ => false,
    };
    1 + frames.windows(2).take_while(|pair| inlined_into(pair)).count()
}

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let names = Names::read(rows, true)?;
    let tables = [Table::Coverage, Table::Drops, Table::Samples, Table::OffCpu];
    let mut reader = Reader::new(rows, options, &tables, progress)?;
    let mut notes = notes::of(&mut reader, options.window, &[Table::Samples, Table::OffCpu])?;
    let (on, samples) = weigh::cpu(&mut reader, &names)?;
    let (off, slices, clipped) = weigh::off_cpu(&mut reader, &names)?;
    if clipped > 0 {
        notes.push(format!("{clipped} intervals are clipped to the time range"));
    }

    let mut out = Out::new(out);
    let mut profile = Profile {
        out: GzEncoder::new(&mut out, Compression::fast()),
        buffer: Vec::new(),
        names: &names,
        strings: Strings::default(),
        functions: HashMap::new(),
        locations: HashMap::new(),
        modules: vec![None; names.modules.len()],
    };
    profile.strings.number("");
    let types =
        [("samples", "count"), ("cpu", "nanoseconds"), ("off_cpu_intervals", "count"), ("off_cpu", "nanoseconds")];
    types.into_iter().try_for_each(|value| profile.value_type(proto::SAMPLE_TYPE, value))?;
    profile.value_type(proto::PERIOD_TYPE, ("cpu", "nanoseconds"))?;
    let manifest = rows.manifest();
    let (from, to) = options.window.unwrap_or((manifest.start, manifest.end.unwrap_or(manifest.start)));
    let (from, to) = (from.max(manifest.start), to.min(manifest.end.unwrap_or(to)));
    let about = format!("hud session {} on {}", clean_name(&manifest.id), clean_name(&manifest.host));
    let comment = std::iter::once(&about).chain(&notes).map(|text| profile.strings.number(text)).collect();
    let numbers = Numbers {
        time_nanos: from,
        duration_nanos: to.saturating_sub(from).max(0),
        period: 1_000_000_000_i64.checked_div(manifest.options.freq.into()).unwrap_or(0),
        comment,
        default_sample_type: profile.strings.number("cpu"),
    };
    profile.buffer.clear();
    numbers.encode_raw(&mut profile.buffer);
    profile.out.write_all(&profile.buffer)?;

    let (on, off) = (on.sorted(), off.sorted());
    let entries = (on.len() + off.len()) as u64;
    for (key, Weight { count, ns }) in on {
        profile.sample(&key, vec![count, ns, 0, 0])?;
    }
    for (key, Weight { count, ns }) in off {
        profile.sample(&key, vec![0, 0, count, ns])?;
    }
    profile.finish(&clean_name(&manifest.exe))?.finish()?;
    reader.finish();
    let bytes = out.finish()?;
    Ok(Summary { samples, slices, entries, bytes, notes, ..Summary::default() })
}
