//! Compares hud-analyze with its targets and with DuckDB: the same SQL, files and machine, in one run.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::report::{Bound, Report, median};
use crate::sh::{cargo, command, root, run as sh, target_dir};
use crate::{synth, test};

/// Views over synthetic sessions of 1 M, 10 M and 100 M rows, compared with DuckDB
#[derive(clap::Args)]
pub(super) struct Args {
    /// Rows of the sessions
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000, 100_000_000])]
    events: Vec<i64>,
    /// Runs of each view, alternating
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measures this hud-analyze instead of a release build of the source here
    #[arg(long, value_name = "BIN")]
    analyze: Option<PathBuf>,
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

const METHOD: &str = "\
How it is measured:

- Sessions are synthetic (`cargo xtask synth`, 25,000 rows a second). DuckDB 1.4.4 and hud-analyze run the files of \
`queries/` on the same segments, by turns; the page cache is warm after the first turn. Times are medians, and ratios \
are medians of the turns' ratios.
- Both times are of the query alone, in a process that has the session's tables open: for hud-analyze its SQL shell, \
planning and the checksums of all that it reads included. \"from start to end\" is a whole process of hud-analyze for one answer: \
it is loaded, reads the session's folder and all footers, answers and ends. Memory is that process's highest resident set.
- A second is one in the middle of the session.
";

/// Limits for the largest session (seconds, for all of it and for one second in it).
const MOST: f64 = 2.0;
const MOST_SECOND: f64 = 0.05;

pub(super) fn run(args: &Args) -> Result<()> {
    let analyze = match &args.analyze {
        Some(program) => program.clone(),
        None => {
            sh(cargo("build").args(["--release", "--package", "hud-analyze", "--bins"]))?;
            target_dir().join("release/hud-analyze")
        }
    };
    let python = test::duckdb()?;
    let mut report = Report::default();
    let mut largest = 0;
    let mut of_all: Vec<(String, i64, f64)> = Vec::new();
    for &events in &args.events {
        let session = target_dir().join(format!("synth/{events}"));
        if !session.join("manifest.json").exists() {
            fs::create_dir_all(target_dir().join("synth"))?;
            synth::run(&synth::Args::of(session.clone(), events))?;
        }
        largest = largest.max(events);
        for measured in measure(&analyze, &python, &session, args.rounds)? {
            add(&mut report, events, largest >= 100_000_000, &measured);
            if measured.what == "all" {
                of_all.push((measured.view.clone(), events, measured.ours()));
            }
        }
    }
    growth(&mut report, &of_all);
    if !args.no_report {
        let events: Vec<_> = args.events.iter().map(i64::to_string).collect();
        let line = format!("cargo xtask bench analyze --events {} --rounds {}", events.join(","), args.rounds);
        println!("{}", report.write("analyze", &line, METHOD)?.display());
    }
    match report.missed() {
        0 => Ok(()),
        missed => bail!("{missed} targets are missed"),
    }
}

struct Measured {
    view: String,
    what: String,
    /// Seconds of hud's process, of its query alone, of DuckDB's query; megabytes; seconds to the first row.
    turns: Vec<[f64; 5]>,
}

impl Measured {
    fn of(&self, part: fn(&[f64; 5]) -> f64) -> f64 {
        median(&mut self.turns.iter().map(part).collect::<Vec<_>>())
    }

    fn ours(&self) -> f64 {
        self.of(|turn| turn[1])
    }
}

fn add(report: &mut Report, events: i64, is_held: bool, measured: &Measured) {
    let Measured { view, what, .. } = measured;
    let (ours, theirs) = (measured.ours(), measured.of(|turn| turn[2]));
    let millions = events / 1_000_000;
    let name = match what.as_str() {
        "all" => format!("{millions} M rows, `{view}`"),
        _ => format!("{millions} M rows, `{view}` of a second"),
    };
    let held = |bound: Bound| if is_held { bound } else { Bound::Nothing };
    let most = if what == "all" { MOST } else { MOST_SECOND };
    let detail = format!("DuckDB {:.0} ms", theirs * 1e3);
    report.add(name.as_str(), held(Bound::AtMost(most * 1e3)), ours * 1e3, "ms", detail);
    let process = measured.of(|turn| turn[0]);
    report.add(format!("{name}: from start to end"), Bound::Nothing, process * 1e3, "ms", "");
    if what == "all" {
        let ratio = measured.of(|turn| turn[1] / turn[2]);
        report.add(format!("{name}: ratio to DuckDB"), held(Bound::AtMost(1.0)), ratio, "", "");
        let memory = measured.turns.iter().map(|turn| turn[3]).fold(0.0, f64::max);
        report.add(format!("{name}: memory"), held(Bound::AtMost(1024.0)), memory, "MiB", "");
        if view == "hotspots" && events == 1_000_000 {
            let first = measured.of(|turn| turn[4]);
            report.add(format!("{name}: first row from the start"), Bound::AtMost(150.0), first * 1e3, "ms", "");
        }
    }
}

/// The time must not grow faster than the rows.
fn growth(report: &mut Report, of_all: &[(String, i64, f64)]) {
    for (view, events, time) in of_all {
        let before = of_all.iter().filter(|(v, e, _)| v == view && e < events).max_by_key(|(_, e, _)| *e);
        let Some((_, fewer, less)) = before else { continue };
        #[expect(clippy::cast_precision_loss, reason = "rows are far below 2^53")]
        let growth = (time / less) / (*events as f64 / *fewer as f64);
        let what = format!("`{view}`: growth of time over growth of rows, to {} M", events / 1_000_000);
        report.add(what, Bound::AtMost(1.0), growth, "", "");
    }
}

fn measure(analyze: &Path, python: &Path, session: &Path, rounds: u32) -> Result<Vec<Measured>> {
    let manifest: Value = serde_json::from_slice(&fs::read(session.join("manifest.json"))?)?;
    let job = json!({
        "analyze": analyze,
        "session": session,
        "queries": root().join("queries"),
        "start": manifest["start"],
        "end": manifest["end"],
        "rounds": rounds,
    });
    let script = root().join("xtask/src/bench/analyze.py");
    let mut child = command(python)
        .arg(script)
        .arg(job.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start Python")?;
    let stdout = child.stdout.take().context("no pipe")?;
    let mut all = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let turns = serde_json::from_value(line["pairs"].clone())?;
        all.push(Measured { view: text("view"), what: text("what"), turns });
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the measurement ended with {status}");
    }
    Ok(all)
}
