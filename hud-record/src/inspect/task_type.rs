//! The kind of work of a task and its scheduler, by the names of its types.

use serde::{Deserialize, Serialize};

use super::demangle;

/// The kind of a task's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskKind {
    /// A spawned future.
    Task,
    /// The loop of a runtime's worker thread, which tokio runs as one long poll.
    Worker,
    /// Work of the blocking pool.
    Blocking,
}

impl TaskKind {
    /// Its name in the session.
    pub const fn name(self) -> &'static str {
        match self {
            TaskKind::Task => "task",
            TaskKind::Worker => "worker",
            TaskKind::Blocking => "blocking",
        }
    }
}

/// The scheduler that runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scheduler {
    /// A runtime's workers.
    MultiThread,
    /// A runtime's one thread.
    CurrentThread,
    /// A `LocalSet`.
    Local,
    /// The blocking pool.
    Blocking,
}

impl Scheduler {
    /// Its name in the session.
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::MultiThread => "multi_thread",
            Scheduler::CurrentThread => "current_thread",
            Scheduler::Local => "local",
            Scheduler::Blocking => "blocking",
        }
    }
}

/// The closure inside a `BlockingTask`, else the future itself.
pub(crate) fn future(raw: &str) -> &str {
    if raw.starts_with("tokio::runtime::blocking::task::BlockingTask<") {
        demangle::generic_arguments(raw).first().copied().unwrap_or(raw)
    } else {
        raw
    }
}

/// The kind of a future's work.
pub(crate) fn kind(raw: &str) -> TaskKind {
    if !raw.starts_with("tokio::runtime::blocking::task::BlockingTask<") {
        TaskKind::Task
    } else if raw.contains("multi_thread::worker::") {
        // `launch` and, for block_in_place, `maybe_move_runtime`: both run a worker, and LLVM may merge them.
        TaskKind::Worker
    } else {
        TaskKind::Blocking
    }
}

pub(super) fn scheduler_of(raw: &str) -> Option<Scheduler> {
    [
        ("multi_thread", Scheduler::MultiThread),
        ("current_thread", Scheduler::CurrentThread),
        ("task::local", Scheduler::Local),
        ("BlockingSchedule", Scheduler::Blocking),
    ]
    .into_iter()
    .find_map(|(part, scheduler)| raw.contains(part).then_some(scheduler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_work() {
        let blocking = |f: &str| format!("tokio::runtime::blocking::task::BlockingTask<{f}>");
        assert_eq!(kind("app::f::{async_fn_env#0}"), TaskKind::Task);
        assert_eq!(kind(&blocking("app::f::{closure_env#0}")), TaskKind::Blocking);
        assert_eq!(
            kind(&blocking("tokio::runtime::scheduler::multi_thread::worker::{impl#0}::launch::{closure_env#0}")),
            TaskKind::Worker
        );
    }
}
