//! Checksums of sealed segments: no byte of one is believed before its checksum was held against it.
//!
//! Parquet's own are per page, optional, and not written by parquet-rs. So the footer's key-value metadata, which other
//! engines pass over, carries two: `hud.blocks`, the length of the data pages (bytes `0..data_end` of the file), a
//! colon, and the CRC32 of each 64 KiB block of them; `hud.tail`, the CRC32 of everything after (indexes, footer),
//! computed with its own eight digits as zeros. Both are required. Blocks are checked as they are read, so opening a
//! segment costs its tail only.

use std::{
    format,
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    string::{String, ToString as _},
    sync::Arc,
    vec,
    vec::Vec,
};

use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::error::{Error, Result};

/// Bytes under one checksum.
const BLOCK: u64 = 64 << 10;
/// Indexes and footer of a segment of 256 k rows take 20 kB.
const MAX_TAIL: u64 = 64 << 20;
/// Key and value, as the footer (Thrift's compact protocol) spells a string of eight bytes twice.
const TAIL_KEY: &[u8] = b"\x18\x08hud.tail\x18\x08";
const BLOCKS_KEY: &[u8] = b"\x18\x0ahud.blocks\x18";
const MAGIC: &[u8] = b"PAR1";

pub(super) const TAIL: &str = "hud.tail";
pub(super) const BLOCKS: &str = "hud.blocks";
/// What the tail's own checksum is while it is computed.
pub(super) const UNKNOWN: &str = "00000000";

/// The value of `hud.blocks` for a segment whose data pages are `data`.
pub(super) fn blocks(data: &[u8]) -> String {
    let mut text = format!("{}:", data.len());
    for block in data.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX)) {
        text.push_str(&format!("{:08x}", crc32fast::hash(block)));
    }
    text
}

/// Puts the checksum of `tail` into it. `None` where it has no place for it.
pub(super) fn sign(tail: &mut [u8]) -> Option<()> {
    let at = place(tail)?;
    let crc = format!("{:08x}", tail_crc(tail, &at)?);
    tail.get_mut(at)?.copy_from_slice(crc.as_bytes());
    Some(())
}

/// Where the eight digits of the tail's checksum are.
fn place(tail: &[u8]) -> Option<Range<usize>> {
    let start = find_last(tail, TAIL_KEY)?;
    (start + UNKNOWN.len() <= tail.len()).then_some(start..start + UNKNOWN.len())
}

fn tail_crc(tail: &[u8], at: &Range<usize>) -> Option<u32> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(tail.get(..at.start)?);
    crc.update(UNKNOWN.as_bytes());
    crc.update(tail.get(at.end..)?);
    Some(crc.finalize())
}

/// The offset just past the last `needle`.
fn find_last(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).rposition(|w| w == needle).map(|at| at + needle.len())
}

/// The length and the checksums that `hud.blocks` in a footer gives.
fn parse_blocks(footer: &[u8]) -> Option<(u64, Vec<u32>)> {
    let mut rest = footer.get(find_last(footer, BLOCKS_KEY)?..)?;
    // The value's length: a varint.
    let mut len = 0;
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (data_end, sums) = str::from_utf8(rest.get(..len)?).ok()?.split_once(':')?;
    let data_end: u64 = data_end.parse().ok()?;
    let sums: Vec<u32> = sums
        .as_bytes()
        .chunks(8)
        .map(|digits| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    (data_end.div_ceil(BLOCK) == sums.len() as u64).then_some((data_end, sums))
}

/// A sealed segment, each byte of which is checked before it is given out.
#[derive(Clone, Debug)]
pub struct VerifiedFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    len: u64,
    blocks: Vec<u32>,
    data_end: u64,
    tail: Bytes,
}

