//! The in-flight log: an Arrow IPC stream whose complete frames survive a crash.
//!
//! A frame is one IPC message, its metadata and its body. The metadata's padding, which readers of Arrow ignore, ends in
//! eight bytes: a magic and the CRC32 of the frame and of its offset in the file. So torn, flipped and misplaced frames are
//! detected. Invariant: a log consists of complete frames; everything from the first incomplete frame on is truncated. The
//! metadata of the first frame, the schema, has the log's place (`hud.place`): a log elsewhere is rejected.

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, new_null_array},
    buffer::Buffer,
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::{
        self, MessageHeader, MetadataVersion,
        reader::RecordBatchDecoder,
        root_as_message,
        writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder},
    },
};

use hud_files::clean;

use super::{
    SessionDir, Table,
    checksum::PLACE,
    error::{Error, Result},
    fs::{self, name},
};

const CONTINUATION: [u8; 4] = [0xff; 4];
const MAGIC: [u8; 4] = *b"hudF";
/// Continuation marker and metadata length.
const PREFIX: usize = 8;
/// Magic and CRC32.
const TRAILER: usize = 8;
/// A frame's metadata is about 100 bytes a column.
const MAX_METADATA: usize = 1 << 20;
/// Alignment of buffers in a batch's body.
const ALIGNMENT: usize = 8;
/// Maximum nesting of lists.
const MAX_DEPTH: usize = 4;
/// Bounds of the size of a read. A followed log is usually read to its end at once.
const LEAST_STRIDE: usize = 4 << 10;
const MOST_STRIDE: usize = 1 << 20;
/// A batch of 4,096 rows takes 300 kB, of stacks 4 MB.
const MAX_BODY: usize = 1 << 30;

/// Appends batches to a log.
pub struct InflightLog {
    table: Table,
    number: u32,
    path: PathBuf,
    file: File,
    /// Length of the complete frames.
    len: u64,
    /// Whether the file may be longer than `len`.
    torn: bool,
    encoder: StreamEncoder,
    rows: u64,
    bytes: u64,
}

impl InflightLog {
    /// Starts segment `number` of `table`.
    pub fn create(session: &SessionDir, table: Table, number: u32) -> Result<Self> {
        let folder = session.create_table(table)?;
        let path = session.log(table, number);
        let schema = table.schema();
        let encoder = StreamEncoder::try_new_with_options(&schema, options()).and_then(|mut encoder| {
            // The first message includes the schema, which is a frame of its own here.
            encoder.encode(&RecordBatch::new_empty(schema))?;
            Ok(encoder)
        });
        let encoder = encoder.map_err(Error::damaged(&path))?;
        let file = folder.new_log(name(&path)).map_err(Error::io("create", &path))?;
        let mut log = Self { table, number, path, file, len: 0, torn: false, encoder, rows: 0, bytes: 0 };
        let schema = schema_message(table, session.place(table, number).as_deref());
        // A log without a schema is removed, so that its number is free again.
        log.frame(&schema, &[]).inspect_err(|_| drop(folder.remove(name(&log.path))))?;
        Ok(log)
    }

    /// Appends a batch and writes it to the file: from then on it survives the recorder's death. On failure the log is
    /// unchanged, and a later append may succeed.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let message = self.encoder.encode(batch).map_err(Error::damaged(&self.path))?;
        let (metadata, body) = parts(&message).ok_or_else(|| self.too_large())?;
        self.frame(metadata, body)?;
        self.rows += batch.num_rows() as u64;
        self.bytes += body.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Ends the stream; the log can then be sealed. It can be sealed after a failure too: the end mark is for other readers of
    /// Arrow.
    pub fn finish(mut self) -> Result<(Table, u32)> {
        let end = [CONTINUATION, [0; 4]].concat();
        self.write(&mut [IoSlice::new(&end)], end.len())?;
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

    /// Bytes in its file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Its table.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn frame(&mut self, metadata: &[u8], body: &[Buffer]) -> Result<()> {
        let head = head(self.len, metadata, body).ok_or_else(|| self.too_large())?;
        let len = head.len() + body.iter().map(Buffer::len).sum::<usize>();
        let mut slices = Vec::with_capacity(1 + body.len());
        slices.push(IoSlice::new(&head));
        slices.extend(body.iter().map(|buffer| IoSlice::new(buffer)));
        self.write(&mut slices, len)
    }

