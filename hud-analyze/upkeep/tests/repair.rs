//! Repair: damage of every kind, and afterwards a session that is proven, with its loss stated.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::Path};

use hud_common::session::{
    AccountColumns, AccountRow, Error as SessionError, FrameColumns, InflightLog, Manifest, OffCpuColumns, PollColumns,
    Recovery, SessionDir, StackColumns, StreamAccount, Table, integers, texts,
};
use hud_upkeep::{CompactOptions, Error, Place, Progress, Repair, RepairOptions, Step, compact, repair};

mod support;
use support::{
    MS, Made, Random, T0, batch, beside, faults, files, frame, keys, manifest, off_cpu, poll, random, rows, segments,
    small, unsorted,
};

/// Repairs, and holds the result to what every repair has to be.
#[track_caller]
fn repaired(made: &Made) -> Repair {
    let before = files(&made.path);
    let options = RepairOptions { dry_run: true, ..RepairOptions::default() };
    let dry_run = repair(&made.path, &options, &mut ()).unwrap();
    assert_eq!(files(&made.path), before, "a dry run changes nothing");
    let report = repair(&made.path, &RepairOptions::default(), &mut ()).unwrap();
    assert_eq!(dry_run.actions, report.actions);
    assert_eq!((dry_run.place, &report.place), (Place::Nowhere, &Place::Exchanged));
    assert_eq!(faults(&made.path), Vec::<String>::new(), "{:#?}", report.actions);
    assert_eq!(beside(&made.path), Vec::<String>::new());
    assert!(report.lines().iter().all(|line| !line.contains('\n')));
    let done = files(&made.path);
    let again = repair(&made.path, &RepairOptions::default(), &mut ()).unwrap();
    assert_eq!(again.actions, Vec::<String>::new());
    assert_eq!(files(&made.path), done, "and again there is nothing to do");
    report
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn count(made: &Made, table: Table) -> usize {
    rows(&made.path).get(table.name()).map_or(0, Vec::len)
}

/// What `drops` says of a stream: stage, begin, end, how many.
fn drops(made: &Made, stream: &str) -> Vec<(String, i64, i64, i64)> {
    let mut all = Vec::new();
    for (_, path) in segments(&made.path, Table::Drops) {
        for batch in support::read(&path) {
            let [ts, dur, lost] = ["ts", "dur", "lost"].map(|c| integers(&batch, c));
            for (row, (of, stage)) in texts(&batch, "stream").into_iter().zip(texts(&batch, "stage")).enumerate() {
                if of == stream {
                    all.push((stage.into(), ts[row], ts[row] + dur[row], lost[row]));
                }
            }
        }
    }
    all
}

#[test]
fn a_proven_session_is_not_touched() {
    let made = random(1, 4, 20);
    let before = files(&made.path);
    let report = repair(&made.path, &RepairOptions::default(), &mut ()).unwrap();
    assert!(report.is_proven());
    assert_eq!(report.lines(), ["there is nothing to repair"]);
    assert_eq!(files(&made.path), before);
}

#[test]
fn a_segment_without_its_footer_is_set_aside_and_its_rows_become_drops() {
    let made = random(2, 4, 20);
    let path = made.dir.segment(Table::Polls, 2);
    let (had, whole) = (keys(Table::Polls, &path), count(&made, Table::Polls));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let report = repaired(&made);
    assert_eq!(count(&made, Table::Polls), whole - had.len());
    assert_eq!(report.lost["polls"], had.len() as u64);
    assert_eq!(fs::read(made.path.join("damaged/polls-000002.parquet.damaged")).unwrap(), &bytes[..bytes.len() - 1]);
    let dropped = drops(&made, "polls");
    assert_eq!(
        dropped.iter().map(|(stage, _, _, lost)| (stage.as_str(), *lost)).collect::<Vec<_>>(),
        [("ring", 5), ("damaged", i64::try_from(had.len()).unwrap())]
    );
    let account = made.manifest().streams["polls"];
    assert_eq!((account.stored, account.dropped), ((whole - had.len()) as u64, 5 + had.len() as u64));
    assert_eq!(account.produced, account.stored + account.dropped);
    assert_eq!(made.manifest().recovery.unwrap().damaged_segments, [("polls".to_string(), vec![2])].into());
    assert!(made.manifest().complete);
    // A repaired session can be compacted.
    let kept = rows(&made.path);
    compact(&made.path, &CompactOptions::default(), &mut ()).unwrap();
    assert_eq!(rows(&made.path), kept);
    assert_eq!(faults(&made.path), Vec::<String>::new());
}

/// Wherever a segment is cut, flipped or emptied, the rest of the session is proven.
#[test]
fn damage_anywhere_in_a_segment() {
    let mut random_at = Random::new(3);
    let whole = random(4, 3, 12);
    for (n, table) in [
        Table::Polls,
        Table::OffCpu,
        Table::Stacks,
        Table::Frames,
        Table::Drops,
        Table::Accounts,
        Table::Coverage,
        Table::Clock,
    ]
    .into_iter()
    .enumerate()
    {
        // Each table in two of four ways.
        for kind in if n % 2 == 0 { ["cut", "gone"] } else { ["flip", "empty"] } {
            let made = whole.copy();
            let all = segments(&made.path, table);
            let (_, path) = &all[n % all.len()];
            let len = fs::metadata(path).unwrap().len();
            let at = random_at.below(i64::try_from(len).unwrap());
            match kind {
                "cut" => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(at.unsigned_abs()).unwrap(),
                "flip" => flip(path, usize::try_from(at).unwrap()),
                "empty" => fs::write(path, "").unwrap(),
                _ => fs::remove_file(path).unwrap(),
            }
            if faults(&made.path).is_empty() {
                // The last segment of a table that has no account, or the byte was of no meaning.
                continue;
            }
            repaired(&made);
        }
    }
}

/// A block of one column's pages is damaged in a large segment: the pages of all others keep their rows.
#[test]
fn pages_that_still_match_are_salvaged() {
    let made = Made::new(&manifest());
    let mut random = Random::new(5);
    let polls = (0..70_000).map(|n| {
        // Ids of 8 bytes each, too many for a dictionary, in pages of their own.
        let mut row = poll(T0 + n * 10, None);
        row.task_id = random.below(1 << 60);
        row
    });
    made.put(Table::Polls, batch::<PollColumns>(polls));
    let mut closed = manifest();
    closed
        .streams
        .insert("polls".into(), StreamAccount { produced: 70_000, stored: 70_000, ..StreamAccount::default() });
    closed.write(&made.path).unwrap();
    assert_eq!(faults(&made.path), Vec::<String>::new());
    let before = rows(&made.path)["polls"].clone();
    let path = made.dir.segment(Table::Polls, 1);
    let len = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    flip(&path, len / 2);
    let report = repaired(&made);
    let kept = rows(&made.path)["polls"].clone();
    assert!((1..70_000).contains(&kept.len()), "{}", kept.len());
    assert_eq!(report.salvaged, kept.len() as u64);
    assert!(kept.iter().all(|row| before.binary_search(row).is_ok()), "salvaged rows are rows that were written");
    assert_eq!(report.lost["polls"], (before.len() - kept.len()) as u64);
}

#[test]
fn segments_that_are_missing_or_not_sorted() {
    let made = random(6, 5, 20);
    let gone: usize = [2, 3].iter().map(|n| keys(Table::OffCpu, &made.dir.segment(Table::OffCpu, *n)).len()).sum();
    let number = made.dir.next_number(Table::Samples).unwrap();
    let mut samples: Vec<_> = support::read(&made.dir.segment(Table::Samples, 1));
    let backwards = arrow::array::UInt64Array::from_iter_values((0..samples[0].num_rows() as u64).rev());
    let turned = arrow::compute::take_record_batch(&samples.remove(0), &backwards).unwrap();
    unsorted(&made.dir, Table::Samples, number, &turned);
    made.close(made.manifest());
    let last_before = keys(Table::OffCpu, &made.dir.segment(Table::OffCpu, 1)).last().copied().unwrap();
    let first_after = keys(Table::OffCpu, &made.dir.segment(Table::OffCpu, 4))[0];
    [2, 3].iter().for_each(|n| fs::remove_file(made.dir.segment(Table::OffCpu, *n)).unwrap());
    let samples = rows(&made.path)["samples"].clone();
    let report = repaired(&made);
    assert_eq!(report.lost, [("off_cpu".to_string(), gone as u64)].into());
    let dropped = drops(&made, "off_cpu");
    assert_eq!(dropped.len(), 1);
    assert_eq!((dropped[0].1, dropped[0].3), (last_before, i64::try_from(gone).unwrap()));
    assert!(dropped[0].2 <= first_after.max(last_before));
    // A segment that is only not sorted loses nothing.
    assert_eq!(rows(&made.path)["samples"], samples);
    assert!(made.path.join(format!("damaged/samples-{number:06}.parquet.damaged")).exists());
}

#[test]
fn ids_without_a_row_and_with_two() {
    let made = random(8, 3, 10);
    made.add::<OffCpuColumns>([off_cpu(T0, 2, 777)]);
    made.add::<StackColumns>([hud_common::session::StackRow {
        stack_id: 778,
        frame_ids: vec![1, 888],
        unwind: "complete".into(),
    }]);
    made.add::<FrameColumns>([frame(5), frame(31)]);
    fs::remove_dir_all(made.dir.table(Table::Modules)).unwrap();
    made.close(made.manifest());
    repaired(&made);
    let rows = rows(&made.path);
    assert!(rows["stacks"].iter().any(|row| row.starts_with("777|")));
    assert!(rows["frames"].iter().any(|row| row.starts_with("888|")));
    assert_eq!(rows["frames"].iter().filter(|row| row.starts_with("5|")).count(), 1);
    assert_eq!(rows["modules"].len(), 2);
}

#[test]
fn a_manifest_that_is_lost_or_garbage_is_made_anew() {
    let whole = random(9, 3, 20);
    let text = fs::read(whole.path.join("manifest.json")).unwrap();
    let damages: [(&str, Option<Vec<u8>>); 6] = [
        ("gone", None),
        ("empty", Some(Vec::new())),
        ("garbage", Some((0..=255).cycle().take(5000).collect())),
        ("cut", Some(text[..text.len() / 2].to_vec())),
        (
            "flipped",
            Some(String::from_utf8(text.clone()).unwrap().replace("\"stored\": ", "\"stored\": 9").into_bytes()),
        ),
        ("deep", Some(vec![b'['; 100_000])),
    ];
    for (kind, damage) in damages {
        let made = whole.copy();
        let path = made.path.join("manifest.json");
        match &damage {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
        let report = repaired(&made);
        assert!(report.actions.iter().any(|action| action.starts_with("reconstructed manifest.json")), "{kind}");
        let is = made.manifest();
        assert_eq!(is.clock, manifest().clock, "{kind}: of the table clock");
        assert_eq!(is.start, T0, "{kind}");
        assert!(is.streams["polls"].dropped >= 5 && !is.complete && is.end.is_some(), "{kind}");
        assert!(is.notes.iter().any(|note| note.contains("reconstructed")), "{kind}: {:?}", is.notes);
        let has_text = matches!(kind, "cut" | "flipped");
        assert_eq!(is.exe, if has_text { "/srv/app" } else { "" }, "{kind}");
        assert_eq!(is.id, if has_text { "made-up".into() } else { format!("repaired-{T0}") }, "{kind}");
        // All rows are still there, and coverage extends to the last of them.
        let (mut before, mut after) = (rows(&whole.path), rows(&made.path));
        assert!(after.remove("coverage").unwrap().len() >= before.remove("coverage").unwrap().len());
        assert_eq!(before, after, "{kind}");
        if let Some(bytes) = damage {
            assert_eq!(fs::read(made.path.join("damaged/manifest.json.damaged")).unwrap(), bytes);
        }
    }
}

#[test]
fn a_killed_recorder_and_damage_together() {
    let made = random(10, 4, 20);
    made.log(Table::Polls, &[batch::<PollColumns>((0..9).map(|n| poll(T0 + n, Some(2))))]);
    let torn = made.log(
        Table::OffCpu,
        &[batch::<OffCpuColumns>([off_cpu(T0, 2, 999)]), batch::<OffCpuColumns>([off_cpu(T0, 2, 1)])],
    );
    let log = made.dir.log(Table::OffCpu, torn);
    let len = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(len - 3).unwrap();
    made.add::<AccountColumns>([AccountRow {
        ts: T0 + 900 * MS,
        stream: "polls".into(),
        produced: 5_000,
        stored: 60,
        dropped: 0,
    }]);
    let mut killed = manifest();
    (killed.complete, killed.end, killed.end_reason) = (false, None, None);
    killed.write(&made.path).unwrap();
    let path = made.dir.segment(Table::Polls, 3);
    let had = keys(Table::Polls, &path).len() as u64;
    // Within its data: the footer still has their number.
    flip(&path, 6);
    fs::write(made.path.join("polls/000008.parquet.tmp"), "half").unwrap();

    let lock = made.dir.lock().unwrap();
    let refused = repair(&made.path, &RepairOptions::default(), &mut ());
    assert!(matches!(refused, Err(Error::Session(SessionError::InUse(_)))));
    drop(lock);

    let report = repaired(&made);
    assert_eq!(report.lost["polls"], had);
    let is = made.manifest();
    let recovery: Recovery = is.recovery.unwrap();
    assert!(recovery.bytes_cut > 0 && recovery.unnamed_stacks == 1);
    let polls = is.streams["polls"];
    assert_eq!(polls.produced, polls.stored + polls.dropped + recovery.lost["polls"]);
    assert_eq!(polls.dropped, 5 + had);
    assert_eq!(is.end_reason.as_deref(), Some("the recorder was killed"));
}

#[test]
fn files_that_do_not_belong_in_a_session() {
    let made = random(11, 3, 10);
    let before = count(&made, Table::Wakes);
    // Logs in a session that was closed in order: of a sealed segment, torn, empty.
    let kept = {
        let number = made.log(Table::Polls, &[batch::<PollColumns>([poll(T0, Some(1))])]);
        fs::read(made.dir.log(Table::Polls, number)).unwrap()
    };
    let rest = made.dir.unsealed().unwrap();
    rest.iter().for_each(|log| fs::remove_file(&log.log).unwrap());
    fs::write(made.dir.log(Table::Polls, 2), &kept).unwrap();
    fs::write(made.dir.log(Table::Polls, made.dir.next_number(Table::Polls).unwrap()), &kept[..kept.len() - 2])
        .unwrap();
    drop(InflightLog::create(&made.dir, Table::Samples, made.dir.next_number(Table::Samples).unwrap()).unwrap());
    fs::create_dir(made.dir.segment(Table::Samples, made.dir.next_number(Table::Samples).unwrap())).unwrap();
    let elsewhere = tempfile::TempDir::new().unwrap();
    fs::write(elsewhere.path().join("000001.parquet"), "theirs").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), made.dir.table(Table::Ends)).unwrap();
    fs::copy(made.dir.segment(Table::Wakes, 1), made.dir.segment(Table::Wakes, 4_000_000_000)).unwrap();
    let wakes = keys(Table::Wakes, &made.dir.segment(Table::Wakes, 1)).len();
    repaired(&made);
    assert_eq!(count(&made, Table::Wakes), before + wakes, "rows are never thrown away");
    assert_eq!(segments(&made.path, Table::Wakes).last().unwrap().0, 4);
    assert_eq!(fs::read(elsewhere.path().join("000001.parquet")).unwrap(), b"theirs");
}

