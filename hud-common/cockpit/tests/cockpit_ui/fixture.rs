//! Snapshots made by hand: views of data, to see how screens draw them.

use hud_cockpit::*;

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLI;
/// 2026-11-24 02:30:00 UTC.
pub(crate) const START: i64 = 1_795_487_400 * SECOND;
/// 42.5 s later.
pub(crate) const AT: i64 = START + 42_500 * MILLI;

/// What a name is made of.
pub(crate) type Names = fn(&str) -> String;

/// Names as decent programs have them.
pub(crate) fn decent(name: &str) -> String {
    name.into()
}

/// Names that would move the cursor, hide text, or draw over neighbours.
pub(crate) fn hostile(name: &str) -> String {
    match name.len() % 6 {
        0 => format!("\x1b[2J\x1b[H\x1b]0;owned\x07{name}\r\n\t"),
        1 => format!("日本語の関数名::全角テスト::{name}"),
        2 => format!("e\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}{name}{}", "\u{336}".repeat(200)),
        3 => format!("\u{202e}{name}\u{2066}\u{200d}👩\u{200d}👩\u{fe0f}\u{1f1e9}\u{1f1ea}"),
        4 => format!("{}{name}", "very::long::path::".repeat(4_096 / 18)),
        _ => format!("\u{9b}31m{name}\u{0}\u{ad}\u{1160}\u{e0041}ﷺ"),
    }
}

fn type_ref(names: Names, id: i64) -> TypeRef {
    const NAMES: [&str; 6] = [
        "shop::orders::checkout",
        "shop::db::pool::Connection::run",
        "shop::http::serve_connection",
        "shop::report::render_monthly",
        "hyper::server::conn::http1::UpgradeableConnection<TokioIo<TcpStream>>",
        "shop::metrics::flush",
    ];
    let name = NAMES[usize::try_from(id).unwrap() % NAMES.len()];
    TypeRef { id: TypeId(id), name: names(name).into() }
}

fn task_ref(names: Names, id: i64) -> TaskRef {
    TaskRef { id: TaskId(id), task_type: (id % 7 != 6).then(|| type_ref(names, id % 6)) }
}

fn place(names: Names, function: &str, file: &str, line: i32, origin: Origin) -> Place {
    Place { function: names(function).into(), file: Some(names(file).into()), line: Some(line), origin }
}

fn load(running: i64, blocked: i64, waiting: i64) -> Load {
    let whole = 10 * SECOND;
    let part = |percent: i64| whole / 100 * percent;
    Load {
        running: part(running),
        blocked: part(blocked),
        waiting: part(waiting),
        idle: whole - part(running + blocked + waiting),
    }
}

fn distribution(scale: i64) -> Distribution {
    let mut histogram = Histogram::default();
    let (mut sum, mut longest) = (0, 0);
    for n in 1..400_i64 {
        // From microseconds to a few long ones.
        let value = (n * n * n * scale) / 40 + 700;
        let count = 1 + 4_000 / n;
        histogram.add(Histogram::slot(value), u64::try_from(count).unwrap());
        sum += value * count;
        longest = longest.max(value);
    }
    Distribution::of(histogram, sum, longest)
}

