//! `quantile(x, q)`, `quantiles(x, q, …)` and `histogram(x)`: arguments and results.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, FieldRef, Schema},
};
use datafusion::{
    common::{ScalarValue, plan_datafusion_err, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDFImpl, ColumnarValue, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
    physical_plan::PhysicalExpr,
};

use super::{
    groups::{Groups, Single},
    output::{Output, histogram_item, quantiles_item, state_types},
};

/// Most quantiles of one call.
const MOST_QUANTILES: usize = 100;

/// The function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Quantile,
    Quantiles,
    Histogram,
}

/// A call of one of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sketching {
    kind: Kind,
    signature: Signature,
}

impl Sketching {
    pub(super) fn new(kind: Kind) -> Self {
        Sketching { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    const fn usage(&self) -> &'static str {
        match self.kind {
            Kind::Quantile => "quantile(dur, 0.99)",
            Kind::Quantiles => "quantiles(dur, 0.5, 0.9, 0.99)",
            Kind::Histogram => "histogram(dur)",
        }
    }

    fn output(&self, args: &AccumulatorArgs<'_>) -> Result<Output> {
        if args.is_distinct {
            return plan_err!("{} does not take DISTINCT", self.name());
        }
        let quantiles = args.exprs.iter().skip(1).map(|expr| self.billionths(expr)).collect::<Result<Vec<_>>>()?;
        Ok(match self.kind {
            Kind::Quantile => Output::Quantile(quantiles.first().copied().unwrap_or_default()),
            Kind::Quantiles => Output::Quantiles(quantiles),
            Kind::Histogram => Output::Histogram,
        })
    }

    /// A constant from 0 to 1 in billionths, so that ranks are exact.
    fn billionths(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<u32> {
        let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
        match expr.evaluate(&nothing) {
            Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(q)))) if (0.0..=1.0).contains(&q) =>
            {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a billion")]
                Ok((q * 1e9).round() as u32)
            }
            Ok(ColumnarValue::Scalar(q)) => {
                plan_err!("a quantile is from 0 to 1, not {q}: write it like {}", self.usage())
            }
            _ => plan_err!("a quantile has to be constant: write it like {}", self.usage()),
        }
    }
}

impl AggregateUDFImpl for Sketching {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Quantile => "quantile",
            Kind::Quantiles => "quantiles",
            Kind::Histogram => "histogram",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let is_right_many = match self.kind {
            Kind::Quantile => given.len() == 2,
            Kind::Quantiles => (2..=MOST_QUANTILES + 1).contains(&given.len()),
            Kind::Histogram => given.len() == 1,
        };
        if !is_right_many {
            return plan_err!("{} cannot take {} arguments: write it like {}", self.name(), given.len(), self.usage());
        }
        let refused = |given: &DataType| {
            plan_datafusion_err!("{} cannot take a {given}: write it like {}", self.name(), self.usage())
        };
        let coerced = |(place, given): (usize, &DataType)| match given {
            given if place == 0 && (given.is_integer() || given.is_null()) => Ok(DataType::Int64),
            given if place > 0 && given.is_numeric() => Ok(DataType::Float64),
            given => Err(refused(given)),
        };
        given.iter().enumerate().map(coerced).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Quantile => DataType::Int64,
            Kind::Quantiles => DataType::List(quantiles_item()),
            Kind::Histogram => DataType::List(histogram_item()),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |(name, data_type)| Arc::new(Field::new(format_state_name(args.name, name), data_type, true));
        Ok(state_types().into_iter().map(field).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single::new(self.output(&args)?)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::new(self.output(&args)?)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
