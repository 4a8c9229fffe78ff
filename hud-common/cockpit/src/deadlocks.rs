//! Tasks that wait for each other: rows of `task_states` with a deadlock, and the rule `lock_cycle`.
//!
//! The recorder knows of each lock whether its holder is certain, so it finds the cycles; tasks in one have a row in each
//! snapshot. A deadlock that two snapshots found has not ended in between.

use std::collections::BTreeMap;

use hud_units::duration;

use super::{
    Deadlocked, Finding, Jump, Rule, Status, Value,
    blocking::place,
    scene::Scene,
    sentence::{code, evidence, name_of},
};

/// Tasks that a sentence names.
const NAMED: usize = 3;

/// Deadlocks that have lasted for longer than the threshold at their last snapshot in the range.
pub(super) fn findings(scene: &mut Scene<'_>) -> Vec<Finding> {
    let least = scene.query.thresholds.stuck;
    // The newest rows of each.
    let mut cycles: BTreeMap<i64, Vec<Deadlocked>> = BTreeMap::new();
    for (_, partial) in &scene.parts {
        for row in partial.deadlocked.items() {
            let rows = cycles.entry(row.cycle).or_default();
            if rows.last().is_some_and(|last| last.ts < row.ts) {
                rows.clear();
            }
            rows.push(*row);
        }
    }
    let mut found = Vec::new();
    for rows in cycles.values() {
        let (Some(first), Some(since)) = (rows.first(), rows.iter().map(|row| row.since).max()) else { continue };
        let lasts = first.ts.saturating_sub(since);
        if lasts <= least {
            continue;
        }
        let mut tasks = Vec::new();
        let mut at = None;
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
        let who = match rows.len() {
            1 => "a task has waited for itself".to_string(),
            count => format!("{count} tasks have waited for each other"),
        };
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let (place, task_type) = at.unzip();
        found.push(Finding {
            rule: Rule::LockCycle,
            severity: Status::Warning,
            sentence: format!("{who} for at least {}: {}{more}", duration(lasts), tasks.join(", ")),
            evidence: std::vec![
                evidence("lasts", Value::Nanos(lasts), Some(Value::Nanos(least))),
                evidence("tasks", Value::Count(count), None),
            ],
            place,
            count: Some(count),
            total: None,
            jump: Jump { task: first.task, task_type: task_type.flatten(), tid: first.tid, ts: Some(since) },
            is_estimated: false,
        });
    }
    found
}
