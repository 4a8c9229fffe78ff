//! Materializes common table expressions that are marked `AS MATERIALIZED`: each is run once, and the rest of the query is
//! planned over its rows.
//!
//! DataFusion 55 parses the mark, but inlines every common table expression (apache/datafusion#17737): one that is referenced
//! five times is planned and run five times, and those that it references 25 times. The views mark those that are small and
//! referenced often: frames, attribution of stacks, threads, task types. One that reads streams of events is materialized only
//! if they have few rows: reading millions of rows while a query is planned cannot be cancelled by Ctrl-C in the shell.
//! The parameter `$few` is true if all marked ones are materialized; views then restrict other tables to the ids in them.
//!
//! `x IN (SELECT column FROM name)` over few materialized rows becomes a list of literals, by which segments are pruned.
//! This module can be removed once DataFusion materializes common table expressions.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider, Session, TableProvider},
    common::{ParamValues, ScalarValue, Statistics, config::Dialect},
    datasource::MemTable,
    error::{DataFusionError, Result},
    execution::{
        SessionState,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    logical_expr::{Expr, LogicalPlan, TableType},
    physical_plan::ExecutionPlan,
    prelude::{DataFrame, SessionContext},
    sql::{
        parser::Statement,
        sqlparser::ast::{self, CteAsMaterialized, Query, visit_expressions_mut, visit_relations, visit_relations_mut},
    },
};
use futures::StreamExt as _;
use hud_common::session::Table;
use tokio::runtime::Builder;

use crate::{query::single_partition, threads::threads};

/// The schema of materialized rows while a query is planned.
const SCHEMA: &str = "materialized";

/// Number of events below which one part runs with a single partition, as other parts run at the same time.
const FEW_EVENTS_OF_PART: u64 = 1_000_000;

/// Maximum length of a list of literals.
const MOST_LITERALS: usize = 256;

/// Tables that may have millions of rows.
const STREAMS: [Table; 4] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes];

/// The only dialect of sqlparser that has `AS MATERIALIZED`.
const DIALECT: Dialect = Dialect::PostgreSQL;

/// The parameter that is true if all marked expressions are materialized.
const ARE_FEW: &str = "few";

/// Plans `sql` with its parameters. Marked expressions are run now, except those that read at least `few` rows, by `within`,
/// which returns a table's number of rows in the query's time range.
pub(crate) async fn plan(
    context: &SessionContext,
    sql: &'static str,
    mut values: HashMap<String, ScalarValue>,
    within: impl Fn(Table) -> Result<u64>,
    few: u64,
    computed: Option<(Table, RecordBatch)>,
) -> Result<DataFrame> {
    let rows = Table::ALL.iter().filter(|table| table.expires()).map(|table| within(*table)).sum::<Result<u64>>()?;
    let state = context.state();
    let alone = single_partition::state(&state);
    let state = if rows < single_partition::FEW_EVENTS { alone.clone() } else { state };
    let mut statement = parsed(&state, sql)?;
    let mut registered = Registered::default();
    if let Some((table, rows)) = computed {
        let name = registered.add(context, Rows::given(rows, context)?)?;
        rename(&mut statement, table, &name);
    }
    let mut are_few = true;
    let mut to_run = Vec::new();
    if let Some(query) = query(&mut statement) {
        for index in 0..query.with.as_ref().map_or(0, |with| with.cte_tables.len()) {
            let Some(marked) = Marked::at(query, index) else { continue };
            let streams: BTreeSet<Table> = marked.tables().filter(|table| STREAMS.contains(table)).collect();
            if streams.is_empty() || streams.iter().map(|table| within(*table)).sum::<Result<u64>>()? < few {
                to_run.push(Part { index, name: marked.name().to_owned(), needed: marked.needed });
            } else {
                are_few = false;
            }
        }
    }
    values.insert(ARE_FEW.into(), are_few.into());
    let values = ParamValues::from(values);
    if let Some(query) = query(&mut statement) {
        let (running, known, registered) = (BTreeSet::new(), HashMap::new(), &mut registered);
        let work = Work { query, to_run, running, known, registered, context, alone: &alone, values: &values };
        work.run_all(&within)?;
        prune(query);
    }
    with_values(DataFrame::new(state.clone(), state.statement_to_plan(statement).await?), &values)
}

