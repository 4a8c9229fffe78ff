//! Writing and reading a session's files.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::{fs, path::Path, process::Command};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use hud_session::{
    Clock, ClockColumns, ClockRow, Columns as _, Error, FORMAT_VERSION, InflightLog, InflightReader, Manifest, Options,
    Range, Recovery, SessionDir, StreamAccount, Table, VerifiedFile, seal, segment_info, verified_reader,
};
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    file::reader::{FileReader as _, SerializedFileReader},
};

fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        id: "1-2".into(),
        hud_version: "0".into(),
        host: "h".into(),
        kernel: "k".into(),
        cpus: 2,
        pid: 2,
        exe: "/bin/app".into(),
        build_id: None,
        tokio_version: None,
        start: 5,
        end: None,
        end_reason: None,
        options: Options::default(),
        clock: Clock { mono: 10, real: 1_000 },
        ..Manifest::default()
    }
}

fn clock_rows(monos: &[i64]) -> RecordBatch {
    let mut columns = ClockColumns::default();
    for &mono in monos {
        columns.push(ClockRow { mono, real: -mono });
    }
    columns.finish()
}

fn keys_of(batch: &RecordBatch) -> Vec<i64> {
    assert_eq!(batch.schema().fields(), Table::Clock.schema().fields());
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn log_of(session: &SessionDir, batches: &[&[i64]]) -> u32 {
    let number = session.next_number(Table::Clock).unwrap();
    let mut log = InflightLog::create(session, Table::Clock, number).unwrap();
    for batch in batches {
        log.append(&clock_rows(batch)).unwrap();
    }
    log.finish().unwrap();
    number
}

fn keys(path: &Path) -> Vec<i64> {
    ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).unwrap())
        .unwrap()
        .build()
        .unwrap()
        .flat_map(|b| b.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

#[test]
fn a_sealed_segment_is_sorted_and_declares_it() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("a/b/session"), &manifest()).unwrap();
    let number = log_of(&session, &[&[3, 1], &[2]]);
    let sealed = seal(&session, Table::Clock, number).unwrap().unwrap();
    assert_eq!(sealed.rows, 3);
    assert_eq!(keys(&sealed.path), [1, 2, 3]);
    assert_eq!(session.segments(Table::Clock).unwrap(), std::slice::from_ref(&sealed.path));
    assert!(session.unsealed().unwrap().is_empty());
    let reader = SerializedFileReader::new(fs::File::open(&sealed.path).unwrap()).unwrap();
    let sorting = reader.metadata().row_group(0).sorting_columns().unwrap();
    assert_eq!(sorting[0].column_idx, 0);
}

#[test]
fn an_empty_log_makes_no_segment_and_numbers_are_unique() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let first = log_of(&session, &[]);
    assert!(seal(&session, Table::Clock, first).unwrap().is_none());
    assert!(session.segments(Table::Clock).unwrap().is_empty());
    let second = log_of(&session, &[&[1]]);
    seal(&session, Table::Clock, second).unwrap();
    assert!(session.next_number(Table::Clock).unwrap() > second);
}

/// The rows that a reader returns, and the number of bytes that it skipped.
fn log_rows(log: &Path) -> (Vec<i64>, u64) {
    let mut reader = InflightReader::open(Table::Clock, log).unwrap();
    let rows = reader.by_ref().flat_map(|b| keys_of(&b.unwrap())).collect();
    (rows, reader.bytes_cut())
}

#[test]
fn reads_the_complete_batches_of_a_truncated_log() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let number = log_of(&session, &[&[1, 2], &[3, 4]]);
    let log = session.log(Table::Clock, number);
    let whole = fs::read(&log).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..=whole.len() {
        fs::write(&log, &whole[..cut]).unwrap();
        let (rows, bytes_cut) = log_rows(&log);
        assert!([&[][..], &[1, 2], &[1, 2, 3, 4]].contains(&&rows[..]), "cut at {cut}: {rows:?}");
        seen.insert(rows.len());
        match seal(&session, Table::Clock, number) {
            Ok(Some(sealed)) => {
                assert_eq!(keys(&sealed.path), rows);
                assert_eq!(sealed.cut_bytes, bytes_cut);
                fs::remove_file(sealed.path).unwrap();
            }
            Ok(None) => assert!(rows.is_empty() && bytes_cut == 0, "cut at {cut}"),
            // The log is the only copy of its rows.
            Err(Error::Damaged { path, .. }) => assert!(rows.is_empty() && bytes_cut > 0 && path.exists()),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    assert_eq!(seen, [0, 2, 4].into());
}

#[test]
fn reads_a_log_up_to_a_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let number = log_of(&session, &[&[1, 2], &[3, 4]]);
    let log = session.log(Table::Clock, number);
    let whole = fs::read(&log).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&log, &bytes).unwrap();
        let (rows, bytes_cut) = log_rows(&log);
        assert!([&[][..], &[1, 2], &[1, 2, 3, 4]].contains(&&rows[..]), "flip at {at}: {rows:?}");
        assert!(bytes_cut > 0, "flip at {at} is not reported");
    }
    // A complete frame at another offset.
    let frames = [&whole[..], &whole[..]].concat();
    fs::write(&log, frames).unwrap();
    assert_eq!(log_rows(&log), (vec![1, 2, 3, 4], whole.len() as u64));
}

