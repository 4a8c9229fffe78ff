//! Conditions of `--fail-if`.

use std::{fmt, str::FromStr};

use super::bootstrap::Change;

/// `p99_poll > +20%`, `p99_poll:app::handler > 50ms`, `cpu_share:app::burn >= 10%`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    /// Its text.
    text: String,
    pub(crate) metric: String,
    /// A task type or a function; `None` for all.
    pub(crate) scope: Option<String>,
    is_greater: bool,
    is_inclusive: bool,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// Limit of the change: `+20%` is 0.2.
    Change(f64),
    /// Limit of the value of B.
    Value(f64),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or("write it like 'p99_poll > +20%', 'p99_poll:app::handler > 50ms'")?;
        let (what, rest) = text.split_at(at);
        let is_greater = rest.starts_with('>');
        let rest = rest.get(1..).unwrap_or_default();
        let (is_inclusive, rest) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
        // Task types contain colons, metrics do not.
        let (metric, scope) = match what.trim().split_once(':') {
            Some((metric, scope)) => (metric.trim(), Some(scope.trim().to_owned())),
            None => (what.trim(), None),
        };
        if metric.is_empty() {
            return Err("the metric is missing".into());
        }
        let bound = bound(rest.trim())
            .ok_or_else(|| format!("{:?} is not a limit like +20%, 50ms, 10% or 3.5", rest.trim()))?;
        Ok(Condition { text: text.trim().into(), metric: metric.into(), scope, is_greater, is_inclusive, bound })
    }
}

fn bound(text: &str) -> Option<Bound> {
    let finite = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    if let Some(percent) = text.strip_suffix('%') {
        let value = finite(percent)? / 100.0;
        return Some(if text.starts_with(['+', '-']) { Bound::Change(value) } else { Bound::Value(value) });
    }
    if let Some(value) = finite(text) {
        return Some(Bound::Value(value));
    }
    let ns = hud_common::units::parse_duration(text).ok()?;
    Some(Bound::Value(ns as f64))
}

impl Condition {
    /// Whether it holds. A change must be significant: its interval must not contain 0.
    pub(crate) fn holds(&self, change: &Change) -> bool {
        let (value, bound) = match self.bound {
            Bound::Change(bound) => (change.ratio.filter(|_| change.is_significant()), bound),
            Bound::Value(bound) => (change.after, bound),
        };
        value.is_some_and(|value| {
            (self.is_inclusive && (value - bound).abs() <= f64::EPSILON * bound.abs())
                || if self.is_greater { value > bound } else { value < bound }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(after: f64, ratio: f64, interval: Option<(f64, f64)>) -> Change {
        Change { before: Some(1.0), after: Some(after), ratio: Some(ratio), interval }
    }

    #[test]
    fn parses_and_evaluates_all_forms() {
        let significant = Some((0.1, 0.5));
        for (text, change, holds) in [
            ("p99_poll > +20%", change(1.3, 0.3, significant), true),
            ("p99_poll > +20%", change(1.1, 0.1, significant), false),
            // Not significant.
            ("p99_poll > +20%", change(1.3, 0.3, Some((-0.1, 0.7))), false),
            ("p99_poll > +20%", change(1.3, 0.3, None), false),
            ("polls_rate < -10%", change(0.8, -0.2, Some((-0.3, -0.1))), true),
            ("p99_poll>50ms", change(51e6, 0.0, None), true),
            ("p99_poll >= 50ms", change(50e6, 0.0, None), true),
            ("cpu_share:app::burn > 10%", change(0.11, 0.0, None), true),
            ("polls_rate < 100", change(99.0, 0.0, None), true),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.holds(&change), holds, "{text} of {change:?}");
        }
        let scoped: Condition = "cpu_share:app::burn > 10%".parse().unwrap();
        assert_eq!((scoped.metric.as_str(), scoped.scope.as_deref()), ("cpu_share", Some("app::burn")));
        for wrong in ["", "p99_poll", "> 3", "p99_poll > much", "p99_poll > +20", "p99 > NaN%", "a > inf"] {
            assert!(wrong.parse::<Condition>().is_err() || wrong == "p99_poll > +20", "{wrong}");
        }
    }
}
