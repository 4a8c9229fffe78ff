//! Steal time: the time in which a hypervisor did not run a virtual CPU that had work.
//!
//! To the guest's scheduler a thread is on its CPU meanwhile, so a poll of 4 ms from which the host took 6 ms would count as
//! one that computed for 10 ms. The kernel adds a CPU's steal time to `rq::prev_steal_time` at the next tick (kernel/sched/cputime.c,
//! `steal_account_process_time`), which is due when the host resumes the CPU. Each CPU sample and the end of each long poll
//! read that counter, and increments are kept with the time between the two readings: a poll may have lost up to that much.

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_kernel},
    macros::map,
    maps::PerCpuArray,
};
use hud_wire::Config;

use crate::maps::{config, masked};

/// Increments that are kept; with 99 readings a second those of 160 ms at least.
const KEPT: usize = 16;

/// Time that was stolen between two readings (CLOCK_MONOTONIC).
#[repr(C)]
#[derive(Clone, Copy)]
struct Increment {
    since: u64,
    until: u64,
    stolen: u64,
}

/// The readings of a CPU. A sample may interrupt a poll's end; the words are then of either, and all of them are right.
#[repr(C)]
struct Readings {
    /// The last one's time; 0 = there was none.
    read: u64,
    /// Its value (ns).
    total: u64,
    /// Number of increments so far.
    increments: u64,
    kept: [Increment; KEPT],
}

#[map]
static STEAL: PerCpuArray<Readings> = PerCpuArray::with_max_entries(1, 0);

/// Reads the counter of this CPU.
#[inline(always)]
pub fn observe(config: &Config, now: u64) -> Option<()> {
    // Constant to the verifier, which leaves the rest out.
    if config.task_cfs_rq == Config::NONE {
        return None;
    }
    let readings = STEAL.get_ptr_mut(0)?;
    // SAFETY: the helpers check the addresses.
    let total = unsafe {
        let task = bpf_get_current_task() as *const u8;
        let queue = bpf_probe_read_kernel(task.add(config.task_cfs_rq as usize).cast::<*const u8>()).ok()?;
        let queue = bpf_probe_read_kernel(queue.add(config.cfs_rq_rq as usize).cast::<*const u8>()).ok()?;
        bpf_probe_read_kernel(queue.add(config.rq_steal as usize).cast::<u64>()).ok()?
    };
    // SAFETY: words of the map's own memory, read and written one by one.
    unsafe {
        let (read, before) = ((*readings).read, (*readings).total);
        (*readings).read = now;
        (*readings).total = total;
        if read != 0 && total > before {
            let slot = masked::<{ KEPT - 1 }>((*readings).increments as usize);
            (*readings).increments += 1;
            (*readings).kept[slot] = Increment { since: read, until: now, stolen: total - before };
        }
    }
    Some(())
}

/// Maximum time that was stolen from this CPU between `since` and `now`.
#[inline(never)]
pub fn stolen(since: u64, now: u64) -> u64 {
    if observe(&config(), now).is_none() {
        return 0;
    }
    let Some(readings) = STEAL.get_ptr(0) else {
        return 0;
    };
    let mut sum = 0;
    for slot in 0..KEPT {
        // SAFETY: the map's own memory.
        let of = unsafe { (&raw const (*readings).kept[slot]).read() };
        if of.until > since {
            let within = of.until - if of.since > since { of.since } else { since };
            sum += if of.stolen < within { of.stolen } else { within };
        }
    }
    sum
}
