//! Checksums of sealed segments: no byte of one is used before it is verified.
//!
//! Parquet's own checksums are per page, optional, and not written by parquet-rs. So the footer's key-value metadata, which
//! other engines ignore, has two: `hud.blocks`, the length of the data pages (bytes `0..data_end` of the file), a colon, and
//! the CRC32 of each 64 KiB block of them; `hud.tail`, the CRC32 of everything after (indexes, footer), computed with its
//! own eight digits as zeros. Both are required. A third entry, `hud.place`, identifies session, table and number. Blocks
//! are verified as they are read, so opening a segment costs its tail only.

use std::{
    io::{self, BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use bytes::Bytes;
use hud_files::clean;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::{
        metadata::{FileMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader},
        reader::{ChunkReader, Length},
    },
};

use super::{
    SessionDir, Table,
    error::{Error, Result},
    fs,
    read_at::{OnDisk, ReadAt, read_one},
};

/// Bytes under one checksum.
const BLOCK: u64 = 64 << 10;
/// Size of the first read. Indexes and footer of a segment of 256 k rows take 20 kB, so one read is usually enough.
const NEAR_END: u64 = 32 << 10;
const MAX_TAIL: u64 = 64 << 20;
/// Key and value, as the footer (Thrift's compact protocol) spells a string of eight bytes twice.
const TAIL_KEY: &[u8] = b"\x18\x08hud.tail\x18\x08";
const BLOCKS_KEY: &[u8] = b"\x18\x0ahud.blocks\x18";
const MAGIC: &[u8; 4] = b"PAR1";

/// As [`TAIL_KEY`], up to the value's length.
const PLACE_KEY: &[u8] = b"\x18\x09hud.place\x18";

/// Key of a file's place: `TABLE/NUMBER/SESSION-ID`.
pub(super) const PLACE: &str = "hud.place";
pub(super) const TAIL: &str = "hud.tail";
pub(super) const BLOCKS: &str = "hud.blocks";
/// The tail's own checksum while it is computed.
pub(super) const UNKNOWN: &str = "00000000";

/// The value of `hud.blocks` for a segment whose data pages are `data`.
pub(super) fn blocks(data: &[u8]) -> String {
    let mut text = format!("{}:", data.len());
    for block in data.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX)) {
        text.push_str(&format!("{:08x}", crc32fast::hash(block)));
    }
    text
}

/// Writes the checksum of `tail` into it. `None` if it has no place for it.
pub(super) fn sign(tail: &mut [u8]) -> Option<()> {
    let at = place(tail)?;
    let crc = format!("{:08x}", tail_crc(tail, &at)?);
    tail.get_mut(at)?.copy_from_slice(crc.as_bytes());
    Some(())
}

/// The position of the eight digits of the tail's checksum.
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
    memchr::memmem::rfind(hay, needle).map(|at| at + needle.len())
}

/// The last value of a key in a footer. `key` includes the bytes up to the value's length.
fn value<'a>(footer: &'a [u8], key: &[u8]) -> Option<&'a str> {
    let mut rest = footer.get(find_last(footer, key)?..)?;
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
    str::from_utf8(rest.get(..len)?).ok()
}

/// The length and the checksums in a footer's `hud.blocks`.
fn parse_blocks(footer: &[u8]) -> Option<(u64, Vec<u32>)> {
    let (data_end, sums) = value(footer, BLOCKS_KEY)?.split_once(':')?;
    let data_end: u64 = data_end.parse().ok()?;
    let sums: Vec<u32> = sums
        .as_bytes()
        .chunks(8)
        .map(|digits| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    (data_end.div_ceil(BLOCK) == sums.len() as u64).then_some((data_end, sums))
}

/// A sealed segment. Each byte is verified before it is returned.
#[derive(Clone, Debug)]
pub struct VerifiedFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Arc<dyn ReadAt>,
    len: u64,
    blocks: Vec<u32>,
    data_end: u64,
    tail: Bytes,
}

