//! What the programs share: configuration, counters, the ring, and the state of each thread.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::bpf_ringbuf_output,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use hud_common::wire::{Calibration, Config, Counters, SampleEvent, Stream, ThreadState};

/// Filled in by user space before the object is loaded; frozen, so the verifier treats it as constant.
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    tgid: 0,
    task_pid: Config::NONE,
    task_tgid: Config::NONE,
    task_fsbase: Config::NONE,
    vtable_poll: 0,
    vtable_id_offset: 72,
    polls: 0,
    tls_tagged: 0,
    tls_context: 0,
    tls_words: 0,
    vtables_start: 0,
    vtables_end: 0,
    unwind: 0,
    task_utask: Config::NONE,
    utask_instances: 0,
    instance_stack: 0,
    instance_return: 0,
    instance_next: 0,
};

/// The configuration. Volatile, or the compiler would fold the zeros above into the code.
#[inline(always)]
pub fn config() -> Config {
    // SAFETY: a static of plain integers, never written after load.
    unsafe { core::ptr::read_volatile(&raw const CONFIG) }
}

/// Events for user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// One set of counters a CPU.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// 1 while recording; user space clears it to stop all streams at one instant before it settles the account.
#[map]
pub static RECORDING: Array<u32> = Array::with_max_entries(1, 0);

/// When the target executed another program (CLOCK_MONOTONIC); 0 = it has not. Recording is then off.
#[map]
pub static EXECUTED: Array<u64> = Array::with_max_entries(1, 0);

/// Since when the probes in the target's code count (CLOCK_MONOTONIC); 0 = they don't. User space changes it while it
/// puts them on and takes them off, one after the other, so that all count from one instant to another.
#[map]
pub static PROBES_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// When a task was last woken or spawned: a slot by the low bits of its id, see [`woke`]. A table without chains, because
/// two tasks that share a slot and are awake at once are rare, and a hash map's update costs more than the rest of a probe.
#[map]
pub static WOKEN: Array<u64> = Array::with_max_entries(WOKEN_SLOTS as u32, 0);

const WOKEN_SLOTS: u64 = 1 << 16;
/// Bits of CLOCK_MONOTONIC in a slot: 3 days of nanoseconds. The 16 above are those of the id that follow the slot's.
const WOKEN_TIME: u64 = (1 << 48) - 1;

/// By thread id. Not preallocated: an entry is 1.6 kB and most targets have a dozen threads.
#[map]
pub static THREADS: HashMap<u32, ThreadState> = HashMap::with_max_entries(32768, BPF_F_NO_PREALLOC);

/// Tasks whose type has been told, by task id; the value counts failed searches, or is [`TOLD`].
#[map]
pub static TASKS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(65536, 0);

/// Where tasks have their ids, by the low bits of their vtable's address; see `task::id_offset`.
#[map]
pub static ID_OFFSETS: Array<u64> = Array::with_max_entries(ID_OFFSETS_SLOTS, 0);

/// Slots of [`ID_OFFSETS`].
pub const ID_OFFSETS_SLOTS: u32 = 1024;

/// Where the thread-local holds the task's id: told by user space, or found out.
#[map]
pub static CALIBRATION: Array<Calibration> = Array::with_max_entries(1, 0);

/// A fresh thread's state, too large for the stack.
#[map]
pub static NEW_THREAD: PerCpuArray<ThreadState> = PerCpuArray::with_max_entries(1, 0);

/// Where a sample is put together.
#[map]
pub static SAMPLE: PerCpuArray<SampleEvent> = PerCpuArray::with_max_entries(1, 0);

/// Room for a piece of the target's stack; index 0 for switches, 1 for samples, which may interrupt a switch.
#[map]
pub static STACK_PIECE: PerCpuArray<[u64; 512]> = PerCpuArray::with_max_entries(2, 0);

/// In [`TASKS`]: user space knows this task's type.
pub const TOLD: u32 = u32::MAX;
/// In [`TASKS`]: user space knows its type, but its thread had entered no scheduler's context yet: a worker's loop that has
/// just begun, or work of the blocking pool.
pub const TOLD_OUTSIDE: u32 = u32::MAX - 1;

/// Whether the current thread is the target's, and recording is on.
#[inline(always)]
pub fn is_target(ctx: &impl EbpfContext, config: &Config) -> bool {
    ctx.tgid() == config.tgid && recording()
}

