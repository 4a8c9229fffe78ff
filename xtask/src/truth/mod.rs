//! The truth table: records programs with known faults (`hud-record/examples/faults`), and compares hud's findings with the
//! programs' own accounts.

mod account;
mod builds;
mod mode;
mod report;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use self::account::{Account, Finding};
use self::builds::Build;
use self::mode::Mode;
use self::report::{Report, Row};
use crate::sh::{command, output, target_dir};
use crate::targets::{self, Profile};
use crate::watch::{Recorder, Target, cpu_time};

/// Compares findings about programs with known faults with the programs' own accounts
#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// Records only these programs [default: all]
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<String>,
    /// How polls are recorded
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_values = ["auto", "off"])]
    modes: Vec<Mode>,
    /// How the programs are built
    #[arg(long, value_name = "BUILD", value_delimiter = ',', default_values = ["debug", "lines", "none", "stripped"])]
    builds: Vec<Build>,
    /// Duration of each recording, in seconds
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=300))]
    seconds: u64,
    /// Other busy processes per CPU
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=64))]
    load: u16,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
    /// Uses this hud-record instead of a debug build of the source here
    #[arg(long, value_name = "BIN")]
    hud_record: Option<PathBuf>,
    /// Uses this hud-analyze instead of a debug build of the source here
    #[arg(long, value_name = "BIN")]
    hud_analyze: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "hud-record loads eBPF programs, which needs root");
    let hud_record = targets::given_or_built(args.hud_record.as_deref(), "hud-record", Profile::Debug)?;
    let hud_analyze = targets::given_or_built(args.hud_analyze.as_deref(), "hud-analyze", Profile::Debug)?;
    let folder = target_dir().join("truth");
    let programs = builds::build(&folder, &args.builds)?;
    let names = names(programs.first().map(|(_, program)| program.as_path()), &args.only)?;
    let burners = Burners::start(args.load)?;
    let mut report = Report::new(args.load);
    // Two tables may be made at the same time.
    let session = folder.join(format!("session-{}", std::process::id()));
    for &mode in &args.modes {
        for (build, program) in &programs {
            for name in &names {
                let recorded = record(program, name, &hud_record, &session, &["--polls", mode.name()], args.seconds)
                    .and_then(|recorded| Ok((recorded, findings(&hud_analyze, &session)?)))
                    .with_context(|| format!("{name}, {} build, --polls {}", build.name(), mode.name()))?;
                let ((account, others), found) = recorded;
                let verdict = verdict::of(&account, &found, *build, others > BUSY);
                report.add(Row { mode, build: *build, account, verdict });
            }
        }
    }
    drop(burners);
    let _ = fs::remove_dir_all(&session);
    println!("\n{}", report.summary());
    if !args.no_report {
        println!("{}", report.write(&args.command_line())?.display());
    }
    Ok(())
}

impl Args {
    fn command_line(&self) -> String {
        let modes: Vec<_> = self.modes.iter().map(|mode| mode.name()).collect();
        let builds: Vec<_> = self.builds.iter().map(|build| build.name()).collect();
        let only = if self.only.is_empty() { String::new() } else { format!(" --only {}", self.only.join(",")) };
        let (modes, builds) = (modes.join(","), builds.join(","));
        format!(
            "cargo xtask truth --modes {modes} --builds {builds} --seconds {} --load {}{only}",
            self.seconds, self.load
        )
    }
}

/// The programs to record, in their own order.
fn names(program: Option<&Path>, only: &[String]) -> Result<Vec<String>> {
    let listed = output(command(program.context("no build is given")?).arg("--list"))?;
    let all: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').next()).collect();
    for name in only {
        ensure!(all.contains(&name.as_str()), "no program is named {name}; there are {}", all.join(", "));
    }
    let is_chosen = |name: &&str| only.is_empty() || only.iter().any(|chosen| chosen == name);
    Ok(all.into_iter().filter(is_chosen).map(str::to_owned).collect())
}

/// CPUs that other processes may use before `cpu_starved` is true of any program.
const BUSY: f64 = 0.25;

/// Records a program whose fault is in progress; returns its account after that, and how many CPUs other processes used.
fn record(
    program: &Path,
    name: &str,
    hud_record: &Path,
    session: &Path,
    options: &[&str],
    seconds: u64,
) -> Result<(Account, f64)> {
    let target = Target::start(program, &[name])?;
    let seconds = seconds.to_string();
    let options: Vec<&str> = ["--duration", &seconds].iter().chain(options).copied().collect();
    let (start, own, all) = (Instant::now(), cpu_time(target.pid())?, machine_cpu_time()?);
    let recorded = Recorder::start(hud_record, target.pid(), session, &options)?.finish()?;
    let own = cpu_time(target.pid())?.saturating_sub(own) + recorded.cpu;
    let others =
        machine_cpu_time()?.saturating_sub(all).saturating_sub(own).as_secs_f64() / start.elapsed().as_secs_f64();
    let account = Account::parse(&target.account()?)?;
    target.signal(Signal::TERM)?;
    Ok((account, others))
}

/// CPU time of the whole machine, that of other guests of its host included: all but idle time and waiting for disks.
fn machine_cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks = line.split_whitespace().skip(1).take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    let ticks: u64 = ticks.filter_map(|(_, n)| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

fn findings(hud_analyze: &Path, session: &Path) -> Result<Vec<Finding>> {
    let mut command = command(hud_analyze);
    let text = output(command.arg("findings").arg(session).args(["--limit", "0", "--format", "json"]))?;
    Finding::parse(&serde_json::from_str(&text)?)
}

/// Busy processes beside the recorded one; killed when dropped.
struct Burners(Vec<Child>);

impl Burners {
    fn start(per_cpu: u16) -> Result<Self> {
        let count = usize::from(per_cpu) * thread::available_parallelism()?.get();
        let mut all = Self(Vec::new());
        for _ in 0..count {
            let mut burner = command("sh");
            burner.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).stdout(Stdio::null());
            all.0.push(burner.spawn().context("failed to start a busy process")?);
        }
        Ok(all)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It has nothing to clean up.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
