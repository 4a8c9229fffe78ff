//! The tables of the format as DataFusion table providers. A scan reads the segments and pages that the filters' time ranges
//! and task ids select.
//!
//! Footers are read once, on all threads, at the first scan. Their statistics are passed to DataFusion, which computes counts,
//! minima and maxima from them. Segments are distributed to partitions so that no two of a partition overlap, which makes
//! each partition sorted.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
    thread,
};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch, StringArray},
    compute::SortOptions,
    datatypes::{DataType, Field, FieldRef, Int64Type, SchemaRef},
};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, DFSchema, ScalarValue, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource, parquet::ParquetRowSelection,
        },
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::{DataFusionError, Result},
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column},
    physical_plan::{ExecutionPlan, empty::EmptyExec, metrics::ExecutionPlanMetricsSet},
};
use futures::{FutureExt as _, future::BoxFuture};
use hud_common::session::{self, Table, scan_verified};
use parquet::{
    arrow::{
        arrow_reader::{ArrowReaderOptions, RowSelection},
        async_reader::AsyncFileReader,
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use crate::{
    query::pruning::Predicate,
    source::{
        page_reader,
        segment_cache::{self, OpenSegment, SegmentCache},
        snapshot::Segment,
        zone_map::{Interval, Page, ZoneMap, joined, pages},
    },
    threads::{in_order, threads},
};

/// Columns that identify the session of a row, over several sessions.
pub(crate) const LABELS: [&str; 2] = ["host", "session"];
/// Maximum number of sorted partitions; beyond it a sort is cheaper than the merge.
const MOST_PARTITIONS: usize = 32;

/// A table's segments of one session, with their statistics.
#[derive(Debug)]
pub(crate) struct TableSegments {
    table: Table,
    /// Host and session.
    labels: [String; 2],
    segments: Vec<Segment>,
    cache: Arc<SegmentCache>,
    zones: OnceLock<Vec<ZoneMap>>,
}

impl TableSegments {
    pub(crate) fn new(table: Table, labels: [String; 2], segments: Vec<Segment>, cache: Arc<SegmentCache>) -> Self {
        TableSegments { table, labels, segments, cache, zones: OnceLock::new() }
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    /// The statistics of each segment.
    pub(crate) fn zone_maps(&self) -> Result<&[ZoneMap], Arc<session::Error>> {
        if let Some(zones) = self.zones.get() {
            return Ok(zones);
        }
        let zones = self.read_zones();
        self.cache.progress.clear();
        let zones = zones.map_err(|error| self.cache.record(error))?;
        Ok(self.zones.get_or_init(|| zones))
    }

    fn read_zones(&self) -> session::Result<Vec<ZoneMap>> {
        let progress = &self.cache.progress;
        progress.expect(self.segments.len());
        let read = |segments: &[Segment]| -> session::Result<Vec<ZoneMap>> {
            let zones = segments.iter().map(|segment| {
                let zones = ZoneMap::of(self.table, &segment_cache::footer(segment)?);
                progress.step();
                Ok(zones)
            });
            zones.collect()
        };
        let each = self.segments.len().div_ceil(threads()).max(16);
        if self.segments.len() <= each {
            return read(&self.segments);
        }
        thread::scope(|scope| {
            let parts: Vec<_> = self.segments.chunks(each).map(|some| scope.spawn(|| read(some))).collect();
            let mut all = Vec::with_capacity(self.segments.len());
            for part in parts {
                all.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    }

    /// Calls `each` for all rows of these columns.
    pub(crate) fn scan(
        &self,
        columns: &[&str],
        mut each: impl FnMut(&RecordBatch) -> session::Result<()>,
    ) -> Result<(), Arc<session::Error>> {
        let progress = &self.cache.progress;
        progress.expect(self.segments.len());
        let read = |segment: &Segment| {
            let mut batches = Vec::new();
            let file = segment.open()?;
            scan_verified(self.table, file, columns, |batch| {
                batches.push(batch.clone());
                Ok(())
            })?;
            progress.step();
            Ok(batches)
        };
        let take = |_: &Segment, read: session::Result<Vec<RecordBatch>>| read?.iter().try_for_each(&mut each);
        let done = in_order(&self.segments, read, take);
        progress.clear();
        done.map_err(|error| self.cache.record(error))
    }

    /// Estimated number of rows with keys in `[from, to]`: keys are assumed to be uniformly distributed within a segment.
    pub(crate) fn rows_within(&self, from: i64, to: i64) -> Result<u64, Arc<session::Error>> {
        let of = |zones: &ZoneMap| {
            let Some((first, last)) = zones.keys else { return 0 };
            let whole = i128::from(last) - i128::from(first) + 1;
            let part = i128::from(last.min(to)) - i128::from(first.max(from)) + 1;
            let rows = i128::try_from(zones.rows).unwrap_or(0) * part.max(0) / whole.max(1);
            u64::try_from(rows).unwrap_or(0)
        };
        Ok(self.zone_maps()?.iter().map(of).sum())
    }

    /// Minimum and maximum key; `None` without rows.
    pub(crate) fn keys(&self) -> Result<Option<(i64, i64)>, Arc<session::Error>> {
        let keys = self.zone_maps()?.iter().filter_map(|zones| zones.keys);
        Ok(keys.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
    }
}

/// A table over one session or several.
pub(crate) struct SegmentTable {
    table: Table,
    schema: TableSchema,
    sources: Vec<Arc<TableSegments>>,
}

impl fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentTable({}, {} sessions)", self.table.name(), self.sources.len())
    }
}

impl SegmentTable {
    /// With `labelled`, rows have host and session as columns.
    pub(crate) fn new(table: Table, sources: Vec<Arc<TableSegments>>, labelled: bool) -> Self {
        let labels = if labelled { LABELS.as_slice() } else { &[] };
        let labels: Vec<FieldRef> =
            labels.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, false))).collect();
        let schema = TableSchema::builder(table.schema()).with_table_partition_cols(labels).build();
        SegmentTable { table, schema, sources }
    }

    /// Estimated number of events in the filters' time range; 0 for a table of names.
    pub(crate) fn events(&self, state: &dyn Session, filters: &[Expr]) -> Result<u64> {
        if !self.table.expires() {
            return Ok(0);
        }
        let (first, last) = Predicate::of(filters, self.table.key()).keys();
        let sources = self.admitted(state, filters)?.into_iter();
        sources.map(|source| source.rows_within(first, last).map_err(external)).sum()
    }

    fn is_labelled(&self) -> bool {
        !self.schema.table_partition_cols().is_empty()
    }

    /// The sessions that the filters on host and session select.
    fn admitted(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&Arc<TableSegments>>> {
        let all: Vec<_> = self.sources.iter().collect();
        if !self.is_labelled() {
            return Ok(all);
        }
        let schema = Arc::new(arrow::datatypes::Schema::new(
            LABELS.map(|name| Field::new(name, DataType::Utf8, false)).to_vec(),
        ));
        let column = |place: usize| -> Arc<StringArray> {
            Arc::new(all.iter().map(|source| source.labels.get(place).map(String::as_str)).collect())
        };
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column(0), column(1)])?;
        let df_schema = DFSchema::try_from(schema)?;
        let mut is_in = vec![true; all.len()];
        let concerns_labels = |filter: &&Expr| {
            let columns = filter.column_refs();
            !columns.is_empty() && columns.iter().all(|column| LABELS.contains(&column.name.as_str()))
        };
        for filter in filters.iter().filter(concerns_labels) {
            let bare = datafusion::logical_expr::expr_rewriter::unnormalize_col(filter.clone());
            let bare = datafusion::common::tree_node::TreeNode::transform(bare, |expr| {
                Ok(match expr {
                    Expr::Column(column) => datafusion::common::tree_node::Transformed::yes(Expr::Column(
                        datafusion::common::Column::new_unqualified(column.name),
                    )),
                    other => datafusion::common::tree_node::Transformed::no(other),
                })
            })?
            .data;
            let value = state.create_physical_expr(bare, &df_schema)?.evaluate(&batch)?;
            let value = value.into_array(all.len())?;
            let Some(value) = value.as_boolean_opt() else { continue };
            for (place, is_in) in is_in.iter_mut().enumerate() {
                *is_in &= value.is_valid(place) && value.value(place);
            }
        }
        Ok(all.into_iter().zip(is_in).filter(|(_, is_in)| *is_in).map(|(source, _)| source).collect())
    }

    /// The segments that may contain rows of the result, and their rows if only a part may. All keys of these rows are in the
    /// predicate's range.
    fn chosen(
        &self,
        sources: &[&Arc<TableSegments>],
        predicate: &Predicate,
    ) -> Result<Vec<Chosen>, Arc<session::Error>> {
        let mut chosen = Vec::new();
        for source in sources {
            for (segment, zones) in source.segments.iter().zip(source.zone_maps()?) {
                if !predicate.admits_segment(zones) {
                    continue;
                }
                let mut rows = None;
                if !predicate.contains(zones) && zones.rows > 0 {
                    let opened = source.cache.get(segment.table, segment.number, || segment.open());
                    let admitted = opened.and_then(|opened| admitted(self.table, zones, &opened, predicate));
                    let admitted = admitted.map_err(|error| source.cache.record(error))?;
                    if admitted.is_empty() {
                        continue;
                    }
                    rows = Some(admitted).filter(|rows| !matches!(rows.as_slice(), [all] if all.len() == zones.rows));
                }
                chosen.push(Chosen { source: Arc::clone(source), segment: segment.clone(), zones: *zones, rows });
            }
        }
        Ok(chosen)
    }

    /// A segment's statistics for DataFusion.
    fn statistics(&self, chosen: &Chosen) -> Statistics {
        // If only a part of the segment is read, its minima and maxima are estimates.
        let precision = |value: ScalarValue| match chosen.rows {
            None => Precision::Exact(value),
            Some(_) => Precision::Inexact(value),
        };
        let rows: usize = match &chosen.rows {
            None => chosen.zones.rows,
            Some(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
        };
        let columns = self.table.columns().into_iter().map(|column| match chosen.zones.keys {
            Some((least, greatest)) if column.name == self.table.key() => ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: precision(ScalarValue::Int64(Some(least))),
                max_value: precision(ScalarValue::Int64(Some(greatest))),
                ..ColumnStatistics::new_unknown()
            },
            // By this a view limits how long before its time range a row may begin.
            Some((_, greatest)) if column.name == "dur" && chosen.zones.interval.last < i64::MAX => ColumnStatistics {
                max_value: precision(ScalarValue::Int64(Some(chosen.zones.interval.last.saturating_sub(greatest)))),
                ..ColumnStatistics::new_unknown()
            },
            _ => ColumnStatistics::new_unknown(),
        });
        Statistics {
            num_rows: if chosen.rows.is_none() { Precision::Exact(rows) } else { Precision::Inexact(rows) },
            // Size in memory, where nearly every column is numeric. A join builds its hash table from the smaller side.
            total_byte_size: Precision::Inexact(rows.saturating_mul(self.table.columns().len()).saturating_mul(8)),
            column_statistics: columns.collect(),
        }
    }

    /// The statistics of all segments of a scan, with the labels.
    fn statistics_of_all(&self, chosen: &[Chosen]) -> Result<Statistics> {
        let each: Vec<_> = chosen.iter().map(|chosen| self.statistics(chosen)).collect();
        let mut all = Statistics::try_merge_iter(&each, &self.table.schema())?;
        let labels = self.schema.table_partition_cols().iter();
        all.column_statistics.extend(labels.map(|_| ColumnStatistics::new_unknown()));
        Ok(all)
    }

    fn file(&self, chosen: Chosen) -> PartitionedFile {
        let statistics = Arc::new(self.statistics(&chosen));
        let Chosen { source, segment, zones, rows } = chosen;
        let labels = if self.is_labelled() { source.labels.as_slice() } else { &[] };
        let name = format!("{}/{:06}.parquet", self.table.name(), segment.number);
        let mut file = PartitionedFile::new(name, segment.size)
            .with_partition_values(labels.iter().map(|label| ScalarValue::from(label.as_str())).collect())
            .with_statistics(statistics);
        if let Some(ranges) = rows {
            let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), zones.rows);
            file = file.with_extension(ParquetRowSelection::new(selection));
        }
        file.with_extension(Located { segment, cache: Arc::clone(&source.cache) })
    }
}

