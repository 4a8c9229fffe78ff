//! How much of a time range was recorded: for answers that rest on streams which were recorded for a part of it.

use arrow::{
    array::AsArray as _,
    datatypes::{DataType, Float64Type},
};
use hud_common::{units, wire::Stream};

use crate::{
    error::Result,
    query::{
        catalog::Catalog,
        view::{self, Arguments, View},
        window::Window,
    },
};

/// A stream recorded for this share of the time counts as recorded throughout: it starts and ends with the recorder.
const THROUGHOUT: f64 = 0.98;

/// The streams of events, by which rules and views are computed.
const EVENTS: [Stream; 6] =
    [Stream::Polls, Stream::OffCpu, Stream::Samples, Stream::Wakes, Stream::Spawns, Stream::Ends];

/// The share of the time range for which each stream of events was recorded. `None` for several sessions, which cover
/// different times, and for a session that does not say.
pub(crate) async fn shares(catalog: &Catalog, window: Window) -> Result<Option<Vec<(String, f64)>>> {
    if catalog.sessions().len() != 1 {
        return Ok(None);
    }
    let arguments = Arguments::default().int("from", window.from).int("to", window.to);
    let rows = catalog.plan(&view::COVERAGE, &arguments).await?.collect().await;
    let rows = rows.map_err(|error| catalog.explain(error.into()))?;
    let mut known = std::collections::BTreeMap::new();
    for batch in &rows {
        let (Some(streams), Some(shares)) = (batch.column_by_name("stream"), batch.column_by_name("share")) else {
            continue;
        };
        let streams = arrow::compute::cast(streams, &DataType::Utf8)?;
        let shares = shares.as_primitive::<Float64Type>();
        known.extend(
            streams.as_string::<i32>().iter().flatten().map(ToOwned::to_owned).zip(shares.values().iter().copied()),
        );
    }
    if known.is_empty() {
        return Ok(None);
    }
    let share = |stream: Stream| known.get(stream.name()).copied().unwrap_or(0.0);
    Ok(Some(EVENTS.iter().map(|stream| (stream.name().to_owned(), share(*stream))).collect()))
}

/// `Recorded: off_cpu and samples throughout, polls for 45.5 % of the time; not recorded: spawns.`
pub(crate) fn sentence(shares: &[(String, f64)]) -> String {
    let names = |of: &dyn Fn(f64) -> bool| {
        let names = shares.iter().filter(|(_, share)| of(*share)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let all = names(&|share| share >= THROUGHOUT);
    let mut parts: Vec<String> = Vec::new();
    if !all.is_empty() {
        parts.push(format!("{all} throughout"));
    }
    parts.extend(partial(shares));
    let none = names(&|share| share <= 0.0);
    let none = if none.is_empty() { String::new() } else { format!("; not recorded: {none}") };
    format!("Recorded: {}{none}.", if parts.is_empty() { "no events".into() } else { parts.join("; ") })
}

fn partial(shares: &[(String, f64)]) -> impl Iterator<Item = String> {
    let parts = shares.iter().filter(|(_, share)| *share > 0.0 && *share < THROUGHOUT);
    parts.map(|(name, share)| format!("{name} for {} of the time", units::fraction(*share)))
}

/// A note that a view rests on streams which were recorded for a part of the time only; `None` if it does not.
pub(crate) fn note(view: &View, shares: &[(String, f64)]) -> Option<String> {
    // Most views take nothing but types of tasks, and their number, from these two.
    let is_aside = |name: &str| name == Stream::Spawns.name() || name == Stream::Ends.name();
    let is_used = |name: &str| reads(view, name) && (!is_aside(name) || view.name == view::TASK_TREE.name);
    let used: Vec<_> = shares.iter().filter(|(name, _)| is_used(name)).cloned().collect();
    let some: Vec<_> = partial(&used).collect();
    let none: Vec<_> = used.iter().filter(|(_, share)| *share <= 0.0).map(|(name, _)| name.as_str()).collect();
    let parts = [("recorded", some.join(", ")), ("not recorded", none.join(", "))];
    let parts: Vec<_> = parts.into_iter().filter(|(_, of)| !of.is_empty()).collect();
    let parts: Vec<_> = parts.iter().map(|(head, of)| format!("{head}: {of}")).collect();
    (!parts.is_empty()).then(|| format!("{}; `hud-analyze coverage` lists when", parts.join("; ")))
}

/// Whether the SQL of a view reads a table.
fn reads(view: &View, table: &str) -> bool {
    let lines = view.sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.windows(2).any(|pair| matches!(pair, [from, name] if matches!(*from, "FROM" | "JOIN") && *name == table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(of: &[(&str, f64)]) -> Vec<(String, f64)> {
        of.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect()
    }

    #[test]
    fn states_the_recorded_share_of_each_stream() {
        let all = shares(&[("polls", 0.455), ("off_cpu", 1.0), ("samples", 0.99), ("spawns", 0.0)]);
        assert_eq!(
            sentence(&all),
            "Recorded: off_cpu, samples throughout; polls for 45.5 % of the time; not recorded: spawns."
        );
        assert_eq!(sentence(&shares(&[("polls", 0.0)])), "Recorded: no events; not recorded: polls.");
    }

    #[test]
    fn notes_the_streams_that_a_view_reads() {
        assert!(reads(&view::LOCKS, "off_cpu") && !reads(&view::LOCKS, "samples") && !reads(&view::WORKERS, "wakes"));
        let all = shares(&[("polls", 0.455), ("off_cpu", 1.0), ("samples", 1.0), ("wakes", 0.0)]);
        assert_eq!(
            note(&view::WAKE_LATENCY, &all).as_deref(),
            Some("recorded: polls for 45.5 % of the time; `hud-analyze coverage` lists when")
        );
        assert_eq!(note(&view::CPU_FLAME, &all), None);
    }
}
