//! Snapshots of all tasks, at intervals: where each waits, and for what.
//!
//! A thread of low priority takes them, and the drain turns them into rows. Both its CPU time and the number of rows are
//! bounded by a budget: what a snapshot cost has to be earned before the next one. Type information is read once, by
//! the sandboxed child, and is not part of it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::Duration,
};

use hud_common::session::{TaskStateRow, Text};

use super::{drain::Drain, queue::BatchSender};
use crate::{
    error::{Error, Result},
    inspect::{PollFn, Process},
    kernel, privilege,
    symbols::Sources,
    tasks::{Snapshot, StateReader, TaskState, Who},
};

/// When the first snapshot is taken (ns): the first rows of events come first.
const FIRST: u64 = 300_000_000;
/// And the second: what does not move is known soon.
const SECOND: u64 = 1_000_000_000;
/// Longest interval while tasks cannot go on (ns): one in each range of 5 s that the rules judge.
const STUCK: u64 = 4_000_000_000;
/// Interval of full snapshots (ns).
const FULL: u64 = 600_000_000_000;
/// The share of one CPU that snapshots may take: 1 / this.
const SHARE: u64 = 200;
/// CPU time with which it begins, and to which unused time adds up (ns).
const CREDIT: u64 = 500_000_000;
/// Rows per second of those that report changes, on average: 2 to 4 kB.
const ROWS: u64 = 200;

/// When snapshots are taken. Times are CLOCK_MONOTONIC.
struct Pace {
    interval: u64,
    count: u32,
    /// Earned CPU time that was not used, as of `at`; negative if more was used.
    credit: i64,
    at: u64,
    next: u64,
    full: u64,
}

impl Pace {
    fn new(interval: Duration, now: u64) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Pace { interval, count: 0, credit: CREDIT.cast_signed(), at: now, next: now.saturating_add(FIRST), full: 0 }
    }

    /// How long to wait for the next one.
    fn wait(&self, now: u64) -> Duration {
        Duration::from_nanos(self.next.saturating_sub(now))
    }

    /// Whether the one that begins now has to be full.
    fn is_full(&self, now: u64) -> bool {
        now >= self.full
    }

    /// One was taken at `now`.
    fn taken(&mut self, now: u64, taken: &Taken) {
        let earned = now.saturating_sub(self.at) / SHARE;
        let credit = self.credit.saturating_add_unsigned(earned).min(CREDIT.cast_signed());
        self.credit = credit.saturating_sub_unsigned(taken.cost);
        self.at = now;
        let debt = if self.credit < 0 { self.credit.unsigned_abs() } else { 0 };
        self.count = self.count.saturating_add(1);
        let interval = match () {
            () if self.count == 1 => SECOND.min(self.interval),
            () if taken.is_stuck => STUCK.min(self.interval),
            () => self.interval,
        };
        // All tasks have rows anyway as recording begins, and each 10 minutes.
        let changes = if taken.is_full { 0 } else { u64::try_from(taken.tasks).unwrap_or(u64::MAX) };
        let of_rows = changes.saturating_mul(1_000_000_000) / ROWS;
        let pause = interval.max(debt.saturating_mul(SHARE)).max(of_rows);
        self.next = now.saturating_add(pause);
        if taken.is_full {
            self.full = now.saturating_add(FULL);
        }
    }
}

/// A snapshot that was taken.
struct Taken {
    /// CPU time (ns).
    cost: u64,
    is_full: bool,
    /// Tasks with rows.
    tasks: usize,
    /// Whether some of them are in a deadlock, or hold permits of a semaphore and wait for more.
    is_stuck: bool,
}

/// What to read, and how often.
pub(super) struct Plan {
    pub(super) process: Process,
    pub(super) polls: Vec<PollFn>,
    pub(super) names_from: PathBuf,
    pub(super) sources: Arc<Sources>,
    pub(super) interval: Duration,
}

/// A request to the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// A snapshot now, of all tasks.
    Now,
    /// The next one is to have all tasks.
    Full,
}

/// A report of the thread.
pub(super) enum News {
    Snapshot(Snapshot),
    /// There will be no snapshots.
    Failed(String),
}

/// The thread that takes snapshots. It ends when this is dropped, after the one that it is taking.
pub(super) struct TaskStates {
    ask: Sender<Ask>,
    news: Receiver<News>,
}

impl TaskStates {
    /// Starts it.
    pub(super) fn start(plan: Plan) -> Result<Self> {
        let (ask, asked) = mpsc::channel();
        // The drain takes each before the next one is due.
        let (tell, news) = mpsc::sync_channel(1);
        let work = move || {
            privilege::enter_namer();
            privilege::lower_priority();
            run(plan, &asked, &tell);
        };
        let started = thread::Builder::new().name("hud-tasks".into()).spawn(work);
        // Not joined: it may be waiting for the sandboxed child, and has nothing to finish.
        started.map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(TaskStates { ask, news })
    }

    /// Asks for a snapshot now.
    pub(super) fn ask(&self) {
        let _ = self.ask.send(Ask::Now);
    }

    /// Makes the next snapshot a full one.
    pub(super) fn repeat(&self) {
        let _ = self.ask.send(Ask::Full);
    }

