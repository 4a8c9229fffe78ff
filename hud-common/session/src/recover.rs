//! Recovery: completes the session of a killed recorder, and records the losses in the manifest.
//!
//! First everything is read and the result is written into the manifest; then logs are sealed, ids without a row get a
//! placeholder, and the manifest is written again, with the session's end. If it is killed at any point, it starts again
//! with the same result, as the result of the first attempt is in the manifest. The session is locked throughout.
//!
//! A session that was closed on a full disk only has logs left to be sealed, and is complete then.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use arrow::array::RecordBatch;

use hud_files::Folder;
use hud_wire::Stream;

use super::{
    CoverageColumns, Manifest, REFERENCES, Recovery, SessionDir, StreamAccount, Table, Unsealed, VerifiedFile,
    error::{Error, Result},
    fs::{self, TMP},
    placeholder::{rows, unnamed},
    recover_coverage::not_covered,
    scan::{integers, scan_log, scan_verified, texts},
    segment::{encode_for, info_and_longest, seal_log},
    table_scan::{Skip, each_batch, latest},
};

/// Maximum time for which a recorder buffers rows before it writes them (ns).
const FLUSHED_EVERY: i64 = 100_000_000;

/// Maximum number of files of one name that are set aside.
const MOST_ASIDE: u32 = 1000;

/// Reason for the end of a recovered session.
const KILLED: &str = "the recorder was killed";

/// Recovers a session whose recorder was killed or could not seal all of it; `None` if there is nothing to do.
/// [`Error::InUse`] if its recorder is alive, or another process recovers it.
pub fn recover(session: &SessionDir) -> Result<Option<Recovery>> {
    if !is_needed(session, &session.manifest()?)? {
        return Ok(None);
    }
    // If the folder's path is exchanged from here on, nothing is written elsewhere.
    let session = session.held()?;
    let _lock = session.lock()?;
    // Another process may have done it meanwhile.
    let manifest = session.manifest()?;
    if !is_needed(&session, &manifest)? {
        return Ok(None);
    }
    run(&session.with_id(&manifest), manifest, &mut || Ok(())).map(Some)
}

/// Whether a session was neither closed nor completely recovered. Its recorder may be alive.
fn is_needed(session: &SessionDir, manifest: &Manifest) -> Result<bool> {
    if manifest.complete {
        return Ok(false);
    }
    Ok(manifest.recovery.is_none() || manifest.end_reason.is_none() || !session.unsealed()?.is_empty())
}

/// `step` is called after each change on disk; if it fails, so does this function, as if killed there.
fn run(session: &SessionDir, mut manifest: Manifest, step: &mut dyn FnMut() -> Result<()>) -> Result<Recovery> {
    Table::ALL.iter().try_for_each(|table| session.find_table(*table).map(drop))?;
    tidy(session, &manifest, step)?;
    let found = Contents::read(session, &manifest)?;
    if is_closed(&manifest) && found.is_whole(&manifest) {
        let recovery = Recovery { lost_after: manifest.end.unwrap_or(manifest.start), ..found.recovery(&manifest) };
        seal_logs(session, step)?;
        manifest.complete = true;
        session.write_manifest(&manifest)?;
        step()?;
        return Ok(recovery);
    }
    let recovery = match manifest.recovery.clone() {
        // From the first attempt, which read everything.
        Some(recovery) if manifest.end_reason.is_none() => recovery,
        _ => {
            let mut recovery = found.recovery(&manifest);
            if is_closed(&manifest) {
                recovery.ended = manifest.end_reason.take();
            } else {
                manifest.end = Some(found.newest.unwrap_or(manifest.start));
                manifest.end_reason = None;
            }
            manifest.recovery = Some(recovery.clone());
            session.write_manifest(&manifest)?;
            step()?;
            recovery
        }
    };

    for (table, name) in &found.foreign {
        set_aside(session, *table, name, step)?;
    }
    seal_logs(session, step)?;
    for (table, ids) in &found.unnamed {
        put(session, *table, unnamed(*table, ids.iter().copied()), step)?;
    }
    if let (None, Some(end)) = (&recovery.ended, manifest.end) {
        // Damaged segments are listed in the result already.
        let missing = not_covered(session, end, KILLED, &mut |_, _, e| match e {
            Error::Damaged { .. } | Error::Foreign { .. } => Ok(()),
            other => Err(other),
        })?;
        put(session, Table::Coverage, rows::<CoverageColumns>(missing.into_iter()), step)?;
    }

    manifest.streams = found.accounts(&manifest).0;
    manifest.end_reason = Some(recovery.ended.clone().unwrap_or_else(|| KILLED.into()));
    if let (Some(range), Some(end)) = (&mut manifest.range, manifest.end) {
        range.to = end;
    }
    session.write_manifest(&manifest)?;
    step()?;
    Ok(recovery)
}

/// Adds a segment.
fn put(session: &SessionDir, table: Table, batch: RecordBatch, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let number = session.next_number(table)?;
    let encoded = encode_for(session, table, number, &[batch]).map_err(Error::damaged(&session.table(table)))?;
    let Some(encoded) = encoded else { return Ok(()) };
    session.create_table(table)?;
    session.write_segment(table, number, &encoded.data)?;
    step()
}

