//! Numbers as people read them: `12.4 ms`, `14:03:20.123`, `31.5 %`, `1.2 MB`.

use humansize::{DECIMAL, format_size};
use jiff::Timestamp;

/// A duration in nanoseconds with three significant digits, in minutes and hours past two minutes.
pub fn nanos(ns: i64) -> String {
    if ns < 0 {
        return format!("-{}", nanos(ns.saturating_neg()));
    }
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_500 => three_digits(ns, 1_000, "µs"),
        999_500..999_500_000 => three_digits(ns, 1_000_000, "ms"),
        999_500_000..120_000_000_000 => three_digits(ns, 1_000_000_000, "s"),
        _ => {
            let seconds = ns.saturating_add(500_000_000) / 1_000_000_000;
            match seconds {
                ..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
                _ => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
            }
        }
    }
}

/// `ns / unit` with three significant digits, by integers alone, so that nothing is lost on the way.
fn three_digits(ns: i64, unit: i64, name: &str) -> String {
    let rounded = |digits: i64| (ns + unit / digits / 2) / (unit / digits);
    if rounded(100) < 1_000 {
        let hundredths = rounded(100);
        format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
    } else if rounded(10) < 1_000 {
        let tenths = rounded(10);
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", rounded(1))
    }
}

/// The time of day (UTC) of nanoseconds since the epoch.
pub fn time_of_day(epoch_ns: i64) -> String {
    zoned(epoch_ns, "%H:%M:%S.%3f")
}

/// Date and time (UTC) of nanoseconds since the epoch.
pub fn date_time(epoch_ns: i64) -> String {
    zoned(epoch_ns, "%Y-%m-%d %H:%M:%S UTC")
}

/// A moment, to the millisecond.
pub fn instant(epoch_ns: i64) -> String {
    zoned(epoch_ns, "%Y-%m-%d %H:%M:%S.%3f UTC")
}

fn zoned(epoch_ns: i64, format: &str) -> String {
    match Timestamp::from_nanosecond(i128::from(epoch_ns)) {
        Ok(at) => at.strftime(format).to_string(),
        Err(_) => format!("{epoch_ns} ns"),
    }
}

/// A share of 1 in percent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A size in bytes.
pub fn bytes(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(size) => format_size(size, DECIMAL),
        Err(_) => format!("{bytes} B"),
    }
}

/// A count with its thousands apart.
pub fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        out.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (15_061_234, "15.1 ms"),
            (1_234_567_890, "1.23 s"),
            (119_999_999_999, "120 s"),
            (125_000_000_000, "2m 05s"),
            (3_725_000_000_000, "1h 02m"),
            (-1_500, "-1.50 µs"),
        ] {
            assert_eq!(nanos(ns), text, "{ns}");
        }
        assert!(nanos(i64::MIN).starts_with('-'));
        assert!(nanos(i64::MAX).ends_with('m'));
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        assert_eq!(time_of_day(1_700_000_000_123_456_789), "22:13:20.123");
        assert_eq!(date_time(1_700_000_000_123_456_789), "2023-11-14 22:13:20 UTC");
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(-12_345_678), "-12,345,678");
    }
}
