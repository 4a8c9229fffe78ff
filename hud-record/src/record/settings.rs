//! What to record, where to, and how much of it to keep.

use std::{path::PathBuf, time::Duration};

use super::store::Store;
use crate::{privilege::Owner, probes::Plan};

/// What to record, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where sessions go.
    pub destination: Destination,
    /// The binary to take symbols from, where not the one that runs.
    pub target: Option<PathBuf>,
    /// How long; `None` until stopped.
    pub duration: Option<Duration>,
    /// What to attach.
    pub plan: Plan,
    /// What the probes may cost, as a share of the target's CPU time, where the plan leaves it to the governor.
    pub budget: f64,
    /// When segments are full.
    pub roll: RollPolicy,
    /// How much to keep.
    pub keep: Keep,
    /// When the next session begins, in a store.
    pub every: Every,
    /// Id of the session before, where the target was started again.
    pub previous: Option<String>,
    /// Origin the files are, where not the user's that hud runs as.
    pub owner: Option<Owner>,
    /// Whether hud will attach to another process later on, and must keep the right to.
    pub keep_bpf: bool,
    /// The hud-record whose confined child reads binaries, where that is not the program that runs.
    pub sandbox: Option<PathBuf>,
}

/// Where sessions go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// One session, in a folder that is not there yet.
    Folder(PathBuf),
    /// One after the other, in a store.
    Store(Store),
}

/// When a store's next session begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Every {
    /// At midnight, UTC.
    #[default]
    Day,
    /// After so long.
    Interval(Duration),
}

/// When a segment is full.
#[derive(Clone, Copy, Debug)]
pub struct RollPolicy {
    /// Bytes in memory of its rows.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Age.
    pub age: Duration,
}

impl Default for RollPolicy {
    fn default() -> Self {
        // Rows: sealing holds a segment in memory, sorted and unsorted; 128 k polls are 2 × 10 MB. A segment of 100 k
        // rows costs 7.5 bytes a row, one of 1 M 7.4. Age: what power loss can take.
        RollPolicy { bytes: 64 << 20, rows: 1 << 17, age: Duration::from_secs(60) }
    }
}

/// How much to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Bytes of the session, or of all sessions of this host where there is a store.
    pub bytes: Option<u64>,
    /// Age of the oldest event.
    pub age: Option<Duration>,
}

impl Keep {
    /// Whether anything ever goes.
    pub fn is_bounded(&self) -> bool {
        self.bytes.is_some() || self.age.is_some()
    }
}
