//! Signal handling: Ctrl-C cancels the running statement, SIGTERM and SIGHUP end the shell in the ordinary way, so that
//! the terminal is restored, the history kept and temporary files removed. A statement may ignore cancellation: a
//! second Ctrl-C ends the process, and so does a SIGTERM after a moment.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM},
    iterator::{Handle, Signals as Received},
    low_level::emulate_default_handler,
};

use crate::{
    control::{Control, lock},
    error::{Result, ShellError},
};

/// Time that the shell may take to end after a SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// Watches for signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    current: Mutex<Option<Control>>,
    interrupted: AtomicBool,
    ended_by: AtomicI32,
    /// Makes the line editor return.
    leave: Arc<AtomicBool>,
    over: Mutex<bool>,
    changed: Condvar,
}

impl Signals {
    /// Begins to watch.
    pub(crate) fn watch() -> Result<Self> {
        // SIGPIPE too: by default it would end the shell when the user quits a pager. It is ignored, so that a write
        // fails instead.
        let mut received =
            Received::new([SIGINT, SIGTERM, SIGHUP, SIGPIPE]).map_err(ShellError::io("watch for signals"))?;
        let handle = received.handle();
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            let run = move || received.forever().for_each(|signal| shared.receive(signal));
            thread::Builder::new().name("signals".into()).spawn(run).map_err(ShellError::io("start a thread"))?
        };
        Ok(Signals { shared, handle, thread: Some(thread) })
    }

    /// While `act` runs, Ctrl-C cancels `control`.
    pub(crate) fn during<T>(&self, control: &Control, act: impl FnOnce() -> T) -> T {
        *lock(&self.shared.current) = Some(control.clone());
        // A signal that arrived before there was anything to cancel counts too.
        if self.ended_by().is_some() || self.shared.interrupted.load(Ordering::SeqCst) {
            control.cancel();
        }
        let done = act();
        *lock(&self.shared.current) = None;
        done
    }

    /// Whether Ctrl-C has arrived since the last call.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.shared.interrupted.swap(false, Ordering::SeqCst)
    }

    /// The signal by which the shell shall end.
    pub(crate) fn ended_by(&self) -> Option<i32> {
        Some(self.shared.ended_by.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// Set when the line editor shall return.
    pub(crate) fn leave(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.leave)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        *lock(&self.shared.over) = true;
        self.shared.changed.notify_all();
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn receive(&self, signal: i32) {
        match signal {
            SIGINT => self.interrupted.store(true, Ordering::SeqCst),
            SIGTERM | SIGHUP => {
                self.ended_by.store(signal, Ordering::SeqCst);
                self.leave.store(true, Ordering::SeqCst);
            }
            _ => return,
        }
        // Not under the lock: the actions belong to the database.
        let current = lock(&self.current).clone();
        let was_cancelled = current.as_ref().is_some_and(Control::is_cancelled);
        if let Some(control) = current {
            control.cancel();
        }
        let is_due = match signal {
            SIGINT => was_cancelled,
            _ => !self.is_over_in(GRACE),
        };
        if is_due {
            let _ = crossterm::terminal::disable_raw_mode();
            let _: io::Result<()> = emulate_default_handler(signal);
        }
    }

    fn is_over_in(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut over = lock(&self.over);
        while !*over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            over = self.changed.wait_timeout(over, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
