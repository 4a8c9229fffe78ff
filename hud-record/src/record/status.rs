//! What a recording reports: its progress, its end, and what became of each session.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use hud_common::session::StreamAccount;

/// How a recording goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Since the session began.
    pub elapsed: Duration,
    /// Events stored.
    pub events: u64,
    /// Of these, in the last second.
    pub events_per_second: u64,
    /// Bytes in the session's folder.
    pub bytes: u64,
    /// Events known to be lost, on the way or for want of room on the disk.
    pub drops: u64,
    /// Whether recording pauses because the disk is full.
    pub is_paused: bool,
}

/// How a session went.
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
    /// Rows that a full disk cost.
    pub disk_drops: u64,
    /// Logs that found no room to be sealed. They are read as they are, and sealed when the session is recovered.
    pub unsealed: usize,
}

/// What happens while recording.
#[derive(Debug)]
pub enum News<'a> {
    /// A session has begun.
    Began(&'a Path),
    /// A second has gone by.
    Progress(&'a Progress),
    /// A session is closed.
    Closed(&'a Outcome),
    /// Nothing new; the recorder is alive.
    Alive,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal.
    Stopped,
    /// The duration is over.
    DurationOver,
    /// The target exited.
    TargetExited,
    /// The target executed another program.
    TargetExecuted,
}

impl End {
    /// In words, as the manifest has it.
    pub const fn reason(self) -> &'static str {
        match self {
            End::Stopped => "stopped",
            End::DurationOver => "duration is over",
            End::TargetExited => "the target exited",
            End::TargetExecuted => "the target executed another program",
        }
    }
}
