//! `fleet`: views over the rollups of many hosts.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use datafusion::{execution::runtime_env::RuntimeEnvBuilder, prelude::SessionContext};
use hud_common::session::SessionDir;
use jiff::Timestamp;

use crate::{
    commands::{
        args::{QueryOptions, TIMES},
        maintenance,
        sort::{Sort, sorted},
    },
    error::{Error, Result},
    fleet::{
        compact,
        store::{Selection, Store},
        view,
    },
    human,
    output::{
        stdout::Stdout,
        table::Shape,
        write::{self, Reads},
    },
    query::{
        context::{self, Statements},
        window::{Moment, Window},
    },
};

/// Rows in table and markdown without `--limit`.
const LIMIT: usize = 20;

/// Query the rollups of many hosts
#[derive(Args, Debug)]
#[command(after_help = format!("{TIMES}\n\
Times without a date refer to the days in the store.\n\n\
Views: {}\n\n\
Examples:
  hud-analyze fleet hotspots /srv/fleet --service api --from 2026-01-31T14:00:00Z --to 2026-01-31T15:00:00Z
  hud-analyze fleet outliers /srv/fleet
  hud-analyze fleet regressions /srv/fleet --before 1.4.1 --after 1.4.2", view::names().join(", ")))]
pub(crate) struct FleetArgs {
    /// View
    #[arg(value_name = "VIEW")]
    view: String,
    /// Folder of the fleet store
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Start of the time range [default: start of the store's first day]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// End of the time range, exclusive [default: end of the store's last day]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Build id or version to compare with (regressions)
    #[arg(long, value_name = "BUILD")]
    before: Option<String>,
    /// Build id or version that is compared (regressions)
    #[arg(long, value_name = "BUILD")]
    after: Option<String>,
    /// Maximum number of rows, 0 for all [default: 20 in table and markdown, otherwise all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Show all columns in table and markdown
    #[arg(long)]
    wide: bool,
    /// Sort by these columns, `asc` (the default) or `desc`
    #[arg(long, value_name = "COLUMN[:desc]", value_delimiter = ',')]
    sort: Vec<Sort>,
    #[command(flatten)]
    query: QueryOptions,
}

/// Runs it.
pub(crate) async fn run(args: &FleetArgs, out: &mut Stdout) -> Result<()> {
    let view = view::named(&args.view)?;
    let store = Store::open(&args.store)?;
    let whole = store.range()?.map_or(Window { from: 0, to: 1 }, |(from, to)| Window { from, to });
    let at = |moment: Moment| whole.at(whole.from, moment);
    let (from, to) = (args.from.map_or(whole.from, at), args.to.map_or(whole.to, at));
    if from >= to {
        return Err(Error::Usage {
            message: "--from is not before --to".into(),
            hint: format!("the store is from {} to {}", human::date_time(whole.from), human::date_time(whole.to)),
        });
    }
    let selection = Selection { from, to, service: args.service.clone(), host: args.host.clone() };
    let context = context(args.query.memory)?;
    let builds = (args.before.as_deref(), args.after.as_deref());
    let frame = view::plan(&context, view, &store, &selection, builds).await?;
    let Some(frame) = sorted(vec![frame], &args.sort)?.pop() else { return Ok(()) };
    let columns = view.header()?.columns;
    let limit = match args.limit {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => args.query.format.is_text().then_some(LIMIT),
    };
    let empty = Some(format!("{} in this time range.", view.empty));
    let shape = Shape { columns: &columns, empty, limit, wide: args.wide, ..Shape::default() };
    write::write(&Files, vec![frame], args.query.format, shape, out).await
}

/// The files of a store: a query that misses one fails by itself.
struct Files;

impl Reads for Files {
    fn explain(&self, error: Error) -> Error {
        error
    }

    fn confirm(&self) -> Result<()> {
        Ok(())
    }
}

/// A context for rollups.
fn context(memory: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0).build_arc()?;
    Ok(context::empty(&runtime, Statements::Any))
}

/// Merges the small files of a fleet store, if `folder` is one. Returns whether it is.
pub(crate) async fn compact(folder: &Path, out: &mut Stdout) -> Result<bool> {
    if SessionDir::open(folder).is_ok() {
        return Ok(false);
    }
    if Store::open(folder).is_err() {
        return Ok(false);
    }
    let store = Store::at(&maintenance::safe_path(folder)?);
    let today = human::date_time(Timestamp::now().as_nanosecond().try_into().unwrap_or(i64::MAX));
    let today = today.split(' ').next().unwrap_or_default();
    let done = compact::compact(&context(1 << 30)?, &store, today).await?;
    let size = human::bytes(i64::try_from(done.bytes).unwrap_or(i64::MAX));
    let text = format!(
        "{}: {} of {} merged, {} in {size}; today's files stay",
        folder.display(),
        human::many(done.files, "file"),
        human::many(done.sessions, "session"),
        human::many(done.rows, "row")
    );
    writeln!(out, "{}", hud_common::clean(&text)).and_then(|()| out.flush()).map_err(Error::io("write the result"))?;
    Ok(true)
}
