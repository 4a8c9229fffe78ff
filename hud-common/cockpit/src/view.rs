//! Builds a snapshot from the partials of a window. The larger lists have files of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    thread,
};

use hud_wire::Stream;

use super::{
    Bucket, Counts, Coverage, Distribution, Drops, Finding, Histogram, Load, LostEvents, Merge as _, Mode, Names,
    Overhead, Partial, ProcessFigures, Query, Role, SessionFacts, Snapshot, Status, StreamCoverage, Sums, TaskDetail,
    TaskKind, Tick, TypeId, Window,
    scene::{Polled, Scene, on},
};

/// The input of a snapshot.
#[derive(Debug)]
pub struct View<'a> {
    /// The query.
    pub query: &'a Query,
    /// The instant: that of the query, or now.
    pub at: i64,
    /// The partials, settled. Those outside of the window are ignored.
    pub partials: &'a BTreeMap<Bucket, Partial>,
    /// The sums of the window, if they are known already.
    pub total: Option<&'a Sums>,
    /// Names. They cache resolved stacks.
    pub names: &'a mut Names,
    /// The aggregates of the query's task.
    pub detail: Option<&'a TaskDetail>,
    /// The session.
    pub session: SessionFacts,
    /// Live or replay.
    pub mode: Mode,
    /// The greatest `ts + dur` of all of the session's `coverage`.
    pub coverage_until: Option<i64>,
    /// Start of the rows that were read; `None` if all were.
    pub read_from: Option<i64>,
}

/// The reason of an interval of coverage that goes on after its end, as in `hud_session`.
const STILL_ON: &str = "still on";

/// Number of tasks from which on two threads build a snapshot: for fewer, starting a thread costs as much as it saves.
const MANY_TASKS: usize = 4_096;

