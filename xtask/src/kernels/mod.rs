//! Boots Debian's kernels in QEMU, to check that each accepts hud's kernel programs and that hud records on it.
//!
//! The kernel object is compiled once, but every kernel's verifier checks it anew, and older ones know less: they
//! rejected programs that the build machine's kernel accepted.

mod cache;
mod console;
mod guest;
mod initramfs;
mod load;
mod lockdown;
mod recording;
mod report;
mod versions;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::results;
use crate::sh::{command, output, succeeds};
use crate::targets::{self, Profile};
use cache::{Cache, Kernel, Qemu};
use console::{Line, Step};
use guest::Boot;
use initramfs::Program;
use load::Load;
use lockdown::Refusal;
use recording::Recording;
use report::Outcome;
use versions::Wanted;

/// Boots Debian kernels in QEMU; fails unless each loads the kernel programs, and hud records and verifies a session on
/// it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel version, such as 6.1, or `newest`; repeatable [default: 6.1, 6.12, 6.19 and newest]
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<Wanted>,
    /// Runs one check only
    #[arg(long, value_enum)]
    check: Option<Check>,
    /// Records in this way only; repeatable [default: all]
    #[arg(long = "recording", value_enum, value_name = "NAME")]
    recordings: Vec<Way>,
    /// Number of recordings with `--polls exact`
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Duration of a recording, in seconds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Adds kernel parameters, such as `preempt=full`
    #[arg(long, value_name = "PARAMETERS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,
    /// Longest time that a command may take in a guest, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Uses the debug build of hud-record, and so saves a release build
    #[arg(long, conflicts_with = "hud_record")]
    debug: bool,
    /// Checks this hud-record instead of a build of the source here
    #[arg(long, value_name = "BIN")]
    hud_record: Option<PathBuf>,
    /// Reads sessions by this hud-analyze instead of a build of the source here
    #[arg(long, value_name = "BIN")]
    hud_analyze: Option<PathBuf>,
    /// Writes no report to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// Loads each kernel program separately, with BTF and without
    Load,
    /// Records test-async-app, verifies the session and counts its rows
    Record,
    /// Has hud-record refuse to record where the kernel is locked down [default kernel: 6.12]
    Lockdown,
}

/// The ways to record.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// `--polls auto`
    Auto,
    /// `--polls exact`
    Exact,
    /// `--polls off`
    Off,
    /// `--no-btf`
    NoBtf,
    /// `--polls auto` as uid 1000 with hud's capabilities, where the kernel may deny perf events
    Capabilities,
}

impl Way {
    const ALL: [Self; 5] = [Self::Auto, Self::Exact, Self::Off, Self::NoBtf, Self::Capabilities];

    /// Its name in init.sh.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Exact => "exact",
            Self::Off => "off",
            Self::NoBtf => "no-btf",
            Self::Capabilities => recording::CAPABILITIES,
        }
    }
}

/// Two old kernels, each of a stable Debian: newer kernels accepted every program that these accept, except for the
/// number of instructions.
const OLD_KERNELS: [&str; 2] = ["6.1", "6.12"];

/// The kernel that is also booted locked down, where it is among those to boot: lockdown does not differ between
/// kernels.
const LOCKDOWN_KERNEL: &str = "6.12";

/// Makes a kernel deny programs access to its memory.
const LOCKDOWN_PARAMETERS: &str = "lsm=lockdown,capability lockdown=confidentiality";

/// Time that the guest may take beyond the longest command.
const BOOT_TIME: Duration = Duration::from_secs(60);