/// Replaces a table by rows that have a name in [`SCHEMA`].
fn rename(statement: &mut Statement, table: Table, name: &str) {
    let Some(query) = query(statement) else { return };
    let _: ControlFlow<()> = visit_relations_mut(query, |relation| {
        if relation.to_string() == table.name() {
            let parts = [SCHEMA, name].into_iter().map(|part| ast::ObjectNamePart::Identifier(part.into()));
            *relation = ast::ObjectName(parts.collect());
        }
        ControlFlow::Continue(())
    });
}

/// The parsed statement; each view is parsed once per process.
fn parsed(state: &SessionState, sql: &'static str) -> Result<Statement> {
    static PARSED: Mutex<BTreeMap<&'static str, Statement>> = Mutex::new(BTreeMap::new());
    let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = parsed.get(sql) {
        return Ok(known.clone());
    }
    let statement = state.sql_to_statement(sql, &DIALECT)?;
    parsed.insert(sql, statement.clone());
    Ok(statement)
}

/// Runs the marked expressions, one on each processor: with few events most of the time is planning, which DataFusion does on
/// one thread.
struct Work<'a> {
    query: &'a mut Query,
    /// Expressions that are not started.
    to_run: Vec<Part>,
    /// Names of running expressions.
    running: BTreeSet<String>,
    known: HashMap<String, Vec<RecordBatch>>,
    registered: &'a mut Registered,
    context: &'a SessionContext,
    /// Its state for plans with a single partition.
    alone: &'a SessionState,
    values: &'a ParamValues,
}

/// An expression to materialize.
struct Part {
    index: usize,
    name: String,
    /// All names that it references.
    needed: Vec<String>,
}

/// Index and name of an expression, and its result.
type Done = (usize, String, thread::Result<Result<(Rows, Vec<RecordBatch>)>>);

impl Work<'_> {
    fn run_all(mut self, within: &impl Fn(Table) -> Result<u64>) -> Result<()> {
        let (alone, context, values) = (self.alone, self.context, self.values);
        let (sender, receiver) = channel::<Done>();
        thread::scope(|scope| {
            loop {
                while self.running.len() < threads()
                    && let Some(Part { index, name, .. }) = self.next()
                {
                    let Some(marked) = Marked::at(self.query, index) else { continue };
                    let events = marked.tables().filter(|table| table.expires()).map(within).sum::<Result<u64>>()?;
                    let statement = marked.by_itself();
                    let sender = sender.clone();
                    self.running.insert(name.clone());
                    // This thread belongs to a runtime, on which blocking is not allowed.
                    scope.spawn(move || {
                        let run = || {
                            let (mut builder, state) = match events < FEW_EVENTS_OF_PART {
                                true => (Builder::new_current_thread(), alone.clone()),
                                false => (Builder::new_multi_thread(), context.state()),
                            };
                            let runtime = builder.worker_threads(threads()).build()?;
                            runtime.block_on(materialize(state, context, statement, values))
                        };
                        // The receiver is gone if another part has failed.
                        drop(sender.send((index, name, catch_unwind(AssertUnwindSafe(run)))));
                    });
                }
                if self.running.is_empty() {
                    return Ok(());
                }
                let Ok((index, name, done)) = receiver.recv() else { return Ok(()) };
                self.running.remove(&name);
                let (rows, batches) = done.unwrap_or_else(|panic| resume_unwind(panic))?;
                self.put(index, name, rows, batches)?;
            }
        })
    }

    /// Of the expressions whose references are materialized, the one that most others reference.
    fn next(&mut self) -> Option<Part> {
        let is_unfinished =
            |name: &String| self.running.contains(name) || self.to_run.iter().any(|part| part.name == *name);
        let is_ready = |(_, part): &(usize, &Part)| !part.needed.iter().any(is_unfinished);
        let references_to = |part: &Part| self.to_run.iter().filter(|other| other.needed.contains(&part.name)).count();
        let parts = self.to_run.iter().enumerate().filter(is_ready);
        let (at, _) = parts.max_by_key(|(_, part)| (references_to(part), Reverse(part.index)))?;
        Some(self.to_run.remove(at))
    }

    /// Replaces an expression by its rows.
    fn put(&mut self, index: usize, name: String, rows: Rows, batches: Vec<RecordBatch>) -> Result<()> {
        // By the constant filter, joins with no rows are removed from the plan.
        let none = if batches.iter().all(|batch| batch.num_rows() == 0) { " WHERE false" } else { "" };
        self.known.insert(name, batches);
        inline_lists(self.query, &self.known);
        let name = self.registered.add(self.context, rows)?;
        let sql = format!("SELECT * FROM {SCHEMA}.{name}{none}");
        put(self.query, index, self.alone.sql_to_statement(&sql, &DIALECT)?);
        Ok(())
    }
}

