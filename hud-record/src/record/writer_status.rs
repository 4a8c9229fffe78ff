//! Status of the writing of a session, for the threads that watch it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The state of writing, for other threads.
#[derive(Debug, Default)]
pub(super) struct WriterStatus {
    /// Bytes of all segments sealed so far.
    pub(super) sealed_bytes: AtomicU64,
    /// Bytes of segments removed by retention.
    pub(super) expired_bytes: AtomicU64,
    /// Bytes of logs that are not sealed yet.
    pub(super) log_bytes: AtomicU64,
    /// Set after a write error other than a full disk; the recording then ends.
    pub(super) failed: AtomicBool,
    /// When rows of events were last written (ns since the epoch): ages are relative to it, so no data expires while a
    /// session is being closed.
    pub(super) newest: AtomicI64,
    /// Set while the disk is full.
    pub(super) is_paused: AtomicBool,
    /// How often writing resumed after a full disk: names may have been lost meanwhile.
    pub(super) resumed: AtomicU64,
    /// Rows not written because the disk was full or too slow.
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
