//! Functions of one argument without context: `ns`, `human`, `clock`, `short_type`.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Int64Array, StringArray, StringBuilder},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion::{
    common::{DataFusionError, exec_datafusion_err, plan_datafusion_err},
    error::Result,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use hud_common::units::short_type;

use super::{
    arguments::{Taken, coerced, over_arrays},
    duration::{clock, human, parse_duration},
    moment::{constant_text, texts},
};

/// The function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Ns,
    Human,
    Clock,
    ShortType,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Ns, Kind::Human, Kind::Clock, Kind::ShortType];

    const fn name(self) -> &'static str {
        match self {
            Kind::Ns => "ns",
            Kind::Human => "human",
            Kind::Clock => "clock",
            Kind::ShortType => "short_type",
        }
    }

    const fn usage(self) -> &'static str {
        match self {
            Kind::Ns => "ns('10ms')",
            Kind::Human => "human(dur)",
            Kind::Clock => "clock(ts)",
            Kind::ShortType => "short_type(name)",
        }
    }

    const fn takes(self) -> Taken {
        match self {
            Kind::Ns => Taken::TextOrInteger,
            Kind::Human | Kind::Clock => Taken::Integer,
            Kind::ShortType => Taken::Text,
        }
    }

    const fn gives(self) -> DataType {
        match self {
            Kind::Ns => DataType::Int64,
            _ => DataType::Utf8,
        }
    }
}

/// A call of one of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Plain {
    kind: Kind,
    signature: Signature,
}

impl Plain {
    pub(super) fn new(kind: Kind) -> Self {
        Plain { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.name(), self.kind.usage(), &[self.kind.takes()], given)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.gives())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if self.kind == Kind::Ns
            && let Some(text) = constant_text(args.scalar_arguments.first())
        {
            parse_duration(text).map_err(|why| plan_datafusion_err!("{why}"))?;
        }
        Ok(Arc::new(Field::new(self.name(), self.kind.gives(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_arrays(args, |arrays| match self.kind {
            Kind::Ns => durations(arrays),
            Kind::Human => Ok(Arc::new(integers(arrays)?.iter().map(|ns| ns.map(human)).collect::<StringArray>())),
            Kind::Clock => Ok(Arc::new(integers(arrays)?.iter().map(|ts| ts.map(clock)).collect::<StringArray>())),
            Kind::ShortType => short_types(arrays),
        })
    }
}

fn integers(arrays: &[ArrayRef]) -> Result<&Int64Array> {
    arrays
        .first()
        .and_then(|array| array.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| DataFusionError::Internal("an argument is not of the type that it was cast to".into()))
}

fn durations(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    if let Ok(integers) = integers(arrays) {
        return Ok(Arc::new(integers.clone()));
    }
    let parse =
        |text: Option<&str>| text.map(|t| parse_duration(t).map_err(|why| exec_datafusion_err!("{why}"))).transpose();
    Ok(Arc::new(texts(arrays.first())?.iter().map(parse).collect::<Result<Int64Array>>()?))
}

/// Consecutive names are often equal: the last one is cached.
fn short_types(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let names = texts(arrays.first())?;
    let mut out = StringBuilder::with_capacity(names.len(), names.len().saturating_mul(16));
    let mut last: Option<(&str, String)> = None;
    let mut bytes = 0_usize;
    for name in names {
        let Some(name) = name else {
            out.append_null();
            continue;
        };
        let short = match &last {
            Some((known, short)) if *known == name => short,
            _ => &last.insert((name, short_type(name))).1,
        };
        // Sanitizing hostile text makes it up to ten times longer.
        bytes = bytes.saturating_add(short.len());
        if i32::try_from(bytes).is_err() {
            return Err(exec_datafusion_err!("the names of one batch are too long: 2 GiB and more"));
        }
        out.append_value(short);
    }
    Ok(Arc::new(out.finish()))
}
