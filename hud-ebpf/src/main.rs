//! hud's kernel programs: what the scheduler does to the target's threads, where its CPU time goes, and when its
//! tasks are polled, woken, spawned and over.
//!
//! Each program drops what is not the target's first thing. An off-CPU interval is put together in the thread's state
//! and sent once, when the thread is back; a poll likewise at its return. No program waits, allocates or loops
//! without a bound.
//!
//! The verifiers of Linux 6.1 to 7.3 accept them all (`cargo xtask kernels`). What LLVM makes of a changed line may suit one
//! and not another: see [`maps::masked`].

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![allow(internal_features, reason = "atomic_xadd, see maps::count")]

mod budget;
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
