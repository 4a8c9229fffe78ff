//! `hud NAME` and `hud attach`: recorded data is shown at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::process::{Command, Stdio};

use support::{Recording, Target, may_trace, program, text, verify};

fn hud() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud"));
    command.stdin(Stdio::null());
    command
}

/// If stdout is no terminal, a line is printed each second; it names the culprit, and the session is complete.
#[test]
fn prints_a_line_each_second_with_the_culprit() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let output = hud()
        .args(["--pid", &target.pid().to_string(), "--duration", "4", "--polls", "exact", "--export"])
        .arg(&session)
        .output()
        .unwrap();
    target.stop();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.lines().count() >= 3, "{said}");
    assert!(said.lines().any(|line| line.contains("cpu_hog")), "{said}");
    assert!(said.lines().last().unwrap().contains("ended"), "{said}");
    Recording::open(&session);
    verify(&session);

    // The same session, looked at again.
    let output = hud().arg("attach").arg(&session).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cpu_hog"), "{}", text(&output.stdout));
    // Its screen, for use without a terminal and without hud-analyze.
    let output = hud().arg("attach").arg(&session).args(["--format", "screen", "--size", "100x30"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let screen = text(&output.stdout);
    assert!(screen.contains("cpu_hog") && screen.lines().count() == 30, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 100) && !screen.contains('\x1b'), "{screen}");
}

/// The recorder's errors are reported as without the cockpit.
#[test]
fn passes_on_the_recorders_errors() {
    if !may_trace() {
        return;
    }
    let output = hud().args(["--pid", "1", "--store", "/tmp/x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--store requires --headless"), "{}", text(&output.stderr));

    let target = Target::start(&program("test-async-app"), &[]);
    let dir = tempfile::tempdir().unwrap();
    let output = hud().args(["--pid", &target.pid().to_string(), "--export"]).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("exists") && said.contains("help:"), "{said}");
    assert!(output.stdout.is_empty());
}

/// Running programs with Tokio, with its version, and the sessions of the data directory.
#[test]
fn ls_shows_programs_and_sessions() {
    let home = tempfile::tempdir().unwrap();
    let sessions = home.path().join("hud");
    std::fs::create_dir(&sessions).unwrap();
    let recording = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../hud-analyze/tests/data/session");
    assert!(Command::new("cp").arg("-r").args([&recording, &sessions]).status().unwrap().success());
    let target = Target::start(&program("test-async-app"), &[]);
    let output = hud().args(["ls", "--format", "json"]).env("XDG_DATA_HOME", home.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lists: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut programs = lists["programs"].as_array().unwrap().iter();
    let found = programs.find(|p| p["pid"] == target.pid()).unwrap_or_else(|| panic!("{lists:#}"));
    assert_eq!(found["name"], "test-async-app");
    assert!(found["tokio_version"].as_str().unwrap().starts_with("1."), "{found}");
    let session = &lists["sessions"][0];
    assert_eq!((&session["state"], &session["program"]), (&"complete".into(), &"test-async-app".into()), "{lists:#}");
}
