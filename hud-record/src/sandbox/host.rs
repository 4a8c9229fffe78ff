//! The host: starts the sandboxed child, sends it requests, limits its time and memory, and replaces it when it ends.
//!
//! A thread of its own owns the child while hud is attached, because the child dies with its parent thread. All
//! sessions share the child. Requests are served one at a time, and the caller waits.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    confine::Confinement,
    framing,
    protocol::{ARGUMENT, Answer, Request},
};
use crate::{
    error::{Error, Result},
    kernel, privilege,
};

/// CPU time limit of one answer. The largest files of debug information, once decompressed, take a few seconds.
const MOST_CPU: Duration = Duration::from_secs(20);
/// CPU time limit of requests made once: reading the types in hundreds of megabytes of debug information.
const MOST_CPU_ONCE: Duration = Duration::from_secs(60);
/// Wall-clock limit, for a machine on which the child hardly gets a CPU.
const MOST_TIME: Duration = Duration::from_secs(120);
/// Heap size beyond which a child is replaced after its answer. Its modules are opened again on demand.
const MOST_HEAP: u64 = 192 << 20;
/// A child is not replaced before this age: a file whose debug information decompresses to more must still be served.
const LEAST_LIFE: Duration = Duration::from_secs(10);
/// Crashes after which hud gives up on symbols.
const MOST_CRASHES: u32 = 100;

/// Identifies a child: module ids are valid for one child only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// The child that had opened the module has ended; this request was not the cause.
    #[error("the sandboxed child was restarted")]
    Restarted,
    /// The child ended while it served this request.
    #[error("the sandboxed child {0}")]
    Crashed(String),
    /// There is no child and no further one will be started.
    #[error("there is no sandboxed child: {0}")]
    Unavailable(String),
}

struct Job {
    /// The only child that may answer; `None` if any may.
    generation: Option<Generation>,
    request: Request,
    files: Vec<OwnedFd>,
    reply: SyncSender<std::result::Result<(Generation, Answer), AskError>>,
}

/// A sandboxed child process that parses the files that the target controls.
pub struct Sandbox {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    current: Arc<Mutex<Option<(u32, Confinement)>>>,
}

impl Sandbox {
    /// Starts this program, or a given hud-record, as the child, at low priority.
    pub fn start(program: Option<&Path>) -> Result<Self> {
        Self::start_at(program.unwrap_or(Path::new(ITSELF)), Urgency::Idle)
    }

    /// Starts a child at normal priority, for requests that the start of recording waits for.
    pub(crate) fn start_urgent(program: Option<&Path>) -> Result<Self> {
        Self::start_at(program.unwrap_or(Path::new(ITSELF)), Urgency::Waiting)
    }

    fn start_at(program: &Path, urgency: Urgency) -> Result<Self> {
        let (jobs, incoming) = mpsc::channel();
        let current = Arc::new(Mutex::new(None));
        let mut host =
            Host { program: program.into(), child: None, next: 0, crashes: 0, current: Arc::clone(&current) };
        let thread = thread::Builder::new()
            .name("hud-sandbox".into())
            .spawn(move || {
                if urgency == Urgency::Idle {
                    // The child inherits the niceness.
                    privilege::lower_priority();
                }
                privilege::enter_sandbox_host();
                host.run(&incoming);
            })
            .map_err(|source| Error::Io { action: "start a thread", source })?;
        Ok(Sandbox { jobs: Some(jobs), thread: Some(thread), current })
    }

    /// The child's process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).map(|(pid, _)| pid)
    }

    /// Which measures confine the child, if it runs.
    pub fn confinement(&self) -> Option<Confinement> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).map(|(_, confinement)| confinement)
    }

    /// Sends a request and waits for the answer. With a generation, only that child may answer.
    pub(crate) fn ask(
        &self,
        generation: Option<Generation>,
        request: Request,
        files: Vec<OwnedFd>,
    ) -> std::result::Result<(Generation, Answer), AskError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let gone = |_| AskError::Unavailable("its thread has ended".into());
        if let Some(jobs) = &self.jobs {
            jobs.send(Job { generation, request, files, reply }).map_err(|e| gone(e.to_string()))?;
        }
        answer.recv().map_err(|e| gone(e.to_string()))?
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The running program, even if another version was installed over it.
const ITSELF: &str = "/proc/self/exe";

/// Whether the start of recording waits for the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// Symbols can wait; the target comes first.
    Idle,
    /// Attaching the probes waits.
    Waiting,
}

struct Host {
    program: PathBuf,
    child: Option<Running>,
    next: u64,
    crashes: u32,
    current: Arc<Mutex<Option<(u32, Confinement)>>>,
}

struct Running {
    process: Child,
    socket: UnixStream,
    generation: Generation,
    born: Instant,
}

impl Host {
    fn run(&mut self, incoming: &Receiver<Job>) {
        // Started early, so that the first symbols come at once.
        let _ = self.running();
        while let Ok(job) = incoming.recv() {
            let answer = self.serve(job.generation, &job.request, &job.files);
            // The caller has gone: recording has ended.
            let _ = job.reply.send(answer);
        }
        self.end_child();
    }

