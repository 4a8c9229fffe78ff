//! Durations, sizes, shares and counts as text: `12.4 ms`, `1.25 MB`, `31.5 %`, `12,345`; names of types and functions in
//! little room; and the grammar of durations in options, SQL and prompts.
//!
//! Output has three significant digits and at most eight characters, so that columns keep their width. All arithmetic is on
//! integers: no precision is lost.

mod fit;
mod names;

use std::time::Duration;

pub use fit::{fit as fit_name, is_name, least as least_width};
pub use names::{segments, short_type};

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

/// A duration (ns): `12.4 ms`; from two minutes on `2m 05s`, `1h 02m` or `4 d`.
pub fn duration(ns: i64) -> String {
    if ns < 0 {
        return format!("-{}", duration(ns.saturating_neg()));
    }
    match ns {
        0..MICROSECOND => format!("{ns} ns"),
        MICROSECOND..999_500 => three_digits(ns, MICROSECOND, "µs"),
        999_500..999_500_000 => three_digits(ns, MILLISECOND, "ms"),
        999_500_000..120_000_000_000 => three_digits(ns, SECOND, "s"),
        _ => {
            let seconds = ns.saturating_add(SECOND / 2) / SECOND;
            match seconds {
                ..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
                3_600..360_000 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
                _ => format!("{} d", seconds / 86_400),
            }
        }
    }
}

/// A duration that is a whole number of a unit (ns): `10 s`, `500 ms`. Others as by [`duration`].
pub fn round_duration(ns: i64) -> String {
    match ns {
        MINUTE.. if ns % MINUTE == 0 => format!("{} min", ns / MINUTE),
        SECOND.. if ns % SECOND == 0 => format!("{} s", ns / SECOND),
        MILLISECOND..SECOND if ns % MILLISECOND == 0 => format!("{} ms", ns / MILLISECOND),
        _ => duration(ns),
    }
}

/// A size in bytes: `1.25 MB`.
pub fn size(bytes: u64) -> String {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    match bytes {
        ..1_000 => format!("{bytes} B"),
        1_000..999_500 => three_digits(bytes, 1_000, "kB"),
        999_500..999_500_000 => three_digits(bytes, 1_000_000, "MB"),
        999_500_000..999_500_000_000 => three_digits(bytes, 1_000_000_000, "GB"),
        999_500_000_000..999_500_000_000_000 => three_digits(bytes, 1_000_000_000_000, "TB"),
        _ => three_digits(bytes, 1_000_000_000_000_000, "PB"),
    }
}

/// A share in thousandths: `31.5 %`, and `100 %` from all on.
pub fn share(thousandths: i64) -> String {
    match thousandths {
        1_000.. => format!("{} %", thousandths / 10),
        ..0 => format!("-{}", share(thousandths.saturating_neg())),
        _ => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

/// A share between 0 and 1, as by [`share`].
#[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
pub fn fraction(share: f64) -> String {
    self::share((share * 1_000.0).round() as i64)
}

/// A count with thousands separators: `12,345`.
pub fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        out.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count as by [`count`], and `1.23 M` from a million on.
pub fn short_count(n: i64) -> String {
    match n.unsigned_abs() {
        ..1_000_000 => count(n),
        1_000_000..1_000_000_000 => format!("{}.{:02} M", n / 1_000_000, n.unsigned_abs() % 1_000_000 / 10_000),
        _ => format!("{}.{:02} G", n / 1_000_000_000, n.unsigned_abs() % 1_000_000_000 / 10_000_000),
    }
}

/// `value / unit` with three significant digits.
fn three_digits(value: i64, unit: i64, name: &str) -> String {
    let rounded = |digits: i64| value.saturating_add(unit / digits / 2) / (unit / digits);
    if rounded(100) < 1_000 {
        format!("{}.{:02} {name}", rounded(100) / 100, rounded(100) % 100)
    } else if rounded(10) < 1_000 {
        format!("{}.{} {name}", rounded(10) / 10, rounded(10) % 10)
    } else {
        format!("{} {name}", rounded(1))
    }
}

/// A duration as people write it, in ns: `10ms`, `1.5s`, `2m 30s`, `5 µs`, `7d`, `-1s`. Each number needs a unit.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    signed(text.trim()).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a duration, write it like 12.5s, 300ms or 2m")
    })
}

/// The same for an option: more than 0.
pub fn parse_positive(text: &str) -> Result<i64, String> {
    match parse_duration(text)? {
        ns @ 1.. => Ok(ns),
        _ => Err("it must be more than 0".into()),
    }
}

/// The same as a [`Duration`]: 0 or more.
pub fn parse_std(text: &str) -> Result<Duration, String> {
    u64::try_from(parse_duration(text)?).map(Duration::from_nanos).map_err(|_| "it must not be negative".into())
}

/// A time since a start or before an end, in ns: 0 or more. A number without a unit is seconds.
pub fn parse_offset(text: &str) -> Result<i64, String> {
    match decimal(text, SECOND).map_or_else(|| parse_duration(text), Ok)? {
        ns @ 0.. => Ok(ns),
        _ => Err(format!("{text} is negative")),
    }
}

fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(rest) => sum(rest.trim_start()).map(i64::wrapping_neg),
        None => sum(text),
    }
}

/// The sum of one or more numbers with units.
fn sum(text: &str) -> Option<i64> {
    let mut total: Option<i64> = None;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits)?;
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (name, after) = tail.split_at_checked(letters)?;
        total = Some(total.unwrap_or(0).checked_add(decimal(number, unit(name)?)?)?);
        rest = after.trim_start();
    }
    total
}

/// The length of a unit (ns).
fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hour" | "hours" => 60 * MINUTE,
        "d" | "day" | "days" => 24 * 60 * MINUTE,
        "w" | "week" | "weeks" => 7 * 24 * 60 * MINUTE,
        _ => return None,
    })
}

/// A decimal number of units, in ns. At most nine decimal places.
pub fn decimal(text: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let mut ns = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.checked_mul(unit)? };
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        ns = ns.checked_add(i64::from(digit.to_digit(10)?) * place)?;
    }
    Some(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_durations_with_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (99_950, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (12_449_999, "12.4 ms"),
            (12_450_000, "12.5 ms"),
            (1_234_567_890, "1.23 s"),
            (119_999_999_999, "120 s"),
            (125 * SECOND, "2m 05s"),
            (3_725 * SECOND, "1h 02m"),
            (90 * 86_400 * SECOND, "90 d"),
            (-1_500, "-1.50 µs"),
        ] {
            assert_eq!(duration(ns), text, "{ns}");
        }
        assert!(duration(i64::MIN).starts_with('-') && duration(i64::MAX).ends_with('d'));
    }

    #[test]
    fn limits_the_width() {
        let powers = (0..63).map(|power| 1_i64 << power);
        for value in powers.flat_map(|n| [n - 1, n, n + n / 2]).chain([i64::MAX]) {
            assert!(duration(value).chars().count() <= 8, "{}", duration(value));
            let bytes = size(value.unsigned_abs());
            assert!(bytes.chars().count() <= 8, "{bytes}");
        }
    }

    #[test]
    fn writes_round_durations_sizes_and_shares() {
        let written =
            [10 * SECOND, 120 * SECOND, 90 * SECOND, 500 * MILLISECOND, 1_250 * MILLISECOND].map(round_duration);
        assert_eq!(written, ["10 s", "2 min", "90 s", "500 ms", "1.25 s"]);
        let written = [999, 1_000, 123_456, 999_500, 512_000_000, 2_500_000_000_000, u64::MAX].map(size);
        assert_eq!(written, ["999 B", "1.00 kB", "123 kB", "1.00 MB", "512 MB", "2.50 TB", "9223 PB"]);
        assert_eq!(
            [0, 5, 315, 999, 1_000, 12_345, -25].map(share),
            ["0.0 %", "0.5 %", "31.5 %", "99.9 %", "100 %", "1234 %", "-2.5 %"]
        );
    }

    #[test]
    fn writes_fractions_and_counts() {
        assert_eq!([0.3146, 1.0, -0.025, 0.0].map(fraction), ["31.5 %", "100 %", "-2.5 %", "0.0 %"]);
        assert!(!fraction(f64::NAN).is_empty());
        assert_eq!([0, 999, 1_000, -12_345_678].map(count), ["0", "999", "1,000", "-12,345,678"]);
        assert_eq!(
            [999, 12_345, 1_234_567, -1_500, -2_500_000].map(short_count),
            ["999", "12,345", "1.23 M", "-1,500", "-2.50 M"]
        );
        assert!(count(i64::MIN).starts_with("-9,223") && short_count(i64::MIN).starts_with("-9223372036.85"));
    }

    #[test]
    fn parses_durations() {
        for (text, ns) in [
            ("10ms", 10 * MILLISECOND),
            ("1.5s", 1_500 * MILLISECOND),
            (".5s", 500 * MILLISECOND),
            ("2m 30s", 150 * SECOND),
            ("1m30s", 90 * SECOND),
            ("-1s", -SECOND),
            ("0s", 0),
            ("5 us", 5_000),
            ("5 µs", 5_000),
            ("1h", 3_600 * SECOND),
            ("7days", 7 * 86_400 * SECOND),
            ("2w", 14 * 86_400 * SECOND),
            (" 7ns ", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        let bad = [
            "",
            "-",
            "10",
            "1m30",
            "ms",
            ".s",
            "ten seconds",
            "12 parsecs",
            "9999999999h",
            "1e9s",
            "1..5s",
            "1.1234567890s",
            "--1s",
            "\0",
        ];
        for text in bad {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn options_reject_durations_out_of_range() {
        assert_eq!((parse_positive("1ms"), parse_std("0s")), (Ok(MILLISECOND), Ok(Duration::ZERO)));
        assert!(parse_positive("0s").is_err() && parse_positive("-1s").is_err() && parse_std("-1s").is_err());
    }
}
