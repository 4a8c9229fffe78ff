//! The CPU sampler: a software `cpu-clock` event on every CPU.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_stack},
    macros::perf_event,
    programs::PerfEventContext,
};
use hud_wire::{EventKind, MAX_KERNEL_FRAMES, SampleHead, Stream};

use crate::{
    budget::Budget,
    maps::{SAMPLE, config, send, switches_since, unknown},
    pid, sched, steal, task, thread, unwind,
};

/// Takes one sample of the target.
#[perf_event]
pub fn sample_cpu(ctx: PerfEventContext) -> i32 {
    let config = config();
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    steal::observe(&config, now);
    if !pid::is_target(&ctx, &config) {
        return 0;
    }
    let tid = pid::thread(&ctx, &config);
    let (Some(state), Some(event)) = (thread::current(tid, Stream::Samples), SAMPLE.get_ptr_mut(0)) else {
        return 0;
    };
    let Some(budget) = Budget::of_this_cpu() else {
        return 0;
    };
    // SAFETY: the thread map's own memory.
    let state = unsafe { &mut *state };
    sched::catch_up(state);
    // The budget of a thread that never leaves its CPU is refilled at its samples.
    let on_cpu =
        if state.on_since < switches_since() || state.on_since == 0 { 0 } else { now.wrapping_sub(state.on_since) };
    state.on_since = now;
    budget.refill(&config, now, on_cpu);
    let is_left = budget.is_left();
    let task_id = task::current_id(&config, state, 1, is_left);
    // SAFETY: the map's own memory, this CPU's slot; a sample is never interrupted by a sample.
    let event = unsafe { &mut *event };
    let task_id = unknown(&mut event.head.task_id, task_id);
    if task_id != 0 && is_left {
        task::report_type(&config, tid, task_id, state, 1);
    }
    // SAFETY: the buffer holds more than MAX_KERNEL_FRAMES words. In user mode there is no such stack.
    let bytes = unsafe { bpf_get_stack(ctx.as_ptr(), (&raw mut event.stack).cast(), MAX_KERNEL_FRAMES as u32 * 8, 0) };
    let kernel = if bytes > 0 { bytes as usize / 8 } else { 0 };
    // The verifier needs the bound.
    let kernel = unknown(&mut event.head.frames, kernel as u16) as usize & (2 * MAX_KERNEL_FRAMES - 1);
    let kernel = if kernel > MAX_KERNEL_FRAMES { MAX_KERNEL_FRAMES } else { kernel };
    // SAFETY: MAX_FRAMES words follow.
    let user = unsafe { (&raw mut event.stack).cast::<u64>().add(kernel) };
    let walked = unwind::walk(&ctx, &config, user.cast(), unwind::SAMPLES);
    event.head = SampleHead {
        kind: EventKind::Sample as u32,
        tid,
        ts: now,
        task_id,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() },
        frames: walked.frames + kernel as u16,
        unwind: walked.outcome,
    };
    send(Stream::Samples, &raw const *event, size_of::<SampleHead>() as u64 + walked.bytes() + kernel as u64 * 8);
    budget.spend_on_sample(now);
    0
}
