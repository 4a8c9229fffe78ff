//! The orders of each list. `s` goes to the next one of the list in focus, `S` reverses it.

use std::cmp::Ordering;

use crate::{BlockingInterval, Culprit, Hotspot, Name, Place, Snapshot, TypeHotspot, TypeRow, Worker};

use super::{lists::all_workers, screen::List};

/// An order of a list.
pub(super) struct Order {
    /// What it goes by, to stand after "by".
    name: &'static str,
    key: Key,
}

/// What rows are compared by. Figures: the greatest first; texts: alphabetically. Unknown ones are last.
enum Key {
    Figure(fn(&Snapshot, usize) -> Option<i64>),
    Text(fn(&Snapshot, usize) -> Option<&str>),
    /// The order of the snapshot.
    Given,
}

/// The order of each list: an index in its orders, and whether it is reversed.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorting([(usize, bool); List::COUNT]);

impl Sorting {
    fn of(&self, list: List) -> (usize, bool) {
        self.0.get(list.index()).copied().unwrap_or_default()
    }

    /// The name of a list's order, and whether it is reversed.
    pub(super) fn name(&self, list: List) -> (&'static str, bool) {
        let (at, is_reversed) = self.of(list);
        (orders(list).get(at).map_or("", |order| order.name), is_reversed)
    }

    /// Whether the column with this heading is what the list is sorted by.
    pub(super) fn is_by(&self, list: List, title: &str) -> bool {
        orders(list).get(self.of(list).0).is_some_and(|order| heading(order.name) == title)
    }

    /// Sorts by the column with this heading; if it is sorted by that, reverses it. Returns `false` if no order goes by it.
    pub(super) fn by(&mut self, list: List, title: &str) -> bool {
        let Some(wanted) = orders(list).iter().position(|order| heading(order.name) == title) else { return false };
        match self.0.get_mut(list.index()) {
            Some((at, is_reversed)) if *at == wanted => *is_reversed = !*is_reversed,
            Some(of) => *of = (wanted, false),
            None => return false,
        }
        true
    }

    pub(super) fn next(&mut self, list: List) {
        let count = orders(list).len().max(1);
        if let Some((at, is_reversed)) = self.0.get_mut(list.index()) {
            (*at, *is_reversed) = ((*at + 1) % count, false);
        }
    }

    pub(super) fn reverse(&mut self, list: List) {
        if let Some((_, is_reversed)) = self.0.get_mut(list.index()) {
            *is_reversed = !*is_reversed;
        }
    }

    /// Sorts the rows of a list, given as indices of the snapshot's rows. Equal rows stay in the snapshot's order.
    pub(super) fn sort(&self, snapshot: &Snapshot, list: List, rows: &mut [usize]) {
        let (at, is_reversed) = self.of(list);
        let Some(order) = orders(list).get(at) else { return };
        let turn = |order: Ordering| if is_reversed { order.reverse() } else { order };
        match order.key {
            Key::Given if is_reversed => rows.reverse(),
            Key::Given => {}
            Key::Figure(key) => {
                rows.sort_by(|a, b| known_first(key(snapshot, *a), key(snapshot, *b), |a, b| turn(b.cmp(&a))));
            }
            Key::Text(key) => {
                rows.sort_by(|a, b| known_first(key(snapshot, *a), key(snapshot, *b), |a, b| turn(a.cmp(b))));
            }
        }
    }
}

/// The heading of the column that an order goes by.
pub(super) fn heading(order: &str) -> &str {
    match order {
        "attributed time" => "attrib",
        "busy time" => "busy",
        "time blocked" => "blocked",
        "CPU time" => "CPU",
        "longest poll" => "longest",
        "wake delay" => "delay",
        "wakes by itself" => "by self",
        "time since its last poll" => "state",
        "age" => "id",
        "time" | "duration" => "for",
        "end" | "file" => "at",
        "resource" => "for what",
        "number" => "worker",
        "name" => "stream",
        "time off" => "off",
        other => other,
    }
}

