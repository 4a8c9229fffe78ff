//! From rows to partials, one row at a time: the Rust half of the rules in [`super::Partial`].

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{
    Bucket, Ended, LongPoll, Map, Mark, Merge as _, Name, Newest, Partial, PollSpan, PollSums, STRETCH_MIN, Seen,
    Sleep, StackId, Sums, TASKS_PER_BUCKET, TaskDetail, TaskId, TaskSums, Tid, TypeId, WAKERS,
    hints::{Hints, number_of, number_of_thread},
    partial::clipped,
};
use crate::wire::Stream;

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
    /// When it was over.
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

/// Where in the sums the last rows were counted.
#[derive(Clone, Debug)]
struct Hinted {
    polls: Hints,
    seen: Hints,
    durations: Hints,
    delays: Hints,
    tasks: Hints,
}

impl Default for Hinted {
    fn default() -> Self {
        let of = Hints::new;
        Hinted { polls: of(12), seen: of(8), durations: of(8), delays: of(8), tasks: of(15) }
    }
}

/// Rows that are counted at a time: each kind of count by itself, as going through one after the other for each row has the
/// processor wait for memory every time.
const BLOCK: usize = 256;

/// Pairs of threads and types whose tallies are kept for the next bucket, which will have them as well.
const MOST_TALLIES: usize = 4_096;

/// Polls that follow each other and end in one bucket, by thread and type: they are many, these are few.
#[derive(Clone, Debug, Default)]
struct Tallies {
    polls: Map<(Tid, Option<TypeId>), PollSums>,
    seen: Map<Tid, Seen>,
    /// Those with a poll.
    met: Vec<usize>,
}

