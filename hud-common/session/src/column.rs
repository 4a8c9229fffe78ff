//! A column of integers or booleans as a Parquet column chunk.
//!
//! The parquet crate's own column writers take 13 ns a value, most of it for hashing and for comparing values through
//! generic code; sealing is the larger part of what a recorded poll costs. Here a column is known as a whole before it is
//! encoded, so that one pass gathers it in order, one numbers its distinct values, and one packs them. Pages, indexes and
//! the footer are still written by the crate.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray as _},
    datatypes::{DataType, Int32Type, Int64Type},
};
use bytes::Bytes;
use parquet::{
    basic::{BoundaryOrder, Compression, Encoding, Type, ZstdLevel},
    column::{
        page::{CompressedPage, Page, PageWriter as _},
        writer::ColumnCloseResult,
    },
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder},
        statistics::Statistics,
        writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

use super::{
    encoding::{bits, deltas, hybrid, plain, varint, width},
    permute::{arrange, slices},
};

/// Rows per page.
const PAGE: usize = 20_000;
/// Maximum number of distinct values in a dictionary: with more, their indices are as long as the values.
const MOST_DISTINCT: usize = 64 << 10;
/// Number of distinct values from which on encodings without a dictionary are tried.
const MANY: usize = 256;
/// Maximum number of segments for which the result of a trial is reused.
const MOST_BELIEVED: u8 = 16;
/// Encodings that are considered for a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Always deltas.
    Delta,
    /// A dictionary or deltas; plain if that is smaller than a dictionary.
    DictionaryOrDelta,
    /// A dictionary, or plain if that is smaller.
    DictionaryOrPlain,
}

/// The smallest of the tried encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Best {
    /// Plain values.
    Plain,
    /// Dictionary indices of as many bits as needed.
    Bits,
    /// Dictionary indices of whole bytes: longer, but zstd compresses frequent ones better.
    Bytes,
}

/// Results of trials on earlier segments of a column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned {
    best: Option<Best>,
    /// Number of segments for which the result is reused, and how many of them are left.
    believed: u8,
    left: u8,
}

impl Learned {
    /// The encoding for the next segment; `None` if it is to be tried.
    fn next(&mut self) -> Option<Best> {
        self.left = self.left.checked_sub(1)?;
        self.best
    }

    /// Stores the result of a trial: the more often it is the same, the longer it is reused.
    fn found(&mut self, best: Best) {
        let is_same = self.best.replace(best) == Some(best);
        self.believed = if is_same { MOST_BELIEVED.min(self.believed * 2) } else { 1 };
        self.left = self.believed;
    }
}

/// How a column is written.
pub(super) struct Manner<'a> {
    pub(super) values: Values,
    /// Whether segments are sorted by this column.
    pub(super) is_key: bool,
    pub(super) learned: &'a mut Learned,
}

/// Whether columns of this type are written here.
pub(super) fn is_ours(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Int32 | DataType::Boolean)
}

/// Writes the columns of a segment, one after the other.
pub(super) struct ColumnEncoder {
    zstd: zstd::bulk::Compressor<'static>,
    level: ZstdLevel,
    hashes: RandomState,
    /// Whether each row is not null, in input order.
    flat_valid: Vec<bool>,
    /// In output order: the values that are not null, and whether each row has one; empty if all have.
    values: Vec<i64>,
    valid: Vec<bool>,
    spans: Vec<Span>,
    numbers: Vec<u32>,
    places: Vec<u32>,
    slots: Vec<u32>,
    levels: Vec<u32>,
    page: Vec<u8>,
    packed: Vec<u8>,
}

/// Rows of a page.
#[derive(Clone, Copy)]
struct Span {
    rows: usize,
    /// Number of rows that are not null.
    values: usize,
    /// Minimum and maximum of these.
    range: Option<(i64, i64)>,
}

