//! Rules about threads that wait for a lock inside a poll: the holder slept, or computed. The holder is inferred: the thread
//! that wakes the waiter has released the lock.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use hud_units::duration;

use super::{
    Finding, Jump, Map, Mark, Merge as _, Place, Role, Rule, Sleep, Status, TaskId, TaskKind, Tid, TypeId, Value,
    blocking::place,
    code::{PlaceNo, SpotNo},
    scene::Scene,
    sentence::{code, evidence, name_of},
};

/// Waits of a group.
#[derive(Default)]
struct Waits {
    count: i64,
    sum: i64,
    longest: Option<(i64, Reverse<i64>, Tid, TaskId)>,
}

impl Waits {
    fn add(&mut self, sleep: &Sleep) {
        self.count += 1;
        self.sum = self.sum.saturating_add(sleep.dur);
        self.longest = self.longest.max(Some((sleep.dur, Reverse(sleep.ts), sleep.tid, sleep.task)));
    }
}

/// Waits for locks whose holder was not asleep, and the samples of the holders meanwhile, by the waiter's type.
#[derive(Default)]
struct Busy {
    waits: Waits,
    marks: Vec<Mark>,
}

/// A wait for a lock, with its holder.
enum Holder {
    /// Its sleep.
    Asleep(Sleep),
    /// The thread, and from when on it was not asleep.
    Awake(Tid, i64),
}

pub(super) fn findings(scene: &mut Scene<'_>) -> Vec<Finding> {
    let least = scene.query.thresholds.lock_wait;
    let mut sleeps: Map<Tid, Vec<Sleep>> = Map::default();
    for (_, partial) in &scene.parts {
        for sleep in partial.sleeps.items().iter().filter(|s| scene.names.kind(s.task) != TaskKind::Worker) {
            sleeps.entry(sleep.tid).or_default().push(*sleep);
        }
    }
    sleeps.values_mut().for_each(|of| of.sort_unstable_by_key(|s| (s.ts, s.dur)));
    let mut asleep: Map<(Option<TypeId>, Option<TypeId>, PlaceNo), Waits> = Map::default();
    let mut busy: BTreeMap<Option<TypeId>, Busy> = BTreeMap::new();
    for sleep in sleeps.values().flatten().filter(|s| s.dur >= least) {
        if scene.role(sleep.tid) == Role::Other || !scene.is_task(sleep.task) || !is_lock(scene, sleep) {
            continue;
        }
        let type_id = scene.names.type_of.get(&sleep.task).copied();
        match holder(scene, &sleeps, sleep) {
            Some(Holder::Asleep(owner)) => {
                let owner_type = scene.names.type_of.get(&owner.task).copied();
                let number = scene.names.attribute(owner.stack, owner_type);
                asleep.entry((type_id, owner_type, number)).or_default().add(sleep);
            }
            Some(Holder::Awake(tid, from)) => {
                let of = busy.entry(type_id).or_default();
                of.waits.add(sleep);
                of.marks.extend(marks(scene, tid, from, sleep.ts.saturating_add(sleep.dur)));
            }
            None => {}
        }
    }
    let mut found: Vec<Finding> =
        asleep.into_iter().filter_map(|(of, waits)| owner_asleep(scene, of, &waits)).collect();
    found.extend(busy.into_iter().filter_map(|(type_id, of)| owner_busy(scene, type_id, &of)));
    found
}

/// The holder of the lock for which a thread waited.
fn holder(scene: &Scene<'_>, sleeps: &Map<Tid, Vec<Sleep>>, wait: &Sleep) -> Option<Holder> {
    let end = wait.ts.saturating_add(wait.dur);
    let waker = wait.waker.filter(|tid| *tid != wait.tid)?;
    // A thread's sleeps do not overlap: the last one before the end of the wait.
    let last = sleeps.get(&waker).and_then(|of| of.get(of.partition_point(|o| o.ts < end).checked_sub(1)?)).copied();
    let Some(last) = last else { return Some(Holder::Awake(waker, wait.ts)) };
    let over = last.ts.saturating_add(last.dur);
    if over > end {
        return None;
    }
    match over > wait.ts {
        true if !is_waiting(scene, &last) => Some(Holder::Asleep(last)),
        // It waited for the lock itself before it had it.
        true => Some(Holder::Awake(waker, last.ts.saturating_add(last.away))),
        false => Some(Holder::Awake(waker, wait.ts)),
    }
}

/// Samples of tasks on a thread within `[from, to)`.
fn marks(scene: &Scene<'_>, tid: Tid, from: i64, to: i64) -> Vec<Mark> {
    let buckets = scene.parts.iter().filter(|(bucket, _)| bucket.end() > from && bucket.start() < to);
    let within = buckets.flat_map(|(_, partial)| {
        let all = partial.marks.items();
        all.iter().skip(all.partition_point(|mark| mark.ts < from)).take_while(|mark| mark.ts < to)
    });
    let of_tasks = |mark: &&Mark| mark.tid == tid && scene.names.kind(mark.task) != TaskKind::Worker;
    within.filter(of_tasks).copied().collect()
}

