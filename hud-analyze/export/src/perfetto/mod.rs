//! A Perfetto trace: threads and tasks as tracks, wakes as flows, samples with their stacks, counters of the process.
//!
//! - Timestamps are the session's own: nanoseconds since the Unix epoch, on CLOCK_REALTIME as the trace's clock.
//! - A thread's track has its polls, named by the task's type, and the wakes and spawns that it made. Its off-CPU
//!   intervals have a track below: they touch polls at their edges, where the order of equal timestamps would decide
//!   the nesting.
//! - A flow is numbered by the task and the time of the wake. Both the wake and the poll contain these, so neither has
//!   to be looked up: tables are written one after the other, and only trace_processor sorts.
//! - Memory does not grow with the session: it holds names, the ends of each track's open slices, and the tasks with a
//!   track.

mod proto;
mod tracks;
mod writer;

use std::{collections::HashMap, io::Write};

use hud_common::session::Table;
use proto::{
    COUNTER, Clock, ClockSnapshot, INSTANT, MONOTONIC, PERF_CLOCK_REALTIME, PerfSample, PerfSampleDefaults, REALTIME,
    SLICE_BEGIN, SLICE_END, SW_CPU_CLOCK, Timebase, TracePacket, TracePacketDefaults, TrackEvent,
};
use tracks::{Counter, Tracks};
use writer::Trace;

use crate::{
    Options, Result, Rows, Summary,
    events::{OffCpu, Poll, Reader, Sample, Span},
    names::{Name, Names},
    notes,
    out::Out,
};

const TABLES: [Table; 10] = [
    Table::Spawns,
    Table::Polls,
    Table::Ends,
    Table::OffCpu,
    Table::Wakes,
    Table::Samples,
    Table::Process,
    Table::Coverage,
    Table::Coverage,
    Table::Drops,
];
/// CPUs whose time is added up.
const MOST_CPUS: usize = 4096;

/// A point in time as Perfetto has it.
fn stamp(ts: i64) -> Option<u64> {
    Some(u64::try_from(ts).unwrap_or(0))
}

fn event(ts: i64, event: TrackEvent) -> TracePacket {
    TracePacket { timestamp: stamp(ts), track_event: Some(event), ..TracePacket::default() }
}

/// The number of the flow from a wake to its poll.
fn flow(task: i64, woken: i64) -> u64 {
    tracks::mix(tracks::mix(0x666c_6f77, task.cast_unsigned()), woken.cast_unsigned())
}

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let names = Names::read(rows, true)?;
    let mut reader = Reader::new(rows, options, &TABLES, progress)?;
    let mut summary = Summary {
        notes: notes::of(&mut reader, options.window, &[Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes])?,
        ..Summary::default()
    };
    let trace = Trace::new(Out::new(out), &names);
    let mut export =
        Export { tracks: Tracks::new(rows.manifest(), options.task_tracks), trace, names: &names, clipped: 0, summary };
    export.head(rows)?;
    // On a task's track its life comes first and its end last, so that equal timestamps nest correctly.
    reader.spawns(|spawn| export.spawn(spawn))?;
    reader.polls(|poll| export.poll(poll))?;
    reader.ends(|ts, task, _| export.end(ts, task))?;
    reader.off_cpu(|interval| export.off_cpu(interval))?;
    reader.wakes(|wake| {
        let type_id = names.type_of(Some(wake.task), None);
        let mut annotations = vec![export.trace.integer("task", wake.task)];
        annotations.extend(wake.waker_task.map(|task| export.trace.integer("waker_task", task)));
        let name = format!("wake {}", names.task(type_id)).into();
        export.instant(wake.ts, wake.waker, "wake", &name, annotations, Some(flow(wake.task, wake.ts)))
    })?;
    let mut counted: HashMap<i32, u64> = HashMap::new();
    reader.samples(|sample| export.sample(sample, &mut counted, rows.manifest().pid))?;
    let mut before = rows.manifest().start;
    reader.process(|ts, values| {
        export.process(before, ts, values)?;
        before = ts;
        Ok(())
    })?;
    reader.coverage(|span, stream, reason| export.coverage(span, stream, reason))?;
    reader.finish();

    let Export { trace, tracks, clipped, .. } = export;
    summary = export.summary;
    summary.bytes = trace.finish()?;
    if clipped > 0 {
        summary.notes.push(format!("{clipped} intervals are clipped to the time range or to their parent"));
    }
    if tracks.tasks_left_out > 0 {
        summary.notes.push(format!("only the first {} tasks have a track of their own", options.task_tracks));
    }
    if names.tasks_left_out > 0 {
        summary.notes.push(format!("types are known of the first tasks alone, not of {} others", names.tasks_left_out));
    }
    Ok(summary)
}

