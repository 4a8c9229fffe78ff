//! Sessions made up for tests: random rows in many segments, and a slow and obvious reader of them.

// Each test binary uses its part of this, and nobody links it.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder},
    io::Write as _,
    ops::Deref,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use hud_common::session::{
    AccountColumns, AccountRow, Clock, ClockColumns, ClockRow, Columns, CoverageColumns, CoverageRow, DropColumns,
    DropRow, FrameColumns, FrameRow, InflightLog, InflightReader, Manifest, ModuleColumns, ModuleRow, OffCpuColumns,
    OffCpuRow, Options, PollColumns, PollRow, REFERENCES, SampleColumns, SampleRow, SessionDir, StackColumns, StackRow,
    StreamAccount, Table, TaskTypeColumns, TaskTypeRow, ThreadColumns, ThreadRow, VerifiedFile, WakeColumns, WakeRow,
    encode, integers, texts,
};
use hud_testkit::Session;
pub use hud_testkit::{MS, Random, T0, batch};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::{metadata::KeyValue, properties::WriterProperties},
};

/// A session whose segments are written without the checks of sealing.
pub struct Made(Session);

impl Deref for Made {
    type Target = Session;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

pub fn manifest() -> Manifest {
    Manifest { options: Options::default(), clock: Clock { mono: 5, real: T0 }, ..hud_testkit::manifest() }
}

pub fn poll(ts: i64, type_id: impl Into<Option<i64>>) -> PollRow {
    PollRow {
        ts,
        dur: ts % 7 * MS,
        task_id: ts % 50,
        type_id: type_id.into(),
        tid: 101,
        cpu: 1,
        blocked: ts % 3,
        run_queue: 0,
        wake_delay: (ts % 2 == 0).then_some(ts % 1000),
        completed: (ts % 5 > 1).then_some(ts % 5 == 2),
    }
}

pub fn off_cpu(ts: i64, dur: i64, stack_id: i64) -> OffCpuRow {
    OffCpuRow {
        ts,
        dur,
        tid: 101,
        cpu: 0,
        state: if dur % 2 == 0 { "S".into() } else { "R".into() },
        task_id: (ts % 3 > 0).then_some(ts % 11),
        stack_id: Some(stack_id),
        run_queue: None,
        waker_tid: (dur % 3 == 0).then_some(7),
        intervals: None,
    }
}

pub fn frame(frame_id: i64) -> FrameRow {
    FrameRow {
        frame_id,
        module_id: Some(1 + frame_id % 2),
        address: frame_id * 16,
        function: (frame_id % 5 > 0).then(|| format!("app::function_{frame_id}").into()),
        file: None,
        line: Some(3),
        col: None,
        inline_depth: 0,
        origin: Some("own".into()),
    }
}

impl Made {
    pub fn new(manifest: &Manifest) -> Self {
        Made(Session::new(manifest))
    }

    /// A copy, to be damaged.
    pub fn copy(&self) -> Self {
        Made(Session::copy_of(&self.path))
    }

    pub fn log(&self, table: Table, batches: &[RecordBatch]) -> u32 {
        let mut log = InflightLog::create(&self.dir, table, self.dir.next_number(table).unwrap()).unwrap();
        batches.iter().for_each(|b| log.append(b).unwrap());
        log.number()
    }

    /// Adds a sealed segment, without waiting for the disk as sealing does.
    pub fn add<C: Columns>(&self, rows: impl IntoIterator<Item = C::Row>) -> u32 {
        self.put(C::TABLE, batch::<C>(rows))
    }

    pub fn put(&self, table: Table, rows: RecordBatch) -> u32 {
        let number = self.dir.next_number(table).unwrap();
        let encoded = encode(table, &[rows]).unwrap().unwrap();
        let path = self.dir.segment(table, number);
        DirBuilder::new().mode(0o700).recursive(true).create(path.parent().unwrap()).unwrap();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(&encoded.data).unwrap();
        number
    }

    pub fn manifest(&self) -> Manifest {
        Manifest::read(&self.path).unwrap()
    }

