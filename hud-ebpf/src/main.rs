//! hud's kernel programs: context switches and CPU samples of the target's threads, and polls, wakes, spawns and ends of
//! its tasks.
//!
//! Each program first discards events of other processes. An off-CPU interval is assembled in the thread's state and sent
//! when the thread returns to a CPU; a poll is sent at its return. No program waits, allocates or loops without a bound.
//!
//! The verifiers of Linux 6.1 to 7.3 accept all of them (`cargo xtask kernels`). A changed line can compile to code that one
//! verifier accepts and another rejects: see [`maps::masked`].

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![allow(internal_features, reason = "atomic_xadd, see maps::count")]

mod budget;
mod maps;
mod pid;
mod poll;
mod sample;
mod sched;
mod steal;
mod task;
mod thread;
mod unwind;
mod unwind_cache;
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
