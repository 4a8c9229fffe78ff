//! Stacks: complete on binaries without frame pointers, and equal to those of other tools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_wrap, reason = "tests")]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use hud_common::{session::Table, wire::MAX_FRAMES};
use hud_record::inspect::{Binary, Process};
use rustix::process::Signal;
use support::{Recorder, Recording, Target, hud_record, may_trace, program, text, until};

/// A frame that is not inlined: the mapped file, the address in it that was looked up, and its function.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    path: String,
    address: i64,
    function: String,
}

/// An off-CPU interval.
#[derive(Clone, Debug)]
struct OffCpuInterval {
    ts: i64,
    dur: i64,
    tid: i64,
    unwind: String,
    stack: Vec<Frame>,
}

/// All off-CPU intervals of a recording, by time.
fn off_cpu_intervals(recording: &Recording) -> Vec<OffCpuInterval> {
    let integers = |table, column| recording.integers(table, column);
    let paths: HashMap<Option<i64>, String> =
        integers(Table::Modules, "module_id").into_iter().zip(recording.texts(Table::Modules, "path")).collect();
    let frames: HashMap<i64, Option<Frame>> = integers(Table::Frames, "frame_id")
        .into_iter()
        .zip(integers(Table::Frames, "module_id"))
        .zip(integers(Table::Frames, "address"))
        .zip(integers(Table::Frames, "inline_depth"))
        .zip(recording.texts(Table::Frames, "function"))
        .map(|((((id, module), address), inline_depth), function)| {
            let path = paths.get(&module).cloned().unwrap_or_default();
            (id.unwrap(), (inline_depth == Some(0)).then(|| Frame { path, address: address.unwrap(), function }))
        })
        .collect();
    let rows = recording.rows(Table::Stacks);
    let lists = rows.column_by_name("frame_ids").unwrap().as_list::<i32>();
    let unwinds = recording.texts(Table::Stacks, "unwind");
    let stacks: HashMap<Option<i64>, (String, Vec<Frame>)> = integers(Table::Stacks, "stack_id")
        .into_iter()
        .zip(unwinds)
        .enumerate()
        .map(|(row, (id, unwind))| {
            let ids = lists.value(row);
            let ids = ids.as_primitive::<Int64Type>().values().to_vec();
            (id, (unwind, ids.iter().filter_map(|id| frames[id].clone()).collect()))
        })
        .collect();
    let mut all: Vec<OffCpuInterval> = integers(Table::OffCpu, "ts")
        .into_iter()
        .zip(integers(Table::OffCpu, "dur"))
        .zip(integers(Table::OffCpu, "tid"))
        .zip(integers(Table::OffCpu, "stack_id"))
        .map(|(((ts, dur), tid), stack_id)| {
            let (unwind, stack) = stacks.get(&stack_id).cloned().unwrap_or(("failed".into(), Vec::new()));
            OffCpuInterval { ts: ts.unwrap(), dur: dur.unwrap(), tid: tid.unwrap(), unwind, stack }
        })
        .collect();
    all.sort_by_key(|s| s.ts);
    all
}

/// The share of complete stacks among samples and among off-CPU intervals.
fn shares(recording: &Recording) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let share = |all: &[String]| {
        assert!(all.len() >= 50, "{} are too few", all.len());
        all.iter().filter(|u| *u == "complete").count() as f64 / all.len() as f64
    };
    let off_cpu: Vec<String> = off_cpu_intervals(recording).into_iter().map(|s| s.unwind).collect();
    (share(&recording.texts(Table::Samples, "unwind")), share(&off_cpu))
}

/// Down to the thread's start, on default release builds, without debug information and without symbols, with fat LTO,
/// and on a static binary.
#[test]
fn stacks_are_whole_without_frame_pointers() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stripped = dir.path().join("test-async-app");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(program("plain/test-async-app")).status().unwrap();
    assert!(strip.success());
    for path in ["test-async-app", "plain/test-async-app", "fat-lto/test-async-app", "static/test-async-app"]
        .map(program)
        .into_iter()
        .chain([stripped])
    {
        for polls in ["exact", "off"] {
            let target = Target::start(&path, &[]);
            let session = dir.path().join("session");
            let recording = support::record(target.pid(), &session, &["--duration", "3", "--polls", polls]);
            target.stop();
            let (samples, off_cpu) = shares(&recording);
            println!("{}, polls {polls}: complete {samples:.4} of samples, {off_cpu:.4} off CPU", path.display());
            assert!(samples >= 0.98, "{}, polls {polls}: {samples} of samples are complete", path.display());
            assert!(off_cpu >= 0.98, "{}, polls {polls}: {off_cpu} off CPU are complete", path.display());
            std::fs::remove_dir_all(&session).unwrap();
        }
    }
}

