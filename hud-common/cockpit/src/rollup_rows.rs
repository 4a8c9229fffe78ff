//! Rollups as rows of the session's tables `rollup_*`, a minute at a time.
//!
//! A minute has a limited number of rows of each kind, the heaviest, and one for the rest: a recorded minute takes a few
//! kilobytes whatever the program does.

use core::cmp::Reverse;

use arrow::array::RecordBatch;
use hud_session::{
    Columns, RollupBlockingColumns, RollupBlockingRow, RollupCpuColumns, RollupCpuRow, RollupFindingColumns,
    RollupFindingRow, RollupPollColumns, RollupPollRow, RollupProcessColumns, RollupProcessRow, RollupStackColumns,
    RollupStackRow, RollupWakeColumns, RollupWakeRow, RollupWorkerColumns, RollupWorkerRow, Table, Text,
};

use super::{
    Cause, Counts, Histogram, Map, Merge, Name, Origin, Role, Rollup, TaskKind, Window,
    rollup::{CulpritKey, OTHERS, OfType, WorkerKey, other_place},
};

/// The length of a minute (ns).
pub const MINUTE: i64 = 60_000_000_000;

/// Maximum number of rows of a minute, by table.
const MOST_CPU: usize = 256;
const MOST_STACKS: usize = 20;
const MOST_TYPES: usize = 64;
const MOST_CULPRITS: usize = 128;
const MOST_WORKERS: usize = 256;
const MOST_FINDINGS: usize = 128;

/// Adds up ranges, in order, and gives the rows of each complete minute.
#[derive(Default)]
pub struct Minutes {
    /// Number of the current minute since the epoch, and its sums.
    current: Option<(i64, Rollup)>,
    rows: Rows,
}

/// The rows of complete minutes.
#[derive(Default)]
struct Rows {
    cpu: RollupCpuColumns,
    stacks: RollupStackColumns,
    polls: RollupPollColumns,
    wakes: RollupWakeColumns,
    blocking: RollupBlockingColumns,
    workers: RollupWorkerColumns,
    findings: RollupFindingColumns,
    process: RollupProcessColumns,
}

impl Minutes {
    /// Adds the rollup of a range that lies within one minute. Ranges of an earlier minute than the current one are
    /// counted in the current one.
    pub fn add(&mut self, range: Window, rollup: Rollup) {
        let minute = range.start().div_euclid(MINUTE);
        if self.current.as_ref().is_some_and(|(current, _)| *current < minute) {
            self.close();
        }
        let (_, sums) = self.current.get_or_insert_with(|| (minute, Rollup::default()));
        sums.add(rollup);
    }

    /// Completes the current minute.
    pub fn close(&mut self) {
        if let Some((minute, sums)) = self.current.take() {
            self.rows.add(minute.saturating_mul(MINUTE), &sums);
        }
    }

    /// The rows of minutes that were completed since the last call, by table.
    pub fn take(&mut self) -> Vec<(Table, RecordBatch)> {
        fn batch<C: Columns>(columns: &mut C) -> Option<(Table, RecordBatch)> {
            (!columns.is_empty()).then(|| (C::TABLE, columns.finish()))
        }
        let Rows { cpu, stacks, polls, wakes, blocking, workers, findings, process } = &mut self.rows;
        let tables = [
            batch(cpu),
            batch(stacks),
            batch(polls),
            batch(wakes),
            batch(blocking),
            batch(workers),
            batch(findings),
            batch(process),
        ];
        tables.into_iter().flatten().collect()
    }
}

/// The heaviest entries, and the sum of all others, by the key that `others` gives for each.
fn heaviest<K: Clone + Ord + core::hash::Hash, V: Clone + Merge + Default>(
    all: &Map<K, V>,
    most: usize,
    weight: impl Fn(&V) -> i64,
    others: impl Fn(&K) -> K,
) -> Vec<(K, V)> {
    let mut rows: Vec<(&K, &V)> = all.iter().collect();
    rows.sort_unstable_by_key(|(key, value)| (Reverse(weight(value)), *key));
    let (kept, rest) = rows.split_at(rows.len().min(most));
    let mut sums: Map<K, V> = kept.iter().map(|(key, value)| ((*key).clone(), (*value).clone())).collect();
    for (key, value) in rest {
        sums.entry(others(key)).or_default().merge(value);
    }
    sums.into_iter().collect()
}

fn text(name: &Name) -> Text {
    name.to_string().into()
}

fn origin(origin: Origin) -> Option<Text> {
    Some(match origin {
        Origin::Own => "own".into(),
        Origin::Dependency => "dependency".into(),
        Origin::Tokio => "tokio".into(),
        Origin::Std => "std".into(),
        Origin::System => "system".into(),
        Origin::Unknown => return None,
    })
}

fn kind(kind: TaskKind) -> Option<Text> {
    match kind {
        TaskKind::Task => Some("task".into()),
        TaskKind::Blocking => Some("blocking".into()),
        TaskKind::Worker => None,
    }
}

fn cause(cause: Cause) -> Text {
    match cause {
        Cause::Blocked => "blocked",
        Cause::Cpu => "cpu",
        Cause::ShortSleeps => "short sleeps",
    }
    .into()
}