struct Export<'a, 'o> {
    trace: Trace<'a, 'o>,
    names: &'a Names,
    tracks: Tracks,
    clipped: u64,
    summary: Summary,
}

impl Export<'_, '_> {
    fn head(&mut self, rows: &dyn Rows) -> Result<()> {
        let manifest = rows.manifest();
        let clock = |id, at: i64| Clock { clock_id: Some(id), timestamp: stamp(at) };
        let timebase = Timebase {
            frequency: Some(manifest.options.freq.into()),
            counter: Some(SW_CPU_CLOCK),
            name: Some("cpu-clock (ns)".into()),
            timestamp_clock: Some(PERF_CLOCK_REALTIME),
        };
        self.trace.send(TracePacket {
            timestamp: stamp(manifest.start),
            clock_snapshot: Some(ClockSnapshot {
                clocks: vec![clock(REALTIME, manifest.clock.real), clock(MONOTONIC, manifest.clock.mono)],
                primary_trace_clock: Some(REALTIME),
            }),
            trace_packet_defaults: Some(TracePacketDefaults {
                perf_sample_defaults: Some(PerfSampleDefaults { timebase: Some(timebase) }),
                ..TracePacketDefaults::default()
            }),
            ..TracePacket::default()
        })?;
        let described = self.tracks.process(manifest, &self.summary.notes);
        self.trace.send(described)?;
        // In the order of their ids: the same session gives the same bytes.
        let mut threads: Vec<i32> = self.names.threads.keys().copied().collect();
        threads.sort_unstable();
        threads.into_iter().try_for_each(|tid| self.thread(tid).map(drop))
    }

    fn thread(&mut self, tid: i32) -> Result<u64> {
        let (track, new) = self.tracks.thread(tid, &self.names.thread(tid));
        new.map_or(Ok(()), |packet| self.trace.send(packet))?;
        Ok(track)
    }

