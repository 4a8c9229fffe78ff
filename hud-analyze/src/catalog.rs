//! Sessions as a database: every table of the format by its name, over a snapshot of their segments and logs.
//!
//! A table without rows is empty, not missing, so a view never has to ask what was recorded. A session whose recorder
//! was killed is recovered first, where we may write it. The snapshot is taken once, when the session is opened: what a
//! recorder writes later is not seen. Through SQL, only reading is possible.

use std::{
    num::NonZero,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    execution::{
        SessionStateBuilder,
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    optimizer::{
        Optimizer, OptimizerRule, eliminate_filter::EliminateFilter, propagate_empty_relation::PropagateEmptyRelation,
    },
    prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext},
};
use hud_common::session::{self, Manifest, Recovery, SessionDir, Table, recover, scan_verified};
use hud_functions::{NamesBuilder, SessionFacts, StackBatches, StackSource};
use object_store::memory::InMemory;
use url::Url;

use crate::{
    error::{Error, Result, one_line},
    human,
    names::{self, FrontSchema, VIEWS, ViewSchema, Views},
    origin::{self, Found},
    segments::{SegmentTable, Source, external},
    shelf::Shelf,
    snapshot::{self, Folders, Segment},
};

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was closed in order.
    Complete,
    /// A process is recording it.
    Recording,
    /// Its recorder was killed, and it was made whole.
    Recovered,
    /// Its recorder was killed, and it cannot be made whole; what its logs hold is read all the same.
    Killed,
}

impl State {
    /// One word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Recording => "recording",
            State::Recovered => "recovered",
            State::Killed => "killed",
        }
    }
}

/// A session at the moment at which it was opened.
pub struct Session {
    dir: SessionDir,
    manifest: Manifest,
    state: State,
    segments: Vec<Segment>,
    folders: Folders,
    notices: Vec<String>,
    shelf: Arc<Shelf>,
    sources: Vec<Arc<Source>>,
}

impl Session {
    fn open(found: Found) -> Result<Self> {
        let Found { dir, mut manifest } = found;
        let mut notices = Vec::new();
        let (state, segments, cuts, folders) = loop {
            let root = identity(&dir);
            if dir.is_folder() {
                manifest = Manifest::read(dir.path())?;
            }
            notices.clear();
            let state = open_state(&dir, &mut manifest, &mut notices)?;
            let folders = Folders::of(&dir);
            let (segments, cuts) = snapshot::take(&dir, &manifest)?;
            // What was listed may be of two folders, where compaction put another one in its place meanwhile.
            if identity(&dir) == root {
                break (state, segments, cuts, folders);
            }
        };
        // A frame that a recorder is writing is torn for a moment.
        let lost = cuts.iter().filter(|(_, cut)| state != State::Recording || !cut.is_torn);
        notices.extend(lost.map(|(path, cut)| snapshot::told(path, cut)));
        // An empty file has no footer, and is no segment.
        if let Some(segment) = segments.iter().find(|s| s.size == 0) {
            return Err(Error::Segment { path: segment.path.clone(), why: "it is empty".into() });
        }
        let shelf = Arc::<Shelf>::default();
        let labels = [manifest.host.clone(), manifest.id.clone()];
        let of = |table| segments.iter().filter(|s| s.table == table).cloned().collect();
        let source = |&table| Arc::new(Source::new(table, labels.clone(), of(table), Arc::clone(&shelf)));
        let sources = Table::ALL.iter().map(source).collect();
        Ok(Session { dir, manifest, state, segments, folders, notices, shelf, sources })
    }

    /// What was recorded, where, when and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its files.
    pub fn dir(&self) -> &SessionDir {
        &self.dir
    }

    /// How far it has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its segments, by table and number, as they were when the session was opened.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// A segment that has gone away since.
    fn gone(&self) -> Option<&Segment> {
        // One look at each folder instead of one at each of thousands of files.
        let segments = if self.folders.are_as_they_were() { &[] } else { self.segments.as_slice() };
        segments.iter().find(|segment| segment.is_gone())
    }

    /// About how many events of a table fall into a stretch of time.
    pub(crate) fn rows_within(&self, table: Table, from: i64, to: i64) -> Result<u64, DataFusionError> {
        self.source(table).map_or(Ok(0), |source| source.rows_within(from, to)).map_err(external)
    }

    /// A table's rows.
    pub(crate) fn source(&self, table: Table) -> Option<&Arc<Source>> {
        self.sources.iter().find(|source| source.table() == table)
    }
}

