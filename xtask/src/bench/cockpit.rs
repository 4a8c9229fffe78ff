//! Compares the cockpit with its targets: cost of a frame, cost of following a busy program, delay of what it shows.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::replay;
use super::report::{Bound, Report, median};
use crate::sh::{cargo, command, output, run as sh, target_dir};
use crate::targets;
use crate::watch::{Target, cpu_time};

/// Cost of a frame and of a live session, time until it names the culprits, and replay
#[derive(clap::Args, Clone)]
pub(super) struct Args {
    /// Seconds that a live session is measured, once its window is full
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Repetitions of the wait for the culprits
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measures only these
    #[arg(long, value_delimiter = ',', default_values = ["draw", "live", "culprits", "replay"])]
    only: Vec<Part>,
    /// Rows of the synthetic session that is replayed
    #[arg(long, default_value_t = 100_000_000)]
    events: i64,
    /// Number of jumps, to instants all over the session
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..))]
    jumps: u32,
    /// Replays with this hud-analyze instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    analyze: Option<PathBuf>,
    /// Measures this hud instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    hud: Option<PathBuf>,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Draw,
    Live,
    Culprits,
    Replay,
}

const METHOD: &str = "\
How it is measured:

- A frame is drawn into a buffer of 200x60 cells by the test `time_of_a_frame` (CPU time, median of ten), of snapshots with \
long lists, long names and hostile names; the slowest screen counts.
- Live, `hud` runs in a terminal of 200x60 that takes all that is written, on `service` (100,000 polls a second where the \
machine has the CPU for it). Its CPU time is that of the cockpit's process, which draws and follows the session; the \
recorder is another process. Frames are counted by the synchronized updates that it sends.
- From event to the screen's figures: `hud attach --no-tui` on the same session logs the delay between the end of \
off-CPU intervals and samples and their ingest. The cockpit's own frames are 100 ms apart, and each is drawn right after the \
ingest of new events: an event is on the screen with the next one.
- Culprits: from the session's manifest on the disk, which is written once the recorder is attached, until the names of \
both culprits of test-async-app have been sent to the terminal.
";

/// Timeout of any step.
const PATIENCE: Duration = Duration::from_secs(60);
/// A window, and the time that the cockpit takes to start.
const WARM: Duration = Duration::from_secs(12);
const FRAME: &[u8] = b"\x1b[?2026h";

pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "hud loads eBPF programs, which needs root");
    let hud = match &args.hud {
        Some(hud) => hud.clone(),
        None => {
            sh(cargo("build").args(["--release", "--package", "hud-record", "--bins"]))?;
            target_dir().join("release/hud")
        }
    };
    let folder = target_dir().join("bench/cockpit");
    fs::create_dir_all(&folder)?;
    let mut bench = Bench { args: args.clone(), hud, folder, report: Report::default() };
    println!();
    if args.only.contains(&Part::Draw) {
        bench.draw()?;
    }
    if args.only.contains(&Part::Live) {
        for polls in ["auto", "exact"] {
            bench.live(polls)?;
        }
    }
    if args.only.contains(&Part::Culprits) {
        bench.culprits()?;
    }
    if args.only.contains(&Part::Replay) {
        replay::measure_into(&mut bench.report, args.events, args.jumps, args.analyze.as_deref())?;
    }
    println!("\n{} targets missed", bench.report.missed());
    if !args.no_report {
        let line = format!("cargo xtask bench cockpit --seconds {} --rounds {}", args.seconds, args.rounds);
        println!("{}", bench.report.write("cockpit", &line, &[METHOD, replay::METHOD].concat())?.display());
    }
    Ok(())
}

struct Bench {
    args: Args,
    hud: PathBuf,
    folder: PathBuf,
    report: Report,
}

