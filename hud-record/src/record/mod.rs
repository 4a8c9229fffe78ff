//! Recording: from the ring buffer to a session on disk.
//!
//! What is attached (`attachment`) lives as long as hud watches a process; sessions (`session`) come and go over it, one
//! a day in a store, without an event missed (`recorder`). Each has three threads besides the caller's, which drains the
//! ring: the writer appends batches to in-flight logs and rolls them, and counts instead of writing while the disk is
//! full (`disk`); the sealer turns finished logs into Parquet and removes what is past the bounds (`retention`); the
//! namer gives stacks their names. Only channels join them. A next session is prepared, and the last one closed, on a
//! thread of its own. The drain never waits for names, and for the disk only once the writer is 64 batches behind; what
//! the ring cannot hold meanwhile is counted as lost.

mod account;
mod attachment;
mod debuginfo_reader;
mod disk;
mod drain;
mod drop_log;
mod governor;
mod identity;
mod module_kind;
mod namer;
mod queue;
mod recorder;
mod retention;
mod sealer;
mod session;
mod settings;
mod shared_manifest;
mod stacks;
mod status;
mod store;
mod switches;
mod threads;
mod vitals;
mod writer;
mod writer_status;

pub use recorder::{Finished, Recorder};
pub use settings::{Destination, Every, Keep, RollPolicy, Settings};
pub use status::{End, News, Outcome, Progress};
pub use store::Store;
