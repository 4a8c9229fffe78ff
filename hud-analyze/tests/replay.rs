//! Replay is held to the tailer: for the same session, instant and window both show the same, field by field. And to SQL,
//! which counts in its own way.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use datafusion::arrow::{array::AsArray as _, datatypes::Int64Type};
use hud_analyze::{catalog::Catalog, replay::Replay};
use hud_common::{
    cockpit::{Bucket, Mode, Query, Snapshot, Source as _, TaskOrder},
    session::{
        DropColumns, DropRow, EndColumns, EndRow, Manifest, OverheadColumns, OverheadRow, ProcessColumns, ProcessRow,
        SpawnColumns, SpawnRow, StackColumns, StackRow, WakeColumns, WakeRow,
    },
};
use hud_record::tail::{Settings, Tailer};
use serde_json::Value;
use support::{format, *};

const HOUR: Duration = Duration::from_secs(3600);

/// Numbers that look like chance (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, most: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % u64::try_from(most.max(1)).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(i64::try_from(all.len()).unwrap())).unwrap()]
    }
}

fn tailer(session: &Path) -> Tailer {
    Tailer::open(session, Settings { keep: HOUR, history: HOUR, stall: HOUR, most: usize::MAX }).unwrap()
}

/// With all that the background learns.
fn replay(session: &Path) -> Replay {
    let mut replay = Replay::open(session).unwrap();
    let overview = replay.overview(Query::default());
    replay.learn_all();
    drop(overview);
    replay
}

/// Where two values differ, as lines of `path: one | other`.
fn differences(path: &str, a: &Value, b: &Value, into: &mut Vec<String>) {
    match (a, b) {
        _ if a == b || into.len() > 20 => {}
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys().filter(|key| !x.contains_key(*key))) {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &of(x), &of(y), into);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            if x.len() != y.len() {
                into.push(format!("{path}: {} items | {} items", x.len(), y.len()));
            }
            for (n, (a, b)) in x.iter().zip(y).enumerate() {
                differences(&format!("{path}[{n}]"), a, b, into);
            }
        }
        _ => into.push(format!("{path}: {a} | {b}")),
    }
}

fn assert_equal(query: &Query, tailed: &Snapshot, replayed: &Snapshot) {
    if tailed == replayed {
        return;
    }
    let (a, b) = (serde_json::to_value(tailed).unwrap(), serde_json::to_value(replayed).unwrap());
    let mut lines = Vec::new();
    differences("snapshot", &a, &b, &mut lines);
    panic!("the tailer's snapshot | that of replay differ at {query:#?}:\n{}", lines.join("\n"));
}

/// At this number of instants and windows, both show the same. Returns the number of polls and sleeps that they showed.
fn assert_same(session: &Path, times: i64, seed: u64) -> (u64, i64) {
    let (mut tailer, mut at_once) = (tailer(session), replay(session).with_patience(Duration::from_secs(60)));
    let mut replay = replay(session);
    let manifest = Manifest::read(session).unwrap();
    let (start, end) = (manifest.start, manifest.end.unwrap());
    let mut random = Random(seed);
    let (mut polls, mut intervals) = (0, 0);
    let mut tasks = vec![None];
    for n in 0..times {
        let at = match n {
            0 => start,
            1 => start - SECOND,
            2 => end + 3 * SECOND,
            3 => end,
            4 => i64::MIN,
            5 => i64::MAX,
            // In order, as one plays, then all over.
            6..20 => start + (n - 6) * SECOND / 5,
            _ => start - SECOND + random.below(end - start + 3 * SECOND),
        };
        let window = match n {
            6..20 => SECOND,
            _ => random.of(&[1, SECOND / 10, SECOND / 10 + 1, SECOND, 3 * SECOND, 10 * SECOND, 70 * SECOND]),
        };
        let query = Query {
            at: Some(at),
            window,
            task: random.of(&tasks),
            order: random.of(&[TaskOrder::Busy, TaskOrder::WakeDelay, TaskOrder::Idle, TaskOrder::Youngest]),
            filter: random.one_in(8).then(|| "s".into()),
            ..Query::default()
        };
        let replayed = replay.snapshot(&query).unwrap();
        let mut tailed = tailer.snapshot(&query).unwrap();
        assert_eq!(replayed.mode, Mode::Replay);
        tailed.mode = Mode::Replay;
        assert_equal(&query, &tailed, &replayed);
        // The whole window at once after a jump; then in chunks, as a person leaves it time.
        let jumped = at_once.snapshot(&query).unwrap();
        assert_equal(&query, &tailed, &jumped);
        if random.one_in(20) {
            thread::sleep(Duration::from_millis(70));
            for _ in 0..random.below(100) {
                at_once.wait(Duration::from_secs(1)).unwrap();
            }
            let query = Query { at: Some(at.saturating_add(SECOND / 10)), ..query };
            let again = at_once.snapshot(&query).unwrap();
            let mut tailed = tailer.snapshot(&query).unwrap();
            tailed.mode = Mode::Replay;
            assert_equal(&query, &tailed, &again);
        }
        polls += tailed.polls.count;
        intervals += tailed.blocking.count;
        tasks.extend(tailed.tasks.rows.iter().take(3).map(|row| Some(row.task.id)));
    }
    assert!(replay.damage().is_empty(), "{:?}", replay.damage());
    (polls, intervals)
}