    fn too_large(&self) -> Error {
        Error::Damaged { path: self.path.clone(), why: "write: a batch is too large".into() }
    }

    /// Writes all slices, or leaves the file unchanged.
    fn write(&mut self, slices: &mut [IoSlice<'_>], len: usize) -> Result<()> {
        if self.torn {
            self.cut_back()?;
        }
        match write_all(&mut self.file, slices) {
            Ok(()) => {
                self.len += len as u64;
                Ok(())
            }
            Err(source) => {
                self.torn = true;
                // If this fails too, the next append tries again, and readers stop before the torn frame.
                let _ = self.cut_back();
                Err(Error::Io { action: "write", path: self.path.clone(), source })
            }
        }
    }

    fn cut_back(&mut self) -> Result<()> {
        self.file.set_len(self.len).map_err(Error::io("truncate", &self.path))?;
        self.torn = false;
        Ok(())
    }
}

fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while slices.iter().any(|s| !s.is_empty()) {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn options() -> IpcWriteOptions {
    // Batches often have few rows; 64 would pad each of their buffers to a cache line.
    IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).unwrap_or_default()
}

/// The table's schema, with the log's place.
fn schema_message(table: Table, place: Option<&str>) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(true);
    let generator = IpcDataGenerator::default();
    let metadata = place.map(|place| (PLACE.to_string(), place.to_string()));
    let schema = table.schema().as_ref().clone().with_metadata(metadata.into_iter().collect());
    generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut dictionaries, &options()).ipc_message
}

/// The metadata and the body of an encoded message. The body are the batch's own buffers, not copies.
fn parts(message: &[Buffer]) -> Option<(&[u8], &[Buffer])> {
    let (prefix, rest) = message.split_first()?;
    let (metadata, rest) = rest.split_first()?;
    let len = prefix.get(4..PREFIX).and_then(|len| len.try_into().ok()).map(i32::from_le_bytes)?;
    let padding = usize::try_from(len).ok()?.checked_sub(metadata.len())?;
    // Padding is a buffer too.
    let body = if padding > 0 { rest.split_first().filter(|(p, _)| p.len() == padding)?.1 } else { rest };
    Some((metadata, body))
}

/// A frame at `offset`, without its body.
fn head(offset: u64, metadata: &[u8], body: &[Buffer]) -> Option<Vec<u8>> {
    let len = (PREFIX + metadata.len() + TRAILER).next_multiple_of(8);
    if len > MAX_METADATA || body.iter().map(Buffer::len).sum::<usize>() > MAX_BODY {
        return None;
    }
    let mut head = Vec::with_capacity(len);
    head.extend_from_slice(&CONTINUATION);
    head.extend_from_slice(&i32::try_from(len - PREFIX).ok()?.to_le_bytes());
    head.extend_from_slice(metadata);
    head.resize(len - TRAILER, 0);
    head.extend_from_slice(&MAGIC);
    let crc = crc(offset, &head, body.iter().map(Buffer::as_slice));
    head.extend_from_slice(&crc.to_le_bytes());
    Some(head)
}

fn crc<'a>(offset: u64, head: &[u8], body: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&offset.to_le_bytes());
    crc.update(head);
    body.into_iter().for_each(|buffer| crc.update(buffer));
    crc.finalize()
}

/// The part of a log that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes from the first incomplete frame to the end.
    pub bytes: u64,
    /// The defect of that frame.
    pub why: String,
    /// Whether it is only too short: it is being written, or its recorder died.
    pub is_torn: bool,
}

