//! What every part of the work is handed: who waits, and the tests' killer.

use hud_common::session::Table;

use crate::{
    bench::Killer,
    error::{Error, Result},
    progress::{Progress, Step},
};

/// Who waits, and who kills.
pub(crate) struct Watch<'a> {
    progress: &'a mut dyn Progress,
    pub(crate) step: &'a mut Killer<'a>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(progress: &'a mut dyn Progress, step: &'a mut Killer<'a>) -> Self {
        Watch { progress, step }
    }

    /// Tells how far it is; an error where nobody waits any more.
    pub(crate) fn tell(&mut self, step: Step, table: Table, done: u64, all: u64) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.progress.tell(step, table, done, all);
        Ok(())
    }
}