/// A segment of a scan.
struct Chosen {
    source: Arc<TableSegments>,
    segment: Segment,
    zones: ZoneMap,
    /// `None` for all.
    rows: Option<Vec<Range<usize>>>,
}

/// The rows of a segment that `predicate` admits: by `ts + dur` with the granularity of pages; by keys exactly, for which the
/// keys of pages at the limits are read, so that DataFusion need not evaluate filters on keys.
fn admitted(
    table: Table,
    zones: &ZoneMap,
    opened: &OpenSegment,
    predicate: &Predicate,
) -> session::Result<Vec<Range<usize>>> {
    let everywhere = || vec![Page { rows: 0..zones.rows, keys: (i64::MIN, i64::MAX), interval: Interval::EVERYWHERE }];
    let pages = pages(table, opened.metadata.metadata()).unwrap_or_else(everywhere);
    let mut rows = Vec::new();
    for page in pages.into_iter().filter(|page| predicate.admits_page(page)) {
        if predicate.admits_key(page.keys.0) && predicate.admits_key(page.keys.1) {
            rows.push(page.rows);
            continue;
        }
        let damaged = |error: ParquetError| session::Error::damaged(opened.file.path())(error);
        let mut at = page.rows.start;
        for batch in page_reader::read(opened.file.clone(), &opened.metadata, &[table.key()], vec![page.rows])
            .map_err(&damaged)?
        {
            let batch = batch.map_err(&damaged)?;
            let keys = batch.column_by_name(table.key()).and_then(|keys| keys.as_primitive_opt::<Int64Type>());
            let keys =
                keys.ok_or_else(|| damaged(ParquetError::General(format!("it has no column {}", table.key()))))?;
            let mut begin = None;
            for (row, key) in keys.iter().enumerate() {
                let is_in = key.is_some_and(|key| predicate.admits_key(key));
                match begin {
                    None if is_in => begin = Some(at + row),
                    Some(first) if !is_in => {
                        rows.push(first..at + row);
                        begin = None;
                    }
                    _ => {}
                }
            }
            at += batch.num_rows();
            rows.extend(begin.map(|first| first..at));
        }
    }
    Ok(joined(rows.into_iter()))
}

