//! Files of a store: schemas, and writing them whole or not at all.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use hud_common::{
    files::{OutputFile, create_folder},
    session::Table,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use crate::error::{Error, Result};

/// The columns that each table of a store has before its own: name, and whether it may be null.
pub(crate) const LABELS: [(&str, bool); 7] = [
    ("host", false),
    ("service", false),
    ("build_id", true),
    ("version", true),
    ("session", false),
    ("tokio_version", true),
    ("labels", false),
];

/// Rows of a row group: a reader of an hour skips those of other hours.
const GROUP: usize = 64 << 10;

/// The schema of a table in a store.
pub(crate) fn schema(table: Table) -> SchemaRef {
    let labels = LABELS.into_iter().map(|(name, nullable)| Arc::new(Field::new(name, DataType::Utf8, nullable)));
    let columns = table.schema();
    Arc::new(Schema::new(labels.chain(columns.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// A Parquet file of a store that is being written. It gets its name when it is complete.
pub(super) struct Part {
    path: PathBuf,
    writer: ArrowWriter<Vec<u8>>,
    file: OutputFile,
    rows: u64,
    bytes: u64,
}

impl Part {
    pub(super) fn create(table: Table, path: &Path) -> Result<Self> {
        let file = output(path)?;
        let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default());
        let properties = WriterProperties::builder()
            .set_compression(zstd)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(GROUP))
            .build();
        let writer =
            ArrowWriter::try_new(Vec::new(), schema(table), Some(properties)).map_err(|e| damaged(path, &e))?;
        Ok(Part { path: path.into(), writer, file, rows: 0, bytes: 0 })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        self.writer.write(rows).map_err(|e| damaged(&self.path, &e))?;
        let written = std::mem::take(self.writer.inner_mut());
        self.flush(&written)
    }

    fn flush(&mut self, written: &[u8]) -> Result<()> {
        self.bytes += written.len() as u64;
        self.file.write_all(written).map_err(Error::io(format!("write {}", self.path.display())))
    }

    /// Rows and bytes.
    pub(super) fn finish(mut self) -> Result<(u64, u64)> {
        self.writer.finish().map_err(|e| damaged(&self.path, &e))?;
        let rest = std::mem::take(self.writer.inner_mut());
        self.flush(&rest)?;
        let Part { path, file, rows, bytes, .. } = self;
        file.persist_durably().map_err(Error::io(format!("write {}", path.display())))?;
        Ok((rows, bytes))
    }
}

fn damaged(path: &Path, error: &parquet::errors::ParquetError) -> Error {
    Error::Segment { path: path.into(), why: error.to_string() }
}

fn output(path: &Path) -> Result<OutputFile> {
    let create = || {
        let _ = create_folder(path.parent().unwrap_or(Path::new(".")))?;
        OutputFile::create(path)
    };
    create().map_err(Error::io(format!("create {}", path.display())))
}

/// Writes JSON whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let write = || {
        let mut file = output(path)?;
        let text = serde_json::to_vec(value).map_err(io::Error::other).map_err(Error::io("write JSON"))?;
        file.write_all(&text).and_then(|()| file.persist_durably()).map_err(Error::io("write"))
    };
    write().map_err(|error: Error| Error::Upkeep(format!("cannot write {}: {error}", path.display())))
}

/// Maximum size of a JSON file of a store: an index lists the sessions of a day.
const MOST_JSON: u64 = 256 << 20;

/// Reads a JSON file; `None` if there is none.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = |source| Error::Io { action: format!("read {}", path.display()), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(of) if of.len() > MOST_JSON => return Err(failed(io::Error::other("it is too large"))),
        Ok(_) => {}
    }
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(io::Error::other(error))),
    }
}

/// The names in a folder, sorted; none if there is no such folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::Io { action: format!("list {}", folder.display()), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // Names that are not UTF-8 are not of a store.
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}
