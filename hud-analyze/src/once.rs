//! What a query marks `AS MATERIALIZED` is worked out once, and the rest is planned over its rows.
//!
//! DataFusion 55 reads the mark and puts the text in the place of each name: what is named five times is planned,
//! optimized and run five times, and what is named by these 25 times. The views mark what is small and named often: frames,
//! what stacks are blamed on, threads, types of tasks. Of what reads streams of events the mark holds only while they are few:
//! millions would be read while the query is planned, where Ctrl-C in the shell does not reach it. `$few` tells the text
//! whether all marks hold, so that it can ask by name for what these rows refer to.
//!
//! Where such rows are a handful, `x IN (SELECT column FROM name)` becomes a list of numbers, by which whole segments are
//! passed over.

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

use crate::{serial, threads::threads};

/// The schema of rows that were worked out, while a query is planned.
const SCHEMA: &str = "materialized";

/// Rows up to which one thread answers sooner than several: dealing them out takes a third of the planning.
pub(crate) const FEW: u64 = 400_000;
/// The same for a part, as another one is worked out at the same time.
const ALONE: u64 = 1_000_000;

/// Numbers that are asked for by name.
const NAMED: usize = 256;

/// Streams of events that may be millions.
const STREAMS: [Table; 4] = [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes];

/// The only one of sqlparser's that knows the mark.
const DIALECT: Dialect = Dialect::PostgreSQL;

/// The parameter that tells whether all marks hold.
const ARE_FEW: &str = "few";

/// Plans `sql` with its parameters. What it marks is run at once, unless it reads `few` events or more of those that are
/// `within` the window, table by table.
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
    let alone = serial::alone(&state);
    let state = if rows < FEW { alone.clone() } else { state };
    let mut statement = parsed(&state, sql)?;
    let mut kept = Kept::default();
    if let Some((table, rows)) = computed {
        let name = kept.keep(context, Rows::given(rows, context)?)?;
        rename(&mut statement, table, &name);
    }
    let mut are_few = true;
    let mut to_run = Vec::new();
    if let Some(query) = query(&mut statement) {
        for place in 0..query.with.as_ref().map_or(0, |with| with.cte_tables.len()) {
            let Some(marked) = Marked::at(query, place) else { continue };
            let streams: BTreeSet<Table> = marked.tables().filter(|table| STREAMS.contains(table)).collect();
            if streams.is_empty() || streams.iter().map(|table| within(*table)).sum::<Result<u64>>()? < few {
                to_run.push(Part { place, name: marked.name().to_owned(), needed: marked.needed });
            } else {
                are_few = false;
            }
        }
    }
    values.insert(ARE_FEW.into(), are_few.into());
    let values = ParamValues::from(values);
    if let Some(query) = query(&mut statement) {
        let (running, known, kept) = (BTreeSet::new(), HashMap::new(), &mut kept);
        let work = Work { query, to_run, running, known, kept, context, alone: &alone, values: &values };
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

/// The statement, which is parsed once.
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

/// What is marked, being worked out: as much of it at a time as there are processors, as most of the time that few events
/// take goes into planning, which DataFusion does by one.
struct Work<'a> {
    query: &'a mut Query,
    /// What was not begun.
    to_run: Vec<Part>,
    /// Names of those that are running.
    running: BTreeSet<String>,
    known: HashMap<String, Vec<RecordBatch>>,
    kept: &'a mut Kept,
    context: &'a SessionContext,
    /// Its state, for one thread.
    alone: &'a SessionState,
    values: &'a ParamValues,
}

/// A part that is to be worked out.
struct Part {
    place: usize,
    name: String,
    /// All names that it reads from.
    needed: Vec<String>,
}

/// What became of a part, of this place and name.
type Done = (usize, String, thread::Result<Result<(Rows, Vec<RecordBatch>)>>);

