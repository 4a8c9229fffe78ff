//! `replay` and `screenshot`: the cockpit of recorded sessions, and images of it.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use hud_common::{
    cockpit::{
        Query, Source as _,
        ui::{self, LookArgs, Options, Seat, Shot},
    },
    files::OutputFile,
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    query::window::{Moment, Window},
    replay::Replay,
    source::location,
};

/// Show a recorded session in the cockpit, at any instant
#[derive(Args, Debug)]
#[command(after_help = "\
TIME: +12.5s after the start, -30s before the end, 14:03:20 (UTC), 2026-01-31T14:03:20Z.
A session that is being recorded can be shown too: it grows, and `End` follows it.

Examples:
  hud-analyze replay SESSION
  hud-analyze replay SESSION --at -10s --window 5s
  hud-analyze replay BEFORE AFTER --align start")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    target: Target,
    /// Measure N jumps to instants all over the session, and print JSON
    #[arg(long, value_name = "N", hide = true)]
    measure: Option<u32>,
}

/// The sessions, and the instant.
#[derive(Args, Debug)]
struct Target {
    /// Session folders, archives (.hud.zip) or URLs; several are shown side by side
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<PathBuf>,
    /// Initial instant, in the first session [default: one window after its start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<Moment>,
    /// Alignment of several sessions
    #[arg(long, value_enum, default_value_t = Align::Clock)]
    align: Align,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Align {
    /// By time of day
    Clock,
    /// By time since the start of each session
    Start,
}

/// Draw the cockpit's screen at an instant: text, SVG or PNG
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  hud-analyze screenshot SESSION --at +12s
  hud-analyze screenshot SESSION --at +12s --size 160x50 -o screen.svg
  hud-analyze screenshot SESSION --screen blocking --format png > screen.png")]
pub(crate) struct ScreenshotArgs {
    #[command(flatten)]
    target: Target,
    /// Size of the screen in columns and rows
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "120x40", value_parser = Shot::parse_size)]
    size: (u16, u16),
    /// Image format [default: by the extension of the output file, otherwise txt]
    #[arg(long, value_enum)]
    format: Option<Picture>,
    /// Output file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Picture {
    /// Plain text
    Txt,
    /// Text with ANSI colours
    Ansi,
    /// SVG
    Svg,
    /// PNG
    Png,
}

/// Time that a jump reads before a frame is shown. With the last reads and the frame itself, a jump takes about 50 ms. A window
/// of up to 300,000 rows is then complete.
const PATIENCE: Duration = Duration::from_millis(15);

/// Maximum number of sessions side by side.
const MOST_PANES: usize = 8;

/// Shows the cockpit until the user quits.
pub(crate) fn run(args: &ReplayArgs) -> Result<()> {
    let began = Instant::now();
    let replays = open(&args.target.sessions)?.into_iter();
    let replays: Vec<_> = replays.map(|(label, replay)| (label, replay.with_patience(PATIENCE))).collect();
    if let (Some(times), [_]) = (args.measure, replays.as_slice()) {
        return replays.into_iter().try_for_each(|(_, replay)| measure(replay, &args.target, times, began));
    }
    let (seats, options) = seats(replays, &args.target, false);
    ui::run_all(seats, &options).map(drop).map_err(failed)
}

/// Draws the cockpit's screen into `output`, or on stdout.
pub(crate) fn screenshot(args: &ScreenshotArgs, output: Option<OutputFile>) -> Result<()> {
    let picture = picture(args)?;
    let (seats, options) = seats(open(&args.target.sessions)?, &args.target, true);
    let shot = Shot::take(seats, &options, args.size).map_err(failed)?;
    let bytes = match picture {
        Picture::Txt => shot.text().into_bytes(),
        Picture::Ansi => shot.ansi().into_bytes(),
        Picture::Svg => shot.svg().into_bytes(),
        Picture::Png => shot.png().map_err(Error::io("encode the image"))?,
    };
    let (written, place) = match (output, &args.output) {
        (Some(mut file), Some(path)) => {
            (file.write_all(&bytes).and_then(|()| file.persist()), path.display().to_string())
        }
        _ => (io::stdout().write_all(&bytes), "the image".to_owned()),
    };
    written.map_err(Error::io(format!("write {place}")))
}

/// The format of `--format`, otherwise the one of the output file's extension; text without either.
fn picture(args: &ScreenshotArgs) -> Result<Picture> {
    let extension = args.output.as_ref().and_then(|path| path.extension()).map(|extension| extension.to_string_lossy());
    match (args.format, extension) {
        (Some(format), _) => Ok(format),
        (None, None) => Ok(Picture::Txt),
        (None, Some(extension)) => Picture::from_str(&extension, true).map_err(|_| Error::Usage {
            message: format!("there is no image format {}", hud_common::clean(&extension)),
            hint: "name the output .txt, .ansi, .svg or .png, or use --format".into(),
        }),
    }
}

