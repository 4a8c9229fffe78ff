//! `compact` and `repair`: what changes a session. Both leave it whole wherever they are ended.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hud_common::session::Table;
#[cfg(target_os = "linux")]
use hud_common::viewer;
use hud_upkeep::{CompactOptions, Progress, RepairOptions, Step};

use crate::{
    cli::{CompactArgs, RepairArgs},
    error::{Error, Result},
    human,
    output::Stdout,
};

/// Merges the small segments of sessions.
pub(crate) fn compact(args: &CompactArgs, out: &mut Stdout) -> Result<()> {
    if args.output.is_some() && args.sessions.len() > 1 {
        return Err(Error::Usage {
            message: "--output is a folder for one session".into(),
            hint: "compact one at a time".into(),
        });
    }
    let mut waiting = Waiting::new()?;
    for session in &args.sessions {
        let options = CompactOptions { output: args.output.clone(), ..CompactOptions::default() };
        let done = hud_upkeep::compact(&place(session)?, &options, &mut waiting);
        waiting.clear();
        tell(out, &done.map_err(upkeep)?.lines())?;
    }
    Ok(())
}

/// Mends a damaged session, or says what would be done.
pub(crate) fn repair(args: &RepairArgs, out: &mut Stdout) -> Result<()> {
    let mut waiting = Waiting::new()?;
    let options = RepairOptions { dry_run: args.dry_run, output: args.output.clone() };
    let done = hud_upkeep::repair(&place(&args.session)?, &options, &mut waiting);
    waiting.clear();
    let done = done.map_err(upkeep)?;
    tell(out, &done.lines())?;
    if args.dry_run && !done.is_proven() {
        let why = "it is damaged; `hud-analyze repair` without --dry-run mends it".into();
        return Err(Error::Unproven { session: args.session.clone(), why });
    }
    Ok(())
}

/// Where to work at a session. What is done there is done by paths, so root, which this process still is where it could not
/// become the session's owner, does it only where nobody else can lead it elsewhere.
#[cfg(target_os = "linux")]
fn place(session: &Path) -> Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return Ok(session.into());
    }
    match viewer::roots_alone(session) {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(folder)) => Err(Error::Usage {
            message: format!(
                "root does not rewrite {}: another user may change {}",
                session.display(),
                folder.display()
            ),
            hint: "do it as the session's owner, one owner's sessions at a time, or copy it where only root may write"
                .into(),
        }),
        // What is wrong with it is told by whoever opens it.
        Err(_) => Ok(session.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn place(session: &Path) -> Result<PathBuf> {
    Ok(session.into())
}

fn upkeep(error: hud_upkeep::Error) -> Error {
    match error {
        hud_upkeep::Error::Cancelled => Error::Cancelled,
        other => Error::Upkeep(other.to_string()),
    }
}

fn tell(out: &mut Stdout, lines: &[String]) -> Result<()> {
    let mut all = lines.iter().map(|line| writeln!(out, "{}", hud_common::clean(line)));
    all.try_for_each(|line| line).and_then(|()| out.flush()).map_err(Error::io("write the answer"))
}

/// A line on a terminal, for whoever waits; Ctrl-C gives up, and leaves the session as it was.
struct Waiting {
    since: Instant,
    told: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Waiting {
    fn new() -> Result<Self> {
        let cancelled = Arc::<AtomicBool>::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&cancelled)).map_err(Error::io("watch for Ctrl-C"))?;
        }
        Ok(Waiting { since: Instant::now(), told: None, cancelled })
    }

    fn clear(&mut self) {
        if self.told.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
        }
    }
}

impl Progress for Waiting {
    fn tell(&mut self, step: Step, table: Table, done: u64, all: u64) {
        let is_due = match self.told {
            Some(at) => at.elapsed() > Duration::from_millis(200),
            None => self.since.elapsed() > Duration::from_secs(1) && io::stderr().is_terminal(),
        };
        if is_due {
            self.told = Some(Instant::now());
            let count = |n: u64| human::count(i64::try_from(n).unwrap_or(i64::MAX));
            let line = format!("\r\x1b[K{} {}: {} of {}", step.name(), table.name(), count(done), count(all));
            let _ = write!(io::stderr(), "{line}").and_then(|()| io::stderr().flush());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
