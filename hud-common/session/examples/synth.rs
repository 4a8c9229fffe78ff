//! Writes a synthetic session: `synth SESSION EVENTS RATE SEED`, as `cargo xtask synth` calls it.
//!
//! The program has eight workers, 200 types of tasks and ten thousand tasks, with the patterns of real recordings: bursts of
//! short polls between waits, a few polls that compute or sleep too long, threads that sleep for seconds. Segments are sealed
//! by the recorder's code. Time is divided into minutes, each with its own seed, so that all cores generate rows; within a
//! minute the workers' rows are generated in the order of time. The same arguments give the same rows.

#![allow(missing_docs, reason = "an example")]

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
};

use arrow::array::RecordBatch;
use hud_session::{
    Clock, ClockColumns, ClockRow, Columns, CoverageColumns, CoverageRow, Encoder, EndColumns, EndRow, FORMAT_VERSION,
    FrameColumns, FrameRow, InflightLog, Manifest, ModuleColumns, ModuleRow, OffCpuColumns, OffCpuRow, Options,
    OverheadColumns, OverheadRow, PollColumns, PollRow, ProcessColumns, ProcessRow, SampleColumns, SampleRow,
    SessionDir, SpawnColumns, SpawnRow, StackColumns, StackRow, StreamAccount, Table, TaskColumns, TaskRow,
    TaskTypeColumns, TaskTypeRow, ThreadColumns, ThreadRow, WakeColumns, WakeRow, seal_rows,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const US: i64 = 1_000;
const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000 * SECOND;
/// The time range that is generated and sealed together: the recorder's maximum age of a segment.
const LAPSE: i64 = 60 * SECOND;
/// Rows per segment, as in the recorder.
const SEGMENT: usize = 1 << 17;

const PID: i32 = 1_000;
const WORKERS: i32 = 8;
const POOL: i32 = 4;
const TYPES: i64 = 200;
const TASKS: i64 = 10_000;
/// Ids of long-lived tasks begin here; below are the workers' loops.
const FIRST_TASK: i64 = 100;
/// Ids of short-lived ones.
const FIRST_SHORT: i64 = 1_000_000;
/// Maximum number of short-lived tasks per minute.
const SHORT_PER_LAPSE: i64 = 1_000_000;
const LOOP_TYPE: i64 = TYPES + 1;
const SHORT_TYPE: i64 = TYPES;
const STACKS: i64 = 4_000;
const FRAMES: i64 = 3_000;
const DEPTH: i64 = 24;
/// CPU time that a sample represents at 99 Hz.
const TICK: i64 = SECOND / 99;
/// Rows of all tables of events per poll, in tenths: converts a rate of rows to a rate of polls.
const TENTHS_OF_ROWS_PER_POLL: i64 = 21;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [session, events, rate, seed] = arguments.as_slice() else {
        return Err("give SESSION EVENTS RATE SEED".into());
    };
    let (events, rate, seed): (i64, i64, u64) = (events.parse()?, events_per_second(rate)?, seed.parse()?);
    if events < 1 {
        return Err("EVENTS must be at least 1".into());
    }
    write(Path::new(session), events, rate, seed)
}

fn events_per_second(text: &str) -> Result<i64> {
    let rate = text.parse()?;
    if (100..=10_000_000).contains(&rate) { Ok(rate) } else { Err("RATE must be 100 to 10000000".into()) }
}

