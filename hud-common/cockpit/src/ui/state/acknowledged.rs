//! Findings that the user has acknowledged. One stays so until it gets worse: in severity, or to twice the amount.

use crate::{Finding, Name, Rule, Status, TypeId, Value};

/// Maximum number of acknowledged findings; beyond it, the oldest are forgotten.
const MOST: usize = 1_000;

/// An acknowledged finding, by what it says of what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    rule: Rule,
    function: Option<Name>,
    task_type: Option<TypeId>,
    severity: Status,
    amount: i64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged(Vec<Seen>);

impl Seen {
    fn of(finding: &Finding) -> Self {
        let amount = match finding.evidence.first().map(|evidence| evidence.value) {
            Some(Value::Nanos(n) | Value::Count(n) | Value::Share(n)) => n,
            None => 0,
        };
        Seen {
            rule: finding.rule,
            function: finding.place.as_ref().map(|place| place.function.clone()),
            task_type: finding.jump.task_type,
            severity: finding.severity,
            amount,
        }
    }

    fn is_of(&self, other: &Seen) -> bool {
        (self.rule, &self.function, self.task_type) == (other.rule, &other.function, other.task_type)
    }
}

impl Acknowledged {
    /// Whether a finding is acknowledged, and has not become worse.
    pub(super) fn has(&self, finding: &Finding) -> bool {
        let now = Seen::of(finding);
        self.0.iter().any(|seen| {
            seen.is_of(&now) && now.severity <= seen.severity && now.amount <= seen.amount.saturating_mul(2)
        })
    }

    pub(super) fn add(&mut self, finding: &Finding) {
        let new = Seen::of(finding);
        self.0.retain(|seen| !seen.is_of(&new));
        self.0.push(new);
        if self.0.len() > MOST {
            self.0.remove(0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evidence, Jump};

    fn finding(severity: Status, amount: i64, task_type: i64) -> Finding {
        Finding {
            rule: Rule::LongPoll,
            severity,
            sentence: "a sentence".into(),
            evidence: vec![Evidence { what: "longest".into(), value: Value::Nanos(amount), threshold: None }],
            place: None,
            count: None,
            total: None,
            jump: Jump { task_type: Some(TypeId(task_type)), ..Jump::default() },
            is_estimated: false,
        }
    }

    #[test]
    fn a_finding_that_gets_worse_is_no_longer_acknowledged() {
        let mut all = Acknowledged::default();
        all.add(&finding(Status::Caution, 50, 1));
        assert!(all.has(&finding(Status::Caution, 100, 1)));
        assert!(!all.has(&finding(Status::Caution, 101, 1)), "more than twice");
        assert!(!all.has(&finding(Status::Warning, 50, 1)));
        assert!(!all.has(&finding(Status::Caution, 50, 2)), "another one");
        all.add(&finding(Status::Warning, 300, 1));
        assert!(all.has(&finding(Status::Warning, 400, 1)));
        (0..2_000).for_each(|id| all.add(&finding(Status::Caution, 1, id)));
        assert_eq!(all.0.len(), MOST);
    }
}