/// Plans and runs a statement.
async fn materialize(
    state: SessionState,
    context: &SessionContext,
    statement: Statement,
    values: &ParamValues,
) -> Result<(Rows, Vec<RecordBatch>)> {
    let plan = state.statement_to_plan(statement).await?;
    Rows::of(with_values(DataFrame::new(state, plan), values)?, context).await
}

fn with_values(frame: DataFrame, values: &ParamValues) -> Result<DataFrame> {
    let (state, plan): (_, LogicalPlan) = frame.into_parts();
    Ok(DataFrame::new(state, plan.with_param_values(values.clone())?))
}

fn query(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Statement(statement) => match statement.as_mut() {
            ast::Statement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

/// A common table expression that is marked.
struct Marked<'a> {
    with: &'a ast::With,
    cte: &'a ast::Cte,
    /// The expressions that it references, also indirectly, and all names in them.
    before: Vec<&'a ast::Cte>,
    needed: Vec<String>,
}

impl<'a> Marked<'a> {
    /// The expression at this index, if it is marked.
    fn at(query: &'a Query, index: usize) -> Option<Self> {
        let with = query.with.as_ref()?;
        let cte = with.cte_tables.get(index)?;
        if cte.materialized != Some(CteAsMaterialized::Materialized) || with.recursive {
            return None;
        }
        let (before, needed) = references(&cte.query, with.cte_tables.get(..index)?);
        Some(Marked { with, cte, before, needed })
    }

    fn name(&self) -> &str {
        &self.cte.alias.name.value
    }

    /// The tables that it reads, without duplicates.
    fn tables(&self) -> impl Iterator<Item = Table> {
        self.needed.iter().filter_map(|name| Table::by_name(name)).collect::<BTreeSet<_>>().into_iter()
    }

    /// The expression as a statement.
    fn by_itself(&self) -> Statement {
        let mut alone = (*self.cte.query).clone();
        if !self.before.is_empty() && alone.with.is_none() {
            let cte_tables = self.before.iter().map(|cte| (*cte).clone()).collect();
            alone.with = Some(ast::With { cte_tables, ..self.with.clone() });
        }
        Statement::Statement(Box::new(ast::Statement::Query(Box::new(alone))))
    }
}

/// Replaces `x IN (SELECT column FROM name)` by a list of literals, if the rows of `name` are known and few.
fn inline_lists(query: &mut Query, known: &HashMap<String, Vec<RecordBatch>>) {
    let _: ControlFlow<()> = visit_expressions_mut(query, |found| {
        if let ast::Expr::InSubquery { expr, subquery, negated: false } = found
            && subquery.to_string() == subquery.body.to_string()
            && let Some(numbers) = numbers(&subquery.body, known)
        {
            let literal = |number: i64| ast::Expr::value(ast::Value::Number(number.to_string(), false));
            *found = match numbers.is_empty() {
                true => ast::Expr::value(ast::Value::Boolean(false)),
                false => {
                    let list = numbers.into_iter().map(literal).collect();
                    ast::Expr::InList { expr: expr.clone(), list, negated: false }
                }
            };
        }
        ControlFlow::Continue(())
    });
}

/// The distinct numbers that a query returns, if it is `SELECT column FROM name` or a union of such, and they are few.
fn numbers(query: &ast::SetExpr, known: &HashMap<String, Vec<RecordBatch>>) -> Option<BTreeSet<i64>> {
    let select = match query {
        ast::SetExpr::Select(select) => select,
        ast::SetExpr::SetOperation { op: ast::SetOperator::Union, left, right, .. } => {
            let all = &numbers(left, known)? | &numbers(right, known)?;
            return (all.len() <= MOST_LITERALS).then_some(all);
        }
        _ => return None,
    };
    let [ast::SelectItem::UnnamedExpr(ast::Expr::Identifier(column))] = select.projection.as_slice() else {
        return None;
    };
    let mut all = BTreeSet::new();
    let (_, rows) = known.iter().find(|(name, _)| select.to_string() == format!("SELECT {column} FROM {name}"))?;
    for batch in rows {
        for number in batch.column_by_name(&column.value)?.as_primitive_opt::<Int64Type>()?.iter().flatten() {
            all.insert(number);
            if all.len() > MOST_LITERALS {
                return None;
            }
        }
    }
    Some(all)
}

/// Which of the preceding expressions a query references, also indirectly, and all names in them. Each expression that stays
/// in a query is planned.
fn references<'a>(query: &Query, listed: &'a [ast::Cte]) -> (Vec<&'a ast::Cte>, Vec<String>) {
    let mut needed = Vec::new();
    names(query, &mut needed);
    let mut referenced = Vec::new();
    for other in listed.iter().rev() {
        if needed.contains(&other.alias.name.value) {
            names(&other.query, &mut needed);
            referenced.insert(0, other);
        }
    }
    (referenced, needed)
}

