//! What to record, where to, and how much of it to keep.

use std::{path::PathBuf, time::Duration};

use super::store::Store;
use crate::{privilege::Owner, probes::Plan};

/// What to record, and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where sessions are stored.
    pub destination: Destination,
    /// The binary to take symbols from, if not the running one.
    pub target: Option<PathBuf>,
    /// Duration; `None` until stopped.
    pub duration: Option<Duration>,
    /// What to attach.
    pub plan: Plan,
    /// The probes' share of the target's CPU time, if the plan leaves them to the governor.
    pub budget: f64,
    /// Interval of snapshots of all tasks; `None` for no snapshots.
    pub state: Option<Duration>,
    /// When segments are sealed.
    pub roll: RollPolicy,
    /// How much to keep.
    pub keep: Keep,
    /// When the next session begins, in a store.
    pub every: Every,
    /// Id of the previous session, if the target was restarted.
    pub previous: Option<String>,
    /// The owner of the files, if not the user that hud runs as.
    pub owner: Option<Owner>,
    /// Whether hud will attach to another process later, and must keep the right to.
    pub keep_bpf: bool,
    /// Whether the target is held until recording begins: then all that is known of it is read before.
    pub is_held: bool,
    /// The hud-record that provides the sandboxed child, if not the running program.
    pub sandbox: Option<PathBuf>,
}

/// Where sessions are stored.
#[derive(Clone, Debug)]
pub enum Destination {
    /// One session, in a folder that does not exist yet.
    Folder(PathBuf),
    /// Successive sessions in a store.
    Store(Store),
}

/// When a store's next session begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Every {
    /// At midnight, UTC.
    #[default]
    Day,
    /// After this long.
    Interval(Duration),
}

/// When a segment is sealed.
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
        // Rows: sealing holds a segment in memory, sorted and unsorted; 128,000 polls are 2 × 10 MB. A segment of
        // 100,000 rows costs 7.5 bytes a row, one of 1 million 7.4. Age: the loss at a power failure.
        RollPolicy { bytes: 64 << 20, rows: 1 << 17, age: Duration::from_secs(60) }
    }
}

/// How much to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Bytes of the session, or of all sessions of this host in a store.
    pub bytes: Option<u64>,
    /// Age of the oldest event.
    pub age: Option<Duration>,
}

impl Keep {
    /// Whether anything ever expires.
    pub fn is_bounded(&self) -> bool {
        self.bytes.is_some() || self.age.is_some()
    }
}
