//! Communication between the shell and a running statement: cancellation and progress.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

type Act = Box<dyn FnOnce() + Send>;

/// A statement's control, shared by the shell and the database. Clones are the same control.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    acts: Mutex<Vec<Act>>,
    changed: Condvar,
    read: AtomicU64,
    total: AtomicU64,
    phase: Mutex<String>,
}

/// Progress of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Rows read so far.
    pub read: u64,
    /// Rows to be read; 0 where that is not known.
    pub total: u64,
    /// The current activity, as a participle: `planning`, `reading polls`.
    pub phase: String,
}

impl Control {
    /// The control of a statement that has not begun.
    pub fn new() -> Self {
        Control::default()
    }

    /// Asks the statement to stop. Actions given to [`Control::on_cancel`] run now, on the calling thread.
    pub fn cancel(&self) {
        let acts = {
            let mut acts = lock(&self.0.acts);
            self.0.cancelled.store(true, Ordering::SeqCst);
            std::mem::take(&mut *acts)
        };
        self.0.changed.notify_all();
        for act in acts {
            act();
        }
    }

    /// Whether the statement shall stop. Cheap enough to call for each batch.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Runs `act` once the statement shall stop: at once if it shall already. It wakes an asynchronous runtime: `act`
    /// sends to a channel that is selected beside the stream of batches.
    pub fn on_cancel(&self, act: impl FnOnce() + Send + 'static) {
        let mut acts = lock(&self.0.acts);
        if self.is_cancelled() {
            drop(acts);
            act();
        } else {
            acts.push(Box::new(act));
        }
    }

    /// Waits until the statement shall stop, or until that time has passed. Returns whether it shall stop.
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut acts = lock(&self.0.acts);
        while !self.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            acts = self.0.changed.wait_timeout(acts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// More rows have been read.
    pub fn add_read(&self, rows: u64) {
        self.0.read.fetch_add(rows, Ordering::Relaxed);
    }

    /// Total number of rows read so far.
    pub fn set_read(&self, rows: u64) {
        self.0.read.store(rows, Ordering::Relaxed);
    }

    /// Number of rows to read.
    pub fn set_total(&self, rows: u64) {
        self.0.total.store(rows, Ordering::Relaxed);
    }

    /// The current activity, as a participle.
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
    fn cancelling_wakes_whoever_waits() {
        let control = Control::new();
        let (sender, receiver) = mpsc::channel();
        let early = sender.clone();
        control.on_cancel(move || early.send("early").unwrap());
        assert!(!control.wait(Duration::ZERO));
        let other = control.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        control.cancel();
        control.cancel();
        assert!(waiter.join().unwrap());
        control.on_cancel(move || sender.send("late").unwrap());
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn progress_is_seen_by_both_sides() {
        let control = Control::new();
        let other = control.clone();
        other.set_phase("reading polls");
        other.set_total(10);
        other.add_read(3);
        other.add_read(4);
        assert_eq!(control.reached(), Reached { read: 7, total: 10, phase: "reading polls".into() });
    }
}
