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
        Bucket, Ingest, Merge as _, Mode, Names, Query, SessionFacts, Snapshot, Source, SourceError, TaskDetail,
        TaskId, Tick, View, Window,
    },
    session::{Manifest, SessionDir, Table},
};

use super::{
    cache::{CHUNK, Cache, Filled, Pace, chunk_of},
    overview::{self, Learned, Signs, Work},
    segment_index::SegmentIndex,
    segment_reader::{Part, columns_of_page, touching},
    task_states::TaskStates,
};
use crate::{
    error::{Error, Result},
    source::{
        location::{self, Found},
        recovery::{State, open_state},
    },
};

/// Maximum number of items in partials, of 100 to 300 bytes each: of earlier frames, and of one frame.
const KEPT: usize = 1 << 19;
const MOST: usize = 1 << 20;
/// Interval of updates of a session that is being recorded.
const UPDATE_INTERVAL: Duration = Duration::from_millis(500);
/// Rows that end more than this (ns) after the session's end are invalid.
const AHEAD: i64 = 2_000_000_000;
/// Maximum number of cached buckets of a task's page.
const MOST_DETAILS: usize = 20_000;
/// Rows of a window that is counted as a whole, per millisecond of patience. Two CPUs take about two milliseconds for them.
const ROWS_A_MS: usize = 20_000;
/// Maximum number of times that patience is doubled: from 15 to 120 ms.
const MOST_HURRIED: u32 = 3;
/// Time for results of the background thread between two frames.
const LEARN_FOR: Duration = Duration::from_millis(5);
/// Time without a new frame after which the user is assumed to stay at the instant.
const STILL: Duration = Duration::from_millis(60);
/// Chunks that each thread reads at a time after an incomplete frame. The next key waits for no more than these.
const CHUNKS_MORE: i64 = 4;
/// Maximum number of chunks that are read ahead.
const MOST_AHEAD: i64 = 8;

/// A recorded session, or one that is being recorded, at any instant.
pub struct Replay {
    manifest: Manifest,
    state: State,
    pub(super) index: SegmentIndex,
    /// The parts at the last update.
    pub(super) parts: Vec<Part>,
    pub(super) names: Names,
    pub(super) cache: Cache,
    pub(super) limits: Window,
    pub(super) coverage_until: Option<i64>,
    newest: Option<i64>,
    notices: Vec<String>,
    states: TaskStates,
    focus: Option<TaskId>,
    /// Details of the focused task by chunk; cached chunks are complete.
    details: BTreeMap<i64, BTreeMap<Bucket, TaskDetail>>,
    updated: Instant,
    signs: Arc<Signs>,
    learned: Option<Receiver<Learned>>,
    /// Time of the last frame.
    shown: Instant,
    /// The instant of the last frame, and its distance from the one before.
    last_at: Option<(i64, i64)>,
    /// Time after which a frame is made of the rows read so far.
    patience: Option<Duration>,
    /// The window of the last frame, if there was no time to read all of it.
    unfinished: Option<Window>,
    /// Number of successive frames whose window was incomplete when the next one followed.
    hurried: u32,
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.signs.is_over.store(true, Ordering::Relaxed);
    }
}

impl Replay {
    /// Opens the session at `path`, the first one of a store; recovers it if its recorder was killed.
    pub fn open(path: &Path) -> Result<Self> {
        let found = location::find(path)?.into_iter().next();
        Self::of(found.ok_or_else(|| Error::Replay(format!("find a session at {}", path.display())))?)
    }

    /// Opens a session.
    pub(crate) fn of(found: Found) -> Result<Self> {
        let Found { dir, mut manifest } = found;
        let mut notices = Vec::new();
        let state = open_state(&dir, &mut manifest, &mut notices)?;
        let mut replay = Replay {
            state,
            index: SegmentIndex::new(dir),
            parts: Vec::new(),
            names: Names::default(),
            cache: Cache::new(KEPT, MOST),
            limits: Window { from: Bucket(0), to: Bucket(0) },
            coverage_until: None,
            newest: None,
            notices,
            states: TaskStates::default(),
            focus: None,
            details: BTreeMap::new(),
            updated: Instant::now(),
            signs: Arc::default(),
            learned: None,
            shown: Instant::now(),
            last_at: None,
            patience: None,
            unfinished: None,
            hurried: 0,
            manifest,
        };
        replay.update()?;
        Ok(replay)
    }

