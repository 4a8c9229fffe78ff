//! `diff`: compares two sessions, or two time ranges of one. Metrics are per second of recorded time or per poll, so that they do
//! not depend on how long was recorded.

mod bootstrap;
mod condition;
mod gather;

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use clap::Args;

use bootstrap::{Change, Measure, compare};
pub(crate) use condition::Condition;
use gather::{Scopes, Side};

use crate::{
    commands::args::{self, QueryOptions, TIMES, TimeRange},
    error::{Error, Result},
    human,
    output::{stdout::terminal_width, write},
    query::{catalog::Catalog, opened::Settings},
};
use crate::{
    output::{
        stdout::Stdout,
        table::{Look, Shape, Table},
    },
    query::window::Moment,
};
use hud_shell::Format;

/// Compare two sessions, or two time ranges of one session
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n
Metrics: cpu, polls_rate, p50_poll, p99_poll, longest_poll, busy_share, busy_per_poll, blocked_per_poll, wait_per_poll,
p50_wake, p99_wake, blocking_rate, blocking_share; METRIC:TYPE for one task type, cpu_share:FUNCTION for a function. Rates
and shares refer to the time that was recorded. Shares of types and functions below 0.1 % on both sides are left out. A
change is significant if its 95 % confidence interval, by bootstrap over blocks of time, does not contain 0.

Examples:
  hud-analyze diff BEFORE AFTER
  hud-analyze diff SESSION --from +0s --to +30s --from-b +30s --to-b +60s
  hud-analyze diff BEFORE AFTER --fail-if 'p99_poll > +20%' --fail-if 'blocking_rate:app::handler > 5'

Exit codes: 0 success, 1 failure or a --fail-if condition holds, 2 invalid arguments."))]
pub(crate) struct DiffArgs {
    /// Session A, before the change
    a: PathBuf,
    /// Session B, after the change [default: session A, with --from-b or --to-b]
    b: Option<PathBuf>,
    #[command(flatten)]
    range: TimeRange,
    /// Start of the time range of B [default: as --from, if B is another session]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from_b: Option<Moment>,
    /// End of the time range of B, exclusive [default: as --to, if B is another session]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to_b: Option<Moment>,
    /// Exit with 1 if this holds: METRIC[:SCOPE] > +20% (a significant change), or > 50ms (the value of B)
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// Maximum number of rows, 0 for all [default: 40 in table and markdown, otherwise all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    query: QueryOptions,
}

/// Maximum number of task types, and of functions, per metric.
const MOST_SCOPES: usize = 30;
/// Rows in table and markdown without `--limit`.
const LIMIT: usize = 40;
/// Shares of task types and functions below this are not compared.
const LEAST_SHARE: f64 = 0.001;
/// Ratio of the lengths of both time ranges from which on a note states them.
const UNLIKE: i64 = 2;

/// A metric: the blocks that it is computed from, how, and its unit.
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
    /// A task type, or a function for `cpu_share`; `None` for all.
    scope: Option<String>,
    change: Change,
}