/// Reads a log's complete frames, as batches with the table's schema.
///
/// The iteration ends at the first incomplete frame; [`InflightReader::cut`] then describes the rest. In a log that is being
/// written, that frame may be complete later: iterating again tries again.
pub struct InflightReader {
    table: Table,
    path: PathBuf,
    /// The required place; any if `None`.
    place: Option<String>,
    file: File,
    offset: u64,
    /// Bytes read from there on.
    ahead: Buffer,
    /// Size of a read.
    stride: usize,
    /// The schema of the log, once it is read, if it differs from the table's.
    schema: Option<SchemaRef>,
    ended: bool,
    cut: Option<Cut>,
    rows: u64,
}

/// The reason why there is no frame at an offset.
enum NoFrame {
    End,
    Torn,
    Cut(String),
    /// The log declares another place.
    Foreign(String),
    Io(io::Error),
}

impl From<io::Error> for NoFrame {
    fn from(error: io::Error) -> Self {
        NoFrame::Io(error)
    }
}

fn bad<T>(why: impl Into<String>) -> Result<T, NoFrame> {
    Err(NoFrame::Cut(why.into()))
}

impl InflightReader {
    /// Opens the log at `path`, which is one of `table`.
    pub fn open(table: Table, path: &Path) -> Result<Self> {
        Ok(Self::of_file(table, fs::open(path).map_err(Error::io("open", path))?, path))
    }

    /// Takes an open log; errors name it `path`.
    pub(super) fn of_file(table: Table, file: File, path: &Path) -> Self {
        Self {
            table,
            path: path.into(),
            place: None,
            file,
            offset: 0,
            ahead: Buffer::default(),
            stride: LEAST_STRIDE,
            schema: None,
            ended: false,
            cut: None,
            rows: 0,
        }
    }

    /// Requires the log's place to be `place`.
    pub(super) fn at(self, place: Option<String>) -> Self {
        Self { place, ..self }
    }

    /// The part that could not be read, once the iteration has ended.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Bytes that could not be read, once the iteration has ended.
    pub fn bytes_cut(&self) -> u64 {
        self.cut.as_ref().map_or(0, |c| c.bytes)
    }

