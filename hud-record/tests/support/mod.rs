//! Shared by the tests on the real kernel: targets, recordings, and reading sessions back. `cargo xtask test` builds
//! the target programs and hud-analyze first and sets their paths.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's support; not every test uses all"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{Array, AsArray as _, RecordBatch},
    compute::concat_batches,
    datatypes::{Int32Type, Int64Type},
};
use hud_common::session::{Manifest, SessionDir, Table};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::process::{Pid, Signal};

/// Whether tests may use eBPF here. With HUD_REQUIRE_BPF=1 they must: then the test fails instead of being skipped.
pub fn may_trace() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("HUD_REQUIRE_BPF").is_none(), "HUD_REQUIRE_BPF is set, and this is not root");
        eprintln!("skipped: needs root, to load eBPF programs");
    }
    root
}

/// A program that is being recorded; killed when dropped.
pub struct Target {
    pub child: Child,
    /// The line that it printed once it ran.
    pub first: String,
    out: BufReader<std::process::ChildStdout>,
}

/// The path of a target program that `cargo xtask test` has built.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("HUD_TEST_TARGETS")
        .expect("HUD_TEST_TARGETS is not set: run the tests by `cargo xtask test`, which builds the target programs");
    PathBuf::from(folder).join(name)
}

impl Target {
    /// Starts a program and waits for its first line, which it prints once it runs.
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{} ended at once", program.display());
        Target { child, first: line, out }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        // Its account may be more than a pipe holds.
        std::io::copy(&mut self.out, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_process(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// `hud-record` with these arguments, not started yet.
pub fn hud_record() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-record"));
    // Symbols of one test's target are not another's.
    command.stdin(Stdio::null()).env("HUD_CACHE_DIR", "");
    command
}

/// Records, and asserts success.
pub fn record(pid: u32, session: &Path, arguments: &[&str]) -> Recording {
    let output = hud_record()
        .args(["--pid", &pid.to_string(), "--headless", "--export"])
        .arg(session)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "hud-record failed: {}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), session.to_str().unwrap(), "the session's path is printed on stdout");
    Recording::open(session)
}

/// Waits until the condition holds.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = std::time::Instant::now();
    while !is_so() {
        assert!(patience.elapsed().as_secs() < 60, "waited a minute for {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A recording in progress; killed when dropped.
pub struct Recorder {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Recorder {
    /// Starts a command and reads its stderr.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (to, mut from) = (Arc::clone(&said), BufReader::new(child.stderr.take().unwrap()));
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|n| n > 0) {
                to.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Recorder { child, said, reader: Some(reader) }
    }

    /// Records a process, and waits until its session has polls in flight.
    pub fn start(pid: u32, session: &Path, arguments: &[&str]) -> Self {
        let mut command = hud_record();
        command.args(["--pid", &pid.to_string(), "--headless", "--export"]).arg(session).args(arguments);
        let mut recorder = Self::spawn(command);
        while !session.join("polls/000001.arrows.inflight").exists() {
            assert!(recorder.is_running(), "{}", recorder.said());
            std::thread::yield_now();
        }
        recorder
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its stderr so far; all of it once it has ended.
    pub fn said(&mut self) -> String {
        if !self.is_running()
            && let Some(reader) = self.reader.take()
        {
            reader.join().unwrap();
        }
        self.said.lock().unwrap().clone()
    }

    /// Waits for a line with `what` on stderr, and returns it.
    pub fn until_it_says(&mut self, what: &str) -> String {
        let patience = std::time::Instant::now();
        loop {
            let said = self.said();
            if let Some(line) = said.lines().find(|l| l.contains(what)) {
                return line.into();
            }
            assert!(self.is_running(), "it ended without {what:?}: {said}");
            assert!(patience.elapsed().as_secs() < 60, "it does not say {what:?}: {said}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        signal_process(self.pid(), Signal::INT);
        self.wait()
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills it, without a chance to close anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `hud-analyze verify`.
pub fn verify(session: &Path) {
    let program = Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze");
    let output = Command::new(&program).arg("verify").arg(session).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs hud-analyze, built beside hud-record, for JSON.
pub fn analyze(arguments: &[&str], session: &Path) -> serde_json::Value {
    let program = Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze");
    let (view, rest) = arguments.split_first().unwrap();
    let output: Output = Command::new(&program)
        .arg(view)
        .arg(session)
        .args(rest)
        .args(["--format", "json"])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}; it is built by `cargo xtask test`", program.display()));
    assert!(output.status.success(), "hud-analyze {arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A closed session, read by parquet alone.
pub struct Recording {
    pub session: SessionDir,
    pub manifest: Manifest,
}

impl Recording {
    pub fn open(path: &Path) -> Self {
        let (session, manifest) = SessionDir::open(path).unwrap();
        let recording = Recording { session, manifest };
        recording.assert_whole();
        recording
    }

    /// A session whose recorder was killed, or could not seal all of it, and that was recovered.
    pub fn open_recovered(path: &Path) -> Self {
        let (session, manifest) = SessionDir::open(path).unwrap();
        assert!(session.unsealed().unwrap().is_empty(), "segments in flight in a recovered session");
        let recording = Recording { session, manifest };
        for (stream, account) in &recording.manifest.streams {
            let table = Table::by_name(stream).unwrap();
            assert_eq!(account.stored, recording.rows(table).num_rows() as u64, "{stream}: stored");
        }
        recording
    }

    /// Referenced stacks, frames and modules exist.
    pub fn assert_names(&self) {
        let ids = |table, column| -> BTreeSet<i64> { self.integers(table, column).into_iter().flatten().collect() };
        let (stacks, frames, modules) =
            (ids(Table::Stacks, "stack_id"), ids(Table::Frames, "frame_id"), ids(Table::Modules, "module_id"));
        for table in [Table::OffCpu, Table::Samples, Table::InProgress, Table::TaskStates] {
            for id in ids(table, "stack_id") {
                assert!(stacks.contains(&id), "{}: stack {id} is nowhere", table.name());
            }
        }
        let rows = self.rows(Table::Stacks);
        let of_stacks = rows.column_by_name("frame_ids").unwrap().as_list::<i32>();
        for id in of_stacks.values().as_primitive::<Int64Type>().values() {
            assert!(frames.contains(id), "frame {id} is nowhere");
        }
        for id in ids(Table::Frames, "module_id") {
            assert!(modules.contains(&id), "module {id} is nowhere");
        }
    }

    /// Closed in order, nothing in flight, and every event accounted for: produced = stored + dropped, where stored
    /// rows are counted in the files.
    fn assert_whole(&self) {
        assert!(self.manifest.complete);
        assert!(self.session.unsealed().unwrap().is_empty(), "segments in flight in a closed session");
        for (stream, account) in &self.manifest.streams {
            let table = Table::ALL.iter().find(|t| t.name() == stream).unwrap();
            assert_eq!(account.stored, self.rows(*table).num_rows() as u64, "{stream}: stored");
            assert_eq!(account.produced, account.stored + account.dropped + account.expired, "{stream}: {account:?}");
        }
    }

    /// All rows of a table.
    pub fn rows(&self, table: Table) -> RecordBatch {
        let batches: Vec<RecordBatch> = self
            .session
            .segments(table)
            .unwrap()
            .iter()
            .flat_map(|path| {
                let file = File::open(path).unwrap();
                ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|b| b.unwrap())
            })
            .collect();
        concat_batches(&table.schema(), &batches).unwrap()
    }

    /// A column of integers; null is `None`.
    pub fn integers(&self, table: Table, column: &str) -> Vec<Option<i64>> {
        let rows = self.rows(table);
        let values = rows.column_by_name(column).unwrap();
        match values.as_primitive_opt::<Int64Type>() {
            Some(values) => values.iter().collect(),
            None => values.as_primitive::<Int32Type>().iter().map(|v| v.map(i64::from)).collect(),
        }
    }

    /// A column of text; null is empty.
    pub fn texts(&self, table: Table, column: &str) -> Vec<String> {
        let rows = self.rows(table);
        let values = rows.column_by_name(column).unwrap().as_string::<i32>();
        (0..values.len()).map(|i| if values.is_null(i) { String::new() } else { values.value(i).into() }).collect()
    }

    /// The interval in which `stream` was on, by CLOCK_MONOTONIC. It must be one, though in several rows.
    pub fn window(&self, stream: &str) -> (i64, i64) {
        let (ts, dur) = (self.integers(Table::Coverage, "ts"), self.integers(Table::Coverage, "dur"));
        let streams = self.texts(Table::Coverage, "stream");
        let rows = streams.iter().zip(ts.into_iter().zip(dur)).filter(|(s, _)| *s == stream);
        let mut rows: Vec<_> = rows.map(|(_, (ts, dur))| (ts.unwrap(), ts.unwrap() + dur.unwrap())).collect();
        rows.sort_unstable();
        for pair in rows.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "{stream} was off in between");
        }
        (self.mono(rows[0].0), self.mono(rows[rows.len() - 1].1))
    }

    /// Since when off-CPU intervals have tasks: the offset of the current task's id comes from debug information or is
    /// searched while recording is on already. An interval in progress then has none.
    pub fn tasks_known(&self) -> i64 {
        let first = self.integers(Table::Tasks, "ts").into_iter().flatten().min();
        self.mono(first.expect("no task was recorded")) + 100_000_000
    }

    /// CLOCK_MONOTONIC of a `ts`.
    pub fn mono(&self, ts: i64) -> i64 {
        ts - self.manifest.clock.real + self.manifest.clock.mono
    }
}

/// A target's own account: events as (start by CLOCK_MONOTONIC, duration), by name.
pub fn truth(log: &Path) -> BTreeMap<String, Vec<(i64, i64)>> {
    let mut events: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines().skip(1) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap();
        let mut number = || fields.next().unwrap().parse::<i64>().unwrap();
        events.entry(name.into()).or_default().push((number(), number()));
    }
    events
}

/// The polls of a session by the name of their task type, without the program's own crate: (start by CLOCK_MONOTONIC,
/// duration) of each.
pub fn polls_by_type(recording: &Recording, crate_name: &str) -> BTreeMap<String, Vec<(i64, i64)>> {
    let names: BTreeMap<i64, String> = recording
        .integers(Table::TaskTypes, "type_id")
        .into_iter()
        .flatten()
        .zip(recording.texts(Table::TaskTypes, "name"))
        .collect();
    let mut polls: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    let types = recording.integers(Table::Polls, "type_id");
    let times = recording.integers(Table::Polls, "ts").into_iter().zip(recording.integers(Table::Polls, "dur"));
    for (type_id, (ts, dur)) in types.iter().zip(times) {
        let name = &names[&type_id.unwrap()];
        let name = name.strip_prefix(crate_name).and_then(|n| n.strip_prefix("::")).unwrap_or(name);
        polls.entry(name.into()).or_default().push((recording.mono(ts.unwrap()), dur.unwrap()));
    }
    polls
}

/// Compares the polls of these task types with the program's own account: their number and durations.
pub fn assert_polls_agree(
    recording: &Recording,
    truth: &BTreeMap<String, Vec<(i64, i64)>>,
    crate_name: &str,
    tasks: &[&str],
) {
    let (start, end) = recording.window("polls");
    let polls = polls_by_type(recording, crate_name);
    for &name in tasks {
        let own: Vec<_> = truth[name].iter().filter(|(ts, dur)| *ts >= start && ts + dur <= end).collect();
        let ours = polls.get(name).unwrap_or_else(|| panic!("no poll of {name}"));
        let (count, own_count) = (ours.len().cast_signed(), own.len().cast_signed());
        // At either end of the window a poll may count on one side only: hud's probe and the program's clock are
        // microseconds apart.
        let slack = (own_count / 100).max(1);
        assert!((count - own_count).abs() <= slack, "{name}: {count} polls by hud, {own_count} by its own count");
        let (mut ours, mut own): (Vec<i64>, Vec<i64>) =
            (ours.iter().map(|p| p.1).collect(), own.iter().map(|p| p.1).collect());
        ours.sort_unstable();
        own.sort_unstable();
        for share in [0.5, 0.99] {
            let by_hud = ours[rank(&ours, share)];
            // If a thread loses its CPU between the probe and the program's reading of the clock, only one of them
            // includes the wait: that moves a value by as many ranks as there are such polls.
            let at = rank(&own, share);
            let (low, high) =
                (own[at.saturating_sub(slack.unsigned_abs())], own[(at + slack.unsigned_abs()).min(own.len() - 1)]);
            let (low, high) = (low - (low / 20).max(20_000), high + (high / 20).max(20_000));
            assert!(
                (low..=high).contains(&by_hud),
                "{name}, p{}: {by_hud} ns by hud, {} ns by its own clock ({low} to {high} allowed)",
                share * 100.0,
                own[at]
            );
        }
    }
}

/// Asserts that hud-analyze reports both culprits of test-async-app; returns all that it reports.
pub fn assert_both_culprits(session: &Path, context: &str) -> serde_json::Value {
    let rows = analyze(&["blocking"], session);
    let named = |cause: &str, task: &str| {
        rows.as_array().unwrap().iter().any(|r| {
            r["cause"] == cause
                && r["task_type"] == format!("test_async_app::{task}")
                && r["file"].as_str().is_some_and(|f| f.ends_with("test-async-app.rs"))
                && r["line"].as_i64().is_some_and(|l| l > 0)
                && r["function"].as_str().is_some_and(|f| f.starts_with("test_async_app::"))
        })
    };
    assert!(named("blocked", "blocking_sleeper"), "{context}: {rows:#}");
    assert!(named("cpu", "cpu_hog"), "{context}: {rows:#}");
    rows
}

/// The rank of the value at `share` of the sorted values (nearest rank).
fn rank(values: &[i64], share: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ share ≤ 1")]
    let rank = (share * (values.len() - 1) as f64).round() as usize;
    rank
}
