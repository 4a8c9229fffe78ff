//! Partials and snapshots: independence of the order and grouping of rows, and how rows count.
//!
//! The rows are synthetic, or random from a fixed seed: these tests check arithmetic. Real recordings are tested in
//! hud-record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use hud_cockpit::*;

/// A time in 2026, of realistic size.
const T0: i64 = 1_790_000_000_000_000_000;
const MS: i64 = 1_000_000;

/// Pseudo-random numbers with a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % most.max(1)
    }

    fn maybe(&mut self, value: i64) -> Option<i64> {
        (self.below(3) > 0).then_some(value)
    }
}

#[derive(Clone, Debug)]
enum Row {
    Poll(PollRow),
    Off(OffCpuRow),
    Sample(SampleRow),
    Wake(i64, TaskId, Option<TaskId>),
    Spawn(i64, TaskId),
    End(TaskId, Ended),
    Coverage(i64, i64),
    Drops(i64, i64),
}

fn take(buckets: &mut Buckets, row: &Row) {
    match row {
        Row::Poll(row) => buckets.poll(row),
        Row::Off(row) => buckets.off_cpu(row),
        Row::Sample(row) => buckets.sample(row),
        Row::Wake(ts, task, by) => buckets.wake(*ts, *task, *by),
        Row::Spawn(ts, task) => buckets.spawn(*ts, *task),
        Row::End(task, ended) => buckets.end(*task, *ended),
        Row::Coverage(ts, dur) => buckets.coverage(*ts, *dur, &"polls".into(), &"on".into()),
        Row::Drops(ts, dur) => buckets.drops(*ts, *dur, &"polls".into(), &"ring".into(), 3),
    }
}

fn random_rows(random: &mut Random, count: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..count {
        let ts = T0 + random.below(3_000 * MS);
        let dur = [random.below(MS), random.below(30 * MS), random.below(700 * MS)]
            [usize::try_from(random.below(3)).unwrap()];
        let (task, tid) = (TaskId(random.below(40)), Tid(i32::try_from(random.below(5)).unwrap() + 100));
        let stack = random.maybe(random.0.cast_signed() & 7).map(StackId);
        rows.push(match random.below(8) {
            0 => {
                let (blocked, run_queue) = (random.below(dur), random.below(dur / 2));
                let type_id = random.maybe(task.0 % 4).map(TypeId);
                let delay = random.below(20 * MS);
                let wake_delay = random.maybe(delay);
                Row::Poll(PollRow { ts, dur, task, type_id, tid, blocked, run_queue, wake_delay })
            }
            1 | 2 => {
                let state = b"SDRT"[usize::try_from(random.below(4)).unwrap()];
                let waited = random.below(2 * dur);
                let (run_queue, task) = (random.maybe(waited), random.maybe(task.0).map(TaskId));
                Row::Off(OffCpuRow {
                    ts,
                    dur,
                    tid,
                    state,
                    task,
                    stack,
                    run_queue,
                    waker: Some(Tid(100)),
                    intervals: None,
                })
            }
            3 => Row::Sample(SampleRow { ts, tid, task: random.maybe(task.0).map(TaskId), stack, weight: 10 * MS }),
            4 => Row::Wake(ts, task, random.maybe(random.0.cast_signed() & 31).map(TaskId)),
            5 => Row::Spawn(ts, task),
            6 => Row::End(task, Ended { ts, outcome: TaskOutcome::Completed }),
            _ if random.below(2) == 0 => Row::Coverage(ts, dur),
            _ => Row::Drops(ts, dur),
        });
    }
    rows
}

