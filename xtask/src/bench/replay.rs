//! Replay of a long session: the first frame, jumps, memory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::report::{Bound, Report, median};
use crate::sh::{cargo, command, run as sh, target_dir};
use crate::synth;

/// Programs and options of the measurement.
pub(super) const METHOD: &str = "\
- Replay: the session is synthetic (`cargo xtask synth`, 25,000 rows a second); the window is 10 s. A frame is a `Snapshot` \
without its drawing. The first one is timed from the start of the process; the page cache is warm. Jumps go all over the \
session, never near the last one, while the overview of the whole session is made in the background. A window of up to \
300,000 rows is read whole; of a larger one the frame that is due is of the newest part and says on the screen how much is \
unread, and the rest is shown as it comes.
";

/// Window of a frame (ns): the default of hud-analyze.
const WINDOW: f64 = 10e9;

/// Measures a session of this number of rows, which is made once, with this number of jumps. `analyze` is a release
/// build by itself.
pub(super) fn measure_into(report: &mut Report, events: i64, jumps: u32, analyze: Option<&Path>) -> Result<()> {
    let analyze = match analyze {
        Some(program) => program.to_path_buf(),
        None => {
            sh(cargo("build").args(["--release", "--package", "hud-analyze", "--bins"]))?;
            target_dir().join("release/hud-analyze")
        }
    };
    let session = target_dir().join(format!("synth/{events}"));
    if !session.join("manifest.json").exists() {
        fs::create_dir_all(target_dir().join("synth"))?;
        synth::run(&synth::Args::of(session.clone(), events))?;
    }
    // Once to fill the page cache.
    measure(&analyze, &session, 20)?;
    let measured = measure(&analyze, &session, jumps)?;
    report.add("replay: first frame", Bound::AtMost(300.0), measured.first, "ms", format!("{events} rows"));
    let mut frames = measured.frames;
    frames.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| frames.get(frames.len() * share / 100).copied().unwrap_or(f64::NAN);
    let detail = format!("median {:.1} ms, longest {:.1} ms, {} jumps", at(50), at(100).max(at(99)), frames.len());
    report.add("replay: jump to anywhere, 95th percentile", Bound::AtMost(50.0), at(95), "ms", detail);
    let mut shares = measured.read;
    let read = format!("of the window read by then; the least {:.0} %", 100.0 * least(&shares));
    report.add(
        "replay: share shown at first after a jump, median",
        Bound::Nothing,
        100.0 * median(&mut shares),
        "%",
        read,
    );
    let mut wholes = measured.wholes;
    wholes.sort_unstable_by(f64::total_cmp);
    let last = wholes.get(wholes.len() * 95 / 100).copied().unwrap_or(f64::NAN);
    let detail = format!("median {:.1} ms", median(&mut wholes));
    report.add("replay: until a jump shows its whole window, 95th percentile", Bound::Nothing, last, "ms", detail);
    report.add("replay: resident memory, at most", Bound::AtMost(500.0), measured.megabytes, "MB", "VmHWM");
    Ok(())
}

struct Measured {
    first: f64,
    frames: Vec<f64>,
    /// Share of its window that a frame shows.
    read: Vec<f64>,
    /// Time until all of it is shown.
    wholes: Vec<f64>,
    megabytes: f64,
}

fn least(of: &[f64]) -> f64 {
    of.iter().copied().fold(f64::INFINITY, f64::min)
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
    let mut measured =
        Measured { first: f64::NAN, frames: Vec::new(), read: Vec::new(), wholes: Vec::new(), megabytes: f64::NAN };
    for line in BufReader::new(stdout).lines() {
        if measured.first.is_nan() {
            measured.first = began.elapsed().as_secs_f64() * 1e3;
        }
        let line: Value = serde_json::from_str(&line?)?;
        measured.frames.extend(line.get("frame_ms").and_then(Value::as_f64));
        measured.read.extend(line.get("unread_ns").and_then(Value::as_f64).map(|unread| 1.0 - unread / WINDOW));
        measured.wholes.extend(line.pointer("/whole/frame_ms").and_then(Value::as_f64));
        measured.megabytes = line.get("peak_mb").and_then(Value::as_f64).unwrap_or(measured.megabytes);
    }
    let status = child.wait()?;
    if !status.success() || measured.frames.is_empty() {
        bail!("hud-analyze replay --measure ended with {status}");
    }
    Ok(measured)
}
