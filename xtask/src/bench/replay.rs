//! Replay against its targets.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::{Bound, Report};
use crate::sh::{cargo, command, run as sh, target_dir};
use crate::synth;

/// Measures replay on a long session: the first frame, jumps to anywhere, memory
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rows of the synthetic session; it is made once
    #[arg(long, default_value_t = 100_000_000)]
    events: i64,
    /// Jumps to instants all over the session
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..))]
    jumps: u32,
    /// The hud-analyze to measure [default: a release build]
    #[arg(long, value_name = "PROGRAM")]
    analyze: Option<PathBuf>,
}

const METHOD: &str = "\
The session is synthetic (`cargo xtask synth`, 25,000 rows a second); the window is 10 s. A frame is a `Snapshot` without
its drawing. The first one is timed from the start of the process; the page cache is warm. Jumps go all over the session,
never near the last one, while the overview of the whole session is made in the background.
";

pub(super) fn run(args: &Args) -> Result<()> {
    let analyze = match &args.analyze {
        Some(program) => program.clone(),
        None => {
            sh(cargo("build").args(["--release", "--package", "hud-analyze", "--bins"]))?;
            target_dir().join("release/hud-analyze")
        }
    };
    let session = target_dir().join(format!("synth/{}", args.events));
    if !session.join("manifest.json").exists() {
        fs::create_dir_all(target_dir().join("synth"))?;
        synth::run(&synth::Args::of(session.clone(), args.events))?;
    }
    let mut report = Report::default();
    // Once for the page cache.
    measure(&analyze, &session, 20)?;
    let measured = measure(&analyze, &session, args.jumps)?;
    let detail = format!("{} rows", args.events);
    report.add("replay: first frame", Bound::AtMost(300.0), measured.first, "ms", detail);
    let mut frames = measured.frames;
    frames.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| frames.get(frames.len() * share / 100).copied().unwrap_or(f64::NAN);
    let detail = format!("median {:.1} ms, longest {:.1} ms, {} jumps", at(50), at(100).max(at(99)), frames.len());
    report.add("replay: jump to anywhere, 95th percentile", Bound::AtMost(50.0), at(95), "ms", detail);
    report.add("replay: resident memory, at most", Bound::AtMost(500.0), measured.megabytes, "MB", "VmHWM");
    let line = format!("cargo xtask bench replay --events {} --jumps {}", args.events, args.jumps);
    let path = report.write("replay", &line, METHOD)?;
    println!("\n{}", path.display());
    match report.missed() {
        0 => Ok(()),
        missed => bail!("{missed} missed their target"),
    }
}

struct Measured {
    first: f64,
    frames: Vec<f64>,
    megabytes: f64,
}

fn measure(analyze: &Path, session: &Path, jumps: u32) -> Result<Measured> {
    let began = Instant::now();
    let mut child = command(analyze)
        .arg("replay")
        .arg(session)
        .args(["--measure", &jumps.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", analyze.display()))?;
    let stdout = child.stdout.take().context("no pipe")?;
    let mut measured = Measured { first: f64::NAN, frames: Vec::new(), megabytes: f64::NAN };
    for line in BufReader::new(stdout).lines() {
        if measured.first.is_nan() {
            measured.first = began.elapsed().as_secs_f64() * 1e3;
        }
        let line: Value = serde_json::from_str(&line?)?;
        measured.frames.extend(line.get("frame_ms").and_then(Value::as_f64));
        measured.megabytes = line.get("peak_mb").and_then(Value::as_f64).unwrap_or(measured.megabytes);
    }
    let status = child.wait()?;
    if !status.success() || measured.frames.is_empty() {
        bail!("hud-analyze replay --measure ended with {status}");
    }
    Ok(measured)
}