/// Renames a file of another session, table or number, so that no reader takes it for a segment or a log.
fn set_aside(session: &SessionDir, table: Table, name: &str, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let folder = session.open_table(table)?;
    let names = (1..MOST_ASIDE).map(|n| if n == 1 { format!("{name}.foreign") } else { format!("{name}.foreign.{n}") });
    let mut free = names.filter(|aside| !folder.has(aside));
    let path = session.table(table).join(name);
    let aside =
        free.next().ok_or_else(|| Error::Damaged { path: path.clone(), why: "it is not of this session".into() })?;
    folder.rename(name, &aside).map_err(Error::io("rename", &path))?;
    step()
}

/// Whether its recorder closed it, but could not seal all of it.
fn is_closed(manifest: &Manifest) -> bool {
    manifest.end.is_some() && manifest.end_reason.is_some() && manifest.recovery.is_none()
}

fn seal_logs(session: &SessionDir, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    for log in session.unsealed()? {
        seal_log(session, log.table, log.number, true)?;
        step()?;
    }
    Ok(())
}

/// Removes temporary files, expired segments, and logs of sealed segments.
fn tidy(session: &SessionDir, manifest: &Manifest, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let mut remove_temporary = |folder: &Folder, path: &Path| -> Result<()> {
        for name in folder.names().map_err(Error::io("list", path))? {
            if name.as_encoded_bytes().ends_with(TMP.as_bytes()) {
                folder.remove(&name).map_err(Error::io("remove", &path.join(&name)))?;
                step()?;
            }
        }
        Ok(())
    };
    remove_temporary(&*session.folder().map_err(Error::io("open", session.path()))?, session.path())?;
    for &table in Table::ALL {
        if let Some(folder) = session.find_table(table)? {
            remove_temporary(&folder, &session.table(table))?;
        }
    }
    for &table in Table::ALL {
        let first = manifest.first_segment(table);
        for (number, _) in session.sealed(table)? {
            if number < first {
                session.remove_segment(table, number)?;
                step()?;
            }
        }
    }
    for Unsealed { table, number, .. } in session.unsealed()? {
        let has_expired = number < manifest.first_segment(table);
        // If the segment is damaged or foreign, it is made again from the log.
        let is_sealed = || session.open_sealed(table, number).and_then(|file| file.check_all()).is_ok();
        if has_expired || is_sealed() {
            session.remove_log(table, number)?;
            step()?;
        }
    }
    Ok(())
}

/// The content of the files.
#[derive(Debug, Default)]
struct Contents {
    rows: BTreeMap<Table, u64>,
    rows_salvaged: u64,
    bytes_cut: u64,
    /// Logs without a complete row.
    empty: BTreeMap<String, Vec<u32>>,
    /// Sealed segments that cannot be read completely.
    damaged: BTreeMap<String, BTreeSet<u32>>,
    /// The latest time of any row.
    newest: Option<i64>,
    /// The latest time of any row before the first incomplete frame.
    before_cut: Option<i64>,
    /// Files of another session, table or number.
    foreign: BTreeSet<(Table, String)>,
    /// Ids that rows refer to and that have no row, by the table that lacks the row.
    unnamed: BTreeMap<Table, BTreeSet<i64>>,
    /// The last account of each stream.
    accounts: BTreeMap<String, StreamAccount>,
    /// The sum of `drops` of each stream.
    drops: BTreeMap<String, u64>,
}

impl Contents {
    fn read(session: &SessionDir, manifest: &Manifest) -> Result<Self> {
        let mut found = Self::default();
        let logs = session.unsealed()?;
        for &table in Table::ALL {
            let mut newest = None;
            let in_logs: HashSet<u32> = logs.iter().filter(|l| l.table == table).map(|l| l.number).collect();
            // The newest first: most of the others are then read only up to their footers.
            for (number, _) in session.sealed(table)?.into_iter().rev() {
                let opened = session.open_sealed(table, number);
                if let Err(Error::Foreign { path, .. }) = &opened {
                    found.is_foreign(table, path);
                }
                if in_logs.contains(&number) {
                    continue;
                }
                if let Err(e) = opened.and_then(|file| found.sealed(table, file, &mut newest)) {
                    found.skip(table, number, e)?;
                }
            }
            for log in logs.iter().filter(|log| log.table == table) {
                let read = scan_log(session, log, |batch| {
                    newest = newest.max(latest(batch));
                    found.note(table, batch);
                    Ok(())
                });
                let reader = match read {
                    Err(Error::Foreign { path, .. }) => {
                        found.is_foreign(table, &path);
                        // There is no segment of its number then.
                        found.empty.entry(table.name().into()).or_default().push(log.number);
                        continue;
                    }
                    read => read?,
                };
                *found.rows.entry(table).or_default() += reader.rows();
                found.rows_salvaged += reader.rows();
                if reader.rows() == 0 {
                    found.empty.entry(table.name().into()).or_default().push(log.number);
                }
                if reader.bytes_cut() > 0 {
                    found.bytes_cut += reader.bytes_cut();
                    let before = newest.unwrap_or(manifest.start);
                    found.before_cut = Some(found.before_cut.map_or(before, |b| b.min(before)));
                }
            }
            found.newest = found.newest.max(newest);
        }
        for to in [Table::Stacks, Table::Frames, Table::Modules, Table::TaskTypes] {
            let missing = missing(session, to, &mut |table, number, e| found.skip(table, number, e))?;
            if !missing.is_empty() {
                found.unnamed.insert(to, missing);
            }
        }
        Ok(found)
    }