fn owner_asleep(
    scene: &Scene<'_>,
    (type_id, owner, number): (Option<TypeId>, Option<TypeId>, PlaceNo),
    waits: &Waits,
) -> Option<Finding> {
    let place = place(scene, number);
    let who = format!("whose holder, {}, slept in {}", name_of(scene, owner), code(&place));
    finding(scene, Rule::LockOwnerAsleep, type_id, waits, &who, place)
}

/// Waits of tasks of a type that add up, if samples show that the holders computed for at least half of that time, and most
/// of that at one place.
fn owner_busy(scene: &mut Scene<'_>, type_id: Option<TypeId>, of: &Busy) -> Option<Finding> {
    let (least, range) = (scene.query.thresholds.lock_busy, scene.window.dur().max(1_000_000_000));
    if i128::from(of.waits.sum) * 1_000_000_000 < i128::from(least) * i128::from(range) {
        return None;
    }
    // By function, with the place that weighs most.
    let mut functions: Map<(Option<TypeId>, SpotNo), Map<PlaceNo, i64>> = Map::default();
    for mark in &of.marks {
        let owner = scene.names.type_of.get(&mark.task).copied();
        let number = scene.names.attribute(mark.stack, owner);
        let function = functions.entry((owner, scene.names.code.spot(number))).or_default();
        function.entry(number).or_default().merge(&mark.weight);
    }
    let sum = |of: &Map<PlaceNo, i64>| of.values().fold(0_i64, |sum, weight| sum.saturating_add(*weight));
    let all = functions.values().fold(0_i64, |all, of| all.saturating_add(sum(of)));
    let named = |number: PlaceNo| Reverse(scene.names.code.place(number).cloned());
    let heaviest = |of: &Map<PlaceNo, i64>| {
        let most = of.iter().max_by_key(|(number, weight)| (**weight, named(**number)));
        most.map(|(number, _)| *number)
    };
    let functions =
        functions.into_iter().filter_map(|((owner, _), places)| Some((owner, heaviest(&places)?, sum(&places))));
    let most = functions.max_by_key(|(owner, number, weight)| (*weight, named(*number), Reverse(*owner)));
    let (owner, number, weight) = most?;
    if all.saturating_mul(2) < of.waits.sum || weight.saturating_mul(2) < all {
        return None;
    }
    let place = place(scene, number);
    let who = format!("whose holder, {}, computed in {}", name_of(scene, owner), code(&place));
    finding(scene, Rule::LockOwnerBusy, type_id, &of.waits, &who, place)
}

fn finding(
    scene: &Scene<'_>,
    rule: Rule,
    type_id: Option<TypeId>,
    waits: &Waits,
    who: &str,
    place: Place,
) -> Option<Finding> {
    let limits = &scene.query.thresholds;
    let (dur, Reverse(ts), tid, task) = waits.longest?;
    let longest = |limit: Option<i64>| evidence("longest", Value::Nanos(dur), limit.map(Value::Nanos));
    let total = |what: &str, limit: Option<i64>| evidence(what, Value::Nanos(waits.sum), limit.map(Value::Nanos));
    let count = evidence("waits", Value::Count(waits.count), None);
    Some(Finding {
        rule,
        severity: Status::Caution,
        sentence: format!(
            "{} waited {}{} for a lock {who}",
            name_of(scene, type_id),
            if waits.count > 1 { format!("{} times, longest ", waits.count) } else { String::new() },
            duration(dur),
        ),
        evidence: match rule {
            Rule::LockOwnerAsleep => std::vec![longest(Some(limits.lock_wait)), count, total("total", None)],
            _ => std::vec![total(rule.figure(), Some(limits.lock_busy)), count, longest(None)],
        },
        place: Some(place),
        count: Some(waits.count),
        total: Some(waits.sum),
        jump: Jump { task: Some(task), task_type: type_id, tid: Some(tid), ts: Some(ts) },
        is_estimated: rule == Rule::LockOwnerBusy,
    })
}

/// Frames from the leaf that are searched for a lock.
const LOCK_FRAMES: usize = 16;

/// Whether a sleep's stack shows that it waits for a mutex or RwLock.
fn is_lock(scene: &Scene<'_>, sleep: &Sleep) -> bool {
    lock_names(scene, sleep, |name| {
        ["mutex", "rwlock", "lock_contended", "lock_slow"].iter().any(|lock| name.contains(lock))
            && !name.contains("condvar")
    })
}

/// Whether it shows a wait for another thread to release a lock, or to notify this one. A parked thread may hold a lock.
pub(super) fn is_waiting(scene: &Scene<'_>, sleep: &Sleep) -> bool {
    let has = |words: &[&str]| lock_names(scene, sleep, |name| words.iter().any(|word| name.contains(word)));
    has(&["mutex", "rwlock", "lock_contended", "lock_slow", "semaphore", "condvar"])
        || (has(&["futex"]) && !has(&["park"]))
}

/// Whether one of the searched function names, in lower case, is of a kind.
fn lock_names(scene: &Scene<'_>, sleep: &Sleep, is: impl Fn(&str) -> bool) -> bool {
    let code = &scene.names.code;
    let frames = code.walked(sleep.stack).map(|w| w.frames.as_slice()).unwrap_or_default();
    frames
        .iter()
        .take(LOCK_FRAMES)
        .filter_map(|no| code.place(*no))
        .any(|place| is(&place.function.to_ascii_lowercase()))
}
