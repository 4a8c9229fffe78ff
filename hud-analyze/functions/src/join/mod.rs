//! Joins that SQL lacks, as table functions over inputs sorted by time:
//!
//! - `asof('left', 'right', 'key', …)`: every row of `left` with the last row of `right` of the same key that is not later;
//! - `within('left', 'right', 'key', …)`: every row of `left` with the innermost interval of `right` of the same key that
//!   contains it: `right.ts <= left.ts < right.ts + right.dur`.
//!
//! ```text
//! left, by ts ──┐
//!               ├─ merge ─▶ the rows of left, in their order, with columns of right
//! right, by ts ─┘  │
//!                  └ held: by key, the rows of right that a later row of left may still match
//! ```
//! One pass over both sides. Held rows are reserved in the memory pool. An input that is not sorted as declared is an
//! error.

mod function;
mod held;
mod keys;
mod kind;
mod merge;
mod plan;
mod table;

use std::sync::Arc;

use datafusion::prelude::SessionContext;

use self::kind::Kind;

pub(crate) fn register(context: &SessionContext) {
    for kind in [Kind::AsOf, Kind::Within] {
        context.register_udtf(kind.name(), Arc::new(function::Join::new(kind)));
    }
}
