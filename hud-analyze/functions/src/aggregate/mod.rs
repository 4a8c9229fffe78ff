//! Aggregates: `quantile`, `quantiles` and `histogram` over the cockpit's buckets, and `total`, a sum that does not
//! wrap.
//!
//! A quantile is by nearest rank, and given as the middle of its bucket, within the least and the greatest value: an
//! error of at most 1/32 (3.1 %). Values below 16 are exact. Negative values count as 0, as in the cockpit. Counts and
//! sums saturate instead of wrapping.

mod function;
mod groups;
mod output;
mod sketch;
mod total;

use datafusion::{logical_expr::AggregateUDF, prelude::SessionContext};

pub(crate) fn register(context: &SessionContext) {
    for kind in [function::Kind::Quantile, function::Kind::Quantiles, function::Kind::Histogram] {
        context.register_udaf(AggregateUDF::from(function::Sketching::new(kind)));
    }
    context.register_udaf(AggregateUDF::from(total::Total::new()));
}