/// Lines of the console that are shown if a guest fails.
const LAST_LINES: usize = 40;

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut cache = Cache::open()?;
    let lockdown_kernel: Wanted = LOCKDOWN_KERNEL.parse().map_err(anyhow::Error::msg)?;
    let wanted = match (args.kernels.as_slice(), args.check) {
        ([], Some(Check::Lockdown)) => vec![lockdown_kernel.clone()],
        ([], _) => cache::defaults()?,
        (kernels, _) => kernels.to_vec(),
    };
    let provided = Provided::new(&mut cache, &wanted)?;
    let initramfs = initramfs::build(&programs(args)?, &cache.folder().join("initramfs"))?;

    let mut outcomes = Vec::new();
    for kernel in &provided.kernels {
        let is_locked_down: &[bool] = match args.check {
            Some(Check::Lockdown) => &[true],
            None if kernel.is(&lockdown_kernel) => &[false, true],
            _ => &[false],
        };
        for &is_locked_down in is_locked_down {
            outcomes.push(boot(args, &provided.qemu, kernel, is_locked_down, &initramfs, cache.folder())?);
        }
    }
    if !args.no_report {
        let command_line = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let command_line = format!("cargo xtask {command_line}");
        let text = report::markdown(&command_line, &provided.qemu.version()?, &results::machine()?, &outcomes)?;
        println!("\nwritten to {}", results::write("kernels", &text)?.display());
    }
    let failed: Vec<_> = outcomes.iter().filter(|one| !one.failures().is_empty()).map(Outcome::name).collect();
    if !failed.is_empty() {
        bail!(
            "hud fails on Linux {}: see the consoles in {}",
            failed.join(", "),
            cache.folder().join("logs").display()
        );
    }
    println!("\nhud passes its checks on Linux {}", outcomes.iter().map(Outcome::name).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Loads the kernel programs on two old kernels, with the debug build of hud-record. If QEMU or the kernels are
/// unavailable, that is a failure only if the check is `required`.
pub(crate) fn check_old_kernels(hud_record: PathBuf, required: bool) -> Result<()> {
    let kernels = OLD_KERNELS.iter().map(|version| version.parse().map_err(anyhow::Error::msg));
    let args = Args {
        kernels: kernels.collect::<Result<_>>()?,
        check: Some(Check::Load),
        recordings: Vec::new(),
        repeat: 1,
        seconds: 8,
        append: String::new(),
        timeout: 600,
        debug: true,
        hud_record: Some(hud_record),
        hud_analyze: None,
        no_report: true,
    };
    if let Err(missing) = Cache::open().and_then(|mut cache| Provided::new(&mut cache, &args.kernels))
        && !required
    {
        println!("the kernel programs are not loaded on old kernels: {missing:#}");
        return Ok(());
    }
    run(&args)
}

/// The reason to load the kernel programs on old kernels, if there is one: they changed within two weeks, or may have.
///
/// CI clones a branch and does not know which commit it checked last. Two weeks are longer than a change waits for CI.
pub(crate) fn why_to_check() -> Option<&'static str> {
    let git = |arguments: &[&str]| output(command("git").args(arguments)).map(|text| text.trim().to_owned());
    if !succeeds(command("git").args(["rev-parse", "HEAD"])) {
        return Some("the git history is not known");
    }
    match git(&["rev-parse", "--is-shallow-repository"]).as_deref() {
        Ok("false") => {}
        _ => return Some("the git history is not complete"),
    }
    match git(&["status", "--porcelain", "--", "hud-ebpf"]).as_deref() {
        Ok("") => {}
        _ => return Some("hud-ebpf has changes that are not committed"),
    }
    match git(&["log", "-1", "--since=14.days", "--format=%h", "--", "hud-ebpf"]).as_deref() {
        Ok("") => None,
        _ => Some("hud-ebpf changed within the last 14 days"),
    }
}

/// The packages from Debian that a boot needs.
struct Provided {
    qemu: Qemu,
    kernels: Vec<Kernel>,
}

impl Provided {
    fn new(cache: &mut Cache, wanted: &[Wanted]) -> Result<Self> {
        let qemu = cache.qemu().context("failed to provide QEMU")?;
        let mut kernels: Vec<Kernel> = Vec::new();
        for wanted in wanted {
            let kernel = cache.kernel(wanted).with_context(|| format!("failed to provide Linux {wanted}"))?;
            // Two requests may select the same kernel.
            if !kernels.iter().any(|other| other.package == kernel.package) {
                kernels.push(kernel);
            }
        }
        Ok(Self { qemu, kernels })
    }
}

