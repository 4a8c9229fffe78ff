//! The maps that the programs share: configuration, counters, the ring, and the state of each thread.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_for_each_map_elem, bpf_ringbuf_output},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use hud_wire::{Calibration, Config, Counters, SampleEvent, Stream, ThreadState};

/// Written by user space before the object is loaded, then frozen: the verifier treats it as constant.
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
    tls_module: 0,
    tls_words: 0,
    vtables_start: 0,
    vtables_end: 0,
    pidns_device: 0,
    pidns_inode: 0,
    unwind: 0,
    task_utask: Config::NONE,
    utask_instances: 0,
    instance_stack: 0,
    instance_return: 0,
    instance_next: 0,
    task_state: Config::NONE,
    switch_share: 0,
    switch_floor: 0,
    task_cfs_rq: Config::NONE,
    cfs_rq_rq: 0,
    rq_steal: 0,
    stop_at_exec: 0,
    task_thread_pid: 0,
    pid_level: 0,
    pid_numbers: 0,
    pidns_inum: 0,
    reserved: 0,
};

/// The configuration. Volatile, or the compiler would fold the zeros above into the code.
#[inline(always)]
pub fn config() -> Config {
    // SAFETY: a static of plain integers, never written after load.
    unsafe { core::ptr::read_volatile(&raw const CONFIG) }
}

/// The offset of `task_struct::tgid`, the target's, and the inode of hud's pid namespace if it is an inner one: the words that
/// every context switch of the machine reads.
#[inline(always)]
pub fn task_tgid() -> (u32, u32, u64) {
    // SAFETY: as above.
    unsafe {
        (
            core::ptr::read_volatile(&raw const CONFIG.task_tgid),
            core::ptr::read_volatile(&raw const CONFIG.tgid),
            core::ptr::read_volatile(&raw const CONFIG.pidns_inode),
        )
    }
}

/// Events for user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// A set of counters per CPU.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// 1 while recording. User space clears it to stop all streams at one instant before it reads the final counters.
#[map]
pub static RECORDING: Array<u32> = Array::with_max_entries(1, 0);

/// When the target executed another program, which ends recording (CLOCK_MONOTONIC); 0 = it has not.
#[map]
pub static EXECUTED: Array<u64> = Array::with_max_entries(1, 0);

/// Start of the time in which the probes in the target's code count (CLOCK_MONOTONIC); 0 = they don't. User space attaches and
/// detaches the probes one by one; by this word all of them start and stop counting at one instant.
#[map]
pub static PROBES_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// Start of the time in which context switches count (CLOCK_MONOTONIC); 0 = they don't.
#[map]
pub static SWITCHES_SINCE: Array<u64> = Array::with_max_entries(1, 0);

/// When a task was last woken or spawned, see [`woke`]. The slot follows from the low bits of the task id. There are no
/// chains: two tasks that share a slot and are awake at once are rare, and a hash map's update costs more than the rest of a
/// probe.
#[map]
pub static WOKEN: Array<u64> = Array::with_max_entries(WOKEN_SLOTS as u32, 0);

const WOKEN_SLOTS: u64 = 1 << 16;
/// Bits of CLOCK_MONOTONIC in a slot: 3 days of nanoseconds. The 16 above are those of the id that follow the slot's.
const WOKEN_TIME: u64 = (1 << 48) - 1;

/// States of threads, by thread id. Preallocated: before Linux 6.1 a program at a context switch must not allocate. User space
/// sets the map's size before it loads it, as an entry is 2 kB and most targets have a dozen threads.
#[map]
pub static THREADS: HashMap<u32, ThreadState> = HashMap::with_max_entries(4096, 0);

/// Tasks whose type was reported or searched for, by task id: the number of failed searches, or [`REPORTED`].
#[map]
pub static TASKS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(65536, 0);

/// Offsets of the id in tasks, by the low bits of the vtable's address; see `task::id_offset`.
#[map]
pub static ID_OFFSETS: Array<u64> = Array::with_max_entries(ID_OFFSETS_SLOTS, 0);

/// Slots of [`ID_OFFSETS`].
pub const ID_OFFSETS_SLOTS: u32 = 1024;

/// Position of the task's id in the thread-local: set by user space, or found by searching.
#[map]
pub static CALIBRATION: Array<Calibration> = Array::with_max_entries(1, 0);

/// The state of a new thread, all zero: it is too large for the stack. Never written, as a probe may be preempted by another.
#[map]
pub static NEW_THREAD: Array<ThreadState> = Array::with_max_entries(1, 0);

/// The sample that is being assembled.
#[map]
pub static SAMPLE: PerCpuArray<SampleEvent> = PerCpuArray::with_max_entries(1, 0);

/// Words in [`STACK_PIECE`].
pub const PIECE_WORDS: usize = 2048;

/// A copy of a piece of the target's stack; index 0 for switches, 1 for samples, which may interrupt a switch.
#[map]
pub static STACK_PIECE: PerCpuArray<[u64; PIECE_WORDS]> = PerCpuArray::with_max_entries(2, 0);

/// Empty, see [`on_own_stack`].
#[map]
static NO_PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// In [`TASKS`]: the task's type was reported to user space.
pub const REPORTED: u32 = u32::MAX;
/// In [`TASKS`]: the task's type was reported, but its thread had entered no scheduler's context yet. It is a worker's loop
/// that has just started, or work of the blocking pool.
pub const REPORTED_OUTSIDE: u32 = u32::MAX - 1;

