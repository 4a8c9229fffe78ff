//! How the writing of a session goes, for the threads that watch it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// How the writing goes, for whoever watches.
#[derive(Debug, Default)]
pub(super) struct WriterStatus {
    /// Bytes of sealed segments, in all.
    pub(super) sealed_bytes: AtomicU64,
    /// Of these, bytes that retention removed.
    pub(super) expired_bytes: AtomicU64,
    /// Bytes of logs that are not sealed yet.
    pub(super) log_bytes: AtomicU64,
    /// Set once something could not be written that is no matter of room; the recording then ends.
    pub(super) failed: AtomicBool,
    /// When rows of events came last (ns since the epoch): ages are counted from here, so that none passes while a session
    /// is being closed.
    pub(super) newest: AtomicI64,
    /// Set while the disk is full.
    pub(super) is_paused: AtomicBool,
    /// How often writing was taken up again: names may have been lost meanwhile.
    pub(super) resumed: AtomicU64,
    /// Rows not written because the disk was full, or too slow.
    pub(super) rows_dropped: AtomicU64,
}

impl WriterStatus {
    /// Bytes of the session's tables.
    pub(super) fn bytes(&self) -> u64 {
        let sealed = self.sealed_bytes.load(Ordering::Relaxed);
        let expired = self.expired_bytes.load(Ordering::Relaxed);
        sealed.saturating_sub(expired) + self.log_bytes.load(Ordering::Relaxed)
    }
}
