//! Searches files for tokio, without reading their structure.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use memchr::memmem;

use super::{
    process::{Mapping, Process},
    tokio_symbols::version_in,
};

/// Bytes of a file that are searched.
const MOST_BYTES: u64 = 512 << 20;
/// Bytes that are read at a time.
pub(super) const PIECE: usize = 1 << 20;
/// Bytes that are searched twice: more than a text that lies across two pieces.
const OVERLAP: usize = 64;
/// A smaller file has no tokio in it.
const LEAST_BYTES: u64 = 128 << 10;
/// Shared libraries of one process that are searched.
const MOST_LIBRARIES: usize = 1000;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// By the paths of tokio's sources, if there are any.
    pub(crate) version: Option<String>,
}

/// The device and inode by which a file is known again.
pub(crate) type FileKey = (u64, u64);

/// Opens a file to be searched. At a path may be a FIFO without a writer.
pub(crate) fn open(path: &Path) -> Option<(fs::File, FileKey)> {
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok().filter(|m| m.is_file() && m.len() >= LEAST_BYTES)?;
    Some((file, (metadata.dev(), metadata.ino())))
}

/// Searches a file for tokio.
pub(crate) fn search(file: fs::File) -> Option<Found> {
    let workers = [memmem::Finder::new(b"tokio-rt-worker"), memmem::Finder::new(b"tokio-runtime-worker")];
    let mut is_tokio = false;
    let version = in_pieces(file, |piece| {
        is_tokio |= workers.iter().any(|name| name.find(piece).is_some());
        version_in(piece)
    });
    let version = version.ok()?;
    (is_tokio || version.is_some()).then_some(Found { version })
}

/// Reads a file in pieces that overlap by more than a text that is searched, until `search` finds something. It is read, not
/// mapped, as its owner may truncate it meanwhile.
pub(super) fn in_pieces<T>(file: impl io::Read, mut search: impl FnMut(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let mut file = file.take(MOST_BYTES);
    let mut buffer = Vec::with_capacity(PIECE + OVERLAP);
    loop {
        let kept = buffer.len().min(OVERLAP);
        buffer.drain(..buffer.len() - kept);
        if file.by_ref().take(PIECE as u64).read_to_end(&mut buffer)? == 0 {
            return Ok(None);
        }
        if let Some(found) = search(&buffer) {
            return Ok(Some(found));
        }
    }
}

/// A mapping with code of each shared library of a process.
pub(crate) fn libraries(process: &Process) -> io::Result<Vec<Mapping>> {
    let mappings = process.mappings().map_err(io::Error::other)?;
    let mut found: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        let is_file = mapping.path.starts_with('/') && mapping.file.1 != 0 && Path::new(&mapping.path) != process.exe;
        if is_file && found.iter().all(|of| of.file != mapping.file) && found.len() < MOST_LIBRARIES {
            found.push(mapping);
        }
    }
    Ok(found)
}

/// The shared libraries of a process that contain tokio.
pub(crate) fn libraries_with_tokio(process: &Process) -> Vec<Mapping> {
    let mut libraries = libraries(process).unwrap_or_default();
    libraries.retain(|library| open(&process.mapped_file(library)).and_then(|(file, _)| search(file)).is_some());
    libraries
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Seek as _, Write as _};

    use super::*;

    #[test]
    fn a_version_is_found_wherever_it_lies() {
        for at in [0, PIECE - 12, PIECE - 5, PIECE, 3 * PIECE] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![b'x'; at]).unwrap();
            file.write_all(b"registry/src/tokio-1.47.1/src/runtime/mod.rs").unwrap();
            file.rewind().unwrap();
            assert_eq!(search(file), Some(Found { version: Some("1.47.1".into()) }), "at {at}");
        }
    }

    #[test]
    fn a_binary_without_sources_is_known_by_its_threads_name() {
        let nameless = Some(Found { version: None });
        for (text, expected) in [("tokio-rt-worker", nameless), ("/tokio-util-0.7.1/", None), ("/tokio-1.9", None)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            assert_eq!(search(file), expected, "{text}");
        }
    }
}
