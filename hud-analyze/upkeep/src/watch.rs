//! Progress, and the hook by which tests simulate a kill.

use hud_common::session::Table;

use crate::{
    bench::Killer,
    error::{Error, Result},
    progress::{Progress, Step},
};

/// Receiver of progress, and the hook of tests.
pub(crate) struct Watch<'a> {
    progress: &'a mut dyn Progress,
    pub(crate) step: &'a mut Killer<'a>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(progress: &'a mut dyn Progress, step: &'a mut Killer<'a>) -> Self {
        Watch { progress, step }
    }

    /// Reports progress; fails after cancellation.
    pub(crate) fn report(&mut self, step: Step, table: Table, done: u64, all: u64) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.progress.report(step, table, done, all);
        Ok(())
    }
}
