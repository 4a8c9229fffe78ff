//! Finds the sessions of a SESSION argument: a session folder, a store of sessions, an archive, or a URL.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hud_common::{
    files::folders_in,
    session::{self, Elsewhere, MANIFEST_FILE, Manifest, ReadAt, SessionDir, Table},
};

use crate::{
    error::{Error, Result},
    source::{archive::Archive, bucket::Bucket, object_store::Remote},
};

/// Maximum number of sessions in a store or an archive.
const MOST_SESSIONS: usize = 10_000;

/// A session's files and its manifest.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) dir: SessionDir,
    pub(crate) manifest: Manifest,
}

/// Finds the sessions at `path`: one, or those of a store by host and id.
pub(crate) fn find(path: &Path) -> Result<Vec<Found>> {
    if let Some(url) = path.to_str().filter(|text| text.contains("://")) {
        return in_bucket(path, &Arc::new(Remote::at(url)?));
    }
    if path.is_file() {
        return in_bucket(path, &Arc::new(Archive::open(path)?));
    }
    match SessionDir::open(path) {
        Ok((dir, manifest)) => Ok(vec![Found { dir, manifest }]),
        Err(error @ session::Error::NotASession { .. }) => match in_store(path)? {
            none if none.is_empty() => Err(error.into()),
            found => Ok(found),
        },
        Err(error) => Err(error.into()),
    }
}

/// The sessions at `ROOT/host=<host>/session=<id>/`.
fn in_store(root: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for host in folders(root, "host=")? {
        for session in folders(&host, "session=")? {
            match SessionDir::open(&session) {
                Ok((dir, manifest)) => found.push(Found { dir, manifest }),
                // It is being created or removed.
                Err(session::Error::NotASession { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    limited(found)
}

fn limited(found: Vec<Found>) -> Result<Vec<Found>> {
    if found.len() > MOST_SESSIONS {
        return Err(Error::Usage {
            message: format!("there are {} sessions, more than the maximum of {MOST_SESSIONS}", found.len()),
            hint: "name fewer of them".into(),
        });
    }
    Ok(found)
}

fn folders(parent: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    folders_in(parent, prefix).map_err(Error::io(format!("list {}", parent.display())))
}

/// The sessions of a bucket: one for each manifest.
fn in_bucket<B: Bucket + 'static>(path: &Path, bucket: &Arc<B>) -> Result<Vec<Found>> {
    let listed = bucket.list().map_err(Error::io(format!("list {}", path.display())))?;
    let names: BTreeMap<String, u64> = listed.into_iter().collect();
    let mut found = Vec::new();
    for (name, &size) in &names {
        let Some(root) = name.strip_suffix(MANIFEST_FILE).filter(|root| root.is_empty() || root.ends_with('/')) else {
            continue;
        };
        let session = match root.trim_end_matches('/') {
            "" => path.to_path_buf(),
            root => path.join(root),
        };
        let read = || {
            let file = bucket.open(name, size)?;
            let mut parts = file.read_ranges(std::slice::from_ref(&(0..size.min(MOST_MANIFEST))))?;
            parts.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let text = read().map_err(Error::io(format!("read {}", session.join(MANIFEST_FILE).display())))?;
        let manifest = Manifest::parse(&session, &text)?;
        let sealed = names
            .range(root.to_owned()..)
            .take_while(|(name, _)| name.starts_with(root))
            .filter_map(|(name, &size)| Some((segment(name.strip_prefix(root)?)?, size)))
            .collect();
        let files = BucketSession { bucket: Arc::clone(bucket), root: root.to_owned(), sealed };
        found.push(Found { dir: SessionDir::elsewhere(&session, Arc::new(files)).with_id(&manifest), manifest });
    }
    match found.is_empty() {
        true => Err(Error::Usage {
            message: format!("{} contains no session", path.display()),
            hint: "name a session folder, a store of sessions, a .hud.zip made by `hud-analyze export`, or an s3://, gs:// or az:// \
                   URL of these"
                .into(),
        }),
        false => limited(found),
    }
}

/// Maximum size of a manifest, plus one byte.
const MOST_MANIFEST: u64 = (16 << 20) + 1;

/// The table and number of `polls/000001.parquet`.
fn segment(name: &str) -> Option<(Table, u32)> {
    let (table, file) = name.split_once('/')?;
    let table = Table::ALL.iter().copied().find(|t| t.name() == table)?;
    let digits = file.strip_suffix(".parquet")?;
    let number: u32 = digits.parse().ok()?;
    (format!("{number:06}") == digits).then_some((table, number))
}

/// A session in a bucket.
#[derive(Debug)]
struct BucketSession<B> {
    bucket: Arc<B>,
    root: String,
    sealed: BTreeMap<(Table, u32), u64>,
}

impl<B: Bucket> Elsewhere for BucketSession<B> {
    fn sealed(&self, table: Table) -> Vec<u32> {
        self.sealed.range((table, 0)..=(table, u32::MAX)).map(|((_, number), _)| *number).collect()
    }

    fn open(&self, table: Table, number: u32) -> io::Result<Arc<dyn ReadAt>> {
        let size = *self.sealed.get(&(table, number)).ok_or(io::ErrorKind::NotFound)?;
        self.bucket.open(&format!("{}{}/{number:06}.parquet", self.root, table.name()), size)
    }
}
