//! `diff`: what changed between two sessions, or two windows of one: per second of watched time and per poll, so that
//! what was recorded for longer is not more.

mod condition;
mod gather;
mod resample;

use std::{collections::BTreeSet, io::Write as _, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};

pub(crate) use condition::Condition;
use gather::{Scopes, Side};
use resample::{Change, Measure, compare};

use crate::{
    catalog::Catalog,
    cli::DiffArgs,
    error::{Error, Result},
    human,
    output::{self, Format, Look, Stdout, Table},
    window::{Moment, Window},
};

/// Task types, and functions, that are told at most.
const MOST_SCOPES: usize = 30;
/// Rows that people are shown unless they ask for more.
const LIMIT: usize = 40;

/// What is measured, of what, in which unit.
struct Metric {
    name: &'static str,
    of: fn(&Side) -> &Scopes,
    measure: Measure,
    unit: Unit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Ns,
    PerSecond,
    Share,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::PerSecond => "1/s",
            Unit::Share => "share",
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "for people, and far below 2^63")]
    fn spell(self, value: f64) -> String {
        match self {
            Unit::Ns => human::nanos(value.round() as i64),
            Unit::PerSecond if value >= 100.0 => human::count(value.round() as i64),
            Unit::PerSecond => format!("{value:.1}"),
            Unit::Share => human::percent(value),
        }
    }
}

const METRICS: &[Metric] = &[
    Metric { name: "cpu", of: |s| &s.cpu, measure: Measure::Share, unit: Unit::Share },
    Metric { name: "polls_rate", of: |s| &s.polls, measure: Measure::Rate, unit: Unit::PerSecond },
    Metric { name: "p50_poll", of: |s| &s.polls, measure: Measure::Quantile(500), unit: Unit::Ns },
    Metric { name: "p99_poll", of: |s| &s.polls, measure: Measure::Quantile(990), unit: Unit::Ns },
    Metric { name: "longest_poll", of: |s| &s.polls, measure: Measure::Largest, unit: Unit::Ns },
    Metric { name: "busy_share", of: |s| &s.busy, measure: Measure::Share, unit: Unit::Share },
    Metric { name: "busy_per_poll", of: |s| &s.busy, measure: Measure::Mean, unit: Unit::Ns },
    Metric { name: "blocked_per_poll", of: |s| &s.blocked, measure: Measure::Mean, unit: Unit::Ns },
    Metric { name: "wait_per_poll", of: |s| &s.waited, measure: Measure::Mean, unit: Unit::Ns },
    Metric { name: "p50_wake", of: |s| &s.wakes, measure: Measure::Quantile(500), unit: Unit::Ns },
    Metric { name: "p99_wake", of: |s| &s.wakes, measure: Measure::Quantile(990), unit: Unit::Ns },
    Metric { name: "blocking_rate", of: |s| &s.sleeps, measure: Measure::Rate, unit: Unit::PerSecond },
    Metric { name: "blocking_share", of: |s| &s.sleeps, measure: Measure::Share, unit: Unit::Share },
    Metric { name: "cpu_share", of: |s| &s.functions, measure: Measure::Share, unit: Unit::Share },
];

/// One comparison.
struct Row {
    metric: &'static Metric,
    /// A task's type, or a function for `cpu_share`; none: all.
    scope: Option<String>,
    change: Change,
}

pub(crate) async fn run(args: &DiffArgs, out: &mut Stdout) -> Result<()> {
    for condition in &args.fail_if {
        known(condition)?;
    }
    let before = open(&args.a, args.memory)?;
    let after = match &args.b {
        Some(path) => Some(open(path, args.memory)?),
        None if args.from_b.is_some() || args.to_b.is_some() => None,
        None => {
            return Err(Error::Usage {
                message: "there is nothing to compare it with".into(),
                hint: "name a second session, or a second window by --from-b and --to-b".into(),
            });
        }
    };
    let a = side(&before, args.from, args.to).await?;
    let b = match &after {
        // Of two sessions the same part, unless another one is named.
        Some(after) => side(after, args.from_b.or(args.from), args.to_b.or(args.to)).await?,
        None => side(&before, args.from_b, args.to_b).await?,
    };
    let rows = rows(&a, &b, &args.fail_if);
    show(&before, &rows, args, out).await?;
    let failed: Vec<_> = args.fail_if.iter().filter(|condition| is_met(condition, &rows)).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(Error::Differs { condition: first.to_string(), more: rest.len() }),
    }
}

fn known(condition: &Condition) -> Result<()> {
    if METRICS.iter().any(|metric| metric.name == condition.metric) {
        return Ok(());
    }
    let names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    Err(Error::Usage {
        message: format!("there is no metric {}", hud_common::clean(&condition.metric)),
        hint: format!("the metrics are {}", names.join(", ")),
    })
}

fn open(path: &Path, memory: usize) -> Result<Catalog> {
    let catalog = crate::run::open(&[path.to_path_buf()], memory)?;
    match catalog.sessions().len() {
        1 => Ok(catalog),
        several => Err(Error::Usage {
            message: format!("{} is {several} sessions", path.display()),
            hint: "name one of them".into(),
        }),
    }
}

async fn side(catalog: &Catalog, from: Option<Moment>, to: Option<Moment>) -> Result<Side> {
    let whole = Window::whole(catalog).await?;
    let window = Window::part(whole, catalog.start(), from, to)?;
    let (_, context) = catalog.each().next().ok_or_else(|| Error::Query("there is no session".into()))??;
    let side = Side::gather(context, window).await.map_err(|error| catalog.explain(error))?;
    catalog.confirm()?;
    Ok(side)
}

