//! Communication between the shell and a running statement: cancellation and progress.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

type Act = Box<dyn FnOnce() + Send>;

/// A statement's control, shared by the shell and the database. Clones are the same control.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    acts: Mutex<Vec<Act>>,
    read: AtomicU64,
    total: AtomicU64,
    phase: Mutex<String>,
}

/// Progress of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Rows read so far.
    pub read: u64,
    /// Rows to read; 0 if that is not known.
    pub total: u64,
    /// The current activity, as a participle: `planning`, `reading polls`.
    pub phase: String,
}

impl Control {
    /// A new control.
    pub fn new() -> Self {
        Control::default()
    }

    /// Cancels the statement. Actions given to [`Control::on_cancel`] run on the calling thread.
    pub fn cancel(&self) {
        let mut acts = lock(&self.0.acts);
        self.0.cancelled.store(true, Ordering::SeqCst);
        let cancelled = std::mem::take(&mut *acts);
        drop(acts);
        cancelled.into_iter().for_each(|act| act());
    }

    /// Whether the statement was cancelled. This is cheap.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Runs `act` when the statement is cancelled; immediately if it already was.
    pub fn on_cancel(&self, act: impl FnOnce() + Send + 'static) {
        let mut acts = lock(&self.0.acts);
        if self.is_cancelled() {
            drop(acts);
            act();
        } else {
            acts.push(Box::new(act));
        }
    }

    /// Sets the rows read so far.
    pub fn set_read(&self, rows: u64) {
        self.0.read.store(rows, Ordering::Relaxed);
    }

    /// Sets the number of rows to read.
    pub fn set_total(&self, rows: u64) {
        self.0.total.store(rows, Ordering::Relaxed);
    }

    /// Sets the current activity, as a participle.
    pub fn set_phase(&self, phase: impl Into<String>) {
        *lock(&self.0.phase) = phase.into();
    }

    /// The statement's progress.
    pub fn reached(&self) -> Reached {
        Reached {
            read: self.0.read.load(Ordering::Relaxed),
            total: self.0.total.load(Ordering::Relaxed),
            phase: lock(&self.0.phase).clone(),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("cancelled", &self.is_cancelled())
            .field("reached", &self.reached())
            .finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn cancelling_runs_actions_once() {
        let control = Control::new();
        let (sender, receiver) = mpsc::channel();
        let early = sender.clone();
        control.on_cancel(move || early.send("early").unwrap());
        let clone = control.clone();
        clone.cancel();
        clone.cancel();
        assert!(control.is_cancelled());
        control.on_cancel(move || sender.send("late").unwrap());
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["early", "late"]);
    }
}
