//! Rules about things that grow: tasks of a type, and the threads, file descriptors and memory of the process.

use std::collections::BTreeMap;

use hud_units::{duration, size};

use super::{
    Coverage, Finding, Jump, Rule, Status, TaskKind, TypeId, Usage, Value,
    scene::Scene,
    sentence::{evidence, name_of},
};
use crate::wire::Stream;

/// Number of rows of a range that are compared: evenly distributed, as there may be thousands.
const COMPARED: usize = 9;
/// Least number of rows that show that something grows steadily.
const LEAST_COMPARED: usize = 5;

/// Types of task that are spawned and do not end.
pub(super) fn tasks(scene: &Scene<'_>, coverage: &Coverage) -> Vec<Finding> {
    let thresholds = scene.query.thresholds;
    let on = |stream| coverage.of(stream).map_or(0, |s| s.on);
    let watched = on(Stream::Spawns).min(on(Stream::Ends));
    if watched < thresholds.observed {
        return Vec::new();
    }
    // Spawned and ended.
    let mut types: BTreeMap<Option<TypeId>, (i64, i64)> = BTreeMap::new();
    for (task, sums) in &scene.total.tasks {
        if sums.spawned == 0 && sums.ended.is_none() {
            continue;
        }
        let type_id = scene.names.type_of.get(task).copied();
        if scene.names.kind_of_type(type_id) != TaskKind::Worker {
            let of = types.entry(type_id).or_default();
            *of = (of.0.saturating_add(sums.spawned), of.1.saturating_add(sums.ended.is_some().into()));
        }
    }
    // A task of unknown type that ended may be of any type.
    let untyped = types.remove(&None).map_or(0, |(_, ended)| ended);
    let is_growing = |(_, (spawned, ended)): &(Option<TypeId>, (i64, i64))| {
        let most = spawned.saturating_mul(thresholds.growth_ended);
        *spawned >= thresholds.growth && ended.saturating_add(untyped).saturating_mul(1000) <= most
    };
    let types = types.into_iter().filter(is_growing);
    let found = types.map(|(type_id, (spawned, ended))| Finding {
        rule: Rule::TasksGrow,
        severity: Status::Caution,
        sentence: format!(
            "{spawned} tasks of {} were spawned in the {} in which spawns and ends were recorded, {ended} ended",
            name_of(scene, type_id),
            duration(watched)
        ),
        evidence: std::vec![
            evidence("spawned", Value::Count(spawned), Some(Value::Count(thresholds.growth))),
            evidence("ended", Value::Count(ended), None),
            evidence("ended, of unknown type", Value::Count(untyped), None),
            evidence("watched", Value::Nanos(watched), None),
        ],
        place: None,
        count: Some(spawned),
        total: None,
        jump: Jump { task_type: type_id, ..Jump::default() },
        is_estimated: false,
    });
    found.collect()
}

/// What a rule reads from a row.
type Quantity = fn(&Usage) -> Option<i64>;

/// Resources of the process that grew throughout the range, and not ever more slowly.
pub(super) fn resources(scene: &Scene<'_>) -> Vec<Finding> {
    let limits = &scene.query.thresholds;
    let rules: [(Rule, i64, Quantity); 3] = [
        (Rule::ThreadsGrow, limits.threads_grow, |row| Some(row.threads.into())),
        (Rule::FdsGrow, limits.fds_grow, |row| row.fds.map(i64::from)),
        (Rule::MemoryGrow, limits.memory_grow, |row| Some(row.rss)),
    ];
    let rows: Vec<&Usage> = scene.parts.iter().flat_map(|(_, partial)| partial.usages.items()).collect();
    rules.into_iter().filter_map(|(rule, least, of)| resource(scene, &rows, rule, least, of)).collect()
}

fn resource(scene: &Scene<'_>, rows: &[&Usage], rule: Rule, least: i64, of: Quantity) -> Option<Finding> {
    let limits = &scene.query.thresholds;
    let known: Vec<(i64, i64)> = rows.iter().filter_map(|row| Some((row.ts, of(row)?))).collect();
    let points = compared(&known);
    let (Some((from, first)), Some((to, last))) = (points.first().copied(), points.last().copied()) else {
        return None;
    };
    let (grown, time) = (last.saturating_sub(first), to.saturating_sub(from));
    let is_much = grown >= least.max(1)
        && i128::from(last) * 1000 >= i128::from(first) * i128::from(limits.grow_ratio)
        && time >= limits.grow_time;
    if !is_much || !is_steady(&points) {
        return None;
    }
    let (what, amount): (_, fn(i64) -> String) = match rule {
        Rule::ThreadsGrow => ("the number of threads", hud_units::count),
        Rule::FdsGrow => ("the number of open file descriptors", hud_units::count),
        _ => ("resident memory", |bytes| size(u64::try_from(bytes).unwrap_or(0))),
    };
    Some(Finding {
        rule,
        severity: Status::Caution,
        sentence: format!("{what} rose steadily from {} to {} in {}", amount(first), amount(last), duration(time)),
        evidence: std::vec![
            evidence(rule.figure(), Value::Count(grown), Some(Value::Count(least))),
            evidence("time", Value::Nanos(time), Some(Value::Nanos(limits.grow_time))),
        ],
        place: None,
        count: None,
        total: None,
        jump: Jump { ts: Some(from), ..Jump::default() },
        is_estimated: false,
    })
}

/// Evenly distributed ones, the first and the last included.
fn compared(known: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let (points, last) = (known.len().min(COMPARED), known.len().saturating_sub(1));
    let at = |point: usize| known.get((point * last).checked_div(points.saturating_sub(1))?).copied();
    (0..points).filter_map(at).collect()
}

/// Whether each is greater than the one before, and the later ones rise at least half as fast as the earlier ones: a program
/// that warms up rises ever more slowly.
fn is_steady(points: &[(i64, i64)]) -> bool {
    let middle = points.len().saturating_sub(1) / 2;
    let (Some(first), Some(mid), Some(last)) = (points.first(), points.get(middle), points.last()) else {
        return false;
    };
    let rise = |from: &(i64, i64), to: &(i64, i64)| i128::from(to.1) - i128::from(from.1);
    let time = |from: &(i64, i64), to: &(i64, i64)| i128::from(to.0) - i128::from(from.0);
    points.len() >= LEAST_COMPARED
        && points.windows(2).all(|pair| matches!(pair, [a, b] if a.1 < b.1))
        && rise(mid, last) * 2 * time(first, mid) >= rise(first, mid) * time(mid, last)
}
