//! `findings`: detected problems as a block each, or as rows.

use std::{collections::BTreeSet, io::Write as _, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches};
use clap::{Arg, ArgMatches, Command, FromArgMatches as _, ValueEnum, builder::EnumValueParser};
use crossterm::style::Stylize as _;
use datafusion::common::ScalarValue;
use hud_common::{cockpit::Rule, units, wire::Stream};
use hud_shell::Format;

use crate::{
    commands::{
        args::{TIMES, ViewArgs},
        generated, recorded,
        sort::sorted,
        views,
    },
    error::{Error, Result},
    human::{self, many},
    output::{
        stdout::{Stdout, may_colour, terminal_width},
        wrap::wrap,
        write,
    },
    query::{catalog::Catalog, session::Session, view, window::Window},
};

/// The command's name.
const NAME: &str = "findings";
/// The option that makes findings a failure.
const FAIL_ON: &str = "fail-on";
/// Width of `WARNING  `, by which a block's lines are indented.
const INDENT: usize = 9;
/// Width of the labels of a block's lines.
const LABEL: usize = 10;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Severity {
    /// A caution, or a warning
    Caution,
    /// A warning
    Warning,
}

/// Adds the command: the one of its view, with `--fail-on`.
pub(crate) fn add(command: Command) -> Command {
    let fail_on = Arg::new(FAIL_ON)
        .long(FAIL_ON)
        .value_name("SEVERITY")
        .value_parser(EnumValueParser::<Severity>::new())
        .help("Exit with 1 if there is a finding of this severity, or a worse one");
    let help = format!(
        "{TIMES}\n\n\
         The format `table` is a block of lines per finding; with --wide it is a table.\n\n\
         Examples:\n  \
         hud-analyze findings SESSION\n  \
         hud-analyze findings SESSION --from +5s --to +10s --long-poll 20ms\n  \
         hud-analyze findings SESSION --fail-on warning --format json\n\n\
         Exit codes: 0 success, 1 failure or a finding of --fail-on, 2 invalid arguments."
    );
    command.subcommand(generated::of(&view::FINDINGS).arg(fail_on).after_help(help))
}

/// The command's arguments, if it was given.
pub(crate) fn matched(matches: &ArgMatches) -> Option<&ArgMatches> {
    matches.subcommand_matches(NAME)
}

/// Runs it.
pub(crate) async fn run(given: &ArgMatches, out: &mut Stdout) -> Result<()> {
    let view = view::FINDINGS;
    let args = ViewArgs::from_arg_matches(given).unwrap_or_else(|error| error.exit());
    let (catalog, window) = args.open().await?;
    let arguments = generated::arguments(&view, given, window)?;
    let mut found = Vec::new();
    for frame in view.plan_each(catalog.opened(), &arguments).await? {
        let Some(frame) = sorted(vec![frame], &args.sort)?.pop() else { continue };
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.collect().await.map_err(|error| catalog.explain(error.into()))?;
        found.push(concat_batches(&schema, &batches)?);
    }
    catalog.confirm()?;

    if args.query.format == Format::Table && !args.wide {
        let shares = recorded::shares(&catalog, window).await?;
        let text = Report { catalog: &catalog, args: &args, window, found: &found }.text(shares.as_deref());
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io("write the result"))?;
    } else {
        let context = catalog.context()?;
        let frames =
            found.iter().map(|rows| context.read_batch(rows.clone())).collect::<datafusion::error::Result<Vec<_>>>()?;
        let columns = view.header()?.columns;
        write::write(&catalog, frames, args.query.format, views::shape(&view, &columns, window, &args), out).await?;
    }
    match given.get_one::<Severity>(FAIL_ON) {
        Some(severity) => fail_on(*severity, &found),
        None => Ok(()),
    }
}

/// Fails if there is a finding of this severity or a worse one.
fn fail_on(severity: Severity, found: &[RecordBatch]) -> Result<()> {
    let bad = rows(found).filter(|finding| finding.severity() >= severity).count();
    match u64::try_from(bad).unwrap_or(u64::MAX) {
        0 => Ok(()),
        bad => {
            let name = severity.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            Err(Error::Found { count: many(bad, "finding"), severity: name })
        }
    }
}

fn rows(found: &[RecordBatch]) -> impl Iterator<Item = Finding<'_>> {
    found.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| Finding { batch, row }))
}

/// A row of the view.
#[derive(Clone, Copy)]
struct Finding<'a> {
    batch: &'a RecordBatch,
    row: usize,
}

