//! The target's threads: their names, and which of them work for which runtime.
//!
//! A runtime's worker is a loop that tokio runs as one long poll of a blocking task. Each has a *seat*, identified by
//! the id of its first known loop; `block_in_place` passes the seat to another thread, which then runs a loop of its
//! own. If debug information gives the offsets, the kernel program reads the worker's [`Slot`] (runtime and index), and
//! the thread that runs a loop of that slot, or last slept in one, has the seat. Otherwise it is inferred from which
//! thread woke which, and seats are numbered in each runtime in the order of those ids, so a newly found one may change
//! the numbers of others. A seat's runtime is known from the tasks polled there: each names its owner, a number that
//! tokio counts from 1 over all runtimes and `LocalSet`s of the process.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytemuck::Zeroable as _;
use hud_common::{
    session::{Columns as _, ThreadColumns, ThreadRow},
    wire::{TaskEvent, ThreadChange, ThreadEvent},
};

use crate::{
    inspect::{PollFn, Scheduler, TaskKind, clean},
    tasks::WorkerLoop,
};

/// Threads whose name and role are kept; further ones still have their rows.
const MAX_THREADS: usize = 65_536;
/// Loops that are remembered after their thread left them.
const MAX_LOOPS: usize = 65_536;

/// Searches of one thread's stack for a worker's loop.
const MOST_SEARCHES: u32 = 6;
/// Interval after the first search (ns); each further one is twice as long.
const SEARCH_AGAIN: i64 = 100_000_000;

/// Age of a new thread when its stack is first searched (ns).
const SEARCH_NEW: i64 = 250_000_000;

/// Seats that are remembered after their thread left them.
const MAX_SEATS: usize = 4096;

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    role: &'static str,
    /// The worker's seat that it holds.
    seat: Option<u64>,
    worker: Option<i32>,
    runtime: Option<i64>,
    /// The thread that started it, or woke it last.
    caller: u32,
    /// The smallest id of a task seen on it.
    least_task: Option<u64>,
    /// The owner of tasks that it polled, if it has no seat and the binary does not show their scheduler.
    polled_of: Option<u64>,
    /// When the last long poll of a multi_thread runtime's task began, or, for a worker, when its last sleep in a task
    /// ended.
    in_task_since: Option<i64>,
    /// Searches of its stack for a worker's loop, and when the next one is due (ns since the epoch).
    searched: u32,
    search_at: i64,
}

impl Thread {
    fn new(name: String) -> Self {
        Thread {
            name,
            role: "other",
            seat: None,
            worker: None,
            runtime: None,
            caller: 0,
            least_task: None,
            polled_of: None,
            in_task_since: None,
            searched: 0,
            search_at: 0,
        }
    }

    /// It polls a task, which is no worker's loop.
    fn ran(&mut self, task_id: u64) {
        self.least_task = Some(self.least_task.map_or(task_id, |least| least.min(task_id)));
    }
}

/// Which worker of which runtime a loop works for, in tokio's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// The address of the runtime's handle.
    runtime: u64,
    index: i32,
}

impl Slot {
    fn of(e: &TaskEvent) -> Option<Self> {
        /// Largest accepted number of workers of a runtime.
        const MOST: u64 = 65_536;
        let index = i32::try_from(e.worker).ok().filter(|_| e.runtime != 0 && e.worker < MOST)?;
        Some(Slot { runtime: e.runtime, index })
    }
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    /// The thread that has it; 0 if unknown.
    tid: u32,
    /// The youngest loop that ran there.
    youngest: u64,
    /// The worker's slot, if known.
    slot: Option<Slot>,
    /// The owner of the tasks polled there.
    owner: Option<u64>,
    /// The thread that had it before.
    before: Option<u32>,
}

/// The threads, and their rows.
#[derive(Default)]
pub(super) struct Threads {
    threads: HashMap<u32, Thread>,
    seats: BTreeMap<u64, Seat>,
    /// Owners of the tasks of runtimes, by the address of the runtime's handle.
    runtimes: HashMap<u64, u64>,
    /// Tasks that are a worker's loop, which everywhere else count as no task, with their seat.
    loops: HashMap<u64, u64>,
    /// The same, oldest first.
    loop_order: VecDeque<u64>,
    pub(super) rows: ThreadColumns,
    /// Rows that are not the kernel's events.
    pub(super) own_rows: u64,
}

