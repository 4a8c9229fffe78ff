//! Tasks that wait for each other: rows of `task_states` with a deadlock, and the rule `lock_cycle`.
//!
//! The recorder knows of each lock whether its holder is certain, so it finds the cycles; tasks in one have a row in each
//! snapshot. A deadlock that two snapshots found has not ended in between.

use std::collections::BTreeMap;

use hud_units::duration;

use super::{
    Finding, Jump, Rule, StackId, Status, TaskId, Tid, TypeId, Value,
    blocking::place,
    scene::Scene,
    sentence::{code, evidence, name_of},
};

/// Maximum number of rows that a bucket keeps.
pub const DEADLOCKED_PER_BUCKET: usize = 1_024;

/// Tasks that a sentence names.
const NAMED: usize = 3;

/// A row of `task_states` of a task in a deadlock. Order: by deadlock, then snapshot, task and the other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadlocked {
    /// The deadlock's number.
    pub cycle: i64,
    /// Time of the snapshot.
    pub ts: i64,
    /// The task; `None` for a future that a thread runs by `block_on`.
    pub task: Option<TaskId>,
    /// That thread.
    pub tid: Option<Tid>,
    /// The first snapshot that found it there.
    pub since: i64,
    /// Its type, from the row.
    pub type_id: Option<TypeId>,
    /// Its await stack.
    pub stack: Option<StackId>,
}

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
