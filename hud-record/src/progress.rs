//! The status of a recording without a screen: a line that is updated on a terminal, else one line at the start and one
//! at the end.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
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
    /// Whether the terminal is another program's: then only the end is reported, on stderr.
    is_silent: bool,
}

impl ProgressLine {
    /// For a recording.
    pub(crate) fn new(name: &str, pid: u32, task_types: usize, is_silent: bool) -> Self {
        let name = match task_types {
            0 => format!("{name} (pid {pid}, no tokio)"),
            _ => format!("{name} (pid {pid}, {task_types} task types)"),
        };
        let bar = if is_silent { ProgressBar::hidden() } else { bar() };
        if bar.is_hidden() && !is_silent {
            say(&format!("recording {name}"));
        } else {
            bar.set_prefix(format!("recording {name}"));
            bar.set_message("Ctrl-C ends it");
        }
        ProgressLine { bar, name, is_silent }
    }

    /// While waiting for a process.
    pub(crate) fn waiting(status: &str) -> Self {
        let bar = bar();
        if bar.is_hidden() {
            say(status);
        } else {
            bar.set_prefix(status.to_string());
        }
        ProgressLine { bar, name: String::new(), is_silent: false }
    }

    pub(crate) fn show(&self, p: &Progress) {
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
        if self.is_silent {
            say(&format!("{line}: {}", outcome.session.display()));
            return;
        }
        self.bar.suspend(|| {
            say(&line);
            // The recording does not depend on a reader of stdout.
            let _ = writeln!(std::io::stdout(), "{}", outcome.session.display());
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

/// Writes a line to stderr: as it is, or as JSON if logs are.
fn say(line: &str) {
    match service::log_format() {
        // The recording does not depend on a reader of stderr.
        LogFormat::Text => drop(writeln!(std::io::stderr(), "{line}")),
        LogFormat::Json => tracing::info!("{line}"),
    }
}
