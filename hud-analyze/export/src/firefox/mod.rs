//! A profile for the Firefox Profiler, in its processed format, version 55.
//!
//! The format is that of <https://github.com/firefox-devtools/profiler>, `src/types/profile.ts` and
//! `docs-developer/processed-profile-format.md`. The crate fxprof-processed-profile writes it too, but has no files,
//! lines and inlined functions (0.8 writes null for all of them): a test compares this writer's structure with it.
//!
//! Samples are weighted in milliseconds of CPU time. Long polls, and sleeps inside tasks, are markers with their
//! stacks.

mod libraries;
mod thread;
mod values;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use hud_common::{clean_name, session::Table};

use self::{
    libraries::Libraries,
    thread::{About, Thread, Value},
    values::{Category, millis, text},
};
use crate::{
    Error, Format, Options, Result, Rows, Summary,
    events::Reader,
    names::{Name, Names},
    notes,
    out::Out,
};

/// Most samples and markers that the profiler, which holds all of them in a browser's tab, can handle.
const MOST: u64 = 3_000_000;
/// Threads that are shown.
const MOST_THREADS: usize = 4096;

struct Profile<'a> {
    names: &'a Names,
    threads: BTreeMap<i32, Thread>,
    libraries: Libraries,
    start: i64,
    events: u64,
    limit: u64,
    threads_left_out: u64,
}

impl Profile<'_> {
    /// The thread, counting one more event.
    fn thread(&mut self, tid: i32) -> Result<Option<(&mut Thread, &mut Libraries)>> {
        self.events += 1;
        if self.events > self.limit {
            return Err(Error::TooMany {
                format: Format::Firefox,
                events: self.events,
                limit: self.limit,
                advice: "choose a smaller window, or the format `perfetto`, which has no such limit",
            });
        }
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&tid) {
            self.threads_left_out += 1;
            return Ok(None);
        }
        Ok(Some((self.threads.entry(tid).or_default(), &mut self.libraries)))
    }

    fn at(&self, ts: i64) -> i64 {
        ts.saturating_sub(self.start)
    }
}

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let names = Names::read(rows, true)?;
    let tables = [Table::Coverage, Table::Drops, Table::Samples, Table::Polls, Table::OffCpu, Table::Process];
    let mut reader = Reader::new(rows, options, &tables, progress)?;
    let streams = [Table::Samples, Table::Polls, Table::OffCpu];
    let mut summary = Summary { notes: notes::of(&mut reader, options.window, &streams)?, ..Summary::default() };
    let manifest = rows.manifest();
    let start = options.window.map_or(manifest.start, |(from, _)| from.max(manifest.start));
    let limit = options.limit.unwrap_or(MOST);
    let mut profile = Profile {
        names: &names,
        threads: BTreeMap::new(),
        libraries: Libraries::default(),
        start,
        events: 0,
        limit,
        threads_left_out: 0,
    };
    let mut end = start;
    reader.samples(|sample| {
        let at = profile.at(sample.ts);
        end = end.max(sample.ts);
        let Some((thread, libraries)) = profile.thread(sample.tid)? else { return Ok(()) };
        thread.sample(&names, libraries, at, sample.stack, sample.weight);
        summary.samples += 1;
        Ok(())
    })?;
    let (mut short, mut clipped) = (0_u64, 0_u64);
    reader.polls(|poll| {
        if poll.span.dur() < options.long_poll {
            short += 1;
            return Ok(());
        }
        let span = (profile.at(poll.span.from), profile.at(poll.span.to));
        end = end.max(poll.span.to);
        let Some((thread, libraries)) = profile.thread(poll.tid)? else { return Ok(()) };
        let task = names.task(names.type_of(Some(poll.task), poll.type_id));
        let fields = vec![
            ("taskType", Value::Text(thread.string(&task))),
            ("task", Value::Count(poll.task)),
            ("blocked", Value::Duration(poll.blocked)),
            ("runQueue", Value::Duration(poll.run_queue)),
        ];
        thread.marker(&names, libraries, span, "LongPoll", &"Long poll".into(), Category::Tokio, None, fields);
        (summary.slices, clipped) = (summary.slices + 1, clipped + u64::from(poll.span.is_clipped));
        Ok(())
    })?;
    let mut brief = 0_u64;
    reader.off_cpu(|interval| {
        let Some(task) = names.task_of(interval.task).filter(|_| interval.is_asleep()) else { return Ok(()) };
        if interval.span.dur() < options.asleep {
            brief += 1;
            return Ok(());
        }
        let span = (profile.at(interval.span.from), profile.at(interval.span.to));
        end = end.max(interval.span.to);
        let Some((thread, libraries)) = profile.thread(interval.tid)? else { return Ok(()) };
        let blamed = names.blamed(interval.stack).map_or_else(|| "<no stack>".into(), |f| Name::clone(&f.name));
        let fields = vec![
            ("function", Value::Text(thread.string(&blamed))),
            ("taskType", Value::Text(thread.string(&task.name))),
            ("task", Value::Count(interval.task.unwrap_or(0))),
            ("state", Value::Text(thread.string(&interval.reason().into()))),
            ("runQueue", Value::Duration(interval.run_queue.unwrap_or(0))),
        ];
        thread.marker(&names, libraries, span, "Blocked", &"Blocked".into(), Category::Own, interval.stack, fields);
        (summary.slices, clipped) = (summary.slices + 1, clipped + u64::from(interval.span.is_clipped));
        Ok(())
    })?;
    let mut memory: Vec<(i64, i64)> = Vec::new();
    reader.process(|ts, [_, _, rss, _]| {
        memory.push((profile.at(ts), rss));
        Ok(())
    })?;
    reader.finish();
    summary.counters = memory.len() as u64;
    for (count, what) in [
        (short, "polls are shorter than what becomes a marker"),
        (brief, "sleeps inside tasks are shorter than what becomes a marker"),
        (clipped, "markers are clipped at the window's edges"),
        (profile.threads_left_out, "events are of threads past the first 4096"),
    ] {
        if count > 0 {
            summary.notes.push(format!("{count} {what}"));
        }
    }
    let mut out = Out::new(out);
    put(&profile, rows, &memory, end, &mut out, &summary.notes)?;
    summary.bytes = out.finish()?;
    Ok(summary)
}

