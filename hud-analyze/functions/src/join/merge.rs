//! The join itself, as a state machine that says which input it needs next. It does no input of its own, so dropping it
//! cancels it.
//!
//! A batch of the left side produces a batch, or several if much of the right side lies between its rows: matches are
//! emitted before the batches that contain them are dropped.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Int64Type, SchemaRef},
};
use datafusion::{
    common::{DataFusionError, exec_err},
    error::Result,
    execution::memory_pool::MemoryReservation,
};

use super::{
    held::{Held, Spot},
    keys::{BatchKeys, Keys},
    kind::Kind,
};

/// An output column: one of the left side, or one of the held ones of the right side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Left(usize),
    Right(usize),
}

/// The columns of both sides.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// The names of the sides.
    pub(super) names: [String; 2],
    pub(super) left_ts: usize,
    pub(super) left_keys: Vec<usize>,
    pub(super) right_ts: usize,
    /// Of an interval join.
    pub(super) right_dur: Option<usize>,
    pub(super) right_keys: Vec<usize>,
    pub(super) key_types: Vec<DataType>,
    /// Output columns of the right side.
    pub(super) right_columns: Vec<usize>,
    pub(super) output: Vec<Source>,
}

/// The next input that the machine needs, or its output.
pub(super) enum Step {
    /// A batch of the left side.
    NeedLeft,
    /// A batch of the right side.
    NeedRight,
    /// A batch that is ready.
    Output(RecordBatch),
}

struct Left {
    batch: RecordBatch,
    ts: Int64Array,
    keys: BatchKeys,
    /// The first row that has not been emitted.
    from: usize,
    /// The first row that has not been looked up.
    at: usize,
}

struct Right {
    ts: Int64Array,
    dur: Option<Int64Array>,
    keys: BatchKeys,
    number: u32,
    at: usize,
}

/// A join in progress.
pub(super) struct Merge {
    shape: Arc<Shape>,
    schema: SchemaRef,
    keys: Keys,
    held: Held,
    left: Option<Left>,
    found: Vec<Option<Spot>>,
    right: Option<Right>,
    /// A batch of the right side that is not held yet.
    waiting: Option<RecordBatch>,
    right_is_over: bool,
    left_now: i64,
    right_now: i64,
}

impl Merge {
    pub(super) fn try_new(
        shape: Arc<Shape>,
        schema: SchemaRef,
        right_types: Vec<DataType>,
        reserved: MemoryReservation,
        batch_size: usize,
    ) -> Result<Self> {
        let keys = Keys::try_new(&shape.key_types)?;
        let held = Held::new(right_types, keys.map(), reserved, batch_size);
        let (left, found, right, waiting) = Default::default();
        Ok(Merge {
            shape,
            schema,
            keys,
            held,
            left,
            found,
            right,
            waiting,
            right_is_over: false,
            left_now: i64::MIN,
            right_now: i64::MIN,
        })
    }