#[test]
fn other_arrow_readers_read_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let number = log_of(&session, &[&[1, 2], &[3, 4]]);
    let file = fs::File::open(session.log(Table::Clock, number)).unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(file, None).unwrap();
    assert_eq!(reader.flat_map(|b| keys_of(&b.unwrap())).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn follows_a_log_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let mut log = InflightLog::create(&session, Table::Clock, 1).unwrap();
    let mut reader = InflightReader::open(Table::Clock, log.path()).unwrap();
    assert!(reader.next().is_none() && reader.cut().is_none());
    for mono in [1, 2] {
        log.append(&clock_rows(&[mono])).unwrap();
        assert_eq!(keys_of(&reader.next().unwrap().unwrap()), [mono]);
        assert!(reader.next().is_none() && !reader.is_ended());
    }
    log.finish().unwrap();
    assert!(reader.next().is_none() && reader.is_ended() && reader.cut().is_none());
}

/// All rows of a plain reader, or the path that its error names.
fn verified(path: &Path) -> Result<Vec<i64>, std::path::PathBuf> {
    let named = |e: Error| match e {
        Error::Damaged { path, .. } => path,
        other => panic!("{other}"),
    };
    let reader = VerifiedFile::open(path).and_then(verified_reader).map_err(named)?;
    let mut rows = Vec::new();
    for batch in reader.build().map_err(|_| path.to_path_buf())? {
        rows.extend(keys_of(&batch.map_err(|e| {
            assert!(e.to_string().contains(path.to_str().unwrap()), "{e}");
            path.to_path_buf()
        })?));
    }
    Ok(rows)
}

#[test]
fn detects_any_damage_to_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let mut state = 88_172_645_463_325_252_i64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    let rows: Vec<i64> = noise.take(20_000).collect();
    let number = log_of(&session, &[&rows]);
    let sealed = seal(&session, Table::Clock, number).unwrap().unwrap();
    let whole = fs::read(&sealed.path).unwrap();
    assert!(whole.len() > 2 * 65_536, "of several blocks");
    let right = keys(&sealed.path);
    assert!(verified(&sealed.path).unwrap() == right);
    VerifiedFile::open(&sealed.path).unwrap().check_all().unwrap();
    // The whole footer, and parts of the rest.
    for at in (0..whole.len()).filter(|at| at % 4099 == 0 || *at > whole.len() - 1500) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&sealed.path, &bytes).unwrap();
        assert!(verified(&sealed.path) == Err(sealed.path.clone()), "flip at {at}");
        assert!(VerifiedFile::open(&sealed.path).and_then(|f| f.check_all()).is_err(), "flip at {at}");
    }
    for cut in (0..whole.len()).filter(|at| at % 4099 == 0 || *at > whole.len() - 20) {
        fs::write(&sealed.path, &whole[..cut]).unwrap();
        assert!(verified(&sealed.path) == Err(sealed.path.clone()), "cut at {cut}");
    }
    fs::write(&sealed.path, [&whole[..], b"x"].concat()).unwrap();
    assert!(verified(&sealed.path) == Err(sealed.path.clone()));
}

#[test]
fn reads_statistics_from_a_footer() {
    let dir = tempfile::tempdir().unwrap();
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let number = log_of(&session, &[&[7, 3], &[5]]);
    let sealed = seal(&session, Table::Clock, number).unwrap().unwrap();
    let info = segment_info(Table::Clock, &sealed.path).unwrap();
    assert_eq!((info.rows, info.first_ts, info.last_ts, info.bytes), (3, 3, 7, sealed.bytes));
    assert_eq!((sealed.first_ts, sealed.last_ts, sealed.cut_bytes), (3, 7, 0));
}

#[test]
fn a_session_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (session, lock) = SessionDir::create(&path, &manifest()).unwrap();
    assert!(session.is_locked().unwrap());
    assert!(matches!(SessionDir::open(&path).unwrap().0.lock(), Err(Error::InUse(p)) if p == path));
    drop(lock);
    assert!(!session.is_locked().unwrap());
    let _lock = session.lock().unwrap();
    assert!(session.is_locked().unwrap());
}

