//! The tables of a session, format version 1: names, columns, row types and Arrow schemas. docs/SCHEMA.md is generated from
//! here.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};

use super::row::{Cell, ColumnInfo, Text, batch};

/// Builds the columns of a table.
pub trait Columns: Default + Send {
    /// A row of the table.
    type Row;
    /// The table.
    const TABLE: Table;
    /// Adds a row.
    fn push(&mut self, row: Self::Row);
    /// Number of rows so far.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The rows so far as a batch with the table's schema; the columns are empty afterwards.
    fn finish(&mut self) -> RecordBatch;
}

macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $variant:ident = $name:literal by $key:ident, $row:ident, $columns:ident {
            $( $(#[doc = $column_about:literal])+ $column:ident: $type:ty, )+
        }
    )+) => {
        /// A table of the session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Table { $( $(#[doc = $about])+ $variant, )+ }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$variant),+];

            /// Its folder and its name in SQL.
            pub const fn name(self) -> &'static str {
                match self { $(Table::$variant => $name),+ }
            }

            /// The column by which segments are sorted.
            pub const fn key(self) -> &'static str {
                match self { $(Table::$variant => stringify!($key)),+ }
            }

            /// Whether it holds events, whose oldest segments expire. Rows that are referred to by an id, and the clock, stay.
            pub const fn expires(self) -> bool {
                matches!(self.key().as_bytes(), b"ts")
            }

            /// The table of that name.
            pub fn by_name(name: &str) -> Option<Table> {
                Table::ALL.iter().copied().find(|t| t.name() == name)
            }

            /// A description of its rows.
            pub fn about(self) -> String {
                match self { $(Table::$variant => join(&[$($about),+])),+ }
            }

            /// Its columns, in order.
            pub fn columns(self) -> Vec<ColumnInfo> {
                match self { $(Table::$variant => vec![$(ColumnInfo {
                    name: stringify!($column),
                    data_type: <$type as Cell>::data_type(),
                    nullable: <$type as Cell>::NULLABLE,
                    about: join(&[$($column_about),+]),
                }),+]),+ }
            }

            /// Its Arrow schema.
            pub fn schema(self) -> SchemaRef {
                static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| {
                    Table::ALL.iter().map(|table| {
                        let fields: Vec<_> = table.columns().into_iter()
                            .map(|c| Field::new(c.name, c.data_type, c.nullable)).collect();
                        Arc::new(Schema::new(fields))
                    }).collect()
                });
                Arc::clone(&SCHEMAS[self as usize])
            }
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug)]
            pub struct $row { $( $(#[doc = $column_about])+ pub $column: $type, )+ }

            #[doc = concat!("Builds the columns of `", $name, "`.")]
            #[derive(Default)]
            pub struct $columns {
                rows: Vec<$row>,
            }

            impl Columns for $columns {
                type Row = $row;
                const TABLE: Table = Table::$variant;
                #[inline]
                fn push(&mut self, row: $row) {
                    self.rows.push(row);
                }
                fn len(&self) -> usize {
                    self.rows.len()
                }
                fn finish(&mut self) -> RecordBatch {
                    let rows = self.rows.as_slice();
                    let columns = vec![$(<$type as Cell>::column(rows, |row: &$row| &row.$column)),+];
                    self.rows.clear();
                    batch(Table::$variant.schema(), columns)
                }
            }
        )+
    };
}

fn join(lines: &[&str]) -> String {
    lines.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
}

