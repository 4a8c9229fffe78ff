//! A cache of stack walks, so that a thread that waits where it waited before is not walked again.
//!
//! The result of a walk depends on the registers at its leaf and on the stack words that it read (unwind tables don't
//! change while code is mapped). If these are unchanged, so are the frames. A lookup takes one read of the stack and a hash.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};
use hud_wire::{MAX_FRAMES, StackBuffer, unwind::Outcome};

use crate::{
    maps::{PIECE_WORDS, STACK_PIECE, masked},
    unwind::{Walked, bytes},
};

/// Maximum number of stack words read by a walk that is cached.
const MAX_WORDS: usize = 128;
/// Size of the part of the stack, in words from its top, in which they must lie: 16 KiB hold 128 frames of moderate size.
const WORDS: usize = PIECE_WORDS;
/// Entries per CPU; the slot follows from leaf and stack pointer.
const SLOTS: u32 = 64;
/// [`Key::count`] of a walk that cannot be cached.
const UNCACHEABLE: u16 = u16::MAX;

/// Walks of threads that left this CPU.
#[map]
static UNWIND_CACHE: PerCpuArray<Entry> = PerCpuArray::with_max_entries(SLOTS, 0);

#[repr(C)]
struct Entry {
    key: Key,
    stack: StackBuffer,
}

/// The input of a walk: the registers at its leaf, and each stack word that it read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    /// `rip` at the leaf; 0 = the entry is empty.
    pub pc: u64,
    /// `rsp` there.
    pub sp: u64,
    /// `rbp` there, which counts if [`Key::uses_bp`].
    pub bp: u64,
    /// Hash of the words read.
    hash: u64,
    /// Their positions, in words from `sp`.
    words: [u16; MAX_WORDS],
    /// Their number.
    count: u16,
    /// Number of words from `sp` that contain all of them.
    span: u16,
    frames: u16,
    outcome: u16,
    /// 1 if a frame was found by the leaf's `rbp`.
    uses_bp: u64,
}

impl Key {
    /// Starts a walk at a leaf.
    #[inline(always)]
    pub fn begin(&mut self, pc: u64, sp: u64, bp: u64) {
        (self.pc, self.sp, self.bp) = (pc, sp, bp);
        (self.hash, self.count, self.span, self.uses_bp) = (0, 0, 0, 0);
    }

    /// Adds a word that was read from the stack.
    #[inline(always)]
    pub fn add_word(&mut self, address: u64, word: u64) {
        let position = address.wrapping_sub(self.sp) / 8;
        let count = self.count as usize;
        if position >= WORDS as u64 || count >= MAX_WORDS {
            return self.invalidate();
        }
        self.words[masked::<{ MAX_WORDS - 1 }>(count)] = position as u16;
        self.count += 1;
        if self.span <= position as u16 {
            self.span = position as u16 + 1;
        }
        self.hash = mix(self.hash, word);
    }

    /// Adds the `rbp` by which a frame was found. It was read from `address`; 0 = it is the leaf's.
    #[inline(always)]
    pub fn add_bp(&mut self, address: u64, bp: u64) {
        if address == 0 {
            self.uses_bp = 1;
        } else {
            self.add_word(address, bp);
        }
    }

    /// Marks the walk as uncacheable, as it depends on more than registers and stack.
    #[inline(always)]
    pub fn invalidate(&mut self) {
        self.count = UNCACHEABLE;
    }

    /// Whether the current thread has these registers and the same stack words.
    #[inline(always)]
    fn matches(&self, pc: u64, sp: u64, bp: u64) -> bool {
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
        for i in 0..MAX_WORDS {
            if i >= self.count as usize {
                break;
            }
            // SAFETY: the index is below WORDS.
            hash = mix(hash, unsafe { (*piece)[self.words[i] as usize & (WORDS - 1)] });
        }
        hash == self.hash
    }
}

/// Writes the stack of the current thread to `into`, if it is cached.
#[inline(always)]
pub fn get(pc: u64, sp: u64, bp: u64, into: *mut StackBuffer) -> Option<Walked> {
    let entry = UNWIND_CACHE.get_ptr(slot(pc, sp))?;
    // SAFETY: the map's own memory; this CPU's, and no program interrupts another that uses it.
    let entry = unsafe { &*entry };
    let key = &entry.key;
    if pc == 0 || !key.matches(pc, sp, bp) {
        return None;
    }
    let walked = Walked { frames: key.frames, outcome: key.outcome };
    // SAFETY: both buffers are maps' own, and hold MAX_FRAMES words.
    let copied = unsafe { bpf_probe_read_kernel(into.cast(), walked.bytes() as u32, (&raw const entry.stack).cast()) };
    (copied == 0).then_some(walked)
}

/// Adds a walk.
#[inline(always)]
pub fn put(key: &Key, stack: *const StackBuffer, walked: &Walked) {
    // A failed walk may succeed once user space has written more unwind tables.
    if key.count > MAX_WORDS as u16 || walked.outcome == Outcome::Failed as u16 {
        return;
    }
    let Some(entry) = UNWIND_CACHE.get_ptr_mut(slot(key.pc, key.sp)) else {
        return;
    };
    // SAFETY: as in `get`.
    let entry = unsafe { &mut *entry };
    entry.key = *key;
    (entry.key.frames, entry.key.outcome) = (walked.frames, walked.outcome);
    // SAFETY: likewise.
    let copied =
        unsafe { bpf_probe_read_kernel((&raw mut entry.stack).cast(), bytes(walked.frames) as u32, stack.cast()) };
    if copied != 0 {
        entry.key.pc = 0;
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

const _: () = assert!(MAX_FRAMES <= MAX_WORDS);
