//! The tracks of a trace. A track is described once, before its first event.

use std::collections::{HashMap, HashSet};

use hud_common::{clean_name, session::Manifest};

use super::proto::{
    CounterDescriptor, ProcessDescriptor, ThreadDescriptor, TracePacket, TrackDescriptor, UNIT_COUNT, UNIT_SIZE_BYTES,
};

/// Slices that may be nested on a track.
const DEEPEST: usize = 64;
/// Threads, and streams of events, that get a track.
const MOST_THREADS: usize = 1 << 16;
const MOST_STREAMS: usize = 32;

/// A counter of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    User,
    System,
    Rss,
    Threads,
}

/// A number derived from two others, with collisions unlikely (the finalizer of `SplitMix64`).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // 0 is the global track.
    (z ^ (z >> 31)).max(1)
}

/// The tracks so far.
pub(super) struct Tracks {
    pid: i32,
    process: u64,
    threads: HashSet<i32>,
    off_cpu: HashSet<i32>,
    /// Whether its life is open, by task.
    tasks: HashMap<i64, bool>,
    most_tasks: usize,
    /// Number of occurrences of tasks without a track.
    pub(super) tasks_left_out: u64,
    counters: [bool; 4],
    streams: HashMap<String, u64>,
    /// Ends of the slices that are open on a track, the outermost first.
    open: HashMap<u64, Vec<i64>>,
}

fn described(descriptor: TrackDescriptor) -> TracePacket {
    TracePacket { track_descriptor: Some(Box::new(descriptor)), ..TracePacket::default() }
}

impl Tracks {
    pub(super) fn new(manifest: &Manifest, most_tasks: usize) -> Self {
        let pid = i32::try_from(manifest.pid).unwrap_or(0);
        Tracks {
            pid,
            process: mix(1, pid.unsigned_abs().into()),
            threads: HashSet::new(),
            off_cpu: HashSet::new(),
            tasks: HashMap::new(),
            most_tasks,
            tasks_left_out: 0,
            counters: [false; 4],
            streams: HashMap::new(),
            open: HashMap::new(),
        }
    }

    fn child(&self, uuid: u64, parent: u64, name: String) -> TrackDescriptor {
        TrackDescriptor { uuid: Some(uuid), parent_uuid: Some(parent), name: Some(name), ..TrackDescriptor::default() }
    }

    /// The process; its description lists the data that the trace lacks.
    pub(super) fn process(&self, manifest: &Manifest, notes: &[String]) -> TracePacket {
        let exe = clean_name(&manifest.exe);
        let name = exe.rsplit('/').next().unwrap_or_default().to_string();
        let process = ProcessDescriptor { pid: Some(self.pid), cmdline: vec![exe.clone()], process_name: Some(name) };
        let mut lines = vec![format!("hud session {} on {}", clean_name(&manifest.id), clean_name(&manifest.host))];
        lines.extend(notes.iter().cloned());
        described(TrackDescriptor {
            uuid: Some(self.process),
            process: Some(process),
            description: Some(lines.join("\n")),
            ..TrackDescriptor::default()
        })
    }

    /// A thread's track, and its description where it is new. Threads past the bound share the process's.
    pub(super) fn thread(&mut self, tid: i32, label: &str) -> (u64, Option<TracePacket>) {
        let uuid = mix(2, tid.cast_unsigned().into());
        if self.threads.contains(&tid) {
            return (uuid, None);
        }
        if self.threads.len() >= MOST_THREADS {
            return (self.process, None);
        }
        self.threads.insert(tid);
        let thread =
            ThreadDescriptor { pid: Some(self.pid), tid: Some(tid.into()), thread_name: Some(label.to_string()) };
        let described = described(TrackDescriptor {
            uuid: Some(uuid),
            parent_uuid: Some(self.process),
            thread: Some(thread),
            ..TrackDescriptor::default()
        });
        (uuid, Some(described))
    }