fn known_first<T>(a: Option<T>, b: Option<T>, compare: impl Fn(T, T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

const fn figure(name: &'static str, key: fn(&Snapshot, usize) -> Option<i64>) -> Order {
    Order { name, key: Key::Figure(key) }
}

const fn text(name: &'static str, key: fn(&Snapshot, usize) -> Option<&str>) -> Order {
    Order { name, key: Key::Text(key) }
}

const fn given(name: &'static str) -> Order {
    Order { name, key: Key::Given }
}

fn culprit(snapshot: &Snapshot, at: usize) -> Option<&Culprit> {
    snapshot.blocking.culprits.get(at)
}

fn function(at: Option<&Hotspot>) -> Option<&str> {
    at.map(|row| row.place.function.as_str())
}

fn file(place: &Place) -> Option<&str> {
    place.file.as_ref().map(Name::as_str)
}

fn type_row(snapshot: &Snapshot, at: usize) -> Option<&TypeRow> {
    snapshot.types.get(at)
}

fn type_spot(snapshot: &Snapshot, at: usize) -> Option<&TypeHotspot> {
    snapshot.hotspots.by_type.get(at)
}

fn worker(snapshot: &Snapshot, at: usize) -> Option<&Worker> {
    all_workers(snapshot).nth(at)
}

fn pool(snapshot: &Snapshot, at: usize) -> Option<&Worker> {
    snapshot.workers.pool.workers.get(at)
}

fn length(rows: &[BlockingInterval], at: usize) -> Option<i64> {
    rows.get(at).map(|row| row.dur)
}

fn code(rows: &[BlockingInterval], at: usize) -> Option<&str> {
    rows.get(at).map(|row| row.place.function.as_str())
}

fn page_intervals(snapshot: &Snapshot) -> &[BlockingInterval] {
    snapshot.task.as_ref().map_or(&[], |page| page.intervals.as_slice())
}

const CULPRITS: &[Order] = &[
    given("total"),
    figure("longest", |s, at| culprit(s, at).map(|row| row.longest.max(row.in_progress.unwrap_or(0)))),
    figure("times", |s, at| culprit(s, at).map(|row| row.count)),
    figure("median", |s, at| culprit(s, at).map(|row| row.median)),
    text("code", |s, at| culprit(s, at).map(|row| row.place.function.as_str())),
    text("task type", |s, at| culprit(s, at).and_then(|row| row.task_type.as_ref()).map(|of| of.name.as_str())),
];

const NEWEST: &[Order] = &[
    given("end"),
    figure("duration", |s, at| length(&s.blocking.newest, at)),
    text("code", |s, at| code(&s.blocking.newest, at)),
];

const WORST: &[Order] = &[
    given("duration"),
    figure("time", |s, at| s.blocking.worst.get(at).map(|row| row.ts)),
    text("code", |s, at| code(&s.blocking.worst, at)),
];

const INTERVALS: &[Order] = &[
    given("duration"),
    figure("time", |s, at| page_intervals(s).get(at).map(|row| row.ts)),
    text("code", |s, at| code(page_intervals(s), at)),
];

const FUNCTIONS: &[Order] = &[
    given("attributed time"),
    figure("self", |s, at| s.hotspots.by_function.get(at).map(|row| row.leaf)),
    figure("total", |s, at| s.hotspots.by_function.get(at).map(|row| row.total)),
    text("code", |s, at| function(s.hotspots.by_function.get(at))),
];

const LINES: &[Order] = &[
    given("attributed time"),
    figure("self", |s, at| s.hotspots.by_line.get(at).map(|row| row.leaf)),
    figure("total", |s, at| s.hotspots.by_line.get(at).map(|row| row.total)),
    text("file", |s, at| s.hotspots.by_line.get(at).and_then(|row| file(&row.place))),
    text("code", |s, at| function(s.hotspots.by_line.get(at))),
];

const TYPE_SPOTS: &[Order] = &[
    given("CPU time"),
    text("task type", |s, at| type_spot(s, at).and_then(|row| row.task_type.as_ref()).map(|of| of.name.as_str())),
];

const TYPES: &[Order] = &[
    given("busy time"),
    figure("tasks", |s, at| type_row(s, at).map(|row| row.tasks)),
    figure("polls", |s, at| type_row(s, at).map(|row| row.polls)),
    figure("p50", |s, at| type_row(s, at).and_then(|row| row.durations.p50)),
    figure("p99", |s, at| type_row(s, at).and_then(|row| row.durations.p99)),
    figure("longest", |s, at| type_row(s, at).map(|row| row.durations.longest).max(type_row(s, at)?.in_progress)),
    figure("wake p99", |s, at| type_row(s, at).and_then(|row| row.wake_delay.p99)),
    figure("time blocked", |s, at| type_row(s, at).map(|row| row.blocked)),
    figure("spawned", |s, at| type_row(s, at).map(|row| row.spawned)),
    figure("ended", |s, at| type_row(s, at).map(|row| row.ended)),
    text("task type", |s, at| type_row(s, at).and_then(|row| row.task_type.as_ref()).map(|of| of.name.as_str())),
];

const WORKERS: &[Order] = &[
    given("number"),
    figure("busy", |s, at| worker(s, at).map(|row| row.load.share(row.load.running))),
    figure("blocked", |s, at| worker(s, at).map(|row| row.load.share(row.load.blocked))),
    figure("waiting", |s, at| worker(s, at).map(|row| row.load.share(row.load.waiting))),
    figure("polls", |s, at| worker(s, at).and_then(|row| row.polls)),
    figure("longest", |s, at| worker(s, at).and_then(|row| row.longest_poll.max(row.in_progress()))),
];

const POOL: &[Order] = &[
    given("work"),
    figure("busy", |s, at| pool(s, at).map(|row| row.load.share(row.load.running))),
    figure("blocked", |s, at| pool(s, at).map(|row| row.load.share(row.load.blocked))),
    figure("waiting", |s, at| pool(s, at).map(|row| row.load.share(row.load.waiting))),
    figure("polls", |s, at| pool(s, at).and_then(|row| row.polls)),
    figure("longest", |s, at| pool(s, at).and_then(|row| row.longest_poll)),
];

const LAST_POLLS: &[Order] = &[
    given("end"),
    figure("duration", |s, at| s.task.as_ref()?.last_polls.get(at).map(|poll| poll.dur)),
    figure("wake to poll", |s, at| s.task.as_ref()?.last_polls.get(at)?.wake_delay),
];

const WAKERS: &[Order] = &[given("wakes")];

const FINDINGS: &[Order] = &[given("severity"), text("rule", |s, at| s.findings.get(at).map(|row| row.rule.name()))];

const STREAMS: &[Order] = &[
    given("name"),
    figure("rows", |s, at| s.coverage.streams.get(at).map(|row| row.rows)),
    figure("time off", |s, at| s.coverage.streams.get(at).map(|row| row.off)),
];

const PLACES: &[Order] = &[
    given("tasks"),
    figure("time", |s, at| s.waiting.places.get(at).map(|row| row.longest)),
    text("waiting in", |s, at| s.waiting.places.get(at).map(|row| row.place.function.as_str())),
    text("resource", |s, at| s.waiting.places.get(at)?.resource.as_deref()),
    text("task type", |s, at| s.waiting.places.get(at)?.task_type.as_ref().map(|of| of.name.as_str())),
];

const WAITERS: &[Order] = &[
    given("time"),
    text("waiting in", |s, at| s.waiting.tasks.get(at).map(|row| row.place.function.as_str())),
    text("resource", |s, at| s.waiting.tasks.get(at)?.resource.as_deref()),
];

/// The orders of a list, the default first.
fn orders(list: List) -> &'static [Order] {
    match list {
        List::Findings => FINDINGS,
        List::Culprits => CULPRITS,
        List::Newest => NEWEST,
        List::Worst => WORST,
        List::Functions => FUNCTIONS,
        List::Lines => LINES,
        List::TypeSpots => TYPE_SPOTS,
        // Sorted by the source, which knows all of them.
        List::Tasks => &[],
        // In the order of the panes of workers.
        List::Lanes => &[],
        List::Types => TYPES,
        List::Workers => WORKERS,
        List::Pool => POOL,
        List::LastPolls => LAST_POLLS,
        List::Wakers => WAKERS,
        List::Intervals => INTERVALS,
        List::Streams => STREAMS,
        List::Places => PLACES,
        List::Waiters => WAITERS,
    }
}
