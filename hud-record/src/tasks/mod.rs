//! Task state, read from the target's memory while it runs.
//!
//! Events report transitions; a constant state causes none. A worker that has slept since before the recording began is
//! known by its stack only (`worker_loops`), and so is the task that it is polling (`current_tasks`); both use
//! `thread_memory`. All tasks, and where each waits, are found by a search of the memory:
//!
//! - `layout`: the memory layout of futures, as plain data; `debuginfo` reads it from debug information, in the
//!   sandboxed child;
//! - `memory`: reads the target's memory without changing it;
//! - `scan`: finds the tasks;
//! - `chain`: walks from a task to the future that waits;
//! - `roots`: finds the futures that threads run by `block_on`, by such walks;
//! - `spawn_sites`: where tasks were spawned, if the program records it;
//! - `threads`: the threads with their stacks;
//! - `dump`: all of it for one process; `waits` describes the resources, `frames` the lines, `print`, `print_threads`, `json`
//!   and `dot` write it; `states` is what a recording takes from it. Each uses those above it.

mod chain;
mod current_tasks;
mod debuginfo;
mod dot;
mod dump;
mod frames;
mod json;
mod layout;
mod memory;
mod print;
mod print_threads;
mod roots;
mod scan;
mod spawn_sites;
mod states;
mod thread_memory;
mod threads;
mod waits;
mod worker_loops;

pub(crate) use current_tasks::{CurrentTasks, Scheduled};
pub(crate) use debuginfo::DebugInfo;
pub(crate) use dot::dot;
pub(crate) use dump::{Dump, Reader};
pub(crate) use frames::Selection;
pub(crate) use json::json;
pub(crate) use layout::Layouts;
pub(crate) use print::text;
pub(crate) use states::{AwaitFrame, AwaitStack, Snapshot, StateReader, TaskState, Who};
pub(crate) use thread_memory::RunningTask;
pub(crate) use worker_loops::{WorkerLoop, WorkerLoops};
