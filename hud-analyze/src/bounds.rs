//! What a query's conditions say of time and of tasks: the part of a table that can hold an answer.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
};

use crate::span::{Facts, Page, Span};

/// The column by whose values a condition may name rows: tasks are numbered in the order in which they are spawned, so that
/// those of a segment are close together.
pub(crate) const TASK: &str = "task_id";

/// Bounds of a row's key and of its end, all included, and the tasks that it may be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    first_key: i64,
    last_key: i64,
    /// The least end: `ts + dur`.
    first_end: i64,
    /// In order; none: any.
    tasks: Option<Vec<i64>>,
}

impl Bounds {
    /// What all of `filters` demand of a table sorted by `key`. What is not understood demands nothing.
    pub(crate) fn of(filters: &[Expr], key: &str) -> Self {
        let mut bounds = Bounds { first_key: i64::MIN, last_key: i64::MAX, first_end: i64::MIN, tasks: None };
        for filter in filters {
            bounds.narrow(filter, key);
            bounds.name(filter);
        }
        bounds
    }

    /// The least key and the greatest.
    pub(crate) fn keys(&self) -> (i64, i64) {
        (self.first_key, self.last_key)
    }

    /// Whether the footers alone prove that `filter` holds for every row of these segments.
    pub(crate) fn prove<'a>(filter: &Expr, key: &str, segments: impl IntoIterator<Item = &'a Facts>) -> bool {
        let mut bounds = Self::of(&[], key);
        let is_all_it_says = bounds.narrow(filter, key);
        let holds = |facts: &Facts| {
            bounds.hold_all_of(facts) && (bounds.first_end == i64::MIN || facts.is_forward) || facts.rows == 0
        };
        is_all_it_says && segments.into_iter().all(holds)
    }

    /// Whether `filter` says no more than between which keys a row lies, so that reading just those answers it.
    pub(crate) fn are_all_of(filter: &Expr, key: &str) -> bool {
        let mut bounds = Self::of(&[], key);
        bounds.narrow(filter, key) && bounds.first_end == i64::MIN
    }

    /// Whether they admit rows of this key.
    pub(crate) fn hold_key(&self, key: i64) -> bool {
        (self.first_key..=self.last_key).contains(&key)
    }

    /// Whether every row of a segment is within them, so that none of its pages need be looked at.
    pub(crate) fn hold_all_of(&self, facts: &Facts) -> bool {
        let within = |(first, last)| {
            // No row ends before it begins; one that does may be read in vain.
            first >= self.first_key && last <= self.last_key && first >= self.first_end
        };
        facts.keys.is_some_and(within)
    }

    /// Says whether they are now all that the filter demands.
    fn narrow(&mut self, filter: &Expr, key: &str) -> bool {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                // Both, whatever the first says.
                self.narrow(left, key) & self.narrow(right, key)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if let Some(value) = integer(right) {
                    self.compare(left, *op, value, key)
                } else if let (Some(value), Some(op)) = (integer(left), op.swap()) {
                    self.compare(right, op, value, key)
                } else {
                    false
                }
            }
            Expr::Between(between) if !between.negated => {
                let mut bound =
                    |value: Option<i64>, op| value.is_some_and(|value| self.compare(&between.expr, op, value, key));
                bound(integer(&between.low), Operator::GtEq) & bound(integer(&between.high), Operator::LtEq)
            }
            _ => false,
        }
    }

    /// Notes the tasks that a filter names one by one. Two such filters: the shorter list.
    fn name(&mut self, filter: &Expr) {
        let Some(mut named) = named(filter) else { return };
        named.sort_unstable();
        if self.tasks.as_ref().is_none_or(|tasks| tasks.len() > named.len()) {
            self.tasks = Some(named);
        }
    }

    /// Whether one of the tasks may be in a segment.
    fn admit_tasks(&self, least_and_greatest: Option<(i64, i64)>) -> bool {
        let (Some(tasks), Some((least, greatest))) = (&self.tasks, least_and_greatest) else { return true };
        let next = tasks.partition_point(|task| *task < least);
        tasks.get(next).is_some_and(|task| *task <= greatest)
    }

    fn compare(&mut self, expr: &Expr, op: Operator, value: i64, key: &str) -> bool {
        // `x > max` and `x < min` hold for no row; that the least or the greatest one is read all the same does no harm.
        let (least, greatest) = match op {
            Operator::Eq => (Some(value), Some(value)),
            Operator::Gt => (Some(value.saturating_add(1)), None),
            Operator::GtEq => (Some(value), None),
            Operator::Lt => (None, Some(value.saturating_sub(1))),
            Operator::LtEq => (None, Some(value)),
            _ => return false,
        };
        let is_exact = !matches!((op, value), (Operator::Gt, i64::MAX) | (Operator::Lt, i64::MIN));
        if is_column(expr, key) {
            self.first_key = least.map_or(self.first_key, |least| self.first_key.max(least));
            self.last_key = greatest.map_or(self.last_key, |greatest| self.last_key.min(greatest));
            is_exact
        } else if is_end(expr, key) {
            self.first_end = least.map_or(self.first_end, |least| self.first_end.max(least));
            is_exact && greatest.is_none()
        } else {
            false
        }
    }

    fn admit(&self, keys: (i64, i64), span: Span) -> bool {
        keys.0 <= self.last_key && keys.1 >= self.first_key && span.last >= self.first_end
    }

    /// Whether a segment may have a row within them.
    pub(crate) fn admit_segment(&self, facts: &Facts) -> bool {
        self.admit(facts.keys.unwrap_or((i64::MIN, i64::MAX)), facts.span) && self.admit_tasks(facts.tasks)
    }

    /// Whether a page may.
    pub(crate) fn admit_page(&self, page: &Page) -> bool {
        self.admit(page.keys, page.span)
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        _ => None,
    }
}

