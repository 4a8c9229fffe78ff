//! The rules: their names, and their words for people. How they are evaluated is in `rules.rs`.

use serde::{Deserialize, Serialize};

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// A worker is asleep in a poll in progress.
    StuckThread,
    /// A poll in progress is long, and its thread is not asleep.
    StuckPoll,
    /// Tasks wait for each other.
    LockCycle,
    /// Tasks hold permits of a semaphore and wait for more of it.
    SemaphoreStarved,
    /// A long poll.
    LongPoll,
    /// Polls with a long run-queue latency.
    CpuStarved,
    /// Long wake-to-poll latencies.
    WakeDelay,
    /// A task took much of a worker's time, while polls were not recorded.
    CpuShare,
    /// Many sleeps inside polls, each of them short.
    ShortSleeps,
    /// A worker was asleep inside polls for most of its time.
    WorkerBlocked,
    /// Some workers of a runtime were far busier than others.
    Imbalance,
    /// The blocking pool was busy throughout.
    PoolSaturated,
    /// Tasks of a type were spawned and did not end.
    TasksGrow,
    /// The number of threads grew.
    ThreadsGrow,
    /// The number of open file descriptors grew.
    FdsGrow,
    /// Resident memory grew.
    MemoryGrow,
    /// Tasks panicked.
    Panics,
    /// Tasks were cancelled before they completed.
    CancelledWork,
    /// A task woke itself repeatedly.
    SelfWaking,
    /// Tasks woke many others in each poll.
    WakeStorm,
    /// Very many tasks were spawned.
    SpawnRate,
    /// A task waited for a lock whose owner was asleep.
    LockOwnerAsleep,
    /// A task waited for a lock whose owner was computing.
    LockOwnerBusy,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 23] = [
        Rule::StuckThread,
        Rule::StuckPoll,
        Rule::LockCycle,
        Rule::SemaphoreStarved,
        Rule::LongPoll,
        Rule::CpuStarved,
        Rule::WakeDelay,
        Rule::CpuShare,
        Rule::ShortSleeps,
        Rule::WorkerBlocked,
        Rule::Imbalance,
        Rule::PoolSaturated,
        Rule::TasksGrow,
        Rule::ThreadsGrow,
        Rule::FdsGrow,
        Rule::MemoryGrow,
        Rule::Panics,
        Rule::CancelledWork,
        Rule::SelfWaking,
        Rule::WakeStorm,
        Rule::SpawnRate,
        Rule::LockOwnerAsleep,
        Rule::LockOwnerBusy,
    ];

    /// The rule's name, in the session and in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::StuckThread => "stuck_thread",
            Rule::StuckPoll => "stuck_poll",
            Rule::LockCycle => "lock_cycle",
            Rule::SemaphoreStarved => "semaphore_starved",
            Rule::LongPoll => "long_poll",
            Rule::CpuStarved => "cpu_starved",
            Rule::WakeDelay => "wake_delay",
            Rule::CpuShare => "cpu_share",
            Rule::ShortSleeps => "short_sleeps",
            Rule::WorkerBlocked => "worker_blocked",
            Rule::Imbalance => "imbalance",
            Rule::PoolSaturated => "pool_saturated",
            Rule::TasksGrow => "tasks_grow",
            Rule::ThreadsGrow => "threads_grow",
            Rule::FdsGrow => "fds_grow",
            Rule::MemoryGrow => "memory_grow",
            Rule::Panics => "panics",
            Rule::CancelledWork => "cancelled_work",
            Rule::SelfWaking => "self_waking",
            Rule::WakeStorm => "wake_storm",
            Rule::SpawnRate => "spawn_rate",
            Rule::LockOwnerAsleep => "lock_owner_asleep",
            Rule::LockOwnerBusy => "lock_owner_busy",
        }
    }

    /// The rule of that name.
    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// The problem in a few words, as a heading.
    pub const fn title(self) -> &'static str {
        match self {
            Rule::StuckThread => "Worker stuck asleep in a poll",
            Rule::StuckPoll => "Poll does not end",
            Rule::LockCycle => "Deadlock of tasks",
            Rule::SemaphoreStarved => "Tasks hold permits and wait for more",
            Rule::LongPoll => "Long polls",
            Rule::CpuStarved => "Polls waited for a CPU",
            Rule::WakeDelay => "Woken tasks waited for a worker",
            Rule::CpuShare => "Task used most of a worker's time",
            Rule::ShortSleeps => "Many short sleeps inside polls",
            Rule::WorkerBlocked => "Worker asleep inside polls",
            Rule::Imbalance => "Workers unevenly loaded",
            Rule::PoolSaturated => "Blocking pool saturated",
            Rule::TasksGrow => "Tasks spawned and not ended",
            Rule::ThreadsGrow => "Number of threads grows",
            Rule::FdsGrow => "Open file descriptors grow",
            Rule::MemoryGrow => "Memory grows",
            Rule::Panics => "Tasks panicked",
            Rule::CancelledWork => "Tasks cancelled before they completed",
            Rule::SelfWaking => "Task wakes itself",
            Rule::WakeStorm => "Tasks wake many others at once",
            Rule::SpawnRate => "Tasks spawned at a high rate",
            Rule::LockOwnerAsleep => "Lock held while asleep",
            Rule::LockOwnerBusy => "Lock held while computing",
        }
    }

    /// The figure that the rule compares with its threshold.
    pub const fn figure(self) -> &'static str {
        match self {
            Rule::StuckThread | Rule::StuckPoll | Rule::LockCycle | Rule::SemaphoreStarved => "lasts",
            Rule::LongPoll | Rule::CpuStarved | Rule::LockOwnerAsleep => "longest",
            Rule::WakeDelay => "p99",
            Rule::CpuShare => "share",
            Rule::ShortSleeps => "asleep",
            Rule::WorkerBlocked => "blocked",
            Rule::Imbalance => "ratio",
            Rule::PoolSaturated => "busy",
            Rule::TasksGrow => "spawned",
            Rule::LockOwnerBusy => "waiting",
            Rule::ThreadsGrow | Rule::FdsGrow => "growth",
            Rule::MemoryGrow => "growth in bytes",
            Rule::Panics => "panics",
            Rule::CancelledWork => "cancelled",
            Rule::SelfWaking => "wakes by itself",
            Rule::SpawnRate => "spawns per second",
            Rule::WakeStorm => "wakes per poll",
        }
    }

    /// The things that the rule counts, as a singular noun; `None` if it counts none.
    pub const fn counted(self) -> Option<&'static str> {
        Some(match self {
            Rule::StuckThread | Rule::StuckPoll | Rule::LongPoll | Rule::CpuStarved => "poll",
            Rule::WakeDelay | Rule::WakeStorm => "wake",
            Rule::CpuShare => "sample",
            Rule::ShortSleeps => "sleep",
            Rule::LockCycle | Rule::SemaphoreStarved | Rule::TasksGrow => "task",
            Rule::CancelledWork | Rule::SelfWaking | Rule::SpawnRate => "task",
            Rule::Panics => "panic",
            Rule::LockOwnerAsleep | Rule::LockOwnerBusy => "wait",
            Rule::WorkerBlocked
            | Rule::Imbalance
            | Rule::PoolSaturated
            | Rule::ThreadsGrow
            | Rule::FdsGrow
            | Rule::MemoryGrow => return None,
        })
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Rule::StuckThread => {
                "the thread waits for something that may never come: look at what the function waits for, who holds it, and \
                 whether that needs this worker"
            }
            Rule::StuckPoll => {
                "no other task of its worker runs meanwhile: look for a loop that cannot end, or move the computation off the \
                 runtime"
            }
            Rule::LockCycle => {
                "they never end: take locks in the same order everywhere, and hold none across an .await that needs another \
                 task to get it"
            }
            Rule::SemaphoreStarved => {
                "they go on only if another task returns permits: take all at once with acquire_many, or release those held \
                 before waiting for more"
            }
            Rule::LongPoll => {
                "move blocking calls to spawn_blocking or use their async equivalents; move long computations off the \
                 runtime, or break them up with yield_now"
            }
            Rule::CpuStarved => {
                "the machine is short of CPU, no task causes it: look for other processes on these CPUs, for more busy \
                 threads than CPUs, and for a CPU limit of the container (cpu.max)"
            }
            Rule::WakeDelay => {
                "workers cannot keep up: find what holds them (blocking, hotspots), or give the runtime more worker threads"
            }
            Rule::CpuShare => {
                "record polls to see whether its polls are long; if they are, break the computation up, or move it off the \
                 runtime"
            }
            Rule::ShortSleeps => {
                "each sleep keeps other tasks waiting: move the calls to spawn_blocking together, or make them async"
            }
            Rule::WorkerBlocked => "move the blocking call to spawn_blocking, or use its async equivalent",
            Rule::Imbalance => {
                "one task does most of the work, or blocks its worker's queue: split it up, or spawn parts of it"
            }
            Rule::PoolSaturated => {
                "jobs wait for a thread: raise max_blocking_threads, limit the jobs with a Semaphore, or make them async"
            }
            Rule::TasksGrow => {
                "find what they await: a channel that is never closed, a task that never ends, or no timeout"
            }
            Rule::SelfWaking => {
                "a future that wakes itself in every poll spins: let it await an event or a timer instead"
            }
            Rule::LockOwnerBusy => {
                "compute before the lock is taken or after it is released, or divide the data among several locks"
            }
            Rule::ThreadsGrow => {
                "find the code that starts threads that never end: use the blocking pool, or a fixed number of threads"
            }
            Rule::FdsGrow => "find files and sockets that are never closed: /proc/PID/fd lists them",
            Rule::MemoryGrow => {
                "look for a collection or queue that is only added to, or for tasks that do not end; a heap profiler shows \
                 what was allocated"
            }
            Rule::Panics => {
                "read the panic messages on the standard error of the program; the work of a task that panicked is lost"
            }
            Rule::CancelledWork => {
                "the work that they did is lost: give them more time, do less in each, or abort them before they begin"
            }
            Rule::WakeStorm => {
                "each wake is a poll: wake only tasks that have something to do (notify_one), or send several messages at once"
            }
            Rule::SpawnRate => {
                "each spawn allocates and queues: give a task more to do, or hand items to a few long-lived tasks by a channel"
            }
            Rule::LockOwnerAsleep => {
                "do not sleep or block while holding the lock, or hold a tokio::sync lock across it"
            }
        }
    }
}
