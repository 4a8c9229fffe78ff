//! Numbers as text: `12.4 ms`, `14:03:20.123`, `31.5 %`, `1.2 MB`; and as arguments: `10ms`, `512MiB`.

pub use hud_common::units::{count, duration as nanos, fraction as percent};
use hud_common::units::{parse_positive, size};
pub use hud_functions::clock as time_of_day;
use jiff::Timestamp;

/// Date and time (UTC) of nanoseconds since the epoch, to the second.
pub fn date_time(epoch_ns: i64) -> String {
    zoned(epoch_ns, "%Y-%m-%d %H:%M:%S UTC")
}

/// Date and time (UTC) of nanoseconds since the epoch, to the millisecond.
pub fn instant(epoch_ns: i64) -> String {
    zoned(epoch_ns, "%Y-%m-%d %H:%M:%S.%3f UTC")
}

fn zoned(epoch_ns: i64, format: &str) -> String {
    match Timestamp::from_nanosecond(i128::from(epoch_ns)) {
        Ok(at) => at.strftime(format).to_string(),
        Err(_) => format!("{epoch_ns} ns"),
    }
}

/// A size in bytes.
pub fn bytes(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) => size(bytes),
        Err(_) => format!("{bytes} B"),
    }
}

/// A number of things: `1 row`, `2,000 rows`.
pub(crate) fn many(n: u64, what: &str) -> String {
    let count = count(i64::try_from(n).unwrap_or(i64::MAX));
    if n == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

/// Parses a positive duration: nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    parse_positive(text).map_err(|_| "write it like 10ms, 500us or 1.5s".into())
}

/// Parses an amount of memory: bytes.
pub(crate) fn parse_memory(text: &str) -> Result<usize, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.filter(|size| *size >= 16 << 20).ok_or_else(|| "write it like 512MiB or 4GiB, 16MiB at least".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(date_time(1_700_000_000_123_456_789), "2023-11-14 22:13:20 UTC");
    }
}
