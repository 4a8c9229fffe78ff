//! `time_bucket(step, ts)`: the start of the time bucket that contains an instant.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray as _, Int64Array},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion::{
    common::{DataFusionError, ScalarValue, exec_datafusion_err, plan_datafusion_err},
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        interval_arithmetic::Interval,
        preimage::PreimageResult,
        simplify::SimplifyContext,
        sort_properties::{ExprProperties, SortProperties},
    },
};

use super::{
    arguments::{Taken, coerced},
    duration::parse_duration,
};

/// The start of the bucket of `step` ns, counted from the epoch, that contains `ts`. A bucket that would begin before
/// the smallest integer begins at `i64::MIN`, so order is preserved.
pub(super) fn bucket(step: i64, ts: i64) -> i64 {
    ts.checked_rem_euclid(step).map_or(ts, |past| ts.saturating_sub(past))
}

/// `time_bucket(step, ts)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(super) fn new() -> Self {
        TimeBucket { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// A step as a number; `None` where it is null.
fn step(value: &ScalarValue) -> Result<Option<i64>, String> {
    let ns = match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(parse_duration(text)?)
        }
        ScalarValue::Int64(ns) => *ns,
        _ => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(ns)) => ns,
            _ => None,
        },
    };
    match ns {
        Some(ns) if ns <= 0 => Err(format!("time_bucket needs a step of more than 0 ns, not {ns}")),
        ns => Ok(ns),
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.name(), "time_bucket('10ms', ts)", &[Taken::TextOrInteger, Taken::Integer], given)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(Some(constant)) = args.scalar_arguments.first() {
            step(constant).map_err(|why| plan_datafusion_err!("{why}"))?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Int64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wrong = || DataFusionError::Internal("time_bucket got arguments that it does not take".into());
        let steps = args.args.first().ok_or_else(wrong)?;
        let times = args.args.get(1).ok_or_else(wrong)?;
        let failed = |why: String| exec_datafusion_err!("{why}");
        match (steps, times) {
            (ColumnarValue::Scalar(constant), ColumnarValue::Scalar(ts)) => {
                let ScalarValue::Int64(ts) = ts else { return Err(wrong()) };
                let step = step(constant).map_err(failed)?;
                let at = step.zip(*ts).map(|(step, ts)| bucket(step, ts));
                Ok(ColumnarValue::Scalar(ScalarValue::Int64(at)))
            }
            (ColumnarValue::Scalar(constant), ColumnarValue::Array(times)) => {
                let times = times.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
                let buckets: ArrayRef = match step(constant).map_err(failed)? {
                    Some(step) => Arc::new(times.unary::<_, Int64Type>(|ts| bucket(step, ts))),
                    None => Arc::new(Int64Array::new_null(args.number_rows)),
                };
                Ok(ColumnarValue::Array(buckets))
            }
            (ColumnarValue::Array(steps), times) => {
                let times = times.to_array(args.number_rows)?;
                let times = times.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
                let mut out = Int64Array::builder(args.number_rows);
                for (row, ts) in times.iter().enumerate() {
                    let step = step(&ScalarValue::try_from_array(steps, row)?).map_err(failed)?;
                    out.append_option(step.zip(ts).map(|(step, ts)| bucket(step, ts)));
                }
                Ok(ColumnarValue::Array(Arc::new(out.finish())))
            }
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(match inputs {
            [step, ts] if step.sort_properties == SortProperties::Singleton => ts.sort_properties,
            _ => SortProperties::Unordered,
        })
    }

    /// `time_bucket('1s', ts) = x` is `ts >= x AND ts < x + 1 s`, by which pages can be left out.
    fn preimage(&self, args: &[Expr], literal: &Expr, _: &SimplifyContext) -> Result<PreimageResult> {
        let ([Expr::Literal(constant, _), ts], Expr::Literal(ScalarValue::Int64(Some(at)), _)) = (args, literal) else {
            return Ok(PreimageResult::None);
        };
        let Ok(Some(step)) = step(constant) else { return Ok(PreimageResult::None) };
        let Some(end) = at.checked_add(step).filter(|_| bucket(step, *at) == *at && *at != i64::MIN) else {
            return Ok(PreimageResult::None);
        };
        let interval = Interval::try_new(ScalarValue::Int64(Some(*at)), ScalarValue::Int64(Some(end)))?;
        Ok(PreimageResult::Range { expr: ts.clone(), interval: Box::new(interval) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_aligned_and_in_order() {
        for (step, ts, at) in [(10, 0, 0), (10, 19, 10), (10, -1, -10), (10, -10, -10), (1, i64::MAX, i64::MAX)] {
            assert_eq!(bucket(step, ts), at, "{ts} by {step}");
        }
        assert_eq!(bucket(10, i64::MIN), i64::MIN);
        let _ = bucket(i64::MAX, -2);
    }
}
