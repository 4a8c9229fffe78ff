//! Sealing: turns a log into a sorted, compressed Parquet segment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch, UInt32Array},
    compute::{concat, take},
    datatypes::Int64Type,
    error::ArrowError,
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::compute_leaves},
    basic::{Compression, ZstdLevel},
    file::{
        metadata::{KeyValue, ParquetMetaData, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
        statistics::Statistics,
    },
};

use super::{
    SessionDir, Table, VerifiedFile, checksum,
    column::{self, ColumnEncoder, Learned, Manner, Values},
    error::{Error, Result},
    inflight::Cut,
    scan::open_verified,
};

/// A sealed segment.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its file.
    pub path: PathBuf,
    /// Its rows.
    pub rows: u64,
    /// Its size (bytes).
    pub bytes: u64,
    /// Bytes of the incomplete frame at the log's end, which are not in the segment. Not 0 if the log was damaged: its writer
    /// died, or the disk failed.
    pub cut_bytes: u64,
    /// The smallest value of the table's key; a time if [`Table::expires`].
    pub first_ts: i64,
    /// The largest.
    pub last_ts: i64,
}

/// The result of sealing a log.
#[derive(Clone, Debug)]
pub(super) struct Salvaged {
    /// The segment; `None` if the log had no complete row: no segment is empty.
    pub(super) sealed: Option<Sealed>,
    /// The incomplete part of the log.
    pub(super) cut: Option<Cut>,
}

/// Seals segment `number` of `table`: sorts the rows of its log by the table's key, writes them as Parquet beside it,
/// makes that durable, and then removes the log. `None` if the log has no row: no segment is empty. On failure the
/// log is unchanged, and sealing may be tried again.
pub fn seal(session: &SessionDir, table: Table, number: u32) -> Result<Option<Sealed>> {
    let log = session.log(table, number);
    let salvaged = seal_log(session, table, number, false)?;
    match salvaged {
        Salvaged { sealed: Some(sealed), .. } => Ok(Some(sealed)),
        Salvaged { sealed: None, cut: None } => Ok(None),
        Salvaged { sealed: None, cut: Some(cut) } => Err(Error::Damaged { path: log, why: cut.why }),
    }
}

/// Like [`seal`], with the rows that were appended to the log, if they are still in memory: damage to the log then loses
/// nothing. They are dropped once they are encoded, before the segment is written.
pub fn seal_rows(
    encoder: &mut Encoder,
    session: &SessionDir,
    table: Table,
    number: u32,
    rows: impl AsRef<[RecordBatch]>,
) -> Result<Option<Sealed>> {
    put(encoder, session, table, number, rows, 0)
}

/// Like [`seal`]. A log that is not empty but has no complete row is removed only if `and_damaged`.
pub(super) fn seal_log(session: &SessionDir, table: Table, number: u32, and_damaged: bool) -> Result<Salvaged> {
    let mut reader = session.open_log(table, number)?;
    let batches = reader.by_ref().collect::<Result<Vec<_>>>()?;
    let cut = reader.cut().cloned();
    if reader.rows() == 0 && cut.is_some() && !and_damaged {
        return Ok(Salvaged { sealed: None, cut });
    }
    let cut_bytes = cut.as_ref().map_or(0, |c| c.bytes);
    Ok(Salvaged { sealed: put(&mut Encoder::default(), session, table, number, batches, cut_bytes)?, cut })
}

/// Replaces a log by a segment of `rows`.
fn put(
    encoder: &mut Encoder,
    session: &SessionDir,
    table: Table,
    number: u32,
    rows: impl AsRef<[RecordBatch]>,
    cut_bytes: u64,
) -> Result<Option<Sealed>> {
    let log = session.log(table, number);
    let encoded =
        encoder.encode_at(table, session.place(table, number), rows.as_ref()).map_err(Error::damaged(&log))?;
    drop(rows);
    let sealed = match encoded {
        None => None,
        Some(encoded) => Some(Sealed {
            path: session.write_segment(table, number, &encoded.data)?,
            rows: encoded.rows,
            bytes: encoded.data.len() as u64,
            cut_bytes,
            first_ts: encoded.first_key,
            last_ts: encoded.last_key,
        }),
    };
    session.remove_log(table, number)?;
    Ok(sealed)
}

