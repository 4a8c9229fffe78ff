//! Scalar functions: times and durations as people write them, and names as people write them.

pub(crate) mod arguments;
mod bucket;
mod duration;
mod moment;
mod plain;

use datafusion::{logical_expr::ScalarUDF, prelude::SessionContext};

pub use self::{duration::clock, moment::Moment};
use crate::facts::SessionFacts;

pub(crate) fn register(context: &SessionContext, session: &SessionFacts) {
    context.register_udf(ScalarUDF::from(moment::At::new(session.start, session.end)));
    context.register_udf(ScalarUDF::from(bucket::TimeBucket::new()));
    for kind in plain::Kind::ALL {
        context.register_udf(ScalarUDF::from(plain::Plain::new(kind)));
    }
}
