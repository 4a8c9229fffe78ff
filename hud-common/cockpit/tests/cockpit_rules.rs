//! Every rule of the cockpit: when it speaks, what it says, on what evidence, and when it holds its tongue.
//!
//! The rows are made by hand, so that each figure of a finding is known beforehand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use hud_cockpit::*;

const T0: i64 = 1_790_000_000_000_000_000;
const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;

/// A program, as rows.
struct Program {
    buckets: Buckets,
    names: Names,
    thresholds: Thresholds,
}

impl Program {
    /// Two workers (threads 100, 101) of one runtime, six threads of the blocking pool (200 to 205), one other thread (300);
    /// types 1 to 3 are `app::type_N`, and task 10 * N + n is of type N.
    fn new() -> Self {
        let mut names = Names::default();
        for id in 1..4 {
            let name = format!("app::type_{id}").into();
            let (file, line) = (Some("src/app.rs".into()), Some(10));
            names.types.insert(TypeId(id), TaskType { name, file, line, kind: TaskKind::Task });
            (0..10).for_each(|n| names.add_type_of(TaskId(10 * id + n), TypeId(id)));
        }
        let pool = (200..206).map(|tid| (tid, Role::Blocking, None));
        for (tid, role, worker) in
            [(100, Role::Worker, Some(0)), (101, Role::Worker, Some(1)), (300, Role::Other, None)]
                .into_iter()
                .chain(pool)
        {
            let runtime = worker.map(|_| RuntimeId(0));
            names.add_thread(Tid(tid), Thread { ts: T0, name: "tokio".into(), role, worker, runtime, is_gone: false });
        }
        let function = Some("app::own".into());
        let frame =
            Frame { function, module: None, file: Some("src/own.rs".into()), line: Some(7), origin: Origin::Own };
        names.add_frame(FrameId(1), frame);
        names.add_stack(StackId(1), vec![FrameId(1)]);
        let buckets = Buckets::new(Bucket::of(T0), Bucket::of(T0 + 60 * SECOND));
        Program { buckets, names, thresholds: Thresholds::default() }
    }

    fn poll(&mut self, task: i64, at: i64, dur: i64, wake_delay: Option<i64>) {
        self.buckets.poll(&PollRow {
            ts: T0 + at,
            dur,
            task: TaskId(task),
            type_id: Some(TypeId(task / 10)),
            tid: Tid(100),
            blocked: 0,
            run_queue: 0,
            wake_delay,
        });
    }

    fn asleep(&mut self, tid: i32, task: Option<i64>, at: i64, dur: i64) {
        self.buckets.off_cpu(&OffCpuRow {
            ts: T0 + at,
            dur,
            tid: Tid(tid),
            state: b'S',
            task: task.map(TaskId),
            stack: Some(StackId(1)),
            run_queue: None,
            waker: None,
            intervals: None,
        });
    }

    /// A poll in progress, observed at an instant.
    fn in_progress(&mut self, tid: i32, task: i64, at: i64, lasted: i64) -> InProgress {
        let row = InProgress {
            tid: Tid(tid),
            ts: T0 + at,
            has_ended: false,
            task: TaskId(task),
            lasted,
            since: None,
            type_id: Some(TypeId(task / 10)),
            state: PollState::Blocked,
            stack: Some(StackId(1)),
            is_estimated: false,
        };
        self.buckets.in_progress(row);
        row
    }

    /// Alive at these instants, and so on a CPU in between unless other rows say otherwise.
    fn alive(&mut self, tid: i32, from: i64, to: i64) {
        for at in [from, to] {
            let (stack, task) = (Some(StackId(1)), None);
            self.buckets.sample(&SampleRow { ts: T0 + at, tid: Tid(tid), task, stack, weight: 10 * MS });
        }
    }

    /// What the rules find in the two seconds from [`T0`] on.
    fn findings(&mut self) -> Vec<Finding> {
        self.buckets.settle(Bucket::of(T0), Bucket::of(T0 + 60 * SECOND));
        let at = T0 + 2 * SECOND;
        let thresholds = self.thresholds;
        let query = Query { at: Some(at), window: 2 * SECOND, thresholds, ..Query::default() };
        let snapshot = Snapshot::of(View {
            query: &query,
            at,
            partials: self.buckets.partials(),
            total: None,
            names: &mut self.names,
            detail: None,
            session: SessionFacts::default(),
            mode: Mode::Replay,
            coverage_until: None,
            read_from: None,
        });
        let worst = snapshot.findings.iter().map(|f| f.severity).max().unwrap_or(Status::Normal);
        assert_eq!(snapshot.status, worst);
        assert!(snapshot.findings.is_sorted_by(|a, b| a.severity >= b.severity), "the worst first");
        for finding in &snapshot.findings {
            let first = &finding.evidence[0];
            assert!(
                first.threshold.is_some_and(|limit| first.value >= limit),
                "the evidence is past its limit: {finding:?}"
            );
            assert_eq!(first.what, finding.rule.figure().into(), "{finding:?}");
            assert_eq!(finding.count.is_some(), finding.rule.counted().is_some(), "{finding:?}");
            assert_ne!(finding.jump, Jump::default(), "it leads somewhere: {finding:?}");
        }
        snapshot.findings
    }

    /// The one finding of a rule.
    fn found(&mut self, rule: Rule) -> Option<Finding> {
        let mut of_rule: Vec<Finding> = self.findings().into_iter().filter(|f| f.rule == rule).collect();
        assert!(of_rule.len() <= 1, "{of_rule:?}");
        of_rule.pop()
    }
}

fn evidence(finding: &Finding) -> Vec<(&str, Value, Option<Value>)> {
    finding.evidence.iter().map(|e| (e.what.as_str(), e.value, e.threshold)).collect()
}

