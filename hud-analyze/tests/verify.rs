//! `verify`: a complete session is proven complete, and every fault of another is named.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, process::Command};

use hud_analyze::verify::verify;
use hud_common::session::{
    AccountColumns, AccountRow, DropColumns, DropRow, InflightLog, Manifest, StreamAccount, Table, recover, seal,
};
use serde_json::{Value, json};
use support::*;

fn account(produced: u64, stored: u64, dropped: u64, expired: u64) -> StreamAccount {
    StreamAccount { produced, stored, dropped, expired }
}

fn account_row(ms: i64, produced: i64, stored: i64, dropped: i64) -> AccountRow {
    AccountRow { ts: at(ms), stream: "off_cpu".into(), produced, stored, dropped }
}

fn drop_row(ms: i64, stage: &'static str, lost: i64) -> DropRow {
    DropRow { ts: at(ms), dur: MS, stream: "off_cpu".into(), stage: stage.into(), lost }
}

/// Five intervals off CPU in two segments, two more lost, closed in order.
fn whole() -> (Session, Manifest) {
    let session = Session::with_cast();
    session
        .add::<OffCpu>([sleep(at(10), W0, SLEEPER, MS, 0), sleep(at(20), W0, SLEEPER, MS, 0)])
        .add::<OffCpu>([1, 2, 3].map(|n| sleep(at(30 + n), W0, SLEEPER, MS, 0)))
        .add::<AccountColumns>([account_row(15, 1, 1, 0), account_row(25, 3, 2, 1), account_row(40, 7, 5, 2)])
        .add::<DropColumns>([drop_row(20, "ring", 1), drop_row(35, "untracked", 1)]);
    let manifest = manifest();
    let manifest = Manifest { streams: [("off_cpu".into(), account(7, 5, 2, 0))].into(), ..manifest };
    manifest.write(&session.path).unwrap();
    (session, manifest)
}

fn fault(session: &Session) -> Option<String> {
    verify(&session.path).unwrap().first_fault()
}

#[track_caller]
fn assert_fault(session: &Session, named: &str) {
    let fault = fault(session).unwrap_or_default();
    assert!(fault.contains(named), "{fault}");
}

#[test]
fn a_whole_session_is_proven() {
    let (session, _) = whole();
    assert_eq!(fault(&session), None);
    assert_eq!(verify(&recording()).unwrap().first_fault(), None);
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
        .args(["verify", "--format", "json"])
        .args([&session.path, &recording()])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 2);
    assert_eq!((&reports[0]["proven"], &reports[0]["state"]), (&json!(true), &json!("complete")));
    assert!(reports[0]["loss"][0].as_str().unwrap().contains("2 events of off_cpu: dropped"));
}

