//! Context switches, wake-ups and exits of the target's threads.
//!
//! There are two programs for each hook. The BTF tracepoints pass `task_struct` pointers, from which only `pid` is read; on
//! kernels without BTF, the plain tracepoints pass the same values in their record. Nothing else differs.
//!
//! Every off-CPU interval is measured and counts in the polls that it interrupts, but not every one can be walked and
//! reported by itself ([`crate::budget`]). While the budget is used up, short ones are summed up and reported together, right
//! before the next one that is walked.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel, generated::bpf_send_signal},
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use hud_wire::{
    Config, EventKind, MAX_POLLS, OffCpuHead, STATE_PREEMPTED, Stream, ThreadState, Unreported, switch_tag,
    unwind::Outcome,
};

use crate::{
    budget::{Budget, Place},
    maps::{EXECUTED, RECORDING, THREADS, config, count, recording, send, switches_since, unknown},
    pid, task, thread, unwind,
};

/// `task_struct::__state` of a thread that sleeps (include/linux/sched.h).
const TASK_INTERRUPTIBLE: u32 = 1;
/// Signal that stops a process (signal(7), x86 and ARM).
const SIGSTOP: u32 = 19;
/// Maximum time from the start of a short interval to its report (ns).
const REPORT_WITHIN: u64 = 1_000_000_000;

/// `TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)`
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_btf(ctx: BtfTracePointContext) -> i32 {
    let next: *const u8 = ctx.arg(2);
    // Every switch of the machine comes here, so those of other processes must end at once.
    if !pid::may_be_of_target(ctx.arg(1)) && !pid::may_be_of_target(next) {
        return 0;
    }
    let config = config();
    let preempt: u64 = ctx.arg(0);
    // Linux before 5.18 passes no state. The configuration is constant to the verifier: it checks one branch only.
    let prev_state: u64 = if config.task_state == Config::NONE {
        ctx.arg(3)
    } else {
        let prev: *const u8 = ctx.arg(1);
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(prev.add(config.task_state as usize).cast::<u32>()) }.unwrap_or(0) as u64
    };
    let state = prev_state as u32 | if preempt & 1 != 0 { STATE_PREEMPTED } else { 0 };
    on_switch(&ctx, &config, state, pid::of(&config, next))
}

/// Fields by `events/sched/sched_switch/format`, unchanged since 2.6.
#[tracepoint]
pub fn sched_switch_tp(ctx: TracePointContext) -> i32 {
    let config = config();
    // SAFETY: offsets within the record.
    let (prev_state, next) = unsafe { (ctx.read_at::<i64>(32).unwrap_or(0), ctx.read_at::<u32>(56).unwrap_or(0)) };
    // This record has the preempted state as TASK_REPORT_MAX (0x100), or as 0.
    let state = if prev_state & 0xff == 0 { STATE_PREEMPTED } else { (prev_state & 0xff) as u32 };
    on_switch(&ctx, &config, state, next)
}

/// `TP_PROTO(struct task_struct *p)`: runs on the CPU of the waker, whose thread is the current one.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking_btf(ctx: BtfTracePointContext) -> i32 {
    let woken: *const u8 = ctx.arg(0);
    if !pid::may_be_of_target(woken) {
        return 0;
    }
    let config = config();
    on_waking(&ctx, &config, pid::of(&config, woken))
}

/// `comm[16] @8, pid @24`
#[tracepoint]
pub fn sched_waking_tp(ctx: TracePointContext) -> i32 {
    // SAFETY: an offset within the record.
    let tid = unsafe { ctx.read_at::<u32>(24) }.unwrap_or(0);
    on_waking(&ctx, &config(), tid)
}

/// `TP_PROTO(struct task_struct *p)`: a new task runs for the first time, started by the current one.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new_btf(ctx: BtfTracePointContext) -> i32 {
    let config = config();
    if !pid::is_target(&ctx, &config) {
        return 0;
    }
    let task: *const u8 = ctx.arg(0);
    // SAFETY: the helper checks the address.
    let tgid = unsafe { bpf_probe_read_kernel(task.add(config.task_tgid as usize).cast::<u32>()) }.unwrap_or(0);
    // A process that the target forks is not the target.
    if tgid == ctx.tgid() {
        thread::born(pid::of(&config, task), pid::thread(&ctx, &config));
    }
    0
}

/// The current thread has executed another program: from here on it is not the target.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec_btf(ctx: BtfTracePointContext) -> i32 {
    on_exec(&ctx)
}

/// The same, without BTF.
#[tracepoint]
pub fn sched_process_exec_tp(ctx: TracePointContext) -> i32 {
    on_exec(&ctx)
}

#[inline(always)]
fn on_exec(ctx: &impl EbpfContext) -> i32 {
    let config = config();
    if pid::is_target(ctx, &config) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let _ = EXECUTED.set(0, now, 0);
        if config.stop_at_exec == 1 {
            // SAFETY: a helper with a number. The thread stops before the first instruction of the new program.
            let _ = unsafe { bpf_send_signal(SIGSTOP) };
        }
        let _ = RECORDING.set(0, 0, 0);
    }
    0
}

