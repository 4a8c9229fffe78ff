//! Recording: from the ring buffer to a session on disk.
//!
//! Three threads besides the caller's, which drains the ring: the writer appends batches to in-flight logs and rolls
//! them, the sealer turns finished logs into Parquet, the namer gives stacks their names. Only channels join them. The
//! drain never waits for names, and for the disk only once the writer is 64 batches behind; what the ring cannot hold
//! meanwhile is counted as lost.

mod account;
mod drain;
mod governor;
mod namer;
mod origin;
mod recorder;
mod stacks;
mod threads;
mod vitals;
mod writer;

pub use recorder::{Outcome, Progress, Recorder, Settings};
pub use writer::RollPolicy;
