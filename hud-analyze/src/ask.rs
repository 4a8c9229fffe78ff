//! `sql`: the sessions as a database that the shell asks.

use std::{
    cell::RefCell,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    execution::context::SQLOptions,
    logical_expr::{AggregateUDF, ScalarUDF, WindowUDF},
    physical_plan::{
        ExecutionPlan, execute_stream,
        statistics::{StatisticsArgs, StatisticsContext},
    },
    sql::parser::{DFParserBuilder, Statement},
};
use futures::{FutureExt as _, TryStreamExt as _};
use hud_common::session::Table;
use hud_shell::{
    Column, Control, Database, Expanded, Function, FunctionKind, Input, Options, Outcome, Relation, RelationKind,
    Settings, ShellError, Summary,
};
use tokio::{runtime::Runtime, sync::oneshot, time};

use crate::{
    catalog::Catalog,
    cli::SqlArgs,
    error::{Error, Result},
    human,
    names::{self, VIEWS},
    output::{self, Rows, Shape},
    serial,
    view::{ALL, Unit},
};

/// How often the shell is told how far a statement is.
const TICK: Duration = Duration::from_millis(100);

/// Answers what the command line, files, standard input or a person at a terminal asks.
pub(crate) fn run(catalog: &Catalog, runtime: &Runtime, args: &SqlArgs) -> Result<Outcome> {
    let inputs: Vec<Input> = match (&args.command[..], &args.file[..]) {
        ([], []) => Vec::new(),
        (commands, files) => {
            let commands = commands.iter().cloned().map(Input::Sql);
            commands.chain(files.iter().cloned().map(Input::File)).collect()
        }
    };
    let settings = Settings { format: args.format, null: "-".into(), footer: inputs.is_empty(), ..Settings::default() };
    let options = Options { greeting: greeting(catalog), settings, ..Options::default() };
    let database = Asked { catalog, runtime, relations: RefCell::default() };
    hud_shell::run(&database, &inputs, options).map_err(|error| match error {
        error if error.is_cancelled() => Error::Cancelled,
        error => Error::Shell(error.line()),
    })
}

/// What a person is told at first.
fn greeting(catalog: &Catalog) -> String {
    match catalog.sessions() {
        [session] => {
            let manifest = session.manifest();
            let exe = manifest.exe.rsplit('/').next().unwrap_or_default();
            format!("{exe} on {}, {} UTC", manifest.host, human::date_time(manifest.start))
        }
        several => format!("{} sessions; `host` and `session` are columns of every table", several.len()),
    }
}

struct Asked<'a> {
    catalog: &'a Catalog,
    runtime: &'a Runtime,
    /// What does not change: the tables and the views.
    relations: RefCell<Vec<Relation>>,
}

impl Database for Asked<'_> {
    fn relations(&self) -> Vec<Relation> {
        let mut known = self.relations.borrow_mut();
        if known.is_empty() {
            known.extend(relations(self.catalog));
        }
        let mut all = known.clone();
        all.extend(self.defined(&known));
        all
    }

    fn functions(&self) -> Vec<Function> {
        functions(self.catalog)
    }

    fn run(
        &self,
        sql: &str,
        settings: &Settings,
        out: &mut dyn Write,
        control: &Control,
    ) -> hud_shell::Result<Summary> {
        let began = Instant::now();
        let (cancel, cancelled) = oneshot::channel();
        control.on_cancel(move || {
            let _ = cancel.send(());
        });
        let answered = self.runtime.block_on(async {
            tokio::select! {
                answered = self.answer(sql, settings, out, control) => answered.map_err(|e| ShellError::Query(e.to_string())),
                _ = cancelled => Err(ShellError::Cancelled),
            }
        })?;
        Ok(Summary { elapsed: began.elapsed(), ..answered })
    }
}

