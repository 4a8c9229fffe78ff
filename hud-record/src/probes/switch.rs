//! Kernel programs that are attached and detached as a whole, during the recording.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya_obj::generated::bpf_cmd;

use crate::{bpf, kernel, privilege};

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
    request: Option<Sender<bool>>,
    state: Arc<AtomicU8>,
    /// CPU time of attaching and detaching so far (ns).
    spent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

const OFF: u8 = 0;
const ON: u8 = 1;
const ATTACHING: u8 = 2;
const DETACHING: u8 = 3;
const REFUSED: u8 = 4;
/// How long after a refusal the programs may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Switch {
    /// Takes over `programs` as they are, attached or not.
    ///
    /// If they are refused, as memory may be short, they are detached and may be tried again after a minute.
    pub(crate) fn new(name: &str, mut programs: impl Attach + 'static) -> io::Result<Self> {
        let state = Arc::new(AtomicU8::new(if programs.is_attached() { ON } else { OFF }));
        let (request, requests) = mpsc::channel();
        let reported = Arc::clone(&state);
        let spent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&spent);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            privilege::enter_attacher();
            let mut refused: Option<Instant> = None;
            loop {
                match requests.recv_timeout(Duration::from_secs(1)) {
                    Ok(true) => match programs.attach() {
                        Ok(()) => reported.store(ON, Ordering::Release),
                        Err(e) => {
                            programs.detach();
                            tracing::warn!("the probes could not be attached again, next try in a minute: {e}");
                            reported.store(REFUSED, Ordering::Release);
                            refused = Some(Instant::now());
                        }
                    },
                    Ok(false) => {
                        programs.detach();
                        reported.store(OFF, Ordering::Release);
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if refused.take_if(|at| at.elapsed() >= RETRY_AFTER).is_some() {
                            reported.store(OFF, Ordering::Release);
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                counted.store(kernel::thread_cpu_time(), Ordering::Relaxed);
            }
            programs.detach();
        })?;
        Ok(Switch { request: Some(request), state, spent, thread: Some(thread) })
    }

    /// Attaches or detaches them, soon.
    pub(crate) fn turn(&self, on: bool) {
        self.state.store(if on { ATTACHING } else { DETACHING }, Ordering::Release);
        // If the thread has panicked, the state stays as it is.
        let _ = self.request.as_ref().map(|w| w.send(on));
    }

    /// CPU time that attaching and detaching has taken so far (ns): the target waits for about as long, as the kernel
    /// holds the lock of its memory for each place.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether all are attached.
    pub(crate) fn is_on(&self) -> bool {
        self.state.load(Ordering::Acquire) == ON
    }

    /// Whether they are being attached.
    pub(crate) fn is_attaching(&self) -> bool {
        self.state.load(Ordering::Acquire) == ATTACHING
    }

    /// Whether all are detached, and were not refused.
    pub(crate) fn is_off(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFF
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.request = None;
        if let Some(thread) = self.thread.take() {
            // It only detaches; after a panic there, the end of this process does.
            let _ = thread.join();
        }
    }
}
