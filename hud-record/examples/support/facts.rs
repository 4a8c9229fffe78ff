//! A log of facts: events of the program with time and task, for tests that compare them with hud's recording.
//!
//! For a few thousand facts a second: each takes a lock.

#![allow(dead_code, reason = "not every example uses all")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

struct Fact {
    kind: &'static str,
    mono_ns: u64,
    of: u64,
    by: Option<u64>,
    detail: &'static str,
}

static FACTS: Mutex<Vec<Fact>> = Mutex::new(Vec::new());

/// Records that `kind` happened to `of`, at this CLOCK_MONOTONIC; the program defines `by` and `detail`.
pub(crate) fn note(kind: &'static str, mono_ns: u64, of: u64, by: Option<u64>, detail: &'static str) {
    FACTS.lock().unwrap_or_else(PoisonError::into_inner).push(Fact { kind, mono_ns, of, by, detail });
}

/// Writes the facts so far as CSV: `kind,mono_ns,of,by,detail`.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "kind,mono_ns,of,by,detail")?;
    for fact in FACTS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let by = fact.by.map(|by| by.to_string()).unwrap_or_default();
        writeln!(out, "{},{},{},{by},{}", fact.kind, fact.mono_ns, fact.of, fact.detail)?;
    }
    out.flush()
}
