//! `compact` and `repair`, which rewrite sessions. Interrupted at any point, they leave a complete session.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use hud_common::session::Table;
#[cfg(target_os = "linux")]
use hud_common::viewer;
use hud_upkeep::{CompactOptions, Progress, RepairOptions, Step};

use crate::{
    error::{Error, Result},
    human,
    output::stdout::Stdout,
};

/// Merge small segments into large ones, which open faster and compress better
#[derive(Args, Debug)]
#[command(after_help = "\
A compacted copy is written beside the session, compared with it, and then replaces it in one step: readers find a complete
session at any time. This temporarily takes as much disk space as the session itself.

Of a fleet store (docs/FLEET.md), the files of each day before today are merged into one per table and service.

Examples:
  hud-analyze compact SESSION
  hud-analyze compact SESSION --output COPY
  hud-analyze compact ROOT/host=*/session=*")]
pub(crate) struct CompactArgs {
    /// Session folders, or a fleet store
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<PathBuf>,
    /// Write the result to a new folder and leave the session unchanged
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Repair a damaged session, so that it passes verify, with its losses recorded
#[derive(Args, Debug)]
#[command(after_help = "\
Damaged segments are moved to SESSION/damaged, never deleted; their intact rows are kept. Lost rows are counted in the table
`drops`, with stage `damaged`.

Examples:
  hud-analyze repair SESSION --dry-run
  hud-analyze repair SESSION
  hud-analyze repair SESSION --output COPY

Exit codes: 0 success, 1 failure, or damage found by --dry-run, 2 invalid arguments.")]
pub(crate) struct RepairArgs {
    /// Session folder
    session: PathBuf,
    /// Report what would be repaired, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the result to a new folder and leave the session unchanged
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl CompactArgs {
    /// The only folder, which may be a fleet store; `None` if there are several or an output.
    pub(crate) fn fleet_store(&self) -> Option<&Path> {
        match self.sessions.as_slice() {
            [folder] if self.output.is_none() => Some(folder),
            _ => None,
        }
    }
}

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
        let done = hud_upkeep::compact(&safe_path(session)?, &options, &mut waiting);
        waiting.clear();
        print(out, &done.map_err(upkeep)?.lines())?;
    }
    Ok(())
}

/// Repairs a damaged session, or reports what would be repaired.
pub(crate) fn repair(args: &RepairArgs, out: &mut Stdout) -> Result<()> {
    let mut waiting = Waiting::new()?;
    let options = RepairOptions { dry_run: args.dry_run, output: args.output.clone() };
    let done = hud_upkeep::repair(&safe_path(&args.session)?, &options, &mut waiting);
    waiting.clear();
    let done = done.map_err(upkeep)?;
    print(out, &done.lines())?;
    if args.dry_run && !done.is_proven() {
        let why = "it is damaged; run `hud-analyze repair` without --dry-run".into();
        return Err(Error::Unproven { session: args.session.clone(), why });
    }
    Ok(())
}

/// The path to rewrite a session at. It is accessed by path, so root, which this process is if it could not become the session's
/// owner, accepts only paths that no other user can redirect.
#[cfg(target_os = "linux")]
pub(crate) fn safe_path(session: &Path) -> Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        return Ok(session.into());
    }
    match viewer::roots_alone(session) {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(folder)) => Err(Error::Usage {
            message: format!(
                "root does not rewrite {}: another user can modify {}",
                session.display(),
                folder.display()
            ),
            hint: "run the command as the session's owner, for one owner's sessions at a time, or copy the session to a folder \
                   that only root can modify"
                .into(),
        }),
        // Opening the session reports the error.
        Err(_) => Ok(session.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn safe_path(session: &Path) -> Result<PathBuf> {
    Ok(session.into())
}

fn upkeep(error: hud_upkeep::Error) -> Error {
    match error {
        hud_upkeep::Error::Cancelled => Error::Cancelled,
        other => Error::Upkeep(other.to_string()),
    }
}

fn print(out: &mut Stdout, lines: &[String]) -> Result<()> {
    let mut all = lines.iter().map(|line| writeln!(out, "{}", hud_common::clean(line)));
    all.try_for_each(|line| line).and_then(|()| out.flush()).map_err(Error::io("write the result"))
}

/// A line of progress on a terminal. Ctrl-C cancels, and leaves the session unchanged.
struct Waiting {
    since: Instant,
    printed: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Waiting {
    fn new() -> Result<Self> {
        let cancelled = Arc::<AtomicBool>::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&cancelled)).map_err(Error::io("watch for Ctrl-C"))?;
        }
        Ok(Waiting { since: Instant::now(), printed: None, cancelled })
    }

    fn clear(&mut self) {
        if self.printed.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K").and_then(|()| io::stderr().flush());
        }
    }
}

impl Progress for Waiting {
    fn report(&mut self, step: Step, table: Table, done: u64, all: u64) {
        let is_due = match self.printed {
            Some(at) => at.elapsed() > Duration::from_millis(200),
            None => self.since.elapsed() > Duration::from_secs(1) && io::stderr().is_terminal(),
        };
        if is_due {
            self.printed = Some(Instant::now());
            let count = |n: u64| human::count(i64::try_from(n).unwrap_or(i64::MAX));
            let line = format!("\r\x1b[K{} {}: {} of {}", step.name(), table.name(), count(done), count(all));
            let _ = write!(io::stderr(), "{line}").and_then(|()| io::stderr().flush());
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
