//! hud's effect on arbitrary programs: it attaches no probe that was not requested, and its cost at context switches
//! stays within the budget without losing one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use hud_common::session::Table;
use rustix::process::Signal;
use support::{Recording, Target, hud_record, may_trace, program, record, text, verify};

/// The counts of `harm` so far: CLOCK_MONOTONIC and units of work.
fn totals(target: &mut Target) -> (u64, u64) {
    target.signal(Signal::USR1);
    let totals: serde_json::Value = serde_json::from_str(&target.line()).unwrap();
    (totals["mono_ns"].as_u64().unwrap(), totals["ops"].as_u64().unwrap())
}

/// The kernel maps `[uprobes]` into a process when it first hits a probe. A program that wakes itself for ever has
/// none, with debug information and without (issue 16, harm 1). With it, samples have their task (the id is set for a
/// part of each poll only). Without, one task is not enough to distinguish its id from its thread's: both are 2 here.
#[test]
fn polls_off_attaches_no_probe() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain/harm", "harm"] {
        let target = Target::start(&program(name), &["self-wake"]);
        let session = folder.path().join(name.replace('/', "-"));
        let recording = record(target.pid(), &session, &["--polls", "off", "--duration", "3"]);
        let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap();
        assert!(!maps.contains("[uprobes]"), "{name} has hit a probe");
        let tasks = recording.integers(Table::Samples, "task_id");
        let known = tasks.iter().filter(|task| task.is_some()).count();
        // One of its polls takes 40 ns, 5 to 20 % of it inside the task.
        let is_enough = name != "harm" || known * 40 > tasks.len();
        assert!(tasks.len() > 50 && is_enough, "{name}: {known} of {} samples have a task", tasks.len());
        assert!(!recording.integers(Table::TaskTypes, "type_id").is_empty());
    }
}

/// 100,000 switches a second are more than the budget allows to record one by one. None is lost: those without a row of
/// their own are in a sum, and no thread is off CPU twice at a time (issue 16, harm 2).
#[test]
fn every_switch_counts_whatever_the_budget() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("s");
    let mut target = Target::start(&program("harm"), &["switches-deep-changing"]);
    let before = totals(&mut target);
    let recording = record(target.pid(), &session, &["--polls", "off", "--budget", "0.2%", "--duration", "4"]);
    let after = totals(&mut target);
    target.stop();
    verify(&session);

    let column = |name| recording.integers(Table::OffCpu, name);
    let states = recording.texts(Table::OffCpu, "state");
    let (mut sums, mut switches) = (0, 0);
    let mut threads: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    let rows = column("ts").into_iter().zip(column("dur")).zip(column("tid")).zip(column("intervals"));
    for (((((ts, dur), tid), intervals), state), stack) in rows.zip(&states).zip(column("stack_id")) {
        assert_eq!(intervals.is_some(), state == "+", "{state} {intervals:?}");
        if let Some(n) = intervals {
            assert!(n > 0 && stack.is_none());
            sums += 1;
        }
        switches += intervals.unwrap_or(1);
        threads.entry(tid.unwrap()).or_default().push((ts.unwrap(), dur.unwrap()));
    }
    assert!(sums > 0, "all of {switches} switches are rows of their own");
    for (tid, rows) in &mut threads {
        rows.sort_unstable();
        for pair in rows.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "thread {tid} is off CPU twice at a time: {pair:?}");
        }
    }
    // The target switches once a unit; attaching takes a part of the time between the two counts.
    let start = threads.values().flatten().map(|(ts, _)| *ts).min().unwrap();
    let end = threads.values().flatten().map(|(ts, dur)| ts + dur).max().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
    let (own, ours) =
        ((after.1 - before.1) as f64 / (after.0 - before.0) as f64, switches as f64 / (end - start) as f64);
    // A thread whose turn has come does not sleep; one may also be preempted.
    assert!(
        ours > 0.5 * own && ours < 2.0 * own,
        "{:.0} hand-overs a second, {:.0} switches recorded",
        own * 1e9,
        ours * 1e9
    );
    let stacks = column("stack_id").into_iter().flatten().count();
    assert!(stacks > 100, "{stacks} intervals have a stack");
}