fn interval(names: Names, n: i64) -> BlockingInterval {
    let is_blocked = n % 3 != 1;
    let (function, file) = if is_blocked {
        ("shop::db::pool::Connection::run::{async_fn#0}", "src/db/pool.rs")
    } else {
        ("shop::report::render_monthly::{async_fn#0}", "src/report.rs")
    };
    let blamed = place(names, function, file, 118, Origin::Own);
    let mut stack = vec![
        place(names, "clock_nanosleep", "/usr/lib/libc.so.6", 0, Origin::System),
        place(names, "std::thread::sleep", "library/std/src/thread/mod.rs", 881, Origin::Std),
        blamed.clone(),
        place(names, "shop::orders::checkout::{async_fn#0}", "src/orders.rs", 57, Origin::Own),
    ];
    for depth in 0..12 {
        stack.push(place(
            names,
            "tokio::runtime::task::harness::poll_future",
            "harness.rs",
            500 + depth,
            Origin::Tokio,
        ));
    }
    BlockingInterval {
        ts: AT - n * 173 * MILLI,
        dur: if is_blocked { 312 * MILLI / (n + 1) } else { 48 * MILLI / (n + 1) },
        cause: if is_blocked { Cause::Blocked } else { Cause::Cpu },
        task: task_ref(names, 17 + n),
        tid: Tid(2_000 + i32::try_from(n % 4).unwrap()),
        worker: Some((Some(RuntimeId(0)), i32::try_from(n % 4).unwrap())),
        place: blamed,
        stack,
        stack_id: Some(StackId(n)),
        waker: Some(Waker {
            tid: Some(Tid(2_001)),
            thread: Some(names("tokio-rt-worker").into()),
            task: Some(task_ref(names, 9)),
        }),
        in_progress: (n == 3).then_some(14_200 * MILLI),
        is_estimated: n % 5 == 4,
    }
}

fn worker(names: Names, n: i32, load: Load) -> Worker {
    Worker {
        tid: Tid(2_000 + n),
        name: names("tokio-rt-worker").into(),
        worker: Some(n % 4),
        load,
        polls: (n % 3 != 2).then_some(12_345 * i64::from(n + 1)),
        polling: 3 * SECOND,
        longest_poll: (n % 3 != 2).then_some(312 * MILLI / i64::from(n + 1)),
        last_seen: Some(AT - 3 * MILLI),
        now: match n % 4 {
            0 => Now::Polling { task: task_ref(names, 17), since: AT - 120 * MILLI },
            1 => Now::Running { since: AT - 2 * MILLI },
            2 => Now::Quiet { since: AT - 900 * MILLI },
            _ if n == 3 => {
                Now::InProgress { task: task_ref(names, 18), lasted: 14_200 * MILLI, state: PollState::Blocked }
            }
            _ => Now::Unseen,
        },
    }
}

fn task_row(names: Names, id: i64) -> TaskRow {
    TaskRow {
        task: task_ref(names, id),
        kind: if id % 11 == 10 { TaskKind::Blocking } else { TaskKind::Task },
        file: Some(names("src/db/pool.rs").into()),
        line: Some(100 + i32::try_from(id).unwrap()),
        polls: 100_000 / (id + 1),
        busy: 4 * SECOND / (id + 1),
        blocked: if id % 4 == 1 { 2 * SECOND / (id + 1) } else { 0 },
        longest_poll: Some(312 * MILLI / (id + 1)),
        in_progress: (id == 18).then_some(14_200 * MILLI),
        cpu: 3 * SECOND / (id + 1),
        wakes: 90_000 / (id + 1),
        self_wakes: if id % 5 == 3 { 40_000 } else { 0 },
        wake_delay_mean: (id % 3 != 2).then_some(40_000 * (id + 1)),
        wake_delay_longest: Some(9 * MILLI),
        spawned: Some(Spawned {
            by: SpawnedBy { ts: START + id * 10 * MILLI, tid: Tid(2_001), parent: Some(TaskId(3)) },
            parent: (id % 2 == 0).then(|| task_ref(names, 3)),
        }),
        ended: (id % 9 == 8).then_some(Ended { ts: AT - SECOND, outcome: TaskOutcome::Panicked }),
        first_seen: AT - 10 * SECOND,
        last_seen: AT - id * 7 * MILLI,
    }
}

