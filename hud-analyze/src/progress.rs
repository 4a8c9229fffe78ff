//! A progress bar on the terminal for reading many segments, shown after one second.

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Delay before the bar is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// A longer pause starts a new wait.
const PAUSE: Duration = Duration::from_millis(500);

/// Progress of reading segments on any thread.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Start of the wait, and time of the last step.
    wait: Option<(Instant, Instant)>,
    done: u64,
    all: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` is shown after the number of segments: "segments opened".
    pub(crate) fn new(what: &'static str) -> Self {
        Progress { what, state: Mutex::default() }
    }

    /// Adds segments that will be read.
    pub(crate) fn expect(&self, more: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all = state.all.saturating_add(more as u64);
    }

    /// Counts a segment as read.
    pub(crate) fn step(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let began = state.wait.filter(|(_, last)| now.duration_since(*last) < PAUSE).map_or(now, |(began, _)| began);
        state.wait = Some((began, now));
        state.done = state.done.saturating_add(1);
        if state.bar.is_none() && now.duration_since(began) > PATIENCE && io::stderr().is_terminal() {
            let bar = ProgressBar::new(state.all);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(self.what);
            state.bar = Some(bar);
        }
        if let Some(bar) = &state.bar {
            bar.set_length(state.all);
            bar.set_position(state.done);
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.state.lock().unwrap_or_else(PoisonError::into_inner).bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