#[test]
fn reads_a_manifest_as_written_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let written = Manifest {
        streams: [("polls".to_string(), StreamAccount { produced: 6, stored: 1, dropped: 2, expired: 3 })].into(),
        first_segment: [("polls".to_string(), 4)].into(),
        range: Some(Range { from: 1, to: 2 }),
        recovery: Some(Recovery { rows_salvaged: 5, ..Recovery::default() }),
        previous: Some("0-1".into()),
        ..manifest()
    };
    SessionDir::create(&path, &written).unwrap();
    assert_eq!(Manifest::read(&path).unwrap(), written);
    let file = path.join("manifest.json");
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, &bytes).unwrap();
        assert!(Manifest::read(&path).is_err(), "flip at {at}");
        fs::write(&file, &whole[..at]).unwrap();
        assert!(Manifest::read(&path).is_err(), "cut at {at}");
    }
}

#[test]
fn a_full_disk_leaves_complete_frames_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        assert!(std::env::var_os("HUD_REQUIRE_BPF").is_none(), "cannot mount a tmpfs");
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(dir.path());
    let (session, _lock) = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, vec![1; 100 << 10]).unwrap();
    let rows: Vec<i64> = (0..1000).collect();
    let mut log = InflightLog::create(&session, Table::Clock, 1).unwrap();
    let mut whole = 0;
    let error = loop {
        match log.append(&clock_rows(&rows)) {
            Ok(()) => whole += rows.len(),
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space() && whole > 0, "{error}");
    let (read, cut) = log_rows(log.path());
    assert_eq!((read.len(), cut), (whole, 0));
    assert_eq!(fs::metadata(log.path()).unwrap().len(), log.len());
    // A failed write leaves the previous file.
    let ended = Manifest { host: "x".repeat(64 << 10), ..manifest() };
    fs::write(dir.path().join("rest"), vec![1; 1 << 20]).unwrap_err();
    assert!(ended.write(session.path()).unwrap_err().is_no_space());
    assert_eq!(Manifest::read(session.path()).unwrap(), manifest());
    assert!(seal(&session, Table::Clock, 1).unwrap_err().is_no_space());
    assert!(log.append(&clock_rows(&rows)).unwrap_err().is_no_space());
    assert!(InflightLog::create(&session, Table::Process, 1).err().unwrap().is_no_space());
    let left = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left(&session.table(Table::Clock)), ["000001.arrows.inflight"]);
    // There is room again.
    fs::remove_file(&ballast).unwrap();
    log.append(&clock_rows(&rows)).unwrap();
    log.finish().unwrap();
    let sealed = seal(&session, Table::Clock, 1).unwrap().unwrap();
    assert_eq!((sealed.rows as usize, sealed.cut_bytes), (whole + rows.len(), 0));
    ended.write(session.path()).unwrap();
    assert_eq!(left(&session.table(Table::Clock)), ["000001.parquet"]);
}

#[test]
fn distinguishes_no_session_from_a_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    fs::create_dir(&path).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    assert!(matches!(SessionDir::create(&path, &manifest()), Err(Error::Exists(_))));
    fs::write(path.join("manifest.json"), "{").unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    // A newer format may lack any field except its version.
    fs::write(path.join("manifest.json"), r#"{"format_version": 2}"#).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::Newer { found: 2, known: 1, .. })));
    fs::write(path.join("manifest.json"), r#"{"format_version": 1}"#).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::Damaged { .. })));
}

#[test]
fn rejects_a_link_of_another_user_for_a_new_session() {
    let dir = tempfile::tempdir().unwrap();
    let (private, planted) = (dir.path().join("private"), dir.path().join("planted"));
    fs::create_dir(&private).unwrap();
    std::os::unix::fs::symlink(&private, &planted).unwrap();
    SessionDir::create(&planted.join("own/s"), &manifest()).unwrap();
    assert!(SessionDir::open(&private.join("own/s")).is_ok());
    if std::os::unix::fs::lchown(&planted, Some(65_534), None).is_ok() {
        let error = SessionDir::create(&planted.join("other/s"), &manifest()).unwrap_err().to_string();
        assert!(error.ends_with("planted is a symbolic link of user 65534"), "{error}");
        assert!(!private.join("other").exists());
    }
}

#[test]
fn epoch_times_come_from_one_anchor() {
    let clock = manifest().clock;
    assert_eq!(clock.epoch(10), 1_000);
    assert_eq!(clock.epoch(7), 997);
    assert_eq!(clock.epoch(u64::MAX), i64::MAX);
}