/// Writes the whole.
fn put(
    profile: &Profile<'_>,
    rows: &dyn Rows,
    memory: &[(i64, i64)],
    end: i64,
    out: &mut Out<'_>,
    notes: &[String],
) -> io::Result<()> {
    let manifest = rows.manifest();
    let exe = clean_name(manifest.exe.rsplit('/').next().unwrap_or_default());
    write!(out, "{{\"meta\":{{\"categories\":[")?;
    for (number, (name, color)) in Category::ALL.into_iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}{{\"name\":\"{name}\",\"color\":\"{color}\",\"subcategories\":[\"Other\"]}}")?;
    }
    let interval = if manifest.options.freq == 0 { 1.0 } else { 1000.0 / f64::from(manifest.options.freq) };
    let comment = serde_json::Value::from(notes.to_vec());
    write!(
        out,
        "],\"debug\":false,\"extensions\":{{\"length\":0,\"baseURL\":[],\"id\":[],\"name\":[]}},\"interval\":{interval},\
         \"preprocessedProfileVersion\":55,\"processType\":0,\"product\":{},\"oscpu\":{},\
         \"sampleUnits\":{{\"time\":\"ms\",\"eventDelay\":\"ms\",\"threadCPUDelta\":\"µs\"}},\"startTime\":{},\
         \"symbolicated\":true,\"pausedRanges\":[],\"version\":24,\"usesOnlyOneStackType\":true,\
         \"sourceCodeIsNotOnSearchfox\":true,\"importedFrom\":\"hud\",\"extra\":[{{\"label\":\"Not included\",\
         \"entries\":[{{\"label\":\"hud\",\"format\":\"list\",\"value\":{comment}}}]}}],\"markerSchema\":{}}},\"libs\":[",
        text(&exe),
        text(&clean_name(&format!("Linux {}", manifest.kernel))),
        millis(profile.start),
        serde_json::Value::from(schema()),
    )?;
    profile.libraries.write(profile.names, out)?;
    write!(out, "],\"threads\":[")?;
    // The profiler takes a process's first thread for the main one.
    let is_main = |tid: &i32| u32::try_from(*tid).is_ok_and(|tid| tid == manifest.pid);
    let (main, others): (Vec<_>, Vec<_>) = profile.threads.iter().partition(|(tid, _)| is_main(tid));
    for (number, (tid, thread)) in main.into_iter().chain(others).enumerate() {
        if number > 0 {
            write!(out, ",")?;
        }
        let name = profile.names.thread(*tid);
        let end = millis(profile.at(end));
        thread.write(out, &About { name: &name, tid: *tid, pid: manifest.pid, process: &exe, end })?;
    }
    write!(out, "],\"pages\":[],\"profilerOverhead\":[],\"counters\":[")?;
    if !memory.is_empty() && !profile.threads.is_empty() {
        write!(
            out,
            "{{\"category\":\"Memory\",\"name\":\"rss\",\"description\":\"Resident memory\",\"mainThreadIndex\":0,\
             \"pid\":\"{}\",\"samples\":{{\"length\":{},\"count\":",
            manifest.pid,
            memory.len()
        )?;
        // All columns are differences.
        let deltas = |of: fn(&(i64, i64)) -> i64| {
            let mut before = 0;
            memory
                .iter()
                .map(move |row| of(row).saturating_sub(std::mem::replace(&mut before, of(row))))
                .collect::<Vec<_>>()
        };
        serde_json::to_writer(&mut *out, &deltas(|(_, rss)| *rss))?;
        write!(out, ",\"number\":")?;
        serde_json::to_writer(&mut *out, &vec![0; memory.len()])?;
        write!(out, ",\"timeDeltas\":")?;
        serde_json::to_writer(&mut *out, &deltas(|(at, _)| *at).into_iter().map(millis).collect::<Vec<_>>())?;
        write!(out, "}}}}")?;
    }
    writeln!(out, "]}}")
}

/// The markers' fields.
fn schema() -> Vec<serde_json::Value> {
    let field = |key: &str, label: &str, format: &str| serde_json::json!({ "key": key, "label": label, "format": format, "searchable": format == "unique-string" });
    let (task_type, task) = (field("taskType", "Task type", "unique-string"), field("task", "Task", "integer"));
    let run_queue = field("runQueue", "Waiting for a CPU", "duration");
    let display = ["marker-chart", "marker-table", "timeline-overview"];
    vec![
        serde_json::json!({
            "name": "Blocked", "display": display, "chartLabel": "{marker.data.function}",
            "tooltipLabel": "Blocked in {marker.data.function}",
            "tableLabel": "{marker.data.taskType}: {marker.data.function}",
            "description": "A task kept its thread asleep.",
            "fields": [field("function", "In", "unique-string"), task_type, task,
                       field("state", "State", "unique-string"), run_queue],
        }),
        serde_json::json!({
            "name": "LongPoll", "display": display, "chartLabel": "{marker.data.taskType}",
            "tooltipLabel": "Long poll of {marker.data.taskType}", "tableLabel": "{marker.data.taskType}",
            "description": "A poll kept its worker from other tasks.",
            "fields": [task_type, task, field("blocked", "Asleep in it", "duration"), run_queue],
        }),
    ]
}
