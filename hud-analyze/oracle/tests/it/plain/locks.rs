//! Who waited for a lock, and who held it.

use std::collections::BTreeMap;

use hud_common::session::OffCpuRow;
use serde_json::{Value, json};

use super::{
    in_progress,
    names::{asleep, is_sleep},
};
use crate::data::{Args, Data, SECOND};

const LOCKS: [&str; 6] = ["mutex", "rwlock", "semaphore", "condvar", "park", "futex"];

/// What kind of lock a stack shows within 16 frames from its leaf.
pub(super) fn lock(data: &Data, stack: Option<i64>) -> Option<&'static str> {
    let names = data.frames_of(stack).iter().take(16).filter_map(|id| data.frame(Some(*id))?.function.as_ref());
    let kinds = names.filter_map(|name| {
        let name = name.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["condvar"]) {
            return Some(3);
        }
        if has(&["mutex", "lock_contended", "lock_slow"]) {
            return Some(0);
        }
        LOCKS.iter().position(|kind| has(&[kind]))
    });
    kinds.min().and_then(|kind| LOCKS.get(kind).copied())
}

/// Long sleeps inside tasks, from a second before the window on.
pub(super) fn sleeps<'a>(data: &'a Data, args: &Args, least: i64) -> Vec<&'a OffCpuRow> {
    let sleeps = data.off_cpu.iter().filter(|o| args.from - SECOND <= o.ts && o.ts < args.to && is_sleep(o));
    sleeps.filter(|o| o.dur >= least && asleep(o) >= least && data.is_in_task(o.task_id)).collect()
}

/// The last sleep of the thread that ended this wait.
fn last_sleep<'a>(data: &Data, sleeps: &[&'a OffCpuRow], wait: &OffCpuRow) -> Option<&'a OffCpuRow> {
    let end = wait.ts + asleep(wait);
    let on_waker = sleeps.iter().copied().filter(|o| Some(o.tid) == wait.waker_tid && o.ts < end);
    let frame = |o: &OffCpuRow| data.attribute(o.stack_id).frame;
    let last = on_waker.min_by_key(|o| (-o.ts, -asleep(o), o.task_id, frame(o).is_none(), frame(o)))?;
    (last.tid != wait.tid).then_some(last)
}

/// The same, where it was over meanwhile, and no wait for a lock itself.
pub(super) fn holder<'a>(data: &Data, sleeps: &[&'a OffCpuRow], wait: &OffCpuRow) -> Option<&'a OffCpuRow> {
    let last = last_sleep(data, sleeps, wait)?;
    let over = last.ts + asleep(last);
    let is_waiting = !matches!(lock(data, last.stack_id), None | Some("park"));
    (over > wait.ts && over <= wait.ts + asleep(wait) && !is_waiting).then_some(last)
}

pub(super) fn locks(data: &Data, args: &Args) -> Vec<Value> {
    let sleeps = sleeps(data, args, args.asleep);
    // Waits in progress have no waker yet.
    let now = in_progress::sleeps(data, args).into_iter().filter(|s| s.end - s.ts >= args.asleep).map(|s| {
        let (ts, dur, tid, task_id, stack_id) = (s.ts, s.end - s.ts, s.tid, Some(s.task), s.stack);
        let (cpu, state, run_queue, waker_tid, intervals) = (0, "S".into(), None, None, None);
        let row = OffCpuRow { ts, dur, tid, cpu, state, task_id, stack_id, run_queue, waker_tid, intervals };
        (row, s.type_id.or(data.type_id(task_id)), Some(s.lasted))
    });
    let now: Vec<_> =
        now.filter(|(_, type_id, _)| data.task_type(*type_id).is_none_or(|of| of.kind != "worker")).collect();
    let ended = sleeps.iter().copied().filter(|o| args.holds(o.ts));
    let waits =
        ended.map(|o| (o, data.type_id(o.task_id), None)).chain(now.iter().map(|(o, of, lasted)| (o, *of, *lasted)));
    let mut groups: BTreeMap<_, Vec<(&OffCpuRow, Option<i64>)>> = BTreeMap::new();
    for (wait, type_id, lasted) in waits.filter(|(o, ..)| args.is_wanted(o.task_id, o.tid)) {
        let Some(kind) = lock(data, wait.stack_id) else { continue };
        let of = data.task_type(type_id);
        let place = data.interval_place(data.attribute(wait.stack_id), of);
        let end = wait.ts + asleep(wait);
        let holder = holder(data, &sleeps, wait);
        let polls = data.polls.iter().filter(|p| data.task_type(p.type_id).is_none_or(|t| t.kind != "worker"));
        let polls = polls.filter(|p| {
            Some(p.tid) == wait.waker_tid
                && args.from - SECOND <= p.ts
                && p.ts <= end
                && p.ts < args.to
                && p.dur >= args.asleep
        });
        let poll = polls.max_by_key(|p| p.ts).filter(|p| p.tid != wait.tid && p.ts + p.dur >= end);
        let slept = last_sleep(data, &sleeps, wait).map(|o| o.ts + asleep(o));
        let poll = poll.filter(|p| [Some(p.ts), slept].into_iter().flatten().all(|since| end - since >= args.asleep));
        let (held, holder_type, holder_place) = match (holder, poll) {
            (Some(sleep), _) => {
                let of = data.type_of(sleep.task_id);
                (Some("asleep"), of, Some(data.interval_place(data.attribute(sleep.stack_id), of)))
            }
            (None, Some(poll)) => {
                let of = data.task_type(poll.type_id).or(data.type_of(Some(poll.task_id)));
                (Some("computing"), of, None)
            }
            (None, None) => (None, None, None),
        };
        let name = |of: Option<&hud_common::session::TaskTypeRow>| of.map(|t| t.name.to_string());
        groups.entry((kind, place, name(of), held, name(holder_type), holder_place)).or_default().push((wait, lasted));
    }
    let groups = groups.into_iter();
    groups
        .map(|((kind, (function, file, line), task_type, held, holder_type, holder), waits)| {
            let in_progress = waits.iter().filter_map(|(_, lasted)| *lasted).max();
            let waits: Vec<_> = waits.into_iter().map(|(o, _)| o).collect();
            let worst = waits.iter().min_by_key(|o| (-asleep(o), o.ts, o.tid)).unwrap();
            let (holder_function, holder_file, holder_line) =
                holder.map_or((None, None, None), |(a, b, c)| (Some(a), b, c));
            json!({
                "lock": kind, "waits": waits.len(), "total": waits.iter().map(|o| asleep(o)).sum::<i64>(),
                "longest": asleep(worst), "in_progress": in_progress, "function": function, "file": file, "line": line, "task_type": task_type,
                "held": held, "holder_type": holder_type, "holder_function": holder_function,
                "holder_file": holder_file, "holder_line": holder_line, "longest_ts": worst.ts, "tid": worst.tid,
                "task_id": worst.task_id, "holder_tid": worst.waker_tid,
            })
        })
        .collect()
}
