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
