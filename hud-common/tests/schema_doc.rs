//! docs/SCHEMA.md is printed from the tables' own definition, so it is true.

#![cfg(feature = "session")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fmt::Write as _, fs, path::Path};

use hud_common::session::{FORMAT_VERSION, Table};

const HEAD: &str = "\
<!-- Printed from hud-common/src/session/tables.rs; to renew it: HUD_BLESS=1 cargo test -p hud-common --features session -->
# The session

A session is a folder:

```text
SESSION/manifest.json                     what was recorded, where, when and how
SESSION/lock                              held (flock) by the recorder for as long as it records
SESSION/<table>/000001.parquet            a sealed segment: sorted, compressed, immutable
SESSION/<table>/000002.arrows.inflight    the segment being written: an Arrow IPC stream
```

Any engine that reads Parquet reads a session: `SELECT * FROM 'SESSION/polls/*.parquet'` in DuckDB. While a session is
being recorded, its last minute lies in the in-flight logs, which any reader of Arrow streams reads.

- Integers are signed; no unsigned ones and no nanosecond timestamps, which Spark and Trino cannot read.
- `ts` is nanoseconds since the Unix epoch, `dur` nanoseconds. Both come from CLOCK_MONOTONIC by one anchor a session
  (`clock` in the manifest), so differences are exact and never step, whatever happens to the wall clock; `clock` rows
  record how far the wall clock drifted.
- A segment is sorted by its table's key, says so in `sorting_columns`, has at least one row, and its name is never used
  again.
- `produced = stored + dropped + expired` for each stream of the manifest's `streams`, exactly, where `stored` counts the
  rows on disk, including those that the recorder adds itself: threads that existed before it (`threads`), off-CPU
  intervals that were in progress as recording ended, cut there, and sums for the time in which switches were not recorded
  (`off_cpu`). `expired` counts the rows that retention has removed:
  the oldest segments of the tables sorted by `ts` may go; the manifest's `range` says what they still hold, and what has
  a lower number than its `first_segment` is no part of the session.
- What was not watched is not in `coverage`.
- Every byte has a checksum (CRC32, hexadecimal), which hud holds against what it reads, and which other engines pass
  over. In a sealed segment, the footer's key-value metadata: `hud.blocks`, the length of the data pages in bytes, a
  colon, and the checksum of each 64 KiB block of them, eight digits each; `hud.tail`, of all that follows the data
  pages, with these eight digits taken as zeros. In a log, the last eight bytes of each message's padded metadata: `hudF`
  and, little-endian, the checksum of the message's place in the file (8 bytes, little-endian) and of the message but for
  these four bytes. In `manifest.json`, the last field, of all bytes before the comma that precedes it.
- `hud.place`, in a segment's key-value metadata and in the metadata of a log's schema, says which file of which session it
  is: `TABLE/NUMBER/SESSION-ID`. hud rejects it elsewhere; recovery and `repair` set it aside, the former as
  `NAME.foreign`. Files that hud wrote before November 2026 have none.
- A log that ends in a message that is not whole was being written as its recorder died: what precedes is whole. Opening
  the session with hud seals it, completes what is left to complete, and says in the manifest's `recovery` what was lost.
- A table without rows has no folder. New columns are added as nullable, a type never changes.
";

#[test]
fn the_schema_document_is_what_is_written() {
    let mut doc = String::from(HEAD);
    write!(doc, "\nThis is format version {FORMAT_VERSION}.\n\n").unwrap();
    for table in Table::ALL {
        writeln!(doc, "{}", table.markdown()).unwrap();
    }
    let doc = format!("{}\n", doc.trim_end());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SCHEMA.md");
    if std::env::var_os("HUD_BLESS").is_some() {
        fs::write(&path, doc).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == doc,
        "docs/SCHEMA.md is out of date: run HUD_BLESS=1 cargo test -p hud-common --features session"
    );
}
