//! The segments of a snapshot as DataFusion reads them: by name and byte range, each byte checked before it is given.
//!
//! Only reading is possible, and only of what the snapshot lists, so that nothing changes under a query. What could not
//! be read is kept, for DataFusion's own errors do not name the file.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream, stream::BoxStream};
use hud_common::session::{self, VerifiedFile};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use crate::snapshot::Segment;

/// Files that stay open: an opened one keeps its footer, 20 kB, and there may be more segments than descriptors.
const OPEN: usize = 64;

/// The name of a segment in the store.
pub(crate) fn name(segment: &Segment) -> String {
    format!("{}/{:06}.parquet", segment.table.name(), segment.number)
}

/// A snapshot's segments.
#[derive(Debug)]
pub(crate) struct SessionStore {
    segments: BTreeMap<Path, Segment>,
    open: Mutex<VecDeque<VerifiedFile>>,
    failed: Mutex<Option<Arc<session::Error>>>,
}

impl SessionStore {
    pub(crate) fn new(segments: &[Segment]) -> Self {
        let segments = segments.iter().map(|s| (Path::from(name(s)), s.clone())).collect();
        SessionStore { segments, open: Mutex::default(), failed: Mutex::default() }
    }

    /// Why a read failed, if one has.
    pub(crate) fn failure(&self) -> Option<Arc<session::Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn segment(&self, location: &Path) -> Result<&Segment> {
        self.segments
            .get(location)
            .ok_or_else(|| Error::NotFound { path: location.to_string(), source: "it is no segment".into() })
    }

    fn read(&self, segment: &Segment, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(made) = &segment.made {
            let part = |range: &Range<u64>| {
                let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
                (start <= end && end <= made.len()).then(|| made.slice(start..end))
            };
            let parts: Option<_> = ranges.iter().map(part).collect();
            return parts.ok_or_else(|| generic("a range outside of a segment"));
        }
        let read = || -> session::Result<Vec<Bytes>> {
            let file = self.opened(segment)?;
            ranges.iter().map(|range| file.read(range.clone())).collect()
        };
        read().map_err(|error| {
            let error = Arc::new(error);
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Arc::clone(&error));
            generic(error)
        })
    }

    fn opened(&self, segment: &Segment) -> session::Result<VerifiedFile> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open().iter().find(|file| file.path() == segment.path) {
            return Ok(file.clone());
        }
        let file = VerifiedFile::open(&segment.path)?;
        if file.size() != segment.size {
            let why = "its size has changed since the session was opened".into();
            return Err(session::Error::Damaged { path: segment.path.clone(), why });
        }
        let mut files = open();
        files.push_front(file.clone());
        files.truncate(OPEN);
        Ok(file)
    }

    fn meta(location: &Path, segment: &Segment) -> ObjectMeta {
        ObjectMeta {
            location: location.clone(),
            last_modified: segment.modified.into(),
            size: segment.size,
            e_tag: None,
            version: None,
        }
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "session", source: source.into() }
}

fn read_only<T>() -> Result<T> {
    Err(Error::NotSupported { source: "a session is only read".into() })
}

impl fmt::Display for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session")
    }
}

#[async_trait]
impl ObjectStore for SessionStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let segment = self.segment(location)?;
        let meta = Self::meta(location, segment);
        let range = match &options.range {
            Some(range) => range.as_range(segment.size).map_err(generic)?,
            None => 0..segment.size,
        };
        let parts = if options.head { Vec::new() } else { self.read(segment, std::slice::from_ref(&range))? };
        let payload = GetResultPayload::Stream(stream::iter(parts.into_iter().map(Ok)).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(self.segment(location)?, ranges)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let under = |location: &Path| prefix.is_none_or(|prefix| location.prefix_matches(prefix));
        let found: Vec<_> =
            self.segments.iter().filter(|(l, _)| under(l)).map(|(l, segment)| Ok(Self::meta(l, segment))).collect();
        stream::iter(found).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotSupported { source: "a session's segments are known by name".into() })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only()
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        async { read_only() }.into_stream().boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only()
    }
}
