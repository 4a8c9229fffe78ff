//! Made-up sessions and terminals for the tests of hud's crates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of a test fails as the test does")]

mod random;
mod session;
mod terminal;

pub use random::Random;
pub use session::{MS, SECOND, Session, T0, batch, copy_folder, manifest, recording};
pub use terminal::Terminal;
