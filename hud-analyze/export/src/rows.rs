//! Where rows come from: the one interface between an export and a session.

use std::io::Read;

use arrow::array::RecordBatch;
use hud_common::session::{Manifest, Table};

use crate::Result;

/// Takes a segment: its table and number, its size and its bytes.
pub type EachSegment<'a> = dyn FnMut(Table, u32, u64, &mut dyn Read) -> Result<()> + 'a;

/// The rows of one session.
pub trait Rows {
    /// Its manifest.
    fn manifest(&self) -> &Manifest;

    /// `manifest.json` as it lies in the session: with its checksum.
    fn manifest_json(&self) -> Result<Vec<u8>>;

    /// How many rows a table has in all, for progress.
    fn count(&self, table: Table) -> Result<u64>;

    /// Gives `each` the rows of a table in the order of the table's key, of these columns at least (where the session has
    /// them; by name, in any order). With a window `[from, to)`: all rows that touch it; others may be among them.
    fn scan(
        &self,
        table: Table,
        columns: &[&str],
        window: Option<(i64, i64)>,
        each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()>;

    /// Gives `each` the sealed segments by table and number, with their size and their bytes. Logs, of a session that is
    /// being recorded or whose recorder was killed, come as the segments that sealing would make of them
    /// ([`hud_common::session::encode`]).
    fn segments(&self, each: &mut EachSegment<'_>) -> Result<()>;
}
