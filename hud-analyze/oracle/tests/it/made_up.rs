//! Random sessions: small, but with ties, nulls, intervals that overlap and cross every border, streams that are missing,
//! tasks without a type, types under two ids, stacks and frames that are not there, and circles of parents.

use std::collections::{BTreeMap, BTreeSet};

use hud_common::session::{
    CoverageRow, DropRow, EndRow, FrameRow, InProgressRow, ModuleRow, OffCpuRow, OverheadRow, PollRow, ProcessRow,
    SampleRow, SpawnRow, StackRow, TaskRow, TaskStateRow, TaskTypeRow, Text, ThreadRow, WakeRow,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::data::{Args, Data, MS, SECOND, T0};

const WORKERS: [i32; 2] = [101, 102];
const POOL: [i32; 2] = [103, 104];
/// A thread with events and without a row of its own.
const STRANGER: i32 = 999;
const TASKS: i64 = 10;

fn ts() -> impl Strategy<Value = i64> {
    // Four seconds, on a coarse grid, so that times coincide.
    (0..400_i64, select(vec![0, 0, 1, 3_333_333])).prop_map(|(tick, off)| T0 + tick * 10 * MS + off)
}

fn dur() -> impl Strategy<Value = i64> {
    prop_oneof![
        select(vec![0, 1, 15, 16, 17, 1_000, MS - 1, MS, 5 * MS, 10 * MS, 20 * MS, 120 * MS]),
        0..30 * MS,
        0..3 * SECOND,
    ]
}

fn tid() -> impl Strategy<Value = i32> {
    select(vec![WORKERS[0], WORKERS[0], WORKERS[1], WORKERS[1], POOL[0], POOL[1], 100, STRANGER])
}

fn task() -> impl Strategy<Value = i64> {
    1..=TASKS
}

fn type_id() -> impl Strategy<Value = Option<i64>> {
    // Type 8 has no row.
    option::weighted(0.8, 1..=8_i64)
}

fn stack() -> impl Strategy<Value = Option<i64>> {
    // Stack 13 has no row.
    option::weighted(0.8, 1..=15_i64)
}

prop_compose! {
    fn poll()(ts in ts(), dur in dur(), task_id in task(), type_id in type_id(), tid in tid(), parts in (0..4_i64, 0..4_i64),
              wake_delay in option::of(prop_oneof![dur(), -5..5_i64, (0..40_i64).prop_map(|t| t * 10 * MS)])) -> PollRow {
        let (blocked, run_queue) = (dur / 8 * parts.0, dur / 8 * parts.1);
        PollRow { ts, dur, task_id, type_id, tid, cpu: 0, blocked, run_queue, wake_delay, completed: None }
    }
}

prop_compose! {
    fn off_cpu()(ts in ts(), dur in dur(), tid in tid(), state in select(vec!["S", "S", "S", "D", "R", "T", "+"]),
                 task_id in option::weighted(0.7, task()), stack_id in stack(), queued in option::of(0..5_i64),
                 (waker_tid, sum) in (option::weighted(0.8, tid()), 1..9_i32)) -> OffCpuRow {
        let run_queue = queued.map(|part| dur / 5 * part).filter(|_| state != "R");
        let (stack_id, intervals) = if state == "+" { (None, Some(sum)) } else { (stack_id, None) };
        OffCpuRow { ts, dur, tid, cpu: 0, state: state.into(), task_id, stack_id, run_queue, waker_tid, intervals }
    }
}

prop_compose! {
    fn sample()(ts in ts(), tid in tid(), task_id in option::weighted(0.8, task()), stack_id in stack(),
                weight in select(vec![10 * MS, 10 * MS, 7 * MS])) -> SampleRow {
        SampleRow { ts, tid, cpu: 0, task_id, stack_id, weight, unwind: "complete".into() }
    }
}

/// A burst of samples of one task, as one that computes gives.
fn burst() -> impl Strategy<Value = Vec<SampleRow>> {
    (sample(), 1..5_i64).prop_map(|(first, count)| {
        (0..count).map(|i| SampleRow { ts: first.ts + i * 10 * MS, ..first.clone() }).collect()
    })
}

prop_compose! {
    fn wake()(ts in ts(), task_id in task(), waker in (option::weighted(0.7, task()), any::<bool>()), waker_tid in tid())
        -> WakeRow {
        let waker_task_id = if waker.1 { waker.0 } else { Some(task_id) };
        WakeRow { ts, task_id, waker_task_id, waker_tid }
    }
}

prop_compose! {
    fn spawn()(ts in ts(), task_id in task(), type_id in type_id(), parent_task_id in option::weighted(0.7, task()),
               tid in tid()) -> SpawnRow {
        SpawnRow { ts, task_id, type_id, parent_task_id, tid }
    }
}

prop_compose! {
    fn end()(ts in ts(), task_id in task(), outcome in select(vec!["completed", "cancelled", "panicked"])) -> EndRow {
        EndRow { ts, task_id, outcome: outcome.into() }
    }
}

prop_compose! {
    fn task_row()(ts in ts(), task_id in task(), type_id in type_id(), tid in tid()) -> TaskRow {
        TaskRow { ts, task_id, type_id, tid, source: "memory".into() }
    }
}

prop_compose! {
    fn coverage()(ts in ts(), dur in prop_oneof![0..2 * SECOND, Just(SECOND), Just(0)],
                  stream in select(vec!["polls", "polls", "polls", "off_cpu", "ends", "ends", "spawns", "wakes"]),
                  reason in select(vec!["still on", "over budget", "the end"])) -> CoverageRow {
        CoverageRow { ts: ts - SECOND, dur, stream: stream.into(), reason: reason.into() }
    }
}

prop_compose! {
    fn drop_row()(ts in ts(), dur in dur(), stream in select(vec!["polls", "wakes", "all"]),
                  stage in select(vec!["ring", "disk"]), lost in 0..100_i64) -> DropRow {
        DropRow { ts, dur, stream: stream.into(), stage: stage.into(), lost }
    }
}

prop_compose! {
    fn overhead()(ts in ts(), probe_ns in option::weighted(0.8, 0..MS), recorder_cpu in 0..MS, events in 0..9_i64)
        -> OverheadRow {
        OverheadRow { ts, probe_ns, recorder_cpu, recorder_rss: events << 20, ring_bytes: events * 7, events }
    }
}

prop_compose! {
    fn process()(ts in ts(), cpu_user in 0..SECOND, cpu_sys in 0..SECOND, cpu_others in option::weighted(0.8, 0..SECOND),
                 throttled in option::weighted(0.3, 0..5 * MS), grown in select(vec![1, 1, 1, 1, 1, 0])) -> ProcessRow {
        // Most sessions have rows that rise steadily.
        let since = i32::try_from((ts - T0) / (10 * MS)).unwrap_or(0) * grown;
        let (rss, threads, fds) = ((1 << 20) + i64::from(since), 3 + since, Some(7 + since).filter(|_| cpu_user % 8 > 0));
        ProcessRow { ts, cpu_user, cpu_sys, rss, threads, fds, cpu_others, throttled }
    }
}

/// Observations of one poll, a second apart; the last may close it.
fn in_progress() -> impl Strategy<Value = Vec<InProgressRow>> {
    let first = (ts(), 100 * MS..2 * SECOND, any::<bool>(), tid(), task(), type_id(), stack());
    let rest = (select(vec!["blocked", "runnable", "running"]), prop::bool::weighted(0.2), 1..4_i64, any::<bool>());
    (first, rest).prop_map(
        |((ts, lasted, is_known, tid, task_id, type_id, stack_id), (state, estimated, count, ends))| {
            let row = |n: i64| InProgressRow {
                ts: ts + n * SECOND,
                lasted: lasted + n * SECOND,
                since: is_known.then_some(ts - lasted),
                tid,
                worker: None,
                task_id,
                type_id,
                state: state.into(),
                stack_id,
                estimated,
                ended: false,
            };
            let closing = ends.then(|| InProgressRow { ts: ts + count * SECOND, ended: true, ..row(count - 1) });
            (0..count).map(row).chain(closing).collect()
        },
    )
}

/// A stack, resource, address, holder, whether that is a task, and a deadlock.
type Awaited = (Option<i64>, Option<&'static str>, Option<i64>, Option<i64>, bool, Option<i64>);

/// A task at one place, found in one snapshot or two, with a row for each future that it awaits.
fn task_states() -> impl Strategy<Value = Vec<TaskStateRow>> {
    let state = select(vec!["suspended", "suspended", "suspended", "running", "scheduled", "gone"]);
    let who = (snapshot(), task(), prop::bool::weighted(0.8), type_id(), state, 1..3_i32);
    let resource =
        select(vec![None, Some("mutex"), Some("mutex"), Some("semaphore"), Some("task"), Some("timer"), Some("io")]);
    let what =
        (stack(), resource, option::of(1..4_i64), option::weighted(0.7, task()), any::<bool>(), option::of(task()));
    (who, vec(what, 2), any::<bool>()).prop_map(|((ts, id, is_task, type_id, state, branches), waits, is_again)| {
        let own = |resource: Option<_>| (resource == Some("semaphore")).then_some(id);
        let row = |(branch, (stack_id, resource, address, holder, is_task_held, cycle)): (i32, Awaited)| TaskStateRow {
            ts,
            since: ts - i64::from(branches) * 333 * MS,
            task_id: is_task.then_some(id),
            tid: (!is_task).then_some(100),
            type_id,
            state: state.into(),
            branch,
            branches,
            stack_id,
            resource: resource.map(Text::Borrowed),
            address,
            deadline: None,
            detail: address.map(|at| format!("number {at}").into()),
            holder_task_id: own(resource).or(holder).filter(|_| is_task_held),
            holder_tid: own(resource).or(holder).filter(|_| !is_task_held).map(|_| 100),
            cycle: cycle.filter(|_| is_task),
            spawn_file: None,
            spawn_line: None,
        };
        let rows: Vec<_> = (0..branches).zip(waits).map(row).collect();
        let later = rows.iter().filter(|_| is_again).map(|row| TaskStateRow { ts: row.ts + SECOND, ..row.clone() });
        later.chain(rows.clone()).collect()
    })
}

/// When all tasks were read.
fn snapshot() -> impl Strategy<Value = i64> {
    (0..4_i64).prop_map(|second| T0 + second * SECOND + 300 * MS)
}

fn snapshot_coverage() -> impl Strategy<Value = CoverageRow> {
    (snapshot(), select(vec![0, SECOND])).prop_map(|(end, dur)| CoverageRow {
        ts: end - dur,
        dur,
        stream: "task_states".into(),
        reason: "still on".into(),
    })
}

fn text(text: &str) -> Text {
    text.to_string().into()
}

fn threads() -> Vec<ThreadRow> {
    let row = |ms: i64, tid, name: &str, role: &str, worker: Option<i32>, runtime_id| ThreadRow {
        ts: T0 + ms * MS,
        tid,
        name: text(name),
        role: text(role),
        worker,
        runtime_id,
        event: "seen".into(),
    };
    vec![
        row(0, 100, "app", "other", None, None),
        row(0, WORKERS[0], "app", "other", None, None),
        row(5, WORKERS[0], "tokio-rt-worker", "worker", Some(0), Some(0)),
        row(900, WORKERS[0], "tokio-rt-renamed", "other", None, None),
        row(0, WORKERS[1], "tokio-rt-worker", "worker", Some(1), Some(0)),
        // It hands its core over for a while, and comes back.
        row(1_200, WORKERS[1], "tokio-rt-worker", "blocking", None, None),
        row(2_100, WORKERS[1], "tokio-rt-worker", "worker", Some(1), Some(0)),
        row(0, POOL[0], "tokio-rt-worker", "blocking", None, None),
        row(3, POOL[1], "tokio-rt-worker", "blocking", None, None),
        // A worker that gives no sign of life, of a runtime that is not known.
        row(0, 105, "tokio-rt-worker", "worker", None, None),
    ]
}

fn task_types() -> Vec<TaskTypeRow> {
    let row = |type_id, name: &str, kind: &str, at: Option<(&str, i32)>| TaskTypeRow {
        type_id,
        name: text(name),
        scheduler: None,
        file: at.map(|(file, _)| text(file)),
        line: at.map(|(_, line)| line),
        kind: text(kind),
        raw_name: text(name),
    };
    vec![
        row(1, "tokio::worker", "worker", Some(("tokio.rs", 1))),
        row(2, "app::citizen", "task", Some(("src/main.rs", 5))),
        row(3, "app::hog", "task", Some(("src/main.rs", 20))),
        row(4, "app::pool_work", "blocking", Some(("src/main.rs", 30))),
        // The same under another id; and one without a place.
        row(5, "app::citizen", "task", Some(("src/main.rs", 5))),
        row(6, "app::bare", "task", None),
        // A type that is called like a function.
        row(7, "app::burn", "task", Some(("src/burn.rs", 22))),
    ]
}

fn frames() -> Vec<FrameRow> {
    let row = |frame_id, function: Option<&str>, origin: &str, at: Option<(&str, i32)>, module_id| FrameRow {
        frame_id,
        module_id,
        address: frame_id,
        function: function.map(text),
        file: at.map(|(file, _)| text(file)),
        line: at.map(|(_, line)| line),
        col: None,
        inline_depth: 0,
        origin: (!origin.is_empty()).then(|| text(origin)),
    };
    vec![
        row(1, Some("nanosleep"), "libc", None, Some(2)),
        row(2, Some("app::burn"), "own", Some(("src/burn.rs", 22)), Some(1)),
        row(3, Some("app::burn"), "own", Some(("src/burn.rs", 23)), Some(1)),
        row(4, Some("app::no_line"), "own", None, Some(1)),
        row(5, None, "own", Some(("src/lost.rs", 1)), Some(1)),
        row(6, None, "", None, Some(2)),
        row(7, None, "", None, None),
        row(8, Some("serde::de; evil\nname"), "dependency", Some(("serde.rs", 3)), Some(1)),
        row(9, Some("tokio::poll"), "tokio", Some(("tokio.rs", 4)), Some(1)),
        row(10, Some("std::sys::sync::mutex::futex::Mutex::lock_contended"), "std", None, Some(1)),
        row(11, Some("std::sync::Condvar::wait<Mutex>"), "std", None, Some(1)),
        row(12, Some("syscall::futex_wait"), "libc", None, Some(2)),
        row(13, Some("std::sync::RwLock::read"), "std", None, Some(1)),
        row(14, Some("app::hold"), "own", Some(("src/hold.rs", 7)), Some(1)),
        row(15, Some("tokio::task::blocking::block_in_place"), "tokio", None, Some(1)),
        row(16, Some("tokio::runtime::task::raw::poll"), "tokio", None, Some(1)),
    ]
}

fn stacks() -> Vec<StackRow> {
    let deep: Vec<i64> = std::iter::repeat_n(9, 16).chain([10, 14]).collect();
    let all = [
        vec![1, 2, 9],
        vec![3, 2, 3, 9],
        vec![4, 9],
        vec![9],
        vec![6],
        vec![7, 6, 5],
        vec![8, 9],
        vec![12, 10, 14, 9],
        vec![12, 11, 2],
        vec![12, 13, 14],
        // A lock too deep to count; a frame without a row.
        deep,
        vec![99, 2],
        // Stack 13 has no row. A call of block_in_place, and one that runs the worker that polls.
        vec![1, 2, 15, 16, 9],
        vec![1, 2, 16, 15, 9],
    ];
    let ids = (1..13).chain(14..);
    ids.zip(all).map(|(stack_id, frame_ids)| StackRow { stack_id, frame_ids, unwind: "complete".into() }).collect()
}

fn modules() -> Vec<ModuleRow> {
    let row =
        |module_id, path: &str| ModuleRow { module_id, path: text(path), build_id: None, start: 0, end: 1, offset: 0 };
    vec![row(1, "/srv/app"), row(2, "/usr/lib/libc.so.6"), row(2, "/usr/lib/libc.so.7")]
}

/// Of rows that begin at the same moment on the same thread, only one can be.
fn once<T>(rows: Vec<T>, key: impl Fn(&T) -> (i64, i32)) -> Vec<T> {
    let mut seen = BTreeSet::new();
    rows.into_iter().filter(|row| seen.insert(key(row))).collect()
}

/// A snapshot finds each task once.
fn once_found(rows: Vec<TaskStateRow>) -> Vec<TaskStateRow> {
    let mut seen = BTreeSet::new();
    let key = |row: &TaskStateRow| (row.ts, row.task_id, row.tid, row.branch);
    let mut branches: BTreeMap<(i64, Option<i64>, Option<i32>), (i64, i32)> = BTreeMap::new();
    let mut rows: Vec<_> = rows.into_iter().filter(|row| seen.insert(key(row))).collect();
    // All rows of a task in a snapshot are of one state.
    rows.retain(|row| {
        let of = *branches.entry((row.ts, row.task_id, row.tid)).or_insert((row.since, row.branches));
        of == (row.since, row.branches)
    });
    rows
}

/// Rows of a stream, or none: it may not have been recorded.
fn stream<T: Clone + std::fmt::Debug + 'static>(
    row: impl Strategy<Value = T> + 'static,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    option::weighted(0.85, vec(row, 0..most)).prop_map(Option::unwrap_or_default)
}

prop_compose! {
    /// A session.
    pub fn session()(
        polls in stream(poll(), 40), off_cpu in stream(off_cpu(), 40), bursts in stream(burst(), 20),
        wakes in stream(wake(), 30), led in option::weighted(0.8, 0..40_usize), spawns in stream(spawn(), 12),
        ends in stream(end(), 12), tasks in stream(task_row(), 12), coverage in stream(coverage(), 8),
        (drops, process, in_progress) in (stream(drop_row(), 4), stream(process(), 12), stream(in_progress(), 8)),
        (task_states, snapshots) in (stream(task_states(), 16), stream(snapshot_coverage(), 6)),
        (overhead, held) in (stream(overhead(), 6), 0..4_usize), named in prop::bool::weighted(0.9),
    ) -> Data {
        let polls = once(polls, |p: &PollRow| (p.ts, p.tid));
        let mut wakes = wakes;
        // Most wakes that polls result from are recorded, some of them as made by a task that was being polled.
        for (i, p) in polls.iter().enumerate().take(led.unwrap_or(0)) {
            if let Some(delay) = p.wake_delay {
                let by = polls.iter().cycle().skip(i + 1).take(polls.len()).find(|q| {
                    q.ts <= p.ts - delay && p.ts - delay <= q.ts + q.dur
                });
                let (waker_task_id, waker_tid) = by.map_or((None, STRANGER), |q| (Some(q.task_id), q.tid));
                wakes.push(WakeRow { ts: p.ts - delay, task_id: p.task_id, waker_task_id, waker_tid });
            }
        }
        // The thread that ends some waits for a lock computed meanwhile.
        let mut bursts = bursts;
        let is_lock = |o: &&OffCpuRow| matches!(o.stack_id, Some(8 | 10)) && o.state != "R";
        for (o, tid) in off_cpu.iter().filter(is_lock).filter_map(|o| Some((o, o.waker_tid?))).take(held) {
            let (cpu, task_id, stack_id, weight) = (0, Some(1 + i64::from(tid) % TASKS), Some(1), 10 * MS);
            let samples = (0..o.dur / (10 * MS)).take(40).map(|n| {
                SampleRow { ts: o.ts + 1 + n * 10 * MS, tid, cpu, task_id, stack_id, weight, unwind: "complete".into() }
            });
            bursts.push(samples.collect());
        }
        let once_each = |rows| once(rows, |o: &OverheadRow| (o.ts, 0));
        Data {
            start: T0,
            polls,
            off_cpu: once(off_cpu, |o: &OffCpuRow| (o.ts, o.tid)),
            samples: once(bursts.concat(), |s: &SampleRow| (s.ts, s.tid)),
            wakes,
            spawns,
            ends,
            tasks,
            in_progress: once(in_progress.concat(), |p: &InProgressRow| (p.ts, p.tid)),
            task_states: once_found(task_states.concat()),
            threads: threads(),
            task_types: if named { task_types() } else { Vec::new() },
            stacks: stacks(),
            frames: if named { frames() } else { Vec::new() },
            modules: modules(),
            coverage: coverage.into_iter().chain(snapshots).collect(),
            drops,
            overhead: once_each(overhead),
            process: once(process, |p: &ProcessRow| (p.ts, 0)),
        }
    }
}

prop_compose! {
    /// Arguments: all of the session or a part of it, and thresholds that something in it passes.
    pub fn args()(
        window in prop_oneof![
            Just((T0 - SECOND, T0 + 8 * SECOND)), (ts(), 1..SECOND).prop_map(|(from, dur)| (from, from + dur)),
            (ts(), 1..3 * SECOND).prop_map(|(from, dur)| (from, from + dur)),
        ],
        task in option::weighted(0.2, task()), thread in option::weighted(0.2, tid()),
        threshold in select(vec![1, MS, 10 * MS, 15 * MS]), asleep in select(vec![1, MS, 5 * MS]),
        step in select(vec![SECOND, 70 * MS, 333_333_333, 9 * SECOND]), late in select(vec![0, MS, 100 * MS]),
        polls in 0..12_i64, hops in 0..5_i64, depth in select(vec![1, 2, 64]), flags in any::<[bool; 5]>(),
        low in any::<bool>(),
    ) -> Args {
        let mut args = Args {
            task, thread: thread.map(i64::from), threshold, asleep, step, late, polls, hops, depth, lines: flags[0],
            functions: flags[1], types: flags[2], threads: flags[3], states: flags[4], ..Args::between(window.0, window.1)
        };
        // Rules that so few rows can break.
        let rules = &mut args.rules;
        (rules.wake_delay_count, rules.growth, rules.pool_threads) = (3, 2, 2);
        (rules.growth_ended, rules.self_wakes) = (500, 1);
        (rules.worker_blocked, rules.imbalance, rules.pool_busy) = (200, 1_100, 200);
        (rules.cpu_share, rules.short_sleeps) = (5, MS);
        rules.wake_delay_waiting = 500;
        (rules.wake_storm, rules.wake_storm_rate, rules.spawn_rate) = (1, 1, 1);
        (rules.threads_grow, rules.fds_grow, rules.memory_grow) = (2, 2, 2);
        (rules.grow_ratio, rules.grow_time, rules.lock_busy, rules.cancelled) = (1_000, SECOND / 2, MS, 2);
        if low {
            (rules.long_poll, rules.wake_delay_p99, rules.lock_wait, rules.observed) = (MS, 1, 1, 0);
        }
        args
    }
}
