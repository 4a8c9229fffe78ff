//! A table's rows as this crate handles them: under the table's schema, measured, and summed so that two tables with the
//! same rows in any order have the same sum.

use std::{
    hash::{BuildHasher as _, RandomState},
    ops::{AddAssign, SubAssign},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type},
};
use hud_common::session::{Error as SessionError, Result as SessionResult, Table, VerifiedFile, open_verified};

use crate::error::{Error, Result};

/// Rows that are decoded at a time.
pub(crate) const BATCH: usize = 4096;

/// A column of a segment that the table does not have: a newer hud's.
pub(crate) fn unknown_column(table: Table, file: VerifiedFile) -> SessionResult<Option<String>> {
    let reader = open_verified(table, file)?;
    let known = table.schema();
    Ok(reader.schema().fields().iter().map(|f| f.name()).find(|n| known.index_of(n).is_err()).cloned())
}

/// The rows under the table's schema: columns that came later are null.
pub(crate) fn adapt(table: Table, path: &Path, batch: &RecordBatch) -> SessionResult<RecordBatch> {
    let schema = table.schema();
    if batch.schema() == schema {
        return Ok(batch.clone());
    }
    let damaged = |why: String| SessionError::Damaged { path: path.into(), why };
    let column = |field: &Arc<arrow::datatypes::Field>| -> SessionResult<ArrayRef> {
        match batch.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()).map_err(|e| damaged(e.to_string())),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(damaged(format!("it has no column {}", field.name()))),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<SessionResult<Vec<_>>>()?;
    RecordBatch::try_new(schema, columns).map_err(|e| damaged(e.to_string()))
}

/// The values of the table's key.
pub(crate) fn keys<'a>(table: Table, path: &Path, batch: &'a RecordBatch) -> SessionResult<&'a [i64]> {
    let column = batch.column_by_name(table.key()).and_then(|c| c.as_primitive_opt::<Int64Type>());
    match column {
        Some(column) if column.null_count() == 0 => Ok(column.values()),
        _ => Err(SessionError::Damaged { path: path.into(), why: format!("its {} is no integer", table.key()) }),
    }
}

/// What each row of a batch takes in memory, by what it holds and not by how its buffers happen to lie: the same row
/// always has the same size.
pub(crate) struct Sizes {
    fixed: u64,
    /// Columns whose items are of many sizes, with the bytes of a unit of their offsets.
    varying: Vec<(ArrayRef, u64)>,
}

impl Sizes {
    pub(crate) fn of(batch: &RecordBatch) -> Self {
        let mut sizes = Sizes { fixed: 0, varying: Vec::new() };
        for column in batch.columns() {
            sizes.fixed += match column.data_type() {
                DataType::Int64 => 8,
                DataType::Boolean => 1,
                DataType::Utf8 => {
                    sizes.varying.push((Arc::clone(column), 1));
                    4
                }
                DataType::List(_) => {
                    sizes.varying.push((Arc::clone(column), 8));
                    4
                }
                _ => 4,
            };
        }
        sizes
    }

    pub(crate) fn row(&self, row: usize) -> u64 {
        let varying = self.varying.iter().map(|(column, unit)| {
            let len = match (column.as_string_opt::<i32>(), column.as_list_opt::<i32>()) {
                (Some(texts), _) => texts.value_length(row),
                (_, Some(lists)) => lists.value_length(row),
                _ => 0,
            };
            u64::try_from(len).unwrap_or(0) * unit
        });
        self.fixed + varying.sum::<u64>()
    }
}

/// The sum of rows: how many there are, and two independent sums of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    hashes: u64,
    others: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.hashes = self.hashes.wrapping_add(other.hashes);
        self.others = self.others.wrapping_add(other.others);
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Sum) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.hashes = self.hashes.wrapping_sub(other.hashes);
        self.others = self.others.wrapping_sub(other.others);
    }
}

/// Sums rows, by a key of this process: what a stranger put into a session is not made for it.
pub(crate) struct Summer {
    texts: RandomState,
    seed: u64,
}

/// Of a cell that is null.
const NULL: u64 = 0x6e75_6c6c_6e75_6c6c;

impl Summer {
    pub(crate) fn new() -> Self {
        let texts = RandomState::new();
        let seed = texts.hash_one("hud");
        Summer { texts, seed }
    }

    /// The sum of a batch under its table's schema.
    pub(crate) fn sum(&self, batch: &RecordBatch) -> Sum {
        let mut hashes = vec![self.seed; batch.num_rows()];
        for column in batch.columns() {
            self.mix_in(&mut hashes, column);
        }
        let mut sum = Sum { rows: batch.num_rows() as u64, ..Sum::default() };
        for hash in hashes {
            sum.hashes = sum.hashes.wrapping_add(hash);
            sum.others = sum.others.wrapping_add(mix(hash, self.seed.rotate_left(32)));
        }
        sum
    }

    fn mix_in(&self, hashes: &mut [u64], column: &ArrayRef) {
        let mut put = |value: &mut dyn FnMut(usize) -> u64| {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = mix(*hash, if column.is_null(row) { NULL } else { value(row) });
            }
        };
        if let Some(values) = column.as_primitive_opt::<Int64Type>() {
            put(&mut |row| values.value(row).cast_unsigned());
        } else if let Some(values) = column.as_primitive_opt::<Int32Type>() {
            put(&mut |row| u64::from(values.value(row).cast_unsigned()));
        } else if let Some(values) = column.as_any().downcast_ref::<BooleanArray>() {
            put(&mut |row| 1 + u64::from(values.value(row)));
        } else if let Some(values) = column.as_string_opt::<i32>() {
            put(&mut |row| self.texts.hash_one(values.value(row)));
        } else if let Some(lists) = column.as_list_opt::<i32>() {
            put(&mut |row| {
                let items = lists.value(row);
                let items = items.as_primitive_opt::<Int64Type>();
                let items = items.map(|items| items.iter().collect::<Vec<_>>());
                self.texts.hash_one(items)
            });
        }
    }
}

/// A step of splitmix64.
fn mix(hash: u64, value: u64) -> u64 {
    let mut x = hash.rotate_left(23).wrapping_add(0x9e37_79b9_7f4a_7c15) ^ value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Gives `each` the batches of a sealed segment under the table's schema, in the order in which they lie.
pub(crate) fn scan(table: Table, file: VerifiedFile, mut each: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    let path = file.path().to_path_buf();
    let damaged = |why: String| SessionError::Damaged { path: path.clone(), why };
    let reader = open_verified(table, file)?.with_batch_size(BATCH).build().map_err(|e| damaged(e.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|e| damaged(one_line(&e.to_string())))?;
        each(&adapt(table, &path, &batch)?)?;
    }
    Ok(())
}

/// The first line of what a decoder says.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().into()
}

/// For `map_err`: Arrow could not make it.
pub(crate) fn arrow(path: &Path) -> impl FnOnce(arrow::error::ArrowError) -> Error {
    Error::encode(path)
}