pub(crate) async fn run(args: &DiffArgs, out: &mut Stdout) -> Result<()> {
    for condition in &args.fail_if {
        known(condition)?;
    }
    let settings = args.query.settings();
    let before = open(&args.a, &settings)?;
    let after = match &args.b {
        Some(path) => Some(open(path, &settings)?),
        None if args.from_b.is_some() || args.to_b.is_some() => None,
        None => {
            return Err(Error::Usage {
                message: "a second session is missing".into(),
                hint: "name one, or a second time range with --from-b and --to-b".into(),
            });
        }
    };
    let TimeRange { from, to } = args.range;
    let (a, a_time) = side(&before, from, to).await?;
    let (b, b_time) = match &after {
        // By default, the same part of both sessions.
        Some(after) => side(after, args.from_b.or(from), args.to_b.or(to)).await?,
        None => side(&before, args.from_b, args.to_b).await?,
    };
    if args.query.format.is_text() && a_time.max(b_time) / a_time.min(b_time).max(1) >= UNLIKE {
        let (a, b) = (human::nanos(a_time), human::nanos(b_time));
        let _ = writeln!(
            std::io::stderr(),
            "note: A is {a} long, B {b}; figures are rates and means, longest ones are not"
        );
    }
    let rows = rows(&a, &b, &args.fail_if);
    show(&before, &rows, args, out).await?;
    let failed: Vec<_> = args.fail_if.iter().filter(|condition| holds(condition, &rows)).collect();
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

fn open(path: &Path, settings: &Settings) -> Result<Catalog> {
    let catalog = args::open(&[path.to_path_buf()], settings)?;
    match catalog.sessions().len() {
        1 => Ok(catalog),
        several => Err(Error::Usage {
            message: format!("{} contains {several} sessions", path.display()),
            hint: "name one of them".into(),
        }),
    }
}

/// A side, and the length of its time range.
async fn side(catalog: &Catalog, from: Option<Moment>, to: Option<Moment>) -> Result<(Side, i64)> {
    let window = TimeRange { from, to }.within(catalog).await?;
    let (_, context) = catalog.each().next().ok_or_else(|| Error::Query("there is no session".into()))??;
    let side = Side::gather(context, window).await.map_err(|error| catalog.explain(error))?;
    catalog.confirm()?;
    Ok((side, window.dur()))
}

/// All comparisons: first totals, then the scopes with the largest sums and those in conditions.
fn rows(a: &Side, b: &Side, conditions: &[Condition]) -> Vec<Row> {
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
        let is_in_condition = |scope: &Option<String>| {
            conditions.iter().any(|condition| condition.metric == metric.name && condition.scope == *scope)
        };
        let shown =
            named.iter().enumerate().filter(|(place, (_, scope))| *place < MOST_SCOPES || is_in_condition(scope));
        let mut scopes: Vec<Option<String>> = shown.map(|(_, (_, scope))| (*scope).clone()).collect();
        // The total of `cpu_share` is `cpu`.
        if metric.name != "cpu_share" {
            scopes.insert(0, None);
        }
        for scope in scopes {
            let none = Vec::new();
            let of = |side: &Scopes| side.get(&scope).or_else(|| side.get(&None).filter(|_| scope.is_none())).cloned();
            // A task type without events on one side was recorded there nevertheless.
            let idle = |side: &Scopes| {
                let recorded = side.get(&None).unwrap_or(&none);
                recorded.iter().map(|b| bootstrap::Block { recorded: b.recorded, ..Default::default() }).collect()
            };
            let before = of(before).unwrap_or_else(|| idle(before));
            let after = of(after).unwrap_or_else(|| idle(after));
            let change = compare(metric.measure, &before, &after);
            let is_shown = !is_negligible(metric, &change) || scope.is_none() || is_in_condition(&scope);
            if is_shown && (change.before.is_some() || change.after.is_some()) {
                rows.push(Row { metric, scope, change });
            }
        }
    }
    // Totals first; then scopes, significant and large changes first.
    let size = |row: &Row| row.change.ratio.map_or(0.0, |ratio| (ratio + 1.0).max(1e-9).ln().abs());
    let (mut all, mut scoped): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.scope.is_none());
    scoped.sort_by(|a, b| {
        (b.change.is_significant(), size(b))
            .partial_cmp(&(a.change.is_significant(), size(a)))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    all.append(&mut scoped);
    all
}

/// Whether a share is below the floor on both sides: a change of it means nothing, however large in proportion.
fn is_negligible(metric: &Metric, change: &Change) -> bool {
    let is_small = |share: Option<f64>| share.is_none_or(|share| share < LEAST_SHARE);
    metric.unit == Unit::Share && is_small(change.before) && is_small(change.after)
}

fn holds(condition: &Condition, rows: &[Row]) -> bool {
    let of = |row: &&Row| row.metric.name == condition.metric && row.scope == condition.scope;
    rows.iter().filter(of).any(|row| condition.holds(&row.change))
}

async fn show(catalog: &Catalog, rows: &[Row], args: &DiffArgs, out: &mut Stdout) -> Result<()> {
    if args.query.format == Format::Table || args.query.format == Format::Markdown {
        let limit = args.limit.unwrap_or(LIMIT);
        let columns = [
            ("metric", Look::Text),
            ("scope", Look::Text),
            ("a", Look::Number),
            ("b", Look::Number),
            ("change", Look::Number),
            ("95 % CI", Look::Number),
            ("significant", Look::Text),
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
                if change.is_significant() { "yes".into() } else { "no".into() },
            ]);
        }
        let printed = if args.query.format == Format::Markdown {
            table.markdown(out)
        } else {
            table.print(terminal_width(), out)
        };
        printed.and_then(|()| out.flush()).map_err(Error::io("write the result"))?;
        if limit != 0 && rows.len() > limit {
            let _ = writeln!(std::io::stderr(), "only the first {limit} rows; --limit N shows more, --limit 0 all");
        }
        return Ok(());
    }
    let frame = catalog.context()?.read_batch(batch(rows)?)?;
    let shape = Shape { limit: args.limit.filter(|limit| *limit > 0), wide: true, ..Shape::default() };
    write::write(catalog, vec![frame], args.query.format, shape, out).await
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
        ("is_sure", Arc::new(rows.iter().map(|row| Some(row.change.is_significant())).collect::<BooleanArray>())),
    ];
    let field = |(name, array): &(&str, ArrayRef)| {
        let is_nullable = !matches!(array.data_type(), DataType::Boolean);
        Field::new(*name, array.data_type().clone(), is_nullable)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())?)
}
