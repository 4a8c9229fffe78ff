//! Chrome's trace JSON, for small windows: its readers hold the whole file in memory, and a slice takes some 150 bytes.
//!
//! The format is that of <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>. Times are
//! microseconds since the session began, with three digits behind the point, so none of a nanosecond's is lost.

use std::{collections::HashMap, io::Write};

use hud_common::{clean_name, session::Table};

use crate::{
    Error, Format, Options, Result, Rows, Summary,
    events::{Poll, Reader},
    names::Names,
    notes,
    out::Out,
};

/// Most events that a reader can handle.
const MOST: u64 = 500_000;
const TABLES: [Table; 7] =
    [Table::Coverage, Table::Drops, Table::Polls, Table::OffCpu, Table::Wakes, Table::Process, Table::Samples];

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    refuse_many(rows, options)?;
    let names = Names::read(rows, true)?;
    let mut reader = Reader::new(rows, options, &TABLES, progress)?;
    let streams = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes];
    let notes = notes::of(&mut reader, options.window, &streams)?;
    let manifest = rows.manifest();
    let mut json = Json {
        out: Out::new(out),
        names: &names,
        start: manifest.start,
        pid: manifest.pid,
        is_first: true,
        clipped: 0,
        summary: Summary { notes, ..Summary::default() },
    };
    json.head(rows)?;
    reader.polls(|poll| json.poll(poll))?;
    reader.off_cpu(|interval| {
        let name = string(interval.reason());
        let args = match interval.task {
            Some(task) => {
                format!("{{\"task\":{task},\"task_type\":{}}}", string(&names.task(names.type_of(interval.task, None))))
            }
            None => "{}".into(),
        };
        let category = if interval.is_asleep() { "asleep" } else { "run_queue" };
        json.clipped += u64::from(interval.span.is_clipped);
        json.slice(interval.span.from, interval.span.dur(), interval.tid, category, &name, &args)
    })?;
    reader.wakes(|wake| {
        let name = string(&format!("wake {}", names.task(names.type_of(Some(wake.task), None))));
        json.slice(wake.ts, 0, wake.waker, "wake", &name, &format!("{{\"task\":{}}}", wake.task))?;
        json.summary.slices -= 1;
        json.summary.instants += 1;
        json.flow("s", wake.ts, wake.waker, wake.task, wake.ts)
    })?;
    let mut before = manifest.start;
    reader.process(|ts, [user, system, rss, threads]| {
        let dur = ts.saturating_sub(before).max(1);
        json.counter(before, "CPU (percent)", &[("user", percent(user, dur)), ("system", percent(system, dur))])?;
        json.counter(ts, "resident memory (bytes)", &[("rss", rss)])?;
        json.counter(ts, "threads", &[("threads", threads)])?;
        before = ts;
        Ok(())
    })?;
    let mut nodes = Nodes::default();
    write!(json.out, "],\n\"samples\":[")?;
    json.is_first = true;
    reader.samples(|sample| {
        json.comma()?;
        json.summary.samples += 1;
        let at = json.micros(sample.ts);
        let (cpu, tid, weight) = (sample.cpu, sample.tid, sample.weight);
        write!(json.out, "{{\"cpu\":{cpu},\"tid\":{tid},\"ts\":{at},\"name\":\"cpu-clock\",\"weight\":{weight}")?;
        match nodes.of(&names, sample.stack) {
            Some(node) => write!(json.out, ",\"sf\":{node}}}")?,
            None => write!(json.out, "}}")?,
        }
        Ok(())
    })?;
    nodes.write(&names, &mut json.out)?;
    reader.finish();
    let Json { out, clipped, mut summary, .. } = json;
    if clipped > 0 {
        summary.notes.push(format!("{clipped} intervals are clipped to the time range"));
    }
    summary.bytes = out.finish()?;
    Ok(summary)
}

/// Counts before anything is written.
fn refuse_many(rows: &dyn Rows, options: &Options) -> Result<()> {
    let limit = options.limit.unwrap_or(MOST);
    let mut events = 0;
    let mut counter = Reader::new(rows, options, &[], &|_, _| {})?;
    let mut count = || {
        events += 1;
        let advice = "choose a smaller window, or the format `perfetto`, which has no such limit";
        (events <= limit).then_some(()).ok_or(Error::TooMany { format: Format::Chrome, events, limit, advice })
    };
    counter.polls(|_| count())?;
    counter.off_cpu(|_| count())?;
    counter.wakes(|_| count())?;
    counter.samples(|_| count())
}

/// A string of JSON.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn percent(cpu: i64, dur: i64) -> i64 {
    i64::try_from(i128::from(cpu) * 100 / i128::from(dur)).unwrap_or(0)
}

struct Json<'a, 'o> {
    out: Out<'o>,
    names: &'a Names,
    start: i64,
    pid: u32,
    is_first: bool,
    clipped: u64,
    summary: Summary,
}

impl Json<'_, '_> {
    fn comma(&mut self) -> Result<()> {
        let text: &[u8] = if std::mem::take(&mut self.is_first) { b"\n" } else { b",\n" };
        Ok(self.out.write_all(text)?)
    }

    fn micros(&self, ts: i64) -> String {
        micros(i128::from(ts) - i128::from(self.start))
    }

