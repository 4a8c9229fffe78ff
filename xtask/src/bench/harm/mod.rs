//! Measures how much hud-record slows programs that it was not tuned for: each mode of `hud-record/examples/harm.rs`,
//! alternately with and without a recorder on one of two running processes.

mod modes;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use self::modes::{Mode, Side, Variant, name, names};
use super::report::{Bound, Report, median};
use crate::sh::{command, run as sh, target_dir};
use crate::targets::{self, Profile};
use crate::watch::{Recorder, Target};

/// Slowdown of programs that a recorder can harm most, and time to attach and detach under load
#[derive(clap::Args, Clone)]
pub(super) struct Args {
    /// Recorded measurements per mode and side, and up to four times as many while their standard error exceeds 0.01;
    /// medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measures only these modes [default: all]
    #[arg(long, value_name = "MODE", value_delimiter = ',')]
    only: Vec<Mode>,
    /// How hud-record is run
    #[arg(long, value_name = "SIDE", value_delimiter = ',', default_values = ["off", "auto"])]
    sides: Vec<Side>,
    /// Measures every mode without debug information only [default: four modes also with it]
    #[arg(long)]
    stripped: bool,
    /// Measures this hud-record instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    hud_record: Option<PathBuf>,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

/// Pause between a change (start, attach) and a measurement.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause after a detach.
const SETTLE_ALONE: Duration = Duration::from_millis(300);
/// Duration of a recording under load, in seconds.
const LOADED_SECONDS: u64 = 3;
const BUSY_THREADS_PER_CPU: usize = 4;
/// Share of its CPUs above which a program is assumed to use all CPU time that it gets.
const FULLY_USED: f64 = 0.9;
/// Standard error above which a ratio is measured again: the distance of the targets from 1 is two to three times as long.
const PRECISE: f64 = 0.01;
/// Most measurements, as a multiple of `--pairs`.
const MOST_PAIRS: u32 = 4;
/// Least ratio of any single measurement. Harm varies: of two recordings of the same `self-wake` process, one did not
/// slow it and one took 98.7 % of its speed, which a median may hide.
const LOWEST: f64 = 0.9;

const METHOD: &str = "\
How it is measured:

- The programs are the modes of `hud-record/examples/harm.rs`, which count their own units of work and read their own CPU \
time. Stripped is the same binary after `strip --strip-debug`, as `cargo build --release` leaves it by default. The mode \
with 1,000 task types is in a release build of its own, so that no other mode has that many poll functions.
- Two processes of the same program run at the same time; only one of them is recorded. The other is the control: what the \
machine does to both (its clock, its neighbours, its caches) cancels out. Programs with one worker share one CPU, so that \
they take turns within milliseconds; the others share all CPUs. Each process is a session of its own (`setsid`), so that the \
scheduler gives both the same share of the CPUs, however many threads they have (CONFIG_SCHED_AUTOGROUP). The control of the \
mode with 2,000 threads has 400: 4,000 would be too many for two CPUs.
- Each measurement with a recorder lies between two without. Its ratio is to the mean of these two. Per CPU second it is \
the recorded program's change divided by the control's. The median of the ratios is reported, its standard error (1.2533 \
standard deviations divided by the root of their number), and the lowest ratio per CPU second. The recorder has attached \
and written its first rows a second before the measurement begins. It is repeated until both standard errors are at most \
0.01, and at most four times as often as `--pairs` says.
- Units per CPU second count the CPU time of the program alone, probes included. Units per second include the CPU time \
that the recorder takes. Where the program uses all the CPU time that it gets, they are divided by the change of the \
control's units per CPU second: the machine's own change of speed.
- Noise: the ratios of measurements without a recorder to their neighbours without one, by the same formula. A single \
ratio is only required to exceed the lowest of them.
- Neighbour: the measured program is not the recorded one, which hardly does anything; the control is `self-wake`, which does \
not switch. The kernel runs hud's programs at every context switch of the machine.
- Paced modes (switches, spawns, threads) have idle time: they lose units per second only where that time is used up.
- Attach: units per second from the start of hud-record to its first rows on disk, as a ratio in the same way; beside it \
the wall time to these rows, and from SIGINT to the exit of hud-record.
- attach-load: the saturated mode with four workers per CPU, and the threads mode, stripped. Attach is from the start of \
hud-record to its first rows on disk. Detach is from the end of `--duration` (the manifest's start and the duration) to the \
exit of hud-record.
";

struct Bench {
    args: Args,
    hud_record: PathBuf,
    plain: PathBuf,
    stripped: PathBuf,
    monomorphs: PathBuf,
    session: PathBuf,
    report: Report,
}

pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "hud-record loads eBPF programs, which needs root");
    let hud_record = targets::given_or_built(args.hud_record.as_deref(), "hud-record", Profile::Release)?;
    let plain = targets::build()?.join("harm");
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let stripped = folder.join("harm-stripped");
    sh(command("strip").arg("--strip-debug").arg("-o").args([&stripped, &plain]))?;
    let all = if args.only.is_empty() { Mode::value_variants() } else { &args.only };
    let monomorphs = folder.join("harm-monomorphs");
    if all.contains(&Mode::Monomorphs) {
        fs::copy(targets::build_monomorphs()?, &monomorphs)
            .context("failed to copy the program with 1,000 task types")?;
    }
    let mut bench = Bench {
        args: args.clone(),
        hud_record,
        plain,
        stripped,
        monomorphs,
        session: folder.join("session"),
        report: Report::default(),
    };
    println!();
    bench.add_load_average()?;
    for &mode in all.iter().filter(|&&mode| mode != Mode::AttachLoad) {
        bench.mode(mode)?;
    }
    if all.contains(&Mode::AttachLoad) {
        bench.attach_under_load()?;
    }
    println!("\n{} targets missed", bench.report.missed());
    if !args.no_report {
        let path = bench.report.write("harm", &args.command_line()?, METHOD)?;
        println!("{}", path.display());
    }
    Ok(())
}

