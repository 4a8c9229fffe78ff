//! Numbers as people read them: `12.4 ms`, `14:03:20.1`, `31.5%`, `1.2 MB`; none wider than eight cells, so that columns
//! hold still.

use crate::Value;

const SECOND: i64 = 1_000_000_000;

/// A duration (ns) with three significant digits.
pub(super) fn nanos(ns: i64) -> String {
    if ns < 0 {
        return format!("-{}", nanos(ns.saturating_neg()));
    }
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_500 => three_digits(ns, 1_000, "us"),
        999_500..999_500_000 => three_digits(ns, 1_000_000, "ms"),
        999_500_000..120_000_000_000 => three_digits(ns, SECOND, "s"),
        _ => {
            let seconds = ns / SECOND;
            match seconds {
                ..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
                3_600..360_000 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
                _ => format!("{} d", seconds / 86_400),
            }
        }
    }
}

/// `ns / unit` with three significant digits, by integers.
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

/// A duration, or a dash where it is not known.
pub(super) fn maybe_nanos(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".into(), nanos)
}

/// A length that people chose: `10 s`, `500 ms`.
pub(super) fn round(ns: i64) -> String {
    match ns {
        ns if ns >= 60 * SECOND && ns % (60 * SECOND) == 0 => format!("{} min", ns / (60 * SECOND)),
        ns if ns >= SECOND && ns % SECOND == 0 => format!("{} s", ns / SECOND),
        1_000_000..SECOND if ns % 1_000_000 == 0 => format!("{} ms", ns / 1_000_000),
        ns => nanos(ns),
    }
}

/// Thousandths in percent.
pub(super) fn share(thousandths: i64) -> String {
    match thousandths {
        1_000.. => format!("{}%", thousandths / 10),
        _ => format!("{}.{}%", thousandths / 10, thousandths.rem_euclid(10)),
    }
}

/// `part` of `whole` in thousandths; 0 of nothing.
pub(super) fn thousandths(part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    i64::try_from(i128::from(part) * 1_000 / i128::from(whole)).unwrap_or(i64::MAX)
}

/// A count, with its thousands apart where that is still short.
pub(super) fn count(n: i64) -> String {
    if n < 0 {
        return format!("-{}", count(n.saturating_neg()));
    }
    match n {
        ..1_000 => format!("{n}"),
        1_000..1_000_000 => format!("{},{:03}", n / 1_000, n % 1_000),
        1_000_000..1_000_000_000 => format!("{}.{:02} M", n / 1_000_000, n % 1_000_000 / 10_000),
        _ => format!("{}.{:02} G", n / 1_000_000_000, n % 1_000_000_000 / 10_000_000),
    }
}