impl Threads {
    /// A thread that existed before recording began.
    pub(super) fn existing(&mut self, ts: i64, tid: u32, name: &str) {
        let thread = Thread::new(clean(name));
        self.own_row(ts, tid, &thread, "seen");
        self.threads.insert(tid, thread);
    }

    /// An event of a thread.
    pub(super) fn event(&mut self, ts: i64, e: &ThreadEvent) {
        let end = e.comm.iter().position(|&b| b == 0).unwrap_or(e.comm.len());
        let name = clean(&String::from_utf8_lossy(e.comm.get(..end).unwrap_or_default()));
        // Short-lived threads are not worth a search, and a new one runs no loop yet.
        let fresh = || Thread { search_at: ts.saturating_add(SEARCH_NEW), ..Thread::new(String::new()) };
        let mut thread = self.threads.remove(&e.tid).unwrap_or_else(fresh);
        thread.name = name;
        if e.parent != 0 {
            thread.caller = e.parent;
        }
        let event = match e.change {
            c if c == ThreadChange::Gone as u32 => "gone",
            c if c == ThreadChange::Renamed as u32 => "renamed",
            _ => "seen",
        };
        self.row(ts, e.tid, &thread, event);
        if event == "gone" {
            if let Some(seat) = thread.seat {
                self.seats.remove(&seat);
            }
        } else if self.threads.len() < MAX_THREADS {
            self.threads.insert(e.tid, thread);
        }
    }

    /// A thread exited without an event.
    pub(super) fn gone(&mut self, ts: i64, tid: u32) {
        let Some(thread) = self.threads.remove(&tid) else { return };
        self.own_row(ts, tid, &thread, "gone");
        if let Some(seat) = thread.seat {
            self.seats.remove(&seat);
        }
    }

