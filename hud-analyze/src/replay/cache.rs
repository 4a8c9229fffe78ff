//! A cache of partials in chunks of one second.
//!
//! A chunk is ten buckets: a page of a busy table covers about as much, so reading less would cost the same. Each chunk has
//! sums beside its partials, so that a frame adds up ten chunks instead of a hundred buckets. Tasks, distributions and stacks,
//! which are most of the data, are kept per chunk only, except for the chunks at the ends of the window, where a frame adds up
//! single buckets.
//!
//! After a jump to where few chunks are cached, the window is first counted as a whole ([`cold_window`](super::cold_window));
//! its chunks follow between frames.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    thread,
    time::Instant,
};

use hud_common::{
    cockpit::{Bucket, Ingest, Merge as _, Names, Partial, Resolution, Sums, Window},
    session::Table,
};

use super::{
    cold_window::{self, ColdWindow},
    segment_reader::{EVENTS, Part, SegmentReader, take_in, touching},
};
use crate::threads::threads;

/// Buckets in a chunk.
pub(super) const CHUNK: i64 = 10;

/// The chunk of a bucket.
pub(super) fn chunk_of(bucket: Bucket) -> i64 {
    bucket.0.div_euclid(CHUNK)
}

/// The buckets of a chunk.
fn buckets(chunk: i64) -> (Bucket, Bucket) {
    let first = chunk.saturating_mul(CHUNK);
    (Bucket(first), Bucket(first.saturating_add(CHUNK)))
}

/// The chunks that are completely within a window.
fn whole_chunks(window: Window) -> Range<i64> {
    window.from.0.saturating_add(CHUNK - 1).div_euclid(CHUNK)..window.to.0.div_euclid(CHUNK)
}

struct Known {
    sums: Sums,
    /// Number of items, including its partials.
    len: usize,
    used: u64,
    /// Its partials have tasks, distributions and stacks too.
    is_whole: bool,
}

/// The resolution with which only these chunks have tasks, distributions and stacks per bucket.
fn chunks_but(whole: BTreeSet<i64>) -> Resolution {
    Resolution::Groups(CHUNK, whole)
}

/// Chunks that were counted.
struct Gathered {
    chunks: Vec<(i64, Sums)>,
    resolution: Resolution,
    partials: BTreeMap<Bucket, Partial>,
    names: Names,
}

/// Counts chunks `[first, past)` within `limits`.
fn gather(reader: &SegmentReader, parts: &[Part], run: (i64, i64), limits: Window, resolution: Resolution) -> Gathered {
    let (first, past) = run;
    let mut ingest = gather_rows(reader, parts, run, limits, &EVENTS, resolution.clone(), || true);
    let Some(mut groups) = ingest.buckets.take_groups() else {
        // There are more tasks than a bucket counts separately, and which ones are counted differs between buckets.
        return gather(reader, parts, run, limits, Resolution::Buckets);
    };
    let partials = ingest.buckets.partials();
    let mut sums = |chunk: i64| {
        let (from, to) = buckets(chunk);
        let mut sums = groups.remove(&chunk).unwrap_or_default();
        partials.range(from..to).for_each(|(_, partial)| sums.merge(&partial.sums));
        sums
    };
    let chunks = (first..past).map(|chunk| (chunk, sums(chunk))).collect();
    let (partials, names) = ingest.into_parts();
    Gathered { chunks, resolution, partials, names }
}

/// Counts the rows of these tables in chunks `[first, past)`.
pub(super) fn gather_rows(
    reader: &SegmentReader,
    parts: &[Part],
    (first, past): (i64, i64),
    limits: Window,
    tables: &[Table],
    resolution: Resolution,
    mut is_wanted: impl FnMut() -> bool,
) -> Ingest {
    let from = buckets(first).0.max(limits.from);
    let to = buckets(past).0.min(limits.to).max(from);
    let mut ingest = Ingest::new(from, to).with_resolution(resolution);
    take_in(&mut ingest, reader, touching(parts, Window { from, to }, tables), &mut is_wanted);
    ingest.buckets.settle(from, to);
    ingest
}