/// Runs both at the same time.
fn both<A, B: Send>(a: impl FnOnce() -> A, b: impl FnOnce() -> B + Send) -> (A, B) {
    thread::scope(|scope| {
        let b = scope.spawn(b);
        (a(), b.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

impl View<'_> {
    /// Only the findings: the same that a snapshot has, for a small part of its cost.
    pub fn findings(self) -> Vec<Finding> {
        self.judged(|_, _, findings| findings)
    }

    /// The findings, and the rollup of the window and of `ranges`, which end in it ([`Buckets::take_ranges`](super::Buckets::take_ranges)).
    #[cfg(feature = "session")]
    pub fn rollup(self, ranges: &Sums) -> (Vec<Finding>, super::Rollup) {
        self.judged(|scene, intervals, findings| {
            let rollup = super::rollup::of(scene, ranges, intervals, &findings);
            (findings, rollup)
        })
    }

    /// Evaluates the rules, and passes what they need on.
    fn judged<T>(self, then: impl FnOnce(&mut Scene<'_>, &[super::blocking::Held], Vec<Finding>) -> T) -> T {
        let (session, told, read_from) = (self.session.clone(), self.coverage_until, self.read_from);
        let is_live = matches!(self.mode, Mode::Live { .. });
        let mut merged = Sums::default();
        let mut scene = Scene::of(self, &mut merged);
        let coverage = coverage(&scene, (&session, is_live), told, read_from);
        let intervals = super::blocking::intervals(&mut scene);
        let workers = super::threads::workers(&scene);
        let findings = super::rules::findings(&mut scene, &intervals, &workers, &coverage);
        then(&mut scene, &intervals, findings)
    }
}

impl Snapshot {
    /// The snapshot of a view.
    pub fn of(view: View<'_>) -> Snapshot {
        let (detail, session, mode) = (view.detail, view.session.clone(), view.mode.clone());
        let (coverage_until, read_from) = (view.coverage_until, view.read_from);
        let mut merged = Sums::default();
        let mut scene = Scene::of(view, &mut merged);
        let (query, total, at, window) = (scene.query, scene.total, scene.at, scene.window);
        scene.names.prepare(total.stacks.keys().filter_map(|(stack, _)| *stack));
        scene.polled = super::threads::polled(&scene);

        let is_live = matches!(mode, Mode::Live { .. });
        let coverage = coverage(&scene, (&session, is_live), coverage_until, read_from);
        // The rules have rules of their own for polls in progress: the others see events only, as in `View::findings`.
        let mut intervals = super::blocking::intervals(&mut scene);
        let mut workers = super::threads::workers(&scene);
        let findings = super::rules::findings(&mut scene, &intervals, &workers, &coverage);
        if super::observed::add_to(&mut scene) {
            intervals.extend(super::observed::intervals(&mut scene));
            super::blocking::sort(&mut intervals);
            workers = super::threads::workers(&scene);
        }
        let piles = super::hotspots::piles(&mut scene, &total.stacks);
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
        let blocking = super::blocking::of(&mut scene, &intervals);
        let task = query.task.map(|id| super::tasks::page(&mut scene, id, detail, &intervals));
        let mut dials = super::Dials::of(&history);
        dials.set(super::Dial::PollTime, polls.p99);
        dials.set(super::Dial::WakeDelay, wake_delay.p99);
        Snapshot {
            dials,
            seconds: Vec::new(),
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
            waiting: super::Waiting::default(),
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
        names.prepare(parts.iter().flat_map(|(_, p)| p.in_progress.items()).filter_map(|p| p.stack));
        names.prepare(parts.iter().flat_map(|(_, p)| p.deadlocked.items()).filter_map(|d| d.stack));
        names.prepare(parts.iter().flat_map(|(_, p)| p.marks.items()).filter_map(|m| m.stack));
        names.prepare(parts.iter().flat_map(|(_, p)| p.sums.short.keys()).filter_map(|(_, _, stack)| *stack));
        let (threads, polled, in_place) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let progress = super::progress::Progress::default();
        let mut scene = Scene { query, at, window, parts, total, names, threads, polled, in_place, progress };
        scene.in_place = super::blocking::in_place(&scene);
        scene.threads = super::threads::seats(&scene);
        scene
    }
}

/// The coverage of the window from the start of the recording on: before it, nothing was off.
fn coverage(
    scene: &Scene<'_>,
    (session, is_live): (&SessionFacts, bool),
    known_until: Option<i64>,
    read_from: Option<i64>,
) -> Coverage {
    let (started, freq) = (session.start, session.freq);
    let window = scene.window;
    let start = window.start().max(started.min(window.end()));
    let whole = window.end().saturating_sub(start);
    let known_in_window = known_until.map_or(0, |end| end.min(window.end()).saturating_sub(start).max(0));
    let streams = Stream::ALL.into_iter().filter(|s| !matches!(s, Stream::Tasks | Stream::Threads)).map(|stream| {
        let on = scene.parts.iter().map(|(_, p)| on(&p.sums, stream)).fold(0, i64::saturating_add);
        let reason = scene.total.coverage.get(stream.name()).and_then(|on| on.reason.as_ref());
        // What goes on is reported at intervals, so time without a report is not known to be off. Probes are off in between.
        let goes_on = match reason {
            Some((_, reason)) => reason.as_str() == STILL_ON,
            None => !stream.is_probed() && is_live && !(stream == Stream::Samples && freq == 0),
        };
        let known = if goes_on { on.min(whole) } else { known_in_window.max(on.min(whole)) };
        StreamCoverage {
            stream: stream.name().into(),
            on,
            off: known.saturating_sub(on).max(0),
            unknown: whole.saturating_sub(known),
            rows: scene.rows(stream),
            reason: reason.map(|(_, reason)| reason.clone()),
        }
    });
    let mut streams: Vec<_> = streams.collect();
    streams.sort_by(|a, b| a.stream.cmp(&b.stream));
    let unread = read_from.map_or(0, |from| from.min(window.end()).saturating_sub(window.start()).max(0));
    Coverage { streams, known_until, unread }
}

impl Coverage {
    /// A stream's row.
    pub fn of(&self, stream: Stream) -> Option<&StreamCoverage> {
        self.streams.iter().find(|s| s.stream.as_str() == stream.name())
    }

    /// Whether a stream was recorded in a part of the window, by coverage or rows.
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
    let nothing = (Partial::default(), Polled::default());
    while bucket < scene.window.to && ticks.len() < super::MOST_TICKS {
        let found = parts.next_if(|((b, _), _)| *b == bucket);
        let (partial, polled) = found.map_or((&nothing.0, &nothing.1), |((_, partial), polled)| (*partial, polled));
        let mut tick = Tick {
            ts: bucket.start(),
            load: Load::default(),
            polls: polled.tasks.count,
            polls_recorded: on(&partial.sums, Stream::Polls),
            cpu: partial.sums.runs.values().fold(0, |sum: i64, run| sum.saturating_add(run.weight)),
            longest_poll: polled.tasks.longest,
            longest_block: 0,
            lost: partial.sums.drops.values().fold(0, |sum: i64, lost| sum.saturating_add(*lost)),
            status: Status::Normal,
        };
        // The longest is first.
        let sleep = partial.sleeps.items().iter().find(|s| scene.sleeps_on_worker(s));
        tick.longest_block = sleep.map_or(0, |s| s.dur);
        // The run-queue latency of a poll does not count.
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
        probes: (sums.without_probes < sums.rows).then_some(sums.probes),
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

#[cfg(all(test, feature = "session"))]
mod tests {
    #[test]
    fn knows_the_reason_of_intervals_that_go_on() {
        assert_eq!(super::STILL_ON, hud_session::STILL_ON);
    }
}
