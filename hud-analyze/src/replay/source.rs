//! A recorded session as a [`Source`].

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hud_common::{
    cockpit::{
        Bucket, Intake, Merge as _, Mode, Names, Query, SessionFacts, Snapshot, Source, SourceError, TaskDetail,
        TaskId, Tick, View, Window,
    },
    session::{Manifest, SessionDir, Table},
};

use super::{
    cache::{CHUNK, Cache, Filled, Pace, chunk_of, touching},
    files::{Files, Part, columns_of_page},
    overview::{self, Learned, Signs, Work},
};
use crate::{
    catalog::{State, open_state},
    error::{Error, Result},
    origin::{self, Found},
};

/// Things that partials keep, at one to three hundred bytes each: of what was looked at before, and for one frame.
const KEPT: usize = 1 << 19;
const MOST: usize = 1 << 20;
/// How often to look at a session that is being recorded.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows that end later than this past the end are none that a recorder wrote.
const AHEAD: i64 = 2_000_000_000;
/// Buckets of a task's page that are kept.
const MOST_DETAILS: usize = 20_000;
/// For each millisecond of patience, rows that are read at once instead: two CPUs take about two milliseconds.
const ROWS_A_MS: usize = 20_000;
/// How often patience is doubled at most: from 15 to 120 ms.
const MOST_HURRIED: u32 = 3;
/// How long what the background learned is taken in between two frames.
const LEARN_FOR: Duration = Duration::from_millis(5);
/// How long nothing is asked for by a person who does not jump on at once.
const STILL: Duration = Duration::from_millis(60);
/// What each thread reads at once, after the first frame, of what that left out: a person who goes on waits for no more.
const CHUNKS_MORE: i64 = 4;
/// What is read at once of what may be asked for next.
const MOST_AHEAD: i64 = 8;

/// A recorded session, or one that is being recorded, at any instant.
pub struct Replay {
    manifest: Manifest,
    state: State,
    pub(super) files: Files,
    /// The parts as of the last look.
    pub(super) parts: Vec<Part>,
    pub(super) names: Names,
    pub(super) cache: Cache,
    pub(super) limits: Window,
    pub(super) coverage_told: Option<i64>,
    newest: Option<i64>,
    notices: Vec<String>,
    focus: Option<TaskId>,
    /// Of the open page, by chunk; a chunk that is there is whole.
    details: BTreeMap<i64, BTreeMap<Bucket, TaskDetail>>,
    looked: Instant,
    signs: Arc<Signs>,
    learned: Option<Receiver<Learned>>,
    /// When the last frame was made.
    shown: Instant,
    /// The last instant that was asked for, and in which direction it moved.
    last_at: Option<(i64, i64)>,
    /// After how long a frame is given of what is read by then.
    patience: Option<Duration>,
    /// The window of the last frame, of which there was no time to read all.
    unfinished: Option<Window>,
    /// How many frames in a row moved on from such a window.
    hurried: u32,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.signs.is_over.store(true, Ordering::Relaxed);
    }
}

impl Replay {
    /// Opens the session at `path`, the first one of a store; recovers it where its recorder was killed.
    pub fn open(path: &Path) -> Result<Self> {
        let found = origin::find(path)?.into_iter().next();
        Self::of(found.ok_or_else(|| Error::Replay(format!("find a session at {}", path.display())))?)
    }

    /// Opens a session that was found.
    pub(crate) fn of(found: Found) -> Result<Self> {
        let Found { dir, mut manifest } = found;
        let mut notices = Vec::new();
        let state = open_state(&dir, &mut manifest, &mut notices)?;
        let mut replay = Replay {
            state,
            files: Files::new(dir),
            parts: Vec::new(),
            names: Names::default(),
            cache: Cache::new(KEPT, MOST),
            limits: Window { from: Bucket(0), to: Bucket(0) },
            coverage_told: None,
            newest: None,
            notices,
            focus: None,
            details: BTreeMap::new(),
            looked: Instant::now(),
            signs: Arc::default(),
            learned: None,
            shown: Instant::now(),
            last_at: None,
            patience: None,
            unfinished: None,
            hurried: 0,
            manifest,
        };
        replay.look()?;
        Ok(replay)
    }

    /// Gives frames after two or three times as long at most, of the newest part of their window where that is all that was
    /// read; the rest is read by [`Source::wait`]. Without, every frame is of its whole window.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// What was recorded, where, when and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What whoever opens it should know: what recovery did.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether the last frame lacks what there was no time to read.
    pub(crate) fn has_more_to_read(&self) -> bool {
        self.unfinished.is_some()
    }

    /// What could not be read so far, in words.
    pub fn damage(&self) -> Vec<String> {
        self.files.shelf.damage()
    }

    /// Goes through the whole session in the background. Gives its load and anomalies as they become known, a tick a
    /// bucket; what it learns of tasks it keeps.
    pub fn overview(&mut self, query: Query) -> Receiver<Vec<Tick>> {
        let work = Work {
            shelf: Arc::clone(&self.files.shelf),
            parts: self.parts.clone(),
            limits: self.limits,
            names: self.names.clone(),
            query,
        };
        let (ticks, learned) = overview::start(work, &self.signs);
        self.learned = Some(learned);
        ticks
    }

