//! The join as a table: its columns, and the parts of both sides that a query needs.
//!
//! Only needed columns are read. A filter on columns of the left side is pushed to the left side, as each of its rows
//! is emitted once. An upper bound on its `ts` is pushed to the right side too, as no later row matches; a lower bound
//! also, for an interval join, less the longest `dur` in the right side's statistics.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, ScalarValue, plan_datafusion_err, plan_err, stats::Precision},
    error::Result,
    logical_expr::{
        BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, expr_rewriter::unnormalize_col, lit,
    },
    physical_plan::{
        ExecutionPlan,
        filter::FilterExec,
        statistics::{StatisticsArgs, StatisticsContext},
    },
};

use super::{
    keys::common_type,
    kind::Kind,
    merge::{Shape, Source},
    plan::TimeJoinExec,
};

/// A side of a join.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) table: Arc<dyn TableProvider>,
}

/// Two tables, joined.
#[derive(Debug)]
pub(super) struct JoinTable {
    kind: Kind,
    left: Side,
    right: Side,
    schema: SchemaRef,
    /// The sources of the columns, by the sides' own indices.
    columns: Vec<Source>,
    left_ts: usize,
    right_ts: usize,
    right_dur: Option<usize>,
    keys: Vec<(usize, usize)>,
    key_types: Vec<DataType>,
}

impl JoinTable {
    /// `keys` are pairs of a column of the left and one of the right side.
    pub(super) fn try_new(kind: Kind, left: Side, right: Side, keys: &[(String, String)]) -> Result<Self> {
        let (left_schema, right_schema) = (left.table.schema(), right.table.schema());
        let left_ts = integer(&left_schema, &left.name, "ts")?;
        let right_ts = integer(&right_schema, &right.name, "ts")?;
        let right_dur = match kind {
            Kind::AsOf => None,
            Kind::Within => Some(integer(&right_schema, &right.name, "dur")?),
        };
        let mut pairs = Vec::new();
        let mut key_types = Vec::new();
        for (l, r) in keys {
            let pair = (find(&left_schema, &left.name, l)?, find(&right_schema, &right.name, r)?);
            let (l_type, r_type) = (left_schema.field(pair.0).data_type(), right_schema.field(pair.1).data_type());
            key_types.push(common_type(l, l_type, r_type)?);
            pairs.push(pair);
        }

        let mut fields: Vec<Field> = left_schema.fields().iter().map(|field| (**field).clone()).collect();
        let mut columns: Vec<Source> = (0..fields.len()).map(Source::Left).collect();
        for (at, field) in right_schema.fields().iter().enumerate() {
            // If there is a row, they have the left side's values.
            if pairs.iter().any(|(_, key)| *key == at) {
                continue;
            }
            let mut name = field.name().clone();
            while fields.iter().any(|field| *field.name() == name) {
                name.push_str("_right");
            }
            fields.push(Field::new(name, field.data_type().clone(), true));
            columns.push(Source::Right(at));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(JoinTable { kind, left, right, schema, columns, left_ts, right_ts, right_dur, keys: pairs, key_types })
    }

    /// The column of the left side behind an output column.
    fn left_column(&self, name: &str) -> Option<usize> {
        let at = self.schema.index_of(name).ok()?;
        match self.columns.get(at)? {
            Source::Left(at) => Some(*at),
            Source::Right(_) => None,
        }
    }

    fn is_of_left(&self, filter: &Expr) -> bool {
        !filter.is_volatile() && filter.column_refs().iter().all(|column| self.left_column(&column.name).is_some())
    }

    /// A bound of the left side's `ts` that a filter sets: `ts op bound`.
    fn bound(&self, filter: &Expr) -> Option<(Operator, i64)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
        let (column, op, value) = match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
            (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
            _ => return None,
        };
        let ScalarValue::Int64(Some(value)) = value else { return None };
        (self.left_column(&column.name) == Some(self.left_ts)).then_some((op, *value))
    }

    async fn scan_right(
        &self,
        state: &dyn Session,
        columns: &Vec<usize>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.right.table.schema();
        let ts = || Expr::Column(Column::new_unqualified(schema.field(self.right_ts).name()));
        let (mut from, mut bounds) = (None, Vec::new());
        for (op, bound) in filters.iter().filter_map(|filter| self.bound(filter)) {
            match op {
                Operator::Lt => bounds.push(ts().lt(lit(bound))),
                Operator::LtEq | Operator::Eq => bounds.push(ts().lt_eq(lit(bound))),
                _ => {}
            }
            if matches!(op, Operator::Gt | Operator::GtEq | Operator::Eq) {
                from = from.max(Some(bound));
            }
        }
        if let (Some(from), Some(dur)) = (from, self.right_dur)
            && let Some(longest) = self.longest(state, dur).await?
        {
            // An interval that contains `from` began at most the longest interval's length before it.
            bounds.push(ts().gt_eq(lit(from.saturating_sub(longest.max(0)))));
        }
        scan(&self.right, state, columns, &bounds, None).await
    }