impl Args {
    fn command_line(&self) -> Result<String> {
        let Self { pairs, seconds, .. } = self;
        let mut line = format!("cargo xtask bench harm --pairs {pairs} --seconds {seconds} --sides ");
        line += &names(&self.sides)?;
        if !self.only.is_empty() {
            line = format!("{line} --only {}", names(&self.only)?);
        }
        if self.stripped {
            line += " --stripped";
        }
        Ok(line)
    }
}

/// Speed of a program over a time range.
#[derive(Clone, Copy)]
struct Speed {
    per_second: f64,
    per_cpu_second: f64,
    cpus: f64,
}

impl Speed {
    /// Computed from two reports of the program.
    fn between(before: &Value, after: &Value) -> Result<Self> {
        let grown = |name: &str| -> Result<f64> {
            let of = |account: &Value| account[name].as_f64().context("the account lacks a number");
            Ok(of(after)? - of(before)?)
        };
        let (ops, seconds, cpu) = (grown("ops")?, grown("mono_ns")? / 1e9, grown("cpu_ns")? / 1e9);
        Ok(Self { per_second: ops / seconds, per_cpu_second: ops / cpu, cpus: cpu / seconds })
    }
}

/// Two processes of one program that run at the same time on the same CPUs.
struct Twins {
    /// The measured one.
    target: Target,
    control: Target,
    /// The recorded program, if it is a third one.
    recorded: Option<Target>,
    /// CPUs available to them.
    cpus: f64,
}

/// Speeds of both over one time range.
#[derive(Clone, Copy)]
struct Speeds {
    target: Speed,
    control: Speed,
}

impl Twins {
    fn start(program: &Path, mode: Mode) -> Result<Self> {
        let program = program.to_str().context("a path that is no UTF-8")?;
        let pinned: &[&str] = if mode.has_one_worker() { &["taskset", "--cpu-list", "0"] } else { &[] };
        let start = |arguments: Vec<String>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // If this program is interrupted, they end.
            let alone = ["--pdeathsig", "KILL", "setsid"];
            Target::start(Path::new("setpriv"), &[&alone, pinned, &[program], &arguments].concat())
        };
        let cpus = if mode.has_one_worker() { 1.0 } else { thread::available_parallelism()?.get() as f64 };
        let target = start(mode.arguments()?)?;
        let control = start(mode.of_the_control()?)?;
        let recorded = mode.of_the_recorded()?.map(start).transpose()?;
        Ok(Self { target, control, recorded, cpus })
    }

    fn accounts(&self) -> Result<[Value; 2]> {
        Ok([self.target.account()?, self.control.account()?])
    }

    /// Since these reports.
    fn speeds(&self, [target, control]: &[Value; 2]) -> Result<Speeds> {
        let after = self.accounts()?;
        Ok(Speeds { target: Speed::between(target, &after[0])?, control: Speed::between(control, &after[1])? })
    }

    /// For this number of seconds from now on.
    fn speeds_for(&self, seconds: u64) -> Result<Speeds> {
        let before = self.accounts()?;
        thread::sleep(Duration::from_secs(seconds));
        self.speeds(&before)
    }

    /// Units per second and units per CPU second as ratios to the mean of the measurements before and after.
    fn ratios(&self, speeds: &Speeds, [before, after]: [&Speeds; 2]) -> (f64, f64) {
        let change = |of: fn(&Speeds) -> f64| 2.0 * of(speeds) / (of(before) + of(after));
        let control = change(|s| s.control.per_cpu_second);
        let throughput = change(|s| s.target.per_second);
        let used = (before.target.cpus + before.control.cpus) / self.cpus;
        (
            if used >= FULLY_USED { throughput / control } else { throughput },
            change(|s| s.target.per_cpu_second) / control,
        )
    }
}

