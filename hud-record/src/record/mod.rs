//! Recording: from the ring buffer to a session on disk.
//!
//! Three threads besides the caller's, which drains the ring: the writer appends batches to in-flight logs and rolls
//! them, the sealer turns finished logs into Parquet, the namer gives stacks their names. Only channels join them. The
//! drain never waits for names, and for the disk only once the writer is 64 batches behind; what the ring cannot hold
//! meanwhile is counted as lost.

mod account;
mod attachment;
mod disk;
mod drain;
mod governor;
mod identity;
mod learner;
mod namer;
mod origin;
mod recorder;
mod retention;
mod sealer;
mod session;
mod stacks;
mod store;
mod threads;
mod vitals;
mod writer;

pub use recorder::{End, Every, Finished, News, Place, Recorder, Settings};
pub use retention::Keep;
pub use session::{Outcome, Progress};
pub use store::Store;
pub use writer::RollPolicy;
