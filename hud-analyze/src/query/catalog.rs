//! Sessions as a database: all tables of the format by name, and the views.
//!
//! A table without rows is empty, not missing, so that views need not check for recorded streams. The segments are listed once,
//! when the catalog is opened: rows that a recorder writes later are not seen. SQL can only read.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use datafusion::{
    common::ScalarValue,
    prelude::{DataFrame, SQLOptions, SessionContext},
};
use hud_common::session::Table;

use crate::{
    error::{Error, Result},
    query::{
        context::{self, Statements},
        opened::{OpenSessions, Settings, get_or_try_init},
        schema::{self, FrontSchema, VIEWS, ViewSchema, Views},
        segment_table::SegmentTable,
        session::Session,
        view::{Arguments, View},
        window::Window,
    },
};

/// Sessions as a database.
pub struct Catalog {
    opened: Arc<OpenSessions>,
    /// All sessions together, for SQL; views are planned for each session.
    context: OnceLock<SessionContext>,
}

impl Catalog {
    /// Opens the session or sessions at `path`: a session's folder, a store of sessions, an archive or a URL.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_all(&[path.to_path_buf()], &Settings::default())
    }

    /// Opens all sessions at these locations; recovers those whose recorder was killed.
    pub fn open_all(locations: &[PathBuf], settings: &Settings) -> Result<Self> {
        let opened = Arc::new(OpenSessions::open(locations, settings)?);
        Ok(Catalog { opened, context: OnceLock::new() })
    }

    pub(crate) fn opened(&self) -> &Arc<OpenSessions> {
        &self.opened
    }

    /// The sessions, in the order of their locations; those of a store by host and id.
    pub fn sessions(&self) -> &[Session] {
        self.opened.sessions()
    }

    /// Recoveries and losses, as text for the user.
    pub fn notices(&self) -> impl Iterator<Item = &str> {
        self.sessions().iter().flat_map(|session| session.notices().iter().map(String::as_str))
    }

    /// The start of the earliest session.
    pub fn start(&self) -> i64 {
        self.opened.start()
    }

    /// The time range of all sessions.
    pub async fn window(&self) -> Result<Window> {
        Window::of_all(&self.opened).await
    }

    /// The DataFusion context with all tables and views.
    pub fn context(&self) -> Result<&SessionContext> {
        get_or_try_init(&self.context, || whole(&self.opened))
    }

    /// Each session with a context of its own.
    pub(crate) fn each(&self) -> impl Iterator<Item = Result<(&Session, &SessionContext)>> {
        self.opened.each()
    }

    /// Plans a view over all sessions. The view takes those of `arguments` that its header lists.
    pub async fn plan(&self, view: &View, arguments: &Arguments) -> Result<DataFrame> {
        view.plan(&self.opened, arguments).await
    }

    /// Plans one statement. It may define views; it may not write files.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new().with_allow_dml(false);
        Ok(self.context()?.sql_with_options(sql, options).await?)
    }

    /// The first row of a statement's result, as scalars.
    pub async fn row(&self, sql: &str) -> Result<Vec<ScalarValue>> {
        let batches = match self.sql(sql).await?.collect().await {
            Ok(batches) => batches,
            Err(error) => return Err(self.explain(error.into())),
        };
        self.confirm()?;
        let Some(batch) = batches.iter().find(|b| b.num_rows() > 0) else {
            return Ok(Vec::new());
        };
        let row = batch.columns().iter().map(|c| ScalarValue::try_from_array(c, 0));
        Ok(row.collect::<Result<_, _>>()?)
    }

    /// Fails if a segment has disappeared or could not be read since the sessions were opened: then a result is incomplete.
    pub fn confirm(&self) -> Result<()> {
        if let Some(error) = self.opened.first_error() {
            return Err((&*error).into());
        }
        match self.sessions().iter().find_map(Session::missing_segment) {
            Some(segment) => Err(Error::Gone(segment.path.clone())),
            None => Ok(()),
        }
    }

    /// The cause of a failed query: if a segment could not be read, the error that names it.
    pub fn explain(&self, error: Error) -> Error {
        self.opened.explain(error)
    }
}

/// A context with the tables of all sessions together, a schema with the tables of each if there are several, and the views.
fn whole(opened: &Arc<OpenSessions>) -> Result<SessionContext> {
    let context = context::empty(opened.runtime(), Statements::Any);
    let missing = || Error::Query("there is no catalog".into());
    let catalog = context.catalog("datafusion").ok_or_else(missing)?;
    let views = Arc::new(Views::new(Arc::clone(opened)));
    catalog.register_schema("public", Arc::new(FrontSchema::new(Arc::clone(&views))))?;
    catalog.register_schema(VIEWS, Arc::new(ViewSchema(Arc::clone(&views))))?;
    let several = opened.sessions().len() > 1;
    for &table in Table::ALL {
        let segments = opened.sessions().iter().filter_map(|s| s.table(table)).cloned().collect();
        context.register_table(table.name(), Arc::new(SegmentTable::new(table, segments, several)))?;
    }
    if several {
        for each in opened.each() {
            let (session, context) = each?;
            let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
            catalog.register_schema(&session.manifest().id, schema.ok_or_else(missing)?)?;
        }
    }
    hud_functions::register(&context, &context::facts(opened.sessions())?)?;
    schema::register_functions(&context, &views);
    hud_functions::bounded::hold(&context, opened.settings().memory / 4)?;
    Ok(context)
}