impl Finding<'_> {
    fn value(&self, column: &str) -> Option<ScalarValue> {
        ScalarValue::try_from_array(self.batch.column_by_name(column)?, self.row).ok()
    }

    fn int(&self, column: &str) -> Option<i64> {
        match self.value(column)? {
            ScalarValue::Int64(value) => value,
            ScalarValue::Int32(value) => value.map(i64::from),
            _ => None,
        }
    }

    /// A text without characters that could drive the terminal.
    fn text(&self, column: &str) -> Option<String> {
        Some(hud_common::clean(self.value(column)?.try_as_str()??).into_owned())
    }

    fn severity(&self) -> Severity {
        match self.text("severity").as_deref() {
            Some("warning") => Severity::Warning,
            _ => Severity::Caution,
        }
    }

    fn rule(&self) -> Option<Rule> {
        Rule::named(&self.text("rule")?)
    }

    /// The compared figure with its limit, and the number and sum of the things that the rule counts.
    fn evidence(&self) -> String {
        let unit = self.text("unit").unwrap_or_default();
        let figure = |value: i64| match (unit.as_str(), self.rule()) {
            ("ns", _) => units::duration(value),
            ("thousandths", Some(Rule::Imbalance)) => format!("{}.{} times", value / 1_000, value % 1_000 / 100),
            ("thousandths", _) => units::share(value),
            _ => units::count(value),
        };
        let mut text = self.rule().map_or_else(|| "value".into(), |rule| rule.figure().to_owned());
        text += &format!(" {}", self.int("value").map_or_else(|| "unknown".into(), figure));
        if self.value("estimated") == Some(ScalarValue::Boolean(Some(true))) {
            text += " (estimated)";
        }
        if let Some(limit) = self.int("threshold") {
            text += &format!(", limit {}", figure(limit));
        }
        let counted = self.rule().and_then(Rule::counted).zip(self.int("count"));
        if let Some((noun, count)) = counted {
            text += &format!("; {}", many(count.unsigned_abs(), noun));
            if let Some(total) = self.int("total") {
                text += &format!(", {} in total", units::duration(total));
            }
        }
        text
    }

    /// The code, and the task, thread and time of the worst.
    fn places(&self) -> Vec<String> {
        let file = self.text("file").map(|file| match self.int("line") {
            Some(line) => format!("{file}:{line}"),
            None => file,
        });
        let code: Vec<String> = self.text("function").into_iter().chain(file).collect();
        let thread = self.int("tid").map(|tid| match self.text("thread") {
            Some(name) => format!("thread {name} ({tid})"),
            None => format!("thread {tid}"),
        });
        let parts = [
            self.int("task_id").map(|task| format!("task {task}")),
            thread,
            self.int("ts").map(|ts| format!("worst at {}", human::time_of_day(ts))),
        ];
        let worst: Vec<String> = parts.into_iter().flatten().collect();
        [code.join(", "), worst.join(", ")].into_iter().filter(|line| !line.is_empty()).collect()
    }

    /// The command that shows more: its name, and its options.
    fn command(&self) -> Option<(&'static str, String)> {
        let of = |option: &str, id: Option<i64>| id.map_or_else(String::new, |id| format!(" --{option} {id}"));
        let of_task = || of("task", self.int("task_id"));
        Some(match self.rule()? {
            Rule::StuckThread | Rule::StuckPoll => ("in-progress", String::new()),
            Rule::LockCycle => ("deadlocks", of_task()),
            Rule::SemaphoreStarved => ("wait-graph", String::new()),
            Rule::LongPoll | Rule::ShortSleeps => ("blocking", of_task()),
            Rule::WorkerBlocked => ("blocking", of("thread", self.int("tid"))),
            Rule::CpuStarved => ("run-queue", String::new()),
            Rule::WakeDelay => ("wake-latency", String::new()),
            Rule::CpuShare => ("hotspots", of_task()),
            Rule::Imbalance => ("workers", String::new()),
            Rule::PoolSaturated => ("blocking-pool", String::new()),
            Rule::TasksGrow | Rule::SpawnRate => ("task-tree", String::new()),
            // No view has these.
            Rule::ThreadsGrow | Rule::FdsGrow | Rule::MemoryGrow => return None,
            Rule::Panics | Rule::CancelledWork => ("tasks", of_task()),
            Rule::SelfWaking | Rule::WakeStorm => ("wake-chains", String::new()),
            Rule::LockOwnerAsleep | Rule::LockOwnerBusy => ("locks", String::new()),
        })
    }
}

/// Findings as text.
struct Report<'a> {
    catalog: &'a Catalog,
    args: &'a ViewArgs,
    window: Window,
    /// Of each session.
    found: &'a [RecordBatch],
}

