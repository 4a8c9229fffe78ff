//! The rules while recording: what the writer wrote, judged every few seconds, becomes rows of `findings`.
//!
//! A thread of its own counts batches into the cockpit's partials, so that neither its time nor a fault in it touches the
//! recording. It writes nothing: the writer takes its rows. A range of [`RANGE`] buckets, fewer at first, is judged once
//! `coverage` reaches its end, which takes up to 10 s, as until then it is not known which streams were on. A range of
//! which batches were lost on the way here is not judged. The same partials give the rows of the rollups, a minute at a time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arrow::array::RecordBatch;
use hud_common::{
    cockpit::{Bucket, Buckets, Ingest, Minutes, Mode, Query, RANGE, Resolution, SessionFacts, View, Window},
    session::{Columns, CoverageColumns, CoverageRow, FindingColumns, FindingRow, STILL_ON, Table},
};

use crate::privilege;

/// Buckets of those that begin in the first five seconds: a program that is stuck already is to be reported soon.
const FIRST: i64 = 15;
/// Buckets after the end of a range in which `coverage` must reach it; then it is judged without.
const MOST_LAG: i64 = 300;
/// Rows that end later than this after the newest batch was read are none that a recorder wrote (buckets).
const AHEAD: i64 = 20;
/// Messages on their way here. The writer sends one for each burst of the drain, 20 a second.
const MOST_MESSAGES: usize = 256;
/// Things that the partials may keep, at about 150 bytes each. Beyond it, the oldest range is given up.
const MOST_KEPT: usize = 1 << 18;
/// How often the thread looks whether a range is due, if no batch arrives.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tables with names, without which findings would have none: they are sent again if there is no room.
const NAMES: [Table; 5] = [Table::TaskTypes, Table::Threads, Table::Stacks, Table::Frames, Table::Modules];
/// Tables of events that rules and rollups need.
const EVENTS: [Table; 13] = [
    Table::Polls,
    Table::OffCpu,
    Table::Samples,
    Table::Wakes,
    Table::Spawns,
    Table::Ends,
    Table::Tasks,
    Table::InProgress,
    Table::TaskStates,
    Table::Process,
    Table::Coverage,
    // For rollups only.
    Table::Drops,
    Table::Overhead,
];

/// Batches that were written together, and when (ns since the epoch).
type Message = (i64, Vec<(Table, RecordBatch)>);

/// Rows for the writer.
#[derive(Default)]
struct Found {
    findings: Vec<FindingRow>,
    coverage: Vec<CoverageRow>,
    rollups: Vec<(Table, RecordBatch)>,
}

/// The way to the thread that judges.
pub(super) struct Rules {
    to: SyncSender<Message>,
    /// Names for which there was no room.
    held: VecDeque<(Table, RecordBatch)>,
    /// Set by the writer if events were lost on the way.
    has_lost: Arc<AtomicBool>,
    found: Arc<Mutex<Found>>,
    thread: JoinHandle<()>,
}

impl Rules {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (to, incoming) = sync_channel(MOST_MESSAGES);
        let (has_lost, found) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Found>>::default());
        let judge = Judge::new();
        let thread = {
            let (has_lost, found) = (Arc::clone(&has_lost), Arc::clone(&found));
            thread::Builder::new().name("hud-rules".into()).spawn(move || {
                privilege::enter_unprivileged();
                privilege::lower_priority();
                run(judge, &incoming, &has_lost, &found);
            })?
        };
        Ok(Rules { to, held: VecDeque::new(), has_lost, found, thread })
    }

    /// Sends batches that were written, if the rules need them. Never waits.
    pub(super) fn send(&mut self, now: i64, written: Vec<(Table, RecordBatch)>) {
        let written = written.into_iter().filter(|(table, _)| NAMES.contains(table) || EVENTS.contains(table));
        let batches: Vec<_> = self.held.drain(..).chain(written).collect();
        if batches.is_empty() {
            return;
        }
        // A thread that panicked needs no names.
        let Err(TrySendError::Full((_, batches))) = self.to.try_send((now, batches)) else { return };
        self.has_lost.store(true, Ordering::Relaxed);
        self.held.extend(batches.into_iter().filter(|(table, _)| NAMES.contains(table)));
    }

    /// Rows that are due to be written, by table.
    pub(super) fn take(&self) -> Vec<(Table, RecordBatch)> {
        take(&self.found)
    }

    /// Ends the thread, and gives its last rows.
    pub(super) fn finish(self) -> Vec<(Table, RecordBatch)> {
        drop(self.to);
        // One that panicked has said so, and has no more rows.
        let _ = self.thread.join();
        take(&self.found)
    }
}

