//! A progress line on standard error, if that is a terminal. A thread draws it from one second after the start of a statement; it
//! is removed before other text is written.

use std::{
    io::{self, Write as _},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hud_common::units::{count, share};

use crate::{
    control::{Control, lock},
    describe::duration,
};

/// Time until the line is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// Interval of updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// The progress line of a statement.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    drawing: std::sync::Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Progress {
    /// Starts to draw, if `on`.
    pub(crate) fn start(control: &Control, on: bool) -> Self {
        let (sender, hidden) = channel();
        let (control, began) = (control.clone(), Instant::now());
        let draw = move || {
            let mut wait = PATIENCE;
            // Dropping the sender hides the line.
            while hidden.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let columns = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
                let line: String = line(&control, began.elapsed()).chars().take(columns.saturating_sub(1)).collect();
                let _ = write!(io::stderr(), "\r{line}\x1b[K").and_then(|()| io::stderr().flush());
                wait = INTERVAL;
            }
            if wait == INTERVAL {
                let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
            }
        };
        // Without the thread there is only no progress line.
        let thread = on.then(|| thread::Builder::new().name("progress".into()).spawn(draw).ok()).flatten();
        Progress { drawing: thread.map(|thread| (sender, thread)).into() }
    }

    /// Removes the line.
    pub(crate) fn hide(&self) {
        if let Some((sender, thread)) = lock(&self.drawing).take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}

fn line(control: &Control, elapsed: Duration) -> String {
    let (reached, elapsed) = (control.reached(), duration(elapsed));
    if control.is_cancelled() {
        return format!("cancelling, {elapsed}");
    }
    let phase = hud_common::clean(if reached.phase.is_empty() { "running" } else { &reached.phase });
    let rows = |n: u64| count(i64::try_from(n).unwrap_or(i64::MAX));
    let rows = match (reached.read, reached.total) {
        (0, _) => String::new(),
        (read, 0) => format!(", {} rows", rows(read)),
        (read, total) => {
            let thousandths = (u128::from(read) * 1_000 / u128::from(total)).min(1_000);
            let share = share(i64::try_from(thousandths).unwrap_or(1_000));
            format!(", {} of {} rows ({share})", rows(read), rows(total))
        }
    };
    format!("{phase}{rows}, {elapsed}; Ctrl-C cancels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_known_numbers_only() {
        let time = Duration::from_millis(2_300);
        let control = Control::new();
        assert_eq!(line(&control, time), "running, 2.30 s; Ctrl-C cancels");
        control.set_phase("reading \x1bpolls");
        control.set_total(100_000_000);
        control.set_read(12_345_678);
        assert_eq!(
            line(&control, time),
            "reading \\x1bpolls, 12,345,678 of 100,000,000 rows (12.3 %), 2.30 s; Ctrl-C cancels"
        );
        control.set_read(u64::MAX);
        assert!(line(&control, time).contains("(100 %)"));
        control.cancel();
        assert_eq!(line(&control, time), "cancelling, 2.30 s");
    }
}
