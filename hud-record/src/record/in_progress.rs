//! Polls in progress: each second, what the workers' threads are polling, and since when. A thread that stays where it is
//! causes no event.
//!
//! Certain are a recorded poll that has not returned; a thread that has not been switched since it left its CPU inside a
//! task; and, while polls are recorded, a task whose poll began before that and of which none was recorded since. A
//! thread that stays on its CPU without polls may be in many polls of a task: that is an estimate.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use hud_common::{
    session::{InProgressRow, Text},
    unwind::Outcome,
    wire::{EventKind, MAX_POLLS, PollFrame, STATE_PREEMPTED, Stream, ThreadState, switch_tag},
};

use super::drain::Drain;
use crate::{
    inspect::{TaskKind, Tokio},
    kernel,
    probes::{Probes, stream_counters},
    tasks::{CurrentTasks, Scheduled},
};

/// Shortest time for which a poll in progress has lasted when it gets a row (ns).
const AFTER: u64 = 100_000_000;
/// Interval of looking at all threads (ns).
const EVERY: u64 = 1_000_000_000;
/// Age of the last sample of a thread that is still on its CPU (ns): several periods at 99 Hz.
const RECENT: u64 = 200_000_000;
/// Threads that are remembered.
const MOST_THREADS: usize = 65_536;

/// The polls in progress of a process. Times are CLOCK_MONOTONIC.
#[derive(Default)]
pub(super) struct InProgress {
    /// Threads of this round that are still to be looked at, the last first. A round of thousands takes longer than
    /// [`EVERY`]; known workers are looked at that often all the same.
    round: Vec<u32>,
    rounds: u32,
    next: u64,
    /// When the first round began: what was in progress then began before the attach.
    began: u64,
    open: HashMap<u32, Open>,
    unseen: HashMap<u32, Unseen>,
    /// Types whose polls are recorded.
    recorded: HashSet<usize>,
    /// Lost polls by the last round, and when that number last changed.
    lost: (u64, u64),
}

/// What is looked at.
pub(super) struct Sources<'a> {
    pub(super) pid: u32,
    pub(super) probes: &'a mut Probes,
    /// Reads from outside, once the target's tokio is known.
    pub(super) tasks: Option<&'a mut CurrentTasks>,
}

/// A poll in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    task: u64,
    /// When it had begun by; `None` if that was before the attach.
    since: Option<u64>,
    first: u64,
    /// The last observation.
    last: u64,
    is_estimated: bool,
    has_row: bool,
}

impl Open {
    fn lasted(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.unwrap_or(self.first))
    }

    /// Combines it with an observation of the same thread at `now`, if that is the same poll.
    fn joined(self, seen: &Observed, now: u64) -> Option<Open> {
        let is_same = self.task == seen.task
            && self.is_estimated == seen.is_estimated
            && seen.since.unwrap_or(seen.first) <= self.last;
        is_same.then(|| Open {
            since: self.since.and_then(|since| Some(since.min(seen.since?))),
            first: self.first.min(seen.first),
            last: now,
            ..self
        })
    }
}

/// A thread that no event has shown since it was first looked at.
struct Unseen {
    scheduled: Scheduled,
    first: u64,
    /// Whether that was as recording began.
    is_old: bool,
    /// Its task, stack pointer and stack, if they could be read.
    read: Option<(u64, u64, Option<Frames>)>,
}

type Frames = (Vec<u64>, Outcome);

/// The state of a thread in a task.
struct Observed {
    task: u64,
    since: Option<u64>,
    /// When the task was first observed there, if `since` is `None`.
    first: u64,
    state: &'static str,
    stack: Stack,
    is_estimated: bool,
    /// For a search for the task's header.
    sp: Option<u64>,
}

enum Stack {
    Id(Option<i64>),
    Frames(Option<Frames>),
}

const BLOCKED: &str = "blocked";
const RUNNABLE: &str = "runnable";
const RUNNING: &str = "running";

impl InProgress {
    /// Knows the types of tasks whose polls are recorded: those of `tokio`, or none.
    pub(super) fn record(&mut self, tokio: Option<&Tokio>) {
        self.recorded = tokio.map(|tokio| tokio.exact_polls().map(|(index, _)| index).collect()).unwrap_or_default();
    }

