//! Computes one side of a comparison: sums and histograms by block of time, in one pass over each table.

use std::collections::BTreeMap;

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use datafusion::prelude::SessionContext;

use super::bootstrap::{BLOCKS, Block};
use crate::{
    error::{Error, Result},
    query::window::Window,
};

/// The blocks of each task type or function; `None` is the total.
pub(crate) type Scopes = BTreeMap<Option<String>, Vec<Block>>;

/// One side of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Poll durations.
    pub(crate) polls: Scopes,
    /// Busy, blocked and run-queue time of polls.
    pub(crate) busy: Scopes,
    pub(crate) blocked: Scopes,
    pub(crate) waited: Scopes,
    /// Wake-to-poll latencies.
    pub(crate) wakes: Scopes,
    /// Off-CPU intervals of at least 1 ms inside polls.
    pub(crate) sleeps: Scopes,
    /// CPU samples by attributed function, with the CPU time that they represent.
    pub(crate) functions: Scopes,
    /// The target's CPU time.
    pub(crate) cpu: Scopes,
}

/// The lower limit of the histogram bucket of `x`: a sixteenth of an octave.
const LOW: &str = "(x >> shift) << shift";
const SHIFT: &str = "CAST(floor(log2(CAST(greatest(x, 16) AS DOUBLE))) AS BIGINT) - 4";

impl Side {
    pub(crate) async fn gather(context: &SessionContext, window: Window) -> Result<Self> {
        let length = (window.dur() / i64::try_from(BLOCKS).unwrap_or(1)).max(1);
        let (from, to, last) = (window.from, window.to, BLOCKS - 1);
        let recorded = Recorded::read(context, window, length).await?;
        let block = |ts: &str| format!("least(({ts} - {from}) / {length}, {last}) AS block");
        let within = format!("ts >= {from} AND ts < {to}");

        let sql = format!(
            "SELECT y.name AS scope, block, low, sum(n) AS n, max(largest) AS largest, sum(total) AS total,
                    sum(busy) AS busy, sum(blocked) AS blocked, sum(waited) AS waited
             FROM (SELECT type_id, block, {LOW} AS low, count(*) AS n, max(x) AS largest, sum(x) AS total,
                          sum(x - blocked - run_queue) AS busy, sum(blocked) AS blocked, sum(run_queue) AS waited
                   FROM (SELECT *, {SHIFT} AS shift
                         FROM (SELECT type_id, {}, greatest(dur, 0) AS x, blocked, run_queue
                               FROM polls WHERE {within}))
                   GROUP BY type_id, block, {LOW}) p
             LEFT JOIN task_types y ON y.type_id = p.type_id
             WHERE coalesce(y.kind, 'task') = 'task'
             GROUP BY y.name, block, low",
            block("ts")
        );
        let mut side = Side::default();
        let polls = rows(context, &sql).await?;
        side.polls = recorded.scopes("polls", &polls, "total")?;
        side.busy = recorded.scopes("polls", &polls, "busy")?;
        side.blocked = recorded.scopes("polls", &polls, "blocked")?;
        side.waited = recorded.scopes("polls", &polls, "waited")?;

        let sql = format!(
            "SELECT y.name AS scope, block, low, sum(n) AS n, max(largest) AS largest, sum(total) AS total
             FROM (SELECT type_id, block, {LOW} AS low, count(*) AS n, max(x) AS largest, sum(x) AS total
                   FROM (SELECT *, {SHIFT} AS shift
                         FROM (SELECT type_id, {}, greatest(wake_delay, 0) AS x
                               FROM polls WHERE {within} AND wake_delay IS NOT NULL))
                   GROUP BY type_id, block, {LOW}) p
             LEFT JOIN task_types y ON y.type_id = p.type_id
             WHERE coalesce(y.kind, 'task') = 'task'
             GROUP BY y.name, block, low",
            block("ts")
        );
        side.wakes = recorded.scopes("polls", &rows(context, &sql).await?, "total")?;

        let sql = format!(
            "SELECT y.name AS scope, block, 0 AS low, count(*) AS n, max(x) AS largest, sum(x) AS total
             FROM (SELECT task_id, {}, dur - coalesce(run_queue, 0) AS x
                   FROM off_cpu
                   WHERE {within} AND task_id IS NOT NULL AND state IN ('S', 'D') AND dur >= 1000000) o
             LEFT JOIN (SELECT task_id, min(type_id) AS type_id
                        FROM (SELECT task_id, type_id FROM tasks UNION ALL SELECT task_id, type_id FROM spawns)
                        GROUP BY task_id) t ON t.task_id = o.task_id
             LEFT JOIN task_types y ON y.type_id = t.type_id
             WHERE coalesce(y.kind, 'task') = 'task' AND x >= 1000000
             GROUP BY y.name, block",
            block("ts")
        );
        side.sleeps = recorded.scopes("off_cpu", &rows(context, &sql).await?, "total")?;

        let sql = format!(
            "SELECT blame(stack_id)['function'] AS scope, block, 0 AS low, sum(n) AS n, 0 AS largest, sum(x) AS total
             FROM (SELECT stack_id, block, count(*) AS n, sum(weight) AS x
                   FROM (SELECT stack_id, {}, weight FROM samples WHERE {within})
                   GROUP BY stack_id, block)
             GROUP BY blame(stack_id)['function'], block",
            block("ts")
        );
        side.functions = recorded.scopes("samples", &rows(context, &sql).await?, "total")?;

        let sql = format!("SELECT ts, cpu_user + cpu_sys AS x FROM process WHERE {within} ORDER BY ts");
        side.cpu = Scopes::from([(None, recorded.spread(&rows(context, &sql).await?)?)]);
        Ok(side)
    }
}

