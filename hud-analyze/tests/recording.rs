//! The views on a recording of a real program, `test-async-app`: 3 workers, well-behaved tasks, and among them one that
//! computes for 20 ms, one that sleeps for 15 ms and four that wait for each other's lock.

#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeSet, fs, process::Command};

use arrow::{
    array::{RecordBatch, new_null_array},
    datatypes::FieldRef,
};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use hud_analyze::view::{self, View};
use hud_common::session::{Manifest, SessionDir, Table, VerifiedFile, encode};
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// The recording's rows over all of it.
fn recorded(view: View) -> Vec<Value> {
    rows(&recording(), view, all_time())
}

fn all_time() -> hud_analyze::view::Arguments {
    between(0, i64::MAX)
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

/// The well-behaved tasks: no finding may name one.
const GOOD: [&str; 5] = ["good_citizen", "yielding_worker", "pool_user", "short_lived_spawner", "short_lived"];

fn assert_culprits(rows: &[Value], where_from: &str) {
    let find = |cause: &str, task_type: &str| {
        rows.iter()
            .find(|r| text(r, "cause") == cause && text(r, "task_type").ends_with(task_type))
            .unwrap_or_else(|| panic!("no {task_type} ({where_from}): {rows:#?}"))
    };
    let sleeper = find("blocked", "::blocking_sleeper");
    assert!(text(sleeper, "function").contains("blocking_sleeper"), "{sleeper}");
    let hog = find("cpu", "::cpu_hog");
    for culprit in [sleeper, hog] {
        assert!(text(culprit, "file").ends_with(".rs") && culprit["line"].is_number(), "{culprit}");
    }
    let median = sleeper["median"].as_i64().unwrap();
    assert!((15 * MS..16 * MS).contains(&median), "{sleeper}");
    for row in rows {
        let blamed = text(row, "task_type").rsplit("::").next().unwrap();
        assert!(!GOOD.contains(&blamed), "{where_from}: {row}");
        assert!(!text(row, "function").is_empty(), "{row}");
    }
}

#[test]
fn both_culprits_are_named_and_no_well_behaved_task() {
    assert_culprits(&recorded(view::BLOCKING), "exact polls");
}

#[test]
fn without_polls_they_are_named_all_the_same() {
    let tmp = TempDir::new().unwrap();
    let copy = tmp.path().join("session");
    assert!(Command::new("cp").arg("-rL").arg(recording()).arg(&copy).status().unwrap().success());
    fs::remove_dir_all(copy.join("polls")).unwrap();
    fs::remove_dir_all(copy.join("coverage")).unwrap();
    let culprits = rows(&copy, view::BLOCKING, all_time());
    assert_culprits(&culprits, "samples alone");
    let sleeps = |rows: &[Value]| {
        let blocked = rows.iter().filter(|r| text(r, "cause") == "blocked");
        blocked.map(|r| (r["count"].as_i64().unwrap(), r["total"].as_i64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(sleeps(&culprits), sleeps(&recorded(view::BLOCKING)), "sleeps come from the scheduler alone");
}

#[test]
fn the_hottest_function_is_the_programs_own() {
    let rows = recorded(view::HOTSPOTS);
    assert!(text(&rows[0], "function").ends_with("::burn_cpu"), "{}", rows[0]);
    assert!(text(&rows[0], "task_type").ends_with("::cpu_hog"), "{}", rows[0]);
    for row in &rows {
        assert!(row["function"].is_string(), "{row}");
        if row["task_type"].is_string() {
            assert!(row["file"].is_string() && row["line"].is_number(), "{row}");
        }
        assert!(row["total"].as_i64() >= row["self"].as_i64(), "{row}");
    }
    let shares: f64 = rows.iter().map(|r| r["self_share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
}

#[test]
fn each_type_of_task_has_its_polls() {
    let rows = recorded(view::TASKS_BY_TYPE);
    let types: BTreeSet<_> = rows.iter().map(|r| text(r, "task_type").rsplit("::").next().unwrap()).collect();
    for name in ["cpu_hog", "blocking_sleeper", "lock_contender", "file_reader"].iter().chain(&GOOD) {
        assert!(types.contains(name), "no {name}: {types:?}");
    }
    let polls: i64 = rows.iter().map(|r| r["polls"].as_i64().unwrap()).sum();
    let (_, manifest) = SessionDir::open(&recording()).unwrap();
    assert!(polls <= i64::try_from(manifest.streams["polls"].stored).unwrap());
    let sleeper = rows.iter().find(|r| text(r, "task_type").ends_with("::blocking_sleeper")).unwrap();
    assert!((15 * MS..16 * MS).contains(&sleeper["median"].as_i64().unwrap()), "{sleeper}");
}

#[test]
fn three_workers_and_their_time_adds_up() {
    let rows = recorded(view::WORKERS);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        let shares =
            ["running_share", "blocked_share", "waiting_share", "idle_share"].map(|s| row[s].as_f64().unwrap());
        assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)), "{row}");
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{row}");
        assert!(row["polls"].as_i64().unwrap() > 0, "{row}");
    }
}

#[test]
fn every_row_is_accounted_for() {
    let (dir, manifest) = SessionDir::open(&recording()).unwrap();
    assert!(manifest.complete && dir.unsealed().unwrap().is_empty());
    for (stream, account) in &manifest.streams {
        assert_eq!(account.produced, account.stored + account.dropped, "{stream}");
    }
}

/// The same rows, with the columns that the table has by now.
fn as_of_today(table: Table, batch: &RecordBatch) -> RecordBatch {
    let schema = table.schema();
    let null = |field: &FieldRef| new_null_array(field.data_type(), batch.num_rows());
    let columns = schema.fields().iter().map(|f| batch.column_by_name(f.name()).cloned().unwrap_or_else(|| null(f)));
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// The recording is written as today's code writes segments. `SNAPSHOTS=overwrite` renews it, with the same rows.
#[test]
fn it_is_written_as_the_recorder_writes() {
    let overwrite = std::env::var_os("SNAPSHOTS").is_some_and(|action| action == "overwrite");
    let session = recording();
    for table in Table::ALL {
        let Ok(segments) = fs::read_dir(session.join(table.name())) else { continue };
        for path in segments.map(|e| e.unwrap().path()) {
            if overwrite {
                let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
                let batches: Vec<_> =
                    reader.build().unwrap().map(|batch| as_of_today(*table, &batch.unwrap())).collect();
                fs::write(&path, encode(*table, &batches).unwrap().unwrap().data).unwrap();
            }
            VerifiedFile::open(&path).and_then(|file| file.check_all()).unwrap();
        }
    }
    if overwrite {
        let text = fs::read_to_string(session.join("manifest.json")).unwrap();
        serde_json::from_str::<Manifest>(&text).unwrap().write(&session).unwrap();
    }
    Manifest::read(&session).unwrap();
}
