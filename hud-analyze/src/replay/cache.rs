//! Partials by second: what was gathered once is not gathered again while there is room.
//!
//! A chunk is ten buckets: a page of a busy table holds about as much, so reading less costs the same. The sums of each
//! chunk are kept beside its partials, so that a frame adds up ten chunks instead of a hundred buckets. Tasks,
//! distributions and stacks, most of what there is, are kept by chunk alone, but for the chunks at the window's ends, of
//! which a frame adds up some of the buckets.
//!
//! Who jumps to where little is known is given the window undivided at first; the chunks follow when there is time.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    thread,
    time::Instant,
};

use hud_common::{
    cockpit::{Bucket, Grain, Intake, Merge as _, Names, Partial, Sums, Window},
    session::Table,
};

use super::{
    files::{EVENTS, Part, Shelf, columns},
    undivided::{self, Undivided},
};
use crate::threads::threads;

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

/// The chunks that lie within a window.
fn whole_chunks(window: Window) -> Range<i64> {
    window.from.0.saturating_add(CHUNK - 1).div_euclid(CHUNK)..window.to.0.div_euclid(CHUNK)
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
    let to = buckets(past).0.min(limits.to).max(from);
    let mut intake = Intake::new(from, to).with_grain(grain);
    take_in(&mut intake, shelf, touching(parts, Window { from, to }, tables), &mut is_wanted);
    intake.buckets.settle(from, to);
    intake
}

/// Takes in the rows of these parts that count.
pub(super) fn take_in<'a>(
    intake: &mut Intake,
    shelf: &Shelf,
    parts: impl Iterator<Item = &'a Part>,
    is_wanted: &mut impl FnMut() -> bool,
) {
    let (from, to) = (intake.buckets.from().start(), intake.buckets.to().start());
    for part in parts {
        if is_wanted() {
            shelf.read(part, columns(part.table), (from, to), |batch| {
                intake.batch(part.table, batch);
                is_wanted()
            });
        }
    }
}

/// The parts of these tables with rows that may count in a window. A row that ends where it begins counts in its first
/// bucket.
pub(super) fn touching<'a>(parts: &'a [Part], window: Window, tables: &'a [Table]) -> impl Iterator<Item = &'a Part> {
    let (from, to) = (window.from.start(), window.to.start());
    let parts = parts.iter().filter(move |_| window.from < window.to);
    parts.filter(move |part| tables.contains(&part.table) && part.touches(from, to))
}

/// How long a window may be read before there is a frame of what there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// None: until all is read.
    pub(super) until: Option<Instant>,
    /// Chunks that each thread reads before the time is looked at.
    pub(super) chunks: i64,
    /// About as many rows as are read at once, where little of the window is known.
    pub(super) at_once: usize,
}

impl Pace {
    /// As many as keep what is read twice at their borders, and what is kept in memory for them, small.
    pub(super) const WHOLE: Pace = Pace { until: None, chunks: 16, at_once: 0 };

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
    undivided: Option<Undivided>,
    len: usize,
    /// Of what was gathered before, and of what a frame may need.
    kept: usize,
    most: usize,
    clock: u64,
}

impl Cache {
    /// Keeps about `kept` things, at one to three hundred bytes each, and gathers about `most` for one frame.
    pub(super) fn new(kept: usize, most: usize) -> Self {
        Cache { partials: BTreeMap::new(), chunks: BTreeMap::new(), undivided: None, len: 0, kept, most, clock: 0 }
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
        if self.fill_at_once(shelf, parts, Window { from, to }, &grain, names, pace.at_once) {
            return Filled::Whole;
        }
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

    /// Makes a window known undivided, where most of it is not known and it is small enough. Gives whether it is.
    fn fill_at_once(
        &mut self,
        shelf: &Shelf,
        parts: &[Part],
        window: Window,
        grain: &Grain,
        names: &mut Names,
        at_once: usize,
    ) -> bool {
        if self.undivided.as_ref().is_some_and(|known| known.window == window) {
            return true;
        }
        let chunks = chunk_of(window.from)..=chunk_of(Bucket(window.to.0 - 1));
        let (known, missing): (Vec<i64>, Vec<i64>) = chunks.partition(|chunk| self.knows(*chunk, grain));
        let rows =
            touching(parts, window, &EVENTS).map(|part| part.rows_within(window.from.start(), window.to.start()));
        if missing.len() <= known.len() || rows.fold(0, usize::saturating_add) > at_once {
            return false;
        }
        let Some((sums, partials)) = undivided::gather(shelf, parts, window, names) else { return false };
        self.forget_undivided();
        missing.into_iter().chain(known).for_each(|chunk| self.forget(chunk));
        let len = sums.len() + partials.values().map(Partial::len).sum::<usize>();
        self.len = self.len.saturating_add(len);
        self.partials.extend(partials);
        self.undivided = Some(Undivided { window, sums, len });
        self.shrink();
        true
    }

    /// Gathers one chunk of a window that is known undivided, the newest that is missing: a step from there needs some of
    /// them. Gives whether there was anything to do.
    pub(super) fn divide(&mut self, shelf: &Shelf, parts: &[Part], limits: Window, names: &mut Names) -> bool {
        let Some(Undivided { window, .. }) = self.undivided else { return false };
        let grain = chunks_but(BTreeSet::new());
        let missing = whole_chunks(window).rev().find(|chunk| !self.knows(*chunk, &grain));
        let Some(chunk) = missing else { return false };
        self.gather_missing(shelf, parts, (chunk, chunk + 1), limits, &grain, names);
        true
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
            self.take_out(chunk);
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
        let (from, to) = buckets(chunk);
        if self.undivided.as_ref().is_some_and(|known| known.window.from < to && from < known.window.to) {
            self.forget_undivided();
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

    fn forget_undivided(&mut self) {
        if let Some(Undivided { window, len, .. }) = self.undivided.take() {
            self.len = self.len.saturating_sub(len);
            let divided: BTreeSet<i64> = self.chunks.keys().copied().collect();
            self.drop_partials(window.from, window.to, |bucket| !divided.contains(&chunk_of(bucket)));
        }
    }

    fn drop_partials(&mut self, from: Bucket, to: Bucket, is_gone: impl Fn(Bucket) -> bool) {
        let gone = self.partials.range(from..to).map(|(bucket, _)| *bucket).filter(|bucket| is_gone(*bucket));
        let gone: Vec<Bucket> = gone.collect();
        gone.iter().for_each(|bucket| drop(self.partials.remove(bucket)));
    }

    /// Lets go of everything from an instant on: rows have come to it.
    pub(super) fn forget_since(&mut self, since: i64) {
        if self.undivided.as_ref().is_some_and(|known| Bucket::of(since) < known.window.to) {
            self.forget_undivided();
        }
        let stale: Vec<i64> = self.chunks.range(chunk_of(Bucket::of(since))..).map(|(chunk, _)| *chunk).collect();
        stale.into_iter().for_each(|chunk| self.forget(chunk));
    }

    /// The sums of a window within these limits.
    pub(super) fn total(&self, window: Window, limits: Window) -> Cow<'_, Sums> {
        let within = Window { from: window.from.max(limits.from), to: window.to.min(limits.to) };
        if let Some(known) = self.undivided.as_ref().filter(|known| known.window == within) {
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