/// Makes the kernel run a program on the stack of the interrupted thread. Called by the probes in the target's code.
///
/// Linux 6.13 and newer give a program of this type that uses 64 bytes of stack a *private stack*, one for each CPU
/// (`bpf_enable_priv_stack`, kernel/bpf/verifier.c). But probes in user code are preemptible and have no recursion guard: a
/// thread that is preempted in one, and another that hits it on the same CPU, then share that memory, and their events get
/// each other's bytes (1 to 3 of 38,000 polls on 7.3.4). A program with a tail call gets no private stack; this call is never
/// made, as no process has the thread group 0.
#[inline(always)]
pub fn on_own_stack(ctx: &impl EbpfContext, config: &Config) {
    if config.tgid == 0 {
        // SAFETY: the map is a program array. The call fails, as the array is empty.
        unsafe { NO_PROGRAM.tail_call(ctx, 0) };
    }
}

/// Calls `step` for each element of `counter`, with `context`, until it returns 1.
///
/// The verifier checks the body of this loop once. `bpf_loop` does the same, takes as long, and needs Linux 5.17.
///
/// # Safety
/// `step` must accept `context`.
#[inline(always)]
pub unsafe fn each_of<T>(
    counter: *const Array<u64>,
    step: unsafe extern "C" fn(*const u8, *const u32, *const u64, *mut T) -> i64,
    context: *mut T,
) {
    // SAFETY: the caller's promise; the map lives as long as the program.
    unsafe { bpf_for_each_map_elem(counter.cast_mut().cast(), step as *mut _, context.cast(), 0) };
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

/// The instant from which context switches count; 0 = they don't.
#[inline(always)]
pub fn switches_since() -> u64 {
    SWITCHES_SINCE.get(0).copied().unwrap_or(0)
}

/// The value of a slot for a task and an instant.
#[inline(always)]
fn entry(task_id: u64, at: u64) -> u64 {
    ((task_id / WOKEN_SLOTS) << 48) | (at & WOKEN_TIME)
}

/// When the last poll of a task began, in the form of [`WOKEN`].
#[map]
pub static POLLED: Array<u64> = Array::with_max_entries(WOKEN_SLOTS as u32, 0);

/// Records that a poll of a task begins at `now`.
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

/// Records that a task is woken or spawned at `now`. Returns `false` if that was recorded a moment ago and no poll followed:
/// one call may hit the probe of a wake twice, in a loop.
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

/// Takes the time at which a task was last woken or spawned; 0 if unknown. `now` is later, by less than 3 days.
///
/// No `Option`: the compiler may read the value of one that is `None`, which verifiers before 6.3 reject.
#[inline(always)]
pub fn take_wake(task_id: u64, now: u64) -> u64 {
    let Some(slot) = WOKEN.get_ptr_mut((task_id % WOKEN_SLOTS) as u32) else { return 0 };
    // SAFETY: as in `woke`.
    let found = unsafe { slot.read_volatile() };
    if found == 0 || found & !WOKEN_TIME != entry(task_id, 0) {
        return 0;
    }
    // SAFETY: as in `woke`.
    unsafe { slot.write_volatile(0) };
    now.wrapping_sub(now.wrapping_sub(found) & WOKEN_TIME)
}

/// Adds one to a counter of [`Counters`], such as `count!(poll_hits)`.
macro_rules! count {
    ($($counter:tt)+) => {
        if let Some(counters) = $crate::maps::COUNTERS.get_ptr_mut(0) {
            // SAFETY: the place of a word in the map's own memory; no reference to it is made.
            $crate::maps::add(unsafe { &raw mut (*counters).$($counter)+ }, 1);
        }
    };
}
pub(crate) use count;

/// Adds to a word that others may be adding to: another CPU, or a program that preempts this one. By the intrinsic,
/// because `AtomicU64::fetch_add` is left out on targets without compare-and-swap.
#[inline(always)]
pub fn add(word: *mut u64, n: u64) {
    // SAFETY: a word of a map, aligned to 8. Programs only ever add to it atomically, and no reference to it exists.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, n) };
}

/// Sends `size` bytes at `event`. Counts the event as produced and, if the ring is full, as lost.
///
/// Never wakes the reader (BPF_RB_NO_WAKEUP): it reads every few milliseconds, and a wakeup from the scheduler's own
/// tracepoint would cost more than the event.
#[inline(always)]
pub fn send<T>(stream: Stream, event: *const T, size: u64) {
    const BPF_RB_NO_WAKEUP: u64 = 1;
    count!(streams[stream as usize].produced);
    // SAFETY: `event` points to at least `size` initialised bytes, which the verifier checks.
    let result = unsafe {
        bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast_mut().cast(), size, BPF_RB_NO_WAKEUP)
    };
    if result != 0 {
        count!(streams[stream as usize].lost);
    }
}

/// `value & MASK`, by an instruction that the compiler does not remove where it proves it redundant: the verifier may lack
/// the proof (before 7.0 it does not derive a bound on `x` from one on `x - 1`).
#[inline(always)]
pub fn masked<const MASK: usize>(value: usize) -> usize {
    let mut value = value;
    // SAFETY: arithmetic alone.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack)) };
    // SAFETY: so it is; without it the compiler would check bounds, and panic.
    unsafe { core::hint::assert_unchecked(value <= MASK) };
    value
}

/// `value`, passed through memory in a map, so that the verifier knows nothing about it. Where paths with different values
/// join, it then checks the code that follows once instead of once per path.
#[inline(always)]
pub fn unknown<T: Copy>(place: &mut T, value: T) -> T {
    // SAFETY: a reference can be written and read. Volatile, or the compiler would remove both.
    unsafe {
        core::ptr::write_volatile(place, value);
        core::ptr::read_volatile(place)
    }
}
