//! Reading a table's rows from all of its segments and logs, for recovery.

use arrow::array::RecordBatch;

use super::{
    SessionDir, Table,
    error::{Error, Result},
    scan::{integers, scan_log, scan_verified},
    segment::range,
};

/// The latest end of any event in a batch.
pub(super) fn latest(batch: &RecordBatch) -> Option<i64> {
    let starts = integers(batch, "ts");
    let durations = integers(batch, "dur");
    match durations.len() == starts.len() {
        true => starts.iter().zip(&durations).map(|(ts, dur)| ts.saturating_add(*dur)).max(),
        false => starts.into_iter().max(),
    }
}

/// Called for a sealed segment that could not be read.
pub(super) type Skip<'a> = dyn FnMut(Table, u32, Error) -> Result<()> + 'a;

/// Calls `each` with some columns of a table's batches: of all logs, and of the sealed segments whose range of the first
/// column `is_wanted` accepts.
pub(super) fn each_batch(
    session: &SessionDir,
    table: Table,
    columns: &[&str],
    is_wanted: impl Fn(Option<(i64, i64)>) -> bool,
    mut each: impl FnMut(&RecordBatch),
    skip: &mut Skip<'_>,
) -> Result<()> {
    let logs = session.unsealed()?;
    for (number, _) in session.sealed(table)? {
        if logs.iter().any(|log| log.table == table && log.number == number) {
            continue;
        }
        let done = session.open_sealed(table, number).and_then(|file| {
            let range = range(table, file.clone(), columns.first().unwrap_or(&""))?;
            match is_wanted(range) {
                true => scan_verified(table, file, columns, |batch| {
                    each(batch);
                    Ok(())
                }),
                false => Ok(()),
            }
        });
        done.or_else(|e| skip(table, number, e))?;
    }
    for log in logs.iter().filter(|log| log.table == table) {
        let read = scan_log(session, log, |batch| {
            each(batch);
            Ok(())
        });
        match read {
            // It is not part of the session.
            Err(Error::Foreign { .. }) => {}
            read => drop(read?),
        }
    }
    Ok(())
}
