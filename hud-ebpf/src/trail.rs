//! Remembers how walks went, so that a thread that waits where it waited before is not walked again.
//!
//! A walk is decided by the registers at its leaf and the words of the stack that it goes by (unwind tables don't change
//! while code is mapped). So where these are the same, the frames are; to look takes one read of the stack and a hash.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use hud_common::{
    unwind::Outcome,
    wire::{MAX_FRAMES, StackBuffer},
};

use crate::{
    maps::{PIECE_WORDS, STACK_PIECE, masked},
    unwind::{Walked, bytes},
};

/// Words of stack that a walk read, at most, for it to be remembered.
const MAX_LINKS: usize = 128;
/// Words of stack, from its top, in which they must lie: 16 KiB, so that 128 frames of moderate size do.
const WORDS: usize = PIECE_WORDS;
/// Trails that are remembered, by CPU: a slot by leaf and stack pointer.
const SLOTS: u32 = 64;
/// [`Trail::count`] of a walk that cannot be remembered.
const VOID: u16 = u16::MAX;

/// Walks of threads that left this CPU.
#[map]
static TRAILS: PerCpuArray<Remembered> = PerCpuArray::with_max_entries(SLOTS, 0);

#[repr(C)]
struct Remembered {
    trail: Trail,
    stack: StackBuffer,
}

/// What a walk came by: the registers at its leaf, and each word of the stack that it went by.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Trail {
    /// `rip` at the leaf; 0 = nothing is remembered.
    pub pc: u64,
    /// `rsp` there.
    pub sp: u64,
    /// `rbp` there, which matters if [`Trail::uses_bp`].
    pub bp: u64,
    /// Hash of the words read.
    hash: u64,
    /// Which ones, in words from `sp`.
    links: [u16; MAX_LINKS],
    /// How many.
    count: u16,
    /// How far up the last one is: words from `sp` that hold all of them.
    span: u16,
    frames: u16,
    outcome: u16,
    /// 1 where a frame was found by the `rbp` of the leaf.
    uses_bp: u64,
}

impl Trail {
    /// Begins anew, at a leaf.
    #[inline(always)]
    pub fn begin(&mut self, pc: u64, sp: u64, bp: u64) {
        (self.pc, self.sp, self.bp) = (pc, sp, bp);
        (self.hash, self.count, self.span, self.uses_bp) = (0, 0, 0, 0);
    }

    /// A word was read from the stack.
    #[inline(always)]
    pub fn note(&mut self, address: u64, word: u64) {
        let link = address.wrapping_sub(self.sp) / 8;
        let count = self.count as usize;
        if link >= WORDS as u64 || count >= MAX_LINKS {
            return self.forget();
        }
        self.links[masked::<{ MAX_LINKS - 1 }>(count)] = link as u16;
        self.count += 1;
        if self.span <= link as u16 {
            self.span = link as u16 + 1;
        }
        self.hash = mix(self.hash, word);
    }

    /// A frame was found by `rbp`, which was read from `address`; 0 = which is still the leaf's.
    #[inline(always)]
    pub fn note_bp(&mut self, address: u64, bp: u64) {
        if address == 0 {
            self.uses_bp = 1;
        } else {
            self.note(address, bp);
        }
    }

    /// The walk depends on something else as well.
    #[inline(always)]
    pub fn forget(&mut self) {
        self.count = VOID;
    }

    /// Whether the current thread, with these registers, has the stack that this trail was left by.
    #[inline(always)]
    fn holds(&self, pc: u64, sp: u64, bp: u64) -> bool {
        if self.pc != pc || self.sp != sp || (self.bp != bp && self.uses_bp != 0) {
            return false;
        }
        let Some(piece) = STACK_PIECE.get_ptr_mut(0) else {
            return false;
        };
        let size = self.span as u32 * 8;
        // SAFETY: the map's own memory holds WORDS words; the helper checks the address.
        if size > WORDS as u32 * 8 || unsafe { bpf_probe_read_user(piece.cast(), size, sp as *const _) } != 0 {
            return false;
        }
        let mut hash = 0;
        for i in 0..MAX_LINKS {
            if i >= self.count as usize {
                break;
            }
            // SAFETY: the index is below WORDS.
            hash = mix(hash, unsafe { (*piece)[self.links[i] as usize & (WORDS - 1)] });
        }
        hash == self.hash
    }
}

/// The stack of the current thread, written to `into`, if one is remembered that it has again.
#[inline(always)]
pub fn recall(pc: u64, sp: u64, bp: u64, into: *mut StackBuffer) -> Option<Walked> {
    let remembered = TRAILS.get_ptr(slot(pc, sp))?;
    // SAFETY: the map's own memory; this CPU's, and no program interrupts another that uses it.
    let remembered = unsafe { &*remembered };
    let trail = &remembered.trail;
    if pc == 0 || !trail.holds(pc, sp, bp) {
        return None;
    }
    let walked = Walked { frames: trail.frames, outcome: trail.outcome };
    // SAFETY: both buffers are maps' own, and hold MAX_FRAMES words.
    let copied =
        unsafe { bpf_probe_read_kernel(into.cast(), walked.bytes() as u32, (&raw const remembered.stack).cast()) };
    (copied == 0).then_some(walked)
}

/// Remembers a walk that is over.
#[inline(always)]
pub fn remember(trail: &Trail, stack: *const StackBuffer, walked: &Walked) {
    // A walk that failed may do better once user space knows more.
    if trail.count > MAX_LINKS as u16 || walked.outcome == Outcome::Failed as u16 {
        return;
    }
    let Some(remembered) = TRAILS.get_ptr_mut(slot(trail.pc, trail.sp)) else {
        return;
    };
    // SAFETY: as in `recall`.
    let remembered = unsafe { &mut *remembered };
    remembered.trail = *trail;
    (remembered.trail.frames, remembered.trail.outcome) = (walked.frames, walked.outcome);
    // SAFETY: likewise.
    let copied =
        unsafe { bpf_probe_read_kernel((&raw mut remembered.stack).cast(), bytes(walked.frames) as u32, stack.cast()) };
    if copied != 0 {
        remembered.trail.pc = 0;
    }
}

#[inline(always)]
fn slot(pc: u64, sp: u64) -> u32 {
    (mix(pc, sp) >> 40) as u32 % SLOTS
}

/// A step of a hash: by the golden ratio, as Fibonacci hashing does.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}

const _: () = assert!(MAX_FRAMES <= MAX_LINKS);
