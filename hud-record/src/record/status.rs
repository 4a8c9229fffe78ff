//! What a recording reports: its progress, its end, and what became of each session.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use hud_common::session::StreamAccount;

/// The progress of a recording.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Since the session began.
    pub elapsed: Duration,
    /// Events stored.
    pub events: u64,
    /// Events of the last second.
    pub events_per_second: u64,
    /// Bytes in the session's folder.
    pub bytes: u64,
    /// Events known to be lost, including those lost to a full disk.
    pub drops: u64,
    /// Whether recording pauses because the disk is full.
    pub is_paused: bool,
}

/// The result of a session.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The session.
    pub session: PathBuf,
    /// Its id.
    pub id: String,
    /// Why it ended.
    pub reason: &'static str,
    /// At the end.
    pub progress: Progress,
    /// The account of each stream.
    pub streams: BTreeMap<String, StreamAccount>,
    /// Rows lost to a full disk.
    pub disk_drops: u64,
    /// Logs that could not be sealed for lack of disk space. They are readable, and recovery seals them.
    pub unsealed: usize,
}

/// News of a recording.
#[derive(Debug)]
pub enum News<'a> {
    /// A session has begun.
    Began(&'a Path),
    /// A second has passed.
    Progress(&'a Progress),
    /// A session is closed.
    Closed(&'a Outcome),
    /// No news; the recorder is alive.
    Alive,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal.
    Stopped,
    /// The duration has passed.
    DurationOver,
    /// The target exited.
    TargetExited,
    /// The target executed another program.
    TargetExecuted,
}

impl End {
    /// The reason, as stored in the manifest.
    pub const fn reason(self) -> &'static str {
        match self {
            End::Stopped => "stopped",
            End::DurationOver => "duration is over",
            End::TargetExited => "the target exited",
            End::TargetExecuted => "the target executed another program",
        }
    }
}