/// A segment's bytes.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The Parquet file.
    pub data: Vec<u8>,
    /// Its rows.
    pub rows: u64,
    /// The smallest value of the table's key.
    pub first_key: i64,
    /// The largest.
    pub last_key: i64,
}

/// Encodes `batches` as a segment, sorted by the table's key, with checksums; `None` if they have no row. The whole segment
/// is held in memory: 1 MB for a log of 128 k rows.
pub fn encode(table: Table, batches: &[RecordBatch]) -> Result<Option<Encoded>, ArrowError> {
    Encoder::default().encode(table, batches)
}

/// The same, for segment `number` of a session.
pub fn encode_for(
    session: &SessionDir,
    table: Table,
    number: u32,
    batches: &[RecordBatch],
) -> Result<Option<Encoded>, ArrowError> {
    Encoder::default().encode_at(table, session.place(table, number), batches)
}

/// Encodes segments. To be reused: it has some megabytes of buffers, which would otherwise be allocated and zeroed for each
/// segment.
#[derive(Default)]
pub struct Encoder {
    /// From the first segment on.
    columns: Option<ColumnEncoder>,
    /// By table and column.
    learned: BTreeMap<(Table, usize), Learned>,
    order: Vec<(i64, u32)>,
    places: Vec<u32>,
}

impl Encoder {
    /// Like [`encode`].
    pub fn encode(&mut self, table: Table, batches: &[RecordBatch]) -> Result<Option<Encoded>, ArrowError> {
        self.encode_at(table, None, batches)
    }

    /// The same, with the place of the segment.
    fn encode_at(
        &mut self,
        table: Table,
        place: Option<String>,
        batches: &[RecordBatch],
    ) -> Result<Option<Encoded>, ArrowError> {
        let schema = table.schema();
        let key = schema.index_of(table.key())?;
        let Encoder { columns, learned, order, places } = self;
        order.clear();
        order.reserve(batches.iter().map(RecordBatch::num_rows).sum());
        let mut is_sorted = true;
        for batch in batches {
            if batch.num_columns() != schema.fields().len() {
                return Err(ArrowError::SchemaError("a batch is not of the table's schema".into()));
            }
            let keys = batch
                .columns()
                .get(key)
                .and_then(|c| c.as_primitive_opt::<Int64Type>())
                .ok_or_else(|| ArrowError::SchemaError("a key is no integer".into()))?;
            let before = u32::try_from(order.len());
            let first_row =
                before.map_err(|_| ArrowError::InvalidArgumentError("a segment has too many rows".into()))?;
            let mut last = order.last().map_or(i64::MIN, |(last, _)| *last);
            order.extend((first_row..).zip(keys.values()).map(|(row, &key)| {
                is_sorted &= last <= key;
                last = key;
                (key, row)
            }));
        }
        // Rows with equal keys stay in the order of the log.
        if !is_sorted {
            sort(order);
        }
        let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(None) };
        let (first_key, last_key, rows) = (first.0, last.0, order.len() as u64);
        places.clear();
        if !is_sorted {
            places.extend(order.iter().map(|(_, row)| *row));
        }
        let places = (!is_sorted).then_some(places.as_slice());