/// Removes expressions that are not referenced any more.
fn prune(query: &mut Query) {
    if let Some(mut with) = query.with.take() {
        with.cte_tables = references(query, &with.cte_tables).0.into_iter().cloned().collect();
        query.with = Some(with).filter(|with| !with.cte_tables.is_empty());
    }
}

/// Names that a query references, except those qualified by a schema.
fn names(query: &Query, into: &mut Vec<String>) {
    let _: ControlFlow<()> = visit_relations(query, |name| {
        if let [ast::ObjectNamePart::Identifier(name)] = name.0.as_slice() {
            into.push(name.value.clone());
        }
        ControlFlow::Continue(())
    });
}

/// Replaces the query of a common table expression.
fn put(query: &mut Query, index: usize, mut instead: Statement) {
    let cte = query.with.as_mut().and_then(|with| with.cte_tables.get_mut(index));
    if let (Some(cte), Some(instead)) = (cte, self::query(&mut instead)) {
        *cte.query = instead.clone();
    }
}

/// Materialized rows, accounted for in the memory limit of queries.
#[derive(Debug)]
struct Rows {
    table: MemTable,
    _held: MemoryReservation,
}

impl Rows {
    /// Rows that are known.
    fn given(rows: RecordBatch, context: &SessionContext) -> Result<Self> {
        let held = MemoryConsumer::new("computed rows").register(&context.runtime_env().memory_pool);
        held.try_grow(rows.get_array_memory_size())?;
        Ok(Rows { table: MemTable::try_new(rows.schema(), vec![vec![rows]])?, _held: held })
    }

