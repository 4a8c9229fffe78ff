//! Recording: from the ring buffer to a session on disk.
//!
//! The attachment (`attachment`) lasts as long as hud records a process; sessions (`session`) follow each other on it,
//! one a day in a store, without missing an event (`recorder`). Each has three threads besides the caller's, which
//! drains the ring: the writer appends batches to in-flight logs and rolls them, or counts rows while the disk is full
//! (`disk`), and passes what it wrote to the rules (`rules`); the sealer turns finished logs into Parquet and removes expired segments (`retention`); the namer resolves
//! stacks. They are connected by channels only. The next session is prepared, and the last one closed, on a thread of
//! its own. The drain waits neither for symbols nor for the disk (`queue`); when the ring is full, events are counted
//! as lost.

mod account;
mod activity;
mod attachment;
mod debuginfo_reader;
mod disk;
mod drain;
mod drop_log;
mod governor;
mod identity;
mod in_progress;
mod namer;
mod queue;
mod recorder;
mod retention;
mod rules;
mod sealer;
mod session;
mod settings;
mod shared_manifest;
mod stacks;
mod status;
mod store;
mod switches;
mod task_states;
mod threads;
mod vitals;
mod writer;
mod writer_status;

pub use recorder::{Finished, Recorder};
pub use settings::{Destination, Every, Keep, RollPolicy, Settings};
pub use status::{End, News, Outcome, Progress};
pub use store::Store;
