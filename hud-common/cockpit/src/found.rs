//! Findings as rows of the session's table `findings`.

use super::{Finding, Rule, Status, Thresholds, Value, Window};
use hud_files::clean_name;
use hud_session::{FindingRow, Text};

impl Finding {
    /// The finding as a row: of this time range, by these thresholds.
    pub fn row(&self, window: Window, thresholds: &Thresholds) -> FindingRow {
        let figure = |value: Value| match value {
            Value::Nanos(n) => (n, "ns"),
            Value::Share(n) => (n, "thousandths"),
            Value::Count(n) => (n, "count"),
        };
        let first = self.evidence.first();
        let (value, unit) = first.map_or((0, "count"), |e| figure(e.value));
        let name = |name: &str| Text::from(clean_name(name));
        FindingRow {
            ts: window.start(),
            dur: window.dur(),
            rule: self.rule.name().into(),
            severity: if self.severity == Status::Warning { "warning" } else { "caution" }.into(),
            sentence: name(&self.sentence),
            value,
            threshold: first.and_then(|e| e.threshold).map_or(0, |threshold| figure(threshold).0),
            unit: unit.into(),
            count: self.count,
            total: self.total,
            worst_ts: self.jump.ts,
            task_id: self.jump.task.map(|id| id.0),
            // No task causes it.
            type_id: self.jump.task_type.filter(|_| self.rule != Rule::CpuStarved).map(|id| id.0),
            tid: self.jump.tid.map(|id| id.0),
            function: self.place.as_ref().map(|place| name(&place.function)),
            file: self.place.as_ref().and_then(|place| place.file.as_deref()).map(name),
            line: self.place.as_ref().and_then(|place| place.line),
            estimated: self.is_estimated,
            thresholds: thresholds.line().into(),
        }
    }
}
