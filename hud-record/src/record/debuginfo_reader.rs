//! Reads the target's debug information while recording is in progress.
//!
//! It may be hundreds of megabytes, and the user is waiting. So the always-on streams begin without it; the probes,
//! which need to know the poll functions of workers' loops, and the names of task types follow once it has been read.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    inspect::{Process, Tokio, TokioDebug},
    privilege,
    symbols::{Resolver, Sources},
};

/// How long the start of recording waits for it: enough for most binaries, whose probes are then attached from the
/// start. It includes loading the kernel programs.
const PATIENCE: Duration = Duration::from_millis(500);

/// The reading thread.
pub(super) struct DebugInfoReader {
    learned: Receiver<Tokio>,
    started: Instant,
}

/// The state of reading.
pub(super) enum Learned {
    /// Finished.
    All(Box<Tokio>),
    /// In progress.
    Pending(DebugInfoReader),
}

impl DebugInfoReader {
    /// Starts to read the binary at `path`.
    pub(super) fn start(mut tokio: Tokio, path: PathBuf, process: &Process, sources: Arc<Sources>) -> Result<Self> {
        let (pid, shown) = (process.pid, process.tokio_file());
        let (done, learned) = mpsc::sync_channel(1);
        let read = move || {
            privilege::enter_namer();
            let mut resolver = Resolver::new(sources, Some(pid));
            // Debug files are beside the file that the user gave, if any.
            let beside = if path.starts_with("/proc") { &shown } else { &path };
            let debug = match resolver.open(&path, beside) {
                Some(file) => resolver.tokio(file, tokio.poll_addresses()),
                None => Err("cannot read the file".into()),
            };
            let debug = debug.unwrap_or_else(|how| {
                tokio.notes.push(format!("the debug information was not read: the sandboxed child {how}"));
                TokioDebug::default()
            });
            tokio.learn(&debug);
            // The receiver is gone: recording has ended.
            let _ = done.send(tokio);
        };
        let started = thread::Builder::new().name("hud-debuginfo".into()).spawn(read);
        started.map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(DebugInfoReader { learned, started: Instant::now() })
    }

    /// Waits for a moment, which suffices for most binaries; if the target is held, until all is read.
    pub(super) fn wait(self, is_held: bool) -> Learned {
        let learned = match is_held {
            true => self.learned.recv().ok(),
            false => self.learned.recv_timeout(PATIENCE.saturating_sub(self.started.elapsed())).ok(),
        };
        match learned {
            Some(tokio) => Learned::All(Box::new(tokio)),
            None => Learned::Pending(self),
        }
    }

    /// The result, once all is read.
    pub(super) fn take(&self) -> Option<Tokio> {
        self.learned.try_recv().ok()
    }
}
