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
    time::Duration,
};

use crate::{
    error::{Error, Result},
    intake::{Intake, protocol::TokioDebug},
    names::{Cache, Resolver, Sources},
    privilege,
    target::{Binary, Process, Tokio},
};

/// How long recording waits for it: what most binaries need is less, and then the probes are there from the start.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread that reads.
pub(super) struct Learner(Receiver<Tokio>);

/// What is known of the target's tokio by now.
pub(super) enum Learned {
    /// All there is to know.
    All(Box<Tokio>),
    /// More is to come.
    Pending(Learner),
}

impl Learner {
    /// Starts to read `binary`, and waits for a moment.
    pub(super) fn start(mut tokio: Tokio, path: PathBuf, process: &Process) -> Result<Learned> {
        // A child of its own: names must not wait for seconds behind it.
        let intake = Intake::start_urgent()?;
        let (pid, shown) = (process.pid, process.exe.clone());
        let (done, learned) = mpsc::sync_channel(1);
        let read = move || {
            privilege::enter_namer();
            let sources = Arc::new(Sources::new(intake, Cache::default()));
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
            // A binary that can't be opened any more teaches nothing; what was guessed stands.
            if let Ok(binary) = Binary::open(&path, &shown) {
                tokio.learn(&binary, &told);
            }
            // Nobody waits any more: recording has ended.
            let _ = done.send(tokio);
        };
        let started = thread::Builder::new().name("hud-learner".into()).spawn(read);
        started.map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(match learned.recv_timeout(PATIENCE) {
            Ok(tokio) => Learned::All(Box::new(tokio)),
            Err(_) => Learned::Pending(Learner(learned)),
        })
    }

    /// What was learned, once it is all read.
    pub(super) fn take(&self) -> Option<Tokio> {
        self.0.try_recv().ok()
    }
}
