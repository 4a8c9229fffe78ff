//! Rows of a session's folder, without a query engine: a merge of its segments, one batch of each in memory.
//!
//! A log is sealed under our eyes: first there is only the log, then both, then only the segment. So logs are opened first,
//! segments listed afterwards, and a segment wins over the log of its number.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read},
    path::Path,
};

use arrow::{
    array::{AsArray as _, Int64Array, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::Int64Type,
};
use hud_common::session::{
    self, MANIFEST_FILE, Manifest, SessionDir, Table, VerifiedFile, encode_for, open_verified, verified_info,
};
use parquet::arrow::ProjectionMask;

use crate::{EachSegment, Error, Result, Rows};

/// Rows that are decoded at a time.
const BATCH: usize = 8 << 10;
/// Bytes of a segment that are copied at a time.
const PIECE: u64 = 1 << 20;

/// The rows of a session's folder as it was when it was opened.
#[derive(Debug)]
pub struct SessionRows {
    dir: SessionDir,
    manifest: Manifest,
    parts: BTreeMap<(Table, u32), Part>,
}

/// A segment, or the log that it will be made of.
#[derive(Debug)]
struct Part {
    rows: u64,
    first: i64,
    last: i64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The segment's number.
    Sealed(u32),
    /// Its rows, in the order in which they were appended.
    Log(Vec<RecordBatch>),
}

impl SessionRows {
    /// Takes a snapshot of the session in this folder. Nothing in it is changed.
    pub fn open(path: &Path) -> Result<Self> {
        let (dir, manifest) = SessionDir::open(path)?;
        Self::over(dir, manifest)
    }

    /// Takes a snapshot of a session that is open, wherever its files are.
    pub fn over(dir: SessionDir, manifest: Manifest) -> Result<Self> {
        let mut logs = Vec::new();
        for log in dir.unsealed()? {
            if log.number < manifest.first_segment(log.table) {
                continue;
            }
            match dir.open_log(log.table, log.number) {
                Ok(reader) => logs.push((log.number, reader)),
                // Sealed since.
                Err(session::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut parts = BTreeMap::new();
        for &table in Table::ALL {
            for (number, _) in dir.sealed(table)? {
                if number < manifest.first_segment(table) {
                    continue;
                }
                let info = match dir.open_sealed(table, number).and_then(|file| verified_info(table, file)) {
                    Ok(info) => info,
                    // Expired since.
                    Err(session::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                let source = Source::Sealed(number);
                parts.insert(
                    (table, number),
                    Part { rows: info.rows, first: info.first_ts, last: info.last_ts, source },
                );
            }
        }
        for (number, log) in logs {
            let table = log.table();
            if parts.contains_key(&(table, number)) {
                continue;
            }
            let batches = log.collect::<session::Result<Vec<_>>>()?;
            let keys = batches.iter().map(|batch| keys(table, batch)).collect::<Result<Vec<_>>>()?;
            let keys = || keys.iter().flat_map(|keys| keys.values().iter().copied());
            let (Some(first), Some(last)) = (keys().min(), keys().max()) else { continue };
            let rows = keys().count() as u64;
            parts.insert((table, number), Part { rows, first, last, source: Source::Log(batches) });
        }
        Ok(SessionRows { dir, manifest, parts })
    }

    fn of(&self, table: Table) -> impl Iterator<Item = &Part> {
        self.parts.range((table, 0)..=(table, u32::MAX)).map(|(_, part)| part)
    }
}

fn keys(table: Table, batch: &RecordBatch) -> Result<Int64Array> {
    let column = batch.column_by_name(table.key()).and_then(|c| c.as_primitive_opt::<Int64Type>());
    column.cloned().ok_or_else(|| Error::rows(format!("{} has no key {}", table.name(), table.key())))
}

/// The rows of a log as sealing would sort them: by the place in the log where keys are equal.
fn sorted(table: Table, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let rows = concat_batches(&table.schema(), batches)?;
    let keys = keys(table, &rows)?;
    let mut order: Vec<(i64, u32)> = keys.values().iter().copied().zip(0..).collect();
    order.sort_unstable();
    Ok(take_record_batch(&rows, &order.into_iter().map(|(_, row)| row).collect::<UInt32Array>())?)
}

/// A part that is being read.
struct Cursor<'a> {
    table: Table,
    rest: Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>,
    batch: RecordBatch,
    keys: Int64Array,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn open(dir: &SessionDir, table: Table, part: &'a Part, columns: &[&str]) -> Result<Option<Self>> {
        let rest: Box<dyn Iterator<Item = Result<RecordBatch>>> = match &part.source {
            Source::Log(batches) => Box::new(std::iter::once(sorted(table, batches))),
            Source::Sealed(number) => {
                let path = dir.segment(table, *number);
                let damaged = move |why: String| Error::Session(session::Error::Damaged { path: path.clone(), why });
                let reader = open_verified(table, dir.open_sealed(table, *number)?)?;
                let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
                let reader = reader.with_projection(mask).with_batch_size(BATCH).build();
                let reader = reader.map_err(|e| damaged(e.to_string()))?;
                Box::new(reader.map(move |batch| batch.map_err(|e| damaged(e.to_string()))))
            }
        };
        let batch = RecordBatch::new_empty(table.schema());
        let mut cursor = Cursor { table, rest, keys: keys(table, &batch)?, batch, at: 0 };
        Ok(cursor.advance(0)?.then_some(cursor))
    }

    /// Skips this number of rows. Returns whether there are more.
    fn advance(&mut self, rows: usize) -> Result<bool> {
        self.at += rows;
        while self.at >= self.batch.num_rows() {
            let Some(batch) = self.rest.next() else { return Ok(false) };
            self.batch = batch?;
            self.keys = keys(self.table, &self.batch)?;
            self.at = 0;
        }
        Ok(true)
    }

    fn key(&self) -> i64 {
        self.keys.values().get(self.at).copied().unwrap_or(i64::MAX)
    }

    /// Rows from here on whose key is at most `limit`; at least one.
    fn run(&self, limit: i64) -> usize {
        let rest = self.keys.values().get(self.at..).unwrap_or_default();
        rest.partition_point(|key| *key <= limit).max(1).min(rest.len())
    }
}

impl Rows for SessionRows {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn manifest_json(&self) -> Result<Vec<u8>> {
        // As it lies there, where it is a file: another hud may have written it.
        if !self.dir.is_folder() {
            return Ok(self.manifest.signed_text()?.into_bytes());
        }
        let path = self.dir.path().join(MANIFEST_FILE);
        Ok(std::fs::read(&path).map_err(session::Error::io("read", &path))?)
    }

    fn count(&self, table: Table) -> Result<u64> {
        Ok(self.of(table).map(|part| part.rows).sum())
    }

    fn scan(
        &self,
        table: Table,
        columns: &[&str],
        window: Option<(i64, i64)>,
        each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut columns = columns.to_vec();
        columns.push(table.key());
        let has_dur = table.schema().field_with_name("dur").is_ok();
        let is_wanted = |part: &&Part| match window.filter(|_| table.expires()) {
            Some((from, to)) => part.first < to && (has_dur || part.last >= from),
            None => true,
        };
        let mut waiting: Vec<&Part> = self.of(table).filter(is_wanted).collect();
        waiting.sort_by_key(|part| std::cmp::Reverse(part.first));
        let mut open: Vec<Cursor<'_>> = Vec::new();
        loop {
            let least = open.iter().map(Cursor::key).min();
            if waiting.last().is_some_and(|part| least.is_none_or(|least| part.first <= least)) {
                let part = waiting.pop();
                open.extend(part.map(|part| Cursor::open(&self.dir, table, part, &columns)).transpose()?.flatten());
                continue;
            }
            let Some(at) = (0..open.len()).min_by_key(|at| open.get(*at).map(Cursor::key)) else { return Ok(()) };
            let others = open.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, cursor)| cursor.key());
            let limit = others.chain(waiting.last().map(|part| part.first)).min().unwrap_or(i64::MAX);
            let Some(cursor) = open.get_mut(at) else { return Ok(()) };
            if window.is_some_and(|(_, to)| table.expires() && cursor.key() >= to) {
                return Ok(());
            }
            let rows = cursor.run(limit);
            each(&cursor.batch.slice(cursor.at, rows))?;
            if !cursor.advance(rows)? {
                open.swap_remove(at);
            }
        }
    }

    fn segments(&self, each: &mut EachSegment<'_>) -> Result<()> {
        for ((table, number), part) in &self.parts {
            match &part.source {
                Source::Sealed(number) => {
                    let file = self.dir.open_sealed(*table, *number)?;
                    let (size, at) = (file.size(), 0);
                    each(*table, *number, size, &mut Copy { file, size, at, piece: io::Cursor::default() })?;
                }
                Source::Log(batches) => {
                    let Some(made) = encode_for(&self.dir, *table, *number, batches)? else { continue };
                    each(*table, *number, made.data.len() as u64, &mut made.data.as_slice())?;
                }
            }
        }
        Ok(())
    }
}

/// A segment's bytes, each checked before it is given.
struct Copy {
    file: VerifiedFile,
    size: u64,
    at: u64,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Copy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(buffer)?;
        if read > 0 || self.at >= self.size {
            return Ok(read);
        }
        let end = (self.at + PIECE).min(self.size);
        let piece = self.file.read(self.at..end).map_err(io::Error::other)?;
        self.at = end;
        self.piece = io::Cursor::new(piece.to_vec());
        self.piece.read(buffer)
    }
}
