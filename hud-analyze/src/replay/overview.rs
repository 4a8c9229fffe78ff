//! Reads the whole session once in the background: load and anomalies for the scrubber, and the types of tasks.
//!
//! One thread processes slices of the session with the code that makes snapshots, and keeps none of the partials. It pauses
//! while a frame is made.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use hud_common::{
    cockpit::{
        Bucket, Mode, Names, Query, Resolution, SessionFacts, Snapshot, SpawnedBy, TaskId, Tick, TypeId, View, Window,
    },
    session::Table,
};

use super::{
    cache::{CHUNK, chunk_of, gather_rows},
    segment_reader::{Part, SegmentReader},
};

/// Chunks in a slice, which limits memory to that of 5 seconds.
const SLICE: i64 = 5;
/// Maximum number of tasks whose type is kept.
const MOST_TASKS: usize = 1 << 20;
/// Interval at which the thread checks whether it may continue.
const PAUSE: Duration = Duration::from_millis(2);
/// Tables for load and anomalies.
const TABLES: [Table; 6] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Spawns, Table::Tasks, Table::Drops];

/// New types and parents of tasks.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) types: HashMap<TaskId, TypeId>,
    pub(super) spawned: HashMap<TaskId, SpawnedBy>,
}

/// Flags for the background thread.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// A frame is being made.
    pub(super) is_busy: AtomicBool,
    /// The replay was closed.
    pub(super) is_over: AtomicBool,
}

/// Input of the thread.
pub(super) struct Work {
    pub(super) reader: Arc<SegmentReader>,
    pub(super) parts: Vec<Part>,
    pub(super) limits: Window,
    pub(super) names: Names,
    pub(super) query: Query,
}

/// Starts the thread. The channel of ticks is bounded, so the thread waits until they are drawn; the channel of names is not.
pub(super) fn start(work: Work, signs: &Arc<Signs>) -> (Receiver<Vec<Tick>>, Receiver<Learned>) {
    let (ticks, strip) = sync_channel(1 << 12);
    let (learned, names) = channel();
    let signs = Arc::clone(signs);
    let named = thread::Builder::new().name("hud-overview".into());
    // Without the thread, the scrubber shows the windows that were viewed.
    if let Err(error) = named.spawn(move || process(work, &signs, &ticks, &learned)) {
        drop(error);
    }
    (strip, names)
}

fn process(mut work: Work, signs: &Signs, ticks: &SyncSender<Vec<Tick>>, learned: &Sender<Learned>) {
    // On Linux the nice value is per thread. A frame then need not wait for the slice in progress.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 19);
    let pause = || {
        while signs.is_busy.load(Ordering::Relaxed) && !signs.is_over.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
        !signs.is_over.load(Ordering::Relaxed)
    };
    let mut known: HashMap<TaskId, TypeId> = HashMap::new();
    let mut spawned: HashMap<TaskId, SpawnedBy> = HashMap::new();
    let mut is_wanted = true;
    let events: Vec<(i64, i64)> =
        work.parts.iter().filter(|p| TABLES.contains(&p.table)).map(|p| (p.interval.first, p.interval.last)).collect();
    let mut chunk = chunk_of(work.limits.from);
    let past = chunk_of(work.limits.to).saturating_add(1);
    while chunk < past && pause() {
        let slice = (chunk, chunk.saturating_add(SLICE).min(past));
        let (from, to) = (Bucket(slice.0.saturating_mul(CHUNK)), Bucket(slice.1.saturating_mul(CHUNK)));
        // Skips time without rows, which may be hours.
        if !events.iter().any(|(first, last)| *first <= to.start() && from.start() <= *last) {
            let next = events.iter().map(|(first, _)| *first).filter(|first| *first > to.start()).min();
            let Some(next) = next else { break };
            chunk = chunk_of(Bucket::of(next)).max(slice.1);
            continue;
        }
        let resolution = Resolution::Nothing;
        let ingest = gather_rows(&work.reader, &work.parts, slice, work.limits, &TABLES, resolution, pause);
        let (partials, names) = ingest.into_parts();
        let mut news = Learned::default();
        for (task, type_id) in &names.type_of {
            let is_new = known.get(task).is_none_or(|old| type_id < old);
            if is_new && (known.len() < MOST_TASKS || known.contains_key(task)) {
                known.insert(*task, *type_id);
                news.types.insert(*task, *type_id);
            }
        }
        for (task, by) in &names.spawned {
            let is_new = spawned.get(task).is_none_or(|old| by < old);
            if is_new && (spawned.len() < MOST_TASKS || spawned.contains_key(task)) {
                spawned.insert(*task, *by);
                news.spawned.insert(*task, *by);
            }
        }
        // Whether an off-CPU interval blocked a task depends on the task's kind.
        work.names.add_tasks(&names);
        if is_wanted {
            let window = (slice.1 - slice.0).saturating_mul(CHUNK).saturating_mul(Bucket::NANOS);
            let query = Query { at: Some(to.start()), window, ..work.query.clone() };
            let snapshot = Snapshot::of(View {
                query: &query,
                at: to.start(),
                partials: &partials,
                total: None,
                names: &mut work.names,
                detail: None,
                session: SessionFacts::default(),
                mode: Mode::Replay,
                coverage_until: None,
                read_from: None,
            });
            is_wanted = ticks.send(snapshot.history).is_ok();
        }
        let is_news = !news.types.is_empty() || !news.spawned.is_empty();
        if is_news && learned.send(news).is_err() {
            return;
        }
        chunk = slice.1;
    }
}
