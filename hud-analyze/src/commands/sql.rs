//! `sql`: runs statements, and connects the SQL shell to sessions.

use std::{
    cell::RefCell,
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, SchemaRef},
};
use clap::Args;
use datafusion::{
    logical_expr::{AggregateUDF, ScalarUDF, WindowUDF},
    physical_plan::{
        ExecutionPlan, execute_stream,
        statistics::{StatisticsArgs, StatisticsContext},
    },
    prelude::SessionContext,
    sql::parser::{DFParserBuilder, Statement},
};
use futures::{FutureExt as _, StreamExt as _, stream};
use hud_common::session::Table;
use hud_shell::{
    Column, Control, Database, Function, FunctionKind, Input, Options, Outcome, Relation, RelationKind, Settings,
    ShellError, Summary,
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time,
};

use crate::{
    commands::args::{QueryOptions, Sessions},
    error::{Error, Result},
    human,
    output::{
        table::Shape,
        write::{self, Rows},
    },
    query::{
        catalog::Catalog,
        header::Unit,
        limits,
        opened::{OpenSessions, Settings as QuerySettings},
        schema::{self, VIEWS},
        single_partition, units,
        view::ALL,
    },
};

/// Interval of progress updates.
const TICK: Duration = Duration::from_millis(100);
/// Minimum pause between progress updates, as a multiple of the time that one takes.
const LEAST_PAUSE: u32 = 50;

/// How long a cancelled statement may take to remove its temporary files.
const SHUTDOWN: Duration = Duration::from_millis(300);

/// Query sessions in SQL, or start an SQL shell
#[derive(Args, Debug)]
#[command(after_help = "\
Without -c and -f, statements that end with `;` are read from standard input. On a terminal this starts a shell: Tab
completes, `\\?` lists the commands, `\\d` lists tables and views, `\\d NAME` describes one, `\\df` lists functions.

Examples:
  hud-analyze sql SESSION -c 'SELECT task_id, max(dur) FROM polls GROUP BY 1 ORDER BY 2 DESC LIMIT 5'
  hud-analyze sql SESSION -c 'SELECT * FROM drops' --format csv
  hud-analyze sql SESSION -c \"SELECT * FROM blocking('+5s', '+6s')\"
  hud-analyze sql /var/lib/hud -c 'SELECT host, session, count(*) FROM polls GROUP BY 1, 2'
  hud-analyze sql SESSION -f report.sql
  echo 'SELECT count(*) FROM samples;' | hud-analyze sql SESSION")]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    sessions: Sessions,
    /// Statements to run; may be repeated
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    command: Vec<String>,
    /// File with statements to run; may be repeated
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    query: QueryOptions,
    /// Allow statements to read and write files outside the session (CREATE EXTERNAL TABLE, COPY TO)
    #[arg(long)]
    allow_files: bool,
}

pub(crate) fn run(args: &SqlArgs, runtime: Runtime) -> Result<()> {
    let catalog = args.sessions.open(&QuerySettings { memory: args.query.memory, allow_files: args.allow_files })?;
    let outcome = run_inputs(&catalog, &runtime, args);
    // Dropping the runtime would wait for a cancelled statement that computes without yielding.
    runtime.shutdown_timeout(SHUTDOWN);
    match outcome? {
        Outcome::Signal(signal) => Err(Error::Signal(signal)),
        Outcome::Done | Outcome::OutputClosed => Ok(()),
    }
}

/// Runs statements from the command line, files, standard input or a terminal.
fn run_inputs(catalog: &Catalog, runtime: &Runtime, args: &SqlArgs) -> Result<Outcome> {
    let inputs: Vec<Input> = match (&args.command[..], &args.file[..]) {
        ([], []) => Vec::new(),
        (commands, files) => {
            let commands = commands.iter().cloned().map(Input::Sql);
            commands.chain(files.iter().cloned().map(Input::File)).collect()
        }
    };
    let settings = Settings { format: args.query.format, footer: inputs.is_empty(), ..Settings::default() };
    let options = Options { greeting: greeting(catalog), settings };
    let database = Sql { catalog, runtime, relations: RefCell::default() };
    hud_shell::run(&database, &inputs, options).map_err(|error| match error {
        error if error.is_cancelled() => Error::Cancelled,
        error => Error::Shell(error.line()),
    })
}

/// The first line in an interactive shell.
fn greeting(catalog: &Catalog) -> String {
    match catalog.sessions() {
        [session] => {
            let manifest = session.manifest();
            let exe = manifest.exe.rsplit('/').next().unwrap_or_default();
            format!("{exe} on {}, {}", manifest.host, human::date_time(manifest.start))
        }
        several => format!("{} sessions; `host` and `session` are columns of every table", several.len()),
    }
}

/// Sessions as a database of the shell.
struct Sql<'a> {
    catalog: &'a Catalog,
    runtime: &'a Runtime,
    /// Tables and views of hud, which do not change.
    relations: RefCell<Vec<Relation>>,
}

impl Database for Sql<'_> {
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
        let (cancel, cancelled) = oneshot::channel();
        control.on_cancel(move || {
            let _ = cancel.send(());
        });
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = cancelled => Err(ShellError::Cancelled),
                answered = self.answer(sql, settings, out, control) => answered.map_err(|e| ShellError::Query(e.to_string())),
            }
        })
    }
}

