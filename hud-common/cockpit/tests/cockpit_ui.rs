//! Every panel as text at common sizes of terminals, and random inputs at random sizes.
//!
//! `tests/screens/*.txt` are to be reviewed as screens. `SNAPSHOTS=overwrite` rewrites them.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use hud_cockpit::{
    Snapshot, TaskId, Thresholds,
    ui::{Depth, Drawn, Input, Options, Scene, Screen, State, Strip, Theme, draw},
};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, layout::Rect, style::Color};
use snapbox::{Data, data::DataFormat};

#[path = "cockpit_ui/fixture.rs"]
mod fixture;
use fixture::{AT, START};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const RANGE: (i64, i64) = (START, AT);

fn theme() -> Theme {
    Theme::named("hud", Depth::True, false).unwrap()
}

fn state() -> State {
    State::new(None, 10_000_000_000, Thresholds::default())
}

/// A cockpit without a terminal and without a source: input is applied, then a frame is drawn.
struct Cockpit {
    snapshot: Snapshot,
    state: State,
    drawn: Drawn,
    strip: Strip,
    theme: Theme,
    terminal: Terminal<TestBackend>,
}

impl Cockpit {
    fn new(snapshot: Snapshot, (columns, rows): (u16, u16)) -> Self {
        let mut strip = Strip::default();
        strip.learn_from(&snapshot);
        let terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        let mut cockpit =
            Cockpit { snapshot, state: state(), drawn: Drawn::default(), strip, theme: theme(), terminal };
        cockpit.draw();
        cockpit
    }

    fn draw(&mut self) {
        let scene = Scene { snapshot: &self.snapshot, drawn: &self.drawn, range: RANGE, strip: &self.strip };
        let mut drawn = Drawn::default();
        self.terminal
            .draw(|frame| {
                let area = frame.area();
                drawn = draw(&self.state, &scene, &self.theme, None, frame.buffer_mut(), area);
            })
            .unwrap();
        self.drawn = drawn;
    }

    fn apply(&mut self, input: &Input) {
        let scene = Scene { snapshot: &self.snapshot, drawn: &self.drawn, range: RANGE, strip: &self.strip };
        self.state.apply(input, &scene);
        self.draw();
    }

    fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '⏎' => KeyCode::Enter,
                '⇥' => KeyCode::Tab,
                '⌫' => KeyCode::Backspace,
                '⎋' => KeyCode::Esc,
                key => KeyCode::Char(key),
            };
            self.apply(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
    }

    fn mouse(&mut self, kind: MouseEventKind, (column, row): (u16, u16)) {
        self.apply(&Input::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
    }

    fn click(&mut self, at: (u16, u16)) {
        self.mouse(MouseEventKind::Down(MouseButton::Left), at);
        self.mouse(MouseEventKind::Up(MouseButton::Left), at);
    }

    fn screen(&self) -> String {
        text(self.terminal.backend().buffer())
    }

    /// The position of a text.
    fn find(&self, wanted: &str) -> (u16, u16) {
        let screen = self.screen();
        for (row, line) in screen.lines().enumerate() {
            if let Some(at) = line.find(wanted) {
                let column = line[..at].chars().count();
                return (u16::try_from(column).unwrap(), u16::try_from(row).unwrap());
            }
        }
        panic!("{wanted:?} is not on the screen:\n{screen}");
    }
}

