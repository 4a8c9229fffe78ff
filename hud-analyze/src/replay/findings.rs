//! The findings of a time range: the rules of the cockpit over the partials that replay reads.

use std::collections::HashSet;

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use hud_common::{
    cockpit::{Bucket, Mode, Names, Query, SessionFacts, Sums, TaskId, Thresholds, TypeId, View, Window},
    session::{Columns as _, FindingColumns, Table},
};

use super::{
    cache::{Cache, Pace},
    source::Replay,
};
use crate::error::{Error, Result};

/// Memory that a kept thing takes at most, about (bytes).
const A_THING: usize = 256;

impl Replay {
    /// What the rules detect between two instants, extended to whole buckets and within the session, as rows of the table
    /// `findings`. A range whose partials need more than `memory` is judged in parts, the last first.
    pub(crate) fn findings(
        &mut self,
        from: i64,
        to: i64,
        thresholds: Thresholds,
        memory: usize,
    ) -> Result<RecordBatch> {
        let mut rows = FindingColumns::default();
        let from = Bucket::of(from).max(self.limits.from);
        let mut to = Bucket::of(to.saturating_sub(1)).next().min(self.limits.to);
        let most = memory / A_THING;
        self.cache = Cache::new(most, most);
        while from < to {
            let (reader, limits) = (&self.index.reader, self.limits);
            let filled =
                self.cache.fill(reader, &self.parts, Window { from, to }, limits, &mut self.names, Pace::WHOLE);
            let window = Window { from: filled.since().unwrap_or(from).max(from), to };
            let total = self.cache.total(window, limits).into_owned();
            self.add_types(&total);
            let query = Query { at: Some(window.end()), window: window.dur(), thresholds, ..Query::default() };
            let found = View {
                query: &query,
                at: window.end(),
                partials: &self.cache.partials,
                total: Some(&total),
                names: &mut self.names,
                detail: None,
                session: SessionFacts::default(),
                mode: Mode::Replay,
                coverage_until: self.coverage_until,
                read_from: None,
            }
            .findings();
            found.iter().for_each(|finding| rows.push(finding.row(window, &thresholds)));
            to = window.from;
        }
        // Replay shows damage and continues; a list of findings must not look complete without these rows.
        match self.damage().into_iter().next() {
            Some(damage) => Err(Error::Query(damage)),
            None => Ok(rows.finish()),
        }
    }

    /// Adds the types of the tasks of these sums, whenever they were recorded.
    fn add_types(&mut self, sums: &Sums) {
        let in_away = sums.away.keys().filter_map(|(_, task)| *task);
        let tasks: HashSet<TaskId> = sums.tasks.keys().copied().chain(in_away).collect();
        let names = &mut self.names;
        for part in self.parts.iter().filter(|part| matches!(part.table, Table::Tasks | Table::Spawns)) {
            self.index.reader.read(part, &["task_id", "type_id"], (i64::MIN, i64::MAX), |batch| {
                add_types(names, &tasks, batch);
                true
            });
        }
    }
}

fn add_types(names: &mut Names, tasks: &HashSet<TaskId>, batch: &RecordBatch) {
    let column = |name| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let Some((ids, types)) = column("task_id").zip(column("type_id")) else { return };
    for (row, id) in ids.values().iter().enumerate() {
        if types.is_valid(row) && tasks.contains(&TaskId(*id)) {
            names.add_type_of(TaskId(*id), TypeId(types.value(row)));
        }
    }
}
