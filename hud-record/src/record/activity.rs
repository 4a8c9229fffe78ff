//! What the latest events showed of each thread: the task that it was polling, and until when.

use std::collections::HashMap;

/// Threads that are remembered.
const MOST_THREADS: usize = 65_536;
/// Slots of the last polls. Threads of one process have ids close to each other.
const POLLED: usize = 4096;

/// Consecutive observations of one task on a thread. Times are CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    /// The task; 0 = none, or a worker's loop.
    pub(super) task: u64,
    /// The first of them, and the last.
    pub(super) since: u64,
    pub(super) last: u64,
    /// The stack of the last sample.
    pub(super) stack_id: Option<i64>,
}

/// The activity of all threads.
pub(super) struct Activities {
    threads: HashMap<u32, Activity>,
    /// The end of the last poll of the threads whose id leads to a slot. If several do, it is that of any of them: a
    /// poll seems to have ended later than it did, never earlier.
    polled: Vec<u64>,
}

impl Default for Activities {
    fn default() -> Self {
        Activities { threads: HashMap::new(), polled: vec![0; POLLED] }
    }
}

impl Activities {
    fn thread(&mut self, tid: u32) -> &mut Activity {
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&tid) {
            self.threads.clear();
        }
        self.threads.entry(tid).or_default()
    }

    /// A thread was in a task, or in none (0), throughout this time.
    pub(super) fn observed(&mut self, tid: u32, task: u64, from: u64, to: u64) -> &mut Activity {
        let of = self.thread(tid);
        if of.task != task {
            *of = Activity { task, since: from, ..Activity::default() };
        }
        of.last = of.last.max(to);
        of
    }

    /// A sample hit a thread.
    pub(super) fn sampled(&mut self, tid: u32, task: u64, ts: u64, stack_id: Option<i64>) {
        self.observed(tid, task, ts, ts).stack_id = stack_id;
    }

    /// A thread's activity is unknown.
    pub(super) fn unknown(&mut self, tid: u32) {
        self.threads.remove(&tid);
    }

    /// A poll ended.
    pub(super) fn polled(&mut self, tid: u32, end: u64) {
        if let Some(slot) = self.polled.get_mut(slot(tid)) {
            *slot = end.max(*slot);
        }
    }

    /// The end of a thread's last poll, or a later time; 0 if no poll of it was recorded.
    pub(super) fn last_poll(&self, tid: u32) -> u64 {
        self.polled.get(slot(tid)).copied().unwrap_or(0)
    }

    pub(super) fn of(&self, tid: u32) -> Option<Activity> {
        self.threads.get(&tid).copied()
    }

    /// Stacks get new ids.
    pub(super) fn forget_stacks(&mut self) {
        self.threads.values_mut().for_each(|of| of.stack_id = None);
    }
}

fn slot(tid: u32) -> usize {
    usize::try_from(tid).unwrap_or(0) % POLLED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_of_one_task_are_joined() {
        let mut all = Activities::default();
        all.sampled(7, 3, 100, Some(1));
        all.observed(7, 3, 150, 200);
        let of = |all: &Activities| all.of(7).unwrap_or_default();
        assert_eq!(of(&all), Activity { task: 3, since: 100, last: 200, stack_id: Some(1) });
        all.sampled(7, 4, 300, None);
        all.sampled(7, 4, 400, Some(2));
        assert_eq!(of(&all), Activity { task: 4, since: 300, last: 400, stack_id: Some(2) });
        all.forget_stacks();
        assert_eq!(of(&all).stack_id, None);
        all.unknown(7);
        assert_eq!(all.of(7), None);
    }

    #[test]
    fn threads_that_share_a_slot_polled_last_when_any_of_them_did() {
        let mut all = Activities::default();
        let other = 7 + u32::try_from(POLLED).unwrap_or(0);
        all.polled(7, 500);
        all.polled(other, 400);
        assert_eq!((all.last_poll(7), all.last_poll(other), all.last_poll(8)), (500, 500, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut all = Activities::default();
        for tid in 0..100_000 {
            all.sampled(tid, 1, 1, None);
        }
        assert!(all.threads.len() <= MOST_THREADS && all.of(99_999).is_some());
    }
}
