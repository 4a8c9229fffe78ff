//! What a screen shows: the types alone, and what each number means.
//!
//! Instants are ns since the epoch, durations ns. A list is ranked by the order that its field says, and cut to its most
//! rows after ranking; what was cut is counted beside it. `None` is "not known", never "none": where a stream was not
//! watched, [`Coverage`] says so.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Distribution, Name, Origin, Role, RuntimeId, SpawnedBy, StackId, TaskId, TaskKind, Tid, TypeId, Window};

/// Rows that a ranked list holds at most. A screen shows a tenth of it; the rest is for scrolling.
pub const MOST_ROWS: usize = 500;
/// Nodes that a flame tree holds at most.
pub const MOST_FLAMES: usize = 4_096;
/// Buckets that a history holds at most: ten minutes.
pub const MOST_TICKS: usize = 6_000;
/// Spans that a timeline holds at most: of each lane the longest.
pub const MOST_SPANS_PER_LANE: usize = 2_000;

/// Everything that one screen shows at one instant over one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What is being looked at.
    pub session: SessionFacts,
    /// Live or replay, and how fresh.
    pub mode: Mode,
    /// The window: whole buckets, that of the instant included.
    pub window: Window,
    /// The instant.
    pub at: i64,
    /// The worst of the findings.
    pub status: Status,
    /// What the rules found: worst first, then by rule, then by weight of the evidence.
    pub findings: Vec<Finding>,
    /// Where the CPU time went.
    pub hotspots: Hotspots,
    /// What the workers did, by runtime, and the blocking pool.
    pub workers: Workers,
    /// What held workers.
    pub blocking: Blocking,
    /// Tasks met in the window.
    pub tasks: Tasks,
    /// Types of the tasks met in the window: by busy time, then CPU time, then type id.
    pub types: Vec<TypeRow>,
    /// The page of the task that was asked for; there where it was, even if nothing is known of the task.
    pub task: Option<TaskPage>,
    /// A lane a worker.
    pub timeline: Timeline,
    /// The samples' stacks as a tree, from the outermost frame.
    pub flame: Flame,
    /// Durations of polls. Workers' loops and the blocking pool's work are none.
    pub polls: Distribution,
    /// From a wake to the poll that it led to.
    pub wake_delay: Distribution,
    /// Load and anomalies of each bucket of the window, in order: for a strip.
    pub history: Vec<Tick>,
    /// How much of the window each stream was watched.
    pub coverage: Coverage,
    /// Events known to be lost.
    pub drops: Drops,
    /// What hud itself cost; `None` where no second of it was told in the window.
    pub overhead: Option<Overhead>,
    /// The target's own figures, as of their last second in the window.
    pub process: Option<ProcessFigures>,
}

/// What is being looked at.
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
    /// When it ended; `None` while it goes on.
    pub end: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// `auto`, `exact` or `off`.
    pub polls: String,
    /// CPU samples a second and CPU.
    pub freq: u32,
    /// What could not be watched, and why; in words.
    pub notes: Vec<String>,
}

