//! Programs that hud starts: held before their first instruction until hud has attached.
//!
//! `program` starts the program and knows how it ended, `held` stops it at its entry point, `signals` passes signals on to
//! it.

mod held;
mod program;
mod signals;

pub(crate) use held::Held;
pub use program::{Launch, Output};
pub(crate) use program::{Program, name_of};
pub(crate) use signals::forward;