/// Cells as text, without the second cell of wide characters.
fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut skip = 0;
        for x in buffer.area.left()..buffer.area.right() {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Every screen, each under its name.
fn screens(snapshot: &Snapshot, size: (u16, u16)) -> String {
    let mut out = String::new();
    let mut show = |name: &str, cockpit: &Cockpit| {
        out.push_str(&format!("==== {name}\n{}", cockpit.screen()));
    };
    for screen in Screen::ALL {
        let mut cockpit = Cockpit::new(snapshot.clone(), size);
        cockpit.state.show(screen);
        cockpit.draw();
        show(screen.name(), &cockpit);
    }
    for (name, keys) in [
        ("hotspots by line", "2⇥"),
        ("hotspots by task type", "2⇥⇥"),
        ("blocking, newest", "3⇥"),
        ("blocking, worst", "3⇥⇥jj"),
        ("flame, zoomed", "6jjj⏎jl"),
        ("help", "?"),
        ("reading the overview", "??"),
        ("reading tasks", "4??"),
        ("tasks, each", "4⇥"),
        ("waiting, each", "w⇥j"),
        ("filter", "4⇥/check"),
    ] {
        let mut cockpit = Cockpit::new(snapshot.clone(), size);
        cockpit.press(keys);
        show(name, &cockpit);
    }
    let mut cockpit = Cockpit::new(snapshot.clone(), size);
    cockpit.state.show_task(TaskId(17));
    cockpit.draw();
    show("task", &cockpit);
    cockpit.press("⇥");
    show("task, wakers", &cockpit);
    out
}

fn check(name: &str, snapshot: &Snapshot) {
    for size in SIZES {
        let shown = screens(snapshot, size);
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/screens/{name}-{}x{}.txt", size.0, size.1));
        snapbox::assert_data_eq!(shown, Data::read_from(&path, Some(DataFormat::Text)).raw());
    }
}

#[test]
fn shows_a_busy_program() {
    check("rich", &fixture::rich(fixture::decent));
}

#[test]
fn keeps_hostile_names_in_their_cells() {
    let snapshot = fixture::rich(fixture::hostile);
    check("hostile", &snapshot);
    for size in SIZES {
        let shown = screens(&snapshot, size);
        for line in shown.lines().filter(|line| !line.starts_with("====")) {
            assert!(!line.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{line:?}");
            assert!(unicode_width::UnicodeWidthStr::width(line) <= usize::from(size.0), "{line:?}");
        }
    }
}

#[test]
fn distinguishes_no_data_from_no_findings() {
    check("empty", &fixture::empty());
    let cockpit = Cockpit::new(fixture::empty(), (80, 24));
    assert!(cockpit.screen().starts_with(" NO DATA  nothing was recorded"), "{}", cockpit.screen());
}

#[test]
fn shows_status_and_culprit_first() {
    for size in SIZES {
        let cockpit = Cockpit::new(fixture::rich(fixture::decent), size);
        let screen = cockpit.screen();
        let first = screen.lines().next().unwrap();
        for part in ["WARNING", "checkout held worker w0 for 312 ms, asleep in ", "Connection::run"] {
            assert!(first.contains(part), "{first}");
        }
        let marks = screen.lines().nth(1).unwrap();
        for mark in ["LIVE", "drops 1,204", "hud 2.4 %"] {
            assert!(marks.contains(mark), "{marks}");
        }
        // Of streams that were recorded in part, figures are marked, and one line says why.
        for part in
            ["~45,000", "≥longest", "≥ at least, ~ estimate: polls 62.0 % recorded (budget), wakes not recorded"]
        {
            assert!(screen.contains(part), "{screen}");
        }
        let buffer = cockpit.terminal.backend().buffer();
        assert_eq!(buffer[(1, 0)].bg, Color::Rgb(255, 82, 72));
    }
}

#[test]
fn enter_opens_rows_and_backspace_returns() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("3⏎");
    assert_eq!((cockpit.state.screen(), cockpit.state.query().task), (Screen::Task, Some(TaskId(17))));
    cockpit.press("⌫");
    assert_eq!(cockpit.state.screen(), Screen::Blocking);
    cockpit.press("⌫⌫⌫");
    assert_eq!(cockpit.state.screen(), Screen::Overview);
    cockpit.press("⇥⇥⏎⏎");
    assert_eq!(cockpit.state.screen(), Screen::Flame);
    cockpit.press("jjj⏎");
    assert!(cockpit.screen().contains("shop::report::render_monthly"), "{}", cockpit.screen());
    cockpit.press("⌫⌫⎋⎋");
    assert!(!cockpit.state.has_quit());
    cockpit.press("q");
    assert!(cockpit.state.has_quit());
}

#[test]
fn filters_by_typed_text() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("2/ORDERS.rs⏎");
    assert_eq!(cockpit.state.query().filter.as_deref(), Some("ORDERS.rs"));
    assert!(!cockpit.screen().contains("hyper::proto"), "{}", cockpit.screen());
    cockpit.press("⎋");
    assert_eq!(cockpit.state.query().filter, None);
    assert!(cockpit.screen().contains("hyper::proto"));
    cockpit.press("/qqq⎋");
    assert_eq!(cockpit.state.query().filter, None);
    assert!(!cockpit.state.has_quit());
}

