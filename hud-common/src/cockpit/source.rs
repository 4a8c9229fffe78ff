//! Where snapshots come from: the tailer and replay are two of a kind.

use std::{string::String, time::Duration};

use super::{Snapshot, TaskId, Thresholds, TypeId};

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The instant (ns since the epoch); `None` is now, or a session's end.
    pub at: Option<i64>,
    /// The length of the window that ends there (ns); see [`super::Window::ending`].
    pub window: i64,
    /// The task whose page is wanted.
    pub task: Option<TaskId>,
    /// Whether the flame tree is wanted: to make it costs as much as all hotspots.
    pub has_flame: bool,
    /// The type of task whose flame tree is wanted; `None` is all.
    pub flame_of: Option<TypeId>,
    /// By what tasks are ranked.
    pub order: TaskOrder,
    /// Only tasks and types whose type's name contains this, letter case aside.
    pub filter: Option<String>,
    /// What the rules hold the window against.
    pub thresholds: Thresholds,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            at: None,
            window: 10_000_000_000,
            task: None,
            has_flame: true,
            flame_of: None,
            order: TaskOrder::Busy,
            filter: None,
            thresholds: Thresholds::default(),
        }
    }
}

/// By what tasks are ranked, most first; then by task id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskOrder {
    /// Time computing inside polls, then CPU time by samples.
    #[default]
    Busy,
    /// Polls.
    Polls,
    /// The longest poll.
    LongestPoll,
    /// The longest wake-to-poll delay.
    WakeDelay,
    /// Time asleep inside polls.
    Blocked,
    /// Wakes by itself.
    SelfWakes,
    /// How long it has not been seen.
    Idle,
    /// Its id: the youngest first.
    Youngest,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(
    /// One line, fit to stand after "failed to …".
    pub String,
);

/// Something that a cockpit can look at: a session as it is written (`hud_record::tail::Tailer`), or a recorded one.
pub trait Source {
    /// Takes in what has come since, and waits for more at most this long; gives whether there is anything new to show. A
    /// cockpit that draws when this says so, and not by a clock of its own, shows an event as soon as it is on the disk.
    fn wait(&mut self, most: Duration) -> Result<bool, SourceError>;

    /// What there is to show. Cheap enough for ten times a second.
    fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError>;

    /// The instants between which it can be asked (ns since the epoch).
    fn range(&self) -> (i64, i64);
}
