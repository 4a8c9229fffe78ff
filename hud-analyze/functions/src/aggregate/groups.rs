//! Sketches of many groups at once, and of one, as DataFusion fills them.

use std::{fmt, mem};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array},
    datatypes::Int64Type,
};
use datafusion::{
    common::{DataFusionError, ScalarValue},
    error::Result,
    logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
};

use super::{
    output::{self, Output},
    sketch::Sketch,
};

pub(super) fn values(arrays: &[ArrayRef]) -> Result<&Int64Array> {
    arrays
        .first()
        .and_then(|array| array.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| DataFusionError::Internal("an argument is not of the type that it was cast to".into()))
}

/// Passes the non-null values that pass the filter to `each`, with their rows.
pub(super) fn each_value(values: &Int64Array, filter: Option<&BooleanArray>, mut each: impl FnMut(usize, i64)) {
    match (values.null_count(), filter) {
        (0, None) => values.values().iter().enumerate().for_each(|(row, value)| each(row, *value)),
        _ => {
            for (row, value) in values.iter().enumerate() {
                let is_in = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
                if let (true, Some(value)) = (is_in, value) {
                    each(row, value);
                }
            }
        }
    }
}

/// Sketches of many groups.
pub(super) struct Groups {
    output: Output,
    groups: Vec<Sketch>,
    /// Memory of the groups beside their own size.
    heap: usize,
}

impl Groups {
    pub(super) fn new(output: Output) -> Self {
        Groups { output, groups: Vec::new(), heap: 0 }
    }

    fn grow(&mut self, groups: usize) {
        if self.groups.len() < groups {
            self.groups.resize_with(groups, Sketch::default);
        }
    }

    fn change(&mut self, group: usize, change: impl FnOnce(&mut Sketch)) {
        if let Some(sketch) = self.groups.get_mut(group) {
            let before = sketch.heap();
            change(sketch);
            self.heap = self.heap.saturating_add(sketch.heap()).saturating_sub(before);
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Sketch> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.heap = self.heap.saturating_sub(taken.iter().map(Sketch::heap).sum());
        taken
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
        each_value(values(arrays)?, filter, |row, value| {
            if let Some(group) = indices.get(row) {
                self.change(*group, |sketch| sketch.record(value));
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.take(emit_to);
        self.output.of(&groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        output::state(&self.take(emit_to))
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef], indices: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        output::merge(arrays, |row, add| {
            if let Some(group) = indices.get(row) {
                self.change(*group, add);
            }
        })
    }

    fn convert_to_state(&self, arrays: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values(arrays)?;
        let mut rows = vec![Sketch::default(); values.len()];
        each_value(values, filter, |row, value| {
            if let Some(sketch) = rows.get_mut(row) {
                sketch.record(value);
            }
        });
        output::state(&rows)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<Sketch>() + self.heap
    }
}

/// The sketch of one group.
pub(super) struct Single {
    output: Output,
    sketch: Sketch,
}

impl Single {
    pub(super) fn new(output: Output) -> Self {
        Single { output, sketch: Sketch::default() }
    }
}

impl fmt::Debug for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Single").field(&self.output).finish()
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        each_value(values(arrays)?, None, |_, value| self.sketch.record(value));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.output.of(std::slice::from_ref(&self.sketch))?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sketch.heap()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = output::state(&[mem::take(&mut self.sketch)])?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        output::merge(arrays, |_, add| add(&mut self.sketch))
    }
}
