//! Aggregates rows into partials, by the definitions in [`super::Partial`].

use std::collections::{BTreeMap, BTreeSet};

use hud_wire::Stream;

use super::{
    Bucket, Ended, INTERVAL_MIN, InProgress, LongPoll, Map, Mark, Merge as _, Name, Newest, Partial, PollSpan,
    PollSums, Seen, Sleep, StackId, Sums, TASKS_PER_BUCKET, TaskDetail, TaskId, TaskSums, Tid, TypeId, WAKERS,
    index_cache::{IndexCache, number_of, number_of_thread},
    partial::clipped,
};

/// A row of `polls`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the table's columns")]
pub struct PollRow {
    pub ts: i64,
    pub dur: i64,
    pub task: TaskId,
    pub type_id: Option<TypeId>,
    pub tid: Tid,
    pub blocked: i64,
    pub run_queue: i64,
    pub wake_delay: Option<i64>,
}

impl PollRow {
    /// Its end.
    #[inline]
    pub(super) fn end(&self) -> i64 {
        self.ts.saturating_add(self.dur.max(0))
    }

    #[inline]
    fn held(&self) -> i64 {
        self.dur.max(0).saturating_sub(self.run_queue).max(0)
    }

    #[inline]
    fn busy(&self) -> i64 {
        self.dur.max(0).saturating_sub(self.blocked).saturating_sub(self.run_queue).max(0)
    }

    #[inline]
    fn delay(&self) -> Option<i64> {
        self.wake_delay.map(|delay| delay.max(0))
    }
}

/// Cached positions of the last rows in the sums.
#[derive(Clone, Debug)]
struct Hinted {
    polls: IndexCache,
    seen: IndexCache,
    durations: IndexCache,
    delays: IndexCache,
    tasks: IndexCache,
}

impl Default for Hinted {
    fn default() -> Self {
        let of = IndexCache::new;
        Hinted { polls: of(12), seen: of(8), durations: of(8), delays: of(8), tasks: of(15) }
    }
}

/// Number of rows that are counted at a time. Each kind of count is a pass of its own: doing all of them per row makes the
/// processor wait for memory each time.
const BLOCK: usize = 256;

/// Maximum number of pairs of thread and type whose tallies are kept for the next bucket.
const MOST_TALLIES: usize = 4_096;

/// Tallies of consecutive polls that end in one bucket, by thread and type.
#[derive(Clone, Debug, Default)]
struct Tallies {
    polls: Map<(Tid, Option<TypeId>), PollSums>,
    seen: Map<Tid, Seen>,
    /// Those with a poll.
    met: Vec<usize>,
}

impl Tallies {
    /// Counts polls that end in a bucket.
    fn add(&mut self, hints: &mut Hinted, bucket: Bucket, rows: &[PollRow]) {
        for row in rows {
            // Ids of threads are close to each other, as are those of a program's types.
            let number = number_of(row.type_id).wrapping_add(number_of_thread(row.tid).wrapping_mul(131));
            let (place, polls) = hints.polls.find(&mut self.polls, (row.tid, row.type_id), number);
            if polls.count == 0 {
                self.met.push(place);
            }
            let (dur, busy) = (row.dur.max(0), row.busy());
            polls.count += 1;
            polls.dur = polls.dur.saturating_add(dur);
            polls.busy = polls.busy.saturating_add(busy);
            polls.blocked = polls.blocked.saturating_add(row.blocked.max(0));
            polls.run_queue = polls.run_queue.saturating_add(row.run_queue.max(0));
            polls.longest = polls.longest.max(dur);
            if let Some(delay) = row.delay() {
                polls.delay = polls.delay.saturating_add(delay);
                polls.delay_longest = polls.delay_longest.max(delay);
            }
        }
        for row in rows {
            let seen = hints.seen.of(&mut self.seen, row.tid, number_of_thread(row.tid));
            let end = row.end();
            seen.poll_end.add(end);
            if row.ts >= bucket.start() {
                seen.first.add(row.ts);
                seen.last.add(end);
            }
        }
    }

