//! Lists words in added lines that have a standard replacement.
//!
//! Many of these are good English elsewhere, so the list is for author and reviewer to judge, and fails nothing. How a
//! line is divided into prose and code is a guess by line: in Rust, a comment, or from the first quotation mark to the
//! last.

use crate::sh::command;

/// Words and phrases, in lower case, and what to write instead.
const WORDS: &[(&str, &str)] = &[
    ("tell", "report, say"),
    ("tells", "reports, says"),
    ("told", "reported, recorded, distinguished"),
    ("telling", "reporting"),
    ("meet", "reach, observe"),
    ("meets", "reaches, observes"),
    ("met", "reached, observed, first seen"),
    ("what is", "the noun"),
    ("what was", "the noun"),
    ("what has", "the noun"),
    ("what had", "the noun"),
    ("what are", "the noun"),
    ("what were", "the noun"),
    ("what came", "events, rows"),
    ("what comes", "events, rows"),
    ("whoever", "the reader, the caller, the process that"),
    ("whatever", "any, all"),
    ("of which", "two sentences, or whose"),
    ("so many", "the number"),
    ("so much", "the amount"),
    ("goes", "is removed, is sent, is written"),
    ("let go", "discarded, evicted"),
    ("lets go", "discards, evicts"),
    ("stretch", "off-CPU interval, on-CPU interval, interval"),
    ("stretches", "off-CPU intervals, on-CPU intervals, intervals"),
    ("lapse", "interval"),
    ("under way", "in progress"),
    ("held asleep", "blocked"),
    ("at work", "busy, running"),
    ("worth a word", "finding"),
    ("grain", "resolution"),
    ("undivided", "whole window"),
    ("purse", "token bucket"),
    ("shelf", "cache"),
    ("jail", "sandbox"),
    ("intake", "sandboxed child, host, ingest"),
    ("blame", "attribution"),
    ("blames", "attributes to"),
    ("handed over", "sent, written, passed"),
];

/// Generated files, and this one.
const LEFT_OUT: [&str; 6] = [
    "docs/benchmarks/",
    "docs/screens/",
    "docs/SCHEMA.md",
    "docs/SQL.md",
    "hud-common/cockpit/tests/screens/",
    "xtask/src/words.rs",
];

/// A word in an added line.
#[derive(Debug, PartialEq, Eq)]
struct Use<'a> {
    file: &'a str,
    line: usize,
    word: &'static str,
    instead: &'static str,
}

/// Lists the words in lines that are new since the branch left main (on main: since the commit before).
pub(crate) fn list_new() {
    let diff = base().and_then(|base| {
        git(&["-c", "core.quotePath=off", "diff", "--unified=0", "--no-color", "--no-ext-diff", "--no-prefix", &base])
    });
    let Some(diff) = diff else {
        println!("words in added lines are not listed: the git history is not known");
        return;
    };
    let uses = uses(&diff);
    for Use { file, line, word, instead } in &uses {
        println!("{file}:{line}: \"{word}\"; the standard word: {instead}");
    }
    println!("{} words in added lines have a standard replacement, unless they are meant otherwise", uses.len());
}

fn base() -> Option<String> {
    let head = git(&["rev-parse", "--verify", "--quiet", "HEAD"])?;
    let fork_point = |main: &str| git(&["merge-base", "HEAD", main]).filter(|base| *base != head);
    let found = ["origin/main", "main"].into_iter().find_map(fork_point);
    found.or_else(|| git(&["rev-parse", "--verify", "--quiet", "HEAD^"])).map(|base| base.trim().to_owned())
}

/// The output of a git command that succeeds. A diff may contain any bytes.
fn git(arguments: &[&str]) -> Option<String> {
    let output = command("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The words in the lines that a diff without context and prefixes adds.
fn uses(diff: &str) -> Vec<Use<'_>> {
    let mut uses = Vec::new();
    let (mut file, mut line, mut left) = ("", 0, 0);
    for text in diff.lines() {
        if left > 0 {
            let Some(added) = text.strip_prefix('+') else { continue };
            if !LEFT_OUT.iter().any(|path| file.starts_with(path)) {
                let prose = prose(file, added).to_lowercase();
                let found = WORDS.iter().filter(|(word, _)| has_word(&prose, word));
                uses.extend(found.map(|&(word, instead)| Use { file, line, word, instead }));
            }
            (line, left) = (line + 1, left - 1);
        } else if let Some(path) = text.strip_prefix("+++ ") {
            file = path;
        } else if let Some(hunk) = text.strip_prefix("@@ ") {
            (line, left) = added_lines(hunk).unwrap_or((0, 0));
        }
    }
    uses
}

/// The first added line and their number, of `-3,0 +4,2 @@`.
fn added_lines(hunk: &str) -> Option<(usize, usize)> {
    let range = hunk.split(' ').nth(1)?.strip_prefix('+')?;
    let (first, count) = range.split_once(',').unwrap_or((range, "1"));
    Some((first.parse().ok()?, count.parse().ok()?))
}

/// The prose of a line of a file, without `code`.
fn prose(file: &str, line: &str) -> String {
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    let text = match extension {
        "rs" => match (line.find("//"), line.find('"'), line.rfind('"')) {
            (Some(comment), first, _) if first.is_none_or(|first| comment < first) => line.get(comment..),
            (_, Some(first), Some(last)) if first < last => line.get(first..last),
            _ => None,
        },
        "sql" => line.find("--").and_then(|comment| line.get(comment..)),
        "md" | "service" | "sh" | "toml" | "yml" => Some(line),
        _ => None,
    };
    text.unwrap_or_default().split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Whether `text` has `word`, and not only as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at + word.len()..));
        !before.unwrap_or_default().ends_with(is_part) && !after.unwrap_or_default().starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "\
diff --git src/a.rs src/a.rs
--- src/a.rs
+++ src/a.rs
@@ -3,0 +4,4 @@ fn f() {
+    // The reader is told the cost.
+    let told = untold(stretch); // `told` is code
+    let text = \"Goes to {place}\";
++++ whoever.rs
@@ -9,2 +13 @@ fn g() {
-    // whoever
-    // whatever
+    // An undertold tale of stretch_len.
diff --git docs/SQL.md docs/SQL.md
--- docs/SQL.md
+++ docs/SQL.md
@@ -1 +1 @@
-A word
+Whoever reads what is here
diff --git README.md README.md
--- README.md
+++ README.md
@@ -1 +1,2 @@
-A word
+Polls under way are in `what is`,
+whatever happens.
";

    #[test]
    fn lists_words_of_comments_texts_and_documents_only() {
        let found: Vec<_> = uses(DIFF).iter().map(|found| (found.file, found.line, found.word)).collect();
        let expected = [
            ("src/a.rs", 4, "told"),
            ("src/a.rs", 6, "goes"),
            ("README.md", 1, "under way"),
            ("README.md", 2, "whatever"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn words_are_in_lower_case_and_have_a_replacement() {
        for (word, instead) in WORDS {
            assert_eq!(*word, word.to_lowercase());
            assert!(!instead.is_empty() && !WORDS.iter().any(|(other, _)| other == instead), "{word}");
        }
    }
}
