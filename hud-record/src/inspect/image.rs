//! The data of the target's binary as it is in memory.
//!
//! Relocations of all kinds (`RELATIVE`, packed `RELR`) are applied there, so pointers are valid.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::binary::Binary;

/// Content of the binary's segments without code.
pub struct Image {
    /// By their address in the file.
    segments: Vec<(u64, Vec<u8>)>,
    load_bias: u64,
}

impl Image {
    /// `segments` by their address in the file; `load_bias` was added to the addresses in them.
    pub(super) fn new(segments: Vec<(u64, Vec<u8>)>, load_bias: u64) -> Self {
        Image { segments, load_bias }
    }

    /// The binary's constant data as it is in a process's memory. Data that relocation does not change is read from the
    /// file: reading it through the process would page it in there. Parts beyond `MOST` bytes are left out.
    pub(super) fn of_memory(binary: &Binary, memory: &File, load_bias: u64) -> Self {
        const MOST: u64 = 64 << 20;
        let mut left = MOST;
        let mut fits = |size: u64| {
            let fits = size <= left;
            left -= if fits { size } else { 0 };
            fits
        };
        let mut segments = Vec::new();
        for (vaddr, size) in binary.relocated_data().filter(|(_, size)| fits(*size)).collect::<Vec<_>>() {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            if memory.read_exact_at(&mut bytes, vaddr.wrapping_add(load_bias)).is_ok() {
                segments.push((vaddr, bytes));
            }
        }
        for (vaddr, size) in binary.read_only_data().filter(|(_, size)| fits(*size)).collect::<Vec<_>>() {
            segments.extend(binary.bytes(vaddr, size).map(|bytes| (vaddr, bytes.to_vec())));
        }
        Image::new(segments, load_bias)
    }

    /// The file's own content, for a program that does not run. Packed relocations (`RELR`) are not applied.
    pub fn of_file(binary: &Binary) -> Self {
        let segments = binary.data_segments();
        let content = |(address, size): (u64, u64)| Some((address, binary.bytes(address, size)?.to_vec()));
        let mut image = Image::new(segments.filter_map(content).collect(), 0);
        for (address, value) in binary.moved_words() {
            image.set(address, value);
        }
        image
    }

    fn set(&mut self, address: u64, value: u64) {
        let segment = self.segments.iter_mut().find(|(s, b)| address >= *s && address - s < b.len() as u64);
        let place = segment.and_then(|(start, bytes)| {
            let at = usize::try_from(address - *start).ok()?;
            bytes.get_mut(at..at.checked_add(8)?)
        });
        if let Some(place) = place {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The file address of every word.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.segments.iter().flat_map(|(start, bytes)| {
            let end = start.saturating_add(bytes.len() as u64);
            (start.next_multiple_of(8)..end).step_by(8)
        })
    }

    /// The word at a file address.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let (start, bytes) = self.segments.iter().find(|(s, b)| address >= *s && address - s < b.len() as u64)?;
        let at = usize::try_from(address - start).ok()?;
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    }

    /// The pointer at a file address, as a file address.
    pub(super) fn pointer(&self, address: u64) -> Option<u64> {
        Some(self.word(address)?.wrapping_sub(self.load_bias))
    }
}