impl Work<'_> {
    fn run_all(mut self, within: &impl Fn(Table) -> Result<u64>) -> Result<()> {
        let (alone, context, values) = (self.alone, self.context, self.values);
        let (tell, told) = channel::<Done>();
        thread::scope(|scope| {
            loop {
                while self.running.len() < threads()
                    && let Some(Part { place, name, .. }) = self.next()
                {
                    let Some(marked) = Marked::at(self.query, place) else { continue };
                    let events = marked.tables().filter(|table| table.expires()).map(within).sum::<Result<u64>>()?;
                    let statement = marked.by_itself();
                    let tell = tell.clone();
                    self.running.insert(name.clone());
                    // Our own thread belongs to a runtime already.
                    scope.spawn(move || {
                        let run = || {
                            let (mut builder, state) = match events < ALONE {
                                true => (Builder::new_current_thread(), alone.clone()),
                                false => (Builder::new_multi_thread(), context.state()),
                            };
                            let runtime = builder.worker_threads(threads()).build()?;
                            runtime.block_on(work_out(state, context, statement, values))
                        };
                        // Where nobody waits for it any more, another part has failed.
                        drop(tell.send((place, name, catch_unwind(AssertUnwindSafe(run)))));
                    });
                }
                if self.running.is_empty() {
                    return Ok(());
                }
                let Ok((place, name, done)) = told.recv() else { return Ok(()) };
                self.running.remove(&name);
                let (rows, batches) = done.unwrap_or_else(|panic| resume_unwind(panic))?;
                self.put(place, name, rows, batches)?;
            }
        })
    }

    /// What can be begun, of it that on which most of the others rest.
    fn next(&mut self) -> Option<Part> {
        let is_unfinished =
            |name: &String| self.running.contains(name) || self.to_run.iter().any(|part| part.name == *name);
        let is_ready = |(_, part): &(usize, &Part)| !part.needed.iter().any(is_unfinished);
        let rest_on = |part: &Part| self.to_run.iter().filter(|other| other.needed.contains(&part.name)).count();
        let parts = self.to_run.iter().enumerate().filter(is_ready);
        let (at, _) = parts.max_by_key(|(_, part)| (rest_on(part), Reverse(part.place)))?;
        Some(self.to_run.remove(at))
    }

    /// Puts rows in the place of what they are the answer to.
    fn put(&mut self, place: usize, name: String, rows: Rows, batches: Vec<RecordBatch>) -> Result<()> {
        // What joins with nothing is then not even planned.
        let none = if batches.iter().all(|batch| batch.num_rows() == 0) { " WHERE false" } else { "" };
        self.known.insert(name, batches);
        by_name(self.query, &self.known);
        let name = self.kept.keep(self.context, rows)?;
        let sql = format!("SELECT * FROM {SCHEMA}.{name}{none}");
        put(self.query, place, self.alone.sql_to_statement(&sql, &DIALECT)?);
        Ok(())
    }
}

/// Plans and runs a statement.
async fn work_out(
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

/// A common table expression that is to be worked out first.
struct Marked<'a> {
    with: &'a ast::With,
    cte: &'a ast::Cte,
    /// What it rests on, and all names that it reads from.
    before: Vec<&'a ast::Cte>,
    needed: Vec<String>,
}

impl<'a> Marked<'a> {
    /// The one at `place`, if it is marked.
    fn at(query: &'a Query, place: usize) -> Option<Self> {
        let with = query.with.as_ref()?;
        let cte = with.cte_tables.get(place)?;
        if cte.materialized != Some(CteAsMaterialized::Materialized) || with.recursive {
            return None;
        }
        let (before, needed) = rests_on(&cte.query, with.cte_tables.get(..place)?);
        Some(Marked { with, cte, before, needed })
    }

    fn name(&self) -> &str {
        &self.cte.alias.name.value
    }

    /// The tables that it reads, each once.
    fn tables(&self) -> impl Iterator<Item = Table> {
        self.needed.iter().filter_map(|name| Table::by_name(name)).collect::<BTreeSet<_>>().into_iter()
    }

    /// As a query.
    fn by_itself(&self) -> Statement {
        let mut alone = (*self.cte.query).clone();
        if !self.before.is_empty() && alone.with.is_none() {
            let cte_tables = self.before.iter().map(|cte| (*cte).clone()).collect();
            alone.with = Some(ast::With { cte_tables, ..self.with.clone() });
        }
        Statement::Statement(Box::new(ast::Statement::Query(Box::new(alone))))
    }
}

