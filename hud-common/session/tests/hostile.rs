//! Segments and logs with arbitrary metadata and valid checksums: each reader returns rows, or an error that names the file.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use hud_session::{
    Columns, Error, FORMAT_VERSION, InflightLog, InflightReader, Manifest, PollColumns, PollRow, SessionDir,
    StackColumns, StackRow, Table, VerifiedFile, encode_for, footer, scan_verified, verified_info,
};
use parquet::file::metadata::PageIndexPolicy;

/// A random generator with a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }

    /// Another value for some bytes of a range: one that ends numbers, makes them large or negative, or any.
    fn damage(&mut self, bytes: &mut [u8], within: &Range<usize>) {
        for _ in 0..1 + self.below(4) {
            let at = within.start + self.below(within.len());
            bytes[at] = match self.below(6) {
                0 => 0,
                1 => 0xff,
                2 => 0x7f,
                3 => 0x80,
                4 => bytes[at] ^ (1 << self.below(8)),
                _ => u8::try_from(self.below(256)).unwrap(),
            };
        }
    }
}

fn session(folder: &Path) -> SessionDir {
    let manifest = Manifest { format_version: FORMAT_VERSION, id: "1-2".into(), ..Manifest::default() };
    SessionDir::create(&folder.join("s"), &manifest).unwrap().0
}

fn columns_of(table: Table) -> RecordBatch {
    match table {
        Table::Polls => batch::<PollColumns>((0..3000).map(|n| PollRow {
            ts: n * 1000,
            dur: n % 97,
            task_id: n % 11,
            type_id: (n % 3 > 0).then_some(n % 3),
            tid: 1,
            cpu: 0,
            blocked: 0,
            run_queue: 0,
            wake_delay: (n % 2 > 0).then_some(n),
            completed: Some(n % 5 == 0),
        })),
        _ => batch::<StackColumns>((0..500).map(|n| StackRow {
            stack_id: n,
            frame_ids: (0..n % 9).collect(),
            unwind: "complete".into(),
        })),
    }
}

fn batch<C: Columns>(rows: impl Iterator<Item = C::Row>) -> RecordBatch {
    let mut columns = C::default();
    rows.for_each(|row| columns.push(row));
    columns.finish()
}

fn last(bytes: &[u8], key: &[u8]) -> Option<usize> {
    bytes.windows(key.len()).rposition(|found| found == key).map(|at| at + key.len())
}

/// Writes the right checksum into the footer, for bytes from the end of the data pages on.
fn sign(segment: &mut [u8], data_end: usize) -> bool {
    let Some(at) = last(segment, b"hud.tail\x18\x08").filter(|at| at + 8 <= segment.len()) else { return false };
    segment[at..at + 8].copy_from_slice(b"00000000");
    let crc = format!("{:08x}", crc32fast::hash(&segment[data_end..]));
    segment[at..at + 8].copy_from_slice(crc.as_bytes());
    true
}

/// Reads a segment in every way. Returns the error, if there is one.
fn read(table: Table, segment: Bytes, path: &Path) -> Result<(), Error> {
    let file = VerifiedFile::over(Arc::new(segment), path)?;
    let _ = file.session_id();
    for pages in [PageIndexPolicy::Skip, PageIndexPolicy::Optional, PageIndexPolicy::Required] {
        footer(&file, pages)?;
    }
    verified_info(table, file.clone())?;
    let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
    scan_verified(table, file, &columns, |_| Ok(()))
}

#[test]
fn signed_metadata_of_a_segment_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let mut random = Random(88_172_645_463_325_252);
    let (mut failed, mut fine) = (0, 0);
    for table in [Table::Polls, Table::Stacks] {
        let whole = encode_for(&session, table, 1, &[columns_of(table)]).unwrap().unwrap().data;
        let path = session.segment(table, 1);
        let blocks = last(&whole, b"hud.blocks\x18").unwrap();
        let digits: String =
            whole[blocks..].iter().map(|b| char::from(*b)).skip_while(|c| !c.is_ascii_digit()).collect();
        let data_end: usize = digits.split(':').next().unwrap().parse().unwrap();
        for _ in 0..ROUNDS {
            let mut bytes = whole.clone();
            random.damage(&mut bytes, &(data_end..whole.len() - 8));
            if !sign(&mut bytes, data_end) {
                continue;
            }
            let damaged = Bytes::from(bytes.clone());
            match panic::catch_unwind(AssertUnwindSafe(|| read(table, damaged, &path))) {
                Ok(Ok(())) => fine += 1,
                Ok(Err(error)) => {
                    let error = error.to_string();
                    assert!(error.contains(path.to_str().unwrap()) && !error.contains('\n'), "{error}");
                    failed += 1;
                }
                Err(_) => {
                    let at = whole.iter().zip(&bytes).position(|(a, b)| a != b);
                    panic!("{}: it panics with other bytes from {at:?} on", table.name());
                }
            }
        }
    }
    assert!(failed > 100 && fine > 100, "{failed} failed and {fine} did not");
}

const ROUNDS: usize = 3000;

#[test]
fn signed_metadata_of_a_log_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let mut log = InflightLog::create(&session, Table::Stacks, 1).unwrap();
    log.append(&columns_of(Table::Stacks)).unwrap();
    let path = log.path().to_path_buf();
    log.finish().unwrap();
    let whole = fs::read(&path).unwrap();
    // Start of each frame, and the size of its metadata.
    let len = |at: usize| u32::from_le_bytes(whole[at + 4..at + 8].try_into().unwrap()) as usize;
    let second = 8 + len(0);
    let end = whole.len() - 8;
    let frames = [(0, second), (second, end)];
    let mut random = Random(2_463_534_242);
    let mut failed = 0;
    for round in 0..ROUNDS {
        let (from, to) = frames[round % 2];
        let head = from + 8 + len(from);
        let mut bytes = whole.clone();
        random.damage(&mut bytes, &(from + 8..head - 8));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&(from as u64).to_le_bytes());
        crc.update(&bytes[from..head - 4]);
        crc.update(&bytes[head..to]);
        let crc = crc.finalize().to_le_bytes();
        bytes[head - 4..head].copy_from_slice(&crc);
        fs::write(&path, &bytes).unwrap();
        for named in [true, false] {
            let reader = match named {
                true => session.open_log(Table::Stacks, 1).unwrap(),
                false => InflightReader::open(Table::Stacks, &path).unwrap(),
            };
            // Panics of arrow are caught while its schema is decoded.
            let read = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut reader = reader;
                let error = reader.by_ref().take(10).find_map(Result::err);
                (error, reader.cut().cloned())
            }));
            let (error, cut) = read.unwrap_or_else(|_| panic!("a frame at {from} makes the reader panic"));
            if let Some(error) = &error {
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
            failed += usize::from(error.is_some() || cut.is_some());
        }
    }
    assert!(failed > 100, "{failed}");
}
