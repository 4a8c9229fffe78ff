//! Answers on their way out: for people (`table`, `markdown`) or for programs (`json`, `ndjson`, `csv`, `arrow`,
//! `parquet`).
//!
//! Programs get what the query gave, times and durations as integers, batch by batch as it comes. People get units,
//! cleaned names and a table that fits.

mod table;

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    csv,
    datatypes::SchemaRef,
    error::ArrowError,
    ipc,
    json::{
        WriterBuilder,
        writer::{JsonArray, LineDelimited},
    },
};
use datafusion::prelude::DataFrame;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
pub(crate) use hud_shell::Format;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

pub(crate) use table::{Look, Table};

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    human,
    view::{Item, Unit},
};

/// The rows of an answer as they come.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch>>,
}

/// What people see of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape<'a> {
    /// Units; columns that are not among them are written as they are.
    pub(crate) columns: &'a [Item],
    /// Rows at most.
    pub(crate) limit: Option<usize>,
    /// Columns that are null everywhere too.
    pub(crate) wide: bool,
    /// What stands for null.
    pub(crate) null: &'a str,
    /// A block for each row.
    pub(crate) expanded: bool,
    /// Columns of the terminal; none: as wide as it gets.
    pub(crate) width: Option<usize>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) rows: u64,
    /// Whether there are more than were to be shown.
    pub(crate) has_more: bool,
}

/// Runs planned queries, of as many sessions, and writes what they give to `out`. `columns` tell units; those not among them are written as
/// they are. Where people read, at most `limit` rows are shown, and whether there are more is said on stderr; further
/// columns are left out unless `wide`.
pub(crate) async fn write(
    catalog: &Catalog,
    frames: Vec<DataFrame>,
    columns: &[Item],
    format: Format,
    limit: Option<usize>,
    wide: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let several = frames.len() > 1;
    let hidden: Vec<_> = columns.iter().filter(|c| c.is_further).map(|c| c.name.as_str()).collect();
    let prepare = |frame: DataFrame| {
        // One row more than is shown tells whether there are more.
        let more = usize::from(format.is_text() && !several);
        let frame = match limit {
            Some(limit) => frame.limit(0, Some(limit + more))?,
            None => frame,
        };
        if format.is_text() && !wide { frame.drop_columns(&hidden) } else { Ok(frame) }
    };
    let frames = frames.into_iter().map(prepare).collect::<datafusion::error::Result<Vec<_>>>()?;
    let Some(schema) = frames.first().map(|frame| Arc::clone(frame.schema().inner())) else { return Ok(()) };
    let shape = Arc::clone(&schema);
    // One session after the other. Whether a column can be null may differ between them.
    let batches = futures::stream::iter(frames)
        .then(DataFrame::execute_stream)
        .try_flatten()
        .map(move |batch| -> Result<RecordBatch> {
            Ok(RecordBatch::try_new(Arc::clone(&shape), batch?.columns().to_vec())?)
        })
        .boxed();
    let limit = limit.filter(|_| !several);
    let shape = Shape { columns, limit, wide, null: "-", expanded: false, width: terminal_width() };
    let written = write_rows(catalog, Rows { schema, batches }, format, &shape, out).await?;
    if let Some(limit) = limit.filter(|_| written.has_more) {
        let _ = writeln!(
            io::stderr(),
            "only the first {} rows; --limit N shows more, --limit 0 all",
            human::count(i64::try_from(limit).unwrap_or(i64::MAX))
        );
    }
    Ok(())
}

/// Writes an answer as it comes.
pub(crate) async fn write_rows(
    catalog: &Catalog,
    rows: Rows,
    format: Format,
    shape: &Shape<'_>,
    out: &mut dyn Write,
) -> Result<Written> {
    let Rows { schema, batches } = rows;
    let mut written = Written::default();
    // A limit that one row was asked beyond is kept here.
    let mut left = shape.limit;
    let mut batches = batches.map(|batch| batch.map_err(|error| catalog.explain(error)));
    let mut next = async || -> Result<Option<RecordBatch>> {
        let Some(batch) = batches.next().await.transpose()? else { return Ok(None) };
        let shown = left.map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
        written.has_more |= shown < batch.num_rows();
        written.rows += shown as u64;
        left = left.map(|left| left - shown);
        Ok(Some(batch.slice(0, shown)))
    };
    match format {
        Format::Table | Format::Markdown => {
            let mut rows: Vec<RecordBatch> = Vec::new();
            while let Some(batch) = next().await? {
                rows.push(batch);
            }
            catalog.confirm()?;
            let table = Table::of(&schema, &rows, shape)?;
            match format {
                Format::Markdown => table.markdown(out),
                _ if shape.expanded => table.blocks(out),
                _ => table.print(shape.width, out),
            }
            .map_err(Error::io("write the answer"))?;
        }
        Format::Json => {
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
            while let Some(batch) = next().await? {
                writer.write(&batch)?;
            }
            writer.finish()?;
            out.write_all(b"\n").map_err(Error::io("write the answer"))?;
        }
        Format::Ndjson => {
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut *out);
            while let Some(batch) = next().await? {
                writer.write(&batch)?;
            }
            writer.finish()?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut *out);
            // Also writes the header of an answer without rows.
            writer.write(&RecordBatch::new_empty(schema))?;
            while let Some(batch) = next().await? {
                writer.write(&batch)?;
            }
        }
        Format::Arrow => {
            let mut writer = ipc::writer::StreamWriter::try_new(&mut *out, &schema)?;
            while let Some(batch) = next().await? {
                writer.write(&batch)?;
            }
            writer.finish()?;
        }
        Format::Parquet => {
            let zstd = Compression::ZSTD(ZstdLevel::default());
            let properties = WriterProperties::builder().set_compression(zstd).build();
            let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(ArrowError::from)?;
            while let Some(batch) = next().await? {
                writer.write(&batch).map_err(ArrowError::from)?;
                // Of what has been written, the writer only needs to know how much it was.
                out.write_all(&std::mem::take(writer.inner_mut())).map_err(Error::io("write the answer"))?;
            }
            let rest = writer.into_inner().map_err(ArrowError::from)?;
            out.write_all(&rest).map_err(Error::io("write the answer"))?;
        }
    }
    out.flush().map_err(Error::io("write the answer"))?;
    catalog.confirm()?;
    Ok(written)
}

/// Standard output. That its reader went away is remembered, because the writers above it wrap or lose the reason.
pub(crate) struct Stdout {
    inner: io::BufWriter<io::Stdout>,
    /// Whether the reader of our output went away.
    pub(crate) broken: bool,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        Self { inner: io::BufWriter::with_capacity(1 << 16, io::stdout()), broken: false }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.broken |= matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

/// Whether words on stdout may be coloured.
pub(crate) fn may_colour() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !no_color
}

/// The columns of the terminal that stdout is; `None` where it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    comfy_table::Table::new().width().map(usize::from)
}

/// How people read a number of this unit.
pub(crate) fn spell(unit: Unit, value: i64) -> String {
    match unit {
        Unit::Ns => human::nanos(value),
        Unit::EpochNs => human::time_of_day(value),
        Unit::Bytes => human::bytes(value),
        Unit::Count => human::count(value),
        Unit::Id | Unit::Share | Unit::Text | Unit::Flag => value.to_string(),
    }
}