fn failed(error: ui::UiError) -> Error {
    Error::Replay(error.to_string())
}

/// Opens the sessions, and prints recoveries and losses on stderr.
fn open(sessions: &[PathBuf]) -> Result<Vec<(String, Replay)>> {
    let mut replays = Vec::new();
    for path in sessions {
        for found in location::find(path)? {
            if replays.len() == MOST_PANES {
                return Err(Error::Usage {
                    message: format!("a screen has room for {MOST_PANES} sessions"),
                    hint: "name fewer sessions".into(),
                });
            }
            let label = label(found.dir.path());
            let replay = Replay::of(found)?;
            for notice in replay.notices() {
                let _ = writeln!(io::stderr(), "note: {}", hud_common::clean(notice));
            }
            replays.push((label, replay));
        }
    }
    Ok(replays)
}

/// The initial instant: by default the end of the first window of the session.
fn at(replay: &Replay, target: &Target) -> i64 {
    let (from, to) = replay.range();
    match target.at {
        Some(moment) => Window { from, to }.at(replay.manifest().start, moment),
        None => from.saturating_add(target.look.window).min(to),
    }
}

/// The sessions' panes. With `is_once`, waits for all names, as there is no second frame.
fn seats(replays: Vec<(String, Replay)>, target: &Target, is_once: bool) -> (Vec<Seat<'static>>, Options) {
    let options = Options { at: replays.first().map(|(_, first)| at(first, target)), ..target.look.options() };
    let start = replays.first().map_or(0, |(_, first)| first.manifest().start);
    let seats = replays.into_iter().map(|(label, mut replay)| {
        let query = Query { thresholds: options.thresholds, ..Query::default() };
        let overview = replay.overview(query);
        if is_once {
            replay.learn_all();
        }
        let shift = match target.align {
            Align::Clock => 0,
            Align::Start => replay.manifest().start.saturating_sub(start),
        };
        Seat { label, shift, overview: Some(overview), ..Seat::new(replay) }
    });
    (seats.collect(), options)
}

fn label(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Measures the first frame and frames at instants all over the session, without drawing them, while the overview is read in
/// the background as in `replay`.
fn measure(mut replay: Replay, target: &Target, times: u32, began: Instant) -> Result<()> {
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let opened = ms(began);
    let query = Query { window: target.look.window, thresholds: target.look.thresholds(), ..Query::default() };
    let look = |replay: &mut Replay, at: i64| {
        let since = Instant::now();
        let query = Query { at: Some(at), ..query.clone() };
        let snapshot = replay.snapshot(&query).map_err(|error| Error::Replay(error.to_string()))?;
        Ok::<_, Error>((
            ms(since),
            snapshot.coverage.streams.iter().map(|s| s.rows).sum::<i64>(),
            snapshot.coverage.unread,
        ))
    };
    let first_at = at(&replay, target);
    let (first, ..) = look(&mut replay, first_at)?;
    let until_first = ms(began);
    let print = |line: serde_json::Value| writeln!(io::stdout(), "{line}").map_err(Error::io("write the result"));
    print(json!({"opened_ms": opened, "first_frame_ms": first, "until_first_frame_ms": until_first}))?;
    let ticks = replay.overview(query.clone());
    let (from, to) = replay.range();
    // Steps by the golden ratio: all over the session, and never near the previous one.
    let mut place = 0.5_f64;
    for _ in 0..times {
        place = (place + 0.618_033_988_749_895).fract();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant near will do")]
        let at = from.saturating_add((to.saturating_sub(from) as f64 * place) as i64);
        let since = Instant::now();
        let (frame, rows, unread) = look(&mut replay, at)?;
        let mut line = json!({"frame_ms": frame, "rows": rows, "unread_ns": unread});
        // Until the frame is complete.
        while replay.has_more_to_read() {
            replay.wait(Duration::from_secs(1)).map_err(|error| Error::Replay(error.to_string()))?;
        }
        let (_, rows, unread) = look(&mut replay, at)?;
        line["whole"] = json!({"frame_ms": ms(since), "rows": rows, "unread_ns": unread});
        print(line)?;
    }
    let since = Instant::now();
    let count: usize = ticks.iter().map(|ticks| ticks.len()).sum();
    print(json!({"overview_ms": ms(since), "ticks": count, "peak_mb": peak_mb()}))
}

/// Peak resident memory of this process, in MB; `None` if the kernel does not report it.
fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
