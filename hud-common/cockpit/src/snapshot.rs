//! The content of a screen: its types, and the definition of each number.
//!
//! Instants are ns since the epoch, durations ns. A list is ranked in the order given by its field and truncated to its
//! maximum; a count of the other rows is beside it. `None` means unknown, never none: [`Coverage`] has the streams that were
//! not recorded.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Dials, Distribution, Ended, FlameKind, Name, Origin, Place, PollSpan, PollState, Role, Rule, RuntimeId, SpawnedBy,
    StackId, StateNow, TaskId, TaskKind, TaskRef, Tid, TypeId, TypeRef, Waiting, Window,
};

/// Maximum rows of a ranked list. A screen shows a tenth of it; the rest is for scrolling.
pub const MOST_ROWS: usize = 500;
/// Maximum nodes of a flame tree.
pub const MOST_FLAMES: usize = 4_096;
/// Maximum buckets of a history: ten minutes.
pub const MOST_TICKS: usize = 6_000;
/// Maximum spans of a lane of the timeline: the longest.
pub const MOST_SPANS_PER_LANE: usize = 2_000;

/// The content of a screen at one instant over one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The session.
    pub session: SessionFacts,
    /// Live or replay, and how fresh.
    pub mode: Mode,
    /// The window: whole buckets, including that of the instant.
    pub window: Window,
    /// The instant.
    pub at: i64,
    /// The worst of the findings.
    pub status: Status,
    /// Detected problems: worst first, then by rule, then by weight of the evidence.
    pub findings: Vec<Finding>,
    /// CPU time by code.
    pub hotspots: Hotspots,
    /// Load of the workers, by runtime, and of the blocking pool.
    pub workers: Workers,
    /// Polls and sleeps that held workers.
    pub blocking: Blocking,
    /// Tasks observed in the window.
    pub tasks: Tasks,
    /// Types of the tasks observed in the window: by busy time, then CPU time, then type id.
    pub types: Vec<TypeRow>,
    /// Where tasks wait at the instant, if the query asks for it.
    #[serde(default)]
    pub waiting: Waiting,
    /// The page of the requested task, even if nothing is known about the task.
    pub task: Option<TaskPage>,
    /// A lane per worker.
    pub timeline: Timeline,
    /// The samples' stacks as a tree, from the outermost frame.
    pub flame: Flame,
    /// Durations of polls, without workers' loops and the blocking pool's work.
    pub polls: Distribution,
    /// Wake-to-poll latencies.
    pub wake_delay: Distribution,
    /// The figures of the window that the dials show.
    pub dials: Dials,
    /// Percentiles of complete seconds, by their start, if the query asks for dials.
    pub seconds: Vec<(i64, Dials)>,
    /// Load and anomalies of each bucket of the window, in order.
    pub history: Vec<Tick>,
    /// Share of the window in which each stream was recorded.
    pub coverage: Coverage,
    /// Lost events.
    pub drops: Drops,
    /// hud's overhead; `None` if the window has no row of it.
    pub overhead: Option<Overhead>,
    /// Resources used by the target, from its last row in the window.
    pub process: Option<ProcessFigures>,
}

/// The session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// The session's id.
    pub id: String,
    /// Host name.
    pub host: String,
    /// Process id of the target.
    pub pid: u32,
    /// Its binary.
    pub exe: String,
    /// Tokio's version.
    pub tokio_version: Option<String>,
    /// CPUs online.
    pub cpus: u32,
    /// When recording began.
    pub start: i64,
    /// When it ended; `None` during recording.
    pub end: Option<i64>,
    /// Reason for its end.
    pub end_reason: Option<String>,
    /// `auto`, `exact` or `off`.
    pub polls: String,
    /// Sampling frequency per CPU (Hz).
    pub freq: u32,
    /// Interval at which the state of all tasks is read; `off`; `None` if it is not known.
    #[serde(default)]
    pub state: Option<String>,
    /// Parts that could not be recorded, and the reasons, as text.
    pub notes: Vec<String>,
}

