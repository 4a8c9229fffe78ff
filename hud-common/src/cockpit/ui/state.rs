//! What a person has chosen to see, and how keys and mouse change it.
//!
//! [`State::apply`] is a function of state, input and what was last drawn; it reads no clock, no file and no terminal, so
//! that any sequence of inputs can be tried on it.

use std::{format, prelude::v1::*};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use crate::cockpit::{Bucket, Mode, Name, Query, Snapshot, TaskId, TaskOrder, Thresholds, Tid, TypeId};

use super::{
    format::{parse_instant, round},
    lists::{self, Go, List},
    strip::Strip,
};

const SECOND: i64 = 1_000_000_000;
/// Lengths of the window (ns) that `+` and `-` go through.
const WINDOWS: [i64; 13] = [
    Bucket::NANOS,
    200_000_000,
    500_000_000,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    600 * SECOND,
];
/// Speeds of replay in tenths.
const SPEEDS: [i64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];
/// The shortest stretch that the timeline zooms in to (ns).
const LENS_MIN: i64 = 10_000;
/// Characters of a filter or a time.
const PROMPT_MOST: usize = 200;
const BOOKMARKS_MOST: usize = 64;
const BACK_MOST: usize = 32;

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The most important of all.
    Overview,
    /// Where CPU time went.
    Hotspots,
    /// What held workers.
    Blocking,
    /// Tasks.
    Tasks,
    /// Lanes of workers.
    Timeline,
    /// The flame graph.
    Flame,
    /// Histograms.
    Latency,
    /// Workers and the blocking pool.
    Workers,
    /// What the rules found.
    Findings,
    /// Coverage, drops, overhead, and what is being looked at.
    Session,
    /// A task's page.
    Task,
}

impl Screen {
    /// Those with a digit, in the order of digits: 1 to 9, then 0.
    pub const ALL: [Screen; 10] = [
        Screen::Overview,
        Screen::Hotspots,
        Screen::Blocking,
        Screen::Tasks,
        Screen::Timeline,
        Screen::Flame,
        Screen::Latency,
        Screen::Workers,
        Screen::Findings,
        Screen::Session,
    ];

    /// Its name where there is little room.
    pub(super) const fn short(self) -> &'static str {
        match self {
            Screen::Overview => "main",
            Screen::Hotspots => "hot",
            Screen::Blocking => "block",
            Screen::Timeline => "time",
            Screen::Latency => "delay",
            Screen::Workers => "work",
            Screen::Findings => "find",
            Screen::Session => "sess",
            Screen::Tasks | Screen::Flame | Screen::Task => self.name(),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Screen::Overview => "overview",
            Screen::Hotspots => "hotspots",
            Screen::Blocking => "blocking",
            Screen::Tasks => "tasks",
            Screen::Timeline => "timeline",
            Screen::Flame => "flame",
            Screen::Latency => "latency",
            Screen::Workers => "workers",
            Screen::Findings => "findings",
            Screen::Session => "session",
            Screen::Task => "task",
        }
    }
}

/// Something to act on.
#[derive(Clone, Debug)]
pub enum Input {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// Pasted text.
    Paste(String),
    /// So much time has passed since the last one (ns).
    Tick(i64),
}

/// What a spot on the screen is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    Tab(Screen),
    Row(List, usize),
    Pane(List),
    Node(usize),
    Lane(usize),
    Scrubber,
    Help,
}

/// What was drawn where: what the mouse meets.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    pub(super) hits: Vec<(Rect, Hit)>,
    /// First row shown, and rows shown, of each list.
    pub(super) scrolls: [(usize, usize); List::COUNT],
    /// Where the scrubber is, and from when to when.
    pub(super) scrubber: Option<(Rect, i64, i64)>,
    /// Where time runs in the timeline, and from when to when.
    pub(super) lanes: Option<(Rect, i64, i64)>,
}

/// What is on the screen while an input comes.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What is shown.
    pub snapshot: &'a Snapshot,
    /// Where.
    pub drawn: &'a Drawn,
    /// From when to when the source can be asked (ns since the epoch).
    pub range: (i64, i64),
    /// What is known of the session.
    pub strip: &'a Strip,
}