fn names() -> Names {
    let mut names = Names::default();
    for id in 0..4 {
        let kind = if id == 3 { TaskKind::Blocking } else { TaskKind::Task };
        let name = format!("app::task_{id}").into();
        names.types.insert(TypeId(id), TaskType { name, file: Some("src/app.rs".into()), line: Some(10), kind });
    }
    (0..40).for_each(|task| names.add_type_of(TaskId(task), TypeId(task % 4)));
    for (tid, role) in [(100, Role::Worker), (101, Role::Worker), (102, Role::Blocking), (103, Role::Other)] {
        let name = "tokio-rt-worker".into();
        let worker = (role == Role::Worker).then_some(tid - 100);
        let runtime = worker.map(|_| RuntimeId(0));
        names.add_thread(Tid(tid), Thread { ts: T0, name, role, worker, runtime, is_gone: false });
    }
    names.add_module(1, "/lib/libc.so.6");
    for id in 0..12 {
        let origin = [Origin::Own, Origin::Dependency, Origin::Std, Origin::System][usize::try_from(id % 4).unwrap()];
        let function = (id != 11).then(|| format!("f{}", id / 2).into());
        let frame = Frame { function, module: Some(1), file: Some("src/f.rs".into()), line: Some(7), origin };
        names.add_frame(FrameId(id), frame);
    }
    for id in 0..8 {
        names.add_stack(StackId(id), (0..4).map(|n| FrameId((id * 3 + n * 5) % 12)).collect());
    }
    names
}

fn snapshot(partials: &BTreeMap<Bucket, Partial>, total: Option<&Sums>, query: &Query) -> Snapshot {
    let mut partials = partials.clone();
    partials.values_mut().for_each(Partial::settle);
    Snapshot::of(View {
        query,
        at: query.at.unwrap(),
        partials: &partials,
        total,
        names: &mut names(),
        detail: None,
        session: SessionFacts::default(),
        mode: Mode::Replay,
        coverage_until: None,
        read_from: None,
    })
}

fn everything() -> Buckets {
    Buckets::new(Bucket::of(T0 - 1_000 * MS), Bucket::of(T0 + 10_000 * MS))
}

#[test]
fn neither_order_nor_grouping_of_rows_changes_a_snapshot() {
    let mut random = Random(1);
    for round in 0..20 {
        let rows = random_rows(&mut random, 400);
        let mut whole = everything();
        rows.iter().for_each(|row| take(&mut whole, row));

        // In parts, each in random order, merged in random order, sometimes with each other first.
        let mut parts: Vec<Buckets> = (0..5).map(|_| everything()).collect();
        let mut shuffled = rows.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, usize::try_from(random.below(i64::try_from(at + 1).unwrap())).unwrap());
        }
        for row in &shuffled {
            take(&mut parts[usize::try_from(random.below(5)).unwrap()], row);
        }
        let mut groups: Vec<BTreeMap<Bucket, Partial>> = parts.iter().map(|p| p.partials().clone()).collect();
        while groups.len() > 1 {
            let from = groups.swap_remove(usize::try_from(random.below(i64::try_from(groups.len()).unwrap())).unwrap());
            let into = usize::try_from(random.below(i64::try_from(groups.len()).unwrap())).unwrap();
            for (bucket, partial) in from {
                groups[into].entry(bucket).or_default().merge(&partial);
            }
        }
        assert_eq!(&groups[0], whole.partials(), "round {round}");

        // And the sums of the window, merged in any order.
        for window in [100 * MS, 1_000 * MS, 5_000 * MS] {
            let at = T0 + random.below(3_500 * MS);
            let query = Query { at: Some(at), window, order: TaskOrder::Blocked, ..Query::default() };
            let of_whole = snapshot(whole.partials(), None, &query);
            let window = Window::ending(at, window);
            let mut total = Sums::default();
            let mut kept: Vec<_> = whole.partials().range(window.from..window.to).collect();
            kept.reverse();
            kept.iter().for_each(|(_, partial)| total.merge(&partial.sums));
            assert_eq!(snapshot(&groups[0], Some(&total), &query), of_whole, "round {round}");
            let json = serde_json::to_string(&of_whole).unwrap();
            assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), of_whole, "it is plain data");
        }
    }
}