/// A program while it is recorded.
struct Recorded {
    speeds: Speeds,
    attach_speeds: Speeds,
    attach: Duration,
    detach: Duration,
}

impl Bench {
    fn add_load_average(&mut self) -> Result<()> {
        let all = fs::read_to_string("/proc/loadavg")?;
        let last_minute = all.split_whitespace().next().context("no load average")?.parse()?;
        let detail = "over 1 min; the ratios include other load of the machine";
        self.report.add("load average at the start", Bound::Nothing, last_minute, "runnable", detail);
        Ok(())
    }

    /// One program: each of its variants, recorded in each of the ways.
    fn mode(&mut self, mode: Mode) -> Result<()> {
        let with_debug_information = !self.args.stripped && mode.has_two_variants();
        let variants = with_debug_information.then_some(Variant::WithDebugInformation);
        for variant in variants.into_iter().chain([Variant::Stripped]) {
            for side in self.args.sides.clone() {
                self.ratios(mode, variant, side)?;
            }
        }
        Ok(())
    }

    fn ratios(&mut self, mode: Mode, variant: Variant, side: Side) -> Result<()> {
        let (least, unit) = (Bound::AtLeast(mode.least(side)), mode.unit());
        let title = format!("{}, {}, `{}`", name(&mode)?, variant.name(), side.options().join(" "));
        let binary = match variant {
            Variant::Stripped if mode == Mode::Monomorphs => &self.monomorphs,
            Variant::Stripped => &self.stripped,
            Variant::WithDebugInformation => &self.plain,
        };
        let twins = Twins::start(binary, mode)?;
        thread::sleep(SETTLE);
        let switches = switches_per_second(twins.target.pid())?;
        let mut before = twins.speeds_for(self.args.seconds)?;
        println!(
            "{title}: alone {:.0} {unit}/s, {:.2} CPUs, {switches:.0} switches/s",
            before.target.per_second, before.target.cpus
        );
        let mut alone = vec![before];
        let mut pairs: Vec<[f64; 5]> = Vec::new();
        let values = |pairs: &[[f64; 5]], n: usize| Values(pairs.iter().map(|pair| pair[n]).collect());
        let is_enough = |pairs: &[[f64; 5]]| {
            let number = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
            let is_precise = || [0, 1].iter().all(|&n| values(pairs, n).error() <= PRECISE);
            number >= MOST_PAIRS * self.args.pairs || number >= self.args.pairs && is_precise()
        };
        while !is_enough(&pairs) {
            let recorded = match self.recorded(&twins, side) {
                Ok(recorded) => recorded,
                Err(error) => {
                    self.report.missing(&title, least, format!("{error:#}"));
                    return Ok(());
                }
            };
            thread::sleep(SETTLE_ALONE);
            let after = twins.speeds_for(self.args.seconds)?;
            let (throughput, per_cpu) = twins.ratios(&recorded.speeds, [&before, &after]);
            let (attach, _) = twins.ratios(&recorded.attach_speeds, [&before, &after]);
            println!(
                "  recorded {:.0} {unit}/s, {:.2} CPUs: {throughput:.3} per second, {per_cpu:.3} per CPU second",
                recorded.speeds.target.per_second, recorded.speeds.target.cpus
            );
            alone.push(after);
            pairs.push([throughput, per_cpu, attach, recorded.attach.as_secs_f64(), recorded.detach.as_secs_f64()]);
            before = after;
        }
        let [throughput, per_cpu, attach, to_rows, to_exit] = [0, 1, 2, 3, 4].map(|n| values(&pairs, n));
        let of = |value: fn(&Speed) -> f64| Values(alone.iter().map(|s| value(&s.target)).collect()).median();
        let mut detail =
            format!("{throughput}; ± {:.3}; alone {:.0} {unit}/s", throughput.error(), of(|s| s.per_second));
        if mode != Mode::ThreadChurn {
            detail += &format!(", {switches:.0} context switches/s");
        }
        self.report.add(format!("{title}: {unit} per second"), least, throughput.median(), "", detail);
        let alone_ns = 1e9 / of(|s| s.per_cpu_second);
        let added_ns = alone_ns / per_cpu.median() - alone_ns;
        let detail = format!(
            "{per_cpu}; ± {:.3}; alone {alone_ns:.0} ns of CPU time per unit, recorded {added_ns:+.0} ns",
            per_cpu.error()
        );
        self.report.add(format!("{title}: {unit} per CPU second"), least, per_cpu.median(), "", detail);
        // Each measurement alone, compared with its neighbours like the recorded ones: the machine's own noise.
        let noise = alone.windows(3).map(|of| twins.ratios(&of[1], [&of[0], &of[2]]).1);
        let noise = Values(noise.collect());
        let detail = format!("{noise}; ± {:.3}; the same ratio without a recorder", noise.error());
        self.report.add(format!("{title}: noise"), Bound::Nothing, noise.lowest(), "lowest", detail);
        let lowest = Bound::AtLeast(LOWEST.min(noise.lowest()));
        self.report.add(format!("{title}: lowest"), lowest, per_cpu.lowest(), "", "of the values above");
        let detail = format!("{attach}; first rows after {to_rows} s, exit {to_exit} s after SIGINT");
        self.report.add(format!("{title}: attach"), Bound::Nothing, attach.median(), "", detail);
        Ok(())
    }

