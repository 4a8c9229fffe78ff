//! Reads batches into partials and names, column by column, without a string or an allocation per row of events.

use std::collections::BTreeMap;

use crate::session::{self, Manifest, Table};
use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};

use super::{
    Bucket, Buckets, Deadlocked, Ended, Frame, FrameId, Histogram, InProgress, Merge as _, Name, Names, Obstacle,
    OffCpuRow, Origin, PollRow, PollState, Resolution, Role, RuntimeId, SampleRow, SessionFacts, SpawnedBy, StackId,
    States, TaskDetail, TaskId, TaskKind, TaskOutcome, TaskType, Thread, Tid, TypeId, Window,
    columns::{Columns, Nullable, int_at, text_at},
    state_rows,
};

/// Maximum number of tasks with a known type or spawn. Beyond it, those with the smallest ids, the oldest, are discarded unless
/// they are in the partials.
const MOST_TASKS: usize = 1 << 20;
/// Maximum number of known threads.
const MOST_THREADS: usize = 1 << 16;
/// Maximum number of known changes of roles.
const MOST_ROLES: usize = 1 << 16;

/// The aggregates and names of the rows read so far.
pub struct Ingest {
    /// The partials.
    pub buckets: Buckets,
    /// Names, and the types and spawns of tasks.
    pub names: Names,
    /// The greatest end of any row of events.
    pub newest: Option<i64>,
    /// The greatest end of a row of `coverage`.
    pub coverage_until: Option<i64>,
    /// The states of tasks; `None` if they are not kept.
    pub states: Option<States>,
    /// The task whose page is open.
    pub focus: Option<TaskId>,
    /// Now, if the session is live.
    pub now: Option<i64>,
    /// Time from the end of each sample and off-CPU interval to its ingestion, if the session is live.
    pub lags: Histogram,
    details: BTreeMap<Bucket, TaskDetail>,
    typed: Typed,
}

/// The columns of `polls`, all of one length.
struct Polls<'a> {
    ts: &'a [i64],
    dur: &'a [i64],
    task: &'a [i64],
    type_id: Nullable<'a>,
    tid: &'a [i32],
    blocked: &'a [i64],
    run_queue: &'a [i64],
    wake_delay: Nullable<'a>,
}

impl<'a> Polls<'a> {
    fn of(columns: &Columns<'a>) -> Option<Self> {
        Some(Polls {
            ts: columns.longs("ts")?,
            dur: columns.longs("dur")?,
            task: columns.longs("task_id")?,
            type_id: columns.nullable("type_id"),
            tid: columns.ints("tid")?,
            blocked: columns.longs("blocked")?,
            run_queue: columns.longs("run_queue")?,
            wake_delay: columns.nullable("wake_delay"),
        })
    }

    #[inline]
    fn row(&self, at: usize) -> PollRow {
        let long = |of: &[i64]| of.get(at).copied().unwrap_or_default();
        PollRow {
            ts: long(self.ts),
            dur: long(self.dur),
            task: TaskId(long(self.task)),
            type_id: self.type_id.get(at).map(TypeId),
            tid: Tid(self.tid.get(at).copied().unwrap_or_default()),
            blocked: long(self.blocked),
            run_queue: long(self.run_queue),
            wake_delay: self.wake_delay.get(at),
        }
    }
}

/// A cache of recently added types of tasks, which saves a lookup among all tasks. The slot follows from the low bits of the
/// task id and holds the other bits and the type. Larger values are not cached.
struct Typed(Vec<(u32, u32)>);

impl Default for Typed {
    fn default() -> Self {
        Typed(vec![Self::NONE; 1 << Self::BITS])
    }
}

impl Typed {
    const BITS: u32 = 15;
    const NONE: (u32, u32) = (u32::MAX, u32::MAX);

    fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether the type is cached; adds it.
    #[inline]
    fn is_known(&mut self, task: TaskId, type_id: TypeId) -> bool {
        let number = task.0.cast_unsigned();
        let place = usize::try_from(number & ((1 << Self::BITS) - 1)).unwrap_or(usize::MAX);
        let (Ok(above), Ok(type_id)) = (u32::try_from(number >> Self::BITS), u32::try_from(type_id.0)) else {
            return false;
        };
        let Some(known) = self.0.get_mut(place) else { return false };
        let new = (above, type_id);
        std::mem::replace(known, new) == new && new != Self::NONE
    }
}

