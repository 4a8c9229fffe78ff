//! Fuzzing of what reads files that a target controls: hud-record/fuzz.
//!
//! The targets are libFuzzer's, laid out as cargo-fuzz has them. cargo-fuzz would have to be installed, and asks for a
//! nightly compiler; the flags that it would give are stable ones, so cargo alone does.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{cargo, command, root, target_dir};

/// Fuzzes the readers of untrusted files, each for some seconds, beginning with the kept corpus
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For each target
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Only this one
    target: Option<String>,
}

/// What the compiler is told for libFuzzer to see which code an input reaches.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Given to cargo, so that build scripts are built without.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Bounds that hold for whatever is read: seconds for one file, megabytes of one allocation, bytes of a file.
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
    for name in names {
        fuzz(&built.join(TRIPLE).join("release").join(&name), &folder.join("corpus").join(&name), &name, args.seconds)?;
    }
    Ok(())
}

fn fuzz(program: &Path, corpus: &Path, name: &str, seconds: u32) -> Result<()> {
    // What is found new stays here, for the next run.
    let found = target_dir().join("fuzz/corpus").join(name);
    let artifacts = target_dir().join("fuzz/artifacts").join(name);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    }
    // It says much, and ends with a dictionary of what it found worth while.
    let log = target_dir().join("fuzz").join(name).with_extension("log");
    let says = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let status = command(program)
        .args(BOUNDS)
        .arg(format!("-max_total_time={seconds}"))
        // The child that reads debug information keeps every file that it maps until it ends: some kilobytes an input, and
        // a mapping, of which a process may have 65,530. Past that libFuzzer itself finds no memory any more.
        .arg(if name == "eh_frame" { "-rss_limit_mb=300" } else { "-rss_limit_mb=4000" })
        .arg(if name == "names" { "-runs=50000" } else { "-runs=-1" })
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .args([&found, corpus])
        .stderr(says)
        .status()
        .with_context(|| format!("failed to start {}", program.display()))?;
    let said = fs::read(&log)?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        let last: Vec<&str> = said.lines().rev().take(40).collect();
        eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        bail!("{name} was brought down: {status}; the input lies in {}", artifacts.display());
    }
    let figure = |of: &str| said.lines().rev().find_map(|l| l.strip_prefix(of)).map_or("?", str::trim).to_owned();
    println!(
        "{name}: {} files in {seconds} s, {} kept, the slowest took {} s, {} MB",
        figure("stat::number_of_executed_units:"),
        figure("stat::new_units_added:"),
        figure("stat::slowest_unit_time_sec:"),
        figure("stat::peak_rss_mb:"),
    );
    Ok(())
}
