//! Compaction and repair of sessions.
//!
//! Both build a copy of the session beside it, with hard links to unchanged files, verify it, and exchange the two folders
//! atomically. So there is a complete session at any time, for readers and if the process is killed.

mod bench;
mod compact;
mod error;
mod ids;
#[cfg(test)]
mod killed;
mod merge;
mod progress;
mod repair;
mod roll;
mod rows;
mod watch;

pub use bench::Place;
pub use compact::{CompactOptions, CompactedTable, Compaction, compact};
pub use error::{Error, Result};
pub use ids::Ids;
pub use progress::{Progress, Step};
pub use repair::{Repair, RepairOptions, repair};
