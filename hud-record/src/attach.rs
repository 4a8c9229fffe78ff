//! `attach`: looks at a session that another process is recording, and needs no privilege for it.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hud_common::cockpit::{
    Query, Source as _,
    ui::{self, LookArgs},
};

use crate::{
    error::{Error, Result},
    memory, privilege, service,
    service::LogFormat,
    tail::{Settings, Tailer, summary},
};

/// What to look at, and how.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// The session, or a store: then its newest one
    pub session: PathBuf,
    /// Print lines instead of drawing; so it is where stdout is no terminal
    #[arg(long)]
    pub no_tui: bool,
    /// How often to print one
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub every: Duration,
    /// What to print with --no-tui
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub format: LineFormat,
    /// What the cockpit shows, and how
    #[command(flatten)]
    pub look: LookArgs,
}

/// How a moment is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineFormat {
    /// A line for people
    Text,
    /// The whole snapshot as a line of JSON
    Ndjson,
}

impl AttachArgs {
    /// Looks until the session ends.
    pub fn run(self) -> Result<()> {
        memory::hold_little();
        privilege::enter_viewer(&self.session);
        let mut tailer = Tailer::open(&self.session, Settings::default())?;
        if self.no_tui || !std::io::stdout().is_terminal() {
            service::log_to_stderr(LogFormat::Text, None)?;
            return Lines { look: self.look, every: self.every, format: self.format }.print(&mut tailer);
        }
        // Without logs: they would be drawn over.
        ui::run(tailer, self.look.options()).map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(())
    }
}

/// Moments as lines.
pub(crate) struct Lines {
    /// How far back each looks, and what it is held against.
    pub(crate) look: LookArgs,
    /// How often.
    pub(crate) every: Duration,
    /// As what.
    pub(crate) format: LineFormat,
}

impl Lines {
    /// Prints them until the session ends.
    pub(crate) fn print(&self, tailer: &mut Tailer) -> Result<()> {
        let query = Query { window: self.look.window, thresholds: self.look.thresholds(), ..Query::default() };
        let failed = |e: hud_common::cockpit::SourceError| Error::Unavailable(e.to_string());
        loop {
            let next = Instant::now() + self.every.max(Duration::from_millis(10));
            while Instant::now() < next && !tailer.is_ended() {
                tailer.wait(next.saturating_duration_since(Instant::now())).map_err(failed)?;
            }
            let snapshot = tailer.snapshot(&query).map_err(failed)?;
            let line = match self.format {
                LineFormat::Text => summary::line(&snapshot),
                LineFormat::Ndjson => serde_json::to_string(&snapshot)
                    .map_err(|e| Error::Unavailable(format!("cannot write JSON: {e}")))?,
            };
            let mut out = std::io::stdout().lock();
            // Whoever read it may be gone: then nobody looks any more.
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() || tailer.is_ended() {
                break;
            }
        }
        let lag = |thousandths| Duration::from_nanos(tailer.lags().percentile(thousandths).unwrap_or(0).unsigned_abs());
        tracing::debug!("events were taken in {:?} after their end, 99 of 100 within {:?}", lag(500), lag(990));
        for what in tailer.damage() {
            tracing::warn!("{what}");
        }
        Ok(())
    }
}
