//! The views: SQL files that anyone can read and run, with a header that says what they answer.
//!
//! The header is read by machine too. Under `-- Parameters:` and `-- Columns:` each line gives a name, a unit and what
//! it is about; a line indented deeper continues the one before. Columns under `-- Further columns:` are left out of
//! tables for people. Output is formatted by these units, so a header that
//! did not tell the truth would be seen at once; a test holds each to the query's own schema.

use std::collections::HashMap;

use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, lit},
    prelude::{DataFrame, SessionContext},
};
use hud_common::session::Manifest;

use crate::{
    error::{Error, Result},
    query::{materialize, opened::OpenSessions, segment_table::LABELS, session::Session, single_partition},
};

macro_rules! views {
    ($($(#[doc = $about:literal])+ $constant:ident = $name:literal;)+) => {
        $(
            $(#[doc = $about])+
            pub const $constant: View = View {
                name: $name,
                sql: include_str!(concat!("../../../queries/", $name, ".sql")),
            };
        )+
        /// Every view.
        pub const ALL: &[View] = &[$($constant),+];
    };
}

views! {
    /// CPU time by function.
    HOTSPOTS = "hotspots";
    /// Blocked and busy time inside polls, by culprit.
    BLOCKING = "blocking";
    /// Blocked and busy intervals inside polls.
    BLOCKING_EACH = "blocking_each";
    /// Time of each worker by state.
    WORKERS = "workers";
    /// Tasks.
    TASKS = "tasks";
    /// Tasks by type.
    TASKS_BY_TYPE = "tasks_by_type";
    /// Time of each worker by state, in steps.
    TIMELINE = "timeline";
    /// Time by function, line, type, thread and state.
    HOTSPOTS_BY = "hotspots_by";
    /// CPU time by stack.
    CPU_FLAME = "cpu_flame";
    /// Off-CPU time by stack.
    OFF_CPU_FLAME = "off_cpu_flame";
    /// Tasks with the tasks that spawned them.
    TASK_TREE = "task_tree";
    /// Histogram of poll durations.
    POLLS_HISTOGRAM = "polls_histogram";
    /// Wake-to-poll latency.
    WAKE_LATENCY = "wake_latency";
    /// Chains of tasks that wake each other.
    WAKE_CHAINS = "wake_chains";
    /// Events that delayed the slowest polls.
    CRITICAL_PATH = "critical_path";
    /// Run-queue latency.
    RUN_QUEUE = "run_queue";
    /// Tasks of the blocking pool.
    BLOCKING_POOL = "blocking_pool";
    /// Waits for locks, and their holders.
    LOCKS = "locks";
    /// Detected problems.
    FINDINGS = "findings";
    /// Time in which each stream was recorded.
    COVERAGE = "coverage";
    /// Lost events.
    DROPS = "drops";
    /// Overhead of hud itself.
    OVERHEAD = "overhead";
}

/// A view.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Its name, which is that of its file.
    pub name: &'static str,
    /// Its SQL.
    pub sql: &'static str,
}

/// What a column's or a parameter's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A duration in nanoseconds.
    Ns,
    /// Nanoseconds since the Unix epoch.
    EpochNs,
    /// A part of 1.
    Share,
    /// A size.
    Bytes,
    /// How many.
    Count,
    /// A number that names something.
    Id,
    /// Text.
    Text,
    /// True or false.
    Flag,
}

impl Unit {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ns" => Unit::Ns,
            "epoch_ns" => Unit::EpochNs,
            "share" => Unit::Share,
            "bytes" => Unit::Bytes,
            "count" => Unit::Count,
            "id" => Unit::Id,
            "text" => Unit::Text,
            "flag" => Unit::Flag,
            _ => return None,
        })
    }
}

/// A line of a header: a parameter (its name without `$`) or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// What it is.
    pub about: String,
    /// A column that tables for people leave out unless asked for all.
    pub is_further: bool,
}

/// What a view's header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What `$name`s the query takes.
    pub parameters: Vec<Item>,
    /// What its rows hold.
    pub columns: Vec<Item>,
}

impl View {
    /// Reads the header.
    pub fn header(&self) -> Result<Header> {
        let wrong = |why: String| Error::View { view: self.name, why };
        let mut header = Header::default();
        let mut section: Option<&mut Vec<Item>> = None;
        let mut is_further = false;
        for line in self.sql.lines().map_while(|l| l.strip_prefix("--")) {
            match line.trim() {
                "Parameters:" => section = Some(&mut header.parameters),
                "Columns:" => section = Some(&mut header.columns),
                "Further columns:" => is_further = true,
                _ => {}
            }
            let Some(items) = &mut section else { continue };
            let indent = line.len() - line.trim_start().len();
            match (indent, items.last_mut()) {
                (3, _) => {
                    let item = item(line).ok_or_else(|| wrong(format!("header line {line:?}")))?;
                    items.push(Item { is_further, ..item });
                }
                (4.., Some(last)) => {
                    last.about.push(' ');
                    last.about.push_str(line.trim());
                }
                _ => {}
            }
        }
        match header.columns.is_empty() {
            true => Err(wrong("its header lists no columns".into())),
            false => Ok(header),
        }
    }