/// A long sleep in a thread that has many short ones keeps its own stack (issue 16, harm 2): both culprits of the
/// example are found beside 100,000 switches a second of another program on the same CPUs.
#[test]
fn long_intervals_keep_their_stacks() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("s");
    let _noise = Target::start(&program("harm"), &["switches-flat"]);
    let target = Target::start(&program("test-async-app"), &[]);
    let recording = record(target.pid(), &session, &["--polls", "off", "--duration", "4"]);
    let rows = recording.integers(Table::OffCpu, "dur").into_iter().zip(recording.integers(Table::OffCpu, "stack_id"));
    let long: Vec<_> = rows.filter(|(dur, _)| dur.unwrap() > 10_000_000).collect();
    let with_stack = long.iter().filter(|(_, stack)| stack.is_some()).count();
    assert!(long.len() > 20 && with_stack * 10 > long.len() * 9, "{with_stack} of {} have a stack", long.len());
}

/// This kernel accepts every program, with BTF and without, within hud's own limit of instructions (issue 16, A).
/// `cargo xtask kernels` does the same on others.
#[test]
fn check_loads_every_program() {
    if !may_trace() {
        return;
    }
    for arguments in [&["check"][..], &["check", "--no-btf"]] {
        let output = hud_record().args(arguments).output().unwrap();
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        assert_eq!(said.lines().last(), Some("check ok"), "{said}");
        let programs: Vec<Vec<&str>> =
            said.lines().filter(|l| l.starts_with("program ")).map(|l| l.split(' ').collect()).collect();
        assert!(programs.len() >= 9, "{said}");
        for program in programs {
            let instructions: u32 = program[3].parse().unwrap();
            assert!(program[2] == "ok" && instructions < 400_000, "{program:?}");
        }
    }
}

/// `hud-record` as nobody, with these capabilities alone.
fn as_user(capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args([format!("--inh-caps=-all{capabilities}"), format!("--ambient-caps=-all{capabilities}")])
        .arg(format!("--bounding-set=-all{capabilities}"))
        .arg(env!("CARGO_BIN_EXE_hud-record"));
    command
}

/// The message names the missing capabilities, and hud does not ask root to become root (issue 16, C).
#[test]
fn missing_capabilities_are_named() {
    if !may_trace() {
        return;
    }
    let output = as_user(",+bpf,+perfmon,+sys_ptrace,+dac_read_search").arg("check").output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("missing capabilities CAP_CHECKPOINT_RESTORE\n"), "{said}{}", text(&output.stderr));
    let output = as_user(",+sys_ptrace").arg("check").output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("CAP_BPF, CAP_PERFMON"), "{said}");
}

/// Attaching takes moments on a machine whose CPUs are oversubscribed four times (issue 16, harm 3).
#[test]
fn attaching_under_load_goes_before_the_load() {
    if !may_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&program("test-async-app"), &[]);
    let time = |name: &str| {
        let began = Instant::now();
        record(target.pid(), &folder.path().join(name), &["--polls", "off", "--duration", "1"]);
        began.elapsed()
    };
    let alone = time("alone");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut burners: Vec<_> =
        (0..4 * cpus).map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap()).collect();
    let loaded = time("loaded");
    burners.iter_mut().for_each(|b| {
        b.kill().unwrap();
        b.wait().unwrap();
    });
    // With a fifth of a CPU it would take five times as long.
    assert!(loaded < alone * 3 + Duration::from_secs(1), "{loaded:?} under load, {alone:?} without");
    let _: Recording = Recording::open(&folder.path().join("loaded"));
}
