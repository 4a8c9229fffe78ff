//! What an output or a statement may not do to its user: write through a planted link, reach other files, take all
//! memory, or continue after it was cancelled.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::{MetadataExt as _, lchown, symlink},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use hud_common::session::Manifest;
use rustix::fs::{CWD, RenameFlags};

const NOBODY: u32 = 65_534;

/// The recording of a real program that lies beside these tests.
fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/session")
}

fn hud(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud-analyze")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn sql(options: &[&str], statement: &str) -> Output {
    let recording = recording();
    hud(&[&["sql", recording.to_str().unwrap(), "--format", "csv", "-c", statement], options].concat())
}

/// It failed in order, and said this.
fn refused(output: &Output, printed: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(printed), "{stderr}");
}

fn answered(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn outputs_are_not_written_through_planted_links() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let session = recording();
    let session = session.to_str().unwrap();
    fs::write(at("shadow"), "kept").unwrap();
    let commands: [(&str, &[&str]); 2] = [("export", &[]), ("screenshot", &["--at", "+1s"])];
    for (command, options) in commands {
        let out = at(&format!("{command}.svg"));
        // Where the temporary file once was.
        symlink(at("shadow"), format!("{out}.tmp")).unwrap();
        answered(&hud(&[&[command, session, "-o", &out], options].concat()));
        assert!(fs::symlink_metadata(&out).unwrap().is_file());
        let planted = at(&format!("planted-{command}.svg"));
        symlink(at("shadow"), &planted).unwrap();
        if lchown(&planted, Some(NOBODY), None).is_ok() {
            let output = hud(&[&[command, session, "-o", &planted], options].concat());
            refused(&output, &format!("planted-{command}.svg is a symbolic link of user {NOBODY}"));
        }
    }
    assert_eq!(fs::read(at("shadow")).unwrap(), b"kept");
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.collect::<Vec<_>>().iter().any(|name| name.ends_with(".part")));
}

#[test]
fn statements_reach_the_session_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, copy) = (folder.path().join("secret.csv"), folder.path().join("copy.csv"));
    fs::write(&secret, "a\n42\n").unwrap();
    let (secret, copy) = (secret.to_str().unwrap(), copy.to_str().unwrap());
    let external =
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}' OPTIONS ('format.has_header' 'true')");
    refused(&sql(&[], &external), "use --allow-files");
    refused(&sql(&[], &format!("EXPLAIN {external}")), "hud-analyze: ");
    let copying = format!("COPY (SELECT 1 AS a) TO '{copy}' STORED AS CSV");
    refused(&sql(&[], &copying), "this statement writes");
    refused(&sql(&[], &format!("SELECT * FROM '{secret}'")), "there is no table");
    for statement in [
        "SET datafusion.runtime.memory_limit = '100G'",
        "SET datafusion.runtime.temp_directory = '/etc'",
        "RESET datafusion.runtime.memory_limit",
    ] {
        refused(&sql(&[], statement), "cannot be changed here");
    }
    assert!(!Path::new(copy).exists());
    assert_eq!(answered(&sql(&["--allow-files"], &format!("{external}; SELECT a FROM t"))), "a\n42\n");
    answered(&sql(&["--allow-files"], &copying));
    assert!(Path::new(copy).exists());
}

#[test]
fn statements_that_are_nested_too_deep_are_refused() {
    let chain = |times: usize| format!("SELECT {}1 AS a", "1 + ".repeat(times));
    refused(&sql(&[], &chain(20_000)), "nested too deep");
    assert_eq!(answered(&sql(&[], &chain(1_000))), "a\n1001\n");
    let condition = format!("SELECT count(*) AS n FROM polls WHERE {}tid = -1", "tid = -2 OR ".repeat(300));
    assert_eq!(answered(&sql(&[], &condition)), "n\n0\n");
    let product = |times: usize| {
        format!("SELECT count(*) AS n FROM drops a0{}", {
            let tables: Vec<_> = (1..times).map(|n| format!(", drops a{n}")).collect();
            tables.concat()
        })
    };
    refused(&sql(&[], &product(600)), "nested too deep");
    let union = format!("SELECT count(*) AS n FROM ({} SELECT 1)", "SELECT 1 UNION ALL ".repeat(400));
    assert_eq!(answered(&sql(&[], &union)), "n\n401\n");
}

