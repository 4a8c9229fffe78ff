//! The event loop of a cockpit: the one place that knows of the clock, the terminal and signals.

use std::{
    io::{self, IsTerminal as _},
    prelude::v1::*,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use crossterm::event::{self, Event};

use crate::cockpit::{Mode, Source, SourceError, TaskId, Thresholds, Tick};

use super::{
    frame::draw,
    state::{Drawn, Input, Scene, Screen, State},
    strip::Strip,
    term::{Signals, Term},
    theme::{Depth, Theme},
};

/// The least time between frames that new rows bring: ten a second.
const FRAME: Duration = Duration::from_millis(100);
/// The least time between frames that a person's own keys bring: a screen that lags behind the hand is no instrument.
const FRAME_OF_INPUT: Duration = Duration::from_millis(33);
/// How long the source is waited for at once: a key waits no longer.
const WAIT: Duration = Duration::from_millis(30);
/// How often a live screen is drawn although nothing came: its figures of age go on.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Inputs that are taken in before a frame is drawn.
const MOST_INPUTS: usize = 256;

/// How a cockpit begins and looks.
#[derive(Debug)]
pub struct Options {
    /// A theme by name, of [`Theme::NAMES`]; `None` is the usual one.
    pub theme: Option<String>,
    /// No character outside ASCII. Where the locale is not UTF-8 it is so anyway.
    pub is_ascii: bool,
    /// Whether the mouse is listened to; without, the terminal's own selection works.
    pub has_mouse: bool,
    /// The instant at first (ns since the epoch); `None` is now, or the session's end.
    pub at: Option<i64>,
    /// The window at first (ns).
    pub window: i64,
    /// What the rules hold a window against.
    pub thresholds: Thresholds,
    /// The screen at first.
    pub screen: Screen,
    /// The task whose page is open at first.
    pub task: Option<TaskId>,
    /// The whole session, a tick a bucket, in as many parts as there come: for the scrubber, and for finding anomalies. It
    /// may be sent from another thread, after the first frame; what is not sent is learned as it is looked at.
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
        // No locale at all is what a container has; its terminal is the person's own.
        let is_utf8 = locale.is_none_or(|locale| locale.to_lowercase().replace('-', "").contains("utf8"));
        Theme::named(name, Depth::detect(var), self.is_ascii || !is_utf8)
            .ok_or_else(|| UiError::NoTheme { name: name.into() })
    }

    fn state(&self) -> State {
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
    /// The person quit.
    Quit,
    /// A signal came: its number.
    Signal(i32),
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
    /// The terminal does not do as it should.
    #[error("draw on the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// There is nothing to show.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Shows what a source tells, until the person quits or a signal comes. The terminal is as before when it returns.
pub fn run(mut source: impl Source, mut options: Options) -> Result<Exit, UiError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(UiError::NoTerminal);
    }
    let theme = options.theme(|name| std::env::var(name).ok())?;
    let mut state = options.state();
    let mut overview = options.overview.take();
    // Before the terminal is taken: an error is to be read in the shell.
    let mut query = state.query();
    let mut snapshot = source.snapshot(&query)?;
    let mut strip = Strip::default();
    strip.learn(&snapshot.history);
    let signals = Signals::heed()?;
    let mut term = Term::enter(options.has_mouse)?;
    let mut drawn = Drawn::default();
    let mut failure: Option<String> = None;
    let (mut has_input, mut is_fresh, mut is_first) = (false, false, true);
    let mut last_frame = Instant::now();
    let mut last_tick = Instant::now();
    loop {
        if let Some(signal) = signals.end() {
            return Ok(Exit::Signal(signal));
        }
        if signals.take_stop() || state.take_suspend() {
            term.suspend()?;
            // Our own going on is not to be taken for another one.
            signals.take_go_on();
            (has_input, last_tick) = (true, Instant::now());
        } else if signals.take_go_on() {
            term.resume()?;
            has_input = true;
        }
        for _ in 0..MOST_INPUTS {
            if !event::poll(Duration::ZERO)? {
                break;
            }
            let scene = Scene { snapshot: &snapshot, drawn: &drawn, range: source.range(), strip: &strip };
            has_input |= match event::read()? {
                Event::Key(key) => state.apply(&Input::Key(key), &scene),
                Event::Mouse(mouse) => state.apply(&Input::Mouse(mouse), &scene),
                Event::Paste(text) => state.apply(&Input::Paste(text), &scene),
                Event::Resize(..) => {
                    term.resize()?;
                    true
                }
                Event::FocusGained | Event::FocusLost => false,
            };
        }
        if state.has_quit() {
            return Ok(Exit::Quit);
        }
        let passed = i64::try_from(last_tick.elapsed().as_nanos()).unwrap_or(i64::MAX);
        if state.is_playing() && last_tick.elapsed() >= FRAME {
            let scene = Scene { snapshot: &snapshot, drawn: &drawn, range: source.range(), strip: &strip };
            is_fresh |= state.apply(&Input::Tick(passed), &scene);
            last_tick = Instant::now();
        } else if !state.is_playing() {
            last_tick = Instant::now();
        }
        has_input |= take_overview(&mut overview, &mut strip);

        let since = last_frame.elapsed();
        let is_heartbeat = since >= HEARTBEAT && matches!(snapshot.mode, Mode::Live { .. });
        if is_first || has_input && since >= FRAME_OF_INPUT || is_fresh && since >= FRAME || is_heartbeat {
            last_frame = Instant::now();
            let wanted = state.query();
            if is_fresh || is_heartbeat || wanted != query {
                match source.snapshot(&wanted) {
                    Ok(new) => {
                        snapshot = new;
                        strip.learn(&snapshot.history);
                        failure = None;
                    }
                    Err(error) => failure = Some(["failed to ", &error.to_string()].concat()),
                }
                query = wanted;
            }
            let scene = Scene { snapshot: &snapshot, drawn: &drawn, range: source.range(), strip: &strip };
            let mut next = Drawn::default();
            term.draw(|frame| {
                let area = frame.area();
                next = draw(&state, &scene, &theme, failure.as_deref(), frame.buffer_mut(), area);
            })?;
            drawn = next;
            (has_input, is_fresh, is_first) = (false, false, false);
        }
        // What is to be drawn is not to wait for what comes next.
        let most = match (has_input, is_fresh) {
            (true, _) => FRAME_OF_INPUT.saturating_sub(last_frame.elapsed()).min(WAIT),
            (_, true) => FRAME.saturating_sub(last_frame.elapsed()).min(WAIT),
            _ => WAIT,
        };
        is_fresh |= wait(&mut source, most, &mut failure)? && state.at().is_none();
    }
}

/// Waits for the source, and for keys where the source does not wait itself; gives whether there is anything new.
fn wait(source: &mut impl Source, most: Duration, failure: &mut Option<String>) -> io::Result<bool> {
    let began = Instant::now();
    let is_new = match source.wait(most) {
        Ok(is_new) => is_new,
        Err(error) => {
            let words = ["failed to ", &error.to_string()].concat();
            let is_new = failure.as_ref() != Some(&words);
            *failure = Some(words);
            event::poll(most)?;
            is_new
        }
    };
    // A recorded session has nothing to wait for.
    if let (false, Some(left)) = (is_new, most.checked_sub(began.elapsed())) {
        event::poll(left)?;
    }
    Ok(is_new)
}

fn take_overview(from: &mut Option<Receiver<Vec<Tick>>>, strip: &mut Strip) -> bool {
    let Some(parts) = from else { return false };
    match parts.try_recv() {
        Ok(ticks) => {
            strip.learn(&ticks);
            true
        }
        Err(TryRecvError::Empty) => false,
        Err(TryRecvError::Disconnected) => {
            *from = None;
            false
        }
    }
}
