//! The views: SQL files with a documented header.
//!
//! Under `-- Parameters:` and `-- Columns:` each line of the header gives a name, a unit and a description; a line indented
//! deeper continues the one before. A parameter's description ends with its default, as in `(default 10ms)`; without one it
//! is null, or false for a flag. Tables for people omit the columns under `-- Further columns:`. Output is formatted by these
//! units, and a test compares each header with the query's schema.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, lit},
    prelude::{DataFrame, SessionContext},
};
use hud_common::{
    cockpit::{Threshold, ThresholdUnit, Thresholds},
    session::{Manifest, Table},
};

pub use super::header::{Header, Item, Unit};
use crate::{
    error::{Error, Result},
    query::{
        defaults, materialize, opened::OpenSessions, segment_table::LABELS, session::Session, single_partition,
        window::Window,
    },
    replay::Replay,
    source::location::Found,
};

macro_rules! views {
    ($($(#[doc = $about:literal])+ $constant:ident = $name:literal, $empty:literal;)+) => {
        $(
            $(#[doc = $about])+
            pub const $constant: View = View {
                name: $name,
                sql: include_str!(concat!("../../../queries/", $name, ".sql")),
                empty: $empty,
            };
        )+
        /// Every view.
        pub const ALL: &[View] = &[$($constant),+];
    };
}

views! {
    /// CPU time by function.
    HOTSPOTS = "hotspots", "No CPU samples";
    /// Blocked and busy time inside polls, by culprit.
    BLOCKING = "blocking", "Nothing blocked a worker or kept it busy for longer than the thresholds";
    /// Blocked and busy intervals inside polls.
    BLOCKING_EACH = "blocking_each", "Nothing blocked a worker or kept it busy for longer than the thresholds";
    /// Polls that had not ended.
    IN_PROGRESS = "in_progress", "No poll lasted long without an end";
    /// Where tasks wait.
    SUSPENDED = "suspended", "No snapshot of all tasks with one that waits";
    /// Tasks that wait for other tasks.
    WAIT_GRAPH = "wait_graph", "No snapshot of all tasks with one that certainly waits for another";
    /// Tasks that wait for each other.
    DEADLOCKS = "deadlocks", "No snapshot of all tasks found a deadlock";
    /// Waiting time of tasks by await stack.
    AWAIT_FLAME = "await_flame", "No two snapshots of all tasks with one that waits";
    /// Time of each worker by state.
    WORKERS = "workers", "No workers were observed";
    /// Tasks.
    TASKS = "tasks", "No tasks were observed";
    /// Tasks by type.
    TASKS_BY_TYPE = "tasks_by_type", "No tasks were observed";
    /// Time of each worker by state, in steps.
    TIMELINE = "timeline", "No workers were observed";
    /// Time by function, line, type, thread and state.
    HOTSPOTS_BY = "hotspots_by", "No CPU samples and no off-CPU intervals";
    /// CPU time by stack.
    CPU_FLAME = "cpu_flame", "No CPU samples";
    /// Off-CPU time by stack.
    OFF_CPU_FLAME = "off_cpu_flame", "No off-CPU intervals";
    /// Tasks with the tasks that spawned them.
    TASK_TREE = "task_tree", "No spawned tasks were observed";
    /// Histogram of poll durations.
    POLLS_HISTOGRAM = "polls_histogram", "No polls were recorded";
    /// Wake-to-poll latency.
    WAKE_LATENCY = "wake_latency", "No wake-to-poll latencies were recorded";
    /// Chains of tasks that wake each other.
    WAKE_CHAINS = "wake_chains", "No wakes were recorded";
    /// Events that delayed the slowest polls.
    CRITICAL_PATH = "critical_path", "No polls were recorded";
    /// Run-queue latency.
    RUN_QUEUE = "run_queue", "No thread waited for a CPU";
    /// Tasks of the blocking pool.
    BLOCKING_POOL = "blocking_pool", "No jobs ran in the blocking pool";
    /// Waits for locks, and their holders.
    LOCKS = "locks", "No waits for locks";
    /// Detected problems.
    FINDINGS = "findings", "No problems found";
    /// Time in which each stream was recorded.
    COVERAGE = "coverage", "No stream was recorded";
    /// Lost events.
    DROPS = "drops", "No events were lost";
    /// Overhead of hud itself.
    OVERHEAD = "overhead", "The cost of hud was not recorded";
}

/// A view.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Its name, which is that of its file.
    pub name: &'static str,
    /// Its SQL.
    pub sql: &'static str,
    /// What people read if it has no rows, without the end of the sentence.
    pub empty: &'static str,
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
        if header.columns.is_empty() {
            return Err(wrong("its header lists no columns".into()));
        }
        if self.name == FINDINGS.name {
            header.parameters.extend(Thresholds::TABLE.iter().map(parameter));
        }
        for parameter in &mut header.parameters {
            if let Some((about, default)) = parameter.about.strip_suffix(')').and_then(|a| a.rsplit_once(" (default")) {
                let default = default.trim_start_matches([':', ' ']).to_owned();
                (parameter.about, parameter.default) = (about.to_owned(), Some(default));
            }
            defaults::check(parameter).map_err(wrong)?;
        }
        Ok(header)
    }

    /// The default of a parameter, as the header has it. Empty if there is none.
    pub(crate) fn default_of(&self, parameter: &str) -> String {
        let parameters = self.header().map(|header| header.parameters).unwrap_or_default();
        parameters.into_iter().find(|item| item.name == parameter).and_then(|item| item.default).unwrap_or_default()
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
            let memory = opened.settings().memory;
            let frame = self.plan_one(session, context, arguments, memory).await;
            let frame = frame.map_err(|error| opened.explain(error))?;
            frames.push(if several { labelled(frame, session.manifest())? } else { frame });
        }
        Ok(frames)
    }

    async fn plan_one(
        &self,
        session: &Session,
        context: &SessionContext,
        arguments: &Arguments,
        memory: usize,
    ) -> Result<DataFrame> {
        let mut values = HashMap::new();
        for parameter in self.header()?.parameters {
            let value = arguments
                .get(&parameter.name)
                .ok_or_else(|| Error::View { view: self.name, why: format!("${} has no value", parameter.name) })?;
            values.insert(parameter.name, value.clone());
        }
        let (from, to) = (arguments.int_of("from").unwrap_or(i64::MIN), arguments.int_of("to").unwrap_or(i64::MAX));
        let within = |table| session.rows_within(table, from, to);
        // The rules are no SQL: what they detect in this range by these thresholds takes the place of the recorder's rows.
        let computed = match self.name == FINDINGS.name {
            true => Some((Table::Findings, arguments.findings(session, from, to, memory / 2)?)),
            false => None,
        };
        materialize::plan(context, self.sql, values, within, arguments.few, computed).await.map_err(|error| {
            match Error::from(error) {
                // The cause is a file, not the view.
                error @ (Error::Query(_) | Error::Segment { .. } | Error::Gone(_)) => error,
                other => Error::View { view: self.name, why: other.to_string() },
            }
        })
    }
}