impl ColumnEncoder {
    pub(super) fn new(level: ZstdLevel) -> Result<Self> {
        Ok(ColumnEncoder {
            zstd: zstd::bulk::Compressor::new(level.compression_level()).map_err(external)?,
            level,
            hashes: RandomState::new(),
            flat_valid: Vec::new(),
            values: Vec::new(),
            valid: Vec::new(),
            spans: Vec::new(),
            numbers: Vec::new(),
            places: Vec::new(),
            slots: Vec::new(),
            levels: Vec::new(),
            page: Vec::new(),
            packed: Vec::new(),
        })
    }

    /// Sets the compression level.
    pub(super) fn set_level(&mut self, level: ZstdLevel) -> Result<()> {
        if level != self.level {
            self.zstd.set_compression_level(level.compression_level()).map_err(external)?;
            self.level = level;
        }
        Ok(())
    }

    /// Writes a column: the rows of `parts`, one after the other, or in the order that `places` gives.
    pub(super) fn write<W: io::Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        descr: ColumnDescPtr,
        parts: &[&ArrayRef],
        places: Option<&[u32]>,
        manner: Manner<'_>,
    ) -> Result<()> {
        let Manner { values: how, is_key, learned } = manner;
        let physical = descr.physical_type();
        let is_nullable = descr.max_def_level() > 0;
        let rows = parts.iter().map(|part| part.len()).sum();
        let uniform = uniform(parts);
        if let Some(value) = uniform {
            self.spread(value, rows);
        } else {
            self.collect(parts, places)?;
            self.span(rows, is_key);
        }
        let is_open = uniform.is_none() && physical != Type::BOOLEAN && how != Values::Delta;
        let mut best = if is_open { learned.next() } else { None };
        let mut dictionary = match uniform {
            Some(value) => (physical != Type::BOOLEAN).then(|| Vec::from_iter(value)),
            None if is_open && best != Some(Best::Plain) => self.number(),
            None => None,
        };
        if best.is_none()
            && let Some(distinct) = dictionary.as_ref().filter(|distinct| distinct.len() >= MANY)
        {
            // Three pages' worth of work: not for each segment.
            let found = self.best(distinct, physical)?;
            learned.found(found);
            best = Some(found);
        }
        if best == Some(Best::Plain) {
            dictionary = None;
        }
        let is_delta = how != Values::DictionaryOrPlain && best != Some(Best::Plain) && physical == Type::INT64;
        let encoding = match &dictionary {
            Some(_) => Encoding::RLE_DICTIONARY,
            None if is_delta => Encoding::DELTA_BINARY_PACKED,
            None => Encoding::PLAIN,
        };
        let width = match (&dictionary, best) {
            (Some(distinct), Some(Best::Bytes)) => width_of(distinct).next_multiple_of(8),
            (Some(distinct), _) => width_of(distinct),
            (None, _) => 0,
        };

        let mut file = TrackedWrite::new(Vec::new());
        let mut pages = SerializedPageWriter::new(&mut file);
        let mut chunk = Chunk::new(physical);
        if let Some(distinct) = &dictionary {
            self.page.clear();
            plain(distinct, physical, &mut self.page);
            let page = Page::DictionaryPage {
                buf: self.compressed()?,
                num_values: count(distinct.len())?,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let written = pages.write_page(CompressedPage::new(page, self.page.len()))?;
            chunk.dictionary_at = Some(signed(written.offset)?);
            chunk.uncompressed += written.uncompressed_size;
        }
        let (mut first, mut done) = (0, 0);
        for at in 0..self.spans.len() {
            let Some(&Span { rows, values, range }) = self.spans.get(at) else { break };
            self.page.clear();
            if is_nullable {
                self.page.extend_from_slice(&[0; 4]);
                if values == rows || values == 0 {
                    varint((rows as u64) << 1, &mut self.page);
                    self.page.push(u8::from(values > 0));
                } else {
                    self.levels.clear();
                    let valid = self.valid.get(first..first + rows).unwrap_or_default();
                    self.levels.extend(valid.iter().map(|valid| u32::from(*valid)));
                    hybrid(&self.levels, 1, &mut self.page);
                }
                let len = count(self.page.len() - 4)?.to_le_bytes();
                self.page.iter_mut().zip(len).for_each(|(to, byte)| *to = byte);
            }
            match (uniform, encoding) {
                (Some(value), Encoding::PLAIN) => bits(value.unwrap_or(0) != 0, values, &mut self.page),
                (Some(_), _) => {
                    self.page.push(width);
                    if values > 0 {
                        varint((values as u64) << 1, &mut self.page);
                    }
                }
                (None, Encoding::RLE_DICTIONARY) => {
                    let numbers = self.numbers.get(done..done + values).unwrap_or_default();
                    self.page.push(width);
                    hybrid(numbers, width, &mut self.page);
                }
                (None, Encoding::DELTA_BINARY_PACKED) => {
                    deltas(self.values.get(done..done + values).unwrap_or_default(), &mut self.page);
                }
                _ => plain(self.values.get(done..done + values).unwrap_or_default(), physical, &mut self.page),
            }
            let page = Page::DataPage {
                buf: self.compressed()?,
                num_values: count(rows)?,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let written = pages.write_page(CompressedPage::new(page, self.page.len()))?;
            chunk.page(range, rows - values, rows, signed(written.offset)?, written.bytes_written)?;
            chunk.uncompressed += written.uncompressed_size;
            first += rows;
            done += values;
        }
        let bytes = file.bytes_written();
        let data = Bytes::from(file.into_inner()?);
        let close = chunk.close(descr, encoding, Compression::ZSTD(self.level), rows, bytes, is_key)?;
        group.append_column(&data, close)
    }

    fn compressed(&mut self) -> Result<Bytes> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.page.len()));
        self.zstd.compress_to_buffer(&self.page, &mut self.packed).map_err(external)?;
        Ok(Bytes::copy_from_slice(&self.packed))
    }

    /// Copies the column's values that are not null in order. If there are nulls, `valid` marks the rows without.
    fn collect(&mut self, parts: &[&ArrayRef], places: Option<&[u32]>) -> Result<()> {
        self.values.clear();
        self.valid.clear();
        if parts.iter().any(|part| part.null_count() > 0) {
            self.flat_valid.clear();
            for part in parts {
                match part.nulls() {
                    Some(nulls) => self.flat_valid.extend(nulls.iter()),
                    None => self.flat_valid.resize(self.flat_valid.len() + part.len(), true),
                }
            }
            arrange(&[&self.flat_valid], places, &[], |valid| valid, &mut self.valid);
        }
        let (valid, values) = (&self.valid, &mut self.values);
        if let Some(parts) = slices::<Int64Type>(parts) {
            arrange(&parts, places, valid, |value| value, values);
        } else if let Some(parts) = slices::<Int32Type>(parts) {
            arrange(&parts, places, valid, i64::from, values);
        } else if let Some(parts) = parts.iter().map(|part| part.as_boolean_opt()).collect::<Option<Vec<_>>>() {
            let flat: Vec<bool> = parts.iter().flat_map(|part| part.values()).collect();
            arrange(&[&flat], places, valid, i64::from, values);
        } else {
            return Err(ParquetError::General("a column is neither of integers nor of booleans".into()));
        }
        Ok(())
    }

    /// Divides the values into pages.
    fn span(&mut self, rows: usize, is_sorted: bool) {
        self.spans.clear();
        let mut done = 0;
        for first in (0..rows).step_by(PAGE) {
            let rows = PAGE.min(rows - first);
            let values = match self.valid.get(first..first + rows) {
                Some(valid) => valid.iter().map(|valid| usize::from(*valid)).sum(),
                None => rows,
            };
            let own = self.values.get(done..done + values).unwrap_or_default();
            let range = if is_sorted { own.first().copied().zip(own.last().copied()) } else { range(own) };
            self.spans.push(Span { rows, values, range });
            done += values;
        }
    }

    /// The pages of a column that has `value` in all its rows, or no value in any.
    fn spread(&mut self, value: Option<i64>, rows: usize) {
        self.spans.clear();
        for first in (0..rows).step_by(PAGE) {
            let rows = PAGE.min(rows - first);
            self.spans.push(Span { rows, values: value.map_or(0, |_| rows), range: value.map(|v| (v, v)) });
        }
    }

    /// Numbers the distinct values in ascending order, which is how a dictionary is the smallest; `None` where there are
    /// too many of them.
    ///
    /// Values near the minimum have a direct table; the others are looked up by hash.
    fn number(&mut self) -> Option<Vec<i64>> {
        let ranges = self.spans.iter().filter_map(|span| span.range);
        let Some((least, most)) = ranges.reduce(wider) else { return Some(Vec::new()) };
        let most_near = u64::try_from(MOST_DISTINCT).unwrap_or(0) - 1;
        let near = most.wrapping_sub(least).cast_unsigned().min(most_near) + 1;
        let near = usize::try_from(near).ok()?;
        // First 1 if there is such a value, later its index.
        self.places.clear();
        self.places.resize(near, 0);
        self.numbers.clear();
        let distance = |value: i64| usize::try_from(value.wrapping_sub(least).cast_unsigned()).unwrap_or(usize::MAX);
        let is_near = distance(most) < near;
        let mut far = Far::new(&self.hashes, &mut self.slots, self.values.len());
        if is_near {
            for &value in &self.values {
                self.places.get_mut(distance(value)).map(|place| *place = 1)?;
            }
        } else {
            self.numbers.resize(self.values.len(), 0);
            for (number, &value) in self.numbers.iter_mut().zip(&self.values) {
                let distance = distance(value);
                let place = match self.places.get_mut(distance) {
                    Some(place) => {
                        *place = 1;
                        distance
                    }
                    None => near + far.place(value)?,
                };
                *number = u32::try_from(place).ok()?;
            }
        }
        let mut distinct = Vec::new();
        let mut number = |value: i64| {
            distinct.push(value);
            u32::try_from(distinct.len() - 1).unwrap_or(u32::MAX)
        };
        for (place, value) in self.places.iter_mut().zip(least..=most).filter(|(place, _)| **place != 0) {
            *place = number(value);
        }
        if is_near {
            let places = &self.places;
            self.numbers.extend(self.values.iter().map(|v| places.get(distance(*v)).copied().unwrap_or_default()));
            return Some(distinct);
        }
        self.places.resize(near + far.distinct.len(), 0);
        let mut others: Vec<(i64, usize)> = far.distinct.iter().copied().zip(near..).collect();
        others.sort_unstable();
        for (value, place) in others {
            *self.places.get_mut(place)? = number(value);
        }
        if distinct.len() > MOST_DISTINCT {
            return None;
        }
        for number in &mut self.numbers {
            *number = *self.places.get(usize::try_from(*number).ok()?)?;
        }
        Some(distinct)
    }

    /// The smallest encoding, by the first page: ids that repeat in the same order are smallest plain.
    fn best(&mut self, distinct: &[i64], physical: Type) -> Result<Best> {
        let first = self.spans.first().map_or(0, |span| span.values);
        let size = |encoder: &mut Self, write: &dyn Fn(&Self, &mut Vec<u8>)| -> Result<usize> {
            let mut page = std::mem::take(&mut encoder.page);
            page.clear();
            write(encoder, &mut page);
            encoder.page = page;
            Ok(encoder.compressed()?.len())
        };
        let numbers = |own: &Self, width, page: &mut Vec<u8>| {
            hybrid(own.numbers.get(..first).unwrap_or_default(), width, page);
        };
        let width = width_of(distinct);
        let values = size(self, &|own, page| plain(own.values.get(..first).unwrap_or_default(), physical, page))?;
        let dictionary = size(self, &|_, page| plain(distinct, physical, page))?;
        let bits = size(self, &|own, page| numbers(own, width, page))?;
        let bytes = size(self, &|own, page| numbers(own, width.next_multiple_of(8), page))?;
        let all = |of_first: usize| of_first * self.values.len() / first.max(1);
        let ways = [
            (dictionary + all(bits), Best::Bits),
            (dictionary + all(bytes), Best::Bytes),
            // It must save a tenth: readers have eight times as many bytes to process.
            (all(values) * 10 / 9, Best::Plain),
        ];
        Ok(ways.into_iter().min_by_key(|(size, _)| *size).map_or(Best::Bits, |(_, best)| best))
    }
}

