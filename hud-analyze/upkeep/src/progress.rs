//! Progress and cancellation of compaction and repair.

use hud_common::session::Table;

/// The current step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Segments are read and verified.
    Reading,
    /// Rows are merged into new segments.
    Merging,
    /// The copy is read and compared with its source.
    Verifying,
    /// Damage is searched for and repaired.
    Repairing,
}

impl Step {
    /// A participle, for a message before the name of a table.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Reading => "reading",
            Step::Merging => "merging",
            Step::Verifying => "verifying",
            Step::Repairing => "repairing",
        }
    }
}

/// Receives progress, and may cancel.
pub trait Progress {
    /// `done` of `all` rows (with [`Step::Repairing`], segments) of `table` are processed.
    fn report(&mut self, step: Step, table: Table, done: u64, all: u64);

    /// Whether to stop. The session is then unchanged.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Ignores progress.
impl Progress for () {
    fn report(&mut self, _: Step, _: Table, _: u64, _: u64) {}
}