    /// Adds the tallies to the bucket.
    fn add_to(&mut self, sums: &mut Sums) {
        for place in self.met.drain(..) {
            let Some((key, polls)) = self.polls.get_index_mut(place) else { continue };
            sums.polls.entry(*key).or_default().merge(polls);
            *polls = PollSums::default();
        }
        for (tid, seen) in self.seen.drain(..) {
            sums.seen.entry(tid).or_default().merge(&seen);
        }
        if self.polls.len() > MOST_TALLIES {
            self.polls.clear();
        }
    }
}

/// Buckets of a range that the rules judge: 5 s. Ranges begin at multiples of it.
pub const RANGE: i64 = 50;

/// Time resolution at which window-only aggregates (tasks, distributions and stacks) are kept.
#[derive(Clone, Debug, Default)]
pub enum Resolution {
    /// Per bucket.
    #[default]
    Buckets,
    /// Per group of this number of buckets (group number = bucket / number), except for these groups, which are kept per bucket.
    Groups(i64, BTreeSet<i64>),
    /// Not kept.
    Nothing,
    /// In each bucket, and only what the rules need: no durations and stacks, and of tasks only wakes, spawns and ends. What
    /// rollups need beyond that is kept per range ([`Buckets::take_ranges`]).
    Rules,
}

impl Resolution {
    /// Whether a group is kept per bucket.
    pub fn is_per_bucket(&self, group: i64) -> bool {
        match self {
            Resolution::Buckets | Resolution::Rules => true,
            Resolution::Groups(_, apart) => apart.contains(&group),
            Resolution::Nothing => false,
        }
    }
}

/// The aggregates of rows that end in a bucket.
struct Place<'a> {
    partial: &'a mut Partial,
    bucket: Bucket,
    /// The window-only aggregates, if they are not in the partial; `None` if they are not kept.
    group: Option<Option<&'a mut Sums>>,
    /// Only what the rules need is counted in the partial; what rollups need beyond that is counted here.
    range: Option<&'a mut Sums>,
    hints: &'a mut Hinted,
    tallies: &'a mut Tallies,
}

/// The window-only aggregates.
fn summed<'s>(partial: &'s mut Partial, group: &'s mut Option<Option<&mut Sums>>) -> Option<&'s mut Sums> {
    match group {
        None => Some(&mut partial.sums),
        Some(group) => group.as_deref_mut(),
    }
}

