//! The user's choices, and how keys and mouse change them.
//!
//! [`State::apply`] is a function of state, input and the last frame. It reads no clock, no file and no terminal, and draws
//! nothing, so that tests can try any sequence of inputs.

mod acknowledged;
mod flame;
mod input;
mod keys;
mod lens;
mod lists;
mod navigation;
mod playback;
mod prompt;
mod reading;
mod screen;
mod sorting;
mod strip;
mod trend;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use self::{
    acknowledged::Acknowledged,
    flame::FlameCursor,
    lens::Lens,
    lists::Go,
    navigation::Navigation,
    playback::Playback,
    prompt::Entry,
    sorting::{Sorting, heading},
};
use super::{
    clock::Clock,
    format::{parse_instant, round},
};
use crate::{Bucket, Finding, Name, Query, Snapshot, TaskId, TaskOrder, Thresholds, Tid, TypeId, filter::Filter};

pub(super) use flame::find;
pub(super) use input::Hit;
pub use input::{Drawn, Input, Scene};
pub(super) use lists::all_workers;
pub(super) use prompt::Prompt;
pub(super) use screen::List;
pub use screen::Screen;

pub use strip::Strip;

/// A page of the help, and its first line on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelpPage {
    Keys(usize),
    /// What the figures of the screen mean.
    Reading(usize),
}

impl HelpPage {
    /// Its lines: keys or terms with their meanings; of a heading, without one.
    pub(super) fn lines(self, screen: Screen) -> Vec<(&'static str, &'static str)> {
        let groups: Vec<(&str, &[reading::Line])> = match self {
            HelpPage::Keys(_) => keys::GROUPS.iter().map(|group| (group.title, group.keys)).collect(),
            HelpPage::Reading(_) => reading::of(screen),
        };
        let lines = groups
            .into_iter()
            .flat_map(|(title, lines)| [(title, "")].into_iter().chain(lines.iter().copied()).chain([("", "")]));
        lines.collect()
    }
}

/// The user's choices.
#[derive(Clone, Debug)]
pub struct State {
    navigation: Navigation,
    playback: Playback,
    lens: Lens,
    flame: FlameCursor,
    entry: Entry,
    sorting: Sorting,
    clock: Clock,
    acknowledged: Acknowledged,
    order: TaskOrder,
    is_reversed: bool,
    thresholds: Thresholds,
    help: Option<HelpPage>,
    is_scrubbing: bool,
    message: Option<String>,
    is_suspending: bool,
    turn: isize,
    has_quit: bool,
}

impl State {
    /// The overview, at an instant (`None`: now, or the end), over a window (ns).
    pub fn new(at: Option<i64>, window: i64, thresholds: Thresholds) -> Self {
        State {
            navigation: Navigation::new(),
            playback: Playback::new(at, window),
            lens: Lens::default(),
            flame: FlameCursor::default(),
            entry: Entry::default(),
            sorting: Sorting::default(),
            clock: Clock::default(),
            acknowledged: Acknowledged::default(),
            order: TaskOrder::Busy,
            is_reversed: false,
            thresholds,
            help: None,
            is_scrubbing: false,
            message: None,
            is_suspending: false,
            turn: 0,
            has_quit: false,
        }
    }

    /// The query for the source.
    pub fn query(&self) -> Query {
        let filter = self.entry.filter();
        Query {
            at: self.playback.at(),
            window: self.playback.window(),
            task: self.navigation.task(),
            has_states: matches!(self.screen(), Screen::Waiting | Screen::Task)
                || self.focused() == Some(List::Tasks) && self.order == TaskOrder::Idle,
            has_dials: self.screen() == Screen::Overview,
            has_flame: self.screen() == Screen::Flame,
            flame_kind: self.flame.kind(),
            is_unfolded: self.flame.is_unfolded(),
            flame_of: self.flame.task_type(),
            order: self.order,
            is_reversed: self.is_reversed,
            filter: (!filter.is_empty()).then(|| filter.into()),
            thresholds: self.thresholds,
        }
    }

    /// Opens a screen.
    pub fn show(&mut self, screen: Screen) {
        self.navigation.show(screen);
    }

    /// Opens a task's page.
    pub fn show_task(&mut self, task: TaskId) {
        self.navigation.show_task(task);
    }

