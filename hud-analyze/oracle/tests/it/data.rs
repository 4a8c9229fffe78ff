//! A session's rows in memory, how they get to disk and back, and the arguments of views.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hud_analyze::{
    catalog::Catalog,
    view::{Arguments, View},
};
use hud_common::session::{
    Clock, Columns, CoverageColumns, CoverageRow, DropColumns, DropRow, EndColumns, EndRow, FORMAT_VERSION,
    FrameColumns, FrameRow, InProgressColumns, InProgressRow, InflightLog, Manifest, ModuleColumns, ModuleRow,
    OffCpuColumns, OffCpuRow, Options, OverheadColumns, OverheadRow, PollColumns, PollRow, ProcessColumns, ProcessRow,
    SampleColumns, SampleRow, SessionDir, SpawnColumns, SpawnRow, StackColumns, StackRow, TaskColumns, TaskRow,
    TaskStateColumns, TaskStateRow, TaskTypeColumns, TaskTypeRow, Text, ThreadColumns, ThreadRow, WakeColumns, WakeRow,
    seal,
};
use serde_json::Value;
use tempfile::TempDir;

pub const T0: i64 = 1_700_000_000_000_000_000;
pub const SECOND: i64 = 1_000_000_000;
pub const MS: i64 = 1_000_000;

/// A row of a view.
pub type Row = serde_json::Map<String, Value>;

/// A cell, out of JSON.
trait FromJson {
    fn from_json(value: &Value) -> Self;
}
impl FromJson for i64 {
    fn from_json(value: &Value) -> Self {
        value.as_i64().unwrap()
    }
}
impl FromJson for i32 {
    fn from_json(value: &Value) -> Self {
        value.as_i64().unwrap().try_into().unwrap()
    }
}
impl FromJson for bool {
    fn from_json(value: &Value) -> Self {
        value.as_bool().unwrap()
    }
}
impl FromJson for Text {
    fn from_json(value: &Value) -> Self {
        value.as_str().unwrap().to_string().into()
    }
}
impl FromJson for Vec<i64> {
    fn from_json(value: &Value) -> Self {
        value.as_array().unwrap().iter().map(i64::from_json).collect()
    }
}
impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: &Value) -> Self {
        (!value.is_null()).then(|| T::from_json(value))
    }
}

