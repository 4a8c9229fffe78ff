//! The tailer: follows a session as it is written, and has a [`Snapshot`](hud_common::cockpit::Snapshot) of it at any moment.
//!
//! It reads what any other process could: sealed segments and in-flight logs. So it needs no privilege, any number may
//! look at one session, and a slow one never slows the recorder. It keeps the partials of its window and the names,
//! nothing else: its memory is bounded by the window.
//!
//! ```text
//! inotify ─▶ follow (files → batches, each row once) ─▶ Intake (columns → partials, names) ─▶ tailer (Snapshot)
//! ```

mod follow;
pub mod summary;
mod tailer;
mod watch;

pub use tailer::{Settings, Tailer};
