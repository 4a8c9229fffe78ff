//! The tailer: when to read, what to keep, when to skip, and how to continue after a session's end.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hud_common::{
    cockpit::{
        Bucket, Histogram, Ingest, Mode, Query, SessionFacts, Snapshot, Source, SourceError, States, Totals, View,
        Window,
    },
    session::{Manifest, SessionDir, Table},
};

use super::{follow::Follower, watch::Watch};
use crate::{error::Result, kernel};

/// Interval of checking for the session's end and of pruning.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Rows that end later than this after now were not written by a recorder.
const AHEAD: i64 = 2_000_000_000;
/// After a stall, reading continues with rows that ended since this long before now (ns).
const RESUME: i64 = 1_000_000_000;
/// How long one read may take before drawing.
const TURN: Duration = Duration::from_millis(100);

/// The limits of a tailer.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest window.
    pub keep: Duration,
    /// How much of the existing data is read at the start.
    pub history: Duration,
    /// After this long without a read, or this far behind, it skips to now.
    pub stall: Duration,
    /// Entries of all partials, at about a hundred bytes each; beyond it, the oldest partials are dropped.
    pub most: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            keep: Duration::from_secs(60),
            history: Duration::from_secs(15),
            stall: Duration::from_secs(2),
            most: 2 << 20,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Ended { is_complete: bool },
}

/// Follows a session as it is written.
pub struct Tailer {
    settings: Settings,
    manifest: Manifest,
    manifest_time: Option<SystemTime>,
    follower: Follower,
    watch: Watch,
    intake: Ingest,
    totals: Totals,
    state: State,
    /// When it last read, by the session's clock.
    looked: i64,
    behind_since: Option<Instant>,
    tended: Instant,
    skipped: (u64, i64),
    restarts: u64,
    rows: u64,
}

impl Tailer {
    /// Opens the session at `path` and reads the newest part of its data; in a store, the newest session.
    pub fn open(path: &Path, settings: Settings) -> Result<Self> {
        let path = match Manifest::read(path) {
            Ok(_) => path.to_path_buf(),
            Err(error) => newest_of_store(path).ok_or(error)?,
        };
        let (dir, manifest) = SessionDir::open(&path)?;
        let mut tailer = Tailer {
            settings,
            manifest_time: None,
            follower: Follower::new(dir, &manifest),
            watch: Watch::new(&path),
            intake: Ingest::new(Bucket::of(0), Bucket::of(0)),
            totals: Totals::default(),
            state: State::Live,
            looked: 0,
            behind_since: None,
            tended: Instant::now(),
            skipped: (0, 0),
            restarts: 0,
            rows: 0,
            manifest,
        };
        tailer.begin()?;
        Ok(tailer)
    }

    /// The session's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The session's folder.
    pub fn path(&self) -> &Path {
        self.follower.path()
    }

