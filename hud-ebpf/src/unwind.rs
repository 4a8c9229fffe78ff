//! Walks the current thread's user stack by the unwind tables that user space has computed (see `hud_wire::unwind`), from
//! the registers with which the thread entered the kernel.
//!
//! Code without a table is walked by its frame pointer: most just-in-time compilers keep one. A return address counts only
//! if it lies in mapped code, and each frame must lie further out than the one before, so the walk ends. A stack whose last
//! frame is not the thread's first function is marked.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs,
        generated,
    },
    macros::map,
    maps::{Array, PerCpuArray},
};
use hud_wire::{
    Config, Leaf, MAX_FRAMES, MAX_POLLS, StackBuffer,
    unwind::{Active, BUCKET_BITS, MAPPING_STEPS, MAX_MAPPINGS, Mapping, Outcome, ROW_STEPS, Row, Rule},
};

use crate::{
    maps::{config, count, each_of, unknown},
    unwind_cache::{self, Key},
};

const BPF_F_USER_STACK: u64 = 1 << 8;

/// Rows of all tables. User space gives the map its size before it loads it.
#[map]
static UNWIND_ROWS: Array<Row> = Array::with_max_entries(1, 0);

/// The tables' indexes, likewise.
#[map]
static UNWIND_INDEX: Array<u32> = Array::with_max_entries(1, 0);

/// Two lists of mappings; see [`Active`].
#[map]
static UNWIND_MAPPINGS: Array<Mapping> = Array::with_max_entries(2 * MAX_MAPPINGS, 0);

/// The list in use.
#[map]
static UNWIND_ACTIVE: Array<Active> = Array::with_max_entries(1, 0);

/// Its length is the number of steps of a loop. There is one step more than frames, which finds that the stack is
/// complete.
#[map]
static FRAME_STEPS: Array<u64> = Array::with_max_entries(MAX_FRAMES as u32 + 1, 0);

/// Walks in progress, by CPU.
#[map]
static WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(2, 0);

/// Index in [`WALKS`] for switches.
pub const SWITCHES: u32 = 0;
/// For samples, which may interrupt a switch.
pub const SAMPLES: u32 = 1;

/// A walk in progress.
#[repr(C)]
pub struct Walk {
    /// Frames found, leaf first. A power of two, so that a masked index is within it.
    stack: StackBuffer,
    pc: u64,
    sp: u64,
    bp: u64,
    /// Where `bp` was read; 0 = it is the leaf's.
    bp_at: u64,
    /// Number of frames.
    frames: u32,
    /// [`Outcome`]
    outcome: u32,
    /// 1 if `pc` is a return address: it may already belong to the code after the call.
    is_return: u64,
    /// Its input so far.
    key: Key,
    /// 1 if the leaf may stand behind a probe's breakpoint, and that was not tried yet.
    may_be_at_probe: u32,
    reserved: u32,
    /// The mapping that held the address before.
    mapping: Mapping,
    /// The row that holds at the frame's address.
    row: Row,
    /// Where the caller's `rbp` lies; 0 = it is in `bp`.
    saved_bp: u64,
}

const _: () = assert!(MAX_FRAMES.is_power_of_two());

/// Number of frames found, and how the walk ended.
pub struct Walked {
    pub frames: u16,
    pub outcome: u16,
}

impl Walked {
    /// Bytes of stack.
    #[inline(always)]
    pub fn bytes(&self) -> u64 {
        bytes(self.frames)
    }
}

/// Size of this number of frames. The verifier needs the bound.
#[inline(always)]
pub fn bytes(frames: u16) -> u64 {
    let frames = frames as u64;
    (if frames > MAX_FRAMES as u64 { MAX_FRAMES as u64 } else { frames }) * 8
}

/// The registers with which the current thread entered the kernel; all zero if stacks are walked by frame pointers.
#[inline(always)]
pub fn leaf(config: &Config) -> Leaf {
    if config.unwind == 0 {
        return Leaf { pc: 0, sp: 0, bp: 0, task_id: 0 };
    }
    // SAFETY: the helpers take and give kernel pointers, whose fields the verifier knows.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs;
        Leaf { pc: (*regs).rip, sp: (*regs).rsp, bp: (*regs).rbp, task_id: 0 }
    }
}