fn write(root: &Path, events: i64, rate: i64, seed: u64) -> Result<()> {
    let dur = i64::try_from(i128::from(events) * i128::from(SECOND) / i128::from(rate))?.max(100 * MS);
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        id: format!("synthetic-{events}-{rate}-{seed}"),
        hud_version: env!("CARGO_PKG_VERSION").into(),
        host: "synthetic".into(),
        kernel: "6.0".into(),
        cpus: 8,
        pid: PID.unsigned_abs(),
        exe: "/srv/synthetic".into(),
        tokio_version: Some("1.54.1".into()),
        start: START,
        options: Options { freq: 99, polls: "exact".into(), unwind: "auto".into(), ..Options::default() },
        clock: Clock { mono: SECOND, real: START },
        notes: vec!["synthetic: written by `cargo xtask synth`, no program was recorded".into()],
        ..Manifest::default()
    };
    let (session, lock) = SessionDir::create(root, &manifest)?;
    for (table, batch) in names(dur) {
        seal(&session, table, 1, batch)?;
    }

    let lapses = usize::try_from((dur + LAPSE - 1) / LAPSE)?;
    let work = Work { session: &session, dur, rate, seed, lapses, next: AtomicUsize::new(0), turn: Turn::default() };
    let rows: [AtomicI64; 6] = Default::default();
    let failed: Mutex<Option<Box<dyn Error + Send + Sync>>> = Mutex::new(None);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(lapses);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err(error) = work.run(&rows) {
                    work.turn.abort();
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }

    let counts = rows.map(AtomicI64::into_inner);
    let mut streams: BTreeMap<String, StreamAccount> = BTreeMap::new();
    let rows_of = EVENTS
        .iter()
        .map(|t| t.name())
        .zip(counts)
        .chain([("tasks", TASKS + i64::from(WORKERS)), ("threads", i64::from(1 + WORKERS + POOL))]);
    for (name, rows) in rows_of {
        let rows = rows.unsigned_abs();
        streams.insert(name.into(), StreamAccount { produced: rows, stored: rows, ..StreamAccount::default() });
    }
    manifest.streams = streams;
    manifest.end = Some(START + dur);
    manifest.end_reason = Some("synthetic".into());
    manifest.complete = true;
    manifest.write(root)?;
    drop(lock);
    println!("{} events over {} s in {}", counts.iter().sum::<i64>(), dur / SECOND, root.display());
    Ok(())
}

/// The tables of events, in the order of their counts.
const EVENTS: [Table; 6] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Spawns, Table::Ends];

/// The work that is left, and the threads that do it.
struct Work<'a> {
    session: &'a SessionDir,
    dur: i64,
    rate: i64,
    seed: u64,
    lapses: usize,
    next: AtomicUsize,
    turn: Turn,
}

/// Segments are numbered in the order of time: minutes take their numbers one after the other.
#[derive(Default)]
struct Turn {
    state: Mutex<(usize, BTreeMap<Table, u32>)>,
    moved: Condvar,
}

impl Turn {
    /// Numbers for these tables, once all earlier minutes have theirs; none if one of them failed.
    fn take(&self, lapse: usize, tables: &[Table]) -> Option<Vec<u32>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0 < lapse {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.0 != lapse {
            return None;
        }
        state.0 += 1;
        let numbers = tables.iter().map(|table| {
            let last = state.1.entry(*table).or_default();
            *last += 1;
            *last
        });
        let numbers = numbers.collect();
        self.moved.notify_all();
        Some(numbers)
    }

    fn abort(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = usize::MAX;
        self.moved.notify_all();
    }
}

impl Work<'_> {
    fn run(&self, rows: &[AtomicI64; 6]) -> Result<()> {
        loop {
            let lapse = self.next.fetch_add(1, Ordering::Relaxed);
            if lapse >= self.lapses {
                return Ok(());
            }
            let from = i64::try_from(lapse)? * LAPSE;
            let mut world = World::new(from, self.dur.min(from + LAPSE), self.dur, self.rate, self.seed, lapse)?;
            world.run();
            for (count, all) in world.counts().into_iter().zip(rows) {
                all.fetch_add(i64::try_from(count)?, Ordering::Relaxed);
            }
            let batches = world.finish();
            let tables: Vec<Table> = batches.iter().map(|(table, _)| *table).collect();
            let Some(numbers) = self.turn.take(lapse, &tables) else { return Ok(()) };
            for ((table, batch), number) in batches.into_iter().zip(numbers) {
                seal(self.session, table, number, batch)?;
            }
            eprint!("\r{} of {} lapses", lapse + 1, self.lapses);
        }
    }
}

fn seal(session: &SessionDir, table: Table, number: u32, batch: RecordBatch) -> Result<()> {
    let log = InflightLog::create(session, table, number)?;
    log.finish()?;
    seal_rows(&mut Encoder::default(), session, table, number, [batch])?;
    Ok(())
}

/// Pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below a limit.
    fn below(&mut self, most: i64) -> i64 {
        (self.next() >> 1).cast_signed() % most.max(1)
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }

    /// Distributed like waiting times: mostly short, some long, about `mean` on average.
    fn about(&mut self, mean: i64) -> i64 {
        let octaves = i64::from(self.next().leading_zeros().min(16));
        (mean * octaves * 7 / 10).saturating_add(self.below(mean * 6 / 10 + 1))
    }
}

