//! The clocks as numbers.

#![allow(dead_code, reason = "not every example uses all")]

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds, the clock of the kernel's events: `Instant` does not expose its value.
pub(crate) fn mono_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// CLOCK_REALTIME in nanoseconds, as in a session's `ts` but for the drift of the wall clock.
pub(crate) fn real_ns() -> u64 {
    clock_ns(ClockId::Realtime)
}

/// Nanoseconds that the calling thread has spent on a CPU.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

/// Nanoseconds that all threads of the process have spent on a CPU, exited ones included.
pub(crate) fn process_cpu_ns() -> u64 {
    clock_ns(ClockId::ProcessCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