    /// Looks at the threads that are due, for at most this long.
    pub(super) fn look(&mut self, sources: &mut Sources<'_>, drain: &mut Drain, at_most: Duration) {
        let now = kernel::now();
        if now >= self.next {
            if self.round.is_empty() {
                self.rounds = self.rounds.saturating_add(1);
                if self.rounds == 1 {
                    self.began = now;
                }
                self.begin_round(drain, now);
            } else {
                self.round.extend(drain.threads().filter(|(is_worker, _)| *is_worker).map(|(_, tid)| tid));
            }
            self.note_losses(sources.probes, now);
            // The second round comes soon: what lasts since before the attach is known by then.
            self.next = now.saturating_add(if self.rounds == 1 { AFTER + AFTER / 20 } else { EVERY });
        }
        let began = Instant::now();
        while let Some(tid) = self.round.pop() {
            self.look_at(tid, sources, drain);
            if began.elapsed() >= at_most {
                break;
            }
        }
    }

    fn begin_round(&mut self, drain: &mut Drain, now: u64) {
        let mut threads: Vec<(bool, u32)> = drain.threads().collect();
        // Workers last, as they are taken first.
        threads.sort_unstable();
        self.round = threads.into_iter().map(|(_, tid)| tid).collect();
        let alive: HashSet<u32> = self.round.iter().copied().collect();
        self.unseen.retain(|tid, _| alive.contains(tid));
        let gone: Vec<u32> = self.open.keys().filter(|tid| !alive.contains(tid)).copied().collect();
        for tid in gone {
            self.close(tid, now, drain);
        }
    }

    /// A poll that was lost is no evidence of any other.
    fn note_losses(&mut self, probes: &Probes, now: u64) {
        let lost = probes.counters().map(|counters| stream_counters(&counters, Stream::Polls));
        let lost = lost.map_or(u64::MAX, |polls| polls.lost.saturating_add(polls.untracked));
        if lost != self.lost.0 {
            self.lost = (lost, now);
        }
    }

    fn look_at(&mut self, tid: u32, sources: &mut Sources<'_>, drain: &mut Drain) {
        let seen = self.observe(tid, sources, drain).filter(|seen| seen.task != 0 && !drain.is_loop(seen.task));
        let now = kernel::now();
        let Some(seen) = seen.and_then(|seen| task_of(tid, seen, sources, drain)) else {
            return self.close(tid, now, drain);
        };
        let joined = self.open.get(&tid).and_then(|open| open.joined(&seen, now));
        let mut open = match joined {
            Some(open) => open,
            None => {
                self.close(tid, now, drain);
                let Observed { task, since, first, is_estimated, .. } = seen;
                Open { task, since, first, last: now, is_estimated, has_row: false }
            }
        };
        if open.lasted(now) >= AFTER {
            open.has_row = true;
            let stack_id = match &seen.stack {
                Stack::Id(id) => *id,
                Stack::Frames(Some((frames, outcome))) => drain.stack_id(frames, *outcome),
                Stack::Frames(None) => None,
            };
            let row = self.row(tid, &open, now, drain);
            drain.in_progress(InProgressRow { state: Text::Borrowed(seen.state), stack_id, ..row });
        }
        if self.open.len() < MOST_THREADS || self.open.contains_key(&tid) {
            self.open.insert(tid, open);
        }
    }

    /// A thread's poll is not in progress any more, or not certainly.
    fn close(&mut self, tid: u32, now: u64, drain: &mut Drain) {
        let Some(open) = self.open.remove(&tid).filter(|open| open.has_row) else { return };
        let row = self.row(tid, &open, open.last, drain);
        drain.in_progress(InProgressRow { ts: drain.epoch(now), ended: true, ..row });
    }

    fn row(&self, tid: u32, open: &Open, now: u64, drain: &Drain) -> InProgressRow {
        InProgressRow {
            ts: drain.epoch(now),
            lasted: open.lasted(now).cast_signed(),
            since: open.since.map(|since| drain.epoch(since)),
            tid: tid.cast_signed(),
            worker: drain.worker(tid),
            task_id: open.task.cast_signed(),
            type_id: drain.type_of(open.task),
            state: Text::Borrowed(RUNNING),
            stack_id: None,
            estimated: open.is_estimated,
            ended: false,
        }
    }

