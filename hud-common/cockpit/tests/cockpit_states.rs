//! Where tasks wait: from the rows of `task_states` to the lists of a snapshot.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use hud_cockpit::*;

const T0: i64 = 1_790_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn task(id: i64) -> Who {
    Who::Task(TaskId(id))
}

/// A row of a suspended task.
fn row(at: i64, id: i64, stack: Option<i64>, resource: &str, holder: Option<i64>) -> StateRow {
    StateRow {
        ts: T0 + at * SECOND,
        since: T0 + at * SECOND,
        who: task(id),
        type_id: None,
        state: TaskState::Suspended,
        branch: 0,
        branches: 1,
        cycle: None,
        wait: Wait {
            stack: stack.map(StackId),
            resource: Some(resource.into()),
            address: Some(4_096 + id % 2),
            deadline: None,
            detail: Some(format!("the {resource}").into()),
            holder: holder.map(task),
        },
    }
}

/// Tasks 0 to 9 of type 0, others of type 1. Stack 1: tokio below own code below own code; stack 2: a dependency and std;
/// stack 3: tokio alone.
fn names() -> Names {
    let mut names = Names::default();
    for (id, name) in [(0, "app::worker"), (1, "app::logger")] {
        let kind = TaskKind::Task;
        names.types.insert(TypeId(id), TaskType { name: name.into(), file: None, line: None, kind });
    }
    (0..200).for_each(|id| names.add_type_of(TaskId(id), TypeId(i64::from(id >= 10))));
    let frames = [
        ("tokio::sync::Mutex::lock", Origin::Tokio),
        ("app::db::get", Origin::Own),
        ("app::worker", Origin::Own),
        ("hyper::serve", Origin::Dependency),
        ("core::future::poll_fn", Origin::Std),
    ];
    for (id, (function, origin)) in (0..).zip(frames) {
        let (file, line) = (Some("src/a.rs".into()), Some(10 * id));
        let frame = Frame { function: Some(function.into()), module: None, file, line, origin };
        names.add_frame(FrameId(id.into()), frame);
    }
    for (id, frames) in [(1, vec![0, 1, 2]), (2, vec![4, 3, 4]), (3, vec![0, 4])] {
        names.add_stack(StackId(id), frames.into_iter().map(FrameId).collect());
    }
    names
}

fn taken(states: &mut States, at: &[i64]) {
    at.iter().for_each(|at| states.covered(T0, T0 + at * SECOND, None));
}

fn look(states: &mut States, at: i64, query: Query) -> Snapshot {
    let mut names = names();
    let query = Query { at: Some(T0 + at * SECOND), ..query };
    let mut snapshot = Snapshot::of(View {
        query: &query,
        at: T0 + at * SECOND,
        partials: &BTreeMap::new(),
        total: None,
        names: &mut names,
        detail: None,
        session: SessionFacts::default(),
        mode: Mode::Replay,
        coverage_until: None,
        read_from: None,
    });
    snapshot.add_states(states, &mut names, &query);
    snapshot
}

#[test]
fn groups_tasks_by_place_resource_and_type() {
    let mut states = States::default();
    for id in 1..5 {
        states.add(row(id, id, Some(1), "mutex", Some(7)));
    }
    states.add(row(2, 11, Some(2), "io", None));
    states.add(row(2, 12, Some(3), "timer", None));
    states.add(row(2, 13, None, "timer", None));
    states.add(row(2, 7, Some(1), "io", None));
    states.add(StateRow { state: TaskState::Running, ..row(2, 14, None, "io", None) });
    taken(&mut states, &[10]);
    let waiting = look(&mut states, 12, Query::default()).waiting;
    assert_eq!((waiting.ts, waiting.count), (Some(T0 + 10 * SECOND), 8));
    assert_eq!((waiting.counts.suspended, waiting.counts.running), (8, 1));
    let shown: Vec<(i64, &str, Option<i32>, &str, &str)> = waiting
        .places
        .iter()
        .map(|row| {
            let resource = row.resource.as_deref().unwrap();
            let name = row.task_type.as_ref().unwrap().name.as_str();
            (row.tasks, row.place.function.as_str(), row.place.line, resource, name)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (4, "app::db::get", Some(10), "mutex", "app::worker"),
            (1, "app::db::get", Some(10), "io", "app::worker"),
            (1, "app::logger", None, "timer", "app::logger"),
            // Without own code a dependency's, else the outermost.
            (1, "core::future::poll_fn", Some(40), "timer", "app::logger"),
            (1, "hyper::serve", Some(30), "io", "app::logger"),
        ]
    );
    let first = &waiting.places[0];
    assert_eq!((first.longest, first.shortest, first.resources), (9 * SECOND, 6 * SECOND, 2));
    assert_eq!(first.detail.as_deref(), Some("the mutex"));
    let holder = first.holder.as_ref().unwrap();
    assert!(matches!(&holder.who, Waiter::Task(of) if of.id == TaskId(7)));
    assert_eq!(holder.state, Some(TaskState::Suspended));
    assert_eq!(holder.place.as_ref().unwrap().function.as_str(), "app::db::get");
    assert!(matches!(&first.first, Waiter::Task(of) if of.id == TaskId(1)), "the one that has waited longest");
    assert_eq!(first.stack.len(), 3);
    // Each, the longest first.
    let ids: Vec<Waiter> = waiting.tasks.iter().map(|row| row.who.clone()).collect();
    assert!(matches!(&ids[0], Waiter::Task(of) if of.id == TaskId(1)) && ids.len() == 8);
}