macro_rules! data {
    ($($table:ident: $row:ident, $columns:ident { $($column:ident),+ })+) => {
        /// A session's rows.
        #[derive(Clone, Debug, Default)]
        pub struct Data {
            /// When recording began.
            pub start: i64,
            $(pub $table: Vec<$row>),+
        }

        impl Data {
            /// Writes the rows as a recorder does, each table cut into `segments`.
            fn seal(&self, dir: &SessionDir, segments: usize) {
                $(
                    let size = self.$table.len().div_ceil(segments).max(1);
                    for rows in self.$table.chunks(size) {
                        let mut columns = $columns::default();
                        rows.iter().cloned().for_each(|row| columns.push(row));
                        let number = dir.next_number($columns::TABLE).unwrap();
                        let mut log = InflightLog::create(dir, $columns::TABLE, number).unwrap();
                        log.append(&columns.finish()).unwrap();
                        log.finish().unwrap();
                        seal(dir, $columns::TABLE, number).unwrap();
                    }
                )+
            }

            /// Reads all of a session.
            pub fn read(session: &Path) -> Self {
                let all = |table: &str| query(session, &format!("SELECT * FROM {table}"));
                let start = Manifest::read(session).unwrap().start;
                Data { start, $($table: {
                    let cells = all(stringify!($table));
                    cells.iter().map(|row| $row { $($column: FromJson::from_json(&row[stringify!($column)])),+ }).collect()
                }),+ }
            }
        }
    };
}
data! {
    polls: PollRow, PollColumns { ts, dur, task_id, type_id, tid, cpu, blocked, run_queue, wake_delay, completed }
    off_cpu: OffCpuRow, OffCpuColumns { ts, dur, tid, cpu, state, task_id, stack_id, run_queue, waker_tid, intervals }
    samples: SampleRow, SampleColumns { ts, tid, cpu, task_id, stack_id, weight, unwind }
    wakes: WakeRow, WakeColumns { ts, task_id, waker_task_id, waker_tid }
    spawns: SpawnRow, SpawnColumns { ts, task_id, type_id, parent_task_id, tid }
    ends: EndRow, EndColumns { ts, task_id, outcome }
    tasks: TaskRow, TaskColumns { ts, task_id, type_id, tid, source }
    in_progress: InProgressRow, InProgressColumns {
        ts, lasted, since, tid, worker, task_id, type_id, state, stack_id, estimated, ended
    }
    task_states: TaskStateRow, TaskStateColumns {
        ts, since, task_id, tid, type_id, state, branch, branches, stack_id, resource, address, deadline, detail,
        holder_task_id, holder_tid, cycle, spawn_file, spawn_line
    }
    threads: ThreadRow, ThreadColumns { ts, tid, name, role, worker, runtime_id, event }
    task_types: TaskTypeRow, TaskTypeColumns { type_id, name, scheduler, file, line, kind, raw_name }
    stacks: StackRow, StackColumns { stack_id, frame_ids, unwind }
    frames: FrameRow, FrameColumns { frame_id, module_id, address, function, file, line, col, inline_depth, origin }
    modules: ModuleRow, ModuleColumns { module_id, path, build_id, start, end, offset }
    coverage: CoverageRow, CoverageColumns { ts, dur, stream, reason }
    drops: DropRow, DropColumns { ts, dur, stream, stage, lost }
    process: ProcessRow, ProcessColumns { ts, cpu_user, cpu_sys, rss, threads, fds, cpu_others, throttled }
    overhead: OverheadRow, OverheadColumns { ts, probe_ns, recorder_cpu, recorder_rss, ring_bytes, events }
}

/// A session on disk.
pub struct OnDisk {
    _tmp: TempDir,
    pub path: PathBuf,
}

impl Data {
    /// The same, with the least type of a task in all its rows, and in a row of `tasks`.
    pub fn with_one_type_per_task(&self) -> Self {
        let mut types: BTreeMap<i64, i64> = BTreeMap::new();
        let polls = self.polls.iter().map(|row| (row.task_id, row.type_id));
        let spawns = self.spawns.iter().map(|row| (row.task_id, row.type_id));
        let tasks = self.tasks.iter().map(|row| (row.task_id, row.type_id));
        for (task, type_id) in polls.chain(spawns).chain(tasks) {
            if let Some(type_id) = type_id {
                let least = types.entry(task).or_insert(type_id);
                *least = type_id.min(*least);
            }
        }
        let of = |task: i64| types.get(&task).copied();
        let mut data = self.clone();
        data.polls.iter_mut().for_each(|row| row.type_id = of(row.task_id));
        data.spawns.iter_mut().for_each(|row| row.type_id = of(row.task_id));
        data.tasks.iter_mut().for_each(|row| row.type_id = of(row.task_id));
        let rows = types.iter().map(|(task_id, type_id)| TaskRow {
            ts: T0,
            task_id: *task_id,
            type_id: Some(*type_id),
            tid: 1,
            source: "probe".into(),
        });
        data.tasks.extend(rows);
        data
    }

    /// Writes a session of these rows.
    pub fn write(&self, segments: usize) -> OnDisk {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().join("session");
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            id: "random".into(),
            hud_version: "0.1.0".into(),
            host: "nowhere".into(),
            kernel: "6.0".into(),
            cpus: 2,
            pid: 100,
            exe: "/srv/app".into(),
            start: T0,
            end: Some(T0 + 10 * SECOND),
            end_reason: Some("made up".into()),
            options: Options { freq: 100, polls: "exact".into(), ..Options::default() },
            clock: Clock { mono: 0, real: T0 },
            complete: true,
            ..Manifest::default()
        };
        let (dir, lock) = SessionDir::create(&path, &manifest).unwrap();
        self.seal(&dir, segments);
        drop(lock);
        OnDisk { _tmp: tmp, path }
    }
}

