//! The rule about sleeps inside polls that are short, and add up.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use hud_units::{duration, round_duration};

use super::{
    Finding, INTERVAL_MIN, Jump, Map, Merge as _, Rule, Short, Status, TaskId, Tid, TypeId, Value,
    blocking::{ShortRow, place, short_rows},
    code::PlaceNo,
    lock_owners::is_waiting,
    scene::Scene,
    sentence::{code, evidence, name_of},
};

/// Short sleeps of a type.
#[derive(Default)]
struct Sleeps {
    all: Short,
    tasks: Map<(Tid, TaskId), i64>,
    places: Map<PlaceNo, i64>,
}

/// Types of task whose sleeps inside polls, none of them long, add up. Waits for locks of 1 ms or more do not count: their
/// holder may have waited for a CPU.
pub(super) fn findings(scene: &mut Scene<'_>) -> Vec<Finding> {
    let limits = scene.query.thresholds;
    let mut rows = short_rows(scene);
    for (_, partial) in &scene.parts {
        for sleep in partial.sleeps.items().iter().filter(|sleep| sleep.dur <= limits.long_poll) {
            if scene.sleeps_on_worker(sleep) && !is_waiting(scene, sleep) {
                let type_id = scene.names.type_of.get(&sleep.task).copied();
                let short = Short { sleeps: 1, asleep: sleep.dur, longest: sleep.dur, ..Short::default() };
                rows.push(ShortRow { tid: sleep.tid, task: sleep.task, stack: sleep.stack, type_id, short });
            }
        }
    }
    let mut types: BTreeMap<Option<TypeId>, Sleeps> = BTreeMap::new();
    for ShortRow { tid, task, stack, type_id, short } in rows {
        let number = scene.names.attribute(stack, type_id);
        let of = types.entry(type_id).or_default();
        of.all.merge(&short);
        of.tasks.entry((tid, task)).or_default().merge(&short.asleep);
        of.places.entry(number).or_default().merge(&short.asleep);
    }
    types.into_iter().filter_map(|(type_id, of)| finding(scene, type_id, of)).collect()
}

fn finding(scene: &Scene<'_>, type_id: Option<TypeId>, of: Sleeps) -> Option<Finding> {
    let (limits, short) = (scene.query.thresholds, of.all);
    let (least, window) = (limits.short_sleeps, scene.window.dur().max(1_000_000_000));
    if i128::from(short.asleep) * 1_000_000_000 < i128::from(least) * i128::from(window) {
        return None;
    }
    let most = of.tasks.into_iter().max_by_key(|((tid, task), asleep)| (*asleep, Reverse(*tid), Reverse(*task)));
    let named = |number: PlaceNo| Reverse(scene.names.code.place(number).cloned());
    let number = of.places.into_iter().max_by_key(|(number, asleep)| (*asleep, named(*number)));
    let place = number.map(|(number, _)| place(scene, number));
    let within = place.as_ref().map(|place| format!(", most of it in {}", code(place))).unwrap_or_default();
    Some(Finding {
        rule: Rule::ShortSleeps,
        severity: Status::Caution,
        sentence: format!(
            "{} slept inside polls {} times for less than {}, {} in total{within}",
            name_of(scene, type_id),
            short.sleeps,
            round_duration(limits.long_poll.max(INTERVAL_MIN)),
            duration(short.asleep)
        ),
        evidence: std::vec![
            evidence("asleep", Value::Nanos(short.asleep), Some(Value::Nanos(least))),
            evidence("sleeps", Value::Count(short.sleeps), None),
            evidence("longest", Value::Nanos(short.longest), None),
        ],
        place,
        count: Some(short.sleeps),
        total: Some(short.asleep),
        jump: Jump {
            task: most.map(|((_, task), _)| task),
            task_type: type_id,
            tid: most.map(|((tid, _), _)| tid),
            ts: None,
        },
        is_estimated: short.summed > 0,
    })
}