impl Tallies {
    /// Takes in polls that end in a bucket.
    fn add(&mut self, hints: &mut Hinted, bucket: Bucket, rows: &[PollRow]) {
        for row in rows {
            // Threads have numbers near each other, types of one program too.
            let number = number_of(row.type_id).wrapping_add(number_of_thread(row.tid).wrapping_mul(131));
            let (place, polls) = hints.polls.find(&mut self.polls, (row.tid, row.type_id), number);
            if polls.count == 0 {
                self.met.push(place);
            }
            let (dur, busy) = (row.dur.max(0), row.busy());
            polls.count += 1;
            polls.dur = polls.dur.saturating_add(dur);
            polls.busy = polls.busy.saturating_add(busy);
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

    /// Adds them to what the bucket knows of polls and threads.
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

/// How finely that is told apart in time of which only a window's sum is ever shown: tasks, distributions and stacks.
#[derive(Clone, Debug, Default)]
pub enum Grain {
    /// In each bucket.
    #[default]
    Buckets,
    /// In groups of so many buckets, numbered by the first bucket over that, but for some groups, whose buckets are told
    /// apart.
    Groups(i64, BTreeSet<i64>),
    /// Not at all.
    Nothing,
    /// In each bucket, and only what the rules need: no durations and stacks, and of tasks only wakes, spawns and ends.
    Rules,
}

impl Grain {
    /// Whether the buckets of a group are told apart.
    pub fn tells_apart(&self, group: i64) -> bool {
        match self {
            Grain::Buckets | Grain::Rules => true,
            Grain::Groups(_, apart) => apart.contains(&group),
            Grain::Nothing => false,
        }
    }
}

/// Where the rows count that end in a bucket.
struct Place<'a> {
    partial: &'a mut Partial,
    bucket: Bucket,
    /// Where that is counted of which only sums are shown, if not in the partial; `None` where it is not counted.
    group: Option<Option<&'a mut Sums>>,
    /// Only what the rules need is counted.
    is_for_rules: bool,
    hints: &'a mut Hinted,
    tallies: &'a mut Tallies,
}

/// Where that is counted of which only sums are shown.
fn summed<'s>(partial: &'s mut Partial, group: &'s mut Option<Option<&mut Sums>>) -> Option<&'s mut Sums> {
    match group {
        None => Some(&mut partial.sums),
        Some(group) => group.as_deref_mut(),
    }
}

impl Place<'_> {
    /// Rows that tell of tasks: of which, and from when to when.
    #[inline]
    fn tasks<R>(&mut self, rows: &[R], of: impl Fn(&R) -> (TaskId, i64, i64), mut then: impl FnMut(&mut TaskSums, &R)) {
        let Some(sums) = summed(self.partial, &mut self.group) else { return };
        for rows in rows.chunks(BLOCK) {
            // All places first: the processor then waits for many of them at a time.
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
        // Tasks that are too many go before they are twice too many.
        if self.group.is_none() && self.partial.sums.tasks.len() >= 2 * TASKS_PER_BUCKET {
            self.partial.sums.cap_tasks();
        }
    }

    /// A row that tells of a task.
    fn task(&mut self, id: TaskId, first: i64, last: i64, mut then: impl FnMut(&mut TaskSums)) {
        self.tasks(&[(id, first, last)], |of| *of, |task, _| then(task));
    }

    /// Adds what was tallied. Gives how many pairs of threads and types the bucket has.
    fn close(&mut self) -> usize {
        let sums = &mut self.partial.sums;
        self.tallies.add_to(sums);
        sums.polls.len()
    }

    fn polls(&mut self, rows: &[PollRow]) {
        count(&mut self.partial.sums, Stream::Polls, rows.len());
        self.tallies.add(self.hints, self.bucket, rows);
        if let Some(sums) = summed(self.partial, &mut self.group).filter(|_| !self.is_for_rules) {
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
        if !self.is_for_rules {
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
        for row in rows.iter().filter(|row| row.dur >= STRETCH_MIN) {
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
    }
}

/// A row of `wakes`: when, whom, and by which task.
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

/// Partials by bucket, as they fill.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    partials: BTreeMap<Bucket, Partial>,
    /// What a row may count in: from the first on and before the second.
    from: Bucket,
    to: Bucket,
    /// Rows outside of that.
    outside: u64,
    /// The first bucket in which a row has ended since this was asked.
    touched: Option<Bucket>,
    hints: Hinted,
    tallies: Tallies,
    /// How many threads and types the last bucket had, which the next one will have as well.
    like: usize,
    grain: Grain,
    /// What is told apart by group.
    groups: BTreeMap<i64, Sums>,
}

impl Buckets {
    /// For rows that count in these buckets; what lies outside is passed over.
    pub fn new(from: Bucket, to: Bucket) -> Self {
        Buckets { from, to, ..Self::default() }
    }

    /// Tells apart as finely as that what has only sums.
    pub fn with_grain(self, grain: Grain) -> Self {
        Buckets { grain, ..self }
    }

    /// What was told apart in groups, by the group's number; `None` where a bucket may have had more tasks than
    /// [`TASKS_PER_BUCKET`], of which only some would count.
    pub fn take_groups(&mut self) -> Option<BTreeMap<i64, Sums>> {
        let groups = std::mem::take(&mut self.groups);
        groups.values().all(|sums| sums.tasks.len() <= TASKS_PER_BUCKET).then_some(groups)
    }

    /// Moves the range on: what lies before `from` goes.
    pub fn advance(&mut self, from: Bucket, to: Bucket) {
        if from > self.from {
            self.from = from;
            while self.partials.first_key_value().is_some_and(|(bucket, _)| *bucket < from) {
                self.partials.pop_first();
            }
        }
        self.to = self.to.max(to);
    }

    /// The partials, by bucket. Settled, where [`Buckets::settle`] was called since the last row.
    pub fn partials(&self) -> &BTreeMap<Bucket, Partial> {
        &self.partials
    }

    /// The partials alone.
    pub fn into_partials(self) -> BTreeMap<Bucket, Partial> {
        self.partials
    }

    /// Puts the partials of these buckets in order.
    pub fn settle(&mut self, from: Bucket, to: Bucket) {
        if from < to {
            self.partials.range_mut(from..to).for_each(|(_, partial)| partial.settle());
        }
    }

    /// The first bucket that counts.
    pub fn from(&self) -> Bucket {
        self.from
    }

    /// The first bucket in which a row has ended since this was asked last.
    pub(super) fn take_touched(&mut self) -> Option<Bucket> {
        self.touched.take()
    }

    /// The bucket past the last that counts.
    pub fn to(&self) -> Bucket {
        self.to
    }

    /// Rows that were passed over, as they lay outside of the range.
    pub fn outside(&self) -> u64 {
        self.outside
    }

    /// Things that are kept: what memory is counted in.
    pub fn len(&self) -> usize {
        self.partials.values().map(Partial::len).sum()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// The partial of an instant, where it counts.
    fn at(&mut self, ts: i64) -> Option<Place<'_>> {
        let bucket = Bucket::of(ts);
        if bucket < self.from || bucket >= self.to {
            self.outside += 1;
            return None;
        }
        self.touched = Some(self.touched.map_or(bucket, |touched| touched.min(bucket)));
        let group = match &self.grain {
            Grain::Buckets | Grain::Rules => None,
            Grain::Nothing => Some(None),
            Grain::Groups(width, _) => {
                let group = bucket.0.div_euclid((*width).max(1));
                (!self.grain.tells_apart(group)).then(|| Some(self.groups.entry(group).or_default()))
            }
        };
        let like = self.like;
        let partial = self.partials.entry(bucket).or_insert_with(|| {
            let mut partial = Partial::default();
            partial.sums.polls.reserve(like);
            partial
        });
        let is_for_rules = matches!(self.grain, Grain::Rules);
        Some(Place { partial, bucket, group, is_for_rules, hints: &mut self.hints, tallies: &mut self.tallies })
    }

    /// The buckets that `[ts, end)` touches, and the sums of each; an empty stretch touches that of its instant.
    fn each(&mut self, ts: i64, end: i64, mut then: impl FnMut(Bucket, &mut Sums)) {
        let first = Bucket::of(ts).max(self.from);
        let last = Bucket::of(end.saturating_sub(1).max(ts)).min(Bucket(self.to.0.saturating_sub(1)));
        let mut bucket = first;
        while bucket <= last {
            then(bucket, &mut self.partials.entry(bucket).or_default().sums);
            bucket = bucket.next();
        }
    }

    /// Takes in a row of `polls`.
    pub fn poll(&mut self, row: &PollRow) {
        self.polls(core::iter::once(*row));
    }

    /// Takes in rows of `polls`.
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

    /// Takes in rows of `wakes`: when, whom, and by which task.
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

    /// Gives the rows, some at a time, to the partials of the buckets in which they end, if these count, and tells when these
    /// begin. Rows that follow each other mostly end in one.
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
            // Of the outermost buckets they are not where they would be, so the first row may be outside of them.
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
                // One of them was counted as its place was looked for.
                None => self.outside += outside.saturating_sub(1),
            }
        }
    }

    /// Takes in a row of `off_cpu`.
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
            if let Some(id) = row.task {
                let asleep = ready.saturating_sub(row.ts);
                if !place.is_for_rules {
                    place.task(id, row.ts, end, |task| task.blocked = task.blocked.saturating_add(asleep));
                }
                if asleep >= STRETCH_MIN && matches!(row.state, b'S' | b'D') {
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

    /// Takes in a row of `samples`.
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
        if let Some(sums) = summed(place.partial, &mut place.group).filter(|_| !place.is_for_rules) {
            let stack = sums.stacks.entry((row.stack, row.task)).or_default();
            stack.samples += 1;
            stack.weight = stack.weight.saturating_add(weight);
        }
        if let Some(id) = row.task {
            if !place.is_for_rules {
                place.task(id, row.ts, row.ts, |task| task.cpu = task.cpu.saturating_add(weight));
            }
            place.partial.marks.push(Mark { ts: row.ts, tid: row.tid, task: id, stack: row.stack, weight });
        }
    }

    /// Takes in a row of `wakes`.
    pub fn wake(&mut self, ts: i64, task: TaskId, by: Option<TaskId>) {
        self.wakes(core::iter::once((ts, task, by)));
    }

    /// Takes in a row of `spawns`.
    pub fn spawn(&mut self, ts: i64, task: TaskId) {
        self.sign(ts, task, Some(Stream::Spawns), |sums| sums.spawned += 1);
    }

    /// Takes in a row of `ends`.
    pub fn end(&mut self, task: TaskId, ended: Ended) {
        self.sign(ended.ts, task, Some(Stream::Ends), |sums| {
            sums.ended = Some(sums.ended.map_or(ended, |e| e.min(ended)));
        });
    }

    /// Takes in a row of `tasks`.
    pub fn met(&mut self, ts: i64, task: TaskId) {
        self.sign(ts, task, None, |_| {});
    }

    fn sign(&mut self, ts: i64, id: TaskId, of: Option<Stream>, then: impl FnMut(&mut TaskSums)) {
        let Some(mut place) = self.at(ts) else { return };
        if let Some(stream) = of {
            count(&mut place.partial.sums, stream, 1);
        } else if place.is_for_rules {
            return;
        }
        place.task(id, ts, ts, then);
    }

    /// Takes in a row of `coverage`.
    pub fn coverage(&mut self, ts: i64, dur: i64, stream: &Name, reason: &Name) {
        let end = ts.saturating_add(dur.max(0));
        self.each(ts, end, |bucket, sums| {
            let on = sums.coverage.entry(stream.clone()).or_default();
            on.on = on.on.saturating_add(clipped(bucket, ts, end));
            let told = Some((ts, reason.clone()));
            if told > on.reason {
                on.reason = told;
            }
        });
    }

    /// Takes in a row of `drops`.
    pub fn drops(&mut self, ts: i64, dur: i64, stream: &Name, stage: &Name, lost: i64) {
        if let Some(place) = self.at(ts.saturating_add(dur.max(0))) {
            let all = place.partial.sums.drops.entry((stream.clone(), stage.clone())).or_default();
            *all = all.saturating_add(lost.max(0));
        }
    }

    /// Takes in a row of `overhead`.
    pub fn overhead(&mut self, ts: i64, probes: Option<i64>, cpu: i64, rss: i64, bytes: i64, events: i64) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.overhead;
        sums.rows += 1;
        sums.probes = sums.probes.saturating_add(probes.unwrap_or(0).max(0));
        sums.untold += i64::from(probes.is_none());
        sums.cpu = sums.cpu.saturating_add(cpu.max(0));
        sums.bytes = sums.bytes.saturating_add(bytes.max(0));
        sums.events = sums.events.saturating_add(events.max(0));
        sums.rss = sums.rss.max(Some((ts, rss)));
    }

    /// Takes in a row of `process`.
    pub fn process(&mut self, ts: i64, user: i64, sys: i64, rss: i64, threads: i32, fds: Option<i32>) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.process;
        sums.rows += 1;
        sums.user = sums.user.saturating_add(user.max(0));
        sums.sys = sums.sys.saturating_add(sys.max(0));
        sums.last = sums.last.max(Some((ts, rss, threads, fds)));
    }

