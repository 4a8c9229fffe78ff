//! What a view's parameters are where nobody gives them.

use datafusion::common::ScalarValue;
use hud_common::cockpit::Thresholds;

use crate::query::{
    view::{Item, Unit},
    window::Window,
};

const MS: i64 = 1_000_000;
/// Steps of a timeline that nobody drew the width of.
const STEPS: i64 = 100;

/// The default of a view's parameter over a window. Thresholds of findings are the cockpit's.
pub(crate) fn of(parameter: &Item, window: Window) -> ScalarValue {
    let rules = Thresholds::default();
    let pool_threads = i64::try_from(rules.pool_threads).unwrap_or(i64::MAX);
    let wake_delay_count = i64::try_from(rules.wake_delay_count).unwrap_or(i64::MAX);
    let value = match parameter.name.as_str() {
        "from" => window.from,
        "to" => window.to,
        "threshold" => 10 * MS,
        "asleep" | "late" => MS,
        "step" => step(window),
        "polls" => 10,
        "hops" => 4,
        "depth" => 64,
        "long_poll" => rules.long_poll,
        "very_long_poll" => rules.very_long_poll,
        "wake_delay_p99" => rules.wake_delay_p99,
        "wake_delay_count" => wake_delay_count,
        "cpu_share" => rules.cpu_share.into(),
        "short_sleeps" => rules.short_sleeps,
        "worker_blocked" => rules.worker_blocked.into(),
        "imbalance" => rules.imbalance.into(),
        "imbalance_busy" => rules.imbalance_busy.into(),
        "pool_busy" => rules.pool_busy.into(),
        "pool_threads" => pool_threads,
        "growth" => rules.growth,
        "growth_ended" => rules.growth_ended.into(),
        "self_wakes" => rules.self_wakes,
        "self_wakes_share" => rules.self_wakes_share.into(),
        "lock_wait" => rules.lock_wait,
        "observed" => rules.observed,
        name if parameter.unit == Unit::Flag => {
            return ScalarValue::Boolean(Some(matches!(name, "functions" | "types")));
        }
        _ => return ScalarValue::Int64(None),
    };
    ScalarValue::Int64(Some(value))
}

/// A step of which so many make a window.
pub(crate) fn step(window: Window) -> i64 {
    ((window.dur().saturating_add(STEPS - 1)) / STEPS).max(1)
}
