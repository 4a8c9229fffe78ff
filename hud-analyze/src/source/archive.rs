//! Sessions in a zip archive. Their segments are stored without compression, and are read without unpacking.

use std::{collections::HashMap, fs::File, io, ops::Range, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use bytes::Bytes;
use hud_common::session::{self, ReadAt};
use zip::{CompressionMethod, ZipArchive};

use crate::{
    error::{Error, Result},
    source::bucket::Bucket,
};

/// Maximum number of entries of an archive: 100 M rows are 1,500 segments.
const MOST_ENTRIES: usize = 1_000_000;

/// An open archive.
#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    /// Offset and size of each entry, by name.
    entries: HashMap<String, (u64, u64)>,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
        let len = file.metadata().map_err(Error::io(format!("stat {}", path.display())))?.len();
        let no_session = |why: String| Error::from(session::Error::NotASession { path: path.to_path_buf(), why });
        let reader = io::BufReader::new(file.try_clone().map_err(Error::io(format!("read {}", path.display())))?);
        let mut archive = ZipArchive::new(reader)
            .map_err(|e| no_session(format!("it is neither a folder nor a zip archive ({e})")))?;
        if archive.len() > MOST_ENTRIES {
            return Err(no_session(format!("it has {} entries", archive.len())));
        }
        let mut entries = HashMap::with_capacity(archive.len());
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|e| no_session(e.to_string()))?;
            // No entry of a session has such a name. Nothing is unpacked, so it would do no harm.
            if !entry.is_file() || entry.enclosed_name().is_none() {
                continue;
            }
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                return Err(no_session(format!(
                    "its entry {} is compressed; unzip it and name the folder",
                    hud_common::clean(entry.name())
                )));
            }
            let start = entry.data_start().ok_or_else(|| no_session("its directory is incomplete".into()))?;
            if start.checked_add(entry.size()).is_none_or(|end| end > len) {
                return Err(no_session("it is truncated".into()));
            }
            entries.insert(entry.name().to_owned(), (start, entry.size()));
        }
        Ok(Archive { file: Arc::new(file), entries })
    }
}

impl Bucket for Archive {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.entries.iter().map(|(name, (_, size))| (name.clone(), *size)).collect())
    }

    fn open(&self, name: &str, size: u64) -> io::Result<Arc<dyn ReadAt>> {
        let (start, size) = self.entries.get(name).filter(|(_, len)| *len == size).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Part { file: Arc::clone(&self.file), start: *start, size: *size }))
    }
}

/// A part of a file.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    start: u64,
    size: u64,
}

impl ReadAt for Part {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let read = |range: &Range<u64>| {
            if range.start > range.end || range.end > self.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, self.start + range.start)?;
            Ok(Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }
}