        let level = level(table, rows, first_key, last_key);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties(table, level)))?;
        let (mut file, others) = writer.into_serialized_writer()?;
        let descriptions = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group()?;
        let encoder = match columns {
            Some(encoder) => encoder,
            none => none.insert(ColumnEncoder::new(level)?),
        };
        encoder.set_level(level)?;
        // The crate's writers are created only if they are needed: each has buffers and two zstd contexts.
        let mut others = match schema.fields().iter().all(|field| column::is_ours(field.data_type())) {
            true => Vec::new(),
            false => others.create_column_writers(0)?,
        }
        .into_iter();
        // One column after the other, so that the working set stays in the caches.
        for (index, (field, description)) in schema.fields().iter().zip(descriptions).enumerate() {
            let other = others.next();
            let parts: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(index)).collect();
            if column::is_ours(field.data_type()) {
                let manner = Manner {
                    values: values(table, field.name()),
                    is_key: index == key,
                    learned: learned.entry((table, index)).or_default(),
                };
                encoder.write(&mut group, description, &parts, places, manner)?;
                continue;
            }
            let mut other = other.ok_or_else(|| ArrowError::ParquetError("a column has no writer".into()))?;
            let mut write = |array: &ArrayRef| -> Result<(), ArrowError> {
                Ok(compute_leaves(field, array)?.iter().try_for_each(|leaf| other.write(leaf))?)
            };
            match places {
                None => parts.iter().try_for_each(|array| write(array))?,
                Some(places) => {
                    let parts: Vec<&dyn Array> = parts.iter().map(|array| array.as_ref()).collect();
                    let places = UInt32Array::from(places.to_vec());
                    write(&take(&concat(&parts)?, &places, None)?)?;
                }
            }
            other.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        // All data pages are written, indexes and footer are not.
        file.flush()?;
        let data_end = file.inner().len();
        let blocks = checksum::blocks(file.inner());
        if let Some(place) = place {
            file.append_key_value_metadata(KeyValue::new(checksum::PLACE.into(), place));
        }
        file.append_key_value_metadata(KeyValue::new(checksum::BLOCKS.into(), blocks));
        file.append_key_value_metadata(KeyValue::new(checksum::TAIL.into(), String::from(checksum::UNKNOWN)));
        let mut data = file.into_inner()?;
        data.get_mut(data_end..)
            .and_then(checksum::sign)
            .ok_or_else(|| ArrowError::ParquetError("the footer has no place for its checksum".into()))?;
        Ok(Some(Encoded { data, rows, first_key, last_key }))
    }
}

/// Sorts rows that are almost sorted: events arrive in the order of their ends, and most are short, so a row is a few
/// positions from its place. An insertion sort costs an eighth of a full sort, which is the fallback.
fn sort(order: &mut [(i64, u32)]) {
    let mut moves = order.len().saturating_mul(8);
    for end in 1..order.len() {
        // Earlier rows have smaller positions already, so comparing keys is enough.
        let Some((before, &mut [row, ..])) = order.split_at_mut_checked(end) else { return };
        let late = before.iter().rev().take_while(|(key, _)| *key > row.0).take(moves + 1).count();
        if late == 0 {
            continue;
        }
        if late > moves {
            return order.sort_unstable();
        }
        moves -= late;
        if let Some(shifted) = order.get_mut(end - late..=end) {
            shifted.rotate_right(1);
        }
    }
}

/// Properties of segments: zstd ([`level`]), and for each column the encoding that was the smallest on recordings of real
/// programs, among those that every engine reads (bytes per row of `polls` and of `off_cpu`, of test-async-app unless stated
/// otherwise):
///
/// - times delta-packed: `ts` 2.3 and 2.8, plain 2.4 and 3.1;
/// - durations by a dictionary in ascending order, `dur` of `polls` 1.6, in order of appearance 1.9, plain 2.0, delta-packed
///   3.1; its indices in whole bytes if that is smaller, `wake_delay` of the service 2.1, plain 2.5; or plain:
///   `dur` and `run_queue` of `off_cpu` 3.6 and 2.1, `wake_delay` of `polls` 2.6, delta-packed 3.6, 2.3 and 2.7;
/// - ids and text by a dictionary; ids plain if that is smaller: `task_id` 0.8, by a dictionary 1.1, delta-packed 1.4.
///
/// BYTE_STREAM_SPLIT would be smaller than plain by a tenth, but DuckDB 1.4 cannot read it for integers.
///
/// Pages carry their own minima and maxima, so that a reader of a time range skips the others.
fn properties(table: Table, level: ZstdLevel) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(String::from(concat!("hud ", env!("CARGO_PKG_VERSION"))))
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(4096);
    let columns = table.columns();
    let key = columns.iter().position(|c| c.name == table.key()).unwrap_or(0);
    properties = properties.set_sorting_columns(Some(vec![SortingColumn {
        column_idx: i32::try_from(key).unwrap_or(0),
        descending: false,
        nulls_first: false,
    }]));
    properties.build()
}