#[test]
fn every_rule_says_what_to_do() {
    for rule in Rule::ALL {
        assert!(rule.advice().len() > 20 && !rule.advice().ends_with('.'), "{rule:?}: {}", rule.advice());
        let title = rule.title();
        assert!(title.len() < 40 && title.starts_with(char::is_uppercase), "{rule:?}: {title}");
        assert_eq!(Rule::named(rule.name()), Some(rule));
    }
}

#[test]
fn every_rule_is_documented() {
    let docs = include_str!("../../../docs/FINDINGS.md");
    for rule in Rule::ALL {
        let heading = format!("\n## `{}`: {}\n", rule.name(), rule.title());
        let (_, rest) = docs.split_once(&heading).unwrap_or_else(|| panic!("{rule:?} has no section"));
        let section = rest.split("\n## ").next().unwrap();
        for part in ["Says", "Rests on", "Silent"] {
            assert!(section.contains(&format!("\n- **{part}**: ")), "{rule:?}: {part}");
        }
        let advice = format!("\n- **What to do**: {}.\n", rule.advice());
        assert!(section.contains(&advice), "{rule:?}: {advice}");
    }
    assert_eq!(docs.matches("\n## ").count(), Rule::ALL.len());
}

#[test]
fn a_thread_asleep_in_a_poll_in_progress() {
    let mut program = Program::new();
    program.in_progress(100, 11, 105 * MS, 900 * MS);
    program.in_progress(100, 11, 205 * MS, 1_000 * MS);
    assert_eq!(program.findings(), [], "one second is not more than that");
    program.in_progress(100, 11, 1_105 * MS, 1_900 * MS);
    let found = program.found(Rule::StuckThread).unwrap();
    assert_eq!((found.severity, found.is_estimated), (Status::Warning, false));
    assert_eq!(
        found.sentence,
        "worker 0 (100) has been in one poll of app::type_1 since before the attach, at least 1.90 s, asleep in app::own \
         (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [("lasts", Value::Nanos(1_900 * MS), Some(Value::Nanos(SECOND))), ("polls", Value::Count(1), None)]
    );
    // Another worker at the same place; the longest is reported.
    program.in_progress(101, 12, 1_105 * MS, 1_950 * MS);
    let found = program.found(Rule::StuckThread).unwrap();
    assert!(found.sentence.starts_with("2 threads have been in one poll each of app::type_1 since"), "{found:?}");
    assert_eq!((found.count, found.total, found.jump.tid), (Some(2), Some(3_850 * MS), Some(Tid(101))));
}

/// It may be inside `block_in_place`, which the names of its functions would show.
#[test]
fn a_thread_that_may_be_no_worker_is_not_stuck_before_its_stack_is_named() {
    let mut program = Program::new();
    let row = program.in_progress(300, 11, 105 * MS, 1_900 * MS);
    program.buckets.in_progress(InProgress { stack: Some(StackId(2)), ts: row.ts + MS, ..row });
    program.names.add_stack(StackId(2), vec![FrameId(1), FrameId(2)]);
    assert_eq!(program.findings(), []);
    let function = Some("tokio::runtime::task::raw::poll".into());
    let frame = Frame { function, module: None, file: None, line: None, origin: Origin::Tokio };
    program.names.add_frame(FrameId(2), frame);
    assert!(program.found(Rule::StuckThread).is_some());
}

#[test]
fn a_poll_in_progress_that_computes() {
    let mut program = Program::new();
    let row = program.in_progress(100, 11, 105 * MS, 5 * SECOND);
    let running = InProgress { ts: T0 + 1_105 * MS, since: Some(T0 - 5 * SECOND), state: PollState::Running, ..row };
    program.buckets.in_progress(running);
    let found = program.found(Rule::StuckPoll).unwrap();
    assert_eq!(
        found.sentence,
        "worker 0 (100) has been in one poll of app::type_1 for 5.00 s, computing in app::own (own.rs:7)"
    );
    assert_eq!(found.jump.ts, Some(T0 - 5 * SECOND));
    // Others hold the thread up.
    let mut waiting = program.buckets.clone();
    waiting.in_progress(InProgress { ts: T0 + 1_205 * MS, state: PollState::Runnable, ..running });
    std::mem::swap(&mut program.buckets, &mut waiting);
    assert_eq!(program.findings(), []);
    std::mem::swap(&mut program.buckets, &mut waiting);
    // The last observation counts: it has ended, or is not certain any more.
    let mut other = program.buckets.clone();
    program.buckets.in_progress(InProgress { ts: T0 + 1_205 * MS, has_ended: true, ..running });
    assert_eq!(program.findings(), []);
    other.in_progress(InProgress { ts: T0 + 1_205 * MS, is_estimated: true, ..running });
    program.buckets = other;
    assert_eq!(program.findings(), []);
}

/// Two tasks in a deadlock, found by snapshots at `since` and `at`.
fn deadlock(program: &mut Program, at: i64, since: i64) {
    for task in [11, 21] {
        program.buckets.deadlocked(Deadlocked {
            by: Obstacle::Cycle(11),
            ts: T0 + at,
            task: Some(TaskId(task)),
            tid: None,
            since: T0 + since,
            type_id: Some(TypeId(task / 10)),
            stack: Some(StackId(1)),
        });
    }
}

#[test]
fn tasks_that_wait_for_each_other() {
    let mut program = Program::new();
    deadlock(&mut program, 300 * MS, 300 * MS);
    assert_eq!(program.found(Rule::LockCycle), None, "one snapshot is no proof");
    deadlock(&mut program, 1_350 * MS, 300 * MS);
    let found = program.found(Rule::LockCycle).unwrap();
    assert_eq!((found.severity, found.count, found.is_estimated), (Status::Warning, Some(2), false));
    assert_eq!(
        found.sentence,
        "2 tasks have waited for each other for at least 1.05 s: app::type_1 (11) in app::own (own.rs:7), app::type_2 (21) \
         in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [("lasts", Value::Nanos(1_050 * MS), Some(Value::Nanos(SECOND))), ("tasks", Value::Count(2), None)]
    );
    assert_eq!((found.jump.task, found.jump.ts), (Some(TaskId(11)), Some(T0 + 300 * MS)));
    // One of them has moved since.
    deadlock(&mut program, 1_900 * MS, 1_900 * MS);
    assert_eq!(program.found(Rule::LockCycle), None);
}