impl VerifiedFile {
    /// Opens a segment and checks its tail.
    pub fn open(path: &Path) -> Result<Self> {
        let file = super::layout::open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("stat", path))?.len();
        let damaged = |why: &str| Error::Damaged { path: path.into(), why: why.into() };
        let read = |range: Range<u64>| {
            let size = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, range.start).map_err(Error::io("read", path)).map(|()| bytes)
        };
        if len < 12 {
            return Err(damaged(if len == 0 { "it is empty" } else { "it is too short to be a segment" }));
        }
        let end = read(len - 8..len)?;
        let Some((size, magic)) = end.split_at_checked(4).filter(|(_, magic)| *magic == MAGIC) else {
            return Err(damaged("it is cut short, or no Parquet file"));
        };
        debug_assert_eq!(magic, MAGIC);
        let footer_len = size.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let footer_start = (len - 8).checked_sub(footer_len).filter(|s| *s >= 4 && len - s <= MAX_TAIL);
        let footer = read(footer_start.ok_or_else(|| damaged("its footer's length is not possible"))?..len)?;
        let (data_end, blocks) =
            parse_blocks(&footer).ok_or_else(|| damaged("its footer has no checksums (hud.blocks)"))?;
        if footer_start.is_none_or(|start| data_end > start) || len - data_end > MAX_TAIL {
            return Err(damaged("its footer's checksums (hud.blocks) do not fit its length"));
        }
        let tail = read(data_end..len)?;
        let at = place(&tail).ok_or_else(|| damaged("its footer has no checksum (hud.tail)"))?;
        let crc = tail_crc(&tail, &at).map(|crc| format!("{crc:08x}"));
        if crc.as_deref().map(str::as_bytes) != tail.get(at) {
            return Err(damaged("the checksum of its footer does not match"));
        }
        Ok(Self(Arc::new(Inner { path: path.into(), file, len, blocks, data_end, tail: tail.into() })))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.0.len
    }

    /// Reads a part of it.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let inner = &*self.0;
        let outside = || self.damaged(format!("it has no bytes {}..{}", range.start, range.end));
        if range.start > range.end || range.end > inner.len {
            return Err(outside());
        }
        let in_tail = |at: u64| usize::try_from(at.saturating_sub(inner.data_end)).map_err(|_| outside());
        if range.start >= inner.data_end {
            return Ok(inner.tail.slice(in_tail(range.start)?..in_tail(range.end)?));
        }
        let from = range.start / BLOCK * BLOCK;
        let to = range.end.div_ceil(BLOCK).saturating_mul(BLOCK).min(inner.data_end);
        let mut bytes = vec![0; usize::try_from(to - from).map_err(|_| outside())?];
        inner.file.read_exact_at(&mut bytes, from).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it became shorter while it was read".into()),
            _ => Error::Io { action: "read", path: inner.path.clone(), source: e },
        })?;
        self.check(from, &bytes)?;
        bytes.extend_from_slice(inner.tail.get(..in_tail(range.end)?).unwrap_or_default());
        let skip = usize::try_from(range.start - from).map_err(|_| outside())?;
        let len = usize::try_from(range.end - range.start).map_err(|_| outside())?;
        Ok(Bytes::from(bytes).slice(skip..skip + len))
    }

    /// Reads all of it and checks it.
    pub fn check_all(&self) -> Result<()> {
        let mut at = 0;
        while at < self.0.data_end {
            let next = (at + 16 * BLOCK).min(self.0.data_end);
            self.read(at..next)?;
            at = next;
        }
        Ok(())
    }

    /// Checks whole blocks, of which the first begins at `from`.
    fn check(&self, from: u64, bytes: &[u8]) -> Result<()> {
        let first = usize::try_from(from / BLOCK).unwrap_or(usize::MAX);
        let sums = self.0.blocks.get(first..).unwrap_or_default();
        for (index, block) in bytes.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX)).enumerate() {
            if sums.get(index) != Some(&crc32fast::hash(block)) {
                let at = from + index as u64 * BLOCK;
                return Err(
                    self.damaged(format!("the checksum of its bytes {at}..{} does not match", at + block.len() as u64))
                );
            }
        }
        Ok(())
    }

    fn damaged(&self, why: String) -> Error {
        Error::Damaged { path: self.0.path.clone(), why }
    }
}

impl Length for VerifiedFile {
    fn len(&self) -> u64 {
        self.0.len
    }
}

impl ChunkReader for VerifiedFile {
    type T = BufReader<Checked>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::with_capacity(8 << 10, Checked { file: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        self.read(start..end).map_err(|e| ParquetError::External(e.into()))
    }
}

/// Reads a [`VerifiedFile`] from a place on.
#[derive(Debug)]
pub struct Checked {
    file: VerifiedFile,
    at: u64,
}

impl Read for Checked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(buf.len() as u64).min(self.file.size());
        let bytes = self.file.read(self.at.min(end)..end).map_err(io::Error::other)?;
        let Some(out) = buf.get_mut(..bytes.len()) else { return Ok(0) };
        out.copy_from_slice(&bytes);
        self.at = end;
        Ok(bytes.len())
    }
}

/// A reader of a sealed segment that gives no row before its checksum was held against it.
pub fn verified_reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<VerifiedFile>> {
    let file = VerifiedFile::open(path)?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| Error::Damaged { path: path.into(), why: e.to_string() })
}
