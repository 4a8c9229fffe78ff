//! Where a session may lie: in a store of several, in one file, at an object store; and what changes one in its place.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use support::*;
use tempfile::TempDir;

fn hud(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud-analyze")).args(args).output().unwrap()
}

fn good(args: &[&str]) -> String {
    let output = hud(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that is said of a failure.
fn bad(code: i32, args: &[&str]) -> String {
    let output = hud(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    let lines: Vec<_> = error.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert_eq!(lines.len(), 1, "{args:?}: {error}");
    lines[0].to_owned()
}

/// A session of that id on that host, in which `HOG` was polled so often, each time for so long.
fn session(host: &str, id: &str, polls: i64, dur: i64) -> Session {
    let session = Session::with_cast_of(&format::Manifest { host: host.into(), id: id.into(), ..manifest() });
    session.add::<Coverage>([covered("polls", T0, T0 + 10 * SECOND)]);
    let step = 10 * SECOND / polls;
    session.add::<Polls>((0..polls).map(|n| poll(T0 + n * step, W0, HOG, 3, dur + n % 97 * 1_000)));
    session
}

/// A store of two sessions of one host and one of another.
fn store() -> TempDir {
    let root = TempDir::new().unwrap();
    for (host, id, polls) in [("a", "one", 100), ("a", "two", 200), ("b", "three", 300)] {
        copy_to(&session(host, id, polls, MS).path, &root.path().join(format!("host={host}/session={id}")));
    }
    root
}

#[test]
fn a_store_is_one_data_set_with_host_and_session_as_columns() {
    let root = store();
    let root = root.path().to_str().unwrap();
    let sql = |sql: &str| good(&["sql", root, "--format", "csv", "-c", sql]);
    assert_eq!(
        sql("SELECT host, session, count(*) AS n FROM polls GROUP BY 1, 2 ORDER BY 1, 2"),
        "host,session,n\na,one,100\na,two,200\nb,three,300\n"
    );
    assert_eq!(sql("SELECT count(*) AS n FROM polls WHERE session = 'two'"), "n\n200\n");
    assert_eq!(sql("SELECT count(*) AS n FROM polls WHERE host = 'a' AND session <> 'two'"), "n\n100\n");
    assert_eq!(sql("SELECT count(*) AS n FROM \"three\".polls"), "n\n300\n");
    // Views are of each session by itself: ids mean nothing beyond one.
    assert_eq!(
        sql("SELECT host, session, polls FROM views.tasks WHERE task_type = 'app::hog' ORDER BY polls"),
        "host,session,polls\na,one,100\na,two,200\nb,three,300\n"
    );
    let tasks = good(&["tasks", root, "--each", "--format", "csv"]);
    assert!(tasks.starts_with("host,session,task_id,"), "{tasks}");
    assert_eq!(tasks.lines().filter(|line| line.contains("app::hog")).count(), 3);
    assert_eq!(good(&["info", root, "--format", "json"]).matches("\"session\":").count(), 3);
    // What the conditions leave out is not even opened.
    let polls = Path::new(root).join("host=b/session=three/polls/000001.parquet");
    fs::write(&polls, b"no Parquet").unwrap();
    assert_eq!(sql("SELECT count(*) AS n FROM polls WHERE host = 'a'"), "n\n300\n");
    assert!(bad(1, &["sql", root, "-c", "SELECT count(*) FROM polls"]).contains("session=three/polls/000001.parquet"));
}

#[test]
fn a_view_of_a_window_is_a_function_that_rejects_a_wrong_window() {
    let session = session("a", "one", 100, 20 * MS);
    let path = session.path.to_str().unwrap();
    let count =
        |from: &str| good(&["sql", path, "--format", "csv", "-c", &format!("SELECT count(*) AS n FROM {from}")]);
    assert_eq!(count("blocking_each"), "n\n100\n");
    assert_eq!(count("views.blocking_each"), "n\n100\n");
    assert_eq!(count("blocking_each('+1s', '+2s')"), "n\n10\n");
    assert_eq!(count(&format!("blocking_each({}, at('+3s'))", T0 + SECOND)), "n\n20\n");
    assert_eq!(count("blocking_each(NULL, NULL, '1s')"), "n\n0\n");
    let wrong = |sql: &str| bad(1, &["sql", path, "-c", sql]);
    assert!(wrong("SELECT * FROM blocking_each('tomorrow')").contains("from of blocking_each()"));
    assert!(wrong("SELECT * FROM workers(1, 2, 3, 4)").contains("takes at most 3 arguments"));
}

#[test]
fn one_file_is_as_good_as_the_folder() {
    let (_tmp, folder) = copy(&recording());
    let file = folder.with_extension("hud.zip");
    let (folder, file) = (folder.to_str().unwrap(), file.to_str().unwrap());
    good(&["export", folder, "-o", file]);
    for question in [
        &["blocking", "--format", "json"][..],
        &["workers", "--from", "+1s", "--to", "+3s", "--format", "csv"],
        &["findings", "--format", "ndjson"],
        &["sql", "-c", "SELECT count(*), sum(dur) FROM off_cpu"],
        &["screenshot", "--at", "+3s", "--size", "100x30"],
    ] {
        let of = |place| good(&[&question[..1], &[place], &question[1..]].concat());
        // A screen names what it shows.
        let same = |text: String| text.replace("session.hud.zip", "session").split_whitespace().collect::<String>();
        assert_eq!(same(of(folder)), same(of(file)), "{question:?}");
    }
    assert!(good(&["verify", file]).contains(": complete\n"));

    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[..whole.len() / 2]).unwrap();
    assert!(bad(1, &["blocking", file]).contains("neither a folder nor a zip archive"));
    let mut flipped = whole.clone();
    let at = flipped.windows(10).position(|bytes| bytes == b"polls/0000").unwrap() + 200;
    flipped[at] ^= 1;
    fs::write(file, &flipped).unwrap();
    assert!(
        bad(1, &["sql", file, "-c", "SELECT sum(dur), sum(ts), sum(tid), max(task_id) FROM polls"]).contains("polls")
    );
}

#[test]
fn exports_report_their_file() {
    let (tmp, folder) = copy(&recording());
    let folder = folder.to_str().unwrap();
    for name in
        ["a.pftrace", "a.profile.json", "profile.json", "trace.json", "a.pb.gz", "a.folded", "a.svg", "a.hud.zip"]
    {
        let path = tmp.path().join(name);
        let output = hud(&["export", folder, "-o", path.to_str().unwrap()]);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && printed.contains(name), "{printed}");
        assert!(fs::metadata(&path).unwrap().len() > 100, "{name}");
    }
    let stacks = good(&["export", folder, "--format", "folded", "-o", "-"]);
    assert!(stacks.lines().any(|line| line.contains("burn_cpu")), "{stacks}");
    let unknown = bad(2, &["export", folder, "-o", "a.xyz"]);
    assert!(unknown.contains("perfetto, firefox") && unknown.contains("NAME.profile.json"), "{unknown}");
    assert!(
        bad(2, &["screenshot", folder, "-o", "a.gif"]).contains("there is no image format gif; name the output .txt")
    );
    let parquet = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
        .args(["sql", folder, "-c", "SELECT ts, dur FROM polls", "--format", "parquet"])
        .output()
        .unwrap();
    assert!(parquet.stdout.starts_with(b"PAR1") && parquet.stdout.ends_with(b"PAR1"));
}

#[test]
fn a_change_has_a_confidence_interval() {
    let (before, after) = (session("a", "one", 20_000, MS / 10), session("a", "two", 20_000, MS / 5));
    let (before, after) = (before.path.to_str().unwrap(), after.path.to_str().unwrap());
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&good(&["diff", before, after, "--format", "json"])).unwrap();
    let of = |metric: &str| rows.iter().find(|r| r["metric"] == metric && r["scope"].is_null()).unwrap();
    let p99 = of("p99_poll");
    assert!(p99["is_sure"].as_bool().unwrap() && (0.4..0.8).contains(&p99["change"].as_f64().unwrap()), "{p99}");
    let rate = of("polls_rate");
    assert!(!rate["is_sure"].as_bool().unwrap() && rate["change"].as_f64().unwrap().abs() < 0.01, "{rate}");
    // Of twice the time the rate is the same.
    let half = good(&["diff", before, "--to", "+5s", "--from-b", "+0s", "--format", "json"]);
    let half: Vec<serde_json::Value> = serde_json::from_str(&half).unwrap();
    let rate = half.iter().find(|r| r["metric"] == "polls_rate" && r["scope"].is_null()).unwrap();
    assert!(rate["change"].as_f64().unwrap().abs() < 0.01, "{rate}");

    good(&["diff", before, after, "--fail-if", "p99_poll > +90%", "--fail-if", "polls_rate < -5%"]);
    assert!(bad(1, &["diff", before, after, "--fail-if", "p99_poll > +20%"]).contains("p99_poll > +20%"));
    assert!(bad(1, &["diff", before, after, "--fail-if", "p99_poll:app::hog > 150us"]).contains("app::hog"));
    assert!(
        bad(2, &["diff", before, after, "--fail-if", "p98_poll > +20%"]).contains("the metrics are cpu, polls_rate")
    );
    assert!(bad(2, &["diff", before]).contains("a second session is missing"));
}