fn lanes(names: Names) -> Vec<Lane> {
    (0..6)
        .map(|n: i32| {
            let at = i64::from(n);
            Lane {
                tid: Tid(2_000 + n),
                name: names("tokio-rt-worker").into(),
                role: if n < 4 { Role::Worker } else { Role::Blocking },
                runtime: Some(RuntimeId(0)),
                worker: (n < 4).then_some(n),
                steps: (0..100)
                    .filter(|step| (step + at) % 13 != 0)
                    .map(|step| Step {
                        ts: AT - 10 * SECOND + step * Bucket::NANOS,
                        load: load((step * 7 + at * 20) % 90, 0, 5),
                        polls: step * 13,
                        longest_poll: step * MILLI,
                        task_type: Some(type_ref(names, (step / 10 + at) % 6)),
                    })
                    .collect(),
                spans: (0..20)
                    .map(|span| Span {
                        ts: AT - 10 * SECOND + span * 480 * MILLI + at * 40 * MILLI,
                        dur: (span % 5 + 1) * 40 * MILLI,
                        kind: [SpanKind::Poll, SpanKind::Asleep, SpanKind::Waiting]
                            [usize::try_from((span + at) % 3).unwrap()],
                        task: task_ref(names, 17 + span),
                        is_long: span % 2 == 0,
                    })
                    .collect(),
                left_out: at * 100,
            }
        })
        .collect()
}

fn flame(names: Names) -> Flame {
    let node = |function: &str, origin, depth, own: i64, total: i64| FlameNode {
        function: if depth == 0 { "".into() } else { names(function).into() },
        file: Some(names("src/main.rs").into()),
        origin,
        depth,
        own: own * MILLI,
        total: total * MILLI,
        folded: if function == "tokio runtime" { 11 } else { 0 },
    };
    let nodes = vec![
        node("", Origin::Unknown, 0, 0, 9_000),
        node("tokio runtime", Origin::Tokio, 1, 200, 8_500),
        node("shop::report::render_monthly::{async_fn#0}", Origin::Own, 2, 2_000, 5_000),
        node("serde_json::ser::to_vec", Origin::Dependency, 3, 1_500, 2_500),
        node("core::fmt::num::fmt_u64", Origin::Std, 4, 1_000, 1_000),
        node("sha2::compress", Origin::Dependency, 3, 500, 500),
        node("shop::http::serve_connection::{async_fn#0}", Origin::Own, 2, 800, 3_000),
        node("hyper::proto::h1::Dispatcher::poll", Origin::Dependency, 3, 2_200, 2_200),
        node("shop::metrics::flush", Origin::Own, 2, 60, 60),
        node("write", Origin::System, 2, 50, 50),
        node("shop::audit::append", Origin::Own, 2, 40, 40),
        node("shop::audit::rotate", Origin::Own, 2, 30, 30),
        node("shop::audit::sync", Origin::Own, 2, 20, 20),
        node("main", Origin::Own, 1, 500, 500),
    ];
    Flame { kind: FlameKind::Cpu, task_type: Some(type_ref(names, 3)), nodes, left_out: 12 * MILLI }
}

fn await_stack(names: Names, n: i64) -> Vec<Place> {
    let own = place(names, "shop::db::pool::Connection::run::{async_fn#0}", "src/db/pool.rs", 131, Origin::Own);
    let caller = place(names, "shop::orders::checkout::{async_fn#0}", "src/orders.rs", 58, Origin::Own);
    let leaf = place(names, "tokio::sync::mutex::Mutex<T>::lock", "tokio-1.54.1/src/sync/mutex.rs", 440, Origin::Tokio);
    if n % 3 == 2 { Vec::new() } else { vec![leaf, own, caller] }
}

fn awaited(names: Names, n: i64) -> AwaitedBy {
    match n % 2 {
        0 => AwaitedBy {
            who: Waiter::Task(task_ref(names, 9)),
            state: Some(TaskState::Suspended),
            place: Some(place(names, "shop::report::render_monthly", "src/report.rs", 77, Origin::Own)),
        },
        _ => AwaitedBy { who: Waiter::Thread(Tid(2_004)), state: Some(TaskState::Running), place: None },
    }
}

