//! The cockpit in a real terminal (a pty): it restores the terminal on every exit, and sends nothing without a change.
//!
//! The cockpit runs in a child process: this test binary, at [`child`].

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hud_cockpit::{
    Mode, Query, Snapshot, Source, SourceError,
    ui::{Options, run},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode as FileMode, OFlags},
    process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

#[allow(dead_code, reason = "the other test file uses all of it")]
#[path = "cockpit_ui/fixture.rs"]
mod fixture;

const ROLE: &str = "HUD_COCKPIT_CHILD";
const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";
const FRAME: &str = "\x1b[?2026h";
const PATIENCE: Duration = Duration::from_secs(60);

/// The source of the child.
struct Still {
    role: String,
    waits: u32,
    asked: u32,
}

impl Source for Still {
    fn wait(&mut self, _: Duration) -> Result<bool, SourceError> {
        self.waits += 1;
        if self.role == "calm" && self.waits == 30 {
            kill_process(getpid(), Signal::TERM).unwrap();
        }
        Ok(self.role == "panic" && self.waits == 5)
    }

    fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError> {
        self.asked += 1;
        assert!(self.role != "panic" || self.asked == 1, "the source gave up");
        let mut snapshot = fixture::rich(fixture::hostile);
        snapshot.mode = Mode::Replay;
        snapshot.at = query.at.unwrap_or(fixture::AT);
        Ok(snapshot)
    }

    fn range(&self) -> (i64, i64) {
        (fixture::START, fixture::AT)
    }
}

/// Not a test: the other tests start it.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let exit = run(Still { role, waits: 0, asked: 0 }, Options::default()).unwrap();
    println!("left by {exit:?}");
}

/// A terminal with a cockpit in it.
struct Pty {
    master: File,
    terminal: OwnedFd,
    child: Child,
    seen: String,
}

impl Pty {
    fn start(role: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, FileMode::empty()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env("TERM", "xterm-256color")
            .env("RUST_BACKTRACE", "0")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        Pty { master: File::from(master), terminal, child, seen: String::new() }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until a text has appeared a number of times.
    fn until(&mut self, wanted: &str, times: usize) {
        let began = Instant::now();
        while self.seen.matches(wanted).count() < times {
            assert!(began.elapsed() < PATIENCE, "no {wanted:?} for the {times}th time in {:?}", self.seen);
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap() == 0 {
                continue;
            }
            let mut bytes = [0; 65_536];
            let n = self.master.read(&mut bytes).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(self.terminal.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// After the end: the terminal is restored, and the child's last output is on the shell's screen.
    fn check_given_back(&mut self, words: &str) {
        self.until("test result", 1);
        self.child.wait().unwrap();
        assert!(!self.is_raw());
        let (entered, left) = (self.seen.matches(ENTERED).count(), self.seen.matches(LEFT).count());
        assert_eq!(entered, left);
        let after = &self.seen[self.seen.rfind(LEFT).unwrap()..];
        assert!(after.contains(words), "{after:?}");
        for off in ["\x1b[?25h", "\x1b[?2004l"] {
            assert!(
                after.contains(off) || self.seen.rfind(off) > self.seen.rfind(ENTERED),
                "{off:?} in {:?}",
                self.seen
            );
        }
        assert!(self.seen.rfind("\x1b[?1000l") > self.seen.rfind("\x1b[?1000h"), "the mouse is released");
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn quitting_restores_the_terminal() {
    let mut pty = Pty::start("quit");
    pty.until("WARNING", 1);
    assert!(pty.is_raw());
    pty.type_in("2");
    pty.until("by function", 1);
    pty.type_in("q");
    pty.check_given_back("left by Quit");
}

#[test]
fn a_signal_restores_the_terminal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut pty = Pty::start("signal");
        pty.until("WARNING", 1);
        kill_process(pty.pid(), signal).unwrap();
        pty.check_given_back(&format!("left by Signal({})", signal.as_raw()));
    }
}

#[test]
fn a_panic_restores_the_terminal_and_is_printed() {
    let mut pty = Pty::start("panic");
    pty.check_given_back("the source gave up");
}

#[test]
fn suspending_restores_the_terminal_until_the_process_continues() {
    let mut pty = Pty::start("suspend");
    pty.until("WARNING", 1);
    for (times, by_signal) in [(1, false), (2, true)] {
        if by_signal {
            kill_process(pty.pid(), Signal::TSTP).unwrap();
        } else {
            pty.type_in("\x1a");
        }
        let (_, status) = waitpid(Some(pty.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        pty.until(LEFT, times);
        assert!(!pty.is_raw());
        kill_process(pty.pid(), Signal::CONT).unwrap();
        pty.until(ENTERED, times + 1);
        pty.until("WARNING", times + 1);
        assert!(pty.is_raw());
    }
    pty.type_in("q");
    pty.check_given_back("left by Quit");
}

#[test]
fn resizing_redraws() {
    let mut pty = Pty::start("quit");
    pty.until("WARNING", 1);
    tcsetwinsize(&pty.terminal, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    kill_process(pty.pid(), Signal::WINCH).unwrap();
    pty.until("overview", 1);
    pty.type_in("q");
    pty.check_given_back("left by Quit");
}

#[test]
fn sends_nothing_without_a_change() {
    let mut pty = Pty::start("calm");
    pty.check_given_back("left by Signal(15)");
    assert_eq!(pty.seen.matches(FRAME).count(), 1, "one frame in thirty waits");
}
