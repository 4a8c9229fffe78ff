//! Loading the kernel programs and attaching them to the scheduler, the CPU clock and the target's poll functions.

mod attached;
mod cost;
mod loading;
mod switch;
mod uprobes;

pub use attached::{Checked, Plan, Polls, Probes, Unwind, check, stream_counters};
pub(crate) use attached::{LeftOut, SWITCH_FLOOR};
pub(crate) use uprobes::TrapCost;
