//! Kernel programs that are attached and detached as a whole, while recording goes on.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya_obj::generated::bpf_cmd;

use crate::{bpf, privilege};

/// Programs that can be attached and detached.
pub(crate) trait Attach: Send {
    /// Attaches all of them. Attached ones stay.
    fn attach(&mut self) -> io::Result<()>;
    /// Detaches all of them.
    fn detach(&mut self);
    /// Whether they are attached.
    fn is_attached(&self) -> bool;
}

/// Programs at BTF tracepoints, each loaded for its own.
#[derive(Debug)]
pub(crate) struct Tracepoints {
    programs: Vec<OwnedFd>,
    links: Vec<OwnedFd>,
}

impl Tracepoints {
    /// These programs, detached.
    pub(crate) fn new(programs: Vec<OwnedFd>) -> Self {
        Tracepoints { programs, links: Vec::new() }
    }
}

impl Attach for Tracepoints {
    fn attach(&mut self) -> io::Result<()> {
        for program in self.programs.iter().skip(self.links.len()) {
            let mut attr = bpf::zeroed();
            // Without a name: the program was loaded for one tracepoint (`bpf_raw_tp_link_attach`,
            // kernel/bpf/syscall.c).
            attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
            self.links.push(bpf::open(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?);
        }
        Ok(())
    }

    fn detach(&mut self) {
        self.links.clear();
    }

    fn is_attached(&self) -> bool {
        !self.links.is_empty()
    }
}

/// Attaches and detaches programs without making the caller wait: on a thread of its own, as the kernel takes up to a
/// tenth of a second.
#[derive(Debug)]
pub(crate) struct Switch {
    wish: Option<Sender<bool>>,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

const OFF: u8 = 0;
const ON: u8 = 1;
const GOING_ON: u8 = 2;
const GOING_OFF: u8 = 3;
const REFUSED: u8 = 4;
/// How long after a refusal the programs may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Switch {
    /// Takes over `programs` as they are, attached or not.
    ///
    /// If they are refused, as memory may be short, they are detached and may be tried again after a minute.
    pub(crate) fn new(name: &str, mut programs: impl Attach + 'static) -> io::Result<Self> {
        let state = Arc::new(AtomicU8::new(if programs.is_attached() { ON } else { OFF }));
        let (wish, wishes) = mpsc::channel();
        let told = Arc::clone(&state);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            privilege::enter_attacher();
            let mut refused: Option<Instant> = None;
            loop {
                match wishes.recv_timeout(Duration::from_secs(1)) {
                    Ok(true) => match programs.attach() {
                        Ok(()) => told.store(ON, Ordering::Release),
                        Err(e) => {
                            programs.detach();
                            tracing::warn!("the probes could not be put on again, next try in a minute: {e}");
                            told.store(REFUSED, Ordering::Release);
                            refused = Some(Instant::now());
                        }
                    },
                    Ok(false) => {
                        programs.detach();
                        told.store(OFF, Ordering::Release);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if refused.take_if(|at| at.elapsed() >= RETRY_AFTER).is_some() {
                            told.store(OFF, Ordering::Release);
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            programs.detach();
        })?;
        Ok(Switch { wish: Some(wish), state, thread: Some(thread) })
    }

    /// Attaches or detaches them, soon.
    pub(crate) fn turn(&self, on: bool) {
        self.state.store(if on { GOING_ON } else { GOING_OFF }, Ordering::Release);
        // If the thread has panicked, the state stays as it is.
        let _ = self.wish.as_ref().map(|w| w.send(on));
    }

    /// Whether all are attached.
    pub(crate) fn is_on(&self) -> bool {
        self.state.load(Ordering::Acquire) == ON
    }

    /// Whether they are being attached.
    pub(crate) fn goes_on(&self) -> bool {
        self.state.load(Ordering::Acquire) == GOING_ON
    }

    /// Whether all are detached, and were not refused.
    pub(crate) fn is_off(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFF
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.wish = None;
        if let Some(thread) = self.thread.take() {
            // It only detaches; after a panic there, the end of this process does.
            let _ = thread.join();
        }
    }
}
