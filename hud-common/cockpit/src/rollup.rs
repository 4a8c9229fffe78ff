//! Rollups: what a time range sums up to by names instead of ids, so that the sums of ranges, sessions and hosts add up.
//!
//! All values are saturating integers, counted by the end of an event as in [`Partial`](super::Partial). The tables
//! `rollup_*` of the session are their rows, a minute at a time ([`Minutes`](super::Minutes)).

use std::collections::HashSet;

use super::{
    Cause, Counts, Finding, Map, Merge, Name, Origin, Place, PollSums, Role, Sums, TaskKind, Tid, TypeId, Weight,
    blocking::{Held, place, short_rows},
    scene::Scene,
};

/// Maximum number of keys of each kind in a minute; further ones are counted as [`OTHERS`].
const MOST_KEYS: usize = 16_384;
/// The name of what has no row of its own.
pub(super) const OTHERS: &str = "<others>";
/// Maximum number of frames of a folded stack, from the leaf.
const MOST_FRAMES: usize = 128;
/// Maximum length of a folded stack (bytes); outer frames are left out.
const MOST_FOLDED: usize = 8 << 10;

/// Sums of a time range by names.
#[derive(Clone, Debug, Default)]
pub struct Rollup {
    /// Length of the ranges that were counted (ns).
    pub(super) observed: i64,
    pub(super) cpu: Map<(Place, OfType), CodeTime>,
    pub(super) stacks: Map<(Option<Box<str>>, Option<Name>), Weight>,
    pub(super) polls: Map<OfType, (PollSums, Counts)>,
    /// Of tasks only.
    pub(super) wakes: Map<Option<Name>, (PollSums, Counts)>,
    pub(super) blocking: Map<CulpritKey, Tally>,
    pub(super) workers: Map<WorkerKey, WorkerTime>,
    pub(super) findings: Map<FindingKey, Tally>,
    pub(super) process: Resources,
}

/// A type of task, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OfType {
    pub(super) name: Option<Name>,
    pub(super) kind: Option<TaskKind>,
}

/// CPU time of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CodeTime {
    pub(super) own: i64,
    pub(super) total: i64,
    pub(super) samples: i64,
}

/// What held workers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CulpritKey {
    pub(super) cause: Cause,
    pub(super) place: Place,
    pub(super) task_type: Option<Name>,
    pub(super) is_estimated: bool,
}

/// A worker, or the blocking pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WorkerKey {
    pub(super) role: Role,
    pub(super) runtime: Option<i64>,
    pub(super) worker: Option<i32>,
}

/// Its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkerTime {
    pub(super) cpu: i64,
    pub(super) blocked: i64,
    pub(super) run_queue: i64,
    pub(super) idle: i64,
    pub(super) polls: i64,
}

/// A finding, without its figures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FindingKey {
    pub(super) rule: &'static str,
    pub(super) severity: &'static str,
    pub(super) unit: &'static str,
    pub(super) code: Option<(Name, Option<Name>, Option<i32>)>,
    pub(super) task_type: Option<Name>,
}

/// A number of things, their sum, and the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: i64,
    pub(super) total: i64,
    pub(super) longest: i64,
}

/// Resources of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) user: i64,
    pub(super) sys: i64,
    pub(super) others: i64,
    pub(super) throttled: i64,
    pub(super) rss: Option<i64>,
    pub(super) threads: Option<i32>,
    pub(super) fds: Option<i32>,
    pub(super) recorder_cpu: i64,
    pub(super) probes: i64,
    pub(super) events: i64,
    pub(super) lost: i64,
}

impl Tally {
    fn of(count: i64, total: i64, longest: i64) -> Self {
        Tally { count, total, longest }
    }
}

macro_rules! merge {
    ($($name:ident { sum: [$($sum:ident),*], max: [$($max:ident),*] })+) => { $(
        impl Merge for $name {
            fn merge(&mut self, other: &Self) {
                $( self.$sum = self.$sum.saturating_add(other.$sum); )*
                $( self.$max = self.$max.max(other.$max); )*
            }
        }
    )+ };
}
merge! {
    CodeTime { sum: [own, total, samples], max: [] }
    WorkerTime { sum: [cpu, blocked, run_queue, idle, polls], max: [] }
    Tally { sum: [count, total], max: [longest] }
    Resources {
        sum: [user, sys, others, throttled, recorder_cpu, probes, events, lost],
        max: [rss, threads, fds]
    }
}

impl Merge for (PollSums, Counts) {
    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
        self.1.merge(&other.1);
    }
}

/// Adds to a key, or to `others` if there are too many keys.
fn add<K: Eq + core::hash::Hash, V: Merge + Default>(
    all: &mut Map<K, V>,
    key: K,
    value: &V,
    others: impl FnOnce(K) -> K,
) {
    let key = if all.len() >= MOST_KEYS && !all.contains_key(&key) { others(key) } else { key };
    all.entry(key).or_default().merge(value);
}

