//! The lists of the screens: which rows each shows, in what order, and where a row leads.
//!
//! Drawing and keys both ask here, so that the row under the cursor is the row that Enter opens.

use std::prelude::v1::*;

use crate::cockpit::{Jump, Name, Place, Snapshot, TaskId, TaskRef, Tid, TypeId, TypeRef, Worker};

use super::state::{Screen, State};

/// A list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Findings,
    Culprits,
    Newest,
    Worst,
    Functions,
    Lines,
    TypeSpots,
    Tasks,
    Lanes,
    Types,
    Workers,
    Pool,
    LastPolls,
    Wakers,
    Stretches,
    Streams,
}

impl List {
    /// How many lists there are.
    pub(super) const COUNT: usize = 16;

    /// Its place in an array of all.
    pub(super) const fn index(self) -> usize {
        match self {
            List::Findings => 0,
            List::Culprits => 1,
            List::Newest => 2,
            List::Worst => 3,
            List::Functions => 4,
            List::Lines => 5,
            List::TypeSpots => 6,
            List::Tasks => 7,
            List::Lanes => 8,
            List::Types => 9,
            List::Workers => 10,
            List::Pool => 11,
            List::LastPolls => 12,
            List::Wakers => 13,
            List::Stretches => 14,
            List::Streams => 15,
        }
    }
}

impl Screen {
    /// Its lists, in the order of Tab.
    pub(super) const fn lists(self) -> &'static [List] {
        match self {
            Screen::Overview => &[List::Findings, List::Culprits, List::Functions, List::Workers],
            Screen::Hotspots => &[List::Functions, List::Lines, List::TypeSpots],
            Screen::Blocking => &[List::Culprits, List::Newest, List::Worst],
            Screen::Tasks => &[List::Tasks],
            Screen::Timeline => &[List::Lanes],
            Screen::Flame => &[],
            Screen::Latency => &[List::Types],
            Screen::Workers => &[List::Workers, List::Pool],
            Screen::Findings => &[List::Findings],
            Screen::Session => &[List::Streams],
            Screen::Task => &[List::LastPolls, List::Wakers, List::Stretches],
        }
    }
}

/// Where a row leads.
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
pub(super) fn workers(snapshot: &Snapshot) -> impl Iterator<Item = &Worker> {
    snapshot.workers.runtimes.iter().flat_map(|runtime| &runtime.workers)
}

/// The rows of a list that are shown, as places in the snapshot's own: those that pass the filter, as they are sorted.
pub(super) fn rows(snapshot: &Snapshot, state: &State, list: List) -> Vec<usize> {
    let filter = Filter::of(state.filter());
    let (hotspots, blocking) = (&snapshot.hotspots, &snapshot.blocking);
    let spots = |of: &[crate::cockpit::Hotspot]| {
        let mut rows = filter.keep(of, |row| filter.place(&row.place) || filter.type_of(row.task_type.as_ref()));
        if state.is_by_total() {
            // Stable, so that equals stay as they are ranked.
            rows.sort_by_key(|at| of.get(*at).map_or(0, |row| row.total.saturating_neg()));
        }
        rows
    };
    let stretch = |row: &crate::cockpit::Stretch| filter.place(&row.place) || filter.task(&row.task);
    match list {
        List::Findings => filter.keep(&snapshot.findings, |row| filter.text(&row.sentence)),
        List::Culprits => {
            filter.keep(&blocking.culprits, |row| filter.place(&row.place) || filter.type_of(row.task_type.as_ref()))
        }
        List::Newest => filter.keep(&blocking.newest, stretch),
        List::Worst => filter.keep(&blocking.worst, stretch),
        List::Functions => spots(&hotspots.by_function),
        List::Lines => spots(&hotspots.by_line),
        List::TypeSpots => filter.keep(&hotspots.by_type, |row| filter.type_of(row.task_type.as_ref())),
        // The source has filtered and sorted these.
        List::Tasks => (0..snapshot.tasks.rows.len()).collect(),
        List::Types => (0..snapshot.types.len()).collect(),
        List::Lanes => (0..snapshot.timeline.lanes.len()).collect(),
        List::Workers => (0..workers(snapshot).count()).collect(),
        List::Pool => (0..snapshot.workers.pool.workers.len()).collect(),
        List::LastPolls => (0..snapshot.task.as_ref().map_or(0, |page| page.last_polls.len())).collect(),
        List::Wakers => (0..snapshot.task.as_ref().map_or(0, |page| page.wakers.len())).collect(),
        List::Stretches => (0..snapshot.task.as_ref().map_or(0, |page| page.stretches.len())).collect(),
        List::Streams => (0..snapshot.coverage.streams.len()).collect(),
    }
}

/// Where the row of a list leads (its place is the snapshot's, as [`rows`] gives it).
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
        List::Workers => Some(Go::Lane(workers(snapshot).nth(at)?.tid)),
        List::Pool => Some(Go::Lane(snapshot.workers.pool.workers.get(at)?.tid)),
        List::Lanes => {
            let lane = snapshot.timeline.lanes.get(at)?;
            lane.spans.iter().max_by_key(|span| span.dur).map(|span| Go::Task(span.task.id))
        }
        List::Wakers => task(snapshot.task.as_ref()?.wakers.get(at)?.0.task.as_ref()?),
        List::LastPolls => Some(Go::Lane(snapshot.task.as_ref()?.last_polls.get(at)?.tid)),
        List::Stretches => Some(Go::Lane(snapshot.task.as_ref()?.stretches.get(at)?.tid)),
        List::Streams => None,
    }
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

/// What a person typed after `/`: letter case aside.
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
