//! Tasks observed in the window, their types, and the page of one.

use core::cmp::Reverse;

use hud_wire::Stream;

use super::{
    Coverage, Distribution, Histogram, LAST_POLLS, MOST_ROWS, Map, Merge as _, PollSums, Spawned, TaskDetail, TaskId,
    TaskKind, TaskOrder, TaskPage, TaskRow, TaskSums, Tasks, TypeId, TypeRow, WAKERS,
    blocking::{Held, interval, waker},
    filter::Filter,
    index_cache::{IndexCache, number_of},
    scene::Scene,
};

/// The tasks and the types of tasks.
pub(super) fn of(scene: &Scene<'_>, coverage: &Coverage) -> (Tasks, Vec<TypeRow>) {
    let filter = Filter::of(scene.query.filter.as_deref().unwrap_or_default());
    let (mut count, mut ended) = (0, 0);
    let mut ranked: Vec<([i64; 2], TaskId, &TaskSums)> = Vec::new();
    let (mut types, mut hints): (Map<Option<TypeId>, TypeSums>, _) = (Map::default(), IndexCache::new(8));
    // Types first: the processor then waits for many of them at once.
    let progress = scene.progress.task_sums(scene.total);
    let ended_polls = scene.total.tasks.iter().filter(|(id, _)| !progress.contains_key(*id));
    let all = ended_polls.chain(&progress);
    let type_ids: Vec<Option<TypeId>> = all.clone().map(|(id, _)| scene.names.type_of.get(id).copied()).collect();
    for ((id, sums), type_id) in all.zip(type_ids) {
        let of = hints.of(&mut types, type_id, number_of(type_id));
        let (is_loop, does_pass) = *of.filtered.get_or_insert_with(|| {
            let is_loop = scene.names.kind_of_type(type_id) == TaskKind::Worker;
            (is_loop, does_pass(scene, type_id, &filter))
        });
        if is_loop {
            continue;
        }
        count += 1;
        ended += i64::from(sums.ended.is_some());
        of.task(sums);
        of.busy = of.busy.saturating_add(scene.progress.busy(*id));
        of.in_progress = of.in_progress.max(scene.progress.of(*id));
        if does_pass {
            ranked.push((rank(scene, *id, sums), *id, sums));
        }
    }
    let matching = i64::try_from(ranked.len()).unwrap_or(i64::MAX);
    let order = |(rank, id, _): &([i64; 2], TaskId, &TaskSums)| (Reverse(*rank), *id);
    if ranked.len() > MOST_ROWS {
        ranked.select_nth_unstable_by_key(MOST_ROWS, order);
        ranked.truncate(MOST_ROWS);
    }
    ranked.sort_unstable_by_key(order);
    let spawned = types.values().fold(0, |sum: i64, t| sum.saturating_add(t.spawned));
    let tasks = Tasks {
        count,
        matching,
        spawned: coverage.was_on(Stream::Spawns).then_some(spawned),
        ended: coverage.was_on(Stream::Ends).then_some(ended),
        left_out: scene.total.tasks_left_out,
        rows: ranked.into_iter().map(|(_, id, sums)| row(scene, id, sums)).collect(),
    };
    let mut rows = type_rows(scene, types);
    rows.retain(|r| does_pass(scene, r.task_type.as_ref().map(|t| t.id), &filter));
    (tasks, rows)
}

fn does_pass(scene: &Scene<'_>, id: Option<TypeId>, filter: &Filter) -> bool {
    let name = || id.and_then(|id| scene.names.types.get(&id)).map_or("<unknown>", |t| t.name.as_str());
    filter.is_empty() || filter.passes([name()])
}

fn rank(scene: &Scene<'_>, id: TaskId, sums: &TaskSums) -> [i64; 2] {
    let rank = match scene.query.order {
        TaskOrder::Busy => [sums.busy, sums.cpu],
        TaskOrder::Polls => [sums.polls, sums.busy],
        TaskOrder::LongestPoll => [sums.longest_poll.max(scene.progress.of(id).unwrap_or(0)), sums.busy],
        TaskOrder::WakeDelay => [sums.delay_longest, sums.delay],
        TaskOrder::Blocked => [sums.blocked, sums.busy],
        TaskOrder::Cpu => [sums.cpu, sums.busy],
        TaskOrder::Wakes => [sums.wakes, sums.busy],
        TaskOrder::SelfWakes => [sums.self_wakes, sums.wakes],
        TaskOrder::Idle => [scene.at.saturating_sub(sums.last.0.unwrap_or(scene.at)), 0],
        TaskOrder::Youngest => [id.0, 0],
    };
    if scene.query.is_reversed { rank.map(i64::saturating_neg) } else { rank }
}

