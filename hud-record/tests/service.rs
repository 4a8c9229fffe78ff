//! hud as a service: signals, systemd, privileges, ownership of files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixDatagram,
    },
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use support::{Recorder, Recording, Target, hud_record, may_trace, program, signal_process, text, until};

const NOBODY: u32 = 65534;

fn on(pid: u32, session: &Path) -> Command {
    let mut command = hud_record();
    command.args(["--headless", "--pid", &pid.to_string(), "--export"]).arg(session);
    command
}

#[test]
fn sigusr1_seals_now_and_sighup_does_nothing() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &["--polls", "exact"]);
    let sealed = session.join("polls/000001.parquet");
    assert!(!sealed.exists());
    signal_process(recorder.pid(), Signal::HUP);
    signal_process(recorder.pid(), Signal::USR1);
    while !sealed.exists() || !session.join("polls/000002.arrows.inflight").exists() {
        assert!(recorder.is_running(), "{}", recorder.said());
        std::thread::yield_now();
    }
    assert!(recorder.stop().success());
    Recording::open(&session);
}

#[test]
fn notifies_systemd() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    let mut command = on(target.pid(), &dir.path().join("session"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").env_remove("WATCHDOG_PID");
    let mut recorder = Recorder::spawn(command);
    let until = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            if text(&buffer[..length]).lines().any(|l| l == what) {
                break;
            }
        }
    };
    until("READY=1");
    until("WATCHDOG=1");
    signal_process(recorder.pid(), Signal::TERM);
    until("STOPPING=1");
    assert!(recorder.wait().success());
}

#[test]
fn logs_are_json_where_asked_for() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    let mut command = on(target.pid(), &dir.path().join("session"));
    let arguments = ["--duration", "4", "--heartbeat", "1s", "--log-format", "json"];
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> =
        text(&output.stderr).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let about =
        |what: &str| lines.iter().filter(|l| l["message"].as_str().unwrap().starts_with(what)).collect::<Vec<_>>();
    // A line at the start, then heartbeats.
    let recording = about("recording test-async-app");
    assert_eq!(recording[0]["pid"], target.pid());
    assert!(recording[0]["task_types"].as_u64() > Some(0), "{}", recording[0]);
    assert!((2..=4).contains(&(recording.len() - 1)), "{lines:?}");
    let [.., beat] = recording[..] else { unreachable!() };
    assert!(
        beat["events"].as_u64() > Some(0) && beat["bytes"].as_u64() > Some(0) && beat["dropped"].is_u64(),
        "{beat}"
    );
    let [end] = about("recorded test-async-app")[..] else { panic!("{lines:?}") };
    assert!(end["events"].as_u64() >= beat["events"].as_u64(), "{end}");
    assert_eq!(end["reason"], "duration is over");
    assert_eq!(end["session"].as_str(), dir.path().join("session").to_str());
    let output_again = on(target.pid(), &dir.path().join("session")).args(["--log-format", "json"]).output().unwrap();
    assert_eq!(output_again.status.code(), Some(1));
    let said = text(&output.stderr) + &text(&output_again.stderr);
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert!(line["message"].is_string() && line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
    assert!(said.contains("exists already"), "{said}");
}

#[test]
fn recording_continues_without_a_reader_of_its_output() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    for format in ["text", "json"] {
        let session = dir.path().join(format);
        let ((out_reader, out), (err_reader, err)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let mut command = on(target.pid(), &session);
        command.args(["--duration", "1", "--log-level", "trace", "--log-format", format]).stdout(out).stderr(err);
        drop((out_reader, err_reader));
        assert!(command.status().unwrap().success(), "{format}");
        let recording = Recording::open(&session);
        assert_eq!(recording.manifest.end_reason.as_deref(), Some("duration is over"));
        // An error needs no reader either: the exit code is its own.
        assert_eq!(command.status().unwrap().code(), Some(1), "the session exists already");
    }
}

/// All files and folders under `path`, itself included.
fn tree(path: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![path.to_path_buf()];
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            all.extend(tree(&entry.unwrap().path()));
        }
    }
    all
}

#[test]
fn under_sudo_files_belong_to_the_user_who_called_it() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let run = |session: &Path| {
        let output = on(target.pid(), session)
            .args(["--duration", "1"])
            .env("SUDO_UID", NOBODY.to_string())
            .env("SUDO_GID", NOBODY.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        Recording::open(session);
    };
    let session = home.join("deep/session");
    run(&session);
    for path in tree(&home.join("deep")) {
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o777, mode, "{}", path.display());
    }
    // A place where that user may not write, and only root may, belongs to root.
    let roots = tempfile::tempdir_in("/run").unwrap();
    let session = roots.path().join("roots");
    run(&session);
    assert!(tree(&session).iter().all(|p| p.metadata().unwrap().uid() == 0));
    // A folder of root's behind a link of the user's does not become the user's.
    std::os::unix::fs::symlink(roots.path(), home.join("link")).unwrap();
    let session = home.join("link/session");
    let output = on(target.pid(), &session)
        .args(["--duration", "1"])
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", "0")
        .output()
        .unwrap();
    assert!(!output.status.success() && !session.exists(), "{}", text(&output.stderr));
}

