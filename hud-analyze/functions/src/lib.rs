//! SQL functions of hud, for DataFusion.
//!
//! | module | functions |
//! |---|---|
//! | [`scalar`] | times and durations as people write them, buckets of time, short names |
//! | [`stacks`] | from a stack's id to its frames; names are loaded once, on first use |
//! | [`aggregate`] | quantiles and histograms over the cockpit's buckets, sums that do not wrap |
//! | [`join`] | as-of and interval joins over inputs sorted by time, in one pass |
//! | [`bounded`] | limits for DataFusion's functions with unbounded results |
//!
//! Invariants: memory that grows with the data is reserved in the memory pool; no input, however hostile, panics;
//! constants are evaluated at planning, so that `ts >= at('+5s')` prunes.

pub mod aggregate;
pub mod bounded;
mod docs;
mod facts;
pub mod join;
pub mod scalar;
pub mod stacks;

use datafusion::{error::Result, prelude::SessionContext};

pub use crate::{
    docs::{FunctionDoc, FunctionKind, catalog},
    facts::SessionFacts,
    scalar::{Moment, clock},
    stacks::{Names, NamesBuilder, StackBatches, StackSource},
};

/// Registers every function of this crate in `context`, replacing those of the same name, so a session that has grown
/// may be registered again.
pub fn register(context: &SessionContext, session: &SessionFacts) -> Result<()> {
    scalar::register(context, session);
    stacks::register(context, session)?;
    aggregate::register(context);
    join::register(context);
    Ok(())
}
