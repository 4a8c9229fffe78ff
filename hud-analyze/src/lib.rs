//! Answers questions about a hud session by SQL.
//!
//! ```text
//! cli ──▶ run ──▶ window ──▶ view ──▶ catalog ──▶ output
//!         what     $from,    queries/   tables over   table, json,
//!         is asked $to       *.sql      the segments  csv, arrow, …
//!                                          └─ origin: where sessions lie; snapshot: segments and logs at one moment
//! ```
//! Every view is one file of `queries/`, embedded as it is: its header tells the parameters, the columns and their
//! units, and the output is formatted from that. Nothing here writes to a session, but for recovering one whose recorder was
//! killed, for merging its small segments and for mending it.

mod archive;
mod ask;
mod bounds;
pub mod catalog;
mod cli;
mod commands;
mod defaults;
mod diff;
pub mod error;
mod export;
pub mod human;
mod info;
mod lanes;
mod limits;
mod names;
mod once;
mod origin;
mod output;
mod packed;
mod progress;
mod remote;
pub mod replay;
mod run;
mod segments;
mod serial;
mod shelf;
pub mod snapshot;
mod span;
mod threads;
mod upkeep;
pub mod verify;
pub mod view;
pub mod window;

pub use cli::main;
