//! A table of targets and measurements, for the terminal and for docs/benchmarks.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;

use crate::results;

/// A measurement's target.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Reported without a target.
    Nothing,
}

struct Row {
    what: String,
    bound: Bound,
    unit: &'static str,
    measured: Option<f64>,
    detail: String,
}

/// The measurements so far.
#[derive(Default)]
pub(super) struct Report(Vec<Row>);

impl Report {
    /// Adds a measurement, and shows it at once.
    pub(super) fn add(
        &mut self,
        what: impl Into<String>,
        bound: Bound,
        measured: f64,
        unit: &'static str,
        detail: impl Into<String>,
    ) {
        self.push(Row { what: what.into(), bound, unit, measured: Some(measured), detail: detail.into() });
    }

    /// Adds a measurement that was impossible, with the reason.
    pub(super) fn missing(&mut self, what: &str, bound: Bound, why: impl Into<String>) {
        self.push(Row { what: what.into(), bound, unit: "", measured: None, detail: why.into() });
    }

    fn push(&mut self, row: Row) {
        println!("{}", row.line());
        self.0.push(row);
    }

    /// Writes docs/benchmarks/<date>-<name>.md.
    pub(super) fn write(&self, name: &str, command_line: &str, method: &str) -> Result<PathBuf> {
        let mut text = format!("`{command_line}`\n\n{}\n", results::machine()?);
        text.push_str("| what | target | measured | | how |\n|---|---|---|---|---|\n");
        for row in &self.0 {
            writeln!(text, "{}", row.line())?;
        }
        write!(text, "\n{method}")?;
        results::write(name, &text)
    }

    pub(super) fn missed(&self) -> usize {
        self.0.iter().filter(|row| row.verdict() == "MISSED").count()
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        let is_reached = match (self.bound, self.measured) {
            (Bound::Nothing, Some(_)) => return "",
            (_, None) => return "not measured",
            (Bound::AtLeast(least), Some(measured)) => measured >= least,
            (Bound::AtMost(most), Some(measured)) => measured <= most,
        };
        if is_reached { "met" } else { "MISSED" }
    }

    fn line(&self) -> String {
        let number = |n: f64| number(n, self.unit);
        let target = match self.bound {
            Bound::AtLeast(least) => format!("≥ {}", number(least)),
            Bound::AtMost(most) => format!("≤ {}", number(most)),
            Bound::Nothing => String::new(),
        };
        let measured = self.measured.map(number).unwrap_or_default();
        format!("| {} | {target} | {measured} | {} | {} |", self.what, self.verdict(), self.detail)
    }
}

fn number(n: f64, unit: &str) -> String {
    let digits = match n.abs() {
        // A ratio.
        _ if unit.is_empty() => 3,
        n if n >= 100.0 || n.fract() == 0.0 => 0,
        n if n >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{n:.digits$}");
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// The median.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
