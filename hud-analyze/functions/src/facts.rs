//! What the functions need to know of a session.

use std::sync::Arc;

use crate::stacks::StackSource;

/// Facts of a session that the functions need.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    /// When it began (ns since the Unix epoch): `at('+5s')` counts from there.
    pub start: i64,
    /// The first moment after its end (ns since the Unix epoch): `at('-5s')` counts back from there.
    pub end: i64,
    /// The source of its stacks' names.
    pub stacks: Arc<dyn StackSource>,
}
