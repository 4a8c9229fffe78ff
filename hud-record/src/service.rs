//! hud as a service: signals, logs, and systemd's notifications.

use std::{
    io::{IsTerminal as _, Write},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::ProgressBar;
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGHUP, SIGUSR1, SIGUSR2, TERM_SIGNALS},
    flag,
};
use tracing_subscriber::EnvFilter;

use crate::{
    error::{Error, Result},
    launch, privilege,
};

/// Requests by signals.
#[derive(Clone, Debug, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    seal: Arc<AtomicBool>,
    state: Arc<AtomicBool>,
}

impl Control {
    /// Handles signals: Ctrl-C and SIGTERM stop in order, and a second one at once; SIGUSR1 seals all logs; SIGUSR2
    /// reads the state of all tasks; SIGHUP does nothing, as there is nothing to reopen.
    pub fn by_signals() -> Result<Self> {
        let control = Control::default();
        let failed = |source| Error::Io { action: "handle signals", source };
        for &signal in TERM_SIGNALS {
            // In this order: the first signal finds `stop` unset, and only sets it.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&control.stop)).map_err(failed)?;
            flag::register(signal, Arc::clone(&control.stop)).map_err(failed)?;
        }
        flag::register(SIGUSR1, Arc::clone(&control.seal)).map_err(failed)?;
        flag::register(SIGUSR2, Arc::clone(&control.state)).map_err(failed)?;
        flag::register(SIGHUP, Arc::default()).map_err(failed)?;
        Ok(control)
    }

    /// For a program that hud has started: signals that end it are passed on to it, and hud ends when it does. With
    /// `until_eof`, the end of standard input ends both.
    pub(crate) fn for_program(program: Arc<OwnedFd>, until_eof: bool) -> Result<Self> {
        let control = Control::default();
        let failed = |source| Error::Io { action: "handle signals", source };
        flag::register(SIGUSR1, Arc::clone(&control.seal)).map_err(failed)?;
        flag::register(SIGUSR2, Arc::clone(&control.state)).map_err(failed)?;
        launch::forward(program, until_eof, Arc::clone(&control.stop)).map_err(failed)?;
        Ok(control)
    }

    /// Stops when standard input ends as well.
    pub fn stop_at_eof(&self) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let read = move || {
            privilege::enter_unprivileged();
            // The content is ignored; an error counts as the end.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        };
        let failed = |source| Error::Io { action: "watch standard input", source };
        std::thread::Builder::new().name("hud-stdin".into()).spawn(read).map(drop).map_err(failed)
    }

    /// Whether hud is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes hud end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the state of all tasks is to be read now; true once per request.
    pub fn take_state(&self) -> bool {
        self.state.swap(false, Ordering::Relaxed)
    }

    /// Whether all logs are to be sealed now; true once per request.
    pub fn take_seal(&self) -> bool {
        self.seal.swap(false, Ordering::Relaxed)
    }
}

/// Notifications for systemd, if it expects them: `Type=notify`, `WatchdogSec=`.
#[derive(Debug)]
pub struct Notify {
    watchdog: Option<Duration>,
    notified: Instant,
}

impl Notify {
    /// By systemd's environment variables.
    pub fn new() -> Self {
        Notify { watchdog: sd_notify::watchdog_enabled(), notified: Instant::now() }
    }

    /// hud is ready, with this status.
    pub fn ready(&self, status: &str) {
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// hud is alive. Cheap: notifies at most four times in the watchdog's time.
    pub fn alive(&mut self) {
        if let Some(watchdog) = self.watchdog
            && self.notified.elapsed() >= watchdog / 4
        {
            self.notified = Instant::now();
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// hud is stopping.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Usually nobody listens, which is no error.
    let _ = sd_notify::notify(state);
}

/// The format of logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable text
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Sends logs to stderr from here on. `level` has the syntax of RUST_LOG; without it RUST_LOG applies, or `info`.
pub fn log_to_stderr(format: LogFormat, level: Option<&str>) -> Result<()> {
    let directives = level.map_or_else(|| std::env::var("RUST_LOG").unwrap_or_default(), str::to_string);
    let directives = if directives.is_empty() { "info".into() } else { directives };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|e| Error::Unavailable(format!("{directives:?} is no log level: {e}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| AboveTheBar)
        .with_target(false)
        // It would report them on stderr, and panic if that is what failed.
        .log_internal_errors(false);
    let done = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        // The journal adds the time, and a terminal's user has a clock.
        LogFormat::Text => builder.without_time().with_ansi(has_colours()).try_init(),
    };
    // Already set by a program that uses hud as a library.
    let _ = done;
    let _ = FORMAT.set(format);
    Ok(())
}

/// Whether stderr is a terminal and colours are not disabled (no-color.org).
fn has_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The chosen format.
pub fn log_format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Writes log lines above this bar, not through it.
pub(crate) fn log_above(bar: &ProgressBar) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// stderr, without disturbing the progress bar. Write errors are ignored: a recording does not end because its log is
/// not read any more.
struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let write = || std::io::stderr().write_all(bytes);
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) if !bar.is_finished() => drop(bar.suspend(write)),
            _ => drop(write()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}