/// Live or replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Mode {
    /// The recorder has not begun its session yet.
    Starting {
        /// What it has done and what it does, in order, and whether that is done.
        steps: Vec<(Name, bool)>,
        /// When it was started.
        since: i64,
    },
    /// The session is being written.
    Live {
        /// End of the newest event that was read.
        newest: i64,
        /// Time skipped to catch up since the tailer started: how often, and in total (ns).
        skipped: (u64, i64),
        /// Number of other sessions' recorders that took over since the tailer started.
        restarts: u64,
    },
    /// The followed session has ended.
    Ended {
        /// Whether the recorder closed it; otherwise it was killed.
        is_complete: bool,
    },
    /// A recorded session.
    Replay,
}

/// The overall status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// No findings.
    Normal,
    /// At least one caution.
    Caution,
    /// At least one warning.
    Warning,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Normal => "NORMAL",
            Status::Caution => "CAUTION",
            Status::Warning => "WARNING",
        })
    }
}

/// A problem that a rule detected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Caution or warning.
    pub severity: Status,
    /// A sentence with subject, problem and amount; names in it are raw.
    pub sentence: String,
    /// The figures; the first one was compared with the threshold.
    pub evidence: Vec<Evidence>,
    /// The code to which it is attributed, if the rule attributes it to code.
    pub place: Option<Place>,
    /// Number of polls, samples, sleeps, latencies, tasks or waits, if the rule counts them.
    pub count: Option<i64>,
    /// Sum of their durations (ns), if they have any.
    pub total: Option<i64>,
    /// Where to look. The advice is [`Rule::advice`].
    pub jump: Jump,
    /// Whether its figures are estimates.
    pub is_estimated: bool,
}

/// A figure of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name: "longest", "polls".
    pub what: Name,
    /// Its value.
    pub value: Value,
    /// The threshold with which it was compared; `None` if it only illustrates.
    pub threshold: Option<Value>,
}

/// A number with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// A duration (ns).
    Nanos(i64),
    /// A number of things.
    Count(i64),
    /// Thousandths.
    Share(i64),
}

/// The target of a finding or a row: the first that is not `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// A task.
    pub task: Option<TaskId>,
    /// A type of task.
    pub task_type: Option<TypeId>,
    /// A thread.
    pub tid: Option<Tid>,
    /// An instant.
    pub ts: Option<i64>,
}

/// CPU time by code, from the samples of the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hotspots {
    /// CPU time of all samples (ns), the base of shares.
    pub weight: i64,
    /// Their number.
    pub samples: i64,
    /// By function: by self, then total, then place.
    pub by_function: Vec<Hotspot>,
    /// By file and line, in the same order.
    pub by_line: Vec<Hotspot>,
    /// By type of task, in the same order; `None` is outside tasks, or unknown.
    pub by_type: Vec<TypeHotspot>,
}

/// CPU time of a piece of code.
///
/// A sample is attributed to the first own frame from the leaf, including inlined ones; a sample of a task without one, to the
/// task's type; outside tasks to the first frame of a dependency or of tokio, else to the leaf, as in the view `hotspots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotspot {
    /// The code. By function, the line is its hottest (least where equal).
    pub place: Place,
    /// CPU time of the samples attributed to it (ns).
    pub own: i64,
    /// CPU time of the samples with it at the leaf (ns): what profilers of functions call self.
    pub leaf: i64,
    /// CPU time of the samples whose stack contains it (ns), including attributed ones.
    pub total: i64,
    /// Samples attributed to it.
    pub samples: i64,
    /// The task type of most of `own` (least id where equal); `None` outside tasks and if unknown.
    pub task_type: Option<TypeRef>,
    /// The callee at the leaf of most of `own`, if it is another function.
    pub calling: Option<Name>,
}

/// CPU time of a type of task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeHotspot {
    /// The type; `None` outside tasks and if unknown.
    pub task_type: Option<TypeRef>,
    /// Its CPU time (ns).
    pub own: i64,
    /// Its samples.
    pub samples: i64,
    /// The place to which most of it is attributed.
    pub place: Option<Place>,
}