    /// Whether the session has ended and all of it was read.
    pub fn is_ended(&self) -> bool {
        self.state != State::Live
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Messages about unreadable data.
    pub fn damage(&self) -> &[String] {
        &self.follower.damage
    }

    /// Current entries of partials; see [`Settings::most`].
    pub fn kept(&self) -> usize {
        self.intake.buckets.len()
    }

    /// How long after their end off-CPU intervals and samples were read, if they arrived while it was reading.
    pub fn lags(&self) -> &Histogram {
        &self.intake.lags
    }

    /// Reads the existing data at the start.
    fn begin(&mut self) -> Result<()> {
        self.look_at_manifest()?;
        // Checked before the data is read: then all of it is there.
        let ended = self.has_ended();
        let now = match ended {
            Some(_) => {
                self.manifest.end.or(self.manifest.recovery.as_ref().map(|r| r.lost_after)).unwrap_or(self.now())
            }
            None => self.now(),
        };
        let history = nanos(self.settings.history);
        let from = Bucket::of(now.saturating_sub(history).max(self.manifest.start));
        self.totals = Totals::default();
        self.intake = Ingest::new(from, Bucket::of(now.saturating_add(AHEAD))).with_states(States::default());
        self.read(None)?;
        if let Some(is_complete) = ended {
            self.state = State::Ended { is_complete };
        }
        self.looked = self.now();
        Ok(())
    }

    /// Now, by the session's clock.
    fn now(&self) -> i64 {
        let by_anchor = self.manifest.clock.epoch(kernel::now());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        // The anchor belongs to the recording host; elsewhere only the wall clock is valid.
        let is_here = by_anchor >= self.manifest.start && by_anchor.abs_diff(wall) < 86_400_000_000_000;
        if is_here { by_anchor } else { wall }
    }

    /// Reads new data. Returns whether there was any.
    fn take_in(&mut self) -> Result<bool> {
        let now = self.now();
        let stall = nanos(self.settings.stall);
        let is_behind = self.behind_since.is_some_and(|since| since.elapsed() > self.settings.stall);
        let keep_from = now.saturating_sub(nanos(self.settings.keep));
        let to = Bucket::of(now.saturating_add(AHEAD));
        if is_behind || now.saturating_sub(self.looked) > stall {
            let resume = now.saturating_sub(RESUME).max(self.looked);
            self.skipped = (self.skipped.0 + 1, self.skipped.1.saturating_add(resume.saturating_sub(self.looked)));
            self.behind_since = None;
            self.intake.advance(Bucket::of(resume), to);
        } else {
            self.intake.advance(Bucket::of(keep_from), to);
        }
        self.intake.now = Some(now);
        let rows = self.read(Some(Instant::now() + TURN))?;
        self.looked = self.now();
        Ok(rows > 0)
    }

    fn read(&mut self, until: Option<Instant>) -> Result<u64> {
        let horizon = self.intake.buckets.from().start();
        let intake = &mut self.intake;
        let (rows, is_behind) = self.follower.read(horizon, until, |table, batch| intake.batch(table, batch))?;
        self.behind_since = is_behind.then(|| self.behind_since.unwrap_or_else(Instant::now));
        self.rows = self.rows.saturating_add(rows);
        Ok(rows)
    }

    /// The tasks of each second. Returns whether the state changed.
    fn tend(&mut self) -> Result<bool> {
        if self.tended.elapsed() < TEND_EVERY {
            return Ok(false);
        }
        self.tended = Instant::now();
        self.intake.prune();
        while self.intake.buckets.len() > self.settings.most && self.intake.buckets.partials().len() > 10 {
            let from = Bucket(self.intake.buckets.from().0.saturating_add(10));
            let first = self.intake.buckets.partials().keys().next().copied().unwrap_or(from);
            self.intake.advance(from.max(Bucket(first.0.saturating_add(1))), self.intake.buckets.to());
        }
        self.watch.add_tables();
        match self.state {
            State::Live => {
                self.look_at_manifest()?;
                let Some(is_complete) = self.has_ended() else { return Ok(false) };
                self.read(None)?;
                self.state = State::Ended { is_complete };
                Ok(true)
            }
            State::Ended { .. } => match self.successor() {
                Some(path) => self.go_on_with(&path).map(|()| true),
                None => Ok(false),
            },
        }
    }

    fn look_at_manifest(&mut self) -> Result<()> {
        let path = self.path().join("manifest.json");
        let time = path.metadata().and_then(|m| m.modified()).ok();
        if time.is_none() || time != self.manifest_time {
            self.manifest = Manifest::read(self.path())?;
            self.manifest_time = time;
        }
        Ok(())
    }

    /// Whether no process writes the session any more, and whether it was closed in order.
    fn has_ended(&self) -> Option<bool> {
        if self.manifest.complete {
            return Some(true);
        }
        // Without the right to open the lock, it counts as locked.
        let is_locked = SessionDir::at(self.path()).is_locked().unwrap_or(true);
        (!is_locked).then_some(false)
    }

    /// The session that continues this one in a store.
    fn successor(&self) -> Option<PathBuf> {
        let name = self.path().file_name()?;
        let mut found: Option<(bool, i64, PathBuf)> = None;
        for path in sessions(self.path().parent()?) {
            if path.file_name().is_none_or(|n| n <= name) {
                continue;
            }
            let Ok(manifest) = Manifest::read(&path) else { continue };
            let is_next = manifest.previous.as_deref() == Some(self.manifest.id.as_str());
            if is_next || (manifest.exe == self.manifest.exe && manifest.start >= self.manifest.start) {
                found = found.max(Some((is_next, manifest.start, path)));
            }
        }
        found.map(|(_, _, path)| path)
    }

    fn go_on_with(&mut self, path: &Path) -> Result<()> {
        let next = Tailer::open(path, self.settings)?;
        let (skipped, restarts, rows) = (self.skipped, self.restarts, self.rows);
        let focus = self.intake.focus;
        let lags = std::mem::take(&mut self.intake.lags);
        *self = next;
        self.intake.lags = lags;
        self.skipped = skipped;
        self.restarts = restarts + 1;
        self.rows = self.rows.saturating_add(rows);
        self.intake.focus(focus);
        Ok(())
    }

    fn open_page(&mut self, query: &Query) -> Result<()> {
        if self.intake.focus == query.task {
            return Ok(());
        }
        self.intake.focus(query.task);
        if query.task.is_some() {
            let horizon = self.intake.buckets.from().start();
            let intake = &mut self.intake;
            let tables = [Table::Polls, Table::Wakes];
            self.follower.read_again(&tables, horizon, |table, batch| intake.batch_again(table, batch))?;
        }
        Ok(())
    }

    fn facts(&self) -> SessionFacts {
        SessionFacts::of(&self.manifest)
    }

    fn last(&self) -> i64 {
        match self.state {
            State::Live => self.now(),
            State::Ended { .. } => self.intake.newest.or(self.manifest.end).unwrap_or(self.manifest.start),
        }
    }

    fn try_wait(&mut self, most: Duration) -> Result<bool> {
        let before = self.now();
        let stall = nanos(self.settings.stall);
        if self.behind_since.is_none() && before.saturating_sub(self.looked) <= stall {
            self.watch.wait(most.min(TEND_EVERY));
            // Waiting for data is no stall; being stopped meanwhile is.
            let now = self.now();
            if now.saturating_sub(before) <= nanos(TEND_EVERY).saturating_add(stall) {
                self.looked = now;
            }
        }
        let has_rows = self.state == State::Live && self.take_in()?;
        Ok(self.tend()? || has_rows)
    }

    fn try_snapshot(&mut self, query: &Query) -> Result<Snapshot> {
        self.open_page(query)?;
        let at = query.at.unwrap_or_else(|| self.last());
        let window = Window::ending(at, query.window);
        self.intake.buckets.settle(window.from, window.to);
        let total = self.totals.of(&mut self.intake.buckets, window);
        let detail = query.task.map(|_| self.intake.detail(window));
        let mode = match self.state {
            State::Live => Mode::Live {
                newest: self.intake.newest.unwrap_or(self.manifest.start),
                skipped: self.skipped,
                restarts: self.restarts,
            },
            State::Ended { is_complete } => Mode::Ended { is_complete },
        };
        let read_from = self.intake.buckets.from().start();
        let session = self.facts();
        let mut snapshot = Snapshot::of(View {
            query,
            at,
            partials: self.intake.buckets.partials(),
            total: Some(&total),
            names: &mut self.intake.names,
            detail: detail.as_ref(),
            session,
            mode,
            coverage_until: self.intake.coverage_until,
            // Before the session began, there was nothing to read.
            read_from: (read_from > self.manifest.start).then_some(read_from),
        });
        if query.has_dials {
            snapshot.add_seconds(self.totals.seconds(window), &self.intake.names);
        }
        if let Some(states) = self.intake.states.as_mut().filter(|_| query.has_states) {
            snapshot.add_states(states, &mut self.intake.names, query);
        }
        Ok(snapshot)
    }
}

impl Source for Tailer {
    fn wait(&mut self, most: Duration) -> Result<bool, SourceError> {
        self.try_wait(most).map_err(|e| SourceError(e.to_string()))
    }

    fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError> {
        self.try_snapshot(query).map_err(|e| SourceError(e.to_string()))
    }

    fn range(&self) -> (i64, i64) {
        (self.intake.buckets.from().start().max(self.manifest.start), self.last())
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The sessions in a folder of a store.
fn sessions(host: &Path) -> Vec<PathBuf> {
    children(host, "session=")
}

fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_one = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.starts_with(prefix));
    entries.flatten().filter(|e| is_one(&e.file_name())).map(|e| e.path()).collect()
}

/// The session of a store, or of one of its hosts, that began last.
fn newest_of_store(root: &Path) -> Option<PathBuf> {
    let hosts = children(root, "host=").into_iter().chain([root.to_path_buf()]);
    let began = |path: PathBuf| Some((Manifest::read(&path).ok()?.start, path));
    hosts.flat_map(|host| sessions(&host)).filter_map(began).max().map(|(_, path)| path)
}
