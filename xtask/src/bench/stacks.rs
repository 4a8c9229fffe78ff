//! Compares hud's stacks with perf's of the same program in the same seconds: the share of complete ones, and their
//! size on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::report::{Bound, Report};
use crate::sh::{cargo, command, output, run as sh, target_dir};
use crate::targets;
use crate::watch::{Recorder, Target, folder_size, query};

/// Complete stacks and bytes per stack, compared with perf
#[derive(clap::Args, Clone)]
pub(super) struct Args {
    /// How long each program is recorded
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

const METHOD: &str = "\
How it is measured:

- hud-record (`--polls off`, 99 Hz), `perf record --call-graph dwarf` and `perf record --call-graph fp` (both on cpu-clock at \
99 Hz and on sched:sched_switch) record one running program at the same time.
- A stack of hud's is whole where it says `complete`. A stack of perf's, as `perf script` prints it, is held to be whole where \
its outermost function is one that threads start in (`clone3`, `__clone`, `clone`, `_start`). Stacks off CPU are those at \
switches.
- Bytes are those of the session's folder, names and all other tables included, and of perf.data, over samples and switches.
";

/// Names of perf's two ways to walk a stack.
const WAYS: [&str; 2] = ["dwarf", "fp"];

pub(super) fn run(args: &Args) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    ensure!(is_root, "hud-record loads eBPF programs, which needs root");
    sh(cargo("build").args(["--release", "--package", "hud-record", "--bins"]))?;
    sh(cargo("build").args(["--package", "hud-analyze", "--bins"]))?;
    output(command("perf").arg("--version")).context("perf is what hud is compared with: install linux-perf")?;
    let targets = targets::build_all()?;
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let mut report = Report::default();
    println!();
    for (name, program) in [
        ("release build", "plain/test-async-app"),
        ("with debug information", "test-async-app"),
        ("fat LTO", "fat-lto/test-async-app"),
        ("frame pointers", "frame-pointers/test-async-app"),
    ] {
        compare(name, &targets.join(program), &folder, args.seconds, &mut report)?;
    }
    println!("\n{} targets missed", report.missed());
    if !args.no_report {
        let line = format!("cargo xtask bench stacks --seconds {}", args.seconds);
        println!("{}", report.write("stacks", &line, METHOD)?.display());
    }
    Ok(())
}

fn compare(name: &str, program: &Path, folder: &Path, seconds: u64, report: &mut Report) -> Result<()> {
    let target = Target::start(program, &[])?;
    let session = folder.join("session");
    let duration = seconds.to_string();
    let recorder = Recorder::start(
        &target_dir().join("release/hud-record"),
        target.pid(),
        &session,
        &["--polls", "off", "--duration", &duration],
    )?;
    let perfs: Vec<(Perf, &str)> = WAYS
        .into_iter()
        .map(|way| Ok((Perf::start(way, target.pid(), folder, &duration)?, way)))
        .collect::<Result<_>>()?;
    recorder.finish()?;
    let analyze = target_dir().join("debug/hud-analyze");
    let one = |sql: &str| -> Result<Stacks> {
        let row = query(&analyze, &session, sql)?;
        Ok(Stacks { all: row["n"].as_u64().context("no count")?, whole: row["whole"].as_u64().unwrap_or(0) })
    };
    let samples = one("SELECT count(*) AS n, count(*) FILTER (WHERE unwind = 'complete') AS whole FROM samples")?;
    let off_cpu = one("SELECT count(*) AS n, count(*) FILTER (WHERE s.unwind = 'complete') AS whole
         FROM off_cpu o LEFT JOIN stacks s ON s.stack_id = o.stack_id")?;
    let bytes = folder_size(&session);
    add(report, &format!("{name}: hud"), Bound::AtLeast(0.98), samples, off_cpu, bytes);
    for (perf, way) in perfs {
        let (samples, off_cpu, bytes) = perf.finish()?;
        add(report, &format!("{name}: perf --call-graph {way}"), Bound::Nothing, samples, off_cpu, bytes);
    }
    Ok(())
}

fn add(report: &mut Report, source: &str, bound: Bound, samples: Stacks, off_cpu: Stacks, bytes: u64) {
    for (what, Stacks { all, whole }) in [("samples", samples), ("stacks off CPU", off_cpu)] {
        let what = format!("{source}: whole {what}");
        if all == 0 {
            report.missing(&what, bound, "there are none");
        } else {
            report.add(what, bound, float(whole) / float(all), "", format!("{whole} of {all}"));
        }
    }
    let stacks = samples.all + off_cpu.all;
    report.add(
        format!("{source}: bytes a stack"),
        Bound::Nothing,
        float(bytes) / float(stacks),
        "B",
        format!("{bytes} B"),
    );
}

/// The number of stacks, and of complete ones.
#[derive(Clone, Copy, Default)]
struct Stacks {
    all: u64,
    whole: u64,
}

/// A running perf.
struct Perf {
    child: Child,
    data: PathBuf,
}

impl Perf {
    fn start(way: &str, pid: u32, folder: &Path, seconds: &str) -> Result<Self> {
        let data = folder.join(format!("perf-{way}.data"));
        let child = Command::new("perf")
            .args(["record", "--quiet", "-e", "cpu-clock/freq=99/", "-e", "sched:sched_switch", "--call-graph", way])
            .args(["--mmap-pages", "16M", "--pid", &pid.to_string(), "--output"])
            .arg(&data)
            .args(["--", "sleep", seconds])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start perf")?;
        Ok(Self { child, data })
    }

    /// Stacks at samples and at switches, all and complete, and the bytes written.
    fn finish(mut self) -> Result<(Stacks, Stacks, u64)> {
        let status = self.child.wait()?;
        ensure!(status.success(), "perf record ended with {status}");
        let bytes = fs::metadata(&self.data)?.len();
        let script = output(
            Command::new("perf")
                .args(["script", "--no-inline", "-F", "event,ip,sym", "--input"])
                .arg(&self.data)
                .stderr(Stdio::null()),
        )?;
        let (mut samples, mut off_cpu) = (Stacks::default(), Stacks::default());
        for event in script.split("\n\n") {
            let mut lines = event.lines().skip_while(|line| line.trim().is_empty());
            let Some(head) = lines.next() else { continue };
            let count = if head.contains("sched_switch") { &mut off_cpu } else { &mut samples };
            count.all += 1;
            let outermost = lines.last().and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default();
            let function = outermost.split(['+', '@']).next().unwrap_or_default();
            count.whole += u64::from(["clone3", "__clone3", "__clone", "clone", "_start"].contains(&function));
        }
        fs::remove_file(&self.data)?;
        Ok((samples, off_cpu, bytes))
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers to look at")]
fn float(n: u64) -> f64 {
    n as f64
}
