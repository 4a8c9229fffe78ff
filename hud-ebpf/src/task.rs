//! The task that a thread is polling, and its type, without a probe.
//!
//! Tokio keeps the current task's id in a thread-local (`tokio::runtime::context::CONTEXT.current_task_id`), which an
//! executable reaches at a fixed distance from `fsbase`. The id does not determine the type, so when an id is first
//! observed, its `Header` is searched for on the thread's own stack: `raw::poll(header)` and the frames above it keep the
//! pointer, or one to the task's core, in callee-saved registers that the frames below them spill. A candidate counts only
//! if `header + vtable.id_offset` holds the id that is sought, so a stale pointer cannot mislead.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_probe_read_kernel,
        bpf_probe_read_user, bpf_task_pt_regs, generated,
    },
    macros::map,
    maps::Array,
};
use hud_wire::{
    CONTEXT_WORDS, Calibration, Config, EventKind, MAX_POLLS, NO_POLL_FN, PollFrame, Stream, TaskEvent, ThreadState,
};

use crate::{
    maps::{
        CALIBRATION, ID_OFFSETS, ID_OFFSETS_SLOTS, REPORTED, REPORTED_OUTSIDE, STACK_PIECE, TASKS, add, count, each_of,
        masked, probes_since, send,
    },
    poll::{COMPLETE, REFERENCES, RUNNING},
};

/// The beginning of tokio's `runtime::task::core::Header` (tokio/src/runtime/task/core.rs, since 1.21).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// Flags and, from bit 6, the number of references (tokio/src/runtime/task/state.rs).
    pub state: u64,
    queue_next: u64,
    /// The task type's functions and offsets.
    pub vtable: u64,
    /// The id of its `OwnedTasks`; each runtime and each `LocalSet` has one. 0 = none.
    pub owner: u64,
}

impl Header {
    /// Reads the header at an address of the target.
    #[inline(always)]
    pub fn read(at: u64) -> Option<Self> {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(at as *const Header) }.ok()
    }

    /// The task's id; 0 if it cannot be read.
    #[inline(always)]
    pub fn id(&self, config: &Config, at: u64) -> u64 {
        // SAFETY: the helper checks the address.
        unsafe { read_id(config, at, self.vtable) }.unwrap_or(0)
    }
}

/// Number of stack words per search for an unknown task: two pages. The next search continues further up.
const PIECE: usize = 1024;
/// Its length is the number of steps of a loop.
#[map]
static SEARCH_STEPS: Array<u64> = Array::with_max_entries(PIECE as u32, 0);
/// Number of failed searches after which a task's type remains unknown.
const MAX_TRIES: u32 = 16;
/// `tokio::runtime::task::core::Cell` is `repr(align(128))` on x86_64.
const HEADER_ALIGN: u64 = 128;
/// A word that points less than this above its own piece points into the same stack.
const NEAR: u64 = 64 << 10;

/// The id of the task that the current thread is polling; 0 = none or unknown. `slot` as in [`report_type`]. `may_search`:
/// whether the budget allows a search for the word that holds it, while that word is unknown.
#[inline(always)]
pub fn current_id(config: &Config, state: *mut ThreadState, slot: u32, may_search: bool) -> u64 {
    let innermost = polled_id(state);
    let Some(calibration) = calibration(config) else {
        return innermost;
    };
    // SAFETY: one aligned word of the map's own memory. If user space writes it meanwhile, this reads the old or the new value.
    match unsafe { (&raw const (*calibration).found).read_volatile() } {
        // Polls in progress when the probes were detached have no return: only probes that stay are reliable.
        Calibration::GAVE_UP => {
            if config.polls != 0 {
                innermost
            } else {
                0
            }
        }
        0 => {
            if may_search {
                let id = if innermost != 0 { innermost } else { id_on_stack(config, state, slot) };
                if id != 0 {
                    calibrate(config, calibration, id, slot);
                }
            }
            innermost
        }
        found => read_task_id(config, found),
    }
}

/// The position of the id in the thread-local; `None` if that cannot be read.
#[inline(always)]
fn calibration(config: &Config) -> Option<*mut Calibration> {
    if config.tls_words == 0 {
        return None;
    }
    CALIBRATION.get_ptr_mut(0)
}

