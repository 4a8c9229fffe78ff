//! `info`: target, time, settings and completeness of a recording.

use std::{collections::BTreeMap, io::Write};

use clap::Args;
use datafusion::{common::ScalarValue, prelude::SessionContext};
use hud_common::session::{Container, Table};
use serde_json::{Value, json};

use crate::{
    commands::args::{ReportFormat, Sessions},
    error::{Error, Result},
    human,
    output::{
        stdout::{Stdout, terminal_width},
        table::{Look, Table as TextTable},
    },
    query::{catalog::Catalog, opened::Settings, session::Session, window::Window},
    source::recovery::{State, recovery_in_words},
};

/// Show target, time, settings and completeness of a recording
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    sessions: Sessions,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: ReportFormat,
}

pub(crate) async fn run(args: &InfoArgs, out: &mut Stdout) -> Result<()> {
    let catalog = &args.sessions.open(&Settings::default())?;
    let mut objects = Vec::new();
    for (place, each) in catalog.each().enumerate() {
        let (session, context) = each?;
        let facts = Facts::gather(&Source { catalog, session, context }).await?;
        match args.format {
            ReportFormat::Json => objects.push(facts.json(session)),
            ReportFormat::Table => {
                let line = if place == 0 { Ok(()) } else { writeln!(out) };
                line.and_then(|()| facts.print(session, out)).map_err(Error::io("write the result"))?;
            }
        }
    }
    let one = if let [_] = objects.as_slice() { objects.pop() } else { None };
    let all = one.or_else(|| (!objects.is_empty()).then(|| Value::from(objects)));
    all.map_or(Ok(()), |all| writeln!(out, "{all:#}")).and_then(|()| out.flush()).map_err(Error::io("write the result"))
}

/// A session, for queries.
struct Source<'a> {
    catalog: &'a Catalog,
    session: &'a Session,
    context: &'a SessionContext,
}

impl Source<'_> {
    /// The first value of the first row of a query's result.
    async fn value(&self, sql: &str) -> Result<Option<ScalarValue>> {
        let rows = async { self.context.sql(sql).await?.collect().await }.await;
        let rows = rows.map_err(|error| self.catalog.explain(error.into()))?;
        let row = rows.iter().find(|batch| batch.num_rows() > 0);
        Ok(row.map(|batch| ScalarValue::try_from_array(batch.column(0), 0)).transpose()?)
    }
}

/// Size of a table.
#[derive(Debug)]
struct Size {
    table: Table,
    rows: i64,
    segments: usize,
    bytes: u64,
}

/// Facts that are not in the manifest.
#[derive(Debug)]
struct Facts {
    window: Window,
    sizes: Vec<Size>,
    tasks: i64,
    task_types: i64,
    workers: i64,
    /// Share of the session in which each stream was recorded.
    coverage: BTreeMap<String, f64>,
    /// Shares of the samples, and of the off-CPU intervals with a stack, whose stack is complete.
    complete_samples: Option<f64>,
    complete_off_cpu: Option<f64>,
    /// CPU time divided by the session's duration: 1 is a whole CPU.
    target_cpu: Option<f64>,
    recorder_cpu: Option<f64>,
    probe_cpu: Option<f64>,
    recorder_rss: Option<i64>,
}

