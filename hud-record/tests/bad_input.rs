//! Bad input: one line with the error and the next step, the exit code, and no session.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use hud_common::session::Table;
use object::{Object as _, ObjectSection as _};
use support::{Target, analyze, hud_record, may_trace, program, record, text, verify};

/// Runs hud-record, expects it to fail with `code`, to print `what` and to leave no session.
fn refuses(command: &mut Command, session: &Path, code: i32, what: &str) {
    let before = session.exists();
    let output = command.arg("--export").arg(session).stdout(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let lines: Vec<_> = said.lines().filter(|l| l.starts_with("hud-record: ")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains(what), "{said:?} does not say {what:?}");
    assert!(said.lines().any(|l| l.starts_with("  help: ")), "{said:?} does not say what next");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(session.exists(), before, "a half-made session is left behind");
}

fn on_pid(pid: u32) -> Command {
    let mut command = hud_record();
    command.args(["--headless", "--duration", "1", "--pid", &pid.to_string()]);
    command
}

#[test]
fn rejects_an_unknown_pid_or_name() {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    // Above the kernel's largest pid.
    refuses(&mut on_pid(4_194_305), &session, 1, "no process has pid 4194305");
    refuses(hud_record().args(["--headless", "no-such-program"]), &session, 1, "no process is named");
    refuses(hud_record().arg("--headless"), &session, 2, "no target");
}

/// The limit is named before anything is written; once, the session was left unclosed.
#[test]
fn too_low_a_limit_of_open_files_is_named_at_first() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let recorder = env!("CARGO_BIN_EXE_hud-record");
    let script = format!("ulimit -n 64; exec {recorder} --headless --duration 1 --pid {} \"$@\"", std::process::id());
    let mut limited = Command::new("sh");
    limited.args(["-c", &script, "sh"]);
    refuses(&mut limited, &dir.path().join("s"), 1, "hud needs");
}

/// The kernel knows the target by another pid, which only its type information translates.
#[test]
fn an_inner_pid_namespace_without_btf() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    let recorder = hud_record().get_program().to_owned();
    let inside = format!(
        "'{}' & exec \"$0\" --headless --no-btf --duration 1 --pid $! \"$@\"",
        program("test-async-app").display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &inside]).arg(recorder);
    refuses(&mut unshare, &session, 77, "cannot be recorded from here (pid:[");
}

#[test]
fn a_name_that_several_processes_have() {
    let dir = tempfile::tempdir().unwrap();
    let twin = dir.path().join("hud-test-twin");
    fs::copy("/bin/sleep", &twin).unwrap();
    let mut twins: Vec<_> = (0..2).map(|_| Command::new(&twin).arg("60").spawn().unwrap()).collect();
    for twin in &twins {
        // Until it has become the twin, the child is a fork of this test.
        let exe = format!("/proc/{}/exe", twin.id());
        while !fs::read_link(&exe).unwrap().ends_with("hud-test-twin") {
            std::thread::yield_now();
        }
    }
    let session = dir.path().join("s");
    let what = "2 processes are named \"hud-test-twin\"";
    refuses(hud_record().args(["--headless", "hud-test-twin"]), &session, 1, what);
    for twin in &mut twins {
        twin.kill().unwrap();
        twin.wait().unwrap();
    }
}

