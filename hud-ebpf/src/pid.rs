//! Process and thread ids as hud sees them: those of the pid namespace that hud runs in.
//!
//! Helpers and tracepoints give the ids of the initial namespace. If hud runs in another one, as in a container, ids are
//! those of processes whose own namespace is hud's; all others have 0. The branches below are decided by constants, so
//! that a recorder in the initial namespace pays nothing.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_pidns_info,
    helpers::{bpf_probe_read_kernel, generated::bpf_get_ns_current_pid_tgid},
};
use hud_wire::Config;

use crate::maps::{config, recording, task_tgid};

/// Bytes of `struct upid`: the number, padding, and its namespace.
const UPID: u64 = 16;

/// Whether the current thread is the target's, and recording is on.
#[inline(always)]
pub fn is_target(ctx: &impl EbpfContext, config: &Config) -> bool {
    process(ctx, config) == config.tgid && recording()
}

/// Whether a task that a BTF tracepoint passes may be a thread of the target: false for those of other processes, unless hud
/// runs in an inner namespace.
///
/// The verifier knows the type of such a pointer and that the offset is constant, so this is a plain load. The helper that reads
/// any address takes 20 ns, and the lookup of a thread as long.
#[inline(always)]
pub fn may_be_of_target(task: *const u8) -> bool {
    let (offset, tgid, inode) = task_tgid();
    // SAFETY: a field of a `task_struct` that the kernel passes, at the offset by its BTF; a fault reads as 0.
    inode != 0 || unsafe { task.add(offset as usize).cast::<u32>().read_volatile() == tgid }
}

/// The id of the current process.
#[inline(always)]
fn process(ctx: &impl EbpfContext, config: &Config) -> u32 {
    if config.pidns_inode == 0 { ctx.tgid() } else { current(config).tgid }
}

/// The id of the current thread.
#[inline(always)]
pub fn thread(ctx: &impl EbpfContext, config: &Config) -> u32 {
    if config.pidns_inode == 0 { ctx.pid() } else { current(config).pid }
}

#[inline(always)]
fn current(config: &Config) -> bpf_pidns_info {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes the two ids, or zeros if the namespace is another one.
    let _ = unsafe {
        bpf_get_ns_current_pid_tgid(
            config.pidns_device,
            config.pidns_inode,
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    ids
}

/// The id of the thread with this `task_struct`.
#[inline(always)]
pub fn of(config: &Config, task: *const u8) -> u32 {
    if config.pidns_inode == 0 {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(task.add(config.task_pid as usize).cast::<u32>()) }.unwrap_or(0)
    } else {
        in_namespace(task as u64) as u32
    }
}

/// `task->thread_pid->numbers[level]`, the thread's id in its own namespace (include/linux/pid.h), if that is hud's.
#[inline(never)]
fn in_namespace(task: u64) -> u64 {
    let config = config();
    let pid = word(task + config.task_thread_pid as u64);
    let level = word(pid + config.pid_level as u64) as u32;
    let upid = pid + config.pid_numbers as u64 + level as u64 * UPID;
    let namespace = word(upid + 8);
    if word(namespace + config.pidns_inum as u64) as u32 == config.pidns_inode as u32 {
        word(upid) as u32 as u64
    } else {
        0
    }
}

/// A word of kernel memory; 0 if there is none.
#[inline(always)]
fn word(at: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const u64) }.unwrap_or(0)
}
