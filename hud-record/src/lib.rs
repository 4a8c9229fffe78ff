//! hud's recorder: finds the target, attaches the kernel programs, drains their events and writes the session.
//!
//! The path of an event: ring buffer → [`record`] (drain, rows) → session (writer, sealer) on disk.

mod allocator;
pub mod attach;
mod bpf;
mod btf;
pub mod check;
pub mod cli;
pub mod doctor;
pub mod dump;
pub mod error;
pub mod headless;
pub mod inspect;
pub mod kernel;
pub mod launch;
pub mod list;
mod live;
pub mod privilege;
pub mod probes;
mod progress;
pub mod record;
mod ring;
pub mod sandbox;
pub mod service;
pub mod symbols;
pub mod tail;
mod tasks;
pub mod unwind;
mod user;
pub mod values;
