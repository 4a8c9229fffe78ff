//! Numbers as people read them: `12.4 ms`, `14:03:20.123`, `31.5 %`, `1.2 MB`.

pub use hud_functions::{clock as time_of_day, human as nanos};
use humansize::{DECIMAL, format_size};
use jiff::Timestamp;

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
    fn times_are_utc() {
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