#[test]
fn shows_the_state_at_the_instant_looked_at() {
    let mut states = States::default();
    states.add(row(10, 1, Some(1), "mutex", None));
    states.add(StateRow { state: TaskState::Gone, ..row(20, 1, None, "mutex", None) });
    states.add(row(20, 2, Some(1), "io", None));
    taken(&mut states, &[10, 20]);
    let count = |states: &mut States, at| look(states, at, Query::default()).waiting.count;
    assert_eq!([5, 12, 25].map(|at| count(&mut states, at)), [0, 1, 1]);
    let resource = |states: &mut States, at| look(states, at, Query::default()).waiting.places[0].resource.clone();
    assert_eq!(resource(&mut states, 12).as_deref(), Some("mutex"));
    assert_eq!(resource(&mut states, 25).as_deref(), Some("io"));
    assert_eq!(resource(&mut states, 12).as_deref(), Some("mutex"), "and back again");
}

#[test]
fn the_page_of_a_task_has_all_that_it_waits_for() {
    let mut states = States::default();
    for (branch, resource) in [(0, "mutex"), (1, "timer")] {
        states.add(StateRow { branch, branches: 2, cycle: Some(3), ..row(1, 3, Some(1), resource, Some(150)) });
    }
    taken(&mut states, &[5]);
    let page = |states: &mut States, id| {
        look(states, 6, Query { task: Some(TaskId(id)), ..Query::default() }).task.unwrap().state
    };
    let state = page(&mut states, 3).unwrap();
    assert_eq!((state.state, state.ts - state.since, state.waits.len()), (TaskState::Suspended, 4 * SECOND, 2));
    assert_eq!(state.waits[1].resource.as_deref(), Some("timer"));
    assert_eq!((state.waits[0].cycle, state.waits[0].stack.len()), (Some(3), 3));
    // A holder that was not found has no state.
    assert_eq!(state.waits[0].holder.as_ref().unwrap().state, None);
    assert_eq!(page(&mut states, 4), None);
}

#[test]
fn the_filter_selects_by_any_name() {
    let mut states = States::default();
    states.add(row(1, 1, Some(1), "mutex", None));
    states.add(row(1, 11, Some(2), "io", None));
    taken(&mut states, &[5]);
    let count = |states: &mut States, filter: &str| {
        let waiting = look(states, 6, Query { filter: Some(filter.into()), ..Query::default() }).waiting;
        assert_eq!(waiting.counts.suspended, 2, "counts are those of all");
        (waiting.places.len(), waiting.count)
    };
    for (filter, found) in [("db::get", 1), ("LOGGER", 1), ("the io", 1), ("!mutex", 1), ("nothing", 0), ("", 2)] {
        assert_eq!(count(&mut states, filter), (found, i64::try_from(found).unwrap()), "{filter}");
    }
}

#[test]
fn tasks_that_were_not_polled_in_the_window_are_listed_by_their_last_poll() {
    let mut states = States::default();
    states.add(row(1, 1, Some(1), "mutex", None));
    states.add(row(3, 2, Some(1), "mutex", None));
    taken(&mut states, &[100]);
    let query = |order| Query { order, window: 10 * SECOND, ..Query::default() };
    let tasks = look(&mut states, 101, query(TaskOrder::Idle)).tasks;
    let rows: Vec<(i64, i64)> = tasks.rows.iter().map(|row| (row.task.id.0, (row.last_seen - T0) / SECOND)).collect();
    assert_eq!(rows, [(1, 1), (2, 3)]);
    assert_eq!((tasks.count, tasks.matching), (2, 2));
    assert_eq!(look(&mut states, 101, query(TaskOrder::Busy)).tasks.rows, [], "by another order, those of the window");
}

#[test]
fn without_a_snapshot_it_says_why() {
    let mut states = States::default();
    states.covered(T0, T0, Some("no permission".into()));
    let waiting = look(&mut states, 5, Query::default()).waiting;
    assert_eq!((waiting.ts, waiting.gaps.as_deref()), (None, Some("no permission")));
}
