//! Durations and times of day as text: `12.4 ms`, `14:03:20.123`.

pub(super) use hud_common::units::{duration as human, parse_duration, parse_offset};

/// The time of day (UTC) of an instant in nanoseconds since the epoch, to the millisecond: `14:03:20.123`.
pub fn clock(ts: i64) -> String {
    let millis = ts.div_euclid(1_000_000).rem_euclid(86_400_000);
    let seconds = millis / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60, millis % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_times_wrap_at_midnight() {
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123");
        assert_eq!(clock(-1), "23:59:59.999");
        assert_eq!((clock(i64::MIN).len(), clock(i64::MAX).len()), (12, 12));
    }
}
