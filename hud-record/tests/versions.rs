//! hud on other builds of test-async-app: older versions of tokio, other ways to compile and to link. The fixtures are
//! built by `cargo xtask test` (xtask/src/fixtures.rs).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use hud_common::session::Table;
use hud_record::inspect::{Binary, Image, Tokio};
use support::{
    Recording, Target, analyze, assert_both_culprits, assert_polls_agree, may_trace, program, record, truth, verify,
};

macro_rules! fixtures {
    ($($name:ident: $folder:literal;)*) => {
        $(mod $name {
            #[test]
            fn exact() {
                super::exact($folder);
            }

            #[test]
            fn off() {
                super::off($folder);
            }

            /// Without any symbol.
            #[test]
            fn stripped_exact() {
                super::stripped_exact($folder);
            }

            #[test]
            fn stripped_off() {
                super::stripped_off($folder);
            }
        })*
    };
}

fixtures! {
    // Up to 1.39 the current task's id is a number beside a tag, and stays after the task has ended.
    tokio_1_38: "tokio-1.38.2";
    tokio_1_43: "tokio-1.43.4";
    tokio_1_47: "tokio-1.47.1";
    tokio_1_50: "tokio-1.50.0";
    fat_lto: "fat-lto";
    v0_mangling: "v0";
    statically_linked: "static";
    non_pie: "non-pie";
    packed_relocations: "relr";
    default_release: "plain";
    // In a shared library that a program without tokio loads.
    shared_library: "library";
}

/// Debug information of each version, however compiled, gives the path from the thread-local to the worker.
#[test]
fn the_path_to_the_worker_is_known() {
    let fixtures =
        ["tokio-1.38.2", "tokio-1.43.4", "tokio-1.47.1", "tokio-1.50.0", "fat-lto", "v0", "static", "non-pie"];
    for fixture in fixtures {
        let path = program(fixture).join("test-async-app");
        let file = fs::File::open(&path).unwrap();
        let binary = Binary::read(&file).unwrap();
        let mut tokio = Tokio::find(&binary, || Image::of_file(&binary)).unwrap();
        hud_record::symbols::learn_tokio(&file, &mut tokio);
        let place = tokio.worker_place.unwrap_or_else(|| panic!("{fixture}: no way to the worker"));
        // Behind the two counts of an `Arc`.
        assert!(place.scheduler > 0 && place.handle >= 16 && place.index >= 16, "{fixture}: {place:?}");
        assert_ne!(place.handle, place.index, "{fixture}");
    }
}

