//! The overhead budget of the programs at context switches.
//!
//! Walking, naming and reporting a thread that leaves its CPU takes 0.3 to 20 µs, and a program may switch 100,000 times a
//! second. So each CPU has a token bucket: it fills with a share of the CPU time that the target uses there, and pays for
//! the time spent at switches. While it is empty, short off-CPU intervals are not walked but summed up, and the sum is
//! reported with the next interval that is. The limit for short intervals rises while the bucket is empty.
//!
//! The minimum cost of a switch is not paid from it: if that alone is too much, user space detaches the programs for a while
//! (hud-record, `record/switches.rs`).

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use hud_wire::{Config, PLACES, SwitchBudget, ThreadState};

/// A bucket per CPU.
#[map]
static SWITCH_BUDGET: PerCpuArray<SwitchBudget> = PerCpuArray::with_max_entries(1, 0);

/// Capacity of a bucket (ns).
const FULL: i64 = 8_000_000;
/// Overdraft for intervals that are expected to be long (ns).
const OVERDRAFT: i64 = -2_000_000;
/// Maximum cost of a walk or a search (ns).
const MOST: u64 = 200_000;
/// Minimum of the limit below which an interval is short (ns).
const LEAST_LIMIT: u64 = 1_000_000;
/// Maximum of that limit (ns).
const GREATEST_LIMIT: u64 = 128_000_000;
/// Time between changes of that limit (ns).
const LIMIT_FOR: u64 = 20_000_000;
/// Number of consecutive short intervals at one place from which on the next one there is expected to be short.
const SHORT_IN_A_ROW: u32 = 4;

/// The bucket of this CPU.
///
/// A sample may interrupt a switch and pay from the same bucket. So no reference to it is made: each word is read and written
/// by itself, and one of two simultaneous payments may be lost.
#[derive(Clone, Copy)]
pub struct Budget(*mut SwitchBudget);

impl Budget {
    /// The bucket of this CPU.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        SWITCH_BUDGET.get_ptr_mut(0).map(Budget)
    }

    /// Adds the tokens that have accrued by `now`. The target was on this CPU for `on_cpu` of that time.
    #[inline(always)]
    pub fn refill(self, config: &Config, now: u64, on_cpu: u64) {
        const SECOND: u64 = 1 << 30;
        let bucket = self.0;
        // SAFETY: words of the map's own memory.
        let (refilled, tokens) = unsafe { ((*bucket).refilled, (*bucket).tokens) };
        let passed = now.wrapping_sub(refilled);
        // Enough to fill the bucket; it keeps the products small.
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

    /// Whether tokens are left.
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

    /// Pays for a sample that started at `from`.
    #[inline(always)]
    pub fn spend_on_sample(self, from: u64) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let paid = self.pay(now.wrapping_sub(from));
        // SAFETY: a word of the map's own memory. Only samples write it, which do not interrupt each other.
        unsafe { (*self.0).sampled += paid };
    }

    /// Takes tokens. No single walk takes longer than [`MOST`]: if the clock says so, the machine was paused.
    #[inline(always)]
    fn pay(self, spent: u64) -> u64 {
        let spent = if spent > MOST { MOST } else { spent };
        let tokens = self.tokens() - spent as i64;
        // SAFETY: a word of the map's own memory.
        unsafe { (*self.0).tokens = if tokens < 2 * OVERDRAFT { 2 * OVERDRAFT } else { tokens } };
        spent
    }

    /// Pays for the time spent at a switch since `from`.
    #[inline(always)]
    pub fn spend_since(self, from: u64) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let paid = self.pay(now.wrapping_sub(from));
        // SAFETY: a word of the map's own memory. Only switches write it, which do not interrupt each other.
        unsafe { (*self.0).spent += paid };
    }
}

/// A place where a thread leaves its CPU, an entry of [`ThreadState::places`].
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

    /// Its hash.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        self.hash
    }

    #[inline(always)]
    fn slot(self) -> usize {
        crate::maps::masked::<{ PLACES - 1 }>(self.hash as usize)
    }

    /// Whether the thread's last intervals here were short.
    #[inline(always)]
    pub fn is_short(self, state: &ThreadState) -> bool {
        let entry = state.places[self.slot()];
        entry & !0xff == self.hash & !0xff && entry & 0xff >= SHORT_IN_A_ROW
    }

    /// Records whether its interval here was short.
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