impl Place<'_> {
    /// Adds rows of tasks: task, start and end.
    #[inline]
    fn tasks<R>(&mut self, rows: &[R], of: impl Fn(&R) -> (TaskId, i64, i64), mut then: impl FnMut(&mut TaskSums, &R)) {
        let Some(sums) = summed(self.partial, &mut self.group) else { return };
        for rows in rows.chunks(BLOCK) {
            // All positions first: the processor then waits for many of them at once.
            let mut places = [0; BLOCK];
            for (row, place) in rows.iter().zip(&mut places) {
                let (id, ..) = of(row);
                *place = self.hints.tasks.find(&mut sums.tasks, id, id.0.cast_unsigned()).0;
            }
            for (row, place) in rows.iter().zip(places) {
                let Some((_, task)) = sums.tasks.get_index_mut(place) else { continue };
                let (_, first, last) = of(row);
                task.signs += 1;
                task.first.add(first);
                task.last.add(last);
                then(task, row);
            }
        }
        // Excess tasks are discarded before they double the list.
        if self.group.is_none() && self.partial.sums.tasks.len() >= 2 * TASKS_PER_BUCKET {
            self.partial.sums.cap_tasks();
        }
    }

    /// Adds a row of a task.
    fn task(&mut self, id: TaskId, first: i64, last: i64, mut then: impl FnMut(&mut TaskSums)) {
        self.tasks(&[(id, first, last)], |of| *of, |task, _| then(task));
    }

    /// Adds the tallies. Returns the bucket's number of pairs of thread and type.
    fn close(&mut self) -> usize {
        let sums = &mut self.partial.sums;
        self.tallies.add_to(sums);
        sums.polls.len()
    }

    fn polls(&mut self, rows: &[PollRow]) {
        count(&mut self.partial.sums, Stream::Polls, rows.len());
        self.tallies.add(self.hints, self.bucket, rows);
        let durations = self.range.as_deref_mut().or_else(|| summed(self.partial, &mut self.group));
        if let Some(sums) = durations {
            for row in rows {
                let (id, number) = (row.type_id, number_of(row.type_id));
                self.hints.durations.of(&mut sums.durations, id, number).record(row.dur.max(0));
            }
        }
        if let Some(sums) = summed(self.partial, &mut self.group) {
            for (row, delay) in rows.iter().filter_map(|row| Some((row, row.delay()?))) {
                let (id, number) = (row.type_id, number_of(row.type_id));
                self.hints.delays.of(&mut sums.delays, id, number).record(delay);
            }
        }
        if self.range.is_none() {
            self.tasks(
                rows,
                |row| (row.task, row.ts, row.end()),
                |task, row| {
                    task.polls += 1;
                    task.busy = task.busy.saturating_add(row.busy());
                    task.longest_poll = task.longest_poll.max(row.dur);
                    if let Some(delay) = row.delay() {
                        task.delays += 1;
                        task.delay = task.delay.saturating_add(delay);
                        task.delay_longest = task.delay_longest.max(delay);
                    }
                },
            );
        }
        for row in rows.iter().filter(|row| row.dur >= INTERVAL_MIN) {
            let PollRow { ts, dur, tid, task, type_id, .. } = *row;
            self.partial.long_polls.push(LongPoll { ts, dur, held: row.held(), busy: row.busy(), tid, task, type_id });
        }
    }

    fn wakes(&mut self, rows: &[WakeRow]) {
        count(&mut self.partial.sums, Stream::Wakes, rows.len());
        self.tasks(
            rows,
            |(ts, task, _)| (*task, *ts, *ts),
            |sums, (_, task, by)| {
                sums.wakes += 1;
                sums.self_wakes += i64::from(*by == Some(*task));
            },
        );
        // The waking task was being polled.
        let by: Vec<(TaskId, i64)> =
            rows.iter().filter_map(|(ts, task, by)| Some(((*by)?, *ts)).filter(|(by, _)| by != task)).collect();
        self.tasks(&by, |(task, ts)| (*task, *ts, *ts), |sums, _| sums.waking += 1);
    }
}

/// A row of `wakes`: time, task and waking task.
type WakeRow = (i64, TaskId, Option<TaskId>);

/// A row of `off_cpu`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the table's columns")]
pub struct OffCpuRow {
    pub ts: i64,
    pub dur: i64,
    pub tid: Tid,
    /// The first letter of `state`.
    pub state: u8,
    pub task: Option<TaskId>,
    pub stack: Option<StackId>,
    pub run_queue: Option<i64>,
    pub waker: Option<Tid>,
    pub intervals: Option<i32>,
}

/// A row of `samples`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the table's columns")]
pub struct SampleRow {
    pub ts: i64,
    pub tid: Tid,
    pub task: Option<TaskId>,
    pub stack: Option<StackId>,
    pub weight: i64,
}

/// Partials by bucket, while rows are added.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    partials: BTreeMap<Bucket, Partial>,
    /// The range of buckets: from the first on and before the second.
    from: Bucket,
    to: Bucket,
    /// Rows outside of the range.
    outside: u64,
    /// The first bucket in which a row has ended since the last call of `take_touched`.
    touched: Option<Bucket>,
    hints: Hinted,
    tallies: Tallies,
    /// Number of pairs of thread and type in the last bucket, an estimate for the next one.
    like: usize,
    resolution: Resolution,
    /// Aggregates by group.
    groups: BTreeMap<i64, Sums>,
    /// What only rollups need, by number of the range.
    ranges: BTreeMap<i64, Sums>,
}

impl Buckets {
    /// For rows in these buckets; others are ignored.
    pub fn new(from: Bucket, to: Bucket) -> Self {
        Buckets { from, to, ..Self::default() }
    }

    /// Sets the resolution of window-only aggregates.
    pub fn with_resolution(self, resolution: Resolution) -> Self {
        Buckets { resolution, ..self }
    }

