//! The cockpit's view model: the content of a screen at one instant over one window, as plain data.
//!
//! ```text
//! rows ─(Ingest: in the tailer, in replay)─▶ Partial per bucket ─(merge)─▶ Partial of the window ─(Snapshot::of)─▶ Snapshot
//! ```
//! Live and replay run the same code, so their screens are equal for the same session, instant and window. Invariants:
//! all sums are integers; merging is associative and commutative; every ranking is a total order.
//!
//! Nothing here reads files, and only `ui` draws. Names are raw: drawing code sanitizes them
//! ([`hud_files::clean`]).

mod aggregate;
mod blocking;
mod code;
#[cfg(feature = "session")]
mod columns;
mod deadlocks;
mod dial;
mod dials;
mod endings;
mod entities;
mod filter;
#[cfg(feature = "session")]
mod found;
mod growth;
mod histogram;
mod hotspots;
mod ids;
mod index_cache;
#[cfg(feature = "session")]
mod ingest;
mod kept_rows;
mod lane_cell;
mod lane_columns;
mod lock_owners;
mod merge;
mod names;
mod observed;
mod partial;
mod progress;
#[cfg(feature = "session")]
mod rollup;
#[cfg(feature = "session")]
mod rollup_rows;
mod rule;
mod rules;
mod scene;
mod sentence;
mod short_sleeps;
mod sliding_window;
mod snapshot;
mod source;
#[cfg(feature = "session")]
mod state_rows;
mod states;
mod storms;
mod suspended;
mod task_state;
mod tasks;
mod threads;
mod thresholds;
#[cfg(feature = "ui")]
pub mod ui;
mod view;
mod waiting;

#[cfg(any(feature = "session", feature = "ui"))]
use hud_files::clean;
#[cfg(feature = "session")]
use hud_session as session;
use hud_wire as wire;

pub use aggregate::{Buckets, OffCpuRow, PollRow, RANGE, Resolution, SampleRow};
pub use dial::{Dial, Dials};
pub use entities::{FlameKind, Frame, Origin, Place, Role, SpawnedBy, TaskKind, TaskRef, TaskType, Thread, TypeRef};
pub use histogram::{Counts, Distribution, Histogram};
pub use ids::{Bucket, FrameId, Name, RuntimeId, StackId, TaskId, Tid, TypeId, Window};
#[cfg(feature = "session")]
pub use ingest::Ingest;
pub use kept_rows::*;
pub use lane_cell::{Activity, LaneCell, lane_cells};
pub use lane_columns::LaneColumn;
pub use merge::*;
pub use names::Names;
pub use partial::*;
#[cfg(feature = "session")]
pub use rollup::Rollup;
#[cfg(feature = "session")]
pub use rollup_rows::{MINUTE, Minutes};
pub use rule::Rule;
pub use sliding_window::Totals;
pub use snapshot::*;
pub use source::{Query, Source, SourceError, TaskOrder};
pub use states::{STATES_REACH, StateRow, States};
pub use task_state::{TaskState, Wait, Who};
pub use thresholds::{Threshold, ThresholdUnit, Thresholds};
pub use view::View;
pub use waiting::{AwaitedBy, StateCounts, StateNow, Waiter, Waiting, WaitingPlace, WaitingTask};
