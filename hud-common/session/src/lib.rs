//! The session: a folder of Parquet tables, the only interface between recording and analysis (docs/SCHEMA.md).
//!
//! ```text
//! SESSION/manifest.json
//! SESSION/lock                              locked by the recorder while it records
//! SESSION/<table>/000001.parquet            a sealed segment: sorted, compressed, immutable
//! SESSION/<table>/000002.arrows.inflight    the segment being written: an Arrow IPC stream
//! ```
//! Invariants: a file name is never reused; a segment has at least one row and is sorted by its table's key; `ts` is
//! nanoseconds since the Unix epoch by the manifest's one clock anchor, `dur` nanoseconds.

mod checksum;
mod column;
mod encoding;
mod error;
mod fs;
mod inflight;
mod layout;
mod lock;
mod manifest;
mod open;
mod permute;
mod placeholder;
mod read_at;
mod recover;
mod recover_coverage;
mod row;
mod scan;
mod segment;
mod table_scan;
mod tables;

pub use checksum::{Checked, VerifiedFile, footer, verified_reader};
pub use error::{Error, Result};
pub use inflight::{Cut, InflightLog, InflightReader};
pub use layout::{Elsewhere, SessionDir, Unsealed};
pub use lock::SessionLock;
pub use manifest::{
    Clock, Container, FORMAT_VERSION, MANIFEST_FILE, Manifest, Options, Range, Recovery, StreamAccount,
};
pub use placeholder::unnamed;
pub use read_at::ReadAt;
pub use recover::recover;
pub use recover_coverage::STILL_ON;
pub use row::{Cell, ColumnInfo, Text};
pub use scan::{REFERENCES, Reference, integers, open_segment, open_verified, scan_segment, scan_verified, texts};
pub use segment::{
    Encoded, Encoder, Sealed, SegmentInfo, encode, encode_for, seal, seal_rows, segment_info, verified_info,
};
pub use tables::*;
