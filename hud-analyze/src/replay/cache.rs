//! Partials by second: what was gathered once is not gathered again while there is room.
//!
//! A chunk is ten buckets: a page of a busy table holds about as much, so reading less costs the same. The sums of each
//! chunk are kept beside its partials, so that a frame adds up ten chunks instead of a hundred buckets. Tasks,
//! distributions and stacks, most of what there is, are kept by chunk alone, but for the chunks at the window's ends, of
//! which a frame adds up some of the buckets.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Instant,
};

use hud_common::{
    cockpit::{Bucket, Grain, Intake, Merge as _, Names, Partial, Sums, Window},
    session::Table,
};

use super::files::{EVENTS, Part, Shelf, threads};

/// Buckets in a chunk.
pub(super) const CHUNK: i64 = 10;

/// The chunk that a bucket is in.
pub(super) fn chunk_of(bucket: Bucket) -> i64 {
    bucket.0.div_euclid(CHUNK)
}

/// The buckets of a chunk.
fn buckets(chunk: i64) -> (Bucket, Bucket) {
    let first = chunk.saturating_mul(CHUNK);
    (Bucket(first), Bucket(first.saturating_add(CHUNK)))
}

struct Known {
    sums: Sums,
    /// Things that it keeps, its partials included.
    len: usize,
    used: u64,
    /// Its partials are whole, with what has only sums.
    is_whole: bool,
}

/// Chunks, of which these have whole partials.
fn chunks_but(whole: BTreeSet<i64>) -> Grain {
    Grain::Groups(CHUNK, whole)
}

/// What was gathered of a stretch.
struct Gathered {
    chunks: Vec<(i64, Sums)>,
    grain: Grain,
    partials: BTreeMap<Bucket, Partial>,
    names: Names,
}

/// Gathers chunks `[first, past)` within the buckets that count at all.
fn gather(shelf: &Shelf, parts: &[Part], run: (i64, i64), limits: Window, grain: Grain) -> Gathered {
    let (first, past) = run;
    let mut intake = gather_rows(shelf, parts, run, limits, &EVENTS, grain.clone(), || true);
    let Some(mut groups) = intake.buckets.take_groups() else {
        // More tasks than a bucket counts one by one: which of them do is known by bucket alone.
        return gather(shelf, parts, run, limits, Grain::Buckets);
    };
    let partials = intake.buckets.partials();
    let mut sums = |chunk: i64| {
        let (from, to) = buckets(chunk);
        let mut sums = groups.remove(&chunk).unwrap_or_default();
        partials.range(from..to).for_each(|(_, partial)| sums.merge(&partial.sums));
        sums
    };
    let chunks = (first..past).map(|chunk| (chunk, sums(chunk))).collect();
    let (partials, names) = intake.into_parts();
    Gathered { chunks, grain, partials, names }
}

/// Takes in the rows of these tables that count in chunks `[first, past)`.
pub(super) fn gather_rows(
    shelf: &Shelf,
    parts: &[Part],
    (first, past): (i64, i64),
    limits: Window,
    tables: &[Table],
    grain: Grain,
    mut is_wanted: impl FnMut() -> bool,
) -> Intake {
    let from = buckets(first).0.max(limits.from);
    let to = buckets(past).0.min(limits.to);
    let mut intake = Intake::new(from, to.max(from)).with_grain(grain);
    if from < to {
        for part in parts.iter().filter(|part| tables.contains(&part.table)) {
            // A row that ends where the range begins counts in its first bucket.
            if part.touches(from.start(), to.start()) && is_wanted() {
                shelf.read(part, from.start(), to.start(), |batch| {
                    intake.batch(part.table, batch);
                    is_wanted()
                });
            }
        }
        intake.buckets.settle(from, to);
    }
    intake
}

/// How long a window may be read before there is a frame of what there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// None: until all is read.
    pub(super) until: Option<Instant>,
    /// Chunks that each thread reads before the time is looked at.
    pub(super) chunks: i64,
}

impl Pace {
    /// As many as keep what is read twice at their borders, and what is kept in memory for them, small.
    pub(super) const WHOLE: Pace = Pace { until: None, chunks: 16 };