/// The programs of the guest, built unless given.
fn programs(args: &Args) -> Result<Vec<Program>> {
    let program = |given: &Option<PathBuf>, package: &'static str, profile| -> Result<Program> {
        let path = targets::given_or_built(given.as_deref(), package, profile)?;
        Ok(Program { path, name: package, is_stripped: true })
    };
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let mut programs = vec![program(&args.hud_record, "hud-record", profile)?];
    if args.check != Some(Check::Load) {
        if args.check != Some(Check::Lockdown) {
            programs.push(program(&args.hud_analyze, "hud-analyze", Profile::Release)?);
        }
        programs.push(Program { path: targets::build_program(TARGET)?, name: TARGET, is_stripped: false });
    }
    Ok(programs)
}

/// The program that is recorded.
const TARGET: &str = "test-async-app";

/// Boots a kernel, and shows the result of each step as it ends.
fn boot(
    args: &Args,
    qemu: &Qemu,
    kernel: &Kernel,
    is_locked_down: bool,
    initramfs: &Path,
    folder: &Path,
) -> Result<Outcome> {
    let mut outcome = Outcome::new(kernel.clone(), is_locked_down);
    println!("\nLinux {}", outcome.name());
    let version = &kernel.package.version;
    let log = if is_locked_down { format!("{version}-lockdown.log") } else { format!("{version}.log") };
    let boot = Boot {
        qemu,
        image: &kernel.image,
        initramfs,
        parameters: &parameters(args, is_locked_down),
        log: folder.join("logs").join(log),
        patience: Duration::from_secs(args.timeout) + BOOT_TIME,
    };
    let start = Instant::now();
    let mut step = Step::default();
    outcome.ending = boot.run(|line| match line {
        Line::Booted { release, has_btf, uptime_s } => {
            println!("  booted {release} in {uptime_s} s, BTF: {}", if has_btf { "yes" } else { "no" });
            (outcome.release, outcome.has_btf) = (Some(release), has_btf);
        }
        Line::Begin(name) => {
            report::print_begin(&name);
            step = Step::default();
        }
        Line::End(name) if name.starts_with("load") => {
            let load = Load::judge(&name, &step);
            report::print_load(&load);
            outcome.loads.push(load);
        }
        Line::End(name) if name == "lockdown" => {
            let refusal = Refusal::judge(&name, &step);
            report::print_refusal(&refusal);
            outcome.refusals.push(refusal);
        }
        Line::End(name) => {
            let recording = Recording::judge(&name, &step, version);
            report::print_recording(&recording);
            outcome.recordings.push(recording);
        }
        Line::Kernel(warning) => outcome.warnings.push(warning),
        line => step.take(line),
    })?;
    outcome.last_lines = boot.last_lines(LAST_LINES);
    outcome.duration = start.elapsed();
    report::print_ending(&outcome);
    Ok(outcome)
}

/// The kernel parameters that init.sh reads.
fn parameters(args: &Args, is_locked_down: bool) -> String {
    let (checks, lockdown) = match args.check {
        _ if is_locked_down => ("lockdown", LOCKDOWN_PARAMETERS),
        Some(Check::Load) => ("load", ""),
        Some(Check::Record) => ("record", ""),
        _ => ("load,record", ""),
    };
    let ways = if args.recordings.is_empty() { &Way::ALL } else { args.recordings.as_slice() };
    let ways: Vec<_> = ways.iter().map(|way| way.name()).collect();
    format!(
        "HUD_CHECKS={checks} HUD_RECORDINGS={} HUD_REPEAT={} HUD_SECONDS={} HUD_LIMIT={} {lockdown} {}",
        ways.join(","),
        args.repeat,
        args.seconds,
        args.timeout,
        args.append
    )
}