/// Live or replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Mode {
    /// The session is being written.
    Live {
        /// The newest event taken in (its end).
        newest: i64,
        /// What was passed over to catch up with now, since the tailer began: how often, and how much time in all (ns).
        skipped: (u64, i64),
        /// Another session's recorder has taken over since the tailer began so many times.
        restarts: u64,
    },
    /// It was being followed, and ended.
    Ended {
        /// The recorder closed it in order; else it was killed.
        is_complete: bool,
    },
    /// A recorded session.
    Replay,
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// No rule found anything.
    Normal,
    /// Something is not as it should be.
    Caution,
    /// Something is badly wrong.
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

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// A poll took long.
    LongPoll,
    /// Polls waited long for a CPU.
    CpuStarved,
    /// Woken tasks wait long for their poll.
    WakeDelay,
    /// A task took much of a worker's time, while polls were not recorded.
    CpuShare,
    /// Many sleeps inside polls, each of them short.
    ShortSleeps,
    /// A worker is asleep inside polls most of the time.
    WorkerBlocked,
    /// Some workers of a runtime are far busier than others.
    Imbalance,
    /// No thread of the blocking pool is ever free.
    PoolSaturated,
    /// Tasks of a type are spawned and do not end.
    TasksGrow,
    /// A task wakes itself, again and again.
    SelfWaking,
    /// A task waits for a lock whose owner is asleep.
    LockOwnerAsleep,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 11] = [
        Rule::LongPoll,
        Rule::CpuStarved,
        Rule::WakeDelay,
        Rule::CpuShare,
        Rule::ShortSleeps,
        Rule::WorkerBlocked,
        Rule::Imbalance,
        Rule::PoolSaturated,
        Rule::TasksGrow,
        Rule::SelfWaking,
        Rule::LockOwnerAsleep,
    ];

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Rule::LongPoll => {
                "move blocking calls to spawn_blocking or their async kin, and long computations off the runtime, or break \
                 them up with yield_now"
            }
            Rule::CpuStarved => {
                "no task is to blame: look for other processes on these CPUs, for more busy threads than CPUs, and for a CPU \
                 limit of the container (cpu.max)"
            }
            Rule::WakeDelay => {
                "workers cannot keep up: find what holds them (blocking, hotspots), or give the runtime more worker threads"
            }
            Rule::CpuShare => {
                "record polls to see whether its polls are long; if they are, break the computation up, or move it off the \
                 runtime"
            }
            Rule::ShortSleeps => {
                "each of them keeps other tasks waiting: move the calls to spawn_blocking together, or make them async"
            }
            Rule::WorkerBlocked => "move the blocking call to spawn_blocking, or use its async kin",
            Rule::Imbalance => {
                "one task does most of the work, or blocks its worker's queue: split it up, or spawn what it does"
            }
            Rule::PoolSaturated => {
                "work waits for a thread: raise max_blocking_threads, limit it with a Semaphore, or make it async"
            }
            Rule::TasksGrow => {
                "look at what they await: a channel that is never closed, a join that never comes, no timeout"
            }
            Rule::SelfWaking => "a future that wakes itself to be polled again spins: let it await an event or a timer",
            Rule::LockOwnerAsleep => {
                "do not sleep or block while holding the lock, or hold a tokio::sync lock across it"
            }
        }
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Caution or warning.
    pub severity: Status,
    /// One sentence that names who, what and how much; target-given names in it are as the target gave them.
    pub sentence: String,
    /// The figure that was held against the threshold: ns, thousandths or a count, as [`Evidence`] says.
    pub evidence: Vec<Evidence>,
    /// Where to look. The advice is [`Rule::advice`].
    pub jump: Jump,
    /// Whether its figure is an estimate.
    pub is_estimated: bool,
}

/// A number that a finding rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it is, in a word or two: "longest", "polls".
    pub what: Name,
    /// How much.
    pub value: Value,
    /// What it was held against; `None` where it only illustrates.
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

/// Where a finding, or a row, leads. The first that is there.
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

/// Code: a function, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The function; `<unknown>` where there is no name at all.
    pub function: Name,
    /// Source file.
    pub file: Option<Name>,
    /// Line in it.
    pub line: Option<i32>,
    /// Whose code it is.
    pub origin: Origin,
}

/// Where the CPU time went: what the samples of the window stand for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hotspots {
    /// CPU time of all samples (ns): what shares are of.
    pub weight: i64,
    /// Their number.
    pub samples: i64,
    /// By function: by self, then total, then place.
    pub by_function: Vec<Hotspot>,
    /// By file and line, in the same order.
    pub by_line: Vec<Hotspot>,
    /// By type of task, in the same order; `None` is outside tasks, or not known.
    pub by_type: Vec<TypeHotspot>,
}

