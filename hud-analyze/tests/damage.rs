//! Every file of a session, truncated or with flipped bits: no reader panics or returns a wrong row. It returns the rows
//! written, or an error that names the file; of a log, the rows before the damage, and a report of it.
//!
//! That every single byte counts is tested with the format, in hud-common; here all readers get samples.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use hud_analyze::{
    State,
    catalog::Catalog,
    verify::verify,
    view::{self, View},
};
use hud_common::cockpit::Source as _;
use hud_common::session::{
    AccountColumns, AccountRow, ClockColumns, ClockRow, DropColumns, DropRow, InflightLog, Manifest, ProcessColumns,
    ProcessRow, SessionDir, StreamAccount, Table, recover,
};
use support::*;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// DataFusion's tasks panic on other threads, and it makes errors of that.
fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
}

/// A small generator, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

const SLEEPS: i64 = 300;

fn sleeps(from: i64, to: i64) -> impl Iterator<Item = format::OffCpuRow> {
    (from..to).map(|n| sleep(at(n * 7 % 4999), W0, (n % 3 > 0).then_some(SLEEPER), n * 7919, n % 5))
}

/// Rows in most tables, sealed. `manifest` decides whether it was closed.
fn sealed(manifest: &Manifest) -> Session {
    let session = Session::with_cast_of(manifest);
    session
        .add::<OffCpu>(sleeps(0, SLEEPS / 2))
        .add::<OffCpu>(sleeps(SLEEPS / 2, SLEEPS))
        .add::<Polls>((0..200).map(|n| poll(at(n * 13 % 4000), W1, HOG, 3, n * n * 100)))
        .add::<Samples>((0..100).map(|n| sample(at(n * 10), W0, HOG, 1 + n % 7)))
        .add::<Coverage>([covered("off_cpu", T0, T0 + 5 * SECOND)])
        .add::<ClockColumns>([ClockRow { mono: 0, real: T0 }])
        .add::<ProcessColumns>((0..5).map(|n| ProcessRow {
            ts: at(n * 1000),
            cpu_user: n,
            cpu_sys: 1,
            rss: 1 << 20,
            threads: 3,
            fds: None,
            cpu_others: None,
            throttled: None,
        }))
        .add::<AccountColumns>((1..5).map(|n| AccountRow {
            ts: at(n * 1000),
            stream: "off_cpu".into(),
            produced: n * 50,
            stored: n * 40,
            dropped: 1,
        }))
        .add::<DropColumns>([DropRow { ts: at(1), dur: 1, stream: "off_cpu".into(), stage: "ring".into(), lost: 1 }]);
    session
}

fn closed() -> Session {
    let rows = SLEEPS as u64;
    let account = StreamAccount { produced: rows + 1, stored: rows, dropped: 1, expired: 0 };
    sealed(&Manifest { streams: [("off_cpu".into(), account)].into(), ..manifest() })
}

/// As kill -9 leaves it: logs beside segments.
fn killed() -> Session {
    let session = sealed(&Manifest { end: None, end_reason: None, complete: false, ..manifest() });
    let mut log = InflightLog::create(session.dir(), Table::OffCpu, 3).unwrap();
    for part in 0..4 {
        let mut columns = format::OffCpuColumns::default();
        sleeps(SLEEPS + part * 50, SLEEPS + (part + 1) * 50).for_each(|row| format::Columns::push(&mut columns, row));
        log.append(&format::Columns::finish(&mut columns)).unwrap();
    }
    session.log::<AccountColumns>([AccountRow {
        ts: at(5000),
        stream: "off_cpu".into(),
        produced: 500,
        stored: 450,
        dropped: 1,
    }]);
    session
}

/// The files of a session, by path in it.
fn files(session: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![session.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path.strip_prefix(session).unwrap().to_path_buf()),
            }
        }
    }
    files.retain(|f| !f.ends_with("lock"));
    files.sort();
    files
}