/// Which folder it is, whatever its name.
fn identity(dir: &SessionDir) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(dir.path()).ok().filter(|_| dir.is_folder())?;
    Some((metadata.dev(), metadata.ino()))
}

/// How queries are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Memory that they may take (bytes); past it they go on with files.
    pub memory: usize,
    /// Whether SQL may name files that are no part of the sessions.
    pub allow_files: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { memory: 1 << 30, allow_files: false }
    }
}

/// Opened sessions, one at least, each with a door to it alone, made when it is first asked for.
pub(crate) struct Opened {
    sessions: Vec<Session>,
    fronts: Vec<OnceLock<SessionContext>>,
    runtime: Arc<RuntimeEnv>,
    settings: Settings,
}

impl Opened {
    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = Result<(&Session, &SessionContext)>> {
        self.sessions.iter().zip(&self.fronts).map(|(session, front)| {
            let front = made(front, || self::front(&self.runtime, session))?;
            Ok((session, front))
        })
    }

    /// When the first of them began.
    pub(crate) fn start(&self) -> i64 {
        self.sessions.iter().map(|session| session.manifest.start).min().unwrap_or(0)
    }

    fn failure(&self) -> Option<Arc<session::Error>> {
        self.sessions.iter().find_map(|session| session.shelf.failure())
    }

    pub(crate) fn explain(&self, error: Error) -> Error {
        match (error, self.failure()) {
            (Error::Query(_), Some(failure)) => (&*failure).into(),
            (error @ Error::Query(_), None) => self.damaged().unwrap_or(error),
            (other, _) => other,
        }
    }

    /// The first segment that is what was written, but not what it should be. Looks at every one, so it is for queries
    /// that have failed.
    fn damaged(&self) -> Option<Error> {
        let sealed = self.sessions.iter().flat_map(Session::segments).filter(|s| !s.is_log());
        sealed.into_iter().find_map(|segment| {
            let columns: Vec<_> = segment.table.columns().iter().map(|c| c.name).collect();
            let scan = |file| scan_verified(segment.table, file, &columns, |_| Ok(()));
            let error = segment.open().and_then(scan).err()?;
            Some(match Error::from(&error) {
                Error::Segment { path, why } => Error::Segment { path, why: one_line(&why) },
                other => other,
            })
        })
    }
}

/// What a cell holds, or what `make` gives.
fn made(cell: &OnceLock<SessionContext>, make: impl FnOnce() -> Result<SessionContext>) -> Result<&SessionContext> {
    match cell.get() {
        Some(context) => Ok(context),
        None => make().map(|context| cell.get_or_init(|| context)),
    }
}

/// Sessions as a database.
pub struct Catalog {
    opened: Arc<Opened>,
    /// All sessions; views do without.
    whole: OnceLock<SessionContext>,
}

impl Catalog {
    /// Opens what lies at `path`: a session, a store of sessions, an archive, a URL.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_all(&[path.to_path_buf()], &Settings::default())
    }

    /// Opens all sessions that `places` stand for, and recovers those whose recorder was killed.
    pub fn open_all(places: &[PathBuf], settings: &Settings) -> Result<Self> {
        let mut sessions = Vec::new();
        for place in places {
            for found in origin::find(place)? {
                sessions.push(Session::open(found)?);
            }
        }
        let pool = FairSpillPool::new(settings.memory);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(pool, CONSUMERS)))
            .build_arc()?;
        if !settings.allow_files {
            // In place of the whole file system, which DataFusion registers. Segments are read without it.
            let files = Url::parse("file:///").map_err(|e| Error::Query(e.to_string()))?;
            runtime.register_object_store(&files, Arc::new(InMemory::new()));
        }
        let fronts = sessions.iter().map(|_| OnceLock::new()).collect();
        let settings = settings.clone();
        Ok(Self { opened: Arc::new(Opened { sessions, fronts, runtime, settings }), whole: OnceLock::new() })
    }

    pub(crate) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// The sessions, in the order in which they were named; those of a store by host and id.
    pub fn sessions(&self) -> &[Session] {
        self.opened.sessions()
    }

    /// What whoever opens them should know: what recovery did, what is lost.
    pub fn notices(&self) -> impl Iterator<Item = &str> {
        self.sessions().iter().flat_map(|session| session.notices.iter().map(String::as_str))
    }

    /// When the first of them began.
    pub fn start(&self) -> i64 {
        self.opened.start()
    }

    /// DataFusion's own door.
    pub fn context(&self) -> Result<&SessionContext> {
        made(&self.whole, || whole(&self.opened))
    }

    /// Each session with a door to it alone.
    pub(crate) fn each(&self) -> impl Iterator<Item = Result<(&Session, &SessionContext)>> {
        self.opened.each()
    }

    /// Plans one statement. It may define views of its own; it may not write to a file.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new().with_allow_dml(false);
        Ok(self.context()?.sql_with_options(sql, options).await?)
    }

    /// The single row that `sql` gives, as scalars.
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

    /// Makes sure that an answer is of the whole of its sessions: that no segment has gone away since they were opened.
    pub fn confirm(&self) -> Result<()> {
        if let Some(failure) = self.opened.failure() {
            return Err((&*failure).into());
        }
        match self.sessions().iter().find_map(Session::gone) {
            Some(segment) => Err(Error::Gone(segment.path.clone())),
            None => Ok(()),
        }
    }

    /// Why a query failed that was right: if a segment could not be read, that is why, and the error names it.
    pub fn explain(&self, error: Error) -> Error {
        self.opened.explain(error)
    }
}