/// Time of threads by state. The sum of the four states is the observed time.
///
/// A thread is observed from the start of its first to the end of its last row in the window. An off-CPU interval is known
/// when it ends, so a thread that sleeps now has no rows since it fell asleep, unless a poll in progress was observed on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// On a CPU (ns): polling and scheduling. The rest of the observed time.
    pub running: i64,
    /// Asleep inside a task (ns).
    pub blocked: i64,
    /// Runnable without a CPU (ns).
    pub waiting: i64,
    /// Asleep outside a task (ns).
    pub idle: i64,
}

impl Load {
    /// The observed time (ns).
    pub const fn observed(&self) -> i64 {
        self.running.saturating_add(self.blocked).saturating_add(self.waiting).saturating_add(self.idle)
    }

    /// A part of it in thousandths; 0 if nothing was observed.
    pub fn share(&self, part: i64) -> i64 {
        let observed = i128::from(self.observed());
        if observed <= 0 { 0 } else { i64::try_from(i128::from(part) * 1000 / observed).unwrap_or(0) }
    }
}

/// Workers and the blocking pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// By runtime id; workers of unknown runtime are last.
    pub runtimes: Vec<Runtime>,
    /// The blocking pools of all runtimes.
    pub pool: Pool,
    /// Number of other threads observed in the window.
    pub others: usize,
}

/// A runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its id; `None` if unknown.
    pub id: Option<RuntimeId>,
    /// Its workers: by number, those without a number last, then by thread.
    pub workers: Vec<Worker>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its thread.
    pub tid: Tid,
    /// The thread's name.
    pub name: Name,
    /// Its number in the runtime; `None` if unknown.
    pub worker: Option<i32>,
    /// Its load.
    pub load: Load,
    /// Polls that ended in the window; `None` if polls were not recorded.
    pub polls: Option<i64>,
    /// Time inside these polls (ns), in the window and before it.
    pub polling: i64,
    /// The longest of them (ns).
    pub longest_poll: Option<i64>,
    /// Its last observation in the window.
    pub last_seen: Option<i64>,
    /// Its current activity.
    pub now: Now,
}

impl Worker {
    /// Time for which the poll on it had been in progress when it was last observed (ns); `None` if none lasts for long.
    pub const fn in_progress(&self) -> Option<i64> {
        if let Now::InProgress { lasted, .. } = self.now { Some(lasted) } else { None }
    }
}

/// The current activity of a thread, inferred from rows, which are written when an interval ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Now {
    /// It is in one poll of this task, which has lasted for 100 ms or more.
    InProgress {
        /// The task.
        task: TaskRef,
        /// Time for which the poll had lasted when it was last observed, at least (ns).
        lasted: i64,
        /// What the thread did.
        state: PollState,
    },
    /// It was just on a CPU inside this task.
    Polling {
        /// The task.
        task: TaskRef,
        /// Earliest start: its last return to a CPU, or the end of its last poll.
        since: i64,
    },
    /// It was just on a CPU outside tasks.
    Running {
        /// Earliest start.
        since: i64,
    },
    /// No observation since then: most likely asleep, or in a poll without a sample.
    Quiet {
        /// Its last observation.
        since: i64,
    },
    /// Not observed in the window.
    Unseen,
}

/// The blocking pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Number of its threads observed in the window.
    pub threads: usize,
    /// Sum of their loads. All states except idle are work: blocking is the purpose of a pool.
    pub load: Load,
    /// Its threads: the busiest first, then by thread.
    pub workers: Vec<Worker>,
}

/// Cause of blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Asleep inside a poll.
    Blocked,
    /// Computing inside a poll.
    Cpu,
    /// Asleep inside polls, each time for less than the threshold.
    ShortSleeps,
}