impl Sql<'_> {
    /// Views and tables that the user has defined.
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
            Relation { schema: None, name, kind: RelationKind::View, doc: "defined in this shell".into(), columns }
        })
        .collect()
    }

    /// Writes the results of [`Work`]. The work itself runs on other threads, so that this one always notices a cancellation; then
    /// the work is aborted.
    async fn answer(&self, sql: &str, settings: &Settings, out: &mut dyn Write, control: &Control) -> Result<Summary> {
        let (sender, mut answers) = mpsc::channel(1);
        let work = Work {
            opened: Arc::clone(self.catalog.opened()),
            context: self.catalog.context()?.clone(),
            sql: sql.to_owned(),
            control: control.clone(),
            answers: sender,
        };
        let mut work = Working(self.runtime.spawn(work.run()));
        let mut summary = Summary::default();
        while let Some(Answer { schema, units, plan, mut batches }) = answers.recv().await {
            let batches = Box::pin(stream::poll_fn(move |cx| batches.poll_recv(cx)));
            let answer = Rows { schema, batches };
            let units = if settings.raw_times { Vec::new() } else { units };
            let Settings { expanded, width, .. } = *settings;
            let shape = Shape { units, null: "-", expanded, width, ..Shape::default() };
            let write = write::write_rows(self.catalog, answer, settings.format, &shape, out);
            tokio::pin!(write);
            let mut pause = TICK;
            let written = loop {
                tokio::select! {
                    written = &mut write => break written?,
                    () = time::sleep(pause) => {
                        let began = Instant::now();
                        control.set_read(read(&plan));
                        // A scan has 20 metrics for each open segment, and all are added up.
                        pause = TICK.max(began.elapsed().saturating_mul(LEAST_PAUSE));
                    }
                }
            };
            summary.rows = Some(summary.rows.unwrap_or(0) + written.rows);
        }
        match (&mut work.0).await {
            Ok(done) => done.map(|()| summary),
            Err(error) => Err(Error::Query(format!("it ended by a bug of hud or DataFusion: {error}"))),
        }
    }
}

/// Statements to run.
struct Work {
    opened: Arc<OpenSessions>,
    context: SessionContext,
    sql: String,
    control: Control,
    answers: mpsc::Sender<Answer>,
}

/// The result of a running statement.
struct Answer {
    schema: SchemaRef,
    units: Vec<Option<Unit>>,
    plan: Arc<dyn ExecutionPlan>,
    batches: mpsc::Receiver<Result<RecordBatch>>,
}

/// Work that is aborted when this is dropped.
struct Working(JoinHandle<Result<()>>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    /// Plans and runs each statement, and sends its result.
    async fn run(self) -> Result<()> {
        let settings = self.opened.settings();
        for statement in parse(&self.sql)? {
            self.control.set_phase("planning");
            let plan = self.context.state().statement_to_plan(statement).await?;
            limits::check_plan(&plan, settings.allow_files)?;
            let units = units::of(&plan);
            let frame = self.context.execute_logical_plan(plan).await.map_err(|e| self.opened.explain(e.into()))?;
            // A statement such as CREATE VIEW has no result.
            if frame.schema().fields().is_empty() {
                continue;
            }
            let schema = Arc::clone(frame.schema().inner());
            let task = Arc::new(frame.task_ctx());
            let (state, plan) = frame.into_parts();
            let plan = state.optimize(&plan)?;
            limits::check_constants(&plan, settings.memory)?;
            let plan = single_partition::plan(&state, &plan).await.map_err(|e| self.opened.explain(e.into()))?;
            let plan = limits::cancellable(plan, &self.control)?;
            let mut stream = execute_stream(Arc::clone(&plan), task).map_err(|e| self.opened.explain(e.into()))?;
            self.control.set_phase("reading");
            self.control.set_total(expected(&plan));
            let (sender, batches) = mpsc::channel(1);
            if self.answers.send(Answer { schema, units, plan, batches }).await.is_err() {
                return Ok(());
            }
            while let Some(batch) = stream.next().await {
                // A receiver that ends early has reported the error.
                if sender.send(batch.map_err(Error::from)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn parse(sql: &str) -> Result<Vec<Statement>> {
    limits::check_text(sql)?;
    let parsed = DFParserBuilder::new(sql).build().and_then(|mut parser| parser.parse_statements());
    let mut statements: Vec<_> = parsed.map_err(|error| Error::from(error).pointing_into(sql))?.into();
    statements.iter_mut().try_for_each(limits::check_statement)?;
    statements.iter_mut().for_each(schema::rename_view_calls);
    Ok(statements)
}

/// Estimated number of rows that a plan scans.
fn expected(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    leaves(plan, &|leaf| {
        let statistics = StatisticsContext::new().compute(leaf, &StatisticsArgs::new()).ok();
        statistics.and_then(|statistics| statistics.num_rows.get_value().copied()).unwrap_or(0)
    })
}

/// Number of rows scanned so far.
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
    let labels = if catalog.sessions().len() > 1 { crate::query::segment_table::LABELS.as_slice() } else { &[] };
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
            doc: schema::about(view).into(),
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
            doc: schema::about(view).into(),
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
