//! From a table's definition to its row type, its column builders and its Arrow schema.

use std::{borrow::Cow, string::String, sync::Arc, vec::Vec};

use arrow::{
    array::{
        ArrayBuilder as _, ArrayRef, BooleanArray, Int32Array, Int64Array, Int64Builder, ListBuilder, RecordBatch,
        StringBuilder,
    },
    buffer::NullBuffer,
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

/// A column that may be null, while it fills.
#[derive(Default)]
pub struct Nullable<T> {
    values: Vec<T>,
    valid: Vec<bool>,
    nulls: usize,
}

impl<T: Default> Nullable<T> {
    #[inline]
    fn push(&mut self, value: Option<T>) {
        self.valid.push(value.is_some());
        self.nulls += usize::from(value.is_none());
        self.values.push(value.unwrap_or_default());
    }

    fn finish(&mut self) -> (Vec<T>, Option<NullBuffer>) {
        let valid = renew(&mut self.valid);
        let nulls = std::mem::take(&mut self.nulls);
        (renew(&mut self.values), (nulls > 0).then(|| NullBuffer::from(valid)))
    }
}

/// What has gathered; in its place there is room for as much again. By powers of two, as a batch of a full table is one
/// and they grow by doubling: what is a little short would end up twice as long as it need be, for as long as its rows are
/// kept.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len().next_power_of_two();
    std::mem::replace(values, Vec::with_capacity(room))
}

// Vectors instead of Arrow's builders, whose calls are not inlined: they took 8 % of the recorder's time in poll-storm.
macro_rules! cell {
    ($type:ty, $data_type:expr, |$values:ident, $nulls:ident| $array:expr) => {
        impl Cell for $type {
            type Builder = Vec<$type>;
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                $data_type
            }
            #[inline]
            fn append(self, builder: &mut Self::Builder) {
                builder.push(self);
            }
            fn finish(builder: &mut Self::Builder) -> ArrayRef {
                let ($values, $nulls) = (renew(builder), None);
                Arc::new($array)
            }
        }
        impl Cell for Option<$type> {
            type Builder = Nullable<$type>;
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                $data_type
            }
            #[inline]
            fn append(self, builder: &mut Self::Builder) {
                builder.push(self);
            }
            fn finish(builder: &mut Self::Builder) -> ArrayRef {
                let ($values, $nulls) = builder.finish();
                Arc::new($array)
            }
        }
    };
}
cell!(i64, DataType::Int64, |values, nulls| Int64Array::new(values.into(), nulls));
cell!(i32, DataType::Int32, |values, nulls| Int32Array::new(values.into(), nulls));
cell!(bool, DataType::Boolean, |values, nulls| BooleanArray::new(values.into(), nulls));

impl Cell for Text {
    type Builder = StringBuilder;
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    #[inline]
    fn append(self, builder: &mut StringBuilder) {
        builder.append_value(self);
    }
    fn finish(builder: &mut StringBuilder) -> ArrayRef {
        let rows = builder.len();
        let column = builder.finish();
        *builder = StringBuilder::with_capacity(rows, rows * 8);
        Arc::new(column)
    }
}

impl Cell for Option<Text> {
    type Builder = StringBuilder;
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    #[inline]
    fn append(self, builder: &mut StringBuilder) {
        builder.append_option(self);
    }
    fn finish(builder: &mut StringBuilder) -> ArrayRef {
        <Text as Cell>::finish(builder)
    }
}

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
