//! Answers questions about a hud session by SQL.
//!
//! ```text
//! cli ──▶ commands ──▶ fleet ──▶ output ──▶ query   sessions as a database: tables, views, planner rules
//!            └──▶ replay ◀───────────┘ ──▶ source   sessions as files: locations, snapshots, segments
//! ```
//! Each view is a file of `queries/`, embedded unchanged. Its header lists parameters and columns with their units, by which
//! output is formatted. No command writes to a session, except that a session whose recorder was killed is recovered, and
//! that `compact` and `repair` rewrite it.

mod cli;
mod commands;
pub mod error;
mod fleet;
pub mod human;
mod output;
mod progress;
mod query;
pub mod replay;
mod source;
mod threads;

pub use cli::main;
pub use commands::verify;
pub use query::{catalog, opened::Settings, session::Session, view, window};
pub use source::{recovery::State, snapshot};
