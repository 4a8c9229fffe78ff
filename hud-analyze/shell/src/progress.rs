//! A progress line of a long query on standard error. It is drawn by a thread of its own, only on a terminal, only
//! after a second, and is removed before other text is written there.

use std::{
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    control::{Control, Reached, lock},
    pager, text,
};

/// Queries shorter than this have no progress.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two drawings.
const PACE: Duration = Duration::from_millis(200);

/// The line of one query.
#[derive(Debug)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    shown: bool,
}

impl Progress {
    /// For a query that begins now; nothing is drawn unless `on`.
    pub(crate) fn start(control: &Control, on: bool) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = on.then(|| {
            let (shared, control) = (Arc::clone(&shared), control.clone());
            let drawing = thread::Builder::new().name("progress".into());
            // Without a thread there is no progress line; the query is not affected.
            drawing.spawn(move || draw(&shared, &control)).ok()
        });
        Progress { shared, thread: thread.flatten() }
    }

    /// Removes the line.
    pub(crate) fn hide(&self) {
        let mut state = lock(&self.shared.state);
        state.over = true;
        if std::mem::take(&mut state.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(shared: &Shared, control: &Control) {
    let began = Instant::now();
    let mut state = lock(&shared.state);
    let mut next = began + PATIENCE;
    while !state.over {
        let left = next.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let columns = pager::screen().map_or(80, |(columns, _)| columns).saturating_sub(1);
        let line = line(&control.reached(), began.elapsed(), control.is_cancelled());
        state.shown = true;
        let _ = write!(io::stderr(), "\r{}\x1b[K", text::cut(&line, columns)).and_then(|()| io::stderr().flush());
        next = Instant::now() + PACE;
    }
}

fn line(reached: &Reached, elapsed: Duration, cancelled: bool) -> String {
    if cancelled {
        return format!("cancelling, {}", text::duration(elapsed));
    }
    let phase = if reached.phase.is_empty() { "running" } else { &reached.phase };
    let mut line = hud_common::clean(phase).into_owned();
    if reached.read > 0 && reached.total > 0 {
        let share = (u128::from(reached.read) * 100 / u128::from(reached.total)).min(100);
        line += &format!(", {} of {} rows ({share} %)", text::count(reached.read), text::count(reached.total));
    } else if reached.read > 0 {
        line += &format!(", {} rows", text::count(reached.read));
    }
    format!("{line}, {}; Ctrl-C cancels", text::duration(elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let time = Duration::from_millis(2_300);
        let reached = |read, total| Reached { read, total, phase: "reading \x1bpolls".into() };
        assert_eq!(
            line(&reached(12_345_678, 100_000_000), time, false),
            "reading \\x1bpolls, 12.3 M of 100.0 M rows (12 %), 2.3 s; Ctrl-C cancels"
        );
        assert_eq!(line(&reached(u64::MAX, 1), time, false).matches("(100 %)").count(), 1);
        assert_eq!(line(&Reached::default(), time, false), "running, 2.3 s; Ctrl-C cancels");
        assert_eq!(line(&reached(5, 0), time, true), "cancelling, 2.3 s");
    }
}
