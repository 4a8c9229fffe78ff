//! Compares the recorder with its targets: cost to the program, its own cost, size of its files, time to attach.
//!
//! Everything is measured in one run, side by side: the sides of a pair follow each other on the same running program,
//! in an order that alternates from pair to pair, so that a machine that warms up or slows down favours none.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::big;
use super::report::{Bound, Report, median};
use crate::sh::target_dir;
use crate::targets::{self, Profile};
use crate::watch::{Recorded, Recorder, Target, accepts, folder_size, query, vitals};

/// Overhead, throughput, size, memory and attach time of hud-record
#[derive(clap::Args, Clone)]
pub(super) struct Args {
    /// Number of pairs, whose medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Seconds that each side of a pair is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds that the storm of polls lasts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    storm_seconds: u64,
    /// Measures only these
    #[arg(long, value_delimiter = ',', default_values = ["throughput", "storm", "size", "attach"])]
    only: Vec<Part>,
    /// Measures this hud-record instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    hud_record: Option<PathBuf>,
    /// Reads the sessions with this hud-analyze instead of a debug build of the source here
    #[arg(long, value_name = "BIN")]
    hud_analyze: Option<PathBuf>,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Throughput,
    Storm,
    Size,
    Attach,
}

const METHOD: &str = "\
How it is measured:

- The service is `hud-record/examples/service.rs`. Paced, its load is 100,000 polls a second, and its CPU time a \
request shows the cost of recording, whether or not a CPU is idle. Saturated, it takes both CPUs, so that the recorder's \
own CPU time is taken from it as well. Each measurement with a recorder lies between two without, and its ratio is to \
the mean of these, so that a drift of the machine cancels out; the median of the pairs' ratios is reported.
- The storm is `poll-storm`: tasks that do nothing but yield, every poll probed. The recorder's CPU time is that of the \
whole process from its start to its end, as the kernel accounts it, sealing and closing included; it is divided by the \
polls stored. The kernel programs' time is `overhead.probe_ns`, all programs together, divided by the polls produced.
- Bytes a row are the sizes of a table's sealed segments, of a minute at least, over the rows that the manifest accounts as \
stored.
- Attach to first event is from the start of the process to the first batch of rows in a log on disk, which is written \
every 100 ms.
";

struct Bench {
    args: Args,
    hud_record: PathBuf,
    hud_analyze: PathBuf,
    targets: PathBuf,
    folder: PathBuf,
    report: Report,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    ensure!(is_root, "hud-record loads eBPF programs, which needs root");
    let hud_record = targets::given_or_built(args.hud_record.as_deref(), "hud-record", Profile::Release)?;
    // Used only for sums: its own speed is not measured.
    let hud_analyze = targets::given_or_built(args.hud_analyze.as_deref(), "hud-analyze", Profile::Debug)?;
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let mut bench = Bench {
        hud_record,
        hud_analyze,
        targets: targets::build()?,
        folder,
        report: Report::default(),
        args: args.clone(),
    };
    println!();
    if args.only.contains(&Part::Throughput) {
        bench.throughput("paced", &[])?;
        // 40 µs per request on two CPUs: again about 100,000 polls a second, two per request.
        bench.throughput("saturated", &["--rate", "0", "--work", "15000"])?;
    }
    if args.only.contains(&Part::Storm) {
        bench.storm()?;
    }
    if args.only.contains(&Part::Size) {
        bench.size()?;
    }
    if args.only.contains(&Part::Attach) {
        bench.attach()?;
    }
    let missed = bench.report.missed();
    println!("\n{missed} targets missed");
    if !args.no_report {
        let path = bench.report.write("record", &args.command_line(), METHOD)?;
        println!("{}", path.display());
    }
    Ok(())
}

impl Args {
    fn command_line(&self) -> String {
        let Self { pairs, seconds, storm_seconds, .. } = self;
        format!("cargo xtask bench record --pairs {pairs} --seconds {seconds} --storm-seconds {storm_seconds}")
    }
}

/// The service's work over a time range.
#[derive(Clone, Copy)]
struct Speed {
    ops_per_second: f64,
    polls_per_second: f64,
    ops_per_cpu_second: f64,
}

/// Options of the recorder on one side of a pair.
struct Side {
    name: &'static str,
    least: f64,
    options: &'static [&'static str],
}

const SIDES: [Side; 2] = [
    Side { name: "--polls off", least: 0.99, options: &["--polls", "off"] },
    Side { name: "--polls auto --budget 2%", least: 0.97, options: &["--polls", "auto", "--budget", "2%"] },
];

impl Bench {
    fn session(&self) -> PathBuf {
        self.folder.join("session")
    }

