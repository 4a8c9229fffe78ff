//! Columns of a batch by name, independent of its source: a query engine returns the same values in its own types.

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray,
        new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Field, Int64Type},
    error::ArrowError,
};

use crate::Result;

fn column(batch: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef> {
    match batch.column_by_name(name) {
        // A column of a later version.
        None => Ok(new_null_array(data_type, batch.num_rows())),
        Some(column) if column.data_type() == data_type => Ok(column.clone()),
        Some(column) => Ok(cast(column, data_type)?),
    }
}

fn not(name: &str, data_type: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("its column {name} is no {data_type}"))
}

/// A column of integers, of either width.
pub(crate) struct Ints(Int64Array);

/// A column of text.
pub(crate) struct Texts(StringArray);

/// A column of booleans.
pub(crate) struct Flags(BooleanArray);

/// A column of lists of integers.
pub(crate) struct Lists(ListArray);

pub(crate) fn ints(batch: &RecordBatch, name: &str) -> Result<Ints> {
    let column = column(batch, name, &DataType::Int64)?;
    Ok(Ints(column.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| not(name, &DataType::Int64))?))
}

pub(crate) fn texts(batch: &RecordBatch, name: &str) -> Result<Texts> {
    let column = column(batch, name, &DataType::Utf8)?;
    Ok(Texts(column.as_string_opt::<i32>().cloned().ok_or_else(|| not(name, &DataType::Utf8))?))
}

pub(crate) fn flags(batch: &RecordBatch, name: &str) -> Result<Flags> {
    let column = column(batch, name, &DataType::Boolean)?;
    Ok(Flags(column.as_boolean_opt().cloned().ok_or_else(|| not(name, &DataType::Boolean))?))
}

pub(crate) fn lists(batch: &RecordBatch, name: &str) -> Result<Lists> {
    let data_type = DataType::List(Field::new_list_field(DataType::Int64, true).into());
    let column = column(batch, name, &data_type)?;
    Ok(Lists(column.as_list_opt::<i32>().cloned().ok_or_else(|| not(name, &data_type))?))
}

impl Ints {
    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        (row < self.0.len() && self.0.is_valid(row)).then(|| self.0.value(row))
    }

    /// A number of a non-null column.
    pub(crate) fn at(&self, row: usize) -> i64 {
        self.get(row).unwrap_or_default()
    }

    /// A thread id or a CPU.
    pub(crate) fn small(&self, row: usize) -> i32 {
        i32::try_from(self.at(row)).unwrap_or(-1)
    }

    pub(crate) fn get_small(&self, row: usize) -> Option<i32> {
        self.get(row).and_then(|value| i32::try_from(value).ok())
    }
}

impl Texts {
    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        (row < self.0.len() && self.0.is_valid(row)).then(|| self.0.value(row))
    }

    pub(crate) fn at(&self, row: usize) -> &str {
        self.get(row).unwrap_or_default()
    }
}

impl Flags {
    pub(crate) fn get(&self, row: usize) -> Option<bool> {
        (row < self.0.len() && self.0.is_valid(row)).then(|| self.0.value(row))
    }
}

impl Lists {
    pub(crate) fn at(&self, row: usize) -> Vec<i64> {
        if row >= self.0.len() || self.0.is_null(row) {
            return Vec::new();
        }
        let values = self.0.value(row);
        values.as_primitive_opt::<Int64Type>().map(|v| v.iter().flatten().collect()).unwrap_or_default()
    }
}
