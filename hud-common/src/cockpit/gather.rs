//! From rows to partials, one row at a time: the Rust half of the rules in [`super::Partial`].

use std::collections::BTreeMap;

use super::{
    Bucket, Ended, Histogram, LongPoll, Map, Mark, Name, Newest, Partial, PollSpan, STRETCH_MIN, Sleep, StackId, Sums,
    TASKS_PER_BUCKET, TaskDetail, TaskId, Tid, TypeId, WAKERS, partial::clipped,
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
}

impl Buckets {
    /// For rows that count in these buckets; what lies outside is passed over.
    pub fn new(from: Bucket, to: Bucket) -> Self {
        Buckets { partials: BTreeMap::new(), from, to, outside: 0, touched: None }
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
    fn at(&mut self, ts: i64) -> Option<&mut Partial> {
        let bucket = Bucket::of(ts);
        if bucket < self.from || bucket >= self.to {
            self.outside += 1;
            return None;
        }
        self.touched = Some(self.touched.map_or(bucket, |touched| touched.min(bucket)));
        Some(self.partials.entry(bucket).or_default())
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
        let dur = row.dur.max(0);
        let end = row.ts.saturating_add(dur);
        let busy = dur.saturating_sub(row.blocked).saturating_sub(row.run_queue).max(0);
        let delay = row.wake_delay.map(|delay| delay.max(0));
        let is_inside = Bucket::of(row.ts) == Bucket::of(end);
        if let Some(partial) = self.at(end) {
            let sums = &mut partial.sums;
            count(sums, Stream::Polls);
            let polls = sums.polls.entry((row.tid, row.type_id)).or_default();
            polls.count += 1;
            polls.dur = polls.dur.saturating_add(dur);
            polls.busy = polls.busy.saturating_add(busy);
            polls.longest = polls.longest.max(dur);
            *sums.durations.entry((row.type_id, Histogram::slot(dur))).or_default() += 1;
            let task = sums.tasks.entry(row.task).or_default();
            task.signs += 1;
            task.polls += 1;
            task.busy = task.busy.saturating_add(busy);
            task.longest_poll = task.longest_poll.max(dur);
            task.first.add(row.ts);
            task.last.add(end);
            if let Some(delay) = delay {
                polls.delay = polls.delay.saturating_add(delay);
                polls.delay_longest = polls.delay_longest.max(delay);
                task.delays += 1;
                task.delay = task.delay.saturating_add(delay);
                task.delay_longest = task.delay_longest.max(delay);
                *sums.delays.entry((row.type_id, Histogram::slot(delay))).or_default() += 1;
            }
            let seen = sums.seen.entry(row.tid).or_default();
            seen.poll_end.add(end);
            if is_inside {
                seen.first.add(row.ts);
                seen.last.add(end);
            }
            cap(sums);
            if dur >= STRETCH_MIN {
                let (ts, tid, task, type_id) = (row.ts, row.tid, row.task, row.type_id);
                partial.long_polls.push(LongPoll { ts, dur, busy, tid, task, type_id });
            }
        }
        if !is_inside {
            self.see(row.tid, row.ts, end);
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
        if let Some(partial) = self.at(end) {
            let sums = &mut partial.sums;
            count(sums, Stream::OffCpu);
            sums.seen.entry(row.tid).or_default().returned.add(end);
            if let Some(id) = row.task {
                let asleep = ready.saturating_sub(row.ts);
                let task = sums.tasks.entry(id).or_default();
                task.signs += 1;
                task.blocked = task.blocked.saturating_add(asleep);
                task.first.add(row.ts);
                task.last.add(end);
                cap(sums);
                if asleep >= STRETCH_MIN && matches!(row.state, b'S' | b'D') {
                    partial.sleeps.push(Sleep {
                        ts: row.ts,
                        dur: asleep,
                        away: dur,
                        tid: row.tid,
                        task: id,
                        stack: row.stack,
                        waker: row.waker,
                    });
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
        let Some(partial) = self.at(row.ts) else { return };
        let weight = row.weight.max(0);
        let sums = &mut partial.sums;
        count(sums, Stream::Samples);
        let run = sums.runs.entry((row.tid, row.task)).or_default();
        run.samples += 1;
        run.weight = run.weight.saturating_add(weight);
        run.first.add(row.ts);
        run.last.add(row.ts);
        let stack = sums.stacks.entry((row.stack, row.task)).or_default();
        stack.samples += 1;
        stack.weight = stack.weight.saturating_add(weight);
        let seen = sums.seen.entry(row.tid).or_default();
        seen.first.add(row.ts);
        seen.last.add(row.ts);
        if let Some(id) = row.task {
            let task = sums.tasks.entry(id).or_default();
            task.signs += 1;
            task.cpu = task.cpu.saturating_add(weight);
            task.first.add(row.ts);
            task.last.add(row.ts);
            cap(sums);
            partial.marks.push(Mark { ts: row.ts, tid: row.tid, task: id, stack: row.stack, weight });
        }
    }

    /// Takes in a row of `wakes`.
    pub fn wake(&mut self, ts: i64, task: TaskId, by: Option<TaskId>) {
        self.sign(ts, task, Some(Stream::Wakes), |sums| {
            sums.wakes += 1;
            sums.self_wakes += i64::from(by == Some(task));
        });
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

    fn sign(&mut self, ts: i64, id: TaskId, of: Option<Stream>, then: impl FnOnce(&mut super::TaskSums)) {
        let Some(partial) = self.at(ts) else { return };
        if let Some(stream) = of {
            count(&mut partial.sums, stream);
        }
        let task = partial.sums.tasks.entry(id).or_default();
        task.signs += 1;
        task.first.add(ts);
        task.last.add(ts);
        then(task);
        cap(&mut partial.sums);
    }

    /// Takes in a row of `coverage`.
    pub fn coverage(&mut self, ts: i64, dur: i64, stream: &Name, reason: &Name) {
        let end = ts.saturating_add(dur.max(0));
        self.each(ts, end, |bucket, sums| {
            let on = sums.coverage.entry_ref(stream).or_default();
            on.on = on.on.saturating_add(clipped(bucket, ts, end));
            let told = Some((ts, reason.clone()));
            if told > on.reason {
                on.reason = told;
            }
        });
    }

    /// Takes in a row of `drops`.
    pub fn drops(&mut self, ts: i64, dur: i64, stream: &Name, stage: &Name, lost: i64) {
        if let Some(partial) = self.at(ts.saturating_add(dur.max(0))) {
            let all = partial.sums.drops.entry((stream.clone(), stage.clone())).or_default();
            *all = all.saturating_add(lost.max(0));
        }
    }

    /// Takes in a row of `overhead`.
    pub fn overhead(&mut self, ts: i64, probes: Option<i64>, cpu: i64, rss: i64, bytes: i64, events: i64) {
        let Some(partial) = self.at(ts) else { return };
        let sums = &mut partial.sums.overhead;
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
        let Some(partial) = self.at(ts) else { return };
        let sums = &mut partial.sums.process;
        sums.rows += 1;
        sums.user = sums.user.saturating_add(user.max(0));
        sums.sys = sums.sys.saturating_add(sys.max(0));
        sums.last = sums.last.max(Some((ts, rss, threads, fds)));
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
fn count(sums: &mut Sums, stream: Stream) {
    sums.rows[stream as usize] += 1;
}

/// Tasks that are too many go before they are twice too many.
fn cap(sums: &mut Sums) {
    if sums.tasks.len() >= 2 * TASKS_PER_BUCKET {
        sums.cap_tasks();
    }
}