    /// The aggregates by group number; `None` if a bucket may have had more than [`TASKS_PER_BUCKET`] tasks, so that only some
    /// of them count.
    pub fn take_groups(&mut self) -> Option<BTreeMap<i64, Sums>> {
        let groups = std::mem::take(&mut self.groups);
        groups.values().all(|sums| sums.tasks.len() <= TASKS_PER_BUCKET).then_some(groups)
    }

    /// The distributions, stacks and off-CPU times by end of the ranges that end at `until` or before, which only rollups need.
    /// They are per range, as they would take most of the memory and a part of the time if they were kept per bucket.
    pub fn take_ranges(&mut self, until: Bucket) -> Sums {
        let mut all = Sums::default();
        while let Some(first) = self.ranges.first_entry() {
            if first.key().saturating_add(1).saturating_mul(RANGE) > until.0 {
                break;
            }
            all.merge(&first.remove());
        }
        all
    }

    /// Moves the range. Buckets before `from` are discarded.
    pub fn advance(&mut self, from: Bucket, to: Bucket) {
        if from > self.from {
            self.from = from;
            while self.partials.first_key_value().is_some_and(|(bucket, _)| *bucket < from) {
                self.partials.pop_first();
            }
        }
        self.to = self.to.max(to);
    }

    /// The partials, by bucket. Settled, if [`Buckets::settle`] was called since the last row.
    pub fn partials(&self) -> &BTreeMap<Bucket, Partial> {
        &self.partials
    }

    /// The partials alone.
    pub fn into_partials(self) -> BTreeMap<Bucket, Partial> {
        self.partials
    }

    /// Settles the partials of these buckets.
    pub fn settle(&mut self, from: Bucket, to: Bucket) {
        if from < to {
            self.partials.range_mut(from..to).for_each(|(_, partial)| partial.settle());
        }
    }

    /// The first bucket of the range.
    pub fn from(&self) -> Bucket {
        self.from
    }

    /// The first bucket in which a row has ended since the last call.
    pub(super) fn take_touched(&mut self) -> Option<Bucket> {
        self.touched.take()
    }

    /// The bucket past the last of the range.
    pub fn to(&self) -> Bucket {
        self.to
    }

    /// Number of rows outside of the range, which were ignored.
    pub fn outside(&self) -> u64 {
        self.outside
    }

    /// Number of entries, as a measure of memory.
    pub fn len(&self) -> usize {
        self.partials.values().map(Partial::len).chain(self.ranges.values().map(Sums::len)).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// The partial of an instant, if it is in the range.
    fn at(&mut self, ts: i64) -> Option<Place<'_>> {
        let bucket = Bucket::of(ts);
        if bucket < self.from || bucket >= self.to {
            self.outside += 1;
            return None;
        }
        self.touched = Some(self.touched.map_or(bucket, |touched| touched.min(bucket)));
        let group = match &self.resolution {
            Resolution::Buckets | Resolution::Rules => None,
            Resolution::Nothing => Some(None),
            Resolution::Groups(width, _) => {
                let group = bucket.0.div_euclid((*width).max(1));
                (!self.resolution.is_per_bucket(group)).then(|| Some(self.groups.entry(group).or_default()))
            }
        };
        let like = self.like;
        let partial = self.partials.entry(bucket).or_insert_with(|| {
            let mut partial = Partial::default();
            partial.sums.polls.reserve(like);
            partial
        });
        let range = matches!(self.resolution, Resolution::Rules)
            .then(|| self.ranges.entry(bucket.0.div_euclid(RANGE)).or_default());
        Some(Place { partial, bucket, group, range, hints: &mut self.hints, tallies: &mut self.tallies })
    }

    /// The buckets that `[ts, end)` touches, and the sums of each; an empty range touches the bucket of its instant.
    fn each(&mut self, ts: i64, end: i64, mut then: impl FnMut(Bucket, &mut Sums)) {
        let first = Bucket::of(ts).max(self.from);
        let last = Bucket::of(end.saturating_sub(1).max(ts)).min(Bucket(self.to.0.saturating_sub(1)));
        let mut bucket = first;
        while bucket <= last {
            then(bucket, &mut self.partials.entry(bucket).or_default().sums);
            bucket = bucket.next();
        }
    }

