//! The event loop of a cockpit: the only place that uses the clock, the terminal and signals.

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use crossterm::event::{self, Event};
use signal_hook::consts::SIGHUP;

use crate::{Source, SourceError, TaskId, Thresholds, Tick};

use super::{
    panes::{Panes, Seat},
    state::{Input, Screen, State},
    term::{self, Signals, Term},
    theme::{Depth, Theme},
};

/// Minimum time between frames for new rows: ten per second.
const FRAME: Duration = Duration::from_millis(100);
/// Minimum time between frames for input.
const FRAME_OF_INPUT: Duration = Duration::from_millis(33);
/// Time before a frame at which new rows are read.
const LEAD: Duration = Duration::from_millis(6);
/// Maximum time of a wait for the source, and so the latency of keys.
const WAIT: Duration = Duration::from_millis(30);
/// Maximum time between frames of a live screen, which shows ages.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Maximum number of inputs handled before a frame.
const MOST_INPUTS: usize = 256;

/// Options of a cockpit.
#[derive(Debug)]
pub struct Options {
    /// A theme by name, of [`Theme::NAMES`]; `None` is the usual one.
    pub theme: Option<String>,
    /// Only ASCII characters, as with a locale that is not UTF-8.
    pub is_ascii: bool,
    /// Whether mouse events are captured; otherwise the terminal's own selection works.
    pub has_mouse: bool,
    /// The first instant (ns since the epoch); `None` is now, or the session's end.
    pub at: Option<i64>,
    /// The first window (ns).
    pub window: i64,
    /// Thresholds of the rules.
    pub thresholds: Thresholds,
    /// The first screen.
    pub screen: Screen,
    /// The task whose page is opened first.
    pub task: Option<TaskId>,
    /// The whole session, a tick per bucket, in parts: for the scrubber, and for finding anomalies. It may be sent from another
    /// thread, after the first frame. Missing parts are added when they are shown.
    pub overview: Option<Receiver<Vec<Tick>>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            theme: None,
            is_ascii: false,
            has_mouse: true,
            at: None,
            window: 10_000_000_000,
            thresholds: Thresholds::default(),
            screen: Screen::Overview,
            task: None,
            overview: None,
        }
    }
}

impl Options {
    /// The theme for these options and this environment.
    pub fn theme(&self, var: impl Fn(&str) -> Option<String>) -> Result<Theme, UiError> {
        let name = self.theme.as_deref().unwrap_or("hud");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(&var).find(|value| !value.is_empty());
        // Containers have no locale; their terminal is the user's.
        let is_utf8 = locale.is_none_or(|locale| locale.to_lowercase().replace('-', "").contains("utf8"));
        Theme::named(name, Depth::detect(var), self.is_ascii || !is_utf8)
            .ok_or_else(|| UiError::NoTheme { name: name.into() })
    }

    pub(super) fn state(&self) -> State {
        let mut state = State::new(self.at, self.window, self.thresholds);
        state.show(self.screen);
        if let Some(task) = self.task {
            state.show_task(task);
        }
        state
    }
}

/// Why a cockpit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The user quit.
    Quit,
    /// A signal arrived: its number.
    Signal(i32),
    /// A source has nothing to show, and never will.
    Over,
}

/// Why there is no cockpit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UiError {
    /// Standard output or input is no terminal.
    #[error("open the cockpit: standard input and output must be a terminal")]
    NoTerminal,
    /// There is no such theme.
    #[error("find a theme named {name:?}: there are {}", Theme::NAMES.join(", "))]
    NoTheme {
        /// The name.
        name: String,
    },
    /// The terminal failed.
    #[error("draw on the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Shows a source until the user quits or a signal arrives. Restores the terminal.
pub fn run(source: impl Source, mut options: Options) -> Result<Exit, UiError> {
    let overview = options.overview.take();
    run_all(vec![Seat { overview, ..Seat::new(source) }], &options)
}

/// The same for several sessions, side by side on the clock of the first. The options' overview is not used.
pub fn run_all(seats: Vec<Seat<'_>>, options: &Options) -> Result<Exit, UiError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(UiError::NoTerminal);
    }
    let theme = options.theme(|name| std::env::var(name).ok())?;
    // Before the terminal is taken over, so that an error is readable in the shell.
    let mut panes = Panes::open(seats, &options.state())?;
    let signals = Signals::heed()?;
    let mut term = Term::enter(options.has_mouse)?;
    let (mut has_input, mut is_first) = (false, true);
    let mut last_frame = Instant::now();
    let mut last_tick = Instant::now();
    loop {
        if let Some(signal) = signals.end() {
            return Ok(Exit::Signal(signal));
        }
        if signals.take_stop() || panes.state().is_some_and(State::take_suspend) {
            term.suspend()?;
            // The SIGCONT of this suspension is not another one.
            signals.take_go_on();
            (has_input, last_tick) = (true, Instant::now());
        } else if signals.take_go_on() {
            term.resume()?;
            has_input = true;
        }
        if !term::wait(Duration::ZERO) {
            return Ok(Exit::Signal(SIGHUP));
        }
        for _ in 0..MOST_INPUTS {
            if !event::poll(Duration::ZERO)? {
                break;
            }
            has_input |= match event::read()? {
                Event::Key(key) => panes.apply(&Input::Key(key)),
                Event::Mouse(mouse) => panes.apply(&Input::Mouse(mouse)),
                Event::Paste(text) => panes.apply(&Input::Paste(text)),
                Event::Resize(..) => {
                    term.resize()?;
                    true
                }
                Event::FocusGained | Event::FocusLost => false,
            };
        }
        if panes.state().is_some_and(|state| state.has_quit()) {
            return Ok(Exit::Quit);
        }
        if panes.is_over() {
            return Ok(Exit::Over);
        }
        let passed = i64::try_from(last_tick.elapsed().as_nanos()).unwrap_or(i64::MAX);
        if panes.is_playing() && last_tick.elapsed() >= FRAME {
            has_input |= panes.apply(&Input::Tick(passed));
            last_tick = Instant::now();
        } else if !panes.is_playing() {
            last_tick = Instant::now();
        }
        has_input |= panes.take_overviews();

        let since = last_frame.elapsed();
        let is_heartbeat = since >= HEARTBEAT && panes.is_live();
        if is_first || has_input && since >= FRAME_OF_INPUT || panes.is_fresh() && since >= FRAME || is_heartbeat {
            last_frame = Instant::now();
            panes.look(is_heartbeat);
            term.draw(|frame| panes.draw(&theme, frame.buffer_mut()))?;
            (has_input, is_first) = (false, false);
        }
        // Rows of a live session are read once per frame, right before it, instead of as often as they are written.
        let rest = FRAME.saturating_sub(last_frame.elapsed().saturating_add(LEAD));
        if panes.are_all_live() && !has_input && !rest.is_zero() {
            // A lost terminal is noticed at the top.
            term::wait(rest.min(WAIT));
            continue;
        }
        // A pending frame does not wait for new rows.
        let most = match (has_input, panes.is_fresh()) {
            (true, _) => FRAME_OF_INPUT.saturating_sub(last_frame.elapsed()).min(WAIT),
            (_, true) => FRAME.saturating_sub(last_frame.elapsed()).min(WAIT),
            _ => WAIT,
        };
        let began = Instant::now();
        let is_new = panes.wait(most);
        // The source of a recorded session returns at once: wait for keys instead.
        if let (false, Some(left)) = (is_new, most.checked_sub(began.elapsed())) {
            term::wait(left);
        }
    }
}
