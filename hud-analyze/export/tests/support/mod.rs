//! A session of a made-up program, in which polls nest, wakes lead to polls, functions are inlined and intervals cross
//! segments; and one of a hostile program.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use hud_common::session::{
    CoverageColumns, CoverageRow, EndColumns, EndRow, FrameColumns, FrameRow, ModuleColumns, ModuleRow, OffCpuColumns,
    OffCpuRow, PollColumns, PollRow, ProcessColumns, ProcessRow, SampleColumns, SampleRow, SpawnColumns, SpawnRow,
    StackColumns, StackRow, TaskColumns, TaskRow, TaskTypeColumns, TaskTypeRow, ThreadColumns, ThreadRow, WakeColumns,
    WakeRow,
};
pub use hud_testkit::{MS, SECOND, Session, T0, recording};
use hud_testkit::{Random, manifest};

pub const PID: i32 = 100;

/// An empty session.
pub fn session() -> Session {
    Session::new(&manifest()).in_batches(100)
}

pub fn thread(tid: i32, name: String, role: &'static str, worker: Option<i32>) -> ThreadRow {
    let runtime_id = worker.map(|_| 0);
    ThreadRow { ts: T0, tid, name: name.into(), role: role.into(), worker, runtime_id, event: "seen".into() }
}

pub fn task_type(type_id: i64, name: String, kind: &'static str) -> TaskTypeRow {
    TaskTypeRow {
        type_id,
        name: name.clone().into(),
        scheduler: None,
        file: None,
        line: None,
        kind: kind.into(),
        raw_name: name.into(),
    }
}

pub fn poll(ts: i64, dur: i64, tid: i32, task_id: i64, type_id: Option<i64>, wake_delay: Option<i64>) -> PollRow {
    PollRow { ts, dur, task_id, type_id, tid, cpu: 0, blocked: 0, run_queue: 0, wake_delay, completed: Some(false) }
}

pub fn off(ts: i64, dur: i64, tid: i32, state: &'static str, task_id: Option<i64>, stack: Option<i64>) -> OffCpuRow {
    let run_queue = (state == "S").then_some(dur / 10);
    OffCpuRow {
        ts,
        dur,
        tid,
        cpu: 0,
        state: state.into(),
        task_id,
        stack_id: stack,
        run_queue,
        waker_tid: Some(PID),
        intervals: None,
    }
}

pub fn sample(ts: i64, tid: i32, task_id: Option<i64>, stack_id: Option<i64>, weight: i64) -> SampleRow {
    SampleRow { ts, tid, cpu: tid % 2, task_id, stack_id, weight, unwind: "complete".into() }
}

pub fn frame(
    frame_id: i64,
    address: i64,
    inline_depth: i32,
    function: Option<String>,
    origin: &'static str,
) -> FrameRow {
    FrameRow {
        frame_id,
        module_id: Some(if origin == "libc" { 2 } else { 1 }),
        address,
        function: function.map(Into::into),
        file: (origin != "libc").then(|| "src/main.rs".into()),
        line: (origin != "libc").then_some(10 + i32::try_from(frame_id).unwrap()),
        col: Some(5),
        inline_depth,
        origin: Some(origin.into()),
    }
}

pub fn covered(stream: &'static str, from: i64, dur: i64) -> CoverageRow {
    CoverageRow { ts: from, dur, stream: stream.into(), reason: "made up".into() }
}

