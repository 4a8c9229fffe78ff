//! Every command in README and docs runs in a shell, as it is written there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PAGES: [&str; 5] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/DEVELOPMENT.md", "docs/SQL.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of hud's programs in a page's code blocks, without prompt and comment.
fn commands(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines).map(|l| l.trim_start_matches(['#', '$']).trim_start());
    let is_ours = |l: &&str| ["hud ", "hud-record ", "hud-analyze "].iter().any(|program| l.starts_with(program));
    lines.filter(is_ours).map(without_explanation).collect()
}

/// Two spaces or more separate a comment.
fn without_explanation(line: &str) -> String {
    let mut quote = None;
    let mut before = ' ';
    let mut command = String::new();
    for c in line.chars() {
        match quote {
            None if c == ' ' && before == ' ' => break,
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        command.push(c);
        before = c;
    }
    command.trim_end().to_string()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn documented_commands_run() {
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_hud-record")).parent().unwrap();
    let mut analyzed = 0;
    for page in PAGES {
        for command in commands(page) {
            let session = dir.path().join("session");
            let _ = fs::remove_dir_all(&session);
            copy(&root().join("hud-analyze/tests/data/session"), &session);
            let mut line = command.clone();
            for placeholder in ["SESSION", "BEFORE", "AFTER", "/var/tmp/s"] {
                line = line.replace(placeholder, "session");
            }
            // Of commands that record or inspect a running program, only the arguments are checked.
            let analyzes = line.contains(" session") && !line.contains("--export");
            analyzed += usize::from(analyzes);
            if !analyzes {
                line.push_str(" --help");
            }
            let output = Command::new("sh")
                .args(["-c", &line])
                .current_dir(dir.path())
                .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{page}: {command}: {errors}");
        }
    }
    assert!(analyzed >= 15, "{analyzed} commands of hud-analyze found");
}

#[test]
fn an_explanation_is_no_part_of_a_command() {
    assert_eq!(
        without_explanation("hud-analyze sql S -c \"SELECT  1\"   prints  one"),
        "hud-analyze sql S -c \"SELECT  1\""
    );
}
