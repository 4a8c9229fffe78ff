//! The cost of compaction: `measure FOLDER ROWS SEGMENTS` makes a session of ROWS rows in SEGMENTS segments of each of
//! four tables, compacts it, and prints time, bytes and the peak of resident memory.
//!
//! `measure FOLDER` compacts the session that is there.

#![allow(missing_docs, reason = "an example")]

use std::{error::Error, fs, os::unix::fs::DirBuilderExt as _, path::Path, time::Instant};

use arrow::array::RecordBatch;
use hud_common::session::{
    Clock, Columns, FORMAT_VERSION, Manifest, OffCpuColumns, OffCpuRow, PollColumns, PollRow, SampleColumns, SampleRow,
    SessionDir, StackColumns, StackRow, StreamAccount, Table, WakeColumns, WakeRow, encode,
};
use hud_upkeep::{CompactOptions, compact};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const START: i64 = 1_700_000_000_000_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = match arguments.as_slice() {
        [folder] => folder,
        [folder, rows, segments] => {
            make(Path::new(folder), rows.parse()?, segments.parse()?)?;
            // The makers' memory is not compaction's.
            return Ok(());
        }
        _ => return Err("give FOLDER, or FOLDER ROWS SEGMENTS".into()),
    };
    let since = Instant::now();
    let report = compact(Path::new(folder), &CompactOptions::default(), &mut ())?;
    let took = since.elapsed();
    report.lines().iter().for_each(|line| println!("{line}"));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: not known").to_string();
    println!("{:.2} s, {peak}", took.as_secs_f64());
    Ok(())
}

fn make(root: &Path, rows: i64, segments: i64) -> Result<()> {
    if rows < segments || segments < 1 {
        return Err("give at least a row for each segment".into());
    }
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        id: "measured".into(),
        start: START,
        clock: Clock { mono: 0, real: START },
        complete: true,
        ..Manifest::default()
    };
    let (session, _lock) = SessionDir::create(root, &manifest)?;
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        i64::try_from(state % below).unwrap_or(0)
    };
    let stacks = batch::<StackColumns>((1..=4000).map(|stack_id| StackRow {
        stack_id,
        frame_ids: Vec::new(),
        unwind: "complete".into(),
    }));
    put(&session, Table::Stacks, 1, stacks)?;
    // Four, three, two and one tenth of the rows, in the order in which they end.
    for (table, tenths) in [(Table::Polls, 4), (Table::OffCpu, 3), (Table::Samples, 2), (Table::Wakes, 1)] {
        let all = rows * tenths / 10;
        let mut now = START;
        for segment in 0..segments {
            let count = all * (segment + 1) / segments - all * segment / segments;
            let mut at = || {
                now += random(20_000);
                let dur = random(100_000) + random(1000) / 999 * random(30_000_000);
                (now - dur, dur, random(10_000), 100 + random(8))
            };
            let times = (0..count).map(|_| at());
            let id = |tid: i64| i32::try_from(tid).unwrap_or(0);
            let made = match table {
                Table::Polls => batch::<PollColumns>(times.map(|(ts, dur, n, tid)| PollRow {
                    ts,
                    dur,
                    task_id: n,
                    type_id: None,
                    tid: id(tid),
                    cpu: id(tid % 4),
                    blocked: 0,
                    run_queue: dur / 10 * (n % 2),
                    wake_delay: Some(n * 10),
                    completed: Some(n % 100 == 0),
                })),
                Table::OffCpu => batch::<OffCpuColumns>(times.map(|(ts, dur, n, tid)| OffCpuRow {
                    ts,
                    dur,
                    tid: id(tid),
                    cpu: id(tid % 4),
                    state: "S".into(),
                    task_id: (n % 3 == 0).then_some(n),
                    stack_id: Some(1 + n % 4000),
                    run_queue: Some(dur / 50),
                    waker_tid: Some(id(tid)),
                    intervals: None,
                })),
                Table::Samples => batch::<SampleColumns>(times.map(|(ts, _, n, tid)| SampleRow {
                    ts,
                    tid: id(tid),
                    cpu: id(tid % 4),
                    task_id: Some(n),
                    stack_id: Some(1 + n % 4000),
                    weight: 10_101_010,
                    unwind: "complete".into(),
                })),
                _ => batch::<WakeColumns>(times.map(|(ts, _, n, tid)| WakeRow {
                    ts,
                    task_id: n,
                    waker_task_id: None,
                    waker_tid: id(tid),
                })),
            };
            put(&session, table, u32::try_from(segment + 1)?, made)?;
        }
        let stored = all.unsigned_abs();
        manifest
            .streams
            .insert(table.name().into(), StreamAccount { produced: stored, stored, ..StreamAccount::default() });
    }
    Ok(manifest.write(root)?)
}

fn batch<C: Columns>(rows: impl Iterator<Item = C::Row>) -> RecordBatch {
    let mut columns = C::default();
    rows.for_each(|row| columns.push(row));
    columns.finish()
}

fn put(session: &SessionDir, table: Table, number: u32, rows: RecordBatch) -> Result<()> {
    let Some(encoded) = encode(table, &[rows])? else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(session.table(table))?;
    Ok(fs::write(session.segment(table, number), encoded.data)?)
}