/// A worker's position in time.
#[derive(Clone, Copy)]
struct Worker {
    tid: i32,
    now: i64,
    /// CPU time until its next sample.
    until_tick: i64,
}

/// A minute of the program. Times count from the start.
struct World {
    random: Random,
    now: i64,
    to: i64,
    end: i64,
    /// Mean time between a worker's polls.
    pace: i64,
    workers: Vec<Worker>,
    next_short: i64,
    polls: Pieces<PollColumns>,
    off_cpu: Pieces<OffCpuColumns>,
    samples: Pieces<SampleColumns>,
    wakes: Pieces<WakeColumns>,
    spawns: Pieces<SpawnColumns>,
    ends: Pieces<EndColumns>,
    others: Vec<(Table, RecordBatch)>,
}

/// Rows of a table, divided into segments.
#[derive(Default)]
struct Pieces<C> {
    open: C,
    full: Vec<RecordBatch>,
    rows: usize,
}

impl<C: Columns> Pieces<C> {
    fn push(&mut self, row: C::Row) {
        self.open.push(row);
        self.rows += 1;
        if self.open.len() >= SEGMENT {
            self.full.push(self.open.finish());
        }
    }

    fn finish(mut self, into: &mut Vec<(Table, RecordBatch)>) {
        if !self.open.is_empty() {
            self.full.push(self.open.finish());
        }
        into.extend(self.full.into_iter().map(|batch| (C::TABLE, batch)));
    }
}

impl World {
    fn new(from: i64, to: i64, end: i64, rate: i64, seed: u64, lapse: usize) -> Result<Self> {
        let mut random = Random(seed ^ (u64::try_from(lapse)? + 1).wrapping_mul(0xd134_2543_de82_ef95));
        let pace = SECOND * i64::from(WORKERS) * TENTHS_OF_ROWS_PER_POLL / 10 / rate;
        let worker = |tid, random: &mut Random| Worker {
            tid,
            now: from + random.below(pace.max(1)),
            until_tick: random.below(TICK),
        };
        Ok(World {
            workers: (1..=WORKERS).map(|n| worker(PID + n, &mut random)).collect(),
            random,
            now: from,
            to,
            end,
            pace,
            next_short: FIRST_SHORT + i64::try_from(lapse)? * SHORT_PER_LAPSE,
            polls: Pieces::default(),
            off_cpu: Pieces::default(),
            samples: Pieces::default(),
            wakes: Pieces::default(),
            spawns: Pieces::default(),
            ends: Pieces::default(),
            others: Vec::new(),
        })
    }

    fn counts(&self) -> [usize; 6] {
        [self.polls.rows, self.off_cpu.rows, self.samples.rows, self.wakes.rows, self.spawns.rows, self.ends.rows]
    }

    fn finish(self) -> Vec<(Table, RecordBatch)> {
        let mut all = self.others;
        self.polls.finish(&mut all);
        self.off_cpu.finish(&mut all);
        self.samples.finish(&mut all);
        self.wakes.finish(&mut all);
        self.spawns.finish(&mut all);
        self.ends.finish(&mut all);
        all
    }

    fn run(&mut self) {
        let from = self.now;
        while let Some(at) = (0..self.workers.len()).min_by_key(|i| self.workers.get(*i).map(|w| w.now)) {
            let Some(mut worker) = self.workers.get(at).copied() else { break };
            if worker.now >= self.to {
                break;
            }
            self.burst(&mut worker);
            if let Some(place) = self.workers.get_mut(at) {
                *place = worker;
            }
        }
        self.pool(from);
        self.seconds(from);
    }

    /// A worker wakes up, polls the tasks in its queue and sleeps again.
    fn burst(&mut self, worker: &mut Worker) {
        let polls = 1 + self.random.about(8);
        let began = worker.now;
        for _ in 0..polls {
            self.poll(worker);
        }
        // If it is ahead of its rate, it sleeps.
        let idle = (polls * self.pace - (worker.now - began)).max(20 * US);
        let idle = idle / 2 + self.random.below(idle);
        let waited = self.random.about(4 * US).min(idle / 2);
        let waker_tid = Some(PID + i32::try_from(self.random.below(i64::from(WORKERS))).unwrap_or(0));
        self.leave(worker, idle, "S", None, Some(1), Some(waited), waker_tid);
    }

