//! Thresholds on the command line: `poll=20ms`, `blocked=30%`, `imbalance=4x`, `growth=500`.
//!
//! One table has all names with their units and defaults; the command line, its help and the tests use it.

use std::str::FromStr;

use crate::{INTERVAL_MIN, Thresholds};

use super::format::round;

/// The unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A duration with its minimum (ns): shorter intervals are not kept individually.
    Time(i64),
    /// Percent.
    Percent,
    /// A factor.
    Ratio,
    /// A number.
    Count,
}

/// A threshold that can be set.
struct Knob {
    name: &'static str,
    unit: Unit,
    get: fn(&Thresholds) -> i64,
    set: fn(&mut Thresholds, i64),
}

/// All of them. Durations in ns, shares and ratios in thousandths.
const KNOBS: [Knob; 10] = [
    Knob { name: "poll", unit: Unit::Time(INTERVAL_MIN), get: |t| t.long_poll, set: |t, v| t.long_poll = v },
    Knob {
        name: "poll-warning",
        unit: Unit::Time(INTERVAL_MIN),
        get: |t| t.very_long_poll,
        set: |t, v| t.very_long_poll = v,
    },
    Knob { name: "sleep", unit: Unit::Time(INTERVAL_MIN), get: |t| t.asleep, set: |t, v| t.asleep = v },
    Knob { name: "wake", unit: Unit::Time(1), get: |t| t.wake_delay_p99, set: |t, v| t.wake_delay_p99 = v },
    Knob { name: "blocked", unit: Unit::Percent, get: |t| t.worker_blocked, set: |t, v| t.worker_blocked = v },
    Knob { name: "imbalance", unit: Unit::Ratio, get: |t| t.imbalance, set: |t, v| t.imbalance = v },
    Knob { name: "pool", unit: Unit::Percent, get: |t| t.pool_busy, set: |t, v| t.pool_busy = v },
    Knob { name: "growth", unit: Unit::Count, get: |t| t.growth, set: |t, v| t.growth = v },
    Knob { name: "self-wakes", unit: Unit::Count, get: |t| t.self_wakes, set: |t, v| t.self_wakes = v },
    Knob { name: "lock", unit: Unit::Time(INTERVAL_MIN), get: |t| t.lock_wait, set: |t, v| t.lock_wait = v },
];

/// One limit: `poll=20ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warn {
    knob: usize,
    value: i64,
}

/// The error of an invalid limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WarnError(String);

impl Warn {
    /// Every limit with its default: `poll=10ms,poll-warning=100ms,…`.
    pub fn defaults() -> String {
        let usual = Thresholds::default();
        let all = KNOBS.iter().map(|knob| [knob.name, "=", &written(knob.unit, (knob.get)(&usual))].concat());
        all.collect::<Vec<_>>().join(",")
    }
}

impl Thresholds {
    /// The same with these limits.
    pub fn with(mut self, limits: &[Warn]) -> Self {
        for limit in limits {
            if let Some(knob) = KNOBS.get(limit.knob) {
                (knob.set)(&mut self, limit.value);
            }
        }
        self
    }
}

fn written(unit: Unit, value: i64) -> String {
    match unit {
        Unit::Time(_) => round(value).replace(' ', ""),
        Unit::Percent => format!("{}%", value / 10),
        Unit::Ratio => format!("{}x", value / 1_000),
        Unit::Count => value.to_string(),
    }
}

impl FromStr for Warn {
    type Err = WarnError;

    fn from_str(text: &str) -> Result<Self, WarnError> {
        let no = |why: String| Err(WarnError(why));
        let Some((name, limit)) = text.split_once('=') else {
            return no("a limit is written as poll=20ms".into());
        };
        let (name, limit) = (name.trim(), limit.trim());
        let Some((at, knob)) = KNOBS.iter().enumerate().find(|(_, knob)| knob.name == name) else {
            let names: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
            return no(format!("nothing is named {name:?}: there are {}", names.join(", ")));
        };
        let value = match knob.unit {
            Unit::Time(least) => match hud_units::parse_duration(limit) {
                Ok(ns) if ns >= least => ns,
                Ok(_) => return no(format!("{name} is at least {}", round(least))),
                Err(_) => return no(format!("{limit:?} is not a duration such as 20ms")),
            },
            Unit::Percent => match limit.strip_suffix('%').unwrap_or(limit).trim().parse::<u32>() {
                Ok(percent @ 0..=100) => i64::from(percent) * 10,
                _ => return no(format!("{limit:?} is no share such as 30%")),
            },
            Unit::Ratio => match parse_thousandths(limit.strip_suffix('x').unwrap_or(limit)) {
                Some(ratio) if ratio >= 1_000 => ratio,
                _ => return no(format!("{limit:?} is no ratio such as 4x")),
            },
            Unit::Count => match limit.parse::<u32>() {
                Ok(count @ 1..) => count.into(),
                _ => return no(format!("{limit:?} is no number, of 1 or more")),
            },
        };
        Ok(Warn { knob: at, value })
    }
}

/// `2.5` in thousandths.
fn parse_thousandths(text: &str) -> Option<i64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole = i64::from(whole.parse::<u16>().ok()?) * 1_000;
    let fraction: i64 = format!("{fraction:0<3}").parse().ok()?;
    Some(whole + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_parse() {
        let mut all = Thresholds::default();
        for limit in Warn::defaults().split(',') {
            let limit: Warn = limit.parse().unwrap();
            all = all.with(&[limit]);
        }
        assert_eq!(all, Thresholds::default());
    }

    #[test]
    fn each_name_sets_its_threshold() {
        for (text, get) in [
            ("poll=20ms", (|t| t.long_poll == 20_000_000) as fn(&Thresholds) -> bool),
            ("poll-warning=1.5s", |t| t.very_long_poll == 1_500_000_000),
            ("sleep=2ms", |t| t.asleep == 2_000_000),
            ("wake=700us", |t| t.wake_delay_p99 == 700_000),
            ("blocked=30%", |t| t.worker_blocked == 300),
            ("imbalance=2.5x", |t| t.imbalance == 2_500),
            ("pool=80", |t| t.pool_busy == 800),
            ("growth=7", |t| t.growth == 7),
            ("self-wakes=12", |t| t.self_wakes == 12),
            ("lock=9ms", |t| t.lock_wait == 9_000_000),
        ] {
            let set = Thresholds::default().with(&[text.parse().unwrap()]);
            assert!(get(&set), "{text}: {set:?}");
            let count = KNOBS.iter().filter(|knob| (knob.get)(&set) != (knob.get)(&Thresholds::default())).count();
            assert_eq!(count, 1, "{text}");
        }
    }

    #[test]
    fn errors_show_a_valid_limit() {
        for (text, why) in [
            ("poll", "poll=20ms"),
            ("pol=1s", "there are poll, poll-warning"),
            ("poll=fast", "not a duration such as 20ms"),
            ("poll=10us", "at least 1 ms"),
            ("blocked=200%", "no share"),
            ("blocked=-1", "no share"),
            ("imbalance=0.5x", "no ratio"),
            ("growth=0", "no number"),
            ("growth=99999999999999999999", "no number"),
        ] {
            let error = text.parse::<Warn>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