/// CPU time of a piece of code.
///
/// A sample is blamed on the first frame from the leaf that is the user's own, inlined ones included; a sample of a task
/// without any, on the task's type; outside tasks on the first of a dependency or of tokio, else on the leaf: as the view
/// `hotspots` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotspot {
    /// The code. By function, the line is its hottest (least where equal).
    pub place: Place,
    /// CPU time of the samples blamed on it (ns).
    pub own: i64,
    /// CPU time of the samples in whose stack it is (ns), blamed ones included.
    pub total: i64,
    /// Samples blamed on it.
    pub samples: i64,
    /// The task type of most of `own` (least id where equal); `None` outside tasks and where not known.
    pub task_type: Option<TypeRef>,
    /// The function at the leaf of most of `own`, where it is another one: what it was calling.
    pub calling: Option<Name>,
}

/// CPU time of a type of task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeHotspot {
    /// The type; `None` outside tasks and where not known.
    pub task_type: Option<TypeRef>,
    /// Its CPU time (ns).
    pub own: i64,
    /// Its samples.
    pub samples: i64,
    /// What most of it is blamed on.
    pub place: Option<Place>,
}

/// A type of task, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TypeRef {
    /// Its id.
    pub id: TypeId,
    /// Its name.
    pub name: Name,
}

/// A task, by id and type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its id.
    pub id: TaskId,
    /// Its type; `None` where not known.
    pub task_type: Option<TypeRef>,
}

/// What threads did with their time. It is all in four states, and their sum is what was observed.
///
/// A thread is observed from its first to its last sign of life in the window; a stretch off CPU is known when it ends, so
/// a thread that sleeps now shows nothing since it fell asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// On a CPU (ns): polling, and what the scheduler itself costs. What is left of the observed time.
    pub running: i64,
    /// Asleep inside a task (ns).
    pub blocked: i64,
    /// Runnable without a CPU (ns).
    pub waiting: i64,
    /// Asleep outside a task (ns).
    pub idle: i64,
}

impl Load {
    /// How long it was observed (ns).
    pub const fn observed(&self) -> i64 {
        self.running.saturating_add(self.blocked).saturating_add(self.waiting).saturating_add(self.idle)
    }

    /// A part of it in thousandths; 0 where nothing was observed.
    pub fn share(&self, part: i64) -> i64 {
        let observed = i128::from(self.observed());
        if observed <= 0 { 0 } else { i64::try_from(i128::from(part) * 1000 / observed).unwrap_or(0) }
    }
}

/// What the workers did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// By runtime id; the one of workers whose runtime is not known comes last.
    pub runtimes: Vec<Runtime>,
    /// The blocking pools of all runtimes.
    pub pool: Pool,
    /// Threads that are neither, and were seen in the window.
    pub others: usize,
}

/// A runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its id; `None` where not known.
    pub id: Option<RuntimeId>,
    /// Its workers: by number, those without last, then by thread.
    pub workers: Vec<Worker>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its thread.
    pub tid: Tid,
    /// The thread's name.
    pub name: Name,
    /// Its number in the runtime; `None` where not known.
    pub worker: Option<i32>,
    /// Where its time went.
    pub load: Load,
    /// Polls that ended in the window; `None` where none were watched.
    pub polls: Option<i64>,
    /// Time inside these polls (ns), that in the window and that before.
    pub polling: i64,
    /// The longest of them (ns).
    pub longest_poll: Option<i64>,
    /// The last sign of it in the window.
    pub last_seen: Option<i64>,
    /// What it does right now.
    pub now: Now,
}

/// What a thread does right now, as far as rows tell: a stretch is written when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Now {
    /// It was on a CPU inside this task a moment ago.
    Polling {
        /// The task.
        task: TaskRef,
        /// At least since then: its last return to a CPU, or the end of its last poll.
        since: i64,
    },
    /// It was on a CPU outside tasks a moment ago.
    Running {
        /// At least since then.
        since: i64,
    },
    /// There has been no sign of it since then: asleep, most likely, or in a poll without a sample.
    Quiet {
        /// Its last sign of life.
        since: i64,
    },
    /// There was no sign of it in the window.
    Unseen,
}

