//! Reading a session's rows without a query engine, one batch at a time: for recovery and `verify`.

use std::path::Path;

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{Int64Type, Schema},
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{
    SessionDir, Table, Unsealed, VerifiedFile,
    error::{Error, Result},
    inflight::{InflightReader, same_type},
    verified_reader,
};

/// Rows per batch.
const BATCH: usize = 16 << 10;

/// A column that holds ids of another table's rows.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// The table that refers.
    pub from: Table,
    /// Its column; a list's items each refer.
    pub column: &'static str,
    /// The table referred to, by its key.
    pub to: Table,
}

/// Every reference between tables.
pub const REFERENCES: &[Reference] = &[
    Reference { from: Table::OffCpu, column: "stack_id", to: Table::Stacks },
    Reference { from: Table::Samples, column: "stack_id", to: Table::Stacks },
    Reference { from: Table::InProgress, column: "stack_id", to: Table::Stacks },
    Reference { from: Table::TaskStates, column: "stack_id", to: Table::Stacks },
    Reference { from: Table::Stacks, column: "frame_ids", to: Table::Frames },
    Reference { from: Table::Frames, column: "module_id", to: Table::Modules },
    Reference { from: Table::Polls, column: "type_id", to: Table::TaskTypes },
    Reference { from: Table::Tasks, column: "type_id", to: Table::TaskTypes },
    Reference { from: Table::Spawns, column: "type_id", to: Table::TaskTypes },
    Reference { from: Table::InProgress, column: "type_id", to: Table::TaskTypes },
    Reference { from: Table::TaskStates, column: "type_id", to: Table::TaskTypes },
];

/// Opens a sealed segment and checks that it has the table's columns; nullable ones may be missing.
pub fn open_segment(table: Table, path: &Path) -> Result<ParquetRecordBatchReaderBuilder<VerifiedFile>> {
    open_verified(table, VerifiedFile::open(path)?)
}

/// Like [`open_segment`], for an open file.
pub fn open_verified(table: Table, file: VerifiedFile) -> Result<ParquetRecordBatchReaderBuilder<VerifiedFile>> {
    let path = file.path().to_path_buf();
    let reader = verified_reader(file)?;
    check_schema(table, reader.schema()).map_err(|why| Error::Damaged { path, why })?;
    Ok(reader)
}

fn check_schema(table: Table, found: &Schema) -> Result<(), String> {
    for field in table.schema().fields() {
        match found.field_with_name(field.name()) {
            Ok(f) if !same_type(f.data_type(), field.data_type()) => {
                return Err(format!("its column {} is {}, not {}", field.name(), f.data_type(), field.data_type()));
            }
            Err(_) if !field.is_nullable() => return Err(format!("it has no column {}", field.name())),
            _ => {}
        }
    }
    Ok(())
}

/// Calls `each` with the batches of a sealed segment, with those of these columns that it has, in the table's order.
pub fn scan_segment(
    table: Table,
    path: &Path,
    columns: &[&str],
    each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    scan_verified(table, VerifiedFile::open(path)?, columns, each)
}

/// Like [`scan_segment`], for an open file.
pub fn scan_verified(
    table: Table,
    file: VerifiedFile,
    columns: &[&str],
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let path = file.path().to_path_buf();
    let reader = open_verified(table, file)?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
    let damaged = |why: String| Error::Damaged { path: path.clone(), why };
    let reader = reader.with_projection(mask).with_batch_size(BATCH).build().map_err(|e| damaged(e.to_string()))?;
    for batch in reader {
        each(&batch.map_err(|e| damaged(e.to_string()))?)?;
    }
    Ok(())
}

/// Calls `each` with the complete batches of a log.
pub(super) fn scan_log(
    session: &SessionDir,
    log: &Unsealed,
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<InflightReader> {
    let mut reader = session.open_log(log.table, log.number)?;
    for batch in reader.by_ref() {
        each(&batch?)?;
    }
    Ok(reader)
}

/// The integers of a column, or of the lists in it, without nulls. Empty if there is no such column.
pub fn integers(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let Some(column) = batch.column_by_name(column) else { return Vec::new() };
    let values = match column.as_list_opt::<i32>() {
        Some(lists) => lists.values(),
        None => column,
    };
    match values.as_primitive_opt::<Int64Type>() {
        Some(values) if values.null_count() == 0 => values.values().to_vec(),
        Some(values) => values.iter().flatten().collect(),
        None => Vec::new(),
    }
}

/// The strings of a column; empty ones for nulls.
pub fn texts<'a>(batch: &'a RecordBatch, column: &str) -> Vec<&'a str> {
    match batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>()) {
        Some(values) => values.iter().map(Option::unwrap_or_default).collect(),
        None => Vec::new(),
    }
}