    fn is_over(self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// What is known of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Whole,
    /// From this bucket on. The rest can be read, but there was no time yet.
    Since(Bucket),
    /// From this bucket on. The rest is more than a frame may need.
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

/// The partials that are known.
pub(super) struct Cache {
    pub(super) partials: BTreeMap<Bucket, Partial>,
    chunks: BTreeMap<i64, Known>,
    len: usize,
    /// Of what was gathered before, and of what a frame may need.
    kept: usize,
    most: usize,
    clock: u64,
}

impl Cache {
    /// Keeps about `kept` things, at one to three hundred bytes each, and gathers about `most` for one frame.
    pub(super) fn new(kept: usize, most: usize) -> Self {
        Cache { partials: BTreeMap::new(), chunks: BTreeMap::new(), len: 0, kept, most, clock: 0 }
    }

    /// Makes known what of a window is not, the newest first.
    pub(super) fn fill(
        &mut self,
        shelf: &Shelf,
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
        let grain = chunks_but([first, last].into_iter().filter(is_cut).collect());
        let round = i64::try_from(threads()).unwrap_or(1).saturating_mul(pace.chunks);
        let mut past = last + 1;
        let mut needed = 0_usize;
        while past > first {
            let begin = (past - round).max(first);
            let has_read = self.gather_missing(shelf, parts, (begin, past), limits, &grain, names);
            for (_, known) in self.chunks.range_mut(begin..past) {
                known.used = self.clock;
                needed = needed.saturating_add(known.len);
            }
            past = begin;
            self.shrink();
            if needed > self.most && past > first {
                return Filled::AtMostSince(buckets(past).0);
            }
            // However late it is, each time more of it is known.
            if past > first && has_read && pace.is_over() {
                return Filled::Since(buckets(past).0);
            }
        }
        Filled::Whole
    }

    /// By as many threads as there are, each a stretch of its own. Gives whether anything was missing.
    fn gather_missing(
        &mut self,
        shelf: &Shelf,
        parts: &[Part],
        (begin, past): (i64, i64),
        limits: Window,
        grain: &Grain,
        names: &mut Names,
    ) -> bool {
        let missing: Vec<i64> = (begin..past).filter(|chunk| !self.knows(*chunk, grain)).collect();
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
                let run = |run: (i64, i64)| gather(shelf, parts, run, limits, grain.clone());
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

    /// Whether a chunk is known, as finely as that.
    fn knows(&self, chunk: i64, grain: &Grain) -> bool {
        self.chunks.get(&chunk).is_some_and(|known| known.is_whole || !grain.tells_apart(chunk))
    }

    fn put(&mut self, Gathered { chunks, grain, partials, .. }: Gathered) {
        for (chunk, sums) in chunks {
            // It may have been known less finely.
            self.forget(chunk);
            let (from, to) = buckets(chunk);
            let len = sums.len() + partials.range(from..to).map(|(_, partial)| partial.len()).sum::<usize>();
            self.len = self.len.saturating_add(len);
            self.chunks.insert(chunk, Known { sums, len, used: self.clock, is_whole: grain.tells_apart(chunk) });
        }
        self.partials.extend(partials);
    }

    /// Gathers one chunk that is likely to be asked for next. Gives whether there was anything to do.
    pub(super) fn prefetch(
        &mut self,
        shelf: &Shelf,
        parts: &[Part],
        chunk: i64,
        limits: Window,
        names: &mut Names,
    ) -> bool {
        let grain = chunks_but([chunk].into());
        if self.knows(chunk, &grain) || chunk < chunk_of(limits.from) || chunk > chunk_of(limits.to) {
            return false;
        }
        // Where the window moves on, it is at the end of it first.
        self.gather_missing(shelf, parts, (chunk, chunk + 1), limits, &grain, names);
        self.shrink();
        true
    }

    /// Lets go of what was not used for longest, but for what the present frame needs.
    fn shrink(&mut self) {
        while self.len > self.kept {
            let oldest = self.chunks.iter().filter(|(_, known)| known.used < self.clock).min_by_key(|(_, k)| k.used);
            let Some(chunk) = oldest.map(|(chunk, _)| *chunk) else { break };
            self.forget(chunk);
        }
    }

    fn forget(&mut self, chunk: i64) {
        if let Some(known) = self.chunks.remove(&chunk) {
            self.len = self.len.saturating_sub(known.len);
            let (from, to) = buckets(chunk);
            let gone: Vec<Bucket> = self.partials.range(from..to).map(|(bucket, _)| *bucket).collect();
            gone.iter().for_each(|bucket| drop(self.partials.remove(bucket)));
        }
    }

    /// Lets go of everything from an instant on: rows have come to it.
    pub(super) fn forget_since(&mut self, since: i64) {
        let stale: Vec<i64> = self.chunks.range(chunk_of(Bucket::of(since))..).map(|(chunk, _)| *chunk).collect();
        stale.into_iter().for_each(|chunk| self.forget(chunk));
    }

    /// The sums of a window.
    pub(super) fn total(&self, window: Window) -> Sums {
        let mut sums = Sums::default();
        if window.from >= window.to {
            return sums;
        }
        let whole = window.from.0.saturating_add(CHUNK - 1).div_euclid(CHUNK)..window.to.0.div_euclid(CHUNK);
        let mut loose = |from: Bucket, to: Bucket| {
            if from < to {
                self.partials.range(from..to).for_each(|(_, partial)| sums.merge(&partial.sums));
            }
        };
        if whole.start >= whole.end {
            loose(window.from, window.to);
            return sums;
        }
        loose(window.from, buckets(whole.start).0);
        loose(buckets(whole.end).0, window.to);
        self.chunks.range(whole).for_each(|(_, known)| sums.merge(&known.sums));
        sums
    }
}