#[test]
fn polls_of_a_program_that_is_no_tokio_program_or_is_stripped() {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    // This test's own binary has symbols but no runtime's task; `sleep` comes stripped.
    let mut sleep = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    refuses(on_pid(sleep.id()).args(["--polls", "exact"]), &session, 1, "is stripped");
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    let plain = dir.path().join("plain");
    let source = dir.path().join("plain.rs");
    fs::write(&source, "fn main() { loop { std::thread::park() } }").unwrap();
    assert!(Command::new("rustc").arg(&source).arg("-o").arg(&plain).status().unwrap().success());
    let mut child = Command::new(&plain).spawn().unwrap();
    let exe = format!("/proc/{}/exe", child.id());
    while fs::read_link(&exe).unwrap() != plain {
        std::thread::yield_now();
    }
    refuses(on_pid(child.id()).args(["--polls", "exact"]), &session, 1, "no tokio program");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Its threads are recorded without tokio: here, and in an interpreter that has it in a library.
#[test]
fn a_program_without_tokio_is_recorded_by_its_threads() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    let source = dir.path().join("plain.rs");
    let code = "fn burn() { let end = std::time::Instant::now(); while end.elapsed().as_millis() < 20 {} }
        fn main() { println!(\"running\"); loop { burn(); std::thread::sleep(std::time::Duration::from_millis(20)) } }";
    fs::write(&source, code).unwrap();
    let plain = dir.path().join("plain");
    assert!(Command::new("rustc").arg(&source).arg("-o").arg(&plain).status().unwrap().success());
    let target = Target::start(&plain, &[]);
    let recording = record(target.pid(), &session, &["--duration", "2"]);
    target.stop();
    let notes = recording.manifest.notes.join("\n");
    assert!(notes.contains("no tokio found"), "{notes}");
    let [samples, off_cpu] = [Table::Samples, Table::OffCpu].map(|table| recording.rows(table).num_rows());
    assert!(samples > 0 && off_cpu > 20, "{samples} samples, {off_cpu} off-CPU intervals");
    assert_eq!(recording.rows(Table::Polls).num_rows(), 0);
    verify(&session);
    let hotspots = analyze(&["hotspots"], &session);
    assert!(hotspots.to_string().contains("plain::burn"), "{hotspots}");
}

#[test]
fn a_binary_that_is_none_or_32_bit_or_another_build() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    let target = Target::start(&program("test-async-app"), &[]);
    let given = |bytes: &[u8]| {
        let path = dir.path().join("given");
        fs::write(&path, bytes).unwrap();
        path
    };
    let with = |path: &Path| {
        let mut command = on_pid(target.pid());
        command.arg("--target").arg(path);
        command
    };
    refuses(&mut with(Path::new("/no/such/file")), &session, 1, "cannot read the binary /no/such/file");
    refuses(&mut with(&given(b"#!/bin/sh\n")), &session, 1, "not an ELF binary");
    refuses(&mut with(&given(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0")), &session, 1, "a 32-bit binary");
    refuses(&mut with(&given(b"\x7fELF\x02\x01\x01\0garbage")), &session, 1, "a damaged ELF binary");
    refuses(&mut with(Path::new("/bin/sleep")), &session, 1, "is not the build that pid");
}

/// The kernel does not probe an instruction with a `lock` prefix, and refuses all places of a link because of one.
#[test]
fn places_that_cannot_be_probed_are_left_out() {
    const BAD: usize = 3;
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = program("test-async-app");
    let bytes = fs::read(&program).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let code = elf.section_by_name(".text").unwrap();
    // `lock xadd` and `lock cmpxchg` of 64 bits.
    let is_locked = |code: &[u8]| matches!(code, [0xf0, 0x48, 0x0f, 0xb1 | 0xc1]);
    let locked = code.data().unwrap().windows(4).enumerate().filter(|(_, code)| is_locked(code)).map(|(at, _)| at);
    let mut objcopy = Command::new("objcopy");
    for (index, at) in locked.step_by(7).take(BAD).enumerate() {
        let name = format!("_ZN5tokio7runtime4task3raw4poll17h{index:016x}E");
        objcopy.arg("--add-symbol").arg(format!("{name}=.text:{at:#x},function,local"));
    }
    let changed = dir.path().join("changed");
    assert!(objcopy.arg(&program).arg(&changed).status().unwrap().success());
    let target = Target::start(&changed, &[]);
    let recording = record(target.pid(), &dir.path().join("s"), &["--duration", "2", "--polls", "exact"]);
    let notes = recording.manifest.notes.join("\n");
    assert!(notes.contains(&format!("{BAD} of ")) && notes.contains("cannot be probed"), "{notes}");
    // The other places can be probed.
    assert!(recording.rows(Table::Polls).num_rows() > 100);
    target.stop();
}

#[test]
fn a_session_folder_that_exists_or_cannot_be_written() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    refuses(&mut on_pid(target.pid()), dir.path(), 1, "exists already");
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    refuses(&mut on_pid(target.pid()), &file, 1, "exists already");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    refuses(&mut on_pid(target.pid()), &file.join("s"), 1, "file");
    refuses(&mut on_pid(target.pid()), Path::new("/proc/s"), 1, "create /proc/s");
}

#[test]
fn without_privilege() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("s");
    let mut target = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let as_nobody = |pid: u32| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_hud-record")])
            .args(["--headless", "--pid", &pid.to_string()])
            .stdin(Stdio::null());
        command
    };
    // The test's build folder may be unreadable for others.
    if Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_hud-record"), "--version"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        refuses(&mut as_nobody(target.id()), &session, 77, "no permission to inspect pid");
    } else {
        eprintln!("skipped in part: another user may not run {}", env!("CARGO_BIN_EXE_hud-record"));
    }
    target.kill().unwrap();
    target.wait().unwrap();

    // Root in name only: the process may be inspected, eBPF may not be used.
    let target = Target::start(&program("test-async-app"), &[]);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_hud-record")])
        .args(["--headless", "--pid", &target.pid().to_string()])
        .stdin(Stdio::null());
    refuses(&mut command, &session, 77, "");
}

#[test]
fn usage_errors_are_exit_code_2() {
    for arguments in [&["--freq", "-1"][..], &["--no-such-flag"], &["--pid", "x"], &["--roll-age", "soon"]] {
        let output = hud_record().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// `hud` passes commands on sessions to the hud-analyze beside it, with all arguments.
#[test]
fn passes_replay_to_hud_analyze() {
    let dir = tempfile::tempdir().unwrap();
    let (hud, analyze) = (dir.path().join("hud"), dir.path().join("hud-analyze"));
    fs::copy(env!("CARGO_BIN_EXE_hud"), &hud).unwrap();
    for (arguments, expected) in [
        (&["--replay", "/tmp/x"][..], "replay /tmp/x\n"),
        (&["replay", "/tmp/x", "/tmp/y", "--at", "-10s"], "replay /tmp/x /tmp/y --at -10s\n"),
        (&["screenshot", "/tmp/x", "--size", "80x24"], "screenshot /tmp/x --size 80x24\n"),
    ] {
        fs::write(&analyze, "#!/bin/sh\necho \"$@\"\n").unwrap();
        fs::set_permissions(&analyze, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let output = Command::new(&hud).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
        fs::remove_file(&analyze).unwrap();
    }
}
