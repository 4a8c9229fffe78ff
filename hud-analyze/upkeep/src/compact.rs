//! Compaction: merges many small segments into few that do not overlap. At any time readers see exactly the session's rows.
//!
//! The session is read and verified; its successor is built in the working folder (`bench.rs`), read and compared with it, and
//! replaces it atomically. After a kill at any point the session is complete, and the next run removes the leftovers. New segments
//! have numbers that were never used; the manifest's `first_segment` excludes lower ones. Tables that are already compact are not
//! rewritten.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use hud_common::session::{Error as SessionError, Manifest, SessionDir, Table, VerifiedFile, recover, verified_info};

use crate::{
    bench::{Bench, Killer, Place},
    error::{Error, Result},
    merge::{FAN_IN, Merge, Source, depth, is_names},
    progress::{Progress, Step},
    roll::{Run, Target},
    rows::{self, Sizes, Sum, Summer, keys, unknown_column},
    watch::Watch,
};

/// Prefix of the note in the manifest; only that of the last compaction is kept.
const NOTE: &str = "compacted by hud ";

/// Options of a compaction.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Maximum rows per segment.
    pub rows: u64,
    /// Maximum size of a segment in memory, in bytes: that of the recorder's logs.
    pub bytes: u64,
    /// A new folder for the result; without it, the session itself is compacted.
    pub output: Option<PathBuf>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        // A segment is a row group, and DataFusion and DuckDB share work by row groups: beyond a million rows, cores idle.
        CompactOptions { rows: 1 << 20, bytes: 64 << 20, output: None }
    }
}

/// The result of a compaction.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// Location of the result.
    pub place: Place,
    /// Tables that were merged.
    pub tables: Vec<CompactedTable>,
    /// Bytes of all sealed segments before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// Whether the session was recovered first, as its recorder had been killed.
    pub recovered: bool,
    /// Whether leftovers of a killed process were removed.
    pub cleared: bool,
}

/// A table that was merged.
#[derive(Clone, Debug)]
pub struct CompactedTable {
    /// The table.
    pub table: Table,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments_after: usize,
    /// Rows after.
    pub rows: u64,
    /// Duplicate rows of names that were dropped.
    pub doubles: u64,
    /// Bytes of its segments before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

/// Compacts a session; recovers it first if its recorder was killed.
///
/// Fails with [`SessionError::InUse`] if it is being recorded, and with [`Error::NotWhole`] if it is damaged and must be repaired
/// first.
pub fn compact(session: &Path, options: &CompactOptions, progress: &mut dyn Progress) -> Result<Compaction> {
    run(session, options, progress, &mut || Ok(()), true)
}

/// `step` is called after each change on disk; if it fails, this ends there. With `is_tidy`, leftovers are then removed.
pub(crate) fn run<'a>(
    session: &Path,
    options: &CompactOptions,
    progress: &'a mut dyn Progress,
    step: &'a mut Killer<'a>,
    is_tidy: bool,
) -> Result<Compaction> {
    let dir = SessionDir::at(session);
    let recovered = recover(&dir)?.is_some();
    let output = options.output.as_deref();
    let bench = Bench::take(session, output)?;
    let mut watch = Watch::new(progress, step);
    let cleared = bench.clear()?;
    let done = build(&bench, options, &mut watch);
    if done.is_err() && is_tidy {
        // The first error is reported.
        let _ = bench.clear();
    }
    Ok(Compaction { recovered, cleared, ..done? })
}