#[test]
fn tasks_that_hold_permits_and_wait_for_more() {
    let mut program = Program::new();
    let mut wait = |semaphore: i64, task: i64, at: i64, since: i64| {
        program.buckets.deadlocked(Deadlocked {
            by: Obstacle::OwnPermits(semaphore),
            ts: T0 + at,
            task: Some(TaskId(task)),
            tid: None,
            since: T0 + since,
            type_id: Some(TypeId(1)),
            stack: Some(StackId(1)),
        });
    };
    // Two since the first snapshot, one since the second, and one at another semaphore.
    [11, 12].into_iter().for_each(|task| wait(1 << 20, task, 300 * MS, 300 * MS));
    [11, 12].into_iter().for_each(|task| wait(1 << 20, task, 1_350 * MS, 300 * MS));
    wait(1 << 20, 13, 1_350 * MS, 1_350 * MS);
    wait(1 << 30, 14, 1_350 * MS, 1_350 * MS);
    let found: Vec<Finding> = program.findings().into_iter().filter(|f| f.rule == Rule::SemaphoreStarved).collect();
    let [found] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((found.severity, found.count, found.is_estimated), (Status::Caution, Some(2), false));
    assert_eq!(
        found.sentence,
        "2 tasks hold permits of a semaphore and wait for more, in each snapshot of at least 1.05 s: app::type_1 (11) in \
         app::own (own.rs:7), app::type_1 (12) in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(found),
        [("lasts", Value::Nanos(1_050 * MS), Some(Value::Nanos(SECOND))), ("tasks", Value::Count(2), None)]
    );
    assert_eq!(found.jump.task, Some(TaskId(11)));
}

#[test]
fn a_poll_in_progress_that_keeps_no_worker_is_not_stuck() {
    let mut program = Program::new();
    let name = |function: &str, origin| Frame {
        function: Some(function.into()),
        module: None,
        file: None,
        line: None,
        origin,
    };
    program.names.add_frame(FrameId(2), name("tokio::task::blocking::block_in_place", Origin::Tokio));
    program.names.add_stack(StackId(2), vec![FrameId(1), FrameId(2)]);
    let row = program.in_progress(100, 11, 105 * MS, 100 * MS);
    program.buckets.in_progress(InProgress { ts: T0 + 1_105 * MS, lasted: 3 * SECOND, stack: Some(StackId(2)), ..row });
    assert_eq!(program.findings(), [], "in block_in_place");
    // A task of unknown type, on a thread of the pool; and a worker that has passed its core on.
    let unknown = InProgress { tid: Tid(200), task: TaskId(99), type_id: None, lasted: 3 * SECOND, ..row };
    program.buckets.in_progress(unknown);
    assert_eq!(program.findings(), []);
    let (name, role) = ("tokio".into(), Role::Blocking);
    program.names.add_thread(Tid(101), Thread { ts: T0 + MS, name, role, worker: None, runtime: None, is_gone: false });
    program.buckets.in_progress(InProgress { tid: Tid(101), lasted: 3 * SECOND, ..row });
    assert_eq!(program.findings(), []);
}

#[test]
fn a_long_poll() {
    let mut program = Program::new();
    program.poll(11, 0, 10 * MS, None);
    assert_eq!(program.findings(), [], "10 ms are not more than 10 ms");
    program.poll(12, 100 * MS, 30 * MS, None);
    program.poll(11, 200 * MS, 20 * MS, None);
    let found = program.found(Rule::LongPoll).unwrap();
    assert_eq!((found.severity, found.is_estimated), (Status::Caution, false));
    assert_eq!(
        found.sentence,
        "app::type_1 held its worker 2 times for more than 10 ms, longest 30.0 ms, in app::type_1 (app.rs:10)"
    );
    assert_eq!(
        evidence(&found),
        [
            ("longest", Value::Nanos(30 * MS), Some(Value::Nanos(10 * MS))),
            ("computing", Value::Nanos(30 * MS), None),
            ("asleep", Value::Nanos(0), None),
            ("polls", Value::Count(2), None)
        ]
    );
    let jump =
        Jump { task: Some(TaskId(12)), task_type: Some(TypeId(1)), tid: Some(Tid(100)), ts: Some(T0 + 100 * MS) };
    assert_eq!(found.jump, jump);
    program.poll(13, 400 * MS, 101 * MS, None);
    let found = program.found(Rule::LongPoll).unwrap();
    assert_eq!(found.severity, Status::Warning);
    assert_eq!(found.evidence[0].threshold, Some(Value::Nanos(100 * MS)));
    program.thresholds.very_long_poll = 200 * MS;
    assert_eq!(program.found(Rule::LongPoll).unwrap().severity, Status::Caution);
    program.thresholds.long_poll = 150 * MS;
    assert_eq!(program.findings(), [], "as the person wants it");
}

