//! What both halves of hud speak.
//!
//! [`wire`] is the format of the kernel's events, [`unwind`] that of the tables by which it walks stacks: the kernel program
//! links no more than these two, without `std` and without allocation.
//! `session` (a feature) is the format on disk: the only interface between recording and looking.

#![no_std]

#[cfg(feature = "session")]
extern crate std;

#[cfg(feature = "session")]
mod clean;
#[cfg(feature = "session")]
pub mod session;
pub mod unwind;
pub mod wire;

#[cfg(feature = "session")]
pub use clean::{clean, clean_bytes, clean_name};