#[test]
fn the_mouse_opens_rows_screens_and_instants() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.click(cockpit.find("4 tasks"));
    assert_eq!(cockpit.state.screen(), Screen::Tasks);
    cockpit.click(cockpit.find("each task"));
    let row = cockpit.find(" 1 …db::");
    cockpit.click(row);
    assert_eq!(cockpit.state.screen(), Screen::Tasks);
    cockpit.click(row);
    assert_eq!((cockpit.state.screen(), cockpit.state.query().task), (Screen::Task, Some(TaskId(1))));
    cockpit.mouse(MouseEventKind::Down(MouseButton::Left), (0, 37));
    assert_eq!(cockpit.state.query().at, Some(START + (AT - START) / 120));
    cockpit.mouse(MouseEventKind::Drag(MouseButton::Left), (59, 3));
    assert_eq!(cockpit.state.query().at, Some(START + (AT - START) / 2));
    cockpit.mouse(MouseEventKind::Up(MouseButton::Left), (59, 3));
    cockpit.mouse(MouseEventKind::Drag(MouseButton::Left), (80, 3));
    assert_eq!(cockpit.state.query().at, Some(START + (AT - START) / 2));
}

#[test]
fn a_click_on_a_heading_sorts_by_it() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("8");
    cockpit.click(cockpit.find("busy blocked"));
    assert!(cockpit.screen().contains("sorted by busy"), "{}", cockpit.screen());
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r0 w1", "r0 w2", "r0 w0", "r0 w3", "r? w2"]);
    cockpit.click(cockpit.find("busy blocked"));
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r? w2", "r0 w3", "r0 w0", "r0 w2", "r0 w1"], "reversed");
    // The source sorts tasks.
    cockpit.press("4⇥");
    cockpit.click(cockpit.find("≥busy"));
    assert!(cockpit.state.query().is_reversed, "it was sorted by busy time");
    cockpit.click(cockpit.find("blocked state"));
    assert_eq!(cockpit.state.query().order, hud_cockpit::TaskOrder::Blocked);
    assert!(!cockpit.state.query().has_states);
    cockpit.click(cockpit.find("state "));
    assert_eq!(cockpit.state.query().order, hud_cockpit::TaskOrder::Idle);
    assert!(cockpit.state.query().has_states, "tasks that were not polled in the window are listed too");
}

#[test]
fn acknowledged_findings_are_dim_until_they_get_worse() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    let first = |cockpit: &Cockpit| cockpit.screen().lines().next().unwrap().to_string();
    assert!(first(&cockpit).starts_with(" WARNING  shop::orders::checkout held"));
    cockpit.press("a");
    assert!(first(&cockpit).starts_with(" CAUTION  worker w0 is asleep"), "{}", first(&cockpit));
    assert!(cockpit.screen().contains("4 found, 1 acknowledged"), "{}", cockpit.screen());
    cockpit.press("aaa");
    assert_eq!(first(&cockpit), " WARNING  all 4 findings are acknowledged (A shows them again)");
    assert_eq!(cockpit.terminal.backend().buffer()[(1, 0)].bg, Color::Reset, "no lamp");
    cockpit.press("a");
    assert!(cockpit.screen().contains("all findings are acknowledged"));
    // It lasts more than twice as long.
    cockpit.snapshot.findings[0].evidence[0].value = hud_cockpit::Value::Nanos(700_000_000);
    cockpit.draw();
    assert!(first(&cockpit).starts_with(" WARNING  shop::orders::checkout held"), "{}", first(&cockpit));
    cockpit.press("aA");
    assert!(cockpit.screen().contains("4 found ─"), "{}", cockpit.screen());
}

