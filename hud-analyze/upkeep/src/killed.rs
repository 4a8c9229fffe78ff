//! Simulates a kill after each change on disk: the session is then completely the old or the new one, and the next run removes
//! the leftovers.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::{
    bench::{Bench, Place},
    compact::{self, CompactOptions, compact},
    error::{Error, Result},
    repair::{self, RepairOptions, repair},
    watch::Watch,
};

#[path = "../tests/support/mod.rs"]
mod support;
use support::{Made, beside, faults, files, random, rows, segments, small};

/// Fails at the `at`-th step.
fn stop_at(at: usize) -> impl FnMut() -> Result<()> {
    let mut step = 0;
    move || {
        step += 1;
        if step == at { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// A session's files, without the lock.
fn session_files(made: &Made) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = files(&made.path);
    all.remove(&PathBuf::from("lock"));
    all
}

#[test]
fn a_killed_compaction_leaves_the_old_session_or_the_new_one() {
    let options = CompactOptions { rows: 4, ..CompactOptions::default() };
    let original = small();
    let (old, expected) = (session_files(&original), rows(&original.path));
    let whole = original.copy();
    compact(&whole.path, &options, &mut ()).unwrap();
    let new = session_files(&whole);
    assert_eq!(rows(&whole.path), expected);
    let (mut at, mut seen) = (1, [0, 0]);
    loop {
        let made = original.copy();
        let done = compact::run(&made.path, &options, &mut (), &mut stop_at(at), false);
        let is_new = session_files(&made) == new;
        assert!(is_new || session_files(&made) == old, "killed after step {at}");
        if done.is_ok() {
            break;
        }
        seen[usize::from(is_new)] += 1;
        let report = compact(&made.path, &options, &mut ()).unwrap();
        assert_eq!(session_files(&made), new, "killed after step {at}");
        assert_eq!(beside(&made.path), Vec::<String>::new(), "killed after step {at}");
        // Killed after the very last step, there is nothing left to be removed.
        assert!(report.cleared || seen[1] == 2, "killed after step {at}");
        at += 1;
    }
    assert!(seen[0] > 10 && seen[1] == 2, "{seen:?}");
}

/// A session with every kind of damage at once.
fn damaged() -> Made {
    let made = small();
    for (table, number) in [("polls", 2), ("stacks", 1), ("drops", 1)] {
        let path = made.path.join(format!("{table}/{number:06}.parquet"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_file(made.path.join("off_cpu/000002.parquet")).unwrap();
    fs::write(made.path.join("off_cpu/000002.parquet.tmp"), "half").unwrap();
    made
}

#[test]
fn a_killed_repair_leaves_the_old_session_or_the_new_one() {
    let original = damaged();
    let old = session_files(&original);
    let whole = original.copy();
    repair(&whole.path, &RepairOptions::default(), &mut ()).unwrap();
    let new = session_files(&whole);
    assert_eq!(faults(&whole.path), Vec::<String>::new());
    let (mut at, mut seen) = (1, [0, 0]);
    loop {
        let made = original.copy();
        let done = repair::run(&made.path, &RepairOptions::default(), &mut (), &mut stop_at(at), false);
        let is_new = session_files(&made) == new;
        assert!(is_new || session_files(&made) == old, "killed after step {at}");
        if done.is_ok() {
            break;
        }
        seen[usize::from(is_new)] += 1;
        repair(&made.path, &RepairOptions::default(), &mut ()).unwrap();
        assert_eq!(session_files(&made), new, "killed after step {at}");
        assert_eq!(beside(&made.path), Vec::<String>::new(), "killed after step {at}");
        at += 1;
    }
    assert!(seen[0] > 10 && seen[1] == 2, "{seen:?}");
}

#[test]
fn without_exchange_the_copy_stays_beside() {
    let made = random(33, 3, 20);
    let before = session_files(&made);
    fs::create_dir(made.path.with_file_name("session.compacted")).unwrap();
    let mut bench = Bench::take(&made.path, None).unwrap();
    bench.exchange = |_, _| Err(rustix::io::Errno::INVAL);
    let (mut progress, mut step) = ((), || Ok(()));
    let mut watch = Watch::new(&mut progress, &mut step);
    let report = compact::build(&bench, &CompactOptions::default(), &mut watch).unwrap();
    let copy = made.path.with_file_name("session.compacted-2");
    assert_eq!(report.place, Place::Beside(copy.clone()));
    assert!(report.lines().last().unwrap().contains("cannot exchange two folders"));
    assert_eq!(session_files(&made), before);
    assert_eq!(rows(&copy), rows(&made.path));
    assert_eq!(segments(&copy, hud_common::session::Table::Polls).len(), 1);
    assert_eq!(faults(&copy), Vec::<String>::new());
    assert_eq!(fs::read_dir(made.path.parent().unwrap()).unwrap().count(), 3);
}