/// A name, or a placeholder if there is no room for more.
fn text_of(names: &mut Names, text: &str) -> Name {
    names.text(text).unwrap_or_else(|| Name::from("…"))
}

impl SessionFacts {
    /// From a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        SessionFacts {
            id: manifest.id.clone(),
            host: manifest.host.clone(),
            pid: manifest.pid,
            exe: manifest.exe.clone(),
            tokio_version: manifest.tokio_version.clone(),
            cpus: manifest.cpus,
            start: manifest.start,
            end: manifest.end,
            end_reason: manifest.end_reason.clone(),
            polls: manifest.options.polls.clone(),
            freq: manifest.options.freq,
            state: manifest.options.other.get("state").and_then(|state| state.as_str()).map(str::to_owned),
            notes: manifest.notes.clone(),
        }
    }
}

impl Ingest {
    /// For rows in these buckets.
    pub fn new(from: Bucket, to: Bucket) -> Self {
        Ingest {
            buckets: Buckets::new(from, to),
            names: Names::default(),
            newest: None,
            coverage_until: None,
            states: None,
            focus: None,
            now: None,
            lags: Histogram::default(),
            details: BTreeMap::new(),
            typed: Typed::default(),
        }
    }

    /// Sets the resolution of window-only aggregates.
    pub fn with_resolution(self, grain: Resolution) -> Self {
        Ingest { buckets: self.buckets.with_resolution(grain), ..self }
    }

    /// Keeps the states of tasks.
    pub fn with_states(self, states: States) -> Self {
        Ingest { states: Some(states), ..self }
    }

    /// Its partials and names.
    pub fn into_parts(self) -> (BTreeMap<Bucket, super::Partial>, Names) {
        (self.buckets.into_partials(), self.names)
    }

    /// The aggregates of the open page's task, by bucket.
    pub fn into_details(self) -> BTreeMap<Bucket, TaskDetail> {
        self.details
    }

    /// Opens the page of another task and discards the aggregates of the previous one.
    pub fn focus(&mut self, task: Option<TaskId>) {
        self.focus = task;
        self.details.clear();
    }

    /// The aggregates of the open page's task over a window.
    pub fn detail(&self, window: Window) -> TaskDetail {
        let mut all = TaskDetail::default();
        self.details.range(window.from..window.to).for_each(|(_, detail)| all.merge(detail));
        all
    }

    /// Moves the range. Buckets before `from` are discarded.
    pub fn advance(&mut self, from: Bucket, to: Bucket) {
        self.buckets.advance(from, to);
        while self.details.first_key_value().is_some_and(|(bucket, _)| *bucket < from) {
            self.details.pop_first();
        }
    }

    /// Discards states of tasks that no longer hold, and the oldest tasks and threads beyond the bounds.
    pub fn prune(&mut self) {
        if let Some(states) = &mut self.states {
            states.forget_before(self.buckets.from().start());
        }
        let names = &mut self.names;
        if names.type_of.len().max(names.spawned.len()) > MOST_TASKS {
            let mut ids: Vec<TaskId> = names.type_of.keys().chain(names.spawned.keys()).copied().collect();
            ids.sort_unstable();
            ids.dedup();
            let oldest_kept = ids.get(ids.len().saturating_sub(MOST_TASKS / 2)).copied();
            let partials = self.buckets.partials();
            let is_in_partials = |id: &TaskId| partials.values().any(|p| p.sums.tasks.contains_key(id));
            names.type_of.retain(|id, _| Some(*id) >= oldest_kept || is_in_partials(id));
            names.spawned.retain(|id, _| Some(*id) >= oldest_kept || is_in_partials(id));
            self.typed.forget();
        }
        if names.threads.len() > MOST_THREADS {
            let mut times: Vec<i64> = names.threads.values().map(|t| t.ts).collect();
            let middle = times.len() / 2;
            let (_, oldest_kept, _) = times.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            names.threads.retain(|_, t| t.ts >= oldest_kept);
        }
        if names.roles() > MOST_ROLES {
            names.forget_roles(self.buckets.from().start());
        }
    }