    /// A thread was woken by another one.
    pub(super) fn woken(&mut self, tid: u32, by: u32) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.caller = by;
        }
    }

    /// A thread runs no task, not even a worker's loop: if it held a seat, it has left it.
    ///
    /// If it last polled a worker's task, that poll has lost the core: `block_in_place`.
    pub(super) fn outside(&mut self, ts: i64, tid: u32) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let (lost, seat) = (thread.in_task_since.take(), thread.seat.take());
        if let (Some(lost), None, "other" | "worker") = (lost, seat, thread.role) {
            // It was a worker whose loop was never seen.
            (thread.role, thread.worker, thread.runtime) = ("worker", None, None);
            let worker = thread.clone();
            thread.role = "blocking";
            let thread = thread.clone();
            self.own_row(lost.saturating_sub(1), tid, &worker, "role");
            self.own_row(lost, tid, &thread, "role");
            return;
        }
        let Some(id) = seat else { return };
        (thread.role, thread.worker, thread.runtime) = ("blocking", None, None);
        let thread = thread.clone();
        self.own_row(lost.unwrap_or(ts), tid, &thread, "role");
        if let Some(seat) = self.seats.get_mut(&id).filter(|s| s.slot.is_some()) {
            // Another thread of the runtime has it now: an event or its stack will show which.
            seat.tid = 0;
            for kin in self.threads.values_mut().filter(|t| t.seat.is_none() && t.name == thread.name) {
                kin.searched = kin.searched.min(MOST_SEARCHES / 2);
                kin.search_at = kin.search_at.min(ts.saturating_add(SEARCH_AGAIN));
            }
            return;
        }
        let Some(left) = self.seats.remove(&id) else { return };
        // The thread that took it over unseen was given a seat of its own, the youngest.
        let threads = &self.threads;
        let is_kin = |s: &Seat| threads.get(&s.tid).is_some_and(|t| t.name == thread.name);
        let heir = self.seats.range(id..).rev().find(|(_, s)| s.before.is_none() && is_kin(s));
        if let Some((&own, heir)) = heir {
            let tid_of_heir = heir.tid;
            self.seats.remove(&own);
            self.seats.insert(id, Seat { tid: tid_of_heir, before: Some(tid), ..left });
            if let Some(thread) = self.threads.get_mut(&tid_of_heir) {
                thread.seat = Some(id);
            }
        }
        self.number(ts);
    }

    /// A task was seen on a thread.
    pub(super) fn task(&mut self, ts: i64, e: &TaskEvent, poll: Option<&PollFn>) {
        let Some(poll) = poll else { return };
        match poll.kind {
            TaskKind::Worker => match Slot::of(e) {
                Some(slot) => self.sits_at(ts, e.tid, e.task_id, slot),
                // A new loop: it will be reported again with its slot.
                None if !self.runtimes.is_empty() => drop(self.is_new_loop(e.task_id, 0)),
                None => self.sits_down(ts, e.tid, e.task_id, may_take_over(&poll.raw_name)),
            },
            TaskKind::Blocking => self.does_pool_work(ts, e.tid),
            TaskKind::Task => {
                if let Some(thread) = self.threads.get_mut(&e.tid) {
                    thread.ran(e.task_id);
                }
                // Only a worker of its own runtime polls such a task. Each is reported once, perhaps before the worker.
                if e.owner != 0
                    && poll.scheduler == Some(Scheduler::MultiThread)
                    && let Some(slot) = Slot::of(e)
                {
                    self.belongs_to(ts, slot.runtime, e.owner);
                }
                if e.owner != 0 {
                    self.works_for(ts, e.tid, e.owner, poll.scheduler);
                }
            }
        }
    }

    /// A thread's stack shows that it runs a worker's loop.
    pub(super) fn runs_loop(&mut self, ts: i64, found: &WorkerLoop, poll: &PollFn) {
        let (runtime, worker) = found.place.unwrap_or_default();
        let e = TaskEvent { tid: found.tid, task_id: found.task_id, runtime, worker, ..TaskEvent::zeroed() };
        self.task(ts, &e, Some(poll));
    }

    /// Threads that are not known as workers and whose stacks are to be searched at `ts`, the least searched first.
    /// Each is searched at growing intervals, a bounded number of times.
    pub(super) fn to_search(&self, ts: i64) -> Vec<u32> {
        let is_due = |t: &Thread| t.role != "worker" && t.searched < MOST_SEARCHES && t.search_at <= ts;
        let mut due: Vec<_> =
            self.threads.iter().filter(|(_, t)| is_due(t)).map(|(&tid, t)| (t.searched, tid)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, tid)| tid).collect()
    }

    /// A thread's stack is searched at `ts`.
    pub(super) fn searched(&mut self, ts: i64, tid: u32) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.search_at = ts.saturating_add(SEARCH_AGAIN << thread.searched);
            thread.searched += 1;
        }
    }

    /// Each thread, and whether it is known to be a worker.
    pub(super) fn all(&self) -> impl Iterator<Item = (bool, u32)> {
        self.threads.iter().map(|(tid, thread)| (thread.role == "worker", *tid))
    }

    /// The number of a worker.
    pub(super) fn worker(&self, tid: u32) -> Option<i32> {
        self.threads.get(&tid)?.worker
    }

    /// Whether a task is a worker's loop.
    pub(super) fn is_loop(&self, task_id: u64) -> bool {
        self.loops.contains_key(&task_id)
    }

    /// A thread was in a long poll that began at `since`. Only polls of a multi_thread runtime's tasks matter; if the
    /// binary does not show the scheduler, a poll is one if a worker of such a runtime has the same thread name.
    pub(super) fn polled(&mut self, since: i64, tid: u32, task_id: u64, scheduler: Option<Scheduler>) {
        let name_of = |tid: u32| self.threads.get(&tid).map(|t| t.name.as_str());
        let is_kin = || self.seats.values().any(|s| name_of(s.tid).is_some() && name_of(s.tid) == name_of(tid));
        let is_worker = match scheduler {
            Some(Scheduler::MultiThread) => true,
            Some(_) => false,
            None => is_kin(),
        };
        if let Some(thread) = self.threads.get_mut(&tid).filter(|_| is_worker) {
            thread.in_task_since = Some(since);
            // A task is reported once, by the thread that polls it first.
            thread.ran(task_id);
        }
    }

    /// A thread slept in a task. If that is a worker's loop it has the seat, contrary to earlier inferences: as
    /// `block_in_place` ends, a worker may have taken its core back.
    pub(super) fn slept(&mut self, ts: i64, tid: u32, task_id: u64) {
        let is_loop = self.loops.contains_key(&task_id);
        if let Some(thread) = self.threads.get_mut(&tid).filter(|t| task_id != 0 && (is_loop || t.seat.is_some())) {
            thread.in_task_since = (!is_loop).then_some(ts);
            if !is_loop {
                thread.ran(task_id);
            }
        }
        let Some(&id) = self.loops.get(&task_id) else { return };
        if self.seats.get(&id).is_some_and(|s| s.slot.is_some() && s.tid != tid) {
            self.take_seat(ts, tid, id);
        }
    }

    /// Writes a row for each living thread again, so that older ones may expire.
    pub(super) fn repeat(&mut self, ts: i64) {
        let living: Vec<_> = self.threads.iter().map(|(&tid, t)| (tid, t.clone())).collect();
        for (tid, thread) in living {
            self.own_row(ts, tid, &thread, "alive");
        }
    }

    /// A thread runs a worker's loop: it takes a new seat, or that of the worker which started or woke it for this.
    ///
    /// Workers also wake each other for work. But their loops are older than the tasks they poll, while a thread that
    /// takes a seat over is younger than the task which called `block_in_place`.
    fn sits_down(&mut self, ts: i64, tid: u32, task_id: u64, may_take_over: bool) {
        if !self.is_new_loop(task_id, task_id) {
            return;
        }
        let Some((caller, name)) = self.threads.get(&tid).map(|t| (t.caller, t.name.clone())) else { return };
        let caller_of = self.threads.get_mut(&caller).filter(|_| may_take_over && caller != tid);
        // All threads of a runtime have the same name.
        let caller_of = caller_of.filter(|c| c.name == name && c.least_task.is_some_and(|t| t < task_id));
        let handed_over = caller_of.and_then(|from| {
            let seat = from.seat.take()?;
            (from.role, from.worker, from.runtime) = ("blocking", None, None);
            Some((seat, from.clone()))
        });
        let seat = match handed_over {
            Some((seat, from)) => {
                self.own_row(ts, caller, &from, "role");
                seat
            }
            None => task_id,
        };
        let owner = self.seats.get(&seat).and_then(|s| s.owner);
        let before = (seat != task_id).then_some(caller);
        self.seats.insert(seat, Seat { tid, youngest: task_id, slot: None, owner, before });
        if let Some(thread) = self.threads.get_mut(&tid) {
            // If it was not seen leaving its last seat, it did so unseen.
            if let Some(left) = thread.seat.replace(seat).filter(|&left| left != seat) {
                self.seats.remove(&left);
            }
            thread.role = "worker";
            thread.worker = None;
        }
        self.number(ts);
    }

    /// A thread runs a worker's loop whose slot is known.
    fn sits_at(&mut self, ts: i64, tid: u32, task_id: u64, slot: Slot) {
        let known = self.seats.iter().find(|(_, s)| s.slot == Some(slot)).map(|(&id, s)| (id, s.youngest));
        let (id, youngest) = known.unwrap_or((task_id, 0));
        self.is_new_loop(task_id, id);
        // The last steps of a thread that has lost its core.
        if task_id < youngest {
            return;
        }
        let owner = self.runtimes.get(&slot.runtime).copied();
        if self.seats.len() >= MAX_SEATS {
            self.seats.retain(|_, s| s.tid != 0);
        }
        let fresh = Seat { tid: 0, youngest: task_id, slot: Some(slot), owner, before: None };
        self.seats.entry(id).or_insert(fresh).youngest = task_id;
        self.take_seat(ts, tid, id);
    }

    /// The tasks of a runtime, known by its handle, have this owner.
    fn belongs_to(&mut self, ts: i64, runtime: u64, owner: u64) {
        if self.runtimes.len() >= MAX_SEATS {
            self.runtimes.clear();
        }
        if self.runtimes.insert(runtime, owner) == Some(owner) {
            return;
        }
        let mut is_news = false;
        for seat in self.seats.values_mut().filter(|s| s.slot.is_some_and(|p| p.runtime == runtime)) {
            is_news |= seat.owner.replace(owner) != Some(owner);
        }
        if is_news {
            self.number(ts);
        }
    }

    /// Gives a seat with a known slot to a thread.
    fn take_seat(&mut self, ts: i64, tid: u32, id: u64) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let left = thread.seat.replace(id).filter(|&left| left != id);
        thread.role = "worker";
        thread.worker = None;
        match left.and_then(|left| Some((left, self.seats.get_mut(&left)?))) {
            Some((_, left)) if left.slot.is_some() => left.tid = 0,
            // It was only inferred.
            Some((left, _)) => drop(self.seats.remove(&left)),
            None => {}
        }
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let before = std::mem::replace(&mut seat.tid, tid);
        if before != tid
            && let Some(other) = self.threads.get_mut(&before).filter(|t| t.seat == Some(id))
        {
            (other.seat, other.role, other.worker, other.runtime) = (None, "blocking", None, None);
            let other = other.clone();
            self.own_row(ts, before, &other, "role");
        }
        self.number(ts);
    }

    /// Remembers a loop and its seat. Returns false if it was known.
    fn is_new_loop(&mut self, task_id: u64, seat: u64) -> bool {
        if self.loops.insert(task_id, seat).is_some() {
            return false;
        }
        self.loop_order.push_back(task_id);
        if self.loop_order.len() > MAX_LOOPS
            && let Some(oldest) = self.loop_order.pop_front()
        {
            self.loops.remove(&oldest);
        }
        true
    }

    /// A thread polls tasks of a runtime.
    fn works_for(&mut self, ts: i64, tid: u32, owner: u64, scheduler: Option<Scheduler>) {
        match (self.threads.get(&tid).map(|t| (t.seat, t.role)), scheduler) {
            (Some((Some(seat), _)), Some(Scheduler::MultiThread) | None) => {
                // A known slot gives the runtime by its handle.
                if let Some(seat) = self.seats.get_mut(&seat).filter(|s| s.slot.is_none())
                    && seat.owner != Some(owner)
                {
                    seat.owner = Some(owner);
                    self.number(ts);
                }
            }
            // A worker that has finished blocking may find its seat still empty, and takes it again.
            (Some((None, "blocking")), Some(Scheduler::MultiThread)) => {
                let left = self.seats.iter_mut().find(|(_, s)| s.before == Some(tid) && s.owner == Some(owner));
                let Some((&id, seat)) = left else { return };
                let after = std::mem::replace(&mut seat.tid, tid);
                seat.before = None;
                if let Some(other) = self.threads.get_mut(&after) {
                    (other.seat, other.role, other.worker, other.runtime) = (None, "blocking", None, None);
                    let other = other.clone();
                    self.own_row(ts, after, &other, "role");
                }
                if let Some(thread) = self.threads.get_mut(&tid) {
                    (thread.seat, thread.role, thread.worker) = (Some(id), "worker", None);
                }
                self.number(ts);
            }
            // A thread that blocks on a current_thread runtime is its only worker, and so is one that runs a
            // `LocalSet`. One that does both works for the runtime.
            (Some((None, role)), Some(scheduler @ (Scheduler::CurrentThread | Scheduler::Local))) => {
                if let Some(thread) = self.threads.get_mut(&tid)
                    && (role, thread.runtime) != ("worker", runtime_id(owner))
                    && (role != "worker" || scheduler == Scheduler::CurrentThread)
                {
                    (thread.role, thread.worker, thread.runtime) = ("worker", Some(0), runtime_id(owner));
                    let thread = thread.clone();
                    self.own_row(ts, tid, &thread, "role");
                }
            }
            // The same, if it runs no loop of a multi_thread runtime.
            (Some((None, "other")), None) => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    thread.polled_of = Some(owner);
                }
                self.runs_no_loop(ts, tid);
            }
            _ => {}
        }
    }

    /// No worker's loop was found on a thread's stack: if it polls tasks nevertheless, they belong to a current_thread
    /// runtime or a `LocalSet`. The first search may have come too early.
    pub(super) fn runs_no_loop(&mut self, ts: i64, tid: u32) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        let Some(owner) = thread.polled_of else { return };
        if thread.role == "other" && thread.seat.is_none() && thread.searched >= 2 {
            (thread.role, thread.worker, thread.runtime) = ("worker", Some(0), runtime_id(owner));
            let thread = thread.clone();
            self.own_row(ts, tid, &thread, "role");
        }
    }

    /// Numbers the seats of each runtime. A seat whose runtime is unknown can only belong to the known one, if there is
    /// no other.
    fn number(&mut self, ts: i64) {
        let owners: BTreeSet<u64> = self.seats.values().filter_map(|s| s.owner).collect();
        let mut runtimes = self.seats.values().filter_map(|s| Some(s.slot?.runtime));
        let is_one = runtimes.next().is_none_or(|first| runtimes.all(|r| r == first));
        let only = if owners.len() == 1 && is_one { owners.first().copied() } else { None };
        let mut next: BTreeMap<Option<u64>, i32> = BTreeMap::new();
        let mut changed = Vec::new();
        for seat in self.seats.values() {
            let owner = seat.owner.or(only);
            let next = next.entry(owner).or_default();
            let number = (owner.is_some() || owners.is_empty()).then_some(*next);
            *next += 1;
            // Tokio's own number takes precedence.
            let number = seat.slot.map(|p| p.index).or(number);
            let runtime = owner.and_then(runtime_id);
            if let Some(thread) = self.threads.get_mut(&seat.tid)
                && (thread.worker, thread.runtime) != (number, runtime)
            {
                (thread.worker, thread.runtime) = (number, runtime);
                changed.push((seat.tid, thread.clone()));
            }
        }
        for (tid, thread) in changed {
            self.own_row(ts, tid, &thread, "role");
        }
    }

    /// A thread does work of the blocking pool. If it ran a `LocalSet` before, or a runtime of its own, it did that for
    /// the pool.
    fn does_pool_work(&mut self, ts: i64, tid: u32) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if thread.role == "other" || (thread.role == "worker" && thread.seat.is_none()) {
            (thread.role, thread.worker, thread.runtime) = ("blocking", None, None);
            let thread = thread.clone();
            self.own_row(ts, tid, &thread, "role");
        }
    }

    fn own_row(&mut self, ts: i64, tid: u32, thread: &Thread, event: &'static str) {
        self.own_rows += 1;
        self.row(ts, tid, thread, event);
    }

    fn row(&mut self, ts: i64, tid: u32, thread: &Thread, event: &'static str) {
        self.rows.push(ThreadRow {
            ts,
            tid: tid.cast_signed(),
            name: thread.name.clone().into(),
            role: thread.role.into(),
            worker: thread.worker,
            runtime_id: thread.runtime,
            event: event.into(),
        });
    }
}

