//! The sessions that a command or a shell queries, with a DataFusion context for each.

use std::{
    num::NonZero,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use datafusion::{
    execution::{
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::SessionContext,
};
use hud_common::session::{self, scan_verified};
use object_store::memory::InMemory;
use url::Url;

use crate::{
    error::{Error, Result, one_line},
    query::{context, session::Session},
    source::location,
};

/// Memory for queries, in bytes, by default.
pub(crate) const MEMORY: usize = 1 << 30;

/// Consumers of memory that DataFusion lists when memory runs out.
const CONSUMERS: NonZero<usize> = NonZero::<usize>::MIN.saturating_add(2);

/// Settings of all queries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Memory that queries may use, in bytes; beyond it they spill to temporary files.
    pub memory: usize,
    /// Whether SQL may read and write files outside the sessions.
    pub allow_files: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { memory: MEMORY, allow_files: false }
    }
}

/// Opened sessions, at least one, each with a context of its own, which is made at first use.
pub(crate) struct OpenSessions {
    sessions: Vec<Session>,
    contexts: Vec<OnceLock<SessionContext>>,
    runtime: Arc<RuntimeEnv>,
    settings: Settings,
}

impl OpenSessions {
    /// Opens all sessions at these locations; recovers those whose recorder was killed.
    pub(crate) fn open(locations: &[PathBuf], settings: &Settings) -> Result<Self> {
        let mut sessions = Vec::new();
        for location in locations {
            for found in location::find(location)? {
                sessions.push(Session::open(found)?);
            }
        }
        let pool = FairSpillPool::new(settings.memory);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(pool, CONSUMERS)))
            .build_arc()?;
        if !settings.allow_files {
            // Replaces the file system, which DataFusion registers. Segments are read without it.
            let files = Url::parse("file:///").map_err(|e| Error::Query(e.to_string()))?;
            runtime.register_object_store(&files, Arc::new(InMemory::new()));
        }
        let contexts = sessions.iter().map(|_| OnceLock::new()).collect();
        Ok(OpenSessions { sessions, contexts, runtime, settings: settings.clone() })
    }

    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn runtime(&self) -> &Arc<RuntimeEnv> {
        &self.runtime
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = Result<(&Session, &SessionContext)>> {
        self.sessions.iter().zip(&self.contexts).map(|(session, context)| {
            let context = get_or_try_init(context, || context::of_session(&self.runtime, session))?;
            Ok((session, context))
        })
    }

    /// The start of the earliest session.
    pub(crate) fn start(&self) -> i64 {
        self.sessions.iter().map(|session| session.manifest().start).min().unwrap_or(0)
    }

    /// The first error of a segment that could not be read.
    pub(crate) fn first_error(&self) -> Option<Arc<session::Error>> {
        self.sessions.iter().find_map(Session::first_error)
    }

    /// The cause of a failed query: if a segment could not be read, the error that names it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (error, self.first_error()) {
            (Error::Query(_), Some(cause)) => (&*cause).into(),
            (error @ Error::Query(_), None) => self.invalid_segment().unwrap_or(error),
            (other, _) => other,
        }
    }

    /// The first segment whose checksums match but whose rows do not decode. It reads all segments, so it is called after a
    /// query has failed only.
    fn invalid_segment(&self) -> Option<Error> {
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

/// `OnceLock::get_or_try_init`, which is not stable yet (rust-lang/rust#109737).
pub(crate) fn get_or_try_init<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => make().map(|value| cell.get_or_init(|| value)),
    }
}
