//! `hud-analyze replay` and `hud-analyze screenshot`: from arguments to a cockpit, or to a picture of it.

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

use super::Replay;
use crate::{
    error::{Error, Result},
    origin,
    window::{Moment, Window},
};

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    what: What,
    /// Measures so many jumps to instants all over the session instead of showing anything; prints JSON
    #[arg(long, value_name = "N", hide = true)]
    measure: Option<u32>,
}

/// What to look at, and when.
#[derive(Args, Debug)]
struct What {
    /// Sessions: folders, archives (.hud.zip), URLs; several are shown side by side
    #[arg(required = true, value_name = "SESSION")]
    sessions: Vec<PathBuf>,
    /// The instant at first, in the first session [default: one window after its start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<Moment>,
    /// How several sessions go together
    #[arg(long, value_enum, default_value_t = Align::Clock)]
    align: Align,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Align {
    /// At the same time of day, as they ran
    Clock,
    /// At the same time since their starts
    Start,
}

#[derive(Args, Debug)]
pub(crate) struct ScreenshotArgs {
    #[command(flatten)]
    what: What,
    /// Columns and rows
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "120x40", value_parser = Shot::parse_size)]
    size: (u16, u16),
    /// What to write [default: by the name of the output, else txt]
    #[arg(long, value_enum)]
    format: Option<Picture>,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Picture {
    /// Plain text
    Txt,
    /// Text with colours for a terminal
    Ansi,
    /// For browsers and documents
    Svg,
    /// For everything else
    Png,
}

/// How long a jump reads before it shows what there is: with the time that the last of it takes and the frame itself, about
/// a twentieth of a second. Of a window of up to 300,000 rows that is all.
const PATIENCE: Duration = Duration::from_millis(15);

/// Sessions side by side.
const MOST_PANES: usize = 8;

/// Shows the cockpit until the person quits.
pub(crate) fn run(args: ReplayArgs) -> Result<()> {
    let began = Instant::now();
    let replays = open(&args.what.sessions)?.into_iter();
    let replays: Vec<_> = replays.map(|(label, replay)| (label, replay.with_patience(PATIENCE))).collect();
    if let (Some(times), [_]) = (args.measure, replays.as_slice()) {
        return replays.into_iter().try_for_each(|(_, replay)| measure(replay, &args.what, times, began));
    }
    let (seats, options) = seats(replays, &args.what, false);
    ui::run_all(seats, &options).map(drop).map_err(failed)
}

/// Draws the cockpit's screen into a file, which is open already.
pub(crate) fn screenshot(args: ScreenshotArgs, output: Option<OutputFile>) -> Result<()> {
    let (seats, options) = seats(open(&args.what.sessions)?, &args.what, true);
    let shot = Shot::take(seats, &options, args.size).map_err(failed)?;
    let extension = args.output.as_ref().and_then(|path| path.extension()).and_then(|e| e.to_str());
    let picture = args.format.or(extension.and_then(|e| Picture::from_str(e, true).ok())).unwrap_or(Picture::Txt);
    let bytes = match picture {
        Picture::Txt => shot.text().into_bytes(),
        Picture::Ansi => shot.ansi().into_bytes(),
        Picture::Svg => shot.svg().into_bytes(),
        Picture::Png => shot.png().map_err(Error::io("make the picture"))?,
    };
    let (written, place) = match (output, &args.output) {
        (Some(mut file), Some(path)) => {
            (file.write_all(&bytes).and_then(|()| file.persist()), path.display().to_string())
        }
        _ => (io::stdout().write_all(&bytes), "the picture".to_owned()),
    };
    written.map_err(Error::io(format!("write {place}")))
}

fn failed(error: ui::UiError) -> Error {
    Error::Replay(error.to_string())
}

/// Opens the sessions, and says on stderr what happened to them.
fn open(sessions: &[PathBuf]) -> Result<Vec<(String, Replay)>> {
    let mut replays = Vec::new();
    for path in sessions {
        for found in origin::find(path)? {
            if replays.len() == MOST_PANES {
                return Err(Error::Usage {
                    message: format!("more than {MOST_PANES} sessions have no room on a screen"),
                    hint: "name fewer".into(),
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

/// The instant at first: the session's beginning, as much of it as a window shows.
fn at(replay: &Replay, what: &What) -> i64 {
    let (from, to) = replay.range();
    match what.at {
        Some(moment) => Window { from, to }.at(replay.manifest().start, moment),
        None => from.saturating_add(what.look.window).min(to),
    }
}

/// With all names known at once, where it is to be drawn but once.
fn seats(replays: Vec<(String, Replay)>, what: &What, is_once: bool) -> (Vec<Seat<'static>>, Options) {
    let options = Options { at: replays.first().map(|(_, first)| at(first, what)), ..what.look.options() };
    let start = replays.first().map_or(0, |(_, first)| first.manifest().start);
    let seats = replays.into_iter().map(|(label, mut replay)| {
        let query = Query { thresholds: options.thresholds, ..Query::default() };
        let overview = replay.overview(query);
        if is_once {
            replay.learn_all();
        }
        let shift = match what.align {
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

/// How long the first frame and frames of instants all over the session take, the session's overview under way as it is for
/// a person; drawing is left out.
fn measure(mut replay: Replay, what: &What, times: u32, began: Instant) -> Result<()> {
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let opened = ms(began);
    let query = Query { window: what.look.window, thresholds: what.look.thresholds(), ..Query::default() };
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
    let first_at = at(&replay, what);
    let (first, ..) = look(&mut replay, first_at)?;
    let until_first = ms(began);
    let print = |line: serde_json::Value| writeln!(io::stdout(), "{line}").map_err(Error::io("write the answer"));
    print(json!({"opened_ms": opened, "first_frame_ms": first, "until_first_frame_ms": until_first}))?;
    let ticks = replay.overview(query.clone());
    let (from, to) = replay.range();
    // Golden steps: all over the session, and never near the last one.
    let mut place = 0.5_f64;
    for _ in 0..times {
        place = (place + 0.618_033_988_749_895).fract();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any instant near will do")]
        let at = from.saturating_add((to.saturating_sub(from) as f64 * place) as i64);
        let since = Instant::now();
        let (frame, rows, unread) = look(&mut replay, at)?;
        let mut line = json!({"frame_ms": frame, "rows": rows, "unread_ns": unread});
        // Until the frame is of the whole window.
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

/// The most memory that this process had resident (MB), where the kernel tells.
fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
