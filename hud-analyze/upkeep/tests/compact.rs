//! Compaction: the same rows in fewer segments, and nobody sees anything else meanwhile.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use hud_common::session::{
    Error as SessionError, FrameColumns, Manifest, PollColumns, SessionDir, Table, recover, scan_segment, segment_info,
    unnamed,
};
use hud_upkeep::{CompactOptions, Error, Place, Progress, Step, compact};
use parquet::file::reader::{FileReader as _, SerializedFileReader};

mod support;
use support::{
    MS, Made, Random, T0, batch, beside, faults, files, frame, keys, manifest, poll, random, rows, segments, unsorted,
};

/// Segments of each table are sorted, do not overlap, and no two of them would be one.
fn assert_compact(session: &Path, target: u64) {
    for &table in Table::ALL {
        let segments = segments(session, table);
        let keys: Vec<_> = segments.iter().map(|(_, path)| keys(table, path)).collect();
        assert!(keys.iter().all(|keys| keys.is_sorted()), "{}", table.name());
        for pair in keys.windows(2) {
            assert!(pair[0].last() <= pair[1].first(), "{} overlaps", table.name());
            assert!((pair[0].len() + pair[1].len()) as u64 > target, "{} has small segments", table.name());
        }
        for (_, path) in &segments {
            let info = segment_info(table, path).unwrap();
            let mut rows = 0;
            scan_segment(table, path, &[table.key()], |batch| {
                rows += batch.num_rows() as u64;
                Ok(())
            })
            .unwrap();
            assert_eq!(info.rows, rows, "hud reads it");
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        if !segments.is_empty() {
            let folder = fs::metadata(SessionDir::at(session).table(table)).unwrap();
            assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        }
    }
}

fn rows_of(n: u64) -> CompactOptions {
    CompactOptions { rows: n, ..CompactOptions::default() }
}

#[test]
fn the_same_rows_in_few_segments() {
    for (seed, count, most, target) in
        [(1, 12, 60, 1 << 20), (2, 3, 500, 100), (3, 34, 4, 64), (4, 1, 1, 10), (5, 3, 9, 1)]
    {
        let made = random(seed, count, most);
        let (before, was) = (rows(&made.path), made.manifest());
        let highest: Vec<_> = Table::ALL.iter().map(|t| made.dir.next_number(*t).unwrap()).collect();
        let report = compact(&made.path, &rows_of(target), &mut ()).unwrap();
        assert_eq!(rows(&made.path), before, "seed {seed}");
        assert_compact(&made.path, target);
        assert_eq!(faults(&made.path), Vec::<String>::new(), "seed {seed}");
        assert_eq!(beside(&made.path), Vec::<String>::new());
        assert_eq!(report.place, Place::Exchanged);
        let is = made.manifest();
        assert!(is.notes.iter().any(|note| note.starts_with("compacted by hud")));
        assert_eq!(Manifest { notes: was.notes.clone(), first_segment: was.first_segment.clone(), ..is.clone() }, was);
        for (table, highest) in Table::ALL.iter().zip(highest) {
            if let Some(first) = is.first_segment.get(table.name()) {
                assert!(*first >= highest, "a name of {} was used before", table.name());
                assert!(segments(&made.path, *table).iter().all(|(number, _)| number >= first));
            }
        }
        // And again: there is nothing to do.
        let done = files(&made.path);
        let again = compact(&made.path, &rows_of(target), &mut ()).unwrap();
        assert_eq!(
            (again.place, again.bytes_before, again.bytes_after),
            (Place::Nowhere, report.bytes_after, report.bytes_after)
        );
        assert_eq!(files(&made.path), done);
    }
}

#[test]
fn segments_are_also_rolled_by_their_bytes() {
    let made = random(6, 10, 300);
    let before = rows(&made.path);
    compact(&made.path, &CompactOptions { bytes: 8 << 10, ..CompactOptions::default() }, &mut ()).unwrap();
    assert_eq!(rows(&made.path), before);
    // A poll takes 63 bytes.
    for (_, path) in segments(&made.path, Table::Polls) {
        assert!(keys(Table::Polls, &path).len() < 160);
    }
    assert!(segments(&made.path, Table::Polls).len() > 5);
    assert_eq!(faults(&made.path), Vec::<String>::new());
}

/// More segments overlap than may be open at once: they are merged in several passes, and equal keys keep their order.
#[test]
fn many_segments_over_the_same_time() {
    let made = Made::new(&manifest());
    let mut random = Random::new(9);
    for segment in 0..70 {
        let mut at: Vec<_> = (0..9).map(|_| random.below(30)).collect();
        at.sort();
        made.add::<PollColumns>(at.into_iter().map(|at| {
            let mut row = poll(T0 + at * MS, None);
            row.task_id = segment;
            row
        }));
    }
    made.close(manifest());
    let before = rows(&made.path);
    // Two groups, whose runs are of several files.
    compact(&made.path, &rows_of(100), &mut ()).unwrap();
    assert_eq!(rows(&made.path), before);
    assert_compact(&made.path, 100);
    let mut last = (0, 0);
    for (_, path) in segments(&made.path, Table::Polls) {
        for batch in support::read(&path) {
            let of = |c: &str| hud_common::session::integers(&batch, c);
            for row in of("ts").into_iter().zip(of("task_id")) {
                assert!(last <= row, "equal keys lie in the order of their segments");
                last = row;
            }
        }
    }
}

#[test]
fn segments_that_are_not_sorted_become_so() {
    let made = random(11, 4, 40);
    let mut random = Random::new(12);
    let times: Vec<_> = (0..500).map(|_| T0 + random.below(400) * MS).collect();
    let number = made.dir.next_number(Table::Polls).unwrap();
    unsorted(&made.dir, Table::Polls, number, &batch::<PollColumns>(times.iter().map(|ts| poll(*ts, Some(1)))));
    made.close(manifest());
    assert!(!keys(Table::Polls, &made.dir.segment(Table::Polls, number)).is_sorted());
    let before = rows(&made.path);
    compact(&made.path, &rows_of(90), &mut ()).unwrap();
    assert_eq!(rows(&made.path), before);
    assert_compact(&made.path, 90);
    assert_eq!(faults(&made.path), Vec::<String>::new());
}

#[test]
fn of_two_rows_of_a_name_the_better_one_stays() {
    let made = random(13, 2, 5);
    made.put(Table::Frames, unnamed(Table::Frames, [7, 31].into_iter()));
    made.add::<FrameColumns>([frame(8), frame(31), frame(32)]);
    let report = compact(&made.path, &CompactOptions::default(), &mut ()).unwrap();
    assert_eq!(report.tables.iter().map(|t| t.doubles).sum::<u64>(), 3);
    assert_eq!(faults(&made.path), Vec::<String>::new());
    let frames = &rows(&made.path)["frames"];
    assert_eq!(frames.len(), 32);
    assert!(frames.iter().any(|row| row.contains("app::function_31")));
    assert!(frames.iter().any(|row| row.contains("app::function_7")));
}

#[test]
fn a_killed_session_is_recovered_first_and_one_that_is_recorded_left_alone() {
    let made = random(14, 5, 20);
    made.log(Table::Polls, &[batch::<PollColumns>((0..9).map(|n| poll(T0 + n, Some(2))))]);
    let mut killed = manifest();
    (killed.complete, killed.end, killed.end_reason) = (false, None, None);
    killed.write(&made.path).unwrap();
    let before = files(&made.path);
    let lock = made.dir.lock().unwrap();
    let refused = compact(&made.path, &CompactOptions::default(), &mut ());
    assert!(matches!(refused, Err(Error::Session(SessionError::InUse(_)))), "{refused:?}");
    assert_eq!(files(&made.path), before);
    drop(lock);

    let tables = rows(&made.path);
    let report = compact(&made.path, &CompactOptions::default(), &mut ()).unwrap();
    assert!(report.recovered);
    assert_eq!(rows(&made.path)["polls"], tables["polls"]);
    assert_eq!(faults(&made.path), Vec::<String>::new());
    assert!(recover(&SessionDir::at(&made.path)).unwrap().is_none());
}

#[test]
fn incomplete_sessions_are_refused() {
    for damage in ["flip", "missing", "log"] {
        let made = random(15, 5, 20);
        let path = made.dir.segment(Table::Polls, 3);
        match damage {
            "flip" => {
                let mut bytes = fs::read(&path).unwrap();
                bytes[20] ^= 4;
                fs::write(&path, bytes).unwrap();
            }
            "missing" => fs::remove_file(&path).unwrap(),
            _ => drop(made.log(Table::Polls, &[batch::<PollColumns>([poll(T0, Some(1))])])),
        }
        let before = files(&made.path);
        let refused = compact(&made.path, &CompactOptions::default(), &mut ()).unwrap_err();
        assert!(matches!(refused, Error::NotWhole { .. }), "{damage}: {refused}");
        assert!(refused.to_string().contains("repair"), "{refused}");
        assert_eq!(files(&made.path), before, "{damage}");
        assert_eq!(beside(&made.path), Vec::<String>::new());
    }
}

#[test]
fn into_another_folder_and_what_else_lies_in_the_session_comes_along() {
    let made = random(16, 5, 20);
    fs::create_dir(made.path.join("damaged")).unwrap();
    fs::write(made.path.join("damaged/polls-000001.parquet.damaged"), "kept").unwrap();
    fs::write(made.path.join("README"), "mine").unwrap();
    fs::write(made.path.join("polls/1.parquet"), "mine too").unwrap();
    fs::write(made.dir.table(Table::Polls).join("000009.parquet.tmp"), "half").unwrap();
    let before = files(&made.path);
    let output = made.tmp.path().join("compacted");
    let options = CompactOptions { output: Some(output.clone()), ..CompactOptions::default() };
    assert_eq!(compact(&made.path, &options, &mut ()).unwrap().place, Place::Output(output.clone()));
    assert_eq!(files(&made.path), before, "the session is as it was");
    assert_eq!(rows(&output), rows(&made.path));
    assert_compact(&output, options.rows);
    assert_eq!(fs::read_to_string(output.join("damaged/polls-000001.parquet.damaged")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(output.join("README")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(output.join("polls/1.parquet")).unwrap(), "mine too");
    assert!(!output.join("polls/000009.parquet.tmp").exists());
    assert!(matches!(compact(&made.path, &options, &mut ()), Err(Error::Exists(_))));
    assert_eq!(beside(&made.path), ["compacted"]);
}

#[test]
fn owner_and_rights_stay() {
    let made = random(17, 3, 10);
    fs::set_permissions(&made.path, fs::Permissions::from_mode(0o750)).unwrap();
    // Only root can give files away.
    let owner = if rustix::process::getuid().is_root() { 65_534 } else { rustix::process::getuid().as_raw() };
    for folder in std::iter::once(made.path.clone()).chain(Table::ALL.iter().map(|t| made.dir.table(*t))) {
        for path in fs::read_dir(&folder).into_iter().flatten().map(|e| e.unwrap().path()).chain([folder.clone()]) {
            if path.exists() {
                std::os::unix::fs::lchown(path, Some(owner), None).unwrap();
            }
        }
    }
    compact(&made.path, &CompactOptions::default(), &mut ()).unwrap();
    assert_eq!(fs::metadata(&made.path).unwrap().permissions().mode() & 0o777, 0o750);
    for &table in Table::ALL {
        for (_, path) in segments(&made.path, table) {
            assert_eq!(fs::metadata(&path).unwrap().uid(), owner, "{}", path.display());
            assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().uid(), owner);
        }
    }
    assert_eq!(fs::metadata(&made.path).unwrap().uid(), owner);
    assert_eq!(fs::metadata(made.path.join("manifest.json")).unwrap().uid(), owner);
}

struct CancelAt(Step, bool);

impl Progress for CancelAt {
    fn report(&mut self, step: Step, _: Table, _: u64, _: u64) {
        self.1 |= step == self.0;
    }

    fn is_cancelled(&self) -> bool {
        self.1
    }
}

#[test]
fn cancelled_at_any_step_the_session_is_as_it_was() {
    for step in [Step::Reading, Step::Merging, Step::Verifying] {
        let made = random(18, 5, 20);
        let before = files(&made.path);
        let cancelled = compact(&made.path, &CompactOptions::default(), &mut CancelAt(step, false));
        assert!(matches!(cancelled, Err(Error::Cancelled)), "{step:?}: {cancelled:?}");
        assert_eq!(files(&made.path), before);
        assert_eq!(beside(&made.path), Vec::<String>::new());
    }
}

#[test]
fn what_others_put_there_is_not_removed() {
    let made = random(19, 3, 10);
    let place = made.path.with_file_name(".session.hud-upkeep");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("theirs"), "kept").unwrap();
    assert!(matches!(compact(&made.path, &CompactOptions::default(), &mut ()), Err(Error::InTheWay(_))));
    assert_eq!(fs::read_to_string(place.join("theirs")).unwrap(), "kept");
}

/// Rows of each table for a reader that opens the session now: manifest, lists, files, in this order. `None` if a listed file
/// was replaced meanwhile; a reader then starts again.
fn count(session: &Path) -> Option<Vec<i64>> {
    let place = || fs::metadata(session).map(|m| m.ino()).unwrap();
    let before = place();
    let manifest = Manifest::read(session).unwrap();
    let dir = SessionDir::at(session);
    let mut counts = Vec::new();
    for &table in Table::ALL {
        let mut rows = 0;
        for (_, path) in dir.sealed(table).unwrap().into_iter().filter(|(n, _)| *n >= manifest.first_segment(table)) {
            let file = fs::File::open(path).ok()?;
            rows += SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows();
        }
        counts.push(rows);
    }
    // A folder that is emptied as it is listed seems to hold less.
    (place() == before).then_some(counts)
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_never_sees_fewer_rows_or_more() {
    let made = random(20, 12, 60);
    let expected = count(&made.path).unwrap();
    let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(counts) = count(&made.path) {
                        if counts != expected {
                            stop.store(true, Ordering::Relaxed);
                        }
                        assert_eq!(counts, expected);
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Readers end where this fails, too.
        let _stop = Stop(&stop);
        for target in [50, 110, 1 << 20] {
            // Each time, somebody has looked before and after.
            let before = seen.load(Ordering::Relaxed);
            while seen.load(Ordering::Relaxed) < before + 2 && !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            assert_eq!(compact(&made.path, &rows_of(target), &mut ()).unwrap().place, Place::Exchanged, "{target}");
        }
    });
    assert_eq!(count(&made.path).unwrap(), expected);
    assert_eq!(faults(&made.path), Vec::<String>::new());
}