pub(crate) fn build(bench: &Bench, options: &CompactOptions, watch: &mut Watch<'_>) -> Result<Compaction> {
    let manifest = bench.session().manifest()?;
    // From now on, segments of other sessions are rejected.
    bench.is_of(&manifest.id);
    let session = bench.session();
    if let Some(log) = session.unsealed()?.into_iter().next() {
        return Err(Error::NotWhole { path: log.log, why: "it is not sealed".into() });
    }
    let target = Target { rows: options.rows.max(1), bytes: options.bytes.max(1) };
    let output = options.output.as_deref();
    let summer = Summer::new();
    let (mut to_merge, mut bytes_before) = (Vec::new(), 0);
    for &table in Table::ALL {
        let segments = survey(&session, &manifest, table, &summer, watch)?;
        bytes_before += segments.iter().map(|s| s.run.bytes).sum::<u64>();
        if !is_compact(table, &segments, target) {
            to_merge.push((table, segments));
        }
    }
    let mut report = Compaction {
        place: Place::Nowhere,
        tables: Vec::new(),
        bytes_before,
        bytes_after: bytes_before,
        recovered: false,
        cleared: false,
    };
    if to_merge.is_empty() && output.is_none() {
        return Ok(report);
    }
    bench.has_room(room(bench, &to_merge)?)?;
    bench.set_up(&mut *watch.step)?;
    let is_merged = |table: Table| to_merge.iter().any(|(merged, _)| *merged == table);
    bench.adopt(&|name| is_left_out(name, &manifest, &is_merged), &mut *watch.step)?;

    let mut successor = manifest.clone();
    for (table, segments) in &to_merge {
        let number = next_number(&session, &manifest, *table)?;
        let merged = merge(bench, *table, segments, target, number, &summer, watch)?;
        successor.first_segment.insert(table.name().into(), number);
        let of = |runs: &mut dyn Iterator<Item = u64>| runs.sum::<u64>();
        let (before, after) =
            (of(&mut segments.iter().map(|s| s.run.bytes)), of(&mut merged.files.iter().map(|r| r.bytes)));
        report.bytes_after = report.bytes_after.saturating_sub(before).saturating_add(after);
        report.tables.push(CompactedTable {
            table: *table,
            segments_before: segments.len(),
            segments_after: merged.files.len(),
            rows: of(&mut merged.files.iter().map(|r| r.rows)),
            doubles: merged.doubles.rows,
            bytes_before: before,
            bytes_after: after,
        });
    }
    if !to_merge.is_empty() {
        successor.notes.retain(|note| !note.starts_with(NOTE));
        successor.notes.push(note(&report));
        successor.write(bench.successor().path())?;
        (watch.step)()?;
    }
    report.place = bench.finish(output, "compacted", &mut *watch.step)?;
    Ok(report)
}

/// A segment of the session.
struct Surveyed {
    run: Run,
    /// Bytes of its rows in memory.
    size: u64,
    is_sorted: bool,
    /// Whether it contains a key twice.
    has_doubles: bool,
    sum: Sum,
}

/// Reads and verifies all segments of a table.
fn survey(
    session: &SessionDir,
    manifest: &Manifest,
    table: Table,
    summer: &Summer,
    watch: &mut Watch<'_>,
) -> Result<Vec<Surveyed>> {
    let not_whole = |e: SessionError| match e {
        SessionError::Damaged { path, why } | SessionError::Foreign { path, why } => Error::NotWhole { path, why },
        other => other.into(),
    };
    let first = manifest.first_segment(table);
    let mut next = first;
    let empty = manifest.recovery.as_ref().and_then(|r| r.empty_segments.get(table.name()));
    let mut segments = Vec::new();
    let (mut all, mut done) = (0, 0);
    for (number, path) in session.sealed(table)?.into_iter().filter(|(number, _)| *number >= first) {
        // After compaction a missing segment could not be detected.
        while next < number && empty.is_some_and(|empty| empty.contains(&next)) {
            next += 1;
        }
        if next != number {
            let path = session.segment(table, next);
            return Err(Error::NotWhole { path, why: "it is missing".into() });
        }
        next = number.saturating_add(1);
        let info = session.open_sealed(table, number).and_then(|file| verified_info(table, file));
        all += info.map_err(not_whole)?.rows;
        segments.push((number, path));
    }
    let mut surveyed = Vec::new();
    for (number, path) in segments {
        let file = session.open_sealed(table, number).map_err(not_whole)?;
        if let Some(column) = unknown_column(table, file.clone())? {
            return Err(Error::NewerColumn { path, column });
        }
        let bytes = file.size();
        let run = Run { path: path.clone(), first: i64::MAX, last: i64::MIN, rows: 0, bytes, is_held: false };
        let mut found = Surveyed { run, size: 0, is_sorted: true, has_doubles: false, sum: Sum::default() };
        let mut last = None;
        let scanned = rows::scan(table, file, |batch| {
            found.sum += summer.sum(batch);
            let sizes = Sizes::of(batch);
            found.size += (0..batch.num_rows()).map(|row| sizes.row(row)).sum::<u64>();
            for &key in keys(table, &path, batch)? {
                found.is_sorted &= last.is_none_or(|last| last <= key);
                found.has_doubles |= last == Some(key);
                last = Some(key);
                found.run.first = found.run.first.min(key);
                found.run.last = found.run.last.max(key);
            }
            done += batch.num_rows() as u64;
            watch.report(Step::Reading, table, done, all)
        });
        scanned.map_err(|e| match e {
            Error::Session(e) => not_whole(e),
            other => other,
        })?;
        found.run.rows = found.sum.rows;
        if found.run.rows == 0 {
            return Err(Error::NotWhole { path, why: "it has no row".into() });
        }
        surveyed.push(found);
    }
    Ok(surveyed)
}

