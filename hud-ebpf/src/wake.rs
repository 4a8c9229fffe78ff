//! Wakes and spawns of tasks: `wake_by_val`, `wake_by_ref` and `OwnedTasks::bind_inner`.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::uprobe, programs::ProbeContext};
use hud_wire::{EventKind, SpawnEvent, Stream, TaskWakeEvent, WakeEvent};

use crate::{
    maps::{config, count, on_own_stack, probes_since, send, woke},
    pid,
    poll::{COMPLETE, NOTIFIED},
    task::{self, Header},
    thread,
};

/// `tokio::runtime::task::waker::wake_by_{val,ref}(ptr: *const ())` is entered, or has just been; `ptr` is the task's
/// header.
///
/// There is no event if the task is notified already or has ended, so each event leads to one poll.
#[uprobe]
pub fn task_wake(ctx: ProbeContext) -> u32 {
    let config = config();
    on_own_stack(&ctx, &config);
    if !pid::is_target(&ctx, &config) || config.polls == 0 {
        return 0;
    }
    count!(other_hits);
    if probes_since() == 0 {
        return 0;
    }
    // SAFETY: the kernel passes valid registers.
    let at = unsafe { (*ctx.regs).rdi };
    let Some(header) = Header::read(at) else {
        return 0;
    };
    if header.state & (COMPLETE | NOTIFIED) != 0 {
        return 0;
    }
    let task_id = header.id(&config, at);
    if task_id == 0 {
        return 0;
    }
    let tid = pid::thread(&ctx, &config);
    let Some(state) = thread::current(tid, Stream::Wakes) else {
        return 0;
    };
    // SAFETY: a helper without arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    if !woke(task_id, ts) {
        return 0;
    }
    let wake = WakeEvent { kind: EventKind::Wake as u32, tid, ts, task_id };
    let event = TaskWakeEvent { wake, waker_task_id: task::polled_id(state) };
    let size = if event.waker_task_id == 0 { size_of::<WakeEvent>() } else { size_of::<TaskWakeEvent>() };
    send(Stream::Wakes, &event, size as u64);
    0
}

/// `OwnedTasks::<S>::bind_inner(&self, task: Task<S>, notified: Notified<S>)` is entered: a new task joins its runtime,
/// and its first poll is due.
#[uprobe]
pub fn task_spawn(ctx: ProbeContext) -> u32 {
    let config = config();
    on_own_stack(&ctx, &config);
    if !pid::is_target(&ctx, &config) || config.polls == 0 {
        return 0;
    }
    count!(other_hits);
    if probes_since() == 0 {
        return 0;
    }
    // SAFETY: the kernel passes valid registers.
    let at = unsafe { (*ctx.regs).rsi };
    let Some(header) = Header::read(at) else {
        return 0;
    };
    let task_id = header.id(&config, at);
    if task_id == 0 {
        return 0;
    }
    let tid = pid::thread(&ctx, &config);
    let Some(state) = thread::current(tid, Stream::Spawns) else {
        return 0;
    };
    // SAFETY: a helper without arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    woke(task_id, ts);
    let event = SpawnEvent {
        kind: EventKind::Spawn as u32,
        tid,
        ts,
        task_id,
        parent_task_id: task::polled_id(state),
        poll_addr: task::poll_fn_of(&config, header.vtable),
    };
    send(Stream::Spawns, &event, size_of::<SpawnEvent>() as u64);
    0
}
