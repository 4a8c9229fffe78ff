//! Places in a store: `date=2026-01-31/service=api/host=web-1/session=ID`, in the escaping of Hive.

use std::fmt::Write as _;

use jiff::Timestamp;

/// A day (ns).
pub(super) const DAY: i64 = 86_400_000_000_000;

/// A session's rows of a day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    /// Day (UTC), as `2026-01-31`.
    pub(crate) date: String,
    pub(crate) service: String,
    pub(crate) host: String,
    pub(crate) session: String,
}

impl Partition {
    /// Its path in a table's folder.
    pub(super) fn path(&self) -> String {
        let Partition { date, service, host, session } = self;
        let part = |name: &str, value: &str| format!("{name}={}", escaped(value));
        let parts = [part("date", date), part("service", service), part("host", host), part("session", session)];
        parts.join("/")
    }
}

/// The day (UTC) of an instant (ns since the epoch).
pub(super) fn date_of(ts: i64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(ts)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d").to_string()
}

/// The start of a day (ns since the epoch); `None` if that is no date.
pub(super) fn start_of(date: &str) -> Option<i64> {
    let at: Timestamp = format!("{date}T00:00:00Z").parse().ok()?;
    let start = i64::try_from(at.as_nanosecond()).ok()?;
    (date_of(start) == date).then_some(start)
}

/// A value as a folder's name: letters, digits and `-_.` as they are, other bytes as `%XX`. An empty value is Hive's name for null.
pub(super) fn escaped(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'-' | b'_' | b'.' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    if out.is_empty() { "__HIVE_DEFAULT_PARTITION__".into() } else { out }
}

/// The value of a folder `name=value`; `None` if that is not its name.
pub(super) fn value_of(folder: &str, name: &str) -> Option<String> {
    let text = folder.strip_prefix(name)?.strip_prefix('=')?;
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(core::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn values_survive_escaping() {
        for value in ["web-1", "a/b", "..", "%2F", "ü host", "x=y"] {
            let folder = format!("host={}", escaped(value));
            assert!(!folder.contains('/'), "{folder}");
            assert_eq!(value_of(&folder, "host").as_deref(), Some(value));
        }
        assert_eq!(value_of("host=%2", "host"), None);
        assert_eq!(value_of("hosts=a", "host"), None);
    }

    #[test]
    fn days_are_utc() {
        let start = start_of("2026-01-31").unwrap();
        assert_eq!((date_of(start), date_of(start + DAY - 1)), ("2026-01-31".into(), "2026-01-31".into()));
        assert_eq!(date_of(start + DAY), "2026-02-01");
        assert_eq!(start_of("soon"), None);
    }
}
