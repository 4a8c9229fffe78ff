//! Records a busy service for a long time and checks the requirements of recordings of months: constant memory, bounded
//! disk space, complete accounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{command, run as sh, succeeds, target_dir};
use crate::targets::{self, Profile};
use crate::watch::{Recorder, Target, Vitals, accepts, cpu_time, folder_size, vitals};

/// Records a service with storms for a long time; fails unless memory is flat, disk bounded and every event accounted
/// for
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Duration in minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Disk space for the session (such as 64MiB); `none` to keep everything
    #[arg(long, default_value = "64MiB")]
    keep_size: String,
    /// Seconds between the service's storms
    #[arg(long, default_value_t = 15)]
    storms: u64,
    /// Soaks this hud-record instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    hud_record: Option<PathBuf>,
    /// Verifies the session with this hud-analyze instead of a debug build of the source here
    #[arg(long, value_name = "BIN")]
    hud_analyze: Option<PathBuf>,
    /// Keeps the session
    #[arg(long)]
    keep: bool,
    /// More options for hud-record, such as `--polls auto`
    #[arg(last = true)]
    options: Vec<String>,
}

/// Disk space beyond `--keep-size`: in-flight logs, uncompressed, and the segment being sealed beside its log.
const SLACK: u64 = 32 << 20;
/// Largest ratio of the last third's median to the first third's.
const GROWTH: f64 = 1.1;

#[derive(Clone, Copy)]
struct Sample {
    recorder: Vitals,
    disk: u64,
    /// File descriptors of logs in flight: one for each table that has rows by now.
    logs: u64,
}

/// The descriptors of a process that are logs in flight.
fn logs_in_flight(pid: u32) -> u64 {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let opened = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    opened.filter(|path| path.extension().is_some_and(|extension| extension == "inflight")).count() as u64
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "hud-record loads eBPF programs, which needs root");
    let hud_record = targets::given_or_built(args.hud_record.as_deref(), "hud-record", Profile::Release)?;
    let hud_analyze = targets::given_or_built(args.hud_analyze.as_deref(), "hud-analyze", Profile::Debug)?;
    let programs = targets::build()?;
    let session = target_dir().join("soak");

    let most = if args.keep_size == "none" { None } else { Some(bytes(&args.keep_size)?) };
    let mut options: Vec<&str> = args.options.iter().map(String::as_str).collect();
    if most.is_some() {
        ensure!(
            accepts(&hud_record, "--keep-size")?,
            "this hud-record has no --keep-size: try `cargo xtask soak --keep-size none`"
        );
        options.extend(["--keep-size", &args.keep_size]);
    }
    let target = Target::start(&programs.join("service"), &["--storms", &args.storms.to_string()])?;
    let mut recorder = Recorder::start(&hud_record, target.pid(), &session, &options)?;
    recorder.until_rows(&["off_cpu", "polls"])?;
    println!("recording for {} min: {}", args.minutes, session.display());
    let samples = watch(&mut recorder, Duration::from_secs(args.minutes * 60))?;
    let before_close = cpu_time(recorder.pid())?;
    let recorded = recorder.stop()?;

    let mut checks = Checks::default();
    // Caches and pools fill during the first fifth.
    let warm = samples.get(samples.len() / 5..).unwrap_or_default();
    let third = warm.len() / 3;
    let (first, last) = (warm.get(..third).unwrap_or_default(), warm.get(warm.len() - third..).unwrap_or_default());
    let [early, late] = [first, last].map(|part| median(part, |s| s.recorder.rss));
    checks.add(
        "memory is flat",
        ratio(late, early) <= GROWTH,
        format!(
            "resident {} to {} MiB (medians of the first and the last third), at most {} MiB",
            early >> 20,
            late >> 20,
            peak(&samples, |s| s.recorder.peak_rss) >> 20
        ),
    );
    for (what, of) in [
        ("threads", (|s| s.recorder.threads) as fn(&Sample) -> u64),
        ("file descriptors", |s| s.recorder.fds.saturating_sub(s.logs)),
    ] {
        // A leak is present at every moment; a table's log is opened with its first row; segments being sealed and probes being detached are not.
        let [early, late] = [first, last].map(|part| part.iter().map(of).min().unwrap_or(0));
        let [most, most_late] = [first, last].map(|part| peak(part, of));
        let name = format!("no {what} leak");
        let detail = format!("{early} to {most} in the first third, {late} to {most_late} in the last");
        checks.add(name, late <= early + 2 && most_late <= most + 16, detail);
    }
    let disk = peak(&samples, |s| s.disk);
    let text = format!("at most {} MiB, at the end {} MiB", disk >> 20, folder_size(&session) >> 20);
    match most {
        Some(most) => checks.add(
            "disk is bounded",
            disk <= most + SLACK,
            format!("{text}, of {} and {} MiB for logs in flight", args.keep_size, SLACK >> 20),
        ),
        None => checks.skip("disk is bounded", format!("{text}, without --keep-size")),
    }
    let (unaccounted, dropped) = recorded.unaccounted_and_dropped();
    let [produced, expired] = ["produced", "expired"].map(|what| recorded.account("polls", what));
    checks.add(
        "every event is accounted for",
        unaccounted == 0,
        format!("{unaccounted} are not, {dropped} dropped; {produced} polls produced, {expired} expired"),
    );
    if accepts(&hud_analyze, "verify")? {
        let is_proven = succeeds(command(&hud_analyze).arg("verify").arg(&session));
        if !is_proven {
            // Runs it again to show its reasons.
            let _ = sh(command(&hud_analyze).arg("verify").arg(&session));
        }
        checks.add("hud-analyze verify", is_proven, String::new());
    } else {
        checks.skip("hud-analyze verify", "this hud-analyze does not know it".to_owned());
    }
    let elapsed = Duration::from_secs(args.minutes * 60);
    checks.skip(
        "recorder's CPU",
        format!(
            "{:.1} % of a CPU, and {:.2} s to close",
            100.0 * before_close.as_secs_f64() / elapsed.as_secs_f64(),
            recorded.cpu.saturating_sub(before_close).as_secs_f64()
        ),
    );
    if !args.keep && checks.failed == 0 {
        remove(&session)?;
    }
    checks.end()
}