fn take(found: &Mutex<Found>) -> Vec<(Table, RecordBatch)> {
    // Rows are whole after each step.
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let rows = [batch::<FindingColumns>(found.findings), batch::<CoverageColumns>(found.coverage)];
    rows.into_iter().filter(|(_, batch)| batch.num_rows() > 0).chain(found.rollups).collect()
}

fn batch<C: Columns>(rows: impl IntoIterator<Item = C::Row>) -> (Table, RecordBatch) {
    let mut columns = C::default();
    rows.into_iter().for_each(|row| columns.push(row));
    (C::TABLE, columns.finish())
}

fn run(mut judge: Judge, incoming: &Receiver<Message>, has_lost: &AtomicBool, found: &Mutex<Found>) {
    let put = |rows: Found| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.findings.extend(rows.findings);
        found.coverage.extend(rows.coverage);
        found.rollups.extend(rows.rollups);
    };
    loop {
        match incoming.recv_timeout(LOOK_EVERY) {
            Ok((now, batches)) => judge.add(now, &batches),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if has_lost.swap(false, Ordering::Relaxed) {
            judge.skip();
        }
        put(judge.due());
    }
    put(judge.rest());
}

/// The partials of the ranges that are not judged yet.
struct Judge {
    intake: Ingest,
    /// The rollups of judged ranges.
    minutes: Minutes,
    /// The range that is judged next; `None` before the first event.
    next: Option<Window>,
    /// Where the first one began.
    began: Bucket,
    /// Ranges that begin before this are not judged.
    skip_to: Bucket,
}

impl Judge {
    fn new() -> Self {
        Judge {
            intake: Ingest::new(Bucket(0), Bucket(0)),
            minutes: Minutes::default(),
            next: None,
            began: Bucket(0),
            skip_to: Bucket(i64::MIN),
        }
    }

    fn add(&mut self, now: i64, batches: &[(Table, RecordBatch)]) {
        let to = Bucket(Bucket::of(now).0.saturating_add(AHEAD));
        if self.next.is_none() && batches.iter().any(|(table, _)| EVENTS.contains(table)) {
            let from = Bucket(Bucket::of(now).0.saturating_sub(1));
            self.intake.buckets = Buckets::new(from, to).with_resolution(Resolution::Rules);
            self.began = from;
            self.next = Some(self.range(from));
        }
        if let Some(next) = self.next {
            self.intake.advance(next.from, to);
        }
        for (table, batch) in batches {
            self.intake.batch(*table, batch);
        }
    }

    /// Gives up all ranges with an event so far.
    fn skip(&mut self) {
        self.skip_to = self.newest();
    }

    /// The bucket after the newest event.
    fn newest(&self) -> Bucket {
        self.intake.newest.map_or(Bucket(i64::MIN), |newest| Bucket::of(newest).next())
    }

    /// Judges the ranges that are due.
    fn due(&mut self) -> Found {
        let mut rows = Found::default();
        while let Some(range) = self.next {
            let is_covered = self.intake.coverage_until.is_some_and(|told| told >= range.end());
            if !is_covered && self.newest().0 < range.to.0.saturating_add(MOST_LAG) {
                break;
            }
            self.judge(range, &mut rows);
        }
        while let Some(range) = self.next.filter(|_| self.intake.buckets.len() > MOST_KEPT) {
            tracing::debug!("the rules are not evaluated from {} to {}: too many tasks", range.start(), range.end());
            self.pass(range);
        }
        rows.rollups = self.minutes.take();
        rows
    }

