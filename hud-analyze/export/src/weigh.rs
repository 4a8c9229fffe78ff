//! Time by stack: the input of formats without a time axis.
//!
//! Memory is bounded by distinct stacks, task types and threads, independent of a session's length.

use std::collections::HashMap;

use crate::{
    Result,
    events::Reader,
    names::{Name, Names},
};

/// The key of a sum.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) stack: Option<i64>,
    /// The task's type; none outside tasks and if unknown.
    pub(crate) task: Option<Name>,
    pub(crate) tid: i32,
    /// Reason of the off-CPU interval; none for samples.
    pub(crate) reason: Option<&'static str>,
}

/// A sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Samples, or off-CPU intervals.
    pub(crate) count: i64,
    /// Time (ns).
    pub(crate) ns: i64,
}

/// Sums of one kind.
#[derive(Debug, Default)]
pub(crate) struct Sums(HashMap<Key, Weight>);

impl Sums {
    fn add(&mut self, key: Key, ns: i64) {
        let sum = self.0.entry(key).or_default();
        sum.count = sum.count.saturating_add(1);
        sum.ns = sum.ns.saturating_add(ns.max(0));
    }

    /// All sums, always in the same order.
    pub(crate) fn sorted(self) -> Vec<(Key, Weight)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

/// The CPU samples, and their number.
pub(crate) fn cpu(reader: &mut Reader<'_>, names: &Names) -> Result<(Sums, u64)> {
    let (mut sums, mut count) = (Sums::default(), 0);
    reader.samples(|sample| {
        count += 1;
        let task = names.task_of(sample.task).map(|task| Name::clone(&task.name));
        sums.add(Key { stack: sample.stack, task, tid: sample.tid, reason: None }, sample.weight);
        Ok(())
    })?;
    Ok((sums, count))
}

/// The off-CPU intervals, their number, and the number of clipped ones.
pub(crate) fn off_cpu(reader: &mut Reader<'_>, names: &Names) -> Result<(Sums, u64, u64)> {
    let (mut sums, mut count, mut clipped) = (Sums::default(), 0, 0);
    reader.off_cpu(|interval| {
        count += 1;
        clipped += u64::from(interval.span.is_clipped);
        let task = names.task_of(interval.task).map(|task| Name::clone(&task.name));
        let reason = Some(interval.reason());
        sums.add(Key { stack: interval.stack, task, tid: interval.tid, reason }, interval.span.dur());
        Ok(())
    })?;
    Ok((sums, count, clipped))
}

/// The waits of tasks, and their number.
pub(crate) fn awaits(reader: &mut Reader<'_>, names: &Names) -> Result<(Sums, u64)> {
    let (mut sums, mut count) = (Sums::default(), 0);
    reader.awaits(|wait| {
        count += 1;
        let type_id = names.type_of(wait.task, wait.type_id);
        let task = names.task_type(type_id).map(|task| Name::clone(&task.name));
        sums.add(Key { stack: wait.stack, task, tid: 0, reason: None }, wait.span.dur());
        Ok(())
    })?;
    Ok((sums, count))
}