async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    Ok(context.sql(sql).await?.collect().await?)
}

/// Recorded time of each stream in each block.
struct Recorded {
    streams: BTreeMap<String, Vec<i64>>,
    all: Vec<i64>,
    /// Start and end of each block.
    borders: Vec<(i64, i64)>,
}

impl Recorded {
    async fn read(context: &SessionContext, window: Window, length: i64) -> Result<Self> {
        let last = BLOCKS - 1;
        let borders: Vec<(i64, i64)> = (0..BLOCKS)
            .map(|place| {
                let from = window.from.saturating_add(length.saturating_mul(i64::try_from(place).unwrap_or(0)));
                (from, if place == last { window.to } else { from.saturating_add(length).min(window.to) })
            })
            .collect();
        let sql =
            format!("SELECT stream, ts, dur FROM coverage WHERE ts < {} AND ts + dur > {}", window.to, window.from);
        let mut streams: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for batch in rows(context, &sql).await? {
            let (names, ts, dur) = (text(&batch, "stream")?, long(&batch, "ts")?, long(&batch, "dur")?);
            for row in 0..batch.num_rows() {
                let (Some(Some(name)), Some(Some(ts)), Some(Some(dur))) = (names.get(row), ts.get(row), dur.get(row))
                else {
                    continue;
                };
                let blocks = streams.entry(name.clone()).or_insert_with(|| vec![0; BLOCKS]);
                for (recorded, (from, to)) in blocks.iter_mut().zip(&borders) {
                    let overlap = ts.saturating_add(*dur).min(*to).saturating_sub((*ts).max(*from)).max(0);
                    *recorded = recorded.saturating_add(overlap).min(to.saturating_sub(*from).max(0));
                }
            }
        }
        let all = borders.iter().map(|(from, to)| to.saturating_sub(*from).max(0)).collect();
        Ok(Recorded { streams, all, borders })
    }

    /// Blocks of a counter that is read at intervals: the increase since the previous reading is distributed uniformly over the
    /// time between.
    fn spread(&self, batches: &[RecordBatch]) -> Result<Vec<Block>> {
        let mut blocks = vec![Block::default(); BLOCKS];
        let mut since = None;
        for batch in batches {
            for (ts, x) in long(batch, "ts")?.into_iter().zip(long(batch, "x")?) {
                let (Some(ts), Some(x)) = (ts, x) else { continue };
                // The first reading has no previous one.
                let Some(since) = since.replace(ts).filter(|since| *since < ts) else { continue };
                for (block, (from, to)) in blocks.iter_mut().zip(&self.borders) {
                    let overlap = ts.min(*to).saturating_sub(since.max(*from)).max(0);
                    let share = i128::from(x) * i128::from(overlap) / i128::from(ts.saturating_sub(since));
                    block.recorded = block.recorded.saturating_add(overlap);
                    block.total = block.total.saturating_add(i64::try_from(share).unwrap_or(i64::MAX));
                    block.count = u64::from(block.recorded > 0);
                }
            }
        }
        Ok(blocks)
    }

    /// Blocks by scope, from rows with scope, block, low, n, largest and a total. A stream without coverage, such as the
    /// target's process, was recorded all the time.
    fn scopes(&self, stream: &str, batches: &[RecordBatch], total: &str) -> Result<Scopes> {
        let recorded = self.streams.get(stream).unwrap_or(&self.all);
        let empty = || recorded.iter().map(|&recorded| Block { recorded, ..Block::default() }).collect::<Vec<_>>();
        let mut scopes = Scopes::from([(None, empty())]);
        for batch in batches {
            let scope = text(batch, "scope")?;
            let columns = ["block", "low", "n", "largest", total].map(|name| long(batch, name));
            let [block, low, n, largest, total] = columns;
            let (block, low, n, largest, total) = (block?, low?, n?, largest?, total?);
            for row in 0..batch.num_rows() {
                let at = |column: &[Option<i64>]| column.get(row).copied().flatten().unwrap_or(0);
                let place = usize::try_from(at(&block)).unwrap_or(usize::MAX);
                let add = |blocks: &mut Vec<Block>| {
                    let Some(block) = blocks.get_mut(place) else { return };
                    let count = at(&n).unsigned_abs();
                    block.count = block.count.saturating_add(count);
                    block.total = block.total.saturating_add(at(&total));
                    block.largest = block.largest.max(at(&largest));
                    block.sizes.push((at(&low), count));
                };
                if let Some(all) = scopes.get_mut(&None) {
                    add(all);
                }
                if let Some(Some(scope)) = scope.get(row) {
                    add(scopes.entry(Some(scope.clone())).or_insert_with(empty));
                }
            }
        }
        Ok(scopes)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::Query(format!("no column {name}")))
}

fn long(batch: &RecordBatch, name: &str) -> Result<Vec<Option<i64>>> {
    let values = arrow::compute::cast(column(batch, name)?, &DataType::Int64)?;
    Ok(values.as_primitive::<Int64Type>().iter().collect())
}

fn text(batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let values = arrow::compute::cast(column(batch, name)?, &DataType::Utf8)?;
    let values = values.as_string::<i32>();
    Ok((0..values.len()).map(|row| values.is_valid(row).then(|| values.value(row).to_owned())).collect())
}