/// What views are asked with.
#[derive(Clone, Debug)]
pub struct Args {
    pub from: i64,
    pub to: i64,
    pub task: Option<i64>,
    pub thread: Option<i64>,
    pub threshold: i64,
    pub asleep: i64,
    pub step: i64,
    pub late: i64,
    pub polls: i64,
    pub hops: i64,
    pub depth: i64,
    pub lines: bool,
    pub functions: bool,
    pub types: bool,
    pub threads: bool,
    pub states: bool,
    pub rules: Rules,
}

/// What the rules hold a window against.
#[derive(Clone, Debug)]
pub struct Rules {
    pub long_poll: i64,
    pub very_long_poll: i64,
    pub wake_delay_p99: i64,
    pub wake_delay_count: i64,
    pub wake_delay_waiting: i64,
    pub cpu_share: i64,
    pub short_sleeps: i64,
    pub worker_blocked: i64,
    pub imbalance: i64,
    pub imbalance_busy: i64,
    pub pool_busy: i64,
    pub pool_threads: i64,
    pub growth: i64,
    pub growth_ended: i64,
    pub threads_grow: i64,
    pub fds_grow: i64,
    pub memory_grow: i64,
    pub grow_ratio: i64,
    pub grow_time: i64,
    pub panics: i64,
    pub cancelled: i64,
    pub cancelled_share: i64,
    pub self_wakes: i64,
    pub self_wakes_share: i64,
    pub wake_storm: i64,
    pub wake_storm_rate: i64,
    pub spawn_rate: i64,
    pub lock_wait: i64,
    pub lock_busy: i64,
    pub stuck: i64,
    pub observed: i64,
}

impl Args {
    /// Of a window, with the defaults.
    pub fn between(from: i64, to: i64) -> Self {
        let of = hud_common::cockpit::Thresholds::default();
        Args {
            from,
            to,
            task: None,
            thread: None,
            threshold: 10 * MS,
            asleep: MS,
            step: SECOND,
            late: MS,
            polls: 10,
            hops: 4,
            depth: 64,
            lines: false,
            functions: true,
            types: true,
            threads: false,
            states: false,
            rules: Rules {
                long_poll: of.long_poll,
                very_long_poll: of.very_long_poll,
                wake_delay_p99: of.wake_delay_p99,
                wake_delay_count: of.wake_delay_count,
                wake_delay_waiting: of.wake_delay_waiting,
                cpu_share: of.cpu_share,
                short_sleeps: of.short_sleeps,
                worker_blocked: of.worker_blocked,
                imbalance: of.imbalance,
                imbalance_busy: of.imbalance_busy,
                pool_busy: of.pool_busy,
                pool_threads: of.pool_threads,
                growth: of.growth,
                growth_ended: of.growth_ended,
                threads_grow: of.threads_grow,
                fds_grow: of.fds_grow,
                memory_grow: of.memory_grow,
                grow_ratio: of.grow_ratio,
                grow_time: of.grow_time,
                panics: of.panics,
                cancelled: of.cancelled,
                cancelled_share: of.cancelled_share,
                self_wakes: of.self_wakes,
                self_wakes_share: of.self_wakes_share,
                wake_storm: of.wake_storm,
                wake_storm_rate: of.wake_storm_rate,
                spawn_rate: of.spawn_rate,
                lock_wait: of.lock_wait,
                lock_busy: of.lock_busy,
                stuck: of.stuck,
                observed: of.observed,
            },
        }
    }