/// The code that sets the current task's id shows where it lies, as debug information does.
#[test]
fn the_code_shows_where_the_current_task_is() {
    let fixtures =
        ["tokio-1.38.2", "tokio-1.43.4", "tokio-1.47.1", "tokio-1.50.0", "fat-lto", "v0", "static", "non-pie"];
    let mut wrong = Vec::new();
    for fixture in fixtures {
        let file = fs::File::open(program(fixture).join("test-async-app")).unwrap();
        let binary = Binary::read(&file).unwrap();
        let image = || Image::of_file(&binary);
        let mut tokio = Tokio::find(&binary, image).unwrap();
        tokio.guess(&binary, image);
        let by_code = tokio.tls_task_id;
        tokio.tls_task_id = None;
        hud_record::symbols::learn_tokio(&file, &mut tokio);
        assert!(tokio.tls_task_id.is_some(), "{fixture}");
        if by_code != tokio.tls_task_id {
            wrong.push((fixture, by_code, tokio.tls_task_id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // Neither symbols nor debug information: the same build as without debug information.
    let place = |name: &str| {
        let file = fs::File::open(program(name)).unwrap();
        let binary = Binary::read(&file).unwrap();
        let image = || Image::of_file(&binary);
        let mut tokio = Tokio::find(&binary, image).unwrap();
        tokio.guess(&binary, image);
        tokio.tls_task_id
    };
    for build in ["plain/test-async-app", "plain/lookalikes"] {
        let stripped = place(&format!("stripped/{build}"));
        assert!(stripped.is_some(), "{build}");
        assert_eq!(stripped, place(build), "{build}");
    }
}

/// In a program that aborts on panics, a coroutine without end has no location of its own: what is found may be that of one
/// which it awaits, and the name says so.
#[test]
fn names_are_vague_where_panics_abort() {
    let file = fs::File::open(stripped("abort")).unwrap();
    let binary = Binary::read(&file).unwrap();
    let tokio = Tokio::find(&binary, || Image::of_file(&binary)).unwrap();
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/test-async-app.rs")).unwrap();
    let near: Vec<&str> = tokio.poll_fns.iter().filter_map(|poll| poll.name.strip_prefix("task near ")).collect();
    let lines = near.iter().filter_map(|near| near.split_once("examples/test-async-app.rs:")?.1.parse::<usize>().ok());
    let functions: Vec<&str> =
        lines.filter_map(|line| source.lines().nth(line - 1)?.strip_prefix("async fn ")).collect();
    assert!(functions.iter().any(|f| f.starts_with("short_lived(")), "{near:?}");
    assert!(tokio.poll_fns.iter().all(|poll| poll.file.is_none()));
    assert!(tokio.notes.iter().any(|note| note.contains("is theirs or awaited by it")), "{:?}", tokio.notes);
}

/// Tasks of test-async-app.
const TASKS: [&str; 6] =
    ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "short_lived"];

/// All that it spawns.
const ALL_TASKS: [&str; 9] = [
    "good_citizen",
    "yielding_worker",
    "cpu_hog",
    "blocking_sleeper",
    "lock_contender",
    "file_reader",
    "pool_user",
    "short_lived_spawner",
    "short_lived",
];

/// Every poll is recorded: each is in the program's own account, and the culprits are named.
fn exact(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program(fixture).join("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "3", "--polls", "exact"]);
    target.stop();
    assert_polls_agree(&recording, &truth(&log), "test_async_app", &TASKS);
    if has_lines(fixture) {
        assert_both_culprits(&session, fixture);
    }
}

/// No poll is recorded: the culprits are named nevertheless, and the sleeps are the program's own.
fn off(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("polls.csv");
    let target = Target::start(&program(fixture).join("test-async-app"), &["--poll-log", log.to_str().unwrap()]);
    let session = dir.path().join("session");
    let recording = record(target.pid(), &session, &["--duration", "3", "--polls", "off"]);
    target.stop();
    assert_eq!(recording.rows(Table::Polls).num_rows(), 0);
    if has_lines(fixture) {
        assert_both_culprits(&session, fixture);
    }
    assert_sleeps_agree(&recording, &session, &log, "test_async_app::blocking_sleeper", fixture);
}

/// Whether the fixture has debug information, so that functions have lines.
fn has_lines(fixture: &str) -> bool {
    fixture != "plain"
}

/// Compares the off-CPU sleeps that hud reports with the program's own count.
fn assert_sleeps_agree(recording: &Recording, session: &Path, log: &Path, task_type: &str, fixture: &str) {
    let (start, end) = (recording.tasks_known(), recording.window("off_cpu").1);
    let sleeps = &truth(log)["sleep"];
    let inside = sleeps.iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).count() as i64;
    let rows = analyze(&["blocking", "--each", "--limit", "100000"], session);
    let named = rows.as_array().unwrap().iter();
    let named = named.filter(|r| r["task_type"] == task_type && r["cause"] == "blocked");
    let named = named.filter(|r| recording.mono(r["ts"].as_i64().unwrap()) >= start);
    let named = named.filter(|r| r["dur"].as_i64().unwrap() >= 14_000_000).count() as i64;
    // At either end of the window one may count on one side only.
    assert!((named - inside).abs() <= 2, "{fixture}: {named} sleeps by hud, {inside} by its own count");
}

/// Every poll is recorded in a binary without symbols: as many as the program counts, for each task type known by its
/// source location, and wakes lead to polls.
fn stripped_exact(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, session) = (dir.path().join("polls.csv"), dir.path().join("session"));
    let target = Target::start(&stripped(fixture), &["--poll-log", log.to_str().unwrap()]);
    let recording = record(target.pid(), &session, &["--duration", "3", "--polls", "exact"]);
    target.stop();
    verify(&session);

    let kinds = recording.texts(Table::TaskTypes, "kind");
    let kinds: BTreeMap<i64, String> =
        recording.integers(Table::TaskTypes, "type_id").into_iter().flatten().zip(kinds).collect();
    let names = names(&recording);
    let (start, end) = recording.window("polls");
    let (mut polls, mut all): (BTreeMap<&str, i64>, i64) = (BTreeMap::new(), 0);
    for type_id in recording.integers(Table::Polls, "type_id").into_iter().flatten() {
        all += i64::from(kinds[&type_id] == "task");
        if let Some(name) = names.get(&type_id) {
            *polls.entry(name).or_default() += 1;
        }
    }
    let mut counted = 0;
    for (name, polls_by_itself) in truth(&log).iter().filter(|(name, _)| ALL_TASKS.contains(&name.as_str())) {
        let own = polls_by_itself.iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).count() as i64;
        counted += own;
        // At either end of the window a poll may count on one side only.
        if let Some(ours) = polls.get(name.as_str()) {
            assert!(
                (ours - own).abs() <= (own / 100).max(1),
                "{fixture}, {name}: {ours} polls by hud, {own} by itself"
            );
        }
    }
    assert!(all > 1000 && (all - counted).abs() * 200 <= all, "{fixture}: {all} polls by hud, {counted} by itself");
    // With everything inlined, some coroutines cannot be distinguished from those that they await.
    let least = if fixture == "fat-lto" { 2 } else { ALL_TASKS.len() };
    assert!(polls.len() >= least, "{fixture}: only {:?} have a place", polls.keys());

    let wakes: Vec<_> = recording.integers(Table::Polls, "wake_delay").into_iter().flatten().collect();
    assert!(wakes.len() * 2 > recording.rows(Table::Polls).num_rows(), "{fixture}: {} polls with a wake", wakes.len());
    let roles = recording.texts(Table::Threads, "role");
    assert!(roles.iter().any(|r| r == "worker"), "{fixture}: {roles:?}");
    assert!(recording.manifest.notes.iter().any(|n| n.contains("stripped")), "{:?}", recording.manifest.notes);
}

/// No poll is recorded in a binary without symbols: the current task's id is found among all thread-locals, and the
/// sleeps are the program's own.
fn stripped_off(fixture: &str) {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, session) = (dir.path().join("polls.csv"), dir.path().join("session"));
    let target = Target::start(&stripped(fixture), &["--poll-log", log.to_str().unwrap()]);
    let recording = record(target.pid(), &session, &["--duration", "4", "--polls", "off"]);
    target.stop();
    assert_eq!(recording.rows(Table::Polls).num_rows(), 0);
    let by_place = names(&recording);
    let types = recording.integers(Table::TaskTypes, "type_id").into_iter().flatten();
    let mut types = types.zip(recording.texts(Table::TaskTypes, "name"));
    // One per scheduler, with one name.
    let named = types.find(|(id, _)| by_place.get(id).is_some_and(|n| n == "blocking_sleeper")).map(|(_, name)| name);
    // Else by its behaviour: no other task sleeps in a poll.
    let sleeper = named.unwrap_or_else(|| {
        let rows = analyze(&["blocking", "--each", "--limit", "100000"], &session);
        let mut sleeps = rows.as_array().unwrap().iter().filter(|r| r["dur"].as_i64().unwrap() >= 14_000_000);
        let sleep = sleeps.find(|r| r["cause"] == "blocked" && r["task_type"].is_string());
        sleep.expect("a sleep with a task")["task_type"].as_str().unwrap().into()
    });
    assert_sleeps_agree(&recording, &session, &log, &sleeper, fixture);
}

fn stripped(fixture: &str) -> std::path::PathBuf {
    program("stripped").join(fixture).join("test-async-app")
}

/// The async function of each task type, by the location that hud gives for it.
fn names(recording: &Recording) -> BTreeMap<i64, String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/test-async-app.rs")).unwrap();
    let lines: Vec<&str> = source.lines().collect();
    let files = recording.texts(Table::TaskTypes, "file").into_iter();
    let places = files.zip(recording.integers(Table::TaskTypes, "line"));
    let types = recording.integers(Table::TaskTypes, "type_id").into_iter().flatten().zip(places);
    types
        .filter(|(_, (file, _))| file.ends_with("examples/test-async-app.rs"))
        .map(|(type_id, (_, line))| {
            let line = lines[usize::try_from(line.unwrap()).unwrap() - 1];
            let name = line.strip_prefix("async fn ").and_then(|l| l.split('(').next());
            (type_id, name.unwrap_or_else(|| panic!("no async function is written there: {line}")).to_owned())
        })
        .collect()
}