    /// Whether its writer closed it.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Its table.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn next_batch(&mut self) -> Result<RecordBatch, NoFrame> {
        loop {
            if self.ended {
                self.read_on(PREFIX)?;
                return if self.ahead.is_empty() { Err(NoFrame::End) } else { bad("there is something past its end") };
            }
            let (size, batch) = self.frame()?;
            self.ahead.advance(size);
            self.offset += size as u64;
            match batch {
                Some(batch) => {
                    self.rows += batch.num_rows() as u64;
                    return Ok(batch);
                }
                None if size == PREFIX => self.ended = true,
                None => {}
            }
        }
    }

    /// Reads the frame at the offset. Each length is compared with the file's before it is used, and the checksum is verified
    /// before anything is decoded.
    fn frame(&mut self) -> Result<(usize, Option<RecordBatch>), NoFrame> {
        let prefix = self.bytes(0, PREFIX)?;
        let (mark, size) = prefix.split_at(4);
        if mark != CONTINUATION {
            return bad("a frame does not begin as one");
        }
        let size = size.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        if size == 0 {
            return Ok((PREFIX, None));
        }
        if !size.is_multiple_of(8) || !(TRAILER..=MAX_METADATA).contains(&size) {
            return bad("a frame's length is not possible");
        }
        let head_len = PREFIX + size;
        let head = self.bytes(0, head_len)?;
        let Some((covered, crc_stored)) = head.split_last_chunk::<4>() else { return bad("a frame is too short") };
        if !covered.ends_with(&MAGIC) {
            return bad("a frame has no checksum");
        }
        let Some(metadata) = head.get(PREFIX..head_len - TRAILER) else { return bad("a frame is too short") };
        let Ok(message) = root_as_message(metadata) else { return bad("a frame's metadata is damaged") };
        let body_len = usize::try_from(message.bodyLength()).ok().filter(|len| *len <= MAX_BODY);
        let Some(body_len) = body_len else { return bad("a frame's length is not possible") };
        let body = self.bytes(head_len, body_len)?;
        if crc(self.offset, covered, [body.as_slice()]) != u32::from_le_bytes(*crc_stored) {
            return bad("a frame's checksum does not match");
        }
        let batch = match message.header_type() {
            MessageHeader::Schema if self.offset == 0 => {
                self.schema = log_schema(self.table, self.place.as_deref(), metadata)?;
                None
            }
            MessageHeader::RecordBatch if self.offset > 0 => {
                let schema = self.schema.clone().unwrap_or_else(|| self.table.schema());
                let batch = decode(metadata, &body, schema)?;
                Some(if self.schema.is_some() { adapt(self.table, &batch)? } else { batch })
            }
            _ => return bad("a frame is of a kind that does not belong there"),
        };
        Ok((head_len + body_len, batch))
    }

    /// `len` bytes of the frame at the offset, from its byte `from` on.
    fn bytes(&mut self, from: usize, len: usize) -> Result<Buffer, NoFrame> {
        let past = from + len;
        if self.ahead.len() < past {
            self.read_on(past)?;
        }
        match self.ahead.len() {
            0 => Err(NoFrame::End),
            there if there < past => Err(NoFrame::Torn),
            _ => Ok(self.ahead.slice_with_length(from, len)),
        }
    }

    /// Reads at least `wanted` bytes from the offset on, if the file has them.
    fn read_on(&mut self, wanted: usize) -> Result<(), NoFrame> {
        // No more memory is allocated than the file is long.
        if wanted > self.stride {
            let left = self.file.metadata()?.len().saturating_sub(self.offset);
            if left < wanted as u64 {
                return Err(NoFrame::Torn);
            }
            self.stride = wanted.clamp(self.stride, MOST_STRIDE);
        }
        let mut bytes = vec![0; wanted.max(self.stride)];
        let mut there = 0;
        while there < wanted
            && let Some(rest) = bytes.get_mut(there..)
        {
            match self.file.read_at(rest, self.offset + there as u64) {
                Ok(0) => break,
                Ok(read) => there += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Adapt to the number of bytes written between two reads.
        self.stride = match there {
            all if all == bytes.len() => (self.stride * 2).min(MOST_STRIDE),
            few if few < bytes.len() / 4 => (self.stride / 2).max(LEAST_STRIDE),
            _ => self.stride,
        };
        bytes.truncate(there);
        bytes.shrink_to_fit();
        self.ahead = Buffer::from_vec(bytes);
        Ok(())
    }
}

impl SessionDir {
    /// Opens an in-flight log. If it belongs to another session, table or number, it yields [`Error::Foreign`] instead of rows.
    pub fn open_log(&self, table: Table, number: u32) -> Result<InflightReader> {
        let path = self.log(table, number);
        let file = self.open_table(table)?.file(name(&path)).map_err(Error::io("open", &path))?;
        Ok(InflightReader::of_file(table, file, &path).at(self.place(table, number)))
    }
}

impl Iterator for InflightReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cut = None;
        let (why, is_torn) = match self.next_batch() {
            Ok(batch) => return Some(Ok(batch)),
            Err(NoFrame::End) => return None,
            Err(NoFrame::Torn) => ("its last frame is torn".into(), true),
            Err(NoFrame::Cut(why)) => (why, false),
            Err(NoFrame::Foreign(place)) => {
                let why = format!("it is another log: {}", clean(&place));
                return Some(Err(Error::Foreign { path: self.path.clone(), why }));
            }
            Err(NoFrame::Io(source)) => {
                return Some(Err(Error::Io { action: "read", path: self.path.clone(), source }));
            }
        };
        // It may be complete next time.
        self.ahead = Buffer::default();
        let len = self.file.metadata().map_or(self.offset, |m| m.len());
        self.cut = Some(Cut { bytes: len.saturating_sub(self.offset), why, is_torn });
        None
    }
}