    /// Whether to end.
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// Whether to return the terminal to the shell; asking clears it.
    pub fn take_suspend(&mut self) -> bool {
        std::mem::take(&mut self.is_suspending)
    }

    /// Number of sessions to move on by, where several are open; asking clears it.
    pub(super) fn take_turn(&mut self) -> isize {
        std::mem::take(&mut self.turn)
    }

    /// Adopts the choices made for another session, at times shifted by `by` (ns).
    pub(super) fn follow(&mut self, leader: &State, by: i64) {
        self.navigation.follow(&leader.navigation);
        self.playback.follow(&leader.playback, by);
        self.lens.follow(&leader.lens, by);
        self.entry.copy_filter(&leader.entry);
        (self.order, self.is_reversed) = (leader.order, leader.is_reversed);
        self.sorting.clone_from(&leader.sorting);
        self.clock = leader.clock;
    }

    /// Shifts the instant by `by` (ns).
    pub(super) fn move_by(&mut self, by: i64) {
        self.playback.shift(by);
    }

    /// Replaces "the session's end" by an instant.
    pub(super) fn hold_at_end(&mut self, end: i64) {
        self.playback.hold_at_end(end);
    }

    /// Whether replay is playing.
    pub fn is_playing(&self) -> bool {
        self.playback.is_playing()
    }

    /// The screen that is open.
    pub fn screen(&self) -> Screen {
        self.navigation.screen()
    }

