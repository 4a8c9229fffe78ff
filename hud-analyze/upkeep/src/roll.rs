//! Writes rows to files of a target size, each sorted and sealed.
//!
//! Invariant: if rows arrive sorted, no two files share a key, unless the rows of that key exceed the target by an eighth.

use std::{cell::Cell, path::PathBuf};

use arrow::array::RecordBatch;
use hud_common::session::{Table, encode, encode_for};

use crate::{
    bench::{self, Bench},
    error::{Error, Result},
    rows::{self, Sizes, keys},
    watch::Watch,
};

/// Target size of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) rows: u64,
    /// Size in memory, by [`Sizes`].
    pub(crate) bytes: u64,
}

impl Target {
    /// Whether a file of this size is full.
    pub(crate) fn is_reached(self, rows: u64, bytes: u64) -> bool {
        rows >= self.rows || bytes >= self.bytes
    }

    /// Whether two files of this total size are merged.
    pub(crate) fn has_room_for(self, rows: u64, bytes: u64) -> bool {
        rows <= self.rows && bytes <= self.bytes
    }
}

/// A sorted file.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) path: PathBuf,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Whether it is a temporary file, which is removed after it was merged.
    pub(crate) is_held: bool,
}

enum To<'a> {
    Runs(&'a Cell<u32>),
    /// The next segment number.
    Segments(Option<u32>),
}

/// Writes rows to files.
pub(crate) struct Roller<'a> {
    bench: &'a Bench,
    table: Table,
    target: Target,
    to: To<'a>,
    is_ordered: bool,
    held: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    last: Option<i64>,
    made: Vec<Run>,
}

impl<'a> Roller<'a> {
    /// Writes segments of the successor, numbered from `number`.
    pub(crate) fn to_segments(bench: &'a Bench, table: Table, target: Target, number: u32) -> Self {
        Roller::new(bench, table, target, To::Segments(Some(number)))
    }

    /// Writes files of the working folder.
    pub(crate) fn to_runs(bench: &'a Bench, table: Table, target: Target, serial: &'a Cell<u32>) -> Self {
        Roller::new(bench, table, target, To::Runs(serial))
    }

    fn new(bench: &'a Bench, table: Table, target: Target, to: To<'a>) -> Self {
        let (held, made) = (Vec::new(), Vec::new());
        Roller { bench, table, target, to, is_ordered: true, held, rows: 0, bytes: 0, last: None, made }
    }

    /// For unsorted rows.
    pub(crate) fn with_any_order(self) -> Self {
        Roller { is_ordered: false, ..self }
    }

    /// Adds rows.
    pub(crate) fn push(&mut self, batch: &RecordBatch, watch: &mut Watch<'_>) -> Result<()> {
        let sizes = Sizes::of(batch);
        let mut from = 0;
        for (row, &key) in keys(self.table, &self.bench.runs(), batch)?.iter().enumerate() {
            // Equal keys stay together, up to an eighth beyond the target.
            let is_same = self.is_ordered && self.last == Some(key);
            let beyond = |n: u64| n.saturating_sub(n / 8);
            let is_full = match is_same {
                false => self.target.is_reached(self.rows, self.bytes),
                true => self.target.is_reached(beyond(self.rows), beyond(self.bytes)),
            };
            if is_full {
                self.held.push(batch.slice(from, row - from));
                from = row;
                self.roll(watch)?;
            }
            self.rows += 1;
            self.bytes += sizes.row(row);
            self.last = Some(key);
        }
        self.held.push(batch.slice(from, batch.num_rows() - from));
        Ok(())
    }

    fn roll(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        (self.rows, self.bytes) = (0, 0);
        let successor = self.bench.successor();
        let at = successor.table(self.table);
        let encoded = match self.to {
            To::Segments(Some(number)) => encode_for(&successor, self.table, number, &held),
            _ => encode(self.table, &held),
        };
        let Some(encoded) = encoded.map_err(rows::arrow(&at))? else { return Ok(()) };
        drop(held);
        let path = match &mut self.to {
            To::Runs(serial) => {
                serial.set(serial.get() + 1);
                let path: PathBuf = self.bench.runs().join(format!("{}-{}", self.table.name(), serial.get()));
                bench::write(&path, &encoded.data, self.bench.file_rights())?;
                (watch.step)()?;
                path
            }
            To::Segments(number) => {
                let this = number.ok_or_else(|| Error::Encode { path: at, why: "its numbers are used up".into() })?;
                *number = this.checked_add(1);
                self.bench.put(self.table, this, &encoded.data, &mut *watch.step)?
            }
        };
        self.made.push(Run {
            path,
            first: encoded.first_key,
            last: encoded.last_key,
            rows: encoded.rows,
            bytes: encoded.data.len() as u64,
            is_held: matches!(self.to, To::Runs(_)),
        });
        Ok(())
    }

    /// Writes the rest; returns the files in order.
    pub(crate) fn finish(mut self, watch: &mut Watch<'_>) -> Result<Vec<Run>> {
        self.roll(watch)?;
        Ok(self.made)
    }
}
