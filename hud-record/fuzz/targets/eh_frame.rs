//! A mapped file's `.eh_frame`, from which an unwind table is made.

#![no_main]

use hud_record::unwind::table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = table::build(bytes) else { return };
    // The kernel program's search relies on these.
    assert!(table.rows.is_sorted_by_key(|row| row.address), "unsorted rows");
    assert!(table.rows.is_empty() || table.index.iter().all(|&n| (n as usize) < table.rows.len()), "an index past the rows");
});