    pub(super) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }
    pub(super) fn filter(&self) -> &str {
        self.entry.filter()
    }
    /// What a list is sorted by, and whether in reverse.
    pub(super) fn order_of(&self, list: List) -> (&'static str, bool) {
        match list {
            List::Tasks => (self.order.name(), self.is_reversed),
            _ => self.sorting.name(list),
        }
    }
    /// Whether the user has acknowledged a finding.
    pub(super) fn is_acknowledged(&self, finding: &Finding) -> bool {
        self.acknowledged.has(finding)
    }
    /// Number of findings that are acknowledged.
    pub(super) fn acknowledged(&self, snapshot: &Snapshot) -> usize {
        snapshot.findings.iter().filter(|finding| self.is_acknowledged(finding)).count()
    }
    /// The worst finding that is not acknowledged.
    pub(super) fn caution<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Finding> {
        snapshot.findings.iter().find(|finding| !self.is_acknowledged(finding))
    }
    /// Whether a list is sorted by the column with this heading.
    pub(super) fn is_sorted_by(&self, list: List, title: &str) -> bool {
        match list {
            List::Tasks => heading(self.order.name()) == title,
            _ => self.sorting.is_by(list, title),
        }
    }
    pub(super) fn prompt(&self) -> Option<&Prompt> {
        self.entry.prompt()
    }
    /// The page of the help, if that is open.
    pub(super) fn help(&self) -> Option<HelpPage> {
        self.help
    }
    pub(super) fn window(&self) -> i64 {
        self.playback.window()
    }
    pub(super) fn at(&self) -> Option<i64> {
        self.playback.at()
    }
    /// In tenths.
    pub(super) fn speed(&self) -> i64 {
        self.playback.speed()
    }
    /// The time range of the timeline's column that was clicked.
    pub(super) fn mark(&self) -> Option<(i64, i64)> {
        self.lens.mark
    }
    pub(super) fn bookmarks(&self) -> &[i64] {
        self.playback.bookmarks()
    }
    pub(super) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
    pub(super) fn flame_path(&self) -> &[Name] {
        self.flame.path()
    }
    pub(super) fn flame_zoom(&self) -> usize {
        self.flame.zoom()
    }
    pub(super) fn cursor(&self, list: List) -> usize {
        self.navigation.cursor(list)
    }
    /// The list that keys act on.
    pub(super) fn focused(&self) -> Option<List> {
        self.navigation.focused()
    }
    /// The thread of the selected lane.
    pub(super) fn lane(&self) -> Option<Tid> {
        self.lens.lane
    }
    /// The time range that the timeline shows.
    pub(super) fn lens(&self, snapshot: &Snapshot) -> (i64, i64) {
        self.lens.range(snapshot.window)
    }
    /// The rows of a list that are shown, as indices of the snapshot's rows.
    pub(super) fn rows(&self, snapshot: &Snapshot, list: List) -> Vec<usize> {
        let mut rows = lists::passing(snapshot, &Filter::of(self.entry.filter()), list);
        self.sorting.sort(snapshot, list, &mut rows);
        rows
    }

    fn say(&mut self, text: impl Into<String>) {
        self.message = Some(text.into());
    }

    /// Acts on an input. Returns whether the screen may have changed.
    pub fn apply(&mut self, input: &Input, scene: &Scene<'_>) -> bool {
        match input {
            Input::Tick(passed) => return self.playback.tick(*passed, scene),
            Input::Key(key) if key.kind == KeyEventKind::Release => return false,
            Input::Key(key) => {
                self.message = None;
                self.key(*key, scene);
            }
            Input::Mouse(mouse) => return self.mouse(*mouse, scene),
            Input::Paste(text) => {
                if self.entry.prompt().is_none() {
                    return false;
                }
                text.chars().filter(|c| !c.is_control()).for_each(|c| self.entry.push(c));
            }
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
        if self.entry.prompt().is_some() {
            return self.prompt_key(key, scene);
        }
        if let Some(page) = self.help {
            return self.help_key(key, page);
        }
        match key.code {
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char('q') => self.has_quit = true,
            KeyCode::Char('?') | KeyCode::F(1) => self.help = Some(HelpPage::Keys(0)),
            KeyCode::Char(key) if let Some(screen) = Screen::ALL.into_iter().find(|of| of.key() == key) => {
                self.show(screen);
            }
            KeyCode::Tab => self.navigation.next_list(1),
            KeyCode::BackTab => self.navigation.next_list(-1),
            KeyCode::Up | KeyCode::Char('k') => self.vertical(-1, scene),
            KeyCode::Down | KeyCode::Char('j') => self.vertical(1, scene),
            KeyCode::Left | KeyCode::Char('h') => self.horizontal(-1, scene),
            KeyCode::Right | KeyCode::Char('l') => self.horizontal(1, scene),
            KeyCode::PageUp => self.vertical(-self.page(scene), scene),
            KeyCode::PageDown => self.vertical(self.page(scene), scene),
            KeyCode::Home => self.vertical(isize::MIN, scene),
            KeyCode::Enter => self.open(scene),
            KeyCode::Backspace => self.go_back(),
            KeyCode::Esc if !self.filter().is_empty() => self.entry.set_filter(""),
            KeyCode::Esc => self.go_back(),
            KeyCode::Char('/') => self.entry.ask_filter(),
            KeyCode::Char('s') => self.sort(false),
            KeyCode::Char('S') => self.sort(true),
            KeyCode::Char('t') => {
                let by_type = scene.snapshot.hotspots.by_type.iter();
                let types: Vec<TypeId> = by_type.filter_map(|row| row.task_type.as_ref()).map(|of| of.id).collect();
                self.flame.show_next(&types);
            }
            KeyCode::Char('o') if self.screen() == Screen::Flame => self.flame.next_kind(),
            KeyCode::Char('f') if self.screen() == Screen::Flame => self.flame.fold(),
            KeyCode::Char('+' | '=') => self.zoom(true, scene),
            KeyCode::Char('-' | '_') => self.zoom(false, scene),
            KeyCode::Char('}') => self.turn = 1,
            KeyCode::Char('{') => self.turn = -1,
            KeyCode::Char('T') => {
                self.clock = self.clock.next();
                self.say(self.clock.name());
            }
            KeyCode::Char('a') => self.acknowledge(scene.snapshot),
            KeyCode::Char('A') => {
                self.acknowledged.clear();
                self.say("no finding is acknowledged");
            }
            KeyCode::Char('c') => {
                self.show(Screen::Findings);
                self.navigation.set_cursor(List::Findings, 0);
            }
            _ => self.time_key(key, scene),
        }
    }

    fn time_key(&mut self, key: KeyEvent, scene: &Scene<'_>) {
        let (strip, window) = (scene.strip, self.window());
        let playback = &mut self.playback;
        let now = playback.now(scene);
        match key.code {
            KeyCode::Char(' ') => playback.toggle(scene),
            KeyCode::Char('[') => playback.slow_down(),
            KeyCode::Char(']') => playback.speed_up(),
            KeyCode::Char('.') => {
                playback.go_to(strip.step(now, true).unwrap_or(now.saturating_add(Bucket::NANOS)), scene);
            }
            KeyCode::Char(',') => {
                playback.go_to(strip.step(now, false).unwrap_or(now.saturating_sub(Bucket::NANOS)), scene);
            }
            KeyCode::Char('<') => playback.go_to(now.saturating_sub(window), scene),
            KeyCode::Char('>') => playback.go_to(now.saturating_add(window), scene),
            KeyCode::Char('n') => match strip.next_anomaly(now) {
                Some(at) => playback.go_to(at, scene),
                None => self.say("no later anomaly is known"),
            },
            KeyCode::Char('N') => match strip.previous_anomaly(now) {
                Some(at) => playback.go_to(at, scene),
                None => self.say("no earlier anomaly is known"),
            },
            KeyCode::Char('g') => self.entry.ask_time(),
            KeyCode::Char('G') | KeyCode::End => playback.go_to_end(),
            KeyCode::Char('b') => {
                let message = playback.toggle_bookmark(now);
                self.say(message);
            }
            KeyCode::Char('B') => match playback.next_bookmark(now) {
                Some(at) => playback.go_to(at, scene),
                None => self.say("no bookmark yet: b sets one"),
            },
            _ => {}
        }
    }

    fn help_key(&mut self, key: KeyEvent, page: HelpPage) {
        self.help = match (key.code, page) {
            (KeyCode::Down | KeyCode::Char('j') | KeyCode::PageDown, _) => Some(self.scrolled(page, 1)),
            (KeyCode::Up | KeyCode::Char('k') | KeyCode::PageUp, _) => Some(self.scrolled(page, -1)),
            (KeyCode::Char('?') | KeyCode::F(1), HelpPage::Keys(_)) => Some(HelpPage::Reading(0)),
            _ => None,
        }
    }

    /// A page of the help, moved by a number of lines.
    fn scrolled(&self, page: HelpPage, by: isize) -> HelpPage {
        let last = page.lines(self.screen()).len().saturating_sub(1);
        let to = |line: usize| line.saturating_add_signed(by).min(last);
        match page {
            HelpPage::Keys(line) => HelpPage::Keys(to(line)),
            HelpPage::Reading(line) => HelpPage::Reading(to(line)),
        }
    }

    fn prompt_key(&mut self, key: KeyEvent, scene: &Scene<'_>) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => self.entry.cancel(),
            KeyCode::Enter => {
                let (from, to) = scene.range;
                let parse = |time: &str| parse_instant(time, scene.snapshot.session.start, to);
                // The prompt stays until its time is one of the session.
                match self.entry.typed_time().map(parse) {
                    None => self.entry.accept(),
                    Some(Some(at)) if (from..=to).contains(&at) => {
                        self.entry.accept();
                        self.playback.go_to(at, scene);
                    }
                    Some(Some(_)) => self.say("outside the session"),
                    Some(None) => self.say("not a time"),
                }
            }
            KeyCode::Backspace => self.entry.pop(),
            KeyCode::Char('u' | 'w') if is_control => self.entry.clear(),
            KeyCode::Char(c) if !is_control => self.entry.push(c),
            _ => {}
        }
    }

    fn page(&self, scene: &Scene<'_>) -> isize {
        let rows = self.focused().and_then(|list| scene.drawn.scrolls.get(list.index())).map_or(10, |(_, rows)| *rows);
        isize::try_from(rows.saturating_sub(1)).unwrap_or(10).max(1)
    }

    fn vertical(&mut self, by: isize, scene: &Scene<'_>) {
        if self.screen() == Screen::Flame {
            return self.flame.vertical(by, &scene.snapshot.flame);
        }
        let Some(list) = self.focused() else { return };
        let last = self.rows(scene.snapshot, list).len().saturating_sub(1);
        let to = self.cursor(list).min(last).saturating_add_signed(by).min(last);
        self.navigation.set_cursor(list, to);
        if list == List::Lanes {
            self.lens.lane = scene.snapshot.timeline.lanes.get(to).map(|lane| lane.tid);
        }
    }

    fn horizontal(&mut self, by: isize, scene: &Scene<'_>) {
        match self.screen() {
            Screen::Flame => self.flame.horizontal(by, &scene.snapshot.flame),
            Screen::Timeline => {
                if let Some(step) = self.lens.pan(by, scene.snapshot.window) {
                    self.playback.go_to(self.playback.now(scene).saturating_add(step), scene);
                }
            }
            _ => self.navigation.next_list(by),
        }
    }

    fn zoom(&mut self, is_in: bool, scene: &Scene<'_>) {
        if self.screen() == Screen::Timeline {
            if is_in {
                self.lens.zoom_in(scene.snapshot.window);
                // A live session would move out of the range at once.
                return self.playback.hold(scene);
            }
            if self.lens.zoom_out(scene.snapshot.window) {
                return;
            }
        }
        self.lens.show_all();
        self.playback.resize(is_in);
        self.say(format!("window {}", round(self.window())));
    }

    /// Sorts the list in focus by its next order, or reverses it.
    fn sort(&mut self, is_reverse: bool) {
        let Some(list) = self.focused() else { return };
        match (list, is_reverse) {
            (List::Tasks, false) => (self.order, self.is_reversed) = (self.order.next(), false),
            (List::Tasks, true) => self.is_reversed = !self.is_reversed,
            (_, false) => self.sorting.next(list),
            (_, true) => self.sorting.reverse(list),
        }
        match self.order_of(list) {
            ("", _) => self.say("this list has one order"),
            (by, false) => self.say(format!("sorted by {by}")),
            (by, true) => self.say(format!("sorted by {by}, reversed")),
        }
    }

    /// Acknowledges the selected finding, else the worst one that is not acknowledged.
    fn acknowledge(&mut self, snapshot: &Snapshot) {
        let rows = self.rows(snapshot, List::Findings);
        let selected = rows.get(self.cursor(List::Findings)).and_then(|at| snapshot.findings.get(*at));
        let selected = selected.filter(|of| self.focused() == Some(List::Findings) && !self.is_acknowledged(of));
        match selected.or_else(|| self.caution(snapshot)) {
            Some(finding) => {
                self.acknowledged.add(finding);
                self.say("acknowledged until it gets worse: A shows all again");
            }
            None if snapshot.findings.is_empty() => self.say("there is no finding"),
            None => self.say("all findings are acknowledged: A shows them again"),
        }
    }

    /// Sorts a list by the column with this heading, or reverses it.
    fn sort_by(&mut self, list: List, title: &str) {
        self.navigation.focus_on(list);
        let known = match list {
            List::Tasks => match TaskOrder::ALL.into_iter().find(|order| heading(order.name()) == title) {
                Some(order) if order == self.order => {
                    self.is_reversed = !self.is_reversed;
                    true
                }
                Some(order) => {
                    (self.order, self.is_reversed) = (order, false);
                    true
                }
                None => false,
            },
            _ => self.sorting.by(list, title),
        };
        match self.order_of(list) {
            _ if !known => self.say("no order goes by this column"),
            (by, false) => self.say(format!("sorted by {by}")),
            (by, true) => self.say(format!("sorted by {by}, reversed")),
        }
    }

    fn open(&mut self, scene: &Scene<'_>) {
        if self.screen() == Screen::Flame {
            return self.flame.zoom_in();
        }
        let Some(list) = self.focused() else { return };
        let rows = self.rows(scene.snapshot, list);
        let at = rows.get(self.cursor(list).min(rows.len().saturating_sub(1))).copied();
        if list == List::Lanes
            && let (Some(at), Some(mark)) = (at, self.lens.mark)
            && let Some(lane) = scene.snapshot.timeline.lanes.get(at)
            && let Some(span) = lists::span_at(lane, mark)
        {
            return self.show_task(span.task.id);
        }
        match at.and_then(|at| lists::go(scene.snapshot, self.screen(), list, at)) {
            Some(Go::Task(task)) => self.show_task(task),
            Some(Go::Flame(of)) => {
                self.flame.show(of);
                self.show(Screen::Flame);
            }
            Some(Go::Lane(tid)) => {
                self.lens.lane = Some(tid);
                if let Some(at) = scene.snapshot.timeline.lanes.iter().position(|lane| lane.tid == tid) {
                    self.navigation.set_cursor(List::Lanes, at);
                }
                self.show(Screen::Timeline);
            }
            Some(Go::Tasks(name)) => {
                self.entry.set_filter(&name);
                self.navigation.show_list(Screen::Tasks, List::Tasks);
            }
            Some(Go::Screen(screen)) => self.navigation.show_list(screen, list),
            None if at.is_some() => self.say("nothing is known behind this row"),
            None => {}
        }
    }

    fn go_back(&mut self) {
        if self.screen() != Screen::Flame || !self.flame.zoom_out() {
            self.navigation.go_back();
        }
    }

    fn mouse(&mut self, mouse: MouseEvent, scene: &Scene<'_>) -> bool {
        let spot = Position { x: mouse.column, y: mouse.row };
        let hit = scene.drawn.hits.iter().rev().find(|(area, _)| area.contains(spot)).map(|(_, hit)| *hit);
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => {
                self.message = None;
                if self.help.take().is_some() {
                    return true;
                }
                let Some(hit) = hit else { return false };
                self.click(hit, mouse.column, scene);
            }
            MouseEventKind::Drag(MouseButton::Left) if self.is_scrubbing => self.scrub(mouse.column, scene),
            MouseEventKind::Up(_) => {
                self.is_scrubbing = false;
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
        if let Some(page) = self.help {
            self.help = Some(self.scrolled(page, by));
            return;
        }
        match hit {
            Some(Hit::Scrubber) => {
                let step = (scene.range.1.saturating_sub(scene.range.0) / 100).max(Bucket::NANOS);
                let step = if by < 0 { step.saturating_neg() } else { step };
                self.playback.go_to(self.playback.now(scene).saturating_add(step), scene);
            }
            Some(Hit::Lane(_)) => self.zoom(by < 0, scene),
            Some(Hit::Row(list, _) | Hit::Pane(list)) => {
                self.navigation.focus_on(list);
                self.vertical(by, scene);
            }
            _ => self.vertical(by, scene),
        }
    }

    fn click(&mut self, hit: Hit, column: u16, scene: &Scene<'_>) {
        match hit {
            Hit::Tab(screen) => self.show(screen),
            Hit::Help => self.help = Some(self.help.unwrap_or(HelpPage::Keys(0))),
            Hit::Pane(list) => drop(self.navigation.focus_on(list)),
            Hit::Row(list, row) => {
                let was_focused = self.navigation.focus_on(list);
                let was_here = self.cursor(list) == row;
                self.navigation.set_cursor(list, row);
                if self.screen() == Screen::Overview || was_focused && was_here {
                    self.open(scene);
                }
            }
            Hit::Head(list, title) => self.sort_by(list, title),
            Hit::Node(node) => self.flame.click(&scene.snapshot.flame, node),
            Hit::Lane(row) => {
                self.navigation.focus_on(List::Lanes);
                self.navigation.set_cursor(List::Lanes, row);
                self.lens.lane = scene.snapshot.timeline.lanes.get(row).map(|lane| lane.tid);
                let mark = scene.drawn.lanes.map(|(area, from, to)| {
                    (instant(area, from, to, column), instant(area, from, to, column.saturating_add(1)))
                });
                if self.lens.mark.is_some() && self.lens.mark == mark {
                    return self.open(scene);
                }
                self.lens.mark = mark;
            }
            Hit::Scrubber => {
                self.is_scrubbing = true;
                self.scrub(column, scene);
            }
        }
    }

    fn scrub(&mut self, column: u16, scene: &Scene<'_>) {
        if let Some((area, from, to)) = scene.drawn.scrubber {
            self.playback.pause();
            // The column's end, so that the last column is the session's end.
            self.playback.go_to(instant(area, from, to, column.saturating_add(1).max(area.x)), scene);
        }
    }
}

/// The instant at a column's left edge.
fn instant(area: Rect, from: i64, to: i64, column: u16) -> i64 {
    let (at, width) = (i128::from(column.saturating_sub(area.x).min(area.width)), i128::from(area.width.max(1)));
    let dur = i128::from(to.saturating_sub(from));
    i64::try_from(i128::from(from) + dur * at / width).unwrap_or(to)
}
