//! Sessions made up for tests: few rows, written as the recorder writes them, so that every answer can be worked out
//! by hand. What a real program looks like is tested on a recording.

// Each test binary uses its part of this, and nobody links it.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]

mod python;

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use hud_analyze::{
    catalog::Catalog,
    view::{Arguments, View},
};
use hud_common::cockpit::Thresholds;
use hud_common::session::{
    Clock, CoverageColumns, CoverageRow, FrameColumns, FrameRow, Manifest, ModuleColumns, ModuleRow, OffCpuColumns,
    OffCpuRow, PollColumns, PollRow, SampleColumns, SampleRow, SessionDir, SessionLock, StackColumns, StackRow,
    TaskColumns, TaskRow, TaskTypeColumns, TaskTypeRow, ThreadColumns, ThreadRow,
};
use hud_testkit::Random;
pub use hud_testkit::{MS, SECOND, T0, copy_folder as copy_to, recording};
pub use python::{duckdb_rows, duckdb_type, free_port, python, start_moto};
use serde_json::Value;
use tempfile::TempDir;

/// The weight of a sample at 100 Hz.
pub const TICK: i64 = 10 * MS;

/// Milliseconds into the session.
pub fn at(ms: i64) -> i64 {
    T0 + ms * MS
}

pub fn manifest() -> Manifest {
    Manifest {
        id: "synthetic".into(),
        tokio_version: Some("1.54.1".into()),
        clock: Clock { mono: 0, real: T0 },
        ..hud_testkit::manifest()
    }
}

/// A session of 10 s.
pub struct Session(hud_testkit::Session);

