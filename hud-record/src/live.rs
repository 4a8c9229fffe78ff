//! The live cockpit: a recorder in a process of its own, and a screen that follows its session.
//!
//! The recorder is this same program, headless. So a stopped, slow or killed screen costs the recording nothing, and it
//! shows what any reader of the session sees. The recorder keeps the rights that it needs; the screen gives up all of
//! them before it reads a byte of the session. It then cannot signal the recorder, so it ends it by closing a pipe, as
//! its own death would.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hud_common::cockpit::ui::{self, LookArgs};

use crate::{
    attach::{LineFormat, Lines},
    error::{Error, Result},
    privilege,
    tail::{Settings, Tailer},
};

/// How long the recorder may take to begin its session.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the recorder's messages that are kept.
const MOST_MESSAGES: usize = 64 << 10;

/// Records in a child process and shows its session until the user quits.
pub(crate) fn run(arguments: Vec<OsString>, session: &Path, no_tui: bool, look: &LookArgs) -> Result<()> {
    let mut recorder = Recorder::start(arguments)?;
    let mut tailer = match recorder.until_session(session) {
        Some(tailer) => tailer,
        // Its messages are the error.
        None => return recorder.end(),
    };
    if no_tui || !std::io::stdout().is_terminal() {
        Lines { look: look.clone(), every: Duration::from_secs(1), format: LineFormat::Text }.print(&mut tailer)?;
        return recorder.end();
    }
    let shown = ui::run(tailer, look.options());
    eprintln!("closing {}", session.display());
    let ended = recorder.end();
    shown.map_err(|e| Error::Unavailable(e.to_string()))?;
    ended?;
    // As headless: prints the session's path.
    let _ = writeln!(std::io::stdout(), "{}", session.display());
    Ok(())
}

/// The running recorder. Ends in order when dropped, or when this process exits.
struct Recorder {
    child: Child,
    /// Its standard input: closing it ends the recorder.
    stdin: Option<ChildStdin>,
    /// Its standard error, until a thread reads it.
    stderr: Option<ChildStderr>,
    messages: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Recorder {
    fn start(arguments: Vec<OsString>) -> Result<Self> {
        let failed = |source| Error::Io { action: "start the recorder", source };
        let mut command = Command::new("/proc/self/exe");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C and Ctrl-Z at the terminal are for the screen.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        Ok(Recorder { child, stdin, stderr, messages: Arc::default(), listener: None })
    }

    /// Reads its messages. Until this process has given up its rights they stay in the pipe: the C library changes the
    /// user of all threads at once, and aborts if one of them has given up its own already.
    fn listen(&mut self) {
        let Some(from) = self.stderr.take() else { return };
        let to = Arc::clone(&self.messages);
        let listen = move || {
            privilege::enter_unprivileged();
            for line in BufReader::new(from).lines().map_while(std::result::Result::ok) {
                let mut messages = to.lock().unwrap_or_else(PoisonError::into_inner);
                if messages.len() < MOST_MESSAGES {
                    messages.push_str(&line);
                    messages.push('\n');
                }
            }
        };
        // Without the thread the recorder would stop at a full pipe; it writes a few lines in all.
        self.listener = thread::Builder::new().name("hud-listener".into()).spawn(listen).ok();
    }

    /// Waits until there is a session, and gives up all rights but those to read it; `None` if the recorder ends
    /// without one.
    fn until_session(&mut self, session: &Path) -> Option<Tailer> {
        let began = Instant::now();
        let mut is_viewer = false;
        while began.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            // As root, only its existence is checked.
            if !is_viewer && session.join("manifest.json").exists() {
                privilege::enter_viewer(session);
                self.listen();
                is_viewer = true;
            }
            if is_viewer && let Ok(tailer) = Tailer::open(session, Settings::default()) {
                return Some(tailer);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Ends the recorder, which closes the session, and prints its messages.
    fn end(mut self) -> Result<()> {
        let status = self.finish().map_err(|source| Error::Io { action: "wait for the recorder", source })?;
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut err = std::io::stderr();
        // If stderr is closed, the exit code still reports it.
        let _ = err.write_all(messages.as_bytes());
        if status.success() { Ok(()) } else { Err(Error::Recorder(status.code().and_then(|c| u8::try_from(c).ok()))) }
    }

    fn finish(&mut self) -> std::io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.listen();
        let status = self.child.wait()?;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        Ok(status)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}
