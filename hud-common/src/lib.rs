//! The crates that recorder and analyzer share, under one name.
//!
//! | module | crate | contents |
//! |---|---|---|
//! | [`wire`], [`unwind`] | `hud-wire` | events of the kernel programs and the tables by which these unwind stacks; `no_std` |
//! | `files`, `viewer` | `hud-files` | output files that no other user's link can redirect; giving up root; names made safe to print |
//! | `session` | `hud-session` | the format on disk, the only interface between recording and analysis |
//! | `units` | `hud-units` | durations, sizes and shares as text |
//! | `cockpit` | `hud-cockpit` | aggregates, snapshots, rules, and with `ui` the screen |
//!
//! Each crate depends only on those above it. All but the first are features of this crate.

#[cfg(feature = "cockpit")]
pub use hud_cockpit as cockpit;
#[cfg(all(feature = "viewer", target_os = "linux"))]
pub use hud_files::viewer;
#[cfg(feature = "files")]
pub use hud_files::{self as files, clean, clean_bytes, clean_name};
#[cfg(feature = "session")]
pub use hud_session as session;
#[cfg(feature = "units")]
pub use hud_units as units;
pub use hud_wire::{self as wire, unwind};
