//! Times of day and instants as text. Durations, sizes, shares and counts are those of [`hud_units`].

use hud_units::{decimal, parse_offset};
pub(super) use hud_units::{duration as nanos, round_duration as round, share, short_count as count};

use crate::Value;

const SECOND: i64 = 1_000_000_000;

/// A duration, or a dash if it is unknown.
pub(super) fn maybe_nanos(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".into(), nanos)
}

/// `part` of `whole` in thousandths; 0 of nothing.
pub(super) fn thousandths(part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    i64::try_from(i128::from(part) * 1_000 / i128::from(whole)).unwrap_or(i64::MAX)
}

/// A count beyond the range of `i64`.
pub(super) fn count_u64(n: u64) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A size in bytes.
pub(super) fn bytes(n: i64) -> String {
    hud_units::size(u64::try_from(n).unwrap_or(0))
}

/// The time of day (UTC) of an instant (ns since the epoch), to the tenth of a second.
pub(super) fn time_of_day(ts: i64) -> String {
    let tenths = ts.div_euclid(100_000_000).rem_euclid(864_000);
    let seconds = tenths / 10;
    format!("{:02}:{:02}:{:02}.{}", seconds / 3_600, seconds / 60 % 60, seconds % 60, tenths % 10)
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

/// A typed instant: `+12.5s` from `start`, `-30s` from `end`, `14:03:20` on the day of `start`, or on the next day if that is
/// before the start and the session lasts so long. A number without a unit is seconds.
pub(super) fn parse_instant(text: &str, start: i64, end: i64) -> Option<i64> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return Some(end.saturating_sub(parse_offset(rest.trim()).ok()?));
    }
    if text.contains(':') && !text.starts_with('+') {
        let mut ns: i64 = 0;
        for (at, part) in text.split(':').enumerate() {
            let (unit, most) = *[(3_600, 24), (60, 60), (1, 60)].get(at)?;
            let part = decimal(part, unit * SECOND).filter(|part| *part < most * unit * SECOND)?;
            ns = ns.checked_add(part)?;
        }
        let day = 86_400 * SECOND;
        let midnight = start.div_euclid(day).checked_mul(day)?;
        let at = midnight.checked_add(ns)?;
        return Some(if at < start && at.checked_add(day)? <= end { at.checked_add(day)? } else { at });
    }
    let rest = text.strip_prefix('+').unwrap_or(text);
    let ns = match rest.split_once(':') {
        Some((minutes, seconds)) => decimal(minutes, 60 * SECOND)?.checked_add(decimal(seconds, SECOND)?)?,
        None => parse_offset(rest.trim()).ok()?,
    };
    Some(start.saturating_add(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for bad in [
            "",
            "x",
            "12 parsecs",
            "1:2:3:4",
            "25:00:00",
            "14:61:99",
            "99999999999999999999",
            "+",
            "-",
            "::",
            "1.1234567890",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
