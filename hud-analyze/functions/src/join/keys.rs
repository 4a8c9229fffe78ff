//! Keys of rows, for lookups in maps. A row whose key contains a null has no key: as in SQL, null equals nothing.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Int64Array},
    compute::cast,
    datatypes::{DataType, Int64Type},
    row::{RowConverter, Rows, SortField},
};
use datafusion::{common::plan_datafusion_err, error::Result};
use hashbrown::HashMap;

/// The type in which a key of both sides is compared.
pub(super) fn common_type(name: &str, left: &DataType, right: &DataType) -> Result<DataType> {
    let plain = |given: &DataType| match given {
        DataType::Dictionary(_, values) => (**values).clone(),
        given => given.clone(),
    };
    let (left, right) = (plain(left), plain(right));
    let is_text = |given: &DataType| matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    // An unsigned one of 64 bits does not fit.
    let is_integer = |given: &DataType| given.is_integer() && *given != DataType::UInt64;
    match (left, right) {
        (left, right) if is_integer(&left) && is_integer(&right) => Ok(DataType::Int64),
        (left, right) if is_text(&left) && is_text(&right) => Ok(DataType::Utf8),
        (left, right) if left == right && RowConverter::supports_fields(&[SortField::new(left.clone())]) => Ok(left),
        (left, right) => Err(plan_datafusion_err!("{name} is a {left} here and a {right} there: it cannot be a key")),
    }
}

/// How keys of some types are compared. Rows of both sides that the same one converts are equal if their keys are.
pub(super) struct Keys {
    types: Vec<DataType>,
    converter: Option<RowConverter>,
}

/// The keys of a batch.
pub(super) enum BatchKeys {
    /// Every row has the same: there is no key.
    None,
    /// One integer.
    Integers(Int64Array),
    /// Any other types; whether none of a row's values is null.
    Rows(Rows, Vec<bool>),
}

/// Values by key.
pub(super) enum ByKey {
    Integers(HashMap<i64, u32>),
    Rows(HashMap<Vec<u8>, u32>),
}

impl Keys {
    pub(super) fn try_new(types: &[DataType]) -> Result<Self> {
        let converter = match types {
            [] | [DataType::Int64] => None,
            types => Some(RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?),
        };
        Ok(Keys { types: types.to_vec(), converter })
    }

    pub(super) fn of(&self, columns: &[ArrayRef]) -> Result<BatchKeys> {
        let columns =
            columns.iter().zip(&self.types).map(|(column, data_type)| match column.data_type() == data_type {
                true => Ok(Arc::clone(column)),
                false => cast(column, data_type),
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = columns.first() else { return Ok(BatchKeys::None) };
        if let (None, Some(integers)) = (&self.converter, first.as_primitive_opt::<Int64Type>()) {
            return Ok(BatchKeys::Integers(integers.clone()));
        }
        let Some(converter) = &self.converter else { return Ok(BatchKeys::None) };
        let rows = converter.convert_columns(&columns)?;
        let valid = (0..rows.num_rows()).map(|row| columns.iter().all(|column| column.is_valid(row))).collect();
        Ok(BatchKeys::Rows(rows, valid))
    }

    pub(super) fn map(&self) -> ByKey {
        match self.converter {
            None => ByKey::Integers(HashMap::new()),
            Some(_) => ByKey::Rows(HashMap::new()),
        }
    }
}

impl BatchKeys {
    /// Bytes that they take beside the batch.
    pub(super) fn size(&self) -> usize {
        match self {
            BatchKeys::None => 0,
            BatchKeys::Integers(integers) => integers.get_array_memory_size(),
            BatchKeys::Rows(rows, valid) => rows.size() + valid.len(),
        }
    }
}

impl ByKey {
    pub(super) fn get(&self, keys: &BatchKeys, row: usize) -> Option<u32> {
        match (self, keys) {
            (ByKey::Integers(map), BatchKeys::None) => map.get(&0).copied(),
            (ByKey::Integers(map), BatchKeys::Integers(integers)) => {
                if integers.is_null(row) {
                    None
                } else {
                    map.get(&integers.value(row)).copied()
                }
            }
            (ByKey::Rows(map), BatchKeys::Rows(rows, valid)) => {
                valid.get(row).filter(|valid| **valid).and_then(|_| map.get(rows.row(row).as_ref()).copied())
            }
            _ => None,
        }
    }

    /// The index of a row's key, added if new; `None` if it has no key.
    pub(super) fn entry(&mut self, keys: &BatchKeys, row: usize, fresh: u32) -> Option<&mut u32> {
        match (self, keys) {
            (ByKey::Integers(map), BatchKeys::None) => Some(map.entry(0).or_insert(fresh)),
            (ByKey::Integers(map), BatchKeys::Integers(integers)) => {
                if integers.is_null(row) {
                    return None;
                }
                Some(map.entry(integers.value(row)).or_insert(fresh))
            }
            (ByKey::Rows(map), BatchKeys::Rows(rows, valid)) => {
                valid.get(row).filter(|valid| **valid)?;
                Some(map.entry_ref(rows.row(row).as_ref()).or_insert(fresh))
            }
            _ => None,
        }
    }

    /// Passes each key's value to `keep`, which may change it, and removes the keys for which it returns false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut u32) -> bool) {
        match self {
            ByKey::Integers(map) => {
                map.retain(|_, value| keep(value));
                map.shrink_to(map.len().saturating_mul(2));
            }
            ByKey::Rows(map) => {
                map.retain(|_, value| keep(value));
                map.shrink_to(map.len().saturating_mul(2));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            ByKey::Integers(map) => map.len(),
            ByKey::Rows(map) => map.len(),
        }
    }

    /// Bytes of keys that are not in the map itself.
    pub(super) fn key_bytes(&self) -> usize {
        match self {
            ByKey::Integers(_) => 0,
            ByKey::Rows(map) => map.keys().map(|key| key.len()).sum(),
        }
    }

    /// Bytes of the map itself.
    pub(super) fn size(&self) -> usize {
        match self {
            ByKey::Integers(map) => map.allocation_size(),
            ByKey::Rows(map) => map.allocation_size(),
        }
    }
}
