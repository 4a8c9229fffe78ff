//! The rows of each list, their order, and the target of each row.
//!
//! Drawing and keys both use these functions, so that Enter opens the row under the cursor.

use crate::{
    Jump, Lane, Name, Place, Snapshot, Span, TaskId, TaskRef, Tid, TypeId, TypeRef, Waiter, Worker, filter::Filter,
};

use super::screen::{List, Screen};

/// The target of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// To a task's page.
    Task(TaskId),
    /// To the flame graph of a type.
    Flame(Option<TypeId>),
    /// To a thread's lane.
    Lane(Tid),
    /// To the tasks whose type has this name.
    Tasks(Name),
    /// To the same list on its own screen.
    Screen(Screen),
}

/// All workers of all runtimes, in order.
pub(in crate::ui) fn all_workers(snapshot: &Snapshot) -> impl Iterator<Item = &Worker> {
    snapshot.workers.runtimes.iter().flat_map(|runtime| &runtime.workers)
}

/// The rows of a list that pass the filter, as indices of the snapshot's rows, in the snapshot's order.
pub(super) fn passing(snapshot: &Snapshot, filter: &Filter, list: List) -> Vec<usize> {
    let (hotspots, blocking) = (&snapshot.hotspots, &snapshot.blocking);
    let spots =
        |of: &[crate::Hotspot]| keep(filter, of, |row| place(&row.place).chain(type_of(row.task_type.as_ref())));
    let intervals = |of: &[crate::BlockingInterval]| {
        keep(filter, of, |row| place(&row.place).chain(type_of(row.task.task_type.as_ref())))
    };
    match list {
        List::Findings => keep(filter, &snapshot.findings, |row| [row.sentence.as_str()].into_iter()),
        List::Culprits => {
            keep(filter, &blocking.culprits, |row| place(&row.place).chain(type_of(row.task_type.as_ref())))
        }
        List::Newest => intervals(&blocking.newest),
        List::Worst => intervals(&blocking.worst),
        List::Functions => spots(&hotspots.by_function),
        List::Lines => spots(&hotspots.by_line),
        List::TypeSpots => keep(filter, &hotspots.by_type, |row| type_of(row.task_type.as_ref())),
        // Filtered and sorted by the source.
        List::Tasks => (0..snapshot.tasks.rows.len()).collect(),
        List::Types => (0..snapshot.types.len()).collect(),
        List::Lanes => (0..snapshot.timeline.lanes.len()).collect(),
        List::Workers => (0..all_workers(snapshot).count()).collect(),
        List::Pool => (0..snapshot.workers.pool.workers.len()).collect(),
        List::LastPolls => (0..snapshot.task.as_ref().map_or(0, |page| page.last_polls.len())).collect(),
        List::Wakers => (0..snapshot.task.as_ref().map_or(0, |page| page.wakers.len())).collect(),
        List::Intervals => (0..snapshot.task.as_ref().map_or(0, |page| page.intervals.len())).collect(),
        List::Streams => (0..snapshot.coverage.streams.len()).collect(),
        // Filtered by the source.
        List::Places => (0..snapshot.waiting.places.len()).collect(),
        List::Waiters => (0..snapshot.waiting.tasks.len()).collect(),
    }
}

/// The target of a row, given by its index in the snapshot.
pub(super) fn go(snapshot: &Snapshot, screen: Screen, list: List, at: usize) -> Option<Go> {
    let task = |task: &TaskRef| Some(Go::Task(task.id));
    let flame = |of: &Option<TypeRef>| Some(Go::Flame(of.as_ref().map(|of| of.id)));
    match list {
        List::Findings => jump(snapshot, snapshot.findings.get(at)?.jump),
        List::Culprits | List::Functions if screen == Screen::Overview => {
            Some(Go::Screen(if list == List::Culprits { Screen::Blocking } else { Screen::Hotspots }))
        }
        List::Culprits => jump(snapshot, snapshot.blocking.culprits.get(at)?.jump),
        List::Newest => task(&snapshot.blocking.newest.get(at)?.task),
        List::Worst => task(&snapshot.blocking.worst.get(at)?.task),
        List::Functions => flame(&snapshot.hotspots.by_function.get(at)?.task_type),
        List::Lines => flame(&snapshot.hotspots.by_line.get(at)?.task_type),
        List::TypeSpots => flame(&snapshot.hotspots.by_type.get(at)?.task_type),
        List::Tasks => task(&snapshot.tasks.rows.get(at)?.task),
        List::Types => Some(Go::Tasks(snapshot.types.get(at)?.task_type.as_ref()?.name.clone())),
        List::Workers => Some(Go::Lane(all_workers(snapshot).nth(at)?.tid)),
        List::Pool => Some(Go::Lane(snapshot.workers.pool.workers.get(at)?.tid)),
        List::Lanes => {
            let lane = snapshot.timeline.lanes.get(at)?;
            lane.spans.iter().max_by_key(|span| span.dur).map(|span| Go::Task(span.task.id))
        }
        List::Wakers => task(snapshot.task.as_ref()?.wakers.get(at)?.0.task.as_ref()?),
        List::LastPolls => Some(Go::Lane(snapshot.task.as_ref()?.last_polls.get(at)?.tid)),
        List::Intervals => Some(Go::Lane(snapshot.task.as_ref()?.intervals.get(at)?.tid)),
        List::Places => waiter(&snapshot.waiting.places.get(at)?.first),
        List::Waiters => waiter(&snapshot.waiting.tasks.get(at)?.who),
        List::Streams => None,
    }
}

fn waiter(who: &Waiter) -> Option<Go> {
    Some(match who {
        Waiter::Task(task) => Go::Task(task.id),
        Waiter::Thread(tid) => Go::Lane(*tid),
    })
}

/// The longest span of a lane that overlaps a time range.
pub(super) fn span_at(lane: &Lane, (from, to): (i64, i64)) -> Option<&Span> {
    lane.spans.iter().filter(|span| span.ts < to && span.ts.saturating_add(span.dur) > from).max_by_key(|span| span.dur)
}

fn jump(snapshot: &Snapshot, jump: Jump) -> Option<Go> {
    let type_name = |id: TypeId| {
        snapshot
            .types
            .iter()
            .filter_map(|row| row.task_type.as_ref())
            .find(|row| row.id == id)
            .map(|row| row.name.clone())
    };
    jump.task
        .map(Go::Task)
        .or_else(|| jump.task_type.and_then(type_name).map(Go::Tasks))
        .or_else(|| jump.tid.map(Go::Lane))
}

fn place(of: &Place) -> impl Iterator<Item = &str> {
    [of.function.as_str()].into_iter().chain(of.file.as_deref())
}

fn type_of(of: Option<&TypeRef>) -> impl Iterator<Item = &str> {
    of.map(|of| of.name.as_str()).into_iter()
}

/// The indices of the rows that pass, by their names.
fn keep<'a, T, I: Iterator<Item = &'a str>>(filter: &Filter, of: &'a [T], names: impl Fn(&'a T) -> I) -> Vec<usize> {
    of.iter().enumerate().filter(|(_, row)| filter.is_empty() || filter.passes(names(row))).map(|(at, _)| at).collect()
}
