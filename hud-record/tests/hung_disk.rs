//! A disk that hangs: the recorder continues, with bounded memory, and reports the rows that it could not store.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use hud_common::session::Table;
use support::{Recorder, Recording, Target, may_trace, program};

/// A stopped thread of another process, like one that waits for a disk.
struct Held(i32);

impl Held {
    fn thread(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|e| e.unwrap().path());
        let is_it = |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == name;
        let task = tasks.into_iter().find(is_it).unwrap_or_else(|| panic!("no thread {name}"));
        let tid: i32 = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let ask = |request| {
            // SAFETY: neither request reads or writes memory of this process.
            let done = unsafe { libc::ptrace(request, tid, 0_usize, 0_usize) };
            assert_eq!(done, 0, "ptrace {request}: {}", std::io::Error::last_os_error());
        };
        ask(libc::PTRACE_SEIZE);
        ask(libc::PTRACE_INTERRUPT);
        let mut status = 0;
        // SAFETY: `status` outlives the call, which writes one integer there.
        let stopped = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        assert_eq!(stopped, tid, "{}", std::io::Error::last_os_error());
        Held(tid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the request reads or writes no memory of this process.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0_usize, 0_usize) };
    }
}

/// Rows lost, by stage and stream.
fn lost(recording: &Recording) -> BTreeMap<(String, String), i64> {
    let [stages, streams] = ["stage", "stream"].map(|column| recording.texts(Table::Drops, column));
    let mut sums = BTreeMap::new();
    for ((stage, stream), lost) in stages.into_iter().zip(streams).zip(recording.integers(Table::Drops, "lost")) {
        *sums.entry((stage, stream)).or_default() += lost.unwrap();
    }
    sums
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn while_the_writer_hangs_rows_are_counted_and_the_ring_is_drained() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let mut target = Target::start(&program("poll-storm"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact", "--roll-age", "1s"]);
    support::until("polls are stored", || session.join("polls").exists());
    // Its output so far; a line that has to be waited for is current.
    let mut asked = Instant::now();
    while target.line().is_empty() || asked.elapsed() < Duration::from_millis(200) {
        asked = Instant::now();
    }
    let before = resident(recorder.pid());
    let held = Held::thread(recorder.pid(), "hud-writer");
    // Their rows take 40 MB, with those of their wakes; the queue holds 20.
    let mut polls = 0;
    while polls < 400_000 {
        polls += target.line().split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    let during = resident(recorder.pid());
    drop(held);
    // Some more, to be stored after that.
    target.line();
    assert!(recorder.stop().success());
    let recording = Recording::open(&session);
    let lost = lost(&recording);
    let of = |stage: &str, stream: &str| lost.get(&(stage.into(), stream.into())).copied().unwrap_or(0);
    assert!(of("writer", "polls") > 50_000 && of("writer", "wakes") > 50_000, "{lost:?}");
    // The recorder took all or nearly all of it from the ring: the storm may be too much for it at any time.
    assert!(of("ring", "polls") < of("writer", "polls") / 10, "{lost:?}");
    assert!(during < before + (48 << 20), "resident: {before} bytes before, {during} during");
    let polls = recording.manifest.streams["polls"];
    assert_eq!(polls.produced, polls.stored + polls.dropped);
    // Later rows are stored.
    let last = recording.integers(Table::Polls, "ts").last().unwrap().unwrap();
    assert!(recording.manifest.end.unwrap() - last < 500_000_000);
    support::verify(&session);
}