const RESOURCES: [Option<(&str, Option<&str>)>; 6] = [
    Some(("mutex", Some("tokio Mutex<shop::Ledger>"))),
    Some(("timer", None)),
    Some(("io", Some("TcpStream fd 11, peer 10.0.0.7:443"))),
    Some(("mpsc_receive", None)),
    Some(("a_later_kind", None)),
    None,
];

fn waiting_task(names: Names, id: i64) -> WaitingTask {
    let of = RESOURCES[usize::try_from(id % 6).unwrap()];
    WaitingTask {
        who: if id % 10 == 4 { Waiter::Thread(Tid(2_004)) } else { Waiter::Task(task_ref(names, id)) },
        since: AT - 3_200 * MILLI - (40 - id) * 700 * MILLI,
        place: place(names, "shop::db::pool::Connection::run::{async_fn#0}", "src/db/pool.rs", 131, Origin::Own),
        resource: of.map(|(kind, _)| kind.into()),
        detail: of.and_then(|(_, detail)| detail).map(|detail| names(detail).into()),
        deadline: (id % 6 == 1).then_some(AT + (id - 10) * 900 * MILLI),
        holder: (id % 6 == 0 || id == 17).then(|| awaited(names, id)),
        branches: if id % 5 == 2 { 3 } else { 1 },
        cycle: (id % 12 == 0).then_some(12),
        stack: await_stack(names, id),
    }
}

fn waiting(names: Names) -> Waiting {
    let place_row = |n: i64| {
        let task = waiting_task(names, n);
        WaitingPlace {
            tasks: 900 / (n + 1),
            longest: AT - 3_200 * MILLI - task.since,
            shortest: 0,
            place: task.place,
            resource: task.resource,
            detail: task.detail.filter(|_| n != 2),
            resources: if n == 1 { 0 } else { 1 + n * n },
            holder: task.holder,
            task_type: (n != 3).then(|| type_ref(names, n)),
            deadlocked: if n == 0 { 2 } else { 0 },
            first: task.who,
            stack: task.stack,
        }
    };
    Waiting {
        ts: Some(AT - 3_200 * MILLI),
        gaps: Some("2 await stacks were not complete".into()),
        counts: StateCounts { running: 2, scheduled: 1, suspended: 1_231, never_polled: 0, finished: 4, cancelled: 0 },
        place_count: 7,
        places: (0..7).map(place_row).collect(),
        count: 1_231,
        tasks: (0..40).map(|id| waiting_task(names, id)).collect(),
        left_out: 0,
    }
}

fn dials(n: i64) -> Dials {
    let mut dials = Dials::default();
    for (dial, value) in Dial::ALL.into_iter().zip([n * 100, n * 30_000, n * 6_000, n, n / 10, n / 2]) {
        dials.set(dial, Some(value));
    }
    dials
}

