//! Writes query results, for people (`table`, `markdown`) or for programs (`json`, `ndjson`, `csv`, `arrow`, `parquet`).
//!
//! For programs the values are those of the query, with times and durations as integers, and each batch is written when it
//! arrives. For people values have units, names are cleaned, and a table fits the terminal.

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
use hud_shell::Format;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::{
    error::{Error, Result},
    human,
    output::{
        stdout::terminal_width,
        table::{Shape, Table},
    },
    query::catalog::Catalog,
};

/// What a query reads.
pub(crate) trait Reads: Sync {
    /// The cause of a failed query.
    fn explain(&self, error: Error) -> Error;

    /// Fails if a part of what was read disappeared or is damaged, so that rows may be missing.
    fn confirm(&self) -> Result<()>;
}

impl Reads for Catalog {
    fn explain(&self, error: Error) -> Error {
        Catalog::explain(self, error)
    }

    fn confirm(&self) -> Result<()> {
        Catalog::confirm(self)
    }
}

/// A result's schema and its batches.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch>>,
}

/// Counts of the rows that were written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) rows: u64,
    /// Whether the limit left out rows.
    pub(crate) has_more: bool,
}

/// Runs planned queries, one per session, and writes their rows to `out`. At most the shape's limit of rows is written; if
/// that leaves out rows of a table for people, a note on stderr says so. Unless it is wide, such a table omits further columns.
pub(crate) async fn write(
    catalog: &dyn Reads,
    frames: Vec<DataFrame>,
    format: Format,
    shape: Shape<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    if format.is_binary() && io::stdout().is_terminal() {
        return Err(Error::Usage {
            message: format!("the format {} is binary, and stdout is a terminal", format.name()),
            hint: "redirect it to a file".into(),
        });
    }
    let several = frames.len() > 1;
    let (limit, wide) = (shape.limit, shape.wide);
    let hidden: Vec<_> = shape.columns.iter().filter(|c| c.is_further).map(|c| c.name.as_str()).collect();
    let prepare = |frame: DataFrame| {
        // One row more, to detect whether the limit leaves out rows.
        let more = usize::from(format.is_text() && !several);
        let frame = match limit {
            Some(limit) => frame.limit(0, Some(limit + more))?,
            None => frame,
        };
        if format.is_text() && !wide { frame.drop_columns(&hidden) } else { Ok(frame) }
    };
    let frames = frames.into_iter().map(prepare).collect::<datafusion::error::Result<Vec<_>>>()?;
    let Some(schema) = frames.first().map(|frame| Arc::clone(frame.schema().inner())) else { return Ok(()) };
    let of_first = Arc::clone(&schema);
    // The sessions one after the other. Their schemas may differ in which columns are nullable.
    let batches = futures::stream::iter(frames)
        .then(DataFrame::execute_stream)
        .try_flatten()
        .map(move |batch| -> Result<RecordBatch> {
            Ok(RecordBatch::try_new(Arc::clone(&of_first), batch?.columns().to_vec())?)
        })
        .boxed();
    let width = if wide { None } else { terminal_width() };
    let shape = Shape { limit: limit.filter(|_| !several), null: "-", width, ..shape };
    let written = write_rows(catalog, Rows { schema, batches }, format, &shape, out).await?;
    if let Some(limit) = shape.limit.filter(|_| written.has_more) {
        let _ = writeln!(
            io::stderr(),
            "only the first {} rows; --limit N shows more, --limit 0 all",
            human::count(i64::try_from(limit).unwrap_or(i64::MAX))
        );
    }
    Ok(())
}

/// Writes a result while it is computed.
pub(crate) async fn write_rows(
    catalog: &dyn Reads,
    rows: Rows,
    format: Format,
    shape: &Shape<'_>,
    out: &mut dyn Write,
) -> Result<Written> {
    let Rows { schema, batches } = rows;
    let mut written = Written::default();
    // The query returns one row more than the limit, which is applied here.
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
            match &shape.empty {
                Some(text) if written.rows == 0 && format == Format::Table => writeln!(out, "{text}"),
                _ => print(Table::of(&schema, &rows, shape)?, format, shape, out),
            }
            .map_err(Error::io("write the result"))?;
        }
        Format::Json => {
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
            while let Some(batch) = next().await? {
                writer.write(&batch)?;
            }
            writer.finish()?;
            out.write_all(b"\n").map_err(Error::io("write the result"))?;
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
            // For a result without rows, this writes the header.
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
                // The writer needs only the number of bytes written so far, which it counts itself.
                out.write_all(&std::mem::take(writer.inner_mut())).map_err(Error::io("write the result"))?;
            }
            let rest = writer.into_inner().map_err(ArrowError::from)?;
            out.write_all(&rest).map_err(Error::io("write the result"))?;
        }
    }
    out.flush().map_err(Error::io("write the result"))?;
    catalog.confirm()?;
    Ok(written)
}

/// Writes a table for people.
fn print(table: Table, format: Format, shape: &Shape<'_>, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Markdown {
        return table.markdown(out);
    }
    if shape.expanded {
        return table.blocks(out);
    }
    if shape.columns.is_empty() { table.print(shape.width, out) } else { print_fitting(table, shape.width, out) }
}

/// Writes a view's table without the columns that do not fit; a note on stderr names them.
pub(crate) fn print_fitting(mut table: Table, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let left_out = width.map(|width| table.leave_out(width)).unwrap_or_default();
    table.print(width, out)?;
    if !left_out.is_empty() {
        out.flush()?;
        let _ = writeln!(io::stderr(), "columns that do not fit: {}; --wide shows all", left_out.join(", "));
    }
    Ok(())
}