/// Whether another user may run hud-record where the tests built it; otherwise a copy.
fn public_copy(dir: &Path) -> std::path::PathBuf {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join("hud-record");
    fs::copy(env!("CARGO_BIN_EXE_hud-record"), &copy).unwrap();
    copy
}

fn as_nobody(program: &Path, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg(program);
    command
}

#[test]
fn four_capabilities_are_enough() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = public_copy(dir.path());
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    let pid = target.pid().to_string();

    let session = home.join("session");
    let all = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";
    let output = as_nobody(&copy, all)
        .args(["--headless", "--duration", "4", "--pid", &pid, "--export"])
        .arg(&session)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    let polls = recording.rows(hud_common::session::Table::Polls).num_rows();
    assert!(polls > 100, "{polls} polls: {} {:?}", text(&output.stderr), recording.manifest.notes);
    let functions = recording.texts(hud_common::session::Table::Frames, "function");
    assert!(functions.iter().any(|f| f.starts_with("test_async_app::")), "{functions:?}");

    for (capabilities, lacks) in [
        ("+perfmon,+sys_ptrace,+dac_read_search", "CAP_BPF"),
        ("+bpf,+sys_ptrace,+dac_read_search", "CAP_PERFMON"),
        ("+bpf,+perfmon,+dac_read_search", "CAP_SYS_PTRACE"),
    ] {
        let session = home.join(lacks);
        let output = as_nobody(&copy, capabilities)
            .args(["--headless", "--duration", "1", "--pid", &pid, "--export"])
            .arg(&session)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "without {lacks}: {said}");
        assert!(said.lines().any(|l| l.starts_with("  help: ") && l.contains(lacks)), "without {lacks}: {said}");
        assert!(!session.exists());
    }
}

#[test]
fn drops_capabilities_after_the_attach() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut recorder = Recorder::start(target.pid(), &session, &[]);
    let status = |tid: &str| fs::read_to_string(format!("/proc/{}/task/{tid}/status", recorder.pid())).unwrap();
    let field = |status: &str, name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let sys_admin = 1 << 21;
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/task", recorder.pid())).unwrap() {
        let status = status(entry.unwrap().file_name().to_str().unwrap());
        let name = status.lines().next().unwrap().split_whitespace().nth(1).unwrap().to_string();
        // The thread that attaches and detaches probes.
        if ["hud-record", "hud-writer", "hud-sealer", "hud-namer"].contains(&name.as_str()) {
            assert_eq!(field(&status, "CapPrm:") & sys_admin, 0, "{name}");
            assert_eq!(field(&status, "NoNewPrivs:"), 1, "{name}");
            seen.push(name);
        }
    }
    assert!(seen.len() >= 4, "{seen:?}");
    assert!(recorder.stop().success());
}

#[test]
fn the_unit_file_is_one_that_systemd_accepts() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hud-record.service");
    let text_of = fs::read_to_string(&unit).unwrap();
    for line in ["Type=notify", "StateDirectory=hud/%i", "ProtectSystem=strict", "NoNewPrivileges=yes"] {
        assert!(text_of.lines().any(|l| l == line), "{line}");
    }
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
        eprintln!("skipped in part: no systemd-analyze here");
        return;
    };
    let said = text(&output.stderr);
    // The program need not be installed where the test runs.
    let complaints: Vec<_> =
        said.lines().filter(|l| l.contains("hud-record.service") && !l.contains("is not executable")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// With `--wait` a process is detected within 50 ms of its start.
#[test]
fn a_process_that_starts_is_detected_at_once() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app-to-wait-for");
    fs::copy(program("plain/test-async-app"), &app).unwrap();
    let session = dir.path().join("store");
    let mut command = hud_record();
    command.args(["app-to-wait-for", "--headless", "--wait", "--log-level", "debug", "--store"]).arg(&session);
    let mut recorder = Recorder::spawn(command);
    let mut delays: Vec<u64> = Vec::new();
    for round in 1..=5 {
        until("hud to wait", || recorder.said().matches("waiting for app-to-wait-for").count() >= round);
        let started = std::time::Instant::now();
        let target = Target::start(&app, &[]);
        until("its detection", || recorder.said().matches("detected ").count() >= round);
        delays.push(u64::try_from(started.elapsed().as_millis()).unwrap());
        until("its recording", || recorder.said().matches("session begun").count() >= round);
        target.stop();
    }
    println!("detected within {delays:?} ms");
    delays.sort_unstable();
    // By the median: the machine may be busy.
    assert!(delays[2] < 50, "{delays:?} ms");
    assert!(recorder.stop().success());
}
