//! Programs that hud starts are recorded from their first instruction, and run as they would without hud.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use hud_common::session::Table;
use rustix::process::Signal;
use support::{
    Recorder, Recording, hud_record, may_trace, polls_by_type, program, signal_process, text, truth, until, verify,
};

const NOBODY: u32 = 65534;

/// hud-record, to record what follows `--` into this session.
fn starting(session: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut hud = hud_record();
    hud.args(["--headless", "--export"]).arg(session).args(options).arg("--").args(command);
    hud
}

/// Asserts that the polls of each type of task, from the program's start on, are as many as by the program's own count.
fn assert_all_polls(recording: &Recording, own: &BTreeMap<String, Vec<(i64, i64)>>) {
    let polls = polls_by_type(recording, "test_async_app");
    let tasks = ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "file_reader"];
    let tasks: Vec<_> = tasks.into_iter().chain(["pool_user", "short_lived_spawner", "short_lived"]).collect();
    let ends = |polls: &[(i64, i64)]| {
        let mut ends: Vec<i64> = polls.iter().map(|(ts, dur)| ts + dur).collect();
        ends.sort_unstable();
        ends
    };
    for task in tasks {
        let (by_hud, own) = (ends(&polls[task]), ends(&own[task]));
        // The program writes its log while its tasks still run: counted up to the longest pause among the last polls, as
        // hud's clock and the program's are microseconds apart.
        let last = &own[own.len().saturating_sub(5)..];
        let pause = last.windows(2).max_by_key(|pair| pair[1] - pair[0]).unwrap();
        let cut = i64::midpoint(pause[0], pause[1]);
        let until_cut = |ends: &[i64]| ends.iter().filter(|end| **end < cut).count();
        assert!(until_cut(&own) > 0, "{task}: {own:?}");
        assert_eq!(until_cut(&by_hud), until_cut(&own), "{task}: polls by hud, and by its own count");
    }
}

#[test]
fn every_poll_since_the_start_is_recorded() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (session, log) = (dir.path().join("session"), dir.path().join("polls.csv"));
    let app = program("test-async-app");
    let command = [app.to_str().unwrap(), "--duration", "3", "--poll-log", log.to_str().unwrap()];
    let output = starting(&session, &["--polls", "exact"], &command).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("the target exited"));
    assert_all_polls(&recording, &truth(&log));
    // Its standard output is its own, and hud reports the end on stderr.
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_string).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("test-async-app pid="), "{lines:?}");
    let said = text(&output.stderr);
    assert!(said.lines().count() == 1 && said.contains("recorded test-async-app"), "{said}");
    assert!(said.trim_end().ends_with(session.to_str().unwrap()), "{said}");
}

/// Its types are found in its relocated data, which the dynamic linker prepares before the program's entry point; a static
/// program prepares it itself.
#[test]
fn stripped_and_static_programs_are_known_before_they_run() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for build in ["stripped", "static"] {
        let (stripped, session) = (dir.path().join(build), dir.path().join(format!("{build}-session")));
        let original = match build {
            "static" => program("static/test-async-app"),
            _ => program("plain/test-async-app"),
        };
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(original).status().unwrap();
        assert!(strip.success());
        let log = dir.path().join(format!("{build}.csv"));
        let command = [stripped.to_str().unwrap(), "--duration", "2", "--poll-log", log.to_str().unwrap()];
        let output = starting(&session, &["--polls", "exact"], &command).output().unwrap();
        assert!(output.status.success(), "{build}: {}", text(&output.stderr));
        let recording = Recording::open(&session);
        let by_hud = recording.rows(Table::Polls).num_rows();
        let own = truth(&log);
        let tasks = ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "file_reader"];
        let own: usize =
            tasks.into_iter().chain(["pool_user", "short_lived_spawner", "short_lived"]).map(|t| own[t].len()).sum();
        // More than its own count: tasks of the blocking pool, and polls while the program writes its log.
        assert!(by_hud >= own && own > 500, "{build}: {by_hud} polls by hud, {own} by its own count");
    }
}

#[test]
fn exit_codes_are_the_programs() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, command: &[&str]| {
        let output = starting(&dir.path().join(name), &[], command).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    // It ends before hud would record it as a program without Tokio.
    let (code, out, said) = run("a", &["sh", "-c", "echo said; exit 7"]);
    assert_eq!((code, out.as_str()), (Some(7), "said\n"), "{said}");
    assert!(said.contains("nothing was recorded") && !dir.path().join("a").exists(), "{said}");
    // It lives long enough, and is recorded by its threads.
    let (code, _, said) = run("b", &["sh", "-c", "sleep 2; kill -USR1 $$; sleep 1"]);
    assert_eq!(code, Some(128 + 10), "{said}");
    assert!(said.contains("no tokio"), "{said}");
    Recording::open(&dir.path().join("b"));
    let (code, _, said) = run("c", &["/nonexistent/program"]);
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("cannot start \"/nonexistent/program\": No such file"), "{said}");
}

