//! A table of sessions to DataFusion: their segments, of which a query reads those that its conditions on time admit, and
//! of these the pages that they admit.
//!
//! Footers are read once, by all threads, when a table is first asked for. What they say is handed on: counts and
//! extremes are answered from it, and segments are dealt out to streams in which none overlaps the next, so that each is
//! known to be sorted.

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
    bounds::Bounds,
    packed,
    shelf::{self, Opened, Shelf},
    snapshot::Segment,
    span::{Facts, Page, Span, joined, pages},
    threads::{in_order, threads},
};

/// The columns that tell sessions apart where there are several.
pub(crate) const LABELS: [&str; 2] = ["host", "session"];
/// Streams that sorted segments are dealt out to at most; with more of them, a sort is cheaper than the merge.
const MOST_STREAMS: usize = 32;

/// A table's segments of one session, and what their footers say.
#[derive(Debug)]
pub(crate) struct Source {
    table: Table,
    /// Host and session.
    labels: [String; 2],
    segments: Vec<Segment>,
    shelf: Arc<Shelf>,
    facts: OnceLock<Vec<Facts>>,
}

impl Source {
    pub(crate) fn new(table: Table, labels: [String; 2], segments: Vec<Segment>, shelf: Arc<Shelf>) -> Self {
        Source { table, labels, segments, shelf, facts: OnceLock::new() }
    }

    pub(crate) fn table(&self) -> Table {
        self.table
    }

    /// What each segment's footer says, in the order of the segments.
    pub(crate) fn facts(&self) -> Result<&[Facts], Arc<session::Error>> {
        if let Some(facts) = self.facts.get() {
            return Ok(facts);
        }
        let facts = self.read_facts();
        self.shelf.progress.clear();
        let facts = facts.map_err(|error| self.shelf.fail(error))?;
        Ok(self.facts.get_or_init(|| facts))
    }

