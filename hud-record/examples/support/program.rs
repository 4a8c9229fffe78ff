//! Shared by the programs: printing, and waiting for the signal to begin or to end.

#![allow(dead_code, reason = "not every example uses all")]

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Prints a line at once, also if standard output is a pipe.
pub(crate) fn say(line: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // The reader has exited.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Subscribes to the given signals, and to those that end a program.
pub(crate) fn signals(also: &[i32]) -> io::Result<Signals> {
    Signals::new(also.iter().chain(&[SIGTERM, SIGINT]))
}

/// Ends the wait for signals after this time.
pub(crate) fn end_after(signals: &Signals, seconds: Option<u64>) -> io::Result<()> {
    if let Some(seconds) = seconds {
        let end = signals.handle();
        thread::Builder::new().name("duration".to_owned()).spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            end.close();
        })?;
    }
    Ok(())
}

/// Waits for one of the signals. Returns false for a signal that ends the program.
pub(crate) fn received(signals: &mut Signals, wanted: i32) -> bool {
    signals.forever().find(|&signal| [wanted, SIGTERM, SIGINT].contains(&signal)) == Some(wanted)
}
