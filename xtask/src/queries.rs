//! Assembles the views from the SQL that several of them share.
//!
//! A file of `queries` may contain `-- part NAME` and `-- end NAME`. The lines between them are those of
//! `queries/parts/NAME.sql`, indented like the markers; a part may contain parts. So the committed views stay plain SQL
//! that any engine runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::root;

/// Writes the shared SQL of queries/parts into the views that contain it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compares the views with their parts; changes no file
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let stale = assemble_all(&root().join("queries"), !args.check)?;
    for view in &stale {
        println!("queries/{view}.sql: {}", if args.check { "differs from queries/parts" } else { "written" });
    }
    ensure!(!args.check || stale.is_empty(), "run `cargo xtask queries`, and commit the views that it writes");
    Ok(())
}

/// Compares the committed views with their parts.
pub(crate) fn check() -> Result<()> {
    run(&Args { check: true })
}

/// Assembles each view of a folder, and writes it if it changed and `is_written`. Gives the names of those that changed.
fn assemble_all(folder: &Path, is_written: bool) -> Result<Vec<String>> {
    let parts = read(&folder.join("parts"))?;
    let (mut stale, mut used) = (Vec::new(), BTreeSet::new());
    for (view, text) in read(folder)? {
        let assembled = assemble(&text, &parts, &mut used, "").with_context(|| format!("queries/{view}.sql"))?;
        if assembled != text {
            if is_written {
                let path = folder.join(format!("{view}.sql"));
                fs::write(&path, &assembled).with_context(|| format!("failed to write {}", path.display()))?;
            }
            stale.push(view);
        }
    }
    let unused: Vec<&str> = parts.keys().filter(|part| !used.contains(*part)).map(String::as_str).collect();
    ensure!(unused.is_empty(), "no view contains these files of queries/parts: {}", unused.join(", "));
    Ok(stale)
}

/// The SQL files of a folder, by name.
fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        if let (Some(name), Some("sql")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) {
            let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            files.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    Ok(files)
}

/// A text whose parts are those of `parts`. `around` is the part that the text is of; a part within itself is an error.
fn assemble(text: &str, parts: &BTreeMap<String, String>, used: &mut BTreeSet<String>, around: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.trim_start().strip_prefix("-- part ") else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some(part) = parts.get(name) else { bail!("there is no queries/parts/{name}.sql") };
        // Names of the parts around this one, separated by `/`.
        ensure!(!around.split('/').any(|outer| outer == name), "the part {name} contains itself");
        used.insert(name.to_owned());
        for line in assemble(part, parts, used, &format!("{around}/{name}"))?.lines() {
            out.push_str(if line.is_empty() { "" } else { indent });
            out.push_str(line);
            out.push('\n');
        }
        let end = format!("-- end {name}");
        let Some(end) = lines.find(|line| line.trim_start() == end) else { bail!("`{end}` is missing") };
        out.push_str(end);
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn assembled(text: &str, parts: &[(&str, &str)]) -> Result<String> {
        let parts = parts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        assemble(text, &parts, &mut BTreeSet::new(), "")
    }

    #[test]
    fn a_part_is_written_between_its_markers_with_their_indentation() {
        let view = "WITH a AS (\n    -- part a\n    stale\n    -- end a\n)\nSELECT * FROM a\n";
        let text = assembled(view, &[("a", "SELECT 1\n\nFROM b\n")]).unwrap();
        assert_eq!(text, "WITH a AS (\n    -- part a\n    SELECT 1\n\n    FROM b\n    -- end a\n)\nSELECT * FROM a\n");
        assert_eq!(assembled(&text, &[("a", "SELECT 1\n\nFROM b\n")]).unwrap(), text, "it stays as it is");
    }

    #[test]
    fn a_part_may_contain_parts() {
        let parts = [("a", "x\n  -- part b\n  -- end b\n"), ("b", "y\n")];
        let text = assembled("-- part a\n-- end a\n", &parts).unwrap();
        assert_eq!(text, "-- part a\nx\n  -- part b\n  y\n  -- end b\n-- end a\n");
        assert_eq!(assembled(&text, &parts).unwrap(), text);
    }

    #[test]
    fn what_cannot_be_assembled_is_an_error() {
        let of = |text, parts: &[_]| assembled(text, parts).unwrap_err().to_string();
        assert!(of("-- part a\n-- end a\n", &[]).contains("no queries/parts/a.sql"));
        assert!(of("-- part a\n", &[("a", "x\n")]).contains("`-- end a` is missing"));
        assert!(of("-- part a\n-- end a\n", &[("a", "-- part a\n-- end a\n")]).contains("contains itself"));
    }

    #[test]
    fn the_committed_views_are_those_of_the_committed_parts() {
        assert_eq!(assemble_all(&root().join("queries"), false).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_stale_view_is_written_and_an_unused_part_is_an_error() {
        let dir = std::env::temp_dir().join(format!("hud-queries-{}", std::process::id()));
        fs::create_dir_all(dir.join("parts")).unwrap();
        fs::write(dir.join("v.sql"), "-- part a\n-- end a\n").unwrap();
        fs::write(dir.join("parts/a.sql"), "SELECT 1\n").unwrap();
        assert_eq!(assemble_all(&dir, false).unwrap(), ["v"], "a check reports it");
        assert_eq!(fs::read_to_string(dir.join("v.sql")).unwrap(), "-- part a\n-- end a\n", "and writes nothing");
        assert_eq!(assemble_all(&dir, true).unwrap(), ["v"]);
        assert_eq!(fs::read_to_string(dir.join("v.sql")).unwrap(), "-- part a\nSELECT 1\n-- end a\n");
        assert!(assemble_all(&dir, false).unwrap().is_empty());
        fs::write(dir.join("parts/b.sql"), "SELECT 2\n").unwrap();
        let error = assemble_all(&dir, false).unwrap_err().to_string();
        assert!(error.contains("no view contains these files of queries/parts: b"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