/// How much of a window is read before a frame is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// `None`: until all is read.
    pub(super) until: Option<Instant>,
    /// Chunks that each thread reads before the time is checked.
    pub(super) chunks: i64,
    /// Maximum number of rows of a window that is counted as a whole.
    pub(super) at_once: usize,
}

impl Pace {
    /// More chunks would take more memory; with fewer, more pages at their limits would be read twice.
    pub(super) const WHOLE: Pace = Pace { until: None, chunks: 16, at_once: 0 };

    fn is_over(self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// How much of a window is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Whole,
    /// From this bucket on; there was no time to read the rest.
    Since(Bucket),
    /// From this bucket on; the rest exceeds the memory limit of a frame.
    AtMostSince(Bucket),
}

impl Filled {
    pub(super) fn since(self) -> Option<Bucket> {
        match self {
            Filled::Whole => None,
            Filled::Since(from) | Filled::AtMostSince(from) => Some(from),
        }
    }
}

/// Cached partials.
pub(super) struct Cache {
    pub(super) partials: BTreeMap<Bucket, Partial>,
    chunks: BTreeMap<i64, Known>,
    cold: Option<ColdWindow>,
    len: usize,
    /// Maximum number of items of earlier frames, and of one frame.
    kept: usize,
    most: usize,
    clock: u64,
}

impl Cache {
    /// Keeps about `kept` items of 100 to 300 bytes, and counts about `most` for one frame.
    pub(super) fn new(kept: usize, most: usize) -> Self {
        Cache { partials: BTreeMap::new(), chunks: BTreeMap::new(), cold: None, len: 0, kept, most, clock: 0 }
    }

    /// Counts the chunks of a window that are not cached, newest first.
    pub(super) fn fill(
        &mut self,
        reader: &SegmentReader,
        parts: &[Part],
        window: Window,
        limits: Window,
        names: &mut Names,
        pace: Pace,
    ) -> Filled {
        self.clock += 1;
        let from = window.from.max(limits.from);
        let to = window.to.min(limits.to);
        if from >= to {
            return Filled::Whole;
        }
        let (first, last) = (chunk_of(from), chunk_of(Bucket(to.0 - 1)));
        let is_cut = |chunk: &i64| buckets(*chunk).0 < window.from || window.to < buckets(*chunk).1;
        let resolution = chunks_but([first, last].into_iter().filter(is_cut).collect());
        if self.fill_at_once(reader, parts, Window { from, to }, &resolution, names, pace.at_once) {
            return Filled::Whole;
        }
        let round = i64::try_from(threads()).unwrap_or(1).saturating_mul(pace.chunks);
        let mut past = last + 1;
        let mut needed = 0_usize;
        while past > first {
            let begin = (past - round).max(first);
            let has_read = self.gather_missing(reader, parts, (begin, past), limits, &resolution, names);
            for (_, known) in self.chunks.range_mut(begin..past) {
                known.used = self.clock;
                needed = needed.saturating_add(known.len);
            }
            past = begin;
            self.shrink();
            if needed > self.most && past > first {
                return Filled::AtMostSince(buckets(past).0);
            }
            // At least one round is read, however late it is.
            if past > first && has_read && pace.is_over() {
                return Filled::Since(buckets(past).0);
            }
        }
        Filled::Whole
    }

