//! From a stack's id to its frames: `fold`, `frames_of`, `blame` and the table function `stack_frames()`.
//!
//! [`Names`] is loaded once, when a query first needs it, and stays; its memory is reserved in the context's pool.

mod fold;
mod lookup;
mod names;
mod shared;
mod table;

use std::sync::Arc;

use datafusion::{error::Result, logical_expr::ScalarUDF, prelude::SessionContext};

pub use self::{
    names::{Frame, Names, NamesBuilder, StackSource},
    shared::StackBatches,
};
use crate::facts::SessionFacts;

pub(crate) fn register(context: &SessionContext, session: &SessionFacts) -> Result<()> {
    let pool = Arc::clone(&context.runtime_env().memory_pool);
    let names = shared::SharedNames::new(Arc::clone(&session.stacks), pool);
    for kind in [lookup::Kind::Fold, lookup::Kind::FramesOf, lookup::Kind::Blame] {
        context.register_udf(ScalarUDF::from(lookup::Lookup::new(kind, names.clone())));
    }
    context.register_udtf("stack_frames", Arc::new(table::StackFrames::try_new(names)?));
    Ok(())
}