/// FIELD.md: of 217 polls over 10 ms, 2,853 ms in sum, 2,776 ms were run-queue latency; the tasks were accused.
#[test]
fn a_poll_that_waited_for_a_cpu_accuses_no_task() {
    let mut program = Program::new();
    let (tid, task, type_id) = (Tid(100), TaskId(11), Some(TypeId(1)));
    let poll =
        PollRow { ts: T0, dur: 40 * MS, task, type_id, tid, blocked: 5 * MS, run_queue: 30 * MS, wake_delay: None };
    program.buckets.poll(&poll);
    program.asleep(100, Some(11), MS, 5 * MS);
    assert_eq!(program.found(Rule::LongPoll), None, "it held its worker for 10 ms");
    let found = program.found(Rule::CpuStarved).unwrap();
    assert_eq!(found.sentence, "a poll waited for a CPU for 30.0 ms");
    assert_eq!((found.severity, found.jump.ts), (Status::Caution, Some(T0)));
    // It computed for long as well: then both are true.
    program.buckets.poll(&PollRow { ts: T0 + 100 * MS, dur: 60 * MS, blocked: 0, run_queue: 35 * MS, ..poll });
    let found = program.found(Rule::LongPoll).unwrap();
    assert_eq!(found.sentence, "app::type_1 held its worker for 25.0 ms, in app::type_1 (app.rs:10)");
    let found = program.found(Rule::CpuStarved).unwrap();
    assert_eq!(found.sentence, "polls waited for a CPU 2 times for more than 10 ms, longest 35.0 ms");
    assert_eq!(
        evidence(&found),
        [
            ("longest", Value::Nanos(35 * MS), Some(Value::Nanos(10 * MS))),
            ("total", Value::Nanos(65 * MS), None),
            ("polls", Value::Count(2), None)
        ]
    );
}

#[test]
fn a_long_poll_known_from_the_scheduler_only() {
    let mut program = Program::new();
    program.asleep(100, Some(11), 0, 15 * MS);
    let found = program.found(Rule::LongPoll).unwrap();
    assert_eq!(found.sentence, "app::type_1 held its worker for 15.0 ms, in app::own (own.rs:7)");
    assert!(!found.is_estimated, "the sleep was measured");
    assert_eq!(evidence(&found)[1], ("computing", Value::Nanos(0), None));

    // Samples do not show whether a computation was one poll or many short ones: no finding.
    let mut program = Program::new();
    for n in 0..4 {
        let (task, stack) = (Some(TaskId(21)), Some(StackId(1)));
        let ts = T0 + n * 10 * MS;
        program.buckets.sample(&SampleRow { ts, tid: Tid(101), task, stack, weight: 10 * MS });
    }
    assert_eq!(program.findings(), []);
    // The pool may compute and sleep.
    let mut program = Program::new();
    program
        .names
        .types
        .insert(TypeId(3), TaskType { name: "app::blocking".into(), file: None, line: None, kind: TaskKind::Blocking });
    program.asleep(200, Some(31), 0, 500 * MS);
    program.poll(31, 600 * MS, 500 * MS, None);
    assert_eq!(program.findings(), []);
}

#[test]
fn delays_from_wake_to_poll() {
    let mut program = Program::new();
    for n in 0..99 {
        program.poll(11, n * MS, 10_000, Some(if n % 2 == 0 { 20 * MS } else { MS }));
    }
    assert_eq!(program.findings(), [], "of so few there is no percentile");
    program.poll(21, 500 * MS, 10_000, Some(MS));
    let found = program.found(Rule::WakeDelay).unwrap();
    assert_eq!(found.severity, Status::Caution);
    let (what, Value::Nanos(p99), limit) = evidence(&found)[0] else { panic!("{found:?}") };
    assert_eq!((what, limit), ("p99", Some(Value::Nanos(5 * MS))));
    assert!((p99 - 20 * MS).abs() <= 20 * MS / 32, "{p99}");
    assert_eq!(evidence(&found)[1], ("polls", Value::Count(100), None));
    assert!(found.sentence.ends_with("; most affected: app::type_1"), "{}", found.sentence);
    assert_eq!(found.jump.task_type, Some(TypeId(1)));
    program.thresholds.wake_delay_p99 = 25 * MS;
    assert_eq!(program.findings(), []);
}

#[test]
fn a_worker_asleep_inside_polls() {
    // Of one second, 500 ms in five sleeps of a task and 100 ms of idling.
    let mut program = Program::new();
    program.thresholds.long_poll = SECOND;
    program.alive(100, 0, SECOND);
    (0..5).for_each(|n| program.asleep(100, Some(11), (n * 150 + 10) * MS, 100 * MS));
    program.asleep(100, None, 900 * MS, 100 * MS);
    assert_eq!(program.found(Rule::WorkerBlocked), None, "half of it is not more than half");
    program.asleep(100, Some(12), 780 * MS, 110 * MS);
    let found = program.found(Rule::WorkerBlocked).unwrap();
    assert_eq!(found.severity, Status::Warning);
    assert_eq!(
        found.sentence,
        "worker 0 was asleep inside polls for 61.0 % of its time, longest in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [("blocked", Value::Share(610), Some(Value::Share(500))), ("asleep", Value::Nanos(610 * MS), None)]
    );
    assert_eq!(
        found.jump,
        Jump { task: Some(TaskId(12)), task_type: Some(TypeId(1)), tid: Some(Tid(100)), ts: Some(T0 + 780 * MS) }
    );
    // A worker that was hardly seen says nothing.
    let mut program = Program::new();
    program.thresholds.long_poll = SECOND;
    program.alive(100, 0, 400 * MS);
    program.asleep(100, Some(11), 10 * MS, 380 * MS);
    assert_eq!(program.found(Rule::WorkerBlocked), None);
}

