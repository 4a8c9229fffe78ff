//! From the partials of a window to what a screen shows. What needs more than a few lines has a file of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    thread,
    vec::Vec,
};

use super::{
    Bucket, Counts, Coverage, Distribution, Drops, Finding, Histogram, Load, LostEvents, Merge as _, Mode, Name, Names,
    Overhead, Partial, ProcessFigures, Query, Role, SessionFacts, Snapshot, StackId, Status, StreamCoverage, Sums,
    TaskDetail, TaskId, TaskKind, TaskRef, Tick, Tid, TypeId, TypeRef, Window, partial::clipped,
};
use crate::wire::Stream;

/// What a snapshot is made of.
#[derive(Debug)]
pub struct View<'a> {
    /// What was asked for.
    pub query: &'a Query,
    /// The instant: that of the query, or now.
    pub at: i64,
    /// The partials, settled. Those outside of the window do not count.
    pub partials: &'a BTreeMap<Bucket, Partial>,
    /// The sums of the window, where they have been made already.
    pub total: Option<&'a Sums>,
    /// Names. What is worked out of them once is kept in them.
    pub names: &'a mut Names,
    /// What is gathered of the query's task.
    pub detail: Option<&'a TaskDetail>,
    /// What is being looked at.
    pub session: SessionFacts,
    /// Live or replay.
    pub mode: Mode,
    /// The greatest `ts + dur` of all of the session's `coverage`.
    pub coverage_told: Option<i64>,
    /// From when on rows were read; `None` where all were.
    pub read_from: Option<i64>,
}

/// What the parts of a snapshot are made of.
pub(super) struct Scene<'a> {
    pub(super) query: &'a Query,
    pub(super) at: i64,
    pub(super) window: Window,
    pub(super) parts: Vec<(Bucket, &'a Partial)>,
    pub(super) total: &'a Sums,
    pub(super) names: &'a mut Names,
    /// What each thread did, where it was seen in the window.
    pub(super) threads: BTreeMap<Tid, super::threads::Seat>,
    /// What was polled, by bucket, as in `parts`.
    pub(super) polled: Vec<super::threads::Polled>,
    /// When threads were seen inside `block_in_place`: in a sample, or falling asleep.
    pub(super) in_place: BTreeSet<(Tid, i64)>,
}

/// From so many tasks on, a frame is made by two threads: for fewer, a thread takes as long to begin as it saves.
const MANY_TASKS: usize = 4_096;