    /// Plans the view over all sessions. It takes those of `arguments` that its header lists.
    pub(crate) async fn plan(&self, opened: &OpenSessions, arguments: &Arguments) -> Result<DataFrame> {
        let mut all: Option<DataFrame> = None;
        for frame in self.plan_each(opened, arguments).await? {
            all = Some(match all {
                Some(before) => before.union(frame)?,
                None => frame,
            });
        }
        all.ok_or_else(|| Error::View { view: self.name, why: "there is no session".into() })
    }

    /// Plans the view for each session separately, as ids are unique within a session only. With several sessions, each row
    /// starts with host and session.
    pub(crate) async fn plan_each(&self, opened: &OpenSessions, arguments: &Arguments) -> Result<Vec<DataFrame>> {
        let mut frames = Vec::new();
        let several = opened.sessions().len() > 1;
        for each in opened.each() {
            let (session, context) = each?;
            let frame = self.plan_one(session, context, arguments).await.map_err(|error| opened.explain(error))?;
            frames.push(if several { labelled(frame, session.manifest())? } else { frame });
        }
        Ok(frames)
    }

    async fn plan_one(&self, session: &Session, context: &SessionContext, arguments: &Arguments) -> Result<DataFrame> {
        let mut values = HashMap::new();
        for parameter in self.header()?.parameters {
            let value = arguments
                .get(&parameter.name)
                .ok_or_else(|| Error::View { view: self.name, why: format!("${} has no value", parameter.name) })?;
            values.insert(parameter.name, value.clone());
        }
        let bound = |name| match arguments.get(name) {
            Some(ScalarValue::Int64(bound)) => *bound,
            _ => None,
        };
        let (from, to) = (bound("from").unwrap_or(i64::MIN), bound("to").unwrap_or(i64::MAX));
        let within = |table| session.rows_within(table, from, to);
        materialize::plan(context, self.sql, values, within, arguments.few).await.map_err(|error| {
            match Error::from(error) {
                // The cause is a file, not the view.
                error @ (Error::Query(_) | Error::Segment { .. } | Error::Gone(_)) => error,
                other => Error::View { view: self.name, why: other.to_string() },
            }
        })
    }
}

/// The same rows, with columns for host and session first.
fn labelled(frame: DataFrame, manifest: &Manifest) -> Result<DataFrame> {
    let labels = LABELS.into_iter().zip([&manifest.host, &manifest.id]);
    let mut columns: Vec<_> = labels.map(|(name, label)| lit(label.as_str()).alias(name)).collect();
    columns.extend(frame.schema().columns().into_iter().map(Expr::Column));
    Ok(frame.select(columns)?)
}

fn item(line: &str) -> Option<Item> {
    let (name, rest) = line.trim().split_once(' ')?;
    let (unit, about) = rest.trim_start().split_once(' ')?;
    Some(Item {
        name: name.strip_prefix('$').unwrap_or(name).to_string(),
        unit: Unit::parse(unit)?,
        about: about.trim().to_string(),
        is_further: false,
    })
}

/// Values for the views' parameters, by name.
#[derive(Clone, Debug)]
pub struct Arguments {
    values: HashMap<String, ScalarValue>,
    few: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Arguments { values: HashMap::new(), few: single_partition::FEW_EVENTS }
    }
}

impl Arguments {
    /// Number of events below which a view's expressions that are marked `AS MATERIALIZED` are materialized. It does not
    /// change the result.
    pub fn with_few(mut self, events: u64) -> Self {
        self.few = events;
        self
    }

    /// Sets an integer; null for `None`.
    pub fn int(mut self, name: &'static str, value: impl Into<Option<i64>>) -> Self {
        self.set(name, ScalarValue::Int64(value.into()));
        self
    }

    /// Sets a boolean.
    pub fn flag(mut self, name: &'static str, value: bool) -> Self {
        self.set(name, ScalarValue::Boolean(Some(value)));
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: ScalarValue) {
        self.values.insert(name.to_owned(), value);
    }

    fn get(&self, name: &str) -> Option<&ScalarValue> {
        self.values.get(name)
    }
}