#[test]
fn sums_of_a_sliding_window_are_those_of_its_buckets() {
    let mut random = Random(3);
    let mut rows = random_rows(&mut random, 3_000);
    // Rows arrive about in the order of their ends, some late.
    let end = |row: &Row| match row {
        Row::Poll(r) => r.ts + r.dur,
        Row::Off(r) => r.ts + r.dur,
        Row::Sample(r) => r.ts,
        Row::Wake(ts, ..) | Row::Spawn(ts, _) | Row::End(_, Ended { ts, .. }) => *ts,
        Row::Coverage(ts, dur) | Row::Drops(ts, dur) => ts + dur,
    };
    rows.sort_by_key(|row| (end(row) / (400 * MS), end(row) % 7));
    let (mut buckets, mut totals, mut checked) = (everything(), Totals::default(), 0);
    for (n, row) in rows.iter().enumerate() {
        take(&mut buckets, row);
        if n % 13 > 0 {
            continue;
        }
        if n == 13 * 150 {
            buckets.advance(Bucket::of(T0 + 730 * MS), buckets.to());
        }
        let window = Window::ending(end(row) + random.below(500 * MS), [300 * MS, 1_700 * MS, 9_000 * MS][n % 3]);
        buckets.settle(window.from, window.to);
        let slid = totals.of(&mut buckets, window);
        let mut plain = Sums::default();
        buckets.partials().range(window.from..window.to).for_each(|(_, p)| plain.merge(&p.sums));
        assert_eq!(slid, plain, "row {n}, {window:?}");
        checked += usize::from(!plain.is_empty());
    }
    assert!(checked > 200);
}

#[test]
fn caps_do_not_depend_on_the_order_of_rows() {
    let mut random = Random(7);
    let mut rows = Vec::new();
    for id in 0..i64::try_from(INTERVALS_PER_BUCKET).unwrap() * 3 {
        let dur = INTERVAL_MIN + random.below(2_000);
        let (ts, tid) = (T0 + random.below(50 * MS), Tid(100));
        let (type_id, wake_delay) = (None, None);
        rows.push(PollRow { ts, dur, task: TaskId(id), type_id, tid, blocked: 0, run_queue: 0, wake_delay });
    }
    let (mut forth, mut back) = (everything(), everything());
    rows.iter().for_each(|row| forth.poll(row));
    rows.iter().rev().for_each(|row| back.poll(row));
    let settled = |mut buckets: Buckets| {
        buckets.settle(Bucket::of(T0 - MS), Bucket::of(T0 + 1_000 * MS));
        buckets.partials().values().next().unwrap().clone()
    };
    let (forth, back) = (settled(forth), settled(back));
    assert_eq!(forth, back);
    assert_eq!(forth.long_polls.items().len(), INTERVALS_PER_BUCKET);
    assert_eq!(forth.long_polls.left_out(), i64::try_from(rows.len() - INTERVALS_PER_BUCKET).unwrap());
    let longest = rows.iter().map(|r| r.dur).max().unwrap();
    assert_eq!(forth.long_polls.items()[0].dur, longest);
}

#[test]
fn counts_rows_of_tasks_past_the_maximum() {
    let most = i64::try_from(TASKS_PER_BUCKET).unwrap();
    let ids: Vec<i64> = (0..3 * most).map(|n| n * 7_919 % (3 * most)).collect();
    let fill = |ids: &mut dyn Iterator<Item = &i64>| {
        let mut buckets = everything();
        ids.for_each(|id| buckets.wake(T0, TaskId(*id), None));
        buckets.settle(Bucket::of(T0), Bucket::of(T0).next());
        buckets.partials()[&Bucket::of(T0)].sums.clone()
    };
    let (forth, back) = (fill(&mut ids.iter()), fill(&mut ids.iter().rev()));
    assert_eq!(forth, back);
    assert_eq!((forth.tasks.len(), forth.tasks_left_out), (TASKS_PER_BUCKET, 2 * most));
    assert!(forth.tasks.keys().all(|id| id.0 < most), "those with the least ids stay");
}