    fn read_facts(&self) -> session::Result<Vec<Facts>> {
        let progress = &self.shelf.progress;
        progress.expect(self.segments.len());
        let read = |segments: &[Segment]| -> session::Result<Vec<Facts>> {
            let facts = segments.iter().map(|segment| {
                let facts = Facts::of(self.table, &shelf::footer(segment)?);
                progress.step();
                Ok(facts)
            });
            facts.collect()
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

    /// Gives `each` all of the table's rows, of these columns.
    pub(crate) fn scan(
        &self,
        columns: &[&str],
        mut each: impl FnMut(&RecordBatch) -> session::Result<()>,
    ) -> Result<(), Arc<session::Error>> {
        let progress = &self.shelf.progress;
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
        done.map_err(|error| self.shelf.fail(error))
    }

    /// About how many rows have their key in a stretch of time, if they are spread evenly over their segments.
    pub(crate) fn rows_within(&self, from: i64, to: i64) -> Result<u64, Arc<session::Error>> {
        let of = |facts: &Facts| {
            let Some((first, last)) = facts.keys else { return 0 };
            let whole = i128::from(last) - i128::from(first) + 1;
            let part = i128::from(last.min(to)) - i128::from(first.max(from)) + 1;
            let rows = i128::try_from(facts.rows).unwrap_or(0) * part.max(0) / whole.max(1);
            u64::try_from(rows).unwrap_or(0)
        };
        Ok(self.facts()?.iter().map(of).sum())
    }

    /// The least key and the greatest; none where there is no row.
    pub(crate) fn keys(&self) -> Result<Option<(i64, i64)>, Arc<session::Error>> {
        let keys = self.facts()?.iter().filter_map(|facts| facts.keys);
        Ok(keys.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
    }
}

/// A table over one session or several.
pub(crate) struct SegmentTable {
    table: Table,
    schema: TableSchema,
    sources: Vec<Arc<Source>>,
}

impl fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentTable({}, {} sessions)", self.table.name(), self.sources.len())
    }
}

impl SegmentTable {
    /// `labelled` says that rows have their host and their session as columns.
    pub(crate) fn new(table: Table, sources: Vec<Arc<Source>>, labelled: bool) -> Self {
        let labels = if labelled { LABELS.as_slice() } else { &[] };
        let labels: Vec<FieldRef> =
            labels.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, false))).collect();
        let schema = TableSchema::builder(table.schema()).with_table_partition_cols(labels).build();
        SegmentTable { table, schema, sources }
    }

    /// About how many events there are that the filters' bounds of time admit; none in a table of names.
    pub(crate) fn events(&self, state: &dyn Session, filters: &[Expr]) -> Result<u64> {
        if !self.table.expires() {
            return Ok(0);
        }
        let (first, last) = Bounds::of(filters, self.table.key()).keys();
        let sources = self.admitted(state, filters)?.into_iter();
        sources.map(|source| source.rows_within(first, last).map_err(external)).sum()
    }

    fn is_labelled(&self) -> bool {
        !self.schema.table_partition_cols().is_empty()
    }

    /// The sources that the conditions on host and session alone admit.
    fn admitted(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&Arc<Source>>> {
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
        let is_of_labels = |filter: &&Expr| {
            let columns = filter.column_refs();
            !columns.is_empty() && columns.iter().all(|column| LABELS.contains(&column.name.as_str()))
        };
        for filter in filters.iter().filter(is_of_labels) {
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

    /// The segments, and of those at the borders the rows, that `bounds` admit: by their keys not one too many.
    fn chosen(&self, sources: &[&Arc<Source>], bounds: &Bounds) -> Result<Vec<Chosen>, Arc<session::Error>> {
        let mut chosen = Vec::new();
        for source in sources {
            for (segment, facts) in source.segments.iter().zip(source.facts()?) {
                if !bounds.admit_segment(facts) {
                    continue;
                }
                let mut rows = None;
                if !bounds.hold_all_of(facts) && facts.rows > 0 {
                    let opened = source.shelf.opened(segment);
                    let admitted = opened.and_then(|opened| admitted(self.table, facts, &opened, bounds));
                    let admitted = admitted.map_err(|error| source.shelf.fail(error))?;
                    if admitted.is_empty() {
                        continue;
                    }
                    rows = Some(admitted).filter(|rows| !matches!(rows.as_slice(), [all] if all.len() == facts.rows));
                }
                chosen.push(Chosen { source: Arc::clone(source), segment: segment.clone(), facts: *facts, rows });
            }
        }
        Ok(chosen)
    }

    /// What DataFusion may know of a segment.
    fn statistics(&self, chosen: &Chosen) -> Statistics {
        // Of a segment of which only a part is read, nothing is exact.
        let told = |value: ScalarValue| match chosen.rows {
            None => Precision::Exact(value),
            Some(_) => Precision::Inexact(value),
        };
        let rows: usize = match &chosen.rows {
            None => chosen.facts.rows,
            Some(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
        };
        let columns = self.table.columns().into_iter().map(|column| match chosen.facts.keys {
            Some((least, greatest)) if column.name == self.table.key() => ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: told(ScalarValue::Int64(Some(least))),
                max_value: told(ScalarValue::Int64(Some(greatest))),
                ..ColumnStatistics::new_unknown()
            },
            // How far back a row may begin that reaches into a window.
            Some((_, greatest)) if column.name == "dur" && chosen.facts.span.last < i64::MAX => ColumnStatistics {
                max_value: told(ScalarValue::Int64(Some(chosen.facts.span.last.saturating_sub(greatest)))),
                ..ColumnStatistics::new_unknown()
            },
            _ => ColumnStatistics::new_unknown(),
        });
        Statistics {
            num_rows: if chosen.rows.is_none() { Precision::Exact(rows) } else { Precision::Inexact(rows) },
            // In memory, where nearly every column is of numbers: by this a join decides which side it keeps.
            total_byte_size: Precision::Inexact(rows.saturating_mul(self.table.columns().len()).saturating_mul(8)),
            column_statistics: columns.collect(),
        }
    }

    /// The same of all of them, with the labels.
    fn statistics_of_all(&self, chosen: &[Chosen]) -> Result<Statistics> {
        let each: Vec<_> = chosen.iter().map(|chosen| self.statistics(chosen)).collect();
        let mut all = Statistics::try_merge_iter(&each, &self.table.schema())?;
        let labels = self.schema.table_partition_cols().iter();
        all.column_statistics.extend(labels.map(|_| ColumnStatistics::new_unknown()));
        Ok(all)
    }

    fn file(&self, chosen: Chosen) -> PartitionedFile {
        let statistics = Arc::new(self.statistics(&chosen));
        let Chosen { source, segment, facts, rows } = chosen;
        let labels = if self.is_labelled() { source.labels.as_slice() } else { &[] };
        let name = format!("{}/{:06}.parquet", self.table.name(), segment.number);
        let mut file = PartitionedFile::new(name, segment.size)
            .with_partition_values(labels.iter().map(|label| ScalarValue::from(label.as_str())).collect())
            .with_statistics(statistics);
        if let Some(ranges) = rows {
            let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), facts.rows);
            file = file.with_extension(ParquetRowSelection::new(selection));
        }
        file.with_extension(Located { segment, shelf: Arc::clone(&source.shelf) })
    }
}

/// A segment of which something is read.
struct Chosen {
    source: Arc<Source>,
    segment: Segment,
    facts: Facts,
    /// None: all.
    rows: Option<Vec<Range<usize>>>,
}

