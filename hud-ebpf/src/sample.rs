//! The CPU sampler: a software `cpu-clock` event on every CPU.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::perf_event,
    programs::PerfEventContext,
};
use hud_common::wire::{EventKind, SampleHead, Stream};

use crate::{
    maps::{SAMPLE, config, is_target, send},
    sched, task, thread, unwind,
};

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
    let walked = unwind::walk(&ctx, &config, &raw mut event.stack, unwind::SAMPLES);
    event.head = SampleHead {
        kind: EventKind::Sample as u32,
        tid,
        // SAFETY: helpers without arguments.
        ts: unsafe { bpf_ktime_get_ns() },
        task_id,
        cpu: unsafe { bpf_get_smp_processor_id() },
        frames: walked.frames,
        unwind: walked.outcome,
    };
    send(Stream::Samples, &raw const *event, size_of::<SampleHead>() as u64 + walked.bytes());
    0
}
