//! Names in SQL: the sessions' tables, views that the user defines, and hud's views.
//!
//! ```text
//! polls, off_cpu, …             the tables; over several sessions with columns `host` and `session`
//! views.hotspots, hotspots      a view with default parameters; the short name unless a table has it
//! hotspots('+5s', '+6s', …)     a view with parameters, in the order of its header
//! "<session>".polls             a table of one of several sessions
//! ```
//! A view is planned when a statement references it.

use std::{
    collections::BTreeSet,
    fmt,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    thread,
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::Schema,
    catalog::{
        MemorySchemaProvider, SchemaProvider, TableFunctionArgs, TableFunctionImpl, TableProvider, view::ViewTable,
    },
    common::{DFSchema, ScalarValue, plan_err},
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, Expr},
    prelude::SessionContext,
    sql::{
        parser::Statement,
        sqlparser::ast::{self, VisitMut as _, VisitorMut},
    },
};

use crate::{
    error::Error,
    human::parse_duration,
    query::{
        defaults,
        header::{Item, Unit},
        opened::OpenSessions,
        view::{ALL, Arguments, View},
        window::{Moment, Window},
    },
};

/// The schema of the views.
pub(crate) const VIEWS: &str = "views";

/// The views over open sessions.
pub(crate) struct Views {
    opened: Arc<OpenSessions>,
    whole: OnceLock<Window>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Views")
    }
}

impl Views {
    pub(crate) fn new(opened: Arc<OpenSessions>) -> Self {
        Views { opened, whole: OnceLock::new() }
    }

    async fn whole(&self) -> Result<Window> {
        if let Some(whole) = self.whole.get() {
            return Ok(*whole);
        }
        let whole = Window::of_all(&self.opened).await.map_err(outer)?;
        Ok(*self.whole.get_or_init(|| whole))
    }

    /// A view as a table. `given` are its parameters in the order of its header; a missing or null one has its default.
    async fn table(&self, view: &View, given: &[ScalarValue]) -> Result<Arc<dyn TableProvider>> {
        let whole = self.whole().await?;
        let header = view.header().map_err(outer)?;
        if given.len() > header.parameters.len() {
            let names: Vec<_> = header.parameters.iter().map(|p| p.name.as_str()).collect();
            return plan_err!("{}() takes at most {} arguments: {}", view.name, names.len(), names.join(", "));
        }
        let start = self.opened.start();
        let values: Vec<_> = header
            .parameters
            .iter()
            .enumerate()
            .map(|(place, parameter)| match given.get(place).filter(|value| !value.is_null()) {
                Some(value) => argument(view, parameter, value, whole, start).map(Some),
                None => Ok(None),
            })
            .collect::<Result<_>>()?;
        let bound = |name: &str| {
            let place = header.parameters.iter().position(|p| p.name == name)?;
            match values.get(place)?.as_ref()? {
                ScalarValue::Int64(value) => *value,
                _ => None,
            }
        };
        let window = Window { from: bound("from").unwrap_or(whole.from), to: bound("to").unwrap_or(whole.to) };
        let mut arguments = Arguments::default();
        for (parameter, value) in header.parameters.iter().zip(values) {
            arguments.set(&parameter.name, value.unwrap_or_else(|| defaults::of(parameter, window)));
        }
        let frame = view.plan(&self.opened, &arguments).await.map_err(outer)?;
        Ok(Arc::new(ViewTable::new(frame.into_unoptimized_plan(), Some(view.sql.to_owned()))))
    }
}

fn view_of(name: &str) -> Option<&'static View> {
    ALL.iter().find(|view| view.name == name)
}

/// An error of hud as one of DataFusion.
fn outer(error: Error) -> DataFusionError {
    match error {
        Error::Sql { message, .. } => DataFusionError::Plan(message),
        other => DataFusionError::External(Box::new(other)),
    }
}

/// The value of an argument: a number, a boolean, or a time or duration as text.
fn argument(view: &View, parameter: &Item, value: &ScalarValue, whole: Window, start: i64) -> Result<ScalarValue> {
    let wrong = |why: String| plan_err!("{} of {}() cannot be {value}: {why}", parameter.name, view.name);
    if let Some(text) = value.try_as_str().flatten() {
        let parsed = match parameter.unit {
            Unit::EpochNs => text.parse::<Moment>().map(|moment| whole.at(start, moment)),
            Unit::Ns => parse_duration(text),
            _ => Err("it must be a number".to_owned()),
        };
        return match parsed {
            Ok(ns) => Ok(ScalarValue::Int64(Some(ns))),
            Err(why) => wrong(why),
        };
    }
    let wanted = match parameter.unit {
        Unit::Flag => datafusion::arrow::datatypes::DataType::Boolean,
        _ => datafusion::arrow::datatypes::DataType::Int64,
    };
    value.cast_to(&wanted).or_else(|error| wrong(error.strip_backtrace()))
}