/// Rows per second up to which a stronger compression costs 0.2 % of a CPU at most.
const SLOW: u64 = 2000;

/// Encodings considered for a column of integers.
fn values(table: Table, column: &str) -> Values {
    match column {
        name if name == table.key() => Values::Delta,
        "dur" | "blocked" | "run_queue" | "wake_delay" => Values::DictionaryOrPlain,
        _ => Values::DictionaryOrDelta,
    }
}

/// A stronger compression for slow streams: 1 µs per row instead of 0.2, and 3 % fewer bytes.
fn level(table: Table, rows: u64, first: i64, last: i64) -> ZstdLevel {
    let seconds = last.abs_diff(first) / 1_000_000_000;
    let is_slow = table.expires() && rows / SLOW <= seconds;
    ZstdLevel::try_new(if is_slow { 7 } else { 1 }).unwrap_or_default()
}

/// Statistics in a sealed segment's footer.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo {
    /// Its rows.
    pub rows: u64,
    /// Its size (bytes).
    pub bytes: u64,
    /// The smallest value of the table's key; a time if [`Table::expires`].
    pub first_ts: i64,
    /// The largest.
    pub last_ts: i64,
}

/// Reads only the footer of a sealed segment.
pub fn segment_info(table: Table, path: &Path) -> Result<SegmentInfo> {
    verified_info(table, VerifiedFile::open(path)?)
}

/// Like [`segment_info`], for an open file.
pub fn verified_info(table: Table, file: VerifiedFile) -> Result<SegmentInfo> {
    Ok(info_and_longest(table, file)?.0)
}

/// The same, and the duration of its longest event; 0 if its rows have no duration.
pub(super) fn info_and_longest(table: Table, file: VerifiedFile) -> Result<(SegmentInfo, i64)> {
    let (path, bytes) = (file.path().to_path_buf(), file.size());
    let reader = open_verified(table, file)?;
    let damaged = |why: &str| Error::Damaged { path: path.clone(), why: why.into() };
    let metadata = reader.metadata();
    let (first_ts, last_ts) =
        column_range(metadata, table.key()).ok_or_else(|| damaged("its footer has no statistics of its key"))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).map_err(|_| damaged("its footer counts no rows"))?;
    let longest = column_range(metadata, "dur").map_or(0, |(_, most)| most.max(0));
    Ok((SegmentInfo { rows, bytes, first_ts, last_ts }, longest))
}

/// The smallest and the largest integer of a column of a sealed segment, from its footer; `None` if that has no statistics.
pub(super) fn range(table: Table, file: VerifiedFile, column: &str) -> Result<Option<(i64, i64)>> {
    Ok(column_range(open_verified(table, file)?.metadata(), column))
}

fn column_range(metadata: &ParquetMetaData, column: &str) -> Option<(i64, i64)> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    // A list's items lie below it.
    let leaf = leaves.iter().position(|c| c.path().parts().first().is_some_and(|name| name == column))?;
    let mut range: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let Some(Statistics::Int64(s)) = group.columns().get(leaf).and_then(|c| c.statistics()) else { return None };
        match (s.min_opt(), s.max_opt()) {
            (Some(&min), Some(&max)) => range = Some(range.map_or((min, max), |(a, b)| (a.min(min), b.max(max)))),
            _ if s.null_count_opt() == u64::try_from(group.num_rows()).ok() => {}
            _ => return None,
        }
    }
    range
}
