//! The rows of each list, their order, and the target of each row.
//!
//! Drawing and keys both use these functions, so that Enter opens the row under the cursor.

use crate::{Jump, Lane, Name, Place, Snapshot, Span, TaskId, TaskRef, Tid, TypeId, TypeRef, Worker};

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

/// The rows of a list that pass the filter, as indices of the snapshot's rows, in order.
pub(super) fn rows(snapshot: &Snapshot, filter: &str, is_by_total: bool, list: List) -> Vec<usize> {
    let filter = Filter::of(filter);
    let (hotspots, blocking) = (&snapshot.hotspots, &snapshot.blocking);
    let spots = |of: &[crate::Hotspot]| {
        let mut rows = filter.keep(of, |row| filter.place(&row.place) || filter.type_of(row.task_type.as_ref()));
        if is_by_total {
            // Stable, so that equal rows stay in the order of the snapshot.
            rows.sort_by_key(|at| of.get(*at).map_or(0, |row| row.total.saturating_neg()));
        }
        rows
    };
    let interval = |row: &crate::BlockingInterval| filter.place(&row.place) || filter.task(&row.task);
    match list {
        List::Findings => filter.keep(&snapshot.findings, |row| filter.text(&row.sentence)),
        List::Culprits => {
            filter.keep(&blocking.culprits, |row| filter.place(&row.place) || filter.type_of(row.task_type.as_ref()))
        }
        List::Newest => filter.keep(&blocking.newest, interval),
        List::Worst => filter.keep(&blocking.worst, interval),
        List::Functions => spots(&hotspots.by_function),
        List::Lines => spots(&hotspots.by_line),
        List::TypeSpots => filter.keep(&hotspots.by_type, |row| filter.type_of(row.task_type.as_ref())),
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
        List::Streams => None,
    }
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

/// The filter, without letter case.
struct Filter(Option<String>);

impl Filter {
    fn of(text: &str) -> Self {
        Filter((!text.is_empty()).then(|| text.to_lowercase()))
    }

    fn text(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|wanted| text.to_lowercase().contains(wanted.as_str()))
    }

    fn place(&self, place: &Place) -> bool {
        self.text(&place.function) || place.file.as_ref().is_some_and(|file| self.text(file))
    }

    fn type_of(&self, of: Option<&TypeRef>) -> bool {
        of.is_some_and(|of| self.text(&of.name))
    }

    fn task(&self, task: &TaskRef) -> bool {
        self.type_of(task.task_type.as_ref())
    }

    fn keep<T>(&self, of: &[T], keeps: impl Fn(&T) -> bool) -> Vec<usize> {
        if self.0.is_none() {
            return (0..of.len()).collect();
        }
        of.iter().enumerate().filter(|(_, row)| keeps(row)).map(|(at, _)| at).collect()
    }
}