/// Damage to a file: a description, and its bytes after it.
fn damages(random: &mut Random, whole: &[u8], count: usize) -> Vec<(String, Vec<u8>)> {
    let mut damaged = Vec::new();
    let len = whole.len();
    let cuts = [0, 1, 4, 8, len / 2, len.saturating_sub(9), len.saturating_sub(4), len - 1];
    let cuts = cuts.into_iter().chain((0..count).map(|_| random.below(len))).collect::<Vec<_>>();
    damaged.extend(cuts.into_iter().map(|cut| (format!("cut at {cut}"), whole[..cut].to_vec())));
    let mut flip = |at: usize, how: u8| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= how;
        damaged.push((format!("byte {at} of {len} ^ {how:#x}"), bytes));
    };
    // Its head, its foot, and anywhere.
    for at in [0, 5, len - 1, len - 5, len - 8] {
        flip(at, 1);
    }
    for _ in 0..2 * count {
        let (at, how) = (random.below(len), 1 << random.below(8));
        flip(at, how);
    }
    let mut zeros = whole.to_vec();
    let from = random.below(len);
    zeros[from..].fill(0);
    damaged.push((format!("zeros from {from}"), zeros));
    damaged.push(("with something after it".into(), [whole, b"something"].concat()));
    damaged
}

/// All rows of a table, in order of all columns, or why not.
fn answer(session: &Path, table: Table) -> Result<(Vec<String>, bool), String> {
    runtime().block_on(async {
        let catalog = Catalog::open(session).map_err(|e| e.to_string())?;
        let frame = catalog.sql(&format!("SELECT * FROM {}", table.name())).await.map_err(|e| e.to_string())?;
        let batches = frame.collect().await.map_err(|e| catalog.explain(e.into()).to_string())?;
        catalog.confirm().map_err(|e| e.to_string())?;
        let mut rows: Vec<_> = to_json(&batches).iter().map(ToString::to_string).collect();
        rows.sort();
        let is_told = catalog.notices().next().is_some() || catalog.sessions()[0].state() == State::Recovered;
        Ok((rows, is_told))
    })
}

fn answer_view(session: &Path, view: &View) -> Result<Vec<serde_json::Value>, String> {
    runtime().block_on(async {
        let catalog = Catalog::open(session).map_err(|e| e.to_string())?;
        let frame = catalog.plan(view, &whole()).await.map_err(|e| e.to_string())?;
        let batches = frame.collect().await.map_err(|e| catalog.explain(e.into()).to_string())?;
        catalog.confirm().map_err(|e| e.to_string())?;
        Ok(to_json(&batches))
    })
}

fn table_of(file: &Path) -> Option<Table> {
    Table::by_name(file.parent()?.to_str()?)
}

