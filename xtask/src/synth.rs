//! Synthetic sessions of any size, for benchmarks that need more rows than is practical to record.

use std::path::PathBuf;

use anyhow::Result;

use crate::sh::{cargo, run as sh};

/// Writes a synthetic session: 8 workers, 200 task types, 10,000 tasks, with distributions of real recordings
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its folder; must not exist
    session: PathBuf,
    /// Approximate number of rows of polls, off_cpu, samples, wakes, spawns and ends
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    events: i64,
    /// Such rows per second; with their number it determines the session's duration
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(i64).range(100..=10_000_000))]
    rate: i64,
    /// The same seed gives the same rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Args {
    /// With the default rate and seed.
    pub(crate) fn of(session: PathBuf, events: i64) -> Self {
        Args { session, events, rate: 25_000, seed: 1 }
    }
}

/// Writes it with a release build: 100 M rows take minutes then.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut synth = cargo("run");
    synth.args(["--quiet", "--release", "--package", "hud-session", "--example", "synth", "--"]);
    synth.arg(std::path::absolute(&args.session)?);
    synth.args([args.events.to_string(), args.rate.to_string(), args.seed.to_string()]);
    sh(&mut synth)
}
