//! The live cockpit: a recorder in a process of its own, and a screen that follows its session.
//!
//! The recorder is this same program, headless. So a stopped, slow or killed screen costs the recording nothing, and it
//! shows what any reader of the session sees. The recorder keeps the rights that it needs; the screen gives up all of
//! them before it reads a byte of the session. It then cannot signal the recorder, so it ends it by closing a pipe, as
//! its own death would.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hud_common::cockpit::{
    Mode, Names, Query, SessionFacts, Snapshot, Source, SourceError, View,
    ui::{self, Exit, LookArgs},
};

use crate::{
    attach::{LineFormat, Lines},
    error::{Error, Result},
    privilege,
    tail::{Settings, Tailer},
};

/// Time for which the screen waits for the session before it shows how the recorder starts: most start faster, and errors in
/// arguments are reported without a screen.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How long the recorder may take to begin its session.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the recorder's messages that are kept.
const MOST_MESSAGES: usize = 64 << 10;

/// Records in a child process and shows its session until the user quits.
pub(crate) fn run(arguments: Vec<OsString>, session: &Path, no_tui: bool, look: &LookArgs) -> Result<()> {
    let mut recorder = Recorder::start(arguments)?;
    let is_screen = !no_tui && std::io::stdout().is_terminal();
    let opened = match recorder.until_session(session, if is_screen { AT_ONCE } else { PATIENCE }) {
        State::Over => return recorder.end(),
        State::Starting if !is_screen => return recorder.end(),
        State::Starting => None,
        State::Open(tailer) => Some(tailer),
    };
    if !is_screen {
        let Some(mut tailer) = opened else { return recorder.end() };
        Lines { look: look.clone(), every: Duration::from_secs(1), format: LineFormat::Text }.print(&mut tailer)?;
        return recorder.end();
    }
    let began = Instant::now();
    let source = Starting { recorder: &mut recorder, session, began, tailer: opened, is_over: false };
    let shown = ui::run(source, look.options());
    if matches!(shown, Ok(Exit::Over)) {
        // Its messages are the error.
        return recorder.end();
    }
    eprintln!("closing {}", session.display());
    let ended = recorder.end();
    shown.map_err(|e| Error::Unavailable(e.to_string()))?;
    ended?;
    // As headless: prints the session's path.
    let _ = writeln!(std::io::stdout(), "{}", session.display());
    Ok(())
}

/// What the recorder has come to.
enum State {
    /// It has no session yet.
    Starting,
    /// Its session is open.
    Open(Box<Tailer>),
    /// It has ended without one: its messages are the error.
    Over,
}

/// The session of a recorder, and until there is one, what it does.
struct Starting<'a> {
    recorder: &'a mut Recorder,
    session: &'a Path,
    began: Instant,
    tailer: Option<Box<Tailer>>,
    is_over: bool,
}

impl Starting<'_> {
    fn snapshot(&self, query: &Query) -> Snapshot {
        let now = self.now();
        let since = now.saturating_sub(i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(0));
        let has_manifest = self.recorder.is_viewer;
        let steps = [
            ("the recorder has started", true),
            ("attaching: reading the program's symbols, and placing probes", has_manifest),
            ("opening the session", false),
            ("first data", false),
        ];
        let steps = steps.into_iter().map(|(step, is_done)| (step.into(), is_done)).collect();
        Snapshot::of(View {
            query,
            at: now,
            partials: &BTreeMap::new(),
            total: None,
            names: &mut Names::default(),
            detail: None,
            session: SessionFacts { start: since, ..SessionFacts::default() },
            mode: Mode::Starting { steps, since },
            coverage_until: None,
            read_from: None,
        })
    }

    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl Source for Starting<'_> {
    fn wait(&mut self, most: Duration) -> std::result::Result<bool, SourceError> {
        if let Some(tailer) = &mut self.tailer {
            return tailer.wait(most);
        }
        let left = PATIENCE.saturating_sub(self.began.elapsed());
        match self.recorder.until_session(self.session, most.min(left)) {
            State::Open(tailer) => self.tailer = Some(tailer),
            State::Starting if !left.is_zero() => return Ok(false),
            State::Starting | State::Over => self.is_over = true,
        }
        Ok(true)
    }

    fn snapshot(&mut self, query: &Query) -> std::result::Result<Snapshot, SourceError> {
        match &mut self.tailer {
            Some(tailer) => tailer.snapshot(query),
            None => Ok(Starting::snapshot(self, query)),
        }
    }

    fn range(&self) -> (i64, i64) {
        match &self.tailer {
            Some(tailer) => tailer.range(),
            None => (self.now(), self.now()),
        }
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The running recorder. Ends in order when dropped, or when this process exits.
struct Recorder {
    child: Child,
    /// Its standard input: closing it ends the recorder.
    stdin: Option<ChildStdin>,
    /// Its standard error, until a thread reads it.
    stderr: Option<ChildStderr>,
    messages: Arc<Mutex<String>>,
    /// Whether this process has given up its rights.
    is_viewer: bool,
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
        Ok(Recorder { child, stdin, stderr, messages: Arc::default(), is_viewer: false, listener: None })
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

    /// Waits until there is a session, at most this long, and gives up all rights but those to read it.
    fn until_session(&mut self, session: &Path, most: Duration) -> State {
        let began = Instant::now();
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return State::Over;
            }
            // As root, only its existence is checked.
            if !self.is_viewer && session.join("manifest.json").exists() {
                privilege::enter_viewer(session);
                self.listen();
                self.is_viewer = true;
            }
            if self.is_viewer
                && let Ok(tailer) = Tailer::open(session, Settings::default())
            {
                return State::Open(Box::new(tailer));
            }
            let left = most.saturating_sub(began.elapsed());
            if left.is_zero() {
                return State::Starting;
            }
            thread::sleep(left.min(Duration::from_millis(10)));
        }
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
