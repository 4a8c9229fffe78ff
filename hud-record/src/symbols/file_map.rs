//! Files as the confined child maps them: for good, but with a bound on how much of them is in its memory.
//!
//! Debug information is read here and there, so that in time every page of a file of hundreds of megabytes would be
//! resident. They are the page cache's, yet they are counted as the child's. Whoever reads calls [`relieve`] now and then,
//! which lets go of all pages once many came; what is needed again is mapped again, without a read from disk.

use std::{
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use memmap2::{Mmap, UncheckedAdvice};

/// Page faults after which pages are let go of. The kernel maps up to 16 pages with each (`fault_around_bytes`): 64 MB.
const MOST_FAULTS: i64 = 1000;
/// Files that stay as they are.
const SMALL: usize = 1 << 20;

static MAPPED: Mutex<Mapped> = Mutex::new(Mapped { files: Vec::new(), faults: 0 });

struct Mapped {
    files: Vec<&'static Mmap>,
    /// At the time when pages were last let go of.
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
    // SAFETY: the mapping is read only. A file that is truncated while it is read ends this process by SIGBUS, which is
    // what it is there for; one that is written to yields other bytes, and none is trusted.
    unsafe { Mmap::map(file) }
}

/// Lets go of pages, where many have come.
pub(crate) fn relieve() {
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = faults();
    if faults - mapped.faults < MOST_FAULTS {
        return;
    }
    mapped.faults = faults;
    for file in &mapped.files {
        // SAFETY: the pages are a file's, mapped read only: whoever reads them again is given them again.
        let _ = unsafe { file.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

fn faults() -> i64 {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it is written to for the time of the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_minflt.saturating_add(usage.ru_majflt)
}