#[test]
fn workers_out_of_balance() {
    // Worker 0 runs for 90 % of a second; worker 1 for a third of that, then for less.
    let run = |idle: i64| {
        let mut program = Program::new();
        for (tid, idle) in [(100, 100 * MS), (101, idle)] {
            program.alive(tid, 0, SECOND);
            program.asleep(tid, None, 10 * MS, idle);
        }
        program
    };
    assert_eq!(run(700 * MS).findings(), [], "three times is not more than three times");
    let found = run(800 * MS).found(Rule::Imbalance).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(found.sentence, "worker 0 was on a CPU for 90.0 % of its time, worker 1 for 20.0 %");
    assert_eq!(
        evidence(&found),
        [
            ("ratio", Value::Share(4_500), Some(Value::Share(3_000))),
            ("busiest", Value::Share(900), Some(Value::Share(300))),
            ("least busy", Value::Share(200), None)
        ]
    );
    assert_eq!(found.jump.tid, Some(Tid(100)));
    // Where all idle, a ratio is no trouble.
    let mut program = Program::new();
    for (tid, idle) in [(100, 750 * MS), (101, 980 * MS)] {
        program.alive(tid, 0, SECOND);
        program.asleep(tid, None, 10 * MS, idle);
    }
    assert_eq!(program.findings(), []);
    // Nor where there is one worker.
    let mut program = Program::new();
    program.alive(100, 0, SECOND);
    assert_eq!(program.findings(), []);
}

#[test]
fn a_pool_without_a_free_thread() {
    let mut program = Program::new();
    (200..203).for_each(|tid| program.alive(tid, 0, SECOND));
    assert_eq!(program.findings(), [], "three threads are no full pool");
    program.alive(203, 0, SECOND);
    // Asleep inside what it was given to do is work as well.
    program.asleep(203, Some(31), 10 * MS, 900 * MS);
    program
        .names
        .types
        .insert(TypeId(3), TaskType { name: "app::blocking".into(), file: None, line: None, kind: TaskKind::Blocking });
    assert_eq!(program.findings(), [], "one job may be a loop that keeps its thread");
    (0..7).for_each(|n| program.asleep(200 + n % 3, Some(40 + i64::from(n)), 100 * MS * i64::from(n), 50 * MS));
    let found = program.found(Rule::PoolSaturated).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(
        found.sentence,
        "the 4 threads of the blocking pool were busy for 100 % of the time, most of it in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [
            ("busy", Value::Share(1_000), Some(Value::Share(950))),
            ("threads", Value::Count(4), None),
            ("jobs", Value::Count(8), None)
        ]
    );
    assert_eq!(found.place.as_ref().and_then(|place| place.line), Some(7));
    assert!(found.jump.tid.is_some_and(|tid| (200..204).contains(&tid.0)), "{found:?}");
    // One that waits for work: the pool has room.
    program.alive(204, 0, SECOND);
    program.asleep(204, None, 10 * MS, 900 * MS);
    assert_eq!(program.found(Rule::PoolSaturated), None);
}

#[test]
fn tasks_that_only_grow_in_number() {
    let mut program = Program::new();
    let spawned = |program: &mut Program, count: i64| {
        for n in 0..count {
            program.names.add_type_of(TaskId(1_000 + n), TypeId(2));
            program.buckets.spawn(T0 + n * MS, TaskId(1_000 + n));
        }
    };
    let watch = |program: &mut Program, dur: i64| {
        for stream in ["spawns", "ends"] {
            program.buckets.coverage(T0, dur, &stream.into(), &"still on".into());
        }
    };
    spawned(&mut program, 200);
    program.buckets.coverage(T0, SECOND, &"spawns".into(), &"still on".into());
    assert_eq!(program.findings(), [], "where ends are not watched, that there is none is no news");
    watch(&mut program, 128 * MS);
    assert_eq!(program.findings(), [], "128 ms are too little");
    program.buckets.coverage(T0 + 200 * MS, 500 * MS, &"ends".into(), &"still on".into());
    let end = |program: &mut Program, ids: std::ops::Range<i64>| {
        let outcome = TaskOutcome::Completed;
        ids.for_each(|n| program.buckets.end(TaskId(1_000 + n), Ended { ts: T0 + SECOND, outcome }));
    };
    end(&mut program, 0..20);
    let found = program.found(Rule::TasksGrow).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(
        found.sentence,
        "200 tasks of app::type_2 were spawned in the 628 ms in which spawns and ends were recorded, 20 ended"
    );
    assert_eq!(
        evidence(&found),
        [
            ("spawned", Value::Count(200), Some(Value::Count(100))),
            ("ended", Value::Count(20), None),
            ("ended, of unknown type", Value::Count(0), None),
            ("watched", Value::Nanos(628 * MS), None)
        ]
    );
    assert_eq!(found.jump, Jump { task_type: Some(TypeId(2)), ..Jump::default() });
    end(&mut program, 20..21);
    assert_eq!(program.findings(), [], "more than a tenth of them ends");

    let mut program = Program::new();
    spawned(&mut program, 99);
    watch(&mut program, SECOND);
    end(&mut program, 0..1);
    assert_eq!(program.findings(), [], "a program starts some tasks");

    // FIELD.md: of 25,274 tasks 8 were said to have ended; the type of the others was known to their polls alone.
    let mut program = Program::new();
    spawned(&mut program, 200);
    watch(&mut program, SECOND);
    assert!(program.found(Rule::TasksGrow).is_some());
    let outcome = TaskOutcome::Completed;
    (0..190).for_each(|n| program.buckets.end(TaskId(5_000 + n), Ended { ts: T0 + SECOND, outcome }));
    assert_eq!(program.findings(), [], "tasks of unknown type ended");
}

