//! A full disk: rows are counted instead of written, existing data stays readable, and recording resumes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use hud_common::session::{SessionDir, Table, recover};
use support::{Recorder, Recording, Target, may_trace, program};

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "mount a tmpfs of {size}");
        SmallDisk(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up all free space.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for block in [64 << 10, 512] {
            while file.write_all(&vec![7; block]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Rows lost by stream, by `drops` rows of the stage `disk`.
fn disk_drops(recording: &Recording) -> BTreeMap<String, i64> {
    let stages = recording.texts(Table::Drops, "stage");
    let lost = recording.integers(Table::Drops, "lost");
    let mut sums = BTreeMap::new();
    for ((stream, stage), lost) in recording.texts(Table::Drops, "stream").into_iter().zip(stages).zip(lost) {
        if stage == "disk" {
            *sums.entry(stream).or_default() += lost.unwrap();
        }
    }
    sums
}

#[test]
fn recording_pauses_while_the_disk_is_full_and_resumes_when_there_is_room() {
    if !may_trace() {
        return;
    }
    let disk = SmallDisk::mount("12m");
    let session = disk.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact", "--roll-age", "1s"]);
    let filler = disk.fill();
    recorder.until_it_says("recording pauses");
    // Data recorded before stays readable meanwhile.
    support::analyze(&["sql", "-c", "SELECT count(*) AS n FROM polls"], &session);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    fs::remove_file(filler).unwrap();
    let resumed = recorder.until_it_says("recording resumes");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let status = recorder.stop();
    assert_eq!(status.code(), Some(1), "a full disk that cost rows is an error");
    let said = recorder.said();
    assert!(said.lines().any(|l| l.starts_with("hud-record: the disk was full: ")), "{said}");
    assert_eq!(said.matches("recording pauses").count(), 1, "{said}");
    assert!(resumed.contains("rows were dropped"), "{resumed}");

    let recording = Recording::open(&session);
    recording.assert_names();
    support::verify(&session);
    let drops = disk_drops(&recording);
    assert!(drops["polls"] > 100, "{drops:?}");
    for (stream, account) in &recording.manifest.streams {
        let lost = drops.get(stream).copied().unwrap_or(0);
        assert!(account.dropped >= u64::try_from(lost).unwrap(), "{stream}: {account:?} but {lost} lost to the disk");
    }
    // Polls from before the pause and from after it.
    let ts: Vec<i64> = recording.integers(Table::Polls, "ts").into_iter().flatten().collect();
    let gap = ts.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(gap > 1_000_000_000, "the pause shows: {gap} ns");
    assert!(ts.last().unwrap() - ts[0] > 3_000_000_000);
}

#[test]
fn a_recording_that_ends_on_a_full_disk_is_whole_once_there_is_room() {
    if !may_trace() {
        return;
    }
    let disk = SmallDisk::mount("12m");
    let session = disk.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let filler = disk.fill();
    recorder.until_it_says("recording pauses");
    assert_eq!(recorder.stop().code(), Some(1));
    fs::remove_file(filler).unwrap();
    let (dir, _) = SessionDir::open(&session).unwrap();
    recover(&dir).unwrap();
    let recording = Recording::open_recovered(&session);
    recording.assert_names();
    support::verify(&session);
    assert!(disk_drops(&recording)["polls"] > 0);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("stopped"));
}

#[test]
fn a_session_folder_that_vanishes_ends_the_recording_with_an_error() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--roll-age", "200ms"]);
    fs::remove_dir_all(&session).ok();
    let status = recorder.wait();
    let said = recorder.said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|l| l.starts_with("hud-record: ")).count(), 1, "{said}");
    assert!(said.contains(session.to_str().unwrap()), "{said}");
}
