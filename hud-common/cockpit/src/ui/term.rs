//! The terminal: taken over, and restored on every exit.
//!
//! Raw mode, the alternate screen, the mouse and pasting are switched on by [`Term::enter`] and off when it is dropped, on a
//! panic of its thread, and while the process is suspended. The message of a panic in another thread is kept and
//! printed when the terminal is restored.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    panic::PanicHookInfo,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::ThreadId,
    time::Duration,
};

use crossterm::{
    cursor, event, execute, queue,
    style::Print,
    terminal::{
        BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode,
    },
};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::{
    SigId,
    consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP},
    flag, low_level,
};

/// Maximum columns and rows: a terminal may report any size.
const MOST: (u16, u16) = (1_000, 500);
/// Presses, releases, drags and the wheel, in the encoding without limits. Motion without a button is not requested: over ssh
/// it would cost bandwidth.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1002h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1002l\x1b[?1000l";
/// Maximum size of kept panic messages.
const MOST_WORDS: usize = 64 * 1024;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static WORDS: Mutex<String> = Mutex::new(String::new());

type Hook = Arc<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// The terminal, taken over.
pub(super) struct Term {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    has_mouse: bool,
    hook: Option<Hook>,
}

impl Term {
    /// Takes it over.
    pub(super) fn enter(has_mouse: bool) -> io::Result<Self> {
        let backend = CrosstermBackend::new(BufWriter::with_capacity(64 * 1024, io::stdout()));
        let viewport = Viewport::Fixed(size()?);
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport })?;
        let hook = hook(std::thread::current().id());
        // From here on, dropping it restores the terminal.
        let mut term = Term { terminal, has_mouse, hook: Some(hook) };
        term.take()?;
        Ok(term)
    }

    fn take(&mut self) -> io::Result<()> {
        IS_TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        let out = self.terminal.backend_mut();
        execute!(out, EnterAlternateScreen, cursor::Hide, event::EnableBracketedPaste)?;
        if self.has_mouse {
            execute!(out, Print(MOUSE_ON))?;
        }
        self.resize()
    }

    /// Fits the screen to the terminal. The next frame draws everything.
    pub(super) fn resize(&mut self) -> io::Result<()> {
        self.terminal.resize(size()?)
    }

    /// Draws a frame: the changed cells are sent as one update.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(draw)?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// Stops the process as Ctrl-Z does, and takes over the terminal again when it continues.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        low_level::emulate_default_handler(SIGTSTP)?;
        self.take()
    }

    /// Takes over the terminal again after another process stopped and continued this one: the shell had it meanwhile.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.take()
    }
}

/// Waits for input at most this long. False if the terminal is lost: reading from such a one never waits, and crossterm
/// would read for ever.
pub(super) fn wait(timeout: Duration) -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    // A signal ends the wait early, as that of a resized terminal must.
    let _ = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
    !fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

impl Drop for Term {
    fn drop(&mut self) {
        give_back();
        // The hook cannot be changed while this thread panics; it is harmless.
        if let Some(before) = self.hook.take().filter(|_| !std::thread::panicking()) {
            std::panic::set_hook(Box::new(move |info| before(info)));
        }
    }
}

/// Restores the terminal, once. Errors are ignored: it may be closed.
fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    drop(execute!(
        out,
        EndSynchronizedUpdate,
        Print(MOUSE_OFF),
        event::DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    ));
    drop(disable_raw_mode());
    if let Ok(mut words) = WORDS.lock() {
        drop(io::stderr().write_all(words.as_bytes()));
        words.clear();
    }
}

/// Installs a panic hook that calls the previous one. Returns the previous one.
fn hook(mine: ThreadId) -> Hook {
    let before: Hook = Arc::from(std::panic::take_hook());
    let next = Arc::clone(&before);
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == mine {
            give_back();
        } else if IS_TAKEN.load(Ordering::SeqCst) {
            // Written now, it would be drawn over by the next frame.
            if let Ok(mut words) = WORDS.lock()
                && words.len() < MOST_WORDS
            {
                words.push_str(&hud_files::clean(&format!("{info}")));
                words.push('\n');
            }
            return;
        }
        next(info);
    }));
    before
}

/// The terminal's size, within bounds.
fn size() -> io::Result<Rect> {
    let (columns, rows) = crossterm::terminal::size()?;
    Ok(Rect::new(0, 0, columns.min(MOST.0), rows.min(MOST.1)))
}

/// The signals that a cockpit handles, until it is dropped.
pub(super) struct Signals {
    end: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
    ids: Vec<SigId>,
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn heed() -> io::Result<Self> {
        let mut signals = Signals { end: Arc::default(), stop: Arc::default(), go_on: Arc::default(), ids: Vec::new() };
        let is_second = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            // In this order: the first signal finds the flag unset, and sets it. A second one ends the process, but for the
            // hang-up, which kernel and shell may both send.
            if signal != SIGHUP {
                signals.ids.push(flag::register_conditional_default(signal, Arc::clone(&is_second))?);
            }
            signals.ids.push(flag::register(signal, Arc::clone(&is_second))?);
            let number = usize::try_from(signal).unwrap_or(1);
            signals.ids.push(flag::register_usize(signal, Arc::clone(&signals.end), number)?);
        }
        signals.ids.push(flag::register(SIGTSTP, Arc::clone(&signals.stop))?);
        signals.ids.push(flag::register(SIGCONT, Arc::clone(&signals.go_on))?);
        Ok(signals)
    }

    /// The signal that ends the cockpit, if one arrived.
    pub(super) fn end(&self) -> Option<i32> {
        i32::try_from(self.end.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }

    /// Whether the process was asked to stop.
    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::SeqCst)
    }

    /// Whether the process was continued.
    pub(super) fn take_go_on(&self) -> bool {
        self.go_on.swap(false, Ordering::SeqCst)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}