tables! {
    /// A poll of a task, measured by probes.
    Polls = "polls" by ts, PollRow, PollColumns {
        /// Start (ns since the Unix epoch).
        ts: i64,
        /// Duration (ns).
        dur: i64,
        /// Tokio's task id.
        task_id: i64,
        /// Type of the task; null if the poll function has none.
        type_id: Option<i64>,
        /// Polling thread.
        tid: i32,
        /// CPU on which the poll ended.
        cpu: i32,
        /// Part of `dur` in which the thread was asleep (ns).
        blocked: i64,
        /// Part of `dur` in which it was runnable without a CPU (ns): in a run queue, or on a virtual CPU that the hypervisor did not run (steal time).
        run_queue: i64,
        /// Wake-to-poll latency: time from the wake that led to the poll to `ts` (ns); null if wakes are not recorded.
        wake_delay: Option<i64>,
        /// Whether the task completed in it; null if unknown.
        completed: Option<bool>,
    }

    /// An off-CPU interval of one of the target's threads, or a sum of them.
    OffCpu = "off_cpu" by ts, OffCpuRow, OffCpuColumns {
        /// Time at which the thread left its CPU (ns since the Unix epoch).
        ts: i64,
        /// Duration (ns).
        dur: i64,
        /// Thread.
        tid: i32,
        /// CPU that the thread left.
        cpu: i32,
        /// State in which it left: `S` asleep, `D` asleep uninterruptibly, `R` preempted or yielding (still runnable), `T` stopped, `t` traced, `I` idle, `P` parked, `+` a sum of intervals, see `intervals`.
        state: Text,
        /// Task that it was polling; null outside a task.
        task_id: Option<i64>,
        /// Stack at which it left; null if none could be taken.
        stack_id: Option<i64>,
        /// Run-queue latency: the end of `dur`, from the wake-up on, in which it was runnable without a CPU (ns). Null if no wake-up was observed, and for `R`, where it is all of `dur`.
        run_queue: Option<i64>,
        /// Thread that woke it, of any process.
        waker_tid: Option<i32>,
        /// Number of off-CPU intervals that the row sums up (state `+`), as the thread switched too often to record each within the overhead budget: `dur` and `run_queue` are then their sums, `ts` is `dur` before the end of the last, `task_id` is that of the last, and there is no stack. Null if the row is one interval.
        intervals: Option<i32>,
    }

    /// A CPU sample.
    Samples = "samples" by ts, SampleRow, SampleColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Thread.
        tid: i32,
        /// CPU.
        cpu: i32,
        /// Task in a poll; null outside a task.
        task_id: Option<i64>,
        /// Stack of the thread; null if none could be taken.
        stack_id: Option<i64>,
        /// CPU time that the sample represents (ns).
        weight: i64,
        /// Completeness of the stack, as in `stacks`; `failed` also if there is none.
        unwind: Text,
    }

    /// A wake of a task.
    Wakes = "wakes" by ts, WakeRow, WakeColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Woken task.
        task_id: i64,
        /// Task that the waking thread was polling; null outside a task.
        waker_task_id: Option<i64>,
        /// Waking thread.
        waker_tid: i32,
    }

    /// A spawn of a task.
    Spawns = "spawns" by ts, SpawnRow, SpawnColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Task.
        task_id: i64,
        /// Its type.
        type_id: Option<i64>,
        /// Task that spawned it; null outside a task.
        parent_task_id: Option<i64>,
        /// Spawning thread.
        tid: i32,
    }

    /// The end of a task.
    Ends = "ends" by ts, EndRow, EndColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Task.
        task_id: i64,
        /// `completed`, `cancelled` or `panicked`.
        outcome: Text,
    }

    /// A task and its type, at the first off-CPU interval or sample in which the task was observed. A task may have several rows, all with the same type.
    Tasks = "tasks" by ts, TaskRow, TaskColumns {
        /// Time of the observation (ns since the Unix epoch).
        ts: i64,
        /// Tokio's task id.
        task_id: i64,
        /// Its type; null if its poll function is unknown to hud.
        type_id: Option<i64>,
        /// Thread that was polling it.
        tid: i32,
        /// Source of the type: `probe`, or `memory` (the task's vtable).
        source: Text,
    }

    /// A thread that was observed or renamed, whose role became known, or that exited.
    Threads = "threads" by ts, ThreadRow, ThreadColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Thread.
        tid: i32,
        /// Its name (`comm`).
        name: Text,
        /// Role, as known then: `worker`, `blocking` (tokio's pool) or `other`.
        role: Text,
        /// Number of the worker, counted from 0 in each runtime; null for others.
        worker: Option<i32>,
        /// Its runtime, counted from 0; null if unknown.
        runtime_id: Option<i64>,
        /// `seen`, `renamed`, `role` (role or worker became known), `alive` (repeated without a change) or `gone`.
        event: Text,
    }

    /// A poll that had lasted for at least 100 ms and was still in progress, or a task that a thread was polling each time it was observed for that long; a row per second, the first within a second of the attach. Polls of tasks only: neither workers' loops nor work of the blocking pool. A thread inside `block_in_place` has rows too. If `coverage` has no stream `in_progress`, polls in progress were not looked for.
    InProgress = "in_progress" by ts, InProgressRow, InProgressColumns {
        /// Time of the observation (ns since the Unix epoch).
        ts: i64,
        /// Time for which it had lasted by then, at least (ns): from `since`, or, if that is null, from the first observation.
        lasted: i64,
        /// Time at or before which the poll began: its start if polls were recorded, else when its thread left the CPU, or was first observed on it (ns since the Unix epoch). Null if it was in progress before anything was recorded of it, as before the attach.
        since: Option<i64>,
        /// Thread.
        tid: i32,
        /// Number of the worker, as in `threads`; null for others.
        worker: Option<i32>,
        /// Task being polled.
        task_id: i64,
        /// Its type; null if unknown.
        type_id: Option<i64>,
        /// `blocked` (asleep), `runnable` (waiting for a CPU) or `running` (on a CPU).
        state: Text,
        /// Stack of the thread: of `running` that of its last sample; null if none could be taken.
        stack_id: Option<i64>,
        /// Whether there may have been several polls of the task instead of one: a thread that stayed on its CPU while polls were not recorded.
        estimated: bool,
        /// Whether it was no longer in progress at `ts`, or no longer certainly; `lasted` is then that of its last observation.
        ended: bool,
    }

    /// The state of a task when the recorder read all tasks of the target from its memory (a snapshot): as recording begins, a second later, and then at intervals (`--state`). A task has rows in the first snapshot that finds it and in each that differs from the one before: in its state, await stack, resource or holder. All tasks have rows in the first snapshot and in the first after each 10 minutes, and tasks in a deadlock, or that are their own holders, in every one. So a task's state at some time is that of its newest rows by then, unless that is `gone`; rows older than 20 minutes before the last snapshot are not needed. Snapshots are taken at the ends of the ranges of the stream `task_states` in `coverage`, whose reason says what could not be read; without that stream there were none.
    TaskStates = "task_states" by ts, TaskStateRow, TaskStateColumns {
        /// Time of the snapshot (ns since the Unix epoch).
        ts: i64,
        /// Time of the first snapshot from which on the task was found in this same state, await stack and resource each time (ns since the Unix epoch). It may have been polled between two snapshots.
        since: i64,
        /// Tokio's task id; null for a future that a thread runs by `block_on`.
        task_id: Option<i64>,
        /// The thread that runs it by `block_on`; null for a task.
        tid: Option<i32>,
        /// Its type; null if unknown, and for `block_on`.
        type_id: Option<i64>,
        /// `running` (or it changed while it was read), `scheduled` (woken and in a queue), `suspended` (waiting), `never_polled`, `finished` (its handle still exists), `cancelled` (and not dropped yet), or `gone` (no longer found: it has ended, or, for `block_on`, its thread was running).
        state: Text,
        /// Number of the row among those of the task and `ts`, from 0: a task that waits for several futures at once has a row for each of the first eight different ones.
        branch: i32,
        /// Number of futures for which it waits; 0 if none is known.
        branches: i32,
        /// Await stack: the future that waits, then the functions that await it, each with the line of its `.await`. Null if unknown.
        stack_id: Option<i64>,
        /// What it waits for: `mutex`, `rwlock_read`, `rwlock_write`, `semaphore`, `mpsc_send` (room in a channel), `mpsc_receive`, `once_cell`, `notify`, `oneshot`, `broadcast`, `task` (its end), `join_set`, `timer`, `io`; null if unknown.
        resource: Option<Text>,
        /// Address of the resource, by which tasks that wait for the same one are recognized; null for timers.
        address: Option<i64>,
        /// End of a timer (ns since the Unix epoch), as the row was written.
        deadline: Option<i64>,
        /// The resource in words, such as a lock's content or a socket's addresses.
        detail: Option<Text>,
        /// Task that certainly holds the lock, that receives from the channel, or whose end is awaited; the task itself if it waits for permits of a semaphore while it holds some. Null if there is none, or if it is not known.
        holder_task_id: Option<i64>,
        /// The same for a future that a thread runs by `block_on`: the thread.
        holder_tid: Option<i32>,
        /// Number of a deadlock: the smallest id of the tasks that wait for each other in a cycle. Null if the task is in none.
        cycle: Option<i64>,
        /// Source file of the `spawn` call; null unless the program was built with `tokio_unstable`.
        spawn_file: Option<Text>,
        /// Its line.
        spawn_line: Option<i32>,
    }

    /// A type of task: the future that was spawned.
    TaskTypes = "task_types" by type_id, TaskTypeRow, TaskTypeColumns {
        /// Type.
        type_id: i64,
        /// Name as written in source code: `app::handler`.
        name: Text,
        /// `multi_thread`, `current_thread`, `local`, `blocking`; null if unknown.
        scheduler: Option<Text>,
        /// Source file of the future.
        file: Option<Text>,
        /// Its line.
        line: Option<i32>,
        /// `task`; `worker` for the loop of a runtime's worker thread, `blocking` for work of the blocking pool.
        kind: Text,
        /// Name given by the compiler.
        raw_name: Text,
    }

    /// A distinct stack.
    Stacks = "stacks" by stack_id, StackRow, StackColumns {
        /// Stack.
        stack_id: i64,
        /// Its frames, leaf first, inlined ones included.
        frame_ids: Vec<i64>,
        /// Completeness: `complete` (to the thread's start), `truncated` (to the maximum number of frames), `failed` (frames
        /// further out are missing).
        unwind: Text,
    }

    /// A frame; an address has one for each function inlined at it.
    Frames = "frames" by frame_id, FrameRow, FrameColumns {
        /// Frame.
        frame_id: i64,
        /// Mapped file; null if the address is in none.
        module_id: Option<i64>,
        /// Address in the file's own address space (runtime address if there is no module; 0 in an await stack).
        address: i64,
        /// Function, demangled; null if it has no name.
        function: Option<Text>,
        /// Source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Column in the line, from 1.
        col: Option<i32>,
        /// 0 for the function that holds the address, 1 for the one inlined into it, and so on.
        inline_depth: i32,
        /// Origin of the code: `own`, `dependency`, `tokio`, `std`, `libc`, `kernel` (the vdso too), `system` (other libraries); null if uncertain.
        origin: Option<Text>,
    }

    /// A file mapped into the target, with code in it.
    Modules = "modules" by module_id, ModuleRow, ModuleColumns {
        /// Module.
        module_id: i64,
        /// Path in the target's mount namespace.
        path: Text,
        /// GNU build id, hexadecimal.
        build_id: Option<Text>,
        /// First runtime address of the mapping.
        start: i64,
        /// Address past it.
        end: i64,
        /// Offset in the file.
        offset: i64,
    }

    /// Resources used by the target; a row per second.
    Process = "process" by ts, ProcessRow, ProcessColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// CPU time in user space since the last row (ns).
        cpu_user: i64,
        /// CPU time in the kernel since the last row (ns).
        cpu_sys: i64,
        /// Resident memory (bytes).
        rss: i64,
        /// Threads.
        threads: i32,
        /// Open file descriptors; null before Linux 6.2.
        fds: Option<i32>,
        /// CPU time of everything else on the machine since the last row, including other guests of its host (ns, in steps of 10 ms); null if unknown.
        cpu_others: Option<i64>,
        /// Time since the last row in which CPU limits of its control group, and of those above it, kept threads from running (ns, summed over CPUs and groups); null if no group counts it.
        throttled: Option<i64>,
    }

    /// A time range in which a stream was recorded: outside of these ranges it was not.
    Coverage = "coverage" by ts, CoverageRow, CoverageColumns {
        /// Start (ns since the Unix epoch).
        ts: i64,
        /// Duration (ns).
        dur: i64,
        /// Stream: the table's name.
        stream: Text,
        /// Reason for its start or end.
        reason: Text,
    }

    /// Lost events.
    Drops = "drops" by ts, DropRow, DropColumns {
        /// Start of the time range in which they were lost (ns since the Unix epoch).
        ts: i64,
        /// Its length (ns).
        dur: i64,
        /// Stream: the table's name; `all` if unknown. `stacks` counts rows without a stack, `frames` frames that stacks lack.
        stream: Text,
        /// Stage at which they were lost: `ring` (ring buffer full), `untracked` (kernel map full), `decode` (not decodable), `disk` (disk full), `capacity` (maximum number of distinct stacks or frames in the recorder's memory), `writer` (disk too slow), `damaged` (stored, then damaged, and set aside by `hud-analyze repair`), `unknown` (the record of the stage was damaged).
        stage: Text,
        /// Number of events.
        lost: i64,
    }

    /// The account of a stream so far; a row per second. `produced - stored - dropped` events were in transit then. A row is written after all rows that it counts.
    Accounts = "accounts" by ts, AccountRow, AccountColumns {
        /// Time at which the kernel's counters were read (ns since the Unix epoch).
        ts: i64,
        /// Stream: the table's name.
        stream: Text,
        /// Events since the session began.
        produced: i64,
        /// Rows written since the session began, including expired ones.
        stored: i64,
        /// Events lost since the session began.
        dropped: i64,
    }

    /// Resources used by hud; a row per second.
    Overhead = "overhead" by ts, OverheadRow, OverheadColumns {
        /// Time (ns since the Unix epoch).
        ts: i64,
        /// Run time of the kernel programs since the last row (ns); null if the kernel does not measure it.
        probe_ns: Option<i64>,
        /// CPU time of the recorder since the last row (ns).
        recorder_cpu: i64,
        /// Resident memory of the recorder (bytes).
        recorder_rss: i64,
        /// Bytes read from the ring since the last row.
        ring_bytes: i64,
        /// Events read since the last row.
        events: i64,
    }

    /// A problem that the recorder's rules detected in a time range of some seconds. A problem that lasts has a row for each such range. If `coverage` has no stream `findings`, the rules were not evaluated.
    Findings = "findings" by ts, FindingRow, FindingColumns {
        /// Start of the time range that was judged (ns since the Unix epoch).
        ts: i64,
        /// Its length (ns).
        dur: i64,
        /// Name of the rule; `hud-analyze findings --help` lists their thresholds.
        rule: Text,
        /// `warning` or `caution`.
        severity: Text,
        /// The subject, and how much, in one sentence.
        sentence: Text,
        /// The figure that was compared with the threshold, in `unit`.
        value: i64,
        /// The threshold, in `unit`.
        threshold: i64,
        /// `ns`, `thousandths` or `count`.
        unit: Text,
        /// Number of polls, samples, sleeps, latencies, tasks or waits; null if the rule counts none.
        count: Option<i64>,
        /// Sum of their durations (ns); null if they have none.
        total: Option<i64>,
        /// Start of the worst of them (ns since the Unix epoch); null if it has none.
        worst_ts: Option<i64>,
        /// Task of the worst; null if the finding is about none.
        task_id: Option<i64>,
        /// Type of task; null if the finding is about none, or if the type is unknown.
        type_id: Option<i64>,
        /// Thread of the worst; null if the finding is about none.
        tid: Option<i32>,
        /// Function to which the problem is attributed; null if it is attributed to none.
        function: Option<Text>,
        /// Its source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Whether `value` is an estimate.
        estimated: bool,
        /// All thresholds in force: `name=value` pairs separated by commas, durations in ns and shares in thousandths.
        thresholds: Text,
    }

    /// An anchor of the clock: CLOCK_MONOTONIC and CLOCK_REALTIME at one instant. The first is the one that `ts` uses.
    Clock = "clock" by mono, ClockRow, ClockColumns {
        /// CLOCK_MONOTONIC (ns).
        mono: i64,
        /// CLOCK_REALTIME (ns since the Unix epoch).
        real: i64,
    }

    /// CPU time of a minute by function. Like all rollups it is by names instead of ids, and adds up over minutes, sessions and hosts. Of more than 256 rows in a minute, the rest is one row with the function `<others>`.
    RollupCpu = "rollup_cpu" by minute, RollupCpuRow, RollupCpuColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// Function, attributed as in the view `hotspots`.
        function: Text,
        /// Its source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Origin of the code, as in `frames`: `own`, `dependency`, `tokio`, `std`, `system`; null if uncertain.
        origin: Option<Text>,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// `task` or `blocking` (work of the blocking pool); null outside a task, or if unknown.
        kind: Option<Text>,
        /// CPU time attributed to it: the weight of its samples (ns).
        own: i64,
        /// CPU time of samples with the function anywhere on the stack (ns), each counted once, at the line of the function's frame next to the leaf. Complete for functions of origin `own`; for others it counts only while samples are attributed to them.
        total: i64,
        /// Number of samples attributed to it.
        samples: i64,
    }

    /// CPU time of a minute by stack: the 20 heaviest stacks, and the rest in one row without a stack.
    RollupStacks = "rollup_stacks" by minute, RollupStackRow, RollupStackColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// 64-bit FNV-1a hash of `folded`; null for the rest.
        stack_hash: Option<i64>,
        /// Functions from the outermost to the leaf, separated by semicolons; null for the rest.
        folded: Option<Text>,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// Number of samples.
        samples: i64,
        /// CPU time: the weight of the samples (ns).
        weight: i64,
    }

    /// Polls of a minute by type of task, without workers' own loops. Of more than 64 types, the rest is one row of the type `<others>`.
    RollupPolls = "rollup_polls" by minute, RollupPollRow, RollupPollColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// `task` or `blocking` (work of the blocking pool); null outside a task, or if unknown.
        kind: Option<Text>,
        /// Number of polls.
        count: i64,
        /// Sum of their durations (ns).
        total: i64,
        /// Part of `total` in which the thread was computing (ns).
        busy: i64,
        /// Part of `total` in which it was asleep (ns).
        blocked: i64,
        /// Part of `total` in which it was runnable without a CPU (ns).
        run_queue: i64,
        /// The longest duration (ns).
        longest: i64,
        /// Slots of a log-linear histogram that have a count, in order. Slot `s` holds durations from `s` ns if `s < 16`, else from `(16 + s % 16) << (s / 16 - 1)` ns; the next slot begins a sixteenth of an octave later.
        slots: Vec<i64>,
        /// The counts of these slots. Histograms are merged by adding the counts of equal slots.
        counts: Vec<i64>,
    }

    /// Wake-to-poll latencies of a minute by type of task, of polls with a recorded wake. Of more than 64 types, the rest is one row of the type `<others>`.
    RollupWake = "rollup_wake" by minute, RollupWakeRow, RollupWakeColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// Number of polls.
        count: i64,
        /// Sum of their latencies (ns).
        total: i64,
        /// The longest latency (ns).
        longest: i64,
        /// Slots of a log-linear histogram that have a count, in order. Slot `s` holds durations from `s` ns if `s < 16`, else from `(16 + s % 16) << (s / 16 - 1)` ns; the next slot begins a sixteenth of an octave later.
        slots: Vec<i64>,
        /// The counts of these slots. Histograms are merged by adding the counts of equal slots.
        counts: Vec<i64>,
    }

    /// Blocked and busy time of a minute inside polls that held workers, by culprit. Of more than 128 culprits, the rest of each cause is one row with the function `<others>`.
    RollupBlocking = "rollup_blocking" by minute, RollupBlockingRow, RollupBlockingColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// `blocked` (asleep for at least 1 ms), `cpu` (computing for at least 10 ms) or `short sleeps` (each shorter than 1 ms).
        cause: Text,
        /// Function, attributed as in the view `blocking`.
        function: Text,
        /// Its source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Origin of the code, as in `frames`: `own`, `dependency`, `tokio`, `std`, `system`; null if uncertain.
        origin: Option<Text>,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// Whether durations are estimates.
        estimated: bool,
        /// Number of intervals.
        count: i64,
        /// Sum of their durations (ns).
        total: i64,
        /// The longest (ns).
        longest: i64,
    }

    /// Time of a minute by worker, and of the blocking pool's threads together. Off-CPU intervals count in the minute in which they end.
    RollupWorkers = "rollup_workers" by minute, RollupWorkerRow, RollupWorkerColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// `worker`, or `blocking` (threads of tokio's pool).
        role: Text,
        /// Runtime of the worker; null if unknown.
        runtime_id: Option<i64>,
        /// Number of the worker in that runtime; null if unknown, and for the pool.
        worker: Option<i32>,
        /// CPU time by samples (ns).
        cpu: i64,
        /// Time asleep inside a task (ns).
        blocked: i64,
        /// Time runnable without a CPU (ns).
        run_queue: i64,
        /// Time asleep outside a task (ns).
        idle: i64,
        /// Number of polls of tasks.
        polls: i64,
    }

    /// Findings of a minute, by rule and code.
    RollupFindings = "rollup_findings" by minute, RollupFindingRow, RollupFindingColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// Name of the rule, as in `findings`.
        rule: Text,
        /// `warning` or `caution`.
        severity: Text,
        /// Function to which the problem is attributed; null if it is attributed to none.
        function: Option<Text>,
        /// Its source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Type of the task; null outside a task, or if unknown.
        task_type: Option<Text>,
        /// Unit of `worst`: `ns`, `thousandths` or `count`.
        unit: Text,
        /// Number of judged time ranges of 5 s that had the finding.
        ranges: i64,
        /// The greatest figure that was compared with the threshold, in `unit`.
        worst: i64,
    }

    /// Resources of a minute, and how much of the minute the rollups cover. A minute without this row has no rollups.
    RollupProcess = "rollup_process" by minute, RollupProcessRow, RollupProcessColumns {
        /// Start of the minute in which the events ended (ns since the Unix epoch).
        minute: i64,
        /// Part of the minute of which the events are in the rollups (ns).
        observed: i64,
        /// CPU time of the target in user space (ns).
        cpu_user: i64,
        /// CPU time of the target in the kernel (ns).
        cpu_sys: i64,
        /// CPU time of everything else on the machine (ns); 0 if unknown.
        cpu_others: i64,
        /// Time in which CPU limits kept the target's threads from running (ns); 0 if unknown.
        throttled: i64,
        /// The greatest resident memory (bytes); null if not recorded.
        rss: Option<i64>,
        /// The greatest number of threads; null if not recorded.
        threads: Option<i32>,
        /// The greatest number of open file descriptors; null if not recorded.
        fds: Option<i32>,
        /// CPU time of the recorder (ns).
        recorder_cpu: i64,
        /// Run time of the kernel programs (ns); 0 if the kernel does not measure it.
        probe_ns: i64,
        /// Number of events that the recorder read.
        events: i64,
        /// Number of lost events.
        lost: i64,
    }
}

impl Table {
    /// Tables of sums per minute, by names instead of ids.
    pub const ROLLUPS: [Table; 8] = [
        Table::RollupCpu,
        Table::RollupStacks,
        Table::RollupPolls,
        Table::RollupWake,
        Table::RollupBlocking,
        Table::RollupWorkers,
        Table::RollupFindings,
        Table::RollupProcess,
    ];

    /// The table's description as a section of docs/SCHEMA.md.
    pub fn markdown(self) -> String {
        let mut out = format!(
            "## {}\n{}\n\nSorted by `{}`.\n\n| column | type | null | holds |\n|---|---|---|---|\n",
            self.name(),
            self.about(),
            self.key()
        );
        for c in self.columns() {
            let null = if c.nullable { "yes" } else { "" };
            let data_type = match &c.data_type {
                arrow::datatypes::DataType::List(f) => format!("List<{}>", f.data_type()),
                other => other.to_string(),
            };
            out.push_str(&format!("| {} | {data_type} | {null} | {} |\n", c.name, c.about));
        }
        out
    }
}
