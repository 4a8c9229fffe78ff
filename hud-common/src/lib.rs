//! What both halves of hud speak.
//!
//! [`wire`] is the format of the kernel's events, [`unwind`] that of the tables by which it walks stacks: the kernel program
//! links no more than these two, without `std` and without allocation.
//! `session` (a feature) is the format on disk: the only interface between recording and looking.
//! `files` (a feature) writes outputs where no other user's link can lead them.
//! `viewer` (a feature) gives up root before a session is read.
//! `cockpit` (a feature) is the view model: what a screen shows at an instant, as plain data.

#![no_std]

#[cfg(any(feature = "session", feature = "cockpit", feature = "files", feature = "viewer"))]
extern crate std;

#[cfg(any(feature = "session", feature = "cockpit", feature = "files"))]
mod clean;
#[cfg(feature = "cockpit")]
pub mod cockpit;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "session")]
pub mod session;
pub mod unwind;
#[cfg(all(feature = "viewer", target_os = "linux"))]
pub mod viewer;
pub mod wire;

#[cfg(any(feature = "session", feature = "cockpit", feature = "files"))]
pub use clean::{clean, clean_bytes, clean_name};
