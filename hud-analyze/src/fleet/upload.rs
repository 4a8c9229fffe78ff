//! Copies the sessions of a store to an object store.
//!
//! A session's files of a day are copied first, and its manifest last. A session whose manifest is there with the same content
//! is complete and not copied again, so an upload that was killed continues with the first session that lacks it. An object
//! is written whole, under the name that it has in the store: copying it again replaces it.

use std::{fs, io, path::Path};

use hud_common::session::Table;

use super::{
    publish::everything,
    store::{Content, Store},
};
use crate::{
    error::{Error, Result},
    source::object_store::Remote,
};

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uploaded {
    /// Sessions and days that were copied.
    pub(crate) sessions: u64,
    /// Those that were there already.
    pub(crate) known: u64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Those in compact files, which are not copied.
    pub(crate) compacted: u64,
}

/// Copies what is missing.
pub(crate) fn upload(store: &Store, url: &str) -> Result<Uploaded> {
    let remote = Remote::at(url)?;
    let mut done = Uploaded::default();
    let Content { sessions, compacted } = store.content(&everything())?;
    done.compacted = compacted.iter().map(|(_, of)| of.sessions.len() as u64).sum();
    let failed = |name: &str| Error::io(format!("upload {name} to {}", hud_common::clean(url)));
    for of in &sessions {
        // Read first: files that are published meanwhile are then copied with this manifest or by the next upload.
        let manifest = store.manifest(of);
        let text = read(&manifest)?;
        let name = store.name(&manifest);
        if remote.get(&name).map_err(failed(&name))?.is_some_and(|there| there == text) {
            done.known += 1;
            continue;
        }
        let parts = Table::ROLLUPS.into_iter().map(|table| store.part(table, of)).filter(|path| path.exists());
        for (path, bytes) in parts.map(|path| read(&path).map(|bytes| (path, bytes))).collect::<Result<Vec<_>>>()? {
            done.objects += 1;
            done.bytes += bytes.len() as u64;
            let name = store.name(&path);
            remote.put(&name, bytes.into()).map_err(failed(&name))?;
        }
        done.objects += 1;
        done.bytes += text.len() as u64;
        remote.put(&name, text.into()).map_err(failed(&name))?;
        done.sessions += 1;
    }
    Ok(done)
}

/// Maximum size of a session's file of a day.
const MOST: u64 = 1 << 30;

fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || match fs::metadata(path)?.len() {
        size if size > MOST => Err(io::Error::other("it is larger than 1 GiB")),
        _ => fs::read(path),
    };
    read().map_err(Error::io(format!("read {}", path.display())))
}
