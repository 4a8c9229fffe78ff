//! kill -9 at any moment: all rows are stored except those of the last 100 ms, and the session reports it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{collections::BTreeMap, path::Path, time::Duration};

use hud_common::session::{Error, Manifest, SessionDir, recover};
use support::{Recording, Target, hud_record, may_trace, program, truth};

/// kill -9 may lose rows of the last 100 ms before it.
const MAY_LACK: i64 = 100_000_000;

/// A recording that was killed.
struct Killed {
    /// By CLOCK_MONOTONIC.
    at: i64,
    /// By task type: (start, end) of each poll, by CLOCK_MONOTONIC.
    polls: BTreeMap<String, Vec<(i64, i64)>>,
}

#[test]
fn kill_9_at_fifty_moments_costs_at_most_100_ms() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    // Two at a time: the machine has to do more than the recorder's work.
    let (pid, dir) = (target.pid(), dir.path());
    let recordings: Vec<Killed> = std::thread::scope(|scope| {
        let half = |rounds: std::ops::Range<u64>| {
            let kill = move |round: u64| {
                // Not for synchronization: the kill must be able to hit every moment. A linear congruence is random
                // enough.
                let random =
                    (round + 1).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let moment = Duration::from_millis(random >> 33 & 0x1ff);
                kill_after(moment, pid, &dir.join(round.to_string()), round.is_multiple_of(5))
            };
            scope.spawn(move || rounds.map(kill).collect::<Vec<_>>())
        };
        let halves = [half(0..25), half(25..50)];
        halves.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    target.stop();

    let truth = truth(&log);
    let mut lacking = Vec::new();
    for (round, killed) in recordings.iter().enumerate() {
        let first = killed.polls.values().flatten().map(|p| p.0).min().unwrap();
        for (name, polls) in &killed.polls {
            let Some(own) = truth.get(name) else { continue };
            // Polls in progress as recording began are not recorded.
            let own: Vec<_> = own.iter().filter(|p| p.0 >= first).map(|(ts, dur)| ts + dur).collect();
            let border = killed.at - MAY_LACK;
            let (own, ours) =
                (own.iter().filter(|e| **e <= border).count(), polls.iter().filter(|p| p.1 <= border).count());
            if ours + 1 < own {
                lacking.push(format!("round {round}, {name}: {ours} polls by hud, {own} by its own count"));
            }
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}

fn kill_after(moment: Duration, pid: u32, session: &Path, verify: bool) -> Killed {
    let mut recorder = hud_record()
        .args(["--pid", &pid.to_string(), "--headless", "--polls", "exact", "--roll-age", "300ms", "--export"])
        .arg(session)
        .stderr(std::fs::File::create(session.with_extension("stderr")).unwrap())
        .spawn()
        .unwrap();
    while !session.join("polls/000001.arrows.inflight").exists() {
        let ended = recorder.try_wait().unwrap();
        let said = || std::fs::read_to_string(session.with_extension("stderr")).unwrap();
        assert!(ended.is_none(), "hud-record ended before it was killed: {ended:?}, {}", said());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(moment);
    let at = i64::try_from(hud_record::kernel::now()).unwrap();
    recorder.kill().unwrap();
    recorder.wait().unwrap();

    let (dir, before) = SessionDir::open(session).unwrap();
    assert!(!before.complete);
    let recovery = recover(&dir).unwrap().expect("there is something to recover");
    assert!(recover(&dir).unwrap().is_none(), "a second recovery finds nothing to do");
    let recording = Recording::open_recovered(session);
    let manifest = &recording.manifest;
    assert_eq!(manifest.end_reason.as_deref(), Some("the recorder was killed"));
    assert!(manifest.recovery.is_some() && !manifest.complete);
    // Recovery vouches for what is older than the newest row by 100 ms; on a machine with two busy loops beside this
    // that row is up to 110 ms old.
    let unknown = at - recording.mono(recovery.lost_after);
    assert!(unknown <= 3 * MAY_LACK, "the last {unknown} ns are not vouched for, killed {moment:?} after the start");
    recording.assert_names();
    if verify {
        support::verify(session);
    }

    let mut polls = support::polls_by_type(&recording, "test_async_app");
    for poll in polls.values_mut().flatten() {
        poll.1 += poll.0;
    }
    Killed { at, polls }
}

#[test]
fn a_session_in_use_is_neither_recovered_nor_recorded_into() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = support::Recorder::start(target.pid(), &session, &[]);
    let (folder, manifest) = SessionDir::open(&session).unwrap();
    assert!(matches!(recover(&folder), Err(Error::InUse(_))));
    assert_eq!(Manifest::read(&session).unwrap(), manifest, "nothing was touched");
    assert!(recorder.stop().success());
    assert!(recover(&folder).unwrap().is_none(), "a session that was closed in order needs no recovery");
    Recording::open(&session);
}