impl VerifiedFile {
    /// Opens a segment and checks its tail.
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::open(path).map_err(Error::io("open", path))?;
        Self::over(Arc::new(OnDisk::new(file).map_err(Error::io("stat", path))?), path)
    }

    /// Takes an open segment and checks its tail; errors name it `path`.
    pub fn over(file: Arc<dyn ReadAt>, path: &Path) -> Result<Self> {
        let len = file.size();
        let damaged = |why: &str| Error::Damaged { path: path.into(), why: why.into() };
        if len < 12 {
            return Err(damaged(if len == 0 { "it is empty" } else { "it is too short to be a segment" }));
        }
        // Most tails are shorter: one read is enough.
        let near = len.saturating_sub(NEAR_END);
        let end = read_one(&*file, near..len).map_err(Error::io("read", path))?;
        let read = |from: u64| match from.checked_sub(near).and_then(|skip| usize::try_from(skip).ok()) {
            Some(skip) if skip <= end.len() => Ok(end.slice(skip..)),
            _ => read_one(&*file, from..len).map_err(Error::io("read", path)),
        };
        let Some((rest, magic)) = end.split_last_chunk::<4>().filter(|(_, magic)| **magic == *MAGIC) else {
            return Err(damaged("it is cut short, or no Parquet file"));
        };
        debug_assert_eq!(magic, MAGIC);
        let size = rest.last_chunk::<4>().ok_or_else(|| damaged("it is cut short, or no Parquet file"))?;
        let footer_start =
            (len - 8).checked_sub(u64::from(u32::from_le_bytes(*size))).filter(|s| *s >= 4 && len - s <= MAX_TAIL);
        let footer = read(footer_start.ok_or_else(|| damaged("its footer's length is not possible"))?)?;
        let (data_end, blocks) =
            parse_blocks(&footer).ok_or_else(|| damaged("its footer has no checksums (hud.blocks)"))?;
        if footer_start.is_none_or(|start| data_end > start) || len - data_end > MAX_TAIL {
            return Err(damaged("its footer's checksums (hud.blocks) do not fit its length"));
        }
        let tail = read(data_end)?;
        let at = place(&tail).ok_or_else(|| damaged("its footer has no checksum (hud.tail)"))?;
        let crc = tail_crc(&tail, &at).map(|crc| format!("{crc:08x}"));
        if crc.as_deref().map(str::as_bytes) != tail.get(at) {
            return Err(damaged("the checksum of its footer does not match"));
        }
        Ok(Self(Arc::new(Inner { path: path.into(), file, len, blocks, data_end, tail })))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The place that it declares, see [`PLACE`]; none in segments written by hud 0.1.
    pub(super) fn place(&self) -> Option<&str> {
        value(&self.0.tail, PLACE_KEY)
    }

    /// The id of the session to which it declares to belong.
    pub fn session_id(&self) -> Option<&str> {
        self.place()?.splitn(3, '/').nth(2)
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.0.len
    }

    /// Reads a part of it.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut parts = self.read_ranges(slice::from_ref(&range))?;
        parts.pop().ok_or_else(|| self.outside(&range))
    }

    /// Reads parts of it, in the given order.
    pub fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let inner = &*self.0;
        // Whole blocks, as checksums are per block.
        let blocks = |range: &Range<u64>| {
            let to = range.end.div_ceil(BLOCK).saturating_mul(BLOCK).min(inner.data_end);
            (range.start < inner.data_end).then_some(range.start / BLOCK * BLOCK..to)
        };
        if let Some(wrong) = ranges.iter().find(|range| range.start > range.end || range.end > inner.len) {
            return Err(self.outside(wrong));
        }
        let wanted: Vec<_> = ranges.iter().filter_map(blocks).collect();
        let read = inner.file.read_ranges(&wanted).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it became shorter while it was read".into()),
            _ => Error::Io { action: "read", path: inner.path.clone(), source: e },
        })?;
        let mut read = read.into_iter();
        let in_tail = |at: u64| usize::try_from(at.saturating_sub(inner.data_end));
        let part = |range: &Range<u64>| -> Result<Bytes> {
            let outside = || self.outside(range);
            let (Ok(tail_from), Ok(tail_to)) = (in_tail(range.start), in_tail(range.end)) else {
                return Err(outside());
            };
            let tail = inner.tail.get(tail_from..tail_to).map(|_| inner.tail.slice(tail_from..tail_to));
            let tail = tail.ok_or_else(outside)?;
            let Some(blocks) = blocks(range) else { return Ok(tail) };
            let bytes = read.next().ok_or_else(outside)?;
            self.check(blocks.start, &bytes)?;
            let skip = usize::try_from(range.start - blocks.start).map_err(|_| outside())?;
            let len = usize::try_from(range.end.min(inner.data_end) - range.start).map_err(|_| outside())?;
            let data = bytes.get(skip..skip.saturating_add(len)).map(|_| bytes.slice(skip..skip + len));
            let data = data.ok_or_else(outside)?;
            // Reads rarely span both.
            Ok(if tail.is_empty() { data } else { Bytes::from([data, tail].concat()) })
        };
        ranges.iter().map(part).collect()
    }

    fn outside(&self, range: &Range<u64>) -> Error {
        self.damaged(format!("it has no bytes {}..{}", range.start, range.end))
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

    /// Verifies whole blocks; the first begins at `from`.
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

impl SessionDir {
    /// Opens a sealed segment. [`Error::Foreign`] if it belongs to another session, table or number.
    pub fn open_sealed(&self, table: Table, number: u32) -> Result<VerifiedFile> {
        let path = self.segment(table, number);
        let file = VerifiedFile::over(self.segment_bytes(table, number)?, &path)?;
        match (self.place(table, number), file.place()) {
            (Some(here), Some(there)) if here != there => {
                let why = format!("it is another segment: {}", clean(there));
                Err(Error::Foreign { path, why })
            }
            _ => Ok(file),
        }
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

/// Reads a [`VerifiedFile`] from an offset on.
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

/// Checks that the positions of columns and pages in a footer are possible: the parquet crate relies on them, and panics or
/// reads other bytes if they are not.
fn check_places(metadata: &ParquetMetaData, data_end: u64) -> Option<()> {
    let mut all_rows = 0_i64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).ok()?;
        all_rows = all_rows.checked_add(group.num_rows())?;
        for (leaf, column) in group.columns().iter().enumerate() {
            let data = u64::try_from(column.data_page_offset()).ok()?;
            let start = column.dictionary_page_offset().map_or(Some(data), |offset| u64::try_from(offset).ok())?;
            let end = start.checked_add(u64::try_from(column.compressed_size()).ok()?)?;
            let is_inside = start <= data && data <= end && end <= data_end;
            (is_inside && column.num_values() >= 0 && column.uncompressed_size() >= 0).then_some(())?;
            let Some(pages) = metadata.offset_index().and_then(|all| all.get(index)?.get(leaf)) else { continue };
            let mut next = 0;
            for page in pages.page_locations() {
                let from = u64::try_from(page.offset).ok()?;
                let to = from.checked_add(u64::try_from(page.compressed_page_size).ok()?)?;
                let row = u64::try_from(page.first_row_index).ok()?;
                (start <= from && to <= end && next <= row && row <= rows).then_some(())?;
                next = row;
            }
        }
    }
    (metadata.file_metadata().num_rows() == all_rows).then_some(())
}

/// Reads the metadata in a segment's footer, without its key-value metadata.
///
/// These include an Arrow schema (`ARROW:schema`), and the arrow crate panics on a damaged one. It is redundant, so no reader
/// gets it.
pub fn footer(file: &VerifiedFile, pages: PageIndexPolicy) -> Result<ArrowReaderMetadata> {
    let read = || {
        let metadata = ParquetMetaDataReader::new().with_page_index_policy(pages).parse_and_finish(file)?;
        check_places(&metadata, file.0.data_end)
            .ok_or_else(|| ParquetError::General("its footer has impossible positions of columns".into()))?;
        let said = metadata.file_metadata();
        let kept = FileMetaData::new(
            said.version(),
            said.num_rows(),
            said.created_by().map(Into::into),
            None,
            said.schema_descr_ptr(),
            said.column_orders().cloned(),
        );
        let mut all = metadata.into_builder();
        let metadata = ParquetMetaDataBuilder::new(kept)
            .set_row_groups(all.take_row_groups())
            .set_column_index(all.take_column_index())
            .set_offset_index(all.take_offset_index())
            .build();
        let options = ArrowReaderOptions::new().with_page_index_policy(pages).with_skip_arrow_metadata(true);
        ArrowReaderMetadata::try_new(Arc::new(metadata), options)
    };
    read().map_err(Error::damaged(file.path()))
}

/// A reader of a sealed segment that verifies the checksums of all rows that it returns.
pub fn verified_reader(file: VerifiedFile) -> Result<ParquetRecordBatchReaderBuilder<VerifiedFile>> {
    let metadata = footer(&file, PageIndexPolicy::Skip)?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
}
