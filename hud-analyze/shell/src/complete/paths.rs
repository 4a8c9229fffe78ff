//! Names of files.

use std::{env, fs, path::PathBuf};

use super::Candidate;

/// Most entries of a folder that are considered.
const MOST_READ: usize = 20_000;

/// Candidates after `written`, a path with or without an opening quote that begins at `start`.
pub(super) fn complete(written: &str, start: usize) -> Vec<Candidate> {
    if written.starts_with('|') {
        return Vec::new();
    }
    let quote = written.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let path = written.trim_start_matches(['\'', '"']);
    // Without a quote, a second word is no part of the name.
    if quote.is_none() && path.contains(char::is_whitespace) {
        return Vec::new();
    }
    let (folder, prefix) = path.split_at(path.rfind('/').map_or(0, |at| at + 1));
    let place = if folder.is_empty() { PathBuf::from(".") } else { expand(folder) };
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .take(MOST_READ)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let is_hidden = name.starts_with('.') && !prefix.starts_with('.');
            (name.starts_with(prefix) && !is_hidden).then(|| {
                let is_folder = entry.path().is_dir();
                let value = format!("{folder}{name}{}", if is_folder { "/" } else { "" });
                let value = if quote.is_some() || value.contains(|c: char| c.is_whitespace() || c == '\'') {
                    let closing = if is_folder { "" } else { "'" };
                    format!("'{}{closing}", value.replace('\'', "''"))
                } else {
                    value
                };
                Candidate { value, about: String::new(), start, space: false }
            })
        })
        .collect();
    found.sort_by(|a, b| a.value.cmp(&b.value));
    found
}

/// A path with `~` replaced.
pub(crate) fn expand(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(path),
    }
}
