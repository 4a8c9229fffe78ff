//! Derives from a query's filters which segments and pages can contain rows of the result.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
};

use crate::source::zone_map::{Interval, Page, TASK, ZoneMap};

/// Conditions on a row's key, its end and its task, which all filters of a scan imply. Limits are inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Predicate {
    first_key: i64,
    last_key: i64,
    /// Minimum of `ts + dur`.
    first_end: i64,
    /// Task ids in ascending order; `None` for any.
    tasks: Option<Vec<i64>>,
}

impl Predicate {
    /// The conditions that `filters` imply for a table sorted by `key`. Other filters are ignored.
    pub(crate) fn of(filters: &[Expr], key: &str) -> Self {
        let mut predicate = Predicate { first_key: i64::MIN, last_key: i64::MAX, first_end: i64::MIN, tasks: None };
        for filter in filters {
            predicate.narrow(filter, key);
            predicate.add_tasks(filter);
        }
        predicate
    }

    /// Minimum and maximum key.
    pub(crate) fn keys(&self) -> (i64, i64) {
        (self.first_key, self.last_key)
    }

    /// Whether the statistics prove that `filter` holds for every row of these segments.
    pub(crate) fn is_implied_by<'a>(filter: &Expr, key: &str, segments: impl IntoIterator<Item = &'a ZoneMap>) -> bool {
        let mut predicate = Self::of(&[], key);
        let is_exact = predicate.narrow(filter, key);
        let holds = |zones: &ZoneMap| {
            predicate.contains(zones) && (predicate.first_end == i64::MIN || zones.is_forward) || zones.rows == 0
        };
        is_exact && segments.into_iter().all(holds)
    }

    /// Whether `filter` is equivalent to limits of the key, so that a scan of those keys needs no further filter.
    pub(crate) fn is_keys_only(filter: &Expr, key: &str) -> bool {
        let mut predicate = Self::of(&[], key);
        predicate.narrow(filter, key) && predicate.first_end == i64::MIN
    }

    /// Whether rows with this key may be in the result.
    pub(crate) fn admits_key(&self, key: i64) -> bool {
        (self.first_key..=self.last_key).contains(&key)
    }

    /// Whether the statistics prove that all rows of a segment satisfy the limits, so that no page need be checked.
    pub(crate) fn contains(&self, zones: &ZoneMap) -> bool {
        let within = |(first, last)| {
            // A row ends after it begins. A row for which this is wrong is only read in vain.
            first >= self.first_key && last <= self.last_key && first >= self.first_end
        };
        zones.keys.is_some_and(within)
    }

    /// Adds a filter's limits. Returns whether they are equivalent to the filter.
    fn narrow(&mut self, filter: &Expr, key: &str) -> bool {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                // Not `&&`: both sides are added.
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

    /// Adds the task ids that a filter lists; of two lists, the shorter one is kept.
    fn add_tasks(&mut self, filter: &Expr) {
        let Some(mut named) = named(filter) else { return };
        named.sort_unstable();
        if self.tasks.as_ref().is_none_or(|tasks| tasks.len() > named.len()) {
            self.tasks = Some(named);
        }
    }

    /// Whether a segment may contain one of the tasks.
    fn admits_tasks(&self, least_and_greatest: Option<(i64, i64)>) -> bool {
        let (Some(tasks), Some((least, greatest))) = (&self.tasks, least_and_greatest) else { return true };
        let next = tasks.partition_point(|task| *task < least);
        tasks.get(next).is_some_and(|task| *task <= greatest)
    }

    fn compare(&mut self, expr: &Expr, op: Operator, value: i64, key: &str) -> bool {
        // `x > i64::MAX` and `x < i64::MIN` hold for no row. One row more may then be read.
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

    fn admits(&self, keys: (i64, i64), interval: Interval) -> bool {
        keys.0 <= self.last_key && keys.1 >= self.first_key && interval.last >= self.first_end
    }

    /// Whether a segment may contain rows of the result.
    pub(crate) fn admits_segment(&self, zones: &ZoneMap) -> bool {
        self.admits(zones.keys.unwrap_or((i64::MIN, i64::MAX)), zones.interval) && self.admits_tasks(zones.tasks)
    }

    /// Whether a page may contain rows of the result.
    pub(crate) fn admits_page(&self, page: &Page) -> bool {
        self.admits(page.keys, page.interval)
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        _ => None,
    }
}

/// The task ids of `task_id IN (…)`, `task_id = …`, or a disjunction of these.
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

/// `ts + dur`. If the sum overflows, it wraps in DataFusion too, and the row is not in the result.
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
    fn limits_come_from_supported_filters_only() {
        let of = |filters: &[Expr]| {
            let predicate = Predicate::of(filters, "ts");
            (predicate.first_key, predicate.last_key, predicate.first_end)
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
            assert!(!Predicate::is_implied_by(&other, "ts", &[]), "{other}");
        }
    }

    #[test]
    fn listed_tasks_exclude_segments() {
        let zones = |tasks| ZoneMap {
            rows: 3,
            keys: Some((10, 20)),
            interval: Interval::of(10, 20, 7),
            tasks,
            is_forward: true,
        };
        let admits = |filter: Expr, tasks| Predicate::of(&[filter], "ts").admits_segment(&zones(tasks));
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
            assert!(!Predicate::is_implied_by(&filter, "ts", [&zones(Some((9, 9)))]), "{filter}");
        }
    }

    #[test]
    fn a_filter_is_implied_only_if_the_statistics_prove_it_for_every_row() {
        let zones =
            ZoneMap { rows: 3, keys: Some((10, 20)), interval: Interval::of(10, 20, 7), tasks: None, is_forward: true };
        let proves = |filter: Expr, zones: &ZoneMap| Predicate::is_implied_by(&filter, "ts", [zones]);
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
            assert_eq!(proves(filter.clone(), &zones), expected, "{filter}");
        }
        let all = col("ts").gt_eq(lit(10_i64));
        let end = (col("ts") + col("dur")).gt(lit(9_i64));
        let backward = ZoneMap { is_forward: false, ..zones };
        assert!(proves(all.clone(), &backward) && !proves(end.clone(), &backward));
        let unknown = ZoneMap { keys: None, interval: Interval::EVERYWHERE, is_forward: false, ..zones };
        assert!(!proves(all.clone(), &unknown));
        assert!(proves(all.clone(), &ZoneMap { rows: 0, ..unknown }));
        assert!(!Predicate::is_implied_by(&all, "ts", [&zones, &unknown]));
    }
}