/// The distinct values among those far from the minimum.
struct Far<'a> {
    distinct: Vec<i64>,
    /// The index of a value among the distinct ones, from 1 on; 0 if there is none.
    slots: &'a mut Vec<u32>,
    bits: u32,
    factor: u64,
    collisions: usize,
}

impl<'a> Far<'a> {
    fn new(hashes: &RandomState, slots: &'a mut Vec<u32>, values: usize) -> Self {
        // Randomized, as the target chooses some of these values and could make them collide.
        let factor = hashes.hash_one(0) | 1;
        slots.clear();
        Far { distinct: Vec::new(), slots, bits: 6, factor, collisions: values.saturating_mul(8) }
    }

    /// The index of a value; `None` if there are too many values or too many collisions.
    fn place(&mut self, value: i64) -> Option<usize> {
        if self.distinct.len() * 2 >= self.slots.len() {
            self.grow()?;
        }
        let mut at = hash(value, self.factor, self.bits);
        loop {
            let slot = self.slots.get_mut(at)?;
            let Some(place) = slot.checked_sub(1).and_then(|place| usize::try_from(place).ok()) else {
                self.distinct.push(value);
                *slot = u32::try_from(self.distinct.len()).ok()?;
                return (self.distinct.len() <= MOST_DISTINCT).then_some(self.distinct.len() - 1);
            };
            if self.distinct.get(place) == Some(&value) {
                return Some(place);
            }
            self.collisions = self.collisions.checked_sub(1)?;
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn grow(&mut self) -> Option<()> {
        self.bits += 2;
        self.slots.clear();
        self.slots.resize(1 << self.bits, 0);
        for (number, &value) in (1..).zip(&self.distinct) {
            let mut at = hash(value, self.factor, self.bits);
            while self.slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (self.slots.len() - 1);
            }
            *self.slots.get_mut(at)? = number;
        }
        Some(())
    }
}

/// Bits of an index of `distinct` values.
fn width_of(distinct: &[i64]) -> u8 {
    width(u64::try_from(distinct.len()).unwrap_or(0).saturating_sub(1))
}

fn range(values: &[i64]) -> Option<(i64, i64)> {
    let &first = values.first()?;
    Some(values.iter().fold((first, first), |(least, most), &value| (least.min(value), most.max(value))))
}

fn wider(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// The single value of all rows, or that all are null; `None` if they differ. Most columns of most segments are constant: they
/// need no collecting, indexing and packing.
fn uniform(parts: &[&ArrayRef]) -> Option<Option<i64>> {
    if parts.iter().all(|part| part.null_count() == part.len()) {
        return Some(None);
    }
    if parts.iter().any(|part| part.null_count() > 0) {
        return None;
    }
    let mut all = parts.iter().filter(|part| !part.is_empty()).map(|part| {
        if let Some(values) = part.as_primitive_opt::<Int64Type>() {
            alike(values.values()).copied()
        } else if let Some(values) = part.as_primitive_opt::<Int32Type>() {
            alike(values.values()).map(|value| i64::from(*value))
        } else {
            let values = part.as_boolean_opt()?;
            let set = values.true_count();
            (set == 0 || set == values.len()).then_some(i64::from(set > 0))
        }
    });
    let first = all.next()??;
    all.all(|value| value == Some(first)).then_some(Some(first))
}

/// The value that all have.
fn alike<T: PartialEq>(values: &[T]) -> Option<&T> {
    let (first, rest) = values.split_first()?;
    rest.iter().all(|value| value == first).then_some(first)
}

fn hash(value: i64, factor: u64, bits: u32) -> usize {
    let mixed = value.cast_unsigned().wrapping_mul(factor);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(factor);
    usize::try_from(mixed >> (64 - bits)).unwrap_or(0)
}

/// The metadata of a column chunk, while its pages are written.
struct Chunk {
    physical: Type,
    column_index: ColumnIndexBuilder,
    offset_index: OffsetIndexBuilder,
    range: Option<(i64, i64)>,
    nulls: u64,
    dictionary_at: Option<i64>,
    data_at: Option<i64>,
    uncompressed: usize,
}

impl Chunk {
    fn new(physical: Type) -> Self {
        Chunk {
            physical,
            column_index: ColumnIndexBuilder::new(physical),
            offset_index: OffsetIndexBuilder::new(),
            range: None,
            nulls: 0,
            dictionary_at: None,
            data_at: None,
            uncompressed: 0,
        }
    }

    fn page(&mut self, range: Option<(i64, i64)>, nulls: usize, rows: usize, at: i64, bytes: u64) -> Result<()> {
        let bound = |value: i64| {
            let mut bytes = Vec::new();
            match self.physical {
                Type::BOOLEAN => bytes.push(u8::from(value != 0)),
                _ => plain(&[value], self.physical, &mut bytes),
            }
            bytes
        };
        let (least, most) = range.map_or_else(Default::default, |(least, most)| (bound(least), bound(most)));
        self.column_index.append(range.is_none(), least, most, signed(nulls)?);
        self.range = match (self.range, range) {
            (Some(a), Some(b)) => Some(wider(a, b)),
            (a, b) => a.or(b),
        };
        self.nulls += nulls as u64;
        self.offset_index.append_row_count(signed(rows)?);
        let bytes = i32::try_from(bytes).map_err(|_| too_large())?;
        self.offset_index.append_offset_and_size(at, bytes);
        self.data_at = self.data_at.or(Some(at));
        Ok(())
    }

    fn close(
        mut self,
        descr: ColumnDescPtr,
        encoding: Encoding,
        compression: Compression,
        rows: usize,
        bytes: usize,
        is_sorted: bool,
    ) -> Result<ColumnCloseResult> {
        let (least, most) = self.range.unzip();
        let nulls = Some(self.nulls);
        let narrow = |value: Option<i64>| value.and_then(|value| i32::try_from(value).ok());
        let statistics = match self.physical {
            Type::INT64 => Statistics::int64(least, most, None, nulls, false),
            Type::BOOLEAN => Statistics::boolean(least.map(|v| v != 0), most.map(|v| v != 0), None, nulls, false),
            _ => Statistics::int32(narrow(least), narrow(most), None, nulls, false),
        };
        let mut encodings = vec![Encoding::RLE, encoding];
        if self.dictionary_at.is_some() {
            encodings.push(Encoding::PLAIN);
        }
        let metadata = ColumnChunkMetaData::builder(Arc::clone(&descr))
            .set_compression(compression)
            .set_encodings(encodings)
            .set_total_compressed_size(signed(bytes)?)
            .set_total_uncompressed_size(signed(self.uncompressed)?)
            .set_num_values(signed(rows)?)
            .set_data_page_offset(self.data_at.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_at)
            .set_statistics(statistics)
            .build()?;
        if is_sorted {
            self.column_index.set_boundary_order(BoundaryOrder::ASCENDING);
        }
        Ok(ColumnCloseResult {
            bytes_written: bytes as u64,
            rows_written: rows as u64,
            metadata,
            bloom_filter: None,
            column_index: Some(self.column_index.build()?),
            offset_index: Some(self.offset_index.build()),
        })
    }
}

fn count(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| too_large())
}

fn signed<T: TryInto<i64>>(n: T) -> Result<i64> {
    n.try_into().map_err(|_| too_large())
}

fn too_large() -> ParquetError {
    ParquetError::General("a column is too large".into())
}

fn external(error: io::Error) -> ParquetError {
    ParquetError::External(error.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::{
        array::{BooleanArray, Int32Array, Int64Array, RecordBatch, UInt32Array},
        compute::{concat_batches, take_record_batch},
        datatypes::{Field, Schema},
    };
    use parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        file::{properties::WriterProperties, reader::FileReader as _, serialized_reader::SerializedFileReader},
    };

    use super::*;

    /// Pseudo-random numbers with a fixed seed.
    fn random(seed: u64) -> impl Iterator<Item = i64> {
        let mut state = seed | 1;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.cast_signed()
        })
    }

    /// Columns of every kind with `rows` rows.
    fn shapes(rows: usize) -> Vec<Vec<Option<i64>>> {
        let all = |f: &dyn Fn(usize, i64) -> Option<i64>| {
            random(rows as u64 + 7).take(rows).enumerate().map(|(at, n)| f(at, n)).collect::<Vec<_>>()
        };
        vec![
            all(&|_, _| Some(7)),
            all(&|_, _| None),
            all(&|_, n| Some(n)),
            all(&|_, n| Some(n & 1)),
            all(&|_, n| Some([i64::MIN, i64::MAX, 0, -1][usize::try_from(n & 3).unwrap()])),
            all(&|at, _| i64::try_from(at).ok()),
            all(&|at, n| Some(1_700_000_000_000_000_000 + i64::try_from(at).unwrap() * 1000 + (n & 0xff))),
            all(&|at, _| Some(i64::from(at / 100 % 2 == 0) * 3)),
            all(&|at, n| (at % 37 < 9).then_some(n & 0xffff_ffff)),
            all(&|at, n| (n & 3 == 0).then_some(i64::try_from(at / 50).unwrap())),
            all(&|at, n| Some(if at % 500 == 3 { n } else { 0 })),
            all(&|_, n| Some((n & 0x3fff) * 1_000_003)),
            all(&|_, n| Some(if n & 7 < 2 { n >> 3 & 0x3fff } else { 1300 + (n >> 3 & 7) })),
        ]
    }

    fn arrays(values: &[Option<i64>]) -> [ArrayRef; 3] {
        let narrow = |value: &i64| i32::try_from(*value & 0x7fff_ffff).unwrap() - (i32::MAX / 2);
        [
            Arc::new(Int64Array::from(values.to_vec())),
            Arc::new(values.iter().map(|v| v.as_ref().map(narrow)).collect::<Int32Array>()),
            Arc::new(values.iter().map(|v| v.map(|v| v & 1 == 1)).collect::<BooleanArray>()),
        ]
    }

    /// Encodes the batches as a file.
    fn written(batches: &[RecordBatch], places: Option<&[u32]>, how: Values) -> Bytes {
        written_as(batches, places, how, &mut vec![Learned::default(); batches[0].num_columns()])
    }

    fn written_as(batches: &[RecordBatch], places: Option<&[u32]>, values: Values, learned: &mut [Learned]) -> Bytes {
        let level = ZstdLevel::try_new(1).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
        let (mut file, _) = writer.into_serialized_writer().unwrap();
        let columns = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group().unwrap();
        let mut encoder = ColumnEncoder::new(level).unwrap();
        for (index, descr) in columns.into_iter().enumerate() {
            let parts: Vec<_> = batches.iter().map(|b| b.column(index)).collect();
            let manner = Manner { values, is_key: false, learned: &mut learned[index] };
            encoder.write(&mut group, descr, &parts, places, manner).unwrap();
        }
        group.close().unwrap();
        file.into_inner().unwrap().into()
    }

    #[test]
    fn reads_any_column_as_written() {
        for rows in [1, 2, 8, 33, 129, 1000, PAGE + 1] {
            for nullable in [false, true] {
                let columns: Vec<ArrayRef> = shapes(rows)
                    .iter()
                    .filter(|values| nullable || values.iter().all(Option::is_some))
                    .flat_map(|values| arrays(values))
                    .collect();
                let fields = columns.iter().enumerate();
                let fields = fields.map(|(n, c)| Field::new(format!("c{n}"), c.data_type().clone(), nullable));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let whole = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
                let middle = rows / 3;
                let parts = [whole.slice(0, middle), whole.slice(middle, rows - middle)];
                let backwards: Vec<u32> = (0..u32::try_from(rows).unwrap()).rev().collect();
                let reversed = take_record_batch(&whole, &UInt32Array::from(backwards.clone())).unwrap();
                for how in [Values::Delta, Values::DictionaryOrDelta, Values::DictionaryOrPlain] {
                    for (places, expected) in [(None, &whole), (Some(backwards.as_slice()), &reversed)] {
                        let file = written(&parts, places, how);
                        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
                        let read: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
                        assert_eq!(concat_batches(&schema, &read).unwrap(), *expected, "{rows} rows, {how:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn repeats_trials_and_encodes_changed_values() {
        let columns = shapes(PAGE);
        let mut learned = [Learned::default()];
        let mut ways = Vec::new();
        for round in 0..3 * usize::from(MOST_BELIEVED) {
            let values = &columns[if round < columns.len() { round } else { columns.len() - 1 }];
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
            let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.clone()))]).unwrap();
            let file = written_as(std::slice::from_ref(&batch), None, Values::DictionaryOrPlain, &mut learned);
            let mut reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1 << 20);
            reader = reader.with_limit(1 << 20);
            assert_eq!(reader.build().unwrap().next().unwrap().unwrap(), batch, "round {round}");
            ways.push((learned[0].best, learned[0].believed));
        }
        assert!(ways.iter().any(|(best, _)| *best == Some(Best::Plain)), "{ways:?}");
        assert!(ways.iter().any(|(best, _)| *best == Some(Best::Bytes)), "{ways:?}");
        assert_eq!(ways.last().map(|(_, believed)| *believed), Some(MOST_BELIEVED), "{ways:?}");
    }

    #[test]
    fn writes_ranges_of_columns_and_pages() {
        let rows = PAGE + 10;
        let last = i64::try_from(rows).unwrap() - 6;
        let page = i64::try_from(PAGE).unwrap();
        let values: Vec<Option<i64>> = (-5..=last).map(|n| (n >= page - 5 || n % 2 != 0).then_some(n)).collect();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).unwrap();
        for how in [Values::Delta, Values::DictionaryOrDelta, Values::DictionaryOrPlain] {
            let options = parquet::file::serialized_reader::ReadOptionsBuilder::new();
            let options = options.with_page_index().build();
            let file = written(std::slice::from_ref(&batch), None, how);
            let reader = SerializedFileReader::new_with_options(file, options).unwrap();
            let column = reader.metadata().row_group(0).column(0);
            let Some(Statistics::Int64(range)) = column.statistics() else { panic!("no statistics") };
            assert_eq!((range.min_opt(), range.max_opt()), (Some(&-5), Some(&last)));
            assert_eq!(range.null_count_opt(), Some(PAGE as u64 / 2));
            let pages = &reader.metadata().offset_index().unwrap()[0][0].page_locations;
            assert_eq!(pages.iter().map(|p| p.first_row_index).collect::<Vec<_>>(), [0, page]);
            let index = format!("{:?}", reader.metadata().column_index().unwrap()[0][0]);
            assert!(index.contains(&format!("min_values: [-5, {}]", PAGE - 5)), "{index}");
        }
    }
}
