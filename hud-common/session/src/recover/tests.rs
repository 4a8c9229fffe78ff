//! Sessions of killed recorders, of strangers, and recoveries that are killed themselves.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
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

use super::{contents::missing, *};
use crate::{
    AccountColumns, AccountRow, Clock, ClockColumns, ClockRow, Columns, CoverageRow, DropColumns, DropRow,
    FORMAT_VERSION, FrameColumns, FrameRow, InflightLog, OffCpuColumns, OffCpuRow, PollColumns, PollRow, Range,
    STILL_ON, StackColumns, StackRow, StreamAccount,
    placeholder::rows,
    scan::{integers, texts},
    scan_segment, seal,
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