/// A build with frame pointers, walked in both ways at once: each frame found by frame pointers is also found by the
/// unwind tables, in the same order. (Frame pointers miss callers of leaves, and end in code built without them.)
#[test]
fn unwind_tables_find_what_frame_pointers_find() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(&program("frame-pointers/test-async-app"), &[]);
    let sessions = ["fp", "eh-frame"].map(|unwind| {
        let session = dir.path().join(unwind);
        let mut command = hud_record();
        command.args([
            "--pid",
            &target.pid().to_string(),
            "--headless",
            "--polls",
            "off",
            "--unwind",
            unwind,
            "--export",
        ]);
        command.arg(&session);
        let mut recorder = Recorder::spawn(command);
        recorder.until_it_says("recording");
        (recorder, session)
    });
    thread::sleep(Duration::from_secs(4));
    let [fp, tables] = sessions.map(|(mut recorder, session)| {
        assert!(recorder.stop().success(), "{}", recorder.said());
        off_cpu_intervals(&Recording::open(&session))
    });
    target.stop();

    let mut compared = 0;
    let mut deep = 0;
    let mut differ = Vec::new();
    for interval in &tables {
        // Both recorded the same switch, a moment apart.
        let near = fp.partition_point(|s| s.ts < interval.ts - 100_000);
        let same = fp[near..]
            .iter()
            .take_while(|s| s.ts < interval.ts + 100_000)
            .filter(|s| s.tid == interval.tid && (s.dur - interval.dur).abs() < 100_000)
            .collect::<Vec<_>>();
        let [other] = same[..] else { continue };
        compared += 1;
        deep += usize::from(other.stack.len() >= 10);
        // Where frame pointers end, they may give one stray frame.
        let found = other.stack.len().saturating_sub(1);
        let mut frames = interval.stack.iter();
        if !other.stack[..found].iter().all(|f| frames.any(|g| g.path == f.path && g.address == f.address)) {
            differ.push((other.clone(), interval.clone()));
        }
    }
    assert!(compared >= 500 && deep >= 100, "{compared} compared, {deep} of them deep");
    println!("{compared} stacks compared, {deep} of 10 frames or more, {} differ", differ.len());
    assert!(differ.len() * 200 <= compared, "{} of {compared} differ, such as {:#?}", differ.len(), differ.first());
}

