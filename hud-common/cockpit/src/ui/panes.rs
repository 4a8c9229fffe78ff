//! Sessions side by side: a source, a state and a snapshot each, and one clock for all.
//!
//! Input applies to the active pane; the others follow it in time, window, screen, order and filter. Each shows its own
//! time: the shared one plus its shift. All scrubbers span the same time range, from the first instant of any session to the
//! last of any. Invariant: there is at least one pane, and the active one is among them.

use std::{
    sync::mpsc::{Receiver, TryRecvError},
    time::Duration,
};

use ratatui::{buffer::Buffer, layout::Rect};

use crate::{Mode, Query, Snapshot, Source, SourceError, Tick};

use super::{
    chrome,
    frame::draw,
    state::{Drawn, Input, Scene, State, Strip},
    theme::Theme,
};

/// Minimum width of a pane, in columns.
const LEAST_COLUMNS: u16 = 80;

/// A session to show.
pub struct Seat<'a> {
    /// Its name, if there are several.
    pub label: String,
    /// Its data.
    pub source: Box<dyn Source + 'a>,
    /// Its own time minus the shared time (ns): 0 to align several by the clock, the distance of their starts to align them by
    /// their starts. That of the first must be 0.
    pub shift: i64,
    /// As [`super::Options::overview`].
    pub overview: Option<Receiver<Vec<Tick>>>,
}

impl<'a> Seat<'a> {
    /// A session by itself.
    pub fn new(source: impl Source + 'a) -> Self {
        Seat { label: String::new(), source: Box::new(source), shift: 0, overview: None }
    }
}

/// A session that is shown.
struct Pane<'a> {
    label: String,
    source: Box<dyn Source + 'a>,
    shift: i64,
    overview: Option<Receiver<Vec<Tick>>>,
    state: State,
    query: Query,
    snapshot: Snapshot,
    strip: Strip,
    drawn: Drawn,
    /// Its area; empty if there was no room.
    area: Rect,
    failure: Option<String>,
    is_fresh: bool,
}

impl Pane<'_> {
    fn is_live(&self) -> bool {
        matches!(self.snapshot.mode, Mode::Live { .. } | Mode::Starting { .. })
    }

    fn look(&mut self) {
        let wanted = self.state.query();
        match self.source.snapshot(&wanted) {
            Ok(new) => {
                self.snapshot = new;
                self.strip.learn_from(&self.snapshot);
                self.failure = None;
            }
            Err(error) => self.failure = Some(["failed to ", &error.to_string()].concat()),
        }
        (self.query, self.is_fresh) = (wanted, false);
    }
}

/// All panes.
pub(super) struct Panes<'a> {
    panes: Vec<Pane<'a>>,
    active: usize,
}

impl<'a> Panes<'a> {
    /// Opens the sessions with their first snapshots. There must be at least one.
    pub(super) fn open(seats: Vec<Seat<'a>>, state: &State) -> Result<Self, SourceError> {
        let mut panes = Vec::with_capacity(seats.len());
        for mut seat in seats {
            let mut own = state.clone();
            own.move_by(seat.shift);
            let query = own.query();
            let snapshot = seat.source.snapshot(&query)?;
            let mut strip = Strip::default();
            strip.learn_from(&snapshot);
            panes.push(Pane {
                label: seat.label,
                source: seat.source,
                shift: seat.shift,
                overview: seat.overview,
                state: own,
                query,
                snapshot,
                strip,
                drawn: Drawn::default(),
                area: Rect::default(),
                failure: None,
                is_fresh: false,
            });
        }
        if panes.is_empty() {
            return Err(SourceError("find a session to show".into()));
        }
        let mut panes = Panes { panes, active: 0 };
        panes.agree();
        Ok(panes)
    }

    /// The state that keys act on.
    pub(super) fn state(&mut self) -> Option<&mut State> {
        self.panes.get_mut(self.active).map(|pane| &mut pane.state)
    }

    /// Whether any session is being recorded.
    pub(super) fn is_live(&self) -> bool {
        self.panes.iter().any(Pane::is_live)
    }

    /// Whether all sessions are, and there is any.
    pub(super) fn are_all_live(&self) -> bool {
        self.is_live() && self.panes.iter().all(Pane::is_live)
    }

    /// Whether a source has nothing to show, and never will.
    pub(super) fn is_over(&self) -> bool {
        self.panes.iter().any(|pane| pane.source.is_over())
    }

    pub(super) fn is_playing(&self) -> bool {
        self.panes.get(self.active).is_some_and(|pane| pane.state.is_playing())
    }

    /// Whether any session has new data.
    pub(super) fn is_fresh(&self) -> bool {
        self.panes.iter().any(|pane| pane.is_fresh)
    }