#[test]
fn shows_the_steps_of_the_start() {
    let mut snapshot = fixture::empty();
    let steps = [("the recorder has started", true), ("attaching", false), ("first data", false)];
    let steps = steps.map(|(step, is_done)| (step.into(), is_done)).to_vec();
    snapshot.mode = hud_cockpit::Mode::Starting { steps, since: AT - 2_500_000_000 };
    for size in SIZES {
        let cockpit = Cockpit::new(snapshot.clone(), size);
        assert!(cockpit.screen().starts_with(" STARTING  attaching"), "{}", cockpit.screen());
        for line in ["STARTING 2.50 s", "✓ the recorder has started", "▸ attaching", "· first data"] {
            assert!(cockpit.screen().contains(line), "{line}: {}", cockpit.screen());
        }
    }
    let mut cockpit = Cockpit::new(snapshot, (80, 24));
    cockpit.press("q");
    assert!(cockpit.state.has_quit());
}

#[test]
fn one_clock_for_all_times() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("3⇥");
    assert!(cockpit.screen().contains("+0:42.327") && cockpit.screen().contains(" +0:42.5 "), "{}", cockpit.screen());
    cockpit.press("T");
    assert!(cockpit.screen().contains("02:30:42.327") && cockpit.screen().contains("02:30:42.5 UTC"));
    assert!(cockpit.screen().contains("'02:30:05"), "the axis: {}", cockpit.screen());
    cockpit.press("TT");
    assert!(cockpit.screen().contains("'+0:05"));
}

#[test]
fn opens_what_a_task_waits_for() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("w");
    assert!(cockpit.state.query().has_states);
    for part in ["1,231 suspended", "Mutex<shop::Ledger>", "of them wait for each other in a cycle", "src/orders.rs:58"]
    {
        assert!(cockpit.screen().contains(part), "{part}: {}", cockpit.screen());
    }
    cockpit.press("⏎");
    assert_eq!((cockpit.state.screen(), cockpit.state.query().task), (Screen::Task, Some(TaskId(0))));
    assert!(cockpit.state.query().has_states);
    assert!(cockpit.screen().contains("suspended for at least 14.2 s"), "{}", cockpit.screen());
}

#[test]
fn an_empty_waiting_screen_says_why() {
    let mut snapshot = fixture::rich(fixture::decent);
    snapshot.waiting = hud_cockpit::Waiting::default();
    let mut cockpit = Cockpit::new(snapshot, (80, 24));
    cockpit.press("w");
    assert!(cockpit.screen().contains("was not read up to this instant (--state off, or no"), "{}", cockpit.screen());
    cockpit.snapshot.session.start = AT - 500_000_000;
    cockpit.draw();
    assert!(cockpit.screen().contains("the tasks have not been read yet"), "{}", cockpit.screen());
    cockpit.snapshot.session.state = Some("off".into());
    cockpit.draw();
    assert!(cockpit.screen().contains("recorded with --state off"), "{}", cockpit.screen());
    cockpit.snapshot.waiting.gaps = Some("the state of tasks is not read: no permission".into());
    cockpit.draw();
    assert!(cockpit.screen().contains("not read: no permission"), "{}", cockpit.screen());
    cockpit.snapshot.waiting.ts = Some(AT - 3_200_000_000);
    cockpit.draw();
    assert!(cockpit.screen().contains("no task was suspended when the tasks were last read 3.20 s ago"));
}

#[test]
fn a_search_highlights_boxes_of_the_flame_graph() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("6");
    let (x, y) = cockpit.find("serde_json::ser::to_vec");
    let ground = |cockpit: &Cockpit| cockpit.terminal.backend().buffer()[(x, y)].bg;
    let (is, own) = (ground(&cockpit), cockpit.find("shop::report::render_monthly "));
    assert_ne!(is, cockpit.terminal.backend().buffer()[own].bg, "a dependency, and own code");
    cockpit.press("/serde⏎");
    assert_eq!(ground(&cockpit), Color::Rgb(255, 191, 64));
    assert!(cockpit.screen().contains("27.7 % of 9.00 s of CPU matches"), "{}", cockpit.screen());
    cockpit.press("o");
    assert_eq!(cockpit.state.query().flame_kind, hud_cockpit::FlameKind::OffCpu);
    cockpit.press("f");
    assert!(cockpit.state.query().is_unfolded);
}