/// Threads with stacks of every shape, stopped, walked by hud and by gdb.
#[test]
fn stacks_of_stopped_threads_are_those_that_gdb_finds() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let mut target = Target::start(&program("plain/stack-shapes"), &["--library", library.to_str().unwrap()]);
    let session = dir.path().join("session");
    let mut command = hud_record();
    command.args(["--pid", &target.pid().to_string(), "--headless", "--log-level", "debug", "--export"]).arg(&session);
    let mut recorder = Recorder::spawn(command);
    recorder.until_it_says("recording");
    // Code mapped from here on has no table yet.
    target.signal(Signal::USR1);
    assert_eq!(target.line().trim(), "loaded");
    recorder.until_it_says("libcall.so was mapped");
    thread::sleep(Duration::from_secs(1));
    target.signal(Signal::STOP);
    let process = Process::by_pid(target.pid()).unwrap();
    let tids = process.threads();
    let is_stopped = |tid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", target.pid())).unwrap();
        stat.rsplit_once(')').unwrap().1.starts_with(" T")
    };
    until("all threads to stop", || tids.iter().all(is_stopped));
    let by_gdb = gdb(&process);
    assert!(recorder.stop().success(), "{}", recorder.said());
    let names: BTreeMap<i64, String> =
        tids.iter().map(|&tid| (i64::from(tid), process.thread_name(tid).unwrap())).collect();
    drop(target);

    let recording = Recording::open(&session);
    let last: BTreeMap<i64, OffCpuInterval> = off_cpu_intervals(&recording).into_iter().map(|s| (s.tid, s)).collect();
    let mut compared = Vec::new();
    for (tid, name) in &names {
        let interval = last.get(tid).unwrap_or_else(|| panic!("nothing of thread {name}"));
        let functions: Vec<&str> = interval.stack.iter().map(|f| f.function.as_str()).collect();
        let outcome = if name == "deep" { "truncated" } else { "complete" };
        assert_eq!(interval.unwind, outcome, "{name}: {functions:#?}");
        if name == "deep" {
            assert_eq!(interval.stack.len(), MAX_FRAMES);
        }
        // gdb knows nothing of code that is in no file, and guesses.
        if name == "jit" {
            assert!(functions.iter().any(|f| f.contains("in_jit")), "{functions:#?}");
            continue;
        }
        let mut gdb = by_gdb[tid].clone();
        gdb.truncate(MAX_FRAMES);
        let hud: Vec<(String, i64)> = interval.stack.iter().map(|f| (f.path.clone(), f.address)).collect();
        assert_eq!(hud.len(), gdb.len(), "{name}: {hud:x?} by hud, {gdb:x?} by gdb");
        for (depth, (by_hud, by_gdb)) in hud.iter().zip(&gdb).enumerate() {
            // gdb gives no address for a signal's return.
            if let Some((path, address)) = by_gdb {
                // hud looks a caller up inside its call; code that a signal interrupted did not call, which names do
                // not show.
                let off = address - by_hud.1;
                assert!(*path == by_hud.0 && (0..=1).contains(&off), "{name}, {depth}: {by_hud:x?}, gdb {by_gdb:x?}");
            }
        }
        compared.push(name.as_str());
    }
    for name in ["deep", "nested", "signal", "vdso", "runtime", "library"] {
        assert!(compared.contains(&name), "{name} is not among {compared:?}");
    }
    // The busy thread never slept: it has samples.
    let (samples, _) = shares(&recording);
    assert!(samples >= 0.98, "{samples} of samples are complete");
}

/// A library with a function that calls its argument, built without frame pointers.
fn library(dir: &Path) -> std::path::PathBuf {
    let (source, library) = (dir.join("call.c"), dir.join("libcall.so"));
    let code = "void call(void (*f)(void)) { volatile char pad[40]; pad[0] = 1; f(); pad[1] = 2; }";
    std::fs::write(&source, code).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fomit-frame-pointer", "-fPIC", "-shared", "-o"]).arg(&library).arg(&source);
    let built = cc.status().unwrap();
    assert!(built.success());
    library
}

/// The stack of each thread, as files and addresses in them, leaf first; `None` for a frame without address or file.
fn gdb(process: &Process) -> BTreeMap<i64, Vec<Option<(String, i64)>>> {
    let output = Command::new("gdb")
        // Without debug information of its own, so that no frame is an inlined one.
        .args(["-nx", "-batch", "-iex", "set debug-file-directory /nonexistent", "-p", &process.pid.to_string()])
        .args(["-ex", "set debuginfod enabled off", "-ex", "set backtrace past-main on"])
        .args(["-ex", "set width 0", "-ex", "thread apply all backtrace"])
        .output()
        .expect("gdb is not installed");
    let said = text(&output.stdout);
    let mappings = process.mappings().unwrap();
    let place = |pc: u64| {
        let mapping = mappings.iter().find(|m| (m.start..m.end).contains(&pc))?;
        let offset = pc - mapping.start + mapping.offset;
        let file = process.mapped_file(mapping);
        let vaddr = std::fs::File::open(&file)
            .ok()
            .and_then(|f| Binary::read(&f).ok())
            .and_then(|b| b.vaddr(offset))
            .unwrap_or(offset);
        Some((mapping.path.clone(), vaddr.cast_signed()))
    };
    let mut stacks: BTreeMap<i64, Vec<Option<(String, i64)>>> = BTreeMap::new();
    let mut tid = 0;
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("(LWP ").filter(|_| line.starts_with("Thread ")) {
            tid = rest.split(')').next().unwrap().parse().unwrap();
        } else if let Some(frame) = line.strip_prefix('#') {
            let pc = frame.split_whitespace().nth(1).and_then(|word| word.strip_prefix("0x"));
            let pc = pc.map(|hex| u64::from_str_radix(hex, 16).unwrap());
            stacks.entry(tid).or_default().push(pc.and_then(place));
        }
    }
    assert!(!stacks.is_empty(), "{said}{}", text(&output.stderr));
    stacks
}