/// Names that memory is told of when it runs out.
const CONSUMERS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(2);

/// Rules of the optimizer that make no view and hardly any query faster. Each goes through the whole plan, which for the
/// larger views takes it a millisecond.
const OF_LITTLE_USE: [&str; 7] = [
    "unions_to_filter",
    "eliminate_join",
    "eliminate_duplicated_expr",
    "filter_null_join_keys",
    "eliminate_group_by_constant",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
];

/// Rules for subqueries that no view has.
const OF_NO_VIEW: [&str; 3] = ["rewrite_set_comparison", "scalar_subquery_to_join", "decorrelate_lateral_join"];

/// A door without tables yet.
fn empty(runtime: &Arc<RuntimeEnv>, left_out: &[&str]) -> SessionContext {
    // What joins with nothing is left out before anything else is made of it.
    let first: [Arc<dyn OptimizerRule + Send + Sync>; 2] =
        [Arc::new(EliminateFilter::new()), Arc::new(PropagateEmptyRelation::new())];
    let rules = first.into_iter().chain(Optimizer::new().rules);
    let rules = rules.filter(|rule| !OF_LITTLE_USE.contains(&rule.name()) && !left_out.contains(&rule.name()));
    let state = SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features()
        .with_optimizer_rules(rules.collect())
        .build();
    SessionContext::new_with_state(state)
}

/// How queries are planned and run.
fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(true);
    let options = config.options_mut();
    // As the tables have them.
    options.sql_parser.map_string_types_to_utf8view = false;
    // Views say what comes first, and `SELECT … FROM hotspots LIMIT 3` means the three hottest.
    options.sql_parser.enable_subquery_sort_elimination = false;
    // What a condition leaves out is not even decoded.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // What a join's other side has: views join with names that nearly every row has, so asking each row costs more than it
    // saves.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// The tables of one session.
fn front(runtime: &Arc<RuntimeEnv>, session: &Session) -> Result<SessionContext> {
    let context = empty(runtime, &OF_NO_VIEW);
    for &table in Table::ALL {
        let source = session.source(table).cloned().into_iter().collect();
        context.register_table(table.name(), Arc::new(SegmentTable::new(table, source, false)))?;
    }
    hud_functions::register(&context, &facts(std::slice::from_ref(session))?)?;
    Ok(context)
}

/// What functions have to know of sessions.
fn facts(sessions: &[Session]) -> Result<SessionFacts> {
    let mut facts = SessionFacts { start: i64::MAX, end: i64::MIN, stacks: Arc::new(StackBatches::default()) };
    for session in sessions {
        facts.start = facts.start.min(session.manifest.start);
        let mut end = session.manifest.end;
        // Its recorder did not live to say so, or goes on.
        for table in [Table::Polls, Table::OffCpu, Table::Samples] {
            if session.manifest.end.is_none() {
                let keys = session.source(table).map(|source| source.keys()).transpose();
                let keys = keys.map_err(|error| Error::from(&*error))?.flatten();
                end = end.max(keys.map(|(_, last)| last.saturating_add(1)));
            }
        }
        facts.end = facts.end.max(end.unwrap_or(session.manifest.start));
    }
    if let [session] = sessions {
        facts.stacks = Arc::new(StackNames::of(session));
    }
    Ok(facts)
}

/// A session's stacks, frames and modules, for functions that name them. Of several sessions there are none: ids mean
/// nothing beyond one.
#[derive(Debug)]
struct StackNames(Vec<Arc<Source>>);

