//! The cockpit's screen: a [`Snapshot`](super::Snapshot) in, a terminal out.
//!
//! ```text
//! keys, mouse, time ─▶ State::apply ─▶ State ─(query)─▶ Source ─▶ Snapshot ─┐
//!         ▲                              └──────────────────────────────────┴─▶ draw ─▶ cells, and positions
//!         └──────────────────────────────────── positions ──────────────────────┘
//! ```
//! State never draws and drawing never computes figures; only [`run`] uses a terminal, signals and a clock. Names are raw
//! until `text.rs` sanitizes and cuts them for cells.

mod axis;
mod chrome;
mod clock;
mod dials;
mod figures;
mod flame;
mod format;
mod frame;
mod help;
mod latency;
#[cfg(feature = "cli")]
mod look;
mod names;
mod overview;
mod paint;
mod panes;
#[cfg(feature = "png")]
mod png;
mod run;
mod session;
mod shapes;
mod shot;
mod state;
mod tables;
mod task;
mod term;
mod text;
mod theme;
mod timeline;
mod waiting;
mod warn;

pub use frame::draw;
#[cfg(feature = "cli")]
pub use look::LookArgs;
pub use panes::Seat;
pub use run::{Exit, Options, UiError, run, run_all};
pub use shot::Shot;
pub use state::{Drawn, Input, Scene, Screen, State, Strip};
pub use theme::{Depth, Theme};
pub use warn::{Warn, WarnError};