/// Blocking of workers, without the blocking pool's work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocking {
    /// One row for each cause, task type and place (of computing: function): by total, then in the order of cause, place
    /// and type.
    pub culprits: Vec<Culprit>,
    /// Blocking intervals, the last to end first.
    pub newest: Vec<BlockingInterval>,
    /// Blocking intervals, the longest first.
    pub worst: Vec<BlockingInterval>,
    /// Their number.
    pub count: i64,
    /// Their sum (ns).
    pub total: i64,
    /// Number of discarded ones: the shorter ones of buckets with more than [`super::INTERVALS_PER_BUCKET`].
    pub left_out: i64,
}

/// Code that held workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// The cause.
    pub cause: Cause,
    /// The attributed code.
    pub place: Place,
    /// The type of task; `None` if unknown.
    pub task_type: Option<TypeRef>,
    /// Number of intervals.
    pub count: i64,
    /// Their sum (ns).
    pub total: i64,
    /// Their median, by nearest rank (ns); the mean for short sleeps.
    pub median: i64,
    /// The longest (ns).
    pub longest: i64,
    /// Longest time for which a poll had been in progress when it was last observed (ns); `None` if all have ended.
    pub in_progress: Option<i64>,
    /// The longest one; for short sleeps, the task that slept most.
    pub jump: Jump,
    /// Whether any of it is an estimate. For computing: a lower bound from samples, in one poll or in several.
    pub is_estimated: bool,
}

/// An interval in which a task held its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockingInterval {
    /// Start: the thread fell asleep, or the poll was entered.
    pub ts: i64,
    /// Time asleep (without the run-queue latency), or computing.
    pub dur: i64,
    /// The cause.
    pub cause: Cause,
    /// The task.
    pub task: TaskRef,
    /// The thread.
    pub tid: Tid,
    /// The worker's number and runtime.
    pub worker: Option<(Option<RuntimeId>, i32)>,
    /// The attributed code.
    pub place: Place,
    /// The stack, from the leaf, at most 32 frames; empty if unknown.
    pub stack: Vec<Place>,
    /// Its id.
    pub stack_id: Option<StackId>,
    /// The waker of the thread.
    pub waker: Option<Waker>,
    /// Time for which its poll had been in progress when it was last observed (ns); `None` if it has ended. `dur` is then the
    /// part in the window.
    pub in_progress: Option<i64>,
    /// Whether `dur` is a lower bound from samples, in one poll or in several.
    pub is_estimated: bool,
}

/// A waker: a thread, of any process, and the task that it was polling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waker {
    /// The thread.
    pub tid: Option<Tid>,
    /// Its name; `None` for another process.
    pub thread: Option<Name>,
    /// The task; `None` outside tasks, or unknown.
    pub task: Option<TaskRef>,
}

/// Tasks observed in the window: by any row of the task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// Number of tasks without workers' loops, before the filter.
    pub count: i64,
    /// Number of tasks that pass the filter.
    pub matching: i64,
    /// Spawned in the window; `None` if not recorded.
    pub spawned: Option<i64>,
    /// Ended in the window; `None` if not recorded.
    pub ended: Option<i64>,
    /// Tasks that are not counted individually, as their bucket has more than [`super::TASKS_PER_BUCKET`]: those with the
    /// greatest ids, counted per bucket.
    pub left_out: i64,
    /// The first of them in the requested order.
    pub rows: Vec<TaskRow>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The task.
    pub task: TaskRef,
    /// Task, or work of the blocking pool.
    pub kind: TaskKind,
    /// Source file of its future.
    pub file: Option<Name>,
    /// The line.
    pub line: Option<i32>,
    /// Polls that ended in the window.
    pub polls: i64,
    /// Time computing inside them (ns): neither asleep nor runnable.
    pub busy: i64,
    /// Time asleep inside polls (ns), of off-CPU intervals that ended in the window.
    pub blocked: i64,
    /// The longest poll (ns); `None` if there was none.
    pub longest_poll: Option<i64>,
    /// Time for which a poll of it had been in progress when it was last observed (ns); `None` if it has ended.
    pub in_progress: Option<i64>,
    /// CPU time by samples (ns): an estimate that does not need polls.
    pub cpu: i64,
    /// Wakes.
    pub wakes: i64,
    /// Wakes by itself.
    pub self_wakes: i64,
    /// The mean wake-to-poll delay (ns), rounded down; `None` if none is known.
    pub wake_delay_mean: Option<i64>,
    /// The longest (ns).
    pub wake_delay_longest: Option<i64>,
    /// Its spawn.
    pub spawned: Option<Spawned>,
    /// Whether it ended in the window.
    pub ended: Option<Ended>,
    /// First observation in the window.
    pub first_seen: i64,
    /// Last observation in the window: it is idle since then, if it has not ended.
    pub last_seen: i64,
}