    /// A slice on a track. One that extends beyond its enclosing slice is cut at that slice's end: a track cannot show
    /// it otherwise.
    fn slice(&mut self, span: Span, begin: TrackEvent) -> Result<()> {
        let Some(track) = begin.track_uuid else { return Ok(()) };
        let end = self.tracks.open(track, span.from, span.to);
        self.clipped += u64::from(span.is_clipped || end < span.to);
        self.summary.slices += 1;
        self.trace.send(event(span.from, TrackEvent { r#type: Some(SLICE_BEGIN), ..begin }))?;
        let over = TrackEvent { r#type: Some(SLICE_END), track_uuid: Some(track), ..TrackEvent::default() };
        self.trace.send(event(end, over))
    }

    fn poll(&mut self, poll: &Poll) -> Result<()> {
        let track = self.thread(poll.tid)?;
        let type_id = self.names.type_of(Some(poll.task), poll.type_id);
        let (name, category) = (self.trace.name(&self.names.task(type_id)), self.trace.category("poll"));
        let mut annotations = vec![self.trace.integer("task", poll.task), self.trace.integer("cpu", poll.cpu.into())];
        if poll.blocked > 0 {
            annotations.push(self.trace.integer("blocked_ns", poll.blocked));
        }
        if poll.run_queue > 0 {
            annotations.push(self.trace.integer("run_queue_ns", poll.run_queue));
        }
        if poll.completed == Some(true) {
            annotations.push(self.trace.truth("completed", true));
        }
        let flows: Vec<u64> = poll.woken.map(|woken| flow(poll.task, woken)).into_iter().collect();
        self.summary.flows += flows.len() as u64;
        let begin = TrackEvent {
            name_iid: Some(name),
            category_iids: vec![category],
            track_uuid: Some(track),
            debug_annotations: annotations,
            terminating_flow_ids: flows,
            ..TrackEvent::default()
        };
        self.slice(poll.span, begin)?;
        let Some(track) = self.task(poll.task, type_id)? else { return Ok(()) };
        let (name, annotation) =
            (self.trace.name(&"poll".into()), self.trace.value("thread", &self.names.thread(poll.tid)));
        let begin = TrackEvent {
            name_iid: Some(name),
            category_iids: vec![category],
            track_uuid: Some(track),
            debug_annotations: vec![annotation],
            ..TrackEvent::default()
        };
        let counted = (self.clipped, self.summary.slices);
        self.slice(poll.span, begin)?;
        // It is the same poll.
        (self.clipped, self.summary.slices) = counted;
        Ok(())
    }

    /// A task's own track, if it has one.
    fn task(&mut self, task: i64, type_id: Option<i64>) -> Result<Option<u64>> {
        let names = self.names;
        let Some((track, new)) = self.tracks.task(task, || format!("{} #{task}", names.task(type_id))) else {
            return Ok(None);
        };
        new.into_iter().try_for_each(|packet| self.trace.send(packet))?;
        Ok(Some(track))
    }

    fn spawn(&mut self, spawn: &crate::events::Spawn) -> Result<()> {
        let type_id = self.names.type_of(Some(spawn.task), spawn.type_id);
        let task = self.names.task(type_id);
        let mut annotations = vec![self.trace.integer("task", spawn.task)];
        annotations.extend(spawn.parent.map(|parent| self.trace.integer("parent_task", parent)));
        self.instant(spawn.ts, spawn.tid, "spawn", &format!("spawn {task}").into(), annotations, None)?;
        let Some(track) = self.task(spawn.task, type_id)? else { return Ok(()) };
        if !self.tracks.begin_life(spawn.task) {
            return Ok(());
        }
        let begin = TrackEvent {
            r#type: Some(SLICE_BEGIN),
            name_iid: Some(self.trace.name(&task)),
            category_iids: vec![self.trace.category("task")],
            track_uuid: Some(track),
            ..TrackEvent::default()
        };
        self.trace.send(event(spawn.ts, begin))
    }

    fn end(&mut self, ts: i64, task: i64) -> Result<()> {
        let Some(track) = self.tracks.end_life(task) else { return Ok(()) };
        let over = TrackEvent { r#type: Some(SLICE_END), track_uuid: Some(track), ..TrackEvent::default() };
        self.trace.send(event(ts, over))
    }

    fn off_cpu(&mut self, interval: &OffCpu<'_>) -> Result<()> {
        let thread = self.thread(interval.tid)?;
        let (track, new) = self.tracks.off_cpu(interval.tid, thread);
        new.map_or(Ok(()), |packet| self.trace.send(packet))?;
        let names = self.names;
        // If a task kept its thread asleep, the lock or call; else the thread was waiting for work, or for a CPU.
        let blamed =
            names.blamed(interval.stack).filter(|_| interval.is_asleep() && names.task_of(interval.task).is_some());
        let name: Name = match blamed {
            Some(frame) => format!("{} in {}", interval.reason(), frame.name).into(),
            None => interval.reason().into(),
        };
        let mut annotations = vec![self.trace.integer("cpu", interval.cpu.into())];
        if let Some(task) = interval.task {
            annotations.push(self.trace.integer("task", task));
            annotations.push(self.trace.value("task_type", &names.task(names.type_of(Some(task), None))));
        }
        annotations.extend(interval.run_queue.map(|wait| self.trace.integer("run_queue_ns", wait)));
        annotations.extend(interval.waker.map(|tid| self.trace.integer("waker_tid", tid.into())));
        let category = match interval.is_asleep() {
            true if blamed.is_some() => "blocking",
            true => "asleep",
            false => "run_queue",
        };
        let begin = TrackEvent {
            name_iid: Some(self.trace.name(&name)),
            category_iids: vec![self.trace.category(category)],
            track_uuid: Some(track),
            debug_annotations: annotations,
            callstack_iid: self.trace.callstack(interval.stack),
            ..TrackEvent::default()
        };
        self.slice(interval.span, begin)
    }

    fn instant(
        &mut self,
        ts: i64,
        tid: i32,
        category: &'static str,
        name: &Name,
        debug_annotations: Vec<proto::DebugAnnotation>,
        flow: Option<u64>,
    ) -> Result<()> {
        let track = self.thread(tid)?;
        self.summary.instants += 1;
        let moment = TrackEvent {
            r#type: Some(INSTANT),
            name_iid: Some(self.trace.name(name)),
            category_iids: vec![self.trace.category(category)],
            track_uuid: Some(track),
            debug_annotations,
            flow_ids: flow.into_iter().collect(),
            ..TrackEvent::default()
        };
        self.trace.send(event(ts, moment))
    }

    fn sample(&mut self, sample: &Sample<'_>, counted: &mut HashMap<i32, u64>, pid: u32) -> Result<()> {
        self.thread(sample.tid)?;
        let is_kernel = self.names.stack(sample.stack).first().and_then(|frame| self.names.frame(*frame));
        let is_kernel = is_kernel.is_some_and(|frame| frame.origin == crate::names::Origin::Kernel);
        let count = (counted.len() < MOST_CPUS || counted.contains_key(&sample.cpu)).then(|| {
            let sum = counted.entry(sample.cpu).or_default();
            *sum = sum.saturating_add(u64::try_from(sample.weight).unwrap_or(0));
            *sum
        });
        self.summary.samples += 1;
        let callstack_iid = self.trace.callstack(sample.stack);
        self.trace.send(TracePacket {
            timestamp: stamp(sample.ts),
            perf_sample: Some(PerfSample {
                cpu: u32::try_from(sample.cpu).ok(),
                pid: Some(pid),
                tid: u32::try_from(sample.tid).ok(),
                callstack_iid,
                // `MODE_KERNEL`, `MODE_USER`.
                cpu_mode: Some(if is_kernel { 1 } else { 2 }),
                timebase_count: count,
                unwind_error: match sample.unwind {
                    "complete" => None,
                    // `UNWIND_ERROR_MAX_FRAMES_EXCEEDED`, `UNWIND_ERROR_UNWIND_INFO`.
                    "truncated" => Some(6),
                    _ => Some(3),
                },
            }),
            ..TracePacket::default()
        })
    }

    /// A row covers the second before it: it is shown where that began.
    fn process(&mut self, before: i64, ts: i64, [user, system, rss, threads]: [i64; 4]) -> Result<()> {
        for (counter, at, value) in [
            (Counter::User, before, share(user, ts.saturating_sub(before))),
            (Counter::System, before, share(system, ts.saturating_sub(before))),
            (Counter::Rss, ts, None),
            (Counter::Threads, ts, None),
        ] {
            let whole = if counter == Counter::Rss { rss } else { threads };
            let (track, new) = self.tracks.counter(counter);
            new.map_or(Ok(()), |packet| self.trace.send(packet))?;
            if value.is_none() && matches!(counter, Counter::User | Counter::System) {
                continue;
            }
            self.summary.counters += 1;
            let instant = TrackEvent {
                r#type: Some(COUNTER),
                track_uuid: Some(track),
                counter_value: value.is_none().then_some(whole),
                double_counter_value: value,
                ..TrackEvent::default()
            };
            self.trace.send(event(at, instant))?;
        }
        Ok(())
    }

    fn coverage(&mut self, span: Span, stream: &str, reason: &str) -> Result<()> {
        let Some((track, new)) = self.tracks.stream(stream) else { return Ok(()) };
        new.into_iter().try_for_each(|packet| self.trace.send(packet))?;
        let name = self.trace.name(&"watched".into());
        let reason = self.trace.text("reason", hud_common::clean_name(reason));
        let begin = TrackEvent {
            name_iid: Some(name),
            category_iids: vec![self.trace.category("coverage")],
            track_uuid: Some(track),
            debug_annotations: vec![reason],
            ..TrackEvent::default()
        };
        let clipped = self.clipped;
        self.slice(span, begin)?;
        self.clipped = clipped;
        Ok(())
    }
}

/// CPUs in use.
#[expect(clippy::cast_precision_loss, reason = "a share, to be drawn")]
fn share(cpu: i64, dur: i64) -> Option<f64> {
    (dur > 0).then(|| cpu as f64 / dur as f64)
}
