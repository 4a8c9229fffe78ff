//! Counts a window as a whole, after a jump to where few chunks are cached.
//!
//! Most tasks occur in each chunk of a window. Counting them once for the window instead of once per chunk takes less time, and
//! no sums need be added up afterwards.

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
    cockpit::{Bucket, Ingest, Merge as _, Names, Partial, Resolution, Sums, TASKS_PER_BUCKET, Window},
    session::Table,
};

use super::segment_reader::{EVENTS, Part, SegmentReader, columns, take_in, touching};
use crate::threads::threads;

/// Batches that were read and are not counted yet.
const WAITING: usize = 8;

/// A window that was counted as a whole. Its tasks, distributions and stacks are in `sums`, all else in partials too.
pub(super) struct ColdWindow {
    pub(super) window: Window,
    pub(super) sums: Sums,
    pub(super) len: usize,
}

/// Counts a window as a whole, and adds its tasks to `names`. `None` if a bucket may have more tasks than are counted.
///
/// Polls are half of the work: one thread reads them, and this one counts them. Other parts are taken by the next free thread.
pub(super) fn gather(
    reader: &SegmentReader,
    parts: &[Part],
    window: Window,
    names: &mut Names,
) -> Option<(Sums, BTreeMap<Bucket, Partial>)> {
    let (from, to) = (window.from.start(), window.to.start());
    let ingest = || Ingest::new(window.from, window.to).with_resolution(Resolution::Groups(i64::MAX, BTreeSet::new()));
    let (polls, mut rest): (Vec<&Part>, Vec<&Part>) =
        touching(parts, window, &EVENTS).partition(|part| part.table == Table::Polls);
    // Parts with task types first, by the thread that has the names and is free first; then the largest parts.
    let has_tasks = |part: &Part| matches!(part.table, Table::Spawns | Table::Tasks);
    rest.sort_by_key(|part| (!has_tasks(part), Reverse(part.rows_within(from, to))));
    let next = AtomicUsize::new(0);
    let take_rest = |ingest: &mut Ingest| {
        let parts = iter::from_fn(|| rest.get(next.fetch_add(1, Ordering::Relaxed)).copied());
        take_in(ingest, reader, parts, &mut || true);
    };
    let (give, batches) = sync_channel(WAITING);
    // Dropping the sender at the end closes the channel.
    let read_polls = move || {
        let give: SyncSender<RecordBatch> = give;
        for part in polls {
            reader.read(part, columns(part.table), (from, to), |batch| give.send(batch.clone()).is_ok());
        }
    };
    let (mut first, mut second) = (ingest(), ingest());
    second.names = mem::take(names);
    let mut others: Vec<Ingest> = (2..threads()).map(|_| ingest()).collect();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            read_polls();
            take_rest(&mut second);
        });
        let free = others.iter_mut().map(|ingest| scope.spawn(|| take_rest(ingest)));
        let threads: Vec<_> = free.chain([reader]).collect();
        batches.iter().for_each(|batch| first.batch(Table::Polls, &batch));
        take_rest(&mut first);
        // If a thread panics, its rows are missing, as those of damaged parts are.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    *names = mem::take(&mut second.names);
    let (mut groups, mut all, mut counted) = (Vec::new(), BTreeMap::new(), Vec::new());
    for mut of in [first, second].into_iter().chain(others) {
        groups.push(of.buckets.take_groups());
        let (partials, names) = of.into_parts();
        counted.push(names);
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
        counted.iter().for_each(|of| names.add_tasks(of));
        return None;
    };
    let groups = groups.into_iter().flat_map(BTreeMap::into_values);
    // Groups contain the tasks, distributions and stacks that partials lack.
    let (sums, of_partials) = thread::scope(|scope| {
        let groups = scope.spawn(|| {
            counted.iter().for_each(|of| names.add_tasks(of));
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