    /// Waits until the overview has gone through the whole session.
    pub fn learn_all(&mut self) {
        let Some(learned) = self.learned.take() else { return };
        learned.iter().for_each(|news| self.take(&news));
    }

    fn take(&mut self, news: &Learned) {
        news.types.iter().for_each(|(task, type_id)| self.names.add_type_of(*task, *type_id));
        news.spawned.iter().for_each(|(task, by)| self.names.add_spawn(*task, *by));
    }

    /// Takes in what has been learned meanwhile, as much as does not keep a person waiting.
    fn learn(&mut self) -> bool {
        let until = Instant::now() + LEARN_FOR;
        let mut has_news = false;
        while let Some(learned) = self.learned.as_ref().filter(|_| Instant::now() < until) {
            match learned.try_recv() {
                Ok(news) => {
                    self.take(&news);
                    has_news = true;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.learned = None,
            }
        }
        has_news
    }

    /// Now, by the wall clock: a session is looked at where it is recorded, or later.
    fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn is_recording(&self) -> bool {
        self.state == State::Recording
    }

    /// Takes in what has come, and lets go of what it makes stale. Gives whether there was anything.
    fn look(&mut self) -> Result<bool> {
        self.looked = Instant::now();
        let end = match self.is_recording() {
            true => Self::now(),
            false => {
                let killed = self.manifest.recovery.as_ref().map(|recovery| recovery.lost_after);
                self.manifest.end.or(killed).unwrap_or_else(Self::now)
            }
        };
        let names = &mut self.names;
        let mut intake = NamesOnly::new(names);
        let found = self.files.look(&self.manifest, |table, batch| intake.0.batch(table, batch))?;
        intake.give_back(names);
        self.limits = Window { from: Bucket::of(self.manifest.start), to: Bucket::of(end.saturating_add(AHEAD)) };
        let Some(since) = found.since else { return Ok(found.has_names) };
        self.cache.forget_since(since);
        drop(self.details.split_off(&chunk_of(Bucket::of(since))));
        self.parts = self.files.parts().cloned().collect();
        let shelf = Arc::clone(&self.files.shelf);
        self.coverage_told = shelf.last_end(self.files.of(Table::Coverage), i64::MAX);
        let events = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Spawns, Table::Ends];
        let events = self.parts.iter().filter(|part| events.contains(&part.table));
        self.newest = shelf.last_end(events, self.limits.to.start().saturating_sub(1));
        Ok(true)
    }

    /// What is due where a session is being recorded. Gives whether there is anything new.
    fn tend(&mut self) -> Result<bool> {
        if !self.is_recording() || self.looked.elapsed() < LOOK_EVERY {
            return Ok(false);
        }
        self.manifest = Manifest::read(self.files.path())?;
        let is_locked = SessionDir::at(self.files.path()).is_locked().unwrap_or(true);
        let mut has_news = self.look()?;
        // What came between the look and the end is there now.
        if self.manifest.complete || !is_locked {
            self.state = if self.manifest.complete { State::Complete } else { State::Killed };
            self.look()?;
            has_news = true;
        }
        Ok(has_news)
    }

    fn last(&self) -> i64 {
        self.newest.or(self.manifest.end).unwrap_or(self.manifest.start)
    }

    /// What a task's page shows beyond its partials.
    fn detail(&mut self, task: TaskId, window: Window) -> TaskDetail {
        if self.focus != Some(task) || self.details.len() > MOST_DETAILS {
            self.focus = Some(task);
            self.details.clear();
        }
        let mut all = TaskDetail::default();
        let (from, to) = (window.from.max(self.limits.from), window.to.min(self.limits.to));
        if from >= to {
            return all;
        }
        let (first, last) = (chunk_of(from), chunk_of(Bucket(to.0.saturating_sub(1))));
        let mut chunk = first;
        while chunk <= last {
            let begin = chunk;
            while chunk <= last && !self.details.contains_key(&chunk) {
                chunk += 1;
            }
            if begin < chunk {
                self.gather_detail(task, begin, chunk);
            }
            chunk += 1;
        }
        for (_, of) in self.details.range(first..=last) {
            of.range(from..to).for_each(|(_, detail)| all.merge(detail));
        }
        all
    }

    fn gather_detail(&mut self, task: TaskId, first: i64, past: i64) {
        let from = Bucket(first.saturating_mul(CHUNK)).max(self.limits.from);
        let to = Bucket(past.saturating_mul(CHUNK)).min(self.limits.to);
        let mut intake = Intake::new(from, to);
        intake.focus(Some(task));
        for part in touching(&self.parts, Window { from, to }, &[Table::Polls, Table::Wakes]) {
            self.files.shelf.read(part, columns_of_page(part.table), (from.start(), to.start()), |batch| {
                intake.batch_again(part.table, batch);
                true
            });
        }
        for chunk in first..past {
            self.details.insert(chunk, BTreeMap::new());
        }
        for (bucket, detail) in intake.into_details() {
            self.details.entry(chunk_of(bucket)).or_default().insert(bucket, detail);
        }
    }