#[test]
fn counts_events_by_their_end_and_clips_loads() {
    let mut buckets = everything();
    let start = Bucket::of(T0).start();
    // 250 ms from the middle of a bucket on: asleep for 200 ms, then without a CPU.
    buckets.off_cpu(&OffCpuRow {
        ts: start + 50 * MS,
        dur: 250 * MS,
        tid: Tid(100),
        state: b'S',
        task: Some(TaskId(1)),
        stack: None,
        run_queue: Some(50 * MS),
        waker: None,
        intervals: None,
    });
    let away: Vec<_> = buckets
        .partials()
        .values()
        .map(|p| p.sums.away.get(&(Tid(100), Some(TaskId(1)))).map(|a| (a.asleep / MS, a.waiting / MS)))
        .collect();
    // Its end is the first instant of the fourth bucket, which it does not touch.
    assert_eq!(away, [Some((50, 0)), Some((100, 0)), Some((50, 50)), None]);
    let blocked: Vec<_> =
        buckets.partials().values().map(|p| p.sums.tasks.get(&TaskId(1)).map(|t| t.blocked / MS)).collect();
    assert_eq!(blocked, [None, None, None, Some(200)]);

    let query = Query { at: Some(start + 300 * MS), window: 300 * MS, ..Query::default() };
    let load = snapshot(buckets.partials(), None, &query).workers.runtimes[0].workers[0].load;
    assert_eq!((load.running, load.blocked / MS, load.waiting / MS, load.idle), (0, 200, 50, 0));
}

#[test]
fn rules_report_past_their_thresholds() {
    let mut buckets = everything();
    let poll = |task: i64, at: i64, dur: i64, busy: i64| PollRow {
        ts: T0 + at * MS,
        dur: dur * MS,
        task: TaskId(task),
        type_id: Some(TypeId(task % 4)),
        tid: Tid(100),
        blocked: (dur - busy) * MS,
        run_queue: 0,
        wake_delay: Some(6 * MS),
    };
    let query = Query { at: Some(T0 + 2_000 * MS), window: 2_000 * MS, ..Query::default() };
    let rules = |buckets: &Buckets| -> Vec<(Rule, Status)> {
        snapshot(buckets.partials(), None, &query).findings.iter().map(|f| (f.rule, f.severity)).collect()
    };
    buckets.poll(&poll(1, 0, 10, 10));
    assert_eq!(rules(&buckets), [], "10 ms is not more than 10 ms");
    buckets.poll(&poll(1, 20, 11, 11));
    assert_eq!(rules(&buckets), [(Rule::LongPoll, Status::Caution)]);
    buckets.poll(&poll(3, 40, 500, 500));
    assert_eq!(rules(&buckets), [(Rule::LongPoll, Status::Caution)], "the blocking pool is there to block");
    buckets.poll(&poll(2, 600, 101, 101));
    assert_eq!(rules(&buckets), [(Rule::LongPoll, Status::Warning), (Rule::LongPoll, Status::Caution)]);
    (0..100).for_each(|n| buckets.poll(&poll(1, 800 + n, 1, 1)));
    assert!(rules(&buckets).contains(&(Rule::WakeDelay, Status::Caution)), "100 polls, each 6 ms after its wake");

    let mut buckets = everything();
    (0..120).for_each(|id| buckets.spawn(T0 + id * MS, TaskId(4 * id)));
    assert_eq!(rules(&buckets), [], "where ends are not watched, none is no news");
    buckets.end(TaskId(0), Ended { ts: T0 + 500 * MS, outcome: TaskOutcome::Completed });
    assert_eq!(rules(&buckets), [], "of what type they are is not known");

    let mut buckets = everything();
    (0..40).for_each(|id| (0..4).for_each(|n| buckets.spawn(T0 + (4 * id + n) * MS, TaskId(id))));
    ["spawns", "ends"].into_iter().for_each(|of| buckets.coverage(T0, 2_000 * MS, &of.into(), &"still on".into()));
    buckets.end(TaskId(0), Ended { ts: T0 + 500 * MS, outcome: TaskOutcome::Completed });
    let lenient = Thresholds { growth: 30, ..Thresholds::default() };
    let query = Query { thresholds: lenient, ..query.clone() };
    let found = snapshot(buckets.partials(), None, &query).findings;
    assert!(found.iter().all(|f| f.rule == Rule::TasksGrow) && !found.is_empty(), "{found:?}");
    assert!(
        found.iter().any(|f| f.sentence.contains("app::task_1") && f.jump.task_type == Some(TypeId(1))),
        "{found:?}"
    );
    (0..5_000).for_each(|n| buckets.wake(T0 + n % 1_000 * MS, TaskId(1), Some(TaskId(1))));
    let found = snapshot(buckets.partials(), None, &query).findings;
    let spins = found.iter().find(|f| f.rule == Rule::SelfWaking).expect("5,000 wakes by itself in two seconds");
    assert_eq!(spins.jump.task, Some(TaskId(1)));
}

