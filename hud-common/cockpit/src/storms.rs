//! Rules about events that are too many: wakes by the woken task itself, wakes of hundreds of tasks at once, and spawns.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use super::{
    Coverage, Finding, Jump, Map, Merge as _, Rule, Status, TaskId, TypeId, Value, Workers,
    scene::Scene,
    sentence::{evidence, name_of},
};
use crate::wire::Stream;

/// Time for which a storm must be recorded at least: the budget leaves a tenth of the time or less for one.
const LEAST_WATCHED: i64 = 100_000_000;

/// Tasks that wake themselves.
pub(super) fn self_waking(scene: &Scene<'_>) -> Vec<Finding> {
    let thresholds = scene.query.thresholds;
    // Of the whole range: time in which wakes were not recorded only raises the limit.
    let least = thresholds.self_wakes.saturating_mul(scene.window.dur().max(1_000_000_000)) / 1_000_000_000;
    #[derive(Default)]
    struct Spin {
        wakes: i64,
        tasks: i64,
        most: Option<(i64, Reverse<TaskId>)>,
    }
    let mut types: Map<Option<TypeId>, Spin> = Map::default();
    for (id, sums) in &scene.total.tasks {
        let is_self_waking = sums.self_wakes >= least.max(1)
            && sums.self_wakes.saturating_mul(1000) >= sums.wakes.saturating_mul(thresholds.self_wakes_share);
        if is_self_waking && scene.is_task(*id) {
            let of = types.entry(scene.names.type_of.get(id).copied()).or_default();
            of.wakes.merge(&sums.self_wakes);
            of.tasks += 1;
            of.most = of.most.max(Some((sums.self_wakes, Reverse(*id))));
        }
    }
    let mut found = Vec::new();
    for (type_id, Spin { wakes, tasks, most }) in types {
        let Some((_, Reverse(task))) = most else { continue };
        let name = scene.type_ref(type_id).map_or_else(|| "unknown type".into(), |t| t.name);
        found.push(Finding {
            rule: Rule::SelfWaking,
            severity: Status::Caution,
            sentence: match tasks {
                1 => format!("a task of {name} woke itself {wakes} times"),
                _ => format!("{tasks} tasks of {name} woke themselves {wakes} times"),
            },
            evidence: std::vec![
                evidence("wakes by itself", Value::Count(wakes), Some(Value::Count(least))),
                evidence("tasks", Value::Count(tasks), None),
            ],
            place: None,
            count: Some(tasks),
            total: None,
            jump: Jump { task: Some(task), task_type: type_id, ..Jump::default() },
            is_estimated: false,
        });
    }
    found
}

/// Types whose tasks wake many others in each poll.
pub(super) fn waking(scene: &Scene<'_>, coverage: &Coverage) -> Vec<Finding> {
    let limits = &scene.query.thresholds;
    let on = |stream| coverage.of(stream).map_or(0, |s| s.on);
    let watched = on(Stream::Wakes);
    // Polls that were not recorded would make wakes per poll too many.
    if watched < LEAST_WATCHED || on(Stream::Polls) < watched {
        return Vec::new();
    }
    /// Wakes of others, and the task with most of them.
    type Waking = (i64, Option<(i64, Reverse<TaskId>)>);
    let mut types: BTreeMap<TypeId, Waking> = BTreeMap::new();
    for (task, sums) in scene.total.tasks.iter().filter(|(_, sums)| sums.waking > 0) {
        if let Some(type_id) = scene.names.type_of.get(task).filter(|id| scene.is_type_of_task(**id)) {
            let (wakes, most) = types.entry(*type_id).or_default();
            wakes.merge(&sums.waking);
            *most = (*most).max(Some((sums.waking, Reverse(*task))));
        }
    }
    let mut polls: BTreeMap<TypeId, i64> = BTreeMap::new();
    for ((_, type_id), sums) in &scene.total.polls {
        if let Some(id) = type_id {
            polls.entry(*id).or_default().merge(&sums.count);
        }
    }
    let mut found = Vec::new();
    for (type_id, (wakes, most)) in types {
        let Some(polled) = polls.get(&type_id).copied().filter(|polls| *polls > 0) else { continue };
        let (each, rate) = (wakes / polled, per_second(wakes, watched));
        if each < limits.wake_storm || rate.min(wakes) < limits.wake_storm_rate {
            continue;
        }
        found.push(Finding {
            rule: Rule::WakeStorm,
            severity: Status::Caution,
            sentence: format!(
                "tasks of {} woke {each} other tasks per poll, {rate} per second",
                name_of(scene, Some(type_id))
            ),
            evidence: std::vec![
                evidence("wakes per poll", Value::Count(each), Some(Value::Count(limits.wake_storm))),
                evidence("wakes per second", Value::Count(rate), Some(Value::Count(limits.wake_storm_rate))),
                evidence("wakes", Value::Count(wakes), None),
            ],
            place: None,
            count: Some(wakes),
            total: None,
            jump: Jump { task: most.map(|(_, Reverse(task))| task), task_type: Some(type_id), ..Jump::default() },
            is_estimated: false,
        });
    }
    found
}

/// Types whose tasks are spawned more often than the workers can be expected to serve.
pub(super) fn spawning(scene: &Scene<'_>, workers: &Workers, coverage: &Coverage) -> Vec<Finding> {
    let limits = &scene.query.thresholds;
    let watched = coverage.of(Stream::Spawns).map_or(0, |s| s.on);
    let all = workers.runtimes.iter().flat_map(|runtime| &runtime.workers);
    let count = all.filter(|worker| scene.threads.contains_key(&worker.tid)).count();
    let least = limits.spawn_rate.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX).max(1));
    if watched < LEAST_WATCHED {
        return Vec::new();
    }
    let mut types: BTreeMap<TypeId, i64> = BTreeMap::new();
    for (task, sums) in scene.total.tasks.iter().filter(|(_, sums)| sums.spawned > 0) {
        if let Some(type_id) = scene.names.type_of.get(task).filter(|id| scene.is_type_of_task(**id)) {
            types.entry(*type_id).or_default().merge(&sums.spawned);
        }
    }
    let found = types.into_iter().map(|(id, spawned)| (id, spawned, per_second(spawned, watched)));
    let is_many = |(_, spawned, rate): &(TypeId, i64, i64)| *rate >= least.max(1) && *spawned >= limits.spawn_rate;
    let found = found.filter(is_many).map(|(type_id, spawned, rate)| Finding {
        rule: Rule::SpawnRate,
        severity: Status::Caution,
        sentence: format!("{rate} tasks of {} were spawned per second", name_of(scene, Some(type_id))),
        evidence: std::vec![
            evidence("spawns per second", Value::Count(rate), Some(Value::Count(least))),
            evidence("spawned", Value::Count(spawned), None),
        ],
        place: None,
        count: Some(spawned),
        total: None,
        jump: Jump { task_type: Some(type_id), ..Jump::default() },
        is_estimated: false,
    });
    found.collect()
}

fn per_second(count: i64, time: i64) -> i64 {
    let rate = i128::from(count) * 1_000_000_000 / i128::from(time.max(1));
    i64::try_from(rate).unwrap_or(i64::MAX)
}
