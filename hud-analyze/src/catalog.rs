//! A session as a database: every table of the format by its name, over the sealed segments.
//!
//! A table without segments is empty, not missing, so a view never has to ask what was recorded. Segments are listed
//! once, when the session is opened: what a recorder seals later is not seen. Only reading is possible.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    catalog::MemTable,
    common::ScalarValue,
    datasource::{
        TableProvider,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    execution::runtime_env::RuntimeEnvBuilder,
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext, col},
};
use hud_common::session::{Manifest, SessionDir, Table, Unsealed};
use url::Url;

use crate::error::{Error, Result, one_line};

/// An opened session.
pub struct Catalog {
    dir: SessionDir,
    manifest: Manifest,
    segments: Vec<(Table, Vec<PathBuf>)>,
    unsealed: Vec<Unsealed>,
    context: SessionContext,
}

impl Catalog {
    /// Opens the session at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let (dir, manifest) = SessionDir::open(path)?;
        let unsealed = dir.unsealed()?;
        // Listings are cached for ever by default, and a recorder may seal a segment under us.
        let runtime = RuntimeEnvBuilder::new().with_object_list_cache_limit(0).build_arc()?;
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config_rt(config, runtime);
        let mut all = Vec::new();
        for &table in Table::ALL {
            let segments = dir.segments(table)?;
            context.register_table(table.name(), provider(table, &segments)?)?;
            all.push((table, segments));
        }
        Ok(Self { dir, manifest, segments: all, unsealed, context })
    }

    /// What was recorded, where, when and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its files.
    pub fn dir(&self) -> &SessionDir {
        &self.dir
    }

    /// The sealed segments of each table, as they were when the session was opened.
    pub fn segments(&self) -> &[(Table, Vec<PathBuf>)] {
        &self.segments
    }

    /// Segments that are still logs of a recorder: none of their rows is in the tables.
    pub fn unsealed(&self) -> &[Unsealed] {
        &self.unsealed
    }

    /// DataFusion's own door.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Plans one statement. It may define views of its own; it may not write to a file.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new().with_allow_dml(false);
        Ok(self.context.sql_with_options(sql, options).await?)
    }

    /// The single row that `sql` gives, as scalars.
    pub async fn row(&self, sql: &str) -> Result<Vec<ScalarValue>> {
        let batches = match self.sql(sql).await?.collect().await {
            Ok(batches) => batches,
            Err(error) => return Err(self.explain(error.into())),
        };
        self.confirm()?;
        let Some(batch) = batches.iter().find(|b| b.num_rows() > 0) else {
            return Ok(Vec::new());
        };
        let row = batch.columns().iter().map(|c| ScalarValue::try_from_array(c, 0));
        Ok(row.collect::<Result<_, _>>()?)
    }

    /// Makes sure that an answer is of the whole session: DataFusion passes over a segment that has gone away since the
    /// session was opened.
    pub fn confirm(&self) -> Result<()> {
        match self.segments.iter().flat_map(|(_, segments)| segments).find(|path| !path.exists()) {
            Some(path) => Err(Error::Gone(path.clone())),
            None => Ok(()),
        }
    }

    /// Why a query failed that was right: if a segment is damaged, that is why, and the error names it. Looks at
    /// every segment, so it is for queries that have failed.
    pub fn explain(&self, error: Error) -> Error {
        match error {
            Error::Query(_) => self.damaged().unwrap_or(error),
            other => other,
        }
    }

    /// The first segment that cannot be read whole.
    fn damaged(&self) -> Option<Error> {
        self.segments.iter().find_map(|(table, segments)| {
            segments.iter().find_map(|path| {
                let why = check_segment(path, &table.schema()).err()?;
                Some(Error::Segment { path: path.clone(), why: one_line(&why) })
            })
        })
    }
}

fn provider(table: Table, segments: &[PathBuf]) -> Result<Arc<dyn TableProvider>> {
    if segments.is_empty() {
        return Ok(Arc::new(MemTable::try_new(table.schema(), vec![vec![]])?));
    }
    // DataFusion passes over an empty file without a word.
    if let Some(path) = segments.iter().find(|s| fs::metadata(s).is_ok_and(|m| m.len() == 0)) {
        return Err(Error::Segment { path: path.clone(), why: "it is empty".into() });
    }
    let urls = segments.iter().map(|s| file_url(s)).collect::<Result<_>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_sort_order(vec![vec![col(table.key()).sort(true, false)]]);
    let config =
        ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(table.schema());
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// A path as a URL: given as a plain path, `?`, `*` and `[` in it would be read as a pattern.
fn file_url(path: &Path) -> Result<ListingTableUrl> {
    let absolute = std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))?;
    let url = Url::from_file_path(&absolute)
        .map_err(|()| Error::Query(format!("{} is no path that a URL can name", absolute.display())))?;
    Ok(ListingTableUrl::try_new(url, None)?)
}

fn check_segment(path: &Path, schema: &SchemaRef) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
    for field in schema.fields() {
        let Ok(found) = builder.schema().field_with_name(field.name()) else {
            if field.is_nullable() {
                continue;
            }
            return Err(format!("it has no column {}", field.name()));
        };
        if !same_type(found.data_type(), field.data_type()) {
            return Err(format!("its column {} is {}, not {}", field.name(), found.data_type(), field.data_type()));
        }
    }
    for batch in builder.build().map_err(|e| e.to_string())? {
        batch.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The same type, whatever a list calls its items.
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        _ => a == b,
    }
}