    #[expect(clippy::too_many_arguments, reason = "a row's columns")]
    fn leave(
        &mut self,
        worker: &mut Worker,
        dur: i64,
        state: &'static str,
        task_id: Option<i64>,
        stack_id: Option<i64>,
        run_queue: Option<i64>,
        waker_tid: Option<i32>,
    ) {
        let dur = dur.min(self.end - worker.now).max(0);
        let run_queue = run_queue.map(|waited| waited.min(dur));
        let ts = START + worker.now;
        let cpu = worker.tid - PID - 1;
        let row = OffCpuRow {
            ts,
            dur,
            tid: worker.tid,
            cpu,
            state: state.into(),
            task_id,
            stack_id,
            run_queue,
            waker_tid,
            intervals: None,
        };
        self.off_cpu.push(row);
        worker.now += dur;
    }

    fn poll(&mut self, worker: &mut Worker) {
        let is_short = self.random.one_in(100);
        // Some types are far busier than others.
        let type_id =
            if is_short { SHORT_TYPE } else { 1 + self.random.below(TYPES - 1).min(self.random.below(TYPES - 1)) };
        let task_id = if is_short {
            self.next_short += 1;
            self.next_short
        } else {
            FIRST_TASK + (type_id - 1) + TYPES * self.random.below(TASKS / TYPES)
        };
        let ts = worker.now;
        let (waker_task_id, waker_tid) = match self.random.below(4) {
            0 => (None, PID + 1 + i32::try_from(self.random.below(i64::from(WORKERS))).unwrap_or(0)),
            // A type that wakes itself.
            _ if type_id == 7 => (Some(task_id), worker.tid),
            _ => (Some(FIRST_TASK + self.random.below(TASKS)), worker.tid),
        };
        let mut delay = self.random.about(30 * US) + US;
        if self.random.one_in(500) {
            delay += self.random.about(4 * MS);
        }
        let delay = delay.min(ts);
        if is_short {
            let parent_task_id = waker_task_id;
            let ts = START + ts - delay;
            self.spawns.push(SpawnRow { ts, task_id, type_id: Some(type_id), parent_task_id, tid: waker_tid });
        } else {
            self.wakes.push(WakeRow { ts: START + ts - delay, task_id, waker_task_id, waker_tid });
        }

        let mut busy = 2 * US + self.random.about(10 * US + type_id * US / 4);
        // Two types compute, two sleep inside polls.
        if matches!(type_id, 3 | 40) && self.random.one_in(40) {
            busy += 12 * MS + self.random.about(10 * MS);
        }
        self.compute(worker, busy / 2, task_id, type_id);
        let (mut blocked, mut run_queue) = (0, 0);
        if matches!(type_id, 5 | 60) && self.random.one_in(60) {
            blocked = 3 * MS + self.random.about(8 * MS);
            run_queue = self.random.about(10 * US);
            let stack = 2 + type_id * (STACKS / (TYPES + 2)) + self.random.below(4);
            let before = worker.now;
            let waker = Some(PID + WORKERS + 1);
            self.leave(worker, blocked + run_queue, "S", Some(task_id), Some(stack), Some(run_queue), waker);
            (blocked, run_queue) =
                if worker.now - before == blocked + run_queue { (blocked, run_queue) } else { (0, 0) };
        } else if self.random.one_in(200) {
            run_queue = 10 * US + self.random.about(200 * US);
            let before = worker.now;
            self.leave(worker, run_queue, "R", Some(task_id), None, None, None);
            run_queue = worker.now - before;
        }
        self.compute(worker, busy - busy / 2, task_id, type_id);
        worker.now = worker.now.min(self.end);
        self.polls.push(PollRow {
            ts: START + ts,
            dur: worker.now - ts,
            task_id,
            type_id: Some(type_id),
            tid: worker.tid,
            cpu: worker.tid - PID - 1,
            blocked,
            run_queue,
            wake_delay: (!is_short).then_some(delay),
            completed: Some(is_short),
        });
        if is_short {
            let outcome = if self.random.one_in(50) { "cancelled" } else { "completed" };
            self.ends.push(EndRow { ts: START + worker.now, task_id, outcome: outcome.into() });
        }
    }

