//! `attach`: shows a session that another process is recording, without privilege.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hud_common::cockpit::{
    Query, Source as _,
    ui::{self, LookArgs, Seat, Shot},
};

use crate::{
    allocator,
    error::{Error, Result},
    privilege, service,
    service::LogFormat,
    tail::{Settings, Tailer, summary},
};

/// How long a session in progress is read before its screen is printed.
const READING: Duration = Duration::from_millis(400);

/// The session to show, and how.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// The session, or a store, whose newest session is shown
    pub session: PathBuf,
    /// Print lines instead of drawing; the default if stdout is no terminal
    #[arg(long)]
    pub no_tui: bool,
    /// Interval between lines
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = hud_common::units::parse_std)]
    pub every: Duration,
    /// What to print with --no-tui
    #[arg(long, value_enum, default_value_t = LineFormat::Text)]
    pub format: LineFormat,
    /// Size of a printed screen
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "120x40", value_parser = Shot::parse_size)]
    pub size: (u16, u16),
    /// What the cockpit shows, and how
    #[command(flatten)]
    pub look: LookArgs,
}

/// The format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineFormat {
    /// A readable line
    Text,
    /// The whole snapshot as a line of JSON
    Ndjson,
    /// The cockpit's screen as text, once
    Screen,
}

impl AttachArgs {
    /// Shows the session until it ends.
    pub fn run(self) -> Result<()> {
        allocator::use_one_arena();
        privilege::enter_viewer(&self.session);
        let mut tailer = Tailer::open(&self.session, Settings::default())?;
        if self.format == LineFormat::Screen {
            return print_screen(tailer, &self.look, self.size);
        }
        if self.no_tui || !std::io::stdout().is_terminal() {
            service::log_to_stderr(LogFormat::Text, None)?;
            return Lines { look: self.look, every: self.every, format: self.format }.print(&mut tailer);
        }
        // Without logs, which would be drawn over.
        ui::run(tailer, self.look.options()).map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(())
    }
}

/// Prints the screen of a session as it is now, or as it ended.
fn print_screen(mut tailer: Tailer, look: &LookArgs, size: (u16, u16)) -> Result<()> {
    let failed = |e: ui::UiError| Error::Unavailable(e.to_string());
    // Existing data is read at once; names of its functions come with the next batch.
    let read = Instant::now() + READING;
    while Instant::now() < read && !tailer.is_ended() {
        tailer.wait(READING / 4).map_err(|e| Error::Unavailable(e.to_string()))?;
    }
    let shot = Shot::take(vec![Seat::new(tailer)], &look.options(), size).map_err(failed)?;
    // The reader of stdout may have exited.
    let _ = std::io::stdout().lock().write_all(shot.text().as_bytes());
    Ok(())
}

/// Prints snapshots as lines.
pub(crate) struct Lines {
    /// Their window and thresholds.
    pub(crate) look: LookArgs,
    /// Their interval.
    pub(crate) every: Duration,
    /// Their format.
    pub(crate) format: LineFormat,
}

impl Lines {
    /// Prints lines until the session ends.
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
                LineFormat::Text | LineFormat::Screen => summary::line(&snapshot),
                LineFormat::Ndjson => serde_json::to_string(&snapshot)
                    .map_err(|e| Error::Unavailable(format!("cannot write JSON: {e}")))?,
            };
            let mut out = std::io::stdout().lock();
            // The reader of stdout may have exited: then there is no more to do.
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