    /// Adds a sealed segment.
    fn sealed(&mut self, table: Table, file: VerifiedFile, newest: &mut Option<i64>) -> Result<()> {
        let (info, longest) = info_and_longest(table, file.clone())?;
        *self.rows.entry(table).or_default() += info.rows;
        if table.expires() {
            *newest = (*newest).max(Some(info.last_ts));
            // The end of its last event, which need not be that of its last row.
            if *newest < Some(info.last_ts.saturating_add(longest)) {
                scan_verified(table, file.clone(), &["ts", "dur"], |batch| {
                    *newest = (*newest).max(latest(batch));
                    Ok(())
                })?;
            }
        }
        // Accounts are totals, so the newest is enough; drops are summed.
        if table == Table::Drops || (table == Table::Accounts && self.accounts.is_empty()) {
            scan_verified(table, file, &["ts", "stream", "produced", "stored", "dropped", "lost"], |batch| {
                self.note(table, batch);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Skips a damaged sealed segment; other errors are returned.
    fn skip(&mut self, table: Table, number: u32, error: Error) -> Result<()> {
        match error {
            Error::Damaged { .. } | Error::Foreign { .. } => {
                self.damaged.entry(table.name().into()).or_default().insert(number);
                Ok(())
            }
            other => Err(other),
        }
    }

    fn is_foreign(&mut self, table: Table, path: &Path) {
        self.foreign.insert((table, fs::name(path).to_string_lossy().into_owned()));
    }

    /// Whether all rows counted by the closed session's account exist.
    fn is_whole(&self, manifest: &Manifest) -> bool {
        let stored = |name: &str| Table::by_name(name).and_then(|t| self.rows.get(&t)).copied().unwrap_or(0);
        self.bytes_cut == 0
            && self.damaged.is_empty()
            && self.foreign.is_empty()
            && self.unnamed.is_empty()
            && manifest.streams.iter().all(|(name, account)| account.stored == stored(name))
    }

    fn note(&mut self, table: Table, batch: &RecordBatch) {
        let count = |n: &i64| u64::try_from(*n).unwrap_or(0);
        match table {
            Table::Accounts => {
                let [produced, stored, dropped] = ["produced", "stored", "dropped"].map(|c| integers(batch, c));
                let rows = texts(batch, "stream").into_iter().zip(&produced).zip(&stored).zip(&dropped);
                for (((stream, produced), stored), dropped) in rows {
                    // They only grow, so the last is the largest.
                    let last = self.accounts.entry(stream.to_string()).or_default();
                    last.produced = last.produced.max(count(produced));
                    last.stored = last.stored.max(count(stored));
                    last.dropped = last.dropped.max(count(dropped));
                }
            }
            Table::Drops => {
                for (stream, lost) in texts(batch, "stream").into_iter().zip(&integers(batch, "lost")) {
                    let sum = self.drops.entry(stream.to_string()).or_default();
                    *sum = sum.saturating_add(count(lost));
                }
            }
            _ => {}
        }
    }

    fn recovery(&self, manifest: &Manifest) -> Recovery {
        let newest = self.newest.unwrap_or(manifest.start);
        let flushed = newest.saturating_sub(FLUSHED_EVERY).max(manifest.start);
        let unnamed = |table| self.unnamed.get(&table).map_or(0, |ids| ids.len() as u64);
        Recovery {
            rows_salvaged: self.rows_salvaged,
            bytes_cut: self.bytes_cut,
            unnamed_stacks: unnamed(Table::Stacks),
            unnamed_others: [Table::Frames, Table::Modules, Table::TaskTypes].map(unnamed).iter().sum(),
            lost_after: self.before_cut.map_or(flushed, |b| b.min(flushed)),
            lost: self.accounts(manifest).1,
            empty_segments: self.empty.clone(),
            damaged_segments: self.damaged.iter().map(|(t, n)| (t.clone(), n.iter().copied().collect())).collect(),
            foreign_files: self.foreign.iter().map(|(table, name)| format!("{}/{name}", table.name())).collect(),
            ended: None,
        }
    }

    /// The account of each stream, and the number of events that the last account counts and that are missing.
    fn accounts(&self, manifest: &Manifest) -> (BTreeMap<String, StreamAccount>, BTreeMap<String, u64>) {
        let mut lost = BTreeMap::new();
        let accounts = Stream::ALL.into_iter().map(|stream| {
            let name = stream.name().to_string();
            let stored = Table::by_name(&name).and_then(|t| self.rows.get(&t)).copied().unwrap_or(0);
            let last = self.accounts.get(&name).copied().unwrap_or_default();
            // Complete only if the session was closed.
            let closed = manifest.streams.get(&name).copied().unwrap_or_default();
            let dropped = last.dropped.max(closed.dropped).max(self.drops.get(&name).copied().unwrap_or(0));
            let expired = closed.expired;
            let produced = last.produced.max(closed.produced);
            let known = stored.saturating_add(dropped).saturating_add(expired);
            if let Some(missing) = produced.checked_sub(known).filter(|n| *n > 0) {
                lost.insert(name.clone(), missing);
            }
            (name, StreamAccount { produced: known.max(produced), stored, dropped, expired })
        });
        (accounts.collect(), lost)
    }
}

/// Ids of `to` that rows refer to and that have no row.
fn missing(session: &SessionDir, to: Table, skip: &mut Skip<'_>) -> Result<BTreeSet<i64>> {
    let mut known = HashSet::new();
    each_batch(session, to, &[to.key()], |_| true, |batch| known.extend(integers(batch, to.key())), skip)?;
    // Ids are consecutive: up to the first gap, all are known.
    let all_up_to = (1..).take_while(|id| known.contains(id)).last().unwrap_or(0);
    let mut missing = BTreeSet::new();
    for reference in REFERENCES.iter().filter(|r| r.to == to) {
        each_batch(
            session,
            reference.from,
            &[reference.column],
            |range| range.is_none_or(|(least, most)| least < 1 || most > all_up_to),
            |batch| missing.extend(integers(batch, reference.column).into_iter().filter(|id| !known.contains(id))),
            skip,
        )?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use tempfile::TempDir;

    use super::*;
    use crate::{
        AccountColumns, AccountRow, Clock, ClockColumns, ClockRow, Columns, CoverageRow, DropColumns, DropRow,
        FORMAT_VERSION, FrameColumns, FrameRow, InflightLog, OffCpuColumns, OffCpuRow, PollColumns, PollRow, Range,
        STILL_ON, StackColumns, StackRow, placeholder::rows, scan_segment, seal,
    };

    const START: i64 = 1_000_000_000_000;
    const MS: i64 = 1_000_000;

    fn manifest() -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            id: "1-2".into(),
            start: START,
            clock: Clock { mono: 0, real: START },
            ..Manifest::default()
        }
    }

    fn batch<C: Columns>(of: impl IntoIterator<Item = C::Row>) -> RecordBatch {
        rows::<C>(of.into_iter())
    }

    fn off_cpu(ms: i64, stack_id: i64) -> OffCpuRow {
        OffCpuRow {
            ts: START + ms * MS,
            dur: 2 * MS,
            tid: 1,
            cpu: 0,
            state: "S".into(),
            task_id: None,
            stack_id: Some(stack_id),
            run_queue: None,
            waker_tid: None,
            intervals: None,
        }
    }

    fn stack(stack_id: i64, frame: i64) -> StackRow {
        StackRow { stack_id, frame_ids: vec![frame], unwind: "complete".into() }
    }

    fn frame(frame_id: i64) -> FrameRow {
        FrameRow {
            frame_id,
            module_id: None,
            address: 7,
            function: Some("f".into()),
            file: None,
            line: None,
            col: None,
            inline_depth: 0,
            origin: None,
        }
    }

    fn account(ms: i64, produced: i64, stored: i64, dropped: i64) -> AccountRow {
        AccountRow { ts: START + ms * MS, stream: "off_cpu".into(), produced, stored, dropped }
    }

    fn log(session: &SessionDir, table: Table, batches: &[RecordBatch]) -> u32 {
        let mut log = InflightLog::create(session, table, session.next_number(table).unwrap()).unwrap();
        batches.iter().for_each(|b| log.append(b).unwrap());
        log.number()
    }

    fn sealed(session: &SessionDir, table: Table, batch: RecordBatch) {
        let number = log(session, table, &[batch]);
        seal(session, table, number).unwrap();
    }

    /// A foreign segment with the number of a log was once taken for the sealed log, which was then removed.
    #[test]
    fn sets_aside_segments_of_another_session() {
        let tmp = TempDir::new().unwrap();
        let create = |id: &str| {
            let manifest = Manifest { id: id.into(), ..manifest() };
            SessionDir::create(&tmp.path().join(id), &manifest).unwrap().0
        };
        let (session, other) = (create("own"), create("other"));
        for ms in [900, 901] {
            sealed(&other, Table::OffCpu, batch::<OffCpuColumns>([off_cpu(ms, 9)]));
        }
        sealed(&session, Table::OffCpu, batch::<OffCpuColumns>([off_cpu(0, 1)]));
        let open = log(&session, Table::OffCpu, &[batch::<OffCpuColumns>([off_cpu(10, 2)])]);
        for number in [1, open] {
            fs::copy(other.segment(Table::OffCpu, number), session.segment(Table::OffCpu, number)).unwrap();
        }
        let recovery = recover(&session).unwrap().unwrap();
        assert_eq!(recovery.damaged_segments, [("off_cpu".into(), vec![1])].into());
        assert_eq!(recovery.foreign_files, ["off_cpu/000001.parquet", "off_cpu/000002.parquet"]);
        assert_eq!(recovery.rows_salvaged, 1);
        for number in [1, open] {
            let aside = session.segment(Table::OffCpu, number).with_extension("parquet.foreign");
            assert_eq!(fs::read(aside).unwrap(), fs::read(other.segment(Table::OffCpu, number)).unwrap());
        }
        assert!(!session.has_segment(Table::OffCpu, 1));
        assert_eq!(Manifest::read(session.path()).unwrap().end, Some(START + 12 * MS));
        let file = session.open_sealed(Table::OffCpu, open).unwrap();
        assert_eq!(file.session_id(), Some("own"));
        // Segments that recovery adds have this session's id too.
        let stacks = session.open_sealed(Table::Stacks, 1).unwrap();
        assert_eq!(stacks.session_id(), Some("own"));
    }

    /// A session after kill -9: segments, torn logs, a stack without a row, a log that was just sealed, a temporary file, an
    /// expired segment.
    fn killed() -> (TempDir, SessionDir) {
        let tmp = TempDir::new().unwrap();
        let root = tmp.path().join("s");
        let mut manifest = manifest();
        manifest.streams.insert("off_cpu".into(), StreamAccount { expired: 1, ..StreamAccount::default() });
        manifest.first_segment.insert("off_cpu".into(), 2);
        manifest.range = Some(Range { from: START + 10 * MS, to: START + 20 * MS });
        let (session, _lock) = SessionDir::create(&root, &manifest).unwrap();
        sealed(&session, Table::OffCpu, batch::<OffCpuColumns>([off_cpu(0, 1)]));
        sealed(&session, Table::OffCpu, batch::<OffCpuColumns>([off_cpu(10, 1), off_cpu(11, 2)]));
        let open = log(
            &session,
            Table::OffCpu,
            &[
                batch::<OffCpuColumns>([off_cpu(30, 2), off_cpu(29, 3)]),
                batch::<OffCpuColumns>([off_cpu(500, 4)]),
                batch::<OffCpuColumns>([off_cpu(501, 4)]),
            ],
        );
        let path = session.log(Table::OffCpu, open);
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(len - 3).unwrap();
        sealed(&session, Table::Stacks, batch::<StackColumns>([stack(1, 1), stack(2, 1)]));
        log(&session, Table::Stacks, &[batch::<StackColumns>([stack(3, 9)])]);
        sealed(&session, Table::Frames, batch::<FrameColumns>([frame(1)]));
        log(
            &session,
            Table::Accounts,
            &[batch::<AccountColumns>([account(20, 5, 3, 0)]), batch::<AccountColumns>([account(400, 11, 5, 2)])],
        );
        log(
            &session,
            Table::Drops,
            &[batch::<DropColumns>([DropRow {
                ts: START,
                dur: 1,
                stream: "off_cpu".into(),
                stage: "ring".into(),
                lost: 2,
            }])],
        );
        let clock = log(&session, Table::Clock, &[batch::<ClockColumns>([ClockRow { mono: 0, real: START }])]);
        let kept = fs::read(session.log(Table::Clock, clock)).unwrap();
        seal(&session, Table::Clock, clock).unwrap();
        fs::write(session.log(Table::Clock, clock), kept).unwrap();
        fs::write(session.table(Table::OffCpu).join("000003.parquet.tmp"), "half").unwrap();
        fs::write(session.path().join("manifest.json.tmp"), "half").unwrap();
        // Created, and killed before the first row.
        drop(InflightLog::create(&session, Table::Process, 1).unwrap());
        (tmp, session)
    }

    /// Every file of a session with its content.
    fn files(session: &SessionDir) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        for dir in std::iter::once(session.path().to_path_buf()).chain(Table::ALL.iter().map(|t| session.table(*t))) {
            let paths = fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path());
            for path in paths.filter(|p| p.is_file()) {
                let content = fs::read(&path).unwrap();
                all.insert(path.strip_prefix(session.path()).unwrap().to_path_buf(), content);
            }
        }
        all
    }

    #[test]
    fn recovers_a_killed_session_and_records_its_losses() {
        let (_tmp, session) = killed();
        let recovery = recover(&session).unwrap().unwrap();
        assert_eq!(recovery.rows_salvaged, 3 + 1 + 2 + 1);
        assert!(recovery.bytes_cut > 0);
        assert_eq!((recovery.unnamed_stacks, recovery.unnamed_others), (1, 1));
        assert_eq!(recovery.lost_after, START + 402 * MS);
        // Of eleven, one has expired, five are stored, two were dropped.
        assert_eq!(recovery.lost, [("off_cpu".to_string(), 3)].into());
        assert_eq!(recovery.empty_segments, [("process".to_string(), vec![1])].into());
        let manifest = Manifest::read(session.path()).unwrap();
        assert_eq!(manifest.streams["off_cpu"], StreamAccount { produced: 11, stored: 5, dropped: 2, expired: 1 });
        assert!(!manifest.complete);
        assert_eq!(manifest.end, Some(START + 502 * MS));
        assert_eq!(manifest.end_reason.as_deref(), Some(KILLED));
        assert_eq!(manifest.range.unwrap().to, START + 502 * MS);
        let names = files(&session).into_keys().map(|p| p.to_str().unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(
            names,
            [
                "accounts/000001.parquet",
                "clock/000001.parquet",
                "coverage/000001.parquet",
                "drops/000001.parquet",
                "frames/000001.parquet",
                "frames/000002.parquet",
                "lock",
                "manifest.json",
                "off_cpu/000002.parquet",
                "off_cpu/000003.parquet",
                "stacks/000001.parquet",
                "stacks/000002.parquet",
                "stacks/000003.parquet",
            ]
        );
        for to in [Table::Stacks, Table::Frames, Table::Modules, Table::TaskTypes] {
            assert!(missing(&session, to, &mut |_, _, e| Err(e)).unwrap().is_empty());
        }
        // A second recovery finds nothing to do.
        let before = files(&session);
        assert!(recover(&session).unwrap().is_none());
        assert_eq!(files(&session), before);
    }

    /// `coverage` of a recovered session: stream, start and end in ms, reason.
    fn covered(session: &SessionDir) -> Vec<(String, i64, i64, String)> {
        let mut all = Vec::new();
        for path in session.segments(Table::Coverage).unwrap() {
            scan_segment(Table::Coverage, &path, &["ts", "dur", "stream", "reason"], |batch| {
                let [ts, dur] = ["ts", "dur"].map(|column| integers(batch, column));
                let rows = texts(batch, "stream").into_iter().zip(texts(batch, "reason")).zip(ts).zip(dur);
                all.extend(rows.map(|(((stream, reason), ts), dur)| {
                    (stream.into(), (ts - START) / MS, (ts + dur - START) / MS, reason.into())
                }));
                Ok(())
            })
            .unwrap();
        }
        all.sort();
        all
    }

    #[test]
    fn extends_coverage_to_the_last_rows() {
        let (_tmp, session) = killed();
        let on = |stream: &'static str, reason: &'static str| CoverageRow {
            ts: START,
            dur: 100 * MS,
            stream: stream.into(),
            reason: reason.into(),
        };
        let spent = "the budget is spent";
        let rows = [on("off_cpu", STILL_ON), on("samples", STILL_ON), on("polls", spent), on("wakes", spent)];
        sealed(&session, Table::Coverage, batch::<CoverageColumns>(rows));
        let poll = |ms: i64| PollRow {
            ts: START + ms * MS,
            dur: 2 * MS,
            task_id: 1,
            type_id: None,
            tid: 1,
            cpu: 0,
            blocked: 0,
            run_queue: 0,
            wake_delay: None,
            completed: None,
        };
        sealed(&session, Table::Polls, batch::<PollColumns>([poll(20), poll(300)]));
        log(&session, Table::Polls, &[batch::<PollColumns>([poll(400)])]);
        recover(&session).unwrap().unwrap();
        let row = |stream: &str, from, to, reason: &str| (stream.to_string(), from, to, reason.to_string());
        assert_eq!(
            covered(&session),
            [
                row("off_cpu", 0, 100, STILL_ON),
                row("off_cpu", 100, 502, KILLED),
                row("polls", 0, 100, spent),
                // After they were switched off, rows are the only evidence of probes.
                row("polls", 300, 402, KILLED),
                row("samples", 0, 100, STILL_ON),
                row("samples", 100, 502, KILLED),
                row("wakes", 0, 100, spent),
                row("wakes", 300, 402, KILLED),
            ]
        );
    }

    #[test]
    fn recovery_killed_at_any_step_leads_to_the_same_result() {
        let (_tmp, whole) = killed();
        let mut steps = 0;
        run(&whole, Manifest::read(whole.path()).unwrap(), &mut || {
            steps += 1;
            Ok(())
        })
        .unwrap();
        let result = files(&whole);
        assert!(steps > 8);
        for stop_at in 1..=steps {
            let (_tmp, session) = killed();
            let mut step = 0;
            let stop = || {
                step += 1;
                match step == stop_at {
                    true => Err(Error::InUse("killed".into())),
                    false => Ok(()),
                }
            };
            let mut stop: Box<dyn FnMut() -> Result<()>> = Box::new(stop);
            run(&session, Manifest::read(session.path()).unwrap(), &mut *stop).unwrap_err();
            recover(&session).unwrap();
            assert!(
                files(&session)
                    .iter()
                    .filter(|(p, _)| !p.ends_with("lock"))
                    .eq(result.iter().filter(|(p, _)| !p.ends_with("lock"))),
                "killed after step {stop_at}"
            );
        }
    }

    #[test]
    fn leaves_a_session_that_is_being_recorded_unchanged() {
        let (_tmp, session) = killed();
        let before = files(&session);
        let lock = session.lock().unwrap();
        assert!(matches!(recover(&session), Err(Error::InUse(_))));
        assert_eq!(files(&session), before);
        drop(lock);
        assert!(recover(&session).unwrap().is_some());
    }

    #[test]
    fn follows_no_link_out_of_the_session() {
        let (tmp, session) = killed();
        let elsewhere = tmp.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("a.tmp"), "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, session.table(Table::Wakes)).unwrap();
        assert!(matches!(recover(&session), Err(Error::Damaged { .. })));
        assert!(elsewhere.join("a.tmp").exists());
        fs::remove_file(session.table(Table::Wakes)).unwrap();
        fs::remove_file(session.path().join("lock")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("made"), session.path().join("lock")).unwrap();
        assert!(matches!(recover(&session), Err(Error::Io { .. })));
        assert!(!elsewhere.join("made").exists());
    }

    /// Exchanges two names for as long as it lives.
    struct Exchanger(Arc<AtomicBool>, Option<thread::JoinHandle<u64>>);

    impl Exchanger {
        fn of(a: PathBuf, b: PathBuf) -> Self {
            let is_over = Arc::<AtomicBool>::default();
            let until = Arc::clone(&is_over);
            let exchange = move || {
                let mut times = 0;
                while !until.load(Ordering::Relaxed) {
                    times += u64::from(renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).is_ok());
                }
                times
            };
            Exchanger(is_over, Some(thread::spawn(exchange)))
        }

        /// How often it did.
        fn stop(mut self) -> u64 {
            self.0.store(true, Ordering::Relaxed);
            self.1.take().unwrap().join().unwrap()
        }
    }

    /// With a table's folder exchanged for a link in a loop, recovery wrote and removed files where that link leads.
    #[test]
    fn follows_no_folder_exchanged_for_a_link_out_of_the_session() {
        let outside = TempDir::new().unwrap();
        let private = outside.path().join("private");
        fs::create_dir(&private).unwrap();
        // Names that recovery removes or writes in a table's folder.
        let mut before = BTreeMap::new();
        for name in ["000001.parquet", "000002.parquet", "half.tmp", "000001.arrows.inflight"] {
            fs::write(private.join(name), name).unwrap();
            before.insert(std::ffi::OsString::from(name), name.as_bytes().to_vec());
        }
        let inside = || -> BTreeMap<_, _> {
            let entries = fs::read_dir(&private).unwrap().map(|entry| entry.unwrap());
            entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
        };
        let (mut exchanged, mut recovered) = (0, 0);
        for round in 0..40 {
            let (tmp, session) = killed();
            let tables = [Table::OffCpu, Table::Frames, Table::Stacks, Table::Clock];
            let link = tmp.path().join("link");
            std::os::unix::fs::symlink(&private, &link).unwrap();
            let exchanger = Exchanger::of(session.table(tables[round % tables.len()]), link);
            for _ in 0..5 {
                recovered += u32::from(recover(&session).is_ok_and(|done| done.is_some()));
            }
            exchanged += exchanger.stop();
            assert_eq!(inside(), before, "round {round}");
        }
        assert!(exchanged > 1000, "{exchanged}");
        // Sessions were recovered while the link was not in place.
        assert!(recovered < 40 * 5, "{recovered}");
    }

    /// The same with the session's whole folder, whose path is not used again once it is open.
    #[test]
    fn recovers_the_opened_folder_if_its_path_is_exchanged() {
        for _ in 0..10 {
            let (_tmp, session) = killed();
            let (_other, decoy) = killed();
            let before = files(&decoy);
            let held = session.held().unwrap();
            let exchanger = Exchanger::of(session.path().into(), decoy.path().into());
            let manifest = held.manifest().unwrap();
            run(&held, manifest, &mut || Ok(())).unwrap();
            // Each path has one of the two folders.
            if exchanger.stop() % 2 == 1 {
                renameat_with(CWD, session.path(), CWD, decoy.path(), RenameFlags::EXCHANGE).unwrap();
            }
            assert_eq!(files(&decoy), before);
            assert!(session.unsealed().unwrap().is_empty());
        }
    }

    /// Another session's log was once sealed as this one's rows.
    #[test]
    fn sets_aside_logs_of_another_session_or_number() {
        let create = |tmp: &TempDir, id: &str| {
            let manifest = Manifest { id: id.into(), ..manifest() };
            SessionDir::create(&tmp.path().join(id), &manifest).unwrap().0
        };
        let made = || {
            let tmp = TempDir::new().unwrap();
            let (session, other) = (create(&tmp, "own"), create(&tmp, "other"));
            log(&session, Table::OffCpu, &[batch::<OffCpuColumns>([off_cpu(0, 1)])]);
            log(&session, Table::OffCpu, &[batch::<OffCpuColumns>([off_cpu(10, 2)])]);
            log(&other, Table::Stacks, &[batch::<StackColumns>([stack(1, 1)])]);
            fs::create_dir(session.table(Table::Stacks)).unwrap();
            fs::copy(other.log(Table::Stacks, 1), session.log(Table::Stacks, 1)).unwrap();
            // And its own one under another number.
            fs::copy(session.log(Table::OffCpu, 1), session.log(Table::OffCpu, 3)).unwrap();
            (tmp, session, fs::read(other.log(Table::Stacks, 1)).unwrap())
        };
        let (_tmp, session, foreign) = made();
        let mut reader = session.open_log(Table::Stacks, 1).unwrap();
        for _ in 0..2 {
            let error = reader.next().unwrap().unwrap_err().to_string();
            assert!(error.ends_with("it is another log: stacks/000001/other"), "{error}");
        }
        assert!(matches!(seal(&session, Table::Stacks, 1), Err(Error::Foreign { .. })));
        let recovery = recover(&session).unwrap().unwrap();
        assert_eq!(recovery.foreign_files, ["off_cpu/000003.arrows.inflight", "stacks/000001.arrows.inflight"]);
        assert_eq!((recovery.rows_salvaged, recovery.unnamed_stacks), (2, 2));
        let aside = session.table(Table::Stacks).join("000001.arrows.inflight.foreign");
        assert_eq!(fs::read(aside).unwrap(), foreign);
        assert!(session.unsealed().unwrap().is_empty());
        assert!(recover(&session).unwrap().is_none());
        let whole = files(&session);
        for stop_at in 1.. {
            let (_tmp, session, _) = made();
            let mut step = 0;
            let done = run(&session, session.manifest().unwrap(), &mut || {
                step += 1;
                if step == stop_at { Err(Error::InUse("killed".into())) } else { Ok(()) }
            });
            recover(&session).unwrap();
            let mut found = files(&session);
            // Each recovery creates it.
            found.insert("lock".into(), Vec::new());
            assert_eq!(found, whole, "killed after step {stop_at}");
            if done.is_ok() {
                break;
            }
        }
    }

    #[test]
    fn recovers_a_prefix_of_a_truncated_or_flipped_log() {
        let (_tmp, session) = killed();
        // Its folder is replaced each time.
        let session = SessionDir::at(session.path());
        let log = session.log(Table::OffCpu, 3);
        let whole = fs::read(&log).unwrap();
        let before = files(&session);
        let restore = || {
            fs::remove_dir_all(session.path()).unwrap();
            for (name, content) in &before {
                let path = session.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        };
        let mut seen = BTreeSet::new();
        for at in (0..whole.len()).step_by(61).chain(whole.len() - 8..whole.len()) {
            for flip in [false, true] {
                restore();
                let mut bytes = whole.clone();
                match flip {
                    true => bytes[at] ^= 0x10,
                    false => bytes.truncate(at),
                }
                fs::write(&log, &bytes).unwrap();
                let recovery = recover(&session).unwrap().unwrap();
                let stored = Manifest::read(session.path()).unwrap().streams["off_cpu"].stored;
                assert!([2, 4, 5].contains(&stored), "{stored} rows, at {at}");
                assert!(recovery.bytes_cut > 0 || !flip, "flip at {at} is not reported");
                assert_eq!(recovery.empty_segments.contains_key("off_cpu"), stored == 2, "at {at}");
                seen.insert(stored);
            }
        }
        assert_eq!(seen, [2, 4, 5].into());
    }

    #[test]
    fn restores_a_damaged_segment_from_its_log_or_reports_it() {
        let (_tmp, session) = killed();
        let path = session.segment(Table::Clock, 1);
        let mut bytes = fs::read(&path).unwrap();
        let right = bytes.clone();
        bytes[10] ^= 1;
        fs::write(&path, &bytes).unwrap();
        recover(&session).unwrap();
        assert_eq!(fs::read(&path).unwrap(), right);

        let (_tmp, session) = killed();
        let path = session.segment(Table::Stacks, 1);
        fs::write(&path, "PAR1").unwrap();
        let recovery = recover(&session).unwrap().unwrap();
        assert_eq!(recovery.damaged_segments, [("stacks".to_string(), vec![1])].into());
        // 1 and 2, whose rows it had, and 4, which has none.
        assert_eq!(recovery.unnamed_stacks, 3);
        assert!(session.unsealed().unwrap().is_empty());
        assert_eq!(fs::read(&path).unwrap(), b"PAR1", "it is kept for inspection");
        assert!(recover(&session).unwrap().is_none());
    }

    /// A closed session with logs that could not be sealed for lack of room.
    fn closed(manifest: &mut Manifest) -> (TempDir, SessionDir) {
        let tmp = TempDir::new().unwrap();
        let (session, _lock) = SessionDir::create(&tmp.path().join("s"), manifest).unwrap();
        sealed(&session, Table::Stacks, batch::<StackColumns>([stack(1, 1)]));
        log(&session, Table::Frames, &[batch::<FrameColumns>([frame(1)])]);
        for ms in [0, 10] {
            log(&session, Table::OffCpu, &[batch::<OffCpuColumns>([off_cpu(ms, 1)])]);
        }
        manifest.streams.insert("off_cpu".into(), StreamAccount { produced: 5, stored: 2, dropped: 3, expired: 0 });
        manifest.end = Some(START + 1000 * MS);
        manifest.end_reason = Some("stopped".into());
        manifest.write(session.path()).unwrap();
        (tmp, session)
    }

    #[test]
    fn completes_a_session_closed_on_a_full_disk() {
        let mut before = manifest();
        for stop_at in 1..=4 {
            let (_tmp, session) = closed(&mut before);
            let mut step = 0;
            let done = run(&session, before.clone(), &mut || {
                step += 1;
                if step == stop_at { Err(Error::InUse("killed".into())) } else { Ok(()) }
            });
            assert!(done.is_err());
            recover(&session).unwrap();
            assert!(session.unsealed().unwrap().is_empty());
            assert_eq!(Manifest::read(session.path()).unwrap(), Manifest { complete: true, ..before.clone() });
        }
    }

    #[test]
    fn keeps_the_end_of_a_closed_session_that_lost_rows() {
        let mut before = manifest();
        for stop_at in 1..=6 {
            let (_tmp, session) = closed(&mut before);
            fs::write(session.log(Table::OffCpu, 2), "torn").unwrap();
            let mut step = 0;
            let _ = run(&session, before.clone(), &mut || {
                step += 1;
                if step == stop_at { Err(Error::InUse("killed".into())) } else { Ok(()) }
            });
            recover(&session).unwrap();
            let after = Manifest::read(session.path()).unwrap();
            assert!(!after.complete && after.recovery.is_some_and(|r| r.bytes_cut == 4), "killed after step {stop_at}");
            assert_eq!((after.end, after.end_reason), (before.end, before.end_reason.clone()));
            assert_eq!(after.streams["off_cpu"], StreamAccount { produced: 5, stored: 1, dropped: 3, expired: 0 });
        }
    }
}
