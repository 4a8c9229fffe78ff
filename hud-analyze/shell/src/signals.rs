//! Signals: Ctrl-C cancels the running statement; SIGTERM and SIGHUP end the shell in order, so that the terminal is restored, the
//! history saved and temporary files removed. If a statement ignores cancellation, a second Ctrl-C kills the process, and so does
//! SIGTERM after [`GRACE`].

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
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

/// Time for the shell to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(500);

/// Watches for signals until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    shared: Arc<Shared>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    /// Dropped when the shell has ended.
    running: Option<Sender<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    current: Mutex<Option<Control>>,
    interrupted: AtomicBool,
    ended_by: AtomicI32,
    /// Makes the line editor return.
    leave: Arc<AtomicBool>,
}

impl Signals {
    /// Starts to watch.
    pub(crate) fn watch() -> Result<Self> {
        // SIGPIPE, which would kill the shell when a pager quits, is ignored: then the write fails instead.
        let mut received =
            Received::new([SIGINT, SIGTERM, SIGHUP, SIGPIPE]).map_err(ShellError::io("watch for signals"))?;
        let handle = received.handle();
        let shared = Arc::new(Shared::default());
        let (running, ended) = channel();
        let thread = {
            let shared = Arc::clone(&shared);
            let run = move || received.forever().for_each(|signal| shared.receive(signal, &ended));
            thread::Builder::new().name("signals".into()).spawn(run).map_err(ShellError::io("start a thread"))?
        };
        Ok(Signals { shared, handle, thread: Some(thread), running: Some(running) })
    }

    /// While `act` runs, Ctrl-C cancels `control`.
    pub(crate) fn during<T>(&self, control: &Control, act: impl FnOnce() -> T) -> T {
        *lock(&self.shared.current) = Some(control.clone());
        // A signal may have arrived before there was a control.
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
        drop(self.running.take());
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn receive(&self, signal: i32, ended: &Receiver<()>) {
        match signal {
            SIGINT => self.interrupted.store(true, Ordering::SeqCst),
            SIGTERM | SIGHUP => {
                self.ended_by.store(signal, Ordering::SeqCst);
                self.leave.store(true, Ordering::SeqCst);
            }
            _ => return,
        }
        // Without the lock, as cancellation runs the database's code.
        let current = lock(&self.current).clone();
        let was_cancelled = current.as_ref().is_some_and(Control::is_cancelled);
        if let Some(control) = current {
            control.cancel();
        }
        let is_due = match signal {
            SIGINT => was_cancelled,
            _ => ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout),
        };
        if is_due {
            let _ = crossterm::terminal::disable_raw_mode();
            let _: io::Result<()> = emulate_default_handler(signal);
        }
    }
}
