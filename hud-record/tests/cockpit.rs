//! `hud NAME` as a user runs it: in a terminal (a pty whose screen is read as a terminal would), under a shell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hud_common::session::Manifest;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use support::{Recording, Target, may_trace, program, signal_process, text, until, verify};

const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program in it.
struct Terminal {
    master: fs::File,
    child: Child,
    parser: vt100::Parser,
}

impl Terminal {
    fn start(mut command: Command, (columns, rows): (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env("HUD_CACHE_DIR", "");
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let take_terminal = || {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        };
        // SAFETY: two system calls, which are allowed between fork and exec.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().unwrap();
        let mut terminal = Terminal { master: master.into(), child, parser: vt100::Parser::new(rows, columns, 0) };
        terminal.resize((columns, rows));
        terminal
    }

    fn resize(&mut self, (columns, rows): (u16, u16)) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        self.parser.screen_mut().set_size(rows, columns);
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// The position of a text, from 0.
    fn find(&self, wanted: &str) -> (usize, usize) {
        let screen = self.screen();
        let found = screen.lines().enumerate().find_map(|(row, line)| Some((row, line.find(wanted)?, line)));
        let (row, at, line) = found.unwrap_or_else(|| panic!("no {wanted:?} in\n{screen}"));
        (line[..at].chars().count(), row)
    }

    /// Reads output for at most this long; returns whether there was any.
    fn listen(&mut self, most: Duration) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(most.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 65_536];
        // The terminal is closed.
        let Ok(n) = self.master.read(&mut bytes) else { return false };
        self.parser.process(&bytes[..n]);
        n > 0
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) {
        let began = Instant::now();
        while !is_so(self.parser.screen()) {
            assert!(began.elapsed() < PATIENCE, "waited a minute for {what}:\n{}", self.screen());
            self.listen(Duration::from_millis(100));
        }
    }

    fn until_shown(&mut self, wanted: &str) {
        self.until(&format!("{wanted:?}"), |screen| screen.contents().contains(wanted));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
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
    let mut terminal = Terminal::start(shell, (160, 40));
    let hud = env!("CARGO_BIN_EXE_hud");
    terminal.press(&format!("{hud} --pid {} --export {}\n", target.pid(), session.display()));
    terminal.until("a screen", vt100::Screen::alternate_screen);
    let began = Instant::now();
    terminal.until("both culprits", |screen| {
        let screen = screen.contents();
        screen.contains("cpu_hog") && screen.contains("blocking_sleeper")
    });
    println!("both culprits {:?} after the first frame", began.elapsed());
    terminal.until("a status", |screen| {
        let first = screen.contents().lines().next().unwrap_or_default().to_string();
        first.contains("WARNING") || first.contains("CAUTION")
    });

    terminal.press("2");
    terminal.until_shown("by file:line");
    terminal.press("?");
    terminal.until_shown("KEYS");
    terminal.press("\x1b");
    terminal.until("no help", |screen| !screen.contents().contains("KEYS"));
    terminal.press("4/hog\r");
    terminal.until("the tasks that pass the filter", |screen| {
        let screen = screen.contents();
        screen.contains("cpu_hog") && screen.contains("filter hog") && !screen.contains("blocking_sleeper")
    });
    terminal.press("\r");
    terminal.until_shown("LAST POLLS");
    // Backspace, then the filter is cleared.
    terminal.press("\x7f\x1b");
    terminal.until_shown("blocking_sleeper");
    terminal.resize((80, 24));
    terminal.until_shown("0 sess");
    let (column, row) = terminal.find("3 block");
    terminal.press(&format!("\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m", x = column + 1, y = row + 1));
    terminal.until_shown("newest");

    terminal.press("\x1a");
    terminal.until("the shell", |screen| !screen.alternate_screen());
    terminal.press("echo at the $((6 * 7))\n");
    terminal.until_shown("at the 42");
    terminal.press("fg\n");
    terminal.until("the screen again", vt100::Screen::alternate_screen);
    terminal.until_shown("LIVE");
    terminal.press("q");
    terminal.until("the shell's screen", |screen| !screen.alternate_screen());
    terminal.press("echo left by $?\n");
    terminal.until_shown("left by 0");
    assert!(!terminal.parser.screen().alternate_screen() && !terminal.parser.screen().hide_cursor());
    assert!(terminal.screen().replace('\n', "").contains(session.to_str().unwrap()), "{}", terminal.screen());
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
        let mut terminal = Terminal::start(hud(&target, &session, &[]), (80, 24));
        terminal.until_shown("LIVE");
        signal_process(terminal.child.id(), signal);
        if signal == Signal::TERM {
            terminal.until("the shell's screen", |screen| !screen.alternate_screen());
        }
        until("the session's end", || {
            terminal.listen(Duration::from_millis(1));
            is_complete(&session)
        });
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
