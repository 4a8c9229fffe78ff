//! The tailer: follows a session as it is written, and provides a [`Snapshot`](hud_common::cockpit::Snapshot) at any
//! moment.
//!
//! It reads sealed segments and in-flight logs, as any process can. So it needs no privilege, any number may follow one
//! session, and a slow one never slows the recorder. It keeps only the partials of its window and the names: its memory
//! is bounded by the window.
//!
//! ```text inotify ─▶ follow (files → batches, each row once) ─▶ Ingest (columns → partials, names) ─▶ tailer
//! (Snapshot) ```

mod follow;
pub mod summary;
mod tailer;
mod watch;

pub use tailer::{Settings, Tailer};
