//! The ring of events, read in place.
//!
//! aya's own reader gives room back record by record. The word that says so is read by the kernel at each event, on other
//! CPUs: a million times a second it would travel between their caches. Here it is written once in [`GIVE_BACK`] bytes.
//!
//! The layout is that of kernel/bpf/ringbuf.c: a page with the consumer's position, one with the producer's, then the data
//! twice in a row, so that no record is cut at the end. It is mapped once here, or its 8 MB would count twice as memory of
//! hud's; a record that is cut at the end is put together. A record is preceded by a word for its length and two flags,
//! and one that is of no use to anybody, and begins at a multiple of eight.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

const HEADER: usize = 8;
/// Not written whole yet.
const BUSY: u32 = 1 << 31;
/// To be passed over.
const DISCARDED: u32 = 1 << 30;
/// Bytes after which room is given back: a hundredth of the ring.
const GIVE_BACK: usize = 64 << 10;

/// What a look at the ring came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// Bytes of the records that were taken.
    pub(crate) bytes: usize,
    /// Whether the ring is then empty, or its next record is not written whole yet.
    pub(crate) is_empty: bool,
}

/// The reading end of a ring buffer. There is one of it.
#[derive(Debug)]
pub(crate) struct Ring {
    consumer: MmapRaw,
    producer: MmapRaw,
    page: usize,
    size: usize,
    /// What is read so far, and what of it was given back.
    read: usize,
    given_back: usize,
    /// A record that was cut.
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
        // SAFETY: the first word of the page that was just mapped, and stays so for as long as this lives.
        let read = unsafe { &*consumer.as_ptr().cast::<AtomicUsize>() }.load(Ordering::Acquire);
        Ok(Ring { consumer, producer, page, size, read, given_back: read, cut: Vec::new(), _map: map })
    }

    /// Gives each record to `take`, at most `most` of them.
    pub(crate) fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> Drained {
        let (mut end, from) = (self.read, self.read);
        let mut is_empty = false;
        for _ in 0..most {
            if self.read == end {
                end = self.produced();
            }
            let at = self.read & (self.size - 1);
            // Otherwise it is no ring of the kernel's: a word is never cut, and no record is longer than the data.
            if self.read == end || at + HEADER > self.size {
                is_empty = true;
                break;
            }
            let record = self.producer.as_ptr().wrapping_add(self.page + at);
            // SAFETY: a word of the mapping, aligned, as positions are multiples of eight. The kernel writes it last, with
            // a full barrier, so what it says of the record is true once the flag is gone.
            let header = unsafe { &*record.cast::<AtomicU32>() }.load(Ordering::Acquire);
            let len = usize::try_from(header & !(BUSY | DISCARDED)).unwrap_or(usize::MAX / 2);
            if header & BUSY != 0 || len > self.size - HEADER {
                is_empty = true;
                break;
            }
            if header & DISCARDED == 0 {
                let start = at + HEADER;
                let head = len.min(self.size - start);
                // SAFETY: within the data, the one from where the record begins to the end of one of them, the other from
                // the start of the data; nobody writes there until its room is given back, which is done below, when the
                // slices are gone.
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
            // SAFETY: as in `new`. The kernel pairs it with an acquiring load before it uses the room again.
            unsafe { &*self.consumer.as_ptr().cast::<AtomicUsize>() }.store(self.read, Ordering::Release);
        }
    }
}