/// The blocking pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Threads of it that were seen in the window.
    pub threads: usize,
    /// Their load in sum. What is not idle is work: for a pool, blocking is its purpose.
    pub load: Load,
    /// Its threads: the busiest first, then by thread.
    pub workers: Vec<Worker>,
}

/// How a task held its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Asleep inside a poll.
    Blocked,
    /// Computing inside a poll.
    Cpu,
    /// Asleep inside polls, for less than the threshold at a time.
    ShortSleeps,
}

/// What held workers. Work of the blocking pool is not in here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocking {
    /// One row for each cause, task type and place (of computing: function): by total, then in the order of cause, place
    /// and type.
    pub culprits: Vec<Culprit>,
    /// Stretches, the last to end first.
    pub newest: Vec<Stretch>,
    /// Stretches, the longest first.
    pub worst: Vec<Stretch>,
    /// How many there are.
    pub count: i64,
    /// Their sum (ns).
    pub total: i64,
    /// Stretches that were let go, because a bucket held more than [`super::STRETCHES_PER_BUCKET`]: the shorter ones.
    pub left_out: i64,
}

/// Who held workers, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// How.
    pub cause: Cause,
    /// The blamed code.
    pub place: Place,
    /// The type of task; `None` where not known.
    pub task_type: Option<TypeRef>,
    /// Stretches.
    pub count: i64,
    /// Their sum (ns).
    pub total: i64,
    /// Their median, by nearest rank (ns); of short sleeps the mean.
    pub median: i64,
    /// The longest (ns).
    pub longest: i64,
    /// Where the longest one is; of short sleeps, the task that slept most.
    pub jump: Jump,
    /// Whether any of it is an estimate. Of computing: from samples, at least so long, and in one poll or in several.
    pub is_estimated: bool,
}

/// A stretch in which a task kept its worker from other tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it began: the thread fell asleep, or the poll was entered.
    pub ts: i64,
    /// How long it slept (not what it then waited for a CPU), or computed.
    pub dur: i64,
    /// How.
    pub cause: Cause,
    /// The task.
    pub task: TaskRef,
    /// The thread that it held.
    pub tid: Tid,
    /// The worker's number and runtime.
    pub worker: Option<(Option<RuntimeId>, i32)>,
    /// The blamed code.
    pub place: Place,
    /// The stack, from the leaf, at most 32 frames; empty where none is known.
    pub stack: Vec<Place>,
    /// Its id.
    pub stack_id: Option<StackId>,
    /// Who woke the thread.
    pub waker: Option<Waker>,
    /// Whether `dur` is an estimate from samples: at least so long, in one poll or in several.
    pub is_estimated: bool,
}

/// Who wakes: a thread, of any process, and the task it was polling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waker {
    /// The thread.
    pub tid: Option<Tid>,
    /// Its name; `None` where it is none of the target's.
    pub thread: Option<Name>,
    /// The task; `None` outside tasks, or not known.
    pub task: Option<TaskRef>,
}

/// Tasks met in the window: polled, sampled, asleep inside, woken, spawned, ended or told by type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// How many there are, workers' loops left out, before any filter.
    pub count: i64,
    /// How many pass the filter.
    pub matching: i64,
    /// Spawned in the window; `None` where that was not watched.
    pub spawned: Option<i64>,
    /// Ended in the window; `None` where that was not watched.
    pub ended: Option<i64>,
    /// Tasks of buckets with more than [`super::TASKS_PER_BUCKET`], which are not counted one by one: those with the
    /// greatest ids, in each bucket again.
    pub left_out: i64,
    /// The first of them in the order that was asked for.
    pub rows: Vec<TaskRow>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The task.
    pub task: TaskRef,
    /// Task, or work of the blocking pool.
    pub kind: TaskKind,
    /// Where its future is written.
    pub file: Option<Name>,
    /// The line.
    pub line: Option<i32>,
    /// Polls that ended in the window.
    pub polls: i64,
    /// Computing inside them (ns): neither asleep nor waiting for a CPU.
    pub busy: i64,
    /// Asleep inside polls (ns), by the scheduler, of stretches that ended in the window.
    pub blocked: i64,
    /// The longest poll (ns); `None` where there was none.
    pub longest_poll: Option<i64>,
    /// CPU time by samples (ns): an estimate, there without polls too.
    pub cpu: i64,
    /// Wakes.
    pub wakes: i64,
    /// Wakes by itself.
    pub self_wakes: i64,
    /// The mean wake-to-poll delay (ns), rounded down; `None` where none is known.
    pub wake_delay_mean: Option<i64>,
    /// The longest (ns).
    pub wake_delay_longest: Option<i64>,
    /// Where it came from.
    pub spawned: Option<Spawned>,
    /// Whether it ended in the window.
    pub ended: Option<Ended>,
    /// First sign of it in the window.
    pub first_seen: i64,
    /// Last sign of it in the window: since then it idles, if it has not ended.
    pub last_seen: i64,
}

