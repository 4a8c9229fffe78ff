//! A program's account of its fault, and hud's findings about it.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What a finding should name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Function,
    /// A function or a type of task.
    Task,
    Nothing,
}

/// Code that causes the fault.
pub(super) struct Site {
    pub(super) function: String,
    pub(super) file: String,
    pub(super) line: i64,
}

/// Events that ended in a tenth of a second.
struct Tenth {
    start: i64,
    count: i64,
    total: i64,
}

/// Number of events, and the sum of their durations.
#[derive(Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) count: i64,
    pub(super) total: i64,
}

/// The account, as the program printed it.
pub(super) struct Account {
    pub(super) fault: String,
    pub(super) kind: String,
    pub(super) about: String,
    pub(super) rules: Vec<String>,
    pub(super) also: Vec<String>,
    pub(super) names: Names,
    pub(super) sites: Vec<Site>,
    tenths: Vec<Tenth>,
}

impl Account {
    pub(super) fn parse(of: &Value) -> Result<Self> {
        let text = |of: &Value, field: &str| -> Result<String> {
            let value = of[field].as_str().with_context(|| format!("the account has no text {field}"))?;
            Ok(value.to_owned())
        };
        let list = |field: &str| of[field].as_array().with_context(|| format!("the account has no list {field}"));
        let texts = |field: &str| -> Result<Vec<String>> {
            Ok(list(field)?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        let sites = list("sites")?.iter().map(|site| {
            let line = site["line"].as_i64().context("a place without a line")?;
            Ok(Site { function: text(site, "function")?, file: text(site, "file")?, line })
        });
        let tenths = list("tenths")?.iter().map(|tenth| {
            let at = |n: usize| tenth[n].as_i64().context("an incomplete tenth of a second");
            Ok(Tenth { start: at(0)?, count: at(1)?, total: at(2)? })
        });
        Ok(Self {
            fault: text(of, "fault")?,
            kind: text(of, "kind")?,
            about: text(of, "about")?,
            rules: texts("rules")?,
            also: texts("also")?,
            names: match of["names"].as_str() {
                Some("function") => Names::Function,
                Some("task") => Names::Task,
                _ => Names::Nothing,
            },
            sites: sites.collect::<Result<_>>()?,
            tenths: tenths.collect::<Result<_>>()?,
        })
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.rules.is_empty()
    }

    /// Events that ended in the time range of a finding.
    pub(super) fn within(&self, from: i64, to: i64) -> Figures {
        let inside = self.tenths.iter().filter(|tenth| from <= tenth.start && tenth.start < to);
        inside.fold(Figures::default(), |sum, tenth| Figures {
            count: sum.count + tenth.count,
            total: sum.total + tenth.total,
        })
    }
}

/// A row of `hud-analyze findings`.
#[derive(Clone)]
pub(super) struct Finding {
    pub(super) rule: String,
    pub(super) sentence: String,
    pub(super) task_type: Option<String>,
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<i64>,
    pub(super) count: Option<i64>,
    pub(super) total: Option<i64>,
    pub(super) since: i64,
    pub(super) until: i64,
}

impl Finding {
    pub(super) fn parse(rows: &Value) -> Result<Vec<Self>> {
        let rows = rows.as_array().context("findings are no list")?;
        let row = |row: &Value| {
            let text = |field: &str| row[field].as_str().map(str::to_owned);
            let number = |field: &str| row[field].as_i64();
            let needed = |field: &'static str| format!("a finding without {field}");
            Ok(Self {
                rule: text("rule").with_context(|| needed("rule"))?,
                sentence: text("sentence").with_context(|| needed("sentence"))?,
                task_type: text("task_type"),
                function: text("function"),
                file: text("file"),
                line: number("line"),
                count: number("count"),
                total: number("total"),
                since: number("since").with_context(|| needed("since"))?,
                until: number("until").with_context(|| needed("until"))?,
            })
        };
        rows.iter().map(row).collect()
    }
}
