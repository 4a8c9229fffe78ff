//! Fuzzing of the parsers of files that a target controls: hud-record/fuzz.
//!
//! The targets use libFuzzer and cargo-fuzz's layout. cargo-fuzz itself would have to be installed and needs a nightly
//! compiler; the flags that it passes are stable, so cargo alone suffices.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::sh::{cargo, command, root, target_dir};

/// Fuzzes the parsers of untrusted files, each for some seconds, starting from the committed corpus
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds per target
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Fuzz target; all if none is given
    target: Option<String>,
}

/// Compiler flags for libFuzzer's coverage.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Passed to cargo, so that build scripts are built without these flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Limits for every input: seconds per file, megabytes of one allocation, bytes of a file.
const BOUNDS: [&str; 3] = ["-timeout=5", "-malloc_limit_mb=300", "-max_len=65536"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = root().join("hud-record/fuzz");
    let built = target_dir().join("fuzz");
    let status = cargo("build")
        .args(["--release", "--target", TRIPLE, "--target-dir"])
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE)
        .current_dir(&folder)
        .status()?;
    ensure!(status.success(), "the fuzz targets are not built: {status}");

    let names = fs::read_dir(folder.join("corpus"))?;
    let mut names: Vec<String> =
        names.flatten().filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| args.target.as_ref().is_none_or(|only| only == name));
    names.sort();
    ensure!(!names.is_empty(), "there is no such fuzz target");
    let programs = built.join(TRIPLE).join("release");
    let fuzz = |name: &String| fuzz(&programs.join(name), &folder.join("corpus").join(name), name, args.seconds);
    // Each target needs one CPU.
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    for names in names.chunks(at_once) {
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let running: Vec<_> = names.iter().map(|name| scope.spawn(move || fuzz(name))).collect();
            running.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(anyhow!("fuzzing panicked")))).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

fn fuzz(program: &Path, corpus: &Path, name: &str, seconds: u32) -> Result<()> {
    // New inputs stay here, for the next run.
    let found = target_dir().join("fuzz/corpus").join(name);
    let artifacts = target_dir().join("fuzz/artifacts").join(name);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    // It is verbose, and ends with a dictionary of useful inputs.
    let log = target_dir().join("fuzz").join(name).with_extension("log");
    let says = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let status = command(program)
        .args(BOUNDS)
        .arg(format!("-max_total_time={seconds}"))
        // The child that reads debug information keeps every mapped file until it exits: some kilobytes and one mapping
        // an input. A process may have 65,530 mappings; beyond that libFuzzer itself cannot allocate memory.
        .arg(if name == "eh_frame" { "-rss_limit_mb=300" } else { "-rss_limit_mb=4000" })
        .arg(if name == "names" { "-runs=50000" } else { "-runs=-1" })
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args([&found, corpus])
        .stderr(says)
        .status()
        .with_context(|| format!("failed to start {}", program.display()))?;
    let output = fs::read(&log)?;
    let output = String::from_utf8_lossy(&output);
    if !status.success() {
        let last: Vec<&str> = output.lines().rev().take(40).collect();
        eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        bail!("{name} was brought down: {status}; the input lies in {}", artifacts.display());
    }
    let figure = |of: &str| output.lines().rev().find_map(|l| l.strip_prefix(of)).map_or("?", str::trim).to_owned();
    println!(
        "{name}: {} files in {seconds} s, {} kept, the slowest took {} s, {} MB",
        figure("stat::number_of_executed_units:"),
        figure("stat::new_units_added:"),
        figure("stat::slowest_unit_time_sec:"),
        figure("stat::peak_rss_mb:"),
    );
    Ok(())
}