    fn observe(&mut self, tid: u32, sources: &mut Sources<'_>, drain: &Drain) -> Option<Observed> {
        let counted_since = sources.probes.switches_since();
        let state = sources.probes.thread_state(tid);
        let poll = state.as_deref().and_then(|state| innermost(state, sources.probes.probes_since(), drain));
        let is_counted = |state: &&ThreadState| {
            counted_since != 0
                && state.off.head.kind == EventKind::OffCpu as u32
                && state.is_off == switch_tag(counted_since)
        };
        if let Some(state) = state.as_deref().filter(is_counted) {
            self.unseen.remove(&tid);
            return Some(self.off_cpu(tid, state, poll, sources, drain));
        }
        // Off its CPU since before switches counted, or on it.
        let has_moved = |state: &ThreadState| counted_since != 0 && state.on_since >= counted_since;
        if !state.as_deref().is_some_and(has_moved)
            && let Some(unseen) = self.unseen(tid, counted_since != 0, sources, drain)
        {
            return unseen;
        }
        self.unseen.remove(&tid);
        self.on_cpu(tid, poll, sources.probes.probes_since(), drain)
    }

    /// A thread on its CPU.
    fn on_cpu(&self, tid: u32, poll: Option<PollFrame>, recorded_since: u64, drain: &Drain) -> Option<Observed> {
        let activity = drain.activity(tid);
        let stack = Stack::Id(activity.and_then(|of| of.stack_id));
        let (state, sp) = (RUNNING, None);
        if let Some(poll) = poll {
            let (task, since) = (poll.task_id, Some(poll.ts));
            return Some(Observed { task, since, first: poll.ts, state, stack, is_estimated: false, sp });
        }
        let of = activity.filter(|of| of.task != 0 && kernel::now().saturating_sub(of.last) <= RECENT)?;
        let (since, first, is_estimated) = match self.recorded(tid, of.task, of.last, recorded_since, drain) {
            Some((since, first)) => (since, first, false),
            None => (Some(of.since.max(drain.last_poll(tid))), of.since, true),
        };
        Some(Observed { task: of.task, since, first, state, stack, is_estimated, sp })
    }

    /// Since when a poll lasts whose begin was not recorded: a thread was seen in a task at `seen`, and probes would have
    /// seen a later begin, and the end. `None` if it is not known.
    fn recorded(
        &self,
        tid: u32,
        task: u64,
        seen: u64,
        recorded_since: u64,
        drain: &Drain,
    ) -> Option<(Option<u64>, u64)> {
        let is_certain = recorded_since != 0
            && seen >= recorded_since
            && drain.last_poll(tid) < recorded_since
            && self.lost.1 < recorded_since
            && drain.type_index(task).is_some_and(|index| self.recorded.contains(&index));
        is_certain.then(|| (Some(recorded_since).filter(|since| *since > self.began), recorded_since))
    }

    /// A thread off its CPU, as the kernel programs have recorded it.
    fn off_cpu(
        &self,
        tid: u32,
        state: &ThreadState,
        poll: Option<PollFrame>,
        sources: &mut Sources<'_>,
        drain: &Drain,
    ) -> Observed {
        let head = &state.off.head;
        let mut task = head.task_id;
        let sp = Some(state.leaf.sp).filter(|&sp| sp != 0);
        if task == 0
            && drain.task_ids_since().is_none_or(|since| head.ts < since)
            && let (Some(tasks), Some(sp)) = (sources.tasks.as_deref_mut(), sp)
        {
            task = tasks.task_id(tid, sp).unwrap_or(0);
        }
        let is_asleep = head.state & STATE_PREEMPTED == 0 && head.state != 0 && head.wake_ts == 0;
        let recorded = || self.recorded(tid, task, head.ts, sources.probes.probes_since(), drain);
        // On a busy machine, a thread that computes is often without a CPU.
        let is_new = kernel::now().saturating_sub(head.ts) < AFTER;
        let computed = drain
            .activity(tid)
            .filter(|of| is_new && !is_asleep && of.task == task && head.ts.saturating_sub(of.last) <= RECENT);
        let (since, first, is_estimated) = match (poll.filter(|poll| poll.task_id == task), recorded(), computed) {
            (Some(poll), ..) => (Some(poll.ts.min(head.ts)), head.ts, false),
            (None, Some((since, first)), _) => (since, first, false),
            (None, None, Some(of)) => (Some(of.since.max(drain.last_poll(tid))), of.since, true),
            (None, None, None) => (Some(head.ts), head.ts, false),
        };
        let frames = state.off.stack.get(..usize::from(head.frames)).filter(|frames| !frames.is_empty());
        Observed {
            task,
            since,
            first,
            state: if is_asleep { BLOCKED } else { RUNNABLE },
            stack: Stack::Frames(frames.map(|frames| (frames.to_vec(), Outcome::of(head.unwind)))),
            is_estimated,
            sp,
        }
    }

