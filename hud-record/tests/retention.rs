//! Retention: the oldest data is removed, the rest is complete, and the account includes the removed rows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::path::Path;

use hud_common::session::Table;
use support::{Recording, Target, may_trace, program, record};

/// Asserts the state of a session whose oldest segments were removed.
fn assert_trimmed(recording: &Recording, session: &Path) {
    let manifest = &recording.manifest;
    assert!(manifest.streams.values().any(|a| a.expired > 0), "something has expired: {:?}", manifest.streams);
    let range = manifest.range.expect("the manifest has no range");
    assert!(range.from > manifest.start && range.to == manifest.end.unwrap(), "{range:?}");
    for table in Table::ALL {
        let numbers: Vec<u32> = recording.session.sealed(*table).unwrap().into_iter().map(|(n, _)| n).collect();
        let first = manifest.first_segment.get(table.name()).copied().unwrap_or(1);
        let expected: Vec<u32> = (first..).take(numbers.len()).collect();
        assert_eq!(numbers, expected, "{}: numbered without gaps", table.name());
        assert!(table.expires() || first == 1, "{} has lost names", table.name());
    }
    recording.assert_names();
    // Threads in rows can be looked up.
    let known: std::collections::BTreeSet<_> = recording.integers(Table::Threads, "tid").into_iter().collect();
    for table in [Table::Polls, Table::OffCpu] {
        for tid in recording.integers(table, "tid") {
            assert!(known.contains(&tid), "{}: thread {tid:?} is not known any more", table.name());
        }
    }
    support::verify(session);
}

#[test]
fn removes_data_older_than_keep_age() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let options = ["--duration", "8", "--roll-age", "100ms", "--keep-age", "2s", "--polls", "exact"];
    let recording = record(target.pid(), &session, &options);
    assert_trimmed(&recording, &session);
    let polls: Vec<_> = recording.integers(Table::Polls, "ts").into_iter().flatten().collect();
    let kept = polls.last().unwrap() - polls[0];
    assert!((1_000_000_000..5_000_000_000).contains(&kept), "{kept} ns of polls are kept");
    // Written once at the start, and again so that the first rows may expire.
    assert!(recording.manifest.first_segment["threads"] > 1, "{:?}", recording.manifest.first_segment);
    let tasks: std::collections::BTreeSet<_> = recording.integers(Table::Tasks, "task_id").into_iter().collect();
    let tasks_known = recording.integers(Table::OffCpu, "task_id").into_iter().flatten();
    let unknown: Vec<_> = tasks_known.filter(|id| !tasks.contains(&Some(*id))).collect();
    assert!(unknown.len() <= 2, "rows refer to tasks without a row of their own: {unknown:?}");
}

#[test]
fn stays_within_keep_size() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("poll-storm"), &[]);
    let options = ["--duration", "6", "--roll-age", "300ms", "--keep-size", "4MiB", "--polls", "exact"];
    let recording = record(target.pid(), &session, &options);
    assert_trimmed(&recording, &session);
    let size: u64 = walk(&session);
    // One roll of logs may be added.
    assert!(size < 12 << 20, "{size} bytes");
}

fn walk(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap();
    entries
        .map(|e| e.unwrap())
        .map(|e| if e.file_type().unwrap().is_dir() { walk(&e.path()) } else { e.metadata().unwrap().len() })
        .sum()
}