#[test]
fn a_click_in_the_timeline_marks_a_column() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("5");
    let (_, row) = cockpit.find("w1 ");
    let asleep = cockpit.find("▓");
    let at = (asleep.0, row);
    cockpit.click(at);
    let title = cockpit.find("AT THE MARK");
    assert!(title.1 > row);
    let wide = cockpit.state.query().window;
    cockpit.press("+++");
    assert_eq!(cockpit.state.query().window, wide, "the timeline zooms inside the window");
    assert!(
        cockpit.screen().contains("TIMELINE  1.25 s") || cockpit.screen().contains("1.25 s from"),
        "{}",
        cockpit.screen()
    );
}

#[test]
fn time_keys_move_through_the_session() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    let at = |cockpit: &Cockpit| cockpit.state.query().at.map(|at| (at - START) / 1_000_000);
    cockpit.press("N");
    assert_eq!(at(&cockpit), Some(32_500 + 7_100), "the warning's first bucket");
    cockpit.press("N");
    assert_eq!(at(&cockpit), Some(32_500 + 3_100), "the caution before it");
    cockpit.press("n");
    assert_eq!(at(&cockpit), Some(32_500 + 7_100));
    cockpit.press("b,,B");
    assert_eq!(at(&cockpit), Some(32_500 + 7_100), "back at the bookmark");
    cockpit.press("g+12.5s⏎");
    assert_eq!(at(&cockpit), Some(12_500));
    for (typed, why) in [("25:61:99", "not a time"), ("+9999s", "outside the session")] {
        cockpit.press(&format!("g{typed}⏎"));
        assert!(cockpit.screen().contains(&format!("{typed}_  {why}")), "{}", cockpit.screen());
        cockpit.press("⎋");
        assert_eq!(at(&cockpit), Some(12_500), "it stays there");
    }
    cockpit.press("G");
    assert_eq!(at(&cockpit), None);
    cockpit.press(" ");
    assert_eq!(at(&cockpit), Some(42_500), "held");
    cockpit.snapshot.at -= 3_000_000_000;
    cockpit.draw();
    assert!(cockpit.screen().contains("HELD 3.00 s ago"), "{}", cockpit.screen());
    cockpit.snapshot.at = AT;
    cockpit.press(" ");
    assert_eq!(at(&cockpit), None, "live again");
}

#[test]
fn replay_plays_at_its_speed_and_stops_at_the_end() {
    let mut snapshot = fixture::rich(fixture::decent);
    snapshot.mode = hud_cockpit::Mode::Replay;
    let mut cockpit = Cockpit::new(snapshot, (80, 24));
    cockpit.press("g10⏎ ");
    assert!(cockpit.state.is_playing());
    cockpit.apply(&Input::Tick(100_000_000));
    assert_eq!(cockpit.state.query().at, Some(START + 10_100_000_000));
    cockpit.press("]]");
    cockpit.apply(&Input::Tick(100_000_000));
    assert_eq!(cockpit.state.query().at, Some(START + 10_600_000_000));
    assert!(cockpit.screen().contains("REPLAY 5x"), "{}", cockpit.screen());
    for _ in 0..1_000 {
        cockpit.apply(&Input::Tick(100_000_000));
    }
    assert!(!cockpit.state.is_playing());
    assert_eq!(cockpit.state.query().at, Some(AT));
}

#[test]
fn shows_which_streams_were_not_recorded() {
    let mut snapshot = fixture::rich(fixture::decent);
    snapshot.findings.clear();
    snapshot.status = hud_cockpit::Status::Normal;
    snapshot.blocking = Default::default();
    snapshot.wake_delay = Default::default();
    let mut cockpit = Cockpit::new(snapshot, (120, 40));
    let first = cockpit.screen().lines().next().unwrap().to_string();
    assert_eq!(first, " NORMAL  no threshold is exceeded (recorded: wakes 0.0 % (budget))");
    assert!(cockpit.screen().contains("no task held its worker (recorded: polls 62.0 % (budget))"));
    cockpit.press("7");
    assert!(cockpit.screen().contains("wakes were not recorded in this window (budget)"), "{}", cockpit.screen());
    cockpit.snapshot.coverage.unread = 3_000_000_000;
    cockpit.draw();
    assert!(cockpit.screen().contains("unread 3.00 s"), "{}", cockpit.screen());
    assert!(cockpit.screen().contains("none in this window; the window's first 3.00 s is unread"));
}