/// The schema that the log at `place` declares; `None` if it is the table's. Logs written by hud 0.1 have no place.
fn log_schema(table: Table, place: Option<&str>, metadata: &[u8]) -> Result<Option<SchemaRef>, NoFrame> {
    let declared = declared_place(metadata);
    if let (Some(here), Some(there)) = (place, declared)
        && here != there
    {
        return Err(NoFrame::Foreign(there.into()));
    }
    let own = schema_message(table, declared);
    if metadata.starts_with(&own) && metadata.iter().skip(own.len()).all(|b| *b == 0) {
        return Ok(None);
    }
    // Another version wrote it.
    let declared = root_as_message(metadata).ok().and_then(|message| message.header_as_schema()?.fields());
    let fields: Option<Vec<Field>> =
        declared.and_then(|fields| fields.iter().map(|field| field_of(field, 0)).collect());
    match fields {
        Some(fields) => Ok(Some(Arc::new(Schema::new(fields)))),
        None => bad("its schema is damaged"),
    }
}

/// A field of a type that tables use. Arrow's own decoder panics on unknown ones.
fn field_of(field: ipc::Field<'_>, depth: usize) -> Option<Field> {
    if field.dictionary().is_some() || depth > MAX_DEPTH {
        return None;
    }
    let data_type = match field.type_type() {
        ipc::Type::Int => match field.type_as_int().map(|int| (int.is_signed(), int.bitWidth()))? {
            (true, 64) => DataType::Int64,
            (true, 32) => DataType::Int32,
            _ => return None,
        },
        ipc::Type::FloatingPoint if field.type_as_floating_point()?.precision() == ipc::Precision::DOUBLE => {
            DataType::Float64
        }
        ipc::Type::Bool => DataType::Boolean,
        ipc::Type::Utf8 => DataType::Utf8,
        ipc::Type::List => match field.children() {
            Some(items) if items.len() == 1 => DataType::List(Arc::new(field_of(items.get(0), depth + 1)?)),
            _ => return None,
        },
        _ => return None,
    };
    Some(Field::new(field.name()?, data_type, field.nullable()))
}

/// The content of a buffer of a batch.
#[derive(Clone, Copy)]
enum Holds {
    /// A bit per row that is set if it is not null.
    Validity,
    /// A bit per row.
    Bits,
    /// A number of bytes per row.
    Values(u64),
    /// The start and end of each row's items.
    Offsets,
    /// The bytes of strings.
    Text,
}

/// The buffers of a column in order, each with the index of its node.
fn buffers_of(data_type: &DataType, nodes: &mut usize, all: &mut Vec<(usize, Holds)>) {
    let node = *nodes;
    *nodes += 1;
    all.push((node, Holds::Validity));
    match data_type {
        DataType::Int64 | DataType::Float64 => all.push((node, Holds::Values(8))),
        DataType::Int32 => all.push((node, Holds::Values(4))),
        DataType::Utf8 => all.extend([(node, Holds::Offsets), (node, Holds::Text)]),
        DataType::List(items) => {
            all.push((node, Holds::Offsets));
            buffers_of(items.data_type(), nodes, all);
        }
        _ => all.push((node, Holds::Bits)),
    }
}

/// Whether a buffer of `len` bytes is large enough for a node of `rows` rows with `nulls` nulls.
fn is_whole(holds: Holds, len: u64, rows: u64, nulls: u64) -> bool {
    match holds {
        Holds::Validity => nulls == 0 || len >= rows.div_ceil(8),
        Holds::Bits => len >= rows.div_ceil(8),
        Holds::Values(size) => len.is_multiple_of(size) && rows.checked_mul(size).is_some_and(|least| len >= least),
        // Without rows there may be no offsets.
        Holds::Offsets => len.is_multiple_of(4) && (rows == 0 || rows.checked_mul(4).is_some_and(|least| len > least)),
        Holds::Text => true,
    }
}