    fn serve(
        &mut self,
        wanted: Option<Generation>,
        request: &Request,
        files: &[OwnedFd],
    ) -> std::result::Result<(Generation, Answer), AskError> {
        let child = self.running()?;
        let generation = child.generation;
        if wanted.is_some_and(|wanted| wanted != generation) {
            return Err(AskError::Restarted);
        }
        let files: Vec<_> = files.iter().map(|f| f.as_fd()).collect();
        if let Err(e) = framing::send(&child.socket, request, &files) {
            // The child has not received the request.
            tracing::debug!("the sandboxed child has ended: {e}");
            self.end_child();
            return Err(AskError::Restarted);
        }
        let most_cpu =
            if matches!(request, Request::Tokio { .. } | Request::Layouts { .. }) { MOST_CPU_ONCE } else { MOST_CPU };
        match child.answer(most_cpu) {
            Ok(answer) => {
                let is_fat = child.heap() > MOST_HEAP && child.born.elapsed() >= LEAST_LIFE;
                if is_fat {
                    tracing::debug!("the sandboxed child's heap is large: it is replaced");
                    self.end_child();
                }
                Ok((generation, answer))
            }
            Err(e) => {
                self.crashes += 1;
                let how = self.end_child().unwrap_or_else(|| e.to_string());
                let how = if e.kind() == io::ErrorKind::TimedOut { e.to_string() } else { how };
                tracing::warn!("the sandboxed child {how}; another one is started");
                Err(AskError::Crashed(how))
            }
        }
    }

    /// The child, started if there is none. One that was killed while idle is replaced silently.
    fn running(&mut self) -> std::result::Result<&mut Running, AskError> {
        if self.child.as_mut().is_some_and(|c| !matches!(c.process.try_wait(), Ok(None))) {
            self.end_child();
        }
        if self.child.is_none() {
            if self.crashes >= MOST_CRASHES {
                return Err(AskError::Unavailable(format!("it crashed {MOST_CRASHES} times")));
            }
            let generation = Generation(self.next);
            self.next += 1;
            match Running::start(&self.program, generation) {
                Ok((child, confinement)) => {
                    tracing::debug!(pid = child.process.id(), ?confinement, "sandboxed child started");
                    self.publish(Some((child.process.id(), confinement)));
                    self.child = Some(child);
                }
                Err(e) => {
                    self.crashes += 1;
                    tracing::warn!("cannot start the sandboxed child: {e}");
                    return Err(AskError::Unavailable(e.to_string()));
                }
            }
        }
        self.child.as_mut().ok_or_else(|| AskError::Unavailable("it is gone".into()))
    }

    /// Ends the child. Reports how it ended if it had ended by itself.
    fn end_child(&mut self) -> Option<String> {
        self.publish(None);
        let mut child = self.child.take()?;
        // A child that ended by itself closes its socket a moment before it can be waited for.
        let mut ended = None;
        for _ in 0..20 {
            ended = child.process.try_wait().ok().flatten();
            if ended.is_some() || !child.has_hung_up() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        drop(child);
        let ended = ended?;
        Some(match (ended.signal(), ended.code()) {
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, code) => format!("ended with code {}", code.unwrap_or(-1)),
        })
    }

    fn publish(&self, child: Option<(u32, Confinement)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }
}

impl Running {
    fn start(program: &Path, generation: Generation) -> io::Result<(Self, Confinement)> {
        let (socket, others) = UnixStream::pair()?;
        let process = Command::new(program)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(others))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at a terminal is for hud.
            .process_group(0)
            .spawn()?;
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(MOST_CPU))?;
        let mut child = Running { process, socket, generation, born: Instant::now() };
        match child.answer(MOST_CPU)? {
            Answer::Hello(confinement) => Ok((child, confinement)),
            _ => Err(io::Error::other("the program is not hud's sandboxed child")),
        }
    }

    /// Waits for an answer within the time limits.
    fn answer(&mut self, most_cpu: Duration) -> io::Result<Answer> {
        let (began, cpu) = (Instant::now(), self.cpu_time());
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(answer) = framing::decode(&bytes)? {
                return Ok(answer);
            }
            let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&wait)).is_ok_and(|n| n > 0) {
                match self.socket.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                }
            }
            let used = self.cpu_time().saturating_sub(cpu);
            if used > most_cpu || began.elapsed() > MOST_TIME {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "took too long"));
            }
        }
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(kernel::cpu_time(self.process.id()).unwrap_or_default())
    }

    /// The child's own memory, without mapped files.
    fn heap(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap_or_default();
        let mut pages = statm.split(' ').map(|n| n.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (pages.nth(1).unwrap_or(0), pages.next().unwrap_or(0));
        resident.saturating_sub(shared).saturating_mul(rustix::param::page_size().try_into().unwrap_or(4096))
    }

    fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut fds, Some(&at_once));
        fds.first().is_some_and(|fd| fd.revents().contains(PollFlags::HUP))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // If hud may not signal the child, closing its socket ends it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
