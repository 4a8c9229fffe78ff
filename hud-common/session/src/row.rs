//! Types of cells and their Arrow columns.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray},
    buffer::NullBuffer,
    datatypes::{DataType, Field, SchemaRef},
};

/// A text cell: borrowed if the set is fixed, owned if it comes from the target.
pub type Text = Cow<'static, str>;

/// A type that a column can hold.
pub trait Cell: Sized {
    /// Whether the column may be null.
    const NULLABLE: bool;
    /// The column's type on disk.
    fn data_type() -> DataType;
    /// The column of `rows`; `cell` returns the cell of a row.
    fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef;
}

// Rows are collected and turned into columns a batch at a time: one pass per column, which the compiler unrolls.
macro_rules! cell {
    ($type:ty, $array:ident, $data_type:expr) => {
        impl Cell for $type {
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                $data_type
            }
            fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef {
                Arc::new($array::from(rows.iter().map(|row| *cell(row)).collect::<Vec<_>>()))
            }
        }
        impl Cell for Option<$type> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                $data_type
            }
            fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef {
                let values: Vec<_> = rows.iter().map(|row| cell(row).unwrap_or_default()).collect();
                let has_nulls = rows.iter().any(|row| cell(row).is_none());
                let nulls = has_nulls.then(|| rows.iter().map(|row| cell(row).is_some()).collect::<NullBuffer>());
                Arc::new($array::new(values.into(), nulls))
            }
        }
    };
}
cell!(i64, Int64Array, DataType::Int64);
cell!(i32, Int32Array, DataType::Int32);
cell!(bool, BooleanArray, DataType::Boolean);

impl Cell for Text {
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(cell)))
    }
}

impl Cell for Option<Text> {
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef {
        Arc::new(rows.iter().map(|row| cell(row).as_deref()).collect::<StringArray>())
    }
}

impl Cell for Vec<i64> {
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
    }
    fn column<R>(rows: &[R], cell: impl Fn(&R) -> &Self) -> ArrayRef {
        let mut lists = ListBuilder::new(Int64Builder::new());
        for row in rows {
            lists.values().append_slice(cell(row));
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

/// A column, for documents and schemas.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type on disk.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Its description, with its unit.
    pub about: String,
}

/// A batch of `arrays` with `schema`. Both come from one macro expansion, so they agree; otherwise an empty batch is better
/// than a panic in a recorder.
pub(super) fn batch(schema: SchemaRef, arrays: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap_or_else(|_| RecordBatch::new_empty(schema))
}
