//! How recordings end, and that each end leaves a complete session.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Child};

use hud_common::session::Table;
use rustix::process::Signal;
use support::{Recording, Target, hud_record, may_trace, program, record, signal_process};

/// Starts a recording without an end and waits until its session has polls in flight.
fn start(pid: u32, session: &Path) -> Child {
    let recorder =
        hud_record().args(["--pid", &pid.to_string(), "--headless", "--export"]).arg(session).spawn().unwrap();
    while !session.join("polls/000001.arrows.inflight").exists() {
        std::thread::yield_now();
    }
    recorder
}

#[test]
fn ctrl_c_and_sigterm_close_the_session_whole() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        let session = dir.path().join("session");
        let recorder = start(target.pid(), &session);
        signal_process(recorder.id(), signal);
        assert!(recorder.wait_with_output().unwrap().status.success());
        let recording = Recording::open(&session);
        assert_eq!(recording.manifest.end_reason.as_deref(), Some("stopped"));
        assert!(recording.rows(Table::Polls).num_rows() > 0);
    }
}

#[test]
fn the_targets_exit_closes_the_session_whole() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let recorder = start(target.pid(), &session);
    target.stop();
    assert!(recorder.wait_with_output().unwrap().status.success());
    let recording = Recording::open(&session);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("the target exited"));
}

#[test]
fn a_target_that_exits_during_the_attach_leaves_a_whole_session_or_none() {
    if !may_trace() {
        return;
    }
    for delay_ms in (0..240).step_by(12) {
        let dir = tempfile::tempdir().unwrap();
        let session = dir.path().join("session");
        let mut target = Target::start(&program("test-async-app"), &[]);
        let recorder = hud_record()
            .args(["--pid", &target.pid().to_string(), "--headless", "--export"])
            .arg(&session)
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Not for synchronization: the exit must be able to hit every stage of the attach.
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        target.child.kill().unwrap();
        target.child.wait().unwrap();
        let output = recorder.wait_with_output().unwrap();
        let said = support::text(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        if output.status.success() {
            Recording::open(&session);
        } else {
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(!session.exists(), "a half-made session after: {said}");
            assert_eq!(said.lines().filter(|l| l.starts_with("hud-record: ")).count(), 1, "{said}");
        }
    }
}

#[test]
fn segments_roll_and_only_the_owner_can_read_them() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "5", "--roll-age", "1s"]);
    let segments = recording.session.segments(Table::Polls).unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    // Sorted across segments as well as in them: each begins no earlier than its predecessor by more than a poll.
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&session), 0o700);
    assert_eq!(mode(&recording.session.table(Table::Polls)), 0o700);
    assert_eq!(mode(&session.join("manifest.json")), 0o600);
    assert_eq!(mode(&segments[0]), 0o600);
}

/// The original's command line, through `hud`; and a stripped program with its symbols given.
#[test]
fn the_front_door_records_a_stripped_program_by_its_unstripped_file() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (symbols, stripped) = (program("test-async-app"), dir.path().join("stripped-app"));
    let strip = std::process::Command::new("strip").arg("-o").arg(&stripped).arg(&symbols).status().unwrap();
    assert!(strip.success());
    let target = Target::start(&stripped, &[]);
    let session = dir.path().join("session");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hud"))
        .args(["--pid", &target.pid().to_string(), "--headless", "--duration", "3", "--target"])
        .arg(&symbols)
        .arg("--export")
        .arg(&session)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", support::text(&output.stderr));
    let recording = Recording::open(&session);
    assert!(recording.rows(Table::Polls).num_rows() > 100);
    let functions = recording.texts(Table::Frames, "function");
    assert!(functions.iter().any(|f| f == "test_async_app::burn_cpu"), "{functions:?}");
    let types = recording.texts(Table::TaskTypes, "name");
    assert!(types.iter().any(|t| t == "test_async_app::cpu_hog"), "{types:?}");

    // Commands on sessions are hud-analyze's, found beside hud.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hud"))
        .args(["sql", session.to_str().unwrap(), "-c", "SELECT count(*) AS n FROM polls", "--format", "csv"])
        .output()
        .unwrap();
    let counted = format!("n\n{}\n", recording.rows(Table::Polls).num_rows());
    assert_eq!(support::text(&output.stdout), counted, "{}", support::text(&output.stderr));
}

#[test]
fn plain_tracepoints_serve_where_there_is_no_btf() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    let dir = tempfile::tempdir().unwrap();
    let recording = record(target.pid(), &dir.path().join("session"), &["--duration", "3", "--no-btf"]);
    assert!(recording.rows(Table::OffCpu).num_rows() > 100);
    assert!(recording.rows(Table::Samples).num_rows() > 10);
    // Without BTF the thread-local cannot be read; the probes still identify the task.
    let types = recording.integers(Table::Tasks, "type_id");
    assert!(types.iter().flatten().count() > 0);
    let states = recording.texts(Table::OffCpu, "state");
    assert!(states.iter().any(|s| s == "S") && states.iter().any(|s| s == "R"), "{states:?}");
}

/// A number for information, not a limit. The verifier gives up at a million.
#[test]
fn the_verifier_accepts_every_program() {
    if !may_trace() {
        return;
    }
    let target = Target::start(&program("test-async-app"), &[]);
    let process = hud_record::inspect::Process::by_pid(target.pid()).unwrap();
    for no_btf in [false, true] {
        let settings = hud_record::record::Settings {
            destination: hud_record::record::Destination::Folder("/nonexistent/never-written".into()),
            target: None,
            duration: None,
            plan: hud_record::probes::Plan {
                freq: 99,
                polls: hud_record::probes::Polls::Exact,
                unwind: hud_record::probes::Unwind::Auto,
                no_btf,
                stop_at_exec: false,
            },
            budget: 0.02,
            roll: Default::default(),
            keep: Default::default(),
            every: Default::default(),
            previous: None,
            owner: None,
            state: None,
            keep_bpf: false,
            is_held: false,
            sandbox: Some(env!("CARGO_BIN_EXE_hud-record").into()),
        };
        let recorder = hud_record::record::Recorder::attach(process.clone(), settings).unwrap();
        let verified = recorder.verified_instructions();
        assert_eq!(verified.len(), if no_btf { 9 } else { 10 }, "{verified:?}");
        for (program, instructions) in verified {
            println!("{program}: {instructions} instructions verified");
            assert!(instructions > 0);
        }
    }
}
