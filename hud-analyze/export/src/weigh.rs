//! Time by stack: what the formats without a time axis are made of.
//!
//! What is kept is bounded by distinct stacks, types of tasks and threads, whatever a session's length.

use std::collections::HashMap;

use crate::{
    Result,
    events::Reader,
    names::{Name, Names},
};

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) stack: Option<i64>,
    /// The type of the task; none outside tasks and where it is not known.
    pub(crate) task: Option<Name>,
    pub(crate) tid: i32,
    /// Why it was off CPU; none on it.
    pub(crate) reason: Option<&'static str>,
}

/// How much it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Samples, or stretches.
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

    /// All of them, always in the same order.
    pub(crate) fn sorted(self) -> Vec<(Key, Weight)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

/// The CPU samples, and how many they are.
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

/// The stretches off CPU, how many they are, and how many are clipped.
pub(crate) fn off_cpu(reader: &mut Reader<'_>, names: &Names) -> Result<(Sums, u64, u64)> {
    let (mut sums, mut count, mut clipped) = (Sums::default(), 0, 0);
    reader.off_cpu(|stretch| {
        count += 1;
        clipped += u64::from(stretch.span.is_clipped);
        let task = names.task_of(stretch.task).map(|task| Name::clone(&task.name));
        let reason = Some(stretch.reason());
        sums.add(Key { stack: stretch.stack, task, tid: stretch.tid, reason }, stretch.span.dur());
        Ok(())
    })?;
    Ok((sums, count, clipped))
}
