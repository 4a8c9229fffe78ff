//! The target's memory, read while it runs, without changing it.
//!
//! Reading a page that is not present would make the kernel fault it in: a zero page, a page of a file, or one from
//! swap. (Reading a 570 MB arena, 9 MB of it in use, took a program's page tables from 636 to 1,680 kB.) So only pages
//! that `pagemap` reports as present are read. Any address may be invalid; one that cannot be read is no error.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    ptr,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    inspect::Process,
};

/// Ranges that one system call reads (IOV_MAX).
pub(super) const MOST_PIECES: usize = 1024;
/// Bytes of `/proc/PID/maps` that are read: a million mappings.
const MOST_MAPS: u64 = 128 << 20;
/// Pages whose presence is queried at once.
const PAGES_AT_ONCE: u64 = 64 << 10;
/// Bits of an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

/// An address range, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// A process's memory.
#[derive(Debug)]
pub(super) struct Memory {
    pid: u32,
    pagemap: File,
    page: u64,
    /// The ranges found to be present, by address.
    present: Vec<Span>,
    /// Bytes in swap, which are not read.
    pub(super) swapped: u64,
}

impl Memory {
    pub(super) fn open(process: &Process) -> Result<Self> {
        let pagemap = File::open(format!("/proc/{}/pagemap", process.pid)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Exited(process.pid),
            _ => Error::Denied { pid: process.pid, source },
        })?;
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Ok(Memory { pid: process.pid, pagemap, page, present: Vec::new(), swapped: 0 })
    }

    /// Allocators' memory: private, writable and not of a file.
    pub(super) fn heaps(&self) -> Result<Vec<Span>> {
        let gone = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: self.pid, source },
            _ => Error::Exited(self.pid),
        };
        let mut maps = Vec::new();
        let file = File::open(format!("/proc/{}/maps", self.pid)).map_err(gone)?;
        file.take(MOST_MAPS).read_to_end(&mut maps).map_err(gone)?;
        Ok(maps.split(|&b| b == b'\n').filter_map(heap).collect())
    }

    /// The present pages of a span, with neighbours merged. Stops at the deadline.
    pub(super) fn present_pages(&mut self, span: Span, deadline: Instant) -> Vec<Span> {
        let (mut found, mut swapped): (Vec<Span>, u64) = (Vec::new(), 0);
        let mut at = span.start / self.page;
        let last = span.end.div_ceil(self.page);
        let mut entries = Vec::new();
        while at < last && Instant::now() < deadline {
            let count = (last - at).min(PAGES_AT_ONCE);
            entries.resize(usize::try_from(count * 8).unwrap_or(0), 0);
            let Ok(got) = self.pagemap.read_at(&mut entries, at * 8) else { break };
            let Some(entries) = entries.get(..got).filter(|e| !e.is_empty()) else { break };
            for (page, entry) in (at..).zip(entries.as_chunks::<8>().0) {
                let entry = u64::from_le_bytes(*entry);
                if entry & PRESENT == 0 {
                    swapped += if entry & SWAPPED == 0 { 0 } else { self.page };
                    continue;
                }
                let start = page * self.page;
                match found.last_mut() {
                    Some(before) if before.end == start => before.end += self.page,
                    _ => found.push(Span { start, end: start + self.page }),
                }
            }
            at += u64::try_from(got).unwrap_or(0) / 8;
        }
        self.swapped += swapped;
        found
    }

    /// Remembers the present ranges for later reads.
    pub(super) fn remember(&mut self, mut present: Vec<Span>) {
        present.sort_unstable_by_key(|span| span.start);
        self.present = present;
    }

    /// Whether all of a span is present.
    pub(super) fn is_present(&self, span: Span) -> bool {
        let next = self.present.partition_point(|p| p.start <= span.start);
        if next.checked_sub(1).and_then(|i| self.present.get(i)).is_some_and(|p| span.end <= p.end) {
            return true;
        }
        // New since then, or not scanned, such as a static.
        let (mut page, last) = (span.start / self.page, span.end.div_ceil(self.page));
        if span.size() == 0 || last.saturating_sub(page) > PAGES_AT_ONCE {
            return false;
        }
        let mut entry = [0; 8];
        while page < last {
            let is_read = page.checked_mul(8).is_some_and(|at| self.pagemap.read_exact_at(&mut entry, at).is_ok());
            if !is_read || u64::from_le_bytes(entry) & PRESENT == 0 {
                return false;
            }
            page += 1;
        }
        true
    }

    /// The end of the present pages from an address, at most `most` bytes further.
    pub(super) fn end_of_present(&self, start: u64, most: u64) -> Option<u64> {
        let mut end = start;
        while end - start < most {
            let next = (end / self.page + 1).checked_mul(self.page)?;
            if !self.is_present(Span { start: end, end: next }) {
                break;
            }
            end = next;
        }
        (end > start).then_some(end)
    }

    /// Reads ranges, in this order, into one buffer, as close to one moment as the kernel can. Returns the number of
    /// bytes read before the first that could not be. At most [`MOST_PIECES`], all of them present.
    pub(super) fn read(&self, pieces: &[Span], buffer: &mut [u8]) -> usize {
        let range = |p: &Span| {
            let base = ptr::without_provenance_mut(usize::try_from(p.start).ok()?);
            Some(libc::iovec { iov_base: base, iov_len: usize::try_from(p.size()).ok()? })
        };
        let remote: Vec<libc::iovec> = pieces.iter().filter_map(range).collect();
        let count = remote.len().try_into().unwrap_or(libc::c_ulong::MAX);
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the call writes to `buffer` alone; the remote addresses are another process's, and may be invalid.
        let read =
            unsafe { libc::process_vm_readv(self.pid.cast_signed(), &raw const local, 1, remote.as_ptr(), count, 0) };
        usize::try_from(read).unwrap_or(0)
    }

    /// Reads a span, if all of it is present.
    pub(super) fn bytes(&self, span: Span) -> Option<Vec<u8>> {
        if !self.is_present(span) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(span.size()).ok()?];
        (self.read(&[span], &mut bytes) == bytes.len()).then_some(bytes)
    }
}