/// A process that ends with the test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Records a program for some seconds, sealing often; `None` where that cannot be.
fn record(program: &str, into: &Path) -> Option<PathBuf> {
    let must = std::env::var_os("HUD_REQUIRE_BPF").is_some();
    let recorder = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("hud-record");
    let (targets, is_root) =
        (std::env::var_os("HUD_TEST_TARGETS"), Command::new("id").arg("-u").output().unwrap().stdout == b"0\n");
    let (Some(targets), true, true) = (targets, is_root, recorder.is_file()) else {
        assert!(!must, "HUD_REQUIRE_BPF is set: be root, build hud-record and set HUD_TEST_TARGETS");
        eprintln!("skipped: needs root, {} and HUD_TEST_TARGETS", recorder.display());
        return None;
    };
    let mut target = Command::new(Path::new(&targets).join(program));
    let mut target = Kept(target.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(target.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let session = into.join(program);
    let arguments = ["--headless", "--polls", "exact", "--duration", "6", "--roll-age", "700ms", "--export"];
    let pid = target.0.id().to_string();
    let status = Command::new(recorder).args(["--pid", &pid]).args(arguments).arg(&session).status().unwrap();
    assert!(status.success());
    Some(session)
}

#[test]
fn of_a_program_recorded_now_both_show_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let Some(session) = record("test-async-app", dir.path()) else { return };
    let (polls, intervals) = assert_same(&session, 100, 11);
    // On a busy machine the probes may come late.
    assert!(intervals > 10, "a test of nothing: {polls} polls, {intervals} intervals");
}

#[test]
fn of_the_kept_recording_both_show_the_same() {
    let (polls, intervals) = assert_same(&recording(), 100, 7);
    assert!(polls > 1_000 && intervals > 10, "a test of nothing: {polls} polls, {intervals} intervals");
}

/// Rows that no kernel would send, up to the limits of integers, in many segments.
#[test]
fn of_hostile_sessions_both_show_the_same() {
    let mut all = 0;
    for seed in 1..=4 {
        let session = busy(2_000);
        let mut random = Random(seed * 7_919);
        for _ in 0..3 {
            hostile(&session, &mut random);
        }
        all += assert_same(&session.path, 40, seed).0;
    }
    assert!(all > 1_000, "a test of nothing: {all} polls");
}

fn hostile(session: &Session, random: &mut Random) {
    const ODD: [i64; 9] = [i64::MIN, i64::MAX, -1, 0, 1, T0, T0 - 1, T0 + 10 * SECOND, i64::MAX - T0];
    let ts = |random: &mut Random| match random.below(4) {
        0 => random.of(&ODD),
        _ => T0 - SECOND + random.below(13 * SECOND),
    };
    let dur = |random: &mut Random| match random.below(4) {
        0 => random.of(&ODD),
        1 => random.below(20 * SECOND),
        _ => random.below(20 * MS),
    };
    // Those of the cast, and some that nobody knows. Each has one type: what no row agrees on has no answer.
    let task = |random: &mut Random| random.below(16);
    let tid = |random: &mut Random| random.of(&[MAIN, W0, W1, POOL, 0, i32::MIN, i32::MAX]);
    let maybe = |random: &mut Random, value: i64| (!random.one_in(4)).then_some(value);
    let rows = 200;
    let (mut polls, mut sleeps, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    let (mut wakes, mut spawns, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let (mut drops, mut covered, mut overhead) = (Vec::new(), Vec::new(), Vec::new());
    let (mut process, mut stacks) = (Vec::new(), Vec::new());
    for n in 0..rows {
        let task_id = task(random);
        polls.push(format::PollRow {
            ts: ts(random),
            dur: dur(random),
            task_id: 1_000 + task_id,
            type_id: Some(1 + task_id % 7),
            tid: tid(random),
            cpu: 0,
            blocked: dur(random),
            run_queue: dur(random),
            wake_delay: random.one_in(2).then(|| dur(random)),
            completed: None,
        });
        sleeps.push(format::OffCpuRow {
            ts: ts(random),
            dur: dur(random),
            tid: tid(random),
            cpu: 0,
            state: random.of(&["S", "D", "R", "", "T"]).into(),
            task_id: maybe(random, task_id),
            stack_id: maybe(random, random.0.cast_signed() % 9),
            run_queue: random.one_in(2).then(|| dur(random)),
            waker_tid: random.one_in(2).then(|| tid(random)),
            intervals: None,
        });
        samples.push(format::SampleRow {
            ts: ts(random),
            tid: tid(random),
            cpu: 0,
            task_id: maybe(random, task_id),
            stack_id: maybe(random, random.0.cast_signed() % 9),
            weight: dur(random),
            unwind: "complete".into(),
        });
        wakes.push(WakeRow { ts: ts(random), task_id, waker_task_id: maybe(random, task_id), waker_tid: tid(random) });
        // Within the session: rows of a task outside of it are ignored.
        let within = T0 + random.below(10 * SECOND);
        spawns.push(SpawnRow {
            ts: within,
            task_id: 2_000 + n % 50,
            type_id: (n % 50 < 40).then_some(1 + n % 5),
            parent_task_id: maybe(random, task_id),
            tid: tid(random),
        });
        let outcome = random.of(&["completed", "cancelled", "panicked", "?"]).into();
        ends.push(EndRow { ts: ts(random), task_id: 2_000 + n % 50, outcome });
        if n % 20 == 0 {
            let stream = random.of(&["polls", "off_cpu", "samples", "wakes", "\u{1b}[31m"]);
            covered.push(format::CoverageRow {
                ts: ts(random),
                dur: dur(random),
                stream: stream.into(),
                reason: random.of(&["a", "b"]).into(),
            });
            let (ts, dur) = (ts(random), dur(random));
            drops.push(DropRow { ts, dur, stream: stream.into(), stage: "ring".into(), lost: random.of(&ODD) });
            overhead.push(OverheadRow {
                ts,
                probe_ns: maybe(random, dur),
                recorder_cpu: random.of(&ODD),
                recorder_rss: 1,
                ring_bytes: random.of(&ODD),
                events: dur,
            });
            let threads = tid(random);
            process.push(ProcessRow {
                ts,
                cpu_user: dur,
                cpu_sys: random.of(&ODD),
                rss: 1,
                threads,
                fds: None,
                cpu_others: maybe(random, dur),
                throttled: None,
            });
            stacks.push(StackRow {
                stack_id: 100 + random.below(1_000_000),
                frame_ids: vec![1, i64::MAX, 2],
                unwind: "failed".into(),
            });
        }
    }
    session.add::<Polls>(polls).add::<OffCpu>(sleeps).add::<Samples>(samples).add::<WakeColumns>(wakes);
    session.add::<SpawnColumns>(spawns).add::<EndColumns>(ends).add::<Coverage>(covered).add::<DropColumns>(drops);
    session.add::<OverheadColumns>(overhead).add::<ProcessColumns>(process).add::<StackColumns>(stacks);
}

/// What SQL counts of the polls of each bucket, replay has in its history.
#[test]
fn each_bucket_has_what_sql_counts() {
    let session = recording();
    let sql = "SELECT (p.ts + p.dur) / 100000000 AS bucket, count(*) AS polls, max(p.dur) AS longest
               FROM polls p LEFT JOIN task_types t ON t.type_id = p.type_id
               WHERE coalesce(t.kind, 'task') = 'task' GROUP BY 1";
    let batches = runtime().block_on(async {
        let catalog = Catalog::open(&session).unwrap();
        catalog.sql(sql).await.unwrap().collect().await.unwrap()
    });
    let mut counted: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for batch in &batches {
        let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let at = |name| column(name).value(row);
            counted.insert(at("bucket"), (at("polls"), at("longest")));
        }
    }
    assert!(counted.len() > 20);
    let mut replay = replay(&session);
    let (from, to) = replay.range();
    let query = Query { at: Some(to + 1), window: to - from + SECOND, ..Query::default() };
    for tick in replay.snapshot(&query).unwrap().history {
        let expected = counted.remove(&Bucket::of(tick.ts).0).unwrap_or_default();
        assert_eq!((tick.polls, tick.longest_poll), expected, "{}", tick.ts);
    }
    assert!(counted.is_empty(), "{counted:?}");
}

/// The findings of SQL over the whole session: rule, whether it is a warning, value and threshold.
fn findings_by_sql(session: &Path) -> Vec<(String, bool, i64, i64)> {
    let batches = runtime().block_on(async {
        let catalog = Catalog::open(session).unwrap();
        let sql = "SELECT rule, severity, value, threshold FROM views.findings";
        catalog.sql(sql).await.unwrap().collect().await.unwrap()
    });
    let mut found = Vec::new();
    for batch in &batches {
        let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>();
        let figure = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let is_warning = text("severity").value(row) == "warning";
            let (value, threshold) = (figure("value").value(row), figure("threshold").value(row));
            found.push((text("rule").value(row).to_owned(), is_warning, value, threshold));
        }
    }
    found.sort();
    found
}

/// The same, of the cockpit.
fn findings_by_rules(session: &Path) -> Vec<(String, bool, i64, i64)> {
    let mut replay = replay(session);
    let (from, to) = replay.range();
    let query = Query { at: Some(to), window: to - from, ..Query::default() };
    let figure = |value: &hud_common::cockpit::Value| match value {
        hud_common::cockpit::Value::Nanos(n)
        | hud_common::cockpit::Value::Share(n)
        | hud_common::cockpit::Value::Count(n) => *n,
    };
    let found = replay.snapshot(&query).unwrap().findings.into_iter().map(|finding| {
        let held = finding.evidence.first().unwrap();
        let is_warning = finding.severity == hud_common::cockpit::Status::Warning;
        (finding.rule.name().to_owned(), is_warning, figure(&held.value), held.threshold.as_ref().map_or(0, figure))
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

/// Both evaluate the same rules, over the same range and with the same thresholds.
#[test]
fn the_findings_of_sql_are_those_of_the_cockpit() {
    let mut rules = std::collections::BTreeSet::new();
    let made = [busy(2_000), busy(20_000)];
    for session in made.iter().map(|made| made.path.clone()).chain([recording()]) {
        let (by_sql, by_rules) = (findings_by_sql(&session), findings_by_rules(&session));
        assert_eq!(by_sql, by_rules, "{}", session.display());
        rules.extend(by_sql.into_iter().map(|(rule, ..)| rule));
    }
    assert!(rules.len() >= 3, "a test of little: {rules:?}");
}

/// The strip has the anomalies that each window would show.
#[test]
fn the_overview_has_each_bucket() {
    let session = recording();
    let mut replay = Replay::open(&session).unwrap();
    let ticks: BTreeMap<i64, _> = replay.overview(Query::default()).iter().flatten().map(|t| (t.ts, t)).collect();
    let (from, to) = replay.range();
    let query = Query { at: Some(to), window: to - from, ..Query::default() };
    let seen = replay.snapshot(&query).unwrap().history;
    assert!(seen.len() > 50);
    for tick in seen {
        let known = ticks.get(&tick.ts).unwrap_or_else(|| panic!("nothing of {}", tick.ts));
        assert_eq!((known.polls, known.longest_poll, known.status), (tick.polls, tick.longest_poll, tick.status));
    }
    assert!(ticks.values().any(|tick| tick.status > hud_common::cockpit::Status::Normal), "no anomaly was reported");
}

/// A frame that is due before all is read is of the newest part, says so, and becomes the one that waits for all.
#[test]
fn a_frame_that_is_due_is_of_the_rows_read() {
    let session = recording();
    let mut patient = replay(&session);
    let (from, to) = patient.range();
    let query = Query { at: Some(to), window: to - from, ..Query::default() };
    let whole = serde_json::to_value(patient.snapshot(&query).unwrap()).unwrap();
    let mut hasty = replay(&session).with_patience(Duration::ZERO);
    let mut unread = Vec::new();
    for _ in 0..100 {
        let frame = hasty.snapshot(&query).unwrap();
        unread.push(frame.coverage.unread);
        if frame.coverage.unread == 0 {
            let mut found = Vec::new();
            differences("", &serde_json::to_value(frame).unwrap(), &whole, &mut found);
            assert!(found.is_empty(), "{found:#?}");
            break;
        }
        // Who is about to press a key is not kept waiting.
        assert!(!hasty.wait(Duration::ZERO).unwrap());
        assert!(hasty.wait(Duration::from_millis(1)).unwrap(), "there is more to show");
    }
    assert!((2..100).contains(&unread.len()) && unread.last() == Some(&0), "{} frames", unread.len());
    assert!(unread.is_sorted_by(|a, b| a > b), "each shows more: {unread:?}");
}

/// A session that is being recorded grows under replay, which shows what a fresh look shows.
#[test]
fn a_session_being_recorded_grows() {
    let session = Session::with_cast_of(&Manifest { complete: false, end: None, ..manifest() });
    let lock = session.record();
    session.log::<Polls>((0..100).map(|n| poll(at(n * 10), W0, CITIZEN, 1, MS)));
    let mut replay = Replay::open(&session.path).unwrap();
    let query = Query { at: Some(at(5_000)), ..Query::default() };
    let first = replay.snapshot(&query).unwrap();
    assert_eq!(first.polls.count, 100);
    assert!(matches!(first.mode, Mode::Live { .. }));
    // The log is sealed, and another one begins; both at once, as it may be seen.
    hud_common::session::seal(session.dir(), hud_common::session::Table::Polls, 1).unwrap();
    session.log::<Polls>((0..50).map(|n| poll(at(2_000 + n * 10), W1, HOG, 3, MS)));
    let began = Instant::now();
    while replay.snapshot(&query).unwrap().polls.count != 150 {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not grow");
        replay.wait(Duration::from_millis(20)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(lock);
}

#[test]
fn a_screenshot_is_drawn_without_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let shot = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
        let output = command.arg("screenshot").arg(recording()).args(extra).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let text = String::from_utf8(shot(&["--at", "+5s", "--size", "120x40"])).unwrap();
    assert_eq!(text.lines().count(), 40);
    assert!(text.contains("cpu_hog") && text.contains("blocking_sleeper") && text.contains("REPLAY"), "{text}");
    let svg = dir.path().join("screen.svg");
    shot(&["--at", "-1s", "-o", svg.to_str().unwrap()]);
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let twice = shot(&["--size", "200x60", "--align", "start", recording().to_str().unwrap()]);
    assert!(String::from_utf8(twice).unwrap().matches("cpu_hog").count() >= 2, "two sessions side by side");
}

/// A session whose tasks change their state every 10 s, some of them gone in between.
fn session_with_states() -> Session {
    let session = Session::with_cast();
    let mut random = Random(77);
    let (mut rows, mut taken) = (Vec::new(), Vec::new());
    for snapshot in 0..8 {
        let ts = T0 + snapshot * 10 * SECOND;
        taken.push(covered("task_states", ts - 10 * SECOND, ts));
        for task in 0..30 {
            // All in the first snapshot, then some.
            if snapshot > 0 && !random.one_in(3) {
                continue;
            }
            let state = random.of(&["suspended", "suspended", "suspended", "running", "scheduled", "gone"]);
            let branches = if random.one_in(4) { 2 } else { 1 };
            for branch in 0..branches {
                rows.push(format::TaskStateRow {
                    ts,
                    since: ts - random.below(3) * SECOND,
                    task_id: (task % 10 != 9).then_some(10 + task),
                    tid: (task % 10 == 9).then_some(W1),
                    type_id: (!random.one_in(4)).then_some(1 + task % 3),
                    state: state.into(),
                    branch,
                    branches,
                    stack_id: (!random.one_in(5)).then_some(random.of(&[SLEEP, BURN_22, BURN_23, NO_LINE])),
                    resource: random.of(&[Some("mutex"), Some("timer"), Some("io"), None]).map(Into::into),
                    address: (!random.one_in(3)).then_some(random.below(4)),
                    deadline: None,
                    detail: (!random.one_in(3)).then(|| format!("number {}", random.below(2)).into()),
                    holder_task_id: random.one_in(3).then_some(10 + random.below(5)),
                    holder_tid: None,
                    cycle: None,
                    spawn_file: None,
                    spawn_line: None,
                });
            }
        }
    }
    // A thread runs one future by `block_on`: its rows of one snapshot are those of the first that was made up.
    let mut seen = std::collections::BTreeSet::new();
    rows.retain(|row| seen.insert((row.ts, row.task_id, row.tid, row.branch)));
    let mut first = BTreeMap::new();
    for row in &mut rows {
        let of = (row.ts, row.task_id, row.tid);
        let known = first.entry(of).or_insert((row.since, row.state.clone(), row.type_id)).clone();
        (row.since, row.state, row.type_id) = known;
    }
    session.add::<format::TaskStateColumns>(rows).add::<Coverage>(taken);
    session
}

/// Function, file, line, resource and type, with the number of tasks and the longest and shortest wait.
type Place = (String, Option<String>, Option<i64>, Option<String>, Option<String>, i64, i64, i64);

fn places_by_sql(session: &Path, at: i64) -> Vec<Place> {
    let rows = rows(session, hud_analyze::view::SUSPENDED, between(T0 - 3_600 * SECOND, at + 1));
    let text = |row: &Value, name: &str| row[name].as_str().map(str::to_owned);
    let mut all: Vec<Place> = rows
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_i64();
            let (function, longest) = (text(row, "function").unwrap(), number("longest").unwrap());
            let (tasks, shortest) = (number("tasks").unwrap(), number("shortest").unwrap());
            let (file, resource, task_type) = (text(row, "file"), text(row, "resource"), text(row, "task_type"));
            (function, file, number("line"), resource, task_type, tasks, longest, shortest)
        })
        .collect();
    all.sort();
    all
}

/// The cockpit shows where tasks wait at any instant as the view defines it, live and in replay, whatever was shown before.
#[test]
fn where_tasks_wait_is_that_of_sql() {
    let session = session_with_states();
    let (mut replay, mut tailer) = (replay(&session.path), tailer(&session.path));
    let mut counted = 0;
    for offset in [-1, 0, 5, 10, 34, 70, 20, 900, 1_269, 1_271, 3] {
        let at = T0 + offset * SECOND;
        let query = Query { at: Some(at), has_states: true, ..Query::default() };
        let shown = replay.snapshot(&query).unwrap().waiting;
        assert_eq!(shown, tailer.snapshot(&query).unwrap().waiting, "at {offset} s");
        let mut places: Vec<Place> = shown
            .places
            .iter()
            .map(|row| {
                let name = |name: &Option<hud_common::cockpit::Name>| name.as_ref().map(|name| name.to_string());
                (
                    row.place.function.to_string(),
                    name(&row.place.file),
                    row.place.line.map(i64::from),
                    name(&row.resource),
                    row.task_type.as_ref().map(|of| of.name.to_string()),
                    row.tasks,
                    row.longest,
                    row.shortest,
                )
            })
            .collect();
        places.sort();
        assert_eq!(places, places_by_sql(&session.path, at), "at {offset} s");
        counted += places.len();
    }
    assert!(counted > 100, "a test of little: {counted}");
}
