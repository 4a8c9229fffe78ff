//! Durations and times of day as people read and write them: `12.4 ms`, `14:03:20.123`.

use jiff::SignedDuration;

const SECOND: i64 = 1_000_000_000;

/// A duration as people write it (`10ms`, `1.5s`, `2m 30s`, `-1s`), in nanoseconds; else why it is none.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let parsed = text.trim().parse::<SignedDuration>().ok();
    parsed.and_then(|d| i64::try_from(d.as_nanos()).ok()).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is no duration, write it like 12.5s, 300ms or 2m")
    })
}

/// A duration in nanoseconds with three significant digits (`12.4 ms`), in minutes and hours past two minutes.
pub fn human(ns: i64) -> String {
    if ns < 0 {
        return format!("-{}", human(ns.saturating_neg()));
    }
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_500 => three_digits(ns, 1_000, "µs"),
        999_500..999_500_000 => three_digits(ns, 1_000_000, "ms"),
        999_500_000..120_000_000_000 => three_digits(ns, SECOND, "s"),
        _ => {
            let seconds = ns.saturating_add(SECOND / 2) / SECOND;
            match seconds {
                ..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
                _ => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
            }
        }
    }
}

/// `ns / unit` with three significant digits, in integers only, so that no precision is lost.
fn three_digits(ns: i64, unit: i64, name: &str) -> String {
    let rounded = |digits: i64| (ns + unit / digits / 2) / (unit / digits);
    if rounded(100) < 1_000 {
        format!("{}.{:02} {name}", rounded(100) / 100, rounded(100) % 100)
    } else if rounded(10) < 1_000 {
        format!("{}.{} {name}", rounded(10) / 10, rounded(10) % 10)
    } else {
        format!("{} {name}", rounded(1))
    }
}

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
    fn durations_are_read_as_they_are_written() {
        for (text, ns) in [
            ("10ms", 10_000_000),
            ("1.5s", 1_500_000_000),
            ("2m 30s", 150 * SECOND),
            ("-1s", -SECOND),
            ("0s", 0),
            ("5 us", 5_000),
            ("1h", 3_600 * SECOND),
            (" 7ns ", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        for bad in ["", "10", "ms", "ten seconds", "9999999999h", "1e9s", "\u{0}"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_449_999, "12.4 ms"),
            (12_450_000, "12.5 ms"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (99_950, "100 µs"),
            (1_234_567_890, "1.23 s"),
            (119_999_999_999, "120 s"),
            (125 * SECOND, "2m 05s"),
            (3_725 * SECOND, "1h 02m"),
            (-1_500, "-1.50 µs"),
        ] {
            assert_eq!(human(ns), text, "{ns}");
        }
        assert!(human(i64::MIN).starts_with('-') && human(i64::MAX).ends_with('m'));
    }

    #[test]
    fn clock_times_wrap_at_midnight() {
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123");
        assert_eq!(clock(-1), "23:59:59.999");
        assert_eq!((clock(i64::MIN).len(), clock(i64::MAX).len()), (12, 12));
    }
}