/// Writes the current thread's user stack to `into`, leaf first. `slot` is [`SWITCHES`] or [`SAMPLES`].
#[inline(always)]
pub fn walk(ctx: &impl EbpfContext, config: &Config, into: *mut StackBuffer, slot: u32) -> Walked {
    if config.unwind == 0 {
        // SAFETY: the buffer holds MAX_FRAMES words.
        let bytes = unsafe {
            generated::bpf_get_stack(ctx.as_ptr(), into.cast(), size_of::<StackBuffer>() as u32, BPF_F_USER_STACK)
        };
        let frames = if bytes > 0 { bytes as u64 / 8 } else { 0 };
        return Walked { frames: frames as u16, outcome: Outcome::Unknown as u16 };
    }
    let none = Walked { frames: 0, outcome: Outcome::Failed as u16 };
    let Some(walk) = WALKS.get_ptr_mut(slot) else {
        return none;
    };
    // SAFETY: the map's own memory; this CPU's, and this program's alone while it runs.
    let walk = unsafe { &mut *walk };
    let leaf = leaf(config);
    (walk.pc, walk.sp, walk.bp) = (leaf.pc, leaf.sp, leaf.bp);
    // Samples are few, and may interrupt a switch that uses the cache.
    let is_cached = slot == SWITCHES;
    if is_cached && let Some(walked) = unwind_cache::get(walk.pc, walk.sp, walk.bp, into) {
        count!(spared);
        return walked;
    }
    walk.key.begin(walk.pc, walk.sp, walk.bp);
    walk.may_be_at_probe = (config.polls != 0) as u32;
    walk.frames = 0;
    walk.is_return = 0;
    walk.bp_at = 0;
    walk.outcome = Outcome::Truncated as u32;
    walk.mapping.end = 0;
    let slot = [slot];
    // SAFETY: the callback takes the context that is passed here.
    unsafe { each_of(&raw const FRAME_STEPS, step, (&raw const slot).cast_mut()) };
    let frames = walk.frames as u16;
    // SAFETY: both buffers are the maps' own, and hold MAX_FRAMES words.
    let copied =
        unsafe { generated::bpf_probe_read_kernel(into.cast(), bytes(frames) as u32, (&raw const walk.stack).cast()) };
    if copied != 0 {
        return none;
    }
    let walked = Walked { frames, outcome: walk.outcome as u16 };
    if is_cached {
        unwind_cache::put(&walk.key, &raw const walk.stack, &walked);
    }
    walked
}

/// One frame. Returns 1 to end the walk.
#[inline(never)]
unsafe extern "C" fn step(_map: *const u8, _index: *const u32, _value: *const u64, slot: *mut [u32; 1]) -> i64 {
    // SAFETY: the helper passes what `walk` gave it.
    let Some(walk) = WALKS.get_ptr_mut(unsafe { (*slot)[0] }) else {
        return 1;
    };
    // SAFETY: as in `walk`.
    let walk = unsafe { &mut *walk };
    if walk.pc == 0 {
        // The creator of this thread put no return address below its first function.
        walk.outcome = Outcome::Complete as u32;
        return 1;
    }
    if !find_mapping(walk, walk.pc - walk.is_return) && !leave_probe(walk) {
        count!(unmapped);
        if walk.is_return == 0 && walk.frames == 0 {
            // The leaf is certain; its caller is unknown.
            walk.stack[0] = walk.pc;
            walk.frames = 1;
        }
        return fail(walk);
    }
    let address = walk.pc - walk.is_return;
    if walk.frames >= MAX_FRAMES as u32 {
        return 1;
    }
    walk.stack[crate::maps::masked::<{ MAX_FRAMES - 1 }>(walk.frames as usize)] = walk.pc;
    walk.frames += 1;
    let row = find_row(&walk.mapping, address);
    let row = unknown(&mut walk.row, row);
    let outcome = leave_frame(walk, row);
    if outcome == CONTINUES {
        return 0;
    }
    if outcome == Outcome::Failed as u32 {
        return fail(walk);
    }
    walk.outcome = outcome;
    1
}

/// Ends the walk; or restarts it, if its leaf may just have hit a probe: then it stands behind the breakpoint, one byte
/// into an instruction that has not been executed.
#[inline(always)]
fn fail(walk: &mut Walk) -> i64 {
    const INT3: u8 = 0xcc;
    if walk.frames == 1 && walk.may_be_at_probe != 0 {
        walk.may_be_at_probe = 0;
        let at = walk.stack[0].wrapping_sub(1);
        // SAFETY: the helper checks the address.
        if let Ok(INT3) = unsafe { bpf_probe_read_user(at as *const u8) } {
            (walk.pc, walk.sp, walk.bp) = (at, walk.key.sp, walk.key.bp);
            walk.key.invalidate();
            walk.frames = 0;
            walk.is_return = 0;
            walk.bp_at = 0;
            return 0;
        }
    }
    walk.outcome = Outcome::Failed as u32;
    1
}

const CONTINUES: u32 = u32::MAX;

