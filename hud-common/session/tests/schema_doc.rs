//! docs/SCHEMA.md is generated from the definition of the tables.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fmt::Write as _, path::Path};

use hud_session::{FORMAT_VERSION, Table};
use snapbox::{Data, data::DataFormat};

const HEAD: &str = "\
<!-- Generated from hud-common/session/src/tables.rs by SNAPSHOTS=overwrite cargo test -p hud-session -->
# The session

A session is a folder:

```text
SESSION/manifest.json                     target, host, time, options and accounts
SESSION/lock                              locked (flock) by the recorder while it records
SESSION/<table>/000001.parquet            a sealed segment: sorted, compressed, immutable
SESSION/<table>/000002.arrows.inflight    the segment being written: an Arrow IPC stream
```

Any engine that reads Parquet reads a session: `SELECT * FROM 'SESSION/polls/*.parquet'` in DuckDB. While a session is
being recorded, its last minute lies in the in-flight logs, which are Arrow IPC streams.

- Integers are signed. There are no unsigned integers and no nanosecond timestamps, as Spark and Trino cannot read them.
- `ts` is nanoseconds since the Unix epoch, `dur` nanoseconds. Both come from CLOCK_MONOTONIC and one anchor per session
  (`clock` in the manifest), so differences are exact even if the wall clock is set; `clock` rows record the drift of the
  wall clock.
- A segment is sorted by its table's key, says so in `sorting_columns`, has at least one row, and its name is never used
  again.
- `produced = stored + dropped + expired` for each stream of the manifest's `streams`, exactly, where `stored` counts the
  rows on disk, including those that the recorder adds itself: threads that existed before it (`threads`), off-CPU
  intervals in progress at the end of recording, cut there, and sums for the time in which switches were not recorded
  (`off_cpu`). `expired` counts the rows that retention has removed: it deletes the oldest segments of the tables sorted by
  `ts`. The manifest's `range` is the time range that is left; segments with a number below `first_segment` are not part of
  the session.
- `coverage` lists the time ranges in which each stream was recorded. Outside of them, missing rows are no evidence.
- Every byte has a checksum (CRC32, hexadecimal), which hud verifies and other engines ignore. In a sealed segment, the footer's key-value metadata: `hud.blocks`, the length of the data pages in bytes, a
  colon, and the checksum of each 64 KiB block of them, eight digits each; `hud.tail`, the checksum of everything after
  the data pages, computed with its own eight digits as zeros. In a log, the last eight bytes of each message's padded metadata: `hudF`
  and, little-endian, the checksum of the message's offset in the file (8 bytes, little-endian) and of the message without
  these four bytes. In `manifest.json`, the last field, of all bytes before the comma that precedes it.
- `hud.place`, in a segment's key-value metadata and in the metadata of a log's schema, identifies the file as
  `TABLE/NUMBER/SESSION-ID`. hud rejects the file elsewhere; recovery and `repair` set it aside, the former as `NAME.foreign`.
  Files that hud wrote before November 2026 have none.
- If a log ends in an incomplete message, its recorder died while it wrote; all messages before are complete. Opening the
  session with hud seals the log, adds missing rows for ids, and records the losses in the manifest's `recovery`.
- A table without rows has no folder. New columns are added as nullable, a type never changes.
";

#[test]
fn schema_document_is_up_to_date() {
    let mut doc = String::from(HEAD);
    write!(doc, "\nThis is format version {FORMAT_VERSION}.\n\n").unwrap();
    for table in Table::ALL {
        writeln!(doc, "{}", table.markdown()).unwrap();
    }
    let doc = format!("{}\n", doc.trim_end());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SCHEMA.md");
    snapbox::assert_data_eq!(doc, Data::read_from(&path, Some(DataFormat::Text)).raw());
}