impl Facts {
    async fn gather(source: &Source<'_>) -> Result<Self> {
        let window = Window::of(source.session, source.context).await.map_err(|e| source.catalog.explain(e))?;
        let mut sizes = Vec::new();
        for &table in Table::ALL {
            let segments = || source.session.segments().iter().filter(|s| s.table == table);
            let rows = int(source, &format!("SELECT count(*) FROM {}", table.name())).await?.unwrap_or(0);
            let bytes = segments().map(|s| s.size).sum();
            sizes.push(Size { table, rows, segments: segments().count(), bytes });
        }
        // CPU time or recorded time divided by the session's duration.
        let share = async |sum: &str| -> Result<Option<f64>> {
            Ok(int(source, sum).await?.map(|ns| as_float(ns) / as_float(window.dur().max(1))))
        };
        let mut coverage = BTreeMap::new();
        for stream in ["samples", "off_cpu", "polls", "wakes", "spawns", "ends"] {
            let sum = format!("SELECT sum(dur) FROM coverage WHERE stream = '{stream}'");
            if let Some(share) = share(&sum).await? {
                coverage.insert(stream.to_string(), share.min(1.0));
            }
        }
        let part = |sql: &'static str| async move {
            Ok::<_, Error>(match source.value(sql).await? {
                Some(ScalarValue::Float64(part)) => part,
                _ => None,
            })
        };
        Ok(Self {
            window,
            sizes,
            tasks: int(
                source,
                "SELECT count(DISTINCT task_id) FROM
                 (SELECT task_id, type_id FROM tasks
                  UNION ALL SELECT task_id, type_id FROM polls GROUP BY task_id, type_id) t
                 LEFT JOIN task_types y ON y.type_id = t.type_id WHERE coalesce(y.kind, 'task') <> 'worker'",
            )
            .await?
            .unwrap_or(0),
            task_types: int(source, "SELECT count(DISTINCT name) FROM task_types WHERE kind <> 'worker'")
                .await?
                .unwrap_or(0),
            workers: int(source, "SELECT count(DISTINCT tid) FROM threads WHERE role = 'worker'").await?.unwrap_or(0),
            coverage,
            complete_samples: part("SELECT avg(CASE WHEN unwind = 'complete' THEN 1.0 ELSE 0.0 END) FROM samples")
                .await?,
            complete_off_cpu: part(
                "SELECT CAST(sum(CASE WHEN s.unwind = 'complete' THEN o.n ELSE 0 END) AS DOUBLE) / sum(o.n)
                 FROM (SELECT stack_id, count(*) AS n FROM off_cpu WHERE state <> '+' GROUP BY stack_id) o
                 LEFT JOIN stacks s ON s.stack_id = o.stack_id",
            )
            .await?,
            target_cpu: share("SELECT sum(cpu_user + cpu_sys) FROM process").await?,
            recorder_cpu: share("SELECT sum(recorder_cpu) FROM overhead").await?,
            probe_cpu: share("SELECT sum(probe_ns) FROM overhead").await?,
            recorder_rss: int(source, "SELECT max(recorder_rss) FROM overhead").await?,
        })
    }

    fn json(&self, session: &Session) -> Value {
        let manifest = session.manifest();
        let tables: serde_json::Map<_, _> = self
            .sizes
            .iter()
            .map(|s| {
                let size = json!({ "rows": s.rows, "segments": s.segments, "bytes": s.bytes });
                (s.table.name().to_string(), size)
            })
            .collect();
        json!({
            "session": session.dir().path().to_string_lossy(),
            "manifest": manifest,
            "from": self.window.from,
            "to": self.window.to,
            "dur": self.window.dur(),
            "tables": tables,
            "state": session.state().name(),
            "unsealed_segments": unsealed(session),
            "workers": self.workers,
            "tasks": self.tasks,
            "task_types": self.task_types,
            "coverage": self.coverage,
            "complete_stacks": { "samples": self.complete_samples, "off_cpu": self.complete_off_cpu },
            "target_cpu": self.target_cpu,
            "overhead": {
                "recorder_cpu": self.recorder_cpu,
                "probe_cpu": self.probe_cpu,
                "recorder_rss": self.recorder_rss,
            },
        })
    }

    fn print(&self, session: &Session, out: &mut dyn Write) -> std::io::Result<()> {
        let manifest = session.manifest();
        let percent = |share: Option<f64>| share.map_or("-".into(), human::percent);
        let mut line = |name: &str, text: String| writeln!(out, "{name:<10}{}", hud_common::clean(&text));

        line("session", format!("{}, id {}", session.dir().path().display(), manifest.id))?;
        let ended = manifest.end_reason.clone();
        let state = match (session.state(), unsealed(session)) {
            (State::Complete, _) => ended.unwrap_or_else(|| "complete".into()),
            (State::Recovered, _) => ended.unwrap_or_else(|| "recovered".into()),
            (State::Recording, n) => format!("being recorded; {n} segments not sealed yet"),
            (State::Killed, n) => format!("its recorder was killed, and it is not recovered; {n} segments not sealed"),
        };
        line(
            "recorded",
            format!("{} for {} ({state})", human::date_time(self.window.from), human::nanos(self.window.dur())),
        )?;
        if let Some(recovery) = &manifest.recovery {
            line("recovered", recovery_in_words(recovery))?;
        }
        let expired: u64 = manifest.streams.values().map(|s| s.expired).sum();
        if let Some(range) = manifest.range {
            let kept = format!("{} to {}", human::date_time(range.from), human::date_time(range.to));
            line("kept", format!("{kept}; {} older rows have expired", count(expired)))?;
        }
        if let Some(previous) = &manifest.previous {
            line("follows", format!("session {previous}"))?;
        }
        let executor = match (&manifest.tokio_version, &manifest.executor) {
            (None, Some(executor)) => format!("{executor} instead of tokio: its tasks are unknown"),
            (version, _) => format!("tokio {}", version.as_deref().unwrap_or("of unknown version")),
        };
        line("target", format!("{}, pid {}, {executor}", manifest.exe, manifest.pid))?;
        if let Some(container) = &manifest.container {
            line("", in_words(container))?;
        }
        line(
            "",
            format!(
                "{} workers, {} tasks of {} types, CPU {}",
                human::count(self.workers),
                human::count(self.tasks),
                human::count(self.task_types),
                percent(self.target_cpu)
            ),
        )?;
        if let Some(build_id) = &manifest.build_id {
            line("", format!("build id {build_id}"))?;
        }
        line("host", format!("{}, Linux {}, {} CPUs", manifest.host, manifest.kernel, manifest.cpus))?;
        let other = manifest.options.other.iter().map(|(name, value)| match value.as_str() {
            Some(text) => format!(", {name} {text}"),
            None => format!(", {name} {value}"),
        });
        line(
            "options",
            format!(
                "{} samples a second, polls {}{} (hud {})",
                manifest.options.freq,
                manifest.options.polls,
                other.collect::<String>(),
                manifest.hud_version
            ),
        )?;
        let covered = self.coverage.iter().map(|(stream, share)| format!("{stream} {}", human::percent(*share)));
        line("watched", or_dash(covered.collect::<Vec<_>>().join(", ")))?;
        line(
            "stacks",
            format!("complete: samples {}, off_cpu {}", percent(self.complete_samples), percent(self.complete_off_cpu)),
        )?;
        line(
            "overhead",
            format!(
                "recorder {} of a CPU, {}; kernel programs {} of a CPU",
                percent(self.recorder_cpu),
                self.recorder_rss.map_or("-".into(), human::bytes),
                percent(self.probe_cpu)
            ),
        )?;
        for note in &manifest.notes {
            line("note", note.clone())?;
        }

        let mut tables = TextTable::new(&[
            ("table", Look::Text),
            ("rows", Look::Number),
            ("segments", Look::Number),
            ("size", Look::Number),
            ("produced", Look::Number),
            ("stored", Look::Number),
            ("dropped", Look::Number),
            ("expired", Look::Number),
        ]);
        for size in &self.sizes {
            let stream = manifest.streams.get(size.table.name());
            if size.rows == 0 && stream.is_none() {
                continue;
            }
            let of_stream = |n: Option<u64>| n.map_or("".into(), count);
            tables.push(vec![
                size.table.name().into(),
                human::count(size.rows),
                size.segments.to_string(),
                human::bytes(i64::try_from(size.bytes).unwrap_or(i64::MAX)),
                of_stream(stream.map(|s| s.produced)),
                of_stream(stream.map(|s| s.stored)),
                of_stream(stream.map(|s| s.dropped)),
                of_stream(stream.map(|s| s.expired)),
            ]);
        }
        writeln!(out)?;
        tables.print(terminal_width(), out)
    }
}

/// Number of in-flight logs.
/// A container, with its pod.
fn in_words(container: &Container) -> String {
    let runtime = container.runtime.as_ref().map_or_else(String::new, |runtime| format!(" ({runtime})"));
    let pod = match (&container.pod, &container.pod_uid) {
        (None, None) => String::new(),
        (Some(name), _) | (None, Some(name)) => {
            let namespace = container.namespace.as_ref().map_or_else(String::new, |space| format!("{space}/"));
            format!("pod {namespace}{name}, ")
        }
    };
    format!("{pod}container {}{runtime}", container.id)
}

fn unsealed(session: &Session) -> usize {
    session.segments().iter().filter(|s| s.is_log()).count()
}

fn count(n: u64) -> String {
    human::count(i64::try_from(n).unwrap_or(i64::MAX))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

async fn int(source: &Source<'_>, sql: &str) -> Result<Option<i64>> {
    Ok(match source.value(sql).await? {
        Some(ScalarValue::Int64(value)) => value,
        _ => None,
    })
}

/// For shares: beyond 2^53 ns rounding does not change a percentage.
#[allow(clippy::cast_precision_loss)]
fn as_float(ns: i64) -> f64 {
    ns as f64
}
