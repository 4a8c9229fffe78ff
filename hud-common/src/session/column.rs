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
    vec,
    vec::Vec,
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

/// Rows of a page.
const PAGE: usize = 20_000;
/// Distinct values in a dictionary: with more of them, their numbers are as long as what they stand for.
const MOST_DISTINCT: usize = 16 << 10;
/// Distinct values from which on it is looked whether they are better off without a dictionary.
const MANY: usize = 256;
/// Values of a block of deltas, and of each of its four parts, which have a width of their own.
const BLOCK: usize = 128;
const PART: usize = 32;

/// How values are written where a dictionary does not pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// The differences between them, without ever trying a dictionary.
    Delta,
    /// A dictionary, or their differences; as they are where that is less than a dictionary.
    DictionaryOrDelta,
    /// A dictionary, or as they are where that is less.
    DictionaryOrPlain,
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
    /// The rows as they come, and which of them are not null; empty where all are.
    flat: Vec<i64>,
    flat_valid: Vec<bool>,
    /// In order: the values that are not null, and which rows have one; empty where all have.
    values: Vec<i64>,
    valid: Vec<bool>,
    spans: Vec<Span>,
    numbers: Vec<u32>,
    places: Vec<u32>,
    slots: Vec<(i64, u32)>,
    levels: Vec<u32>,
    page: Vec<u8>,
    packed: Vec<u8>,
}

/// Rows of a page.
#[derive(Clone, Copy)]
struct Span {
    rows: usize,
    /// Of them, rows that are not null.
    values: usize,
    /// The least and the greatest of these.
    range: Option<(i64, i64)>,
}