#[inline(always)]
fn on_switch(ctx: &impl EbpfContext, config: &Config, prev_state: u32, next: u32) -> i32 {
    let since = switches_since();
    if since == 0 {
        return 0;
    }
    if pid::is_target(ctx, config) {
        leave(ctx, config, prev_state, since);
    }
    if next != 0
        && let Some(state) = THREADS.get_ptr_mut(next)
    {
        // SAFETY: the thread map's own memory. The thread is on no CPU yet, so none of its own programs runs, and its waker wrote
        // to it before it could get one.
        arrive(unsafe { &mut *state }, false, since);
    }
    0
}

/// The current thread leaves its CPU.
#[inline(always)]
fn leave(ctx: &impl EbpfContext, config: &Config, prev_state: u32, since: u64) {
    let tid = pid::thread(ctx, config);
    // EXIT_ZOMBIE, EXIT_DEAD, TASK_DEAD: its last switch. (`sched_process_exit` comes earlier: an exiting thread may still
    // sleep and be sampled.)
    if prev_state & 0xb0 != 0 {
        if let Some(state) = THREADS.get_ptr_mut(tid) {
            // SAFETY: the thread map's own memory; a helper without arguments.
            let (state, now) = unsafe { (&mut *state, bpf_ktime_get_ns()) };
            if state.unreported.intervals != 0 && state.unreported.since >= since {
                report_short(state, now);
            }
        }
        return thread::gone(tid);
    }
    let (Some(state), Some(budget)) = (thread::current(tid, Stream::OffCpu), Budget::of_this_cpu()) else {
        return;
    };
    // SAFETY: helpers without arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    // SAFETY: the thread map's own memory. No other program makes a reference to it while this thread is on a CPU; a waker writes
    // to it only once `is_off` is set, the last word that is written here.
    let state = unsafe { &mut *state };
    catch_up(state);
    let on_cpu = if state.on_since < since { 0 } else { now.wrapping_sub(state.on_since) };
    // Before the budget: its paths would multiply those of the search.
    let task_id = task::current_id(config, state, 0, budget.is_left());
    let task_id = unknown(&mut state.off.head.task_id, task_id);
    budget.count_switch();
    budget.refill(config, now, on_cpu);
    let is_left = unknown(&mut state.is_walked, budget.is_left() as u32) != 0;
    if is_left {
        if task_id != 0 {
            task::report_type(config, tid, task_id, state, 0);
        }
        thread::update_name(tid, state);
    }
    let mut leaf = unwind::leaf(config);
    leaf.task_id = task_id;
    // The place of a preemption does not predict its duration.
    let place = if is_asleep(prev_state) { Place::of(leaf.pc, leaf.sp) } else { Place::of(0, 0) };
    let place = Place::of_hash(unknown(&mut state.place, place.hash()));
    // If stacks are walked by frame pointers, the registers are unknown, and so is the place.
    let is_short = config.unwind != 0 && place.is_short(state);
    let is_walked = (is_left || (!is_short && budget.is_left_for_long())) as u32;
    let is_walked = unknown(&mut state.is_walked, is_walked) != 0;
    if is_walked {
        let walked = unwind::walk(ctx, config, &raw mut state.off.stack, unwind::SWITCHES);
        (state.leaf, state.frames, state.unwind) = (leaf, walked.frames, walked.outcome);
    }
    // With the registers and the task of the last walk, a thread has the stack of that walk.
    let has_stack = is_walked || (config.unwind != 0 && state.leaf == leaf);
    state.off.head = OffCpuHead {
        kind: EventKind::OffCpu as u32,
        tid,
        ts: now,
        dur: 0,
        task_id,
        wake_ts: 0,
        run_queue: 0,
        waker_tid: 0,
        cpu,
        state: prev_state,
        frames: if has_stack { state.frames } else { 0 },
        unwind: if has_stack { state.unwind } else { Outcome::Failed as u16 },
        intervals: 1,
        is_sum: 0,
    };
    state.is_off = switch_tag(since);
    if is_walked {
        budget.spend_since(now);
    }
}

/// Ends an off-CPU interval whose end was not observed. Called where the thread of `state` is observed running.
///
/// In some virtual machines, switches away from certain threads run no tracepoint (ftrace misses them too), and the thread
/// that gets the CPU from one seems never to have returned. The time at which it got the CPU is unknown, that of its wake-up
/// is known.
#[inline(always)]
pub fn catch_up(state: &mut ThreadState) {
    let since = switches_since();
    if state.is_off != 0 && state.is_off == switch_tag(since) {
        count!(arrivals_missed);
        arrive(state, true, since);
    }
}