    /// Adds a batch. Missing columns are ignored: another version may have written it.
    pub fn batch(&mut self, table: Table, batch: &RecordBatch) {
        let columns = Columns(batch);
        // A batch without a required column has no rows.
        let _ = match table {
            Table::Polls => self.polls(&columns),
            Table::OffCpu => self.off_cpu(&columns),
            Table::Samples => self.samples(&columns),
            Table::Wakes => self.wakes(&columns),
            Table::Spawns => self.spawns(&columns),
            Table::Ends => self.ends(&columns),
            Table::Tasks => self.tasks(&columns),
            Table::Threads => self.threads(&columns),
            Table::TaskTypes => self.task_types(&columns),
            Table::Stacks => self.stacks(&columns),
            Table::Frames => self.frames(&columns),
            Table::Modules => self.modules(&columns),
            Table::Process => self.process(&columns),
            Table::Coverage => self.coverage(&columns),
            Table::InProgress => self.in_progress(&columns),
            Table::TaskStates => self.task_states(&columns),
            Table::Drops => self.drops(&columns),
            Table::Overhead => self.overhead(&columns),
            _ => None,
        };
    }

    /// The same for `polls` and `wakes`, for the open page only.
    pub fn batch_again(&mut self, table: Table, batch: &RecordBatch) {
        let columns = Columns(batch);
        let _ = match table {
            Table::Polls => {
                Polls::of(&columns).map(|polls| (0..polls.ts.len()).for_each(|at| self.focus_poll(&polls.row(at))))
            }
            Table::Wakes => self.focus_wakes(&columns),
            _ => None,
        };
    }

    fn saw(&mut self, end: i64) {
        if end < self.buckets.to().start() {
            self.newest = self.newest.max(Some(end));
        }
    }

    fn saw_late(&mut self, end: i64) {
        self.saw(end);
        if let Some(now) = self.now {
            self.lags.record(now.saturating_sub(end));
        }
    }

    fn polls(&mut self, columns: &Columns<'_>) -> Option<()> {
        let polls = Polls::of(columns)?;
        let (names, typed) = (&mut self.names, &mut self.typed);
        let mut newest = i64::MIN;
        let rows = (0..polls.ts.len()).map(|at| {
            let row = polls.row(at);
            newest = newest.max(row.end());
            if let Some(type_id) = row.type_id
                && !typed.is_known(row.task, type_id)
            {
                names.add_type_of(row.task, type_id);
            }
            row
        });
        self.buckets.polls(rows);
        self.saw(newest);
        if let Some(task) = self.focus {
            let of = (0..polls.ts.len()).filter(|at| polls.task.get(*at) == Some(&task.0));
            of.for_each(|at| self.focus_poll(&polls.row(at)));
        }
        Some(())
    }

    fn focus_poll(&mut self, row: &PollRow) {
        let bucket = Bucket::of(row.end());
        if self.focus == Some(row.task) && self.keeps(bucket) {
            self.details.entry(bucket).or_default().poll(row);
        }
    }

    fn keeps(&self, bucket: Bucket) -> bool {
        self.buckets.from() <= bucket && bucket < self.buckets.to()
    }

