//! The fleet views: SQL over the rollups of a store.

use std::collections::HashMap;

use datafusion::{
    common::ScalarValue,
    prelude::{DataFrame, ParquetReadOptions, SessionContext},
};
use hud_common::session::Table;

use super::{
    files::schema,
    store::{Content, Selection, Store},
};
use crate::{
    error::{Error, Result},
    query::view::View,
};

macro_rules! views {
    ($($name:literal, $empty:literal;)+) => {
        /// Every fleet view.
        pub(crate) const ALL: &[View] = &[$(
            View { name: $name, sql: include_str!(concat!("../../../queries/fleet/", $name, ".sql")), empty: $empty },
        )+];
    };
}

views! {
    "fleet_hotspots", "No CPU samples";
    "fleet_blocking", "Nothing blocked a worker or kept it busy for longer than the thresholds";
    "fleet_latency", "No polls were recorded";
    "fleet_findings", "No problems found";
    "fleet_outliers", "No host differs from the other hosts of its service";
    "fleet_regressions", "No type of task has 30 minutes of both builds";
    "fleet_load", "No minutes were recorded";
}

/// The view of a name, with or without `fleet_`.
pub(crate) fn named(name: &str) -> Result<&'static View> {
    let name = name.replace('-', "_");
    let found = ALL.iter().find(|view| view.name == name || view.name.strip_prefix("fleet_") == Some(name.as_str()));
    found.ok_or_else(|| Error::Usage {
        message: format!("there is no fleet view {}", hud_common::clean(&name)),
        hint: format!("the views are {}", names().join(", ")),
    })
}

/// The names of all views, as the command takes them.
pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|view| view.name.strip_prefix("fleet_").unwrap_or(view.name)).collect()
}

/// Plans a view over a selection of a store.
pub(crate) async fn plan(
    context: &SessionContext,
    view: &View,
    store: &Store,
    selection: &Selection,
    builds: (Option<&str>, Option<&str>),
) -> Result<DataFrame> {
    let content = store.content(selection)?;
    register(context, store, &content).await?;
    let text = |value: Option<&str>| ScalarValue::Utf8(value.map(str::to_owned));
    let mut values: HashMap<String, ScalarValue> = HashMap::new();
    for parameter in view.header()?.parameters {
        let value = match parameter.name.as_str() {
            "from" => ScalarValue::Int64(Some(selection.from)),
            "to" => ScalarValue::Int64(Some(selection.to)),
            "service" => text(selection.service.as_deref()),
            "host" => text(selection.host.as_deref()),
            "before" | "after" => {
                let value = if parameter.name == "before" { builds.0 } else { builds.1 };
                if value.is_none() {
                    return Err(Error::Usage {
                        message: format!("{} compares two builds", view.name),
                        hint: "name them by --before and --after: build ids or versions".into(),
                    });
                }
                text(value)
            }
            other => return Err(Error::View { view: view.name, why: format!("${other} has no value") }),
        };
        values.insert(parameter.name, value);
    }
    let frame = context.sql(view.sql).await?.with_param_values(values.into_iter().collect::<Vec<_>>())?;
    Ok(frame)
}

/// Registers the rollup tables with these files.
async fn register(context: &SessionContext, store: &Store, content: &Content) -> Result<()> {
    for table in Table::ROLLUPS {
        let schema = schema(table);
        let paths: Vec<String> =
            store.files(table, content).into_iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let frame = match paths.is_empty() {
            true => context.read_batch(arrow::array::RecordBatch::new_empty(schema))?,
            false => {
                let options = ParquetReadOptions::default().schema(&schema);
                context.read_parquet(paths, options).await?
            }
        };
        context.register_table(table.name(), frame.into_view())?;
    }
    Ok(())
}