    fn compute(&mut self, worker: &mut Worker, dur: i64, task_id: i64, type_id: i64) {
        let mut left = dur;
        while worker.until_tick < left {
            left -= worker.until_tick;
            worker.now += worker.until_tick;
            worker.until_tick = TICK;
            if worker.now >= self.end {
                break;
            }
            let near = STACKS / (TYPES + 2);
            let stack_id = 2 + type_id * near + self.random.below(near).min(self.random.below(near));
            let is_whole = !self.random.one_in(60);
            self.samples.push(SampleRow {
                ts: START + worker.now,
                tid: worker.tid,
                cpu: worker.tid - PID - 1,
                task_id: Some(task_id),
                stack_id: is_whole.then_some(stack_id),
                weight: TICK,
                unwind: if is_whole { "complete" } else { "failed" }.into(),
            });
        }
        worker.until_tick -= left;
        worker.now += left;
    }

    /// The blocking pool and the main thread: long sleeps.
    fn pool(&mut self, from: i64) {
        for n in 1..=POOL {
            let mut worker = Worker { tid: PID + WORKERS + n, now: from, until_tick: TICK };
            while worker.now < self.to {
                let asleep = 20 * MS + self.random.about(2 * SECOND);
                let dur = asleep.min(self.to - worker.now);
                self.leave(&mut worker, dur, "S", None, Some(0), Some(US.min(dur)), Some(PID + 1));
                worker.now += 50 * US + self.random.about(MS);
            }
        }
        // The main thread waits until the end, and its interval is written there.
        if self.to == self.end {
            let mut main = Worker { tid: PID, now: 0, until_tick: TICK };
            self.leave(&mut main, self.end, "S", None, Some(0), None, None);
        }
    }

    /// Rows that are written each second or at another interval.
    fn seconds(&mut self, from: i64) {
        let (mut process, mut overhead) = (ProcessColumns::default(), OverheadColumns::default());
        let mut coverage = CoverageColumns::default();
        let mut at = from;
        while at < self.to {
            let ts = START + at;
            process.push(ProcessRow {
                ts,
                cpu_user: 400 * MS + self.random.below(200 * MS),
                cpu_sys: 50 * MS + self.random.below(20 * MS),
                rss: (200 << 20) + self.random.below(20 << 20),
                threads: 1 + WORKERS + POOL,
                fds: Some(120),
                cpu_others: Some(100 * MS),
                throttled: None,
            });
            overhead.push(OverheadRow {
                ts,
                probe_ns: Some(8 * MS + self.random.below(MS)),
                recorder_cpu: 10 * MS + self.random.below(MS),
                recorder_rss: 48 << 20,
                ring_bytes: 1 << 20,
                events: 25_000,
            });
            if (at - from) % (5 * SECOND) == 0 {
                let dur = (5 * SECOND).min(self.to - at);
                let reason = if at + dur >= self.end { "the end" } else { "still on" };
                for table in EVENTS.iter().chain(&[Table::Tasks, Table::Threads]) {
                    coverage.push(CoverageRow { ts, dur, stream: table.name().into(), reason: reason.into() });
                }
            }
            at += SECOND;
        }
        let mut add = |table, batch: RecordBatch| self.others.push((table, batch));
        add(Table::Process, process.finish());
        add(Table::Overhead, overhead.finish());
        add(Table::Coverage, coverage.finish());
    }
}