/// A threshold of the rules, as a parameter.
fn parameter(threshold: &Threshold) -> Item {
    let (unit, default) = match threshold.unit {
        ThresholdUnit::Nanos => (Unit::Ns, format!("{}ms", threshold.default / 1_000_000)),
        ThresholdUnit::Thousandths | ThresholdUnit::Count => (Unit::Count, threshold.default.to_string()),
    };
    Item {
        name: threshold.name.to_owned(),
        unit,
        about: threshold.about.to_owned(),
        default: Some(default),
        is_further: false,
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
        default: None,
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
    /// The time range, for the parameters `from` and `to`.
    pub(crate) fn within(window: Window) -> Self {
        Arguments::default().int("from", window.from).int("to", window.to)
    }

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

    /// What the rules detect in a session, by the thresholds among these.
    fn findings(&self, session: &Session, from: i64, to: i64, memory: usize) -> Result<RecordBatch> {
        let mut thresholds = Thresholds::default();
        for threshold in Thresholds::TABLE {
            if let Some(ScalarValue::Int64(Some(value))) = self.get(threshold.name) {
                threshold.set(&mut thresholds, *value);
            }
        }
        let found = Found { dir: session.dir().clone(), manifest: session.manifest().clone() };
        Replay::of(found)?.findings(from, to, thresholds, memory)
    }

    /// An integer, if it is set.
    pub(crate) fn int_of(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(ScalarValue::Int64(value)) => *value,
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&ScalarValue> {
        self.values.get(name)
    }
}