impl Bench {
    fn draw(&mut self) -> Result<()> {
        let test = ["--release", "--package", "hud-cockpit", "--features", "ui", "--test", "cockpit_ui"];
        let printed = output(cargo("test").args(test).args(["--", "time_of_a_frame", "--nocapture"]))?;
        let mut slowest: Option<(f64, String)> = None;
        for line in printed.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [data, screen, "median", micros, "us,", ..] = fields.as_slice() {
                let micros: f64 = micros.parse()?;
                if slowest.as_ref().is_none_or(|(most, _)| micros > *most) {
                    slowest = Some((micros, format!("{data} data, {screen}")));
                }
            }
        }
        let (micros, detail) = slowest.context("the test printed no times")?;
        self.report.add("a frame at 200x60", Bound::AtMost(4.0), micros / 1e3, "ms", detail);
        Ok(())
    }

    fn live(&mut self, polls: &str) -> Result<()> {
        let target = Target::start(&targets::build()?.join("service"), &[])?;
        let session = self.session("live")?;
        let mut hud = Terminal::start(&self.hud, &target, &session, &["--polls", polls])?;
        thread::sleep(WARM);
        let before = (target.account()?, cpu_time(hud.pid())?, hud.count(FRAME));
        let mut attached = command(&self.hud);
        attached.arg("attach").arg(&session).args(["--no-tui", "--every", "100ms"]).env("RUST_LOG", "debug");
        let attached = attached.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        thread::sleep(Duration::from_secs(self.args.seconds));
        let after = (target.account()?, cpu_time(hud.pid())?, hud.count(FRAME));
        let grown = |name: &str| -> Result<f64> {
            let of = |account: &serde_json::Value| account[name].as_f64().context("the account lacks a number");
            Ok(of(&after.0)? - of(&before.0)?)
        };
        let seconds = grown("mono_ns")? / 1e9;
        let cpu = (after.1 - before.1).as_secs_f64() / seconds * 100.0;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let frames = (after.2 - before.2) as f64 / seconds;
        let rate = grown("polls")? / seconds;
        let detail = format!("{frames:.1} frames/s, {rate:.0} polls/s");
        self.report.add(
            format!("live, `--polls {polls}`: CPU of the cockpit"),
            Bound::AtMost(3.0),
            cpu,
            "% of a core",
            detail,
        );
        hud.quit()?;
        let attached = attached.wait_with_output()?;
        let log = String::from_utf8_lossy(&attached.stderr).into_owned();
        let what = format!("live, `--polls {polls}`: delay of the ingest, 99th percentile");
        match log.split("99 of 100 within ").nth(1).and_then(|rest| millis(rest.lines().next()?.trim())) {
            Some(lag) => self.report.add(what, Bound::AtMost(150.0), lag, "ms", "another viewer of the same session"),
            None => self.report.missing(&what, Bound::AtMost(150.0), "the viewer logged no delay"),
        }
        Ok(())
    }

    fn culprits(&mut self) -> Result<()> {
        let program = targets::build()?.join("test-async-app");
        let (mut since_attach, mut since_start) = (Vec::new(), Vec::new());
        for _ in 0..self.args.rounds {
            let target = Target::start(&program, &[])?;
            let session = self.session("culprits")?;
            let start = Instant::now();
            let mut hud = Terminal::start(&self.hud, &target, &session, &[])?;
            let mut attached = None;
            while !(hud.count(b"cpu_hog") > 0 && hud.count(b"blocking_sleeper") > 0) {
                if attached.is_none() && session.join("manifest.json").exists() {
                    attached = Some(Instant::now());
                }
                ensure!(start.elapsed() < PATIENCE, "no culprits in {} s", PATIENCE.as_secs());
                thread::sleep(Duration::from_millis(2));
            }
            since_attach.push(attached.map_or(0.0, |at| at.elapsed().as_secs_f64()));
            since_start.push(start.elapsed().as_secs_f64());
            hud.quit()?;
        }
        let all = since_attach.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" ");
        let most = since_attach.iter().copied().fold(0.0, f64::max);
        let detail = format!("{all}; {:.2} s from the start of hud (median)", median(&mut since_start));
        self.report.add("both culprits on the screen, from the attach, slowest", Bound::AtMost(3.0), most, "s", detail);
        Ok(())
    }

    fn session(&self, name: &str) -> Result<PathBuf> {
        let session = self.folder.join(name);
        if session.exists() {
            fs::remove_dir_all(&session).with_context(|| format!("failed to remove {}", session.display()))?;
        }
        Ok(session)
    }
}

/// `104.9ms` or `1.2s`, as Rust prints a duration.
fn millis(text: &str) -> Option<f64> {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|n| n.parse::<f64>().ok());
    number("ms").or_else(|| number("µs").map(|n| n / 1e3)).or_else(|| number("s").map(|n| n * 1e3))
}

/// `hud` in a terminal; killed when dropped.
struct Terminal {
    child: Child,
    master: File,
    _terminal: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(hud: &Path, target: &Target, session: &Path, more: &[&str]) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&terminal, Winsize { ws_row: 60, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 })?;
        let mut command: Command = command(hud);
        command.args(["--pid", &target.pid().to_string(), "--export"]).arg(session).args(more);
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env("HUD_CACHE_DIR", "");
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("failed to start {}", hud.display()))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (to, master) = (Arc::clone(&seen), File::from(master));
        let mut from = master.try_clone()?;
        // Reads without pause, as a terminal does, until all writers have closed it.
        thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                let part = bytes.get(..n).unwrap_or_default();
                to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(part);
            }
        });
        Ok(Self { child, master, _terminal: terminal, seen })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How often this text was written.
    fn count(&self, wanted: &[u8]) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.windows(wanted.len()).filter(|part| *part == wanted).count()
    }

    fn quit(&mut self) -> Result<()> {
        self.master.write_all(b"q")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "hud ended with {status}");
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has usually exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