#[test]
fn reports_a_lock_whose_owner_sleeps_with_its_code() {
    let sleep = |tid: i32, task: i64, stack: i64, at: i64, dur: i64, waker: i32| OffCpuRow {
        ts: T0 + at * MS,
        dur: dur * MS,
        tid: Tid(tid),
        state: b'S',
        task: Some(TaskId(task)),
        stack: Some(StackId(stack)),
        run_queue: None,
        waker: Some(Tid(waker)),
        intervals: None,
    };
    let mut buckets = everything();
    // Task 1 on worker 101 waits from 5 to 40; task 0 on worker 100 slept from 0 to 30 and then wakes it.
    buckets.off_cpu(&sleep(100, 0, 20, 0, 30, 1));
    buckets.off_cpu(&sleep(101, 1, 21, 5, 35, 100));
    // Task 2 waits for something else meanwhile, woken by the same.
    buckets.off_cpu(&sleep(102, 2, 20, 5, 35, 100));
    let mut names = names();
    let frame = |function: &str, origin, line| Frame {
        function: Some(function.into()),
        module: None,
        file: Some("src/app.rs".into()),
        line: Some(line),
        origin,
    };
    names.add_frame(FrameId(50), frame("app::holds_it", Origin::Own, 33));
    names.add_frame(FrameId(51), frame("std::sys::sync::mutex::futex::Mutex::lock_contended", Origin::Std, 1));
    names.add_frame(FrameId(52), frame("app::wants_it", Origin::Own, 44));
    names.add_stack(StackId(20), vec![FrameId(50)]);
    names.add_stack(StackId(21), vec![FrameId(51), FrameId(52)]);
    buckets.settle(Bucket::of(T0), Bucket::of(T0 + 1_000 * MS));
    let query = Query { at: Some(T0 + 200 * MS), window: 1_000 * MS, ..Query::default() };
    let snapshot = Snapshot::of(View {
        query: &query,
        at: T0 + 200 * MS,
        partials: buckets.partials(),
        total: None,
        names: &mut names,
        detail: None,
        session: SessionFacts::default(),
        mode: Mode::Replay,
        coverage_until: None,
        read_from: None,
    });
    let locks: Vec<_> = snapshot.findings.iter().filter(|f| f.rule == Rule::LockOwnerAsleep).collect();
    assert_eq!(locks.len(), 1, "{locks:?}");
    assert!(locks[0].sentence.contains("app::holds_it (app.rs:33)"), "{}", locks[0].sentence);
    assert_eq!(locks[0].jump.task, Some(TaskId(1)));
    let places: Vec<_> = snapshot.blocking.worst.iter().map(|s| s.place.function.as_str()).collect();
    assert_eq!(places[0], "app::wants_it", "blamed on the first own frame, not on the mutex");
}

#[test]
fn hostile_rows_are_bounded() {
    let mut buckets = Buckets::new(Bucket::of(T0), Bucket::of(T0 + 60_000 * MS));
    for ts in [i64::MIN, -1, 0, T0, i64::MAX] {
        for dur in [i64::MIN, -1, 0, 1, i64::MAX] {
            let (task, tid, wake) = (TaskId(i64::MIN), Tid(-1), Some(i64::MIN));
            let type_id = None;
            buckets.poll(&PollRow {
                ts,
                dur,
                task,
                type_id,
                tid,
                blocked: i64::MAX,
                run_queue: i64::MIN,
                wake_delay: wake,
            });
            let (stack, waker) = (Some(StackId(-1)), None);
            buckets.off_cpu(&OffCpuRow {
                ts,
                dur,
                tid,
                state: b'S',
                task: Some(task),
                stack,
                run_queue: wake,
                waker,
                intervals: None,
            });
            buckets.sample(&SampleRow { ts, tid, task: Some(task), stack: None, weight: i64::MAX });
            buckets.coverage(ts, dur, &"polls".into(), &"".into());
        }
    }
    assert!(buckets.partials().len() <= 600 && buckets.outside() > 0);
    let query = Query { at: Some(T0 + 60_000 * MS), window: i64::MAX, task: Some(TaskId(3)), ..Query::default() };
    let snapshot = snapshot(buckets.partials(), None, &query);
    assert!(snapshot.history.len() <= MOST_TICKS);
    assert_eq!(snapshot.task.unwrap().row, None);
}

