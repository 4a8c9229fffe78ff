//! The table: a line per recording as it is compared, a summary, and the report in docs/benchmarks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;

use super::account::Account;
use super::builds::Build;
use super::mode::Mode;
use super::verdict::{Named, Outcome, Verdict};
use crate::results;

const METHOD: &str = "\
How it is compared:

- Each program has one fault, or none, and keeps its own account: the code that causes the fault (function, file, line), \
and for each tenth of a second how often and for how long it did. hud attaches 0.7 s after the fault began.
- Found: a finding of the rule for this fault names the function (or the type of task, where the fault is the whole \
task). In part: only the rule or only the name is right. In a stripped program there are no names, so the rule alone \
counts.
- Own: the program's account of the finding's time range. hud counts polls or sleeps past a threshold while polls were \
recorded, so its figures may be lower.
- A false alarm is a finding by a rule that fits neither the fault nor its consequences, or one that accuses the task that \
does nothing wrong in every program. Where other processes used more than a quarter of a CPU meanwhile, `cpu_starved` is \
true of every program.
";

/// A recording, compared.
pub(super) struct Row {
    pub(super) mode: Mode,
    pub(super) build: Build,
    pub(super) account: Account,
    pub(super) verdict: Verdict,
}

#[derive(Default)]
struct Tally {
    programs: usize,
    found: usize,
    in_part: usize,
    missed: usize,
    /// Of findings that were asked for a name, those with the right one.
    named: (usize, usize),
    alarms: usize,
    healthy: usize,
}

/// The recordings so far.
pub(super) struct Report {
    load: u16,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(load: u16) -> Self {
        println!("{HEAD}");
        Self { load, rows: Vec::new() }
    }

    /// Adds a recording, and prints it.
    pub(super) fn add(&mut self, row: Row) {
        println!("{}", row.line());
        for alarm in row.alarms() {
            println!("    {alarm}");
        }
        self.rows.push(row);
    }

    /// Numbers by kind, mode and build, and of all kinds.
    pub(super) fn summary(&self) -> String {
        let mut tallies: BTreeMap<(&str, &str, Build), Tally> = BTreeMap::new();
        let mut orders: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !orders.contains(&row.account.kind.as_str()) {
                orders.push(&row.account.kind);
            }
            for kind in [row.account.kind.as_str(), "all"] {
                tallies.entry((kind, row.mode.name(), row.build)).or_default().add(row);
            }
        }
        orders.push("all");
        let mut text = String::from(
            "| kind | polls | build | faults | found | in part | missed | code right | healthy | false alarms |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for kind in orders {
            for ((_, mode, build), t) in tallies.iter().filter(|((of, ..), _)| *of == kind) {
                let _ = writeln!(
                    text,
                    "| {kind} | {mode} | {} | {} | {} | {} | {} | {} of {} | {} | {} |",
                    build.name(),
                    t.programs,
                    t.found,
                    t.in_part,
                    t.missed,
                    t.named.0,
                    t.named.1,
                    t.healthy,
                    t.alarms
                );
            }
        }
        text
    }

    /// Writes docs/benchmarks/<date>-truth.md, or <date>-truth-load-<N>.md.
    pub(super) fn write(&self, command_line: &str) -> Result<PathBuf> {
        let mut text = format!("`{command_line}`\n\n{}\n{}\n{METHOD}\n", results::machine()?, self.summary());
        let mut abouts: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for Row { account, .. } in &self.rows {
            abouts.insert((&account.kind, &account.fault), &account.about);
        }
        text += "| kind | program | fault |\n|---|---|---|\n";
        for ((kind, fault), about) in abouts {
            writeln!(text, "| {kind} | {fault} | {about} |")?;
        }
        write!(text, "\n{HEAD}\n")?;
        for row in &self.rows {
            writeln!(text, "{}", row.line())?;
        }
        let alarms: Vec<&Row> = self.rows.iter().filter(|row| !row.verdict.alarms.is_empty()).collect();
        if !alarms.is_empty() {
            text += "\nFalse alarms:\n\n";
        }
        for row in alarms {
            for alarm in row.alarms() {
                let Row { account, mode, build, .. } = row;
                writeln!(text, "- {}, {}, {}: {alarm}", account.fault, mode.name(), build.name())?;
            }
        }
        let name = if self.load > 0 { format!("truth-load-{}", self.load) } else { "truth".to_owned() };
        results::write(&name, &text)
    }
}

impl Tally {
    fn add(&mut self, row: &Row) {
        let verdict = &row.verdict;
        match verdict.outcome {
            Outcome::Found => self.found += 1,
            Outcome::InPart => self.in_part += 1,
            Outcome::Missed => self.missed += 1,
            Outcome::Healthy => self.healthy += 1,
        }
        self.programs += usize::from(verdict.outcome != Outcome::Healthy);
        self.named.0 += usize::from(verdict.named == Named::Right);
        self.named.1 += usize::from(verdict.named != Named::Nothing);
        self.alarms += verdict.alarms.len();
    }
}

const HEAD: &str = "| program | polls | build | result | rule | code | line | count (own) | total (own) | false alarms |\n\
                    |---|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn line(&self) -> String {
        let Row { account, mode, build, verdict } = self;
        let outcome = match verdict.outcome {
            Outcome::Found => "found",
            Outcome::InPart => "in part",
            Outcome::Missed => "missed",
            Outcome::Healthy if verdict.alarms.is_empty() => "silent",
            Outcome::Healthy => "false alarm",
        };
        let rule = verdict.finding.as_ref().map_or("", |f| f.rule.as_str());
        let named = match verdict.named {
            Named::Right => "right",
            Named::Wrong => "wrong",
            Named::Missing => "not named",
            Named::Nothing => "",
        };
        let line = verdict.is_line_right.map_or("", |is_right| if is_right { "right" } else { "other" });
        let (own, finding) = (&verdict.own, verdict.finding.as_ref());
        let count = finding.and_then(|f| f.count).map(|count| format!("{count} ({})", own.count)).unwrap_or_default();
        let total =
            finding.and_then(|f| f.total).map(|t| format!("{} ({}) ms", ms(t), ms(own.total))).unwrap_or_default();
        let (mode, build, alarms) = (mode.name(), build.name(), verdict.alarms.len());
        format!(
            "| {} | {mode} | {build} | {outcome} | {rule} | {named} | {line} | {count} | {total} | {alarms} |",
            account.fault
        )
    }

    /// False alarms, and the wrong or missing name of a finding in part.
    fn alarms(&self) -> impl Iterator<Item = String> {
        self.verdict.alarms.iter().map(|f| format!("{}: {}", f.rule, f.sentence))
    }
}

fn ms(ns: i64) -> i64 {
    ns / 1_000_000
}