    /// Makes frames within two or three times `patience`, of the newest part of the window if no more was read; the rest is read
    /// by [`Source::wait`]. Without it, every frame is of its whole window.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Recovery and losses, as text for the user.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether there was no time to read all of the last frame's window.
    pub(crate) fn has_more_to_read(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Parts that could not be read so far, as text.
    pub fn damage(&self) -> Vec<String> {
        self.index.reader.damage()
    }

    /// Reads the whole session in the background. Returns a channel of its load and anomalies, a tick per bucket; types of tasks
    /// are added to the names.
    pub fn overview(&mut self, query: Query) -> Receiver<Vec<Tick>> {
        let work = Work {
            reader: Arc::clone(&self.index.reader),
            parts: self.parts.clone(),
            limits: self.limits,
            names: self.names.clone(),
            query,
        };
        let (ticks, learned) = overview::start(work, &self.signs);
        self.learned = Some(learned);
        ticks
    }

    /// Waits until the overview has read the whole session.
    pub fn learn_all(&mut self) {
        let Some(learned) = self.learned.take() else { return };
        learned.iter().for_each(|news| self.take(&news));
    }

    fn take(&mut self, news: &Learned) {
        news.types.iter().for_each(|(task, type_id)| self.names.add_type_of(*task, *type_id));
        news.spawned.iter().for_each(|(task, by)| self.names.add_spawn(*task, *by));
    }

    /// Adds results of the background thread, for a limited time. Returns whether there were any.
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

    /// The current time by the wall clock. A session is read on the machine that records it, or later.
    fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn is_recording(&self) -> bool {
        self.state == State::Recording
    }

    /// Reads new rows, and discards partials that they invalidate. Returns whether there was anything new.
    fn update(&mut self) -> Result<bool> {
        self.updated = Instant::now();
        let end = match self.is_recording() {
            true => Self::now(),
            false => {
                let killed = self.manifest.recovery.as_ref().map(|recovery| recovery.lost_after);
                self.manifest.end.or(killed).unwrap_or_else(Self::now)
            }
        };
        let names = &mut self.names;
        let mut ingest = NamesOnly::new(names);
        let found = self.index.update(&self.manifest, |table, batch| ingest.0.batch(table, batch))?;
        ingest.give_back(names);
        self.limits = Window { from: Bucket::of(self.manifest.start), to: Bucket::of(end.saturating_add(AHEAD)) };
        let Some(since) = found.since else { return Ok(found.has_names) };
        self.cache.forget_since(since);
        self.states.forget();
        drop(self.details.split_off(&chunk_of(Bucket::of(since))));
        self.parts = self.index.parts().cloned().collect();
        let reader = Arc::clone(&self.index.reader);
        self.coverage_until = reader.last_end(self.index.of(Table::Coverage), i64::MAX);
        let events =
            [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Spawns, Table::Ends, Table::InProgress];
        let events = self.parts.iter().filter(|part| events.contains(&part.table));
        self.newest = reader.last_end(events, self.limits.to.start().saturating_sub(1));
        Ok(true)
    }

    /// Updates a session that is being recorded, at intervals. Returns whether there was anything new.
    fn poll(&mut self) -> Result<bool> {
        if !self.is_recording() || self.updated.elapsed() < UPDATE_INTERVAL {
            return Ok(false);
        }
        self.manifest = Manifest::read(self.index.path())?;
        let is_locked = SessionDir::at(self.index.path()).is_locked().unwrap_or(true);
        let mut has_news = self.update()?;
        // There may be rows between the update and the end.
        if self.manifest.complete || !is_locked {
            self.state = if self.manifest.complete { State::Complete } else { State::Killed };
            self.update()?;
            has_news = true;
        }
        Ok(has_news)
    }

    pub(super) fn last(&self) -> i64 {
        self.newest.or(self.manifest.end).unwrap_or(self.manifest.start)
    }

    /// Details for a task's page, which partials do not contain.
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
        let mut ingest = Ingest::new(from, to);
        ingest.focus(Some(task));
        for part in touching(&self.parts, Window { from, to }, &[Table::Polls, Table::Wakes]) {
            self.index.reader.read(part, columns_of_page(part.table), (from.start(), to.start()), |batch| {
                ingest.batch_again(part.table, batch);
                true
            });
        }
        for chunk in first..past {
            self.details.insert(chunk, BTreeMap::new());
        }
        for (bucket, detail) in ingest.into_details() {
            self.details.entry(chunk_of(bucket)).or_default().insert(bucket, detail);
        }
    }