/// The id of the task whose poll is in progress, from the probes; 0 = none. Unlike [`current_id`], never the id of a worker's
/// loop.
#[inline(always)]
pub fn polled_id(state: *const ThreadState) -> u64 {
    match innermost_poll(state) {
        Some(poll) => poll.task_id,
        None => 0,
    }
}

/// The task id in word `found` - 1 of the current thread's `CONTEXT`.
#[inline(always)]
fn read_task_id(config: &Config, found: u64) -> u64 {
    let offset = config.tls_context + (found as i64 - 1) * 8;
    // SAFETY: the helper checks the addresses. A tag of anything but 1 means that there is no id.
    let word = tls_block(config).and_then(|block| unsafe {
        if block == NO_BLOCK {
            return Ok(0);
        }
        let at = block.wrapping_add_signed(offset) as *const u64;
        if config.tls_tagged != 0 && bpf_probe_read_user(at.sub(1))? & 0xff != 1 {
            return Ok(0);
        }
        bpf_probe_read_user(at)
    });
    match word {
        Ok(word) => word,
        Err(_) => {
            count!(tls_failed);
            0
        }
    }
}

/// A thread that has not used the thread-locals of a library yet.
const NO_BLOCK: u64 = u64::MAX;

/// From where the thread-locals of the module with tokio are counted: `fsbase`, or the module's block, or [`NO_BLOCK`].
///
/// glibc: `tcbhead_t::dtv` (sysdeps/x86_64/nptl/tls.h) points to pairs of words; the first of pair n is the address of
/// module n's block, or -1 (`TLS_DTV_UNALLOCATED`). The number of pairs is in the word before pair 0 (`dtv[-1].counter`,
/// elf/dl-tls.c).
#[inline(always)]
fn tls_block(config: &Config) -> Result<u64, i32> {
    let fsbase = fsbase(config)?;
    if config.tls_module == 0 {
        return Ok(fsbase);
    }
    // SAFETY: the helper checks the addresses.
    unsafe {
        let dtv = bpf_probe_read_user(fsbase.wrapping_add(8) as *const u64)?;
        let count = bpf_probe_read_user(dtv.wrapping_sub(16) as *const u64)?;
        if config.tls_module > count {
            return Ok(NO_BLOCK);
        }
        bpf_probe_read_user(dtv.wrapping_add(16 * config.tls_module) as *const u64)
    }
}

#[inline(always)]
fn fsbase(config: &Config) -> Result<u64, i32> {
    // SAFETY: the helpers check the address.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        bpf_probe_read_kernel(task.add(config.task_fsbase as usize).cast::<u64>())
    }
}

/// The id of the innermost task on the current thread's stack that is being polled; 0 = none found.
///
/// With it the word that holds the current task's id is found without a probe. A stale pointer may lead to a task that another
/// thread is polling: such trials are misses, see [`Calibration::verdict`].
#[inline(always)]
fn id_on_stack(config: &Config, state: *mut ThreadState, slot: u32) -> u64 {
    if config.vtables_end == 0 || config.task_fsbase == Config::NONE {
        return 0;
    }
    // Usually near the leaf, else further out.
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() } & 7;
    let tries = if random < 4 { 0 } else { random - 3 };
    match find(ANY_RUNNING, state, slot, tries) {
        Some(found) => found.id,
        None => 0,
    }
}

/// Counts the words of tokio's thread-local that hold `id`, the current task's.
///
/// Programs on all CPUs and user space share `calibration`. So no reference to it is made: its words are read one by one, and
/// counters are incremented atomically. If user space moves on to other words meanwhile, some hits count for those, as chance
/// hits do.
#[inline(always)]
fn calibrate(config: &Config, calibration: *mut Calibration, id: u64, slot: u32) {
    let (Ok(block), Some(words)) = (tls_block(config), STACK_PIECE.get_ptr_mut(slot)) else {
        return;
    };
    if block == NO_BLOCK {
        return;
    }
    // SAFETY: one aligned word of the map's own memory.
    let first = unsafe { (&raw const (*calibration).first).read_volatile() };
    if first >= config.tls_words {
        return;
    }
    // Memory behind the last thread-local may be unmapped.
    let count = (config.tls_words - first).min(CONTEXT_WORDS as u64);
    let from = block.wrapping_add_signed(config.tls_context).wrapping_add(first * 8);
    // SAFETY: the map's own memory holds more than CONTEXT_WORDS words; the helper checks `from`.
    if unsafe { generated::bpf_probe_read_user(words.cast(), count as u32 * 8, from as *const _) } != 0 {
        return;
    }
    // SAFETY: places of words in the map's own memory.
    let (looks, hits) = unsafe { (&raw mut (*calibration).looks, (&raw mut (*calibration).hits).cast::<u64>()) };
    add(looks, 1);
    for i in 0..CONTEXT_WORDS {
        // SAFETY: `i` is below CONTEXT_WORDS, the length of both. Words beyond those that were read are left over from another
        // use: user space ignores their hits.
        unsafe { add(hits.add(i), is_equal((*words)[i], id)) };
    }
}