#[test]
fn selects_themes_by_name_and_locale() {
    let locale = |value: &'static str| move |name: &str| (name == "LANG").then(|| value.to_string());
    let options = |theme: &str| Options { theme: Some(theme.into()), ..Options::default() };
    for name in Theme::NAMES {
        assert!(options(name).theme(locale("C.UTF-8")).is_ok());
    }
    let error = options("neon").theme(locale("C.UTF-8")).unwrap_err().to_string();
    assert_eq!(error, "find a theme named \"neon\": there are hud, light, colorblind, mono");
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (80, 24));
    cockpit.theme = options("hud").theme(locale("C")).unwrap();
    cockpit.draw();
    assert!(cockpit.screen().is_ascii(), "{}", cockpit.screen());
}

/// A random generator with a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn cell(&mut self, n: u64) -> u16 {
        u16::try_from(self.below(n)).unwrap()
    }

    fn input(&mut self) -> Input {
        const KEYS: [KeyCode; 18] = [
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::Enter,
            KeyCode::Backspace,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::Delete,
            KeyCode::Insert,
            KeyCode::F(1),
            KeyCode::Null,
            KeyCode::Char('\u{202e}'),
        ];
        match self.below(20) {
            0..9 => {
                let key = char::from(u8::try_from(32 + self.below(95)).unwrap());
                let modifiers = if self.below(10) == 0 { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
                Input::Key(KeyEvent::new(KeyCode::Char(key), modifiers))
            }
            9..14 => {
                let at = usize::try_from(self.below(18)).unwrap();
                Input::Key(KeyEvent::new(KEYS[at], KeyModifiers::NONE))
            }
            14..18 => {
                let kind = match self.below(6) {
                    0 | 1 => MouseEventKind::Down(MouseButton::Left),
                    2 => MouseEventKind::Drag(MouseButton::Left),
                    3 => MouseEventKind::Up(MouseButton::Left),
                    4 => MouseEventKind::ScrollUp,
                    _ => MouseEventKind::ScrollDown,
                };
                let wide = if self.below(50) == 0 { 65_536 } else { 220 };
                let (column, row) = (self.cell(wide), self.cell(65));
                Input::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
            }
            18 => Input::Tick(i64::try_from(self.below(u64::MAX / 2)).unwrap()),
            _ => Input::Paste("日本\x1b[2J\n+1s".into()),
        }
    }
}

#[test]
fn accepts_any_sequence_of_inputs() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut replay = fixture::rich(fixture::hostile);
    replay.mode = hud_cockpit::Mode::Replay;
    let snapshots = [fixture::rich(fixture::decent), fixture::rich(fixture::hostile), fixture::empty(), replay];
    for round in 0..40_u64 {
        let at = usize::try_from(round % 4).unwrap();
        let mut cockpit = Cockpit::new(snapshots[at].clone(), (80, 24));
        for _ in 0..100 {
            if random.below(12) == 0 {
                let size = match random.below(4) {
                    0 => (1 + random.cell(4), 1 + random.cell(4)),
                    1 => (1 + random.cell(220), 1 + random.cell(3)),
                    _ => (1 + random.cell(220), 1 + random.cell(65)),
                };
                cockpit.terminal.backend_mut().resize(size.0, size.1);
            }
            if random.below(20) == 0 {
                // The snapshot changes between inputs.
                cockpit.snapshot = snapshots[usize::try_from(random.below(4)).unwrap()].clone();
            }
            let input = random.input();
            cockpit.apply(&input);
            let query = cockpit.state.query();
            assert!(query.window >= 100_000_000, "{input:?}");
            assert!(query.at.is_none_or(|at| (RANGE.0..=RANGE.1).contains(&at)), "{input:?}: {:?}", query.at);
        }
    }
}

#[test]
fn every_size_draws_every_screen() {
    for snapshot in [fixture::rich(fixture::hostile), fixture::empty()] {
        for (columns, rows) in [(1, 1), (2, 1), (1, 9), (3, 3), (5, 6), (7, 25), (20, 8), (40, 12), (79, 23), (300, 7)]
        {
            drop(screens(&snapshot, (columns, rows)));
        }
    }
}