    /// Judges the rest, at the end of the session.
    fn rest(mut self) -> Found {
        let mut rows = self.due();
        while let Some(range) = self.next {
            let to = range.to.min(self.newest());
            if to <= range.from {
                break;
            }
            self.judge(Window { to, ..range }, &mut rows);
        }
        self.minutes.close();
        rows.rollups.extend(self.minutes.take());
        rows
    }

    fn judge(&mut self, range: Window, rows: &mut Found) {
        // The end of the session may lie within a range.
        let is_last = range.to == self.newest() && range.to.0 % RANGE != 0;
        let ranges = self.intake.buckets.take_ranges(if is_last { Bucket(i64::MAX) } else { range.to });
        if range.from >= self.skip_to {
            self.intake.buckets.settle(range.from, range.to);
            let query = Query { at: Some(range.end()), window: range.dur(), ..Query::default() };
            let (found, rollup) = View {
                query: &query,
                at: range.end(),
                partials: self.intake.buckets.partials(),
                total: None,
                names: &mut self.intake.names,
                detail: None,
                session: SessionFacts::default(),
                mode: Mode::Replay,
                coverage_until: self.intake.coverage_until,
                read_from: None,
            }
            .rollup(&ranges);
            self.minutes.add(range, rollup);
            found.iter().for_each(|finding| rows.findings.push(finding.row(range, &query.thresholds)));
            rows.coverage.push(CoverageRow {
                ts: range.start(),
                dur: range.dur(),
                stream: Table::Findings.name().into(),
                reason: STILL_ON.into(),
            });
        }
        self.pass(range);
    }

    /// Goes on with the range after this one.
    fn pass(&mut self, range: Window) {
        let next = self.range(range.to);
        let to = self.intake.buckets.to();
        // Those of a range that was not judged.
        drop(self.intake.buckets.take_ranges(range.to));
        self.intake.advance(next.from, to);
        self.intake.prune();
        self.next = Some(next);
    }

