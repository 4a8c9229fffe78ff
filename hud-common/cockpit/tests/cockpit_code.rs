//! CPU time by code: what is attributed, what is at the leaf, and the flame tree with its runtime folded.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use hud_cockpit::*;

const T0: i64 = 1_790_000_000_000_000_000;
const MS: i64 = 1_000_000;

const FRAMES: [(&str, Origin); 9] = [
    ("clone3", Origin::System),
    ("std::thread::start", Origin::Std),
    ("tokio::runtime::worker::run", Origin::Tokio),
    ("tokio::runtime::task::poll", Origin::Tokio),
    ("app::serve", Origin::Own),
    ("serde::to_vec", Origin::Dependency),
    ("memcpy", Origin::System),
    ("tokio::runtime::park", Origin::Tokio),
    ("epoll_wait", Origin::System),
];

/// A snapshot of samples, each with its stack from the outermost frame, and of sleeps.
fn snapshot(samples: &[&[i64]], sleeps: &[(&[i64], i64)], query: Query) -> Snapshot {
    let mut names = Names::default();
    names.types.insert(TypeId(1), TaskType { name: "app::serve".into(), file: None, line: None, kind: TaskKind::Task });
    names.add_type_of(TaskId(1), TypeId(1));
    for (id, (function, origin)) in (0..).zip(FRAMES) {
        let frame = Frame { function: Some(function.into()), module: None, file: None, line: None, origin };
        names.add_frame(FrameId(id), frame);
    }
    let mut buckets = Buckets::new(Bucket::of(T0), Bucket::of(T0 + 1_000 * MS));
    let all = samples.iter().copied().chain(sleeps.iter().map(|(stack, _)| *stack));
    for (id, stack) in (0..).zip(all) {
        names.add_stack(StackId(id), stack.iter().rev().map(|frame| FrameId(*frame)).collect());
    }
    for (id, _) in (0..).zip(samples) {
        let (task, stack) = (Some(TaskId(1)), Some(StackId(id)));
        buckets.sample(&SampleRow { ts: T0 + id, tid: Tid(1), task, stack, weight: 10 * MS });
    }
    for (id, (_, dur)) in (i64::try_from(samples.len()).unwrap()..).zip(sleeps) {
        buckets.off_cpu(&OffCpuRow {
            ts: T0 + id * MS,
            dur: dur * MS,
            tid: Tid(1),
            state: b'S',
            task: Some(TaskId(1)),
            stack: Some(StackId(id)),
            run_queue: Some(0),
            waker: None,
            intervals: None,
        });
    }
    buckets.settle(Bucket::of(T0), Bucket::of(T0 + 1_000 * MS));
    let at = T0 + 1_000 * MS;
    let query = Query { at: Some(at), window: 1_000 * MS, ..query };
    Snapshot::of(View {
        query: &query,
        at,
        partials: buckets.partials(),
        total: None,
        names: &mut names,
        detail: None,
        session: SessionFacts::default(),
        mode: Mode::Replay,
        coverage_until: None,
        read_from: None,
    })
}

/// Depth, function, number of folded frames and total of each node below the root.
fn tree(flame: &Flame) -> Vec<(u32, &str, u32, i64)> {
    let nodes = flame.nodes.iter().skip(1);
    nodes.map(|node| (node.depth, node.function.as_str(), node.folded, node.total / MS)).collect()
}

#[test]
fn self_is_the_time_at_the_leaf() {
    let samples: [&[i64]; 3] = [&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 3, 4, 5], &[0, 1, 2, 3, 4]];
    let hotspots = snapshot(&samples, &[], Query::default()).hotspots;
    let rows: Vec<(&str, i64, i64, i64)> = hotspots
        .by_function
        .iter()
        .map(|row| (row.place.function.as_str(), row.own / MS, row.leaf / MS, row.total / MS))
        .collect();
    // All is attributed to own code; a third of it is there.
    assert_eq!(rows, [("app::serve", 30, 10, 30), ("serde::to_vec", 0, 10, 20), ("memcpy", 0, 10, 10)]);
    assert_eq!(hotspots.by_function[2].task_type.as_ref().unwrap().name.as_str(), "app::serve");
}

#[test]
fn frames_of_the_runtime_are_one_node() {
    let samples: [&[i64]; 4] = [&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 4], &[0, 1, 2, 7, 8], &[0, 1, 2]];
    let folded = snapshot(&samples, &[], Query::default()).flame;
    assert_eq!(
        tree(&folded),
        [
            (1, "tokio runtime", 4, 30),
            (2, "app::serve", 0, 20),
            (3, "serde::to_vec", 0, 10),
            (4, "memcpy", 0, 10),
            (2, "epoll_wait", 0, 10),
            // Two frames and a leaf are too few.
            (1, "clone3", 0, 10),
            (2, "std::thread::start", 0, 10),
            (3, "tokio::runtime::worker::run", 0, 10),
        ]
    );
    let unfolded = snapshot(&samples, &[], Query { is_unfolded: true, ..Query::default() }).flame;
    assert_eq!(
        tree(&unfolded)[..3],
        [(1, "clone3", 0, 40), (2, "std::thread::start", 0, 40), (3, "tokio::runtime::worker::run", 0, 40),]
    );
    assert!(unfolded.nodes.iter().all(|node| node.folded == 0));
}

#[test]
fn a_tree_of_sleeps_has_the_time_asleep_in_tasks() {
    let sleeps: [(&[i64], i64); 3] = [(&[0, 1, 2, 3, 4, 6], 30), (&[0, 1, 2, 3, 4, 6], 5), (&[0, 1, 2, 3, 4, 8], 7)];
    let query = Query { flame_kind: FlameKind::OffCpu, ..Query::default() };
    let flame = snapshot(&[&[4]], &sleeps, query).flame;
    assert_eq!(flame.kind, FlameKind::OffCpu);
    assert_eq!(
        tree(&flame),
        [(1, "tokio runtime", 4, 42), (2, "app::serve", 0, 42), (3, "memcpy", 0, 35), (3, "epoll_wait", 0, 7)]
    );
}