    fn recorded(&self, twins: &Twins, side: Side) -> Result<Recorded> {
        let before = twins.accounts()?;
        let start = Instant::now();
        let recorder = self.attach(twins.recorded.as_ref().unwrap_or(&twins.target), side.options())?;
        let attach = start.elapsed();
        let attach_speeds = twins.speeds(&before)?;
        thread::sleep(SETTLE);
        let speeds = twins.speeds_for(self.args.seconds)?;
        let end = Instant::now();
        recorder.stop()?;
        Ok(Recorded { speeds, attach_speeds, attach, detach: end.elapsed() })
    }

    /// Starts a recorder and waits for its first rows on disk.
    fn attach(&self, target: &Target, options: &[&str]) -> Result<Recorder> {
        let mut recorder = Recorder::start(&self.hud_record, target.pid(), &self.session, options)?;
        recorder.until_rows(&["off_cpu", "polls", "samples"])?;
        Ok(recorder)
    }

    fn attach_under_load(&mut self) -> Result<()> {
        let cpus = thread::available_parallelism()?.get();
        let workers = (BUSY_THREADS_PER_CPU * cpus).to_string();
        let loads: [(&str, &[&str]); 2] = [
            ("4 busy threads per CPU", &["saturated", "--workers", &workers]),
            ("2,000 threads that sleep 10 ms", &["threads"]),
        ];
        for (load, arguments) in loads {
            let target = Target::start(&self.stripped, arguments)?;
            thread::sleep(SETTLE);
            for side in self.args.sides.clone() {
                let title = format!("{load}, `{}`", side.options().join(" "));
                let times = (0..self.args.pairs).map(|_| self.attach_and_detach(&target, side));
                let times = match times.collect::<Result<Vec<_>>>() {
                    Ok(times) => times,
                    Err(error) => {
                        self.report.missing(&title, Bound::AtMost(1.5), format!("{error:#}"));
                        continue;
                    }
                };
                let (attach, detach): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
                for (what, most, times) in [("attach", 1.5, Values(attach)), ("detach", 1.0, Values(detach))] {
                    let what = format!("{title}: {what}");
                    self.report.add(what, Bound::AtMost(most), times.median(), "s", times.to_string());
                }
            }
        }
        Ok(())
    }

    /// Seconds from the start of hud-record to its first rows, and from the end of `--duration` to its exit.
    fn attach_and_detach(&self, target: &Target, side: Side) -> Result<(f64, f64)> {
        let duration = LOADED_SECONDS.to_string();
        let options = [side.options(), &["--duration", &duration]].concat();
        let start = Instant::now();
        let recorder = self.attach(target, &options)?;
        let attach = start.elapsed().as_secs_f64();
        let recorded = recorder.finish()?;
        let exit = SystemTime::now();
        let began = recorded.manifest["start"].as_u64().context("the manifest lacks its start")?;
        let over = SystemTime::UNIX_EPOCH + Duration::from_nanos(began) + Duration::from_secs(LOADED_SECONDS);
        Ok((attach, exit.duration_since(over).unwrap_or_default().as_secs_f64()))
    }
}

/// Repeated measurements; displayed in order of measurement.
struct Values(Vec<f64>);

impl Values {
    fn median(&self) -> f64 {
        median(&mut self.0.clone())
    }

    /// The median's standard error, assuming a normal distribution; NaN for less than two values.
    fn error(&self) -> f64 {
        let number = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / number;
        let variance = self.0.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (number - 1.0);
        1.2533 * (variance / number).sqrt()
    }

    fn lowest(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.0.iter().map(|value| format!("{value:.3}")).collect();
        f.write_str(&all.join(" "))
    }
}

/// Context switches of the threads that live throughout one second.
fn switches_per_second(pid: u32) -> Result<f64> {
    let (before, start) = (switches(pid)?, Instant::now());
    thread::sleep(Duration::from_secs(1));
    Ok((switches(pid)? - before) / start.elapsed().as_secs_f64())
}

/// Context switches of a process's living threads so far, voluntary or not.
fn switches(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Empty if the thread has exited meanwhile.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let switches = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        sum += switches.filter_map(|(_, number)| number.trim().parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}