/// Distributes segments with these minimum and maximum keys to partitions in which none overlaps the next: `target`
/// partitions, or the least larger number that is possible; `None` if that is more than `most`.
///
/// `FileScanConfig::split_groups_by_statistics_with_target_partitions` does the same without a maximum, and compares each
/// segment with each partition: 20,000 overlapping segments took it a minute.
fn distribute(keys: &[(i64, i64)], target: usize, most: usize) -> Option<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|index| keys.get(*index));
    // Maximum key and segments of each partition.
    let mut partitions: Vec<(Option<i64>, Vec<usize>)> = vec![(None, Vec::new()); target.max(1)];
    for index in order {
        let (least, greatest) = *keys.get(index)?;
        let fits = |end: &Option<i64>| end.is_none_or(|end| end < least);
        match partitions.iter_mut().filter(|(end, _)| fits(end)).min_by_key(|(_, partition)| partition.len()) {
            Some((end, partition)) => {
                *end = Some(greatest);
                partition.push(index);
            }
            None => partitions.push((Some(greatest), vec![index])),
        }
        if partitions.len() > most {
            return None;
        }
    }
    Some(partitions.into_iter().map(|(_, partition)| partition).filter(|partition| !partition.is_empty()).collect())
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Of several sessions it is not known yet which ones the filters select.
        let zones: Option<Vec<_>> = match self.sources.as_slice() {
            [source] => source.zone_maps().ok().map(|zones| vec![zones]),
            _ => None,
        };
        // A scan applies limits of keys exactly, and the statistics may prove a filter for every row. DataFusion then neither
        // evaluates such a filter nor reads columns for it.
        let is_proven = |filter: &Expr| {
            let zones = zones.as_ref();
            zones.is_some_and(|zones| {
                Predicate::is_implied_by(filter, self.table.key(), zones.iter().copied().flatten())
            })
        };
        let support = |filter: &&Expr| match Predicate::is_keys_only(filter, self.table.key()) || is_proven(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = Predicate::of(filters, self.table.key());
        let sources = self.admitted(state, filters)?;
        let chosen = self.chosen(&sources, &predicate).map_err(external)?;
        if chosen.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let keys: Option<Vec<_>> = chosen.iter().map(|chosen| chosen.zones.keys).collect();
        let target = state.config().target_partitions().max(1);
        let partitions = keys.and_then(|keys| distribute(&keys, target, MOST_PARTITIONS.max(target)));
        let key = self.schema.table_schema().index_of(self.table.key())?;
        let options = SortOptions { descending: false, nulls_first: false };
        let by_key = PhysicalSortExpr::new(Arc::new(Column::new(self.table.key(), key)), options);
        let order = LexOrdering::new([by_key]).filter(|_| partitions.is_some());
        let statistics = self.statistics_of_all(&chosen)?;
        let files: Vec<_> = chosen.into_iter().map(|chosen| self.file(chosen)).collect();
        let groups = match partitions {
            None => FileGroup::new(files).split_files(target),
            Some(partitions) => {
                let of = |partition: Vec<usize>| {
                    partition.into_iter().filter_map(|index| files.get(index).cloned()).collect()
                };
                partitions.into_iter().map(|partition| FileGroup::new(of(partition))).collect()
            }
        };
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(state.default_table_options().parquet)
            .with_parquet_file_reader_factory(Arc::new(Readers));
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_statistics(statistics)
            .with_output_ordering(order.into_iter().collect());
        Ok(DataSourceExec::from_data_source(scan.build()))
    }
}

pub(crate) fn external(error: Arc<session::Error>) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The segment of a file in a scan.
#[derive(Clone, Debug)]
struct Located {
    segment: Segment,
    cache: Arc<SegmentCache>,
}

/// Creates readers of segments for DataFusion, which verify checksums of the bytes that they return.
#[derive(Debug)]
struct Readers;

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let located = file.extension::<Located>().cloned();
        let located = located.ok_or_else(|| DataFusionError::Internal("a file of a scan is not a segment".into()))?;
        Ok(Box::new(Reader(located)))
    }
}

struct Reader(Located);

impl Reader {
    fn with<T>(&self, read: impl FnOnce(OpenSegment) -> session::Result<T>) -> parquet::errors::Result<T> {
        let Located { segment, cache } = &self.0;
        let read = cache.get(segment.table, segment.number, || segment.open()).and_then(read);
        read.map_err(|error| ParquetError::External(Box::new(cache.record(error))))
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.with(|opened| opened.file.read(range)) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.with(|opened| opened.file.read_ranges(&ranges)) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { self.with(|opened| Ok(Arc::clone(opened.metadata.metadata()))) }.boxed()
    }
}
