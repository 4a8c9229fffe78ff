//! Sessions in an object store: `s3://`, `gs://`, `az://`, with credentials from the environment (`AWS_…`, `GOOGLE_…`,
//! `AZURE_…`).
//!
//! Requests run on a runtime of their own, so that any thread may block on them. The ranges that a query reads of a segment
//! are combined into one request or a few.

use std::{
    io,
    ops::Range,
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use hud_common::session::ReadAt;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use tokio::runtime::Runtime;
use url::Url;

use crate::{
    error::{Error, Result},
    source::bucket::Bucket,
};

/// Maximum number of objects under one URL.
const MOST_OBJECTS: usize = 1_000_000;

/// The objects under a URL.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    requests: Arc<Requests>,
}

/// The runtime of requests. It may be dropped on a thread of another runtime, where blocking is not allowed.
#[derive(Debug)]
struct Requests(Option<Runtime>);

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Remote {
    pub(crate) fn at(url: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::Usage {
            message: format!("cannot read {}: {why}", hud_common::clean(url)),
            hint: "URLs are s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH, with credentials in the environment \
                   (AWS_ACCESS_KEY_ID and so on)"
                .into(),
        }
        };
        let parsed = Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
            })
            .filter(|(name, _)| ["aws_", "google_", "azure_"].iter().any(|of| name.starts_with(of)));
        let (store, prefix) = object_store::parse_url_opts(&parsed, environment).map_err(|e| wrong(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("hud-requests")
            .enable_all()
            .build()
            .map_err(Error::io("start the runtime"))?;
        Ok(Remote { store: store.into(), prefix, requests: Arc::new(Requests(Some(runtime))) })
    }

    /// The object of a name; `None` if there is none.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        match self.wait(async move { store.get(&path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an object: whole, or not at all. Failed requests are repeated with growing delays and jitter, for three minutes
    /// at most.
    pub(crate) fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move { store.put(&path, bytes.into()).await }).map(drop)
    }

    fn path(&self, name: &str) -> Path {
        // Names of a store are escaped already: `Path::join` would escape their `%` and `=` again.
        let path = if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(&path).unwrap_or_else(|_| path.split('/').collect())
    }

    /// Blocks until the runtime has completed `response`.
    fn wait<T: Send + 'static>(
        &self,
        response: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let runtime = self.requests.0.as_ref().ok_or_else(|| io::Error::other("the runtime has ended"))?;
        runtime.spawn(async move {
            let _ = sender.send(response.await);
        });
        receiver.recv().map_err(io::Error::other)?.map_err(|error| match error {
            object_store::Error::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
            error => io::Error::other(error),
        })
    }
}

impl Bucket for Remote {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let objects = self.wait(async move {
            let mut all = Vec::new();
            let mut listed = store.list(Some(&prefix));
            while let Some(object) = listed.try_next().await? {
                if all.len() == MOST_OBJECTS {
                    let source = format!("it contains more than {MOST_OBJECTS} objects").into();
                    return Err(object_store::Error::Generic { store: "session", source });
                }
                all.push(object);
            }
            Ok(all)
        })?;
        let name = |path: &Path| {
            let parts: Vec<_> = path.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        Ok(objects.into_iter().filter_map(|object| Some((name(&object.location)?, object.size))).collect())
    }

    fn open(&self, name: &str, size: u64) -> io::Result<Arc<dyn ReadAt>> {
        let path = name.split('/').fold(self.prefix.clone(), |path, part| path.join(part));
        Ok(Arc::new(Object { remote: self.clone(), path, size }))
    }
}

/// One object.
#[derive(Debug)]
struct Object {
    remote: Remote,
    path: Path,
    size: u64,
}

impl ReadAt for Object {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let (store, path, ranges) = (Arc::clone(&self.remote.store), self.path.clone(), ranges.to_vec());
        let expected: Vec<u64> = ranges.iter().map(|range| range.end.saturating_sub(range.start)).collect();
        let read = self.remote.wait(async move { store.get_ranges(&path, &ranges).await })?;
        let whole = read.len() == expected.len()
            && read.iter().zip(&expected).all(|(bytes, expected)| bytes.len() as u64 == *expected);
        if whole { Ok(read) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