/// The rows of a segment that `bounds` admit. By their ends page by page; by their keys those of pages that lie across a border
/// are read, so that no condition on keys need be asked of a row again.
fn admitted(table: Table, facts: &Facts, opened: &Opened, bounds: &Bounds) -> session::Result<Vec<Range<usize>>> {
    let everywhere = || vec![Page { rows: 0..facts.rows, keys: (i64::MIN, i64::MAX), span: Span::EVERYWHERE }];
    let pages = pages(table, opened.metadata.metadata()).unwrap_or_else(everywhere);
    let mut rows = Vec::new();
    for page in pages.into_iter().filter(|page| bounds.admit_page(page)) {
        if bounds.hold_key(page.keys.0) && bounds.hold_key(page.keys.1) {
            rows.push(page.rows);
            continue;
        }
        let damaged = |error: ParquetError| session::Error::damaged(opened.file.path())(error);
        let mut at = page.rows.start;
        for batch in
            packed::read(opened.file.clone(), &opened.metadata, &[table.key()], vec![page.rows]).map_err(&damaged)?
        {
            let batch = batch.map_err(&damaged)?;
            let keys = batch.column_by_name(table.key()).and_then(|keys| keys.as_primitive_opt::<Int64Type>());
            let keys = keys.ok_or_else(|| damaged(ParquetError::General(format!("it has no {}", table.key()))))?;
            let mut begin = None;
            for (row, key) in keys.iter().enumerate() {
                let is_in = key.is_some_and(|key| bounds.hold_key(key));
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

/// Deals segments with these least and greatest keys out to streams in which each begins after the one before has ended:
/// `target` of them, or as few more as that takes. None where it takes more than `most`.
///
/// `FileScanConfig::split_groups_by_statistics_with_target_partitions` does the same, and compares each segment with each
/// stream first: of 20,000 segments that all overlap that took a minute.
fn deal(keys: &[(i64, i64)], target: usize, most: usize) -> Option<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|place| keys.get(*place));
    // Each with the greatest key of its last segment.
    let mut streams: Vec<(Option<i64>, Vec<usize>)> = vec![(None, Vec::new()); target.max(1)];
    for place in order {
        let (least, greatest) = *keys.get(place)?;
        let fits = |end: &Option<i64>| end.is_none_or(|end| end < least);
        match streams.iter_mut().filter(|(end, _)| fits(end)).min_by_key(|(_, stream)| stream.len()) {
            Some((end, stream)) => {
                *end = Some(greatest);
                stream.push(place);
            }
            None => streams.push((Some(greatest), vec![place])),
        }
        if streams.len() > most {
            return None;
        }
    }
    Some(streams.into_iter().map(|(_, stream)| stream).filter(|stream| !stream.is_empty()).collect())
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
        // Of several sessions it is not known yet which are to be opened.
        let facts: Option<Vec<_>> = match self.sources.as_slice() {
            [source] => source.facts().ok().map(|facts| vec![facts]),
            _ => None,
        };
        // By keys exactly those rows are read. What footers prove of every row need not be asked of any either: columns that
        // only conditions name are then not read.
        let is_proven = |filter: &Expr| {
            let facts = facts.as_ref();
            facts.is_some_and(|facts| Bounds::prove(filter, self.table.key(), facts.iter().copied().flatten()))
        };
        let support = |filter: &&Expr| match Bounds::are_all_of(filter, self.table.key()) || is_proven(filter) {
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
        let bounds = Bounds::of(filters, self.table.key());
        let sources = self.admitted(state, filters)?;
        let chosen = self.chosen(&sources, &bounds).map_err(external)?;
        if chosen.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let keys: Option<Vec<_>> = chosen.iter().map(|chosen| chosen.facts.keys).collect();
        let target = state.config().target_partitions().max(1);
        let streams = keys.and_then(|keys| deal(&keys, target, MOST_STREAMS.max(target)));
        let key = self.schema.table_schema().index_of(self.table.key())?;
        let options = SortOptions { descending: false, nulls_first: false };
        let by_key = PhysicalSortExpr::new(Arc::new(Column::new(self.table.key(), key)), options);
        let order = LexOrdering::new([by_key]).filter(|_| streams.is_some());
        let statistics = self.statistics_of_all(&chosen)?;
        let files: Vec<_> = chosen.into_iter().map(|chosen| self.file(chosen)).collect();
        let groups = match streams {
            None => FileGroup::new(files).split_files(target),
            Some(streams) => {
                let of =
                    |stream: Vec<usize>| stream.into_iter().filter_map(|place| files.get(place).cloned()).collect();
                streams.into_iter().map(|stream| FileGroup::new(of(stream))).collect()
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

/// Where a file of a scan is.
#[derive(Clone, Debug)]
struct Located {
    segment: Segment,
    shelf: Arc<Shelf>,
}

/// Readers of segments for DataFusion: by byte range, each byte checked before it is given.
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
        let located = located.ok_or_else(|| DataFusionError::Internal("a file that is no segment".into()))?;
        Ok(Box::new(Reader(located)))
    }
}

struct Reader(Located);

impl Reader {
    fn with<T>(&self, read: impl FnOnce(shelf::Opened) -> session::Result<T>) -> parquet::errors::Result<T> {
        let Located { segment, shelf } = &self.0;
        let read = shelf.opened(segment).and_then(read);
        read.map_err(|error| ParquetError::External(Box::new(shelf.fail(error))))
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