impl Deref for Session {
    type Target = hud_testkit::Session;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Session {
    pub fn new() -> Self {
        Self::with(&manifest())
    }

    pub fn with(manifest: &Manifest) -> Self {
        Session(hud_testkit::Session::new(manifest))
    }

    pub fn dir(&self) -> &SessionDir {
        &self.dir
    }

    /// The cast of most tests: two workers, a thread of the blocking pool, and the types and stacks below.
    pub fn with_cast() -> Self {
        Self::with_cast_of(&manifest())
    }

    pub fn with_cast_of(manifest: &Manifest) -> Self {
        let session = Self::with(manifest);
        session
            .add::<ThreadColumns>([
                thread(MAIN, "app", "other", None),
                thread(W0, "tokio-rt-worker", "other", None),
                ThreadRow { ts: at(1), ..thread(W0, "tokio-rt-worker", "worker", Some(0)) },
                thread(W1, "tokio-rt-worker", "worker", Some(1)),
                thread(POOL, "tokio-rt-worker", "blocking", None),
            ])
            .add::<TaskTypeColumns>([
                task_type(1, "app::citizen", "task", 5),
                task_type(2, "app::sleeper", "task", 10),
                task_type(3, "app::hog", "task", 20),
                task_type(4, "app::pool_work", "blocking", 30),
                task_type(5, "tokio::worker", "worker", 40),
            ])
            .add::<TaskColumns>(
                // One twice, as may happen.
                [(LOOP0, 5), (LOOP1, 5), (CITIZEN, 1), (SLEEPER, 2), (HOG, 3), (WORK, 4), (SLEEPER, 2)].map(
                    |(task_id, type_id)| TaskRow {
                        ts: at(1),
                        task_id,
                        type_id: Some(type_id),
                        tid: W0,
                        source: "memory".into(),
                    },
                ),
            )
            .add::<ModuleColumns>([ModuleRow {
                module_id: 1,
                path: "/usr/lib/libc.so.6".into(),
                build_id: None,
                start: 0,
                end: 1,
                offset: 0,
            }])
            .add::<FrameColumns>([
                frame(1, Some("__nanosleep"), "system", None),
                frame(2, Some("std::thread::sleep"), "std", Some(("std/thread.rs", 99))),
                frame(3, Some("app::sleeper"), "own", Some(("src/main.rs", 12))),
                frame(4, Some("<u64>::wrapping_add"), "std", Some(("core/num.rs", 7))),
                frame(5, Some("app::burn"), "own", Some(("src/main.rs", 22))),
                frame(6, Some("tokio::runtime::task::raw::poll"), "tokio", Some(("tokio/raw.rs", 1))),
                frame(7, Some("app::hog"), "own", Some(("src/main.rs", 25))),
                frame(8, None, "system", None),
                frame(9, Some("app::burn"), "own", Some(("src/main.rs", 23))),
                frame(10, Some("app::stripped"), "own", None),
            ])
            .add::<StackColumns>(
                [
                    (SLEEP, vec![1, 2, 3, 6]),
                    (BURN_22, vec![4, 5, 7, 6]),
                    (BROKEN, vec![6]),
                    (NAMELESS, vec![8]),
                    (BURN_23, vec![4, 9, 7, 6]),
                    (NO_LINE, vec![10, 6]),
                    // Recursion: burn is in it twice.
                    (RECURSIVE, vec![5, 9, 5, 7, 6]),
                ]
                .map(|(stack_id, frame_ids)| StackRow {
                    stack_id,
                    frame_ids,
                    unwind: "complete".into(),
                }),
            );
        session
    }

    pub fn record(&self) -> SessionLock {
        self.lock()
    }

    pub fn catalog(&self) -> Catalog {
        Catalog::open(&self.path).unwrap()
    }

    /// A view's rows over the whole session, or as `arguments` say.
    pub fn rows(&self, view: View, arguments: Arguments) -> Vec<Value> {
        rows(&self.path, view, arguments)
    }
}

pub const MAIN: i32 = 100;
pub const W0: i32 = 101;
pub const W1: i32 = 102;
pub const POOL: i32 = 103;

pub const LOOP0: i64 = 1;
pub const LOOP1: i64 = 2;
pub const CITIZEN: i64 = 11;
pub const SLEEPER: i64 = 12;
pub const HOG: i64 = 13;
pub const WORK: i64 = 14;

pub const SLEEP: i64 = 1;
pub const BURN_22: i64 = 2;
pub const BROKEN: i64 = 3;
pub const NAMELESS: i64 = 4;
pub const BURN_23: i64 = 5;
pub const NO_LINE: i64 = 6;
pub const RECURSIVE: i64 = 7;

pub fn thread(tid: i32, name: &'static str, role: &'static str, worker: Option<i32>) -> ThreadRow {
    ThreadRow {
        ts: at(0),
        tid,
        name: name.into(),
        role: role.into(),
        worker,
        runtime_id: worker.map(|_| 0),
        event: "seen".into(),
    }
}

pub fn task_type(type_id: i64, name: &'static str, kind: &'static str, line: i32) -> TaskTypeRow {
    TaskTypeRow {
        type_id,
        name: name.into(),
        scheduler: None,
        file: Some("src/main.rs".into()),
        line: Some(line),
        kind: kind.into(),
        raw_name: name.into(),
    }
}

pub fn frame(
    frame_id: i64,
    function: Option<&'static str>,
    origin: &'static str,
    at: Option<(&'static str, i32)>,
) -> FrameRow {
    FrameRow {
        frame_id,
        module_id: Some(1),
        address: frame_id,
        function: function.map(Into::into),
        file: at.map(|(file, _)| file.into()),
        line: at.map(|(_, line)| line),
        col: None,
        inline_depth: 0,
        origin: Some(origin.into()),
    }
}

/// A sleep of `dur` ns in `task`, with `run_queue` ns of waiting for a CPU after it.
pub fn sleep(ts: i64, tid: i32, task: impl Into<Option<i64>>, dur: i64, run_queue: i64) -> OffCpuRow {
    OffCpuRow {
        ts,
        dur: dur + run_queue,
        tid,
        cpu: 0,
        state: "S".into(),
        task_id: task.into(),
        stack_id: Some(SLEEP),
        run_queue: Some(run_queue),
        waker_tid: None,
        intervals: None,
    }
}

/// A preemption.
pub fn preempted(ts: i64, tid: i32, task: impl Into<Option<i64>>, dur: i64) -> OffCpuRow {
    OffCpuRow { state: "R".into(), run_queue: None, stack_id: None, ..sleep(ts, tid, task, dur, 0) }
}

pub fn sample(ts: i64, tid: i32, task: impl Into<Option<i64>>, stack_id: impl Into<Option<i64>>) -> SampleRow {
    SampleRow {
        ts,
        tid,
        cpu: 0,
        task_id: task.into(),
        stack_id: stack_id.into(),
        weight: TICK,
        unwind: "complete".into(),
    }
}

pub fn poll(ts: i64, tid: i32, task_id: i64, type_id: i64, dur: i64) -> PollRow {
    PollRow {
        ts,
        dur,
        task_id,
        type_id: Some(type_id),
        tid,
        cpu: 0,
        blocked: 0,
        run_queue: 0,
        wake_delay: None,
        completed: None,
    }
}

pub fn covered(stream: &'static str, from: i64, to: i64) -> CoverageRow {
    CoverageRow { ts: from, dur: to - from, stream: stream.into(), reason: "made up".into() }
}

/// All parameters, for the whole of a made-up session.
pub fn whole() -> Arguments {
    between(T0, T0 + 10 * SECOND)
}

pub fn between(from: i64, to: i64) -> Arguments {
    let of_views = Arguments::default()
        .int("from", from)
        .int("to", to)
        .int("task", None)
        .int("thread", None)
        .int("threshold", 10 * MS)
        .int("asleep", MS)
        .int("step", SECOND)
        .flag("lines", false)
        .flag("functions", true)
        .flag("types", true)
        .flag("threads", false)
        .flag("states", false)
        .int("late", MS)
        .int("polls", 10)
        .int("hops", 4)
        .int("depth", 64);
    let of_rules = Thresholds::default();
    Thresholds::TABLE.iter().fold(of_views, |all, threshold| all.int(threshold.name, threshold.get(&of_rules)))
}

/// The same rows, whether a view's materialized expressions read few events or too many to be materialized.
pub fn rows(session: &Path, view: View, arguments: Arguments) -> Vec<Value> {
    runtime().block_on(async {
        let catalog = Catalog::open(session).unwrap();
        let rows = async |arguments: &Arguments| {
            let frame = catalog.plan(&view, arguments).await.unwrap();
            to_json(&frame.collect().await.unwrap())
        };
        let few = rows(&arguments).await;
        let many = rows(&arguments.with_few(0)).await;
        assert_eq!(few, many, "{}: few events, and many", view.name);
        few
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

pub fn to_json(batches: &[arrow::array::RecordBatch]) -> Vec<Value> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

pub use hud_common::session as format;
pub type Polls = PollColumns;
pub type OffCpu = OffCpuColumns;
pub type Samples = SampleColumns;
pub type Coverage = CoverageColumns;

/// A session in which much happens at once: polls recorded for its first half, several segments of each table, ties,
/// nulls, intervals that cross everything. Always the same.
pub fn busy(events: i64) -> Session {
    let session = Session::with_cast();
    let mut random = Random::after(88_172_645_463_325_252);
    let mut random = move |below| random.below(below);
    const TASKS: [(i64, i64); 6] = [(LOOP0, 5), (CITIZEN, 1), (SLEEPER, 2), (HOG, 3), (WORK, 4), (SLEEPER, 2)];
    let half = T0 + 5 * SECOND;
    session.add::<Coverage>([covered("polls", T0, half), covered("off_cpu", T0, T0 + 10 * SECOND)]);
    for _ in 0..3 {
        let (mut polls, mut sleeps, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for tid in [W0, W1, POOL, MAIN] {
            let mut now = T0 + random(20 * MS);
            for _ in 0..events / 12 {
                let (task, type_id) = TASKS[usize::try_from(random(6)).unwrap()];
                let dur = random(MS) + random(20) / 19 * random(60 * MS);
                let asleep = random(3) / 2 * random(dur + 1);
                if now < half {
                    polls.push(format::PollRow { blocked: asleep, ..poll(now, tid, task, type_id, dur) });
                }
                if asleep > 0 {
                    sleeps.push(match random(5) {
                        0 => preempted(now, tid, task, asleep),
                        1 => format::OffCpuRow { run_queue: None, ..sleep(now, tid, task, asleep, 0) },
                        n => sleep(now, tid, (n > 2).then_some(task), asleep / 2, asleep - asleep / 2),
                    });
                }
                for tick in 0..dur / TICK {
                    let stack = (random(4) > 0).then(|| 1 + random(7));
                    samples.push(sample(now + tick * TICK + random(MS), tid, (random(9) > 0).then_some(task), stack));
                }
                now += dur + random(18 * SECOND / (events / 12));
            }
        }
        // Each task but one was spawned by the one before it, and wakes the one after; some wake themselves.
        let (mut wakes, mut spawns, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (i, poll) in polls.iter_mut().enumerate().filter(|(_, p)| p.task_id != LOOP0) {
            let delay = 1 + random(2 * MS) + random(50) / 49 * random(30 * MS);
            poll.wake_delay = Some(delay);
            let waker = match i % 4 {
                0 => None,
                1 => Some(poll.task_id),
                _ => Some(TASKS[i % 6].0),
            };
            let (ts, task_id) = (poll.ts - delay, poll.task_id);
            wakes.push(format::WakeRow { ts, task_id, waker_task_id: waker, waker_tid: W0 });
            if i % 7 == 0 {
                let task_id = 1_000 + i64::try_from(i).unwrap();
                let parent_task_id = Some(if i % 3 == 0 { HOG } else { task_id - 7 });
                spawns.push(format::SpawnRow { ts, task_id, type_id: Some(1), parent_task_id, tid: poll.tid });
                if i % 5 == 0 {
                    ends.push(format::EndRow { ts: ts + delay, task_id, outcome: "completed".into() });
                }
            }
        }
        session.add::<Polls>(polls).add::<OffCpu>(sleeps).add::<Samples>(samples);
        session.add::<format::WakeColumns>(wakes).add::<format::SpawnColumns>(spawns).add::<format::EndColumns>(ends);
    }
    session.add::<format::DropColumns>((0..9).map(|i| format::DropRow {
        ts: at(i * 900),
        dur: 100 * MS,
        stream: if i % 2 == 0 { "polls" } else { "samples" }.into(),
        stage: "ring".into(),
        lost: 1 + i,
    }));
    session.add::<format::OverheadColumns>((0..10).map(|i| format::OverheadRow {
        ts: at(i * 1_000),
        probe_ns: (i % 4 != 3).then_some(i * MS),
        recorder_cpu: i * MS,
        recorder_rss: i << 20,
        ring_bytes: i,
        events: i,
    }));
    session
}

/// A copy of a session that may be changed.
pub fn copy(session: &Path) -> (TempDir, PathBuf) {
    let tmp = TempDir::new().unwrap();
    let to = tmp.path().join("session");
    copy_to(session, &to);
    (tmp, to)
}