#[test]
fn a_program_that_cannot_be_recorded_is_not_run() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (session, trace) = (dir.path().join("session"), dir.path().join("trace"));
    fs::create_dir(&session).unwrap();
    let app = program("test-async-app");
    let command = [app.to_str().unwrap(), "--duration", "1", "--poll-log", trace.to_str().unwrap()];
    let output = starting(&session, &[], &command).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("exists already"), "{}", text(&output.stderr));
    assert!(!trace.exists() && output.stdout.is_empty());
}

#[test]
fn wrappers_are_followed_to_the_program_with_tokio() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (session, script) = (dir.path().join("session"), dir.path().join("script"));
    let (log, app) = (dir.path().join("polls.csv"), program("test-async-app"));
    let app = app.to_str().unwrap();
    fs::write(&script, "#!/bin/sh\nexport A=1\nexec nice -n 0 \"$@\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let command = ["env", "B=1", script, app, "--duration", "3", "--poll-log", log.to_str().unwrap()];
    let output = starting(&session, &["--polls", "exact"], &command).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    assert_eq!(recording.manifest.exe, app);
    assert_all_polls(&recording, &truth(&log));
}

#[test]
fn a_recorded_program_that_executes_another_is_followed() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (session, log) = (dir.path().join("session"), dir.path().join("polls.csv"));
    let (first, second) = (program("exec-fork"), program("test-async-app"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let command = [first, "--exec-after", "1", "--", second, "--duration", "2", "--poll-log", log.to_str().unwrap()];
    let output = starting(&session, &["--polls", "exact"], &command).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    assert_eq!(recording.manifest.end_reason.as_deref(), Some("the target executed another program"));
    assert_eq!(recording.manifest.exe, first);
    let next = Recording::open(&dir.path().join("session-2"));
    assert_eq!((next.manifest.exe.as_str(), next.manifest.previous.as_ref()), (second, Some(&recording.manifest.id)));
    assert_all_polls(&next, &truth(&log));
}

#[test]
fn signals_are_passed_on_and_the_session_is_whole() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = program("test-async-app");
    for signal in [Signal::TERM, Signal::INT] {
        let session = dir.path().join(format!("session-{}", signal.as_raw()));
        let mut recorder = Recorder::spawn(starting(&session, &[], &[app.to_str().unwrap()]));
        until("the session", || session.join("polls/000001.arrows.inflight").exists());
        // To hud alone: a terminal would send it to both.
        signal_process(recorder.pid(), signal);
        assert!(recorder.wait().success(), "{}", recorder.said());
        assert_eq!(Recording::open(&session).manifest.end_reason.as_deref(), Some("the target exited"));
        verify(&session);
    }
}

#[test]
fn the_program_runs_as_it_would_without_hud() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Rights, limits, signals and environment of the process itself, while it is recorded.
    let report = "id -u; id -g; ulimit -Sn; ulimit -Hn; echo $HOME $USER ${SUDO_UID-none}; \
                  sleep 1.5; grep -E 'TracerPid|NoNewPrivs|SigIgn|SigBlk|CapEff|CapAmb' /proc/$$/status; exit 3";
    let by_hud = |as_user: Option<u32>| {
        let session = dir.path().join(format!("{as_user:?}"));
        let mut hud = starting(&session, &[], &["sh", "-c", report]);
        if let Some(uid) = as_user {
            hud.env("SUDO_UID", uid.to_string()).env("SUDO_GID", uid.to_string());
        }
        let output = hud.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(session.exists(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let alone = Command::new("sh").args(["-c", report]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(by_hud(None), text(&alone.stdout));
    let under_sudo = by_hud(Some(NOBODY));
    let lines: Vec<&str> = under_sudo.lines().collect();
    assert_eq!(lines[..2], ["65534", "65534"]);
    assert!(lines[4].ends_with(" nobody none"), "{under_sudo}");
    assert!(lines.contains(&"TracerPid:\t0") && lines.contains(&"CapEff:\t0000000000000000"), "{under_sudo}");
}

/// Nothing is left of the breakpoint at its entry point, by which hud holds it.
#[test]
fn the_programs_code_is_unchanged() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let app = program("test-async-app");
    let mut command = starting(&session, &["--polls", "off"], &[app.to_str().unwrap()]);
    let mut hud = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hud.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.split_once("pid=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    let process = hud_record::inspect::Process::by_pid(pid).unwrap();
    let file = fs::read(&app).unwrap();
    for mapping in process.mappings().unwrap().iter().filter(|m| Path::new(&m.path) == app) {
        let size = usize::try_from(mapping.end - mapping.start).unwrap();
        let memory = process.memory(mapping.start, size).unwrap();
        let from = usize::try_from(mapping.offset).unwrap();
        let in_file = &file[from..(from + size).min(file.len())];
        assert!(memory[..in_file.len()] == *in_file, "code at {:x} differs from the file", mapping.start);
    }
    signal_process(pid, Signal::TERM);
    assert!(hud.wait().unwrap().success());
}