    /// The service without a recorder, and with each of the sides.
    fn throughput(&mut self, load: &str, service: &[&str]) -> Result<()> {
        let sides: Vec<(&Side, bool)> =
            SIDES.iter().map(|side| Ok((side, self.is_known(side)?))).collect::<Result<_>>()?;
        let known: Vec<&Side> = sides.iter().filter(|(_, is_known)| *is_known).map(|(side, _)| *side).collect();
        let mut unrecorded = Vec::new();
        let mut ratios: Vec<Vec<(f64, f64)>> = known.iter().map(|_| Vec::new()).collect();
        for pair in 0..self.args.pairs {
            let target = Target::start(&self.targets.join("service"), service)?;
            thread::sleep(Duration::from_secs(1));
            let mut before = self.speed(&target, None)?;
            unrecorded.push(before);
            let mut order: Vec<_> = known.iter().zip(&mut ratios).collect();
            let turn = usize::try_from(pair)? % order.len().max(1);
            order.rotate_left(turn);
            for (side, ratios) in order {
                let with = self.speed(&target, Some(side.options))?;
                let after = self.speed(&target, None)?;
                unrecorded.push(after);
                let ratio = |of: fn(&Speed) -> f64| 2.0 * of(&with) / (of(&before) + of(&after));
                ratios.push((ratio(|s| s.ops_per_second), ratio(|s| s.ops_per_cpu_second)));
                before = after;
            }
        }
        let of = |value: fn(&Speed) -> f64| median(&mut unrecorded.iter().map(value).collect::<Vec<_>>());
        let alone = format!(
            "alone {:.0} requests/s, {:.0} polls/s, {:.1} µs of CPU a request",
            of(|s| s.ops_per_second),
            of(|s| s.polls_per_second),
            1e6 / of(|s| s.ops_per_cpu_second),
        );
        let mut ratios = ratios.into_iter();
        let is_paced = load == "paced";
        for (side, is_known) in sides {
            let name = format!("{load} service, `{}`", side.name);
            let least = Bound::AtLeast(side.least);
            let Some(ratios) = is_known.then(|| ratios.next()).flatten() else {
                self.report.missing(&name, least, "this hud-record does not have it");
                continue;
            };
            let spread = |of: fn(&(f64, f64)) -> f64| {
                let mut all: Vec<f64> = ratios.iter().map(of).collect();
                let middle = median(&mut all);
                let text = all.iter().map(|ratio| format!("{ratio:.3}")).collect::<Vec<_>>().join(" ");
                (middle, text)
            };
            let (throughput, all) = spread(|r| r.0);
            self.report.add(format!("{name}: throughput"), least, throughput, "", format!("{all}; {alone}"));
            let (per_cpu, all) = spread(|r| r.1);
            // A saturated service is measured by its throughput; with all CPUs busy, CPU time is less significant.
            let bound = if is_paced { least } else { Bound::Nothing };
            self.report.add(format!("{name}: requests per CPU second"), bound, per_cpu, "", all);
        }
        Ok(())
    }

    fn is_known(&self, side: &Side) -> Result<bool> {
        let has = |option: &&str| side.options.contains(option);
        Ok(!has(&"--budget") || accepts(&self.hud_record, "--budget")?)
    }

    fn speed(&self, target: &Target, options: Option<&[&str]>) -> Result<Speed> {
        let recorder = match options {
            Some(options) => {
                let mut recorder = Recorder::start(&self.hud_record, target.pid(), &self.session(), options)?;
                recorder.until_rows(&["off_cpu", "polls"])?;
                Some(recorder)
            }
            None => None,
        };
        // Attaching and detaching are not part of the cost of a recorder that runs for months.
        thread::sleep(Duration::from_secs(1));
        let before = target.account()?;
        thread::sleep(Duration::from_secs(self.args.seconds));
        let after = target.account()?;
        if let Some(recorder) = recorder {
            recorder.stop()?;
        }
        let grown = |name: &str| -> Result<f64> {
            let of = |account: &serde_json::Value| account[name].as_f64().context("the account lacks a number");
            Ok(of(&after)? - of(&before)?)
        };
        let seconds = grown("mono_ns")? / 1e9;
        Ok(Speed {
            ops_per_second: grown("ops")? / seconds,
            polls_per_second: grown("polls")? / seconds,
            ops_per_cpu_second: grown("ops")? / (grown("cpu_ns")? / 1e9),
        })
    }

