//! hud's recorder: finds the target, attaches the kernel programs, drains their events and writes the session.
//!
//! The way of an event: ring buffer → [`record`] (drain, rows) → session (writer, sealer) on disk.

pub mod attach;
mod bpf;
mod btf;
pub mod check;
pub mod cli;
mod cost;
pub mod dump;
pub mod error;
pub mod headless;
pub mod intake;
pub mod kernel;
mod live;
mod loading;
mod memory;
pub mod names;
pub mod privilege;
pub mod probes;
mod progress;
pub mod record;
mod ring;
pub mod service;
mod switch;
pub mod tail;
pub mod target;
mod tasks;
pub mod unwind;
mod uprobes;
