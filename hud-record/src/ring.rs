//! The ring buffer of events, read in place.
//!
//! aya's reader releases space after each record. The kernel reads that position at each event, on other CPUs: a
//! million times a second it would move between their caches. Here it is written once per [`GIVE_BACK`] bytes.
//!
//! The layout is that of kernel/bpf/ringbuf.c: a page with the consumer's position, one with the producer's, then the
//! data twice in a row, so that no record is split at the end. It is mapped once here, or its 8 MB would count twice as
//! hud's memory; a record that is split at the end is joined. A record begins at a multiple of eight, after a word with
//! its length and two flags and an unused word.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

const HEADER: usize = 8;
/// Not completely written.
const BUSY: u32 = 1 << 31;
/// To be skipped.
const DISCARDED: u32 = 1 << 30;
/// Bytes after which space is released: a hundredth of the ring.
const GIVE_BACK: usize = 64 << 10;

/// The result of draining.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// Bytes of the records taken.
    pub(crate) bytes: usize,
    /// Whether the ring is empty, or its next record is not completely written.
    pub(crate) is_empty: bool,
}

/// The only consumer of a ring buffer.
#[derive(Debug)]
pub(crate) struct Ring {
    consumer: MmapRaw,
    producer: MmapRaw,
    page: usize,
    size: usize,
    /// The position read so far, and the position released.
    read: usize,
    given_back: usize,
    /// Buffer for a split record.
    cut: Vec<u8>,
    _map: MapData,
}

impl Ring {
    /// Maps a ring buffer.
    pub(crate) fn new(map: MapData) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let size = map.info().map_err(io::Error::other)?.max_entries();
        let size = usize::try_from(size).map_err(io::Error::other)?;
        if !size.is_power_of_two() {
            return Err(io::Error::other("the ring is of an odd size"));
        }
        let fd = map.fd().as_fd().as_raw_fd();
        let offset = u64::try_from(page).map_err(io::Error::other)?;
        let consumer = MmapOptions::new().len(page).map_raw(fd)?;
        let producer = MmapOptions::new().offset(offset).len(page + size).map_raw_read_only(fd)?;
        // SAFETY: the first word of the page just mapped, which stays mapped while this lives.
        let read = unsafe { &*consumer.as_ptr().cast::<AtomicUsize>() }.load(Ordering::Acquire);
        Ok(Ring { consumer, producer, page, size, read, given_back: read, cut: Vec::new(), _map: map })
    }

    /// Passes records to `take`, at most `most` of them.
    pub(crate) fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> Drained {
        let (mut end, from) = (self.read, self.read);
        let mut is_empty = false;
        for _ in 0..most {
            if self.read == end {
                end = self.produced();
            }
            let at = self.read & (self.size - 1);
            // Otherwise it is not the kernel's ring: a word is never split, and no record is longer than the data.
            if self.read == end || at + HEADER > self.size {
                is_empty = true;
                break;
            }
            let record = self.producer.as_ptr().wrapping_add(self.page + at);
            // SAFETY: a word of the mapping, aligned, as positions are multiples of eight. The kernel writes it last,
            // with a full barrier, so the record is complete once the flag is cleared.
            let header = unsafe { &*record.cast::<AtomicU32>() }.load(Ordering::Acquire);
            let len = usize::try_from(header & !(BUSY | DISCARDED)).unwrap_or(usize::MAX / 2);
            if header & BUSY != 0 || len > self.size - HEADER {
                is_empty = true;
                break;
            }
            if header & DISCARDED == 0 {
                let start = at + HEADER;
                let head = len.min(self.size - start);
                // SAFETY: both are within the data, one from the record's begin to the end of the first copy, the other
                // from the start of the data. The kernel does not write there until the space is released, which is
                // done below, after the slices' last use.
                let (head, rest) = unsafe {
                    let data = self.producer.as_ptr().wrapping_add(self.page);
                    let rest = std::slice::from_raw_parts(data, len - head);
                    (std::slice::from_raw_parts(data.wrapping_add(start), head), rest)
                };
                if rest.is_empty() {
                    take(head);
                } else {
                    self.cut.clear();
                    self.cut.extend_from_slice(head);
                    self.cut.extend_from_slice(rest);
                    take(&self.cut);
                }
            }
            self.read = self.read.wrapping_add(HEADER + len.next_multiple_of(8));
            if self.read.wrapping_sub(self.given_back) >= GIVE_BACK {
                self.give_back();
            }
        }
        self.give_back();
        Drained { bytes: self.read.wrapping_sub(from), is_empty }
    }

    fn produced(&self) -> usize {
        // SAFETY: the first word of the mapping, which only the kernel writes.
        unsafe { &*self.producer.as_ptr().cast::<AtomicUsize>() }.load(Ordering::Acquire)
    }

    fn give_back(&mut self) {
        if self.read != self.given_back {
            self.given_back = self.read;
            // SAFETY: as in `new`. The kernel pairs it with an acquiring load before it reuses the space.
            unsafe { &*self.consumer.as_ptr().cast::<AtomicUsize>() }.store(self.read, Ordering::Release);
        }
    }
}