/// Moves from a frame to its caller's. Returns how the walk ended, or [`CONTINUES`].
#[inline(always)]
fn leave_frame(walk: &mut Walk, row: Row) -> u32 {
    const FAILED: u32 = Outcome::Failed as u32;
    let distance = (row.cfa as i64 * 8) as u64;
    let rule = row.rule;
    if rule == Rule::Outermost as u8 {
        return Outcome::Complete as u32;
    }
    if rule == Rule::Signal as u8 || (rule == Rule::Unknown as u8 && is_sigreturn(walk.pc)) {
        return leave_signal(walk);
    }
    if rule == Rule::Rbp as u8 || rule == Rule::AtRbp as u8 || rule == Rule::Unknown as u8 {
        walk.key.add_bp(walk.bp_at, walk.bp);
    }
    // Where the caller's rbp lies; 0 = in rbp.
    let mut saved_rbp = 0;
    let cfa = if rule == Rule::Rsp as u8 {
        walk.sp.wrapping_add(distance)
    } else if rule == Rule::Rbp as u8 {
        walk.bp.wrapping_add(distance)
    } else if rule == Rule::Plt as u8 {
        let past = (walk.pc & 15) >= row.rbp as u64;
        walk.sp.wrapping_add(distance) + if past { 8 } else { 0 }
    } else if rule == Rule::AtRbp as u8 {
        saved_rbp = walk.bp;
        match read(walk, walk.bp.wrapping_add(distance)) {
            Some(cfa) => cfa,
            None => return FAILED,
        }
    } else {
        // No rule: a frame pointer, if it is one.
        if walk.bp == 0 && walk.is_return != 0 {
            // By the ABI the outermost frame's.
            return Outcome::Complete as u32;
        }
        saved_rbp = walk.bp;
        walk.bp.wrapping_add(16)
    };
    let saved_rbp = unknown(&mut walk.saved_bp, saved_rbp);
    if cfa <= walk.sp || cfa & 7 != 0 {
        return FAILED;
    }
    let mut saved_rbp = saved_rbp;
    if rule != Rule::Plt as u8 && row.rbp != 0 {
        saved_rbp = cfa.wrapping_add((row.rbp as i64 * 8) as u64);
    }
    let Some(pc) = read(walk, cfa - 8) else {
        return FAILED;
    };
    if saved_rbp != 0 {
        // SAFETY: the helper checks the address. It joins the key once it is used: in code without a frame pointer, rbp may
        // hold anything.
        match unsafe { bpf_probe_read_user(saved_rbp as *const u64) } {
            Ok(bp) => (walk.bp, walk.bp_at) = (bp, saved_rbp),
            Err(_) => return FAILED,
        }
    }
    walk.pc = pc;
    walk.sp = cfa;
    walk.is_return = 1;
    CONTINUES
}

/// A word of the stack.
#[inline(always)]
fn read(walk: &mut Walk, address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    let word = unsafe { bpf_probe_read_user(address as *const u64) }.ok()?;
    walk.key.add_word(address, word);
    Some(word)
}

/// Moves from the return of a signal handler to the interrupted code, whose registers lie in the `ucontext` at rsp
/// (arch/x86/include/uapi/asm/sigcontext.h, `struct sigcontext_64` at byte 40).
#[inline(always)]
fn leave_signal(walk: &mut Walk) -> u32 {
    const RBP: u64 = 40 + 80;
    const RSP: u64 = 40 + 120;
    const RIP: u64 = 40 + 128;
    let at = walk.sp;
    let mut read = |offset: u64| read(walk, at.wrapping_add(offset));
    let Some(bp) = read(RBP) else { return Outcome::Failed as u32 };
    let Some(sp) = read(RSP) else { return Outcome::Failed as u32 };
    let Some(pc) = read(RIP) else { return Outcome::Failed as u32 };
    (walk.bp, walk.sp, walk.pc) = (bp, sp, pc);
    // It was interrupted right there.
    walk.is_return = 0;
    CONTINUES
}

/// Whether the code at an address is `mov $15, %rax; syscall`: `rt_sigreturn` in C libraries without unwind information.
#[inline(always)]
fn is_sigreturn(pc: u64) -> bool {
    const CODE: u64 = u64::from_le_bytes([0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f]);
    // SAFETY: the helper checks the address.
    matches!(unsafe { bpf_probe_read_user(pc as *const u64) }, Ok(CODE))
}

/// Finds the mapping that contains an address and stores it in `walk`.
#[inline(always)]
fn find_mapping(walk: &mut Walk, address: u64) -> bool {
    if walk.mapping.start <= address && address < walk.mapping.end {
        return true;
    }
    let Some(active) = UNWIND_ACTIVE.get(0) else {
        return false;
    };
    // The last one that begins at the address or before.
    let (mut low, mut count) = (active.first, active.count);
    for _ in 0..MAPPING_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        let Some(middle) = UNWIND_MAPPINGS.get(low + half) else {
            return false;
        };
        // Halved: `[vsyscall]` lies in the upper half of the address space. Mappings begin at even addresses.
        low += half & up_to(middle.start >> 1, address >> 1) as u32;
        count -= half;
    }
    match UNWIND_MAPPINGS.get(low) {
        Some(mapping) if mapping.start <= address && address < mapping.end => {
            walk.mapping = *mapping;
            true
        }
        _ => false,
    }
}

