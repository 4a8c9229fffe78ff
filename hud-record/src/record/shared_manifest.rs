//! A session's manifest, shared by the threads that change it.

use std::sync::{Arc, Mutex, PoisonError};

use hud_common::session::Manifest;

/// The session's manifest, which the recorder and the retention both write.
#[derive(Clone)]
pub(super) struct SharedManifest(Arc<Mutex<Manifest>>);

impl SharedManifest {
    pub(super) fn new(manifest: Manifest) -> Self {
        SharedManifest(Arc::new(Mutex::new(manifest)))
    }

    /// Changes it, without writing it, and returns the closure's result.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Manifest) -> T) -> T {
        // A manifest is consistent after each change, even if a thread panicked.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
