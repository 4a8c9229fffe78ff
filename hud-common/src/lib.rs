//! What both halves of hud speak.
//!
//! [`wire`] is the format of the kernel's events and is all that the kernel program links: no `std`, no allocation.
//! `session` (a feature) is the format on disk: the only interface between recording and looking.

#![no_std]

#[cfg(feature = "session")]
extern crate std;

#[cfg(feature = "session")]
mod clean;
#[cfg(feature = "session")]
pub mod session;
pub mod wire;

#[cfg(feature = "session")]
pub use clean::{clean, clean_bytes, clean_name};