#[test]
fn a_fault_is_reported_and_fails_the_command() {
    let (session, _) = whole();
    fs::remove_file(session.dir().segment(Table::OffCpu, 1)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
        .args(["verify", session.path.to_str().unwrap(), "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("WRONG   numbering   off_cpu has no segment 000001"), "{text}");
    assert!(text.contains("WRONG   account     off_cpu should have 5 rows and has 3"), "{text}");
    assert!(text.contains("ok      references  every id has its row"), "{text}");
    assert!(text.contains("there is no such folder"), "{text}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("failed verification: numbering: off_cpu has no segment 000001"), "{line}");
    assert_eq!(line.lines().count(), 1);
}

/// With frames of another session, `blocking` named other functions, and nothing was wrong.
#[test]
fn segments_of_another_session_or_number_are_rejected() {
    let (session, manifest) = whole();
    let other = Session::with_cast_of(&Manifest { id: format!("{}-other", manifest.id), ..manifest });
    let frames = |session: &Session| session.dir().segment(Table::Frames, 1);
    fs::copy(frames(&other), frames(&session)).unwrap();
    assert_fault(&session, "frames/000001.parquet is damaged: it is another segment: frames/000001/");
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg("blocking").arg(&session.path).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("it is another segment"), "{text}");

    let (session, _) = whole();
    let [first, second] = [1, 2].map(|number| session.dir().segment(Table::OffCpu, number));
    let aside = session.path.join("aside");
    for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
        fs::rename(from, to).unwrap();
    }
    assert_fault(&session, "off_cpu/000001.parquet is damaged: it is another segment: off_cpu/000002/");
}

/// The same of logs, which were read without a check.
#[test]
fn logs_of_another_session_or_number_are_rejected() {
    let (session, manifest) = whole();
    let other = Session::with_cast_of(&Manifest { id: format!("{}-other", manifest.id), ..manifest });
    let number = session.log::<OffCpu>([sleep(at(50), W0, SLEEPER, MS, 0)]);
    other.add::<OffCpu>([sleep(at(1), W0, SLEEPER, MS, 0)]).add::<OffCpu>([sleep(at(2), W0, SLEEPER, MS, 0)]);
    let foreign = other.log::<OffCpu>([sleep(at(60), W0, HOG, MS, 0)]);
    assert_eq!(foreign, number);
    let open = Manifest { complete: false, end: None, end_reason: None, ..session.dir().manifest().unwrap() };
    open.write(&session.path).unwrap();
    let log = |session: &Session, number| session.dir().log(Table::OffCpu, number);
    let own = fs::read(log(&session, number)).unwrap();
    // Being recorded, so that it is not recovered: nobody but its recorder may set files aside.
    let recorder = session.record();
    for (path, named) in [(log(&other, foreign), "-other"), (log(&session, number), "off_cpu/000003/")] {
        // Under another number too.
        let to = if named == "-other" { number } else { number + 1 };
        fs::copy(path, log(&session, to)).unwrap();
        let error = verify(&session.path).map(|report| report.first_fault()).map_err(|error| error.to_string());
        let error = error.unwrap_or_else(Some).unwrap_or_default();
        assert!(error.contains("is damaged: it is another log: off_cpu/00000") && error.contains(named), "{error}");
        let output =
            Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg("blocking").arg(&session.path).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("it is another log"), "{text}");
        let replay = hud_analyze::replay::Replay::open(&session.path).unwrap();
        assert!(replay.damage().iter().any(|damage| damage.contains("it is another log")), "{:?}", replay.damage());
        let tailer = hud_record::tail::Tailer::open(&session.path, hud_record::tail::Settings::default()).unwrap();
        assert!(tailer.damage().iter().any(|damage| damage.contains("it is another log")), "{:?}", tailer.damage());
        fs::write(log(&session, number), &own).unwrap();
    }
    drop(recorder);
    // Recovery sets the other one aside and reports it.
    assert_fault_or_loss(&session, "1 file of another session");
    let aside = log(&session, number + 1).with_extension("inflight.foreign");
    assert_eq!(fs::read(aside).unwrap(), own);
}

#[track_caller]
fn assert_fault_or_loss(session: &Session, named: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg("verify").arg(&session.path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(named), "{text}");
}

#[test]
fn each_thing_that_can_be_wrong_is_named() {
    let (session, _) = whole();
    fs::remove_file(session.dir().segment(Table::OffCpu, 2)).unwrap();
    assert_fault(&session, "3 rows of off_cpu are missing");

    let (session, _) = whole();
    for n in 0..3 {
        session.add::<OffCpu>([sleep(at(50 + n), W0, SLEEPER, MS, 0)]);
    }
    (2..=4).for_each(|number| fs::remove_file(session.dir().segment(Table::OffCpu, number)).unwrap());
    assert_fault(&session, "off_cpu has no segments 000002 to 000004");

    let (session, _) = whole();
    let path = session.dir().segment(Table::Polls, 1);
    session.add::<Polls>([poll(at(1), W0, SLEEPER, 2, MS)]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_fault(&session, "polls/000001.parquet is damaged: the checksum");

    // Of another table.
    let (session, _) = whole();
    fs::create_dir_all(session.dir().table(Table::Samples)).unwrap();
    fs::copy(session.dir().segment(Table::OffCpu, 1), session.dir().segment(Table::Samples, 1)).unwrap();
    assert_fault(&session, "samples/000001.parquet is damaged: it is another segment: off_cpu/000001/");

    let (session, _) = whole();
    session.add::<Samples>([sample(at(1), W0, HOG, 99)]);
    assert_fault(&session, "stack_id 99 of samples has no row in stacks");

    let (session, _) = whole();
    session.add::<format::TaskTypeColumns>([task_type(3, "again", "task", 1)]);
    assert_fault(&session, "type_id 3 is not unique");

    let (session, _) = whole();
    session.log::<Samples>([sample(at(1), W0, HOG, None)]);
    assert_fault(&session, "000001.arrows.inflight was not sealed");

    for (rows, named) in [
        ([account_row(10, 5, 5, 0), account_row(20, 5, 4, 0)], "the account of off_cpu decreases"),
        ([account_row(10, 5, 4, 2), account_row(20, 9, 5, 2)], "counts more events than were produced"),
        ([account_row(10, 1, 1, 0), account_row(20, 90, 80, 2)], "75 rows of off_cpu are missing"),
        ([account_row(10, 1, 1, 0), account_row(20, 90, 5, 2)], "is below its last row"),
    ] {
        let (session, _) = whole();
        fs::remove_dir_all(session.dir().table(Table::Accounts)).unwrap();
        session.add::<AccountColumns>(rows);
        assert_fault(&session, named);
    }
    for (stream, named) in [
        (account(8, 5, 2, 0), "off_cpu: 8 events produced; 5 stored, 2 dropped, 0 expired"),
        (account(8, 6, 2, 0), "off_cpu should have 6 rows and has 5"),
        (account(8, 5, 3, 0), "off_cpu: 3 events were dropped, but the table drops has 2"),
    ] {
        let (session, manifest) = whole();
        Manifest { streams: [("off_cpu".into(), stream)].into(), ..manifest }.write(&session.path).unwrap();
        assert_fault(&session, named);
    }
}

#[test]
fn expired_rows_are_accounted_for() {
    let (session, manifest) = whole();
    let kept = Manifest {
        streams: [("off_cpu".into(), account(7, 3, 2, 2))].into(),
        first_segment: [("off_cpu".into(), 2)].into(),
        ..manifest
    };
    kept.write(&session.path).unwrap();
    // As if killed before the files were removed, and after.
    assert_eq!(fault(&session), None);
    fs::remove_file(session.dir().segment(Table::OffCpu, 1)).unwrap();
    assert_eq!(fault(&session), None);
    fs::remove_file(session.dir().segment(Table::OffCpu, 2)).unwrap();
    assert_fault(&session, "3 rows of off_cpu are missing");
}

fn killed() -> Session {
    let session = Session::with_cast_of(&Manifest { end: None, end_reason: None, complete: false, ..manifest() });
    session.add::<OffCpu>([sleep(at(10), W0, SLEEPER, MS, 0)]);
    session.log::<OffCpu>([sleep(at(30), W0, SLEEPER, MS, 0)]);
    session.log::<AccountColumns>([account_row(40, 4, 2, 0)]);
    // Just begun.
    drop(InflightLog::create(session.dir(), Table::Polls, 1).unwrap());
    session
}

#[test]
fn a_session_of_a_killed_recorder_is_proven_and_its_loss_stated() {
    let session = killed();
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg("verify").arg(&session.path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("its recorder was killed; recovered"), "{text}");
    assert!(text.contains("at least 2 events of off_cpu lost; events that ended after"), "{text}");
    // Rows removed after recovery are not the recorder's loss.
    fs::remove_file(session.dir().segment(Table::OffCpu, 2)).unwrap();
    assert_fault(&session, "off_cpu should have 2 rows and has 1");
}

#[test]
fn a_log_that_was_all_torn_leaves_a_gap_that_is_accounted_for() {
    let session = killed();
    session.log::<OffCpu>([sleep(at(50), W0, SLEEPER, MS, 0)]);
    let log = session.dir().log(Table::OffCpu, 2);
    fs::write(&log, &fs::read(&log).unwrap()[..100]).unwrap();
    let recovery = recover(session.dir()).unwrap().unwrap();
    assert_eq!(recovery.empty_segments["off_cpu"], [2]);
    assert_eq!(fault(&session), None);
}

#[test]
fn a_session_that_is_being_recorded_is_checked_so_far() {
    let session = killed();
    session.log::<Samples>([sample(at(1), W0, HOG, 99)]);
    let _recorder = session.record();
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg("verify").arg(&session.path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("being recorded") && text.contains("1 id not named yet"), "{text}");
    assert!(session.dir().log(Table::OffCpu, 2).exists());
    // A fault is a fault all the same.
    fs::remove_file(session.dir().segment(Table::OffCpu, 1)).unwrap();
    assert_fault(&session, "off_cpu has no segment 000001");
    seal(session.dir(), Table::Samples, 1).unwrap();
}
