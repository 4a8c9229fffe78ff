//! The CPU sampler: a software `cpu-clock` event on every CPU.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_stack},
    macros::perf_event,
    programs::PerfEventContext,
};
use hud_common::wire::{EventKind, MAX_FRAMES, SampleHead, StackBuffer, Stream};

use crate::{
    maps::{SAMPLE, config, is_target, send},
    sched, task, thread,
};

const BPF_F_USER_STACK: u64 = 1 << 8;

/// Takes one sample of the target.
#[perf_event]
pub fn sample_cpu(ctx: PerfEventContext) -> i32 {
    let config = config();
    if !is_target(&ctx, &config) {
        return 0;
    }
    let tid = ctx.pid();
    let (Some(state), Some(event)) = (thread::current(tid, Stream::Samples), SAMPLE.get_ptr_mut(0)) else {
        return 0;
    };
    // SAFETY: the thread map's own memory.
    sched::catch_up(unsafe { &mut *state });
    let task_id = task::current_id(&config, state, 1);
    if task_id != 0 {
        task::tell_type(&config, tid, task_id, state, 1);
    }
    // SAFETY: the map's own memory, this CPU's slot; a sample is never interrupted by a sample.
    let event = unsafe { &mut *event };
    // SAFETY: the buffer holds MAX_FRAMES words.
    let bytes = unsafe {
        bpf_get_stack(ctx.as_ptr(), (&raw mut event.stack).cast(), size_of::<StackBuffer>() as u32, BPF_F_USER_STACK)
    };
    let frames = if bytes > 0 { bytes as u64 / 8 } else { 0 };
    // The verifier wants to see the bound.
    let frames = if frames > MAX_FRAMES as u64 { MAX_FRAMES as u64 } else { frames };
    event.head = SampleHead {
        kind: EventKind::Sample as u32,
        tid,
        // SAFETY: helpers without arguments.
        ts: unsafe { bpf_ktime_get_ns() },
        task_id,
        cpu: unsafe { bpf_get_smp_processor_id() },
        frames: frames as u32,
    };
    send(Stream::Samples, &raw const *event, size_of::<SampleHead>() as u64 + frames * 8);
    0
}