/// Whether recording is on.
#[inline(always)]
pub fn recording() -> bool {
    matches!(RECORDING.get(0), Some(1))
}

/// The instant from which the probes in the target's code count; 0 = they don't.
#[inline(always)]
pub fn probes_since() -> u64 {
    PROBES_SINCE.get(0).copied().unwrap_or(0)
}

/// What a slot holds of a task at an instant.
#[inline(always)]
fn entry(task_id: u64, at: u64) -> u64 {
    ((task_id / WOKEN_SLOTS) << 48) | (at & WOKEN_TIME)
}

/// When the poll of a task under way began, in the form of [`WOKEN`].
#[map]
pub static POLLED: Array<u64> = Array::with_max_entries(WOKEN_SLOTS as u32, 0);

/// Notes that a poll of a task begins at `now`.
#[inline(always)]
pub fn poll_begins(task_id: u64, now: u64) {
    if let Some(slot) = POLLED.get_ptr_mut((task_id % WOKEN_SLOTS) as u32) {
        // SAFETY: as in `woke`.
        unsafe { slot.write_volatile(entry(task_id, now)) };
    }
}

/// Whether the poll of a task that began at `ts` is the last that began.
#[inline(always)]
pub fn is_last_poll(task_id: u64, ts: u64) -> bool {
    match POLLED.get_ptr_mut((task_id % WOKEN_SLOTS) as u32) {
        // SAFETY: as in `woke`.
        Some(slot) => unsafe { slot.read_volatile() == entry(task_id, ts) },
        None => true,
    }
}

/// Notes that a task is woken or spawned at `now`. Gives false where that was noted a moment ago, and no poll has been
/// since: the probe of a wake may be hit twice by one call, in a loop.
#[inline(always)]
pub fn woke(task_id: u64, now: u64) -> bool {
    const MOMENT: u64 = 20_000;
    let Some(slot) = WOKEN.get_ptr_mut((task_id % WOKEN_SLOTS) as u32) else {
        return true;
    };
    // SAFETY: the map's own memory; one aligned word, so that a reader sees this entry or another, never a mixture.
    unsafe {
        let before = slot.read_volatile();
        if before & !WOKEN_TIME == entry(task_id, 0) && before != 0 && now.wrapping_sub(before) & WOKEN_TIME < MOMENT {
            return false;
        }
        slot.write_volatile(entry(task_id, now));
    }
    true
}

/// When a task was last woken or spawned, if that is known, and forgets it. `now` is later, by less than 3 days.
#[inline(always)]
pub fn take_wake(task_id: u64, now: u64) -> Option<u64> {
    let slot = WOKEN.get_ptr_mut((task_id % WOKEN_SLOTS) as u32)?;
    // SAFETY: as in `woke`.
    let found = unsafe { slot.read_volatile() };
    if found == 0 || found & !WOKEN_TIME != entry(task_id, 0) {
        return None;
    }
    // SAFETY: as in `woke`.
    unsafe { slot.write_volatile(0) };
    Some(now.wrapping_sub(now.wrapping_sub(found) & WOKEN_TIME))
}

/// Adds one to a counter. Atomic, because a program may be preempted by another one on the same CPU; by the
/// intrinsic, because `AtomicU64::fetch_add` is left out on targets without compare-and-swap.
#[inline(always)]
pub fn count(pick: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the map's own memory.
        add_one(pick(unsafe { &mut *counters }));
    }
}

/// Adds one to a word that others may be adding to.
#[inline(always)]
pub fn add_one(word: &mut u64) {
    // SAFETY: aligned to 8, and only ever added to atomically.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, 1) };
}

/// Hands over `size` bytes at `event`; counts it as produced and, where the ring is full, as lost.
///
/// Never wakes the reader (BPF_RB_NO_WAKEUP): it looks every few milliseconds, and a wakeup from the scheduler's own
/// tracepoint would cost more than the event.
#[inline(always)]
pub fn send<T>(stream: Stream, event: *const T, size: u64) {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    count(|c| &mut c.streams[stream as usize].produced);
    // SAFETY: `event` points to at least `size` initialised bytes, which the verifier checks.
    let result = unsafe {
        bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast_mut().cast(), size, BPF_RB_NO_WAKEUP)
    };
    if result != 0 {
        count(|c| &mut c.streams[stream as usize].lost);
    }
}