/// 1 if two words are equal, else 0. Without a branch: the verifier would follow both ways at each of 64 words.
#[inline(always)]
fn is_equal(a: u64, b: u64) -> u64 {
    let difference = a ^ b;
    let mut either = difference | difference.wrapping_neg();
    // SAFETY: changes nothing. If the compiler knew the value, it would make a branch of it.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) either, options(pure, nomem, nostack)) };
    (either >> 63) ^ 1
}

/// Reports the type of task `id` when the task is first observed. `slot` selects the scratch memory: 0 in the scheduler's
/// tracepoints, 1 in the sampler.
#[inline(always)]
pub fn report_type(config: &Config, tid: u32, id: u64, state: *mut ThreadState, slot: u32) {
    // SAFETY: a plain word; a torn or stale count only costs another search.
    let tries = match unsafe { TASKS.get(id) } {
        Some(&REPORTED) => return,
        // Reported again as soon as its worker is known.
        Some(&REPORTED_OUTSIDE) => match worker(config) {
            Some(_) => 0,
            None => return,
        },
        Some(&tries) => tries,
        None => 0,
    };
    if tries >= MAX_TRIES {
        return;
    }
    if let Some(poll) = innermost_poll(state)
        && poll.task_id == id
    {
        return report(config, tid, id, poll.header, 0, poll.poll_fn);
    }
    // Without BTF the verifier rejects the helpers below; the constant makes it skip them.
    if config.vtables_end == 0 || config.task_fsbase == Config::NONE {
        return;
    }
    match find(id, state, slot, tries) {
        Some(found) => report(config, tid, id, found.header, found.poll_addr, NO_POLL_FN),
        None => {
            count!(scan_failed);
            let _ = TASKS.insert(id, tries + 1, 0);
        }
    }
}

#[inline(always)]
fn innermost_poll(state: *const ThreadState) -> Option<PollFrame> {
    // SAFETY: the thread map's own memory.
    let state = unsafe { &*state };
    let depth = state.depth as usize;
    if depth == 0 || depth > MAX_POLLS || state.epoch != probes_since() {
        return None;
    }
    Some(state.polls[masked::<{ MAX_POLLS - 1 }>(depth - 1)])
}

#[inline(always)]
fn report(config: &Config, tid: u32, task_id: u64, header: u64, poll_addr: u64, poll_fn: u32) {
    let owner = match Header::read(header) {
        Some(header) => header.owner,
        None => 0,
    };
    let place = worker(config);
    let (runtime, worker) = place.unwrap_or((0, 0));
    let event = TaskEvent {
        kind: EventKind::Task as u32,
        tid,
        // SAFETY: a helper without arguments.
        ts: unsafe { bpf_ktime_get_ns() },
        task_id,
        poll_addr,
        owner,
        runtime,
        worker,
        poll_fn,
        reserved: 0,
    };
    send(Stream::Tasks, &event, size_of::<TaskEvent>() as u64);
    let reported = if place.is_none() && knows_workers(config) { REPORTED_OUTSIDE } else { REPORTED };
    let _ = TASKS.insert(task_id, reported, 0);
}

/// Whether the offsets of a worker's fields are known.
#[inline(always)]
fn knows_workers(config: &Config) -> bool {
    match calibration(config) {
        // SAFETY: one aligned word of the map's own memory, which user space writes before it records.
        Some(calibration) => unsafe { (*calibration).worker.scheduler != 0 },
        None => false,
    }
}