/// Whether a loop of this type can be one that `block_in_place` starts, rather than the runtime (`launch`). If the
/// compiler merged the two, it has both names or none.
fn may_take_over(raw_name: &str) -> bool {
    raw_name.is_empty() || raw_name.contains("block_in_place") || !raw_name.contains("launch")
}

/// Tokio counts owners from 1.
fn runtime_id(owner: u64) -> Option<i64> {
    i64::try_from(owner).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::AsArray as _,
        datatypes::{Int32Type, Int64Type},
    };

    use super::*;

    fn poll(kind: TaskKind, scheduler: Option<Scheduler>) -> PollFn {
        PollFn {
            address: 0,
            file_offset: 0,
            name: String::new(),
            raw_name: String::new(),
            kind,
            scheduler,
            file: None,
            line: None,
        }
    }

    fn sees(threads: &mut Threads, tid: u32, task_id: u64, owner: u64, poll: &PollFn) {
        threads.task(1, &TaskEvent { tid, task_id, owner, ..TaskEvent::zeroed() }, Some(poll));
    }

    fn seen(threads: &Threads, tid: u32) -> (&'static str, Option<i32>, Option<i64>) {
        let thread = &threads.threads[&tid];
        (thread.role, thread.worker, thread.runtime)
    }

    #[test]
    fn workers_are_numbered_in_their_runtime() {
        let mut threads = Threads::default();
        let (worker, task) = (poll(TaskKind::Worker, None), poll(TaskKind::Task, Some(Scheduler::MultiThread)));
        for tid in 10..14 {
            threads.existing(0, tid, "tokio-rt-worker");
        }
        for (tid, id) in [(13, 4), (11, 2), (10, 1), (12, 3)] {
            sees(&mut threads, tid, id, 0, &worker);
        }
        assert_eq!(seen(&threads, 12), ("worker", Some(2), None));
        // Two runtimes with two workers each.
        for (tid, id, owner) in [(10, 20, 1), (12, 21, 2), (13, 22, 2), (11, 23, 1)] {
            sees(&mut threads, tid, id, owner, &task);
        }
        assert_eq!(seen(&threads, 10), ("worker", Some(0), Some(0)));
        assert_eq!(seen(&threads, 11), ("worker", Some(1), Some(0)));
        assert_eq!(seen(&threads, 12), ("worker", Some(0), Some(1)));
        assert_eq!(seen(&threads, 13), ("worker", Some(1), Some(1)));
    }

    #[test]
    fn block_in_place_passes_the_seat_on() {
        let mut threads = Threads::default();
        let (worker, task) = (poll(TaskKind::Worker, None), poll(TaskKind::Task, Some(Scheduler::MultiThread)));
        threads.existing(0, 10, "tokio-rt-worker");
        threads.existing(0, 11, "tokio-rt-worker");
        sees(&mut threads, 10, 1, 0, &worker);
        sees(&mut threads, 10, 9, 1, &task);
        threads.woken(11, 10);
        sees(&mut threads, 11, 30, 0, &worker);
        assert_eq!(seen(&threads, 10), ("blocking", None, None));
        assert_eq!(seen(&threads, 11), ("worker", Some(0), Some(0)));
        assert!(threads.is_loop(1) && threads.is_loop(30));
        // And back, by a thread that was started for it.
        let born = ThreadEvent {
            tid: 12,
            parent: 11,
            comm: *b"tokio-rt-worker\0",
            change: ThreadChange::Seen as u32,
            ..ThreadEvent::zeroed()
        };
        threads.event(2, &born);
        sees(&mut threads, 11, 9, 1, &task);
        sees(&mut threads, 12, 31, 0, &worker);
        assert_eq!(seen(&threads, 12), ("worker", Some(0), Some(0)));
        assert_eq!(threads.seats.len(), 1);
    }

    #[test]
    fn a_poll_after_which_its_thread_is_outside_of_any_task_has_lost_the_core() {
        let mut threads = Threads::default();
        for tid in [10, 11] {
            threads.existing(0, tid, "tokio-rt-worker");
        }
        sees(&mut threads, 10, 1, 0, &poll(TaskKind::Worker, None));
        let role_of = |threads: &mut Threads, tid: i32| {
            let rows = threads.rows.finish();
            let texts = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
            let tids = rows.column_by_name("tid").unwrap().as_primitive::<Int32Type>().clone();
            let times = rows.column_by_name("ts").unwrap().as_primitive::<Int64Type>().clone();
            let (roles, events) = (texts("role"), texts("event"));
            let of = (0..rows.num_rows()).filter(|&row| tids.value(row) == tid && events.value(row) == "role");
            of.map(|row| (times.value(row), roles.value(row).to_owned())).collect::<Vec<_>>()
        };
        threads.rows = ThreadColumns::default();
        // A worker that continues its loop has lost nothing.
        threads.polled(100, 10, 9, Some(Scheduler::MultiThread));
        threads.slept(110, 10, 1);
        threads.outside(500, 10);
        assert_eq!(role_of(&mut threads, 10), [(500, "blocking".to_owned())]);
        threads.rows = ThreadColumns::default();
        // One whose loop was never seen.
        threads.polled(700, 11, 9, Some(Scheduler::CurrentThread));
        threads.outside(900, 11);
        assert_eq!(role_of(&mut threads, 11), []);
        threads.polled(700, 11, 9, Some(Scheduler::MultiThread));
        threads.outside(2_000, 11);
        assert_eq!(role_of(&mut threads, 11), [(699, "worker".to_owned()), (700, "blocking".to_owned())]);
    }

    #[test]
    fn a_thread_that_runs_a_local_set_is_its_worker() {
        let mut threads = Threads::default();
        let (local, single) =
            (poll(TaskKind::Task, Some(Scheduler::Local)), poll(TaskKind::Task, Some(Scheduler::CurrentThread)));
        for tid in 10..13 {
            threads.existing(0, tid, "app");
        }
        sees(&mut threads, 10, 5, 3, &local);
        assert_eq!(seen(&threads, 10), ("worker", Some(0), Some(2)));
        // A `LocalSet` on a current_thread runtime with tasks of its own, in any order.
        sees(&mut threads, 11, 6, 4, &local);
        sees(&mut threads, 11, 7, 5, &single);
        sees(&mut threads, 11, 8, 4, &local);
        assert_eq!(seen(&threads, 11), ("worker", Some(0), Some(4)));
        // If the binary does not show the scheduler: after two searches without a loop.
        threads.existing(0, 13, "app");
        sees(&mut threads, 13, 12, 8, &poll(TaskKind::Task, None));
        threads.searched(1, 13);
        threads.runs_no_loop(1, 13);
        assert_eq!(seen(&threads, 13), ("other", None, None));
        threads.searched(2, 13);
        threads.runs_no_loop(2, 13);
        assert_eq!(seen(&threads, 13), ("worker", Some(0), Some(7)));
        // On a thread of the pool, which then does other work.
        let work = poll(TaskKind::Blocking, None);
        sees(&mut threads, 12, 9, 0, &work);
        sees(&mut threads, 12, 10, 6, &local);
        assert_eq!(seen(&threads, 12), ("worker", Some(0), Some(5)));
        sees(&mut threads, 12, 11, 0, &work);
        assert_eq!(seen(&threads, 12), ("blocking", None, None));
    }

    #[test]
    fn a_known_slot_gives_its_seat_to_the_thread_in_its_loop() {
        let mut threads = Threads::default();
        let (worker, task) = (poll(TaskKind::Worker, None), poll(TaskKind::Task, Some(Scheduler::MultiThread)));
        for tid in 10..14 {
            threads.existing(0, tid, "tokio-rt-worker");
        }
        let runs = |threads: &mut Threads, tid, task_id, runtime, index| {
            let e = TaskEvent { tid, task_id, runtime, worker: index, ..TaskEvent::zeroed() };
            threads.task(1, &e, Some(&worker));
        };
        // In any order, of two runtimes; a task of the first identifies it.
        runs(&mut threads, 12, 3, 0x7000, 0);
        runs(&mut threads, 11, 1, 0x5000, 1);
        runs(&mut threads, 10, 2, 0x5000, 0);
        let polled = TaskEvent { tid: 13, task_id: 20, owner: 4, runtime: 0x5000, ..TaskEvent::zeroed() };
        threads.task(1, &polled, Some(&task));
        assert_eq!(seen(&threads, 10), ("worker", Some(0), Some(3)));
        assert_eq!(seen(&threads, 11), ("worker", Some(1), Some(3)));
        assert_eq!(seen(&threads, 12), ("worker", Some(0), None));
        // block_in_place on 10: 13 runs its core, though its wake-up was not seen.
        runs(&mut threads, 13, 30, 0x5000, 0);
        assert_eq!(seen(&threads, 10), ("blocking", None, None));
        assert_eq!(seen(&threads, 13), ("worker", Some(0), Some(3)));
        // The last steps of 10's own loop change nothing; a sleep in it means that it has taken its core back.
        runs(&mut threads, 10, 2, 0x5000, 0);
        assert_eq!(seen(&threads, 13), ("worker", Some(0), Some(3)));
        threads.slept(2, 10, 2);
        assert_eq!(seen(&threads, 10), ("worker", Some(0), Some(3)));
        assert_eq!(seen(&threads, 13), ("blocking", None, None));
        // A thread that leaves its seat leaves it empty.
        threads.outside(3, 10);
        assert_eq!(seen(&threads, 10), ("blocking", None, None));
        assert_eq!(threads.seats.len(), 3);
    }
}
