//! Files outside a file system: the entries of an archive, the objects of an object store.

use std::{fmt, io, sync::Arc};

use hud_common::session::ReadAt;

/// Named files that are read by byte range.
pub(crate) trait Bucket: fmt::Debug + Send + Sync {
    /// The files' names, with `/` as separator, and their sizes in bytes.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Opens a file of this size.
    fn open(&self, name: &str, size: u64) -> io::Result<Arc<dyn ReadAt>>;
}
