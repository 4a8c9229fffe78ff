//! Where tasks were spawned: programs built with `tokio_unstable` keep it in each task, as the address of a `Location`.
//!
//! The `Location` was relocated, so it is present in the target. The file name in it is read-only data, which is read
//! from the file: reading it through the target would page it in there.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use super::memory::{Memory, Span};
use crate::inspect::Process;

/// Bytes of a path.
const LONGEST: u64 = 1024;
/// Distinct locations that are kept.
const MOST: usize = 64 << 10;

pub(super) struct SpawnSites {
    file: Option<File>,
    /// Address, file offset and file size of segments without code.
    data: Vec<[u64; 3]>,
    load_bias: u64,
    known: HashMap<u64, Option<(String, u32)>>,
}

impl SpawnSites {
    pub(super) fn new(process: &Process, data: Vec<[u64; 3]>, load_bias: u64) -> Self {
        SpawnSites { file: File::open(process.tokio_path()).ok(), data, load_bias, known: HashMap::new() }
    }

    /// File and line of the location whose address is stored at an address.
    pub(super) fn of(&mut self, memory: &Memory, at: u64) -> Option<(String, u32)> {
        let location = word(&memory.bytes(Span { start: at, end: at.checked_add(8)? })?, 0)?;
        if let Some(known) = self.known.get(&location) {
            return known.clone();
        }
        let read = self.read(memory, location);
        if self.known.len() < MOST {
            self.known.insert(location, read.clone());
        }
        read
    }

    /// A `core::panic::Location`: address and length of the file's name, line and column.
    fn read(&self, memory: &Memory, location: u64) -> Option<(String, u32)> {
        let bytes = memory.bytes(Span { start: location, end: location.checked_add(24)? })?;
        let (name, length, place) =
            (word(&bytes, 0)?.wrapping_sub(self.load_bias), word(&bytes, 8)?, word(&bytes, 16)?);
        if !(4..=LONGEST).contains(&length) {
            return None;
        }
        let [start, offset, size] =
            *self.data.iter().find(|[start, _, size]| name >= *start && name - start < *size)?;
        if length > size - (name - start) {
            return None;
        }
        let mut text = vec![0; usize::try_from(length).ok()?];
        self.file.as_ref()?.read_exact_at(&mut text, offset.checked_add(name - start)?).ok()?;
        // std adds a zero byte since 1.89.
        let text = String::from_utf8(text).ok()?;
        let line = u32::try_from(place & u64::from(u32::MAX)).ok()?;
        text.ends_with(".rs").then_some((text, line))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