    /// Writes the manifest again, with the accounts of the rows there.
    pub fn close(&self, mut manifest: Manifest) {
        for table in [Table::Polls, Table::OffCpu, Table::Samples, Table::Wakes, Table::Threads] {
            let stored = rows(&self.path).get(table.name()).map_or(0, |rows| rows.len() as u64);
            let dropped = if table == Table::Polls { DROPPED } else { 0 };
            let account = StreamAccount { produced: stored + dropped, stored, dropped, expired: 0 };
            manifest.streams.insert(table.name().into(), account);
        }
        manifest.write(&self.path).unwrap();
    }
}

/// Polls that every random session says were dropped.
const DROPPED: u64 = 5;

/// A session of random rows: `segments` of each table of events, of up to `most` rows, that overlap as those of a recorder
/// do, with ties; proven by [`faults`].
pub fn random(seed: u64, segments: i64, most: i64) -> Made {
    let made = Made::new(&manifest());
    let mut random = Random::new(seed);
    let modules = (1..=2).map(|module_id| ModuleRow {
        module_id,
        path: format!("/lib/{module_id}").into(),
        build_id: None,
        start: 0,
        end: 4096,
        offset: 0,
    });
    made.add::<ModuleColumns>(modules);
    for part in 0..3 {
        made.add::<FrameColumns>((1..=10).map(|n| frame(part * 10 + n)));
        made.add::<StackColumns>((1..=10).map(|n| StackRow {
            stack_id: part * 10 + n,
            frame_ids: (0..random.below(6)).map(|_| 1 + random.below(30)).collect(),
            unwind: "complete".into(),
        }));
    }
    made.add::<TaskTypeColumns>((1..=4).map(|type_id| TaskTypeRow {
        type_id,
        name: format!("app::task_{type_id}").into(),
        scheduler: None,
        file: Some("src/main.rs".into()),
        line: None,
        kind: "task".into(),
        raw_name: "".into(),
    }));
    made.add::<ClockColumns>([ClockRow { mono: 5, real: T0 }]);
    made.add::<ClockColumns>([ClockRow { mono: 7, real: T0 + 2 }]);
    let (mut polls, mut sleeps) = (0, 0);
    for segment in 0..segments {
        let from = T0 + segment * 100 * MS;
        // Few instants, so that there are ties, and some that began long before.
        let at = |random: &mut Random| from + random.below(120) * MS - random.below(8) / 7 * random.below(5_000) * MS;
        let count = |random: &mut Random| 1 + random.below(most);
        let n = count(&mut random);
        polls += n;
        let rows: Vec<_> = (0..n).map(|n| poll(at(&mut random) + n % 2, Some(1 + n % 4))).collect();
        made.add::<PollColumns>(rows);
        let n = count(&mut random);
        sleeps += n;
        let rows: Vec<_> =
            (0..n).map(|_| off_cpu(at(&mut random), random.below(9) * MS, 1 + random.below(30))).collect();
        made.add::<OffCpuColumns>(rows);
        let rows: Vec<_> = (0..count(&mut random))
            .map(|_| SampleRow {
                ts: at(&mut random),
                tid: 101,
                cpu: 0,
                task_id: None,
                stack_id: (random.below(5) > 0).then(|| 1 + random.below(30)),
                weight: 10,
                unwind: "complete".into(),
            })
            .collect();
        made.add::<SampleColumns>(rows);
        let rows: Vec<_> = (0..count(&mut random))
            .map(|n| WakeRow { ts: at(&mut random), task_id: n, waker_task_id: None, waker_tid: 3 })
            .collect();
        made.add::<WakeColumns>(rows);
        made.add::<AccountColumns>([("polls", polls), ("off_cpu", sleeps)].map(|(stream, stored)| AccountRow {
            ts: from + 100 * MS,
            stream: stream.into(),
            produced: stored,
            stored,
            dropped: 0,
        }));
    }
    made.add::<ThreadColumns>([ThreadRow {
        ts: T0,
        tid: 101,
        name: "tokio-rt-worker".into(),
        role: "worker".into(),
        worker: Some(0),
        runtime_id: Some(0),
        event: "seen".into(),
    }]);
    for stream in ["polls", "off_cpu"] {
        made.add::<CoverageColumns>([CoverageRow { ts: T0, dur: MS, stream: stream.into(), reason: "stopped".into() }]);
    }
    made.add::<DropColumns>([drop_row("polls", "ring", 5)]);
    made.close(manifest());
    assert_eq!(faults(&made.path), Vec::<String>::new(), "seed {seed}");
    made
}

/// A small one, for tests that do something with it many times.
pub fn small() -> Made {
    let made = Made::new(&manifest());
    made.add::<FrameColumns>([FrameRow { module_id: None, ..frame(1) }]);
    for stack_id in 1..=2 {
        made.add::<StackColumns>([StackRow { stack_id, frame_ids: vec![1], unwind: "complete".into() }]);
    }
    for n in 0..3 {
        made.add::<PollColumns>([poll(T0 + n, None), poll(T0 + 5 - n, None)]);
        made.add::<OffCpuColumns>([off_cpu(T0 + n, 3, 1), off_cpu(T0 + n, 4, 2)]);
    }
    made.add::<DropColumns>([drop_row("polls", "ring", 5)]);
    made.close(manifest());
    assert_eq!(faults(&made.path), Vec::<String>::new());
    made
}

pub fn drop_row(stream: &'static str, stage: &'static str, lost: i64) -> DropRow {
    DropRow { ts: T0, dur: MS, stream: stream.into(), stage: stage.into(), lost }
}

/// The segments that are part of a session.
pub fn segments(session: &Path, table: Table) -> Vec<(u32, PathBuf)> {
    let manifest = Manifest::read(session).unwrap();
    let mut all = SessionDir::at(session).sealed(table).unwrap();
    all.retain(|(number, _)| *number >= manifest.first_segment(table));
    all
}

/// The batches of a segment, read by the parquet crate alone.
pub fn read(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect()
}

/// Every row of a session as text, sorted, by table; tables without rows are not there.
pub fn rows(session: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let mut all = BTreeMap::new();
    for &table in Table::ALL {
        let mut rows: Vec<String> =
            segments(session, table).iter().flat_map(|(_, p)| read(p)).flat_map(|b| lines(&b)).collect();
        for (_, log) in SessionDir::at(session).unsealed_of(table).unwrap() {
            rows.extend(InflightReader::open(table, &log).unwrap().flat_map(|batch| lines(&batch.unwrap())));
        }
        rows.sort();
        if !rows.is_empty() {
            all.insert(table.name(), rows);
        }
    }
    all
}

/// The rows of a batch as text.
pub fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// The keys of a segment.
pub fn keys(table: Table, path: &Path) -> Vec<i64> {
    read(path).iter().flat_map(|batch| integers(batch, table.key())).collect()
}

/// What a session is not proven for: the checks of `hud-analyze verify`, slow and obvious. A row that `drops` says was
/// damaged is stated to be lost.
pub fn faults(session: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let manifest = match Manifest::read(session) {
        Ok(manifest) => manifest,
        Err(e) => return vec![e.to_string()],
    };
    let mut ids: BTreeMap<Table, BTreeSet<i64>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all = Vec::new();
    for &table in Table::ALL {
        let empty =
            manifest.recovery.as_ref().and_then(|r| r.empty_segments.get(table.name()).cloned()).unwrap_or_default();
        let mut next = manifest.first_segment(table);
        for (number, path) in segments(session, table) {
            while next < number && empty.contains(&next) {
                next += 1;
            }
            if number != next {
                faults.push(format!("{} has no segment {next}", table.name()));
            }
            next = number + 1;
            if let Err(e) = VerifiedFile::open(&path).and_then(|f| f.check_all()) {
                faults.push(e.to_string());
                continue;
            }
            let batches = read(&path);
            let keys: Vec<i64> = batches.iter().flat_map(|batch| integers(batch, table.key())).collect();
            if !keys.is_sorted() {
                faults.push(format!("{} is not sorted", path.display()));
            }
            if keys.is_empty() {
                faults.push(format!("{} has no row", path.display()));
            }
            *counts.entry(table.name()).or_default() += keys.len() as u64;
            if REFERENCES.iter().any(|r| r.to == table) {
                for key in keys {
                    if !ids.entry(table).or_default().insert(key) {
                        faults.push(format!("{} {key} has two rows", table.key()));
                    }
                }
            }
            all.extend(batches.into_iter().map(|batch| (table, batch)));
        }
        if !SessionDir::at(session).unsealed_of(table).unwrap().is_empty() {
            faults.push(format!("{} has a log", table.name()));
        }
    }
    let (mut drops, mut damaged): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
    let mut accounts: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for (table, batch) in &all {
        for reference in REFERENCES.iter().filter(|r| r.from == *table) {
            for id in integers(batch, reference.column) {
                if !ids.get(&reference.to).is_some_and(|ids| ids.contains(&id)) {
                    faults.push(format!("{} {id} of {} has no row", reference.column, table.name()));
                }
            }
        }
        if *table == Table::Drops {
            let streams = texts(batch, "stream").into_iter().zip(texts(batch, "stage"));
            for ((stream, stage), lost) in streams.zip(integers(batch, "lost")) {
                let lost = u64::try_from(lost).unwrap();
                *drops.entry(stream.into()).or_default() += lost;
                if stage == "damaged" {
                    *damaged.entry(stream.into()).or_default() += lost;
                }
            }
        }
        if *table == Table::Accounts {
            let [produced, stored, dropped] = ["produced", "stored", "dropped"].map(|c| integers(batch, c));
            for (row, stream) in texts(batch, "stream").into_iter().enumerate() {
                let account = [produced[row], stored[row], dropped[row]];
                let last = accounts.entry(stream.into()).or_default();
                if last.iter().zip(account).any(|(last, now)| *last > now) {
                    faults.push(format!("the account of {stream} shrinks"));
                }
                *last = account;
            }
        }
    }
    let lost = manifest.recovery.as_ref().map(|r| r.lost.clone()).unwrap_or_default();
    let of = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
    for (name, account) in &manifest.streams {
        let rows = counts.get(name.as_str()).copied().unwrap_or(0);
        if account.stored != rows {
            faults.push(format!("{name} should have {} rows and has {rows}", account.stored));
        }
        if account.produced != account.stored + account.dropped + account.expired + of(&lost, name) {
            faults.push(format!("{name} does not add up: {account:?}"));
        }
        let reported = of(&drops, name);
        let has_expired = manifest.first_segment(Table::Drops) > 1;
        if reported > account.dropped || (manifest.complete && !has_expired && reported != account.dropped) {
            faults.push(format!("{name}: {} dropped, {reported} reported", account.dropped));
        }
    }
    for (name, last) in &accounts {
        let rows = counts.get(name.as_str()).copied().unwrap_or(0);
        let expired = manifest.streams.get(name).map_or(0, |s| s.expired);
        if u64::try_from(last[1]).unwrap() > rows + expired + of(&lost, name) + of(&damaged, name) {
            faults.push(format!("rows of {name} are missing"));
        }
    }
    if !manifest.complete && (manifest.recovery.is_none() || manifest.end_reason.is_none()) {
        faults.push("it was not recovered".into());
    }
    faults
}

/// A segment as hud never writes one, but signed: these rows in this order.
pub fn unsorted(session: &SessionDir, table: Table, number: u32, rows: &RecordBatch) {
    let properties = WriterProperties::builder().build();
    let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&rows.schema()), Some(properties)).unwrap();
    let mut writer = writer;
    writer.write(rows).unwrap();
    writer.flush().unwrap();
    // Out of its buffer, or the last pages would lie after the data that is signed.
    writer.sync().unwrap();
    let data = writer.inner().clone();
    let sums: String = data.chunks(64 << 10).map(|block| format!("{:08x}", crc32fast::hash(block))).collect();
    writer.append_key_value_metadata(KeyValue::new("hud.blocks".into(), format!("{}:{sums}", data.len())));
    writer.append_key_value_metadata(KeyValue::new("hud.tail".into(), String::from("00000000")));
    let mut bytes = writer.into_inner().unwrap();
    let needle = b"\x18\x08hud.tail\x18\x08";
    let at = bytes.windows(needle.len()).rposition(|w| w == needle).unwrap() + needle.len();
    let crc = format!("{:08x}", crc32fast::hash(&bytes[data.len()..]));
    bytes[at..at + 8].copy_from_slice(crc.as_bytes());
    fs::create_dir_all(session.table(table)).unwrap();
    fs::write(session.segment(table, number), bytes).unwrap();
}

/// Every file of a folder with its content.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.is_dir() {
            true => all.extend(
                files(&path).into_iter().map(|(name, bytes)| (Path::new(&entry.file_name()).join(name), bytes)),
            ),
            false => drop(all.insert(entry.file_name().into(), fs::read(&path).unwrap())),
        }
    }
    all
}

/// What lies beside a session.
pub fn beside(session: &Path) -> Vec<String> {
    let names = fs::read_dir(session.parent().unwrap()).unwrap();
    let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| session.file_name().unwrap() != name.as_str());
    names
}
