//! Naming a program with 200 MB of debug information: time to the first name, and the cost of all names.

use anyhow::{Context, Result};

use super::big;
use super::report::{Bound, Report};
use crate::sh::{cargo, output};

/// Time and memory to name the functions of a large binary
#[derive(clap::Args, Clone)]
pub(super) struct Args {
    /// Writes nothing to docs/benchmarks
    #[arg(long)]
    no_report: bool,
}

const METHOD: &str = "\
How it is measured:

- One address of each function of the program is given to hud's resolver, a thousand at a time; the sandboxed child reads the \
file (`hud-record/tests/names.rs`, `every_function_of_a_large_binary`, in release). Nothing is cached.
- The first name is counted from the start of the child. Memory is the child's highest resident set (`VmHWM`), pages of the \
file included.
";

pub(super) fn run(args: &Args) -> Result<()> {
    let big = big::build()?;
    let test = ["test", "--quiet", "--release", "--package", "hud-record", "--test", "names"];
    let mut measure = cargo(test[0]);
    measure.args(&test[1..]).args(["every_function_of_a_large_binary", "--", "--ignored", "--nocapture"]);
    let printed = output(measure.env("HUD_BIG_BINARY", &big))?;
    let figure = |of: &str| {
        let value = printed.split_whitespace().find_map(|word| word.strip_prefix(of)?.strip_prefix('='));
        value.and_then(|v| v.parse::<f64>().ok()).with_context(|| format!("the measurement printed no {of}"))
    };
    let mut report = Report::default();
    println!();
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let debug = big::debug_bytes(&big)? as f64 / 1e6;
    let what = |what: &str| format!("{debug:.0} MB of debug information: {what}");
    let all = format!("{} of {} functions with their line", figure("named")?, figure("functions")?);
    report.add(what("first name"), Bound::AtMost(1.0), figure("first_ms")? / 1e3, "s", "");
    report.add(what("all names"), Bound::Nothing, figure("all_ms")? / 1e3, "s", all);
    let children = format!("{} child processes", figure("children")?);
    report.add(what("memory"), Bound::AtMost(300.0), figure("peak_kb")? / 1024.0, "MiB", children);
    println!("\n{} targets missed", report.missed());
    if !args.no_report {
        println!("{}", report.write("names", "cargo xtask bench names", METHOD)?.display());
    }
    Ok(())
}
