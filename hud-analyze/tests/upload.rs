//! Uploading a fleet store to a server that speaks S3 and is not ours (moto): over a bad network, and killed on the way.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::*;
use tempfile::TempDir;

struct Moto {
    process: Child,
    port: u16,
    python: String,
}

impl Moto {
    fn at(port: u16) -> Option<Self> {
        let python = python("moto")?;
        let moto = Moto { process: start_moto(&python, port), port, python };
        moto.python("s3.create_bucket(Bucket='hud')", &[]);
        Some(moto)
    }

    fn python(&self, script: &str, args: &[&str]) -> String {
        let client = "import boto3, os, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='x', aws_secret_access_key='y', \
            region_name='us-east-1')\n";
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let output = Command::new(&self.python)
            .args(["-c", &format!("{client}{script}"), &endpoint])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The names of all objects.
    fn objects(&self) -> Vec<String> {
        let script = "for page in s3.get_paginator('list_objects_v2').paginate(Bucket='hud'):\n\
            \x20   for o in page.get('Contents', []):\n\
            \x20       print(o['Key'])";
        self.python(script, &[]).lines().map(str::to_owned).collect()
    }

    /// Copies all objects to a folder.
    fn download(&self, to: &Path) {
        let script = "for page in s3.get_paginator('list_objects_v2').paginate(Bucket='hud'):\n\
            \x20   for o in page.get('Contents', []):\n\
            \x20       path = os.path.join(sys.argv[2], o['Key'])\n\
            \x20       os.makedirs(os.path.dirname(path), exist_ok=True)\n\
            \x20       s3.download_file('hud', o['Key'], path)";
        self.python(script, &[to.to_str().unwrap()]);
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A network to a server: the first connections are answered by 503, and each is delayed.
struct Network {
    port: u16,
    refused: Arc<AtomicUsize>,
}

impl Network {
    fn to(server: u16, refused: usize, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicUsize::new(refused));
        let network = Network { port, refused: Arc::clone(&left) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let left = Arc::clone(&left);
                thread::spawn(move || connect(client, server, &left, delay));
            }
        });
        network
    }
}

fn connect(mut client: TcpStream, server: u16, left: &AtomicUsize, delay: Duration) {
    let is_refused = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    if is_refused {
        let _ = client.read(&mut [0; 4096]);
        let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { return };
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        // Every piece of a request is slow.
        let mut piece = [0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            thread::sleep(delay);
            if to.write_all(&piece[..n]).is_err() {
                break;
            }
        }
    });
    let (mut server, mut client) = (server, client);
    let _ = io::copy(&mut server, &mut client);
}

fn upload(store: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
    let access = [
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "x".into()),
        ("AWS_SECRET_ACCESS_KEY", "very-secret".into()),
        ("AWS_REGION", "us-east-1".into()),
    ];
    command.args(["upload", store.to_str().unwrap(), "s3://hud"]).envs(access).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A store with sessions of three services, one of them with a name that needs escaping.
fn store() -> TempDir {
    let tmp = tempfile::tempdir().unwrap();
    let session = busy(120);
    for service in ["api", "web", "a b/c"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
        command.arg("rollup").arg(&session.path).arg("--store").arg(tmp.path()).args(["--service", service]);
        said(&command.output().unwrap());
    }
    tmp
}

/// Every file below a folder with its content, by its name.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn add(root: &Path, folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => add(root, &path, all),
                false => all.push((path.strip_prefix(root).unwrap().into(), fs::read(&path).unwrap())),
            }
        }
    }
    let mut all = Vec::new();
    add(folder, folder, &mut all);
    all.sort();
    all
}

fn assert_copied(store: &Path, moto: &Moto) {
    let copy = tempfile::tempdir().unwrap();
    moto.download(copy.path());
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (expected, found) = (files(store), files(copy.path()));
    assert_eq!(names(&found), names(&expected));
    assert!(found == expected, "contents differ");
}

#[test]
fn a_store_is_copied_once_and_only_what_is_new_again() {
    let Some(moto) = Moto::at(free_port()) else { return };
    let store = store();
    let text = said(&upload(store.path(), moto.port).output().unwrap());
    assert!(text.starts_with("3 sessions uploaded in "), "{text}");
    assert_copied(store.path(), &moto);
    let text = said(&upload(store.path(), moto.port).output().unwrap());
    assert!(text.contains("0 sessions uploaded in 0 objects") && text.contains("3 sessions there already"), "{text}");
    let manifest = files(store.path()).into_iter().find(|(name, _)| name.extension().is_some_and(|of| of == "json"));
    let (name, mut content) = manifest.unwrap();
    content.push(b' ');
    fs::write(store.path().join(name), content).unwrap();
    let text = said(&upload(store.path(), moto.port).output().unwrap());
    assert!(text.starts_with("1 session uploaded in "), "{text}");
    assert_copied(store.path(), &moto);
}

#[test]
fn a_network_that_refuses_delays_or_is_not_there_yet_loses_nothing() {
    let Some(moto) = Moto::at(free_port()) else { return };
    let store = store();
    let network = Network::to(moto.port, 4, Duration::from_millis(20));
    said(&upload(store.path(), network.port).output().unwrap());
    assert_eq!(network.refused.load(Ordering::Relaxed), 0, "the server was busy four times");
    assert_copied(store.path(), &moto);

    let port = free_port();
    let early = upload(store.path(), port).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    let late = Moto::at(port).unwrap();
    // The bucket is made after the server listens: a request in between is an error, and the next upload continues.
    if !early.wait_with_output().unwrap().status.success() {
        said(&upload(store.path(), port).output().unwrap());
    }
    assert_copied(store.path(), &late);
}

#[test]
fn an_upload_that_is_killed_leaves_no_manifest_without_its_files_and_continues() {
    let Some(moto) = Moto::at(free_port()) else { return };
    let store = store();
    let network = Network::to(moto.port, 0, Duration::from_millis(60));
    let mut child = upload(store.path(), network.port).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while moto.objects().len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it was not killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = moto.objects();
    let all: Vec<String> =
        files(store.path()).into_iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    assert!(there.len() < all.len(), "it was killed too late");
    for manifest in there.iter().filter(|name| name.starts_with("manifest/")) {
        let place = manifest.strip_prefix("manifest/").unwrap().strip_suffix(".json").unwrap();
        for part in all.iter().filter(|name| name.contains(&format!("/{place}/"))) {
            assert!(there.contains(part), "{manifest} is there without {part}");
        }
    }
    said(&upload(store.path(), moto.port).output().unwrap());
    assert_copied(store.path(), &moto);
}

#[test]
fn wrong_places_are_one_error_without_credentials() {
    let Some(moto) = Moto::at(free_port()) else { return };
    let store = store();
    let fails = |url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
        command.args(["upload", store.path().to_str().unwrap(), url]);
        command.env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", moto.port)).env("AWS_ALLOW_HTTP", "true");
        command
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "very-secret")
            .env("AWS_REGION", "us-east-1");
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("very-secret"), "{error}");
        error
    };
    let error = fails("s3://no-such-bucket/here");
    assert!(error.contains("cannot upload rollup_") && error.contains("no-such-bucket"), "{error}");
    assert!(fails("gopher://hud").contains("s3://BUCKET/PATH"));
}
