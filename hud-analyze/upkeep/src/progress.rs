//! Who waits for a session's upkeep: told how far it is, and asked whether to go on.

use hud_common::session::Table;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Its segments are read and proven.
    Reading,
    /// Rows are merged into new segments.
    Merging,
    /// The copy is read again and held against what it was made from.
    Verifying,
    /// Damage is looked for and mended.
    Mending,
}

impl Step {
    /// In a word, fit to stand before a table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Reading => "reading",
            Step::Merging => "merging",
            Step::Verifying => "verifying",
            Step::Mending => "mending",
        }
    }
}

/// Who waits.
pub trait Progress {
    /// `done` of `all` rows (of segments, while [`Step::Mending`]) of `table` are through `step`.
    fn tell(&mut self, step: Step, table: Table, done: u64, all: u64);

    /// Whether to give up. The session is then as it was.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody waits.
impl Progress for () {
    fn tell(&mut self, _: Step, _: Table, _: u64, _: u64) {}
}