/// What is known of thread 101 in the first five seconds, with a poll of task 1 in progress that was observed each second.
struct Observed {
    buckets: Buckets,
    snapshot: Snapshot,
}

fn observed(state: PollState, rows: &[Row]) -> Observed {
    let mut buckets = Buckets::new(Bucket::of(T0), Bucket::of(T0 + 60_000 * MS));
    for second in 1..3 {
        buckets.in_progress(InProgress {
            tid: Tid(101),
            ts: T0 + second * 1_000 * MS + 100 * MS,
            has_ended: false,
            task: TaskId(1),
            lasted: second * 1_000 * MS,
            since: None,
            type_id: Some(TypeId(1)),
            state,
            stack: Some(StackId(0)),
            is_estimated: false,
        });
    }
    rows.iter().for_each(|row| take(&mut buckets, row));
    let query = Query { at: Some(T0 + 5_000 * MS), window: 5_000 * MS, ..Query::default() };
    let snapshot = snapshot(buckets.partials(), None, &query);
    Observed { buckets, snapshot }
}

impl Observed {
    fn worker(&self) -> &Worker {
        self.snapshot.workers.runtimes[0].workers.iter().find(|worker| worker.tid == Tid(101)).unwrap()
    }

    fn task(&self) -> &TaskRow {
        self.snapshot.tasks.rows.iter().find(|row| row.task.id == TaskId(1)).unwrap()
    }
}

fn off(tid: i32, from: i64, dur: i64) -> Row {
    Row::Off(OffCpuRow {
        ts: T0 + from,
        dur,
        tid: Tid(tid),
        state: b'S',
        task: Some(TaskId(1)),
        stack: Some(StackId(0)),
        run_queue: None,
        waker: None,
        intervals: None,
    })
}

#[test]
fn a_thread_asleep_in_a_poll_in_progress_is_on_every_panel() {
    let seen = observed(PollState::Blocked, &[]);
    let worker = seen.worker();
    let (lasted, whole) = (2_000 * MS, Load { blocked: 2_000 * MS, ..Load::default() });
    assert_eq!((worker.worker, worker.load), (Some(1), whole));
    assert!(matches!(worker.now, Now::InProgress { lasted: 2_000_000_000, .. }), "{:?}", worker.now);
    let culprit = &seen.snapshot.blocking.culprits[0];
    assert_eq!((culprit.cause, culprit.count, culprit.total), (Cause::Blocked, 1, lasted));
    assert_eq!(culprit.in_progress, Some(lasted));
    assert_eq!(seen.snapshot.blocking.newest[0].in_progress, Some(lasted));
    assert_eq!((seen.task().blocked, seen.task().in_progress), (lasted, Some(lasted)));
    assert_eq!((seen.snapshot.types[0].blocked, seen.snapshot.types[0].in_progress), (lasted, Some(lasted)));
    let lane = seen.snapshot.timeline.lanes.iter().find(|lane| lane.tid == Tid(101)).unwrap();
    assert_eq!(lane.steps.iter().map(|step| step.load.blocked).sum::<i64>(), lasted);
    assert_eq!((lane.spans[0].kind, lane.spans[0].dur), (SpanKind::Asleep, lasted));
    // The rules report it by one finding, not by several.
    let rules: Vec<Rule> = seen.snapshot.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::StuckThread]);
    let mut names = names();
    let mut partials = seen.buckets.partials().clone();
    partials.values_mut().for_each(Partial::settle);
    let query = Query { at: Some(T0 + 5_000 * MS), window: 5_000 * MS, ..Query::default() };
    let view = View {
        query: &query,
        at: T0 + 5_000 * MS,
        partials: &partials,
        total: None,
        names: &mut names,
        detail: None,
        session: SessionFacts::default(),
        mode: Mode::Replay,
        coverage_until: None,
        read_from: None,
    };
    assert_eq!(view.findings(), seen.snapshot.findings);
}

