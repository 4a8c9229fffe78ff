//! Work that the programs share, and the task that each of them has and that does nothing wrong.

use std::hint::black_box;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// Keeps a CPU busy for this CPU time of the thread. A macro, so that the function that uses it is the one that computes.
macro_rules! compute {
    ($time:expr) => {{
        let time: std::time::Duration = $time;
        let end = $crate::clock::thread_cpu_ns() + u64::try_from(time.as_nanos()).unwrap_or(0);
        while $crate::clock::thread_cpu_ns() < end {
            let sum = (0..2_000_u64).fold(1, |sum: u64, n| std::hint::black_box(sum.wrapping_mul(31) ^ n));
            std::hint::black_box(sum);
        }
    }};
}

/// A task that is almost always idle, as every program has some. A finding that names it is a false alarm.
pub(crate) async fn answer_health_probe() {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        black_box((0..1_000_u64).sum::<u64>());
    }
}
