//! `fold(stack_id)`, `frames_of(stack_id)` and `blame(stack_id)`.
//!
//! There are many rows and few stacks: each stack of a batch is looked up once. The size of the result is computed
//! first, and reserved while it is made.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Int32Builder, Int64Array, ListArray, StringBuilder, StructArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Int64Type},
};
use datafusion::{
    common::{DataFusionError, exec_err},
    error::Result,
    execution::memory_pool::MemoryReservation,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    fold::fold,
    names::{Frame, Names},
    shared::SharedNames,
};
use crate::scalar::arguments::{Taken, coerced, over_arrays};

/// The function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Fold,
    FramesOf,
    Blame,
}

/// A call of one of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Lookup {
    kind: Kind,
    names: SharedNames,
    signature: Signature,
}

impl Lookup {
    pub(super) fn new(kind: Kind, names: SharedNames) -> Self {
        Lookup { kind, names, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn of(&self, stacks: &Int64Array) -> Result<ArrayRef> {
        // Where all is null, names are not needed.
        if stacks.null_count() == stacks.len() {
            return Ok(arrow::array::new_null_array(&self.kind.gives(), stacks.len()));
        }
        let names = self.names.get()?;
        let (distinct, places) = distinct(stacks);
        match self.kind {
            Kind::Fold => self.folded(&names, &distinct, &places),
            Kind::FramesOf => self.frames(&names, &distinct, &places),
            Kind::Blame => self.blamed(&names, &distinct, &places),
        }
    }

    fn folded(&self, names: &Names, distinct: &[i64], places: &[Option<usize>]) -> Result<ArrayRef> {
        let folded: Vec<Option<String>> = distinct.iter().map(|stack| fold(names, *stack)).collect();
        let at = |place: &Option<usize>| place.and_then(|p| folded.get(p)).and_then(Option::as_deref);
        let bytes = places.iter().map(|place| at(place).map_or(0, str::len)).sum();
        let _reserved = self.make_room(bytes)?;
        let mut out = StringBuilder::with_capacity(places.len(), bytes);
        places.iter().for_each(|place| out.append_option(at(place)));
        Ok(Arc::new(out.finish()))
    }

    fn frames(&self, names: &Names, distinct: &[i64], places: &[Option<usize>]) -> Result<ArrayRef> {
        let stacks: Vec<Option<&[i64]>> = distinct.iter().map(|stack| names.frame_ids(*stack)).collect();
        let at = |place: &Option<usize>| place.and_then(|p| *stacks.get(p)?);
        let weights: Vec<usize> =
            stacks.iter().map(|ids| ids.unwrap_or_default().iter().map(|id| weight(names.frame(*id))).sum()).collect();
        let bytes = places.iter().map(|place| place.and_then(|p| weights.get(p)).copied().unwrap_or(0)).sum();
        let _reserved = self.make_room(bytes)?;
        let mut rows = FrameRows::default();
        let mut lengths = Vec::with_capacity(places.len());
        for place in places {
            let ids = at(place).unwrap_or_default();
            ids.iter().for_each(|id| rows.push(Some(names.frame(*id).unwrap_or(&UNKNOWN))));
            lengths.push(ids.len());
        }
        let valid = places.iter().map(|place| at(place).is_some()).collect::<NullBuffer>();
        let lists =
            ListArray::try_new(item(), OffsetBuffer::from_lengths(lengths), Arc::new(rows.finish()?), Some(valid))?;
        Ok(Arc::new(lists))
    }

    fn blamed(&self, names: &Names, distinct: &[i64], places: &[Option<usize>]) -> Result<ArrayRef> {
        let blamed: Vec<Option<&Frame>> = distinct.iter().map(|stack| names.blamed(*stack)).collect();
        let at = |place: &Option<usize>| place.and_then(|p| *blamed.get(p)?);
        let bytes = places.iter().map(|place| weight(at(place))).sum();
        let _reserved = self.make_room(bytes)?;
        let mut rows = FrameRows::default();
        places.iter().for_each(|place| rows.push(at(place)));
        Ok(Arc::new(rows.finish()?))
    }

    fn make_room(&self, bytes: usize) -> Result<MemoryReservation> {
        if i32::try_from(bytes).is_err() {
            return exec_err!(
                "{} would make {bytes} bytes of one batch, more than an array holds; group by stack_id first",
                self.name()
            );
        }
        self.names.reserve(self.name(), bytes)
    }
}

impl Kind {
    fn gives(self) -> DataType {
        match self {
            Kind::Fold => DataType::Utf8,
            Kind::FramesOf => DataType::List(item()),
            Kind::Blame => DataType::Struct(fields()),
        }
    }
}

impl ScalarUDFImpl for Lookup {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Fold => "fold",
            Kind::FramesOf => "frames_of",
            Kind::Blame => "blame",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.name(), &format!("{}(stack_id)", self.name()), &[Taken::Integer], given)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.gives())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_arrays(args, |arrays| {
            let stacks = arrays.first().and_then(|array| array.as_primitive_opt::<Int64Type>()).ok_or_else(|| {
                DataFusionError::Internal("an argument is not of the type that it was cast to".into())
            })?;
            self.of(stacks)
        })
    }
}

/// The distinct stacks of a batch, and each row's index in them.
fn distinct(stacks: &Int64Array) -> (Vec<i64>, Vec<Option<usize>>) {
    let mut distinct = Vec::new();
    let mut known = HashMap::new();
    let places = stacks
        .iter()
        .map(|stack| {
            let stack = stack?;
            Some(match known.entry(stack) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(free) => {
                    distinct.push(stack);
                    *free.insert(distinct.len() - 1)
                }
            })
        })
        .collect();
    (distinct, places)
}

/// Bytes of a frame in an array.
pub(super) fn weight(frame: Option<&Frame>) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |t| t.len());
    16 + frame.map_or(0, |frame| frame.function.len() + text(&frame.file) + text(&frame.origin))
}

/// Placeholder of an unknown frame.
pub(super) static UNKNOWN: LazyLock<Frame> = LazyLock::new(|| Frame {
    function: "<unknown>".into(),
    file: None,
    line: None,
    origin: None,
    module: None,
    is_named: false,
});

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("function", DataType::Utf8, true),
        Field::new("file", DataType::Utf8, true),
        Field::new("line", DataType::Int32, true),
        Field::new("origin", DataType::Utf8, true),
    ])
}

fn item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(fields()), true))
}

/// Frames as an array of structs while it fills.
#[derive(Default)]
struct FrameRows {
    functions: StringBuilder,
    files: StringBuilder,
    lines: Int32Builder,
    origins: StringBuilder,
    valid: Vec<bool>,
}

impl FrameRows {
    fn push(&mut self, frame: Option<&Frame>) {
        self.functions.append_option(frame.map(|f| &*f.function));
        self.files.append_option(frame.and_then(|f| f.file.as_deref()));
        self.lines.append_option(frame.and_then(|f| f.line));
        self.origins.append_option(frame.and_then(|f| f.origin.as_deref()));
        self.valid.push(frame.is_some());
    }

    fn finish(mut self) -> Result<StructArray> {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(self.functions.finish()),
            Arc::new(self.files.finish()),
            Arc::new(self.lines.finish()),
            Arc::new(self.origins.finish()),
        ];
        Ok(StructArray::try_new(fields(), arrays, Some(NullBuffer::from(self.valid)))?)
    }
}