#[test]
fn resources_that_grow_steadily() {
    let run = |values: &[i32], spacing: i64| {
        let mut program = Program::new();
        program.thresholds.grow_time = SECOND;
        for (at, value) in (0..).zip(values) {
            let (rss, fds) = (i64::from(*value) << 20, Some(2 * value));
            program.buckets.process(T0 + at * spacing, 0, 0, rss, *value, fds);
        }
        program
    };
    let mut program = run(&[10, 20, 30, 40, 50], 300 * MS);
    let found = program.found(Rule::ThreadsGrow).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(found.sentence, "the number of threads rose steadily from 10 to 50 in 1.20 s");
    assert_eq!(
        evidence(&found),
        [
            ("growth", Value::Count(40), Some(Value::Count(20))),
            ("time", Value::Nanos(1_200 * MS), Some(Value::Nanos(SECOND)))
        ]
    );
    let found = program.found(Rule::FdsGrow).unwrap();
    assert_eq!(found.sentence, "the number of open file descriptors rose steadily from 20 to 100 in 1.20 s");
    let found = program.found(Rule::MemoryGrow).unwrap();
    assert_eq!(found.sentence, "resident memory rose steadily from 10.5 MB to 52.4 MB in 1.20 s");
    assert_eq!(found.evidence[0].value, Value::Count(40 << 20));

    assert_eq!(run(&[10, 20, 30, 40], 400 * MS).findings(), [], "four rows are too few");
    assert_eq!(run(&[10, 20, 30, 40, 50], 200 * MS).findings(), [], "too short a time");
    assert_eq!(run(&[10, 20, 30, 30, 50], 300 * MS).findings(), [], "with a pause");
    assert_eq!(run(&[10, 30, 50, 54, 58], 300 * MS).findings(), [], "ever more slowly: a program that warms up");
    assert_eq!(run(&[210, 220, 230, 240, 250], 300 * MS).findings(), [], "a fifth of what was there");
    assert_eq!(run(&[1, 2, 3, 4, 5], 300 * MS).findings(), [], "a few");
    // Of many rows nine are compared: a pause between two of them does not count.
    let mut rows: Vec<i32> = (0..17).map(|n| 10 + 3 * n).collect();
    rows[3] = rows[2];
    assert!(run(&rows, 100 * MS).found(Rule::ThreadsGrow).is_some());
    rows[4] = rows[2];
    assert_eq!(run(&rows, 100 * MS).found(Rule::ThreadsGrow), None);
}

#[test]
fn tasks_that_do_not_complete() {
    let run = |outcomes: &[(TaskOutcome, i64)]| {
        let mut program = Program::new();
        let mut id = 1_000;
        for (outcome, count) in outcomes {
            for _ in 0..*count {
                program.names.add_type_of(TaskId(id), TypeId(2));
                program.buckets.end(TaskId(id), Ended { ts: T0 + id * MS, outcome: *outcome });
                id += 1;
            }
        }
        program
    };
    let (completed, cancelled, panicked) = (TaskOutcome::Completed, TaskOutcome::Cancelled, TaskOutcome::Panicked);
    assert_eq!(run(&[(completed, 200), (cancelled, 49)]).findings(), []);
    let found = run(&[(completed, 2), (panicked, 3)]).found(Rule::Panics).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(found.sentence, "3 of 5 tasks of app::type_2 that ended panicked");
    assert_eq!(
        evidence(&found),
        [("panics", Value::Count(3), Some(Value::Count(1))), ("ended", Value::Count(5), None)]
    );
    let last = Jump { task: Some(TaskId(1_004)), task_type: Some(TypeId(2)), ts: Some(T0 + 1_004 * MS), tid: None };
    assert_eq!(found.jump, last);

    let found = run(&[(completed, 40), (cancelled, 50)]).found(Rule::CancelledWork).unwrap();
    assert_eq!(found.sentence, "50 of 90 tasks of app::type_2 that ended were cancelled before they completed");
    assert_eq!(
        evidence(&found),
        [("cancelled", Value::Count(50), Some(Value::Count(50))), ("ended", Value::Count(90), None)]
    );
    assert_eq!(run(&[(completed, 51), (cancelled, 50)]).findings(), [], "less than half of those that ended");
    assert_eq!(run(&[(cancelled, 49)]).findings(), [], "a few");
    // Work of the blocking pool has no await at which it could be cancelled.
    let mut program = run(&[(cancelled, 50), (panicked, 1)]);
    let file = None;
    let of_pool = TaskType { name: "app::blocking".into(), file, line: None, kind: TaskKind::Blocking };
    program.names.types.insert(TypeId(2), of_pool);
    assert_eq!(program.findings(), []);
}

#[test]
fn a_task_that_wakes_itself() {
    let wakes = |count: i64, by: i64| {
        let mut program = Program::new();
        (0..count).for_each(|n| program.buckets.wake(T0 + n * 100_000, TaskId(11), Some(TaskId(by))));
        program
    };
    assert_eq!(wakes(1_999, 11).findings(), [], "a thousand a second, for two seconds");
    assert_eq!(wakes(5_000, 12).findings(), [], "woken by another one");
    let found = wakes(2_000, 11).found(Rule::SelfWaking).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(found.sentence, "a task of app::type_1 woke itself 2000 times");
    assert_eq!(
        evidence(&found),
        [("wakes by itself", Value::Count(2_000), Some(Value::Count(2_000))), ("tasks", Value::Count(1), None)]
    );
    assert_eq!((found.jump.task, found.jump.task_type), (Some(TaskId(11)), Some(TypeId(1))));
    // A channel's reader is mostly woken by others, and now and then by itself.
    let mut program = wakes(2_000, 11);
    (0..2_001).for_each(|n| program.buckets.wake(T0 + n * 100_000, TaskId(11), Some(TaskId(12))));
    assert_eq!(program.findings(), []);
}

