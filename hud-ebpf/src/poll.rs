//! Exact polls: the entry and the return of every `tokio::runtime::task::raw::poll::<T, S>`.
//!
//! Polls nest (a `LocalSet` inside a task, `block_on` inside `block_in_place`), so each thread keeps a stack of them.
//! A return belongs to the entry with its stack pointer; entries above it missed theirs and are dropped.
//!
//! Whether a task ended in a poll is read from its header as the poll returns. By then the last reference may have been
//! dropped and the memory freed. An allocator that overwrites it does so from its first word, which is the state, and the
//! value counts as an absurd number of references. Either way the task has ended.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_attach_cookie, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use hud_wire::{EndEvent, EventKind, MAX_POLLS, PollEvent, PollFrame, ShortPollEvent, Stream, TaskOutcome};

use crate::{
    maps::{THREADS, config, count, is_last_poll, masked, on_own_stack, poll_begins, probes_since, send, take_wake},
    pid, sched, steal,
    task::Header,
    thread,
};

/// Flag of `Header::state` (tokio/src/runtime/task/state.rs): the task is being polled.
pub const RUNNING: u64 = 1;
/// It has ended.
pub const COMPLETE: u64 = 1 << 1;
/// It waits for a poll, or is to be polled again.
pub const NOTIFIED: u64 = 1 << 2;
const CANCELLED: u64 = 1 << 5;
/// Bits below the number of references.
pub const REFERENCES: u64 = 6;
/// More references than any live task has: each waker, join handle and queue holds one.
const ABSURD: u64 = 1 << 20;
/// Polls with less time on a CPU are not examined for steal time (ns).
const STEAL_FROM: u64 = 1_000_000;

/// Entry of `raw::poll(ptr: NonNull<Header>)`.
#[uprobe]
pub fn poll_enter(ctx: ProbeContext) -> u32 {
    let config = config();
    on_own_stack(&ctx, &config);
    let since = probes_since();
    if !pid::is_target(&ctx, &config) {
        return 0;
    }
    // A hit that produces no event costs as well: detaching the probes takes a while.
    count!(poll_hits);
    if since == 0 {
        return 0;
    }
    // SAFETY: the kernel passes valid registers.
    let (header, sp) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsp) };
    let Some(state) = thread::current(pid::thread(&ctx, &config), Stream::Polls) else {
        return 0;
    };
    // SAFETY: the thread map's own memory; only this thread's programs touch its polls.
    let state = unsafe { &mut *state };
    sched::catch_up(state);
    let depth = if state.epoch == since { live(state.depth, &state.polls, sp) } else { 0 };
    state.epoch = since;
    if depth >= MAX_POLLS as u64 {
        // Its return will find no entry and be ignored.
        state.depth = depth;
        thread::untracked(Stream::Polls);
        return 0;
    }
    let (task_id, vtable, flags) = match Header::read(header) {
        Some(head) => (head.id(&config, header), head.vtable, head.state),
        None => (0, 0, 0),
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let wake_ts = take_wake(task_id, now);
    // A wake from before the probes were last off is not the wake of this poll.
    let wake_ts = if wake_ts >= since { wake_ts } else { 0 };
    let slot = masked::<{ MAX_POLLS - 1 }>(depth as usize);
    let poll = &raw mut state.polls[slot];
    // SAFETY: the thread map's own memory; the helper takes the context. Field by field: two zeros side by side become a call
    // of `memset`, which takes them byte by byte.
    unsafe {
        (*poll).ts = now;
        (*poll).sp = sp;
        (*poll).task_id = task_id;
        (&raw mut (*poll).blocked).write_volatile(0);
        (&raw mut (*poll).run_queue).write_volatile(0);
        (*poll).wake_ts = wake_ts;
        (*poll).header = header;
        (*poll).vtable = vtable;
        (*poll).poll_fn = bpf_get_attach_cookie(ctx.as_ptr()) as u32;
        // An aborted task is polled once more, to be dropped.
        (*poll).outcome = if flags & CANCELLED != 0 { TaskOutcome::Cancelled } else { TaskOutcome::Completed } as u32;
    }
    poll_begins(task_id, now);
    state.depth = depth + 1;
    0
}