impl Report<'_> {
    fn text(&self, shares: Option<&[(Stream, f64)]>) -> String {
        let (width, colour) = (terminal_width(), may_colour());
        let limit = self.args.limit().unwrap_or(usize::MAX);
        let all: usize = self.found.iter().map(RecordBatch::num_rows).sum();
        let since: BTreeSet<_> = rows(self.found).map(|finding| finding.int("since")).collect();
        let mut text = String::new();
        let mut left = limit;
        for (session, batch) in self.catalog.sessions().iter().zip(self.found) {
            if self.found.len() > 1 && batch.num_rows() > 0 && left > 0 {
                text += &format!("{}\n\n", hud_common::clean(&session.dir().path().display().to_string()));
            }
            for finding in rows(std::slice::from_ref(batch)).take(left) {
                text += &self.block(session, finding, since.len() > 1, width, colour);
                text.push('\n');
            }
            left = left.saturating_sub(batch.num_rows());
        }
        if all > limit {
            text += &format!("only the first {limit} of {all} findings; --limit N shows more, --limit 0 all\n");
        }
        let line = |text: String| wrap(&text, width).join("\n") + "\n";
        text += &line(self.summary());
        text + &shares.map(recorded::sentence).map(line).unwrap_or_default()
    }

    /// `2 warnings, 1 caution in 6.02 s.`
    fn summary(&self) -> String {
        let count = |severity| rows(self.found).filter(|finding| finding.severity() == severity).count();
        let parts = [(count(Severity::Warning), "warning"), (count(Severity::Caution), "caution")];
        let parts: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, noun)| many(n as u64, noun)).collect();
        let time = units::duration(self.window.dur());
        let sessions = match self.found.len() {
            1 => String::new(),
            n => format!(" of {n} sessions"),
        };
        match parts.is_empty() {
            true => format!("No problems found in {time}{sessions}."),
            false => format!("{} in {time}{sessions}.", parts.join(", ")),
        }
    }

    fn block(
        &self,
        session: &Session,
        finding: Finding<'_>,
        in_parts: bool,
        width: Option<usize>,
        colour: bool,
    ) -> String {
        let head = match (finding.severity(), colour) {
            (Severity::Warning, false) => "WARNING".to_owned(),
            (Severity::Caution, false) => "CAUTION".to_owned(),
            (Severity::Warning, true) => "WARNING".red().bold().to_string(),
            (Severity::Caution, true) => "CAUTION".yellow().bold().to_string(),
        };
        let rule = finding.rule();
        let title = rule.map_or_else(|| finding.text("rule").unwrap_or_default(), |rule| rule.title().to_owned());
        let subject = finding.text("task_type").map(|name| format!(": {name}")).unwrap_or_default();
        let mut text = String::new();
        let mut put = |label: &str, lines: Vec<String>| {
            for (at, line) in lines.into_iter().enumerate() {
                let label = if at == 0 { label } else { "" };
                text += &format!("{:INDENT$}{label:LABEL$}{line}\n", "");
            }
        };
        let room = width.map(|width| width.saturating_sub(INDENT + LABEL).max(20));
        let wrapped = |lines: Vec<String>| lines.iter().flat_map(|line| wrap(line, room)).collect::<Vec<_>>();
        let mut evidence = vec![finding.evidence()];
        if let (true, Some(since), Some(until)) = (in_parts, finding.int("since"), finding.int("until")) {
            evidence.push(format!("from {} to {}", human::time_of_day(since), human::time_of_day(until)));
        }
        put("Evidence:", wrapped(evidence));
        put("Where:", wrapped(finding.places()));
        put("See:", self.commands(session, finding));
        put("Do:", wrapped(rule.map(|rule| rule.advice().to_owned()).into_iter().collect()));
        let indented = |text: &str| {
            let lines = wrap(text, width.map(|width| width.saturating_sub(INDENT).max(20)));
            lines.join(&format!("\n{:INDENT$}", ""))
        };
        let sentence = finding.text("sentence").unwrap_or_default();
        format!("{head}  {}\n{:INDENT$}{}\n{text}", indented(&format!("{title}{subject}")), "", indented(&sentence))
    }

    /// Commands that show more. They are not wrapped, so that they can be copied.
    fn commands(&self, session: &Session, finding: Finding<'_>) -> Vec<String> {
        let path = match (self.args.sessions.sessions.as_slice(), self.catalog.sessions()) {
            ([given], [_]) => given.display().to_string(),
            _ => session.dir().path().display().to_string(),
        };
        let path = quoted(&hud_common::clean(&path));
        let view = finding.command().map(|(name, options)| format!("hud-analyze {name} {path}{options}"));
        let at = finding.int("ts").map(|ts| ts.saturating_sub(session.manifest().start).max(0) / 1_000_000);
        let replay = at.map(|ms| format!("hud-analyze replay {path} --at +{}.{:03}s", ms / 1_000, ms % 1_000));
        view.into_iter().chain(replay).collect()
    }
}

/// A path as a word of a shell.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !path.is_empty() && path.chars().all(is_plain) {
        path.into()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_paths_for_a_shell() {
        for (path, word) in
            [("/tmp/s-1.hud", "/tmp/s-1.hud"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'"), ("", "''")]
        {
            assert_eq!(quoted(path), word);
        }
    }

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Warning > Severity::Caution);
    }
}
