//! The program that hud starts: as the user who called hud, with the terminal, limits and environment that it would have
//! without hud.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Rlimit, pidfd_open};

use super::{
    held::{self, Arrival, Held, Reported},
    signals,
};
use crate::{
    error::{Error, Result},
    inspect::clean,
    privilege::{Owner, create_as},
    user::User,
};

/// Variables by which sudo describes its caller. The program runs as that caller.
const SUDO: [&str; 4] = ["SUDO_COMMAND", "SUDO_USER", "SUDO_UID", "SUDO_GID"];
/// Interval of looking whether hud is to end, while it waits for the program.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A program to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The user to run it as, if not hud's.
    pub owner: Option<Owner>,
    /// Where its output goes.
    pub output: Output,
    /// Its limit of open files, if hud has raised its own.
    pub open_files: Rlimit,
}

/// Where the output of a program goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// To hud's standard output and error; it reads hud's standard input.
    Inherited,
    /// To a new file; it has no input.
    File(PathBuf),
}

/// A program that hud has started.
pub(crate) struct Program {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    /// How it ended, once that was reported.
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts a program. It is held before its first instruction, unless it has no Tokio and executes no program that
    /// has (see [`Held::at_entry`]).
    pub(crate) fn start(launch: &Launch) -> Result<(Self, Option<Held>)> {
        let Some((name, arguments)) = launch.command.split_first() else { return Err(Error::NoTarget) };
        let failed = |source| Error::Start { program: name.into(), source };
        let mut command = Command::new(name);
        command.args(arguments);
        if let Output::File(path) = &launch.output {
            let file = new_file(path, launch.owner)?;
            command.stdin(Stdio::null()).stderr(file.try_clone().map_err(failed)?).stdout(file);
        }
        let user = launch.owner.map(|owner| (owner, User::of(owner.uid())));
        if let Some((_, Some(user))) = &user {
            for name in SUDO {
                command.env_remove(name);
            }
            command.env("HOME", &user.home).env("SHELL", &user.shell);
            command.env("USER", &user.name).env("LOGNAME", &user.name);
        }
        let rights = user.map(|(owner, user)| (owner, user.map_or_else(|| vec![owner.gid()], |user| user.groups())));
        let open_files = limit(launch.open_files);
        let prepare = move || {
            // SAFETY: the structure outlives the call.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const open_files) } != 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some((owner, groups)) = &rights {
                owner.become_for_good(groups)?;
            }
            // SAFETY: a system call without pointers.
            match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: in the child, only system calls on data that was prepared before.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        let mut program = Program { pid, pidfd: Arc::new(pidfd), ended: None };
        let held = program.arrived(Held::at_entry(pid).map_err(failed)?);
        Ok((program, held))
    }

    /// Holds the program after it has executed another one, for which the kernel has stopped it.
    pub(crate) fn hold_after_exec(&mut self) -> Option<Held> {
        match Held::after_exec(self.pid) {
            Ok(arrival) => self.arrived(arrival),
            Err(e) => {
                tracing::debug!("the program is not held after its exec: {e}");
                None
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) -> Option<Held> {
        match arrival {
            Arrival::Held(held) => Some(held),
            Arrival::Runs => None,
            Arrival::Ended(status) => {
                self.ended = Some(status);
                None
            }
        }
    }

    /// Lets it continue, if the kernel has stopped it after an exec that is not recorded.
    pub(crate) fn resume(&self) {
        held::resume(self.pid);
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// A descriptor of the process, even if its pid is another's by now.
    pub(crate) fn pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.pidfd)
    }

    /// Whether its end was reported.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Waits until it ends, unless `is_over` before. Returns its exit code, as shells do: 128 and the number of the signal
    /// that ended it.
    pub(crate) fn wait(&mut self, mut is_over: impl FnMut() -> bool) -> Result<Option<u8>> {
        let failed = |source| Error::Io { action: "wait for the program", source };
        while self.ended.is_none() {
            if signals::has_ended(&self.pidfd, LOOK_EVERY)
                && let Some(Reported::Ended(status)) = held::try_wait(self.pid).map_err(failed)?
            {
                self.ended = Some(status);
            } else if is_over() {
                return Ok(None);
            }
        }
        Ok(self.ended.map(code_of))
    }
}

/// The name by which a program is shown before it runs.
pub(crate) fn name_of(program: &OsStr) -> String {
    clean(&Path::new(program).file_name().unwrap_or(program).to_string_lossy())
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A file for a program's output, which must not exist.
fn new_file(path: &Path, owner: Option<Owner>) -> Result<File> {
    let failed = |source| Error::Output { path: path.into(), source };
    let is_denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let create = || hud_common::files::create_folder(folder)?.new_log(name);
    create_as(owner, path, is_denied, create).map(|(file, _)| file).map_err(failed)
}

fn limit(limit: Rlimit) -> libc::rlimit {
    let of = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    libc::rlimit { rlim_cur: of(limit.current), rlim_max: of(limit.maximum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        let of = |raw| code_of(ExitStatus::from_raw(raw));
        assert_eq!((of(0), of(3 << 8), of(libc::SIGTERM), of(libc::SIGSEGV | 0x80)), (0, 3, 143, 139));
    }
}
