//! Sessions repaired and compacted.
//!
//! Both build a successor of the session beside it, by hard links to what stays, prove it, and let it take the session's
//! place at one instant. So the session is whole at every moment, for readers and for whoever is killed.

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