/// Puts the numbers themselves where a query asks for one of those in a column of what was worked out, or of several.
fn by_name(query: &mut Query, known: &HashMap<String, Vec<RecordBatch>>) {
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

/// The numbers that a query gives, each once, where all of it is `SELECT column FROM name`, or a union of such, and they
/// are few.
fn numbers(query: &ast::SetExpr, known: &HashMap<String, Vec<RecordBatch>>) -> Option<BTreeSet<i64>> {
    let select = match query {
        ast::SetExpr::Select(select) => select,
        ast::SetExpr::SetOperation { op: ast::SetOperator::Union, left, right, .. } => {
            let all = &numbers(left, known)? | &numbers(right, known)?;
            return (all.len() <= NAMED).then_some(all);
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
            if all.len() > NAMED {
                return None;
            }
        }
    }
    Some(all)
}

/// What a query rests on of what is listed before it, and all names that it reads from: whatever is listed is planned.
fn rests_on<'a>(query: &Query, listed: &'a [ast::Cte]) -> (Vec<&'a ast::Cte>, Vec<String>) {
    let mut needed = Vec::new();
    names(query, &mut needed);
    let mut rests_on = Vec::new();
    for other in listed.iter().rev() {
        if needed.contains(&other.alias.name.value) {
            names(&other.query, &mut needed);
            rests_on.insert(0, other);
        }
    }
    (rests_on, needed)
}

/// Leaves out what nothing rests on any more.
fn prune(query: &mut Query) {
    if let Some(mut with) = query.with.take() {
        with.cte_tables = rests_on(query, &with.cte_tables).0.into_iter().cloned().collect();
        query.with = Some(with).filter(|with| !with.cte_tables.is_empty());
    }
}

/// Names that a query reads from, without those of a schema.
fn names(query: &Query, into: &mut Vec<String>) {
    let _: ControlFlow<()> = visit_relations(query, |name| {
        if let [ast::ObjectNamePart::Identifier(name)] = name.0.as_slice() {
            into.push(name.value.clone());
        }
        ControlFlow::Continue(())
    });
}

/// Puts another query in the place of a common table expression.
fn put(query: &mut Query, place: usize, mut instead: Statement) {
    let cte = query.with.as_mut().and_then(|with| with.cte_tables.get_mut(place));
    if let (Some(cte), Some(instead)) = (cte, self::query(&mut instead)) {
        *cte.query = instead.clone();
    }
}

/// Rows that were worked out, within the memory that queries may take.
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

    /// Also gives them as they are.
    async fn of(frame: DataFrame, context: &SessionContext) -> Result<(Self, Vec<RecordBatch>)> {
        let held = MemoryConsumer::new("rows worked out once").register(&context.runtime_env().memory_pool);
        let mut batches = Vec::new();
        let mut stream = frame.execute_stream().await?;
        // Whether a column can be null, plans and rows do not always agree on.
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

/// Rows that have a name until the query is planned.
#[derive(Default)]
struct Kept {
    schema: Option<Arc<dyn SchemaProvider>>,
    names: Vec<String>,
}

impl Kept {
    fn keep(&mut self, context: &SessionContext, rows: Rows) -> Result<String> {
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

impl Drop for Kept {
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
    async fn what_is_marked_is_planned_over_its_rows() {
        let context = context(1 << 30);
        let frame = plan(&context, SQL, values(100), |_| Ok(100), FEW, None).await.expect("a plan");
        let spelled = frame.logical_plan().display_indent().to_string();
        assert_eq!(spelled.matches("Unnest:").count(), 1, "{spelled}");
        let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema(SCHEMA)).expect("a schema");
        assert!(schema.table_names().is_empty(), "names are left behind");
        let held = context.runtime_env().memory_pool.reserved();
        assert!(held > 0, "nothing is accounted for");
        let rows = frame.collect().await.expect("rows");
        let sum = rows.first().expect("a batch").column(0).as_primitive::<Int64Type>().value(0);
        assert_eq!(sum, 5_050 * (20 + 10 + 1));
        assert_eq!(context.runtime_env().memory_pool.reserved(), 0, "what is held outlives its query");
    }

    #[tokio::test]
    async fn rows_beyond_the_memory_are_an_error() {
        let context = context(1 << 16);
        let error = plan(&context, SQL, values(1_000_000), |_| Ok(1_000_000), FEW, None).await.expect_err("too much");
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