#[test]
fn memory_is_held_for_functions_too() {
    for statement in [
        "SELECT length(repeat('x', 2000000000))",
        "SELECT repeat('x', 100000) FROM polls",
        "SELECT max(length(repeat('x', 100000 + value % 2))) FROM generate_series(1, 10000)",
        "SELECT cardinality(range(0, 1000000000))",
        "SELECT cardinality(generate_series(0, 1000000000))",
        "SELECT unnest(range(0, 1000000000))",
        "SELECT length(lpad('x', 1000000000)), length(rpad('x', 1000000000))",
        "SELECT cardinality(array_repeat(1, 1000000000))",
        "SELECT length(a || a || a || a || a || a) FROM (SELECT repeat('x', 10000000) AS a)",
    ] {
        refused(&sql(&["--memory", "200M"], statement), "--memory");
    }
    assert_eq!(
        answered(&sql(&["--memory", "200M"], "SELECT count(*) AS n FROM generate_series(1, 10000000)")),
        "n\n10000000\n"
    );
    assert_eq!(answered(&sql(&["--memory", "200M"], "SELECT length(repeat('ab', 100000)) AS n")), "n\n200000\n");
}

#[test]
fn every_statement_ends_when_it_is_cancelled() {
    // The left side of a cross join fits into memory; what it gives with the right one would take minutes.
    let (series, long) = ("generate_series(1, 3000)", "generate_series(1, 100000)");
    let polls = "(SELECT ts FROM polls LIMIT 3000)";
    for statement in [
        format!("SELECT a.value FROM {series} a, {series} b, {series} c ORDER BY a.value + b.value + c.value LIMIT 5"),
        format!("SELECT a.value + b.value + c.value AS s FROM {series} a, {series} b, {series} c ORDER BY s"),
        format!("SELECT a.ts FROM {polls} a, {polls} b, {polls} c ORDER BY a.ts + b.ts + c.ts LIMIT 5"),
        format!("SELECT count(*) FROM {series} a, {series} b, {series} c WHERE a.value + b.value + c.value < 0"),
        format!("SELECT count(*) FROM {long} a JOIN {long} b ON a.value * b.value < 0"),
        format!("SELECT sum(v) FROM (SELECT unnest(range(0, 100 + a.value % 2)) AS v FROM {long} a, {long} b)"),
    ] {
        for (signal, code) in [(signals::INT, 130), (signals::TERM, 143)] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
                .arg("sql")
                .arg(recording())
                .args(["-c", "SELECT 1", "-c", &statement])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            // It is in its joins then; where it is not yet, it is cancelled before them.
            std::thread::sleep(Duration::from_millis(700));
            assert!(child.try_wait().unwrap().is_none(), "it takes no time: {statement}");
            signals::send(&child, signal);
            let sent = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if sent.elapsed() > Duration::from_secs(20) {
                    child.kill().unwrap();
                    panic!("it does not end by signal {signal}: {statement}");
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            let ended = status.code().or(status.signal().map(|signal| 128 + signal));
            assert_eq!(ended, Some(code), "{statement}");
        }
    }
}

/// A copy of the recording in a folder of its own, both of another user's; none where the tests do not run as root.
fn session_of_nobody() -> Option<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    copy(&recording(), &session);
    give(folder.path()).ok()?;
    Some((folder, session))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn give(path: &Path) -> std::io::Result<()> {
    lchown(path, Some(NOBODY), Some(NOBODY))?;
    if path.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path()))?;
    }
    Ok(())
}

/// Users whose files lie in a folder.
fn users(folder: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inner = entries.flat_map(|path| match path.is_dir() {
        true => users(&path),
        false => BTreeSet::from([fs::metadata(&path).unwrap().uid()]),
    });
    inner.chain([fs::metadata(folder).unwrap().uid()]).collect()
}