impl ColumnEncoder {
    pub(super) fn new(level: ZstdLevel) -> Result<Self> {
        Ok(ColumnEncoder {
            zstd: zstd::bulk::Compressor::new(level.compression_level()).map_err(external)?,
            level,
            hashes: RandomState::new(),
            flat: Vec::new(),
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

    /// Writes a column: the rows of `parts`, one after the other, or in the order that `places` gives.
    pub(super) fn write<W: io::Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        descr: ColumnDescPtr,
        parts: &[&ArrayRef],
        places: Option<&[u32]>,
        how: Values,
        is_sorted: bool,
    ) -> Result<()> {
        let physical = descr.physical_type();
        let is_nullable = descr.max_def_level() > 0;
        let rows = parts.iter().map(|part| part.len()).sum();
        let uniform = uniform(parts);
        if let Some(value) = uniform {
            self.spread(value, rows);
        } else {
            self.gather(parts, places)?;
            self.span(rows, is_sorted);
        }
        let mut dictionary = match (physical, how, uniform) {
            (Type::BOOLEAN, ..) => None,
            (_, _, Some(value)) => Some(Vec::from_iter(value)),
            (_, Values::Delta, _) => None,
            _ => self.number(),
        };
        let mut encoding = match (&dictionary, how) {
            (Some(_), _) => Encoding::RLE_DICTIONARY,
            (None, Values::Delta | Values::DictionaryOrDelta) if physical == Type::INT64 => {
                Encoding::DELTA_BINARY_PACKED
            }
            _ => Encoding::PLAIN,
        };
        // A trial takes a page's worth of work, where the outcome is open.
        let is_open = |d: &Vec<i64>| d.len() >= MANY && (how == Values::DictionaryOrDelta || d.len() * 8 > rows);
        if let Some(distinct) = dictionary.as_ref().filter(|distinct| is_open(distinct))
            && self.is_smaller_plain(distinct, physical)?
        {
            (dictionary, encoding) = (None, Encoding::PLAIN);
        }

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
        let width = dictionary.as_deref().map_or(0, width_of);
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
        let close = chunk.close(descr, encoding, Compression::ZSTD(self.level), rows, bytes, is_sorted)?;
        group.append_column(&data, close)
    }

    fn compressed(&mut self) -> Result<Bytes> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.page.len()));
        self.zstd.compress_to_buffer(&self.page, &mut self.packed).map_err(external)?;
        Ok(Bytes::copy_from_slice(&self.packed))
    }

    /// Puts the column's values that are not null in order; where there are nulls, `valid` tells where.
    fn gather(&mut self, parts: &[&ArrayRef], places: Option<&[u32]>) -> Result<()> {
        self.flat.clear();
        self.flat_valid.clear();
        for part in parts {
            if let Some(values) = part.as_primitive_opt::<Int64Type>() {
                self.flat.extend_from_slice(values.values());
            } else if let Some(values) = part.as_primitive_opt::<Int32Type>() {
                self.flat.extend(values.values().iter().map(|v| i64::from(*v)));
            } else if let Some(values) = part.as_boolean_opt() {
                self.flat.extend(values.values().iter().map(i64::from));
            } else {
                return Err(ParquetError::General("a column is neither of integers nor of booleans".into()));
            }
            match part.nulls() {
                Some(nulls) => {
                    self.flat_valid.resize(self.flat.len() - part.len(), true);
                    self.flat_valid.extend(nulls.iter());
                }
                None if !self.flat_valid.is_empty() => self.flat_valid.resize(self.flat.len(), true),
                None => {}
            }
        }
        self.valid.clear();
        self.values.clear();
        let place = |at: &u32| usize::try_from(*at).unwrap_or(usize::MAX);
        match places {
            None if self.flat_valid.is_empty() => std::mem::swap(&mut self.values, &mut self.flat),
            None => {
                let there = self.flat.iter().zip(&self.flat_valid).filter(|(_, valid)| **valid);
                self.values.extend(there.map(|(value, _)| *value));
                std::mem::swap(&mut self.valid, &mut self.flat_valid);
            }
            Some(places) if self.flat_valid.is_empty() => {
                self.values.extend(places.iter().map(|at| self.flat.get(place(at)).copied().unwrap_or_default()));
            }
            Some(places) => {
                let (flat, flat_valid) = (&self.flat, &self.flat_valid);
                let is_valid = |at: &u32| flat_valid.get(place(at)).copied().unwrap_or_default();
                self.valid.extend(places.iter().map(is_valid));
                let there = places.iter().zip(&self.valid).filter(|(_, valid)| **valid);
                self.values.extend(there.map(|(at, _)| flat.get(place(at)).copied().unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Divides what was gathered into pages.
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
    /// Most values lie near the least: a table has a place for each of those, and the others are looked up by hash.
    fn number(&mut self) -> Option<Vec<i64>> {
        let ranges = self.spans.iter().filter_map(|span| span.range);
        let Some((least, most)) = ranges.reduce(wider) else { return Some(Vec::new()) };
        let most_near = u64::try_from(MOST_DISTINCT).unwrap_or(0) - 1;
        let near = most.wrapping_sub(least).cast_unsigned().min(most_near) + 1;
        let near = usize::try_from(near).ok()?;
        let mut far = Far::new(&self.hashes, &mut self.slots, self.values.len());
        // First 1 where there is such a value, then its number.
        self.places.clear();
        self.places.resize(near, 0);
        self.numbers.clear();
        self.numbers.reserve(self.values.len());
        for &value in &self.values {
            let distance = usize::try_from(value.wrapping_sub(least).cast_unsigned()).unwrap_or(usize::MAX);
            let place = match self.places.get_mut(distance) {
                Some(place) => {
                    *place = 1;
                    distance
                }
                None => near + far.place(value)?,
            };
            self.numbers.push(u32::try_from(place).ok()?);
        }
        let mut distinct = Vec::new();
        let mut number = |value: i64| {
            distinct.push(value);
            u32::try_from(distinct.len() - 1).unwrap_or(u32::MAX)
        };
        for (place, value) in self.places.iter_mut().zip(least..=most).filter(|(place, _)| **place != 0) {
            *place = number(value);
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

    /// Whether the values as they are come out smaller than their numbers and the dictionary of them, by the first page:
    /// ids that come in the same order again and again do.
    fn is_smaller_plain(&mut self, distinct: &[i64], physical: Type) -> Result<bool> {
        let Some(first) = self.spans.first().copied() else { return Ok(false) };
        let size = |encoder: &mut Self, write: &dyn Fn(&Self, &mut Vec<u8>)| -> Result<usize> {
            let mut page = std::mem::take(&mut encoder.page);
            page.clear();
            write(encoder, &mut page);
            encoder.page = page;
            Ok(encoder.compressed()?.len())
        };
        let width = width_of(distinct);
        let dictionary = size(self, &|_, page| plain(distinct, physical, page))?;
        let numbers =
            size(self, &|own, page| hybrid(own.numbers.get(..first.values).unwrap_or_default(), width, page))?;
        let values =
            size(self, &|own, page| plain(own.values.get(..first.values).unwrap_or_default(), physical, page))?;
        Ok(values * self.spans.len() < numbers * self.spans.len() + dictionary)
    }
}

/// The distinct values of those that are far from the least one.
struct Far<'a> {
    distinct: Vec<i64>,
    /// A value and its place among the distinct ones, from 1 on; 0 where there is none.
    slots: &'a mut Vec<(i64, u32)>,
    bits: u32,
    factor: u64,
    collisions: usize,
}

impl<'a> Far<'a> {
    fn new(hashes: &RandomState, slots: &'a mut Vec<(i64, u32)>, values: usize) -> Self {
        // The target chooses some of these values: which of them collide must not be for it to choose too.
        let factor = hashes.hash_one(0) | 1;
        slots.clear();
        Far { distinct: Vec::new(), slots, bits: 6, factor, collisions: values.saturating_mul(8) }
    }

    /// The place of a value; `None` where there are too many of them, or too many that collide.
    fn place(&mut self, value: i64) -> Option<usize> {
        if self.distinct.len() * 2 >= self.slots.len() {
            self.grow()?;
        }
        let mut at = hash(value, self.factor, self.bits);
        loop {
            let slot = self.slots.get_mut(at)?;
            if slot.1 == 0 {
                self.distinct.push(value);
                *slot = (value, u32::try_from(self.distinct.len()).ok()?);
                return (self.distinct.len() <= MOST_DISTINCT).then_some(self.distinct.len() - 1);
            }
            if slot.0 == value {
                return usize::try_from(slot.1 - 1).ok();
            }
            self.collisions = self.collisions.checked_sub(1)?;
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn grow(&mut self) -> Option<()> {
        self.bits += 2;
        self.slots.clear();
        self.slots.resize(1 << self.bits, (0, 0));
        for (number, &value) in (1..).zip(&self.distinct) {
            let mut at = hash(value, self.factor, self.bits);
            while self.slots.get(at).is_some_and(|slot| slot.1 != 0) {
                at = (at + 1) & (self.slots.len() - 1);
            }
            *self.slots.get_mut(at)? = (value, number);
        }
        Some(())
    }
}

/// Bits of a number of one of the `distinct` values.
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

/// The value that all rows have, or that none has one; `None` where they differ. Most columns of most segments are such:
/// nothing of them needs to be gathered, numbered or packed.
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

/// The value that all are.
fn alike<T: PartialEq>(values: &[T]) -> Option<&T> {
    let (first, rest) = values.split_first()?;
    rest.iter().all(|value| value == first).then_some(first)
}

fn hash(value: i64, factor: u64, bits: u32) -> usize {
    let mixed = value.cast_unsigned().wrapping_mul(factor);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(factor);
    usize::try_from(mixed >> (64 - bits)).unwrap_or(0)
}

/// What the footer says of a column chunk, while its pages are written.
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

/// The same boolean `count` times, as bits.
fn bits(set: bool, count: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + count / 8, if set { 0xff } else { 0 });
    if !count.is_multiple_of(8) {
        out.push(if set { (1 << (count % 8)) - 1 } else { 0 });
    }
}

/// Values as they are: little endian, booleans as bits.
fn plain(values: &[i64], physical: Type, out: &mut Vec<u8>) {
    match physical {
        Type::INT64 => {
            let start = out.len();
            out.resize(start + values.len() * 8, 0);
            let places = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<8>().0;
            places.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
        }
        Type::BOOLEAN => {
            let mut bits = Bits::default();
            values.iter().for_each(|value| bits.push(u64::from(*value != 0), 1, out));
            bits.flush(out);
        }
        // They came of that many bytes.
        _ => {
            let start = out.len();
            out.resize(start + values.len() * 4, 0);
            let places = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<4>().0;
            places.iter_mut().zip(values).for_each(|(to, value)| {
                let [a, b, c, d, ..] = value.to_le_bytes();
                *to = [a, b, c, d];
            });
        }
    }
}

/// Numbers of `width` bits in Parquet's hybrid of runs and packed groups of eight.
fn hybrid(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    let same = |group: &[u32]| group.first().copied().filter(|first| group.iter().all(|n| n == first));
    // A run takes some four bytes, with what comes after it beginning anew; packed, a group takes `width`.
    let least = 1 + 4 / usize::from(width.max(1));
    let mut rest = numbers;
    let mut packed = 0;
    while let Some(groups) = rest.get(packed * 8..).filter(|groups| !groups.is_empty()) {
        let first = groups.get(..8).and_then(same);
        let run =
            first.map_or(0, |first| groups.chunks_exact(8).take_while(|group| same(group) == Some(first)).count());
        match first {
            Some(first) if run >= least || width == 0 => {
                let (before, after) = rest.split_at_checked(packed * 8).unwrap_or((rest, &[]));
                pack(before, width, out);
                varint((run as u64 * 8) << 1, out);
                out.extend(first.to_le_bytes().into_iter().take(usize::from(width.div_ceil(8))));
                rest = after.get(run * 8..).unwrap_or_default();
                packed = 0;
            }
            _ => packed += run.max(1),
        }
    }
    pack(rest, width, out);
}

/// Groups of eight, the last of which is filled up.
fn pack(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(8);
    varint((groups as u64) << 1 | 1, out);
    let mut bits = Bits::default();
    numbers.iter().for_each(|number| bits.push((*number).into(), width, out));
    (numbers.len()..groups * 8).for_each(|_| bits.push(0, width, out));
    bits.flush(out);
}

/// DELTA_BINARY_PACKED. Parts of 32 values, each as wide as its largest: one outlier widens no more than that.
fn deltas(values: &[i64], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / PART) as u64, out);
    varint(values.len() as u64, out);
    let Some((&first, rest)) = values.split_first() else { return varint(0, out) };
    varint(zigzag(first), out);
    let mut last = first;
    for block in rest.chunks(BLOCK) {
        let mut buffer = [0_i64; BLOCK];
        for (delta, &value) in buffer.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            last = value;
        }
        let deltas = buffer.get_mut(..block.len()).unwrap_or_default();
        let least = deltas.iter().copied().min().unwrap_or(0);
        varint(zigzag(least), out);
        deltas.iter_mut().for_each(|delta| *delta = delta.wrapping_sub(least));
        let widths = buffer.chunks(PART).map(|part| width(part.iter().fold(0, |all, d| all | d.cast_unsigned())));
        let widths: [u8; BLOCK / PART] = {
            let mut all = [0; BLOCK / PART];
            all.iter_mut().zip(widths).for_each(|(to, width)| *to = width);
            all
        };
        out.extend_from_slice(&widths);
        let parts = block.len().div_ceil(PART);
        for (part, width) in buffer.chunks(PART).zip(widths).take(parts) {
            let mut bits = Bits::default();
            part.iter().for_each(|delta| bits.push(delta.cast_unsigned(), width, out));
            bits.flush(out);
        }
    }
}

/// Packs numbers into bytes, the lowest bits first.
#[derive(Default)]
struct Bits {
    bits: u64,
    len: u32,
}

impl Bits {
    /// Of `number` no bit past `width` is set.
    #[inline]
    fn push(&mut self, number: u64, width: u8, out: &mut Vec<u8>) {
        self.bits |= number << self.len;
        let len = self.len + u32::from(width);
        if len < 64 {
            self.len = len;
            return;
        }
        out.extend_from_slice(&self.bits.to_le_bytes());
        self.bits = number.checked_shr(64 - self.len).unwrap_or(0);
        self.len = len - 64;
    }

    fn flush(self, out: &mut Vec<u8>) {
        let bytes = usize::try_from(self.len.div_ceil(8)).unwrap_or(0);
        out.extend(self.bits.to_le_bytes().into_iter().take(bytes));
    }
}

/// Bits that a number takes.
fn width(number: u64) -> u8 {
    u8::try_from(64 - number.leading_zeros()).unwrap_or(64)
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
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

    use std::format;

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

    /// Numbers that are as good as random, and the same each time.
    fn random(seed: u64) -> impl Iterator<Item = i64> {
        let mut state = seed | 1;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.cast_signed()
        })
    }

    /// Columns of every kind that there is, `rows` long.
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

    /// Writes the batches as one file and gives its bytes.
    fn written(batches: &[RecordBatch], places: Option<&[u32]>, how: Values) -> Bytes {
        let level = ZstdLevel::try_new(1).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
        let (mut file, _) = writer.into_serialized_writer().unwrap();
        let columns = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group().unwrap();
        let mut encoder = ColumnEncoder::new(level).unwrap();
        for (index, descr) in columns.into_iter().enumerate() {
            let parts: Vec<_> = batches.iter().map(|b| b.column(index)).collect();
            encoder.write(&mut group, descr, &parts, places, how, false).unwrap();
        }
        group.close().unwrap();
        file.into_inner().unwrap().into()
    }

    #[test]
    fn any_column_is_read_as_it_was_written() {
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
    fn a_footer_tells_the_range_of_a_column_and_of_its_pages() {
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