/// Whether compaction would change nothing: segments are sorted, do not overlap, and no two are small enough to be merged.
fn is_compact(table: Table, segments: &[Surveyed], target: Target) -> bool {
    let are_names = is_names(table);
    segments.iter().all(|s| s.is_sorted && !(are_names && s.has_doubles))
        && segments.windows(2).all(|pair| match pair {
            [a, b] => {
                let follows = if are_names { a.run.last < b.run.first } else { a.run.last <= b.run.first };
                follows && !target.has_room_for(a.run.rows + b.run.rows, a.size + b.size)
            }
            _ => true,
        })
}

/// Files of the session that the successor does not get: merged and expired segments, and incomplete files.
fn is_left_out(name: &Path, manifest: &Manifest, is_merged: &dyn Fn(Table) -> bool) -> bool {
    let Some(file) = name.file_name().and_then(|n| n.to_str()) else { return false };
    if file.ends_with(".tmp") {
        return true;
    }
    let table = name.parent().and_then(Path::to_str).and_then(Table::by_name);
    // In exactly hud's format: any other name is no segment.
    let number = file.strip_suffix(".parquet").and_then(|n| n.parse::<u32>().ok());
    let number = number.filter(|n| format!("{n:06}.parquet") == file);
    match table.zip(number) {
        Some((table, number)) => is_merged(table) || number < manifest.first_segment(table),
        None => false,
    }
}

/// A number above any that the table ever used.
pub(crate) fn next_number(session: &SessionDir, manifest: &Manifest, table: Table) -> Result<u32> {
    let recorded = manifest.recovery.as_ref().into_iter().flat_map(|r| {
        let of = |map: &std::collections::BTreeMap<String, Vec<u32>>| {
            map.get(table.name()).and_then(|numbers| numbers.iter().max().copied())
        };
        [of(&r.empty_segments), of(&r.damaged_segments)].into_iter().flatten()
    });
    let recorded = recorded.max().map_or(1, |last| last.saturating_add(1));
    let next = session.next_number(table)?.max(manifest.first_segment(table)).max(recorded);
    match next {
        u32::MAX => Err(Error::Encode { path: session.table(table), why: "its numbers are used up".into() }),
        next => Ok(next),
    }
}

/// Merges a table and verifies the result.
fn merge(
    bench: &Bench,
    table: Table,
    segments: &[Surveyed],
    target: Target,
    number: u32,
    summer: &Summer,
    watch: &mut Watch<'_>,
) -> Result<crate::merge::Merged> {
    let merge = Merge::new(bench, table, target, summer);
    let mut sources: Vec<Source> = Vec::new();
    for segment in segments {
        match segment.is_sorted {
            true => sources.push(vec![segment.run.clone()]),
            false => sources.extend(merge.sort(&segment.run.path, watch)?),
        }
    }
    let merged = merge.run(sources, number, watch)?;
    let mut wanted = Sum::default();
    segments.iter().for_each(|s| wanted += s.sum);
    wanted -= merged.doubles;
    prove(table, &merged.files, wanted, summer, watch)?;
    Ok(merged)
}