impl Asked<'_> {
    /// What the user has defined.
    fn defined(&self, known: &[Relation]) -> Vec<Relation> {
        let catalog = self.catalog.context().ok().and_then(|context| context.catalog("datafusion"));
        let schema = catalog.and_then(|catalog| catalog.schema("public"));
        let Some(schema) = schema else { return Vec::new() };
        let is_new = |name: &String| !known.iter().any(|known| known.schema.is_none() && known.name == *name);
        let new = schema.table_names().into_iter().filter(is_new);
        new.map(|name| {
            let table = schema.table(&name).now_or_never().and_then(|table| table.ok().flatten());
            let columns = table.map(|table| table.schema().fields().iter().map(|field| plain(field)).collect());
            let columns = columns.unwrap_or_default();
            Relation { schema: None, name, kind: RelationKind::View, doc: "defined here".into(), columns }
        })
        .collect()
    }

    async fn answer(&self, sql: &str, settings: &Settings, out: &mut dyn Write, control: &Control) -> Result<Summary> {
        let none = Summary::default();
        let mut rows = None;
        let mut truncated = false;
        for statement in parse(sql)? {
            control.set_phase("planning");
            let context = self.catalog.context()?;
            let plan = context.state().statement_to_plan(statement).await?;
            // A session is only read: no INSERT, no COPY … TO.
            SQLOptions::new().with_allow_dml(false).verify_plan(&plan).map_err(|_| Error::Sql {
                message: "this statement would write, and hud-analyze only reads".into(),
                hint: "use --format and redirect the output".into(),
            })?;
            let frame = context.execute_logical_plan(plan).await.map_err(|e| self.catalog.explain(e.into()))?;
            // A statement such as CREATE VIEW has no answer.
            if frame.schema().fields().is_empty() {
                continue;
            }
            let more = settings.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
            let frame = match more {
                Some(limit) => frame.limit(0, Some(limit.saturating_add(1)))?,
                None => frame,
            };
            let schema = Arc::clone(frame.schema().inner());
            let task = Arc::new(frame.task_ctx());
            let (state, plan) = frame.into_parts();
            let plan = serial::plan(&state, &plan).await.map_err(|e| self.catalog.explain(e.into()))?;
            let stream = execute_stream(Arc::clone(&plan), task).map_err(|e| self.catalog.explain(e.into()))?;
            let answer = Rows { schema, batches: Box::pin(stream.map_err(Error::from)) };
            let shape = Shape {
                limit: more,
                null: &settings.null,
                expanded: settings.expanded != Expanded::Off,
                width: settings.width,
                ..Shape::default()
            };
            control.set_phase("reading");
            control.set_total(expected(&plan));
            let write = output::write_rows(self.catalog, answer, settings.format, &shape, out);
            tokio::pin!(write);
            let mut ticks = time::interval(TICK);
            let written = loop {
                tokio::select! {
                    written = &mut write => break written?,
                    _ = ticks.tick() => control.set_read(read(&plan)),
                }
            };
            rows = Some(rows.unwrap_or(0) + written.rows);
            truncated |= written.has_more;
        }
        Ok(Summary { rows, truncated, ..none })
    }
}

fn parse(sql: &str) -> Result<Vec<Statement>> {
    let mut statements: Vec<_> = DFParserBuilder::new(sql).build()?.parse_statements()?.into();
    statements.iter_mut().for_each(names::tell_functions_from_tables);
    Ok(statements)
}

/// Rows that the scans of a plan have, as far as is known.
fn expected(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    leaves(plan, &|leaf| {
        let statistics = StatisticsContext::new().compute(leaf, &StatisticsArgs::new()).ok();
        statistics.and_then(|statistics| statistics.num_rows.get_value().copied()).unwrap_or(0)
    })
}

/// Rows that they have given so far.
fn read(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    leaves(plan, &|leaf| leaf.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0))
}

fn leaves(plan: &Arc<dyn ExecutionPlan>, of: &dyn Fn(&dyn ExecutionPlan) -> usize) -> u64 {
    let children = plan.children();
    if children.is_empty() {
        return u64::try_from(of(&**plan)).unwrap_or(0);
    }
    children.into_iter().map(|child| leaves(child, of)).fold(0, u64::saturating_add)
}

