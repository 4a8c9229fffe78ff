//! Each view, read row by row.

mod accounts;
mod blocking;
mod cpu;
mod findings;
mod in_progress;
mod load;
mod locks;
mod names;
mod states;
mod tasks;
mod wakes;

use serde_json::Value;

use crate::data::{Args, Data, Row};

/// What a view says of these rows.
pub fn read(view: &str, data: &Data, args: &Args) -> Vec<Row> {
    let rows = match view {
        "hotspots" => cpu::hotspots(data, args),
        "hotspots_by" => cpu::hotspots_by(data, args),
        "cpu_flame" => cpu::cpu_flame(data, args),
        "off_cpu_flame" => cpu::off_cpu_flame(data, args),
        "blocking" => blocking::culprits(data, args),
        "blocking_each" => blocking::each(data, args),
        "in_progress" => in_progress::polls(data, args),
        "suspended" => states::suspended(data, args),
        "await_flame" => states::await_flame(data, args),
        "deadlocks" => states::deadlocks(data, args),
        "wait_graph" => states::wait_graph(data, args),
        "workers" => load::workers(data, args),
        "timeline" => load::timeline(data, args),
        "run_queue" => load::run_queue(data, args),
        "blocking_pool" => load::pool(data, args),
        "tasks" => tasks::tasks(data, args),
        "tasks_by_type" => tasks::by_type(data, args),
        "task_tree" => tasks::tree(data, args),
        "polls_histogram" => wakes::polls_histogram(data, args),
        "wake_latency" => wakes::latency(data, args),
        "wake_chains" => wakes::chains(data, args),
        "critical_path" => wakes::critical_path(data, args),
        "locks" => locks::locks(data, args),
        "findings" => findings::findings(data, args),
        "coverage" => accounts::coverage(data, args),
        "drops" => accounts::drops(data, args),
        "overhead" => accounts::overhead(data, args),
        other => panic!("{other} has no plain reading"),
    };
    rows.into_iter().map(|row| if let Value::Object(row) = row { row } else { panic!("{row}") }).collect()
}

/// A part of a whole; nothing of nothing.
#[expect(clippy::cast_precision_loss, reason = "shares are printed with one digit")]
fn share(part: i64, whole: i64) -> Option<f64> {
    (whole != 0).then(|| part as f64 / whole as f64)
}

/// The length that `[a, b)` has in `[from, to)`.
fn overlap(a: i64, b: i64, from: i64, to: i64) -> i64 {
    (b.min(to) - a.max(from)).max(0)
}

/// The bucket of a duration, a part `1 / sub` of an octave wide: its first and last value.
fn bucket(value: i64, sub: i64) -> (i64, i64) {
    let value = value.max(0);
    let mut width = 1;
    while value / width >= 2 * sub {
        width *= 2;
    }
    let low = value / width * width;
    (low, low + width - 1)
}

/// The percentile by nearest rank, as its bucket's middle, and not past the longest.
fn percentile(values: &[i64], thousandths: usize, sub: i64) -> Option<i64> {
    let mut values: Vec<i64> = values.iter().map(|v| *v.max(&0)).collect();
    values.sort_unstable();
    let rank = (values.len() * thousandths).div_ceil(1000).max(1);
    let (low, high) = bucket(*values.get(rank - 1)?, sub);
    Some((low + (high - low) / 2).min(*values.last()?))
}
