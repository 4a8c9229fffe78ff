//! A window at once and undivided.
//!
//! Who jumps to where little is known waits for all of a window, and most tasks are met in each of its chunks anew. So its
//! tasks are counted in one place, and nothing is to be added up afterwards.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    iter, mem,
    panic::resume_unwind,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use arrow::array::RecordBatch;
use hud_common::{
    cockpit::{Bucket, Grain, Intake, Merge as _, Names, Partial, Sums, TASKS_PER_BUCKET, Window},
    session::Table,
};

use super::{
    cache::{take_in, touching},
    files::{EVENTS, Part, Shelf, columns},
};
use crate::threads::threads;

/// Batches that were read and wait to be taken in.
const WAITING: usize = 8;

/// A window that was gathered undivided: beside its partials, which have sums but for tasks, distributions and stacks.
pub(super) struct Undivided {
    pub(super) window: Window,
    pub(super) sums: Sums,
    pub(super) len: usize,
}

/// Gathers a window undivided; what its rows say of tasks goes to `names`. `None` where a bucket may have had too many tasks
/// to count them all.
///
/// Polls are half of the work: one thread reads them and this one takes them in. The rest is done, part by part, by whoever
/// is free.
pub(super) fn gather(
    shelf: &Shelf,
    parts: &[Part],
    window: Window,
    names: &mut Names,
) -> Option<(Sums, BTreeMap<Bucket, Partial>)> {
    let (from, to) = (window.from.start(), window.to.start());
    let intake = || Intake::new(window.from, window.to).with_grain(Grain::Groups(i64::MAX, BTreeSet::new()));
    let (polls, mut rest): (Vec<&Part>, Vec<&Part>) =
        touching(parts, window, &EVENTS).partition(|part| part.table == Table::Polls);
    // What tells of tasks goes to whoever is free first: the one who has their names. Then what takes longest.
    let tells_of_tasks = |part: &Part| matches!(part.table, Table::Spawns | Table::Tasks);
    rest.sort_by_key(|part| (!tells_of_tasks(part), Reverse(part.rows_within(from, to))));
    let next = AtomicUsize::new(0);
    let take_rest = |intake: &mut Intake| {
        let parts = iter::from_fn(|| rest.get(next.fetch_add(1, Ordering::Relaxed)).copied());
        take_in(intake, shelf, parts, &mut || true);
    };
    let (give, batches) = sync_channel(WAITING);
    // When it is done, the channel is closed.
    let read_polls = move || {
        let give: SyncSender<RecordBatch> = give;
        for part in polls {
            shelf.read(part, columns(part.table), (from, to), |batch| give.send(batch.clone()).is_ok());
        }
    };
    let (mut first, mut second) = (intake(), intake());
    second.names = mem::take(names);
    let mut others: Vec<Intake> = (2..threads()).map(|_| intake()).collect();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            read_polls();
            take_rest(&mut second);
        });
        let free = others.iter_mut().map(|intake| scope.spawn(|| take_rest(intake)));
        let threads: Vec<_> = free.chain([reader]).collect();
        batches.iter().for_each(|batch| first.batch(Table::Polls, &batch));
        take_rest(&mut first);
        // What one of them could not do is missing, as what is damaged.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    *names = mem::take(&mut second.names);
    let (mut groups, mut all, mut told) = (Vec::new(), BTreeMap::new(), Vec::new());
    for mut of in [first, second].into_iter().chain(others) {
        groups.push(of.buckets.take_groups());
        let (partials, names) = of.into_parts();
        told.push(names);
        for (bucket, partial) in partials {
            match all.entry(bucket) {
                Entry::Vacant(free) => drop(free.insert(partial)),
                Entry::Occupied(mut known) => Partial::merge(known.get_mut(), &partial),
            }
        }
    }
    all.values_mut().for_each(Partial::settle);
    let groups: Option<Vec<_>> = groups.into_iter().collect();
    let Some(groups) = groups else {
        told.iter().for_each(|told| names.add_tasks(told));
        return None;
    };
    let groups = groups.into_iter().flat_map(BTreeMap::into_values);
    // Groups have what partials have not.
    let (sums, of_partials) = thread::scope(|scope| {
        let groups = scope.spawn(|| {
            told.iter().for_each(|told| names.add_tasks(told));
            groups.reduce(|sums, group| merged(sums, &group)).unwrap_or_default()
        });
        let partials = all.values().fold(Sums::default(), |sums, partial| merged(sums, &partial.sums));
        (groups.join().unwrap_or_else(|panic| resume_unwind(panic)), partials)
    });
    let sums = merged(sums, &of_partials);
    (sums.tasks.len() <= TASKS_PER_BUCKET).then_some((sums, all))
}

fn merged(mut sums: Sums, other: &Sums) -> Sums {
    sums.merge(other);
    sums
}