/// The place of what has no row of its own.
pub(super) fn other_place() -> Place {
    Place { function: OTHERS.into(), file: None, line: None, origin: Origin::Unknown }
}

impl Rollup {
    /// Adds the rollup of another range. Sums are exact, whatever the number of keys.
    pub(super) fn add(&mut self, other: Rollup) {
        self.observed = self.observed.saturating_add(other.observed);
        self.process.merge(&other.process);
        let other_type = || Some(Name::from(OTHERS));
        for (key, heat) in other.cpu {
            add(&mut self.cpu, key, &heat, |_| (other_place(), OfType::default()));
        }
        for (key, weight) in other.stacks {
            add(&mut self.stacks, key, &weight, |_| (None, None));
        }
        for (key, polls) in other.polls {
            add(&mut self.polls, key, &polls, |of| OfType { name: other_type(), ..of });
        }
        for (key, wakes) in other.wakes {
            add(&mut self.wakes, key, &wakes, |_| other_type());
        }
        for (key, sum) in other.blocking {
            add(&mut self.blocking, key, &sum, |of| CulpritKey { place: other_place(), task_type: None, ..of });
        }
        for (key, load) in other.workers {
            add(&mut self.workers, key, &load, |of| WorkerKey { runtime: None, worker: None, ..of });
        }
        for (key, sum) in other.findings {
            add(&mut self.findings, key, &sum, |of| FindingKey { code: None, task_type: None, ..of });
        }
    }
}

/// The rollup of a scene, whose blocking intervals and findings are known.
pub(super) fn of(scene: &mut Scene<'_>, ranges: &Sums, intervals: &[Held], findings: &[Finding]) -> Rollup {
    let mut rollup = Rollup { observed: scene.window.dur(), ..Rollup::default() };
    add_code(scene, ranges, &mut rollup);
    add_polls(scene, ranges, &mut rollup);
    add_blocking(scene, intervals, &mut rollup);
    add_workers(scene, ranges, &mut rollup);
    add_findings(scene, findings, &mut rollup);
    rollup.process = process(scene);
    rollup
}

fn type_of(scene: &Scene<'_>, id: Option<TypeId>) -> OfType {
    let known = id.and_then(|id| scene.names.types.get(&id));
    OfType { name: known.map(|of| of.name.clone()), kind: known.map(|of| of.kind) }
}

/// CPU time by function and by stack.
fn add_code(scene: &mut Scene<'_>, ranges: &Sums, rollup: &mut Rollup) {
    scene.names.prepare(ranges.stacks.keys().filter_map(|(stack, _)| *stack));
    let piles = super::hotspots::piles(scene, &ranges.stacks);
    let code = &scene.names.code;
    let attributed: HashSet<_> = piles.iter().map(|pile| code.spot(pile.blamed)).collect();
    for pile in &piles {
        let (of, Weight { samples, weight }) = (type_of(scene, pile.type_id), pile.weight);
        let heat = CodeTime { own: weight, total: weight, samples };
        rollup.cpu.entry((place(scene, pile.blamed), of.clone())).or_default().merge(&heat);
        let frames = code.walked(pile.stack).map(|walked| walked.frames.as_slice()).unwrap_or_default();
        let mut met = Vec::from([code.spot(pile.blamed)]);
        let mut folded: Vec<&str> = Vec::new();
        let mut length = 0_usize;
        for frame in frames {
            let Some(at) = code.place(*frame) else { continue };
            length = length.saturating_add(at.function.len() + 1);
            if folded.len() < MOST_FRAMES && length <= MOST_FOLDED {
                folded.push(&at.function);
            }
            let spot = code.spot(*frame);
            if !met.contains(&spot) {
                met.push(spot);
                if at.origin == Origin::Own || attributed.contains(&spot) {
                    let heat = CodeTime { total: weight, ..CodeTime::default() };
                    rollup.cpu.entry((at.clone(), of.clone())).or_default().merge(&heat);
                }
            }
        }
        folded.reverse();
        let folded = (!folded.is_empty()).then(|| folded.join(";").into_boxed_str());
        rollup.stacks.entry((folded, of.name)).or_default().merge(&pile.weight);
    }
}

fn add_polls(scene: &Scene<'_>, ranges: &Sums, rollup: &mut Rollup) {
    for ((_, type_id), sums) in &scene.total.polls {
        let of = type_of(scene, *type_id);
        if of.kind != Some(TaskKind::Worker) {
            rollup.polls.entry(of).or_default().0.merge(sums);
        }
    }
    for (type_id, counts) in &ranges.durations {
        let of = type_of(scene, *type_id);
        if of.kind != Some(TaskKind::Worker) {
            rollup.polls.entry(of).or_default().1.merge(counts);
        }
    }
    for (type_id, counts) in &scene.total.delays {
        let of = type_of(scene, *type_id);
        if of.kind.is_none_or(|kind| kind == TaskKind::Task) {
            rollup.wakes.entry(of.name).or_default().1.merge(counts);
        }
    }
    for ((_, type_id), sums) in &scene.total.polls {
        let of = type_of(scene, *type_id);
        if of.kind.is_none_or(|kind| kind == TaskKind::Task)
            && let Some((known, _)) = rollup.wakes.get_mut(&of.name)
        {
            known.merge(sums);
        }
    }
}