/// The tables and views that every session has.
fn relations(catalog: &Catalog) -> Vec<Relation> {
    let labels = if catalog.sessions().len() > 1 { crate::segments::LABELS.as_slice() } else { &[] };
    let label = |name: &&str| Column { name: (*name).into(), data_type: "text".into(), doc: "of the session".into() };
    let mut all: Vec<Relation> = Table::ALL
        .iter()
        .map(|table| {
            let own = table.columns().into_iter().map(|column| Column {
                name: column.name.into(),
                data_type: type_name(&column.data_type),
                doc: column.about,
            });
            Relation {
                schema: None,
                name: table.name().into(),
                kind: RelationKind::Table,
                doc: table.about(),
                columns: own.chain(labels.iter().map(label)).collect(),
            }
        })
        .collect();
    for view in ALL {
        let columns = view.header().map(|header| header.columns).unwrap_or_default();
        let own = columns.into_iter().map(|item| Column {
            name: item.name,
            data_type: unit_name(item.unit).into(),
            doc: item.about,
        });
        let relation = Relation {
            schema: Some(VIEWS.into()),
            name: view.name.into(),
            kind: RelationKind::View,
            doc: names::about(view).into(),
            columns: labels.iter().map(label).chain(own).collect(),
        };
        let is_free = Table::by_name(view.name).is_none();
        all.extend(is_free.then(|| Relation { schema: None, ..relation.clone() }));
        all.push(relation);
    }
    all
}

fn plain(field: &Field) -> Column {
    Column { name: field.name().clone(), data_type: type_name(field.data_type()), doc: String::new() }
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        other => other.to_string(),
    }
}

const fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Ns => "ns",
        Unit::EpochNs => "ns since the epoch",
        Unit::Share => "share",
        Unit::Bytes => "bytes",
        Unit::Count => "count",
        Unit::Id => "id",
        Unit::Text => "text",
        Unit::Flag => "boolean",
    }
}

/// hud's functions, the views as functions, and DataFusion's own.
fn functions(catalog: &Catalog) -> Vec<Function> {
    let mut all: Vec<Function> = hud_functions::catalog()
        .iter()
        .map(|doc| Function {
            name: doc.name.into(),
            signature: doc.signature.into(),
            kind: match doc.kind {
                hud_functions::FunctionKind::Scalar => FunctionKind::Scalar,
                hud_functions::FunctionKind::Aggregate => FunctionKind::Aggregate,
                hud_functions::FunctionKind::Table => FunctionKind::Table,
            },
            doc: doc.about.into(),
        })
        .collect();
    for view in ALL {
        let parameters = view.header().map(|header| header.parameters).unwrap_or_default();
        let parameters: Vec<_> = parameters.iter().map(|p| p.name.as_str()).collect();
        all.push(Function {
            name: view.name.into(),
            signature: format!("{}({})", view.name, parameters.join(", ")),
            kind: FunctionKind::Table,
            doc: names::about(view).into(),
        });
    }
    let Ok(context) = catalog.context() else { return all };
    let state = context.state();
    let known: std::collections::HashSet<String> = all.iter().map(|function| function.name.clone()).collect();
    let mut add = |name: &str, kind, doc: Option<&datafusion::logical_expr::Documentation>| {
        if !known.contains(name) {
            let signature = doc.map_or_else(|| format!("{name}(…)"), |doc| doc.syntax_example.clone());
            let doc = doc.and_then(|doc| doc.description.lines().next()).unwrap_or_default().to_owned();
            all.push(Function { name: name.into(), signature, kind, doc });
        }
    };
    for (name, function) in state.scalar_functions() {
        add(name, FunctionKind::Scalar, ScalarUDF::documentation(function));
    }
    for (name, function) in state.aggregate_functions() {
        add(name, FunctionKind::Aggregate, AggregateUDF::documentation(function));
    }
    for (name, function) in state.window_functions() {
        add(name, FunctionKind::Window, WindowUDF::documentation(function));
    }
    all
}
