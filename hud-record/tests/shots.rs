//! Screens of the cockpit on a real recording: those of README and docs. The recording is hud-analyze's fixture, of
//! test-async-app. `SNAPSHOTS=overwrite` renews the screens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{fs, path::Path, time::Duration};

use hud_common::cockpit::ui::{Options, Screen, Seat, Shot};
use hud_record::tail::{Settings, Tailer};
use snapbox::{Data, data::DataFormat};

fn shot(screen: Screen, size: (u16, u16)) -> Shot {
    let session = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hud-analyze/tests/data/session");
    let hour = Duration::from_secs(3600);
    let settings = Settings { keep: hour, history: hour, stall: hour, most: usize::MAX };
    let tailer = Tailer::open(&session, settings).unwrap();
    let options = Options { screen, window: 5_000_000_000, ..Options::default() };
    Shot::take(vec![Seat::new(tailer)], &options, size).unwrap()
}

#[test]
fn the_screens_in_the_docs_are_up_to_date() {
    for (name, screen) in [
        ("overview", Screen::Overview),
        ("blocking", Screen::Blocking),
        ("flame", Screen::Flame),
        ("timeline", Screen::Timeline),
    ] {
        let shot = shot(screen, (120, 40));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screens").join(name).with_extension("svg");
        snapbox::assert_data_eq!(shot.svg(), Data::read_from(&path, Some(DataFormat::Text)).raw());
    }
}

#[test]
fn a_screenshot_shows_the_screen() {
    let shot = shot(Screen::Overview, (120, 40));
    let text = shot.text();
    assert_eq!(text.lines().count(), 40);
    assert!(text.lines().all(|line| line.chars().count() <= 120));
    let svg = shot.svg();
    let ansi = shot.ansi();
    for culprit in ["cpu_hog", "blocking_sleeper"] {
        assert!(text.contains(culprit), "{text}");
        assert!(svg.contains(culprit) && ansi.contains(culprit));
    }
    assert!(ansi.contains("\x1b[0") && ansi.ends_with("\x1b[0m\n"));
    // Well-formed in part: each element is closed, and no name added one.
    let opened = svg.matches("<text ").count();
    assert!(opened > 100 && opened == svg.matches("</text>").count());
    assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n'));

    let png = shot.png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert!(info.width.is_multiple_of(120) && info.height.is_multiple_of(40), "{info:?}");
    // The status lamp is red, the ground is not, and there is more than one thing to see.
    let has = |color: [u8; 3]| pixels.chunks_exact(3).filter(|pixel| *pixel == color).count();
    assert!(has([255, 82, 72]) + has([255, 191, 64]) > 100, "a lamp");
    assert!(has([11, 15, 12]) > pixels.len() / 3 / 2, "a ground");
    if let Some(path) = std::env::var_os("HUD_PNG") {
        fs::write(path, &png).unwrap();
    }
}
