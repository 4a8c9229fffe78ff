//! All checks that a change must pass before it is merged, the cheapest first.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::sh::{cargo, command, root, run as sh, succeeds, target_dir, wanted};
use crate::{build_ebpf, kernels, queries, setup, targets, words};

/// Formatting, lints, the kernel object, and the tests: what CI runs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments for the test runner, such as a filter
    #[arg(last = true)]
    runner: Vec<String>,
}

/// Readers that share no code with ours: of Parquet, Perfetto traces and pprof profiles (austin-python has pprof's
/// protobuf module, and requires an older protobuf than we need).
const READERS: [&str; 4] = ["duckdb==1.4.4", "perfetto==0.59.1", "protobuf==7.36.2", "austin-python==2.4.0"];
/// A server that speaks S3.
const MOTO: [&str; 3] = ["moto[s3]==5.1.18", "flask==3.1.3", "flask-cors==6.0.5"];

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let tools = match setup::require_bpf_tools() {
        Err(missing) if !required() => {
            println!("the kernel programs are neither linted nor checked against their object: {missing:#}");
            false
        }
        missing => missing.map(|()| true)?,
    };

    steps.run("format", || {
        sh(cargo("fmt").args(["--all", "--check"]))?;
        sh(cargo("fmt").arg("--check").current_dir(root().join("hud-ebpf")))
    })?;
    steps.run("words", || {
        words::list_new();
        Ok(())
    })?;
    steps.run("views", queries::check)?;
    if tools {
        steps.run("kernel object", build_ebpf::check_committed)?;
        steps.run("clippy, kernel", build_ebpf::clippy)?;
    }
    let nextest = succeeds(&mut cargo_nextest("--version"));
    // Where nothing is built yet, linting as the tests are compiled saves a check of every dependency.
    let lints_at_once = required() && nextest;
    if !lints_at_once {
        steps.run("clippy", || sh(cargo("clippy").args(["--workspace", "--all-targets", "--", "-Dwarnings"])))?;
    }
    let for_tests = |command: Command| if lints_at_once { linting(command) } else { command };

    // Builds of different profiles share the CPUs well: the programs' last steps, linking in particular, need only one.
    let (programs, duckdb) = steps.run("builds", || {
        std::thread::scope(|scope| {
            let programs = scope.spawn(|| Ok::<_, anyhow::Error>((targets::build_all()?, duckdb())));
            // Some tests run examples, which `cargo test` builds only for tests of every kind together.
            let (mut build, what) = match nextest {
                true => (for_tests(cargo_nextest("run")), "--no-run"),
                false => (cargo("build"), "--examples"),
            };
            build.args(["--workspace", what]);
            let built = sh(&mut build);
            let programs = programs.join().map_err(|_| anyhow!("the build of the programs panicked"));
            built?;
            programs?
        })
    })?;
    let (mut tests, what): (_, &[&str]) = match nextest {
        true => (for_tests(cargo_nextest("run")), &["--workspace"]),
        false => (cargo("test"), &["--workspace", "--lib", "--bins", "--tests", "--"]),
    };
    tests.args(what).args(&args.runner).env("HUD_TEST_TARGETS", programs);
    match duckdb {
        Ok(python) => _ = tests.env("HUD_DUCKDB_PYTHON", python),
        Err(error) if required() => return Err(error),
        Err(error) => println!("the tests that read sessions with DuckDB will be skipped: {error:#}"),
    }
    steps.run("tests", || sh(&mut tests))?;
    let mut documentation = for_tests(cargo("test"));
    documentation.args(["--workspace", "--doc", "--quiet"]);
    if args.runner.is_empty() {
        // A guest needs one CPU.
        steps.run("documentation tests, fuzz, kernels", || {
            std::thread::scope(|scope| {
                let kernels = scope.spawn(load_on_old_kernels);
                let others = sh(&mut documentation).and_then(|()| sh(cargo("xtask").args(["fuzz", "--seconds", "20"])));
                kernels.join().map_err(|_| anyhow!("the load check panicked")).flatten().and(others)
            })
        })?;
    } else {
        steps.run("documentation tests", || sh(&mut documentation))?;
    }
    if !args.runner.is_empty() {
        println!("\nno soak: only some of the tests were selected");
    } else if rustix::process::geteuid().is_root() {
        // The limit is low, so most data expires within the minute. The programs are those that the tests were built
        // with: a build of one package has other features, and compiles DataFusion once more.
        let built = target_dir().join("debug");
        let mut soak = cargo("xtask");
        soak.args(["soak", "--minutes", "1", "--keep-size", "2MiB", "--storms", "5"]);
        soak.arg("--hud-record").arg(built.join("hud-record"));
        soak.arg("--hud-analyze").arg(built.join("hud-analyze"));
        steps.run("soak", || sh(&mut soak))?;
    } else {
        println!("\nno soak: needs root, to load eBPF programs");
    }
    steps.summary();
    Ok(())
}

/// Loads the kernel programs on old kernels, if they changed lately.
fn load_on_old_kernels() -> Result<()> {
    let Some(why) = kernels::why_to_check() else {
        println!("\nno load check on old kernels: hud-ebpf did not change within the last 14 days");
        return Ok(());
    };
    println!("\nthe kernel programs are loaded on old kernels: {why}");
    // As the tests were built: a build of one package has other features.
    kernels::check_old_kernels(target_dir().join("debug/hud-record"), required())
}

/// Whether a check that cannot run here is a failure.
fn required() -> bool {
    wanted("HUD_REQUIRE_BPF") || wanted("CI")
}

/// Lets a cargo command lint the workspace's crates while it compiles them. Any warning is an error.
fn linting(mut command: Command) -> Command {
    command.env("RUSTC_WORKSPACE_WRAPPER", root().join("xtask/lint.sh"));
    command
}

fn cargo_nextest(subcommand: &str) -> Command {
    let mut command = cargo("nextest");
    command.arg(subcommand);
    command
}

/// A Python with independent readers of sessions and exports: DuckDB, and the formats' own packages.
pub(crate) fn duckdb() -> Result<PathBuf> {
    let venv = target_dir().join("duckdb");
    let python = venv.join("bin/python");
    let wanted = READERS.iter().chain(&MOTO).map(|package| format!("'{}'", package.replace("[s3]", "")));
    let installed = format!(
        "from importlib.metadata import version\nfor p in [{}]:\n  assert version(p.split('==')[0]) == p.split('==')[1], p",
        wanted.collect::<Vec<_>>().join(", ")
    );
    if !succeeds(command(&python).args(["-c", &installed])) {
        sh(command("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .context("python3 cannot make a virtual environment (Debian: install python3-venv)")?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        sh(command(&python).args(pip).arg("--no-deps").args(READERS))?;
        sh(command(&python).args(pip).args(MOTO))?;
    }
    Ok(python)
}

/// The steps so far, each with its duration.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        self.0.push((name, start.elapsed()));
        if result.is_err() {
            self.summary();
            eprintln!("the step that failed: {name}");
        } else {
            println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
        }
        result
    }

    fn summary(&self) {
        println!();
        for (name, dur) in &self.0 {
            println!("{:>8.1} s  {name}", dur.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|&(_, dur)| dur).sum();
        println!("{:>8.1} s  in all", total.as_secs_f64());
    }
}
