//! File mappings of the sandboxed child: they are never unmapped, but their resident size is bounded.
//!
//! Debug information is read at random, so in time every page of a file of hundreds of megabytes would be resident. The
//! pages belong to the page cache but count as the child's. The reader calls [`relieve`] regularly, which releases all
//! pages after many page faults; a page needed again is mapped again without a read from disk.

use std::{
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use memmap2::{Mmap, UncheckedAdvice};

/// Page faults after which pages are released. The kernel maps up to 16 pages at each (`fault_around_bytes`): 64 MB.
const MOST_FAULTS: i64 = 1000;
/// Files below this size are left alone.
const SMALL: usize = 1 << 20;

static MAPPED: Mutex<Mapped> = Mutex::new(Mapped { files: Vec::new(), faults: 0 });

struct Mapped {
    files: Vec<&'static Mmap>,
    /// When pages were last released.
    faults: i64,
}

/// Keeps a mapping until the process ends.
pub(super) fn keep(file: Mmap) -> &'static [u8] {
    let file: &'static Mmap = Box::leak(Box::new(file));
    if file.len() >= SMALL {
        MAPPED.lock().unwrap_or_else(PoisonError::into_inner).files.push(file);
    }
    file
}

/// Maps a file, read only.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read only. If the file is truncated, SIGBUS ends this process, which is expendable; if it
    // is written to, other bytes are read, and none is trusted.
    unsafe { Mmap::map(file) }
}

/// Releases pages after many page faults.
pub(crate) fn relieve() {
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = faults();
    if faults - mapped.faults < MOST_FAULTS {
        return;
    }
    mapped.faults = faults;
    for file in &mapped.files {
        // SAFETY: the pages are a file's, mapped read only, so a later read maps them again.
        let _ = unsafe { file.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

fn faults() -> i64 {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes `usage` only while it runs.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_minflt.saturating_add(usage.ru_majflt)
}