impl StackNames {
    fn of(session: &Session) -> Self {
        let tables = [Table::Stacks, Table::Frames, Table::Modules];
        StackNames(tables.into_iter().filter_map(|table| session.source(table).cloned()).collect())
    }
}

impl StackSource for StackNames {
    fn load(&self, names: &mut NamesBuilder) -> datafusion::error::Result<()> {
        for source in &self.0 {
            let table = source.table();
            let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            let mut failed = None;
            let read = source.scan(&columns, |batch| {
                let added = match table {
                    Table::Stacks => names.add_stacks(batch),
                    Table::Frames => names.add_frames(batch),
                    _ => names.add_modules(batch),
                };
                failed = failed.take().or(added.err());
                Ok(())
            });
            read.map_err(|error| DataFusionError::External(Box::new(error)))?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

/// The tables of all sessions, those of each by itself where there are several, and the views.
fn whole(opened: &Arc<Opened>) -> Result<SessionContext> {
    let context = empty(&opened.runtime, &[]);
    let missing = || Error::Query("there is no catalog".into());
    let catalog = context.catalog("datafusion").ok_or_else(missing)?;
    let views = Arc::new(Views::new(Arc::clone(opened)));
    catalog.register_schema("public", Arc::new(FrontSchema::new(Arc::clone(&views))))?;
    catalog.register_schema(VIEWS, Arc::new(ViewSchema(Arc::clone(&views))))?;
    let several = opened.sessions().len() > 1;
    for &table in Table::ALL {
        let sources = opened.sessions().iter().filter_map(|s| s.source(table)).cloned().collect();
        context.register_table(table.name(), Arc::new(SegmentTable::new(table, sources, several)))?;
    }
    if several {
        for each in opened.each() {
            let (session, front) = each?;
            let schema = front.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
            catalog.register_schema(&session.manifest.id, schema.ok_or_else(missing)?)?;
        }
    }
    hud_functions::register(&context, &facts(opened.sessions())?)?;
    names::register_functions(&context, &views);
    hud_functions::bounded::hold(&context, opened.settings.memory / 4)?;
    Ok(context)
}

/// How far a session has come; makes it whole where its recorder was killed.
pub(crate) fn open_state(dir: &SessionDir, manifest: &mut Manifest, notices: &mut Vec<String>) -> Result<State> {
    if manifest.complete {
        return Ok(State::Complete);
    }
    if !dir.is_folder() {
        notices.push("it was not closed when it was put there: what was not sealed then is missing".into());
        return Ok(State::Killed);
    }
    // Who may not even look is not the one to recover it.
    if dir.is_locked().unwrap_or(false) {
        return Ok(State::Recording);
    }
    let recovered = recover(dir);
    *manifest = Manifest::read(dir.path())?;
    match recovered {
        Ok(Some(recovery)) => {
            notices.push(format!("its recorder was killed; {}", recovery_in_words(&recovery)));
            Ok(State::Recovered)
        }
        // Whole already, or closed in this moment.
        Ok(None) if manifest.complete => Ok(State::Complete),
        Ok(None) => Ok(State::Recovered),
        Err(session::Error::InUse(_)) => Ok(State::Recording),
        Err(error) => {
            let why = if snapshot::is_read_only(&error) { "not ours to write".into() } else { error.to_string() };
            notices
                .push(format!("its recorder was killed; it is read as it lies, because it cannot be recovered: {why}"));
            Ok(State::Killed)
        }
    }
}

/// What recovery found, on a line.
pub(crate) fn recovery_in_words(recovery: &Recovery) -> String {
    let mut words = format!("{} salvaged from its logs", many(recovery.rows_salvaged, "row"));
    if recovery.bytes_cut > 0 {
        words += &format!(", {} cut", many(recovery.bytes_cut, "byte"));
    }
    let unnamed = recovery.unnamed_stacks.saturating_add(recovery.unnamed_others);
    if unnamed > 0 {
        words += &format!(", {} without a name", many(unnamed, "stack"));
    }
    if !recovery.foreign_files.is_empty() {
        words += &format!(
            ", {} of another session, table or number set aside",
            many(recovery.foreign_files.len() as u64, "file")
        );
    }
    for (stream, lost) in &recovery.lost {
        words += &format!(", at least {} of {stream} lost", many(*lost, "event"));
    }
    words + &format!("; what ended after {} may be missing", human::instant(recovery.lost_after))
}

/// A count of things.
pub(crate) fn many(n: u64, what: &str) -> String {
    let count = human::count(i64::try_from(n).unwrap_or(i64::MAX));
    if n == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}