/// Two workers, a thread of the pool, the main thread; two seconds and a half in three segments a table.
pub fn made_up() -> Session {
    let session = session();
    names(&session, &["app::handler", "<[u8; 4]>::map", "app::inner{{closure}}", "core::poll"]);
    let mut random = Random::after(88_172_645_463_325_252);
    let mut random = move |below| random.below(below);
    let mut now = [T0 + MS, T0 + MS];
    let mut next_task = 1000;
    for _ in 0..3 {
        let (mut polls, mut off_cpu, mut samples, mut wakes) = (vec![], vec![], vec![], vec![]);
        let (mut spawns, mut ends) = (vec![], vec![]);
        for (tid, now) in (PID + 1..).zip(&mut now) {
            for n in 0..150_i64 {
                let (task, type_id) = (11 + random(6), 1 + random(2));
                let idle = 1 + random(4 * MS);
                off_cpu.push(off(*now, idle, tid, "S", None, Some(1)));
                *now += idle;
                let dur = 10_000 + random(MS) + if n % 40 == 0 { 20 * MS } else { 0 };
                let delay = random(idle);
                if n % 3 > 0 {
                    wakes.push(WakeRow { ts: *now - delay, task_id: task, waker_task_id: None, waker_tid: PID });
                }
                polls.push(poll(*now, dur, tid, task, (n % 7 > 0).then_some(type_id), (n % 3 > 0).then_some(delay)));
                if n % 10 == 0 {
                    // Blocked in it until its end, during which another task is polled.
                    off_cpu.push(off(*now + dur / 2, dur - dur / 2, tid, "S", Some(task), Some(2)));
                    polls.push(poll(*now + 10, dur / 4, tid, 17, Some(1), None));
                } else if n % 11 == 0 {
                    off_cpu.push(off(*now + dur / 2, dur / 4, tid, "R", Some(task), None));
                }
                if n % 5 == 0 {
                    samples.push(sample(
                        *now + dur / 3,
                        tid,
                        Some(task),
                        (n % 4 > 0).then_some(1 + random(4)),
                        10 * MS,
                    ));
                }
                if n % 25 == 0 {
                    next_task += 1;
                    spawns.push(SpawnRow {
                        ts: *now,
                        task_id: next_task,
                        type_id: Some(2),
                        parent_task_id: Some(task),
                        tid,
                    });
                    polls.push(poll(*now + dur, 500, tid, next_task, Some(2), None));
                    ends.push(EndRow { ts: *now + dur + 500, task_id: next_task, outcome: "completed".into() });
                    *now += 500;
                }
                *now += dur;
            }
        }
        session.add::<PollColumns>(polls).add::<OffCpuColumns>(off_cpu).add::<SampleColumns>(samples);
        session.add::<WakeColumns>(wakes).add::<SpawnColumns>(spawns).add::<EndColumns>(ends);
    }
    // It began before all others and outlives them.
    session.add::<OffCpuColumns>([off(T0, 9 * SECOND, PID, "S", None, Some(1))]);
    session.add::<ProcessColumns>((1..4).map(|n| ProcessRow {
        ts: T0 + n * SECOND,
        cpu_user: 600 * MS,
        cpu_sys: 50 * MS,
        rss: (100 + n) << 20,
        threads: 4,
        fds: None,
        cpu_others: None,
        throttled: None,
    }));
    let streams = ["polls", "off_cpu", "samples", "wakes", "spawns", "ends"];
    session.add::<CoverageColumns>(streams.map(|stream| covered(stream, T0, 10 * SECOND)));
    session
}