#[test]
fn a_closed_session_returns_the_rows_written_or_names_the_file() {
    count_panics();
    let session = closed();
    let right_views: Vec<_> = view::ALL.iter().map(|view| answer_view(&session.path, view).unwrap()).collect();
    let mut turn = 0;
    assert_eq!(verify(&session.path).unwrap().first_fault(), None);
    let mut random = Random(88_172_645_463_325_252);
    for file in files(&session.path) {
        let path = session.path.join(&file);
        let right = table_of(&file).map(|table| answer(&session.path, table).unwrap().0);
        let whole = fs::read(&path).unwrap();
        for (count, (how, bytes)) in damages(&mut random, &whole, 6).into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let names_it = |error: &str| match table_of(&file) {
                Some(_) => error.contains(file.to_str().unwrap()),
                None => error.contains(session.path.to_str().unwrap()),
            };
            match answer(&session.path, table_of(&file).unwrap_or(Table::Polls)) {
                Ok((rows, _)) => assert!(Some(rows) == right, "{}, {how}: wrong rows", file.display()),
                Err(error) => assert!(names_it(&error), "{}, {how}: {error}", file.display()),
            }
            match verify(&session.path) {
                Ok(report) => {
                    let fault = report.first_fault().unwrap_or_else(|| panic!("{}, {how}: unseen", file.display()));
                    assert!(names_it(&fault), "{}, {how}: {fault}", file.display());
                }
                Err(error) => assert!(names_it(&error.to_string()), "{}, {how}: {error}", file.display()),
            }
            // They all read through one store; each takes its turn.
            if count % 9 == 7 {
                turn += 1;
                let (view, right) = (turn % view::ALL.len(), &right_views[turn % view::ALL.len()]);
                match answer_view(&session.path, &view::ALL[view]) {
                    Ok(rows) => assert!(rows == *right, "{}, {how}: a view is wrong", file.display()),
                    Err(error) => assert!(names_it(&error), "{}, {how}: {error}", file.display()),
                }
            }
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// The checksum that a segment's footer must have, for bytes from where its data pages end.
fn sign(segment: &mut [u8]) {
    let find = |key: &[u8]| segment.windows(key.len()).rposition(|bytes| bytes == key).map(|at| at + key.len());
    let blocks = find(b"hud.blocks\x18").unwrap();
    let blocks = String::from_utf8_lossy(&segment[blocks..blocks + 20]).into_owned();
    let digits = blocks.split(':').next().unwrap().trim_start_matches(|c: char| !c.is_ascii_digit());
    let (from, at) = (digits.parse::<usize>().unwrap(), find(b"hud.tail\x18\x08").unwrap());
    segment[at..at + 8].copy_from_slice(b"00000000");
    let crc = format!("{:08x}", crc32fast::hash(&segment[from..]));
    segment[at..at + 8].copy_from_slice(crc.as_bytes());
}

/// `ARROW:schema` is decoded by the arrow crate, which panics where it is damaged; so did five commands.
#[test]
fn a_signed_footer_with_a_damaged_arrow_schema_returns_the_rows_written() {
    count_panics();
    let session = closed();
    let path = session.dir().segment(Table::OffCpu, 1);
    let whole = fs::read(&path).unwrap();
    let (right, _) = answer(&session.path, Table::OffCpu).unwrap();
    let key = b"ARROW:schema";
    let at = whole.windows(key.len()).rposition(|bytes| bytes == key).unwrap() + key.len() + 3;
    let mut random = Random(2_463_534_242);
    for _ in 0..60 {
        let mut bytes = whole.clone();
        // Letters of its base64, which accepts any.
        for _ in 0..1 + random.below(4) {
            bytes[at + random.below(400)] = b'A' + u8::try_from(random.below(26)).unwrap();
        }
        sign(&mut bytes);
        assert!(bytes != whole);
        fs::write(&path, bytes).unwrap();
        let (rows, _) = answer(&session.path, Table::OffCpu).unwrap();
        assert!(rows == right);
        assert_eq!(verify(&session.path).unwrap().first_fault(), None);
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// What else stands in a footer: places, sizes, statistics, page indexes.
#[test]
fn signed_footers_of_any_content_make_no_reader_panic() {
    count_panics();
    let session = closed();
    let mut random = Random(362_436_069_521_288_629);
    for table in [Table::OffCpu, Table::Stacks] {
        let path = session.dir().segment(table, 1);
        let whole = fs::read(&path).unwrap();
        let key = b"hud.blocks\x18";
        let blocks = whole.windows(key.len()).rposition(|bytes| bytes == key).unwrap() + key.len();
        let digits: String =
            whole[blocks..].iter().map(|b| char::from(*b)).skip_while(|c| !c.is_ascii_digit()).collect();
        let data_end: usize = digits.split(':').next().unwrap().parse().unwrap();
        for round in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                bytes[data_end + random.below(blocks - key.len() - data_end)] =
                    [0, 0xff, 0x7f, 0x80, 0x15, 0x19][random.below(6)];
            }
            sign(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let named = |error: &str| assert!(error.contains(path.to_str().unwrap()), "{error}");
            if let Err(error) = answer(&session.path, table) {
                named(&error);
            }
            match verify(&session.path) {
                Ok(report) => drop(report.first_fault()),
                Err(error) => named(&error.to_string()),
            }
            let view = &view::ALL[round % view::ALL.len()];
            drop(answer_view(&session.path, view));
            if let Ok(mut replay) = hud_analyze::replay::Replay::open(&session.path) {
                drop(replay.snapshot(&hud_common::cockpit::Query::default()));
            }
            assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{} in round {round}", table.name());
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_killed_session_returns_complete_batches_and_reports_it() {
    count_panics();
    let session = killed();
    let (tmp, _) = copy(&session.path);
    let fresh = |n: usize| {
        let to = tmp.path().join(n.to_string());
        copy_to(&session.path, &to);
        to
    };
    let right = |table| answer(&fresh(1_000_000 + table as usize), table).unwrap();
    let mut random = Random(1_181_783_497_276_652_981);
    let mut n = 0;
    for file in files(&session.path) {
        let is_log = file.to_str().unwrap().ends_with(".inflight");
        let (table, whole) = (table_of(&file), fs::read(session.path.join(&file)).unwrap());
        let (right, is_reported) = right(table.unwrap_or(Table::Polls));
        assert!(is_reported);
        for (how, bytes) in damages(&mut random, &whole, if is_log { 15 } else { 2 }) {
            n += 1;
            let copy = fresh(n);
            fs::write(copy.join(&file), bytes).unwrap();
            let copied = copy.to_str().unwrap().to_string();
            let named = |error: &str| error.contains(table.map_or(copied.as_str(), |_| file.to_str().unwrap()));
            // Recovered by the first reader, read by the second, proven by the third.
            let opened = SessionDir::open(&copy).map_err(|e| e.to_string());
            let recovered = opened.and_then(|(dir, _)| recover(&dir).map_err(|e| e.to_string()));
            match (answer(&copy, table.unwrap_or(Table::Polls)), is_log) {
                (Ok((rows, _)), false) => assert!(rows == right, "{}, {how}: wrong rows", file.display()),
                (Ok((rows, is_reported)), true) => {
                    assert!(is_reported, "{}, {how}: not reported", file.display());
                    assert!(rows.iter().all(|row| right.contains(row)), "{}, {how}: wrong rows", file.display());
                    if table == Some(Table::OffCpu) {
                        // Whole batches, in order.
                        let batches = (rows.len() as i64 - SLEEPS) / 50;
                        let mut expected: Vec<_> = sleeps(0, SLEEPS + 50 * batches).collect();
                        expected.sort_by_key(|row| row.ts);
                        assert_eq!(rows.len(), expected.len(), "{how}");
                        let sum = |rows: &[String]| rows.iter().map(|r| field(r, "dur")).sum::<i64>();
                        assert_eq!(sum(&rows), expected.iter().map(|row| row.dur).sum::<i64>(), "{how}");
                    }
                }
                (Err(error), _) => {
                    assert!(!is_log, "{}, {how}: {error}", file.display());
                    assert!(named(&error), "{}, {how}: {error}", file.display());
                }
            }
            match (recovered, verify(&copy)) {
                // Of a log, the loss is stated.
                (Ok(Some(_)), Ok(report)) if is_log => {
                    assert_eq!(report.first_fault(), None, "{}, {how}", file.display())
                }
                (_, Ok(report)) => assert!(report.first_fault().is_some_and(|fault| named(&fault)), "{how}"),
                (Err(error), Err(_)) => assert!(named(&error), "{}, {how}: {error}", file.display()),
                (Ok(_), Err(error)) => panic!("{}, {how}: {error}", file.display()),
            }
            fs::remove_dir_all(copy).unwrap();
        }
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[test]
fn a_log_that_is_being_written_gives_a_prefix() {
    count_panics();
    let session = killed();
    let _recorder = session.record();
    let (right, _) = answer(&session.path, Table::OffCpu).unwrap();
    assert_eq!(right.len() as i64, SLEEPS + 200);
    let path = session.dir().log(Table::OffCpu, 3);
    let whole = fs::read(&path).unwrap();
    for (how, bytes) in damages(&mut Random(362_436_069), &whole, 25) {
        fs::write(&path, bytes).unwrap();
        let (rows, is_reported) = answer(&session.path, Table::OffCpu).unwrap();
        assert!(rows.iter().all(|row| right.contains(row)) && (rows.len() as i64 - SLEEPS) % 50 == 0, "{how}");
        assert!(is_reported || how.starts_with("cut"), "{how}: not reported");
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

/// Empty entries took time by the square of their number: 24 s for these.
#[test]
fn an_archive_of_many_empty_entries_is_soon_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.hud.zip");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    for entry in 0..40_000 {
        archive.start_file(format!("d/{entry}"), zip::write::SimpleFileOptions::default()).unwrap();
    }
    archive.finish().unwrap();
    let begun = std::time::Instant::now();
    let program = env!("CARGO_BIN_EXE_hud-analyze");
    let output = std::process::Command::new(program).arg("info").arg(&path).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("contains no session"), "{output:?}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[test]
fn a_pipe_in_place_of_a_file_is_an_error() {
    let session = closed();
    for file in ["manifest.json", "polls/000001.parquet"] {
        let path = session.path.join(file);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(answer(&session.path, Table::Polls).is_err(), "{file}");
        assert!(verify(&session.path).map_or(true, |report| report.first_fault().is_some()), "{file}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
}

fn field(row: &str, name: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(row).unwrap()[name].as_i64().unwrap()
}