/// A busy window with everything in it.
pub(crate) fn rich(names: Names) -> Snapshot {
    let function = "shop::db::pool::Connection::run::{async_fn#0}";
    let culprit = |n: i64, cause, function: &str, of: i64| Culprit {
        cause,
        place: place(names, function, "/home/dev/shop/src/db/pool.rs", 118, Origin::Own),
        task_type: Some(type_ref(names, of)),
        count: 40 / n,
        total: 2_900 * MILLI / n,
        median: 60 * MILLI / n,
        longest: 312 * MILLI / (n * n),
        in_progress: (n == 2).then_some(14_200 * MILLI),
        jump: Jump {
            task: Some(TaskId(17)),
            task_type: Some(TypeId(of)),
            tid: Some(Tid(2_000)),
            ts: Some(AT - SECOND),
        },
        is_estimated: n % 2 == 0,
    };
    let hotspot = |n: i64, function: &str, file: &str, origin| Hotspot {
        place: place(names, function, file, 40 + i32::try_from(n).unwrap(), origin),
        own: 3_300 * MILLI / n,
        leaf: 900 * MILLI / n,
        total: 3_300 * MILLI / n * (1 + n % 3),
        samples: 330 / n,
        task_type: (n % 4 != 3).then(|| type_ref(names, n % 6)),
        calling: (n % 2 == 1).then(|| names("core::fmt::num::fmt_u64").into()),
    };
    let hotspots: Vec<Hotspot> = (1..30)
        .map(|n| match n % 3 {
            0 => hotspot(
                n,
                "hyper::proto::h1::Dispatcher::poll",
                "hyper-1.6.0/src/proto/h1/dispatch.rs",
                Origin::Dependency,
            ),
            1 => hotspot(n, "shop::report::render_monthly::{async_fn#0}", "/home/dev/shop/src/report.rs", Origin::Own),
            _ => hotspot(
                n,
                "shop::orders::checkout::{async_fn#0}::{closure#1}",
                "/home/dev/shop/src/orders.rs",
                Origin::Own,
            ),
        })
        .collect();
    let page = TaskPage {
        task: task_ref(names, 17),
        row: Some(task_row(names, 17)),
        durations: distribution(9),
        wake_delay: distribution(1),
        last_polls: (0..40)
            .map(|n| PollSpan {
                ts: AT - n * 31 * MILLI,
                dur: 312 * MILLI / (n + 1),
                tid: Tid(2_000 + i32::try_from(n % 4).unwrap()),
                blocked: if n % 3 == 0 { 300 * MILLI / (n + 1) } else { 0 },
                run_queue: n * 1_000,
                wake_delay: (n % 4 != 3).then_some(n * 20_000),
            })
            .collect(),
        wakers: (0..5)
            .map(|n| {
                let waker = Waker {
                    tid: (n != 4).then_some(Tid(2_000 + n)),
                    thread: (n != 3).then(|| names("tokio-rt-worker").into()),
                    task: (n < 2).then(|| task_ref(names, 9)),
                };
                (waker, i64::from(1_000 / (n + 1)))
            })
            .collect(),
        intervals: (0..9).map(|n| interval(names, n)).collect(),
        state: Some(StateNow {
            ts: AT - 3_200 * MILLI,
            since: AT - 17_400 * MILLI,
            state: TaskState::Suspended,
            waits: vec![waiting_task(names, 17)],
        }),
    };
    let finding = |rule, severity, sentence: String| Finding {
        rule,
        severity,
        sentence,
        evidence: vec![
            Evidence {
                what: "longest".into(),
                value: Value::Nanos(312 * MILLI),
                threshold: Some(Value::Nanos(100 * MILLI)),
            },
            Evidence { what: "polls past it".into(), value: Value::Count(40), threshold: None },
            Evidence { what: "of its time".into(), value: Value::Share(612), threshold: Some(Value::Share(500)) },
        ],
        place: None,
        count: Some(40),
        total: None,
        jump: Jump { task: Some(TaskId(17)), ..Jump::default() },
        is_estimated: rule == Rule::Imbalance,
    };
    let stream = |name: &str, on: i64, off: i64, unknown: i64, rows: i64, reason: Option<&str>| StreamCoverage {
        stream: name.into(),
        on: on * MILLI,
        off: off * MILLI,
        unknown: unknown * MILLI,
        rows,
        reason: reason.map(Name::from),
    };
    Snapshot {
        session: SessionFacts {
            id: "2026-11-24T02-30-00-shop-4711".into(),
            host: names("web-3"),
            pid: 4_711,
            exe: names("/srv/shop/bin/shop"),
            tokio_version: Some("1.54.1".into()),
            cpus: 8,
            start: START,
            end: None,
            end_reason: None,
            polls: "auto".into(),
            freq: 99,
            state: Some("10s".into()),
            notes: vec![names("the kernel does not measure run times of programs")],
        },
        mode: Mode::Live { newest: AT - 40 * MILLI, skipped: (0, 0), restarts: 0 },
        window: Window::ending(AT, 10 * SECOND),
        at: AT,
        status: Status::Warning,
        findings: vec![
            finding(
                Rule::LongPoll,
                Status::Warning,
                format!("{} held worker w0 for 312 ms, asleep in {}", names("shop::orders::checkout"), names(function)),
            ),
            finding(Rule::WorkerBlocked, Status::Caution, "worker w0 is asleep inside polls 61.2% of its time".into()),
            finding(
                Rule::Imbalance,
                Status::Caution,
                "worker w0 is 4.1 times as busy as worker w3 of the same runtime".into(),
            ),
            finding(
                Rule::SelfWaking,
                Status::Caution,
                format!("{} wakes itself 4,000 times a second", names("shop::metrics::flush")),
            ),
        ],
        hotspots: Hotspots {
            weight: 12 * SECOND,
            samples: 1_188,
            by_line: hotspots.clone(),
            by_function: hotspots,
            by_type: (0..7)
                .map(|n| TypeHotspot {
                    task_type: (n != 4).then(|| type_ref(names, n % 6)),
                    own: 4 * SECOND / (n + 1),
                    samples: 396 / (n + 1),
                    place: (n != 5).then(|| place(names, function, "src/db/pool.rs", 118, Origin::Own)),
                })
                .collect(),
        },
        workers: Workers {
            runtimes: vec![
                Runtime {
                    id: Some(RuntimeId(0)),
                    workers: vec![
                        worker(names, 0, load(25, 62, 3)),
                        worker(names, 1, load(71, 0, 12)),
                        worker(names, 2, load(40, 1, 1)),
                        worker(names, 3, load(15, 0, 0)),
                    ],
                },
                Runtime { id: None, workers: vec![worker(names, 6, load(2, 0, 0))] },
            ],
            pool: Pool {
                threads: 2,
                load: load(10, 60, 5),
                workers: vec![worker(names, 4, load(10, 80, 0)), worker(names, 5, load(0, 20, 0))],
            },
            others: 3,
        },
        blocking: Blocking {
            culprits: vec![
                culprit(1, Cause::Blocked, function, 0),
                culprit(2, Cause::Cpu, "shop::report::render_monthly::{async_fn#0}", 3),
                culprit(3, Cause::Blocked, "shop::config::reload::{async_fn#0}", 1),
                culprit(4, Cause::Cpu, "regex_automata::hybrid::search::find_fwd", 5),
            ],
            newest: (0..30).map(|n| interval(names, n)).collect(),
            worst: (0..30).map(|n| interval(names, n)).collect(),
            count: 93,
            total: 5_300 * MILLI,
            left_out: 7,
        },
        tasks: Tasks {
            count: 1_234,
            matching: 1_234,
            spawned: Some(210),
            ended: Some(190),
            left_out: 0,
            rows: (0..60).map(|n| task_row(names, n)).collect(),
        },
        types: (0..6)
            .map(|n| TypeRow {
                task_type: (n != 5).then(|| type_ref(names, n)),
                kind: TaskKind::Task,
                file: Some(names("src/http.rs").into()),
                line: Some(70),
                tasks: 200 / (n + 1),
                polls: 50_000 / (n + 1),
                busy: 3 * SECOND / (n + 1),
                blocked: 2 * SECOND / (n + 1),
                cpu: SECOND,
                in_progress: (n == 4).then_some(14_200 * MILLI),
                durations: distribution(9 - n),
                wake_delay: distribution(1),
                spawned: 70,
                ended: 60,
            })
            .collect(),
        waiting: waiting(names),
        task: Some(page),
        timeline: Timeline { lanes: lanes(names), span_min: 2 * MILLI },
        flame: flame(names),
        polls: distribution(9),
        wake_delay: distribution(1),
        dials: dials(450),
        seconds: (0..42).map(|n| (START + n * SECOND, dials(n * n))).collect(),
        history: (0..100)
            .map(|n| Tick {
                ts: AT - 10 * SECOND + n * Bucket::NANOS,
                load: load(n % 80, n % 15, 2),
                polls: n * 130,
                polls_recorded: 62 * MILLI,
                cpu: n * MILLI,
                longest_poll: n * MILLI,
                longest_block: n * MILLI,
                lost: i64::from(n == 50),
                status: match n {
                    30..33 => Status::Caution,
                    70..72 => Status::Warning,
                    _ => Status::Normal,
                },
            })
            .collect(),
        coverage: Coverage {
            streams: vec![
                stream("off_cpu", 10_000, 0, 0, 40_123, None),
                stream("polls", 6_200, 3_800, 0, 123_456, Some("budget")),
                stream("samples", 9_000, 0, 1_000, 1_188, None),
                stream("wakes", 0, 10_000, 0, 0, Some("budget")),
            ],
            known_until: Some(AT - SECOND),
            unread: 0,
        },
        drops: Drops {
            lost: 1_204,
            by_stage: vec![
                LostEvents { stream: "polls".into(), stage: "ring full".into(), lost: 1_200 },
                LostEvents { stream: "wakes".into(), stage: "writer".into(), lost: 4 },
            ],
        },
        overhead: Some(Overhead {
            rows: 10,
            probes: Some(150 * MILLI),
            recorder_cpu: 90 * MILLI,
            recorder_rss: 48_000_000,
            ring_bytes: 12_000_000,
            events: 170_000,
        }),
        process: Some(ProcessFigures {
            rows: 10,
            cpu_user: 13 * SECOND,
            cpu_sys: SECOND,
            rss: 512_000_000,
            threads: 9,
            fds: Some(120),
        }),
    }
}