/// The schema with the views only.
#[derive(Debug)]
pub(crate) struct ViewSchema(pub(crate) Arc<Views>);

#[async_trait]
impl SchemaProvider for ViewSchema {
    fn table_names(&self) -> Vec<String> {
        ALL.iter().map(|view| view.name.to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match view_of(name) {
            Some(view) => self.0.table(view, &[]).await.map(Some),
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        view_of(name).is_some()
    }
}

/// The default schema: tables, the user's views, then hud's views.
#[derive(Debug)]
pub(crate) struct FrontSchema {
    tables: MemorySchemaProvider,
    views: Arc<Views>,
}

impl FrontSchema {
    pub(crate) fn new(views: Arc<Views>) -> Self {
        FrontSchema { tables: MemorySchemaProvider::new(), views }
    }
}

#[async_trait]
impl SchemaProvider for FrontSchema {
    fn table_names(&self) -> Vec<String> {
        let views = ALL.iter().map(|view| view.name.to_owned());
        let names: BTreeSet<_> = self.tables.table_names().into_iter().chain(views).collect();
        names.into_iter().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.tables.table(name).await? {
            return Ok(Some(table));
        }
        match view_of(name) {
            Some(view) => self.views.table(view, &[]).await.map(Some),
            None => Ok(None),
        }
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        self.tables.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.tables.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table_exist(name) || view_of(name).is_some()
    }
}

/// A view as a table function.
#[derive(Debug)]
struct ViewFunction {
    view: &'static View,
    views: Arc<Views>,
}

/// Registers each view as a table function.
pub(crate) fn register_functions(context: &SessionContext, views: &Arc<Views>) {
    for view in ALL {
        let function = Arc::new(ViewFunction { view, views: Arc::clone(views) });
        context.register_udtf(&function_of(view), Arc::clone(&function) as Arc<dyn TableFunctionImpl>);
        context.register_udtf(view.name, function);
    }
}

/// The view of a relation in a plan: a table, or a call of a table function, whose name ends with `()`.
pub(crate) fn view_named(relation: &str) -> Option<&'static View> {
    let name = relation.strip_suffix("()").unwrap_or(relation);
    view_of(name).or_else(|| view_of(name.strip_suffix("_of")?))
}

/// A name that a view has as a function, and not as a table.
fn function_of(view: &View) -> String {
    format!("{}_of", view.name)
}

/// Renames calls of views to names that only functions have. For each name in a statement DataFusion 55 first looks up a
/// table, for table functions too, and would plan the view with default parameters in vain.
pub(crate) fn rename_view_calls(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => {
            let _: ControlFlow<()> = statement.visit(&mut Calls);
        }
        Statement::Explain(explain) => rename_view_calls(&mut explain.statement),
        _ => {}
    }
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Table { name, args: Some(_), .. } = factor
            && let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_mut_slice()
            && let Some(view) = view_of(&match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_ascii_lowercase(),
            })
        {
            *ident = ast::Ident::new(function_of(view));
        }
        ControlFlow::Continue(())
    }
}

impl TableFunctionImpl for ViewFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let given = args.exprs().iter().map(|expr| constant(expr, args.session())).collect::<Result<Vec<_>>>()?;
        // Planning awaits nothing except the search for a session's end. This thread may belong to a runtime.
        thread::scope(|scope| {
            let table = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime
                    .map_err(|e| DataFusionError::External(Box::new(e)))?
                    .block_on(self.views.table(self.view, &given))
            });
            table.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The value of an expression without columns.
fn constant(expr: &Expr, session: &dyn datafusion::catalog::Session) -> Result<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Ok(value.clone());
    }
    let schema = Arc::new(Schema::empty());
    let physical = session.create_physical_expr(expr.clone(), &DFSchema::empty())?;
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let row = datafusion::arrow::array::RecordBatch::try_new_with_options(schema, vec![], &options)?;
    match physical.evaluate(&row)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0),
    }
}

/// A view's description: the first line of its header.
pub(crate) fn about(view: &View) -> &'static str {
    let first = view.sql.lines().next().unwrap_or_default();
    first.strip_prefix("-- ").and_then(|line| line.split_once(": ")).map_or(first, |(_, about)| about)
}