/// Names: of two types and a worker's loop, and of frames, three of them at one address.
pub fn names(session: &Session, functions: &[&str; 4]) {
    let [leaf, inlined, inner, outer] = functions.map(|f| f.to_string());
    session
        .add::<ThreadColumns>([
            thread(PID, "app".into(), "other", None),
            thread(PID + 1, "tokio-rt-worker".into(), "worker", Some(0)),
            thread(PID + 2, "tokio-rt-worker".into(), "worker", Some(1)),
        ])
        .add::<TaskTypeColumns>([
            task_type(1, format!("{leaf}::one"), "task"),
            task_type(2, format!("{leaf}::two"), "task"),
            task_type(3, "tokio::worker".into(), "worker"),
        ])
        .add::<TaskColumns>((11..18).map(|task_id| TaskRow {
            ts: T0,
            task_id,
            type_id: Some(if task_id == 16 { 3 } else { 1 + task_id % 2 }),
            tid: PID + 1,
            source: "memory".into(),
        }))
        .add::<ModuleColumns>([
            ModuleRow {
                module_id: 1,
                path: "/srv/app".into(),
                build_id: Some("0123456789abcdef0123".into()),
                start: 0x5500_0000_0000,
                end: 0x5500_0010_0000,
                offset: 0x1000,
            },
            ModuleRow { module_id: 2, path: "/lib/libc.so.6".into(), build_id: None, start: 0, end: 1, offset: 0 },
        ])
        .add::<FrameColumns>([
            frame(1, 0x10, 0, Some("epoll_wait".into()), "libc"),
            frame(2, 0x2010, 2, Some(inlined), "std"),
            frame(3, 0x2010, 1, Some(inner), "dependency"),
            frame(4, 0x2010, 0, Some(leaf), "own"),
            frame(5, 0x3010, 0, Some(outer), "tokio"),
            frame(6, 0x20, 0, None, "libc"),
        ])
        .add::<StackColumns>(
            [(1, vec![1, 5]), (2, vec![6, 2, 3, 4, 5]), (3, vec![2, 3, 4, 5]), (4, vec![4, 4, 5])]
                .map(|(stack_id, frame_ids)| StackRow { stack_id, frame_ids, unwind: "complete".into() }),
        );
}

/// Names that imitate other things, and implausible rows.
pub fn hostile() -> Session {
    let session = session();
    let long = "x".repeat(100_000);
    names(&session, &["a\x1b]0;owned\x07;b\n<script>&\"'", &long, "num 12 3.5", "\u{202e};\u{0}]]> 7"]);
    session
        .add::<ThreadColumns>([thread(PID + 3, "\x1b[31m\"\\; 5".into(), "other", None)])
        .add::<PollColumns>([
            poll(T0, 10 * MS, PID + 1, 11, Some(1), Some(i64::MIN)),
            // In part over the one before, then of no length, of a negative one, and longer than time.
            poll(T0 + 5 * MS, 10 * MS, PID + 1, -1, Some(77), Some(i64::MAX)),
            poll(T0 + 5 * MS, 0, PID + 1, i64::MAX, None, Some(-5)),
            poll(T0 + 6 * MS, -7, i32::MIN, i64::MIN, None, None),
            poll(i64::MAX - 5, i64::MAX, PID + 2, 12, Some(1), None),
            poll(i64::MIN, i64::MAX, PID + 2, 12, Some(1), None),
        ])
        .add::<OffCpuColumns>([
            off(T0, i64::MAX, PID + 1, "Z\x1b", Some(11), Some(2)),
            off(T0, i64::MIN, PID + 1, "", Some(11), Some(i64::MIN)),
            off(i64::MIN, 5, -4, "S", Some(11), Some(3)),
        ])
        .add::<SampleColumns>([
            sample(T0, PID + 1, Some(11), Some(3), i64::MAX),
            sample(T0, PID + 1, Some(11), Some(2), i64::MAX),
            sample(T0, PID + 3, None, Some(404), i64::MIN),
            sample(T0, -9, Some(12), None, 0),
            sample(i64::MAX, PID, None, Some(4), 1),
        ])
        .add::<StackColumns>([StackRow { stack_id: 9, frame_ids: vec![404; 5000], unwind: "?".into() }])
        .add::<WakeColumns>([WakeRow { ts: i64::MIN, task_id: 11, waker_task_id: Some(i64::MIN), waker_tid: -1 }])
        .add::<CoverageColumns>([
            covered("\x1b[2J", T0, i64::MAX),
            covered("polls", i64::MIN, i64::MAX),
            covered("polls", T0, -1),
        ])
        .add::<ProcessColumns>([ProcessRow {
            ts: i64::MIN,
            cpu_user: i64::MAX,
            cpu_sys: i64::MIN,
            rss: -1,
            threads: -1,
            fds: None,
            cpu_others: None,
            throttled: None,
        }]);
    session
}