    /// Accepts a batch of the left side, after [`Step::NeedLeft`].
    pub(super) fn push_left(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            let ts = integers(&batch, self.shape.left_ts)?;
            let keys = self.keys.of(&columns(&batch, &self.shape.left_keys)?)?;
            self.left = Some(Left { batch, ts, keys, from: 0, at: 0 });
        }
        Ok(())
    }

    /// Accepts a batch of the right side, after [`Step::NeedRight`]; `None` at its end.
    pub(super) fn push_right(&mut self, batch: Option<RecordBatch>) {
        self.right_is_over = batch.is_none();
        self.waiting = batch.filter(|batch| batch.num_rows() > 0);
    }

    /// Proceeds as far as it can.
    pub(super) fn step(&mut self) -> Result<Step> {
        loop {
            let Some(left) = &self.left else { return Ok(Step::NeedLeft) };
            if let Some(batch) = self.waiting.take() {
                if self.held.is_heavy() || !self.admit(&batch)? {
                    // The matches are in batches that are to be dropped.
                    if !self.found.is_empty() {
                        self.waiting = Some(batch);
                        return Ok(Step::Output(self.flush()?));
                    }
                    self.held.tidy(self.left_now, None)?;
                    if !self.admit(&batch)? {
                        return exec_err!("{} has no room for a batch", self.shape.kind.name());
                    }
                }
                continue;
            }
            if left.at == left.ts.len() {
                return Ok(Step::Output(self.flush()?));
            }
            if !self.look_up()? {
                return Ok(Step::NeedRight);
            }
        }
    }

    /// Holds a batch of the right side; false if there is no memory, but may be later. If everything that can be
    /// dropped is dropped and there is still none, that is an error.
    fn admit(&mut self, batch: &RecordBatch) -> Result<bool> {
        let ts = integers(batch, self.shape.right_ts)?;
        let dur = self.shape.right_dur.map(|dur| integers(batch, dur)).transpose()?;
        let keys = self.keys.of(&columns(batch, &self.shape.right_keys)?)?;
        let number = self.held.add(columns(batch, &self.shape.right_columns)?, batch.num_rows())?;
        if let Err(error) = self.held.account(keys.size()) {
            if self.found.is_empty() {
                self.held.tidy(self.left_now, Some(number))?;
                self.held.account(keys.size()).map_err(|_| error)?;
            } else {
                self.held.forget(number);
                return Ok(false);
            }
        }
        self.right = Some(Right { ts, dur, keys, number, at: 0 });
        Ok(true)
    }

    /// Looks up rows of the left batch, as far as the right side is known; false if more of it is needed.
    fn look_up(&mut self) -> Result<bool> {
        let Some(left) = &mut self.left else { return Ok(true) };
        let times = left.ts.values();
        while let Some(&now) = times.get(left.at) {
            if left.ts.is_null(left.at) {
                self.found.push(None);
                left.at += 1;
                continue;
            }
            if now < self.left_now {
                return exec_err!("the rows of {} are not in order of ts, as it says", self.shape.names[0]);
            }
            self.left_now = now;
            while !self.right.as_mut().is_some_and(|right| right.is_past(now)) {
                let Some(right) = &mut self.right else {
                    if self.right_is_over {
                        break;
                    }
                    return Ok(false);
                };
                if right.at == right.ts.len() {
                    self.right = None;
                    continue;
                }
                let row = right.at;
                right.at += 1;
                if right.ts.is_null(row) {
                    continue;
                }
                let ts = right.ts.value(row);
                if ts < self.right_now {
                    return exec_err!("the rows of {} are not in order of ts, as it says", self.shape.names[1]);
                }
                self.right_now = ts;
                if let Some(last) = right.last(row, ts).filter(|last| *last >= now) {
                    self.held.open(&right.keys, row, right.number, ts, last)?;
                }
            }
            self.found.push(self.held.find(&left.keys, left.at, now));
            left.at += 1;
        }
        Ok(true)
    }

    /// The rows that have been looked up.
    fn flush(&mut self) -> Result<RecordBatch> {
        let Some(left) = &mut self.left else {
            return Err(DataFusionError::Internal("a join gives rows that it does not have".into()));
        };
        let right = self.held.rows(&self.found)?;
        let rows = left.at - left.from;
        let column = |source: &Source| match source {
            Source::Left(at) => left.batch.columns().get(*at).map(|column| column.slice(left.from, rows)),
            Source::Right(at) => right.get(*at).cloned(),
        };
        let columns: Vec<ArrayRef> = self.shape.output.iter().filter_map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.found.clear();
        left.from = left.at;
        if left.at == left.ts.len() {
            self.left = None;
        }
        let (current, extra) = self.right.as_ref().map_or((None, 0), |right| (Some(right.number), right.keys.size()));
        self.held.forget_dead(current);
        if self.held.account(extra).is_err() {
            self.held.tidy(self.left_now, current)?;
            self.held.account(extra)?;
        }
        Ok(batch)
    }
}

impl Right {
    /// Whether its next row is later than `now`, and none of it is needed yet.
    fn is_past(&self, now: i64) -> bool {
        self.ts.values().get(self.at).is_some_and(|ts| *ts > now) && self.ts.is_valid(self.at)
    }

    /// The last instant at which the row matches; `None` if there is none.
    fn last(&self, row: usize, ts: i64) -> Option<i64> {
        match &self.dur {
            None => Some(i64::MAX),
            Some(dur) if dur.is_null(row) || dur.value(row) <= 0 => None,
            Some(dur) => Some(ts.saturating_add(dur.value(row) - 1)),
        }
    }
}

fn integers(batch: &RecordBatch, column: usize) -> Result<Int64Array> {
    batch
        .columns()
        .get(column)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .cloned()
        .ok_or_else(|| DataFusionError::Internal("a join's input is not of the type that was planned".into()))
}

fn columns(batch: &RecordBatch, columns: &[usize]) -> Result<Vec<ArrayRef>> {
    let column = |at: &usize| {
        let column = batch.columns().get(*at).map(Arc::clone);
        column.ok_or_else(|| DataFusionError::Internal("a join's input has fewer columns than were planned".into()))
    };
    columns.iter().map(column).collect()
}