/// Names.
fn names(dur: i64) -> Vec<(Table, RecordBatch)> {
    let mut threads = ThreadColumns::default();
    let mut thread = |tid, name: &'static str, role: &'static str, worker: Option<i32>| {
        threads.push(ThreadRow {
            ts: START,
            tid,
            name: name.into(),
            role: role.into(),
            worker,
            runtime_id: worker.map(|_| 0),
            event: "seen".into(),
        });
    };
    thread(PID, "synthetic", "other", None);
    (1..=WORKERS).for_each(|n| thread(PID + n, "tokio-rt-worker", "worker", Some(n - 1)));
    (1..=POOL).for_each(|n| thread(PID + WORKERS + n, "tokio-rt-worker", "blocking", None));

    let mut types = TaskTypeColumns::default();
    for type_id in 1..=LOOP_TYPE {
        let is_loop = type_id == LOOP_TYPE;
        let name = if is_loop { "tokio::worker".into() } else { format!("{}::{}", module(type_id), verb(type_id)) };
        types.push(TaskTypeRow {
            type_id,
            raw_name: format!("{name}::{{async_fn_env#0}}").into(),
            name: name.into(),
            scheduler: Some(if is_loop { "blocking" } else { "multi_thread" }.into()),
            file: Some(format!("src/{}.rs", module(type_id)).into()),
            line: Some(i32::try_from(10 + type_id * 3).unwrap_or(0)),
            kind: if is_loop { "worker" } else { "task" }.into(),
        });
    }

    let mut tasks = TaskColumns::default();
    let mut task = |ts, task_id, type_id| {
        let (tid, source) = (PID + 1, "probe".into());
        tasks.push(TaskRow { ts, task_id, type_id: Some(type_id), tid, source });
    };
    (1..=i64::from(WORKERS)).for_each(|n| task(START, n, LOOP_TYPE));
    for n in 0..TASKS {
        task(START + dur.min(10 * SECOND) * n / TASKS, FIRST_TASK + n, 1 + n % TYPES);
    }

    let mut modules = ModuleColumns::default();
    let paths = ["/srv/synthetic", "/usr/lib/x86_64-linux-gnu/libc.so.6", "[vdso]"];
    for (module_id, path) in (1..).zip(paths) {
        let start = module_id << 32;
        modules.push(ModuleRow {
            module_id,
            path: path.into(),
            build_id: None,
            start,
            end: start + (1 << 24),
            offset: 0,
        });
    }

    let mut frames = FrameColumns::default();
    for frame_id in 0..FRAMES {
        // One in four is own code, the others are called by it.
        let (module_id, file, origin) = match frame_id % 12 {
            0..=2 => (1, format!("src/{}.rs", module(frame_id)), "own"),
            3..=5 => (1, format!("/cargo/serde_json-1.0/src/{}.rs", verb(frame_id)), "dependency"),
            6..=7 => (1, "/cargo/tokio-1.54.1/src/runtime/task/core.rs".into(), "tokio"),
            8..=10 => (1, "/rustc/library/core/src/ops/function.rs".into(), "std"),
            _ => (2, String::new(), "libc"),
        };
        let function = format!("{}::{}::step_{frame_id}", module(frame_id), verb(frame_id));
        frames.push(FrameRow {
            frame_id,
            module_id: Some(module_id),
            address: 0x1000 + frame_id * 64,
            function: (frame_id % 97 != 5).then(|| function.into()),
            file: (!file.is_empty()).then(|| file.into()),
            line: Some(i32::try_from(1 + frame_id % 400).unwrap_or(0)),
            col: Some(9),
            inline_depth: i32::from(frame_id % 5 == 1),
            origin: Some(origin.into()),
        });
    }

    let mut stacks = StackColumns::default();
    let mut random = Random(1);
    for stack_id in 0..STACKS {
        // Stacks of a type share their outer frames, and those of all the outermost.
        let type_id = stack_id / (STACKS / (TYPES + 2));
        let frame_ids = (0..DEPTH).map(|depth| match DEPTH - depth {
            outer @ 1..=6 => outer,
            near @ 7..=16 => (type_id * 12 + near) % FRAMES,
            _ => random.below(FRAMES),
        });
        stacks.push(StackRow { stack_id, frame_ids: frame_ids.collect(), unwind: "complete".into() });
    }

    let mut clock = ClockColumns::default();
    for n in 0..=dur / LAPSE {
        clock.push(ClockRow { mono: SECOND + n * LAPSE, real: START + n * LAPSE });
    }
    vec![
        (Table::Threads, threads.finish()),
        (Table::TaskTypes, types.finish()),
        (Table::Tasks, tasks.finish()),
        (Table::Modules, modules.finish()),
        (Table::Frames, frames.finish()),
        (Table::Stacks, stacks.finish()),
        (Table::Clock, clock.finish()),
    ]
}

fn module(n: i64) -> &'static str {
    const MODULES: [&str; 10] =
        ["http", "cache", "auth", "billing", "search", "orders", "queue", "metrics", "storage", "session"];
    usize::try_from(n).ok().and_then(|n| MODULES.get(n / 20 % MODULES.len())).copied().unwrap_or("app")
}

fn verb(n: i64) -> String {
    const VERBS: [&str; 10] =
        ["handle", "fetch", "flush", "refresh", "stream", "accept", "retry", "decode", "encode", "sweep"];
    let verb = usize::try_from(n).ok().and_then(|n| VERBS.get(n % VERBS.len())).copied().unwrap_or("run");
    format!("{verb}_{n}")
}
