//! Exact polls: the entry and the return of every `tokio::runtime::task::raw::poll::<T, S>`.
//!
//! Polls nest (a `LocalSet` inside a task, `block_on` inside `block_in_place`), so each thread keeps a stack of them.
//! A return belongs to the entry with its stack pointer; entries above it missed theirs and are dropped.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_attach_cookie, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use hud_common::wire::{EventKind, MAX_POLLS, PollEvent, PollFrame, Stream};

use crate::{
    maps::{THREADS, config, is_target, send},
    sched, task, thread,
};

/// `raw::poll(ptr: NonNull<Header>)` is entered.
#[uprobe]
pub fn poll_enter(ctx: ProbeContext) -> u32 {
    let config = config();
    if !is_target(&ctx, &config) {
        return 0;
    }
    // SAFETY: the kernel passes valid registers.
    let (header, sp) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsp) };
    let Some(state) = thread::current(ctx.pid(), Stream::Polls) else {
        return 0;
    };
    // SAFETY: the thread map's own memory; only this thread's programs touch its polls.
    let state = unsafe { &mut *state };
    sched::catch_up(state);
    let depth = live(state.depth, &state.polls, sp);
    if depth >= MAX_POLLS as u64 {
        // Its return will find no entry, and be ignored.
        state.depth = depth;
        thread::untracked(Stream::Polls);
        return 0;
    }
    let slot = (depth as usize) & (MAX_POLLS - 1);
    state.polls[slot] = PollFrame {
        // SAFETY: a helper without arguments.
        ts: unsafe { bpf_ktime_get_ns() },
        sp,
        task_id: task::id_of(&config, header),
        blocked: 0,
        run_queue: 0,
        // SAFETY: the helper takes the context.
        poll_fn: unsafe { bpf_get_attach_cookie(ctx.as_ptr()) } as u32,
        reserved: 0,
    };
    state.depth = depth + 1;
    0
}

/// It returns.
#[uretprobe]
pub fn poll_return(ctx: RetProbeContext) -> u32 {
    let config = config();
    if !is_target(&ctx, &config) {
        return 0;
    }
    let tid = ctx.pid();
    // SAFETY: the kernel passes valid registers. The return has popped the return address.
    let sp = unsafe { (*ctx.regs).rsp } - 8;
    let Some(state) = THREADS.get_ptr_mut(tid) else {
        return 0;
    };
    // SAFETY: the thread map's own memory; only this thread's programs touch its polls.
    let state = unsafe { &mut *state };
    sched::catch_up(state);
    // Entries deeper than this one missed their return.
    let depth = live(state.depth, &state.polls, sp - 1);
    state.depth = depth;
    if depth == 0 || depth > MAX_POLLS as u64 {
        return 0;
    }
    let poll = state.polls[(depth as usize - 1) & (MAX_POLLS - 1)];
    if poll.sp != sp {
        return 0;
    }
    state.depth = depth - 1;
    if config.polls == 0 {
        return 0;
    }
    // SAFETY: helpers without arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let event = PollEvent {
        kind: EventKind::Poll as u32,
        tid,
        ts: poll.ts,
        dur: now.saturating_sub(poll.ts),
        task_id: poll.task_id,
        blocked: poll.blocked,
        run_queue: poll.run_queue,
        poll_fn: poll.poll_fn,
        cpu,
    };
    send(Stream::Polls, &event, size_of::<PollEvent>() as u64);
    0
}

/// How many of the polls are still under way on a stack that now reaches down to `sp`: those entered above it.
#[inline(always)]
fn live(depth: u64, polls: &[PollFrame; MAX_POLLS], sp: u64) -> u64 {
    let mut live = 0;
    for (i, poll) in polls.iter().enumerate() {
        if i as u64 >= depth || poll.sp <= sp {
            break;
        }
        live += 1;
    }
    live
}
