//! The clock of a screen: time since the session's start, UTC, or local time.

use jiff::{Timestamp, tz::TimeZone};

use super::format::{since, time_of_day};

/// How instants are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Clock {
    /// Since the session's start.
    #[default]
    Relative,
    /// UTC.
    Utc,
    /// The time zone of this machine, or of `TZ`.
    Local,
}

impl Clock {
    /// The next one.
    pub(super) fn next(self) -> Self {
        match self {
            Clock::Relative => Clock::Utc,
            Clock::Utc => Clock::Local,
            Clock::Local => Clock::Relative,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Clock::Relative => "times since the session's start",
            Clock::Utc => "times of day in UTC",
            Clock::Local => "local times of day",
        }
    }

    /// The instant that is its zero, of a session that began at `start`.
    pub(super) fn zero(self, start: i64) -> i64 {
        match self {
            Clock::Relative => start,
            Clock::Utc => 0,
            Clock::Local => offset(start).saturating_neg(),
        }
    }

    /// An instant to the tenth of a second: `+1:02.5`, `14:03:20.5`.
    pub(super) fn tenths(self, start: i64, ts: i64) -> String {
        let ns = ts.saturating_sub(self.zero(start));
        if self == Clock::Relative { since(ns) } else { time_of_day(ns) }
    }

    /// The same to the millisecond.
    pub(super) fn millis(self, start: i64, ts: i64) -> String {
        let ns = ts.saturating_sub(self.zero(start));
        let millis = if self == Clock::Relative { ns.saturating_abs() } else { ns };
        format!("{}{:02}", self.tenths(start, ts), millis.div_euclid(1_000_000).rem_euclid(100))
    }

    /// What says in which clock a time of day is; nothing where that shows.
    pub(super) fn zone(self, start: i64) -> String {
        match self {
            Clock::Relative => String::new(),
            Clock::Utc => " UTC".into(),
            Clock::Local => {
                let minutes = offset(start) / 60_000_000_000;
                let sign = if minutes < 0 { '-' } else { '+' };
                format!(" {sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
            }
        }
    }
}

/// The offset of local time from UTC at an instant (ns). One for a whole session, so that its axis has one scale.
fn offset(at: i64) -> i64 {
    let at = Timestamp::from_second(at.div_euclid(1_000_000_000)).unwrap_or(Timestamp::UNIX_EPOCH);
    i64::from(TimeZone::system().to_offset(at).seconds()).saturating_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_instants_by_each_clock() {
        let start = 1_795_487_400_000_000_000;
        let at = start + 62_512_345_678;
        assert_eq!(Clock::Relative.millis(start, at), "+1:02.512");
        assert_eq!(Clock::Relative.millis(start, start - 250_000_000), "-0:00.250");
        assert_eq!(Clock::Utc.millis(start, at), "02:31:02.512");
        assert_eq!(Clock::Utc.tenths(start, at), "02:31:02.5");
        let local = Clock::Local.tenths(start, at);
        assert_eq!(local.len(), "02:31:02.5".len(), "{local}");
        assert_eq!(
            [Clock::Relative, Clock::Utc, Clock::Local].map(Clock::next),
            [Clock::Utc, Clock::Local, Clock::Relative]
        );
    }
}