    /// A report, if there is one.
    pub(super) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

fn run(plan: Plan, asked: &Receiver<Ask>, tell: &SyncSender<News>) {
    let mut pace = Pace::new(plan.interval, kernel::now());
    // Neither do the files that it reads delay the first rows. The first snapshot is full, whatever is asked meanwhile.
    if asked.recv_timeout(pace.wait(kernel::now())) == Err(RecvTimeoutError::Disconnected) {
        return;
    }
    let mut reader = match StateReader::open(&plan.process, plan.polls, &plan.names_from, plan.sources) {
        Ok(reader) => reader,
        Err(error) => return drop(tell.send(News::Failed(error.to_string()))),
    };
    let mut is_full = false;
    loop {
        match asked.recv_timeout(pace.wait(kernel::now())) {
            Ok(Ask::Full) => {
                is_full = true;
                continue;
            }
            Ok(Ask::Now) => is_full = true,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let before = kernel::thread_cpu_time();
        is_full |= pace.is_full(kernel::now());
        let snapshot = match reader.read(is_full) {
            Ok(snapshot) => snapshot,
            // The recorder finds out by itself that the target has exited.
            Err(Error::Exited(_)) => return,
            Err(error) => return drop(tell.send(News::Failed(error.to_string()))),
        };
        let cost = kernel::thread_cpu_time().saturating_sub(before);
        let tasks = &snapshot.tasks;
        let is_stuck = tasks.iter().any(TaskState::is_halted);
        let taken = Taken { cost, is_full, tasks: tasks.len(), is_stuck };
        tracing::debug!(tasks = taken.tasks, is_full, cost_us = cost / 1000, "task states");
        pace.taken(snapshot.read_at, &taken);
        is_full = false;
        if tell.send(News::Snapshot(snapshot)).is_err() {
            return;
        }
    }
}

/// Writes the rows of a snapshot.
pub(super) fn write(snapshot: Snapshot, drain: &mut Drain, out: &BatchSender) {
    let ts = drain.epoch(snapshot.read_at);
    for task in snapshot.tasks {
        write_task(task, ts, drain, out);
    }
}

fn write_task(task: TaskState, ts: i64, drain: &mut Drain, out: &BatchSender) {
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let id = |who: Option<Who>| match who {
        Some(Who::Task(id)) => (Some(id.cast_signed()), None),
        Some(Who::Thread(tid)) => (None, Some(tid.cast_signed())),
        None => (None, None),
    };
    let (task_id, tid) = id(Some(task.who));
    let (spawn_file, spawn_line) = task.spawned_at.map(|(file, line)| (Text::from(file), line)).unzip();
    let row = TaskStateRow {
        ts,
        since: drain.epoch(task.since),
        task_id,
        tid,
        type_id: drain.type_at(task.poll),
        state: Text::Borrowed(task.state),
        branch: 0,
        branches: number(task.branches),
        stack_id: None,
        resource: None,
        address: None,
        deadline: None,
        detail: None,
        holder_task_id: None,
        holder_tid: None,
        cycle: task.cycle.map(u64::cast_signed),
        spawn_file,
        spawn_line: spawn_line.and_then(|line| i32::try_from(line).ok()),
    };
    if task.waits.is_empty() {
        return drain.task_state(row, out);
    }
    for (branch, wait) in task.waits.into_iter().enumerate() {
        let (holder_task_id, holder_tid) = id(wait.holder);
        let row = TaskStateRow {
            branch: number(branch),
            stack_id: drain.await_stack_id(&wait.stack),
            resource: wait.resource.map(Text::Borrowed),
            address: wait.address.map(u64::cast_signed),
            deadline: wait.deadline.map(|at| drain.epoch(at)),
            detail: wait.detail.map(Text::from),
            holder_task_id,
            holder_tid,
            ..row.clone()
        };
        drain.task_state(row, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(10), 0)
    }

    fn taken(cost: u64, is_full: bool, tasks: usize) -> Taken {
        Taken { cost, is_full, tasks, is_stuck: false }
    }

    #[test]
    fn the_second_snapshot_comes_soon_and_others_at_the_interval() {
        let mut pace = pace();
        assert_eq!(pace.wait(0), Duration::from_nanos(FIRST));
        assert!(pace.is_full(FIRST));
        pace.taken(FIRST, &taken(5 * MS, true, 50_000));
        assert_eq!(pace.next, FIRST + SECOND);
        assert!(!pace.is_full(pace.next) && pace.is_full(FIRST + FULL));
        let second = pace.next;
        pace.taken(second, &taken(5 * MS, false, 10));
        assert_eq!(pace.next, second + 10 * S);
        // A deadlock is to be reported in each range that the rules judge.
        let third = pace.next;
        pace.taken(third, &Taken { is_stuck: true, ..taken(MS, false, 2) });
        assert_eq!(pace.next, third + STUCK);
    }

    #[test]
    fn in_the_long_run_snapshots_take_their_share_of_a_cpu() {
        let (mut pace, mut cost) = (pace(), 0);
        while pace.next < 100_000 * S {
            pace.taken(pace.next, &taken(200 * MS, false, 0));
            cost += 200 * MS;
        }
        let share = pace.next / SHARE;
        assert!((share..share + CREDIT + 200 * MS).contains(&cost), "{cost} of {share}");
    }

    #[test]
    fn many_changes_make_snapshots_rare() {
        let (mut pace, mut rows) = (pace(), 0);
        while pace.next < 10_000 * S {
            pace.taken(pace.next, &taken(MS, false, 10_000));
            rows += 10_000;
        }
        assert!(rows <= ROWS * (pace.next / S) + 10_000, "{rows} in {} s", pace.next / S);
    }
}