#[test]
fn a_lock_whose_owner_sleeps() {
    let run = |waker: i32, owner_until: i64, owner_stack: i64| {
        let mut program = Program::new();
        program.thresholds.long_poll = SECOND;
        let lock = "std::sys::sync::mutex::futex::Mutex::lock_contended";
        let frame = |function: &str, line| Frame {
            function: Some(function.into()),
            module: None,
            file: Some("src/own.rs".into()),
            line: Some(line),
            origin: if function == lock { Origin::Std } else { Origin::Own },
        };
        program.names.add_frame(FrameId(2), frame(lock, 1));
        program.names.add_frame(FrameId(3), frame("app::wants_it", 44));
        program.names.add_stack(StackId(2), vec![FrameId(2), FrameId(3)]);
        let wait = OffCpuRow {
            ts: T0 + 5 * MS,
            dur: 35 * MS,
            tid: Tid(100),
            state: b'S',
            task: Some(TaskId(11)),
            stack: Some(StackId(2)),
            run_queue: None,
            waker: Some(Tid(waker)),
            intervals: None,
        };
        let (tid, task, stack) = (Tid(101), Some(TaskId(21)), Some(StackId(owner_stack)));
        program.buckets.off_cpu(&OffCpuRow {
            ts: T0,
            dur: owner_until,
            tid,
            task,
            stack,
            waker: None,
            intervals: None,
            ..wait
        });
        program.buckets.off_cpu(&wait);
        program
    };
    let found = run(101, 30 * MS, 1).found(Rule::LockOwnerAsleep).unwrap();
    assert_eq!(found.severity, Status::Caution);
    assert_eq!(
        found.sentence,
        "app::type_1 waited 35.0 ms for a lock whose holder, app::type_2, slept in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [
            ("longest", Value::Nanos(35 * MS), Some(Value::Nanos(MS))),
            ("waits", Value::Count(1), None),
            ("total", Value::Nanos(35 * MS), None)
        ]
    );
    assert_eq!(found.jump.task, Some(TaskId(11)));
    assert_eq!(run(102, 30 * MS, 1).found(Rule::LockOwnerAsleep), None, "another one released it");
    assert_eq!(run(101, 4 * MS, 1).found(Rule::LockOwnerAsleep), None, "it had slept before");
    // FIELD.md: of 20 waits, 15 were laid on another waiter.
    assert_eq!(run(101, 30 * MS, 2).found(Rule::LockOwnerAsleep), None, "it had waited for the lock as well");
}

#[test]
fn a_lock_whose_owner_computes() {
    let frame = |function: &str, origin| Frame {
        function: Some(function.into()),
        module: None,
        file: Some("src/own.rs".into()),
        line: Some(44),
        origin,
    };
    // Ten waits of 20 ms on worker 0, each with a sample of task 21 on worker 1 for each 10 ms that it computed.
    let run = |waker: i32, samples: i64, stack: i64, task: i64| {
        let mut program = Program::new();
        program.thresholds.long_poll = SECOND;
        program
            .names
            .add_frame(FrameId(2), frame("std::sys::sync::rwlock::futex::RwLock::read_contended", Origin::Std));
        program.names.add_frame(FrameId(3), frame("app::wants_it", Origin::Own));
        program.names.add_stack(StackId(2), vec![FrameId(2), FrameId(3)]);
        for n in 0..10 {
            let ts = T0 + n * 100 * MS;
            program.buckets.off_cpu(&OffCpuRow {
                ts,
                dur: 20 * MS,
                tid: Tid(100),
                state: b'S',
                task: Some(TaskId(11)),
                stack: Some(StackId(2)),
                run_queue: None,
                waker: Some(Tid(waker)),
                intervals: None,
            });
            for k in 0..samples {
                let (ts, stack, task) = (ts + (2 + 3 * k) * MS, Some(StackId(stack)), Some(TaskId(task)));
                program.buckets.sample(&SampleRow { ts, tid: Tid(101), task, stack, weight: 5 * MS });
            }
        }
        program
    };
    let found = run(101, 3, 1, 21).found(Rule::LockOwnerBusy).unwrap();
    assert_eq!((found.severity, found.is_estimated), (Status::Caution, true));
    assert_eq!(
        found.sentence,
        "app::type_1 waited 10 times, longest 20.0 ms for a lock whose holder, app::type_2, computed in app::own (own.rs:7)"
    );
    assert_eq!(
        evidence(&found),
        [
            ("waiting", Value::Nanos(200 * MS), Some(Value::Nanos(30 * MS))),
            ("waits", Value::Count(10), None),
            ("longest", Value::Nanos(20 * MS), None)
        ]
    );
    assert_eq!(run(101, 1, 1, 21).found(Rule::LockOwnerBusy), None, "it computed for a quarter of the time");
    assert_eq!(run(102, 3, 1, 21).found(Rule::LockOwnerBusy), None, "another one released it");
    // It slept as well, and not for a lock.
    let mut program = run(101, 3, 1, 21);
    (0..10).for_each(|n| program.asleep(101, Some(21), n * 100 * MS + 5 * MS, 10 * MS));
    assert_eq!(program.found(Rule::LockOwnerBusy), None);
    assert!(program.found(Rule::LockOwnerAsleep).is_some());
    // Waits that are few and short are normal.
    let mut program = run(101, 3, 1, 21);
    program.thresholds.lock_busy = 101 * MS;
    assert_eq!(program.found(Rule::LockOwnerBusy), None);
}