#[test]
fn every_name_of_a_killed_session_is_lost() {
    let made = random(12, 3, 10);
    for table in
        [Table::Stacks, Table::Frames, Table::TaskTypes, Table::Accounts, Table::Drops, Table::Clock, Table::Coverage]
    {
        fs::remove_dir_all(made.dir.table(table)).unwrap();
    }
    fs::remove_file(made.path.join("manifest.json")).unwrap();
    repaired(&made);
    assert!(count(&made, Table::Stacks) > 0 && count(&made, Table::TaskTypes) > 0);
}

#[test]
fn other_folders_are_left_alone() {
    let tmp = tempfile::TempDir::new().unwrap();
    fs::write(tmp.path().join("mine"), "kept").unwrap();
    let refused = repair(tmp.path(), &RepairOptions::default(), &mut ());
    assert!(matches!(refused, Err(Error::Session(SessionError::NotASession { .. }))));
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    assert!(repair(&tmp.path().join("nothing"), &RepairOptions::default(), &mut ()).is_err());

    let made = random(13, 1, 5);
    let mut newer = manifest();
    newer.format_version = 99;
    newer.write(&made.path).unwrap();
    let refused = repair(&made.path, &RepairOptions::default(), &mut ());
    assert!(matches!(refused, Err(Error::Session(SessionError::Newer { .. }))));
}

struct Cancelled;

impl Progress for Cancelled {
    fn report(&mut self, _: Step, _: Table, _: u64, _: u64) {}

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn cancelled_the_session_is_as_it_was() {
    let made = small();
    flip(&made.dir.segment(Table::Polls, 1), 8);
    let before = files(&made.path);
    assert!(matches!(repair(&made.path, &RepairOptions::default(), &mut Cancelled), Err(Error::Cancelled)));
    assert_eq!(files(&made.path), before);
    assert_eq!(beside(&made.path), Vec::<String>::new());
}

#[test]
fn into_another_folder() {
    let made = random(14, 3, 10);
    flip(&made.dir.segment(Table::Polls, 1), 8);
    let before = files(&made.path);
    let output = made.tmp.path().join("repaired");
    let options = RepairOptions { output: Some(output.clone()), ..RepairOptions::default() };
    assert_eq!(repair(&made.path, &options, &mut ()).unwrap().place, Place::Output(output.clone()));
    assert_eq!(files(&made.path), before);
    assert_eq!(faults(&output), Vec::<String>::new());
    assert!(Manifest::read(&output).unwrap().complete && SessionDir::at(&output).lock().is_ok());
}