/// The user and the capabilities with which hud-analyze runs statements.
fn rights(sessions: &[&Path]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
    command.arg("sql").args(sessions).args(["--format", "csv"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "SELECT 1 AS a;").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "a\n");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(input);
    child.wait().unwrap();
    let names = ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:"];
    let lines = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn root_becomes_the_owner_of_what_it_looks_at() {
    let Some((folder, session)) = session_of_nobody() else { return };
    let nobody = ["Uid: 65534 65534 65534 65534", "Gid: 65534 65534 65534 65534", "Groups:"];
    let none = ["CapPrm: 0000000000000000", "CapEff: 0000000000000000"];
    assert_eq!(rights(&[&session]), [&nobody[..], &none].concat());
    // Of a store, and of an archive.
    let store = folder.path().join("store");
    fs::create_dir_all(store.join("host=h")).unwrap();
    fs::rename(&session, store.join("host=h/session=s")).unwrap();
    assert_eq!(rights(&[&store]), [&nobody[..], &none].concat());
    let session = store.join("host=h/session=s");
    let archive = folder.path().join("s.hud.zip");
    answered(&hud(&["export", session.to_str().unwrap(), "-o", archive.to_str().unwrap()]));
    lchown(&archive, Some(NOBODY), Some(NOBODY)).unwrap();
    assert_eq!(rights(&[&archive]), [&nobody[..], &none].concat());
    // Nobody can read both of these but root, which keeps the right to read, and nothing else.
    let own = folder.path().join("own");
    copy(&recording(), &own);
    let reading = ["CapPrm: 0000000000000004", "CapEff: 0000000000000004"];
    for sessions in [&[&*own, &*session][..], &[&*own]] {
        let printed = rights(sessions);
        assert!(printed[0] == "Uid: 0 0 0 0" && printed[3..] == reading, "{printed:?}");
    }
}

#[test]
fn an_output_need_not_lie_where_the_owner_of_the_session_may_write() {
    let Some((_folder, session)) = session_of_nobody() else { return };
    let private = tempfile::tempdir().unwrap();
    for command in ["export", "screenshot"] {
        let out = private.path().join(format!("{command}.svg"));
        answered(&hud(&[command, session.to_str().unwrap(), "-o", out.to_str().unwrap()]));
        assert!(fs::read_to_string(&out).unwrap().contains("<svg"));
        assert_eq!(fs::metadata(&out).unwrap().uid(), 0);
    }
}

#[test]
fn what_writes_into_a_session_does_so_as_its_owner() {
    let Some((folder, session)) = session_of_nobody() else { return };
    let path = session.to_str().unwrap();
    for command in ["compact", "repair", "verify"] {
        answered(&hud(&[command, path]));
        assert_eq!(users(folder.path()), BTreeSet::from([NOBODY]), "{command}");
    }
    unclose(&session);
    let output = hud(&["info", path]);
    let printed = answered(&output);
    assert!(printed.contains("the recorder was killed"), "{printed}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("its recorder was killed; "));
    assert_eq!(users(folder.path()), BTreeSet::from([NOBODY]));
    answered(&hud(&["replay", path, "--measure", "1"]));
}

/// As its recorder left it when it was killed.
fn unclose(session: &Path) {
    let mut manifest = Manifest::read(session).unwrap();
    (manifest.complete, manifest.end, manifest.end_reason, manifest.recovery) = (false, None, None, None);
    manifest.write(session).unwrap();
    give(session).unwrap();
}

/// The owner of a killed session exchanged a table's folder for a link, in a loop, while root opened it: files were made
/// and removed in a folder of root's.
#[test]
fn recovery_by_root_is_not_led_into_a_folder_of_roots() {
    let Some((folder, session)) = session_of_nobody() else { return };
    let private = tempfile::tempdir().unwrap();
    let names = ["000001.parquet", "half.tmp", "000001.arrows.inflight"];
    names.iter().for_each(|name| fs::write(private.path().join(name), name).unwrap());
    let inside = || {
        let entries = fs::read_dir(private.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeSet<_>>()
    };
    let before = inside();
    let (table, link) = (session.join("polls"), folder.path().join("link"));
    symlink(private.path(), &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    for round in 0..20 {
        unclose(&session);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let exchange = || rustix::fs::renameat_with(CWD, &table, CWD, &link, RenameFlags::EXCHANGE).is_ok();
        std::thread::scope(|scope| {
            let exchanger = scope.spawn(|| {
                let mut times = 0;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    times += u64::from(exchange());
                }
                times
            });
            let command = if round % 2 == 0 { "info" } else { "verify" };
            drop(hud(&[command, session.to_str().unwrap()]));
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(exchanger.join().unwrap() > 10);
        });
        if fs::symlink_metadata(&table).unwrap().is_symlink() {
            assert!(exchange());
        }
        assert_eq!(inside(), before, "round {round}");
    }
}

#[test]
fn root_rewrites_no_session_that_lies_where_another_user_may_change_it() {
    let Some((folder, _session)) = session_of_nobody() else { return };
    // It is root's, in a folder of another user's.
    let own = folder.path().join("own");
    copy(&recording(), &own);
    for command in ["compact", "repair"] {
        let output = hud(&[command, own.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let printed = format!("another user can modify {}", folder.path().canonicalize().unwrap().display());
        assert!(stderr.contains(&printed), "{stderr}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let own = elsewhere.path().join("own");
    copy(&recording(), &own);
    answered(&hud(&["compact", own.to_str().unwrap()]));
}

/// Signals, by the system's `kill`.
mod signals {
    use std::process::{Child, Command};

    pub(crate) const INT: i32 = 2;
    pub(crate) const TERM: i32 = 15;

    pub(crate) fn send(child: &Child, signal: i32) {
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}