/// The spawn of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Time and thread.
    pub by: SpawnedBy,
    /// The spawning task; `None` outside tasks.
    pub parent: Option<TaskRef>,
}

/// A type of task, summed over its tasks observed in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeRow {
    /// The type; `None` for tasks of unknown type.
    pub task_type: Option<TypeRef>,
    /// Task, or work of the blocking pool.
    pub kind: TaskKind,
    /// Source file of its future.
    pub file: Option<Name>,
    /// The line.
    pub line: Option<i32>,
    /// Number of its tasks.
    pub tasks: i64,
    /// Polls that ended in the window.
    pub polls: i64,
    /// Time computing inside them (ns).
    pub busy: i64,
    /// Time asleep inside polls (ns).
    pub blocked: i64,
    /// CPU time by samples (ns).
    pub cpu: i64,
    /// Longest time for which a poll had been in progress when it was last observed (ns); `None` if all have ended.
    pub in_progress: Option<i64>,
    /// Durations of its polls.
    pub durations: Distribution,
    /// Its wake-to-poll delays.
    pub wake_delay: Distribution,
    /// Spawned in the window.
    pub spawned: i64,
    /// Ended in the window.
    pub ended: i64,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The task.
    pub task: TaskRef,
    /// Its row; `None` if it was not observed in the window.
    pub row: Option<TaskRow>,
    /// Durations of its polls.
    pub durations: Distribution,
    /// Its wake-to-poll delays.
    pub wake_delay: Distribution,
    /// Its last polls, the last to end first; at most [`super::LAST_POLLS`].
    pub last_polls: Vec<PollSpan>,
    /// Its wakers: the most frequent first, then by task and thread.
    pub wakers: Vec<(Waker, i64)>,
    /// Its blocking intervals, the longest first.
    pub intervals: Vec<BlockingInterval>,
    /// Its state by the last snapshot of all tasks; `None` if that did not find it, or was not asked for.
    #[serde(default)]
    pub state: Option<StateNow>,
}

/// Activity of each worker over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// A lane per worker, in the order of [`Workers`]; then the pool's threads that were not idle throughout the window.
    pub lanes: Vec<Lane>,
    /// Polls shorter than this have no span; they count in the steps (ns).
    pub span_min: i64,
}

/// A worker's lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// Its runtime.
    pub runtime: Option<RuntimeId>,
    /// Its number in it.
    pub worker: Option<i32>,
    /// A step per bucket in which it was observed, in order.
    pub steps: Vec<Step>,
    /// Polls, and off-CPU intervals inside tasks, of at least `span_min`: by start, then the longer first.
    pub spans: Vec<Span>,
    /// Number of spans beyond [`MOST_SPANS_PER_LANE`].
    pub left_out: i64,
}

/// Activity of a worker in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The bucket's start.
    pub ts: i64,
    /// Its load.
    pub load: Load,
    /// Polls that ended in it.
    pub polls: i64,
    /// The longest of them (ns).
    pub longest_poll: i64,
    /// The type of task with most time in it, by polls, else by samples.
    pub task_type: Option<TypeRef>,
}

/// A poll or an off-CPU interval of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When it began.
    pub ts: i64,
    /// How long it took (ns).
    pub dur: i64,
    /// What it is.
    pub kind: SpanKind,
    /// The task.
    pub task: TaskRef,
    /// Whether it is a poll past the threshold.
    pub is_long: bool,
}

