//! The columns of a batch by name.

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Int32Type, Int64Type},
};

/// A batch's columns by name; a missing column, or one of another type, has no rows.
pub(super) struct Columns<'a>(pub(super) &'a RecordBatch);

/// A column that may be null.
pub(super) struct Nullable<'a>(Option<&'a Int64Array>);

impl Nullable<'_> {
    pub(super) fn get(&self, row: usize) -> Option<i64> {
        self.0.filter(|c| row < c.len() && c.is_valid(row)).map(|c| c.value(row))
    }
}

impl<'a> Columns<'a> {
    pub(super) fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        self.0.column_by_name(name)
    }

    pub(super) fn longs(&self, name: &str) -> Option<&'a [i64]> {
        Some(self.column(name)?.as_primitive_opt::<Int64Type>()?.values())
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i32]> {
        Some(self.column(name)?.as_primitive_opt::<Int32Type>()?.values())
    }

    pub(super) fn nullable(&self, name: &str) -> Nullable<'a> {
        Nullable(self.column(name).and_then(|c| c.as_primitive_opt::<Int64Type>()))
    }

    pub(super) fn nullable_ints(&self, name: &str) -> Option<&'a Int32Array> {
        self.column(name).and_then(|c| c.as_primitive_opt::<Int32Type>())
    }

    pub(super) fn flags(&self, name: &str) -> Option<&'a BooleanArray> {
        self.column(name)?.as_boolean_opt()
    }

    pub(super) fn texts(&self, name: &str) -> Option<&'a StringArray> {
        self.column(name)?.as_string_opt::<i32>()
    }
}

pub(super) fn int_at(column: Option<&Int32Array>, row: usize) -> Option<i32> {
    column.filter(|c| row < c.len() && c.is_valid(row)).map(|c| c.value(row))
}

pub(super) fn text_at(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|c| row < c.len() && c.is_valid(row)).map(|c| c.value(row))
}
