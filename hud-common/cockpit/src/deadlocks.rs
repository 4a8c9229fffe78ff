//! Tasks that wait for each other or for what they hold: rows of `task_states` with an [`Obstacle`], and the rules
//! `lock_cycle` and `semaphore_starved`.
//!
//! The recorder knows of each lock whether its holder is certain, so it finds the cycles; tasks in one have a row in each
//! snapshot. A deadlock that two snapshots found has not ended in between. Of a semaphore it knows that none of its permits is
//! free and that a task that waits for more holds some; another task may still return permits, so this is no proof.

use std::collections::BTreeMap;

use hud_units::duration;

use super::{
    Deadlocked, Finding, Jump, Obstacle, Place, Rule, Status, TypeId, Value,
    blocking::place,
    scene::Scene,
    sentence::{code, evidence, name_of},
};

/// Tasks that a sentence names.
const NAMED: usize = 3;

/// Obstacles that have lasted for longer than the threshold at their last snapshot in the range.
pub(super) fn findings(scene: &mut Scene<'_>) -> Vec<Finding> {
    let least = scene.query.thresholds.stuck;
    // The newest rows of each.
    let mut obstacles: BTreeMap<Obstacle, Vec<Deadlocked>> = BTreeMap::new();
    for (_, partial) in &scene.parts {
        for row in partial.deadlocked.items() {
            let rows = obstacles.entry(row.by).or_default();
            if rows.last().is_some_and(|last| last.ts < row.ts) {
                rows.clear();
            }
            rows.push(*row);
        }
    }
    obstacles
        .into_iter()
        .filter_map(|(by, rows)| match by {
            Obstacle::Cycle(_) => cycle(scene, &rows, least),
            Obstacle::OwnPermits(_) => starved(scene, rows, least),
        })
        .collect()
}

/// A deadlock that all of its tasks have been in for longer than `least`.
fn cycle(scene: &mut Scene<'_>, rows: &[Deadlocked], least: i64) -> Option<Finding> {
    let (first, since) = (rows.first()?, rows.iter().map(|row| row.since).max()?);
    let lasts = first.ts.saturating_sub(since);
    if lasts <= least {
        return None;
    }
    let who = match rows.len() {
        1 => "a task has waited for itself".to_string(),
        count => format!("{count} tasks have waited for each other"),
    };
    let said = format!("{who} for at least {}", duration(lasts));
    Some(finding(scene, (Rule::LockCycle, Status::Warning), rows, (&said, lasts, since), least))
}

/// Tasks that snapshots found for longer than `least` with permits of a semaphore, and waiting for more of it.
fn starved(scene: &mut Scene<'_>, mut rows: Vec<Deadlocked>, least: i64) -> Option<Finding> {
    rows.retain(|row| row.ts.saturating_sub(row.since) > least);
    let (first, since) = (rows.first()?, rows.iter().map(|row| row.since).min()?);
    let lasts = first.ts.saturating_sub(since);
    let who = match rows.len() {
        1 => "a task holds permits of a semaphore and waits for more".to_string(),
        count => format!("{count} tasks hold permits of a semaphore and wait for more"),
    };
    let said = format!("{who}, in each snapshot of at least {}", duration(lasts));
    Some(finding(scene, (Rule::SemaphoreStarved, Status::Caution), &rows, (&said, lasts, since), least))
}

/// The finding about some tasks, the first of which are named.
fn finding(
    scene: &mut Scene<'_>,
    (rule, severity): (Rule, Status),
    rows: &[Deadlocked],
    (said, lasts, since): (&str, i64, i64),
    least: i64,
) -> Finding {
    let mut tasks = Vec::new();
    let mut at: Option<(Place, Option<TypeId>)> = None;
    for row in rows.iter().take(NAMED) {
        let type_id = row.type_id.or_else(|| scene.names.type_of.get(&row.task?).copied());
        let number = scene.names.attribute(row.stack, type_id);
        let place = place(scene, number);
        let who = match (row.task, row.tid) {
            (None, Some(tid)) => format!("block_on of thread {tid}"),
            (task, _) => format!("{} ({})", name_of(scene, type_id), task.map_or(0, |id| id.0)),
        };
        tasks.push(format!("{who} in {}", code(&place)));
        at = at.or(Some((place, type_id)));
    }
    let more = if rows.len() > NAMED { ", …" } else { "" };
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let (place, task_type) = at.unzip();
    let (task, tid) = rows.first().map_or((None, None), |row| (row.task, row.tid));
    Finding {
        rule,
        severity,
        sentence: format!("{said}: {}{more}", tasks.join(", ")),
        evidence: std::vec![
            evidence("lasts", Value::Nanos(lasts), Some(Value::Nanos(least))),
            evidence("tasks", Value::Count(count), None),
        ],
        place,
        count: Some(count),
        total: None,
        jump: Jump { task, task_type: task_type.flatten(), tid, ts: Some(since) },
        is_estimated: false,
    }
}
