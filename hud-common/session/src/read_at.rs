//! Bytes of an immutable file at offsets: on disk, inside an archive, at an object store.

use std::{fmt, fs::File, io, ops::Range, slice};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{pread, retry_on_intr},
};

/// A source of the bytes of an immutable file.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// The bytes of each range. [`io::ErrorKind::UnexpectedEof`] if a range exceeds the file.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>>;
}

/// A file on a disk.
#[derive(Debug)]
pub(super) struct OnDisk {
    file: File,
    len: u64,
}

impl OnDisk {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(OnDisk { file, len })
    }
}

impl ReadAt for OnDisk {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let read = |range: &Range<u64>| {
            let size = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
            // Not zeroed first: that took half as long as the read.
            let mut bytes = Vec::with_capacity(size);
            while bytes.len() < size {
                let at = range.start + bytes.len() as u64;
                if retry_on_intr(|| pread(&self.file, spare_capacity(&mut bytes), at))? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            bytes.truncate(size);
            Ok(Bytes::from(bytes))
        };
        ranges.iter().map(read).collect()
    }
}

pub(super) fn read_one(file: &dyn ReadAt, range: Range<u64>) -> io::Result<Bytes> {
    let mut parts = file.read_ranges(slice::from_ref(&range))?;
    parts.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let part = |range: &Range<u64>| {
            let (from, to) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
            self.get(from..to).map(|_| self.slice(from..to))
        };
        ranges.iter().map(|range| part(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())).collect()
    }
}
