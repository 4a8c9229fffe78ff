//! Sources of snapshots: the tailer and replay.

use std::time::Duration;

use super::{FlameKind, Snapshot, TaskId, Thresholds, TypeId};

/// A query for a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The instant (ns since the epoch); `None` is now, or a session's end.
    pub at: Option<i64>,
    /// The length of the window that ends there (ns); see [`super::Window::ending`].
    pub window: i64,
    /// The task whose page is wanted.
    pub task: Option<TaskId>,
    /// Whether the states of tasks are wanted: [`Snapshot::waiting`] and that of the task's page. Replay reads more for them.
    pub has_states: bool,
    /// Whether the dials of single seconds are wanted.
    pub has_dials: bool,
    /// Whether the flame tree is wanted: it costs as much as all hotspots.
    pub has_flame: bool,
    /// What the flame tree is of.
    pub flame_kind: FlameKind,
    /// Whether frames of tokio's runtime are nodes of the flame tree, instead of one node for those that follow each other.
    pub is_unfolded: bool,
    /// The type of task whose flame tree is wanted; `None` is all.
    pub flame_of: Option<TypeId>,
    /// Order of tasks.
    pub order: TaskOrder,
    /// Whether that order is reversed.
    pub is_reversed: bool,
    /// Only tasks and types whose type's name contains this, ignoring case; after `!`, does not contain it.
    pub filter: Option<String>,
    /// Thresholds of the rules.
    pub thresholds: Thresholds,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            at: None,
            window: 10_000_000_000,
            task: None,
            has_states: false,
            has_dials: false,
            has_flame: true,
            flame_kind: FlameKind::Cpu,
            is_unfolded: false,
            flame_of: None,
            order: TaskOrder::Busy,
            is_reversed: false,
            filter: None,
            thresholds: Thresholds::default(),
        }
    }
}

/// Order of tasks: the greatest first, then by task id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskOrder {
    /// Time computing inside polls, then CPU time by samples.
    #[default]
    Busy,
    /// Polls.
    Polls,
    /// The longest poll, in progress or ended.
    LongestPoll,
    /// The longest wake-to-poll delay.
    WakeDelay,
    /// Time asleep inside polls.
    Blocked,
    /// CPU time by samples.
    Cpu,
    /// Wakes.
    Wakes,
    /// Wakes by itself.
    SelfWakes,
    /// Time since it was last observed.
    Idle,
    /// Its id: the youngest first.
    Youngest,
}

impl TaskOrder {
    /// Every order.
    pub const ALL: [TaskOrder; 10] = [
        TaskOrder::Busy,
        TaskOrder::Polls,
        TaskOrder::LongestPoll,
        TaskOrder::WakeDelay,
        TaskOrder::Blocked,
        TaskOrder::Cpu,
        TaskOrder::Wakes,
        TaskOrder::SelfWakes,
        TaskOrder::Idle,
        TaskOrder::Youngest,
    ];

    /// What it goes by.
    pub const fn name(self) -> &'static str {
        match self {
            TaskOrder::Busy => "busy time",
            TaskOrder::Polls => "polls",
            TaskOrder::LongestPoll => "longest poll",
            TaskOrder::WakeDelay => "wake delay",
            TaskOrder::Blocked => "time blocked",
            TaskOrder::Cpu => "CPU time",
            TaskOrder::Wakes => "wakes",
            TaskOrder::SelfWakes => "wakes by itself",
            TaskOrder::Idle => "time since its last poll",
            TaskOrder::Youngest => "age",
        }
    }

    /// The order after it, the first after the last.
    #[must_use]
    pub fn next(self) -> TaskOrder {
        let after = TaskOrder::ALL.iter().skip_while(|order| **order != self).nth(1);
        after.copied().unwrap_or_default()
    }
}

/// The error of a source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(
    /// One line, fit to stand after "failed to …".
    pub String,
);

/// A session that a cockpit can show: one that is being written (`hud_record::tail::Tailer`), or a recorded one.
pub trait Source {
    /// Reads new rows, waiting for at most this long. Returns whether there is anything new to show. A cockpit that draws when
    /// this returns `true` shows an event as soon as it is on the disk.
    fn wait(&mut self, most: Duration) -> Result<bool, SourceError>;

    /// The snapshot for a query. Cheap enough for ten times a second.
    fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError>;

    /// The range of instants that it can show (ns since the epoch).
    fn range(&self) -> (i64, i64);

    /// Whether there will never be anything to show: a cockpit then ends.
    fn is_over(&self) -> bool {
        false
    }
}