    /// Counts a window as a whole, if most of its chunks are not cached and it is small enough. Returns whether it is cached.
    fn fill_at_once(
        &mut self,
        reader: &SegmentReader,
        parts: &[Part],
        window: Window,
        resolution: &Resolution,
        names: &mut Names,
        at_once: usize,
    ) -> bool {
        if self.cold.as_ref().is_some_and(|known| known.window == window) {
            return true;
        }
        let chunks = chunk_of(window.from)..=chunk_of(Bucket(window.to.0 - 1));
        let (known, missing): (Vec<i64>, Vec<i64>) = chunks.partition(|chunk| self.knows(*chunk, resolution));
        let rows =
            touching(parts, window, &EVENTS).map(|part| part.rows_within(window.from.start(), window.to.start()));
        if missing.len() <= known.len() || rows.fold(0, usize::saturating_add) > at_once {
            return false;
        }
        let Some((sums, partials)) = cold_window::gather(reader, parts, window, names) else { return false };
        self.forget_cold();
        missing.into_iter().chain(known).for_each(|chunk| self.forget(chunk));
        let len = sums.len() + partials.values().map(Partial::len).sum::<usize>();
        self.len = self.len.saturating_add(len);
        self.partials.extend(partials);
        self.cold = Some(ColdWindow { window, sums, len });
        self.shrink();
        true
    }

    /// Counts the newest missing chunk of a window that was counted as a whole: a step from there needs most of its chunks.
    /// Returns whether one was missing.
    pub(super) fn fill_chunk(
        &mut self,
        reader: &SegmentReader,
        parts: &[Part],
        limits: Window,
        names: &mut Names,
    ) -> bool {
        let Some(ColdWindow { window, .. }) = self.cold else { return false };
        let resolution = chunks_but(BTreeSet::new());
        let missing = whole_chunks(window).rev().find(|chunk| !self.knows(*chunk, &resolution));
        let Some(chunk) = missing else { return false };
        self.gather_missing(reader, parts, (chunk, chunk + 1), limits, &resolution, names);
        true
    }

    /// Counts missing chunks on all threads, each a run of its own. Returns whether any was missing.
    fn gather_missing(
        &mut self,
        reader: &SegmentReader,
        parts: &[Part],
        (begin, past): (i64, i64),
        limits: Window,
        resolution: &Resolution,
        names: &mut Names,
    ) -> bool {
        let missing: Vec<i64> = (begin..past).filter(|chunk| !self.knows(*chunk, resolution)).collect();
        let each = missing.len().div_ceil(threads()).max(1);
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for chunk in missing {
            match runs.last_mut() {
                Some((first, past)) if *past == chunk && usize::try_from(*past - *first).is_ok_and(|n| n < each) => {
                    *past += 1;
                }
                _ => runs.push((chunk, chunk + 1)),
            }
        }
        for some in runs.chunks(threads()) {
            let gathered: Vec<Gathered> = thread::scope(|scope| {
                let run = |run: (i64, i64)| gather(reader, parts, run, limits, resolution.clone());
                let others: Vec<_> = some.iter().skip(1).map(|of| scope.spawn(move || run(*of))).collect();
                let own = some.first().map(|of| run(*of));
                own.into_iter().chain(others.into_iter().filter_map(|thread| thread.join().ok())).collect()
            });
            for gathered in gathered {
                names.add_tasks(&gathered.names);
                self.put(gathered);
            }
        }
        !runs.is_empty()
    }

    /// Whether a chunk is cached with this resolution.
    fn knows(&self, chunk: i64, resolution: &Resolution) -> bool {
        self.chunks.get(&chunk).is_some_and(|known| known.is_whole || !resolution.is_per_bucket(chunk))
    }

    fn put(&mut self, Gathered { chunks, resolution, partials, .. }: Gathered) {
        for (chunk, sums) in chunks {
            // It may be cached with a lower resolution.
            self.take_out(chunk);
            let (from, to) = buckets(chunk);
            let len = sums.len() + partials.range(from..to).map(|(_, partial)| partial.len()).sum::<usize>();
            self.len = self.len.saturating_add(len);
            self.chunks.insert(chunk, Known { sums, len, used: self.clock, is_whole: resolution.is_per_bucket(chunk) });
        }
        self.partials.extend(partials);
    }

