//! `total(x)`: the exact sum of integers, saturating at the range of `Int64`. SQL's `sum` wraps.

use std::{mem, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray as _, BooleanArray, Decimal128Array, Int64Array},
    datatypes::{DataType, Decimal128Type, Field, FieldRef},
};
use datafusion::{
    common::{DataFusionError, ScalarValue, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};

use super::groups::{each_value, values};

/// The state's type; 2^64 values of the greatest magnitude need 38 digits.
const STATE: DataType = DataType::Decimal128(38, 0);
/// The greatest number of 38 digits.
const MOST: i128 = 10_i128.pow(38) - 1;

/// `total(x)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Total {
    signature: Signature,
}

impl Total {
    pub(super) fn new() -> Self {
        Total { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn add(sum: &mut Option<i128>, value: i128) {
    *sum = Some(sum.unwrap_or(0).saturating_add(value).clamp(-MOST, MOST));
}

fn as_integer(sum: Option<i128>) -> Option<i64> {
    sum.map(|sum| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
}

fn state(sums: Vec<Option<i128>>) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::from(sums).with_precision_and_scale(38, 0)?))
}

fn sums(arrays: &[ArrayRef]) -> Result<&Decimal128Array> {
    arrays
        .first()
        .and_then(|array| array.as_primitive_opt::<Decimal128Type>())
        .ok_or_else(|| DataFusionError::Internal("the state of a total is not what it should be".into()))
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        "total"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [given] if given.is_integer() || given.is_null() => Ok(vec![DataType::Int64]),
            _ => plan_err!("total takes one integer: write it like total(dur)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), STATE, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match args.is_distinct {
            true => plan_err!("total does not take DISTINCT"),
            false => Ok(Box::new(Single(None))),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(Vec::new())))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

struct Groups(Vec<Option<i128>>);

impl Groups {
    fn grow(&mut self, groups: usize) {
        if self.0.len() < groups {
            self.0.resize(groups, None);
        }
    }

    fn add(&mut self, group: Option<&usize>, value: i128) {
        if let Some(sum) = group.and_then(|group| self.0.get_mut(*group)) {
            add(sum, value);
        }
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        arrays: &[ArrayRef],
        indices: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        each_value(values(arrays)?, filter, |row, value| self.add(indices.get(row), value.into()));
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(emit_to.take_needed(&mut self.0).into_iter().map(as_integer).collect::<Int64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![state(emit_to.take_needed(&mut self.0))?])
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef], indices: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let sums = sums(arrays)?;
        sums.iter().enumerate().for_each(|(row, sum)| {
            if let Some(sum) = sum {
                self.add(indices.get(row), sum);
            }
        });
        Ok(())
    }

    fn convert_to_state(&self, arrays: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values(arrays)?;
        let mut rows = vec![None; values.len()];
        each_value(values, filter, |row, value| {
            if let Some(sum) = rows.get_mut(row) {
                *sum = Some(value.into());
            }
        });
        Ok(vec![state(rows)?])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.capacity() * size_of::<Option<i128>>()
    }
}

#[derive(Debug)]
struct Single(Option<i128>);

impl Accumulator for Single {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        each_value(values(arrays)?, None, |_, value| add(&mut self.0, value.into()));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(as_integer(self.0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&state(vec![mem::take(&mut self.0)])?, 0)?])
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        sums(arrays)?.iter().flatten().for_each(|sum| add(&mut self.0, sum));
        Ok(())
    }
}