    /// A thread that sleeps and was not seen to move. `None` if it is awake.
    fn unseen(
        &mut self,
        tid: u32,
        is_counted: bool,
        sources: &mut Sources<'_>,
        drain: &Drain,
    ) -> Option<Option<Observed>> {
        let known = self.unseen.get(&tid);
        // While switches are recorded, one that had no task has none.
        if is_counted
            && matches!(known, Some(Unseen { read: Some((task, ..)), .. }) if *task == 0 || drain.is_loop(*task))
        {
            return Some(None);
        }
        let now = || Scheduled::of(sources.pid, tid);
        let scheduled = now().filter(|now| now.is_asleep)?;
        if known.is_none_or(|known| known.scheduled != scheduled) {
            if self.unseen.len() >= MOST_THREADS {
                self.unseen.clear();
            }
            let (first, is_old) = (kernel::now(), self.rounds == 1);
            self.unseen.insert(tid, Unseen { scheduled, first, is_old, read: None });
        }
        let unseen = self.unseen.get_mut(&tid)?;
        let Some(tasks) = sources.tasks.as_deref_mut() else { return Some(None) };
        if unseen.read.is_none()
            && let Some(at) = tasks.blocked(tid)
            && let Some(task) = tasks.task_id(tid, at.sp)
        {
            let is_task = task != 0 && !drain.is_loop(task);
            let tables = sources.probes.unwind_tables().filter(|_| is_task);
            let stack = tables.map(|tables| tasks.stack(&tables, at));
            // Whatever was read is of one sleep.
            if now() == Some(scheduled) {
                unseen.read = Some((task, at.sp, stack.map(|walked| (walked.addresses, walked.outcome))));
            }
        }
        let Some((task, sp, frames)) = &unseen.read else { return Some(None) };
        let (task, first, since) = (*task, unseen.first, (!unseen.is_old).then_some(unseen.first));
        let (state, stack, sp) = (BLOCKED, Stack::Frames(frames.clone()), Some(*sp));
        Some(Some(Observed { task, since, first, state, stack, is_estimated: false, sp }))
    }
}

/// The innermost poll of a task in progress, by the probes.
fn innermost(state: &ThreadState, recorded_since: u64, drain: &Drain) -> Option<PollFrame> {
    let depth = usize::try_from(state.depth).ok().filter(|depth| (1..=MAX_POLLS).contains(depth))?;
    if recorded_since == 0 || state.epoch != recorded_since {
        return None;
    }
    let poll = state.polls.get(depth - 1)?;
    let kind = usize::try_from(poll.poll_fn).ok().and_then(|index| drain.kind(index))?;
    (kind == TaskKind::Task && poll.task_id != 0).then_some(*poll)
}

/// The observed task, whose type is searched for if no event has shown it; `None` if it is no task but a worker's loop or
/// work of the pool.
fn task_of(tid: u32, seen: Observed, sources: &mut Sources<'_>, drain: &mut Drain) -> Option<Observed> {
    if drain.type_index(seen.task).is_none()
        && let (Some(tasks), Some(sp)) = (sources.tasks.as_deref_mut(), seen.sp)
        && let Some(found) = tasks.running_task(tid, sp, seen.task)
    {
        drain.found_task(tid, &found);
    }
    let index = drain.type_index(seen.task);
    index.and_then(|index| drain.kind(index)).is_none_or(|kind| kind == TaskKind::Task).then_some(seen)
}
