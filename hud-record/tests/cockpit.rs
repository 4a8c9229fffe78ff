//! `hud NAME` as a user runs it: in a terminal (a pty whose screen is read as a terminal would), under a shell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hud_common::session::Manifest;
use hud_testkit::Terminal;
use rustix::process::Signal;
use support::{Recording, Target, may_trace, program, signal_process, text, until, verify};

/// Starts a program in a terminal of this size.
fn start(mut command: Command, size: (u16, u16)) -> Terminal {
    command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env("HUD_CACHE_DIR", "");
    Terminal::start(command, size)
}

/// The position of a text, from 0.
fn find(terminal: &Terminal, wanted: &str) -> (usize, usize) {
    let screen = terminal.text();
    let found = screen.lines().enumerate().find_map(|(row, line)| Some((row, line.find(wanted)?, line)));
    let (row, at, line) = found.unwrap_or_else(|| panic!("no {wanted:?} in\n{screen}"));
    (line[..at].chars().count(), row)
}

fn hud(target: &Target, session: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud"));
    command.args(["--pid", &target.pid().to_string(), "--export"]).arg(session).args(more);
    command
}

/// Whether a session was closed in order.
fn is_complete(session: &Path) -> bool {
    Manifest::read(session).is_ok_and(|manifest| manifest.complete)
}

#[test]
fn both_culprits_are_seen_and_q_leaves_a_whole_session() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let target = Target::start(&program("test-async-app"), &[]);
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ");
    let mut terminal = start(shell, (160, 40));
    let hud = env!("CARGO_BIN_EXE_hud");
    terminal.press(&format!("{hud} --pid {} --export {}\n", target.pid(), session.display()));
    terminal.until("a screen", |t| t.screen().alternate_screen());
    let began = Instant::now();
    terminal.until("both culprits", |t| {
        let screen = t.text();
        screen.contains("cpu_hog") && screen.contains("blocking_sleeper")
    });
    println!("both culprits {:?} after the first frame", began.elapsed());
    terminal.until("a status", |t| {
        let first = t.text().lines().next().unwrap_or_default().to_string();
        first.contains("WARNING") || first.contains("CAUTION")
    });

    terminal.press("2");
    terminal.until_shown("by file:line");
    terminal.press("?");
    terminal.until_shown("KEYS");
    terminal.press("\x1b");
    terminal.until("no help", |t| !t.text().contains("KEYS"));
    terminal.press("4/hog\r");
    terminal.until("the tasks that pass the filter", |t| {
        let screen = t.text();
        screen.contains("cpu_hog") && screen.contains("filter hog") && !screen.contains("blocking_sleeper")
    });
    // Enter: the tasks of the type, then a task.
    terminal.press("\r");
    terminal.until_shown("written at");
    terminal.press("\r");
    terminal.until_shown("LAST POLLS");
    // Backspace, then the filter is cleared.
    terminal.press("\x7f");
    terminal.until("the tasks again", |t| t.text().contains("each task") && t.text().contains("Esc clears it"));
    terminal.press("\x1b");
    terminal.until("no filter", |t| !t.text().contains("Esc clears it"));
    terminal.resize((80, 24));
    terminal.until_shown("0 sess");
    let (column, row) = find(&terminal, "3 block");
    terminal.press(&format!("\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m", x = column + 1, y = row + 1));
    terminal.until_shown("newest");
    terminal.until_shown("blocking_sleeper");

    terminal.press("\x1a");
    terminal.until("the shell", |t| !t.screen().alternate_screen());
    terminal.press("echo at the $((6 * 7))\n");
    terminal.until_shown("at the 42");
    terminal.press("fg\n");
    terminal.until("the screen again", |t| t.screen().alternate_screen());
    terminal.until_shown("LIVE");
    terminal.press("q");
    terminal.until("the shell's screen", |t| !t.screen().alternate_screen());
    terminal.press("echo left by $?\n");
    terminal.until_shown("left by 0");
    assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
    assert!(terminal.text().replace('\n', "").contains(session.to_str().unwrap()), "{}", terminal.text());
    target.stop();
    Recording::open(&session);
    verify(&session);
}

/// However the screen ends, the recorder closes the session.
#[test]
fn a_screen_that_is_killed_leaves_a_whole_session() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    for signal in [Signal::TERM, Signal::KILL] {
        let session = dir.path().join(format!("{}", signal.as_raw()));
        let mut terminal = start(hud(&target, &session, &[]), (80, 24));
        terminal.until_shown("LIVE");
        terminal.signal(signal);
        if signal == Signal::TERM {
            terminal.until("the shell's screen", |t| !t.screen().alternate_screen());
        }
        until("the session's end", || {
            terminal.read(Duration::from_millis(1));
            is_complete(&session)
        });
        verify(&session);
    }
}

/// Processes that were started for this session and still run.
fn processes_of(session: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
        command.contains(session.to_str()?).then(|| command.replace('\0', " "))
    });
    processes.collect()
}

/// Reading from a closed terminal never waits, and the signal of its end does not reach every process.
#[test]
fn a_lost_terminal_ends_hud_in_order() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    // As the leader of the terminal's session, which gets SIGHUP; and below one that ignores it and stays.
    for is_leader in [true, false] {
        let session = dir.path().join(is_leader.to_string());
        let hud = hud(&target, &session, &[]);
        let command = if is_leader {
            hud
        } else {
            let mut shell = Command::new("bash");
            shell.args(["-c", "trap '' HUP; \"$@\"; sleep 60", "bash"]).arg(hud.get_program()).args(hud.get_args());
            shell
        };
        let mut terminal = start(command, (80, 24));
        terminal.until_shown("LIVE");
        terminal.hang_up();
        let began = Instant::now();
        until("the session's end", || is_complete(&session));
        // The shell has the session's path in its arguments, too.
        let is_gone = || processes_of(&session).iter().all(|command| command.starts_with("bash"));
        until("hud's end", is_gone);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        verify(&session);
    }
}

/// A field of a process's status.
fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cockpit parses data that comes in part from the program: it does so without any right, and the recorder keeps
/// its own.
#[test]
fn the_cockpit_has_no_rights() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    // As root itself, and as root for a user.
    for user in [0, 65_534] {
        let home = dir.path().join(user.to_string());
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(user), Some(user)).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(user), Some(user)).unwrap();
        let session = home.join("session");
        let mut command = hud(&target, &session, &["--no-tui"]);
        command.env("SUDO_UID", user.to_string()).env("SUDO_GID", user.to_string()).env("HUD_CACHE_DIR", "");
        let mut cockpit = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 1];
        // After the first byte of its first line it reads the session.
        cockpit.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        let pid = cockpit.id();
        assert_eq!(status(pid, "Uid"), vec![user.to_string(); 4].join(" "));
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let task: u32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
            for set in ["CapEff", "CapPrm", "CapAmb"] {
                assert_eq!(status(task, set), "0000000000000000", "{set} of thread {task}");
            }
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let recorder: u32 = children.split_whitespace().next().expect("a recorder").parse().unwrap();
        assert_ne!(status(recorder, "CapEff"), "0000000000000000", "the recorder keeps what it needs");
        signal_process(pid, Signal::TERM);
        let output = cockpit.wait_with_output().unwrap();
        until("the session's end", || is_complete(&session));
        verify(&session);
        assert!(text(&output.stdout).contains("polls/s"), "{}", text(&output.stdout));
    }
}