/// All ones if `start <= address`, else 0; both below 2^63. A step of a search without a branch: the verifier follows both
/// ways of each branch, and a search of ten steps would have a thousand paths.
#[inline(always)]
fn up_to(start: u64, address: u64) -> u64 {
    let mut mask = !((address.wrapping_sub(start) as i64) >> 63) as u64;
    // SAFETY: changes nothing. If the compiler knew the mask, it would make a branch of it.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) mask, options(pure, nomem, nostack)) };
    mask
}

/// Maximum number of return probes that are examined: hud probes the returns of polls, which hardly nest.
const RETURN_PROBES: usize = MAX_POLLS;
/// Bytes that a return probe pushes before it calls the kernel: three registers (arch/x86/kernel/uprobes.c,
/// `uretprobe_trampoline_entry`, Linux 6.11).
const PUSHED: u64 = 24;

/// Leaves code that is not the target's: if the return of a function is probed, its return address leads to the probe.
/// Returns whether `walk` is in mapped code again.
#[inline(always)]
fn leave_probe(walk: &mut Walk) -> bool {
    walk.key.invalidate();
    let Some((slot, pc)) = return_of(walk) else {
        return false;
    };
    walk.pc = pc;
    walk.sp = slot.wrapping_add(8);
    walk.is_return = 1;
    find_mapping(walk, pc.wrapping_sub(1))
}

/// The slot of the return address that led here, and the original return address, which the kernel keeps in the thread's
/// list of return probes.
#[inline(always)]
fn return_of(walk: &Walk) -> Option<(u64, u64)> {
    let config = config();
    if config.task_utask == Config::NONE {
        return None;
    }
    let slot = walk.sp.wrapping_sub(8);
    // A leaf may stand in the probe itself.
    let pushed = if walk.is_return == 0 { slot.wrapping_add(PUSHED) } else { slot };
    // SAFETY: the helper checks the addresses.
    let read = |at: u64, offset: u32| unsafe { bpf_probe_read_kernel(at.wrapping_add(offset as u64) as *const u64) };
    // SAFETY: a helper without arguments.
    let utask = read(unsafe { bpf_get_current_task() }, config.task_utask).unwrap_or(0);
    if utask == 0 {
        return None;
    }
    let mut instance = read(utask, config.utask_instances).unwrap_or(0);
    for _ in 0..RETURN_PROBES {
        if instance == 0 {
            break;
        }
        let stack = read(instance, config.instance_stack).unwrap_or(0);
        if stack == slot || stack == pushed {
            return Some((stack, read(instance, config.instance_return).ok()?));
        }
        instance = read(instance, config.instance_next).unwrap_or(0);
    }
    if walk.is_return != 0 {
        return None;
    }
    // The kernel has handled the return, and has stored the address for the probe.
    const POP_AND_RETURN: u32 = u32::from_le_bytes([0x41, 0x5b, 0x59, 0xc3]);
    // SAFETY: the helper checks the addresses.
    unsafe {
        match bpf_probe_read_user(walk.pc as *const u32) {
            Ok(POP_AND_RETURN) => Some((pushed, bpf_probe_read_user(pushed as *const u64).ok()?)),
            _ => None,
        }
    }
}

/// The row that applies at an address.
#[inline(always)]
fn find_row(mapping: &Mapping, address: u64) -> Row {
    const UNKNOWN: Row = Row { address: 0, cfa: 0, rbp: 0, rule: Rule::Unknown as u8 };
    let address = address.wrapping_sub(mapping.base);
    let bucket = address >> BUCKET_BITS;
    if bucket >= mapping.buckets as u64 {
        return UNKNOWN;
    }
    let entry = mapping.index + bucket as u32;
    let (Some(&low), Some(&high)) = (UNWIND_INDEX.get(entry), UNWIND_INDEX.get(entry + 1)) else {
        return UNKNOWN;
    };
    // The last one at the address or before. There is at least one: the row that applies at the bucket's first byte.
    let (mut low, mut count) = (low, high.wrapping_sub(low).wrapping_add(1));
    for _ in 0..ROW_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        let Some(middle) = UNWIND_ROWS.get(mapping.rows + low + half) else {
            return UNKNOWN;
        };
        low += half & up_to(middle.address as u64, address) as u32;
        count -= half;
    }
    match UNWIND_ROWS.get(mapping.rows + low) {
        Some(&row) => row,
        None => UNKNOWN,
    }
}
