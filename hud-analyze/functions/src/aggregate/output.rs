//! Results of groups: quantiles or a histogram; and their state, for merging.

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, Int64Array, Int64Builder, ListArray, StructArray, UInt16Array, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Int64Type, UInt16Type, UInt64Type},
};
use datafusion::{
    common::{DataFusionError, exec_err, internal_err},
    error::Result,
};
use hud_common::cockpit::Histogram;

use super::sketch::Sketch;

/// The kind of result.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// One quantile, in billionths.
    Quantile(u32),
    /// Several.
    Quantiles(Vec<u32>),
    /// All buckets.
    Histogram,
}

/// The type of a list's items.
pub(super) fn histogram_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(histogram_fields()), true))
}

fn histogram_fields() -> Fields {
    let field = |name| Field::new(name, DataType::Int64, false);
    Fields::from(vec![field("lower"), field("upper"), field("count")])
}

pub(super) fn quantiles_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Int64, true))
}

/// The types of a state's columns, with their names.
pub(super) fn state_types() -> [(&'static str, DataType); 4] {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    [
        ("slots", list(DataType::UInt16)),
        ("counts", list(DataType::UInt64)),
        ("least", DataType::Int64),
        ("greatest", DataType::Int64),
    ]
}

impl Output {
    /// A row for each group; null where a group has no value.
    pub(super) fn of(&self, groups: &[Sketch]) -> Result<ArrayRef> {
        match self {
            Output::Quantile(q) => Ok(Arc::new(groups.iter().map(|group| group.quantile(*q)).collect::<Int64Array>())),
            Output::Quantiles(all) => {
                let mut values = Int64Builder::new();
                let counted = groups.iter().filter(|group| !group.is_empty());
                counted.for_each(|group| all.iter().for_each(|q| values.append_option(group.quantile(*q))));
                let lengths = groups.iter().map(|group| if group.is_empty() { 0 } else { all.len() });
                list(quantiles_item(), lengths, Arc::new(values.finish()), Some(valid(groups)))
            }
            Output::Histogram => {
                let (mut lower, mut upper, mut counts) =
                    (Int64Builder::new(), Int64Builder::new(), Int64Builder::new());
                for (slot, count) in groups.iter().flat_map(Sketch::counts) {
                    let (from, to) = Histogram::range(slot);
                    lower.append_value(from);
                    upper.append_value(to);
                    counts.append_value(i64::try_from(count).unwrap_or(i64::MAX));
                }
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(lower.finish()), Arc::new(upper.finish()), Arc::new(counts.finish())];
                let rows = StructArray::try_new(histogram_fields(), columns, None)?;
                let lengths = groups.iter().map(|group| group.counts().count());
                list(histogram_item(), lengths, Arc::new(rows), Some(valid(groups)))
            }
        }
    }
}

fn valid(groups: &[Sketch]) -> NullBuffer {
    groups.iter().map(|group| !group.is_empty()).collect()
}

fn list(
    item: Arc<Field>,
    lengths: impl Iterator<Item = usize>,
    values: ArrayRef,
    valid: Option<NullBuffer>,
) -> Result<ArrayRef> {
    if i32::try_from(values.len()).is_err() {
        return exec_err!("the groups have {} buckets, more than an array holds", values.len());
    }
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, valid)?))
}

/// Groups as columns, for merging.
pub(super) fn state(groups: &[Sketch]) -> Result<Vec<ArrayRef>> {
    let (slots, counts): (Vec<u16>, Vec<u64>) = groups.iter().flat_map(Sketch::counts).unzip();
    let lengths: Vec<usize> = groups.iter().map(|group| group.counts().count()).collect();
    let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
    Ok(vec![
        list(item(DataType::UInt16), lengths.iter().copied(), Arc::new(UInt16Array::from(slots)), None)?,
        list(item(DataType::UInt64), lengths.iter().copied(), Arc::new(UInt64Array::from(counts)), None)?,
        Arc::new(groups.iter().map(|group| group.ends().0).collect::<Int64Array>()),
        Arc::new(groups.iter().map(|group| group.ends().1).collect::<Int64Array>()),
    ])
}

/// Passes the groups of a state to `each`, with their rows.
pub(super) fn merge(columns: &[ArrayRef], mut each: impl FnMut(usize, &mut dyn FnMut(&mut Sketch))) -> Result<()> {
    let wrong = || DataFusionError::Internal("the state of a sketch is not what it should be".into());
    let [slots, counts, least, greatest] = columns else { return Err(wrong()) };
    let slots = slots.as_list_opt::<i32>().ok_or_else(wrong)?;
    let counts = counts.as_list_opt::<i32>().ok_or_else(wrong)?;
    let least = least.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let greatest = greatest.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    for row in 0..slots.len() {
        let (slots, counts) = (slots.value(row), counts.value(row));
        let slots = slots.as_primitive_opt::<UInt16Type>().ok_or_else(wrong)?;
        let counts = counts.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?;
        if slots.len() != counts.len() {
            return internal_err!("a sketch has {} buckets and {} counts", slots.len(), counts.len());
        }
        if slots.is_empty() {
            continue;
        }
        let (least, greatest) = (least.value(row), greatest.value(row));
        each(row, &mut |sketch| {
            slots.values().iter().zip(counts.values()).for_each(|(slot, count)| sketch.count(*slot, *count));
            sketch.extend(least, greatest);
        });
    }
    Ok(())
}
