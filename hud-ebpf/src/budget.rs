//! What the programs at context switches may spend.
//!
//! A thread that leaves its CPU is walked, named and reported, which takes from 0.3 to 20 µs; a program may switch 100,000
//! times a second. So each CPU has a token bucket: it fills with a share of the CPU time that the target uses there, and
//! what a switch takes is paid from it. While it is empty, short off-CPU intervals are not walked, but counted: they are
//! reported in sum, with the next one that is. Which intervals count as short follows from how empty it is.
//!
//! What a switch costs at least is not paid from it: where that alone is too much, user space takes the programs off for a
//! while (hud-record, `record/switches.rs`).

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use hud_common::wire::{Config, PLACES, SwitchBudget, ThreadState};

/// One bucket for each CPU.
#[map]
static SWITCH_BUDGET: PerCpuArray<SwitchBudget> = PerCpuArray::with_max_entries(1, 0);

/// Most tokens that a bucket holds (ns).
const FULL: i64 = 8_000_000;
/// How far intervals that are expected to be long may overdraw it.
const OVERDRAFT: i64 = -2_000_000;
/// The most that a walk or search is taken to cost (ns).
const MOST: u64 = 200_000;
/// Least limit below which an interval is short (ns).
const LEAST_LIMIT: u64 = 1_000_000;
/// And the greatest.
const GREATEST_LIMIT: u64 = 128_000_000;
/// How long a limit holds before it is changed again.
const LIMIT_FOR: u64 = 20_000_000;
/// After how many short intervals in a row at one place the next one there is expected to be short too.
const SHORT_IN_A_ROW: u32 = 4;

/// The bucket of this CPU.
///
/// A sample may interrupt a switch and pay from the same bucket. So no reference to it is made: each word is read and written
/// by itself, and of two amounts that are paid at once one may be lost.
#[derive(Clone, Copy)]
pub struct Budget(*mut SwitchBudget);

impl Budget {
    /// The bucket of this CPU as it stands.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        SWITCH_BUDGET.get_ptr_mut(0).map(Budget)
    }

    /// Adds what has accrued by `now`. The target was on this CPU for `on_cpu` of that time.
    #[inline(always)]
    pub fn refill(self, config: &Config, now: u64, on_cpu: u64) {
        const SECOND: u64 = 1 << 30;
        let bucket = self.0;
        // SAFETY: words of the map's own memory.
        let (refilled, tokens) = unsafe { ((*bucket).refilled, (*bucket).tokens) };
        let passed = now.wrapping_sub(refilled);
        // No more than fills the bucket: the products stay small.
        let passed = if passed > 4 * SECOND { 4 * SECOND } else { passed };
        let on_cpu = if on_cpu > passed { passed } else { on_cpu };
        let by_use = on_cpu * config.switch_share as u64;
        let by_time = passed * config.switch_floor as u64;
        let added = (if by_use > by_time { by_use } else { by_time }) >> 16;
        let tokens = tokens + added as i64;
        let tokens = if tokens > FULL { FULL } else { tokens };
        // SAFETY: as above.
        let (limit, limit_set) = unsafe {
            (*bucket).refilled = now;
            (*bucket).tokens = tokens;
            ((*bucket).limit, (*bucket).limit_set)
        };
        if now.wrapping_sub(limit_set) > LIMIT_FOR {
            let limit = if tokens < OVERDRAFT / 2 {
                limit << 1
            } else if tokens > FULL / 2 {
                limit >> 1
            } else {
                limit
            };
            let limit = if limit < LEAST_LIMIT { LEAST_LIMIT } else { limit };
            let limit = if limit > GREATEST_LIMIT { GREATEST_LIMIT } else { limit };
            // SAFETY: as above.
            unsafe { ((*bucket).limit, (*bucket).limit_set) = (limit, now) };
        }
    }

    #[inline(always)]
    fn tokens(self) -> i64 {
        // SAFETY: a word of the map's own memory.
        unsafe { (*self.0).tokens }
    }

    /// Counts a switch.
    #[inline(always)]
    pub fn count_switch(self) {
        // SAFETY: a word of the map's own memory. Only switches write it, which do not interrupt each other.
        unsafe { (*self.0).switches += 1 };
    }

    /// Whether there is something left.
    #[inline(always)]
    pub fn is_left(self) -> bool {
        self.tokens() > 0
    }

    /// Whether an interval that is expected to be long may still be walked.
    #[inline(always)]
    pub fn is_left_for_long(self) -> bool {
        self.tokens() > OVERDRAFT
    }

    /// Intervals shorter than this need not be reported one by one.
    #[inline(always)]
    pub fn limit(self) -> u64 {
        // SAFETY: a word of the map's own memory.
        unsafe { (*self.0).limit }
    }

    /// Pays for a sample that was begun at `from`.
    #[inline(always)]
    pub fn spend_on_sample(self, from: u64) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let paid = self.pay(now.wrapping_sub(from));
        // SAFETY: a word of the map's own memory. Only samples write it, which do not interrupt each other.
        unsafe { (*self.0).sampled += paid };
    }

    /// Takes tokens out. No single walk takes longer than [`MOST`]: where the clock says so, the machine stood still.
    #[inline(always)]
    fn pay(self, spent: u64) -> u64 {
        let spent = if spent > MOST { MOST } else { spent };
        let tokens = self.tokens() - spent as i64;
        // SAFETY: a word of the map's own memory.
        unsafe { (*self.0).tokens = if tokens < 2 * OVERDRAFT { 2 * OVERDRAFT } else { tokens } };
        spent
    }

    /// Pays for what was done at a switch since `from`.
    #[inline(always)]
    pub fn spend_since(self, from: u64) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let paid = self.pay(now.wrapping_sub(from));
        // SAFETY: a word of the map's own memory. Only switches write it, which do not interrupt each other.
        unsafe { (*self.0).spent += paid };
    }
}

/// A place where a thread leaves its CPU, as [`ThreadState::places`] knows it.
#[derive(Clone, Copy)]
pub struct Place {
    hash: u32,
}

impl Place {
    /// By the registers there.
    #[inline(always)]
    pub fn of(pc: u64, sp: u64) -> Self {
        let product = (pc ^ sp.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Place { hash: (product >> 32) as u32 }
    }

    /// By the hash that [`Place::hash`] gave.
    #[inline(always)]
    pub fn of_hash(hash: u32) -> Self {
        Place { hash }
    }

    /// What it is remembered by.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        self.hash
    }

    #[inline(always)]
    fn slot(self) -> usize {
        crate::maps::masked::<{ PLACES - 1 }>(self.hash as usize)
    }

    /// Whether the thread was soon back when it left its CPU here lately.
    #[inline(always)]
    pub fn is_short(self, state: &ThreadState) -> bool {
        let entry = state.places[self.slot()];
        entry & !0xff == self.hash & !0xff && entry & 0xff >= SHORT_IN_A_ROW
    }

    /// Notes whether it was this time.
    #[inline(always)]
    pub fn note(self, places: &mut [u32; PLACES], is_short: bool) {
        let slot = self.slot();
        let entry = places[slot];
        let is_known = entry & !0xff == self.hash & !0xff;
        let in_a_row = if is_short && is_known { entry & 0xff } else { 0 };
        let in_a_row = if is_short && in_a_row < 0xff { in_a_row + 1 } else { in_a_row };
        places[slot] = self.hash & !0xff | in_a_row;
    }
}