    /// Runs a plan; also returns the batches.
    async fn of(frame: DataFrame, context: &SessionContext) -> Result<(Self, Vec<RecordBatch>)> {
        let held = MemoryConsumer::new("materialized rows").register(&context.runtime_env().memory_pool);
        let mut batches = Vec::new();
        let mut stream = frame.execute_stream().await?;
        // Plan and batches may differ in whether a column is nullable.
        let schema = stream.schema();
        while let Some(batch) = stream.next().await.transpose()? {
            held.try_grow(batch.get_array_memory_size())?;
            batches.push(RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?);
        }
        Ok((Rows { table: MemTable::try_new(schema, vec![batches.clone()])?, _held: held }, batches))
    }
}

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn statistics(&self) -> Option<Statistics> {
        self.table.statistics()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.table.scan(state, projection, filters, limit).await
    }
}

/// Materialized rows, registered by name until the query is planned.
#[derive(Default)]
struct Registered {
    schema: Option<Arc<dyn SchemaProvider>>,
    names: Vec<String>,
}

impl Registered {
    fn add(&mut self, context: &SessionContext, rows: Rows) -> Result<String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let schema = match &self.schema {
            Some(schema) => schema,
            None => self.schema.insert(schema_of(context)?),
        };
        let name = format!("rows_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        schema.register_table(name.clone(), Arc::new(rows))?;
        self.names.push(name.clone());
        Ok(name)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for (schema, name) in self.schema.iter().flat_map(|schema| self.names.iter().map(move |name| (schema, name))) {
            let _ = schema.deregister_table(name);
        }
    }
}

fn schema_of(context: &SessionContext) -> Result<Arc<dyn SchemaProvider>> {
    let catalog = context.catalog("datafusion");
    let catalog = catalog.ok_or_else(|| DataFusionError::Plan("there is no catalog".into()))?;
    if let Some(schema) = catalog.schema(SCHEMA) {
        return Ok(schema);
    }
    let schema: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
    catalog.register_schema(SCHEMA, Arc::clone(&schema))?;
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray as _, datatypes::Int64Type};
    use datafusion::{
        execution::{memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
        prelude::SessionConfig,
    };

    use super::*;

    const SQL: &str = "WITH a AS (SELECT unnest(generate_series(CAST(1 AS BIGINT), CAST($n AS BIGINT))) AS x),
        b AS MATERIALIZED (SELECT x, x * 10 AS y FROM a),
        c AS MATERIALIZED (SELECT b.x, b.y + o.y AS z FROM b JOIN b o ON o.x = b.x)
        SELECT CAST(sum(c.z) + sum(b.y) + sum(a.x) AS BIGINT) AS s FROM c JOIN b ON b.x = c.x JOIN a ON a.x = b.x";

    fn values(n: i64) -> HashMap<String, ScalarValue> {
        HashMap::from([("n".to_owned(), ScalarValue::from(n))])
    }

    fn context(memory: usize) -> SessionContext {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)));
        SessionContext::new_with_config_rt(SessionConfig::new(), runtime.build_arc().expect("a runtime"))
    }

    #[tokio::test]
    async fn marked_expressions_are_run_once_and_the_query_is_planned_over_their_rows() {
        let context = context(1 << 30);
        let frame =
            plan(&context, SQL, values(100), |_| Ok(100), single_partition::FEW_EVENTS, None).await.expect("a plan");
        let spelled = frame.logical_plan().display_indent().to_string();
        assert_eq!(spelled.matches("Unnest:").count(), 1, "{spelled}");
        let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema(SCHEMA)).expect("a schema");
        assert!(schema.table_names().is_empty(), "the names were not removed");
        let held = context.runtime_env().memory_pool.reserved();
        assert!(held > 0, "the memory is not accounted for");
        let rows = frame.collect().await.expect("rows");
        let sum = rows.first().expect("a batch").column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!(sum, 5_050 * (20 + 10 + 1));
        assert_eq!(context.runtime_env().memory_pool.reserved(), 0, "the memory was not released");
    }

    #[tokio::test]
    async fn fails_if_the_rows_exceed_the_memory_limit() {
        let context = context(1 << 16);
        let error = plan(&context, SQL, values(1_000_000), |_| Ok(1_000_000), single_partition::FEW_EVENTS, None)
            .await
            .expect_err("too much");
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