/// Slots and counts of a histogram.
fn slots(counts: &Counts) -> (Vec<i64>, Vec<i64>) {
    let histogram = Histogram::from(counts);
    histogram.counts().iter().map(|(slot, n)| (i64::from(*slot), i64::try_from(*n).unwrap_or(i64::MAX))).unzip()
}

/// 64-bit FNV-1a (draft-eastlake-fnv).
fn fnv(text: &str) -> i64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step).cast_signed()
}

impl Rows {
    fn add(&mut self, minute: i64, sums: &Rollup) {
        let other_type = || Some(Name::from(OTHERS));
        for ((place, of), heat) in
            heaviest(&sums.cpu, MOST_CPU, |heat| heat.own.max(heat.total), |_| (other_place(), OfType::default()))
        {
            self.cpu.push(RollupCpuRow {
                minute,
                function: text(&place.function),
                file: place.file.as_ref().map(text),
                line: place.line,
                origin: origin(place.origin),
                task_type: of.name.as_ref().map(text),
                kind: of.kind.and_then(kind),
                own: heat.own,
                total: heat.total,
                samples: heat.samples,
            });
        }
        for ((folded, task_type), weight) in heaviest(&sums.stacks, MOST_STACKS, |of| of.weight, |_| (None, None)) {
            self.stacks.push(RollupStackRow {
                minute,
                stack_hash: folded.as_deref().map(fnv),
                folded: folded.map(|folded| String::from(folded).into()),
                task_type: task_type.as_ref().map(text),
                samples: weight.samples,
                weight: weight.weight,
            });
        }
        let others = |of: &OfType| OfType { name: other_type(), kind: of.kind };
        for (of, (polls, counts)) in heaviest(&sums.polls, MOST_TYPES, |(polls, _)| polls.dur, others) {
            let (slots, counts) = slots(&counts);
            self.polls.push(RollupPollRow {
                minute,
                task_type: of.name.as_ref().map(text),
                kind: of.kind.and_then(kind),
                count: polls.count,
                total: polls.dur,
                busy: polls.busy,
                blocked: polls.blocked,
                run_queue: polls.run_queue,
                longest: polls.longest,
                slots,
                counts,
            });
        }
        for (name, (polls, counts)) in heaviest(&sums.wakes, MOST_TYPES, |(polls, _)| polls.delay, |_| other_type()) {
            let (slots, counts) = slots(&counts);
            self.wakes.push(RollupWakeRow {
                minute,
                task_type: name.as_ref().map(text),
                count: counts.iter().fold(0, |sum: i64, n| sum.saturating_add(*n)),
                total: polls.delay,
                longest: polls.delay_longest,
                slots,
                counts,
            });
        }
        let others = |of: &CulpritKey| CulpritKey { place: other_place(), task_type: None, ..of.clone() };
        for (of, sum) in heaviest(&sums.blocking, MOST_CULPRITS, |sum| sum.total, others) {
            self.blocking.push(RollupBlockingRow {
                minute,
                cause: cause(of.cause),
                function: text(&of.place.function),
                file: of.place.file.as_ref().map(text),
                line: of.place.line,
                origin: origin(of.place.origin),
                task_type: of.task_type.as_ref().map(text),
                estimated: of.is_estimated,
                count: sum.count,
                total: sum.total,
                longest: sum.longest,
            });
        }
        let others = |of: &WorkerKey| WorkerKey { runtime: None, worker: None, ..*of };
        for (of, load) in heaviest(&sums.workers, MOST_WORKERS, |load| load.cpu, others) {
            self.workers.push(RollupWorkerRow {
                minute,
                role: if of.role == Role::Worker { "worker" } else { "blocking" }.into(),
                runtime_id: of.runtime,
                worker: of.worker,
                cpu: load.cpu,
                blocked: load.blocked,
                run_queue: load.run_queue,
                idle: load.idle,
                polls: load.polls,
            });
        }
        for (of, sum) in heaviest(
            &sums.findings,
            MOST_FINDINGS,
            |sum| sum.count,
            |of| super::rollup::FindingKey { code: None, task_type: None, ..of.clone() },
        ) {
            let (function, file, line) = match &of.code {
                Some((function, file, line)) => (Some(text(function)), file.as_ref().map(text), *line),
                None => (None, None, None),
            };
            self.findings.push(RollupFindingRow {
                minute,
                rule: of.rule.into(),
                severity: of.severity.into(),
                function,
                file,
                line,
                task_type: of.task_type.as_ref().map(text),
                unit: of.unit.into(),
                ranges: sum.count,
                worst: sum.longest,
            });
        }
        let process = sums.process;
        self.process.push(RollupProcessRow {
            minute,
            observed: sums.observed,
            cpu_user: process.user,
            cpu_sys: process.sys,
            cpu_others: process.others,
            throttled: process.throttled,
            rss: process.rss,
            threads: process.threads,
            fds: process.fds,
            recorder_cpu: process.recorder_cpu,
            probe_ns: process.probes,
            events: process.events,
            lost: process.lost,
        });
    }
}