#[test]
fn small_segments_become_large_ones_and_nothing_else_changes() {
    let session = session("a", "one", 100, MS);
    for n in 0..40 {
        session.add::<Polls>([poll(T0 + n * SECOND / 5, W1, SLEEPER, 2, n)]);
    }
    let account = format::StreamAccount { produced: 140, stored: 140, ..Default::default() };
    let streams = [("polls".to_owned(), account)].into();
    format::Manifest { id: "one".into(), streams, ..manifest() }.write(&session.path).unwrap();
    let path = session.path.to_str().unwrap();
    let polls = || good(&["sql", path, "--format", "csv", "-c", "SELECT * FROM polls ORDER BY ts, tid, dur"]);
    let before = polls();
    good(&["verify", path]);
    assert!(good(&["compact", path]).contains("polls: 41 segments into 1, 140 rows"));
    assert_eq!(polls(), before);
    good(&["verify", path]);
    assert_eq!(fs::read_dir(session.path.join("polls")).unwrap().count(), 1);
}

#[test]
fn a_damaged_session_is_mended_and_then_proven() {
    let session = session("a", "one", 100, MS);
    session.add::<Polls>([poll(T0 + 9 * SECOND, W1, SLEEPER, 2, 5)]);
    let account = format::StreamAccount { produced: 101, stored: 101, ..Default::default() };
    let streams = [("polls".to_owned(), account)].into();
    format::Manifest { id: "one".into(), streams, ..manifest() }.write(&session.path).unwrap();
    let path = session.path.to_str().unwrap();
    good(&["verify", path]);
    let segment = session.path.join("polls/000001.parquet");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 7]).unwrap();
    bad(1, &["verify", path]);
    assert_eq!(hud(&["repair", path, "--dry-run"]).status.code(), Some(1));
    assert_eq!(fs::read(&segment).unwrap().len(), bytes.len() - 7, "a dry run changes nothing");
    good(&["repair", path]);
    let verified = good(&["verify", path]);
    assert!(verified.contains("100 events of polls: dropped"), "{verified}");
    assert_eq!(good(&["sql", path, "--format", "csv", "-c", "SELECT count(*) AS n FROM polls"]), "n\n1\n");
}

