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
    /// A task woke itself repeatedly.
    SelfWaking,
    /// A task waited for a lock whose owner was asleep.
    LockOwnerAsleep,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 14] = [
        Rule::StuckThread,
        Rule::StuckPoll,
        Rule::LockCycle,
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

    /// The rule's name, in the session and in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::StuckThread => "stuck_thread",
            Rule::StuckPoll => "stuck_poll",
            Rule::LockCycle => "lock_cycle",
            Rule::LongPoll => "long_poll",
            Rule::CpuStarved => "cpu_starved",
            Rule::WakeDelay => "wake_delay",
            Rule::CpuShare => "cpu_share",
            Rule::ShortSleeps => "short_sleeps",
            Rule::WorkerBlocked => "worker_blocked",
            Rule::Imbalance => "imbalance",
            Rule::PoolSaturated => "pool_saturated",
            Rule::TasksGrow => "tasks_grow",
            Rule::SelfWaking => "self_waking",
            Rule::LockOwnerAsleep => "lock_owner_asleep",
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
            Rule::LongPoll => "Long polls",
            Rule::CpuStarved => "Polls waited for a CPU",
            Rule::WakeDelay => "Woken tasks waited for a worker",
            Rule::CpuShare => "Task used most of a worker's time",
            Rule::ShortSleeps => "Many short sleeps inside polls",
            Rule::WorkerBlocked => "Worker asleep inside polls",
            Rule::Imbalance => "Workers unevenly loaded",
            Rule::PoolSaturated => "Blocking pool saturated",
            Rule::TasksGrow => "Tasks spawned and not ended",
            Rule::SelfWaking => "Task wakes itself",
            Rule::LockOwnerAsleep => "Lock held while asleep",
        }
    }

    /// The figure that the rule compares with its threshold.
    pub const fn figure(self) -> &'static str {
        match self {
            Rule::StuckThread | Rule::StuckPoll | Rule::LockCycle => "lasts",
            Rule::LongPoll | Rule::CpuStarved | Rule::LockOwnerAsleep => "longest",
            Rule::WakeDelay => "p99",
            Rule::CpuShare => "share",
            Rule::ShortSleeps => "asleep",
            Rule::WorkerBlocked => "blocked",
            Rule::Imbalance => "ratio",
            Rule::PoolSaturated => "busy",
            Rule::TasksGrow => "spawned",
            Rule::SelfWaking => "wakes by itself",
        }
    }

    /// The things that the rule counts, as a singular noun; `None` if it counts none.
    pub const fn counted(self) -> Option<&'static str> {
        Some(match self {
            Rule::StuckThread | Rule::StuckPoll | Rule::LongPoll | Rule::CpuStarved => "poll",
            Rule::WakeDelay => "wake",
            Rule::CpuShare => "sample",
            Rule::ShortSleeps => "sleep",
            Rule::LockCycle | Rule::TasksGrow | Rule::SelfWaking => "task",
            Rule::LockOwnerAsleep => "wait",
            Rule::WorkerBlocked | Rule::Imbalance | Rule::PoolSaturated => return None,
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
            Rule::LockOwnerAsleep => {
                "do not sleep or block while holding the lock, or hold a tokio::sync lock across it"
            }
        }
    }
}
