//! Where tasks wait, by the snapshots of all tasks: what one finds counts until the next, as in `queries/await_flame.sql`.

use std::{collections::HashMap, mem};

use hud_common::session::Table;

use crate::{
    Result,
    column::{ints, texts},
    events::{Reader, Span},
};

/// All tasks have rows within this time (ns).
const FULL: i64 = 1_200_000_000_000;

/// A future for which a task waits.
pub(crate) struct Await {
    /// From the snapshot that found it to the next one.
    pub(crate) span: Span,
    /// The task; none for a future that a thread runs by `block_on`.
    pub(crate) task: Option<i64>,
    pub(crate) type_id: Option<i64>,
    pub(crate) stack: Option<i64>,
}

/// A task, or the thread that runs a future by `block_on`.
type Who = (Option<i64>, Option<i32>);

/// A task in the snapshots that were read so far.
struct Seen {
    /// Time of the newest rows.
    ts: i64,
    /// Their types and await stacks, if it is suspended.
    waits: Vec<(Option<i64>, Option<i64>)>,
}

impl Seen {
    /// Reports what holds until a later snapshot.
    fn report(
        &self,
        reader: &Reader<'_>,
        task: Option<i64>,
        until: i64,
        each: &mut impl FnMut(&Await) -> Result<()>,
    ) -> Result<()> {
        let dur = until.saturating_sub(self.ts);
        let Some(span) = reader.span(self.ts, dur).filter(|span| span.dur() > 0) else { return Ok(()) };
        self.waits.iter().try_for_each(|&(type_id, stack)| each(&Await { span, task, type_id, stack }))
    }
}

impl Reader<'_> {
    fn last_snapshot(&mut self) -> Result<Option<i64>> {
        let mut last = None;
        self.scan_within(Table::Coverage, &["ts", "dur", "stream"], None, |_, batch| {
            let (ts, dur, stream) = (ints(batch, "ts")?, ints(batch, "dur")?, texts(batch, "stream")?);
            for row in (0..batch.num_rows()).filter(|row| stream.at(*row) == "task_states" && dur.at(*row) > 0) {
                last = last.max(Some(ts.at(row).saturating_add(dur.at(row))));
            }
            Ok(())
        })?;
        Ok(last)
    }

    /// The waits of the requested task. Memory is bounded by the number of tasks.
    pub(crate) fn awaits(&mut self, mut each: impl FnMut(&Await) -> Result<()>) -> Result<()> {
        let Some(last) = self.last_snapshot()? else { return Ok(()) };
        let window = self.window().map(|(from, to)| (from.saturating_sub(FULL), to));
        let mut seen: HashMap<Who, Seen> = HashMap::new();
        let columns = ["ts", "task_id", "tid", "type_id", "state", "stack_id"];
        self.scan_within(Table::TaskStates, &columns, window, |reader, batch| {
            let [ts, task, tid, type_id, stack] =
                ["ts", "task_id", "tid", "type_id", "stack_id"].map(|name| ints(batch, name));
            let (ts, task, tid, type_id, stack) = (ts?, task?, tid?, type_id?, stack?);
            let state = texts(batch, "state")?;
            for row in 0..batch.num_rows() {
                let (ts, task, tid) = (ts.at(row), task.get(row), tid.get_small(row));
                let is_read = window.is_none_or(|(from, to)| (from..to).contains(&ts));
                if !is_read || !reader.wants(task, tid.unwrap_or(0)) {
                    continue;
                }
                let at = seen.entry((task, tid)).or_insert_with(|| Seen { ts, waits: Vec::new() });
                if at.ts != ts {
                    let before = mem::replace(at, Seen { ts, waits: Vec::new() });
                    before.report(reader, task, ts.min(last), &mut each)?;
                }
                if state.at(row) == "suspended" {
                    at.waits.push((type_id.get(row), stack.get(row)));
                }
            }
            Ok(())
        })?;
        seen.iter().try_for_each(|((task, _), at)| at.report(self, *task, last, &mut each))
    }
}
