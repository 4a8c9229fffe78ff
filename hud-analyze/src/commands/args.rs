//! Arguments that several commands share. Groups of them have no doc comments: clap would show these as the description of a
//! command that flattens the group.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use hud_shell::Format;

use crate::{
    commands::sort::Sort,
    error::Result,
    human::parse_memory,
    query::{
        catalog::Catalog,
        opened::Settings,
        window::{Moment, Window},
    },
};

/// Explanation of TIME, at the end of a command's help.
pub(crate) const TIMES: &str = "\
TIME is one of:
  +12.5s, 12.5s or 12.5   time since the start of the session
  -30s                    time before its end
  14:03:20                time of day in UTC, as tables show it
  2026-01-31T14:03:20Z    RFC 3339";

/// Rows in table and markdown without `--limit`.
const LIMIT: usize = 20;

// The sessions to read.
#[derive(Args, Debug)]
pub(crate) struct Sessions {
    /// Session folders, stores of sessions, archives (.hud.zip), or s3://, gs:// and az:// URLs of these
    #[arg(required = true, value_name = "SESSION")]
    pub(crate) sessions: Vec<PathBuf>,
}

impl Sessions {
    /// Opens them for queries, and prints recoveries and losses on stderr.
    pub(crate) fn open(&self, settings: &Settings) -> Result<Catalog> {
        open(&self.sessions, settings)
    }
}

/// Opens sessions for queries, and prints recoveries and losses on stderr.
pub(crate) fn open(locations: &[PathBuf], settings: &Settings) -> Result<Catalog> {
    let catalog = Catalog::open_all(locations, settings)?;
    for notice in catalog.notices() {
        let _ = writeln!(io::stderr(), "note: {}", hud_common::clean(notice));
    }
    Ok(catalog)
}

// A time range.
#[derive(Args, Debug)]
pub(crate) struct TimeRange {
    /// Start of the time range [default: start of the session]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<Moment>,
    /// End of the time range, exclusive [default: end of the session]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<Moment>,
}

impl TimeRange {
    /// The part of these sessions in the range.
    pub(crate) async fn within(&self, catalog: &Catalog) -> Result<Window> {
        Window::part(catalog.window().await?, catalog.start(), self.from, self.to)
    }
}

// How queries run, and how their results are written.
#[derive(Args, Debug)]
pub(crate) struct QueryOptions {
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Memory limit of queries; beyond it they spill to temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_memory)]
    pub(crate) memory: usize,
}

impl QueryOptions {
    /// Settings for queries that may not name files.
    pub(crate) fn settings(&self) -> Settings {
        Settings { memory: self.memory, allow_files: false }
    }
}

// Arguments of all views.
#[derive(Args, Debug)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    pub(crate) sessions: Sessions,
    #[command(flatten)]
    pub(crate) range: TimeRange,
    /// Maximum number of rows, 0 for all [default: 20 in table and markdown, otherwise all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Show all columns in table and markdown
    #[arg(long)]
    pub(crate) wide: bool,
    /// Sort by these columns, `asc` (the default) or `desc`; the help lists them
    #[arg(long, value_name = "COLUMN[:desc]", value_delimiter = ',')]
    pub(crate) sort: Vec<Sort>,
    #[command(flatten)]
    pub(crate) query: QueryOptions,
}

impl ViewArgs {
    /// The sessions, and the time range.
    pub(crate) async fn open(&self) -> Result<(Catalog, Window)> {
        let catalog = self.sessions.open(&self.query.settings())?;
        let window = self.range.within(&catalog).await?;
        Ok((catalog, window))
    }

    /// The maximum number of rows; `None` for all.
    pub(crate) fn limit(&self) -> Option<usize> {
        match self.limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => self.query.format.is_text().then_some(LIMIT),
        }
    }
}

// Restriction to a task.
#[derive(Args, Debug)]
pub(crate) struct TaskArg {
    /// Only this task
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<i64>,
}

// Restriction to a thread.
#[derive(Args, Debug)]
pub(crate) struct ThreadArg {
    /// Only this thread
    #[arg(long, value_name = "TID")]
    pub(crate) thread: Option<i32>,
}

/// Output formats of reports that are not rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Text for a terminal
    Table,
    /// JSON
    Json,
}
