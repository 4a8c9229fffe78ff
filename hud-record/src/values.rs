//! Values of options on the command line.

use std::time::Duration;

use bytesize::ByteSize;

/// `2%`, `2` or `0.5%` as a share.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100.0 => Ok(n / 100.0),
        _ => Err("a share such as 2%, above 0 and up to 100%".into()),
    }
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Never.
    Off,
    /// At this interval.
    Every(Duration),
}

impl Interval {
    /// `None` for never.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Interval::Off => None,
            Interval::Every(interval) => Some(interval),
        }
    }
}

/// `off`, or a duration of a second or more.
pub(crate) fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval::Off);
    }
    match hud_common::units::parse_std(text) {
        Ok(interval) if interval >= Duration::from_secs(1) => Ok(Interval::Every(interval)),
        _ => Err("`off`, or a time such as 10s, of 1s or more".into()),
    }
}

/// `10GiB`, `500 MB` or `1048576` in bytes. Less than a megabyte is too small for any data.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes >= 1_000_000 => Ok(bytes),
        _ => Err("a size such as 10GiB, of 1MB or more".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_intervals() {
        assert_eq!(interval("off"), Ok(Interval::Off));
        assert_eq!(interval("10s"), Ok(Interval::Every(Duration::from_secs(10))));
        assert!(interval("10ms").is_err() && interval("often").is_err());
    }

    #[test]
    fn parses_sizes() {
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("5000000"), Ok(5_000_000));
        assert!(size("1").is_err() && size("10 apples").is_err() && size("-1GiB").is_err());
    }
}
