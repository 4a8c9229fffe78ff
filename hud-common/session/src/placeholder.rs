//! Placeholder rows for ids whose rows were lost, so that every reference resolves.

use arrow::array::RecordBatch;

use super::{
    Columns, FrameColumns, FrameRow, ModuleColumns, ModuleRow, StackColumns, StackRow, Table, TaskTypeColumns,
    TaskTypeRow, Text,
};

/// Placeholder rows of `table` for ids: the recorder was killed before it wrote their rows, or had no room for them.
pub fn unnamed(table: Table, ids: impl Iterator<Item = i64>) -> RecordBatch {
    match table {
        Table::Stacks => rows::<StackColumns>(ids.map(|stack_id| StackRow {
            stack_id,
            frame_ids: Vec::new(),
            unwind: Text::Borrowed("failed"),
        })),
        Table::Frames => rows::<FrameColumns>(ids.map(|frame_id| FrameRow {
            frame_id,
            module_id: None,
            address: 0,
            function: None,
            file: None,
            line: None,
            col: None,
            inline_depth: 0,
            origin: None,
        })),
        Table::Modules => rows::<ModuleColumns>(ids.map(|module_id| ModuleRow {
            module_id,
            path: "".into(),
            build_id: None,
            start: 0,
            end: 0,
            offset: 0,
        })),
        _ => rows::<TaskTypeColumns>(ids.map(|type_id| TaskTypeRow {
            type_id,
            name: "(lost)".into(),
            scheduler: None,
            file: None,
            line: None,
            kind: "task".into(),
            raw_name: "".into(),
        })),
    }
}

pub(super) fn rows<C: Columns>(rows: impl Iterator<Item = C::Row>) -> RecordBatch {
    let mut columns = C::default();
    rows.for_each(|row| columns.push(row));
    columns.finish()
}