    fn head(&mut self, rows: &dyn Rows) -> Result<()> {
        let manifest = rows.manifest();
        let (id, host) = (string(&clean_name(&manifest.id)), string(&clean_name(&manifest.host)));
        let notes = serde_json::Value::from(self.summary.notes.clone());
        write!(
            self.out,
            "{{\"displayTimeUnit\":\"ns\",\n\"otherData\":{{\"session\":{id},\"host\":{host},\"start_ns\":\"{}\",\
             \"notes\":{notes}}},\n\"traceEvents\":[",
            self.start
        )?;
        let exe = clean_name(manifest.exe.rsplit('/').next().unwrap_or_default());
        self.metadata("process_name", self.pid.into(), &exe)?;
        let mut threads: Vec<i32> = self.names.threads.keys().copied().collect();
        threads.sort_unstable();
        threads.into_iter().try_for_each(|tid| self.metadata("thread_name", tid.into(), &self.names.thread(tid)))
    }

    fn metadata(&mut self, what: &str, tid: i64, name: &str) -> Result<()> {
        self.comma()?;
        let (pid, name) = (self.pid, string(name));
        let line =
            format!("{{\"ph\":\"M\",\"name\":\"{what}\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":{name}}}}}");
        Ok(self.out.write_all(line.as_bytes())?)
    }

    fn slice(&mut self, ts: i64, dur: i64, tid: i32, category: &str, name: &str, args: &str) -> Result<()> {
        self.comma()?;
        self.summary.slices += 1;
        let (ts, dur, pid) = (self.micros(ts), micros(dur.into()), self.pid);
        Ok(write!(
            self.out,
            "{{\"ph\":\"X\",\"cat\":\"{category}\",\"name\":{name},\"pid\":{pid},\"tid\":{tid},\"ts\":{ts},\"dur\":{dur},\
             \"args\":{args}}}"
        )?)
    }

    fn poll(&mut self, poll: &Poll) -> Result<()> {
        let name = string(&self.names.task(self.names.type_of(Some(poll.task), poll.type_id)));
        let args =
            format!("{{\"task\":{},\"blocked_ns\":{},\"run_queue_ns\":{}}}", poll.task, poll.blocked, poll.run_queue);
        self.clipped += u64::from(poll.span.is_clipped);
        self.slice(poll.span.from, poll.span.dur(), poll.tid, "poll", &name, &args)?;
        let Some(woken) = poll.woken else { return Ok(()) };
        self.summary.flows += 1;
        self.flow("f", poll.span.from, poll.tid, poll.task, woken)
    }

    /// One end of the arrow from a wake to its poll.
    fn flow(&mut self, phase: &str, ts: i64, tid: i32, task: i64, woken: i64) -> Result<()> {
        self.comma()?;
        let (ts, pid) = (self.micros(ts), self.pid);
        let bind = if phase == "f" { ",\"bp\":\"e\"" } else { "" };
        Ok(write!(
            self.out,
            "{{\"ph\":\"{phase}\",\"cat\":\"wake\",\"name\":\"wake\",\"id\":\"{task}:{woken}\",\"pid\":{pid},\"tid\":{tid},\
             \"ts\":{ts}{bind}}}"
        )?)
    }

    fn counter(&mut self, ts: i64, name: &str, values: &[(&str, i64)]) -> Result<()> {
        self.comma()?;
        self.summary.counters += values.len() as u64;
        let (ts, pid) = (self.micros(ts), self.pid);
        let values: Vec<String> = values.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let values = values.join(",");
        Ok(write!(self.out, "{{\"ph\":\"C\",\"name\":\"{name}\",\"pid\":{pid},\"ts\":{ts},\"args\":{{{values}}}}}")?)
    }
}

/// Microseconds, exact.
fn micros(ns: i128) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    format!("{sign}{}.{:03}", ns / 1000, ns % 1000)
}

/// Stacks as a tree of frames: common outer frames are written once.
#[derive(Default)]
struct Nodes {
    numbers: HashMap<(usize, u32), usize>,
    /// The parent, from 1, and the frame of each.
    all: Vec<(usize, u32)>,
    of_stack: HashMap<i64, Option<usize>>,
}

impl Nodes {
    /// The node of a stack's leaf.
    fn of(&mut self, names: &Names, stack: Option<i64>) -> Option<usize> {
        let id = stack?;
        if let Some(known) = self.of_stack.get(&id) {
            return *known;
        }
        let mut parent = 0;
        for frame in names.stack(stack).iter().rev() {
            let next = self.all.len() + 1;
            let number = *self.numbers.entry((parent, *frame)).or_insert(next);
            if number == next {
                self.all.push((parent, *frame));
            }
            parent = number;
        }
        let leaf = (parent > 0).then_some(parent);
        self.of_stack.insert(id, leaf);
        leaf
    }

    fn write(&self, names: &Names, out: &mut Out<'_>) -> Result<()> {
        write!(out, "],\n\"stackFrames\":{{")?;
        for (number, (parent, frame)) in (1..).zip(&self.all) {
            let comma = if number == 1 { "" } else { "," };
            let frame = names.frame(*frame);
            let name = string(frame.map_or("<unknown>", |frame| &frame.name));
            let category = string(names.module(frame.and_then(|f| f.module)).map_or("", |module| &module.path));
            write!(out, "{comma}\n\"{number}\":{{\"category\":{category},\"name\":{name}")?;
            if *parent > 0 {
                write!(out, ",\"parent\":{parent}")?;
            }
            write!(out, "}}")?;
        }
        Ok(writeln!(out, "}}}}")?)
    }
}