/// Samples the recorder every second.
fn watch(recorder: &mut Recorder, dur: Duration) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let mut samples = Vec::new();
    println!("{:>8} {:>9} {:>9} {:>8} {:>5}", "s", "RSS MiB", "disk MiB", "threads", "fds");
    while start.elapsed() < dur {
        thread::sleep(Duration::from_secs(1));
        if recorder.has_ended() {
            bail!("hud-record ended after {} s: {}", start.elapsed().as_secs(), recorder.stderr());
        }
        let Some(now) = vitals(recorder.pid()) else { continue };
        let (disk, logs) = (folder_size(&recorder.session), logs_in_flight(recorder.pid()));
        let sample = Sample { recorder: now, disk, logs };
        // About 30 lines for any duration.
        if (samples.len() as u64).is_multiple_of((dur.as_secs() / 30).max(1)) {
            println!(
                "{:>8} {:>9} {:>9} {:>8} {:>5}",
                start.elapsed().as_secs(),
                now.rss >> 20,
                sample.disk >> 20,
                now.threads,
                now.fds
            );
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// The checks, and their results.
#[derive(Default)]
struct Checks {
    lines: Vec<String>,
    failed: usize,
}

impl Checks {
    fn add(&mut self, what: impl Into<String>, has_passed: bool, detail: String) {
        self.failed += usize::from(!has_passed);
        self.line(if has_passed { "passed" } else { "FAILED" }, &what.into(), &detail);
    }

    fn skip(&mut self, what: &str, detail: String) {
        self.line("", what, &detail);
    }

    fn line(&mut self, verdict: &str, what: &str, detail: &str) {
        self.lines.push(format!("{verdict:<7} {what:<29} {detail}").trim_end().to_owned());
    }

    fn end(&self) -> Result<()> {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        ensure!(self.failed == 0, "{} checks failed", self.failed);
        Ok(())
    }
}

fn peak(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    samples.iter().map(of).max().unwrap_or(0)
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of bytes")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}

/// A size in binary units, as hud-record accepts it.
fn bytes(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => bail!("{text} is no size such as 64MiB"),
    };
    Ok(number.parse::<u64>().with_context(|| format!("{text} is no size such as 64MiB"))? << shift)
}

fn remove(session: &Path) -> Result<()> {
    fs::remove_dir_all(session).with_context(|| format!("failed to remove {}", session.display()))
}
