//! `at(text)`: a moment as a user writes it, in nanoseconds since the epoch.

use std::{str::FromStr, sync::Arc};

use arrow::{
    array::{AsArray as _, Int64Array},
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::{DataFusionError, ScalarValue, exec_datafusion_err, plan_datafusion_err},
    error::Result,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use jiff::{SignedDuration, Timestamp, civil};

use super::{
    arguments::{Taken, coerced, over_arrays},
    duration::parse_offset,
};

/// A moment, as a user writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// `+12.5s`, `12.5s` or `12.5`: since the session's start.
    AfterStart(SignedDuration),
    /// `-30s`: before its end.
    BeforeEnd(SignedDuration),
    /// `14:03:20`: the first such time of day (UTC) after its start, on the day on which it began or the next.
    TimeOfDay(civil::Time),
    /// `2026-01-31T14:03:20.5+01:00`.
    Instant(Timestamp),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = |text: &str| parse_offset(text).map(SignedDuration::from_nanos);
        if let Some(after) = text.strip_prefix('+') {
            return Ok(Moment::AfterStart(duration(after)?));
        }
        if let Some(before) = text.strip_prefix('-') {
            return Ok(Moment::BeforeEnd(duration(before)?));
        }
        if let Ok(instant) = text.parse() {
            return Ok(Moment::Instant(instant));
        }
        if text.contains(':')
            && !text.contains(['T', '-', ' '])
            && let Ok(time) = text.parse()
        {
            return Ok(Moment::TimeOfDay(time));
        }
        if let Ok(after) = duration(text) {
            return Ok(Moment::AfterStart(after));
        }
        let shown: String = text.chars().take(40).collect();
        Err(format!(
            "{shown:?} is not a time, write it like +12.5s (since the start), -30s (before the end), 14:03:20 (UTC) or \
             2026-01-31T14:03:20Z"
        ))
    }
}

impl Moment {
    /// In a session from `start` to `end`, all in nanoseconds since the epoch.
    pub fn within(self, start: i64, end: i64) -> i64 {
        const DAY: i64 = 86_400_000_000_000;
        let ns = |d: SignedDuration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match self {
            Moment::AfterStart(after) => start.saturating_add(ns(after)),
            Moment::BeforeEnd(before) => end.saturating_sub(ns(before)),
            Moment::Instant(instant) => {
                let far = if instant < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX };
                i64::try_from(instant.as_nanosecond()).unwrap_or(far)
            }
            Moment::TimeOfDay(time) => {
                let since_midnight = ns(time.duration_since(civil::Time::midnight()));
                let midnight = start.saturating_sub(start.rem_euclid(DAY));
                let at = midnight.saturating_add(since_midnight);
                let next = at.saturating_add(DAY);
                if at < start && next < end { next } else { at }
            }
        }
    }
}

/// `at(text)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct At {
    start: i64,
    end: i64,
    signature: Signature,
}

impl At {
    pub(super) fn new(start: i64, end: i64) -> Self {
        At { start, end, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn of(&self, text: &str) -> Result<i64, String> {
        Ok(text.trim().parse::<Moment>()?.within(self.start, self.end))
    }
}

impl ScalarUDFImpl for At {
    fn name(&self) -> &str {
        "at"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerced("at", "at('+12.5s')", &[Taken::Text], given)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        // An invalid constant is reported at planning, not at the first row.
        if let Some(text) = constant_text(args.scalar_arguments.first()) {
            self.of(text).map_err(|why| plan_datafusion_err!("{why}"))?;
        }
        Ok(Arc::new(arrow::datatypes::Field::new("at", DataType::Int64, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_arrays(args, |arrays| {
            let texts = texts(arrays.first())?;
            let at =
                |text: Option<&str>| text.map(|t| self.of(t).map_err(|why| exec_datafusion_err!("{why}"))).transpose();
            Ok(Arc::new(texts.iter().map(at).collect::<Result<Int64Array>>()?))
        })
    }
}

/// An argument's text, if it is constant.
pub(super) fn constant_text<'a>(argument: Option<&Option<&'a ScalarValue>>) -> Option<&'a str> {
    match argument {
        Some(Some(
            ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)),
        )) => Some(text),
        _ => None,
    }
}

/// An argument that was cast to `Utf8`.
pub(super) fn texts(array: Option<&arrow::array::ArrayRef>) -> Result<&arrow::array::StringArray, DataFusionError> {
    array
        .and_then(|array| array.as_string_opt::<i32>())
        .ok_or_else(|| DataFusionError::Internal("an argument is not of the type that it was cast to".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_times_relative_to_start_end_and_day() {
        const SECOND: i64 = 1_000_000_000;
        // 2023-11-14 22:13:20 UTC, for three hours.
        let start = 1_700_000_000 * SECOND;
        let end = start + 3 * 3_600 * SECOND;
        let at = |text: &str| text.parse::<Moment>().map(|m| m.within(start, end) - start);
        assert_eq!(at("+12.5s"), Ok(12_500_000_000));
        assert_eq!(
            [at("12.5s"), at("12.5"), at("+12.5")],
            [Ok(12_500_000_000), Ok(12_500_000_000), Ok(12_500_000_000)]
        );
        assert_eq!([at("-30s"), at("-30")], [Ok((3 * 3_600 - 30) * SECOND), Ok((3 * 3_600 - 30) * SECOND)]);
        assert_eq!(at("22:13:30"), Ok(10 * SECOND));
        assert_eq!(at("00:13:20"), Ok(2 * 3_600 * SECOND), "past midnight");
        assert_eq!(at("22:00:00"), Ok(-800 * SECOND), "before the start, as its end comes before the next day's");
        assert_eq!(at("2023-11-14T22:13:21Z"), Ok(SECOND));
        assert_eq!(at("2023-11-14T23:13:21.5+01:00"), Ok(1_500_000_000));
        for bad in [
            "",
            "+",
            "-",
            "+-5s",
            "--5s",
            "12 parsecs",
            "25:00:00",
            "2023-11-14",
            "tomorrow",
            "+99999999999999999999s",
            "::",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!("+2000000h".parse::<Moment>().map(|m| m.within(i64::MAX - 1, i64::MAX)), Ok(i64::MAX));
        assert_eq!("-2000000h".parse::<Moment>().map(|m| m.within(i64::MIN, i64::MIN)), Ok(i64::MIN));
        assert_eq!("0001-01-01T00:00:00Z".parse::<Moment>().map(|m| m.within(0, 1)), Ok(i64::MIN));
        assert!("00:00:01".parse::<Moment>().map(|m| m.within(i64::MIN, i64::MAX)).is_ok());
    }
}