/// The place that a log's schema declares.
fn declared_place(metadata: &[u8]) -> Option<&str> {
    let entries = root_as_message(metadata).ok()?.header_as_schema()?.custom_metadata()?;
    entries.iter().find(|entry| entry.key() == Some(PLACE))?.value()
}

/// Decodes a batch. Arrow checks the content of buffers but relies on their positions, and panics if these are not aligned or
/// a buffer is too short.
fn decode(metadata: &[u8], body: &Buffer, schema: SchemaRef) -> Result<RecordBatch, NoFrame> {
    let Some((message, batch)) = root_as_message(metadata).ok().and_then(|m| Some((m, m.header_as_record_batch()?)))
    else {
        return bad("a frame's metadata is damaged");
    };
    let is_inside = |b: &ipc::Buffer| {
        let range = u64::try_from(b.offset()).ok().zip(u64::try_from(b.length()).ok());
        let is_aligned = |offset: u64| offset.is_multiple_of(ALIGNMENT as u64);
        range
            .filter(|(o, _)| is_aligned(*o))
            .and_then(|(o, l)| o.checked_add(l))
            .is_some_and(|end| end <= body.len() as u64)
    };
    let (mut nodes, mut expected) = (0, Vec::new());
    schema.fields().iter().for_each(|field| buffers_of(field.data_type(), &mut nodes, &mut expected));
    let buffers_fit = batch.buffers().zip(batch.nodes()).is_some_and(|(buffers, found)| {
        let fits = |(buffer, (node, holds)): (&ipc::Buffer, &(usize, Holds))| {
            let node = found
                .iter()
                .nth(*node)
                .and_then(|node| Some((u64::try_from(node.length()).ok()?, u64::try_from(node.null_count()).ok()?)));
            let len = u64::try_from(buffer.length()).ok();
            len.zip(node).is_some_and(|(len, (rows, nulls))| is_whole(*holds, len, rows, nulls))
        };
        buffers.len() == expected.len()
            && found.len() == nodes
            && buffers.iter().all(is_inside)
            && buffers.iter().zip(&expected).all(fits)
    });
    let most = body.len() as u64 * 8;
    let nodes_fit = batch.nodes().is_some_and(|nodes| {
        nodes.iter().all(|n| {
            let len = u64::try_from(n.length());
            let nulls = u64::try_from(n.null_count());
            len.is_ok_and(|len| len <= most && nulls.is_ok_and(|nulls| nulls <= len))
        })
    });
    let rows_fit = u64::try_from(batch.length()).is_ok_and(|rows| rows <= most);
    if !buffers_fit || !nodes_fit || !rows_fit || batch.compression().is_some() {
        return bad("a frame's metadata does not fit its body");
    }
    let none = Default::default();
    let version = message.version();
    let batch = RecordBatchDecoder::try_new(body, batch, schema, &none, &version)
        .and_then(RecordBatchDecoder::read_record_batch);
    batch.map_err(|e| NoFrame::Cut(format!("a frame does not decode: {e}")))
}

/// The rows with the table's schema: columns that were added later are null.
fn adapt(table: Table, batch: &RecordBatch) -> Result<RecordBatch, NoFrame> {
    let schema = table.schema();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) if same_type(column.data_type(), field.data_type()) => match cast(column, field.data_type()) {
                Ok(column) => column,
                Err(e) => return bad(e.to_string()),
            },
            Some(column) => return bad(format!("its column {} is {}", field.name(), column.data_type())),
            None if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
            None => return bad(format!("it has no column {}", field.name())),
        });
    }
    RecordBatch::try_new(schema, columns).map_err(|e| NoFrame::Cut(e.to_string()))
}

/// Whether two types are equal, apart from the names of list items.
pub(super) fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        _ => a == b,
    }
}
