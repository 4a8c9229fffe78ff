//! Task state, read from the target's memory while it runs.
//!
//! Events report transitions; what does not change causes none. A worker that sleeps since before the recording began is
//! known from its stack alone (`worker_loops`). All tasks, and where each waits, are found by a search of the memory:
//!
//! - `layout`: how futures lie in memory, as plain data; `debuginfo` makes it of debug information, in the sandboxed child;
//! - `memory`: reads the target's memory without a trace in it;
//! - `scan`: finds the tasks;
//! - `chain`: walks from a task to the future that waits;
//! - `roots`: finds what threads run by `block_on`, by such walks;
//! - `spawn_sites`: where they were spawned, in programs that keep it;
//! - `dump`: all of it for one process; `waits` says what tasks wait for, `frames` where, `print` and `json` write it. Each
//!   uses those above it.

mod chain;
mod debuginfo;
mod dump;
mod frames;
mod json;
mod layout;
mod memory;
mod print;
mod roots;
mod scan;
mod spawn_sites;
mod waits;
mod worker_loops;

pub(crate) use debuginfo::DebugInfo;
pub(crate) use dump::Dump;
pub(crate) use frames::Selection;
pub(crate) use json::json;
pub(crate) use layout::Layouts;
pub(crate) use print::text;
pub(crate) use worker_loops::{WorkerLoop, WorkerLoops};
