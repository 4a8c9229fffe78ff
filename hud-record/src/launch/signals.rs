//! Passes signals that hud receives on to the program that it started.

use std::{
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{Signal, pidfd_send_signal},
};

use crate::privilege;

/// Time that the program has to end after the cockpit was left.
const TO_END: Duration = Duration::from_secs(5);
/// Signals that are passed on.
const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP];

/// Passes on signals that a process sent to hud. Those of the terminal (Ctrl-C) reach the program without hud, as both are in one process
/// group.
///
/// With `until_eof`, the program gets SIGTERM when hud's standard input ends; if it runs 5 s later, `stop` is set.
pub(crate) fn forward(program: Arc<OwnedFd>, until_eof: bool, stop: Arc<AtomicBool>) -> io::Result<()> {
    let (received, sender) = UnixStream::pair()?;
    // A handler must not wait.
    sender.set_nonblocking(true)?;
    let sender = Arc::new(OwnedFd::from(sender));
    for signal in SIGNALS {
        let sender = Arc::clone(&sender);
        let number = u8::try_from(signal.as_raw()).unwrap_or(0);
        // Not positive: sent by a process, not by the kernel.
        let pass_on = move |info: &libc::siginfo_t| {
            if info.si_code <= 0 {
                let _ = rustix::io::write(&*sender, &[number]);
            }
        };
        // SAFETY: in the handler, one system call on an open descriptor, which rustix makes without the C library's errno.
        unsafe { signal_hook_registry::register_sigaction(signal.as_raw(), pass_on) }?;
    }
    let to = Arc::clone(&program);
    spawn("hud-signals", move || {
        // The program may be another user's.
        privilege::enter_signal_sender();
        for number in io::BufReader::new(received).bytes().map_while(Result::ok) {
            if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                let _ = pidfd_send_signal(&*to, signal);
            }
        }
    })?;
    if until_eof {
        spawn("hud-stdin", move || {
            privilege::enter_signal_sender();
            // The content is ignored; an error counts as the end.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = pidfd_send_signal(&*program, Signal::TERM);
            has_ended(&program, TO_END);
            stop.store(true, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

/// Waits until a process ends, at most this long. Returns whether it has.
pub(super) fn has_ended(process: &OwnedFd, at_most: Duration) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let timeout = rustix::time::Timespec::try_from(at_most).ok();
    matches!(rustix::event::poll(&mut fds, timeout.as_ref()), Ok(1..))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}