    /// Reads as much of a window as there is time for, newest first, with at least this number of chunks per thread.
    fn fill(&mut self, window: Window, chunks: i64) -> Filled {
        let patience = self.patience.map(|patience| patience.saturating_mul(1 << self.hurried));
        let at_once = |patience: Duration| usize::try_from(patience.as_millis()).unwrap_or(0).saturating_mul(ROWS_A_MS);
        let pace = patience.map(|patience| {
            let until = Some(Instant::now() + patience);
            Pace { until, chunks, at_once: at_once(patience) }
        });
        let pace = pace.unwrap_or(Pace::WHOLE);
        let filled = self.cache.fill(&self.index.reader, &self.parts, window, self.limits, &mut self.names, pace);
        self.unfinished = matches!(filled, Filled::Since(_)).then_some(window);
        filled
    }

    fn try_snapshot(&mut self, query: &Query) -> Snapshot {
        let at = query.at.unwrap_or_else(|| self.last());
        let window = Window::ending(at, query.window);
        // Fast playback shows fewer, but more complete frames.
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
        let mut snapshot = Snapshot::of(View {
            query,
            at,
            partials: &self.cache.partials,
            total: Some(&total),
            names: &mut self.names,
            detail: detail.as_ref(),
            session,
            mode,
            coverage_until: self.coverage_until,
            read_from: unread.map(Bucket::start),
        });
        if query.has_dials {
            snapshot.add_seconds(self.cache.seconds(known), &self.names);
        }
        if query.has_states {
            let states = self.states.at(at, &self.index.reader, &self.parts, &mut self.names);
            snapshot.add_states(states, &mut self.names, query);
        }
        snapshot
    }

    /// Reads the next chunks in the direction of the last step, if it was small: a jump has no direction. Returns whether a
    /// chunk was missing.
    fn read_ahead(&mut self) -> bool {
        let Some((at, step)) = self.last_at else { return false };
        if step == 0 || step.unsigned_abs() > 10_000_000_000 {
            return false;
        }
        let here = chunk_of(Bucket::of(at));
        let ahead = (step.abs() / (CHUNK * Bucket::NANOS)).saturating_add(2).min(MOST_AHEAD);
        for n in 1..=ahead {
            let chunk = here.saturating_add(n.saturating_mul(step.signum()));
            if self.cache.prefetch(&self.index.reader, &self.parts, chunk, self.limits, &mut self.names) {
                return true;
            }
        }
        false
    }
}

/// An [`Ingest`] for names only.
struct NamesOnly(Ingest);

impl NamesOnly {
    fn new(names: &mut Names) -> Self {
        let mut ingest = Ingest::new(Bucket(0), Bucket(0));
        ingest.names = std::mem::take(names);
        NamesOnly(ingest)
    }

    fn give_back(self, names: &mut Names) {
        *names = self.0.names;
    }
}

impl Source for Replay {
    fn wait(&mut self, most: Duration) -> Result<bool, SourceError> {
        let began = Instant::now();
        let failed = |error: Error| SourceError(error.to_string());
        let has_news = self.poll().map_err(failed)? | self.learn();
        if let Some(window) = self.unfinished.filter(|_| began.elapsed() < most) {
            self.signs.is_busy.store(true, Ordering::Relaxed);
            self.fill(window, CHUNKS_MORE);
            self.signs.is_busy.store(false, Ordering::Relaxed);
            return Ok(true);
        }
        if !has_news && began.elapsed() < most && !self.read_ahead() && self.shown.elapsed() > STILL {
            self.cache.fill_chunk(&self.index.reader, &self.parts, self.limits, &mut self.names);
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