    /// The longest interval of the right side, if it is exactly known.
    async fn longest(&self, state: &dyn Session, dur: usize) -> Result<Option<i64>> {
        let plan = self.right.table.scan(state, Some(&vec![dur]), &[], None).await?;
        let statistics = StatisticsContext::new().compute(&*plan, &StatisticsArgs::new())?;
        Ok(match statistics.column_statistics.first().map(|column| &column.max_value) {
            Some(Precision::Exact(ScalarValue::Int64(Some(longest)))) => Some(*longest),
            _ => None,
        })
    }
}

/// Scans a side, with the filters that it can use.
async fn scan(
    side: &Side,
    state: &dyn Session,
    columns: &Vec<usize>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let support = side.table.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>())?;
    let of_use =
        filters.iter().zip(support).filter(|(_, support)| *support != TableProviderFilterPushDown::Unsupported);
    let supported: Vec<Expr> = of_use.map(|(filter, _)| filter.clone()).collect();
    let plan = side.table.scan(state, Some(columns), &supported, limit).await?;
    // A filter reaches a file through the physical plan, which is possible only if its columns are read.
    let schema = plan.schema();
    let is_read = |filter: &&Expr| filter.column_refs().iter().all(|column| schema.index_of(&column.name).is_ok());
    let Some(filter) = filters.iter().filter(is_read).cloned().map(unnormalize_col).reduce(Expr::and) else {
        return Ok(plan);
    };
    let predicate = state.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
    Ok(Arc::new(FilterExec::try_new(predicate, plan)?))
}

#[async_trait]
impl TableProvider for JoinTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let supported = |filter: &&Expr| match self.is_of_left(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(supported).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let projection = projection.unwrap_or(&all);
        let wanted = projection.iter().filter_map(|at| self.columns.get(*at).copied());
        let wanted: Vec<Source> = wanted.collect();
        let of_left = |source: &Source| match source {
            Source::Left(at) => Some(*at),
            Source::Right(_) => None,
        };
        let of_right = |source: &Source| match source {
            Source::Left(_) => None,
            Source::Right(at) => Some(*at),
        };
        let filters: Vec<Expr> = filters.iter().filter(|filter| self.is_of_left(filter)).cloned().collect();
        let limit = limit.filter(|_| filters.is_empty());

        // Each row of the left side is emitted once: if no other column is needed, there is no join.
        if !wanted.iter().any(|source| of_right(source).is_some()) {
            let columns: Vec<usize> = wanted.iter().filter_map(of_left).collect();
            return scan(&self.left, state, &columns, &filters, limit).await;
        }
        let (left_keys, right_keys): (Vec<usize>, Vec<usize>) = self.keys.iter().copied().unzip();
        let left_columns =
            set(wanted.iter().filter_map(of_left).chain(left_keys.iter().copied()).chain([self.left_ts]));
        let right_columns = set(wanted.iter().filter_map(of_right));
        let right_read =
            set(right_columns.iter().chain(&right_keys).copied().chain([self.right_ts]).chain(self.right_dur));

        let left = scan(&self.left, state, &left_columns, &filters, limit).await?;
        let right = self.scan_right(state, &right_read, &filters).await?;
        let place = |columns: &[usize], at: usize| {
            columns.binary_search(&at).map_err(|_| plan_datafusion_err!("a join lacks a column that it needs"))
        };
        let places =
            |columns: &[usize], of: &[usize]| of.iter().map(|at| place(columns, *at)).collect::<Result<Vec<_>>>();
        let shape = Shape {
            kind: self.kind,
            names: [self.left.name.clone(), self.right.name.clone()],
            left_ts: place(&left_columns, self.left_ts)?,
            left_keys: places(&left_columns, &left_keys)?,
            right_ts: place(&right_read, self.right_ts)?,
            right_dur: self.right_dur.map(|dur| place(&right_read, dur)).transpose()?,
            right_keys: places(&right_read, &right_keys)?,
            key_types: self.key_types.clone(),
            right_columns: places(&right_read, &right_columns)?,
            output: wanted
                .iter()
                .map(|source| match source {
                    Source::Left(at) => place(&left_columns, *at).map(Source::Left),
                    Source::Right(at) => place(&right_columns, *at).map(Source::Right),
                })
                .collect::<Result<_>>()?,
        };
        let schema = Arc::new(self.schema.project(projection)?);
        Ok(Arc::new(TimeJoinExec::new([left, right], Arc::new(shape), schema)))
    }
}

/// Each number once, in order.
fn set(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn find(schema: &Schema, table: &str, column: &str) -> Result<usize> {
    schema.index_of(column).map_err(|_| {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        plan_datafusion_err!("{table} has no column {column}: it has {}", names.join(", "))
    })
}

fn integer(schema: &Schema, table: &str, column: &str) -> Result<usize> {
    let at = find(schema, table, column)?;
    match schema.field(at).data_type() {
        DataType::Int64 => Ok(at),
        other => plan_err!("{table}.{column} is a {other}: a join by time needs nanoseconds, a BIGINT"),
    }
}
