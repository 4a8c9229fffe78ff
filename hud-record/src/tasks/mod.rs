//! Task state, read from the target's memory while it runs.
//!
//! Events report transitions; what does not change causes none. A worker that sleeps since before the recording began is
//! known from its stack alone.

mod worker_loops;

pub(crate) use worker_loops::{WorkerLoop, WorkerLoops};
