//! A session's events, decoded in one place: rows within the window, clipped to it, of the requested task and thread.

use hud_common::session::Table;

use crate::{
    Options, Result, Rows,
    column::{flags, ints, texts},
};

/// A time range, clipped to the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Whether it was clipped.
    pub(crate) is_clipped: bool,
}

impl Span {
    pub(crate) fn dur(self) -> i64 {
        self.to.saturating_sub(self.from)
    }
}

/// A poll.
pub(crate) struct Poll {
    pub(crate) span: Span,
    pub(crate) task: i64,
    pub(crate) type_id: Option<i64>,
    pub(crate) tid: i32,
    pub(crate) cpu: i32,
    pub(crate) blocked: i64,
    pub(crate) run_queue: i64,
    /// Time of the wake that led to it.
    pub(crate) woken: Option<i64>,
    pub(crate) completed: Option<bool>,
}

/// An off-CPU interval.
pub(crate) struct OffCpu<'a> {
    pub(crate) span: Span,
    pub(crate) tid: i32,
    pub(crate) cpu: i32,
    pub(crate) state: &'a str,
    pub(crate) task: Option<i64>,
    pub(crate) stack: Option<i64>,
    pub(crate) run_queue: Option<i64>,
    pub(crate) waker: Option<i32>,
}

impl OffCpu<'_> {
    /// Whether the thread was asleep, not waiting for a CPU.
    pub(crate) fn is_asleep(&self) -> bool {
        self.state != "R"
    }

    /// How it left its CPU, as a word for names.
    pub(crate) fn reason(&self) -> &'static str {
        match self.state {
            "S" => "asleep",
            "D" => "asleep (uninterruptible)",
            "R" => "preempted",
            "T" => "stopped",
            "t" => "traced",
            "I" => "idle",
            "P" => "parked",
            "+" => "off CPU (several intervals)",
            _ => "off CPU",
        }
    }
}

/// A CPU sample.
pub(crate) struct Sample<'a> {
    pub(crate) ts: i64,
    pub(crate) tid: i32,
    pub(crate) cpu: i32,
    pub(crate) task: Option<i64>,
    pub(crate) stack: Option<i64>,
    pub(crate) weight: i64,
    pub(crate) unwind: &'a str,
}

/// A wake.
pub(crate) struct Wake {
    pub(crate) ts: i64,
    pub(crate) task: i64,
    pub(crate) waker: i32,
    pub(crate) waker_task: Option<i64>,
}

/// A spawn.
pub(crate) struct Spawn {
    pub(crate) ts: i64,
    pub(crate) task: i64,
    pub(crate) type_id: Option<i64>,
    pub(crate) parent: Option<i64>,
    pub(crate) tid: i32,
}

/// The reader of a session, and its progress.
pub(crate) struct Reader<'a> {
    rows: &'a dyn Rows,
    options: &'a Options,
    progress: &'a dyn Fn(u64, u64),
    done: u64,
    total: u64,
}

impl<'a> Reader<'a> {
    /// A reader that will read these tables.
    pub(crate) fn new(
        rows: &'a dyn Rows,
        options: &'a Options,
        tables: &[Table],
        progress: &'a dyn Fn(u64, u64),
    ) -> Result<Self> {
        let total = tables.iter().try_fold(0_u64, |sum, table| Ok::<_, crate::Error>(sum + rows.count(*table)?))?;
        progress(0, total);
        Ok(Reader { rows, options, progress, done: 0, total })
    }

    pub(crate) fn finish(&self) {
        (self.progress)(self.total, self.total);
    }

