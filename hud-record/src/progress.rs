//! The status of a recording without a screen: a line that is updated on a terminal, else a line at the start, one at the
//! end, and a heartbeat in between. In JSON logs their figures are fields.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hud_common::units::size;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::{
    record::{Outcome, Progress},
    service::{self, LogFormat},
};

/// The line.
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    name: String,
    pid: u32,
    session: Option<PathBuf>,
    heartbeat: Option<Heartbeat>,
    /// Whether the terminal is another program's: then only the end is reported, on stderr.
    is_silent: bool,
}

/// A line at an interval.
struct Heartbeat {
    interval: Duration,
    last: Instant,
}

impl ProgressLine {
    /// For a recording.
    pub(crate) fn new(
        program: &str,
        pid: u32,
        task_types: usize,
        is_silent: bool,
        heartbeat: Option<Duration>,
    ) -> Self {
        let name = match task_types {
            0 => format!("{program} (pid {pid}, no tokio)"),
            _ => format!("{program} (pid {pid}, {task_types} task types)"),
        };
        let bar = if is_silent { ProgressBar::hidden() } else { bar() };
        let line = format!("recording {name}");
        if !bar.is_hidden() {
            bar.set_prefix(line);
            bar.set_message("Ctrl-C ends it");
        } else if !is_silent && !has_said(&line) {
            tracing::info!(program, pid, task_types, "{line}");
        }
        let heartbeat = heartbeat.filter(|_| bar.is_hidden() && !is_silent);
        let heartbeat = heartbeat.map(|interval| Heartbeat { interval, last: Instant::now() });
        ProgressLine { bar, name, pid, session: None, heartbeat, is_silent }
    }

    /// While waiting for a process.
    pub(crate) fn waiting(status: &str) -> Self {
        let bar = bar();
        if !bar.is_hidden() {
            bar.set_prefix(status.to_string());
        } else if !has_said(status) {
            tracing::info!("{status}");
        }
        ProgressLine { bar, name: String::new(), pid: 0, session: None, heartbeat: None, is_silent: false }
    }

    /// A session has begun at this path.
    pub(crate) fn began(&mut self, session: &Path) {
        self.session = Some(session.to_path_buf());
    }

    pub(crate) fn show(&mut self, p: &Progress) {
        let (pid, session) = (self.pid, self.session.as_deref().unwrap_or(Path::new("")).display());
        let due = self.heartbeat.as_mut().filter(|heartbeat| heartbeat.last.elapsed() >= heartbeat.interval);
        if let Some(heartbeat) = due {
            heartbeat.last = Instant::now();
            let line = format!(
                "recording {}: {} events in {}, {} now, {}, {} dropped{}",
                self.name,
                HumanCount(p.events),
                HumanDuration(p.elapsed),
                format_args!("{}/s", HumanCount(p.events_per_second)),
                size(p.bytes),
                HumanCount(p.drops),
                if p.is_paused { ", paused: the disk is full" } else { "" },
            );
            if !has_said(&line) {
                tracing::info!(
                    pid,
                    %session,
                    seconds = p.elapsed.as_secs(),
                    events = p.events,
                    events_per_second = p.events_per_second,
                    bytes = p.bytes,
                    dropped = p.drops,
                    paused = p.is_paused,
                    "{line}"
                );
            }
        }
        self.bar.set_message(format!(
            "{} events/s  {}  {} dropped{}",
            HumanCount(p.events_per_second),
            size(p.bytes),
            HumanCount(p.drops),
            if p.is_paused { "  the disk is full" } else { "" },
        ));
    }

    /// A session is closed: its result is printed on stderr, its path on stdout, unless that is another program's.
    pub(crate) fn closed(&self, outcome: &Outcome) {
        let p = outcome.progress;
        let line = format!(
            "recorded {}: {} events in {}, {}, {} dropped ({})",
            self.name,
            HumanCount(p.events),
            HumanDuration(p.elapsed),
            size(p.bytes),
            HumanCount(p.drops),
            outcome.reason,
        );
        let line = if self.is_silent { format!("{line}: {}", outcome.session.display()) } else { line };
        self.bar.suspend(|| {
            if !has_said(&line) {
                tracing::info!(
                    pid = self.pid,
                    session = %outcome.session.display(),
                    seconds = p.elapsed.as_secs(),
                    events = p.events,
                    bytes = p.bytes,
                    dropped = p.drops,
                    reason = outcome.reason,
                    "{line}"
                );
            }
            if !self.is_silent {
                // The recording does not depend on a reader of stdout.
                let _ = writeln!(std::io::stdout(), "{}", outcome.session.display());
            }
        });
    }

    /// All is closed; detaching takes the kernel a moment.
    pub(crate) fn detaching(&self, probes: usize) {
        self.bar.set_message(format!("session closed, detaching {probes} probes"));
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() || service::log_format() == LogFormat::Json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {elapsed_precise}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    service::log_above(&bar);
    bar
}

/// Writes a line to stderr, unless logs are JSON: then it is to be logged, with its figures as fields.
fn has_said(line: &str) -> bool {
    if service::log_format() == LogFormat::Json {
        return false;
    }
    // The recording does not depend on a reader of stderr.
    let _ = writeln!(std::io::stderr(), "{line}");
    true
}
