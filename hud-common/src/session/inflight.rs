//! The log of the segment being written: an Arrow IPC stream, of which every complete batch survives a crash.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    vec::Vec,
};

use arrow::{
    array::RecordBatch,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use super::{
    SessionDir, Table,
    error::{Error, Result},
};

/// Appends batches to a segment in flight.
pub struct InflightLog {
    table: Table,
    number: u32,
    path: PathBuf,
    writer: StreamWriter<BufWriter<File>>,
    rows: u64,
    bytes: u64,
}

impl InflightLog {
    /// Starts segment `number` of `table`.
    pub fn create(session: &SessionDir, table: Table, number: u32) -> Result<Self> {
        session.create_table(table)?;
        let path = session.log(table, number);
        let file = super::layout::create(&path)?;
        let writer = StreamWriter::try_new_buffered(file, &table.schema()).map_err(Error::damaged(&path))?;
        Ok(Self { table, number, path, writer, rows: 0, bytes: 0 })
    }

    /// Appends a batch and hands it to the system: it survives the recorder's death from here on.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer
            .write(batch)
            .and_then(|()| Ok(self.writer.get_mut().flush()?))
            .map_err(|e| Error::Damaged { path: self.path.clone(), why: std::format!("write: {e}") })?;
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size() as u64;
        Ok(())
    }

    /// Ends the stream; the log is then ready to be sealed.
    pub fn finish(mut self) -> Result<(Table, u32)> {
        self.writer.finish().map_err(Error::damaged(&self.path))?;
        Ok((self.table, self.number))
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes in memory of the rows so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads every complete batch of a log. A log cut short gives what was written whole.
pub(super) fn read(path: &Path) -> Result<Vec<RecordBatch>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let Ok(reader) = StreamReader::try_new(BufReader::new(file), None) else {
        // Cut before its schema was whole: no batch was either.
        return Ok(Vec::new());
    };
    Ok(reader.map_while(core::result::Result::ok).collect())
}