/// Where a task came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// When, and on which thread.
    pub by: SpawnedBy,
    /// The task that spawned it; `None` outside tasks.
    pub parent: Option<TaskRef>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub ts: i64,
    /// How.
    pub outcome: TaskOutcome,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// It returned.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// It panicked.
    Panicked,
}

/// A type of task, of all its tasks met in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeRow {
    /// The type; `None` of tasks whose type is not known.
    pub task_type: Option<TypeRef>,
    /// Task, or work of the blocking pool.
    pub kind: TaskKind,
    /// Where its future is written.
    pub file: Option<Name>,
    /// The line.
    pub line: Option<i32>,
    /// Its tasks met.
    pub tasks: i64,
    /// Polls that ended in the window.
    pub polls: i64,
    /// Computing inside them (ns).
    pub busy: i64,
    /// Asleep inside polls (ns), by the scheduler.
    pub blocked: i64,
    /// CPU time by samples (ns).
    pub cpu: i64,
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
    /// Its row; `None` where it was not met in the window.
    pub row: Option<TaskRow>,
    /// Durations of its polls.
    pub durations: Distribution,
    /// Its wake-to-poll delays.
    pub wake_delay: Distribution,
    /// Its last polls, the last to end first; at most [`super::LAST_POLLS`].
    pub last_polls: Vec<PollSpan>,
    /// Who woke it: the most frequent first, then by task and thread.
    pub wakers: Vec<(Waker, i64)>,
    /// Its longest stretches asleep or computing, the longest first.
    pub stretches: Vec<Stretch>,
}

/// A poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PollSpan {
    /// When it began.
    pub ts: i64,
    /// How long it took (ns).
    pub dur: i64,
    /// On which thread.
    pub tid: Tid,
    /// Asleep inside it (ns).
    pub blocked: i64,
    /// Runnable without a CPU inside it (ns).
    pub run_queue: i64,
    /// From the wake to it (ns); `None` where the wake is not known.
    pub wake_delay: Option<i64>,
}

/// What each worker did, over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// A lane a worker, in the order of [`Workers`]; then the pool's threads that did anything in the window.
    pub lanes: Vec<Lane>,
    /// Polls shorter than this have no span of their own; they are in the steps (ns).
    pub span_min: i64,
}

/// A worker's lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub role: Role,
    /// Its runtime.
    pub runtime: Option<RuntimeId>,
    /// Its number in it.
    pub worker: Option<i32>,
    /// One step a bucket in which it was observed, in order.
    pub steps: Vec<Step>,
    /// Polls, and stretches off CPU inside tasks, of at least `span_min`: by start, then the longer first.
    pub spans: Vec<Span>,
    /// Spans that were left out, because there were more than [`MOST_SPANS_PER_LANE`].
    pub left_out: i64,
}

/// What a worker did in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The bucket's start.
    pub ts: i64,
    /// Where its time went.
    pub load: Load,
    /// Polls that ended in it.
    pub polls: i64,
    /// The longest of them (ns).
    pub longest_poll: i64,
    /// The type of task that took most of it, by polls, else by samples.
    pub task_type: Option<TypeRef>,
}