    /// The time range of all sessions, by the shared clock.
    fn range(&self) -> (i64, i64) {
        let own = |pane: &Pane<'_>| {
            let (from, to) = pane.source.range();
            (from.saturating_sub(pane.shift), to.saturating_sub(pane.shift))
        };
        let all = self.panes.iter().map(own).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        all.unwrap_or_default()
    }

    /// Acts on an input. Returns whether the screen may have changed.
    pub(super) fn apply(&mut self, input: &Input) -> bool {
        if let Input::Mouse(mouse) = input
            && mouse.kind.is_down_or_scroll()
        {
            let spot = ratatui::layout::Position { x: mouse.column, y: mouse.row };
            self.active = self.panes.iter().position(|pane| pane.area.contains(spot)).unwrap_or(self.active);
        }
        let (from, to) = self.range();
        let Some(pane) = self.panes.get_mut(self.active) else { return false };
        let range = (from.saturating_add(pane.shift), to.saturating_add(pane.shift));
        let scene = Scene { snapshot: &pane.snapshot, drawn: &pane.drawn, range, strip: &pane.strip };
        let is_changed = pane.state.apply(input, &scene);
        let by = pane.state.take_turn();
        self.agree();
        if by != 0 {
            let count = self.panes.len();
            self.active = self.active.saturating_add(count).saturating_add_signed(by) % count.max(1);
        }
        is_changed
    }

    /// Makes the others follow the active one.
    fn agree(&mut self) {
        if self.panes.len() < 2 {
            return;
        }
        let (_, to) = self.range();
        let Some(active) = self.panes.get(self.active) else { return };
        let (leader, shift) = (active.state.clone(), active.shift);
        for (at, pane) in self.panes.iter_mut().enumerate() {
            if at != self.active {
                pane.state.follow(&leader, pane.shift.saturating_sub(shift));
            }
            // "The end" is each session's own; on the shared clock it is that of the last.
            if !pane.is_live() {
                pane.state.hold_at_end(to.saturating_add(pane.shift));
            }
        }
    }

    /// Receives available parts of the overviews. Returns whether there were any.
    pub(super) fn take_overviews(&mut self) -> bool {
        let mut has_any = false;
        for pane in &mut self.panes {
            let Some(parts) = &pane.overview else { continue };
            match parts.try_recv() {
                Ok(ticks) => {
                    pane.strip.learn(&ticks);
                    has_any = true;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => pane.overview = None,
            }
        }
        has_any
    }

    /// Receives the complete overviews, waiting for them.
    pub(super) fn take_all_overviews(&mut self) {
        for pane in &mut self.panes {
            if let Some(parts) = pane.overview.take() {
                parts.iter().for_each(|ticks| pane.strip.learn(&ticks));
            }
        }
    }

    /// Waits for new data, for about `most` at most. Returns whether there is any to show.
    pub(super) fn wait(&mut self, most: Duration) -> bool {
        let share = most / u32::try_from(self.panes.len()).unwrap_or(u32::MAX).max(1);
        let mut is_new = false;
        for pane in &mut self.panes {
            let has_come = pane.source.wait(share).unwrap_or_else(|error| {
                let words = ["failed to ", &error.to_string()].concat();
                let is_new = pane.failure.as_ref() != Some(&words);
                pane.failure = Some(words);
                is_new
            });
            // A recorded session reads data of any instant in the background.
            pane.is_fresh |= has_come && (pane.state.at().is_none() || !pane.is_live());
            is_new |= has_come;
        }
        is_new
    }

    /// Updates the snapshots of sessions with new data or another query, or of all.
    pub(super) fn look(&mut self, all: bool) {
        for pane in &mut self.panes {
            if all || pane.is_fresh || pane.state.query() != pane.query {
                pane.look();
            }
        }
    }

    /// Draws the panes, as many side by side as there is room for.
    pub(super) fn draw(&mut self, theme: &Theme, buf: &mut Buffer) {
        let area = buf.area;
        let (from, to) = self.range();
        let count = self.panes.len();
        let shown = usize::from((area.width / LEAST_COLUMNS).max(1)).min(count);
        // The active one is among those that are shown.
        let first = (self.active + 1).saturating_sub(shown);
        let wide = area.width / u16::try_from(shown).unwrap_or(1).max(1);
        let mut x = area.x;
        for (at, pane) in self.panes.iter_mut().enumerate() {
            if at < first || at >= first + shown {
                pane.area = Rect::default();
                continue;
            }
            let is_last = at + 1 == first + shown;
            let mut place = Rect { x, width: if is_last { area.right() - x } else { wide - 1 }, ..area };
            x += wide;
            pane.area = place;
            if count > 1 && place.height > 3 {
                chrome::label(theme, buf, Rect { height: 1, ..place }, (at, count), &pane.label, at == self.active);
                place = Rect { y: place.y + 1, height: place.height - 1, ..place };
            }
            let range = (from.saturating_add(pane.shift), to.saturating_add(pane.shift));
            let scene = Scene { snapshot: &pane.snapshot, drawn: &pane.drawn, range, strip: &pane.strip };
            pane.drawn = draw(&pane.state, &scene, theme, pane.failure.as_deref(), buf, place);
        }
    }
}

/// Mouse events that select a pane.
trait Meaning {
    fn is_down_or_scroll(&self) -> bool;
}