/// The thread of `state` gets a CPU. If that was missed, its interval ends at its wake-up.
#[inline(always)]
fn arrive(state: &mut ThreadState, missed: bool, since: u64) {
    if !recording() {
        return;
    }
    let Some(budget) = Budget::of_this_cpu() else {
        return;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (was_off, on_since) = (state.is_off, state.on_since);
    state.on_since = now;
    state.is_off = 0;
    if was_off != switch_tag(since) {
        let head = &mut state.off.head;
        // A thread that was never observed to leave has no head yet.
        if on_since >= since || head.kind != EventKind::OffCpu as u32 {
            return;
        }
        // It left its CPU before switches began to count, and was off-CPU since. The task in which it left is unknown, as it may
        // have been on a CPU before that.
        (head.ts, head.frames, head.task_id, head.is_sum) = (since, 0, 0, 1);
        if head.wake_ts < since {
            head.wake_ts = 0;
        }
    }
    let head = &mut state.off.head;
    let end = if missed && head.wake_ts != 0 { head.wake_ts } else { now };
    head.dur = end.saturating_sub(head.ts);
    let asleep = is_asleep(head.state);
    let runnable_since = if head.wake_ts != 0 {
        head.wake_ts
    } else if asleep {
        // Woken before recording, or without a waking event: the whole interval counts as asleep.
        end
    } else {
        head.ts
    };
    let blocked = runnable_since.saturating_sub(head.ts);
    let run_queue = end.saturating_sub(runnable_since);
    if head.wake_ts != 0 {
        head.run_queue = run_queue;
    }
    let depth = state.depth;
    for i in 0..MAX_POLLS {
        if i as u64 >= depth {
            break;
        }
        state.polls[i].blocked += blocked;
        state.polls[i].run_queue += run_queue;
    }
    let head = &mut state.off.head;
    let is_short = head.dur < budget.limit() && was_off == switch_tag(since);
    Place::of_hash(state.place).note(&mut state.places, is_short);
    let unreported = &mut state.unreported;
    if unreported.since < since {
        // User space reported them when switches last stopped counting.
        unreported.intervals = 0;
    }
    if is_short && state.is_walked == 0 {
        if unreported.intervals == 0 {
            *unreported = Unreported { intervals: 0, dur: 0, run_queue: 0, since: head.ts, task_id: 0 };
        }
        unreported.intervals += 1;
        unreported.dur += head.dur;
        unreported.run_queue += run_queue;
        unreported.task_id = head.task_id;
        count!(merged);
        if end.wrapping_sub(unreported.since) > REPORT_WITHIN {
            report_short(state, end);
        }
        return;
    }
    if unreported.intervals != 0 {
        let before = head.ts;
        report_short(state, before);
    }
    let frames = state.off.head.frames;
    if state.is_walked == 0 {
        count!(not_walked);
    }
    let size = size_of::<OffCpuHead>() as u64 + unwind::bytes(frames);
    send(Stream::OffCpu, &raw const state.off, size);
}

/// Reports the sum of a thread's short intervals. The last one ended by `end`.
#[inline(never)]
fn report_short(state: &mut ThreadState, end: u64) {
    let unreported = state.unreported;
    state.unreported.intervals = 0;
    let of = &state.off.head;
    let head = OffCpuHead {
        kind: EventKind::OffCpu as u32,
        tid: of.tid,
        ts: end.wrapping_sub(unreported.dur),
        dur: unreported.dur,
        task_id: unreported.task_id,
        wake_ts: end,
        run_queue: unreported.run_queue,
        waker_tid: 0,
        cpu: of.cpu,
        state: TASK_INTERRUPTIBLE,
        frames: 0,
        unwind: Outcome::Failed as u16,
        intervals: unreported.intervals as u32,
        is_sum: 1,
    };
    send(Stream::OffCpu, &raw const head, size_of::<OffCpuHead>() as u64);
}

/// Whether a thread that left in this state was asleep rather than runnable (`TASK_RUNNING` is 0).
#[inline(always)]
fn is_asleep(state: u32) -> bool {
    state & STATE_PREEMPTED == 0 && state != 0
}

#[inline(always)]
fn on_waking(ctx: &impl EbpfContext, config: &Config, tid: u32) -> i32 {
    if tid != 0
        && switches_since() != 0
        && let Some(state) = THREADS.get_ptr_mut(tid)
    {
        // SAFETY: aligned words of the thread map's own memory. The thread's own programs may write the same words on another CPU,
        // and two wakers may race: so no reference is made, and either waker is a correct one.
        unsafe {
            let head = &raw mut (*state).off.head;
            let wake_ts = &raw mut (*head).wake_ts;
            let is_open = (&raw const (*state).is_off).read_volatile() != 0 && wake_ts.read_volatile() == 0;
            if is_open && is_asleep((&raw const (*head).state).read_volatile()) {
                wake_ts.write_volatile(bpf_ktime_get_ns());
                (&raw mut (*head).waker_tid).write_volatile(pid::thread(ctx, config));
            }
        }
    }
    0
}
