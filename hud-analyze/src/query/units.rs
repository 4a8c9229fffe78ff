//! Units of the columns of any query: those of tables and views, followed through its operators and expressions. A column
//! whose unit does not follow has none.

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, JoinType, TableReference},
    logical_expr::{BinaryExpr, Distinct, Expr, LogicalPlan, Operator},
};
use hud_common::session::Table;

use crate::query::{
    header::{Item, Unit},
    schema::{self, VIEWS},
};

/// The unit of each column of a plan's result.
pub(crate) fn of(plan: &LogicalPlan) -> Vec<Option<Unit>> {
    let units = match plan {
        LogicalPlan::TableScan(scan) => of_relation(&scan.table_name, &scan.projected_schema),
        LogicalPlan::SubqueryAlias(alias) => {
            let named = of_relation(&alias.alias, &alias.schema);
            of(&alias.input).into_iter().zip(named).map(|(inner, named)| inner.or(named)).collect()
        }
        LogicalPlan::Projection(projection) => {
            let input = Input::of(&projection.input);
            projection.expr.iter().map(|expr| input.unit(expr)).collect()
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = Input::of(&aggregate.input);
            aggregate.group_expr.iter().chain(&aggregate.aggr_expr).map(|expr| input.unit(expr)).collect()
        }
        LogicalPlan::Window(window) => {
            let input = Input::of(&window.input);
            let own: Vec<_> = window.window_expr.iter().map(|expr| input.unit(expr)).collect();
            input.units.into_iter().chain(own).collect()
        }
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                of(&join.left).into_iter().chain(of(&join.right)).collect()
            }
            JoinType::LeftSemi | JoinType::LeftAnti => of(&join.left),
            JoinType::RightSemi | JoinType::RightAnti => of(&join.right),
            JoinType::LeftMark | JoinType::RightMark => Vec::new(),
        },
        LogicalPlan::Union(union) => union.inputs.first().map(|input| of(input)).unwrap_or_default(),
        LogicalPlan::Filter(filter) => of(&filter.input),
        LogicalPlan::Sort(sort) => of(&sort.input),
        LogicalPlan::Limit(limit) => of(&limit.input),
        LogicalPlan::Repartition(repartition) => of(&repartition.input),
        LogicalPlan::Subquery(subquery) => of(&subquery.subquery),
        LogicalPlan::Distinct(Distinct::All(input)) => of(input),
        _ => Vec::new(),
    };
    let fields = plan.schema().fields().len();
    if units.len() == fields { units } else { vec![None; fields] }
}

/// The units of a table's or a view's columns.
fn of_relation(name: &TableReference, schema: &DFSchema) -> Vec<Option<Unit>> {
    let table = Table::by_name(name.table()).filter(|_| name.schema() != Some(VIEWS));
    let columns: Vec<Item> = match table {
        Some(_) => Vec::new(),
        None => schema::view_named(name.table()).and_then(|view| view.header().ok()).unwrap_or_default().columns,
    };
    let about = table.map(Table::columns).unwrap_or_default();
    let unit = |name: &str| {
        let of_view = columns.iter().find(|item| item.name == name).map(|item| item.unit);
        of_view.or_else(|| about.iter().find(|column| column.name == name).and_then(|column| stated(&column.about)))
    };
    schema.fields().iter().map(|field| unit(field.name())).collect()
}

/// The unit that the description of a table's column states.
fn stated(about: &str) -> Option<Unit> {
    [("(ns since the Unix epoch", Unit::EpochNs), ("(ns", Unit::Ns), ("(bytes", Unit::Bytes)]
        .into_iter()
        .find_map(|(text, unit)| about.contains(text).then_some(unit))
}

/// The input of an operator.
struct Input<'a> {
    schema: &'a DFSchema,
    units: Vec<Option<Unit>>,
}

impl<'a> Input<'a> {
    fn of(plan: &'a LogicalPlan) -> Self {
        Input { schema: plan.schema(), units: of(plan) }
    }

    fn unit(&self, expr: &Expr) -> Option<Unit> {
        match expr {
            Expr::Column(column) => *self.units.get(self.schema.maybe_index_of_column(column)?)?,
            Expr::Alias(alias) => self.unit(&alias.expr),
            Expr::Cast(cast) if *cast.field.data_type() == DataType::Int64 => self.unit(&cast.expr),
            Expr::Negative(of) => self.unit(of).filter(|unit| *unit == Unit::Ns),
            Expr::BinaryExpr(binary) => self.of_sum(binary),
            Expr::Case(case) => case.when_then_expr.first().and_then(|(_, then)| self.unit(then)),
            Expr::AggregateFunction(call) => self.of_call(call.func.name(), &call.params.args),
            Expr::WindowFunction(call) => self.of_call(call.fun.name(), &call.params.args),
            Expr::ScalarFunction(call) => self.of_call(call.func.name(), &call.args),
            _ => None,
        }
    }

    /// A number without a unit takes the one of the other side.
    fn of_sum(&self, BinaryExpr { left, op, right }: &BinaryExpr) -> Option<Unit> {
        match (self.unit(left), op, self.unit(right)) {
            (Some(Unit::EpochNs), Operator::Minus, Some(Unit::EpochNs)) => Some(Unit::Ns),
            (Some(Unit::EpochNs), Operator::Plus | Operator::Minus, Some(Unit::Ns) | None) => Some(Unit::EpochNs),
            (Some(Unit::Ns) | None, Operator::Plus, Some(Unit::EpochNs)) => Some(Unit::EpochNs),
            (Some(Unit::Ns), Operator::Plus | Operator::Minus, Some(Unit::Ns) | None) => Some(Unit::Ns),
            (None, Operator::Plus | Operator::Minus, Some(Unit::Ns)) => Some(Unit::Ns),
            _ => None,
        }
    }

    fn of_call(&self, function: &str, args: &[Expr]) -> Option<Unit> {
        let of_argument = |at: usize| args.get(at).and_then(|argument| self.unit(argument));
        match function {
            "count" => Some(Unit::Count),
            "ns" => Some(Unit::Ns),
            "at" => Some(Unit::EpochNs),
            "time_bucket" => of_argument(1),
            "min" | "max" | "coalesce" | "greatest" | "least" | "nullif" | "first_value" | "last_value"
            | "nth_value" | "lag" | "lead" => of_argument(0),
            // Of durations, sizes and counts only.
            "sum" | "total" | "avg" | "median" | "quantile" | "abs" => {
                of_argument(0).filter(|unit| matches!(unit, Unit::Ns | Unit::Bytes | Unit::Count))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn times_and_durations_of_every_table_have_a_unit() {
        for table in Table::ALL {
            for column in table.columns() {
                let expected = match column.name {
                    "ts" | "worst_ts" => Some(Unit::EpochNs),
                    "dur" | "blocked" | "run_queue" | "wake_delay" => Some(Unit::Ns),
                    _ => continue,
                };
                assert_eq!(stated(&column.about), expected, "{}.{}: {}", table.name(), column.name, column.about);
            }
        }
        assert_eq!(stated("Resident memory (bytes)."), Some(Unit::Bytes));
        assert_eq!(stated("Thread."), None);
    }
}