/// The tasks that `task_id IN (…)`, `task_id = …`, or several of these with `OR` between them, name.
fn named(filter: &Expr) -> Option<Vec<i64>> {
    match filter {
        Expr::InList(of) if !of.negated && is_column(&of.expr, TASK) => of.list.iter().map(integer).collect(),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (integer(left), integer(right)) {
            (None, Some(task)) if is_column(left, TASK) => Some(vec![task]),
            (Some(task), None) if is_column(right, TASK) => Some(vec![task]),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let mut both = named(left)?;
            both.append(&mut named(right)?);
            Some(both)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => named(left).or_else(|| named(right)),
        _ => None,
    }
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

/// `ts + dur`. Where it overflows, the sum wraps, and no row is found by it either way.
fn is_end(expr: &Expr, key: &str) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) = expr else { return false };
    let sums = |a: &Expr, b: &Expr| is_column(a, key) && is_column(b, "dur");
    sums(left, right) || sums(right, left)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn what_is_understood_narrows_and_what_is_not_does_not() {
        let of = |filters: &[Expr]| {
            let bounds = Bounds::of(filters, "ts");
            (bounds.first_key, bounds.last_key, bounds.first_end)
        };
        const NONE: (i64, i64, i64) = (i64::MIN, i64::MAX, i64::MIN);
        assert_eq!(of(&[]), NONE);
        assert_eq!(of(&[col("ts").gt_eq(lit(5_i64)), col("ts").lt(lit(9_i64))]), (5, 8, i64::MIN));
        assert_eq!(of(&[lit(5_i64).lt(col("ts")).and(col("ts").lt_eq(lit(9_i64)))]), (6, 9, i64::MIN));
        assert_eq!(of(&[col("polls.ts").eq(lit(7_i64))]), (7, 7, i64::MIN));
        assert_eq!(of(&[col("ts").between(lit(1_i64), lit(3_i64))]), (1, 3, i64::MIN));
        assert_eq!(of(&[(col("ts") + col("dur")).gt(lit(4_i64))]), (i64::MIN, i64::MAX, 5));
        assert_eq!(of(&[lit(4_i64).lt_eq(col("dur") + col("ts"))]), (i64::MIN, i64::MAX, 4));
        for other in [
            col("ts").gt(lit(5_i64)).or(col("dur").gt(lit(1_i64))),
            col("dur").gt(lit(5_i64)),
            (col("ts") + col("run_queue")).gt(lit(4_i64)),
            (col("ts") + col("dur")).lt(lit(4_i64)),
            col("ts").not_eq(lit(4_i64)),
            col("ts").not_between(lit(1_i64), lit(3_i64)),
            col("ts").gt(lit(ScalarValue::Int64(None))),
        ] {
            assert_eq!(of(std::slice::from_ref(&other)), NONE, "{other}");
            assert!(!Bounds::prove(&other, "ts", &[]), "{other}");
        }
    }

    #[test]
    fn tasks_that_are_named_rule_out_segments() {
        let facts = |tasks| Facts { rows: 3, keys: Some((10, 20)), span: Span::of(10, 20, 7), tasks, is_forward: true };
        let admits = |filter: Expr, tasks| Bounds::of(&[filter], "ts").admit_segment(&facts(tasks));
        let list = || col("o.task_id").in_list([9_i64, 3, 40].map(lit).to_vec(), false);
        for (filter, expected) in [
            (list(), [true, true, false, false]),
            (col("task_id").eq(lit(9_i64)).or(lit(3_i64).eq(col("task_id"))), [true, true, false, false]),
            (col("task_id").eq(lit(7_i64)), [false, true, false, false]),
            (list().and(col("task_id").eq(lit(7_i64)).or(col("task_id").eq(lit(40_i64)))), [true, true, false, false]),
            (list().or(col("tid").eq(lit(1_i64))), [true; 4]),
            (!list(), [true; 4]),
            (col("task_id").in_list(vec![lit(9_i64)], true), [true; 4]),
            (col("parent_task_id").eq(lit(9_i64)), [true; 4]),
            (col("task_id").in_list(vec![lit(9_i64), col("tid")], false), [true; 4]),
        ] {
            let found = [(9, 9), (4, 12), (10, 39), (41, 99)].map(|tasks| admits(filter.clone(), Some(tasks)));
            assert_eq!(found, expected, "{filter}");
            assert!(admits(filter.clone(), None), "{filter}");
            assert!(!Bounds::prove(&filter, "ts", [&facts(Some((9, 9)))]), "{filter}");
        }
    }

    #[test]
    fn only_what_footers_tell_of_every_row_is_proven() {
        let facts = Facts { rows: 3, keys: Some((10, 20)), span: Span::of(10, 20, 7), tasks: None, is_forward: true };
        let proves = |filter: Expr, facts: &Facts| Bounds::prove(&filter, "ts", [facts]);
        for (filter, expected) in [
            (col("ts").gt_eq(lit(10_i64)), true),
            (col("ts").gt(lit(9_i64)).and(col("ts").lt(lit(21_i64))), true),
            (col("ts").between(lit(10_i64), lit(20_i64)), true),
            ((col("ts") + col("dur")).gt(lit(9_i64)), true),
            (col("ts").gt(lit(10_i64)), false),
            (col("ts").lt(lit(20_i64)), false),
            (col("ts").between(lit(10_i64), lit(19_i64)), false),
            // The last row ends by 27, the first may end at 10.
            ((col("ts") + col("dur")).gt(lit(10_i64)), false),
            ((col("ts") + col("dur")).lt(lit(99_i64)), false),
            (col("ts").gt(lit(i64::MAX)), false),
            (col("ts").gt_eq(lit(10_i64)).and(col("dur").gt(lit(0_i64))), false),
        ] {
            assert_eq!(proves(filter.clone(), &facts), expected, "{filter}");
        }
        let all = col("ts").gt_eq(lit(10_i64));
        let end = (col("ts") + col("dur")).gt(lit(9_i64));
        let backward = Facts { is_forward: false, ..facts };
        assert!(proves(all.clone(), &backward) && !proves(end.clone(), &backward));
        let untold = Facts { keys: None, span: Span::EVERYWHERE, is_forward: false, ..facts };
        assert!(!proves(all.clone(), &untold));
        assert!(proves(all.clone(), &Facts { rows: 0, ..untold }));
        assert!(!Bounds::prove(&all, "ts", [&facts, &untold]));
    }
}
