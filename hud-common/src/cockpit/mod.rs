//! The cockpit's view model: everything that one screen shows at one instant over one window, as plain data.
//!
//! ```text
//! rows ─(Intake: in the tailer, in replay)─▶ Partial per bucket ─(merge)─▶ Partial of the window ─(Snapshot::of)─▶ Snapshot
//! ```
//! Live and replay run the same code, so their screens are equal for the same session, instant and window. Invariants:
//! all sums are integers; merging is associative and commutative; every ranking is a total order.
//!
//! Nothing here reads files, and only `ui` draws. Names are as the target gave them: drawing code sanitizes them
//! ([`crate::clean`]).

mod blocking;
mod code;
#[cfg(feature = "session")]
mod found;
mod gather;
mod hints;
mod histogram;
mod hotspots;
mod ids;
#[cfg(feature = "session")]
mod intake;
mod names;
mod partial;
mod rules;
mod snapshot;
mod source;
mod tasks;
mod threads;
mod thresholds;
mod totals;
#[cfg(feature = "ui")]
pub mod ui;
mod view;

pub use gather::{Buckets, Grain, OffCpuRow, PollRow, SampleRow};
pub use histogram::{Counts, Distribution, Histogram};
pub use ids::{Bucket, FrameId, Name, RuntimeId, StackId, TaskId, Tid, TypeId, Window};
#[cfg(feature = "session")]
pub use intake::Intake;
pub use names::{Frame, Names, Origin, Role, SpawnedBy, TaskKind, TaskType, Thread};
pub use partial::*;
pub use snapshot::*;
pub use source::{Query, Source, SourceError, TaskOrder};
pub use thresholds::{Threshold, ThresholdUnit, Thresholds};
pub use totals::Totals;
pub use view::View;
