//! The example shell, where the tests find it, and a terminal to run it in.

#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests, not all of which each test uses")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use tempfile::TempDir;

/// Timeout of a test for expected output.
const PATIENCE: Duration = Duration::from_secs(60);
/// The query with which a program asks a terminal for its cursor.
const WHERE: &[u8] = b"\x1b[6n";

/// The example, without an environment that changes what it does.
pub(crate) fn planets(home: &TempDir) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/planets");
    assert!(program.exists(), "it is not built: cargo build -p hud-shell --examples");
    let mut command = Command::new(program);
    for name in ["PAGER", "LESS", "VISUAL", "EDITOR", "NO_COLOR", "HUD_HISTORY"] {
        command.env_remove(name);
    }
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state")).env("TERM", "xterm-256color");
    command
}

/// A terminal with the example in it.
pub(crate) struct Terminal {
    master: File,
    terminal: OwnedFd,
    child: Child,
    parser: vt100::Parser,
    unread: Vec<u8>,
    /// All output so far, unprocessed.
    pub(crate) raw: Vec<u8>,
    _home: Option<TempDir>,
}

impl Terminal {
    /// 24 rows of 80 columns, and a home of its own.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut started = Terminal::start_in(&home, variables);
        started._home = Some(home);
        started.prompt();
        started
    }

    pub(crate) fn start_in(home: &TempDir, variables: &[(&str, &str)]) -> Self {
        let mut command = planets(home);
        command.envs(variables.iter().copied()).current_dir(home.path());
        Terminal::run(command)
    }

    pub(crate) fn run(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path: PathBuf =
            std::ffi::OsString::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap()).into();
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: between fork and exec only two system calls are made, both of which are async-signal-safe; nothing is
        // allocated, no lock is taken.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                // Ctrl-C becomes a signal, and a change of size too, only for a process whose controlling terminal it
                // is.
                ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let parser = vt100::Parser::new(24, 80, 1000);
        Terminal { master: File::from(master), terminal, child, parser, unread: vec![], raw: vec![], _home: None }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// The line that the cursor is in.
    pub(crate) fn line(&self) -> String {
        let screen = self.parser.screen();
        let (row, _) = screen.cursor_position();
        screen.rows(0, screen.size().1).nth(usize::from(row)).unwrap_or_default().trim_end().to_owned()
    }

    /// Reversed text: the chosen entry of a menu.
    pub(crate) fn chosen(&self) -> String {
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let cells = cells.filter_map(|(row, column)| screen.cell(row, column));
        cells.filter(|cell| cell.inverse()).map(|cell| cell.contents()).collect()
    }

    /// Waits until the screen is as it should be.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Terminal) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "{what} never came:\n{}\n{:?}", self.screen(), self.line());
            self.read();
        }
    }

    pub(crate) fn shows(&mut self, text: &str) {
        self.until(text, |terminal| terminal.screen().contains(text));
    }

    /// Waits for a prompt with nothing behind it.
    pub(crate) fn prompt(&mut self) {
        self.until("the prompt", |terminal| {
            terminal.line() == "hud>" && terminal.parser.screen().cursor_position().1 == 5
        });
    }

    /// Types a line once the prompt is there, and waits for the next prompt.
    pub(crate) fn enter(&mut self, text: &str) {
        self.submit(text);
        self.prompt();
    }

    /// Types a line and Enter.
    pub(crate) fn submit(&mut self, text: &str) {
        self.type_in(text);
        let last = text.to_owned();
        self.until(&format!("the echo of {text}"), |terminal| terminal.line().contains(&last));
        self.type_in("\r");
    }

    /// Gives it another size.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        self.parser.screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for its end; the terminal is as it was then.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read() {}
                assert!(!self.is_raw(), "the terminal was not given back");
                assert!(!self.parser.screen().bracketed_paste(), "pastes are still bracketed");
                assert!(!self.parser.screen().hide_cursor(), "the cursor is hidden");
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.screen());
            self.read();
        }
    }

    /// Reads what there is, or waits a moment for it. Whether there was any.
    fn read(&mut self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 65_536];
        // The system ends a terminal that nobody holds by an error.
        let Ok(n) = self.master.read(&mut bytes) else { return false };
        self.raw.extend_from_slice(&bytes[..n]);
        self.unread.extend_from_slice(&bytes[..n]);
        self.show();
        n > 0
    }

    /// Puts new output on the screen, and answers queries for the cursor's position, as a terminal does.
    fn show(&mut self) {
        while let Some(at) = self.unread.windows(WHERE.len()).position(|bytes| bytes == WHERE) {
            self.parser.process(&self.unread[..at]);
            self.unread.drain(..at + WHERE.len());
            let (row, column) = self.parser.screen().cursor_position();
            self.master.write_all(format!("\x1b[{};{}R", row + 1, column + 1).as_bytes()).unwrap();
        }
        // The question may have come by half.
        let kept = (1..WHERE.len()).rev().find(|n| self.unread.ends_with(&WHERE[..*n])).unwrap_or(0);
        let now = self.unread.len() - kept;
        self.parser.process(&self.unread[..now]);
        self.unread.drain(..now);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
