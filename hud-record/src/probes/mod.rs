//! Loading the kernel programs and attaching them to the scheduler, the CPU clock and the target's poll functions.
//!
//! `plan` selects the programs to attach; `config` and `object` are loaded in three threads (`loading`). `attached`
//! holds the attached programs: probes in the target's code (`uprobes`) can be detached and attached again during the
//! recording (`control`, `switch`). `maps` and `calibration` read and write their maps, `cost` and `trap_cost` measure
//! them. What the kernel refuses (`refusal`) is recorded as missing (`left_out`), but for context switches, without
//! which nothing is recorded.

mod attached;
mod calibration;
mod config;
mod control;
mod cost;
mod left_out;
mod loading;
mod maps;
mod object;
mod plan;
mod refusal;
mod switch;
mod trap_cost;
mod uprobes;
mod verify;

pub use attached::Probes;
pub(crate) use config::SWITCH_FLOOR;
pub(crate) use left_out::{LeftOut, lost_without};
pub use maps::stream_counters;
pub use plan::{Plan, Polls, Unwind};
pub(crate) use trap_cost::{TrapCost, has_probe_links};
pub use verify::{Checked, check};
