//! A program in a terminal: a pty whose output is interpreted and answered as by a terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
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

/// Timeout of a test for expected output.
const PATIENCE: Duration = Duration::from_secs(60);
/// The query of the cursor's position.
const POSITION: &[u8] = b"\x1b[6n";

/// A program in a terminal; killed when dropped.
#[allow(missing_debug_implementations, reason = "the parser has none")]
pub struct Terminal {
    master: File,
    terminal: OwnedFd,
    child: Child,
    parser: vt100::Parser,
    unread: Vec<u8>,
    /// All output so far.
    pub raw: Vec<u8>,
}

impl Terminal {
    /// Starts a program as the leader of a new terminal's session.
    pub fn start(mut command: Command, (columns, rows): (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let stdio = || Stdio::from(terminal.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // Only the processes of a controlling terminal receive its signals, such as that of Ctrl-C.
        let take_terminal = || {
            setsid()?;
            ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        };
        // SAFETY: two system calls, which are allowed between fork and exec.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().unwrap();
        let parser = vt100::Parser::new(rows, columns, 0);
        let master = File::from(master);
        let mut started = Terminal { master, terminal, child, parser, unread: Vec::new(), raw: Vec::new() };
        started.resize((columns, rows));
        started
    }

    /// The program's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends keys as the terminal encodes them.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// The screen.
    pub fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// The screen's text.
    pub fn text(&self) -> String {
        self.screen().contents()
    }

    /// The cursor's line.
    pub fn line(&self) -> String {
        let (row, _) = self.screen().cursor_position();
        let mut rows = self.screen().rows(0, self.screen().size().1);
        rows.nth(usize::from(row)).unwrap_or_default().trim_end().to_owned()
    }

    /// The text in reverse video.
    pub fn reversed(&self) -> String {
        let (rows, columns) = self.screen().size();
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let cells = cells.filter_map(|(row, column)| self.screen().cell(row, column));
        cells.filter(|cell| cell.inverse()).map(vt100::Cell::contents).collect()
    }

    /// Waits until this is true of the terminal.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Terminal) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "waited a minute for {what}:\n{}\n{:?}", self.text(), self.line());
            self.read(Duration::from_millis(50));
        }
    }

    /// Waits until the screen contains this text.
    pub fn until_shown(&mut self, text: &str) {
        self.until(&format!("{text:?}"), |terminal| terminal.text().contains(text));
    }

    /// Changes the size.
    pub fn resize(&mut self, (columns, rows): (u16, u16)) {
        tcsetwinsize(&self.terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        self.parser.screen_mut().set_size(rows, columns);
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Closes the terminal's other end, as a closed window or a lost connection does.
    pub fn hang_up(&mut self) {
        self.master = File::open("/dev/null").unwrap();
    }

    /// Whether the terminal passes on keys as they come, without an echo.
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the program's end, and reads the rest of its output.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read(Duration::from_millis(50)) {}
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "waited a minute for its end:\n{}", self.text());
            self.read(Duration::from_millis(50));
        }
    }

    /// Reads available output, or waits for it at most this long. Returns whether there was any.
    pub fn read(&mut self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 65_536];
        // Reading from a terminal without processes fails.
        let Ok(n) = self.master.read(&mut bytes) else { return false };
        let bytes = bytes.get(..n).unwrap_or_default();
        self.raw.extend_from_slice(bytes);
        self.unread.extend_from_slice(bytes);
        self.interpret();
        n > 0
    }

    /// Applies new output to the screen, and answers queries of the cursor's position.
    fn interpret(&mut self) {
        while let Some(at) = self.unread.windows(POSITION.len()).position(|bytes| bytes == POSITION) {
            let rest = self.unread.split_off(at + POSITION.len());
            self.unread.truncate(at);
            self.parser.process(&self.unread);
            self.unread = rest;
            let (row, column) = self.screen().cursor_position();
            self.press(&format!("\x1b[{};{}R", row + 1, column + 1));
        }
        // The end may be the first part of a query.
        let is_part = |n: &usize| POSITION.get(..*n).is_some_and(|part| self.unread.ends_with(part));
        let kept = (1..POSITION.len()).rev().find(is_part).unwrap_or(0);
        let rest = self.unread.split_off(self.unread.len() - kept);
        self.parser.process(&self.unread);
        self.unread = rest;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
