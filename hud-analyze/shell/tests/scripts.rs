//! The shell without a terminal: statements from the command line, from files, and from standard input.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use support::planets;
use tempfile::TempDir;

/// Standard output, standard error and exit code.
fn run(command: &mut Command, input: &str) -> (String, String, Option<i32>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap(), done.status.code())
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn runs_statements_from_all_inputs_in_order() {
    let home = home();
    fs::write(home.path().join("a.sql"), "select name from planets limit 1;\n\\x\nshow width").unwrap();
    let mut command = planets(&home);
    command.current_dir(home.path()).args(["-c", "set a = 1; show width", "-f", "a.sql", "-c", "\\pset format csv"]);
    command.args(["-c", "select * from planets limit 1"]);
    let (out, messages, code) = run(&mut command, "");
    assert_eq!(out, "width\n\n(1 row)\nname\nMercury\n(1 row)\nwidth: \n(1 row)\nname,moons\nMercury,0\n");
    assert_eq!((messages.as_str(), code), ("", Some(0)));
    let (out, messages, code) = run(planets(&home).args(["--format", "ndjson"]), "select name\nfrom planets limit 1");
    assert_eq!((out.as_str(), messages.as_str(), code), ("{\"name\":\"Mercury\"}\n", "", Some(0)));
    let (out, ..) = run(planets(&home).args(["-f", "-", "-c", "show width"]), "\\q\nselect name from planets;\n");
    assert_eq!(out, "width\n\n(1 row)\n");
}

#[test]
fn stops_at_the_first_error_and_names_its_line() {
    let home = home();
    let folder = home.path();
    let bad = "select name from planets limit 1;\n-- a comment;\n\nselect name\nfrom nowhere;\nshow width;\n";
    fs::write(folder.join("bad.sql"), bad).unwrap();
    fs::create_dir(folder.join("deep")).unwrap();
    fs::write(folder.join("open.sql"), "\n\nselect 'a\n\n").unwrap();
    fs::write(folder.join("binary.sql"), b"select 1;\n\xff\xfe\n").unwrap();
    for (arguments, input, message) in [
        (&["-f", "bad.sql"][..], "", "bad.sql:4: there is no table nowhere"),
        (&["-f", "open.sql"], "", "open.sql:3: a string is not closed; close it"),
        (&["-f", "none.sql"], "", "cannot read none.sql: No such file or directory (os error 2)"),
        (&["-f", "deep"], "", "deep is a folder; name a file with SQL"),
        (&["-f", "binary.sql"], "", "binary.sql:1: this database does not understand: select 1"),
        (&["-c", "select x from planets"], "", "there is no column x"),
        (&["-c", "show width;\nselect x from planets"], "", "-c:2: there is no column x"),
        (&["-c", "\\pset colour", "-c", "show width"], "", "there is no option colour; options are format"),
        (&[], "show width;\n\\wat\n", "standard input:2: there is no command \\wat; \\? lists the commands"),
        (&[], "show\x1b[2J width;", "standard input:1: this database does not understand: show\\x1b[2J width"),
        (&[], "/* a", "standard input:1: a comment is not closed"),
    ] {
        let (out, error, code) = run(planets(&home).current_dir(folder).args(arguments), input);
        assert!(error.starts_with(&format!("error: {message}")), "{arguments:?}: {error}");
        assert_eq!((error.lines().count(), code), (1, Some(1)), "{arguments:?}: {error}");
        assert!(out.matches("width").count() <= 1, "{arguments:?} continued: {out}");
    }
}

#[test]
fn ends_without_error_when_the_reader_closes_the_output() {
    let home = home();
    let mut child = planets(&home)
        .args(["-c", "select n from plain_numbers; select n from endless"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(
        (line.as_str(), String::from_utf8(done.stderr).unwrap().as_str(), done.status.code()),
        ("n\n", "", Some(0))
    );
}

#[test]
fn a_signal_ends_a_script() {
    let home = home();
    for (signal, said, code) in [(Signal::INT, "error: cancelled\n", 130), (Signal::TERM, "ended by signal 15\n", 143)]
    {
        let mut child = planets(&home)
            .args(["-c", "show width", "-c", "select n from endless; show width", "-c", "show width"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        out.read_line(&mut text).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        out.read_to_string(&mut text).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(text, "width\n\n(1 row)\n");
        assert_eq!((String::from_utf8(done.stderr).unwrap().as_str(), done.status.code()), (said, Some(code)));
    }
}

#[test]
fn a_repeated_signal_kills_a_statement_that_ignores_cancellation() {
    let home = home();
    for (signal, times) in [(Signal::INT, 100), (Signal::TERM, 1)] {
        let mut child = planets(&home)
            .args(["-c", "show width", "-c", "select n from deaf"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut sent = 0;
        let status = loop {
            if sent < times {
                kill_process(Pid::from_child(&child), signal).unwrap();
                sent += 1;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            // Two signals at the same time count as one.
            std::thread::sleep(Duration::from_millis(50));
        };
        // A signal before the statement has started ends the script in order.
        let is_in_order = status.code().is_some_and(|code| code != 0);
        assert!(status.signal() == Some(signal.as_raw()) || is_in_order, "{status}");
    }
}

#[test]
fn a_statement_from_a_pipe_runs_when_its_line_arrives() {
    let home = home();
    let mut child = planets(&home).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut out) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for limit in 1..4 {
        writeln!(input, "select name from planets limit {limit};").unwrap();
        for _ in 0..limit + 2 {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0);
        }
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn prints_the_duration_beside_the_result() {
    let home = home();
    let script = "\\timing on\nselect name from planets;\n\\timing\nshow width;\n";
    let (out, messages, code) = run(&mut planets(&home), script);
    assert!(out.starts_with("name\nMercury\n") && out.ends_with("width\n\n(1 row)\n"), "{out}");
    assert!(messages.starts_with("took ") && messages.lines().count() == 1, "{messages}");
    assert_eq!(code, Some(0));
}