/// A count of what may be more than a signed integer holds.
pub(super) fn count_u64(n: u64) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A size in bytes.
pub(super) fn bytes(n: i64) -> String {
    match n {
        ..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{} kB", n / 1_000),
        1_000_000..1_000_000_000 => format!("{}.{} MB", n / 1_000_000, n % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", n / 1_000_000_000, n % 1_000_000_000 / 100_000_000),
    }
}

/// The time of day (UTC) of an instant (ns since the epoch), to the tenth of a second.
pub(super) fn time_of_day(ts: i64) -> String {
    let tenths = ts.div_euclid(100_000_000).rem_euclid(864_000);
    let seconds = tenths / 10;
    format!("{:02}:{:02}:{:02}.{}", seconds / 3_600, seconds / 60 % 60, seconds % 60, tenths % 10)
}

/// The same to the millisecond.
pub(super) fn time_of_day_ms(ts: i64) -> String {
    format!("{}{:02}", time_of_day(ts), ts.div_euclid(1_000_000).rem_euclid(100))
}

/// Time since the start of a session: `+1:02.5`.
pub(super) fn since(ns: i64) -> String {
    let sign = if ns < 0 { '-' } else { '+' };
    let tenths = ns.saturating_abs() / 100_000_000;
    let seconds = tenths / 10;
    if seconds >= 3_600 {
        format!("{sign}{}:{:02}:{:02}.{}", seconds / 3_600, seconds / 60 % 60, seconds % 60, tenths % 10)
    } else {
        format!("{sign}{}:{:02}.{}", seconds / 60, seconds % 60, tenths % 10)
    }
}

/// A number with its unit.
pub(super) fn value(value: Value) -> String {
    match value {
        Value::Nanos(ns) => nanos(ns),
        Value::Count(n) => count(n),
        Value::Share(n) => share(n),
    }
}

/// An instant as a person types it: `+12.5s` from `start`, `-30s` from `end`, `14:03:20` on the day of `start` (the first
/// one after it where it would lie before). A number without a unit is seconds.
pub(super) fn parse_instant(text: &str, start: i64, end: i64) -> Option<i64> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return Some(end.saturating_sub(parse_duration(rest)?));
    }
    if text.contains(':') && !text.starts_with('+') {
        let mut ns: i64 = 0;
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() > 3 {
            return None;
        }
        for (at, part) in parts.iter().enumerate() {
            let unit = [3_600, 60, 1].get(at)? * SECOND;
            ns = ns.checked_add(decimal(part, unit)?)?;
        }
        let day = 86_400 * SECOND;
        let midnight = start.div_euclid(day).checked_mul(day)?;
        let at = midnight.checked_add(ns)?;
        return Some(if at < start && at.checked_add(day)? <= end { at.checked_add(day)? } else { at });
    }
    let rest = text.strip_prefix('+').unwrap_or(text);
    let ns = match rest.split_once(':') {
        Some((minutes, seconds)) => decimal(minutes, 60 * SECOND)?.checked_add(decimal(seconds, SECOND)?)?,
        None => parse_duration(rest)?,
    };
    Some(start.saturating_add(ns))
}

/// `1m30s`, `12.5s`, `250ms`, `12`.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at_checked(letters)?;
        let unit = match unit {
            "" | "s" => SECOND,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            "m" | "min" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            _ => return None,
        };
        total = total.checked_add(decimal(number, unit)?)?;
        rest = after.trim_start();
    }
    Some(total)
}

/// A decimal number of units, in ns.
fn decimal(text: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 || !text.is_ascii() {
        return None;
    }
    let mut ns = if whole.is_empty() { 0 } else { whole.parse::<u32>().ok().map(i64::from)?.checked_mul(unit)? };
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
    fn limits_the_width_of_numbers() {
        for ns in [
            0,
            999,
            1_000,
            999_499,
            999_500,
            12_400_000,
            999_499_999,
            999_500_000,
            119_000_000_000,
            120_000_000_000,
            3_600_000_000_000,
            i64::MAX,
        ] {
            assert!(nanos(ns).len() <= 9, "{}", nanos(ns));
        }
        assert_eq!(nanos(12_400_000), "12.4 ms");
        assert_eq!(nanos(90_500_000_000), "90.5 s");
        assert_eq!(count(1_234_567), "1.23 M");
        assert_eq!(share(372), "37.2%");
    }

    #[test]
    fn parses_typed_instants() {
        let start = 20_000 * 86_400 * SECOND + 50_000 * SECOND;
        let end = start + 100 * SECOND;
        let at = |text| parse_instant(text, start, end).map(|ts| ts - start);
        assert_eq!(at("+12.5s"), Some(12_500_000_000));
        assert_eq!(at("12"), Some(12 * SECOND));
        assert_eq!(at("1m30s"), Some(90 * SECOND));
        assert_eq!(at("+1:02.5"), Some(62_500_000_000));
        assert_eq!(at("-30s"), Some(70 * SECOND));
        assert_eq!(at("13:53:30"), Some(10 * SECOND));
        for bad in ["", "x", "12 parsecs", "1:2:3:4", "99999999999999999999", "+", "-", "::", "1.1234567890"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