/// Checks that the new segments contain exactly these rows, and are sorted.
fn prove(table: Table, files: &[Run], wanted: Sum, summer: &Summer, watch: &mut Watch<'_>) -> Result<()> {
    let mut found = Sum::default();
    let differs = |why: String| Error::Differs { table: table.name(), why };
    let (mut last, are_names) = (None, is_names(table));
    for file in files {
        rows::scan(table, VerifiedFile::open(&file.path)?, |batch| {
            found += summer.sum(batch);
            for &key in keys(table, &file.path, batch)? {
                if last.is_some_and(|last| last > key || (are_names && last == key)) {
                    return Err(differs(format!("it is not sorted at {} {key}", table.key())));
                }
                last = Some(key);
            }
            watch.report(Step::Verifying, table, found.rows, wanted.rows)
        })?;
    }
    if found.rows != wanted.rows {
        return Err(differs(format!("{} rows instead of {}", found.rows, wanted.rows)));
    }
    if found != wanted {
        return Err(differs("rows were changed".into()));
    }
    Ok(())
}

/// Maximum size of the successor in bytes.
fn room(bench: &Bench, to_merge: &[(Table, Vec<Surveyed>)]) -> Result<u64> {
    let mut needed = 1 << 20;
    for (_, segments) in to_merge {
        let bytes = segments.iter().map(|s| s.run.bytes).sum::<u64>();
        let unsorted = segments.iter().filter(|s| !s.is_sorted).map(|s| s.run.bytes).sum::<u64>();
        let sources: Vec<Source> = segments.iter().map(|s| vec![s.run.clone()]).collect();
        // Runs of a pass exist until those of the next one are complete.
        let copies = if depth(&sources) > FAN_IN { 3 } else { 1 };
        needed += (bytes + bytes / 8) * copies + unsorted;
    }
    // On another disk, all files are copied.
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).map_err(Error::io("stat", path));
    let session = bench.session();
    if device(session.path())? != device(bench.parent())? {
        for &table in Table::ALL {
            for path in session.segments(table)? {
                needed += fs::metadata(&path).map_err(Error::io("stat", &path))?.len();
            }
        }
    }
    Ok(needed)
}

fn note(report: &Compaction) -> String {
    let tables = report
        .tables
        .iter()
        .map(|t| format!("{} segments of {} into {}", t.segments_before, t.table.name(), t.segments_after));
    format!("{NOTE}{}: {}", env!("CARGO_PKG_VERSION"), tables.collect::<Vec<_>>().join(", "))
}

impl Compaction {
    /// The result, as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.recovered {
            lines.push("its recorder was killed; recovered it first".into());
        }
        if self.cleared {
            lines.push("removed the leftovers of a killed process".into());
        }
        for t in &self.tables {
            let doubles = if t.doubles > 0 { format!(", {} duplicates dropped", t.doubles) } else { String::new() };
            lines.push(format!(
                "{}: {} segments into {}, {} rows{doubles}, {} bytes into {}",
                t.table.name(),
                t.segments_before,
                t.segments_after,
                t.rows,
                t.bytes_before,
                t.bytes_after
            ));
        }
        lines.push(match &self.place {
            Place::Nowhere => "already compact".into(),
            Place::Exchanged => format!("{} bytes before, {} after", self.bytes_before, self.bytes_after),
            Place::Output(path) => {
                format!("{} bytes before, {} in {}", self.bytes_before, self.bytes_after, path.display())
            }
            Place::Beside(path) => format!(
                "{} bytes before, {} in {}: this file system cannot exchange two folders, so the session is unchanged",
                self.bytes_before,
                self.bytes_after,
                path.display()
            ),
        });
        lines
    }
}
