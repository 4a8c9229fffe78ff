//! Every command in README and docs runs in a shell, as it is written there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PAGES: [&str; 6] =
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/DEVELOPMENT.md", "docs/FLEET.md", "docs/SQL.md"];

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
                // What follows `--` is a program that is to be started.
                line = match line.split_once(" -- ") {
                    Some((options, program)) => format!("{options} --help -- {program}"),
                    None => format!("{line} --help"),
                };
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

/// The commands in a program's help, with their descriptions.
fn commands_of(program: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name(program);
    let output = Command::new(path).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let lines = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in lines {
        match line.strip_prefix("  ").filter(|l| !l.starts_with(' ')).and_then(|l| l.split_once(' ')) {
            Some((name, about)) => commands.push((name.into(), about.trim().into())),
            // The rest of a description that fills several lines.
            None => {
                let (_, about) = commands.last_mut().unwrap();
                about.push(' ');
                about.push_str(line.trim());
            }
        }
    }
    commands
}

#[test]
fn every_command_of_hud_analyze_is_one_of_hud() {
    let hud = commands_of("hud");
    let analyze = commands_of("hud-analyze");
    assert!(analyze.len() > 25, "{analyze:?}");
    for command in analyze.iter().filter(|(name, _)| !["help", "completions", "manual"].contains(&name.as_str())) {
        assert!(hud.contains(command), "{command:?} is not in {hud:#?}");
    }
}