    /// Every poll probed, at the highest possible rate.
    fn storm(&mut self) -> Result<()> {
        let target = Target::start(&self.targets.join("poll-storm"), &[])?;
        let seconds = self.args.storm_seconds.to_string();
        let options = ["--polls", "exact", "--duration", &seconds];
        let mut recorder = Recorder::start(&self.hud_record, target.pid(), &self.session(), &options)?;
        recorder.until_rows(&["polls"])?;
        let mut memory: Vec<(f64, f64)> = Vec::new();
        let mut peak = 0.0;
        while !recorder.has_ended() {
            if let Some(now) = vitals(recorder.pid()) {
                memory.push((mib(now.rss), mib(now.peak_rss)));
                peak = mib(now.peak_rss);
            }
            thread::sleep(Duration::from_millis(200));
        }
        drop(target);
        let recorded = recorder.finish()?;
        let [produced, stored] = ["produced", "stored"].map(|what| float(recorded.account("polls", what)));
        let (unaccounted, dropped) = recorded.unaccounted_and_dropped();
        let window = self.window(&recorded)?;
        let rate = produced / window;
        self.report.add(
            "storm: polls/s",
            Bound::Nothing,
            rate,
            "polls/s",
            format!("{produced:.0} polls in {window:.1} s, unaccounted {unaccounted}"),
        );
        self.report.add("storm: events dropped", Bound::AtMost(0.0), float(dropped), "events", "in all streams");
        let cpu = recorded.cpu.as_secs_f64();
        let others = recorded.stored_in_all().saturating_sub(recorded.account("polls", "stored"));
        self.report.add(
            "storm: recorder's CPU a poll, all-in",
            Bound::AtMost(300.0),
            cpu * 1e9 / stored,
            "ns",
            format!("{cpu:.2} s of CPU for {stored:.0} polls and {others} other rows"),
        );
        let sums = query(
            &self.hud_analyze,
            &self.session(),
            "SELECT CAST(sum(probe_ns) AS BIGINT) AS probe_ns, CAST(sum(recorder_cpu) AS BIGINT) AS cpu FROM overhead",
        )?;
        match sums["probe_ns"].as_f64() {
            Some(ns) => self.report.add(
                "storm: kernel programs' time a poll",
                Bound::Nothing,
                ns / produced,
                "ns",
                "entry and return; the trap itself comes on top, in the target's CPU time",
            ),
            None => self.report.missing(
                "storm: kernel programs' time a poll",
                Bound::Nothing,
                "the kernel does not count it",
            ),
        }
        let first = memory.first().map_or(f64::NAN, |m| m.0);
        let last = memory.last().map_or(f64::NAN, |m| m.0);
        self.report.add(
            "storm: recorder's resident memory, highest",
            Bound::AtMost(80.0),
            peak,
            "MiB",
            format!("first {first:.1}, last {last:.1} MiB"),
        );
        self.row_size("storm", "polls", 7.0, &recorded)
    }

    /// Duration of the session in seconds, by its manifest.
    fn window(&self, recorded: &Recorded) -> Result<f64> {
        let at = |name: &str| recorded.manifest[name].as_i64().context("the manifest lacks start or end");
        Ok(float(u64::try_from(at("end")? - at("start")?)?) / 1e9)
    }

    /// Bytes per row, of sessions with tasks of many kinds.
    fn size(&mut self) -> Result<()> {
        for program in ["service", "test-async-app"] {
            let target = Target::start(&self.targets.join(program), &[])?;
            // Long enough for segments closed by rotation, not only those closed at the end.
            let seconds = self.args.seconds.max(60).to_string();
            let options = ["--polls", "exact", "--duration", &seconds];
            let recorded = Recorder::start(&self.hud_record, target.pid(), &self.session(), &options)?.finish()?;
            self.row_size(program, "polls", 7.0, &recorded)?;
            self.row_size(program, "off_cpu", 10.0, &recorded)?;
        }
        Ok(())
    }

    fn row_size(&mut self, program: &str, table: &str, most: f64, recorded: &Recorded) -> Result<()> {
        let folder = self.session().join(table);
        let segments = fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        let (bytes, rows) = (float(folder_size(&folder)), float(recorded.account(table, "stored")));
        let what = format!("{program}: bytes a `{table}` row");
        if rows == 0.0 {
            self.report.missing(&what, Bound::AtMost(most), "no rows");
            return Ok(());
        }
        // A small segment is mostly footer, so it has no target.
        let bound = if rows >= 10_000.0 { Bound::AtMost(most) } else { Bound::Nothing };
        self.report.add(what, bound, bytes / rows, "B", format!("{rows:.0} rows in {segments} segments"));
        Ok(())
    }

    /// Time from the start of hud-record to the first rows on disk, on a program with much debug information.
    fn attach(&mut self) -> Result<()> {
        let big = big::build()?;
        let debug = float(big::debug_bytes(&big)?) / 1e6;
        for (name, options) in [("exact", ["--polls", "exact"]), ("off", ["--polls", "off"])] {
            let mut times = Vec::new();
            let mut most = 0.0;
            for _ in 0..self.args.pairs {
                let target = Target::start(&big, &[])?;
                let start = Instant::now();
                let mut recorder = Recorder::start(&self.hud_record, target.pid(), &self.session(), &options)?;
                recorder.until_rows(&["off_cpu", "polls", "samples"])?;
                times.push(start.elapsed().as_secs_f64());
                most = vitals(recorder.pid()).map_or(most, |now| mib(now.peak_rss).max(most));
                recorder.stop()?;
            }
            let all = times.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" ");
            self.report.add(
                format!("{debug:.0} MB of debug information, `--polls {name}`: attach to first event"),
                Bound::AtMost(1.0),
                median(&mut times),
                "s",
                format!("{all}; 100 task types; memory at most {most:.0} MiB by then"),
            );
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers to look at")]
fn float(n: u64) -> f64 {
    n as f64
}

fn mib(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}