fn row(scene: &Scene<'_>, id: TaskId, sums: &TaskSums) -> TaskRow {
    let type_id = scene.names.type_of.get(&id);
    let task_type = type_id.and_then(|id| scene.names.types.get(id));
    let spawned =
        scene.names.spawned.get(&id).map(|by| Spawned { by: *by, parent: by.parent.map(|id| scene.task_ref(id)) });
    TaskRow {
        task: scene.task_ref(id),
        kind: task_type.map_or(TaskKind::Task, |t| t.kind),
        file: task_type.and_then(|t| t.file.clone()),
        line: task_type.and_then(|t| t.line),
        polls: sums.polls,
        busy: sums.busy,
        blocked: sums.blocked,
        longest_poll: (sums.polls > 0).then_some(sums.longest_poll),
        in_progress: scene.progress.of(id),
        cpu: sums.cpu,
        wakes: sums.wakes,
        self_wakes: sums.self_wakes,
        wake_delay_mean: sums.delay.checked_div(sums.delays),
        wake_delay_longest: (sums.delays > 0).then_some(sums.delay_longest),
        spawned,
        ended: sums.ended,
        first_seen: sums.first.0.unwrap_or(0),
        last_seen: sums.last.0.unwrap_or(0),
    }
}

/// Sums over the tasks of a type.
#[derive(Default)]
struct TypeSums {
    tasks: i64,
    blocked: i64,
    cpu: i64,
    spawned: i64,
    ended: i64,
    /// In polls in progress, and for how long the longest has lasted.
    busy: i64,
    in_progress: Option<i64>,
    /// Whether it is the loop of a worker, and whether it passes the filter.
    filtered: Option<(bool, bool)>,
}

impl TypeSums {
    fn task(&mut self, sums: &TaskSums) {
        self.tasks += 1;
        self.blocked = self.blocked.saturating_add(sums.blocked);
        self.cpu = self.cpu.saturating_add(sums.cpu);
        self.spawned = self.spawned.saturating_add(sums.spawned);
        self.ended += i64::from(sums.ended.is_some());
    }
}

fn type_rows(scene: &Scene<'_>, mut types: Map<Option<TypeId>, TypeSums>) -> Vec<TypeRow> {
    let total = scene.total;
    let mut polls: Map<Option<TypeId>, PollSums> = Map::default();
    for ((_, id), sums) in &total.polls {
        polls.entry(*id).or_default().merge(sums);
        types.entry(*id).or_default();
    }
    let histogram = |of: &Map<Option<TypeId>, super::Counts>, id| of.get(&id).map(Histogram::from).unwrap_or_default();
    let mut rows: Vec<TypeRow> = types
        .into_iter()
        .filter(|(id, _)| scene.names.kind_of_type(*id) != TaskKind::Worker)
        .map(|(id, sums)| {
            let task_type = id.and_then(|id| scene.names.types.get(&id));
            let of = polls.get(&id).copied().unwrap_or_default();
            TypeRow {
                task_type: scene.type_ref(id),
                kind: task_type.map_or(TaskKind::Task, |t| t.kind),
                file: task_type.and_then(|t| t.file.clone()),
                line: task_type.and_then(|t| t.line),
                tasks: sums.tasks,
                polls: of.count,
                busy: of.busy.saturating_add(sums.busy),
                blocked: sums.blocked,
                cpu: sums.cpu,
                in_progress: sums.in_progress,
                durations: Distribution::of(histogram(&total.durations, id), of.dur, of.longest),
                wake_delay: Distribution::of(histogram(&total.delays, id), of.delay, of.delay_longest),
                spawned: sums.spawned,
                ended: sums.ended,
            }
        })
        .collect();
    rows.sort_by_key(|r| (Reverse(r.busy), Reverse(r.cpu), r.task_type.as_ref().map(|t| t.id)));
    rows.truncate(MOST_ROWS);
    rows
}

/// The page of a task.
pub(super) fn page(scene: &mut Scene<'_>, id: TaskId, detail: Option<&TaskDetail>, intervals: &[Held]) -> TaskPage {
    let mut detail = detail.cloned().unwrap_or_default();
    detail.settle();
    let mut wakers: Vec<((Option<TaskId>, super::Tid), i64)> = detail.wakers.into_iter().collect();
    wakers.sort_unstable_by_key(|(who, count)| (Reverse(*count), *who));
    wakers.truncate(WAKERS.min(MOST_ROWS));
    let sums = scene.progress.task_sums(scene.total).remove(&id).or(scene.total.tasks.get(&id).copied());
    TaskPage {
        task: scene.task_ref(id),
        row: sums.map(|sums| row(scene, id, &sums)),
        durations: Distribution::of(detail.durations, detail.sum, detail.longest),
        wake_delay: Distribution::of(detail.delays, detail.delay_sum, detail.delay_longest),
        last_polls: detail.last.items().iter().take(LAST_POLLS).map(|newest| newest.0).collect(),
        wakers: wakers.into_iter().map(|((task, tid), count)| (waker(scene, Some(tid), task), count)).collect(),
        intervals: intervals.iter().filter(|h| h.task == id).take(MOST_ROWS).map(|h| interval(scene, h)).collect(),
        state: None,
    }
}
