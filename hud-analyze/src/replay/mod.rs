//! Replay: a recorded session as a cockpit's [`Source`](hud_common::cockpit::Source), at any instant.
//!
//! ```text
//! segments and logs ─▶ files (the pages that a range touches) ─▶ cache (partials by second) ─▶ source (Snapshot)
//!                            └─▶ overview (the whole session in the background: the strip, and what tasks are)
//! ```
//! Rows are counted by the same code as live ([`Intake`](hud_common::cockpit::Intake)), each partial from all rows that
//! touch its bucket, wherever they lie. Nothing is written.

mod cache;
mod cli;
mod files;
mod findings;
mod overview;
mod source;
mod undivided;

pub(crate) use cli::{ReplayArgs, ScreenshotArgs, run, screenshot};
pub use source::Replay;