/// Something that took long enough to be seen.
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
    /// Whether it is a poll past the threshold of long ones.
    pub is_long: bool,
}

/// What a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpanKind {
    /// A poll.
    Poll,
    /// Asleep inside a task.
    Asleep,
    /// Runnable inside a task, without a CPU.
    Waiting,
}

/// The samples' stacks as a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flame {
    /// Of which type of task; `None` is all.
    pub task_type: Option<TypeRef>,
    /// Its nodes in preorder; the first is the root, which stands for all. Children: by total, then function.
    pub nodes: Vec<FlameNode>,
    /// CPU time of stacks that were cut off at their leaves, because there were more than [`MOST_FLAMES`] nodes (ns); it
    /// counts in the totals of their callers.
    pub left_out: i64,
}

/// A function in a flame tree, under its callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlameNode {
    /// Its function; the root's is empty.
    pub function: Name,
    /// Its source file.
    pub file: Option<Name>,
    /// Whose code it is.
    pub origin: Origin,
    /// How deep it lies; the root is at 0.
    pub depth: u32,
    /// CPU time with it at the leaf (ns).
    pub own: i64,
    /// CPU time under it (ns).
    pub total: i64,
}

/// What happened in a bucket, for a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The bucket's start.
    pub ts: i64,
    /// The load of all workers.
    pub load: Load,
    /// Polls that ended in it.
    pub polls: i64,
    /// CPU time by samples (ns).
    pub cpu: i64,
    /// The longest of them (ns), the blocking pool's left out.
    pub longest_poll: i64,
    /// The longest stretch of sleep inside a task that ended in it (ns), the blocking pool's left out.
    pub longest_block: i64,
    /// Events lost.
    pub lost: i64,
    /// The worst that long polls and blocking in it say.
    pub status: Status,
}

/// How much of the window was watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// By name of the stream.
    pub streams: Vec<StreamCoverage>,
    /// Up to where coverage has been told by the recorder; in a live session that lags.
    pub told_until: Option<i64>,
    /// How much of the window's start the viewer has not read (ns): it came later, or fell behind and skipped to now. What
    /// the streams' coverage says of that part is not reflected in anything else.
    pub unread: i64,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCoverage {
    /// The table's name.
    pub stream: Name,
    /// How much of the window it is known to have been on (ns).
    pub on: i64,
    /// How much it is known to have been off (ns).
    pub off: i64,
    /// How much is not told yet (ns). `on + off + untold` is the window.
    pub untold: i64,
    /// Its rows in the window (of events: that ended in it). Where it is not told, rows are evidence of being on.
    pub rows: i64,
    /// Why it was last turned on or off, where that is known.
    pub reason: Option<Name>,
}

/// Events known to be lost in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// All of them.
    pub lost: i64,
    /// By stream and stage.
    pub by_stage: Vec<LostEvents>,
}

/// Events lost at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvents {
    /// The table's name.
    pub stream: Name,
    /// Where they were lost.
    pub stage: Name,
    /// How many.
    pub lost: i64,
}

/// What hud itself cost, over the seconds that were told in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// Rows of `overhead`: about one a second.
    pub rows: i64,
    /// Run time of the kernel programs (ns); `None` where the kernel does not tell.
    pub probes: Option<i64>,
    /// CPU time of the recorder (ns).
    pub recorder_cpu: i64,
    /// Its memory (bytes), last told.
    pub recorder_rss: i64,
    /// Bytes through the ring.
    pub ring_bytes: i64,
    /// Events.
    pub events: i64,
}

/// The target's own figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// Rows of `process`: about one a second.
    pub rows: i64,
    /// CPU time in user space over these (ns).
    pub cpu_user: i64,
    /// CPU time in the kernel over these (ns).
    pub cpu_sys: i64,
    /// Resident memory (bytes), last told.
    pub rss: i64,
    /// Threads, last told.
    pub threads: i32,
    /// Open file descriptors, last told.
    pub fds: Option<i32>,
}