/// The runtime's handle and the worker's index, from the scheduler's context that the current thread has entered.
#[inline(always)]
fn worker(config: &Config) -> Option<(u64, u64)> {
    let calibration = calibration(config)?;
    // SAFETY: the map's own memory, which user space writes before it records. If the copy were torn, the helper would still check
    // every address derived from it.
    let place = unsafe { (*calibration).worker };
    if place.scheduler == 0 {
        return None;
    }
    let block = tls_block(config).ok().filter(|&block| block != NO_BLOCK)?;
    let at = block.wrapping_add_signed(config.tls_context).wrapping_add((place.scheduler - 1) * 8);
    // SAFETY: the helper checks every address.
    unsafe {
        let context = bpf_probe_read_user(at as *const u64).ok().filter(|&c| c != 0)?;
        let worker = bpf_probe_read_user(context.wrapping_add(place.worker) as *const u64).ok()?;
        let handle = bpf_probe_read_user(worker.wrapping_add(place.handle) as *const u64).ok()?;
        let index = bpf_probe_read_user(worker.wrapping_add(place.index) as *const u64).ok()?;
        Some((handle, index))
    }
}

/// In place of an id: any task in a poll.
const ANY_RUNNING: u64 = 0;

/// Searches the current thread's stack for the header of task `id`: first around the slot in which the last one was
/// found (a worker polls from few places, so it mostly lies there again), else upwards from the stack pointer.
#[inline(always)]
fn find(id: u64, state: *mut ThreadState, slot: u32, tries: u32) -> Option<Search> {
    // SAFETY: the helpers take and give kernel pointers, whose fields the verifier knows.
    let (sp, registers) = unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        let registers = [(*regs).rdi, (*regs).rbx, (*regs).rbp, (*regs).r12, (*regs).r13, (*regs).r14, (*regs).r15];
        ((*regs).rsp, registers)
    };
    // A poll that calls nothing has it only in a register.
    if tries == 0 {
        let piece = STACK_PIECE.get_ptr_mut(slot)?;
        for (i, register) in registers.iter().enumerate() {
            // SAFETY: the map's own memory holds more words.
            unsafe { (*piece)[i] = *register };
        }
        if let Some(found) = look_through(id, sp, registers.len() as u64, slot) {
            return Some(found);
        }
    }
    // SAFETY: the thread map's own memory.
    let anchor = unsafe { (*state).anchor };
    if anchor > sp {
        let from = (anchor - 256) & !7;
        let from = if from > sp { from } else { sp & !7 };
        if let Some(found) = search(id, from, 64, slot) {
            // SAFETY: as above.
            unsafe { (*state).anchor = from + found.index * 8 };
            return Some(found);
        }
    }
    let from = (sp & !7) + tries as u64 * (PIECE as u64 * 8);
    let found = search(id, from, PIECE as u64, slot)?;
    // SAFETY: as above.
    unsafe { (*state).anchor = from + found.index * 8 };
    Some(found)
}

/// A search of one piece of stack: the state shared by its steps.
#[repr(C)]
#[derive(Clone, Copy)]
struct Search {
    /// The task sought, or [`ANY_RUNNING`]; once found, its id.
    id: u64,
    /// Words in the piece.
    words: u64,
    /// The poll function's address, once found.
    poll_addr: u64,
    /// The task's header.
    header: u64,
    /// Index of the word that led to it.
    index: u64,
    /// Address of the piece.
    from: u64,
    /// The scratch memory that holds the piece.
    slot: u32,
    reserved: u32,
}

/// Searches `words` words of stack from `from`.
#[inline(always)]
fn search(id: u64, from: u64, words: u64, slot: u32) -> Option<Search> {
    let piece = STACK_PIECE.get_ptr_mut(slot)?;
    // Near the stack's end a whole piece cannot be read: then it is read up to the end of the next page, or of this one.
    let rest = 4096 - (from & 4095);
    let mut bytes = words * 8;
    // SAFETY: the map's own memory holds more than PIECE words; the helper checks `from`.
    let read = |bytes: u64| unsafe { generated::bpf_probe_read_user(piece.cast(), bytes as u32, from as *const _) };
    if read(bytes) != 0 {
        bytes = (rest + 4096) & (PIECE as u64 * 8 - 1);
        if read(bytes) != 0 {
            bytes = rest & (PIECE as u64 * 8 - 1);
            if read(bytes) != 0 {
                return None;
            }
        }
    }
    look_through(id, from, bytes / 8, slot)
}

