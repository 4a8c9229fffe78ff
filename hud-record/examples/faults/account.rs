//! A program's account of its fault: the code that causes it, and how often and for how long it did, in tenths of a
//! second.
//!
//! Counting takes two relaxed atomic additions and two readings of the clock: no lock, so that an account adds no
//! fault of its own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use crate::clock::real_ns;

/// A tenth of a second, as hud's own buckets.
const TENTH: u64 = 100_000_000;
/// Ten minutes. Later events are not counted.
const TENTHS: usize = 6_000;

/// Code that causes the fault.
struct Site {
    function: String,
    file: &'static str,
    line: u32,
}

/// What ended in a tenth of a second.
#[derive(Default)]
struct Slot {
    count: AtomicU64,
    total: AtomicU64,
}

static SITES: Mutex<Vec<Site>> = Mutex::new(Vec::new());
static SLOTS: OnceLock<(u64, Vec<Slot>)> = OnceLock::new();

/// Allocates the account.
pub(crate) fn begin() {
    SLOTS.get_or_init(|| (real_ns() / TENTH, (0..TENTHS).map(|_| Slot::default()).collect()));
}

/// Whether the fault has been reached.
pub(crate) fn is_begun() -> bool {
    !SITES.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// Adds a place, from the type of an item inside its function. [`culprit!`] calls it once a place.
pub(crate) fn add_site(item: &str, file: &'static str, line: u32) {
    let function = item.trim_end_matches("::here").replace("::{{closure}}", "");
    SITES.lock().unwrap_or_else(PoisonError::into_inner).push(Site { function, file, line });
}

/// Counts an event that has ended now.
pub(crate) fn count(since: u64) {
    let now = real_ns();
    let Some((first, slots)) = SLOTS.get() else { return };
    let at = usize::try_from((now / TENTH).saturating_sub(*first)).unwrap_or(usize::MAX);
    if let Some(slot) = slots.get(at) {
        let dur = now.saturating_sub(since);
        slot.count.fetch_add(1, Relaxed);
        slot.total.fetch_add(dur, Relaxed);
    }
}

/// The sites, and the tenths of a second with events: start, number and sum.
pub(crate) fn to_json() -> (Value, Value) {
    let sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    let sites = sites.iter().map(|s| json!({ "function": s.function, "file": s.file, "line": s.line })).collect();
    let slots = SLOTS.get().into_iter().flat_map(|(first, slots)| (*first..).zip(slots));
    let tenths = slots
        .filter(|(_, slot)| slot.count.load(Relaxed) > 0)
        .map(|(tenth, slot)| json!([tenth * TENTH, slot.count.load(Relaxed), slot.total.load(Relaxed)]));
    (sites, tenths.collect())
}

/// Marks this place as the cause, and evaluates the expression, which may never return. On one line, so that its line is
/// that of the call.
macro_rules! culprit {
    ($work:expr) => {{
        static SITE: std::sync::Once = std::sync::Once::new();
        SITE.call_once(|| {
            fn here() {}
            $crate::account::add_site(std::any::type_name_of_val(&here), file!(), line!());
        });
        $work
    }};
}

/// The same, and counts it with its duration.
macro_rules! counted {
    ($work:expr) => {{
        let since = $crate::clock::real_ns();
        let result = culprit!($work);
        $crate::account::count(since);
        result
    }};
}