    /// All of a session, as of its rows.
    pub fn whole(data: &Data) -> Self {
        let starts = data.polls.iter().map(|p| p.ts).chain(data.off_cpu.iter().map(|o| o.ts));
        let ends = data.polls.iter().map(|p| p.ts + p.dur).chain(data.off_cpu.iter().map(|o| o.ts + o.dur));
        let (from, to) = (starts.min().unwrap(), ends.max().unwrap() + 1);
        Args { step: (to - from) / 10 + 1, ..Args::between(from, to) }
    }

    pub fn holds(&self, ts: i64) -> bool {
        self.from <= ts && ts < self.to
    }

    /// Whether an interval touches the window.
    pub fn touches(&self, ts: i64, dur: i64) -> bool {
        ts < self.to && ts + dur > self.from
    }

    pub fn is_wanted(&self, task: Option<i64>, tid: i32) -> bool {
        (self.task.is_none() || self.task == task) && self.thread.is_none_or(|t| t == i64::from(tid))
    }

    fn arguments(&self) -> Arguments {
        let r = &self.rules;
        Arguments::default()
            .int("from", self.from)
            .int("to", self.to)
            .int("task", self.task)
            .int("thread", self.thread)
            .int("threshold", self.threshold)
            .int("asleep", self.asleep)
            .int("step", self.step)
            .int("late", self.late)
            .int("polls", self.polls)
            .int("hops", self.hops)
            .int("depth", self.depth)
            .flag("lines", self.lines)
            .flag("functions", self.functions)
            .flag("types", self.types)
            .flag("threads", self.threads)
            .flag("states", self.states)
            .int("long_poll", r.long_poll)
            .int("very_long_poll", r.very_long_poll)
            .int("wake_delay_p99", r.wake_delay_p99)
            .int("wake_delay_count", r.wake_delay_count)
            .int("wake_delay_waiting", r.wake_delay_waiting)
            .int("cpu_share", r.cpu_share)
            .int("short_sleeps", r.short_sleeps)
            .int("worker_blocked", r.worker_blocked)
            .int("imbalance", r.imbalance)
            .int("imbalance_busy", r.imbalance_busy)
            .int("pool_busy", r.pool_busy)
            .int("pool_threads", r.pool_threads)
            .int("growth", r.growth)
            .int("growth_ended", r.growth_ended)
            .int("threads_grow", r.threads_grow)
            .int("fds_grow", r.fds_grow)
            .int("memory_grow", r.memory_grow)
            .int("grow_ratio", r.grow_ratio)
            .int("grow_time", r.grow_time)
            .int("panics", r.panics)
            .int("cancelled", r.cancelled)
            .int("cancelled_share", r.cancelled_share)
            .int("self_wakes", r.self_wakes)
            .int("self_wakes_share", r.self_wakes_share)
            .int("wake_storm", r.wake_storm)
            .int("wake_storm_rate", r.wake_storm_rate)
            .int("spawn_rate", r.spawn_rate)
            .int("lock_wait", r.lock_wait)
            .int("lock_busy", r.lock_busy)
            .int("stuck", r.stuck)
            .int("observed", r.observed)
    }
}

/// The rows of a view.
pub fn ask(session: &Path, view: View, args: &Args) -> Vec<Row> {
    runtime().block_on(async {
        let catalog = Catalog::open(session).unwrap();
        let frame = catalog.plan(&view, &args.arguments()).await.unwrap();
        to_rows(&frame.collect().await.unwrap_or_else(|e| panic!("{}: {e}", view.name)))
    })
}

/// The rows of any query.
fn query(session: &Path, sql: &str) -> Vec<Row> {
    runtime().block_on(async {
        let catalog = Catalog::open(session).unwrap();
        to_rows(&catalog.context().unwrap().sql(sql).await.unwrap().collect().await.unwrap())
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn to_rows(batches: &[arrow::array::RecordBatch]) -> Vec<Row> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let json = writer.into_inner();
    if json.is_empty() { Vec::new() } else { serde_json::from_slice(&json).unwrap() }
}

/// The recording of a real program that lies beside hud-analyze's tests.
pub fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/session")
}