#[test]
fn a_query_keeps_to_its_memory() {
    let session = session("a", "one", 100, MS);
    let path = session.path.to_str().unwrap();
    // The side of a join that is held is 60 MB.
    let side = "SELECT repeat(CAST(value AS VARCHAR), 40) AS v FROM generate_series(1, 300000)";
    let sql = format!("SELECT count(*) FROM ({side}) a JOIN ({side}) b ON a.v = b.v");
    let printed = bad(1, &["sql", path, "--memory", "16MiB", "-c", &sql]);
    assert!(printed.contains("memory") || printed.contains("Resources exhausted"), "{printed}");
    let output = hud(&["sql", path, "--memory", "1KiB", "-c", "SELECT 1"]);
    assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("16MiB at least"));
}

/// A server that speaks S3, and is not ours: moto.
struct Moto {
    process: Child,
    port: u16,
    python: String,
}

impl Moto {
    fn start() -> Option<Self> {
        let python = python("moto")?;
        let port = free_port();
        Some(Moto { process: start_moto(&python, port), port, python })
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Puts a folder into a bucket.
    fn upload(&self, folder: &Path, prefix: &str) {
        let script = "import boto3, os, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='x', aws_secret_access_key='y', \
            region_name='us-east-1')\n\
            s3.create_bucket(Bucket='hud')\n\
            for folder, _, files in os.walk(sys.argv[2]):\n\
            \x20   for name in files:\n\
            \x20       path = os.path.join(folder, name)\n\
            \x20       s3.upload_file(path, 'hud', os.path.join(sys.argv[3], os.path.relpath(path, sys.argv[2])))\n";
        let mut command = Command::new(&self.python);
        command.args(["-c", script, &self.endpoint(), folder.to_str().unwrap(), prefix]);
        assert!(command.status().unwrap().success());
    }

    fn hud(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
        let access = [
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "x".into()),
            ("AWS_SECRET_ACCESS_KEY", "y".into()),
            ("AWS_REGION", "us-east-1".into()),
        ];
        command.args(args).envs(access).output().unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_object_store_is_read_as_a_folder_is() {
    let Some(moto) = Moto::start() else { return };
    let root = store();
    moto.upload(root.path(), "days");
    moto.upload(&recording(), "one/recording");
    let of = |args: &[&str]| {
        let output = moto.hud(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let by_session = "SELECT host, session, count(*) AS n FROM polls GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(
        of(&["sql", "s3://hud/days", "--format", "csv", "-c", by_session]),
        "host,session,n\na,one,100\na,two,200\nb,three,300\n"
    );
    let folder = recording();
    for view in ["hotspots", "blocking", "workers", "findings"] {
        let there = of(&[view, "s3://hud/one/recording", "--format", "csv"]);
        assert_eq!(there, good(&[view, folder.to_str().unwrap(), "--format", "csv"]), "{view}");
    }
    assert!(of(&["verify", "s3://hud/one/recording"]).contains(": complete\n"));
    let wrong = moto.hud(&["info", "s3://hud/nothing/here"]);
    let printed = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        wrong.status.code() == Some(2) && printed.lines().count() == 1 && printed.contains("contains no session"),
        "{printed}"
    );
    let wrong = moto.hud(&["info", "s3://no-such-bucket/here"]);
    let printed = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(1) && printed.lines().count() == 1, "{printed}");
    assert!(bad(2, &["info", "gopher://hud/one"]).contains("s3://BUCKET/PATH"));
}

#[test]
fn the_shell_answers_over_a_pipe() {
    let session = session("a", "one", 100, MS);
    let mut shell = Command::new(env!("CARGO_BIN_EXE_hud-analyze"))
        .args(["sql", session.path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let script = "\\pset format csv\nSELECT count(*) AS n\nFROM polls;\nCREATE VIEW mine AS SELECT max(dur) AS d FROM polls;\n\
                  SELECT d FROM mine;\n\\d wake_latency\n";
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let mut answer = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert!(shell.wait().unwrap().success());
    assert!(answer.starts_with("n\n100\n"), "{answer}");
    assert!(answer.contains("d\n1096000\n") && answer.contains("p99"), "{answer}");
}
