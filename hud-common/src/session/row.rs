//! From a table's definition to its row type, its column builders and its Arrow schema.

use std::{borrow::Cow, string::String, sync::Arc, vec::Vec};

use arrow::{
    array::{
        ArrayBuilder as _, ArrayRef, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, RecordBatch,
        StringBuilder,
    },
    datatypes::{DataType, Field, SchemaRef},
};

/// A text cell: borrowed where the set is fixed, owned where the target gave it.
pub type Text = Cow<'static, str>;

/// A type that a column can hold.
pub trait Cell: Sized {
    /// Collects the column.
    type Builder: Default + Send;
    /// Whether the column may be null.
    const NULLABLE: bool;
    /// The column's type on disk.
    fn data_type() -> DataType;
    /// Adds this cell to its column.
    fn append(self, builder: &mut Self::Builder);
    /// The column so far; the builder is empty afterwards, with room for as much again.
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

macro_rules! cell {
    ($type:ty, $builder:ty, $data_type:expr, |$value:ident| $some:expr, |$rows:ident| $roomy:expr) => {
        impl Cell for $type {
            type Builder = $builder;
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                $data_type
            }
            #[inline]
            fn append(self, builder: &mut $builder) {
                let $value = self;
                builder.append_value($some);
            }
            fn finish(builder: &mut $builder) -> ArrayRef {
                let $rows = builder.len();
                let column = builder.finish();
                *builder = $roomy;
                Arc::new(column)
            }
        }
        impl Cell for Option<$type> {
            type Builder = $builder;
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                $data_type
            }
            #[inline]
            fn append(self, builder: &mut $builder) {
                builder.append_option(self.map(|$value| $some));
            }
            fn finish(builder: &mut $builder) -> ArrayRef {
                let $rows = builder.len();
                let column = builder.finish();
                *builder = $roomy;
                Arc::new(column)
            }
        }
    };
}
cell!(i64, Int64Builder, DataType::Int64, |v| v, |rows| Int64Builder::with_capacity(rows));
cell!(i32, Int32Builder, DataType::Int32, |v| v, |rows| Int32Builder::with_capacity(rows));
cell!(bool, BooleanBuilder, DataType::Boolean, |v| v, |rows| BooleanBuilder::with_capacity(rows));
cell!(Text, StringBuilder, DataType::Utf8, |v| v, |rows| StringBuilder::with_capacity(rows, rows * 8));

impl Cell for Vec<i64> {
    type Builder = ListBuilder<Int64Builder>;
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
    }
    fn append(self, builder: &mut Self::Builder) {
        builder.values().append_slice(&self);
        builder.append(true);
    }
    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// A table's columns while they fill.
pub trait Columns: Default + Send {
    /// A row of the table.
    type Row;
    /// Which table.
    const TABLE: super::Table;
    /// Adds a row.
    fn push(&mut self, row: Self::Row);
    /// Rows so far.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The rows so far as a batch with the table's schema; the columns are empty afterwards.
    fn finish(&mut self) -> RecordBatch;
}

/// What docs and schemas need to know of a column.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type on disk.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it holds, with its unit.
    pub about: String,
}

/// A batch of `arrays` under `schema`. Both come from one macro expansion, so they always agree; should they ever
/// not, an empty batch is better than a panic in a recorder.
pub(super) fn batch(schema: SchemaRef, arrays: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap_or_else(|_| RecordBatch::new_empty(schema))
}
