//! How many threads work at one answer.

use std::{num::NonZero, thread};

/// However many processors there are: hud runs beside what it watches.
const MOST: usize = 8;

/// As many as there are processors, within bounds.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}