/// A window in which nothing was seen.
pub(crate) fn empty() -> Snapshot {
    Snapshot {
        session: SessionFacts { start: START, ..SessionFacts::default() },
        mode: Mode::Replay,
        window: Window::ending(AT, 10 * SECOND),
        at: AT,
        status: Status::Normal,
        findings: Vec::new(),
        hotspots: Hotspots::default(),
        workers: Workers::default(),
        blocking: Blocking::default(),
        tasks: Tasks::default(),
        types: Vec::new(),
        waiting: Waiting::default(),
        task: None,
        timeline: Timeline::default(),
        flame: Flame::default(),
        polls: Distribution::default(),
        wake_delay: Distribution::default(),
        dials: Dials::default(),
        seconds: Vec::new(),
        history: Vec::new(),
        coverage: Coverage::default(),
        drops: Drops::default(),
        overhead: None,
        process: None,
    }
}

/// As much as a snapshot holds: 64 lanes full of spans, a flame tree of all its nodes, an hour of history.
pub(crate) fn huge() -> Snapshot {
    let mut snapshot = rich(decent);
    let lane = snapshot.timeline.lanes[0].clone();
    snapshot.timeline.lanes = (0..64)
        .map(|n| {
            let mut lane = Lane { tid: Tid(3_000 + n), worker: Some(n), ..lane.clone() };
            let span = lane.spans[0].clone();
            lane.spans = (0..2_000)
                .map(|at| Span {
                    ts: AT - 10 * SECOND + at * 5 * MILLI,
                    dur: 4 * MILLI,
                    is_long: at % 7 == 0,
                    ..span.clone()
                })
                .collect();
            lane
        })
        .collect();
    let node = snapshot.flame.nodes[1].clone();
    snapshot.flame.nodes.truncate(1);
    for n in 0..4_000 {
        let depth = 1 + n % 40;
        snapshot.flame.nodes.push(FlameNode { depth, total: 90 * MILLI, ..node.clone() });
    }
    snapshot.tasks.rows = (0..500).map(|n| task_row(decent, n)).collect();
    let tick = snapshot.history[70];
    snapshot.history = (0..36_000).map(|n| Tick { ts: AT - n * Bucket::NANOS, ..tick }).collect();
    snapshot
}