    fn off_cpu(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, dur, tid) = (columns.longs("ts")?, columns.longs("dur")?, columns.ints("tid")?);
        let state = columns.texts("state")?;
        let (task, stack, run_queue) =
            (columns.nullable("task_id"), columns.nullable("stack_id"), columns.nullable("run_queue"));
        let (waker, intervals) = (columns.nullable_ints("waker_tid"), columns.nullable_ints("intervals"));
        for (row, ((ts, dur), tid)) in ts.iter().zip(dur).zip(tid).enumerate() {
            let off = OffCpuRow {
                ts: *ts,
                dur: *dur,
                tid: Tid(*tid),
                state: state.value(row).bytes().next().unwrap_or(b'?'),
                task: task.get(row).map(TaskId),
                stack: stack.get(row).map(StackId),
                run_queue: run_queue.get(row),
                waker: int_at(waker, row).map(Tid),
                intervals: int_at(intervals, row),
            };
            self.saw_late(off.ts.saturating_add(off.dur.max(0)));
            self.buckets.off_cpu(&off);
        }
        Some(())
    }

    fn samples(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, tid, weight) = (columns.longs("ts")?, columns.ints("tid")?, columns.longs("weight")?);
        let (task, stack) = (columns.nullable("task_id"), columns.nullable("stack_id"));
        for (row, ((ts, tid), weight)) in ts.iter().zip(tid).zip(weight).enumerate() {
            self.saw_late(*ts);
            let (task, stack) = (task.get(row).map(TaskId), stack.get(row).map(StackId));
            self.buckets.sample(&SampleRow { ts: *ts, tid: Tid(*tid), task, stack, weight: *weight });
        }
        Some(())
    }

    fn wakes(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, task) = (columns.longs("ts")?, columns.longs("task_id")?);
        let by = columns.nullable("waker_task_id");
        let rows = ts.iter().zip(task).enumerate();
        self.buckets.wakes(rows.map(|(at, (ts, task))| (*ts, TaskId(*task), by.get(at).map(TaskId))));
        self.saw(ts.iter().copied().max().unwrap_or(i64::MIN));
        if self.focus.is_some() {
            self.focus_wakes(columns)?;
        }
        Some(())
    }

    fn focus_wakes(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, task, tid) = (columns.longs("ts")?, columns.longs("task_id")?, columns.ints("waker_tid")?);
        let by = columns.nullable("waker_task_id");
        for (row, ((ts, task), tid)) in ts.iter().zip(task).zip(tid).enumerate() {
            let bucket = Bucket::of(*ts);
            if self.focus == Some(TaskId(*task)) && self.keeps(bucket) {
                self.details.entry(bucket).or_default().wake(by.get(row).map(TaskId), Tid(*tid));
            }
        }
        Some(())
    }

    fn spawns(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, task, tid) = (columns.longs("ts")?, columns.longs("task_id")?, columns.ints("tid")?);
        let (type_id, parent) = (columns.nullable("type_id"), columns.nullable("parent_task_id"));
        for (row, ((ts, task), tid)) in ts.iter().zip(task).zip(tid).enumerate() {
            let task = TaskId(*task);
            self.saw(*ts);
            self.buckets.spawn(*ts, task);
            self.names.add_spawn(task, SpawnedBy { ts: *ts, tid: Tid(*tid), parent: parent.get(row).map(TaskId) });
            if let Some(type_id) = type_id.get(row) {
                self.names.add_type_of(task, TypeId(type_id));
            }
        }
        Some(())
    }

    fn ends(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, task, outcome) = (columns.longs("ts")?, columns.longs("task_id")?, columns.texts("outcome")?);
        for (row, (ts, task)) in ts.iter().zip(task).enumerate() {
            let outcome = match outcome.value(row) {
                "panicked" => TaskOutcome::Panicked,
                "cancelled" => TaskOutcome::Cancelled,
                _ => TaskOutcome::Completed,
            };
            self.saw(*ts);
            self.buckets.end(TaskId(*task), Ended { ts: *ts, outcome });
        }
        Some(())
    }

    fn tasks(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, task, type_id) = (columns.longs("ts")?, columns.longs("task_id")?, columns.nullable("type_id"));
        for (row, (ts, task)) in ts.iter().zip(task).enumerate() {
            self.buckets.first_seen(*ts, TaskId(*task));
            if let Some(type_id) = type_id.get(row) {
                self.names.add_type_of(TaskId(*task), TypeId(type_id));
            }
        }
        Some(())
    }

    fn in_progress(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, lasted, tid, task) =
            (columns.longs("ts")?, columns.longs("lasted")?, columns.ints("tid")?, columns.longs("task_id")?);
        let (state, estimated, ended) = (columns.texts("state")?, columns.flags("estimated")?, columns.flags("ended")?);
        let (since, type_id, stack) =
            (columns.nullable("since"), columns.nullable("type_id"), columns.nullable("stack_id"));
        for (row, (((ts, lasted), tid), task)) in ts.iter().zip(lasted).zip(tid).zip(task).enumerate() {
            self.saw(*ts);
            self.buckets.in_progress(InProgress {
                tid: Tid(*tid),
                ts: *ts,
                has_ended: ended.value(row),
                task: TaskId(*task),
                lasted: *lasted,
                since: since.get(row),
                type_id: type_id.get(row).map(TypeId),
                state: match text_at(Some(state), row) {
                    Some("blocked") => PollState::Blocked,
                    Some("runnable") => PollState::Runnable,
                    _ => PollState::Running,
                },
                stack: stack.get(row).map(StackId),
                is_estimated: estimated.value(row),
            });
        }
        Some(())
    }

    /// For the rules, tasks in deadlocks, and those that wait for what they hold: they wait for one future only.
    fn task_states(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, since, cycle) = (columns.longs("ts")?, columns.longs("since")?, columns.nullable("cycle"));
        let (task, tid) = (columns.nullable("task_id"), columns.nullable_ints("tid"));
        let (type_id, stack) = (columns.nullable("type_id"), columns.nullable("stack_id"));
        let (holder, holder_tid) = (columns.nullable("holder_task_id"), columns.nullable_ints("holder_tid"));
        let (resource, address) = (columns.texts("resource"), columns.nullable("address"));
        let branches = columns.nullable_ints("branches");
        let own_permits = |row: usize| {
            let is_permits = text_at(resource, row) == Some("semaphore") && int_at(branches, row) == Some(1);
            let is_task = holder.get(row).is_some() && holder.get(row) == task.get(row);
            let is_thread = int_at(holder_tid, row).is_some() && int_at(holder_tid, row) == int_at(tid, row);
            address.get(row).filter(|_| is_permits && (is_task || is_thread)).map(Obstacle::OwnPermits)
        };
        for (row, (ts, since)) in ts.iter().zip(since).enumerate() {
            if let Some(by) = cycle.get(row).map(Obstacle::Cycle).or_else(|| own_permits(row)) {
                self.saw(*ts);
                self.buckets.deadlocked(Deadlocked {
                    by,
                    ts: *ts,
                    task: task.get(row).map(TaskId),
                    tid: int_at(tid, row).map(Tid),
                    since: *since,
                    type_id: type_id.get(row).map(TypeId),
                    stack: stack.get(row).map(StackId),
                });
            }
        }
        self.keep_states(columns)
    }

    fn keep_states(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (names, states) = (&mut self.names, self.states.as_mut()?);
        state_rows::read(columns, |text| text_of(names, text), |row| states.add(row))
    }

    fn threads(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, tid) = (columns.longs("ts")?, columns.ints("tid")?);
        let (name, role, event) = (columns.texts("name"), columns.texts("role"), columns.texts("event"));
        let (worker, runtime) = (columns.nullable_ints("worker"), columns.nullable("runtime_id"));
        for (row, (ts, tid)) in ts.iter().zip(tid).enumerate() {
            let thread = Thread {
                ts: *ts,
                name: self.text(text_at(name, row).unwrap_or_default()),
                role: Role::of(text_at(role, row).unwrap_or_default()),
                worker: int_at(worker, row),
                runtime: runtime.get(row).map(RuntimeId),
                is_gone: text_at(event, row) == Some("gone"),
            };
            self.names.add_thread(Tid(*tid), thread);
        }
        Some(())
    }

    fn text(&mut self, text: &str) -> Name {
        text_of(&mut self.names, text)
    }

    fn task_types(&mut self, columns: &Columns<'_>) -> Option<()> {
        let type_id = columns.longs("type_id")?;
        let (name, file, kind) = (columns.texts("name"), columns.texts("file"), columns.texts("kind"));
        let line = columns.nullable_ints("line");
        for (row, type_id) in type_id.iter().enumerate() {
            let task_type = TaskType {
                name: self.text(text_at(name, row).unwrap_or_default()),
                file: text_at(file, row).map(|file| self.text(file)),
                line: int_at(line, row),
                kind: TaskKind::of(text_at(kind, row).unwrap_or_default()),
            };
            self.names.types.insert(TypeId(*type_id), task_type);
        }
        Some(())
    }

    fn stacks(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (stack_id, frames) = (columns.longs("stack_id")?, columns.column("frame_ids")?.as_list_opt::<i32>()?);
        for (row, id) in stack_id.iter().enumerate() {
            let list = frames.value(row);
            let ids = list.as_primitive_opt::<Int64Type>().map(|l| l.values().iter().map(|f| FrameId(*f)).collect());
            self.names.add_stack(StackId(*id), ids.unwrap_or_default());
        }
        Some(())
    }

    fn frames(&mut self, columns: &Columns<'_>) -> Option<()> {
        let frame_id = columns.longs("frame_id")?;
        let (function, file, origin) = (columns.texts("function"), columns.texts("file"), columns.texts("origin"));
        let (module, line) = (columns.nullable("module_id"), columns.nullable_ints("line"));
        for (row, id) in frame_id.iter().enumerate() {
            let frame = Frame {
                function: text_at(function, row).map(|text| self.text(text)),
                module: module.get(row),
                file: text_at(file, row).map(|text| self.text(text)),
                line: int_at(line, row),
                origin: Origin::of(text_at(origin, row).unwrap_or_default()),
            };
            self.names.add_frame(FrameId(*id), frame);
        }
        Some(())
    }

    fn modules(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (id, path) = (columns.longs("module_id")?, columns.texts("path"));
        for (row, id) in id.iter().enumerate() {
            self.names.add_module(*id, text_at(path, row).unwrap_or_default());
        }
        Some(())
    }

    fn process(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, user, sys) = (columns.longs("ts")?, columns.longs("cpu_user")?, columns.longs("cpu_sys")?);
        let (rss, threads, fds) = (columns.longs("rss")?, columns.ints("threads")?, columns.nullable_ints("fds"));
        let (others, throttled) = (columns.nullable("cpu_others"), columns.nullable("throttled"));
        let rows = ts.iter().zip(user).zip(sys).zip(rss).zip(threads).enumerate();
        for (row, ((((ts, user), sys), rss), threads)) in rows {
            self.buckets.process(*ts, *user, *sys, *rss, *threads, int_at(fds, row));
            self.buckets.contended(*ts, others.get(row), throttled.get(row));
        }
        Some(())
    }

    fn coverage(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, dur) = (columns.longs("ts")?, columns.longs("dur")?);
        let (stream, reason) = (columns.texts("stream"), columns.texts("reason"));
        for (row, (ts, dur)) in ts.iter().zip(dur).enumerate() {
            let stream = self.text(text_at(stream, row).unwrap_or_default());
            let reason = self.text(text_at(reason, row).unwrap_or_default());
            let end = ts.saturating_add((*dur).max(0));
            self.coverage_until = self.coverage_until.max(Some(end));
            self.buckets.coverage(*ts, *dur, &stream, &reason);
            if let Some(states) = self.states.as_mut().filter(|_| stream.as_str() == Table::TaskStates.name()) {
                // Without gaps, the reason is that of all streams.
                states.covered(*ts, end, (reason.as_str() != session::STILL_ON).then_some(reason));
            }
        }
        Some(())
    }

    fn drops(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, dur, lost) = (columns.longs("ts")?, columns.longs("dur")?, columns.longs("lost")?);
        let (stream, stage) = (columns.texts("stream"), columns.texts("stage"));
        for (row, ((ts, dur), lost)) in ts.iter().zip(dur).zip(lost).enumerate() {
            let stream = self.text(text_at(stream, row).unwrap_or_default());
            let stage = self.text(text_at(stage, row).unwrap_or_default());
            self.buckets.drops(*ts, *dur, &stream, &stage, *lost);
        }
        Some(())
    }

    fn overhead(&mut self, columns: &Columns<'_>) -> Option<()> {
        let (ts, cpu, rss) = (columns.longs("ts")?, columns.longs("recorder_cpu")?, columns.longs("recorder_rss")?);
        let (bytes, events, probes) =
            (columns.longs("ring_bytes")?, columns.longs("events")?, columns.nullable("probe_ns"));
        for (row, ((((ts, cpu), rss), bytes), events)) in ts.iter().zip(cpu).zip(rss).zip(bytes).zip(events).enumerate()
        {
            self.buckets.overhead(*ts, probes.get(row), *cpu, *rss, *bytes, *events);
        }
        Some(())
    }
}
