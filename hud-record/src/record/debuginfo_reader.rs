//! Reads the target's debug information while recording goes on.
//!
//! It may be hundreds of megabytes, and an engineer waits. So the always-on streams begin without it; the probes, which
//! need to know which poll functions are a worker's loop, and the names of task types follow when it has been read.

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

/// How long recording waits for it, from its start: what most binaries need is less, and then the probes are there from
/// the start. Loading the kernel programs takes a part of that.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread that reads.
pub(super) struct DebugInfoReader {
    learned: Receiver<Tokio>,
    started: Instant,
}

/// What is known of the target's tokio by now.
pub(super) enum Learned {
    /// All there is to know.
    All(Box<Tokio>),
    /// More is to come.
    Pending(DebugInfoReader),
}

impl DebugInfoReader {
    /// Starts to read the binary at `path`.
    pub(super) fn start(mut tokio: Tokio, path: PathBuf, process: &Process, sources: Arc<Sources>) -> Result<Self> {
        let (pid, shown) = (process.pid, process.exe.clone());
        let (done, learned) = mpsc::sync_channel(1);
        let read = move || {
            privilege::enter_namer();
            let mut resolver = Resolver::new(sources, Some(pid));
            // Debug files lie beside the file that was given, where one was.
            let beside = if path.starts_with("/proc") { &shown } else { &path };
            let told = match resolver.open(&path, beside) {
                Some(file) => resolver.tokio(file, tokio.poll_addresses()),
                None => Err("cannot read the file".into()),
            };
            let told = told.unwrap_or_else(|how| {
                tokio.notes.push(format!("the debug information is not read: the process that does {how}"));
                TokioDebug::default()
            });
            tokio.learn(&told);
            // Nobody waits any more: recording has ended.
            let _ = done.send(tokio);
        };
        let started = thread::Builder::new().name("hud-learner".into()).spawn(read);
        started.map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(DebugInfoReader { learned, started: Instant::now() })
    }

    /// Waits for a moment, in which most binaries are read.
    pub(super) fn wait(self) -> Learned {
        match self.learned.recv_timeout(PATIENCE.saturating_sub(self.started.elapsed())) {
            Ok(tokio) => Learned::All(Box::new(tokio)),
            Err(_) => Learned::Pending(self),
        }
    }

    /// What was learned, once it is all read.
    pub(super) fn take(&self) -> Option<Tokio> {
        self.learned.try_recv().ok()
    }
}