impl Scene<'_> {
    fn is_live(&self) -> bool {
        matches!(self.snapshot.mode, Mode::Live { .. })
    }
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// A filter; what it was before.
    Filter { before: String },
    /// A time to go to.
    Jump { text: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drag {
    Scrubber,
}

/// What a person has chosen to see.
#[derive(Clone, Debug)]
pub struct State {
    screen: Screen,
    back: Vec<(Screen, usize, Option<TaskId>)>,
    focus: usize,
    cursors: [usize; List::COUNT],
    is_by_total: bool,
    order: TaskOrder,
    filter: String,
    prompt: Option<Prompt>,
    is_help: bool,
    help_offset: usize,
    window: i64,
    at: Option<i64>,
    is_playing: bool,
    speed: usize,
    lens: Option<(i64, i64)>,
    mark: Option<(i64, i64)>,
    lane: Option<Tid>,
    flame_of: Option<TypeId>,
    flame_path: Vec<Name>,
    flame_zoom: usize,
    task: Option<TaskId>,
    bookmarks: Vec<i64>,
    drag: Option<Drag>,
    message: Option<String>,
    thresholds: Thresholds,
    is_suspending: bool,
    turn: isize,
    has_quit: bool,
}

impl State {
    /// The overview, at an instant (`None`: now, or the end), over a window (ns).
    pub fn new(at: Option<i64>, window: i64, thresholds: Thresholds) -> Self {
        State {
            screen: Screen::Overview,
            back: Vec::new(),
            focus: 0,
            cursors: [0; List::COUNT],
            is_by_total: false,
            order: TaskOrder::Busy,
            filter: String::new(),
            prompt: None,
            is_help: false,
            help_offset: 0,
            window: window.clamp(Bucket::NANOS, 3_600 * SECOND),
            at,
            is_playing: false,
            speed: 3,
            lens: None,
            mark: None,
            lane: None,
            flame_of: None,
            flame_path: Vec::new(),
            flame_zoom: 0,
            task: None,
            bookmarks: Vec::new(),
            drag: None,
            message: None,
            thresholds,
            is_suspending: false,
            turn: 0,
            has_quit: false,
        }
    }

    /// What to ask the source.
    pub fn query(&self) -> Query {
        Query {
            at: self.at,
            window: self.window,
            task: self.task,
            flame_of: self.flame_of,
            order: self.order,
            filter: (!self.filter.is_empty()).then(|| self.filter.clone()),
            thresholds: self.thresholds,
        }
    }

    /// Opens a screen.
    pub fn show(&mut self, screen: Screen) {
        if self.screen != screen {
            self.back.push((self.screen, self.focus, self.task));
            if self.back.len() > BACK_MOST {
                self.back.remove(0);
            }
            self.screen = screen;
            self.focus = 0;
        }
    }

    /// Opens a task's page.
    pub fn show_task(&mut self, task: TaskId) {
        if self.screen == Screen::Task && self.task != Some(task) {
            self.back.push((Screen::Task, self.focus, self.task));
        }
        self.show(Screen::Task);
        self.task = Some(task);
        for list in [List::LastPolls, List::Wakers, List::Stretches] {
            self.set_cursor(list, 0);
        }
    }

    /// Whether to end.
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// Whether to hand the terminal back to the shell; asking clears it.
    pub fn take_suspend(&mut self) -> bool {
        std::mem::take(&mut self.is_suspending)
    }

    /// How many sessions further to turn to, where several are open; asking clears it.
    pub(super) fn take_turn(&mut self) -> isize {
        std::mem::take(&mut self.turn)
    }

    /// Shows what another session's state shows, at a time that is later by so much (ns). A task is a session's own: its page
    /// is not followed.
    pub(super) fn follow(&mut self, leader: &State, by: i64) {
        let own = (self.screen, self.task);
        let State { window, at, is_playing, speed, lens, order, is_by_total, .. } = *leader;
        (self.window, self.is_playing, self.speed, self.order, self.is_by_total) =
            (window, is_playing, speed, order, is_by_total);
        self.at = at.map(|at| at.saturating_add(by));
        self.lens = lens.map(|(from, dur)| (from.saturating_add(by), dur));
        self.bookmarks = leader.bookmarks.iter().map(|at| at.saturating_add(by)).collect();
        self.filter.clone_from(&leader.filter);
        if leader.screen != Screen::Task {
            (self.screen, self.focus) = (leader.screen, leader.focus);
            self.back = leader.back.iter().filter(|(screen, ..)| *screen != Screen::Task).copied().collect();
            if own.0 == Screen::Task {
                self.task = None;
            }
        }
    }

    /// At a time that is later by so much (ns).
    pub(super) fn move_by(&mut self, by: i64) {
        self.at = self.at.map(|at| at.saturating_add(by));
    }

    /// Where it looks at the end, whatever that is: here.
    pub(super) fn hold_at_end(&mut self, end: i64) {
        self.at.get_or_insert(end);
    }

    /// Whether time runs by itself.
    pub fn is_playing(&self) -> bool {
        self.is_playing
    }

    /// The screen that is open.
    pub fn screen(&self) -> Screen {
        self.screen
    }

    pub(super) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }
    pub(super) fn is_by_total(&self) -> bool {
        self.is_by_total
    }
    pub(super) fn order(&self) -> TaskOrder {
        self.order
    }
    pub(super) fn prompt(&self) -> Option<&Prompt> {
        self.prompt.as_ref()
    }
    pub(super) fn help(&self) -> Option<usize> {
        self.is_help.then_some(self.help_offset)
    }
    pub(super) fn window(&self) -> i64 {
        self.window
    }
    pub(super) fn at(&self) -> Option<i64> {
        self.at
    }
    /// Tenths.
    pub(super) fn speed(&self) -> i64 {
        SPEEDS.get(self.speed).copied().unwrap_or(10)
    }
    /// The stretch that was clicked at in the timeline: a column's.
    pub(super) fn mark(&self) -> Option<(i64, i64)> {
        self.mark
    }
    pub(super) fn bookmarks(&self) -> &[i64] {
        &self.bookmarks
    }
    pub(super) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
    pub(super) fn flame_path(&self) -> &[Name] {
        &self.flame_path
    }
    pub(super) fn flame_zoom(&self) -> usize {
        self.flame_zoom.min(self.flame_path.len())
    }
    pub(super) fn cursor(&self, list: List) -> usize {
        self.cursors.get(list.index()).copied().unwrap_or(0)
    }

    /// The list that keys go to.
    pub(super) fn focused(&self) -> Option<List> {
        self.screen.lists().get(self.focus).or(self.screen.lists().first()).copied()
    }

    /// The lane that was chosen by its thread; it is to be found again wherever it went.
    pub(super) fn lane(&self) -> Option<Tid> {
        self.lane
    }

    /// What part of the window the timeline shows.
    pub(super) fn lens(&self, snapshot: &Snapshot) -> (i64, i64) {
        let (start, end) = (snapshot.window.start(), snapshot.window.end());
        match self.lens {
            Some((from, dur)) if dur < end.saturating_sub(start) => {
                let from = from.clamp(start, end.saturating_sub(dur).max(start));
                (from, from.saturating_add(dur))
            }
            _ => (start, end),
        }
    }

    fn set_cursor(&mut self, list: List, to: usize) {
        if let Some(cursor) = self.cursors.get_mut(list.index()) {
            *cursor = to;
        }
    }

    fn say(&mut self, text: impl Into<String>) {
        self.message = Some(text.into());
    }

    /// Acts on an input; gives whether anything on the screen may be different now.
    pub fn apply(&mut self, input: &Input, scene: &Scene<'_>) -> bool {
        match input {
            Input::Tick(passed) => return self.tick(*passed, scene),
            Input::Key(key) if key.kind == KeyEventKind::Release => return false,
            Input::Key(key) => {
                self.message = None;
                self.key(*key, scene);
            }
            Input::Mouse(mouse) => return self.mouse(*mouse, scene),
            Input::Paste(text) => {
                if self.prompt.is_none() {
                    return false;
                }
                text.chars().filter(|c| !c.is_control()).for_each(|c| self.typed(c));
            }
        }
        true
    }

    fn tick(&mut self, passed: i64, scene: &Scene<'_>) -> bool {
        if !self.is_playing {
            return false;
        }
        let by = passed.clamp(0, SECOND).saturating_mul(self.speed()) / 10;
        let at = self.at.unwrap_or(scene.range.1).saturating_add(by);
        if at >= scene.range.1 {
            self.is_playing = false;
            self.at = if scene.is_live() { None } else { Some(scene.range.1) };
        } else {
            self.at = Some(at.max(scene.range.0));
        }
        true
    }

    fn key(&mut self, key: KeyEvent, scene: &Scene<'_>) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return self.has_quit = true,
            KeyCode::Char('z') if is_control => return self.is_suspending = true,
            _ => {}
        }
        if self.prompt.is_some() {
            return self.prompt_key(key, scene);
        }
        if self.is_help {
            return self.help_key(key);
        }
        match key.code {
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char('q') => self.has_quit = true,
            KeyCode::Char('?') | KeyCode::F(1) => {
                self.is_help = true;
                self.help_offset = 0;
            }
            KeyCode::Char(digit @ '0'..='9') => {
                let at = digit.to_digit(10).and_then(|d| usize::try_from(d).ok()).unwrap_or(1);
                if let Some(screen) = Screen::ALL.get((at + 9) % 10) {
                    self.show(*screen);
                }
            }
            KeyCode::Tab => self.next_list(1),
            KeyCode::BackTab => self.next_list(-1),
            KeyCode::Up | KeyCode::Char('k') => self.vertical(-1, scene),
            KeyCode::Down | KeyCode::Char('j') => self.vertical(1, scene),
            KeyCode::Left | KeyCode::Char('h') => self.horizontal(-1, scene),
            KeyCode::Right | KeyCode::Char('l') => self.horizontal(1, scene),
            KeyCode::PageUp => self.vertical(-self.page(scene), scene),
            KeyCode::PageDown => self.vertical(self.page(scene), scene),
            KeyCode::Home => self.vertical(isize::MIN, scene),
            KeyCode::Enter => self.open(scene),
            KeyCode::Backspace => self.go_back(),
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => self.go_back(),
            KeyCode::Char('/') => self.prompt = Some(Prompt::Filter { before: self.filter.clone() }),
            KeyCode::Char('s') => self.sort(),
            KeyCode::Char('t') => self.next_flame(scene),
            KeyCode::Char('+' | '=') => self.zoom(true, scene),
            KeyCode::Char('-' | '_') => self.zoom(false, scene),
            KeyCode::Char('w') => self.turn = 1,
            KeyCode::Char('W') => self.turn = -1,
            KeyCode::Char('c') => {
                self.show(Screen::Findings);
                self.set_cursor(List::Findings, 0);
            }
            _ => self.time_key(key, scene),
        }
    }

    fn time_key(&mut self, key: KeyEvent, scene: &Scene<'_>) {
        let now = self.now(scene);
        match key.code {
            KeyCode::Char(' ') if scene.is_live() => {
                self.is_playing = false;
                self.at = if self.at.is_none() { Some(now) } else { None };
            }
            KeyCode::Char(' ') => {
                self.is_playing = !self.is_playing;
                if self.is_playing && self.at.unwrap_or(scene.range.1) >= scene.range.1 {
                    self.at = Some(scene.range.0);
                }
            }
            KeyCode::Char('[') => self.speed = self.speed.saturating_sub(1),
            KeyCode::Char(']') => self.speed = (self.speed + 1).min(SPEEDS.len() - 1),
            KeyCode::Char('.') => {
                self.go_to(scene.strip.step(now, true).unwrap_or(now.saturating_add(Bucket::NANOS)), scene);
            }
            KeyCode::Char(',') => {
                self.go_to(scene.strip.step(now, false).unwrap_or(now.saturating_sub(Bucket::NANOS)), scene);
            }
            KeyCode::Char('<') => self.go_to(now.saturating_sub(self.window), scene),
            KeyCode::Char('>') => self.go_to(now.saturating_add(self.window), scene),
            KeyCode::Char('n') => match scene.strip.next_anomaly(now) {
                Some(at) => self.go_to(at, scene),
                None => self.say("no later anomaly is known"),
            },
            KeyCode::Char('N') => match scene.strip.previous_anomaly(now) {
                Some(at) => self.go_to(at, scene),
                None => self.say("no earlier anomaly is known"),
            },
            KeyCode::Char('g') => self.prompt = Some(Prompt::Jump { text: String::new() }),
            KeyCode::Char('G') | KeyCode::End => {
                self.is_playing = false;
                self.at = None;
            }
            KeyCode::Char('b') => self.bookmark(now),
            KeyCode::Char('B') => {
                match self.bookmarks.iter().find(|ts| **ts > now).or(self.bookmarks.first()).copied() {
                    Some(at) => self.go_to(at, scene),
                    None => self.say("no bookmark yet: b sets one"),
                }
            }
            _ => {}
        }
    }

    /// The instant that was chosen, although it may not be drawn yet.
    fn now(&self, scene: &Scene<'_>) -> i64 {
        self.at.unwrap_or(scene.snapshot.at)
    }

    fn bookmark(&mut self, at: i64) {
        match self.bookmarks.binary_search(&at) {
            Ok(place) => {
                self.bookmarks.remove(place);
                self.say("bookmark lifted");
            }
            Err(_) if self.bookmarks.len() >= BOOKMARKS_MOST => {
                self.say(format!("no more than {BOOKMARKS_MOST} bookmarks"));
            }
            Err(place) => {
                self.bookmarks.insert(place, at);
                self.say("bookmark set");
            }
        }
    }

    /// To an instant, within what can be asked; past the end of a live session is now.
    fn go_to(&mut self, at: i64, scene: &Scene<'_>) {
        let (from, to) = scene.range;
        if scene.is_live() && at >= to {
            self.at = None;
            self.is_playing = false;
        } else {
            self.at = Some(at.min(to).max(from));
        }
    }

    fn help_key(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Down | KeyCode::Char('j') | KeyCode::PageDown => {
                self.help_offset = (self.help_offset + 1).min(super::help::lines().saturating_sub(1));
            }
            KeyCode::Up | KeyCode::Char('k') | KeyCode::PageUp => self.help_offset = self.help_offset.saturating_sub(1),
            _ => self.is_help = false,
        }
    }

    fn prompt_key(&mut self, key: KeyEvent, scene: &Scene<'_>) {
        match (key.code, self.prompt.take()) {
            (KeyCode::Esc, Some(Prompt::Filter { before })) => self.filter = before,
            (KeyCode::Enter, Some(Prompt::Jump { text })) => {
                match parse_instant(&text, scene.snapshot.session.start, scene.range.1) {
                    Some(at) => self.go_to(at, scene),
                    None => self.say("no time: try +12.5s, -30s or 14:03:20"),
                }
            }
            (KeyCode::Esc | KeyCode::Enter, _) => {}
            (code, prompt) => {
                self.prompt = prompt;
                match code {
                    KeyCode::Backspace => match &mut self.prompt {
                        Some(Prompt::Jump { text }) => drop(text.pop()),
                        _ => drop(self.filter.pop()),
                    },
                    KeyCode::Char('u' | 'w') if key.modifiers.contains(KeyModifiers::CONTROL) => match &mut self.prompt
                    {
                        Some(Prompt::Jump { text }) => text.clear(),
                        _ => self.filter.clear(),
                    },
                    KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => self.typed(c),
                    _ => {}
                }
            }
        }
    }

    fn typed(&mut self, c: char) {
        let text = match &mut self.prompt {
            Some(Prompt::Jump { text }) => text,
            Some(Prompt::Filter { .. }) => &mut self.filter,
            None => return,
        };
        if text.chars().count() < PROMPT_MOST {
            text.push(c);
        }
    }

    fn next_list(&mut self, by: isize) {
        let count = self.screen.lists().len();
        if count > 0 {
            self.focus = self.focus.min(count - 1).saturating_add(count).saturating_add_signed(by) % count;
        }
    }

    fn page(&self, scene: &Scene<'_>) -> isize {
        let rows = self.focused().and_then(|list| scene.drawn.scrolls.get(list.index())).map_or(10, |(_, rows)| *rows);
        isize::try_from(rows.saturating_sub(1)).unwrap_or(10).max(1)
    }

    fn vertical(&mut self, by: isize, scene: &Scene<'_>) {
        if self.screen == Screen::Flame {
            return self.flame_vertical(by, scene.snapshot);
        }
        let Some(list) = self.focused() else { return };
        let last = lists::rows(scene.snapshot, self, list).len().saturating_sub(1);
        let to = self.cursor(list).min(last).saturating_add_signed(by).min(last);
        self.set_cursor(list, to);
        if list == List::Lanes {
            self.lane = scene.snapshot.timeline.lanes.get(to).map(|lane| lane.tid);
        }
    }

    fn horizontal(&mut self, by: isize, scene: &Scene<'_>) {
        match self.screen {
            Screen::Flame => self.flame_horizontal(by, scene.snapshot),
            Screen::Timeline => self.pan(by, scene),
            _ => self.next_list(by),
        }
    }

    /// Moves the timeline by an eighth of what it shows: inside the window first, then the window.
    fn pan(&mut self, by: isize, scene: &Scene<'_>) {
        let (from, to) = self.lens(scene.snapshot);
        let dur = to.saturating_sub(from);
        let step = (dur / 8).max(1).saturating_mul(if by < 0 { -1 } else { 1 });
        let (start, end) = (scene.snapshot.window.start(), scene.snapshot.window.end());
        let wanted = from.saturating_add(step);
        if dur < end.saturating_sub(start) && wanted >= start && wanted.saturating_add(dur) <= end {
            self.lens = Some((wanted, dur));
            return;
        }
        // A held lens goes along with the window, which moves by whole buckets.
        let step = if step < 0 { step.min(-Bucket::NANOS) } else { step.max(Bucket::NANOS) };
        if self.lens.is_some() {
            self.lens = Some((wanted, dur));
        }
        self.go_to(self.now(scene).saturating_add(step), scene);
    }

    fn zoom(&mut self, is_in: bool, scene: &Scene<'_>) {
        if self.screen == Screen::Timeline {
            let (from, to) = self.lens(scene.snapshot);
            let whole = scene.snapshot.window.dur();
            let dur = to.saturating_sub(from);
            let centre = self
                .mark
                .map_or(from.saturating_add(dur / 2), |(from, to)| from.saturating_add(to.saturating_sub(from) / 2));
            let centre = if (from..to).contains(&centre) { centre } else { from.saturating_add(dur / 2) };
            if is_in {
                let dur = (dur / 2).max(LENS_MIN);
                self.lens = Some((centre.saturating_sub(dur / 2), dur));
                // What is looked at so closely is not to run away.
                self.at = Some(self.at.unwrap_or(scene.snapshot.at));
                self.is_playing = false;
                return;
            }
            if dur < whole {
                let dur = dur.saturating_mul(2);
                self.lens = (dur < whole).then(|| (centre.saturating_sub(dur / 2), dur));
                return;
            }
        }
        self.lens = None;
        let next = if is_in {
            WINDOWS.iter().rev().find(|w| **w < self.window)
        } else {
            WINDOWS.iter().find(|w| **w > self.window)
        };
        if let Some(window) = next {
            self.window = *window;
        }
        self.say(format!("window {}", round(self.window)));
    }

    fn sort(&mut self) {
        match self.screen {
            Screen::Hotspots | Screen::Overview => self.is_by_total = !self.is_by_total,
            _ => {
                self.order = match self.order {
                    TaskOrder::Busy => TaskOrder::Polls,
                    TaskOrder::Polls => TaskOrder::LongestPoll,
                    TaskOrder::LongestPoll => TaskOrder::WakeDelay,
                    TaskOrder::WakeDelay => TaskOrder::Blocked,
                    TaskOrder::Blocked => TaskOrder::SelfWakes,
                    TaskOrder::SelfWakes => TaskOrder::Idle,
                    TaskOrder::Idle => TaskOrder::Youngest,
                    TaskOrder::Youngest => TaskOrder::Busy,
                };
            }
        }
    }

    fn next_flame(&mut self, scene: &Scene<'_>) {
        let types: Vec<TypeId> =
            scene.snapshot.hotspots.by_type.iter().filter_map(|row| row.task_type.as_ref()).map(|of| of.id).collect();
        self.flame_of = match self.flame_of {
            None => types.first().copied(),
            Some(of) => types.iter().position(|id| *id == of).and_then(|at| types.get(at + 1)).copied(),
        };
        self.flame_path.clear();
        self.flame_zoom = 0;
    }

    fn open(&mut self, scene: &Scene<'_>) {
        if self.screen == Screen::Flame {
            self.flame_zoom = self.flame_path.len();
            return;
        }
        let Some(list) = self.focused() else { return };
        let rows = lists::rows(scene.snapshot, self, list);
        let at = rows.get(self.cursor(list).min(rows.len().saturating_sub(1))).copied();
        if list == List::Lanes
            && let (Some(at), Some(mark)) = (at, self.mark)
            && let Some(lane) = scene.snapshot.timeline.lanes.get(at)
            && let Some(span) = super::timeline::span_at(lane, mark)
        {
            return self.show_task(span.task.id);
        }
        match at.and_then(|at| lists::go(scene.snapshot, self.screen, list, at)) {
            Some(Go::Task(task)) => self.show_task(task),
            Some(Go::Flame(of)) => {
                self.flame_of = of;
                self.flame_path.clear();
                self.flame_zoom = 0;
                self.show(Screen::Flame);
            }
            Some(Go::Lane(tid)) => {
                self.lane = Some(tid);
                if let Some(at) = scene.snapshot.timeline.lanes.iter().position(|lane| lane.tid == tid) {
                    self.set_cursor(List::Lanes, at);
                }
                self.show(Screen::Timeline);
            }
            Some(Go::Tasks(name)) => {
                self.filter = name.chars().filter(|c| !c.is_control()).take(PROMPT_MOST).collect();
                self.show(Screen::Tasks);
            }
            Some(Go::Screen(screen)) => {
                self.show(screen);
                self.focus = screen.lists().iter().position(|of| *of == list).unwrap_or(0);
            }
            None if at.is_some() => self.say("nothing is known behind this row"),
            None => {}
        }
    }

    fn go_back(&mut self) {
        if self.screen == Screen::Flame && self.flame_zoom > 0 {
            self.flame_zoom -= 1;
            self.flame_path.truncate(self.flame_zoom);
            return;
        }
        match self.back.pop() {
            Some((screen, focus, task)) => {
                self.screen = screen;
                self.focus = focus;
                self.task = task;
            }
            None => {
                self.screen = Screen::Overview;
                self.focus = 0;
            }
        }
    }

    fn flame_vertical(&mut self, by: isize, snapshot: &Snapshot) {
        for _ in 0..by.unsigned_abs().min(64) {
            if by < 0 {
                if self.flame_path.len() > self.flame_zoom {
                    self.flame_path.pop();
                } else if self.flame_zoom > 0 {
                    self.flame_zoom -= 1;
                    self.flame_path.pop();
                }
            } else {
                let node = super::flame::find(&snapshot.flame, &self.flame_path);
                let Some(child) = super::flame::children(&snapshot.flame, node).first().copied() else { return };
                if let Some(child) = snapshot.flame.nodes.get(child) {
                    self.flame_path.push(child.function.clone());
                }
            }
        }
    }

    fn flame_horizontal(&mut self, by: isize, snapshot: &Snapshot) {
        if self.flame_path.len() <= self.flame_zoom {
            return;
        }
        let here = super::flame::find(&snapshot.flame, &self.flame_path);
        let Some((_, above)) = self.flame_path.split_last() else { return };
        let siblings = super::flame::children(&snapshot.flame, super::flame::find(&snapshot.flame, above));
        let Some(at) = siblings.iter().position(|node| *node == here) else { return };
        let to = at.saturating_add_signed(by).min(siblings.len().saturating_sub(1));
        if let (Some(node), Some(last)) =
            (siblings.get(to).and_then(|node| snapshot.flame.nodes.get(*node)), self.flame_path.last_mut())
        {
            *last = node.function.clone();
        }
    }

    fn mouse(&mut self, mouse: MouseEvent, scene: &Scene<'_>) -> bool {
        let spot = Position { x: mouse.column, y: mouse.row };
        let hit = scene.drawn.hits.iter().rev().find(|(area, _)| area.contains(spot)).map(|(_, hit)| *hit);
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => {
                self.message = None;
                if self.is_help {
                    self.is_help = false;
                    return true;
                }
                let Some(hit) = hit else { return false };
                self.click(hit, mouse.column, scene);
            }
            MouseEventKind::Drag(MouseButton::Left) if self.drag == Some(Drag::Scrubber) => {
                self.scrub(mouse.column, scene);
            }
            MouseEventKind::Up(_) => {
                self.drag = None;
                return false;
            }
            MouseEventKind::ScrollUp | MouseEventKind::ScrollDown => {
                let by = if mouse.kind == MouseEventKind::ScrollUp { -1 } else { 1 };
                self.wheel(by, hit, scene);
            }
            _ => return false,
        }
        true
    }

    fn wheel(&mut self, by: isize, hit: Option<Hit>, scene: &Scene<'_>) {
        if self.is_help {
            self.help_offset = self.help_offset.saturating_add_signed(by).min(super::help::lines().saturating_sub(1));
            return;
        }
        match hit {
            Some(Hit::Scrubber) => {
                let step = (scene.range.1.saturating_sub(scene.range.0) / 100).max(Bucket::NANOS);
                let step = if by < 0 { step.saturating_neg() } else { step };
                self.go_to(self.now(scene).saturating_add(step), scene);
            }
            Some(Hit::Lane(_)) => self.zoom(by < 0, scene),
            Some(Hit::Row(list, _) | Hit::Pane(list)) => {
                self.focus_on(list);
                self.vertical(by, scene);
            }
            _ => self.vertical(by, scene),
        }
    }

    fn focus_on(&mut self, list: List) -> bool {
        let Some(at) = self.screen.lists().iter().position(|of| *of == list) else { return false };
        std::mem::replace(&mut self.focus, at) == at
    }

    fn click(&mut self, hit: Hit, column: u16, scene: &Scene<'_>) {
        match hit {
            Hit::Tab(screen) => self.show(screen),
            Hit::Help => self.is_help = true,
            Hit::Pane(list) => drop(self.focus_on(list)),
            Hit::Row(list, row) => {
                let was_focused = self.focus_on(list);
                let was_here = self.cursor(list) == row;
                self.set_cursor(list, row);
                if self.screen == Screen::Overview || was_focused && was_here {
                    self.open(scene);
                }
            }
            Hit::Node(node) => {
                let path = super::flame::path(&scene.snapshot.flame, node);
                if path == self.flame_path {
                    self.flame_zoom = path.len();
                } else {
                    self.flame_zoom = self.flame_zoom.min(path.len());
                    self.flame_path = path;
                }
            }
            Hit::Lane(row) => {
                self.focus_on(List::Lanes);
                self.set_cursor(List::Lanes, row);
                self.lane = scene.snapshot.timeline.lanes.get(row).map(|lane| lane.tid);
                let mark = scene.drawn.lanes.map(|(area, from, to)| {
                    (instant(area, from, to, column), instant(area, from, to, column.saturating_add(1)))
                });
                if self.mark.is_some() && self.mark == mark {
                    return self.open(scene);
                }
                self.mark = mark;
            }
            Hit::Scrubber => {
                self.drag = Some(Drag::Scrubber);
                self.scrub(column, scene);
            }
        }
    }

    fn scrub(&mut self, column: u16, scene: &Scene<'_>) {
        if let Some((area, from, to)) = scene.drawn.scrubber {
            self.is_playing = false;
            // The end of what the column stands for, so that the last one is the end.
            self.go_to(instant(area, from, to, column.saturating_add(1).max(area.x)), scene);
        }
    }
}

/// The instant at a column's left edge.
fn instant(area: Rect, from: i64, to: i64, column: u16) -> i64 {
    let (at, width) = (i128::from(column.saturating_sub(area.x).min(area.width)), i128::from(area.width.max(1)));
    let dur = i128::from(to.saturating_sub(from));
    i64::try_from(i128::from(from) + dur * at / width).unwrap_or(to)
}