    /// The session.
    pub(crate) fn rows(&self) -> &'a dyn Rows {
        self.rows
    }

    /// The requested time range.
    pub(crate) fn window(&self) -> Option<(i64, i64)> {
        self.options.window
    }

    pub(crate) fn wants(&self, task: Option<i64>, tid: i32) -> bool {
        self.options.thread.is_none_or(|thread| thread == tid) && self.options.task.is_none_or(|id| task == Some(id))
    }

    fn has(&self, ts: i64) -> bool {
        self.options.window.is_none_or(|(from, to)| (from..to).contains(&ts))
    }

    /// The part of a time range inside the window.
    pub(crate) fn span(&self, ts: i64, dur: i64) -> Option<Span> {
        let end = ts.saturating_add(dur.max(0));
        let Some((from, to)) = self.options.window else { return Some(Span { from: ts, to: end, is_clipped: false }) };
        let is_in = if ts == end { (from..to).contains(&ts) } else { ts < to && end > from };
        is_in.then(|| Span { from: ts.max(from), to: end.min(to), is_clipped: ts < from || end > to })
    }

    fn scan(
        &mut self,
        table: Table,
        columns: &[&str],
        each: impl FnMut(&Self, &arrow::array::RecordBatch) -> Result<()>,
    ) -> Result<()> {
        self.scan_within(table, columns, self.options.window, each)
    }

    /// Reads a table in another time range than the requested one.
    pub(crate) fn scan_within(
        &mut self,
        table: Table,
        columns: &[&str],
        window: Option<(i64, i64)>,
        mut each: impl FnMut(&Self, &arrow::array::RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let rows = self.rows;
        rows.scan(table, columns, window, &mut |batch| {
            self.done = self.done.saturating_add(batch.num_rows() as u64).min(self.total);
            (self.progress)(self.done, self.total);
            each(self, batch)
        })
    }

    pub(crate) fn polls(&mut self, mut each: impl FnMut(&Poll) -> Result<()>) -> Result<()> {
        let columns =
            ["ts", "dur", "task_id", "type_id", "tid", "cpu", "blocked", "run_queue", "wake_delay", "completed"];
        self.scan(Table::Polls, &columns, |reader, batch| {
            let [ts, dur, task, type_id, tid, cpu] =
                ["ts", "dur", "task_id", "type_id", "tid", "cpu"].map(|n| ints(batch, n));
            let (ts, dur, task, type_id, tid, cpu) = (ts?, dur?, task?, type_id?, tid?, cpu?);
            let (blocked, run_queue, delay) =
                (ints(batch, "blocked")?, ints(batch, "run_queue")?, ints(batch, "wake_delay")?);
            let completed = flags(batch, "completed")?;
            for row in 0..batch.num_rows() {
                let (task, tid) = (task.at(row), tid.small(row));
                let Some(span) = reader.span(ts.at(row), dur.at(row)).filter(|_| reader.wants(Some(task), tid)) else {
                    continue;
                };
                each(&Poll {
                    span,
                    task,
                    type_id: type_id.get(row),
                    tid,
                    cpu: cpu.small(row),
                    blocked: blocked.at(row),
                    run_queue: run_queue.at(row),
                    woken: delay.get(row).map(|delay| ts.at(row).saturating_sub(delay)).filter(|ts| reader.has(*ts)),
                    completed: completed.get(row),
                })?;
            }
            Ok(())
        })
    }

    pub(crate) fn off_cpu(&mut self, mut each: impl FnMut(&OffCpu<'_>) -> Result<()>) -> Result<()> {
        let columns = ["ts", "dur", "tid", "cpu", "state", "task_id", "stack_id", "run_queue", "waker_tid"];
        self.scan(Table::OffCpu, &columns, |reader, batch| {
            let [ts, dur, tid, cpu, task] = ["ts", "dur", "tid", "cpu", "task_id"].map(|n| ints(batch, n));
            let (ts, dur, tid, cpu, task) = (ts?, dur?, tid?, cpu?, task?);
            let (stack, run_queue, waker) =
                (ints(batch, "stack_id")?, ints(batch, "run_queue")?, ints(batch, "waker_tid")?);
            let state = texts(batch, "state")?;
            for row in 0..batch.num_rows() {
                let (task, tid) = (task.get(row), tid.small(row));
                let Some(span) = reader.span(ts.at(row), dur.at(row)).filter(|_| reader.wants(task, tid)) else {
                    continue;
                };
                each(&OffCpu {
                    span,
                    tid,
                    cpu: cpu.small(row),
                    state: state.at(row),
                    task,
                    stack: stack.get(row),
                    run_queue: run_queue.get(row),
                    waker: waker.get_small(row),
                })?;
            }
            Ok(())
        })
    }

    pub(crate) fn samples(&mut self, mut each: impl FnMut(&Sample<'_>) -> Result<()>) -> Result<()> {
        let columns = ["ts", "tid", "cpu", "task_id", "stack_id", "weight", "unwind"];
        self.scan(Table::Samples, &columns, |reader, batch| {
            let [ts, tid, cpu, task] = ["ts", "tid", "cpu", "task_id"].map(|n| ints(batch, n));
            let (ts, tid, cpu, task) = (ts?, tid?, cpu?, task?);
            let (stack, weight, unwind) = (ints(batch, "stack_id")?, ints(batch, "weight")?, texts(batch, "unwind")?);
            for row in 0..batch.num_rows() {
                let (ts, task, tid) = (ts.at(row), task.get(row), tid.small(row));
                if !reader.has(ts) || !reader.wants(task, tid) {
                    continue;
                }
                each(&Sample {
                    ts,
                    tid,
                    cpu: cpu.small(row),
                    task,
                    stack: stack.get(row),
                    weight: weight.at(row),
                    unwind: unwind.at(row),
                })?;
            }
            Ok(())
        })
    }

    /// Wakes of the requested task, or by the requested thread.
    pub(crate) fn wakes(&mut self, mut each: impl FnMut(&Wake) -> Result<()>) -> Result<()> {
        self.scan(Table::Wakes, &["ts", "task_id", "waker_task_id", "waker_tid"], |reader, batch| {
            let (ts, task) = (ints(batch, "ts")?, ints(batch, "task_id")?);
            let (waker_task, waker) = (ints(batch, "waker_task_id")?, ints(batch, "waker_tid")?);
            for row in 0..batch.num_rows() {
                let (ts, task, waker) = (ts.at(row), task.at(row), waker.small(row));
                if reader.has(ts) && reader.wants(Some(task), waker) {
                    each(&Wake { ts, task, waker, waker_task: waker_task.get(row) })?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn spawns(&mut self, mut each: impl FnMut(&Spawn) -> Result<()>) -> Result<()> {
        self.scan(Table::Spawns, &["ts", "task_id", "type_id", "parent_task_id", "tid"], |reader, batch| {
            let (ts, task, type_id) = (ints(batch, "ts")?, ints(batch, "task_id")?, ints(batch, "type_id")?);
            let (parent, tid) = (ints(batch, "parent_task_id")?, ints(batch, "tid")?);
            for row in 0..batch.num_rows() {
                let (ts, task, tid) = (ts.at(row), task.at(row), tid.small(row));
                if reader.has(ts) && reader.wants(Some(task), tid) {
                    each(&Spawn { ts, task, type_id: type_id.get(row), parent: parent.get(row), tid })?;
                }
            }
            Ok(())
        })
    }

    /// Ended tasks: time, id, outcome.
    pub(crate) fn ends(&mut self, mut each: impl FnMut(i64, i64, &str) -> Result<()>) -> Result<()> {
        self.scan(Table::Ends, &["ts", "task_id", "outcome"], |reader, batch| {
            let (ts, task, outcome) = (ints(batch, "ts")?, ints(batch, "task_id")?, texts(batch, "outcome")?);
            for row in 0..batch.num_rows() {
                let (ts, task) = (ts.at(row), task.at(row));
                if reader.has(ts) && reader.options.task.is_none_or(|wanted| wanted == task) {
                    each(ts, task, outcome.at(row))?;
                }
            }
            Ok(())
        })
    }

    /// The process, each second: time, user and system CPU time since the last row, resident bytes, threads.
    pub(crate) fn process(&mut self, mut each: impl FnMut(i64, [i64; 4]) -> Result<()>) -> Result<()> {
        self.scan(Table::Process, &["ts", "cpu_user", "cpu_sys", "rss", "threads"], |reader, batch| {
            let [ts, user, system, rss, threads] =
                ["ts", "cpu_user", "cpu_sys", "rss", "threads"].map(|n| ints(batch, n));
            let (ts, user, system, rss, threads) = (ts?, user?, system?, rss?, threads?);
            for row in (0..batch.num_rows()).filter(|row| reader.has(ts.at(*row))) {
                each(ts.at(row), [user.at(row), system.at(row), rss.at(row), threads.at(row)])?;
            }
            Ok(())
        })
    }

    /// Coverage: time range, stream, why it began or ended.
    pub(crate) fn coverage(&mut self, mut each: impl FnMut(Span, &str, &str) -> Result<()>) -> Result<()> {
        self.scan(Table::Coverage, &["ts", "dur", "stream", "reason"], |reader, batch| {
            let (ts, dur) = (ints(batch, "ts")?, ints(batch, "dur")?);
            let (stream, reason) = (texts(batch, "stream")?, texts(batch, "reason")?);
            for row in 0..batch.num_rows() {
                if let Some(span) = reader.span(ts.at(row), dur.at(row)) {
                    each(span, stream.at(row), reason.at(row))?;
                }
            }
            Ok(())
        })
    }

    /// Losses: time, stream, stage, number of events.
    pub(crate) fn drops(&mut self, mut each: impl FnMut(Span, &str, &str, i64) -> Result<()>) -> Result<()> {
        self.scan(Table::Drops, &["ts", "dur", "stream", "stage", "lost"], |reader, batch| {
            let (ts, dur, lost) = (ints(batch, "ts")?, ints(batch, "dur")?, ints(batch, "lost")?);
            let (stream, stage) = (texts(batch, "stream")?, texts(batch, "stage")?);
            for row in 0..batch.num_rows() {
                if let Some(span) = reader.span(ts.at(row), dur.at(row)) {
                    each(span, stream.at(row), stage.at(row), lost.at(row))?;
                }
            }
            Ok(())
        })
    }
}
