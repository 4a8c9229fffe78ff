//! What a session or a folder of another user's may not do to whoever looks at it.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, lchown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hud_common::session::Manifest;

const NOBODY: u32 = 65_534;

/// The recording of a real program that lies beside these tests.
fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/session")
}

fn hud(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud-analyze")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// It failed in order, and said this.
fn refused(output: &Output, told: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(told), "{stderr}");
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

/// The user and the capabilities that a command of hud's runs with, as a program sees them that it starts.
fn rights(sessions: &[&Path]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hud-analyze"));
    command
        .arg("sql")
        .args(sessions)
        .args(["-c", "SELECT 1 \\g |grep -E '^(Uid|Gid|Groups|CapPrm|CapEff)' /proc/self/status"]);
    let told = answered(&command.stdin(Stdio::null()).output().unwrap());
    told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
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
        let told = rights(sessions);
        assert!(told[0] == "Uid: 0 0 0 0" && told[3..] == reading, "{told:?}");
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
    // As its recorder left it when it was killed.
    let mut manifest = Manifest::read(&session).unwrap();
    (manifest.complete, manifest.end, manifest.end_reason, manifest.recovery) = (false, None, None, None);
    manifest.write(&session).unwrap();
    give(&session).unwrap();
    let output = hud(&["info", path]);
    let told = answered(&output);
    assert!(told.contains("the recorder was killed"), "{told}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("its recorder was killed; "));
    assert_eq!(users(folder.path()), BTreeSet::from([NOBODY]));
    answered(&hud(&["replay", path, "--measure", "1"]));
}
