//! Replay: a recorded session as a cockpit's [`Source`](hud_common::cockpit::Source), at any instant.
//!
//! ```text
//! segment_index ─▶ segment_reader (rows in a range) ─▶ cold_window, cache (partials) ─▶ source (Snapshot)
//!                                                                      └─▶ overview (scrubber, task types)
//! ```
//! Rows are counted by the same code as live ([`Ingest`](hud_common::cockpit::Ingest)): each partial from all rows that
//! touch its bucket. Nothing is written.

mod cache;
mod cold_window;
mod findings;
mod overview;
mod rollup;
mod segment_index;
mod segment_reader;
mod source;
mod task_states;

pub use source::Replay;
