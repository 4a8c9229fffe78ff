//! The tables of a session, format version 1: the one place that defines them. docs/SCHEMA.md is printed from here.

use std::{
    format,
    string::{String, ToString},
    sync::{Arc, LazyLock},
    vec,
    vec::Vec,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};

use super::row::{Cell, ColumnInfo, Columns, Text, batch};

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

            /// Whether it holds events: its oldest segments may go. What rows refer to by an id stays, and the clock.
            pub const fn expires(self) -> bool {
                matches!(self.key().as_bytes(), b"ts")
            }

            /// The table of that name.
            pub fn by_name(name: &str) -> Option<Table> {
                Table::ALL.iter().copied().find(|t| t.name() == name)
            }

            /// What a row is.
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

            #[doc = concat!("Columns of `", $name, "` while they fill.")]
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
    /// One poll of a task, exact, by probe.
    Polls = "polls" by ts, PollRow, PollColumns {
        /// When it began (ns since the Unix epoch).
        ts: i64,
        /// How long it took (ns).
        dur: i64,
        /// Tokio's task id.
        task_id: i64,
        /// The task's type; null where the poll function has none.
        type_id: Option<i64>,
        /// Thread that polled.
        tid: i32,
        /// CPU on which the poll ended.
        cpu: i32,
        /// Part of `dur` that the thread was asleep inside the poll (ns).
        blocked: i64,
        /// Part of `dur` that it was runnable without a CPU (ns).
        run_queue: i64,
        /// How long before `ts` the wake was that led to it (ns); null where wakes are not recorded.
        wake_delay: Option<i64>,
        /// Whether the task completed in it; null where not known.
        completed: Option<bool>,
    }

    /// An off-CPU interval of one of the target's threads, or a sum of them.
    OffCpu = "off_cpu" by ts, OffCpuRow, OffCpuColumns {
        /// When the thread left its CPU (ns since the Unix epoch).
        ts: i64,
        /// How long it was away (ns).
        dur: i64,
        /// Thread.
        tid: i32,
        /// CPU that it left.
        cpu: i32,
        /// How it left: `S` asleep, `D` asleep uninterruptibly, `R` preempted or yielding (still runnable), `T` stopped, `t` traced, `I` idle, `P` parked, `+` a sum of intervals, see `intervals`.
        state: Text,
        /// The task that it was polling; null outside a task.
        task_id: Option<i64>,
        /// Its own stack as it left; null where none could be taken.
        stack_id: Option<i64>,
        /// Part of `dur`, its end, that it was runnable without a CPU: since it was woken (ns). Null where no waking was seen, and for `R`, all of which is that.
        run_queue: Option<i64>,
        /// The thread that woke it, of any process.
        waker_tid: Option<i32>,
        /// How many off-CPU intervals the row sums up (state `+`), where the thread switched too often to record each within the overhead budget: `dur` and `run_queue` are then their sums, `ts` is `dur` before the end of the last, `task_id` is that of the last, and there is no stack. Null where the row is one interval.
        intervals: Option<i32>,
    }

    /// A CPU sample.
    Samples = "samples" by ts, SampleRow, SampleColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// Thread.
        tid: i32,
        /// CPU.
        cpu: i32,
        /// The task being polled; null outside a task.
        task_id: Option<i64>,
        /// The thread's stack; null where none could be taken.
        stack_id: Option<i64>,
        /// CPU time that the sample stands for (ns).
        weight: i64,
        /// How far the stack goes, as in `stacks`; `failed` also where there is none.
        unwind: Text,
    }

    /// A task being woken.
    Wakes = "wakes" by ts, WakeRow, WakeColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// The task woken.
        task_id: i64,
        /// The task that the waking thread was polling; null outside a task.
        waker_task_id: Option<i64>,
        /// The waking thread.
        waker_tid: i32,
    }

    /// A task's first moment.
    Spawns = "spawns" by ts, SpawnRow, SpawnColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// Task.
        task_id: i64,
        /// Its type.
        type_id: Option<i64>,
        /// The task that spawned it; null outside a task.
        parent_task_id: Option<i64>,
        /// The spawning thread.
        tid: i32,
    }

    /// A task's last moment.
    Ends = "ends" by ts, EndRow, EndColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// Task.
        task_id: i64,
        /// `completed`, `cancelled` or `panicked`.
        outcome: Text,
    }

    /// A task whose type became known, at the first stretch or sample in which it was met. A task may be told more than once, always with the same type.
    Tasks = "tasks" by ts, TaskRow, TaskColumns {
        /// When it was met (ns since the Unix epoch).
        ts: i64,
        /// Tokio's task id.
        task_id: i64,
        /// Its type; null where its poll function is none that hud knows.
        type_id: Option<i64>,
        /// The thread that polled it then.
        tid: i32,
        /// How the type was found: `probe`, or `memory` (the task's vtable).
        source: Text,
    }

    /// A thread seen, renamed or gone, or whose role became known.
    Threads = "threads" by ts, ThreadRow, ThreadColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// Thread.
        tid: i32,
        /// Its name (`comm`).
        name: Text,
        /// `worker`, `blocking` (tokio's pool) or `other`, as known then.
        role: Text,
        /// Number of the worker, counted from 0 in each runtime; null for others.
        worker: Option<i32>,
        /// The runtime that it works for, counted from 0; null where not known.
        runtime_id: Option<i64>,
        /// `seen`, `renamed`, `role` (its role or worker became known), `alive` (told again, nothing new) or `gone`.
        event: Text,
    }

    /// The type of a task: the future that was spawned.
    TaskTypes = "task_types" by type_id, TaskTypeRow, TaskTypeColumns {
        /// Type.
        type_id: i64,
        /// As people write it: `app::handler`.
        name: Text,
        /// `multi_thread`, `current_thread`, `local`, `blocking`; null where not known.
        scheduler: Option<Text>,
        /// Where the future is written.
        file: Option<Text>,
        /// Its line.
        line: Option<i32>,
        /// `task`; `worker` for the loop of a runtime's worker thread, `blocking` for work of the blocking pool.
        kind: Text,
        /// The type as the compiler names it.
        raw_name: Text,
    }

    /// A distinct stack.
    Stacks = "stacks" by stack_id, StackRow, StackColumns {
        /// Stack.
        stack_id: i64,
        /// Its frames, leaf first, inlined ones included.
        frame_ids: Vec<i64>,
        /// How far it goes: `complete` (to the thread's start), `truncated` (to the most frames that are kept), `failed`
        /// (frames further out are missing).
        unwind: Text,
    }

    /// A frame; an address has one for each function inlined there.
    Frames = "frames" by frame_id, FrameRow, FrameColumns {
        /// Frame.
        frame_id: i64,
        /// The mapped file; null where the address is in none.
        module_id: Option<i64>,
        /// Address in the file's own address space (runtime address where there is no module).
        address: i64,
        /// Function, demangled; null where it has no name.
        function: Option<Text>,
        /// Source file.
        file: Option<Text>,
        /// Line in it.
        line: Option<i32>,
        /// Column in the line, from 1.
        col: Option<i32>,
        /// 0 for the function that holds the address, 1 for the one inlined into it, and so on.
        inline_depth: i32,
        /// Whose code it is: `own`, `dependency`, `tokio`, `std`, `libc`, `kernel` (the vdso too), `system` (other libraries); null where not sure.
        origin: Option<Text>,
    }

    /// A file mapped into the target, with code in it.
    Modules = "modules" by module_id, ModuleRow, ModuleColumns {
        /// Module.
        module_id: i64,
        /// Path as the target sees it.
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

    /// The target, each second.
    Process = "process" by ts, ProcessRow, ProcessColumns {
        /// When (ns since the Unix epoch).
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
        /// CPU time of everything else on the machine since the last row, other guests of its host included (ns, in steps of 10 ms); null where not known.
        cpu_others: Option<i64>,
        /// How long CPU limits of its control group, and of those above it, kept threads from running since the last row (ns, summed over CPUs and groups); null where no group counts that.
        throttled: Option<i64>,
    }

    /// A stretch in which a stream was on: what lies outside was not watched.
    Coverage = "coverage" by ts, CoverageRow, CoverageColumns {
        /// When it began (ns since the Unix epoch).
        ts: i64,
        /// How long it was on (ns).
        dur: i64,
        /// Stream: the table's name.
        stream: Text,
        /// Why it began or ended.
        reason: Text,
    }

    /// Events known to be lost.
    Drops = "drops" by ts, DropRow, DropColumns {
        /// Start of the stretch in which they were lost (ns since the Unix epoch).
        ts: i64,
        /// Its length (ns).
        dur: i64,
        /// Stream: the table's name; `all` where that is not known. `stacks` and `frames` are no events: rows that have no stack, and frames that stacks lack.
        stream: Text,
        /// Where: `ring` (no room in the ring buffer), `untracked` (no room in the kernel's tables), `decode` (not understood), `disk` (no room on the disk), `capacity` (no room in the recorder's memory for one more distinct stack or frame), `writer` (the disk was too slow), `damaged` (stored, and then damaged: set aside by `hud-analyze repair`), `unknown` (what told of them was damaged).
        stage: Text,
        /// How many.
        lost: i64,
    }

    /// The account of a stream so far, each second: `produced - stored - dropped` events were on their way then. When a row is there, so are all the rows that it counts.
    Accounts = "accounts" by ts, AccountRow, AccountColumns {
        /// When the kernel's counters were read (ns since the Unix epoch).
        ts: i64,
        /// Stream: the table's name.
        stream: Text,
        /// Events that came to be since the session began.
        produced: i64,
        /// Rows written since the session began, those that have expired included.
        stored: i64,
        /// Events known to be lost since the session began.
        dropped: i64,
    }

    /// What hud itself cost, each second.
    Overhead = "overhead" by ts, OverheadRow, OverheadColumns {
        /// When (ns since the Unix epoch).
        ts: i64,
        /// Run time of the kernel programs since the last row (ns); null where the kernel does not tell.
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
}

impl Table {
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