#[test]
fn sleeps_that_are_short_add_up() {
    let mut program = Program::new();
    (0..299).for_each(|n| program.asleep(100, Some(11), n * 5 * MS, MS / 5));
    assert_eq!(program.findings(), [], "less than 60 ms in two seconds");
    program.asleep(100, Some(11), 1_900 * MS, MS / 5);
    let found = program.found(Rule::ShortSleeps).unwrap();
    assert_eq!(
        found.sentence,
        "app::type_1 slept inside polls 300 times for less than 10 ms, 60.0 ms in total, most of it in app::own (own.rs:7)"
    );
    assert_eq!((found.severity, found.is_estimated), (Status::Caution, false));
    assert_eq!(
        evidence(&found),
        [
            ("asleep", Value::Nanos(60 * MS), Some(Value::Nanos(30 * MS))),
            ("sleeps", Value::Count(300), None),
            ("longest", Value::Nanos(MS / 5), None)
        ]
    );
    // Known as a sum only; work of the pool; and a task that ran while another thread had the worker's core.
    let sum = |tid: i32, task: i64, at: i64| OffCpuRow {
        ts: T0 + at,
        dur: 70 * MS,
        tid: Tid(tid),
        state: b'+',
        task: Some(TaskId(task)),
        stack: None,
        run_queue: Some(5 * MS),
        waker: None,
        intervals: Some(130),
    };
    program.buckets.off_cpu(&sum(101, 21, 500 * MS));
    program.buckets.off_cpu(&sum(200, 99, 500 * MS));
    let found: Vec<_> = program.findings().into_iter().filter(|f| f.rule == Rule::ShortSleeps).collect();
    assert_eq!(found.iter().map(|f| f.is_estimated).collect::<Vec<_>>(), [true, false]);
    assert_eq!(
        found[0].sentence,
        "app::type_2 slept inside polls 130 times for less than 10 ms, 65.0 ms in total, most of it in app::type_2 (app.rs:10)"
    );
    let thread = |ts, role| Thread { ts, name: "tokio".into(), role, worker: None, runtime: None, is_gone: false };
    program.names.add_thread(Tid(101), thread(T0 + 100 * MS, Role::Blocking));
    program.names.add_thread(Tid(101), thread(T0 + SECOND, Role::Worker));
    assert!(!program.found(Rule::ShortSleeps).unwrap().is_estimated);
}

#[test]
fn a_task_that_has_handed_its_workers_core_over_keeps_nobody_waiting() {
    let thread = |ts, role| Thread { ts, name: "tokio".into(), role, worker: Some(0), runtime: None, is_gone: false };
    let mut program = Program::new();
    program.names.add_thread(Tid(100), thread(T0 + 100 * MS, Role::Blocking));
    program.names.add_thread(Tid(100), thread(T0 + 500 * MS, Role::Worker));
    // It falls asleep right before another thread is seen with the core.
    program.asleep(100, Some(11), 99 * MS, 200 * MS);
    program.poll(11, 300 * MS, 150 * MS, None);
    assert_eq!(program.findings(), []);
    program.asleep(100, Some(11), 600 * MS, 15 * MS);
    assert_eq!(program.found(Rule::LongPoll).unwrap().evidence[0].value, Value::Nanos(15 * MS));

    // By the stack: called by the task. Further out, it is how the loop began that polls the task.
    let frame = |function: &str, origin| Frame {
        function: Some(function.into()),
        module: None,
        file: None,
        line: None,
        origin,
    };
    for (called, stack) in [(true, vec![1, 2, 3]), (false, vec![1, 3, 2])] {
        let mut program = Program::new();
        program.names.add_frame(FrameId(2), frame("tokio::task::blocking::block_in_place", Origin::Tokio));
        program.names.add_frame(FrameId(3), frame("tokio::runtime::task::raw::poll", Origin::Tokio));
        program.names.add_stack(StackId(1), stack.into_iter().map(FrameId).collect());
        program.alive(100, 0, SECOND);
        program.asleep(100, Some(11), 100 * MS, 800 * MS);
        program.poll(11, 1_200 * MS, 100 * MS, None);
        let at = T0 + 1_250 * MS;
        let (task, stack) = (Some(TaskId(11)), Some(StackId(1)));
        program.buckets.sample(&SampleRow { ts: at, tid: Tid(100), task, stack, weight: 10 * MS });
        let rules: Vec<Rule> = program.findings().iter().map(|f| f.rule).collect();
        assert_eq!(rules, if called { vec![] } else { vec![Rule::LongPoll, Rule::WorkerBlocked] });
    }
}

#[test]
fn a_task_without_a_type_counts_with_own_code_on_a_workers_thread() {
    for (tid, has_stack, is_found) in [(100, true, true), (100, false, false), (200, true, false), (300, true, false)] {
        let mut program = Program::new();
        program.buckets.off_cpu(&OffCpuRow {
            ts: T0,
            dur: 15 * MS,
            tid: Tid(tid),
            state: b'S',
            task: Some(TaskId(99)),
            stack: has_stack.then_some(StackId(1)),
            run_queue: None,
            waker: None,
            intervals: None,
        });
        assert_eq!(program.found(Rule::LongPoll).is_some(), is_found, "thread {tid}");
    }
}

#[test]
fn a_share_of_a_worker_where_polls_were_not_recorded() {
    let mut program = Program::new();
    let sample = |program: &mut Program, n: i64| {
        let (task, stack) = (Some(TaskId(21)), Some(StackId(1)));
        let ts = T0 + n * 20 * MS;
        program.buckets.sample(&SampleRow { ts, tid: Tid(101), task, stack, weight: 10 * MS });
    };
    (0..81).for_each(|n| sample(&mut program, n));
    (81..100).for_each(|n| program.asleep(100, None, n * 20 * MS, 10_000));
    assert_eq!(program.found(Rule::CpuShare), None, "40 % is not more than that");
    (81..100).for_each(|n| sample(&mut program, n));
    let found = program.found(Rule::CpuShare).unwrap();
    assert_eq!(
        found.sentence,
        "app::type_2 took 49.5 % of the time of worker 1 in the 2.00 s in which polls were not recorded, most of it in \
         app::own (own.rs:7)"
    );
    assert!(found.is_estimated);
    assert_eq!(
        evidence(&found),
        [("share", Value::Share(495), Some(Value::Share(400))), ("samples", Value::Count(100), None)]
    );
    // One recorded poll in a bucket: there they were.
    (0..20).for_each(|n| program.poll(11, n * 100 * MS, 1_000, None));
    assert_eq!(program.found(Rule::CpuShare), None);
}
