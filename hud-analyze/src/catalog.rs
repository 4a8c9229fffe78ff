//! A session as a database: every table of the format by its name, over a snapshot of its segments and logs.
//!
//! A table without rows is empty, not missing, so a view never has to ask what was recorded. A session whose recorder
//! was killed is recovered first, where we may write it. The snapshot is taken once, when the session is opened: what a
//! recorder writes later is not seen. Through SQL, only reading is possible.

use std::{path::Path, sync::Arc};

use datafusion::{
    catalog::MemTable,
    common::ScalarValue,
    datasource::{
        TableProvider,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    execution::runtime_env::RuntimeEnvBuilder,
    prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext, col},
};
use hud_common::session::{self, Manifest, Recovery, SessionDir, Table, recover, scan_segment};
use url::Url;

use crate::{
    error::{Error, Result, one_line},
    human,
    snapshot::{self, Segment},
    store::{self, SessionStore},
};

/// Where the segments are, to DataFusion.
const ROOT: &str = "hud://session/";

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

/// An opened session.
pub struct Catalog {
    dir: SessionDir,
    manifest: Manifest,
    state: State,
    segments: Vec<Segment>,
    notices: Vec<String>,
    store: Arc<SessionStore>,
    context: SessionContext,
}

impl Catalog {
    /// Opens the session at `path`, and recovers it where its recorder was killed.
    pub fn open(path: &Path) -> Result<Self> {
        let (dir, mut manifest) = SessionDir::open(path)?;
        let mut notices = Vec::new();
        let state = open_state(&dir, &mut manifest, &mut notices)?;
        let (segments, cuts) = snapshot::take(&dir, &manifest)?;
        // A frame that a recorder is writing is torn for a moment.
        let lost = cuts.iter().filter(|(_, cut)| state != State::Recording || !cut.is_torn);
        notices.extend(lost.map(|(path, cut)| snapshot::told(path, cut)));

        // Listings are cached for ever by default, and every session has the same names.
        let runtime = RuntimeEnvBuilder::new().with_object_list_cache_limit(0).build_arc()?;
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config_rt(config, runtime);
        let store = Arc::new(SessionStore::new(&segments));
        let root = Url::parse(ROOT).map_err(|e| Error::Query(e.to_string()))?;
        context.register_object_store(&root, Arc::<SessionStore>::clone(&store));
        for &table in Table::ALL {
            let of_table: Vec<_> = segments.iter().filter(|s| s.table == table).collect();
            context.register_table(table.name(), provider(table, &of_table)?)?;
        }
        Ok(Self { dir, manifest, state, segments, notices, store, context })
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

    /// What whoever opens it should know: what recovery did, what is lost.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Its segments, by table and number, as they were when the session was opened.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// DataFusion's own door.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Plans one statement. It may define views of its own; it may not write to a file.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new().with_allow_dml(false);
        Ok(self.context.sql_with_options(sql, options).await?)
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

    /// Makes sure that an answer is of the whole session: DataFusion passes over a segment that has gone away since the
    /// session was opened.
    pub fn confirm(&self) -> Result<()> {
        if let Some(failure) = self.store.failure() {
            return Err((&*failure).into());
        }
        match self.segments.iter().find(|s| !s.is_log() && !s.path.exists()) {
            Some(segment) => Err(Error::Gone(segment.path.clone())),
            None => Ok(()),
        }
    }

    /// Why a query failed that was right: if a segment could not be read, that is why, and the error names it.
    pub fn explain(&self, error: Error) -> Error {
        match (error, self.store.failure()) {
            (Error::Query(_), Some(failure)) => (&*failure).into(),
            (error @ Error::Query(_), None) => self.damaged().unwrap_or(error),
            (other, _) => other,
        }
    }

    /// The first segment that is what was written, but not what it should be. Looks at every one, so it is for queries
    /// that have failed.
    fn damaged(&self) -> Option<Error> {
        self.segments.iter().filter(|s| !s.is_log()).find_map(|segment| {
            let columns: Vec<_> = segment.table.columns().iter().map(|c| c.name).collect();
            let error = scan_segment(segment.table, &segment.path, &columns, |_| Ok(())).err()?;
            Some(match Error::from(&error) {
                Error::Segment { path, why } => Error::Segment { path, why: one_line(&why) },
                other => other,
            })
        })
    }
}

/// How far a session has come; makes it whole where its recorder was killed.
pub(crate) fn open_state(dir: &SessionDir, manifest: &mut Manifest, notices: &mut Vec<String>) -> Result<State> {
    if manifest.complete {
        return Ok(State::Complete);
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

fn provider(table: Table, segments: &[&Segment]) -> Result<Arc<dyn TableProvider>> {
    if segments.is_empty() {
        return Ok(Arc::new(MemTable::try_new(table.schema(), vec![vec![]])?));
    }
    // DataFusion passes over an empty file without a word.
    if let Some(segment) = segments.iter().find(|s| s.size == 0) {
        return Err(Error::Segment { path: segment.path.clone(), why: "it is empty".into() });
    }
    let urls = segments
        .iter()
        .map(|s| ListingTableUrl::parse(format!("{ROOT}{}", store::name(s))))
        .collect::<datafusion::error::Result<_>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_sort_order(vec![vec![col(table.key()).sort(true, false)]]);
    let config =
        ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(table.schema());
    Ok(Arc::new(ListingTable::try_new(config)?))
}