/// Return of `raw::poll`.
#[uretprobe]
pub fn poll_return(ctx: RetProbeContext) -> u32 {
    let config = config();
    on_own_stack(&ctx, &config);
    let since = probes_since();
    if !pid::is_target(&ctx, &config) {
        return 0;
    }
    // A hit that produces no event costs as well: detaching the probes takes a while.
    count!(poll_hits);
    if since == 0 {
        return 0;
    }
    let tid = pid::thread(&ctx, &config);
    // SAFETY: the kernel passes valid registers. The return has popped the return address.
    let sp = unsafe { (*ctx.regs).rsp } - 8;
    let Some(state) = THREADS.get_ptr_mut(tid) else {
        return 0;
    };
    // SAFETY: the thread map's own memory; only this thread's programs touch its polls.
    let state = unsafe { &mut *state };
    sched::catch_up(state);
    if state.epoch != since {
        return 0;
    }
    // Entries deeper than this one missed their return.
    let depth = live(state.depth, &state.polls, sp - 1);
    state.depth = depth;
    if depth == 0 || depth > MAX_POLLS as u64 {
        return 0;
    }
    let poll = state.polls[masked::<{ MAX_POLLS - 1 }>(depth as usize - 1)];
    if poll.sp != sp {
        return 0;
    }
    state.depth = depth - 1;
    if config.polls == 0 {
        return 0;
    }
    // Another worker may begin the task's next poll before this program runs: the header then describes that poll.
    let is_over = is_last_poll(poll.task_id, poll.ts) && is_over(&poll);
    // SAFETY: helpers without arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let dur = now.saturating_sub(poll.ts);
    let on_cpu = dur.saturating_sub(poll.blocked).saturating_sub(poll.run_queue);
    let stolen = if on_cpu < STEAL_FROM { 0 } else { steal::stolen(poll.ts, now) };
    let stolen = if stolen > on_cpu { on_cpu } else { stolen };
    let event = PollEvent {
        kind: EventKind::Poll as u32,
        tid,
        ts: poll.ts,
        dur,
        task_id: poll.task_id,
        blocked: poll.blocked,
        run_queue: poll.run_queue + stolen,
        wake_ts: poll.wake_ts,
        poll_fn: poll.poll_fn,
        cpu: cpu as u16,
        completed: is_over as u16,
    };
    match event.short() {
        Some(short) => send(Stream::Polls, &short, size_of::<ShortPollEvent>() as u64),
        None => send(Stream::Polls, &event, size_of::<PollEvent>() as u64),
    }
    if is_over {
        let event = EndEvent { kind: EventKind::End as u32, outcome: poll.outcome, ts: now, task_id: poll.task_id };
        send(Stream::Ends, &event, size_of::<EndEvent>() as u64);
    }
    0
}

/// Entry of `std`'s `rust_panic`: a panic begins to unwind, in the innermost poll of this thread if there is one.
#[uprobe]
pub fn panicked(ctx: ProbeContext) -> u32 {
    let config = config();
    on_own_stack(&ctx, &config);
    let since = probes_since();
    if !pid::is_target(&ctx, &config) {
        return 0;
    }
    // A hit that produces no event costs as well: detaching the probes takes a while.
    count!(other_hits);
    if since == 0 {
        return 0;
    }
    if let Some(state) = THREADS.get_ptr_mut(pid::thread(&ctx, &config)) {
        // SAFETY: the thread map's own memory; only this thread's programs touch its polls.
        let state = unsafe { &mut *state };
        let depth = state.depth as usize;
        if depth > 0 && depth <= MAX_POLLS && state.epoch == since {
            state.polls[masked::<{ MAX_POLLS - 1 }>(depth - 1)].outcome = TaskOutcome::Panicked as u32;
        }
    }
    0
}

/// Whether the task of a finished poll has ended.
#[inline(always)]
fn is_over(poll: &PollFrame) -> bool {
    match Header::read(poll.header) {
        Some(header) if header.vtable == poll.vtable => {
            let references = header.state >> REFERENCES;
            references == 0 || references >= ABSURD || header.state & COMPLETE != 0
        }
        // Freed, and the memory unmapped or reused.
        _ => true,
    }
}

/// Number of polls in progress on a stack that now reaches down to `sp`: those entered above it.
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