    /// Reads of a window what there is time for, the newest first: so many chunks by each thread at least.
    fn fill(&mut self, window: Window, chunks: i64) -> Filled {
        let patience = self.patience.map(|patience| patience.saturating_mul(1 << self.hurried));
        let at_once = |patience: Duration| usize::try_from(patience.as_millis()).unwrap_or(0).saturating_mul(ROWS_A_MS);
        let pace = patience.map(|patience| {
            let until = Some(Instant::now() + patience);
            Pace { until, chunks, at_once: at_once(patience) }
        });
        let pace = pace.unwrap_or(Pace::WHOLE);
        let filled = self.cache.fill(&self.files.shelf, &self.parts, window, self.limits, &mut self.names, pace);
        self.unfinished = matches!(filled, Filled::Since(_)).then_some(window);
        filled
    }

    fn try_snapshot(&mut self, query: &Query) -> Snapshot {
        let at = query.at.unwrap_or_else(|| self.last());
        let window = Window::ending(at, query.window);
        // Who plays fast sees frames that are less often and more whole.
        self.hurried = match self.unfinished {
            Some(last) if last != window => (self.hurried + 1).min(MOST_HURRIED),
            Some(_) => self.hurried,
            None => 0,
        };
        let unread = self.fill(window, 1).since();
        let known = Window { from: unread.unwrap_or(window.from), to: window.to };
        let detail = query.task.map(|task| self.detail(task, window));
        if query.task.is_none() {
            self.focus = None;
        }
        let step = self.last_at.map_or(0, |(last, _)| at.saturating_sub(last));
        self.last_at = Some((at, step));
        self.shown = Instant::now();
        let mut session = SessionFacts::of(&self.manifest);
        session.notes.extend(self.damage().into_iter().map(|damage| ["cannot be read: ", &damage].concat()));
        let mode = match self.is_recording() {
            true => Mode::Live { newest: self.newest.unwrap_or(self.manifest.start), skipped: (0, 0), restarts: 0 },
            false => Mode::Replay,
        };
        let total = self.cache.total(known, self.limits);
        Snapshot::of(View {
            query,
            at,
            partials: &self.cache.partials,
            total: Some(&total),
            names: &mut self.names,
            detail: detail.as_ref(),
            session,
            mode,
            coverage_told: self.coverage_told,
            read_from: unread.map(Bucket::start),
        })
    }

    /// Reads what comes next in the direction of the last steps. Only small steps have one: who jumps may jump anywhere.
    /// Gives whether there was anything to do.
    fn read_ahead(&mut self) -> bool {
        let Some((at, step)) = self.last_at else { return false };
        if step == 0 || step.unsigned_abs() > 10_000_000_000 {
            return false;
        }
        let here = chunk_of(Bucket::of(at));
        let ahead = (step.abs() / (CHUNK * Bucket::NANOS)).saturating_add(2).min(MOST_AHEAD);
        for n in 1..=ahead {
            let chunk = here.saturating_add(n.saturating_mul(step.signum()));
            if self.cache.prefetch(&self.files.shelf, &self.parts, chunk, self.limits, &mut self.names) {
                return true;
            }
        }
        false
    }
}

/// An intake that is given names alone.
struct NamesOnly(Intake);

impl NamesOnly {
    fn new(names: &mut Names) -> Self {
        let mut intake = Intake::new(Bucket(0), Bucket(0));
        intake.names = std::mem::take(names);
        NamesOnly(intake)
    }

    fn give_back(self, names: &mut Names) {
        *names = self.0.names;
    }
}

impl Source for Replay {
    fn wait(&mut self, most: Duration) -> Result<bool, SourceError> {
        let began = Instant::now();
        let failed = |error: Error| SourceError(error.to_string());
        let has_news = self.tend().map_err(failed)? | self.learn();
        if let Some(window) = self.unfinished.filter(|_| began.elapsed() < most) {
            self.signs.is_busy.store(true, Ordering::Relaxed);
            self.fill(window, CHUNKS_MORE);
            self.signs.is_busy.store(false, Ordering::Relaxed);
            return Ok(true);
        }
        if !has_news && began.elapsed() < most && !self.read_ahead() && self.shown.elapsed() > STILL {
            self.cache.divide(&self.files.shelf, &self.parts, self.limits, &mut self.names);
        }
        Ok(has_news)
    }

    fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError> {
        self.signs.is_busy.store(true, Ordering::Relaxed);
        let snapshot = self.try_snapshot(query);
        self.signs.is_busy.store(false, Ordering::Relaxed);
        Ok(snapshot)
    }

    fn range(&self) -> (i64, i64) {
        (self.manifest.range.map_or(self.manifest.start, |range| range.from.max(self.manifest.start)), self.last())
    }
}
