//! hud's kernel programs: what the scheduler does to the target's threads, where its CPU time goes, and when its
//! tasks are polled, woken, spawned and over.
//!
//! Each program drops what is not the target's first thing. A stretch off CPU is put together in the thread's state
//! and sent once, when the thread is back; a poll likewise at its return. No program waits, allocates or loops
//! without a bound.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic_xadd, see maps::count")]

mod maps;
mod poll;
mod sample;
mod sched;
mod task;
mod thread;
mod trail;
mod unwind;
mod wake;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that aya declares GPL-only want this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