fn add_blocking(scene: &mut Scene<'_>, intervals: &[Held], rollup: &mut Rollup) {
    for held in intervals {
        let task_type = type_of(scene, held.type_id).name;
        let (cause, is_estimated) = (held.cause, held.is_estimated);
        let culprit = CulpritKey { cause, place: place(scene, held.blamed), task_type, is_estimated };
        rollup.blocking.entry(culprit).or_default().merge(&Tally::of(1, held.dur, held.dur));
    }
    for row in short_rows(scene) {
        let blamed = scene.names.attribute(row.stack, row.type_id);
        let culprit = CulpritKey {
            cause: Cause::ShortSleeps,
            place: place(scene, blamed),
            task_type: type_of(scene, row.type_id).name,
            is_estimated: row.short.summed > 0,
        };
        let sum = Tally::of(row.short.sleeps, row.short.asleep, row.short.longest);
        rollup.blocking.entry(culprit).or_default().merge(&sum);
    }
}

/// The time of workers and of the pool's threads, by the end of their off-CPU intervals.
fn add_workers(scene: &Scene<'_>, ranges: &Sums, rollup: &mut Rollup) {
    let seat = |tid: Tid| {
        let thread = scene.names.threads.get(&tid)?;
        match thread.role {
            Role::Worker => {
                Some(WorkerKey { role: Role::Worker, runtime: thread.runtime.map(|id| id.0), worker: thread.worker })
            }
            Role::Blocking => Some(WorkerKey { role: Role::Blocking, runtime: None, worker: None }),
            Role::Other => None,
        }
    };
    let mut add = |tid: Tid, load: WorkerTime| {
        if let Some(seat) = seat(tid) {
            rollup.workers.entry(seat).or_default().merge(&load);
        }
    };
    for ((tid, task), away) in &ranges.away_by_end {
        let (blocked, idle) = if scene.is_in_task(*tid, *task) { (away.asleep, 0) } else { (0, away.asleep) };
        add(*tid, WorkerTime { blocked, idle, run_queue: away.waiting, ..WorkerTime::default() });
    }
    for sleep in scene.parts.iter().flat_map(|(_, partial)| partial.sleeps.items()) {
        if scene.is_apart(sleep) {
            add(
                sleep.tid,
                WorkerTime { blocked: sleep.dur.saturating_neg(), idle: sleep.dur, ..WorkerTime::default() },
            );
        }
    }
    for ((tid, _), run) in &scene.total.runs {
        add(*tid, WorkerTime { cpu: run.weight, ..WorkerTime::default() });
    }
    for ((tid, type_id), polls) in &scene.total.polls {
        if scene.names.kind_of_type(*type_id) != TaskKind::Worker {
            add(*tid, WorkerTime { polls: polls.count, ..WorkerTime::default() });
        }
    }
}

fn add_findings(scene: &Scene<'_>, findings: &[Finding], rollup: &mut Rollup) {
    for finding in findings {
        let row = finding.row(scene.window, &scene.query.thresholds);
        let unit = match row.unit.as_ref() {
            "ns" => "ns",
            "thousandths" => "thousandths",
            _ => "count",
        };
        let name = |text: &hud_session::Text| Name::from(text.as_ref());
        let found = FindingKey {
            rule: finding.rule.name(),
            severity: if finding.severity == super::Status::Warning { "warning" } else { "caution" },
            unit,
            code: row.function.as_ref().map(|function| (name(function), row.file.as_ref().map(name), row.line)),
            task_type: row.type_id.and_then(|id| type_of(scene, Some(TypeId(id))).name),
        };
        let sum = rollup.findings.entry(found).or_default();
        // Findings of one rule and place, such as two workers in the same function, are one in a range.
        sum.merge(&Tally { count: i64::from(sum.count == 0), total: 0, longest: row.value });
    }
}

fn process(scene: &Scene<'_>) -> Resources {
    let total = scene.total;
    let usages = || scene.parts.iter().flat_map(|(_, partial)| partial.usages.items());
    Resources {
        user: total.process.user,
        sys: total.process.sys,
        others: total.process.others,
        throttled: total.process.throttled,
        rss: usages().map(|usage| usage.rss).max(),
        threads: usages().map(|usage| usage.threads).max(),
        fds: usages().filter_map(|usage| usage.fds).max(),
        recorder_cpu: total.overhead.cpu,
        probes: total.overhead.probes,
        events: total.overhead.events,
        lost: total.drops.values().fold(0, |sum, lost| sum.saturating_add(*lost)),
    }
}