    /// Adds a row of `polls`.
    pub fn poll(&mut self, row: &PollRow) {
        self.polls(core::iter::once(*row));
    }

    /// Adds rows of `polls`.
    pub fn polls(&mut self, rows: impl Iterator<Item = PollRow>) {
        let mut crossing = Vec::new();
        self.runs(rows, PollRow::end, |place, begin, rows| {
            let crosses = rows.iter().filter(|row| row.ts < begin);
            crossing.extend(crosses.map(|row| (row.tid, row.ts, row.end())));
            if let Some(place) = place {
                place.polls(rows);
            }
        });
        crossing.into_iter().for_each(|(tid, from, to)| self.see(tid, from, to));
    }

    /// Adds rows of `wakes`: time, task and waking task.
    pub fn wakes(&mut self, rows: impl Iterator<Item = (i64, TaskId, Option<TaskId>)>) {
        self.runs(
            rows,
            |(ts, ..)| *ts,
            |place, _, rows| {
                if let Some(place) = place {
                    place.wakes(rows);
                }
            },
        );
    }

    /// Calls `each` with blocks of rows, the partial of the bucket in which they end, and its start, for buckets in the range.
    /// Consecutive rows usually end in one bucket.
    fn runs<R>(
        &mut self,
        rows: impl Iterator<Item = R>,
        end: impl Fn(&R) -> i64,
        mut then: impl FnMut(Option<&mut Place<'_>>, i64, &[R]),
    ) {
        let mut rows = rows.peekable();
        let mut block = Vec::with_capacity(BLOCK);
        while let Some(first) = rows.next() {
            let bucket = Bucket::of(end(&first));
            // The outermost buckets have no bounds, so the first row may be outside of them.
            let (begin, past) = (bucket.start(), bucket.end());
            let is_within = |row: &R| (begin..past).contains(&end(row));
            let mut outside = 0;
            let mut place = self.at(begin);
            block.push(first);
            while !block.is_empty() {
                let left = BLOCK - block.len();
                block.extend(core::iter::from_fn(|| rows.next_if(is_within)).take(left));
                outside += block.len() as u64;
                then(place.as_mut(), begin, &block);
                block.clear();
                block.extend(rows.next_if(is_within));
            }
            match place.map(|mut place| place.close()) {
                Some(like) => self.like = like,
                // One of them was counted when its position was looked up.
                None => self.outside += outside.saturating_sub(1),
            }
        }
    }

    /// Adds a row of `off_cpu`.
    pub fn off_cpu(&mut self, row: &OffCpuRow) {
        let dur = row.dur.max(0);
        let end = row.ts.saturating_add(dur);
        let ready = match row.state {
            b'R' => row.ts,
            _ => row.run_queue.map_or(end, |waited| end.saturating_sub(waited).clamp(row.ts, end)),
        };
        if let Some(mut place) = self.at(end) {
            let sums = &mut place.partial.sums;
            count(sums, Stream::OffCpu, 1);
            sums.seen.entry(row.tid).or_default().returned.add(end);
            if let Some(range) = &mut place.range {
                let away = range.away_by_end.entry((row.tid, row.task)).or_default();
                away.asleep = away.asleep.saturating_add(ready.saturating_sub(row.ts));
                away.waiting = away.waiting.saturating_add(end.saturating_sub(ready));
            }
            if let Some(id) = row.task {
                let asleep = ready.saturating_sub(row.ts);
                if place.range.is_none() {
                    place.task(id, row.ts, end, |task| task.blocked = task.blocked.saturating_add(asleep));
                }
                if asleep >= INTERVAL_MIN && matches!(row.state, b'S' | b'D') {
                    place.partial.sleeps.push(Sleep {
                        ts: row.ts,
                        dur: asleep,
                        away: dur,
                        tid: row.tid,
                        task: id,
                        stack: row.stack,
                        waker: row.waker,
                    });
                } else if matches!(row.state, b'S' | b'D' | b'+') {
                    let short = place.partial.sums.short.entry((row.tid, id, row.stack)).or_default();
                    short.add(row.intervals.unwrap_or(1).into(), asleep, row.state == b'+', end);
                }
            }
        }
        self.each(row.ts, end, |bucket, sums| {
            let away = sums.away.entry((row.tid, row.task)).or_default();
            away.asleep = away.asleep.saturating_add(clipped(bucket, row.ts, ready));
            away.waiting = away.waiting.saturating_add(clipped(bucket, ready, end));
        });
        self.see(row.tid, row.ts, end);
        if matches!(row.state, b'S' | b'D') {
            self.each(row.ts, row.ts, |bucket, sums| sums.seen.entry(row.tid).or_default().slept.add(bucket, row.ts));
        }
    }

    fn see(&mut self, tid: Tid, from: i64, to: i64) {
        self.each(from, to, |bucket, sums| {
            let seen = sums.seen.entry(tid).or_default();
            seen.first.add(from.max(bucket.start()));
            seen.last.add(to.min(bucket.end()));
        });
    }

    /// Adds a row of `samples`.
    pub fn sample(&mut self, row: &SampleRow) {
        let Some(mut place) = self.at(row.ts) else { return };
        let weight = row.weight.max(0);
        let sums = &mut place.partial.sums;
        count(sums, Stream::Samples, 1);
        let run = sums.runs.entry((row.tid, row.task)).or_default();
        run.samples += 1;
        run.weight = run.weight.saturating_add(weight);
        run.first.add(row.ts);
        run.last.add(row.ts);
        let seen = sums.seen.entry(row.tid).or_default();
        seen.first.add(row.ts);
        seen.last.add(row.ts);
        let stacks = place.range.as_deref_mut().or_else(|| summed(place.partial, &mut place.group));
        if let Some(sums) = stacks {
            let stack = sums.stacks.entry((row.stack, row.task)).or_default();
            stack.samples += 1;
            stack.weight = stack.weight.saturating_add(weight);
        }
        if let Some(id) = row.task {
            if place.range.is_none() {
                place.task(id, row.ts, row.ts, |task| task.cpu = task.cpu.saturating_add(weight));
            }
            place.partial.marks.push(Mark { ts: row.ts, tid: row.tid, task: id, stack: row.stack, weight });
        }
    }

    /// Adds a row of `in_progress`.
    pub fn in_progress(&mut self, row: InProgress) {
        if let Some(place) = self.at(row.ts) {
            place.partial.in_progress.push(row);
        }
    }

    /// Adds a row of `task_states` of a task in a deadlock.
    pub fn deadlocked(&mut self, row: super::Deadlocked) {
        if let Some(place) = self.at(row.ts) {
            place.partial.deadlocked.push(row);
        }
    }

    /// Adds a row of `wakes`.
    pub fn wake(&mut self, ts: i64, task: TaskId, by: Option<TaskId>) {
        self.wakes(core::iter::once((ts, task, by)));
    }

    /// Adds a row of `spawns`.
    pub fn spawn(&mut self, ts: i64, task: TaskId) {
        self.sign(ts, task, Some(Stream::Spawns), |sums| sums.spawned += 1);
    }

    /// Adds a row of `ends`.
    pub fn end(&mut self, task: TaskId, ended: Ended) {
        self.sign(ended.ts, task, Some(Stream::Ends), |sums| {
            sums.ended = Some(sums.ended.map_or(ended, |e| e.min(ended)));
        });
    }

    /// Adds a row of `tasks`.
    pub fn first_seen(&mut self, ts: i64, task: TaskId) {
        self.sign(ts, task, None, |_| {});
    }

    fn sign(&mut self, ts: i64, id: TaskId, of: Option<Stream>, then: impl FnMut(&mut TaskSums)) {
        let Some(mut place) = self.at(ts) else { return };
        if let Some(stream) = of {
            count(&mut place.partial.sums, stream, 1);
        } else if place.range.is_some() {
            return;
        }
        place.task(id, ts, ts, then);
    }

    /// Adds a row of `coverage`.
    pub fn coverage(&mut self, ts: i64, dur: i64, stream: &Name, reason: &Name) {
        let end = ts.saturating_add(dur.max(0));
        self.each(ts, end, |bucket, sums| {
            let on = sums.coverage.entry(stream.clone()).or_default();
            on.on = on.on.saturating_add(clipped(bucket, ts, end));
            let row = Some((ts, reason.clone()));
            if row > on.reason {
                on.reason = row;
            }
        });
    }

    /// Adds a row of `drops`.
    pub fn drops(&mut self, ts: i64, dur: i64, stream: &Name, stage: &Name, lost: i64) {
        if let Some(place) = self.at(ts.saturating_add(dur.max(0))) {
            let all = place.partial.sums.drops.entry((stream.clone(), stage.clone())).or_default();
            *all = all.saturating_add(lost.max(0));
        }
    }

    /// Adds a row of `overhead`.
    pub fn overhead(&mut self, ts: i64, probes: Option<i64>, cpu: i64, rss: i64, bytes: i64, events: i64) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.overhead;
        sums.rows += 1;
        sums.probes = sums.probes.saturating_add(probes.unwrap_or(0).max(0));
        sums.without_probes += i64::from(probes.is_none());
        sums.cpu = sums.cpu.saturating_add(cpu.max(0));
        sums.bytes = sums.bytes.saturating_add(bytes.max(0));
        sums.events = sums.events.saturating_add(events.max(0));
        sums.rss = sums.rss.max(Some((ts, rss)));
    }