/// Searches the first `words` words of the scratch memory, a copy of those at `from`.
#[inline(always)]
fn look_through(id: u64, from: u64, words: u64, slot: u32) -> Option<Search> {
    let mut search = Search { id, words, poll_addr: 0, header: 0, index: 0, from, slot, reserved: 0 };
    // SAFETY: the callback takes the context that is passed here.
    unsafe { each_of(&raw const SEARCH_STEPS, search_step, &raw mut search) };
    (search.poll_addr != 0).then_some(search)
}

/// One word of a piece. Returns 1 to end the loop.
#[inline(never)]
unsafe extern "C" fn search_step(_map: *const u8, index: *const u32, _value: *const u64, search: *mut Search) -> i64 {
    // SAFETY: the helper passes what `search` gave it, and an element's index.
    let (search, index) = unsafe { (&mut *search, *index) };
    let index = index as usize & (PIECE - 1);
    if index as u64 >= search.words {
        return 1;
    }
    let Some(piece) = STACK_PIECE.get_ptr_mut(search.slot) else {
        return 1;
    };
    // SAFETY: `index` is below PIECE.
    let word = unsafe { (*piece)[index] };
    let config = crate::maps::config();
    // Not a pointer, or one into the stack itself or into the binary.
    if word & 7 != 0
        || word < 0x10000
        || word >> 47 != 0
        || word.wrapping_sub(search.from) < NEAR
        || (word >= config.vtables_start && word < config.vtables_end)
    {
        return 0;
    }
    // Some builds keep a pointer to the task's core, which lies in the header's first 128 bytes.
    let at = word & !(HEADER_ALIGN - 1);
    let Some(header) = Header::read(at) else { return 0 };
    if header.vtable < config.vtables_start || header.vtable >= config.vtables_end {
        return 0;
    }
    let id = header.id(&config, at);
    if id == 0 {
        return 0;
    }
    if search.id == ANY_RUNNING {
        // Workers' loops and the blocking pool's work are in no list of tasks.
        let is_running = header.state & (RUNNING | COMPLETE) == RUNNING && header.state >> REFERENCES != 0;
        if !is_running || header.owner == 0 || id >> 40 != 0 {
            return 0;
        }
    } else if search.id != id {
        return 0;
    }
    search.id = id;
    search.poll_addr = poll_fn_of(&config, header.vtable);
    search.header = at;
    search.index = index as u64;
    1
}

/// The id of the task at `header`, whose vtable is known.
#[inline(always)]
unsafe fn read_id(config: &Config, header: u64, vtable: u64) -> Option<u64> {
    let offset = id_offset(config, vtable)?;
    // SAFETY: the helper checks every address.
    unsafe { bpf_probe_read_user((header + offset) as *const u64) }.ok()
}

/// Offset of the id in a task of the type at `vtable`. Cached, as vtables don't change: a read of the target's memory takes
/// 0.1 µs.
#[inline(always)]
fn id_offset(config: &Config, vtable: u64) -> Option<u64> {
    // User addresses have 47 bits, offsets at most 12; vtables are a multiple of 8.
    const OFFSET: u64 = (1 << 16) - 1;
    let slot = ID_OFFSETS.get_ptr_mut((vtable >> 3) as u32 % ID_OFFSETS_SLOTS)?;
    // SAFETY: the map's own memory; one aligned word, so that a reader sees this entry or another, never a mixture.
    let known = unsafe { slot.read_volatile() };
    if known >> 16 == vtable && vtable != 0 {
        return Some(known & OFFSET);
    }
    // SAFETY: the helper checks the address.
    let offset = unsafe { bpf_probe_read_user((vtable + config.vtable_id_offset as u64) as *const u64) }.ok()?;
    if offset > 4096 || vtable >> 48 != 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { slot.write_volatile(vtable << 16 | offset) };
    Some(offset)
}

/// The poll function of the task type whose vtable is at `vtable`; 0 if it cannot be read.
#[inline(always)]
pub fn poll_fn_of(config: &Config, vtable: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user((vtable + config.vtable_poll as u64) as *const u64) }.unwrap_or(0)
}
