//! What a query's conditions say of time: the part of a table that can hold an answer.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
};

use crate::span::{Facts, Page, Span};

/// Bounds of a row's key and of its end, all included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    first_key: i64,
    last_key: i64,
    /// The least end: `ts + dur`.
    first_end: i64,
}

impl Bounds {
    /// What all of `filters` demand of a table sorted by `key`. What is not understood demands nothing.
    pub(crate) fn of(filters: &[Expr], key: &str) -> Self {
        let mut bounds = Bounds { first_key: i64::MIN, last_key: i64::MAX, first_end: i64::MIN };
        for filter in filters {
            bounds.narrow(filter, key);
        }
        bounds
    }

    /// Whether every row of a segment is within them, so that none of its pages need be looked at.
    pub(crate) fn hold_all_of(&self, facts: &Facts) -> bool {
        let within = |(first, last)| {
            // No row ends before it begins; one that does may be read in vain.
            first >= self.first_key && last <= self.last_key && first >= self.first_end
        };
        facts.keys.is_some_and(within)
    }

    fn narrow(&mut self, filter: &Expr, key: &str) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left, key);
                self.narrow(right, key);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if let Some(value) = integer(right) {
                    self.compare(left, *op, value, key);
                } else if let (Some(value), Some(op)) = (integer(left), op.swap()) {
                    self.compare(right, op, value, key);
                }
            }
            Expr::Between(between) if !between.negated => {
                if let Some(low) = integer(&between.low) {
                    self.compare(&between.expr, Operator::GtEq, low, key);
                }
                if let Some(high) = integer(&between.high) {
                    self.compare(&between.expr, Operator::LtEq, high, key);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, expr: &Expr, op: Operator, value: i64, key: &str) {
        // `x > max` and `x < min` hold for no row; that the least or the greatest one is read all the same does no harm.
        let (least, greatest) = match op {
            Operator::Eq => (Some(value), Some(value)),
            Operator::Gt => (Some(value.saturating_add(1)), None),
            Operator::GtEq => (Some(value), None),
            Operator::Lt => (None, Some(value.saturating_sub(1))),
            Operator::LtEq => (None, Some(value)),
            _ => return,
        };
        if is_column(expr, key) {
            self.first_key = least.map_or(self.first_key, |least| self.first_key.max(least));
            self.last_key = greatest.map_or(self.last_key, |greatest| self.last_key.min(greatest));
        } else if is_end(expr, key) {
            self.first_end = least.map_or(self.first_end, |least| self.first_end.max(least));
        }
    }

    fn admit(&self, keys: (i64, i64), span: Span) -> bool {
        keys.0 <= self.last_key && keys.1 >= self.first_key && span.last >= self.first_end
    }

    /// Whether a segment may have a row within them.
    pub(crate) fn admit_segment(&self, facts: &Facts) -> bool {
        self.admit(facts.keys.unwrap_or((i64::MIN, i64::MAX)), facts.span)
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
        }
    }
}