#[test]
fn plain_terminals_get_ascii_without_colours() {
    let snapshot = fixture::rich(fixture::decent);
    for screen in Screen::ALL {
        let mut cockpit = Cockpit::new(snapshot.clone(), (120, 40));
        cockpit.theme = Theme::named("hud", Depth::None, true).unwrap();
        cockpit.state.show(screen);
        cockpit.draw();
        let buffer = cockpit.terminal.backend().buffer();
        for cell in buffer.content() {
            assert!(cell.symbol().is_ascii(), "{:?} on {}", cell.symbol(), screen.name());
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "on {}", screen.name());
        }
    }
}

/// CPU time of this thread (ns), which other load on the machine does not affect.
fn cpu_time() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Not a test: prints the CPU time of a frame.
/// `cargo test --release -p hud-cockpit --features ui --test cockpit_ui -- frame --nocapture`
#[test]
fn time_of_a_frame() {
    let area = Rect::new(0, 0, 200, 60);
    let theme = theme();
    let snapshots = [
        ("rich", fixture::rich(fixture::decent)),
        ("hostile", fixture::rich(fixture::hostile)),
        ("huge", fixture::huge()),
    ];
    for (name, snapshot) in snapshots {
        let mut strip = Strip::default();
        strip.learn_from(&snapshot);
        for screen in Screen::ALL {
            let mut state = state();
            state.show(screen);
            let before = Drawn::default();
            let scene = Scene { snapshot: &snapshot, drawn: &before, range: RANGE, strip: &strip };
            let mut times: Vec<i64> = (0..10)
                .map(|_| {
                    let began = cpu_time();
                    let mut buffer = Buffer::empty(area);
                    drop(draw(&state, &scene, &theme, None, &mut buffer, area));
                    (cpu_time() - began) / 1_000
                })
                .collect();
            times.sort_unstable();
            println!("{name:8} {:9} median {:6} us, most {:6} us", screen.name(), times[5], times[9]);
        }
    }
}

/// The first words of the rows below a heading of a table that starts with `head`.
fn rows(screen: &str, head: &str) -> Vec<String> {
    let lines = screen.lines().skip_while(|line| !line.trim_start().starts_with(head)).skip(1);
    let rows = lines.take_while(|line| !line.trim().is_empty() && !line.starts_with('─'));
    rows.map(|row| row.trim_start_matches(['▸', ' ']).chars().take(5).collect()).collect()
}

#[test]
fn sorts_the_list_in_focus_and_reverses_it() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    cockpit.press("8");
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r0 w0", "r0 w1", "r0 w2", "r0 w3", "r? w2"]);
    cockpit.press("s");
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r0 w1", "r0 w2", "r0 w0", "r0 w3", "r? w2"], "by busy");
    assert!(cockpit.screen().contains("sorted by busy"));
    cockpit.press("S");
    assert_eq!(
        rows(&cockpit.screen(), "worker"),
        ["r? w2", "r0 w3", "r0 w0", "r0 w2", "r0 w1"],
        "the least busy first"
    );
    // Of the longest polls, one is in progress; two are unknown and stay last.
    cockpit.press("ssss");
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r0 w3", "r0 w0", "r0 w1", "r? w2", "r0 w2"], "by longest");
    cockpit.press("S");
    assert_eq!(rows(&cockpit.screen(), "worker"), ["r? w2", "r0 w1", "r0 w0", "r0 w3", "r0 w2"]);
    // Enter opens the row that is drawn there.
    cockpit.press("⏎");
    assert!(cockpit.screen().contains("▸ r? w2") || cockpit.state.screen() == Screen::Timeline);
    // Other lists keep their order.
    cockpit.press("3");
    assert!(cockpit.screen().contains("shop::db::pool::Connection::run"));
}

#[test]
fn filters_by_text_and_by_its_absence() {
    let mut cockpit = Cockpit::new(fixture::rich(fixture::decent), (120, 40));
    let has = |cockpit: &Cockpit, text: &str| cockpit.screen().contains(text);
    cockpit.press("9/metrics⏎");
    assert!(has(&cockpit, "metrics::flush wakes itself") && !has(&cockpit, "worker w0 is asleep"));
    cockpit.press("/⌫⌫⌫⌫⌫⌫⌫!metrics⏎");
    assert!(!has(&cockpit, "metrics::flush wakes itself") && has(&cockpit, "worker w0 is asleep"));
}