/// Every comparison: what is of all first, then what is of the scopes that did the most, and those that are asked for.
fn rows(a: &Side, b: &Side, asked: &[Condition]) -> Vec<Row> {
    let mut rows = Vec::new();
    for metric in METRICS {
        let (before, after) = ((metric.of)(a), (metric.of)(b));
        let weight = |scope: &Option<String>| {
            let of = |side: &Scopes| side.get(scope).map_or(0, |blocks| blocks.iter().map(|b| b.total).sum::<i64>());
            of(before).max(of(after))
        };
        let named: BTreeSet<_> = before.keys().chain(after.keys()).filter(|scope| scope.is_some()).collect();
        let mut named: Vec<_> = named.into_iter().map(|scope| (std::cmp::Reverse(weight(scope)), scope)).collect();
        named.sort();
        let is_asked = |scope: &Option<String>| {
            asked.iter().any(|condition| condition.metric == metric.name && condition.scope == *scope)
        };
        let told = named.iter().enumerate().filter(|(place, (_, scope))| *place < MOST_SCOPES || is_asked(scope));
        let mut scopes: Vec<Option<String>> = told.map(|(_, (_, scope))| (*scope).clone()).collect();
        // The CPU time of all functions is `cpu`.
        if metric.name != "cpu_share" {
            scopes.insert(0, None);
        }
        for scope in scopes {
            let none = Vec::new();
            let of = |side: &Scopes| side.get(&scope).or_else(|| side.get(&None).filter(|_| scope.is_none())).cloned();
            // A type that did nothing on one side was watched there all the same.
            let idle = |side: &Scopes| {
                let watched = side.get(&None).unwrap_or(&none);
                watched.iter().map(|b| resample::Block { watched: b.watched, ..Default::default() }).collect()
            };
            let before = of(before).unwrap_or_else(|| idle(before));
            let after = of(after).unwrap_or_else(|| idle(after));
            let change = compare(metric.measure, &before, &after);
            if change.before.is_some() || change.after.is_some() {
                rows.push(Row { metric, scope, change });
            }
        }
    }
    // What is sure and large first, within what is of all and what is of scopes.
    let size = |row: &Row| row.change.ratio.map_or(0.0, |ratio| (ratio + 1.0).max(1e-9).ln().abs());
    let (mut all, mut scoped): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.scope.is_none());
    scoped.sort_by(|a, b| {
        (b.change.is_sure(), size(b)).partial_cmp(&(a.change.is_sure(), size(a))).unwrap_or(std::cmp::Ordering::Equal)
    });
    all.append(&mut scoped);
    all
}

fn is_met(condition: &Condition, rows: &[Row]) -> bool {
    let of = |row: &&Row| row.metric.name == condition.metric && row.scope == condition.scope;
    rows.iter().filter(of).any(|row| condition.holds(&row.change))
}

async fn show(catalog: &Catalog, rows: &[Row], args: &DiffArgs, out: &mut Stdout) -> Result<()> {
    if args.format == Format::Table || args.format == Format::Markdown {
        let limit = args.limit.unwrap_or(LIMIT);
        let columns = [
            ("metric", Look::Text),
            ("of", Look::Text),
            ("a", Look::Number),
            ("b", Look::Number),
            ("change", Look::Number),
            ("95 % of draws", Look::Number),
            ("sure", Look::Text),
        ];
        let mut table = Table::new(&columns);
        let shown = rows.iter().take(if limit == 0 { usize::MAX } else { limit });
        for Row { metric, scope, change } in shown {
            let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| metric.unit.spell(value));
            table.push(vec![
                metric.name.into(),
                hud_common::clean(scope.as_deref().unwrap_or("all")).into_owned(),
                value(change.before),
                value(change.after),
                change.ratio.map_or_else(|| "-".into(), signed),
                change
                    .interval
                    .map_or_else(|| "-".into(), |(low, high)| format!("{} to {}", signed(low), signed(high))),
                if change.is_sure() { "yes".into() } else { "no".into() },
            ]);
        }
        let printed = if args.format == Format::Markdown {
            table.markdown(out)
        } else {
            table.print(output::terminal_width(), out)
        };
        printed.and_then(|()| out.flush()).map_err(Error::io("write the answer"))?;
        if limit != 0 && rows.len() > limit {
            let _ = writeln!(std::io::stderr(), "only the first {limit} rows; --limit N shows more, --limit 0 all");
        }
        return Ok(());
    }
    let frame = catalog.context()?.read_batch(batch(rows)?)?;
    output::write(catalog, vec![frame], &[], args.format, args.limit.filter(|limit| *limit > 0), true, out).await
}

fn signed(ratio: f64) -> String {
    format!("{:+.1} %", ratio * 100.0)
}

fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let text = |of: fn(&Row) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let float = |of: fn(&Row) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<Float64Array>()) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("metric", text(|row| Some(row.metric.name))),
        ("scope", text(|row| row.scope.as_deref())),
        ("unit", text(|row| Some(row.metric.unit.name()))),
        ("a", float(|row| row.change.before)),
        ("b", float(|row| row.change.after)),
        ("change", float(|row| row.change.ratio)),
        ("low", float(|row| row.change.interval.map(|(low, _)| low))),
        ("high", float(|row| row.change.interval.map(|(_, high)| high))),
        ("is_sure", Arc::new(rows.iter().map(|row| Some(row.change.is_sure())).collect::<BooleanArray>())),
    ];
    let field = |(name, array): &(&str, ArrayRef)| {
        let is_nullable = !matches!(array.data_type(), DataType::Boolean);
        Field::new(*name, array.data_type().clone(), is_nullable)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())?)
}
