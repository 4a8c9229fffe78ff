//! The cockpit's screen: a [`Snapshot`](super::Snapshot) in, a terminal out.
//!
//! ```text
//! keys, mouse, time ─▶ State::apply ─▶ State ─(query)─▶ Source ─▶ Snapshot ─┐
//!         ▲                              └──────────────────────────────────┴─▶ draw ─▶ cells, and what is where
//!         └────────────────────────────────── what is where ────────────────────┘
//! ```
//! State never draws and drawing never computes figures; [`run`] alone knows of a terminal, of signals and of a clock.
//! Names are as the target gave them until `text.rs` cleans and cuts them, on their way into cells.

mod chrome;
mod flame;
mod format;
mod frame;
mod help;
mod keys;
mod latency;
mod lists;
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
mod strip;
mod tables;
mod task;
mod term;
mod text;
mod theme;
mod timeline;
mod warn;

pub use frame::draw;
#[cfg(feature = "cli")]
pub use look::LookArgs;
pub use panes::Seat;
pub use run::{Exit, Options, UiError, run, run_all};
pub use shot::Shot;
pub use state::{Drawn, Input, Scene, Screen, State};
pub use strip::Strip;
pub use theme::{Depth, Theme};
pub use warn::{Warn, WarnError};
