//! Rules about tasks that did not complete: they panicked, or were cancelled.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use super::{
    Finding, Jump, Rule, Status, TaskId, TaskKind, TaskOutcome, TypeId, Value, scene::Scene, sentence::evidence,
};

/// Ended tasks of a type.
#[derive(Default)]
struct Ended {
    all: i64,
    panicked: Outcome,
    cancelled: Outcome,
}

/// Those of an outcome: their number, and the last one with its end.
#[derive(Default)]
struct Outcome {
    count: i64,
    last: Option<(i64, Reverse<TaskId>)>,
}

impl Outcome {
    fn add(&mut self, ts: i64, task: TaskId) {
        self.count = self.count.saturating_add(1);
        self.last = self.last.max(Some((ts, Reverse(task))));
    }
}

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let mut types: BTreeMap<Option<TypeId>, Ended> = BTreeMap::new();
    for (task, sums) in &scene.total.tasks {
        let Some(end) = sums.ended else { continue };
        let type_id = scene.names.type_of.get(task).copied();
        if scene.names.kind_of_type(type_id) != TaskKind::Task {
            continue;
        }
        let of = types.entry(type_id).or_default();
        of.all = of.all.saturating_add(1);
        match end.outcome {
            TaskOutcome::Panicked => of.panicked.add(end.ts, *task),
            TaskOutcome::Cancelled => of.cancelled.add(end.ts, *task),
            TaskOutcome::Completed => {}
        }
    }
    let limits = &scene.query.thresholds;
    let mut found = Vec::new();
    for (type_id, of) in types {
        if of.panicked.count >= limits.panics.max(1) {
            found.push(finding(scene, Rule::Panics, type_id, of.all, &of.panicked, limits.panics));
        }
        let share = of.cancelled.count.saturating_mul(1000) / of.all.max(1);
        if of.cancelled.count >= limits.cancelled.max(1) && share >= limits.cancelled_share {
            found.push(finding(scene, Rule::CancelledWork, type_id, of.all, &of.cancelled, limits.cancelled));
        }
    }
    found
}

fn finding(scene: &Scene<'_>, rule: Rule, type_id: Option<TypeId>, all: i64, outcome: &Outcome, least: i64) -> Finding {
    let (count, what) = match rule {
        Rule::Panics => (outcome.count, "panicked"),
        _ => (outcome.count, "were cancelled before they completed"),
    };
    let name = scene.type_ref(type_id).map_or_else(|| "unknown type".into(), |t| t.name);
    Finding {
        rule,
        severity: Status::Caution,
        sentence: format!("{count} of {all} tasks of {name} that ended {what}"),
        evidence: std::vec![
            evidence(rule.figure(), Value::Count(count), Some(Value::Count(least))),
            evidence("ended", Value::Count(all), None),
        ],
        place: None,
        count: Some(count),
        total: None,
        jump: Jump {
            task: outcome.last.map(|(_, Reverse(task))| task),
            task_type: type_id,
            tid: None,
            ts: outcome.last.map(|(ts, _)| ts),
        },
        is_estimated: false,
    }
}
