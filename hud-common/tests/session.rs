//! A session's files, written and read back.

#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use arrow::{array::AsArray as _, datatypes::Int64Type};
use hud_common::session::{
    Clock, ClockColumns, ClockRow, Columns as _, Error, FORMAT_VERSION, InflightLog, Manifest, Options, SessionDir,
    Table, seal,
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
        streams: Default::default(),
        notes: vec![],
        complete: false,
    }
}

fn log_of(session: &SessionDir, batches: &[&[i64]]) -> u32 {
    let number = session.next_number(Table::Clock).unwrap();
    let mut log = InflightLog::create(session, Table::Clock, number).unwrap();
    for batch in batches {
        let mut columns = ClockColumns::default();
        for &mono in *batch {
            columns.push(ClockRow { mono, real: -mono });
        }
        log.append(&columns.finish()).unwrap();
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
fn a_sealed_segment_is_sorted_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionDir::create(&dir.path().join("a/b/session"), &manifest()).unwrap();
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
fn an_empty_log_leaves_no_segment_and_no_number_is_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let first = log_of(&session, &[]);
    assert!(seal(&session, Table::Clock, first).unwrap().is_none());
    assert!(session.segments(Table::Clock).unwrap().is_empty());
    let second = log_of(&session, &[&[1]]);
    seal(&session, Table::Clock, second).unwrap();
    assert!(session.next_number(Table::Clock).unwrap() > second);
}

#[test]
fn a_log_cut_anywhere_keeps_its_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let session = SessionDir::create(&dir.path().join("s"), &manifest()).unwrap();
    let number = log_of(&session, &[&[1, 2], &[3, 4]]);
    let log = session.log(Table::Clock, number);
    let whole = fs::read(&log).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..=whole.len() {
        fs::write(&log, &whole[..cut]).unwrap();
        let sealed = seal(&session, Table::Clock, number).unwrap();
        let rows = sealed.map(|s| keys(&s.path)).unwrap_or_default();
        assert!([&[][..], &[1, 2], &[1, 2, 3, 4]].contains(&&rows[..]), "cut at {cut}: {rows:?}");
        seen.insert(rows.len());
    }
    assert_eq!(seen, [0, 2, 4].into());
}

#[test]
fn what_is_no_session_or_too_new_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    fs::create_dir(&path).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    assert!(matches!(SessionDir::create(&path, &manifest()), Err(Error::Exists(_))));
    fs::write(path.join("manifest.json"), "{").unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::NotASession { .. })));
    // A newer format may have lost or renamed anything but its version.
    fs::write(path.join("manifest.json"), r#"{"format_version": 2}"#).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::Newer { found: 2, known: 1, .. })));
    fs::write(path.join("manifest.json"), r#"{"format_version": 1}"#).unwrap();
    assert!(matches!(SessionDir::open(&path), Err(Error::Damaged { .. })));
}

#[test]
fn epoch_times_come_from_one_anchor() {
    let clock = manifest().clock;
    assert_eq!(clock.epoch(10), 1_000);
    assert_eq!(clock.epoch(7), 997);
    assert_eq!(clock.epoch(u64::MAX), i64::MAX);
}
