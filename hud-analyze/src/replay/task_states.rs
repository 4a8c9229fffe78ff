//! The states of tasks around an instant of a recorded session.

use hud_common::{
    cockpit::{Bucket, Ingest, Names, STATES_REACH, States, Window},
    session::Table,
};

use arrow::{array::AsArray as _, datatypes::Int64Type};

use super::segment_reader::{Part, SegmentReader, columns, touching};

/// Length of the time range whose states are read at a time (ns): the next step of the playback needs no reading.
const SPAN: i64 = 60_000_000_000;

/// The columns of states.
fn columns_of_states(table: Table) -> &'static [&'static str] {
    match table {
        Table::TaskStates => &[
            "ts",
            "since",
            "task_id",
            "tid",
            "type_id",
            "state",
            "branch",
            "branches",
            "stack_id",
            "resource",
            "address",
            "deadline",
            "detail",
            "holder_task_id",
            "holder_tid",
            "cycle",
        ],
        _ => columns(table),
    }
}

/// States of tasks, complete for the instants of a time range.
#[derive(Default)]
pub(super) struct TaskStates {
    states: States,
    range: Option<(i64, i64)>,
}

impl TaskStates {
    /// Discards them, as there are new rows.
    pub(super) fn forget(&mut self) {
        self.range = None;
    }

    /// The states at an instant, read if they are not known.
    pub(super) fn at(&mut self, at: i64, reader: &SegmentReader, parts: &[Part], names: &mut Names) -> &mut States {
        if self.range.is_none_or(|(from, to)| at < from || to <= at) {
            let from = at.div_euclid(SPAN).saturating_mul(SPAN);
            let to = from.saturating_add(SPAN);
            self.states = read((from, to), reader, parts, names);
            self.range = Some((from, to));
        }
        &mut self.states
    }
}

fn read((from, to): (i64, i64), reader: &SegmentReader, parts: &[Part], names: &mut Names) -> States {
    let since = from.saturating_sub(STATES_REACH);
    let window = Window { from: Bucket::of(since), to: Bucket::of(to).next() };
    // Only names and states are kept: the range of buckets is empty.
    let mut ingest = Ingest::new(Bucket(0), Bucket(0)).with_states(States::default());
    ingest.names = std::mem::take(names);
    // Times of snapshots first: by them, states that no longer hold are discarded as soon as they are read.
    for table in [Table::Coverage, Table::TaskStates] {
        for part in touching(parts, window, &[table]) {
            reader.read(part, columns_of_states(table), (since, to), |batch| {
                ingest.batch(table, batch);
                let ts = batch.column_by_name("ts").and_then(|column| column.as_primitive_opt::<Int64Type>());
                let last = ts.and_then(|ts| ts.values().last()).copied();
                if let Some((states, last)) = ingest.states.as_mut().zip(last).filter(|_| table == Table::TaskStates) {
                    states.forget_before(last.min(from));
                }
                true
            });
        }
    }
    *names = std::mem::take(&mut ingest.names);
    ingest.states.unwrap_or_default()
}
