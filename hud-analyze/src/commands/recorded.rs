//! How much of a time range was recorded: for answers that rest on streams which were recorded for a part of it.

use std::collections::{BTreeMap, BTreeSet};

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

/// Streams, and the share of the time for which each was recorded.
pub(crate) type Shares = Vec<(Stream, f64)>;

/// The share of the time range for which each stream of events was recorded. `None` for several sessions, which cover
/// different times, and for a session that does not say.
pub(crate) async fn shares(catalog: &Catalog, window: Window) -> Result<Option<Shares>> {
    if catalog.sessions().len() != 1 {
        return Ok(None);
    }
    let rows = catalog.plan(&view::COVERAGE, &Arguments::within(window)).await?.collect().await;
    let rows = rows.map_err(|error| catalog.explain(error.into()))?;
    let mut known = BTreeMap::new();
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
    Ok(Some(EVENTS.into_iter().map(|stream| (stream, share(stream))).collect()))
}

/// `Recorded: off_cpu and samples throughout, polls for 45.5 % of the time; not recorded: spawns.`
pub(crate) fn sentence(shares: &[(Stream, f64)]) -> String {
    let names = |of: &dyn Fn(f64) -> bool| {
        let names = shares.iter().filter(|(_, share)| of(*share)).map(|(stream, _)| stream.name());
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

fn partial(shares: &[(Stream, f64)]) -> impl Iterator<Item = String> {
    let parts = shares.iter().filter(|(_, share)| *share > 0.0 && *share < THROUGHOUT);
    parts.map(|(stream, share)| format!("{} for {} of the time", stream.name(), units::fraction(*share)))
}

/// The streams on which a view rests.
pub(crate) fn used(view: &View) -> Vec<Stream> {
    let read = tables(view);
    // Most views take nothing but types of tasks, and their number, from these two.
    let is_aside =
        |stream: Stream| matches!(stream, Stream::Spawns | Stream::Ends) && view.name != view::TASK_TREE.name;
    EVENTS.into_iter().filter(|stream| read.contains(stream.name()) && !is_aside(*stream)).collect()
}

/// A note that some of these streams were recorded for a part of the time only; `None` if none was.
pub(crate) fn note(used: &[Stream], shares: &[(Stream, f64)]) -> Option<String> {
    let used: Vec<_> = shares.iter().filter(|(stream, _)| used.contains(stream)).copied().collect();
    let some: Vec<_> = partial(&used).collect();
    let none: Vec<_> = used.iter().filter(|(_, share)| *share <= 0.0).map(|(stream, _)| stream.name()).collect();
    let parts = [("recorded", some.join(", ")), ("not recorded", none.join(", "))];
    let parts: Vec<_> = parts.into_iter().filter(|(_, of)| !of.is_empty()).collect();
    let parts: Vec<_> = parts.iter().map(|(head, of)| format!("{head}: {of}")).collect();
    (!parts.is_empty()).then(|| format!("{}; `hud-analyze coverage` lists when", parts.join("; ")))
}

/// The tables that the SQL of a view reads.
fn tables(view: &View) -> BTreeSet<&'static str> {
    let lines = view.sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let words: Vec<&'static str> = words.filter(|word| !word.is_empty()).collect();
    let read = words.windows(2).filter_map(|pair| match pair {
        ["FROM" | "JOIN", name] => Some(*name),
        _ => None,
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_the_recorded_share_of_each_stream() {
        let all = [(Stream::Polls, 0.455), (Stream::OffCpu, 1.0), (Stream::Samples, 0.99), (Stream::Spawns, 0.0)];
        assert_eq!(
            sentence(&all),
            "Recorded: off_cpu, samples throughout; polls for 45.5 % of the time; not recorded: spawns."
        );
        assert_eq!(sentence(&[(Stream::Polls, 0.0)]), "Recorded: no events; not recorded: polls.");
    }

    #[test]
    fn notes_the_streams_that_a_view_reads() {
        let reads = |view: &View, stream| used(view).contains(&stream);
        assert!(reads(&view::RUN_QUEUE, Stream::OffCpu) && !reads(&view::RUN_QUEUE, Stream::Samples));
        assert!(!reads(&view::WORKERS, Stream::Wakes));
        let all = [(Stream::Polls, 0.455), (Stream::OffCpu, 1.0), (Stream::Samples, 1.0), (Stream::Wakes, 0.0)];
        assert_eq!(
            note(&used(&view::WAKE_LATENCY), &all).as_deref(),
            Some("recorded: polls for 45.5 % of the time; `hud-analyze coverage` lists when")
        );
        assert_eq!(note(&used(&view::CPU_FLAME), &all), None);
    }
}