    /// Adds a row of `process`.
    pub fn process(&mut self, ts: i64, user: i64, sys: i64, rss: i64, threads: i32, fds: Option<i32>) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.process;
        sums.rows += 1;
        sums.user = sums.user.saturating_add(user.max(0));
        sums.sys = sums.sys.saturating_add(sys.max(0));
        sums.last = sums.last.max(Some((ts, rss, threads, fds)));
        place.partial.usages.push(super::Usage { ts, rss, threads, fds });
    }

    /// Adds the CPU time of other processes, from a row of `process`.
    pub fn contended(&mut self, ts: i64, others: Option<i64>, throttled: Option<i64>) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.process;
        sums.others_rows += i64::from(others.is_some());
        sums.others = sums.others.saturating_add(others.unwrap_or(0).max(0));
        sums.throttled = sums.throttled.saturating_add(throttled.unwrap_or(0).max(0));
    }
}

impl TaskDetail {
    /// Adds a poll of the task.
    pub fn poll(&mut self, row: &PollRow) {
        let dur = row.dur.max(0);
        self.durations.record(dur);
        self.sum = self.sum.saturating_add(dur);
        self.longest = self.longest.max(dur);
        let wake_delay = row.wake_delay.map(|delay| delay.max(0));
        if let Some(delay) = wake_delay {
            self.delays.record(delay);
            self.delay_sum = self.delay_sum.saturating_add(delay);
            self.delay_longest = self.delay_longest.max(delay);
        }
        let (ts, tid, blocked, run_queue) = (row.ts, row.tid, row.blocked, row.run_queue);
        self.last.push(Newest(PollSpan { ts, dur, tid, blocked, run_queue, wake_delay }));
    }

    /// Adds a wake of the task.
    pub fn wake(&mut self, by: Option<TaskId>, tid: Tid) {
        *self.wakers.entry((by, tid)).or_default() += 1;
        if self.wakers.len() >= 2 * WAKERS {
            self.settle();
        }
    }

    /// Sorts lists and discards excess entries.
    pub fn settle(&mut self) {
        self.last.settle();
        least_keys(&mut self.wakers, WAKERS);
    }
}

fn least_keys<K: Ord + Copy + Eq + core::hash::Hash, V>(map: &mut Map<K, V>, most: usize) {
    if map.len() > most {
        let mut keys: Vec<K> = map.keys().copied().collect();
        let (_, last, _) = keys.select_nth_unstable(most - 1);
        let last = *last;
        map.retain(|key, _| *key <= last);
    }
}

#[expect(clippy::indexing_slicing, reason = "an array with a place for each stream")]
fn count(sums: &mut Sums, stream: Stream, rows: usize) {
    sums.rows[stream as usize] += i64::try_from(rows).unwrap_or(i64::MAX);
}