    /// Counts a chunk that is likely to be needed next. Returns whether it was missing.
    pub(super) fn prefetch(
        &mut self,
        reader: &SegmentReader,
        parts: &[Part],
        chunk: i64,
        limits: Window,
        names: &mut Names,
    ) -> bool {
        let resolution = chunks_but([chunk].into());
        if self.knows(chunk, &resolution) || chunk < chunk_of(limits.from) || chunk > chunk_of(limits.to) {
            return false;
        }
        // When the window moves, this chunk is first at its end.
        self.gather_missing(reader, parts, (chunk, chunk + 1), limits, &resolution, names);
        self.shrink();
        true
    }

    /// Evicts the least recently used chunks, except those of the current frame.
    fn shrink(&mut self) {
        while self.len > self.kept {
            let oldest = self.chunks.iter().filter(|(_, known)| known.used < self.clock).min_by_key(|(_, k)| k.used);
            let Some(chunk) = oldest.map(|(chunk, _)| *chunk) else { break };
            self.forget(chunk);
        }
    }

    fn forget(&mut self, chunk: i64) {
        let (from, to) = buckets(chunk);
        if self.cold.as_ref().is_some_and(|known| known.window.from < to && from < known.window.to) {
            self.forget_cold();
        }
        self.take_out(chunk);
    }

    fn take_out(&mut self, chunk: i64) {
        if let Some(known) = self.chunks.remove(&chunk) {
            self.len = self.len.saturating_sub(known.len);
            let (from, to) = buckets(chunk);
            self.drop_partials(from, to, |_| true);
        }
    }

    fn forget_cold(&mut self) {
        if let Some(ColdWindow { window, len, .. }) = self.cold.take() {
            self.len = self.len.saturating_sub(len);
            let divided: BTreeSet<i64> = self.chunks.keys().copied().collect();
            self.drop_partials(window.from, window.to, |bucket| !divided.contains(&chunk_of(bucket)));
        }
    }

    fn drop_partials(&mut self, from: Bucket, to: Bucket, is_dropped: impl Fn(Bucket) -> bool) {
        let dropped = self.partials.range(from..to).map(|(bucket, _)| *bucket).filter(|bucket| is_dropped(*bucket));
        let dropped: Vec<Bucket> = dropped.collect();
        dropped.iter().for_each(|bucket| drop(self.partials.remove(bucket)));
    }

    /// Discards everything from an instant on, as there are new rows.
    pub(super) fn forget_since(&mut self, since: i64) {
        if self.cold.as_ref().is_some_and(|known| Bucket::of(since) < known.window.to) {
            self.forget_cold();
        }
        let stale: Vec<i64> = self.chunks.range(chunk_of(Bucket::of(since))..).map(|(chunk, _)| *chunk).collect();
        stale.into_iter().for_each(|chunk| self.forget(chunk));
    }

    /// The sums of cached seconds within a window, by their start.
    pub(super) fn seconds(&self, window: Window) -> impl Iterator<Item = (i64, &Sums)> {
        let whole = whole_chunks(window);
        let known = self.chunks.range(whole.start..whole.end.max(whole.start));
        known.map(|(chunk, known)| (buckets(*chunk).0.start(), &known.sums))
    }

    /// The sums of a window within these limits.
    pub(super) fn total(&self, window: Window, limits: Window) -> Cow<'_, Sums> {
        let within = Window { from: window.from.max(limits.from), to: window.to.min(limits.to) };
        if let Some(known) = self.cold.as_ref().filter(|known| known.window == within) {
            return Cow::Borrowed(&known.sums);
        }
        let mut sums = Sums::default();
        if window.from >= window.to {
            return Cow::Owned(sums);
        }
        let whole = whole_chunks(window);
        let mut loose = |from: Bucket, to: Bucket| {
            if from < to {
                self.partials.range(from..to).for_each(|(_, partial)| sums.merge(&partial.sums));
            }
        };
        if whole.start >= whole.end {
            loose(window.from, window.to);
            return Cow::Owned(sums);
        }
        loose(window.from, buckets(whole.start).0);
        loose(buckets(whole.end).0, window.to);
        self.chunks.range(whole).for_each(|(_, known)| sums.merge(&known.sums));
        Cow::Owned(sums)
    }
}
