//! The program's own measurements: number and duration of each task's polls.
//!
//! Tests compare hud with them, so they must be exact and must not disturb the measured polls. Every record is a few
//! relaxed atomic additions and, with a poll log, one store into memory allocated beforehand: no lock, and no system
//! call but the clock's (which the vDSO serves).

use std::array;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::clock::mono_ns;

/// Durations of one kind of event: the polls of a task type, or an activity such as a sleep.
pub(crate) struct Series {
    name: &'static str,
    spawned: AtomicU64,
    completed: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
    histogram: [AtomicU64; BUCKETS],
}

/// Each power of two is cut into 128 buckets, so a bucket's middle is within 0.4 % of every value in it.
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

impl Series {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            spawned: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
            histogram: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    pub(crate) fn note_spawn(&self) {
        self.spawned.fetch_add(1, Relaxed);
    }

    fn record(&'static self, start: u64, end: u64) {
        let dur = end.saturating_sub(start);
        self.total_ns.fetch_add(dur, Relaxed);
        self.max_ns.fetch_max(dur, Relaxed);
        if let Some(bucket) = self.histogram.get(bucket_of(dur)) {
            bucket.fetch_add(1, Relaxed);
        }
        if let Some(log) = LOG.get() {
            log.push(Entry { series: self, start, dur });
        }
    }

    fn to_json(&self) -> Value {
        let counts: Vec<(u64, u64)> = (0u64..)
            .zip(&self.histogram)
            .map(|(bucket, count)| (middle_of(bucket), count.load(Relaxed)))
            .filter(|&(_, count)| count > 0)
            .collect();
        let count: u64 = counts.iter().map(|&(_, count)| count).sum();
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            counts
                .iter()
                .find(|&&(_, n)| {
                    seen += n;
                    seen >= rank
                })
                .map(|&(ns, _)| ns)
        };
        json!({
            "spawned": self.spawned.load(Relaxed),
            "completed": self.completed.load(Relaxed),
            "count": count,
            "total_ns": self.total_ns.load(Relaxed),
            "p50_ns": percentile(50),
            "p99_ns": percentile(99),
            "max_ns": self.max_ns.load(Relaxed),
            "histogram": counts,
        })
    }
}

fn bucket_of(value: u64) -> usize {
    let bucket = match value.checked_ilog2() {
        Some(power) if power >= SUB_BITS => {
            let sub = (value >> (power - SUB_BITS)) & (SUB - 1);
            u64::from(power - SUB_BITS + 1) * SUB + sub
        }
        _ => value,
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn middle_of(bucket: u64) -> u64 {
    match (bucket / SUB).checked_sub(1) {
        Some(shift) => ((SUB + bucket % SUB) << shift) + ((1 << shift) >> 1),
        None => bucket,
    }
}

/// Runs `body` as an entire task, and counts each of its polls.
///
/// It must be the entire body of an `async fn`: then the spawned future keeps the function's own type (by which hud
/// names a task), and each poll of that future is one poll of `body`, the first and the last included.
pub(crate) async fn measured<F: Future>(series: &'static Series, body: F) -> F::Output {
    let mut body = pin!(body);
    poll_fn(|cx| {
        let start = mono_ns();
        let poll = body.as_mut().poll(cx);
        if poll.is_ready() {
            series.completed.fetch_add(1, Relaxed);
        }
        series.record(start, mono_ns());
        poll
    })
    .await
}

/// Runs `body`, and counts it as one event of `series`.
pub(crate) fn timed<T>(series: &'static Series, body: impl FnOnce() -> T) -> T {
    let start = mono_ns();
    let result = body();
    series.record(start, mono_ns());
    result
}

/// Every event since the start, kept until the end, so that a test can select those of hud's window.
struct Log {
    next: AtomicUsize,
    /// Allocated one ahead of need, so that no event waits for memory.
    chunks: [OnceLock<Box<[OnceLock<Entry>]>>; LOG_CAPACITY / CHUNK],
}

struct Entry {
    series: &'static Series,
    start: u64,
    dur: u64,
}

/// About twenty minutes of this program, and 200 MB. Later events are counted, not kept.
const LOG_CAPACITY: usize = 1280 * CHUNK;
const CHUNK: usize = 4096;

static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    fn push(&self, entry: Entry) {
        let index = self.next.fetch_add(1, Relaxed);
        if index % CHUNK == CHUNK / 2 {
            self.chunk(index / CHUNK + 1);
        }
        if let Some(slot) = self.chunk(index / CHUNK).and_then(|chunk| chunk.get(index % CHUNK)) {
            // The index is this thread's alone, so the slot is empty.
            let _ = slot.set(entry);
        }
    }

    fn chunk(&self, number: usize) -> Option<&[OnceLock<Entry>]> {
        let chunk = self.chunks.get(number)?;
        Some(chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect()))
    }

    fn lost(&self) -> usize {
        self.next.load(Relaxed).saturating_sub(LOG_CAPACITY)
    }
}

/// Keeps every event from now on. Earlier events are in the totals only.
pub(crate) fn keep_log() {
    LOG.get_or_init(|| Log { next: AtomicUsize::new(0), chunks: array::from_fn(|_| OnceLock::new()) }).chunk(0);
}

/// Writes the log as CSV: `type,start_mono_ns,dur_ns`, where type is a task type or an activity by its short name.
pub(crate) fn write_log(mut out: impl Write) -> io::Result<()> {
    writeln!(out, "type,start_mono_ns,dur_ns")?;
    let chunks = LOG.get().into_iter().flat_map(|log| log.chunks.iter().map_while(OnceLock::get));
    for entry in chunks.flatten().filter_map(OnceLock::get) {
        writeln!(out, "{},{},{}", entry.series.name, entry.start, entry.dur)?;
    }
    out.flush()
}

/// The measurements so far, as one JSON object.
pub(crate) fn snapshot(types: &[&Series], activities: &[&Series]) -> Value {
    let all = |series: &[&Series]| series.iter().map(|s| (s.name.to_owned(), s.to_json())).collect::<Value>();
    let mut account = json!({
        "mono_ns": mono_ns(),
        "pid": std::process::id(),
        "types": all(types),
        "activities": all(activities),
    });
    if let (Some(log), Some(account)) = (LOG.get(), account.as_object_mut()) {
        account.insert("log_lost".to_owned(), log.lost().into());
    }
    account
}