/// The kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpanKind {
    /// A poll.
    Poll,
    /// Asleep inside a task.
    Asleep,
    /// Runnable inside a task, without a CPU.
    Waiting,
}

/// Stacks as a tree: of samples, or of sleeps inside tasks. Times are CPU time, or time asleep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flame {
    /// What it is of.
    pub kind: FlameKind,
    /// The type of task; `None` is all.
    pub task_type: Option<TypeRef>,
    /// Its nodes in preorder; the first is the root, which represents all. Children: by total, then function.
    pub nodes: Vec<FlameNode>,
    /// CPU time of nodes beyond [`MOST_FLAMES`] (ns); it counts in the totals of their callers.
    pub left_out: i64,
}

/// A function in a flame tree, under its callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlameNode {
    /// Its function; the root's is empty.
    pub function: Name,
    /// Its source file.
    pub file: Option<Name>,
    /// Its origin.
    pub origin: Origin,
    /// Its depth; that of the root is 0.
    pub depth: u32,
    /// CPU time with it at the leaf (ns).
    pub own: i64,
    /// CPU time under it (ns).
    pub total: i64,
    /// Frames of tokio's runtime that it stands for, on average by time; 0 for a function.
    pub folded: u32,
}

/// Load and anomalies of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The bucket's start.
    pub ts: i64,
    /// The load of all workers.
    pub load: Load,
    /// Polls that ended in it.
    pub polls: i64,
    /// Time in it in which polls are known to have been recorded (ns).
    pub polls_recorded: i64,
    /// CPU time by samples (ns).
    pub cpu: i64,
    /// The longest of them (ns), without the blocking pool's.
    pub longest_poll: i64,
    /// The longest sleep inside a task that ended in it (ns), without the blocking pool's.
    pub longest_block: i64,
    /// Events lost.
    pub lost: i64,
    /// Status by long polls and blocking.
    pub status: Status,
}

/// Coverage of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// By name of the stream.
    pub streams: Vec<StreamCoverage>,
    /// End of the recorder's last row of coverage, which lags in a live session.
    pub known_until: Option<i64>,
    /// The part at the window's start that the viewer has not read (ns): it started later, or fell behind and skipped it. Only
    /// the streams' coverage includes that part.
    pub unread: i64,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCoverage {
    /// The table's name.
    pub stream: Name,
    /// Time in which it is known to have been on (ns).
    pub on: i64,
    /// Time in which it is known to have been off (ns).
    pub off: i64,
    /// Time without coverage yet (ns). `on + off + unknown` is the part of the window since recording began.
    pub unknown: i64,
    /// Its rows in the window (events that ended in it). Without coverage, rows are evidence that it was on.
    pub rows: i64,
    /// Reason why it was last turned on or off, if known.
    pub reason: Option<Name>,
}

/// Lost events of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Their number.
    pub lost: i64,
    /// By stream and stage.
    pub by_stage: Vec<LostEvents>,
}

/// Events of a stream lost at one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvents {
    /// The table's name.
    pub stream: Name,
    /// The stage.
    pub stage: Name,
    /// Their number.
    pub lost: i64,
}

/// hud's overhead in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// Rows of `overhead`: about one per second.
    pub rows: i64,
    /// Run time of the kernel programs (ns); `None` if the kernel does not measure it.
    pub probes: Option<i64>,
    /// CPU time of the recorder (ns).
    pub recorder_cpu: i64,
    /// Its resident memory (bytes), last value.
    pub recorder_rss: i64,
    /// Bytes through the ring.
    pub ring_bytes: i64,
    /// Events.
    pub events: i64,
}

/// Resources used by the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// Rows of `process`: about one per second.
    pub rows: i64,
    /// CPU time in user space over these (ns).
    pub cpu_user: i64,
    /// CPU time in the kernel over these (ns).
    pub cpu_sys: i64,
    /// Resident memory (bytes), last value.
    pub rss: i64,
    /// Threads, last value.
    pub threads: i32,
    /// Open file descriptors, last value.
    pub fds: Option<i32>,
}