    /// The range that begins with a bucket.
    fn range(&self, from: Bucket) -> Window {
        let to = Bucket(from.0.div_euclid(RANGE).saturating_add(1).saturating_mul(RANGE));
        let is_first = from.0 < self.began.0.saturating_add(RANGE);
        Window { from, to: if is_first { to.min(Bucket(from.0.saturating_add(FIRST))) } else { to } }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use hud_common::session::{
        InProgressColumns, InProgressRow, PollColumns, PollRow, SpawnColumns, SpawnRow, TaskTypeColumns, TaskTypeRow,
        ThreadColumns, ThreadRow,
    };

    use super::*;

    const T0: i64 = 1_790_000_000_000_000_000;
    const MS: i64 = 1_000_000;
    const SECOND: i64 = 1_000 * MS;
    const WORKER: i32 = 7;

    fn names() -> Vec<(Table, RecordBatch)> {
        vec![
            batch::<TaskTypeColumns>([TaskTypeRow {
                type_id: 1,
                name: "app::hog".into(),
                scheduler: None,
                file: None,
                line: None,
                kind: "task".into(),
                raw_name: "app::hog".into(),
            }]),
            batch::<ThreadColumns>([ThreadRow {
                ts: T0,
                tid: WORKER,
                name: "tokio-rt-worker".into(),
                role: "worker".into(),
                worker: Some(0),
                runtime_id: Some(0),
                event: "seen".into(),
            }]),
        ]
    }

    fn poll(at: i64, dur: i64) -> PollRow {
        PollRow {
            ts: T0 + at,
            dur,
            task_id: 9,
            type_id: Some(1),
            tid: WORKER,
            cpu: 0,
            blocked: 0,
            run_queue: 0,
            wake_delay: None,
            completed: None,
        }
    }

    fn on(stream: &'static str, to: i64) -> (Table, RecordBatch) {
        batch::<CoverageColumns>([CoverageRow { ts: T0, dur: to, stream: stream.into(), reason: STILL_ON.into() }])
    }

    /// Rule, start, length, worst, thread and type of each finding.
    fn rows(found: &Found) -> Vec<(&str, i64, i64, i64, i32, i64)> {
        let of = |f: &'_ FindingRow| (f.ts - T0, f.dur, f.worst_ts.unwrap() - T0, f.tid.unwrap(), f.type_id.unwrap());
        let rows = found.findings.iter().map(|f| (f.rule.as_ref(), of(f)));
        rows.map(|(rule, (ts, dur, worst, tid, type_id))| (rule, ts, dur, worst, tid, type_id)).collect()
    }

    #[test]
    fn a_long_poll_is_a_finding_of_the_range_in_which_it_ended() {
        let mut judge = Judge::new();
        judge.add(T0, &names());
        judge.add(T0 + 300 * MS, &[batch::<PollColumns>([poll(0, MS)])]);
        judge.add(T0 + 6 * SECOND, &[batch::<PollColumns>([poll(4_800 * MS, 400 * MS), poll(5_500 * MS, MS)])]);
        assert!(judge.due().coverage.is_empty(), "it is not known yet what was on");
        judge.add(T0 + 7 * SECOND, &[on("polls", 5 * SECOND)]);
        let found = judge.due();
        assert_eq!(
            (rows(&found), found.coverage.len()),
            (vec![], 4),
            "three first ranges, and the rest of the five seconds"
        );
        judge.add(T0 + 11 * SECOND, &[on("polls", 10 * SECOND)]);
        let found = judge.due();
        let expected = ("long_poll", 5 * SECOND, 1_500 * MS, 4_800 * MS, WORKER, 1);
        assert_eq!((rows(&found), found.coverage.len()), (vec![expected], 2));
        assert!(judge.intake.buckets.partials().keys().all(|bucket| bucket.start() >= T0 + 10 * SECOND));
    }

    #[test]
    fn a_poll_in_progress_is_reported_before_the_first_five_seconds_are_over() {
        let mut judge = Judge::new();
        let row = |at: i64| InProgressRow {
            ts: T0 + at,
            lasted: at,
            since: None,
            tid: WORKER,
            worker: Some(0),
            task_id: 9,
            type_id: Some(1),
            state: "blocked".into(),
            stack_id: None,
            estimated: false,
            ended: false,
        };
        judge.add(T0, &names());
        for at in [105, 1_105] {
            judge.add(T0 + at * MS, &[batch::<InProgressColumns>([row(at * MS)])]);
        }
        judge.add(T0 + 2_010 * MS, &[on("in_progress", 2 * SECOND)]);
        let found = judge.due();
        let of: Vec<_> = found.findings.iter().map(|f| (f.rule.as_ref(), f.severity.as_ref(), f.value)).collect();
        assert_eq!(of, [("stuck_thread", "warning", 1_105 * MS)]);
        let sentence =
            "worker 0 (7) has been in one poll of app::hog since before the attach, at least 1.11 s, asleep in ";
        assert!(found.findings[0].sentence.starts_with(sentence), "{}", found.findings[0].sentence);
    }

    #[test]
    fn the_end_of_a_session_is_judged_up_to_its_last_event() {
        let mut judge = Judge::new();
        judge.add(T0, &names());
        judge.add(T0 + SECOND, &[batch::<PollColumns>([poll(SECOND, 200 * MS)])]);
        let found = judge.rest();
        let expected = ("long_poll", 900 * MS, 400 * MS, SECOND, WORKER, 1);
        assert_eq!((rows(&found), found.coverage.len()), (vec![expected], 1));
    }

    #[test]
    fn a_range_with_lost_batches_is_not_judged() {
        let mut judge = Judge::new();
        judge.add(T0, &names());
        judge.add(T0 + SECOND, &[batch::<PollColumns>([poll(SECOND, 200 * MS)])]);
        judge.skip();
        judge.add(T0 + 8 * SECOND, &[batch::<PollColumns>([poll(8 * SECOND, 300 * MS)]), on("polls", 20 * SECOND)]);
        let found = judge.due();
        let expected = ("long_poll", 6_500 * MS, 3_500 * MS, 8 * SECOND, WORKER, 1);
        assert_eq!(rows(&found).first(), Some(&expected));
    }

    #[test]
    fn without_coverage_a_range_is_judged_half_a_minute_later() {
        let mut judge = Judge::new();
        judge.add(T0, &names());
        judge.add(T0 + SECOND, &[batch::<PollColumns>([poll(SECOND, 200 * MS)])]);
        judge.add(T0 + 32 * SECOND, &[batch::<PollColumns>([poll(32 * SECOND, MS)])]);
        assert!(judge.due().coverage.is_empty());
        judge.add(T0 + 34 * SECOND, &[batch::<PollColumns>([poll(34 * SECOND, MS)])]);
        assert_eq!(rows(&judge.due()).len(), 1);
    }

    /// A program that starts a hundred thousand tasks a second must not fill the recorder's memory.
    #[test]
    fn ranges_with_too_many_tasks_are_given_up() {
        let mut judge = Judge::new();
        judge.add(T0, &names());
        for second in 0..4 {
            let spawns = (0..100_000).map(|n| SpawnRow {
                ts: T0 + second * SECOND + n * 10_000,
                task_id: second * 100_000 + n,
                type_id: Some(1),
                parent_task_id: None,
                tid: WORKER,
            });
            judge.add(T0 + (second + 1) * SECOND, &[batch::<SpawnColumns>(spawns)]);
            judge.due();
        }
        assert!(judge.intake.buckets.len() <= MOST_KEPT, "{}", judge.intake.buckets.len());
        assert_eq!(judge.next.unwrap().start(), T0 + 2_400 * MS);
    }

    #[test]
    fn the_thread_gives_its_rows_at_the_end() {
        let mut rules = Rules::start().unwrap();
        rules.send(T0, names());
        let polls = (0..2_000).map(|n| poll(n * MS, 400_000)).chain([poll(2 * SECOND, 50 * MS)]);
        rules.send(T0 + SECOND, vec![batch::<PollColumns>(polls)]);
        let rows = rules.finish();
        let tables: Vec<_> = rows.iter().map(|(table, batch)| (*table, batch.num_rows())).collect();
        let rollups = [
            Table::RollupPolls,
            Table::RollupBlocking,
            Table::RollupWorkers,
            Table::RollupFindings,
            Table::RollupProcess,
        ];
        let expected: Vec<_> = [Table::Findings, Table::Coverage].into_iter().chain(rollups).map(|t| (t, 1)).collect();
        assert_eq!(tables, expected);
    }

    /// While nobody reads, events are lost and names wait.
    #[test]
    fn the_sender_never_waits() {
        let (to, incoming) = sync_channel(1);
        let (has_lost, found) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Found>>::default());
        let thread = thread::spawn(|| {});
        let mut rules = Rules { to, held: VecDeque::new(), has_lost: Arc::clone(&has_lost), found, thread };
        let events = || vec![batch::<PollColumns>([poll(0, MS)])];
        rules.send(T0, events());
        assert!(!has_lost.load(Ordering::Relaxed));
        rules.send(T0, [names(), events()].concat());
        assert!(has_lost.load(Ordering::Relaxed), "the events of the second message");
        assert_eq!(incoming.recv().unwrap().1.len(), 1);
        rules.send(T0, events());
        let tables: Vec<_> = incoming.recv().unwrap().1.iter().map(|(table, _)| *table).collect();
        assert_eq!(tables, [Table::TaskTypes, Table::Threads, Table::Polls]);
    }
}
