//! docs/SQL.md consists of the views' headers and of their rows for the recording: `SNAPSHOTS=overwrite` renews it.

use std::{fmt::Write as _, path::Path};

use hud_analyze::view::{ALL, Item, Unit, View};
use hud_common::units::{duration, fraction, size};
use serde_json::Value;
use snapbox::{Data as File, assert_data_eq, data::DataFormat};

use crate::data::{Args, Data, Row, ask, recording};

/// Rows of an example.
const SHOWN: usize = 3;

const HEAD: &str = "\
<!-- Generated from the headers of queries/*.sql by hud-analyze/oracle/tests/it/docs.rs; to renew it: SNAPSHOTS=overwrite cargo test \
-p hud-oracle -->
# SQL

Every question about a session is a SQL query. Each view is a file of `queries/`, which hud-analyze embeds. DuckDB runs the \
same files and gives the same rows, which a test compares. The tables are described in [SCHEMA.md](SCHEMA.md).

In `hud-analyze sql SESSION` each view is a table, `views.NAME`, over the whole session and with default parameters. Its \
schema may be omitted unless the session has a table of that name (`tasks`, `coverage`, `drops`, `overhead`, `findings`). \
`NAME(from, to, …)` takes the parameters in the order of the view's header; null stands for the default. Times are ns since the Unix \
epoch or text (`'+5s'`, `'-30s'`, `'14:03:20'`), durations ns or text (`'10ms'`). Over several sessions, or a store, every \
table and view also has the columns `host` and `session`, and `\"<session>\".polls` is the table of one session.

```
hud-analyze sql SESSION -c 'SELECT * FROM views.wake_latency LIMIT 5'
hud-analyze sql SESSION -c \"SELECT task_type, p99 FROM wake_latency('+2s', '+3s')\"
```

To run a file elsewhere, set its parameters by name. In Python with DuckDB:

```python
duckdb.sql(\"CREATE VIEW samples AS FROM 'SESSION/samples/*.parquet'\")  # and so on for each table; one without a folder is empty
duckdb.execute(open('queries/cpu_flame.sql').read(), {'from': 0, 'to': 2**62, 'task': None, 'thread': None})
```

Units: `ns` is a duration in nanoseconds, `epoch_ns` nanoseconds since the Unix epoch, `share` a fraction of 1. The examples \
here show them as tables for people do, with times relative to the start. Null means \"unknown\", never \"none\".

- A thread is a worker, a thread of the blocking pool, or another thread. A worker's own loop is a task to tokio, and none here.
- A task's type is recorded when the task is first seen, and when it is spawned. Views that count polls use the type in each poll.
- Each view states which rows belong to a time range: usually those that began in it. Times are clipped to it if the view says so.
- Percentiles of many values are computed from buckets, not by sorting all values; the view's text states the maximum error.
";

fn cell(item: &Item, value: &Value, start: i64) -> String {
    match (item.unit, value) {
        (_, Value::Null) => String::new(),
        (Unit::Ns, Value::Number(n)) => duration(n.as_i64().unwrap_or_default()),
        (Unit::EpochNs, Value::Number(n)) => format!("+{}", duration(n.as_i64().unwrap_or_default() - start)),
        (Unit::Share, Value::Number(n)) => fraction(n.as_f64().unwrap_or_default()),
        (Unit::Bytes, Value::Number(n)) => size(n.as_u64().unwrap_or_default()),
        (_, Value::String(text)) => {
            let text = text.replace('|', "\\|");
            let cut = text.chars().count() > 90;
            let head: String = text.chars().take(if cut { 88 } else { 90 }).collect();
            format!("`{head}{}`", if cut { " …" } else { "" })
        }
        (_, other) => other.to_string(),
    }
}

fn table(items: &[&Item], is_parameter: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "| {} | unit | |\n|---|---|---|", if is_parameter { "parameter" } else { "column" });
    for item in items {
        let name = if is_parameter { format!("${}", item.name) } else { item.name.clone() };
        let default = item.default.as_ref().map(|default| format!(" (default: {default})")).unwrap_or_default();
        let about = item.about.replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {} | {about}{default} |", unit(item.unit));
    }
    text
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Ns => "ns",
        Unit::EpochNs => "epoch_ns",
        Unit::Share => "share",
        Unit::Bytes => "bytes",
        Unit::Count => "count",
        Unit::Id => "id",
        Unit::Text => "text",
        Unit::Flag => "flag",
    }
}

/// A header's first line, and what follows it up to the parameters.
fn prose(view: &View) -> (String, String) {
    let lines = view.sql.lines().map_while(|l| l.strip_prefix("--")).map(|l| l.strip_prefix(' ').unwrap_or(l));
    let lines: Vec<&str> = lines.take_while(|l| !matches!(*l, "Parameters:" | "Columns:")).collect();
    let (first, rest) = lines.split_first().unwrap();
    let about = first.strip_prefix(view.name).and_then(|l| l.strip_prefix(": "));
    let about = about.unwrap_or_else(|| panic!("{}'s header begins with its name", view.name));
    (about.to_string(), rest.join("\n").trim().to_string())
}

fn example(view: &View, rows: &[Row], columns: &[&Item], start: i64) -> String {
    let mut text = format!("```\nSELECT * FROM views.{} LIMIT {SHOWN}\n```\n\n", view.name);
    if rows.is_empty() {
        text += "The recording that the examples are of has none.\n";
        return text;
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text += &line(columns.iter().map(|c| c.name.clone()).collect());
    text += &line(columns.iter().map(|_| "---".to_string()).collect());
    for row in rows.iter().take(SHOWN) {
        text += &line(columns.iter().map(|c| cell(c, &row[&c.name], start)).collect());
    }
    text
}

#[test]
fn the_documentation_is_what_the_headers_and_the_recording_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SQL.md");

    let args = Args::whole(&Data::read(&recording()));
    let mut text = format!("{HEAD}\n# Views\n\n");
    let mut views: Vec<_> = ALL.iter().collect();
    views.sort_by_key(|view| view.name);
    for view in &views {
        let _ = writeln!(text, "- [{}](#{}): {}", view.name, view.name, prose(view).0);
    }
    for view in &views {
        let header = view.header().unwrap();
        let (about, rest) = prose(view);
        let parameters: Vec<&Item> = header.parameters.iter().collect();
        let (further, columns): (Vec<&Item>, Vec<&Item>) = header.columns.iter().partition(|c| c.is_further);
        let _ = write!(text, "\n## {}\n\n", view.name);
        text += &about[..1].to_uppercase();
        let _ = write!(text, "{}\n\n{rest}\n\n{}\n{}", &about[1..], table(&parameters, true), table(&columns, false));
        if !further.is_empty() {
            let _ = write!(text, "\nFurther columns, left out of tables for people:\n\n{}", table(&further, false));
        }
        let rows = ask(&recording(), **view, &args);
        let _ = write!(text, "\n{}", example(view, &rows, &columns, args.from));
    }
    text += "\n# Functions\n\nBeside those of DataFusion, in `hud-analyze sql`; DuckDB has none of them, and no view uses them.\n\n";
    text += "| function | what it gives | for example |\n|---|---|---|\n";
    for function in hud_functions::catalog() {
        let cell = |text: &str| text.replace('|', "\\|");
        let (signature, about, example) = (cell(function.signature), cell(function.about), cell(function.example));
        let _ = writeln!(text, "| `{signature}` | {about} | `{example}` |");
    }
    assert_data_eq!(text, File::read_from(&path, Some(DataFormat::Text)).raw());
}
