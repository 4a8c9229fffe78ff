//! Defaults of view parameters, as the views' headers declare them.

use datafusion::common::ScalarValue;

use crate::{
    human::parse_duration,
    query::{
        header::{Item, Unit},
        window::Window,
    },
};

/// The default whose value depends on the time range.
const HUNDREDTH: &str = "a hundredth of the time range";

/// The default of a parameter over a time range.
pub(crate) fn of(parameter: &Item, window: Window) -> ScalarValue {
    let value = match (parameter.name.as_str(), parameter.default.as_deref()) {
        ("from", _) => Some(window.from),
        ("to", _) => Some(window.to),
        (_, Some(HUNDREDTH)) => Some(hundredth(window)),
        (_, default) if parameter.unit == Unit::Flag => return ScalarValue::Boolean(Some(default == Some("true"))),
        (_, Some(default)) => integer(default),
        (_, None) => None,
    };
    ScalarValue::Int64(value)
}

/// Whether a default can be understood.
pub(crate) fn check(parameter: &Item) -> Result<(), String> {
    let is_valid = match parameter.default.as_deref() {
        None | Some(HUNDREDTH) => true,
        Some(default) if parameter.unit == Unit::Flag => matches!(default, "true" | "false"),
        Some(default) => integer(default).is_some(),
    };
    if is_valid { Ok(()) } else { Err(format!("${}: its default {:?}", parameter.name, parameter.default)) }
}

/// A number, or a duration in ns.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| parse_duration(text).ok())
}

/// The step that divides a time range into a hundred.
pub(crate) fn hundredth(window: Window) -> i64 {
    ((window.dur().saturating_add(99)) / 100).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::query::view::{self, View};

    fn value(view: &View, name: &str) -> ScalarValue {
        let parameters = view.header().unwrap().parameters;
        of(parameters.iter().find(|p| p.name == name).unwrap(), Window { from: 1_000, to: 2_001 })
    }

    #[test]
    fn a_default_is_the_one_of_the_header() {
        for (view, name, expected) in [
            (view::BLOCKING, "from", Some(1_000)),
            (view::BLOCKING, "to", Some(2_001)),
            (view::BLOCKING, "threshold", Some(10_000_000)),
            (view::BLOCKING, "asleep", Some(1_000_000)),
            (view::BLOCKING, "task", None),
            (view::TIMELINE, "step", Some(11)),
            (view::TASK_TREE, "depth", Some(64)),
        ] {
            assert_eq!(value(&view, name), ScalarValue::Int64(expected), "{} ${name}", view.name);
        }
        assert_eq!(value(&view::HOTSPOTS_BY, "functions"), ScalarValue::Boolean(Some(true)));
        assert_eq!(value(&view::HOTSPOTS_BY, "lines"), ScalarValue::Boolean(Some(false)));
    }

    #[test]
    fn a_default_that_cannot_be_understood_is_an_error_of_the_view() {
        let sql =
            "-- v: x\n--\n-- Parameters:\n--   $a  ns  a (default soon)\n--\n-- Columns:\n--   b  ns  b\nSELECT 1";
        let error = View { name: "v", sql, empty: "" }.header().unwrap_err().to_string();
        assert!(error.contains("soon"), "{error}");
    }
}
