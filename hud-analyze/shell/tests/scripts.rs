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

/// Its output, its messages, and its exit status.
fn answers(command: &mut Command, input: &str) -> (String, String, Option<i32>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap(), done.status.code())
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn statements_come_in_order_from_everywhere() {
    let home = home();
    fs::write(home.path().join("a.sql"), "select name from planets limit 1;\n\\pset footer off\nshow width").unwrap();
    let mut command = planets(&home);
    command.current_dir(home.path()).args(["-c", "set a = 1; \\echo one", "-f", "a.sql", "-c", "\\pset format csv"]);
    command.args(["-c", "select * from planets limit 1"]);
    let (out, said, code) = answers(&mut command, "");
    assert_eq!(out, "one\nname\nMercury\n(1 row)\nwidth\n\nname,moons\nMercury,0\n");
    assert_eq!((said.as_str(), code), ("", Some(0)));
    let (out, said, code) = answers(planets(&home).args(["--format", "ndjson"]), "select name\nfrom planets limit 1");
    assert_eq!((out.as_str(), said.as_str(), code), ("{\"name\":\"Mercury\"}\n", "", Some(0)));
    let (out, ..) = answers(planets(&home).args(["-f", "-"]), "\\echo from a pipe\n\\q\n\\echo no more\n");
    assert_eq!(out, "from a pipe\n");
}

#[test]
fn the_first_error_ends_it_and_says_where_it_is() {
    let home = home();
    let at = home.path();
    fs::write(
        at.join("bad.sql"),
        "select name from planets limit 1;\n-- a comment;\n\nselect name\nfrom nowhere;\nshow width;\n",
    )
    .unwrap();
    fs::write(at.join("outer.sql"), "\\ir deep/inner.sql\n").unwrap();
    fs::create_dir(at.join("deep")).unwrap();
    fs::write(at.join("deep/inner.sql"), "\\ir ../bad.sql\n").unwrap();
    fs::write(at.join("self.sql"), "\\i self.sql\n").unwrap();
    fs::write(at.join("open.sql"), "\n\nselect 'a\n\n").unwrap();
    fs::write(at.join("binary.sql"), b"select 1;\n\xff\xfe\n").unwrap();
    for (arguments, input, said) in [
        (&["-f", "bad.sql"][..], "", "bad.sql:4: there is no table nowhere"),
        (&["-f", "outer.sql"], "", "deep/../bad.sql:4: there is no table nowhere"),
        (&["-f", "self.sql"], "", "self.sql:1: self.sql is 16 scripts deep; does a script run itself?"),
        (&["-f", "open.sql"], "", "open.sql:3: a string has no end; close it, or leave it out"),
        (&["-f", "none.sql"], "", "cannot read none.sql: No such file or directory (os error 2)"),
        (&["-f", "deep"], "", "deep is a folder; name a file of SQL"),
        (&["-f", "binary.sql"], "", "binary.sql:1: this database does not understand: select 1"),
        (&["-c", "select x from planets"], "", "there is no column x"),
        (&["-c", "show width;\nselect x from planets"], "", "-c:2: there is no column x"),
        (&["-c", "\\pset colour", "-c", "show width"], "", "there is no option colour; options are format"),
        (&[], "show width;\n\\wat\n", "standard input:2: there is no command \\wat; \\? lists the commands"),
        (&[], "show\x1b[2J width;", "standard input:1: this database does not understand: show\\x1b[2J width"),
        (&[], "/* a", "standard input:1: a comment has no end"),
    ] {
        let (out, error, code) = answers(planets(&home).current_dir(at).args(arguments), input);
        assert!(error.starts_with(&format!("error: {said}")), "{arguments:?}: {error}");
        assert_eq!((error.lines().count(), code), (1, Some(1)), "{arguments:?}: {error}");
        assert!(out.matches("width").count() <= 1, "{arguments:?} went on: {out}");
    }
}

#[test]
fn answers_go_where_o_and_g_say() {
    let home = home();
    let script = "\\o 'a file.txt'\nselect name from planets limit 1;\n\\d moonless\n\\o\nshow width;\n\
                  select moons from planets limit 1 \\g once.txt\n\\pset format csv\n\
                  select name from planets limit 2 \\g |tr a-z A-Z\n\\g\n\\pset format table\n\\gx\n";
    let (out, said, code) = answers(planets(&home).current_dir(home.path()), script);
    assert_eq!((said.as_str(), code), ("", Some(0)));
    assert_eq!(
        out,
        "NAME\nMERCURY\nVENUS\nwidth\n\n(1 row)\nname\nMercury\nVenus\nname: Mercury\nname: Venus\n(2 rows)\n"
            .replacen("NAME\nMERCURY\nVENUS\nwidth\n\n(1 row)\n", "width\n\n(1 row)\nNAME\nMERCURY\nVENUS\n", 1)
    );
    let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
    assert!(read("a file.txt").starts_with("name\nMercury\n(1 row)\nview moonless: a planet without moons\n"));
    assert_eq!(read("once.txt"), "moons\n0\n(1 row)\n");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let home = home();
    let mut child = planets(&home)
        .args(["-c", "select n from plain_numbers; \\o never.txt"])
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
    assert!(!home.path().join("never.txt").exists(), "it went on");
}

#[test]
fn a_signal_ends_a_script() {
    let home = home();
    for (signal, said, code) in [(Signal::INT, "error: cancelled\n", 130), (Signal::TERM, "left by signal 15\n", 143)] {
        let mut child = planets(&home)
            .args(["-c", "\\echo begun", "-c", "select n from endless; \\echo more", "-c", "\\echo more"])
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
        assert_eq!(text, "begun\n");
        assert_eq!((String::from_utf8(done.stderr).unwrap().as_str(), done.status.code()), (said, Some(code)));
    }
}

#[test]
fn a_statement_that_ignores_its_cancellation_is_ended_with_the_process() {
    let home = home();
    for (signal, times) in [(Signal::INT, 100), (Signal::TERM, 1)] {
        let mut child = planets(&home)
            .args(["-c", "\\echo begun", "-c", "select n from deaf"])
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
            // Two signals at once are one.
            std::thread::sleep(Duration::from_millis(50));
        };
        // One that comes before the statement has begun ends the script in order.
        let is_in_order = status.code().is_some_and(|code| code != 0);
        assert!(status.signal() == Some(signal.as_raw()) || is_in_order, "{status}");
    }
}

#[test]
fn an_answer_comes_as_soon_as_its_statement_has_come() {
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
fn what_is_cut_and_what_it_took_is_told_beside_the_answer() {
    let home = home();
    let script =
        "\\pset limit 2\n\\timing on\nselect name from planets;\n\\timing off\n\\pset limit off\n\\watch 0.1 c=2\n";
    let (out, said, code) = answers(&mut planets(&home), script);
    assert!(out.starts_with("name\nMercury\nVenus\n(2 rows of more)\nevery 0.1 s, "), "{out}");
    assert_eq!(out.matches("Mars\n(4 rows)\n").count(), 2, "{out}");
    assert!(said.starts_with("only the first 2 rows are shown; \\pset limit off shows all\ntook "), "{said}");
    assert_eq!((said.lines().count(), code), (2, Some(0)));
}
