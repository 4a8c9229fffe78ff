//! The errors of recording, as messages for the person at the terminal.
//!
//! A message is one line that can follow `hud-record: `; [`Error::help`] is the next step.

use std::{borrow::Cow, ffi::OsString, io, path::PathBuf};

use hud_common::session;

use crate::privilege;

/// Why recording failed or could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recorder process failed with this exit code, and has reported the reason.
    #[error("the recorder failed")]
    Recorder(Option<u8>),
    /// The program that hud started has ended with this exit code, and has reported the reason.
    #[error("the program exited with code {0}")]
    Program(u8),
    /// A program could not be started.
    #[error("cannot start {program:?}: {source}")]
    Start {
        /// The program.
        program: OsString,
        /// The system's error.
        source: io::Error,
    },
    /// `run` without a program.
    #[error("no program given")]
    NoProgram,
    /// The file for a program's output could not be created.
    #[error("cannot create {path} for the program's output: {source}", path = path.display())]
    Output {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Neither a name nor a pid.
    #[error("no target given")]
    NoTarget,
    /// No such process.
    #[error("no process has pid {0}")]
    NoSuchPid(u32),
    /// No process of that name.
    #[error("no process is named {0:?}")]
    NoSuchName(String),
    /// More than one.
    #[error("{} processes are named {name:?}: {}", found.len(), list(found))]
    ManyProcesses {
        /// The name.
        name: String,
        /// Pid and command line of each.
        found: Vec<(u32, String)>,
    },
    /// The target is hud itself.
    #[error("pid {0} is hud itself")]
    Myself(u32),
    /// The target's files may not be read.
    #[error("no permission to inspect pid {pid}: {source}")]
    Denied {
        /// The target.
        pid: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The target's memory may not be read.
    #[error("no permission to read the memory of pid {pid}: {source}")]
    NotReadable {
        /// The target.
        pid: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The target has exited.
    #[error("pid {0} exited before recording began")]
    Exited(u32),
    /// The target executed another program meanwhile.
    #[error("pid {0} executed another program while hud attached to it")]
    Executed(u32),
    /// The limit of open files is too low.
    #[error("hud needs {needed} open files, and the limit is {limit}")]
    OpenFiles {
        /// The number needed.
        needed: u64,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// The binary could not be read.
    #[error("cannot read the binary {path}: {source}", path = path.display())]
    Binary {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The binary is of a kind that hud cannot read.
    #[error("{path} is {what}", path = path.display())]
    NotSupported {
        /// Its path.
        path: PathBuf,
        /// A description of it.
        what: String,
    },
    /// The given file is another build than the running one.
    #[error("{path} is not the build that pid {pid} runs (build ids {given} and {running})", path = path.display())]
    OtherBuild {
        /// The file given.
        path: PathBuf,
        /// The target.
        pid: u32,
        /// Its build id.
        given: String,
        /// The running binary's build id.
        running: String,
    },
    /// No symbols, and no tokio recognized without them.
    #[error("{path} is stripped, and nothing in it has the shape of tokio's tasks", path = path.display())]
    Stripped {
        /// Its path.
        path: PathBuf,
    },
    /// Symbols, but none of tokio's.
    #[error("{path} is no tokio program: it has no tokio::runtime::task::raw::poll", path = path.display())]
    NotTokio {
        /// Its path.
        path: PathBuf,
    },
    /// The kernel denies it.
    #[error("the kernel refused {what}: {why}")]
    NoPermission {
        /// The operation.
        what: String,
        /// The kernel's error.
        why: String,
    },
    /// The kernel does not support it.
    #[error("no eBPF here: {what}: {why}")]
    NoBpf {
        /// The attempt.
        what: String,
        /// The system's error.
        why: String,
    },
    /// Pids here differ from those in the kernel, and cannot be translated.
    #[error(
        "pid {pid} cannot be recorded from here ({namespace}): it has a pid namespace of its own, or the kernel has no BTF"
    )]
    PidNamespace {
        /// The target.
        pid: u32,
        /// The namespace that hud runs in, as in `/proc/self/ns/pid`.
        namespace: String,
    },
    /// The kernel's verifier rejected one of hud's programs; a bug of hud's.
    #[error("Linux {release} rejects hud's kernel program {program}: {why}")]
    Rejected {
        /// The program.
        program: String,
        /// The kernel's release.
        release: String,
        /// The verifier's reason.
        why: String,
    },
    /// The kernel lets no program read its memory.
    #[error("the kernel is locked down (lockdown=confidentiality): hud's kernel programs may not read its memory")]
    LockedDown,
    /// A kernel program or map failed; a bug of hud's.
    #[error("{what}: {why}")]
    Kernel {
        /// The attempt.
        what: String,
        /// The result.
        why: String,
    },
    /// The session could not be written.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// Another system error.
    #[error("{action}: {source}")]
    Io {
        /// The attempt.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Rows were lost to a full disk.
    #[error("the disk was full: {rows} rows are missing{}; the rest of the session is complete", logs(*unsealed))]
    DiskFull {
        /// Rows that were counted and not written.
        rows: u64,
        /// Logs that could not be sealed.
        unsealed: usize,
    },
    /// A requested feature or object is not available.
    #[error("{0}")]
    Unavailable(String),
}

/// [`core::result::Result`] with hud-record's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// The next step, if there is one.
    pub fn help(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self {
            Error::NoTarget => "name a running process, give --pid PID, or start a program: -- CMD ARGS",
            Error::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "give its path; under sudo, PATH may be another one"
            }
            Error::NoProgram => "hud run -- CMD ARGS",
            Error::Output { .. } => "choose another folder with --export",
            Error::NoSuchPid(_) | Error::Exited(_) => "see `pgrep -a NAME` for what runs now",
            Error::Executed(_) => "run hud again to record the new program",
            Error::OpenFiles { .. } => "raise the limit: `ulimit -n 1024`, or LimitNOFILE= of the service",
            Error::NoSuchName(_) => "the name is that of the binary; see `ps -eo pid,comm,args`, or give --pid PID",
            Error::ManyProcesses { .. } => "pick one with --pid PID",
            Error::Myself(_) => "give the pid of the program to record",
            Error::Denied { .. } | Error::NoPermission { .. } => {
                let missing = privilege::missing_to_attach();
                if !missing.is_empty() {
                    return Some(Cow::Owned(format!(
                        "run as root (sudo), or give hud the missing capabilities: {}",
                        missing.join(", ")
                    )));
                }
                "run as root (sudo), or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and \
                 CAP_CHECKPOINT_RESTORE"
            }
            Error::NotReadable { .. } => {
                "run as the owner of the process, or as root (CAP_SYS_PTRACE); kernel.yama.ptrace_scope may forbid the \
                 former"
            }
            Error::Rejected { .. } => {
                "this is a bug of hud, not a lack of permissions: please report it with the output of `hud-record check`"
            }
            Error::LockedDown => {
                "see /sys/kernel/security/lockdown; it is set at boot, by `lockdown=` or by the distribution"
            }
            Error::DiskFull { .. } => "reduce --keep-size, or free disk space",
            Error::NoBpf { .. } => {
                "hud needs Linux 5.15 or newer with CONFIG_BPF_EVENTS and CONFIG_UPROBE_EVENTS; see `hud-record check`"
            }
            Error::PidNamespace { .. } => {
                "run hud in the same pid namespace, or on the host, from where it records containers too (`--pid=host`, `hostPID: true`)"
            }
            Error::Binary { .. } => "give the binary with --target BIN",
            Error::NotSupported { .. } => "hud records 64-bit x86 Linux programs",
            Error::OtherBuild { .. } => "omit --target, or give the unstripped file of the same build",
            Error::Stripped { .. } => {
                "hud records polls of tokio 1.23 or newer in the program's own binary; if it contains tokio, give the unstripped \
                 file of the same build with --target BIN; without --polls exact its threads are recorded"
            }
            Error::NotTokio { .. } => {
                "hud records polls of tokio 1.23 or newer in the program's own binary; without --polls exact and --target its \
                 threads are recorded"
            }
            Error::Session(session::Error::Exists(_)) => "sessions are never overwritten: choose another folder",
            Error::Session(session::Error::Io { .. }) => "choose another folder with --export",
            _ => return None,
        }))
    }

    /// Whether it only means that the target is not running: another one may start.
    pub fn is_gone(&self) -> bool {
        matches!(self, Error::NoSuchPid(_) | Error::NoSuchName(_) | Error::Exited(_) | Error::Executed(_))
    }

    /// The exit codes: 77 for no permission or no eBPF, 2 for usage, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Denied { .. }
            | Error::NotReadable { .. }
            | Error::NoPermission { .. }
            | Error::NoBpf { .. }
            | Error::LockedDown
            | Error::PidNamespace { .. } => 77,
            Error::NoTarget | Error::NoProgram => 2,
            Error::Recorder(code) => code.unwrap_or(1),
            Error::Program(code) => *code,
            // As shells do.
            Error::Start { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => 127,
                io::ErrorKind::PermissionDenied => 126,
                _ => 1,
            },
            _ => 1,
        }
    }
}

fn logs(unsealed: usize) -> String {
    match unsealed {
        0 => String::new(),
        n => format!(", and {n} logs wait to be sealed"),
    }
}

fn list(found: &[(u32, String)]) -> String {
    let shown: Vec<_> = found.iter().take(8).map(|(pid, command)| format!("{pid} ({command})")).collect();
    let more = if found.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