impl Meaning for crossterm::event::MouseEventKind {
    fn is_down_or_scroll(&self) -> bool {
        use crossterm::event::MouseEventKind::{Down, ScrollDown, ScrollUp};
        matches!(self, Down(_) | ScrollDown | ScrollUp)
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

    use super::*;
    use crate::{Names, Thresholds, View};
    use std::collections::BTreeMap;

    const SECOND: i64 = 1_000_000_000;

    /// A session without rows, with a start and an end.
    struct Empty(i64, i64);

    impl Source for Empty {
        fn wait(&mut self, _: Duration) -> Result<bool, SourceError> {
            Ok(false)
        }

        fn snapshot(&mut self, query: &Query) -> Result<Snapshot, SourceError> {
            Ok(Snapshot::of(View {
                query,
                at: query.at.unwrap_or(self.1),
                partials: &BTreeMap::new(),
                total: None,
                names: &mut Names::default(),
                detail: None,
                session: crate::SessionFacts { start: self.0, ..Default::default() },
                mode: Mode::Replay,
                coverage_until: None,
                read_from: None,
            }))
        }

        fn range(&self) -> (i64, i64) {
            (self.0, self.1)
        }
    }

    fn two(shift: i64) -> Panes<'static> {
        let seat = |from: i64, to: i64, shift: i64, label: &str| Seat {
            label: label.into(),
            shift,
            ..Seat::new(Empty(from * SECOND, to * SECOND))
        };
        let state = State::new(None, 10 * SECOND, Thresholds::default());
        Panes::open(vec![seat(100, 160, 0, "before"), seat(1_000, 1_090, shift, "after")], &state).unwrap()
    }

    fn press(panes: &mut Panes<'_>, keys: &str) {
        for key in keys.chars() {
            let code = if key == '⏎' { KeyCode::Enter } else { KeyCode::Char(key) };
            panes.apply(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        panes.look(false);
    }

    fn at(panes: &Panes<'_>) -> Vec<Option<i64>> {
        panes.panes.iter().map(|pane| pane.state.query().at.map(|at| at / SECOND)).collect()
    }

    fn screen(panes: &mut Panes<'_>, columns: u16) -> (Buffer, Vec<String>) {
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 24));
        panes.draw(&Theme::usual(), &mut buffer);
        let line = |y: u16| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        let lines = (0..24).map(line).collect();
        (buffer, lines)
    }

    #[test]
    fn panes_share_one_clock() {
        // From their starts on.
        let mut panes = two(900 * SECOND);
        assert_eq!(at(&panes), [Some(190), Some(1_090)], "the end of the longer one");
        press(&mut panes, "g+20s⏎");
        assert_eq!(at(&panes), [Some(120), Some(1_020)]);
        press(&mut panes, "2-}");
        assert_eq!(panes.active, 1);
        press(&mut panes, "g+30s⏎");
        assert_eq!(at(&panes), [Some(130), Some(1_030)]);
        let states: Vec<_> = panes.panes.iter().map(|p| (p.state.screen(), p.state.query().window)).collect();
        assert_eq!(states[0], states[1]);
        press(&mut panes, " ");
        panes.apply(&Input::Tick(SECOND / 2));
        panes.apply(&Input::Tick(SECOND / 2));
        assert_eq!(at(&panes), [Some(131), Some(1_031)]);

        // As they ran: one long after the other.
        let mut panes = two(0);
        press(&mut panes, "g1000s⏎");
        assert_eq!(at(&panes), [Some(1_090), Some(1_090)], "no later than the end of the last");
    }

    #[test]
    fn shows_as_many_panes_as_there_is_room_for() {
        let mut panes = two(900 * SECOND);
        let (_, lines) = screen(&mut panes, 200);
        assert!(lines[0].contains("1/2 before") && lines[0].contains("2/2 after"), "{:?}", lines[0]);
        assert_eq!(lines[1].matches("NO DATA").count(), 2, "{:?}", lines[1]);
        let (_, lines) = screen(&mut panes, 100);
        assert!(lines[0].contains("1/2 before") && !lines[0].contains("after"), "{:?}", lines[0]);
        press(&mut panes, "}");
        let (_, lines) = screen(&mut panes, 100);
        assert!(lines[0].contains("2/2 after") && !lines[0].contains("before"), "{:?}", lines[0]);
    }

    #[test]
    fn mouse_acts_on_the_pane_below_it() {
        let mut panes = two(900 * SECOND);
        screen(&mut panes, 200);
        let click = |panes: &mut Panes<'_>, column, row| {
            let kind = MouseEventKind::Down(MouseButton::Left);
            panes.apply(&Input::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
        };
        // The scrubber of the second, at its middle: of ninety seconds.
        click(&mut panes, 149, 22);
        assert_eq!(panes.active, 1);
        assert_eq!(at(&panes), [Some(145), Some(1_045)]);
        click(&mut panes, 1, 5);
        assert_eq!(panes.active, 0);
    }
}