    /// The track of a thread's time off CPU.
    pub(super) fn off_cpu(&mut self, tid: i32, thread: u64) -> (u64, Option<TracePacket>) {
        let uuid = mix(3, tid.cast_unsigned().into());
        if self.off_cpu.contains(&tid) || self.off_cpu.len() >= MOST_THREADS {
            return (uuid, None);
        }
        self.off_cpu.insert(tid);
        (uuid, Some(described(self.child(uuid, thread, "off CPU".into()))))
    }

    /// A task's track, while there is room.
    pub(super) fn task(&mut self, task: i64, name: impl FnOnce() -> String) -> Option<(u64, Vec<TracePacket>)> {
        let (uuid, all) = (mix(4, task.cast_unsigned()), mix(5, 0));
        if self.tasks.contains_key(&task) {
            return Some((uuid, Vec::new()));
        }
        if self.tasks.len() >= self.most_tasks {
            self.tasks_left_out += 1;
            return None;
        }
        let mut new = Vec::new();
        if self.tasks.is_empty() {
            new.push(described(self.child(all, self.process, "tasks".into())));
        }
        self.tasks.insert(task, false);
        new.push(described(self.child(uuid, all, name())));
        Some((uuid, new))
    }

    /// Whether a task that has a track begins its life here; it has only one.
    pub(super) fn begin_life(&mut self, task: i64) -> bool {
        self.tasks.get_mut(&task).is_some_and(|is_open| !std::mem::replace(is_open, true))
    }

    /// The track of a task whose life is open.
    pub(super) fn end_life(&mut self, task: i64) -> Option<u64> {
        let is_open = self.tasks.get_mut(&task)?;
        std::mem::take(is_open).then(|| mix(4, task.cast_unsigned()))
    }

    pub(super) fn counter(&mut self, counter: Counter) -> (u64, Option<TracePacket>) {
        let (number, name, unit, unit_name) = match counter {
            Counter::User => (0, "CPU, user", UNIT_COUNT, Some("CPUs")),
            Counter::System => (1, "CPU, system", UNIT_COUNT, Some("CPUs")),
            Counter::Rss => (2, "resident memory", UNIT_SIZE_BYTES, None),
            Counter::Threads => (3, "threads", UNIT_COUNT, None),
        };
        let uuid = mix(6, number);
        let known = usize::try_from(number).ok().and_then(|number| self.counters.get_mut(number));
        if known.is_none_or(|known| std::mem::replace(known, true)) {
            return (uuid, None);
        }
        let counter = CounterDescriptor { unit: Some(unit), unit_name: unit_name.map(Into::into) };
        let track = TrackDescriptor { counter: Some(counter), ..self.child(uuid, self.process, name.into()) };
        (uuid, Some(described(track)))
    }

    /// The track that shows when a stream was observed.
    pub(super) fn stream(&mut self, stream: &str) -> Option<(u64, Vec<TracePacket>)> {
        if let Some(uuid) = self.streams.get(stream) {
            return Some((*uuid, Vec::new()));
        }
        if self.streams.len() >= MOST_STREAMS {
            return None;
        }
        let (uuid, all) = (mix(8, self.streams.len() as u64), mix(7, 0));
        let mut new = Vec::new();
        if self.streams.is_empty() {
            new.push(described(self.child(all, self.process, "hud: coverage".into())));
        }
        self.streams.insert(stream.into(), uuid);
        new.push(described(self.child(uuid, all, clean_name(stream))));
        Some((uuid, new))
    }

    /// Opens a slice on a track, on which slices come in the order of their starts. It ends at the latest with its
    /// enclosing slice.
    pub(super) fn open(&mut self, track: u64, from: i64, to: i64) -> i64 {
        let open = self.open.entry(track).or_default();
        while open.last().is_some_and(|end| *end <= from) {
            open.pop();
        }
        let end = open.last().map_or(to, |outer| to.min(*outer));
        if open.len() < DEEPEST {
            open.push(end);
        }
        end
    }
}