/// A line of `maps`, if it is an allocator's memory.
fn heap(line: &[u8]) -> Option<Span> {
    // A path may be any bytes, and is at the end.
    let line = String::from_utf8_lossy(line.get(..256).unwrap_or(line));
    let (span, name) = private(&line)?;
    (name.is_empty() || name == "[heap]" || name.starts_with("[anon:")).then_some(span)
}

/// Range and name of a private, writable mapping of no file, by its line of `maps`: `start-end rw-p offset dev inode
/// [name]`.
pub(super) fn private(line: &str) -> Option<(Span, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next()? == "rw-p";
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or_default().trim_start();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let span = Span { start: hex(start)?, end: hex(end)? };
    (is_private && inode == "0" && span.start < span.end).then_some((span, name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn this_process() -> Memory {
        // `Process::by_pid` refuses hud itself.
        Memory::open(&Process { pid: std::process::id(), exe: "/proc/self/exe".into(), library: None }).unwrap()
    }

    #[test]
    fn heaps_are_private_writable_and_no_files() {
        let span = Span { start: 0x7f00, end: 0x8f00 };
        assert_eq!(heap(b"7f00-8f00 rw-p 00000000 00:00 0 "), Some(span));
        assert_eq!(heap(b"7f00-8f00 rw-p 00000000 00:00 0                          [heap]"), Some(span));
        assert_eq!(heap(b"7f00-8f00 rw-p 00000000 00:00 0                          [anon:jemalloc]"), Some(span));
        for other in [
            &b"7f00-8f00 rw-p 00000000 00:00 0                          [stack]"[..],
            b"7f00-8f00 r--p 00000000 00:00 0 ",
            b"7f00-8f00 rw-s 00000000 00:00 0 ",
            b"7f00-8f00 rw-p 00000000 fe:00 12                         /srv/data",
            b"8f00-7f00 rw-p 00000000 00:00 0 ",
            b"",
            b"\xff\xff",
        ] {
            assert_eq!(heap(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn only_pages_that_are_present_are_read() {
        let mut memory = this_process();
        let size = 64 * usize::try_from(memory.page).unwrap();
        let mut map = memmap2::MmapMut::map_anon(size).unwrap();
        let start = map.as_ptr() as u64;
        let span = Span { start, end: start + size as u64 };
        let page = usize::try_from(memory.page).unwrap();
        map[5 * page] = 1;
        map[6 * page + 7] = 2;
        let soon = || Instant::now() + Duration::from_secs(60);
        let touched = Span { start: start + 5 * memory.page, end: start + 7 * memory.page };
        assert_eq!(memory.present_pages(span, soon()), [touched]);
        assert!(memory.is_present(touched) && !memory.is_present(span));
        assert_eq!(memory.bytes(span), None);
        let bytes = memory.bytes(touched).unwrap();
        assert_eq!((bytes[0], bytes[page + 7]), (1, 2));
        // Looking leaves no page behind.
        assert_eq!(memory.present_pages(span, soon()), [touched]);
        assert!(memory.heaps().unwrap().iter().any(|heap| heap.start <= start && span.end <= heap.end));
    }

    #[test]
    fn invalid_addresses_are_no_error() {
        let memory = this_process();
        for start in [0, 8, u64::MAX - 15, 1 << 47, u64::MAX / 8] {
            assert_eq!(memory.bytes(Span { start, end: start.saturating_add(8) }), None, "{start:#x}");
        }
    }
}