/// Does both at the same time.
fn both<A, B: Send>(a: impl FnOnce() -> A, b: impl FnOnce() -> B + Send) -> (A, B) {
    thread::scope(|scope| {
        let b = scope.spawn(b);
        (a(), b.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

impl View<'_> {
    /// Only the findings: the same that a snapshot has, for a small part of its cost.
    pub fn findings(self) -> Vec<Finding> {
        let (told, read_from) = (self.coverage_told, self.read_from);
        let mut merged = Sums::default();
        let mut scene = Scene::of(self, &mut merged);
        let coverage = coverage(&scene, told, read_from);
        let intervals = super::blocking::stretches(&mut scene);
        let workers = super::threads::workers(&scene);
        super::rules::findings(&mut scene, &intervals, &workers, &coverage)
    }
}

impl Snapshot {
    /// Everything that one screen shows.
    pub fn of(view: View<'_>) -> Snapshot {
        let (detail, session, mode) = (view.detail, view.session.clone(), view.mode.clone());
        let (coverage_told, read_from) = (view.coverage_told, view.read_from);
        let mut merged = Sums::default();
        let mut scene = Scene::of(view, &mut merged);
        let (query, total, at, window) = (scene.query, scene.total, scene.at, scene.window);
        scene.names.prepare(total.stacks.keys().filter_map(|(stack, _)| *stack));
        scene.polled = super::threads::polled(&scene);

        let coverage = coverage(&scene, coverage_told, read_from);
        let piles = super::hotspots::piles(&mut scene);
        let of_code = || super::hotspots::of(&scene, &piles);
        let of_tasks = || {
            (
                super::tasks::of(&scene, &coverage),
                distributions(&scene),
                super::threads::timeline(&scene),
                history(&scene),
            )
        };
        let is_large = total.tasks.len() >= MANY_TASKS;
        let ((hotspots, flame), ((tasks, types), (polls, wake_delay), timeline, history)) = match is_large {
            true => both(of_code, of_tasks),
            false => (of_code(), of_tasks()),
        };
        let stretches = super::blocking::stretches(&mut scene);
        let blocking = super::blocking::of(&mut scene, &stretches);
        let workers = super::threads::workers(&scene);
        let task = query.task.map(|id| super::tasks::page(&mut scene, id, detail, &stretches));
        let findings = super::rules::findings(&mut scene, &stretches, &workers, &coverage);
        Snapshot {
            status: findings.iter().map(|f| f.severity).max().unwrap_or(Status::Normal),
            timeline,
            history,
            drops: drops(total),
            overhead: overhead(total),
            process: process(total),
            session,
            mode,
            window,
            at,
            findings,
            hotspots,
            workers,
            blocking,
            tasks,
            types,
            task,
            flame,
            polls,
            wake_delay,
            coverage,
        }
    }
}

impl<'a> Scene<'a> {
    /// The scene of a view, without `polled`. `merged` takes the sums of the window, if the view does not have them.
    fn of(view: View<'a>, merged: &'a mut Sums) -> Self {
        let View { query, at, partials, total, names, .. } = view;
        let window = Window::ending(at, query.window);
        let parts: Vec<(Bucket, &Partial)> = partials.range(window.from..window.to).map(|(b, p)| (*b, p)).collect();
        let total = total.unwrap_or_else(|| {
            parts.iter().for_each(|(_, partial)| merged.merge(&partial.sums));
            merged
        });
        names.prepare(parts.iter().flat_map(|(_, p)| p.sleeps.items()).filter_map(|s| s.stack));
        names.prepare(parts.iter().flat_map(|(_, p)| p.marks.items()).filter_map(|m| m.stack));
        names.prepare(parts.iter().flat_map(|(_, p)| p.sums.short.keys()).filter_map(|(_, _, stack)| *stack));
        let (threads, polled, in_place) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let mut scene = Scene { query, at, window, parts, total, names, threads, polled, in_place };
        scene.in_place = super::blocking::in_place(&scene);
        scene.threads = super::threads::seats(&scene);
        scene
    }
}

impl Scene<'_> {
    pub(super) fn type_ref(&self, id: Option<TypeId>) -> Option<TypeRef> {
        let id = id?;
        let name = self.names.types.get(&id).map_or_else(|| Name::from("<unknown>"), |t| t.name.clone());
        Some(TypeRef { id, name })
    }

    pub(super) fn task_ref(&self, id: TaskId) -> TaskRef {
        TaskRef { id, task_type: self.type_ref(self.names.type_of.get(&id).copied()) }
    }

    /// Whether it is neither the loop of a worker nor work of the blocking pool.
    pub(super) fn is_task(&self, id: TaskId) -> bool {
        self.names.kind(id) == TaskKind::Task
    }

    /// Whether a stretch of a task of this type, up to `end`, kept a worker from other tasks, and the thread had not handed
    /// its core over for `block_in_place`. What has no known type may be a worker's idle loop, or work of the pool: it counts
    /// on a worker's thread only, and where it `is_code`, own code or a recorded poll.
    pub(super) fn keeps_worker(&self, tid: Tid, type_id: Option<TypeId>, end: i64, is_code: bool) -> bool {
        let kind = type_id.and_then(|id| self.names.types.get(&id)).map(|t| t.kind);
        let is_task = kind.map_or_else(|| is_code && self.names.was_worker(tid), |kind| kind == TaskKind::Task);
        is_task && !self.names.is_handed(tid, end.min(self.window.end().saturating_sub(1)))
    }

    /// Whether the task on top of a stack has called `block_in_place`.
    pub(super) fn is_in_place(&self, stack: Option<StackId>) -> bool {
        self.names.code.walked(stack).is_some_and(|walked| walked.is_in_place)
    }

    /// Whether own code is on a stack.
    pub(super) fn is_own(&self, stack: Option<StackId>) -> bool {
        self.names.code.walked(stack).is_some_and(|walked| walked.is_own)
    }

    pub(super) fn role(&self, tid: Tid) -> Role {
        self.names.threads.get(&tid).map_or(Role::Other, |t| t.role)
    }

    /// Rows of a stream in the window.
    pub(super) fn rows(&self, stream: Stream) -> i64 {
        rows(self.total, stream)
    }
}

pub(super) fn rows(sums: &Sums, stream: Stream) -> i64 {
    sums.rows.get(stream as usize).copied().unwrap_or(0)
}

/// How long a stream was known to be on in a bucket.
pub(super) fn on(sums: &Sums, stream: Stream) -> i64 {
    sums.coverage.get(stream.name()).map_or(0, |on| on.on.min(Bucket::NANOS))
}

fn coverage(scene: &Scene<'_>, told: Option<i64>, read_from: Option<i64>) -> Coverage {
    let window = scene.window;
    let told_in_window = told.map_or(0, |told| told.min(window.end()).saturating_sub(window.start()).max(0));
    let streams = Stream::ALL.into_iter().filter(|s| !matches!(s, Stream::Tasks | Stream::Threads)).map(|stream| {
        let on = scene.parts.iter().map(|(_, p)| on(&p.sums, stream)).fold(0, i64::saturating_add);
        let known = told_in_window.max(on.min(window.dur()));
        let reason = scene.total.coverage.get(stream.name()).and_then(|on| on.reason.as_ref());
        StreamCoverage {
            stream: stream.name().into(),
            on,
            off: known.saturating_sub(on),
            untold: window.dur().saturating_sub(known),
            rows: scene.rows(stream),
            reason: reason.map(|(_, reason)| reason.clone()),
        }
    });
    let mut streams: Vec<_> = streams.collect();
    streams.sort_by(|a, b| a.stream.cmp(&b.stream));
    let unread = read_from.map_or(0, |from| from.min(window.end()).saturating_sub(window.start()).max(0));
    Coverage { streams, told_until: told, unread }
}

impl Coverage {
    /// A stream's row.
    pub fn of(&self, stream: Stream) -> Option<&StreamCoverage> {
        self.streams.iter().find(|s| s.stream.as_str() == stream.name())
    }

    /// Whether a stream was watched in some of the window, as told or as its rows show.
    pub fn was_on(&self, stream: Stream) -> bool {
        self.of(stream).is_some_and(|s| s.on > 0 || s.rows > 0)
    }
}

fn distributions(scene: &Scene<'_>) -> (Distribution, Distribution) {
    let is_task = |id: &Option<TypeId>| scene.names.kind_of_type(*id) == TaskKind::Task;
    let histogram = |counts: &super::Map<Option<TypeId>, Counts>| {
        let mut all = Counts::default();
        counts.iter().filter(|(id, _)| is_task(id)).for_each(|(_, counts)| all.merge(counts));
        Histogram::from(&all)
    };
    let mut sums = super::PollSums::default();
    scene.total.polls.iter().filter(|((_, id), _)| is_task(id)).for_each(|(_, polls)| sums.merge(polls));
    (
        Distribution::of(histogram(&scene.total.durations), sums.dur, sums.longest),
        Distribution::of(histogram(&scene.total.delays), sums.delay, sums.delay_longest),
    )
}

fn history(scene: &Scene<'_>) -> Vec<Tick> {
    let (mut ticks, mut parts) = (Vec::new(), scene.parts.iter().zip(&scene.polled).peekable());
    let mut bucket = scene.window.from;
    let nothing = (Partial::default(), super::threads::Polled::default());
    while bucket < scene.window.to && ticks.len() < super::MOST_TICKS {
        let found = parts.next_if(|((b, _), _)| *b == bucket);
        let (partial, polled) = found.map_or((&nothing.0, &nothing.1), |((_, partial), polled)| (*partial, polled));
        let mut tick = Tick {
            ts: bucket.start(),
            load: Load::default(),
            polls: polled.tasks.count,
            cpu: partial.sums.runs.values().fold(0, |sum: i64, run| sum.saturating_add(run.weight)),
            longest_poll: polled.tasks.longest,
            longest_block: 0,
            lost: partial.sums.drops.values().fold(0, |sum: i64, lost| sum.saturating_add(*lost)),
            status: Status::Normal,
        };
        // They come longest first.
        let sleep = partial.sleeps.items().iter().find(|s| scene.sleeps_on_worker(s));
        tick.longest_block = sleep.map_or(0, |s| s.dur);
        // A poll is no worse for the time that it waited for a CPU.
        let held = partial.long_polls.items().iter().filter(|p| scene.polls_on_worker(p)).map(|p| p.held).max();
        let worst = held.unwrap_or(0).max(tick.longest_block);
        tick.status = match worst {
            w if w > scene.query.thresholds.very_long_poll => Status::Warning,
            w if w > scene.query.thresholds.long_poll => Status::Caution,
            _ => Status::Normal,
        };
        for (tid, seat) in &scene.threads {
            if scene.role(*tid) == Role::Worker {
                tick.load.add(&seat.step(bucket));
            }
        }
        ticks.push(tick);
        bucket = bucket.next();
    }
    ticks
}

impl Load {
    pub(super) fn add(&mut self, other: &Load) {
        self.running = self.running.saturating_add(other.running);
        self.blocked = self.blocked.saturating_add(other.blocked);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.idle = self.idle.saturating_add(other.idle);
    }

    /// Of a thread that was observed in `[first, last)` of a bucket, or of many: what is not told is running.
    pub(super) fn within(observed: i64, blocked: i64, waiting: i64, idle: i64) -> Load {
        let away = blocked.saturating_add(waiting).saturating_add(idle);
        Load { running: observed.saturating_sub(away).max(0), blocked, waiting, idle }
    }
}

fn drops(total: &Sums) -> Drops {
    let mut by_stage: Vec<_> = total
        .drops
        .iter()
        .map(|((stream, stage), lost)| LostEvents { stream: stream.clone(), stage: stage.clone(), lost: *lost })
        .collect();
    by_stage.sort_by(|a, b| (&a.stream, &a.stage).cmp(&(&b.stream, &b.stage)));
    Drops { lost: by_stage.iter().fold(0, |sum, l| sum.saturating_add(l.lost)), by_stage }
}

fn overhead(total: &Sums) -> Option<Overhead> {
    let sums = &total.overhead;
    let (_, recorder_rss) = sums.rss?;
    Some(Overhead {
        rows: sums.rows,
        probes: (sums.untold < sums.rows).then_some(sums.probes),
        recorder_cpu: sums.cpu,
        recorder_rss,
        ring_bytes: sums.bytes,
        events: sums.events,
    })
}

fn process(total: &Sums) -> Option<ProcessFigures> {
    let sums = &total.process;
    let (_, rss, threads, fds) = sums.last?;
    Some(ProcessFigures { rows: sums.rows, cpu_user: sums.user, cpu_sys: sums.sys, rss, threads, fds })
}

/// The part of `[first, last)` that lies in a bucket.
pub(super) fn observed(bucket: Bucket, first: i64, last: i64) -> i64 {
    clipped(bucket, first, last)
}