    /// Takes in what a row of `process` says of others on the CPUs.
    pub fn contended(&mut self, ts: i64, others: Option<i64>, throttled: Option<i64>) {
        let Some(place) = self.at(ts) else { return };
        let sums = &mut place.partial.sums.process;
        sums.others_rows += i64::from(others.is_some());
        sums.others = sums.others.saturating_add(others.unwrap_or(0).max(0));
        sums.throttled = sums.throttled.saturating_add(throttled.unwrap_or(0).max(0));
    }
}

impl TaskDetail {
    /// Takes in a poll of the task.
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

    /// Takes in a wake of the task.
    pub fn wake(&mut self, by: Option<TaskId>, tid: Tid) {
        *self.wakers.entry((by, tid)).or_default() += 1;
        if self.wakers.len() >= 2 * WAKERS {
            self.settle();
        }
    }

    /// Puts it in order and lets go what is too much.
    pub fn settle(&mut self) {
        self.last.settle();
        least_keys(&mut self.wakers, WAKERS);
    }
}

fn least_keys<K: Ord + Copy + Eq + core::hash::Hash, V>(map: &mut Map<K, V>, most: usize) {
    if map.len() > most {
        let mut keys: std::vec::Vec<K> = map.keys().copied().collect();
        let (_, last, _) = keys.select_nth_unstable(most - 1);
        let last = *last;
        map.retain(|key, _| *key <= last);
    }
}

#[expect(clippy::indexing_slicing, reason = "an array with a place for each stream")]
fn count(sums: &mut Sums, stream: Stream, rows: usize) {
    sums.rows[stream as usize] += i64::try_from(rows).unwrap_or(i64::MAX);
}
