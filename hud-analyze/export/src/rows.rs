//! The source of rows: the one interface between an export and a session.

use std::io::Read;

use arrow::array::RecordBatch;
use hud_common::session::{Manifest, Table};

use crate::Result;

/// Receives a segment: its table and number, its size and its bytes.
pub type EachSegment<'a> = dyn FnMut(Table, u32, u64, &mut dyn Read) -> Result<()> + 'a;

/// The rows of one session.
pub trait Rows {
    /// Its manifest.
    fn manifest(&self) -> &Manifest;

    /// `manifest.json` as stored in the session: with its checksum.
    fn manifest_json(&self) -> Result<Vec<u8>>;

    /// The total number of rows of a table, for progress.
    fn count(&self, table: Table) -> Result<u64>;

    /// Passes the rows of a table to `each` in the order of the table's key, with at least these columns (if the
    /// session has them; by name, in any order). With a window `[from, to)`: all rows that touch it, and possibly
    /// others.
    fn scan(
        &self,
        table: Table,
        columns: &[&str],
        window: Option<(i64, i64)>,
        each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()>;

    /// Passes the sealed segments to `each` by table and number, with their size and their bytes. In-flight logs come
    /// as the segments that sealing would make of them ([`hud_common::session::encode`]).
    fn segments(&self, each: &mut EachSegment<'_>) -> Result<()>;
}