#[test]
fn a_sleep_that_has_ended_counts_once() {
    let seen = observed(PollState::Blocked, &[off(101, 100 * MS, 2_500 * MS)]);
    assert_eq!(seen.worker().load.blocked, 2_500 * MS);
    assert!(!matches!(seen.worker().now, Now::InProgress { .. }));
    let culprits = &seen.snapshot.blocking.culprits;
    assert_eq!((culprits.len(), culprits[0].total, culprits[0].in_progress), (1, 2_500 * MS, None));
    assert_eq!((seen.task().blocked, seen.task().in_progress), (2_500 * MS, None));
    // A thread that has moved since its poll began is asleep since then only.
    let seen = observed(PollState::Blocked, &[off(101, 200 * MS, 300 * MS)]);
    let lasts: Vec<i64> = seen.snapshot.blocking.worst.iter().map(|interval| interval.dur).collect();
    assert_eq!(lasts, [1_600 * MS, 300 * MS]);
    assert_eq!(seen.worker().load.blocked, 1_900 * MS);
}

#[test]
fn a_poll_in_progress_that_computes_counts_without_its_row() {
    let samples: Vec<Row> = (0..20)
        .map(|n| {
            let ts = T0 + 150 * MS + n * 100 * MS;
            let (task, stack) = (Some(TaskId(1)), Some(StackId(0)));
            Row::Sample(SampleRow { ts, tid: Tid(101), task, stack, weight: 100 * MS })
        })
        .chain([off(101, 1_000 * MS, 400 * MS), Row::Coverage(T0, 5_000 * MS)])
        .collect();
    let seen = observed(PollState::Running, &samples);
    let culprits = &seen.snapshot.blocking.culprits;
    assert_eq!((culprits[0].cause, culprits[0].total), (Cause::Cpu, 1_600 * MS));
    assert_eq!(culprits[0].in_progress, Some(2_000 * MS));
    assert_eq!((seen.task().busy, seen.task().blocked), (1_600 * MS, 400 * MS));
    assert_eq!(seen.worker().load.running, 1_600 * MS);
    // Its row, once it has ended.
    let poll = PollRow {
        ts: T0 + 100 * MS,
        dur: 2_200 * MS,
        task: TaskId(1),
        type_id: Some(TypeId(1)),
        tid: Tid(101),
        blocked: 400 * MS,
        run_queue: 0,
        wake_delay: None,
    };
    let seen = observed(PollState::Running, &[samples.as_slice(), &[Row::Poll(poll)]].concat());
    let culprits = &seen.snapshot.blocking.culprits;
    assert_eq!((culprits[0].total, culprits[0].in_progress), (1_800 * MS, None));
    assert_eq!((seen.task().busy, seen.task().in_progress), (1_800 * MS, None));
}

/// A session that began within the window was not off before.
#[test]
fn coverage_counts_from_the_start_of_the_recording() {
    let mut buckets = Buckets::new(Bucket::of(T0), Bucket::of(T0 + 60_000 * MS));
    buckets.coverage(T0 + 8_000 * MS, 1_000 * MS, &"polls".into(), &"on".into());
    let query = Query { at: Some(T0 + 10_000 * MS), window: 10_000 * MS, ..Query::default() };
    let view = View {
        query: &query,
        at: T0 + 10_000 * MS,
        partials: buckets.partials(),
        total: None,
        names: &mut names(),
        detail: None,
        session: SessionFacts { start: T0 + 8_000 * MS, ..SessionFacts::default() },
        mode: Mode::Replay,
        coverage_until: Some(T0 + 9_500 * MS),
        read_from: None,
    };
    let Snapshot { coverage, window, .. } = Snapshot::of(view);
    let whole = window.end() - (T0 + 8_000 * MS);
    let polls = coverage.streams.iter().find(|stream| stream.stream.as_str() == "polls").unwrap();
    let rest = coverage.streams.iter().find(|stream| stream.stream.as_str() == "wakes").unwrap();
    let end = polls.on + polls.off + polls.unknown;
    assert_eq!((polls.on, polls.off, end), (1_000 * MS, 500 * MS, whole), "{polls:?}");
    assert_eq!((rest.on, rest.off), (0, 1_500 * MS), "{rest:?}");
}
