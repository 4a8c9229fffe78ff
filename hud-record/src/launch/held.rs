//! Holds a program that hud starts at its entry point, by ptrace.
//!
//! There the dynamic linker has mapped the program and its libraries and has relocated their data, by which task types
//! of a stripped binary are found, and no instruction of the program itself has run. A static program relocates itself
//! after its entry, before its first system call: it is held at that. Nothing of this is left once the program
//! continues.

use std::{
    fs, io,
    marker::PhantomData,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    ptr, thread,
    time::{Duration, Instant},
};

use libc::c_int;
use rustix::process::Pid;

use crate::inspect::{Process, search};

/// `AT_BASE` and `AT_ENTRY` of getauxval(3): the address of the dynamic linker, and of the program's entry point.
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
/// Time for which a program without Tokio is expected to execute another one, as `env`, `nice` and scripts do.
const WRAPPER: Duration = Duration::from_secs(1);
/// Interval of looking whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Time until a program that the kernel stops at an exec has stopped.
const TO_STOP: Duration = Duration::from_secs(1);

/// Options of ptrace: kill the program if hud ends while it holds it, report an exec, and mark stops at system calls.
const OPTIONS: usize = 0x10_0000 | 0x10 | 0x1;

/// The C libraries' types of a request.
#[cfg(target_env = "musl")]
type Request = c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// A program that is held. Continues when dropped, and is killed if hud is.
///
/// Only the thread that started the program may continue it.
pub(crate) struct Held {
    pid: Pid,
    thread: PhantomData<*const ()>,
}

/// A state of the program that wait(2) reported.
pub(super) enum Reported {
    /// It is stopped by this signal, or by this event of ptrace.
    Stopped { signal: c_int, event: c_int },
    /// It has ended.
    Ended(ExitStatus),
}

/// What became of a program on its way to the entry point.
pub(super) enum Arrival {
    /// It is held.
    Held(Held),
    /// It runs: it has no Tokio and is no wrapper of another program.
    Runs,
    /// It has ended.
    Ended(ExitStatus),
}

impl Held {
    /// Takes a program that has called `PTRACE_TRACEME` and executed its file, and holds it at its entry point. If it has no
    /// Tokio, the program that it executes within [`WRAPPER`] is held instead.
    pub(super) fn at_entry(pid: Pid) -> io::Result<Arrival> {
        let held = Held { pid, thread: PhantomData };
        if let Reported::Ended(status) = wait(pid)? {
            return Ok(Arrival::Ended(held.has_ended(status)));
        }
        held.request(libc::PTRACE_SETOPTIONS, 0, OPTIONS)?;
        held.run_to_tokio()
    }

    /// Takes a program that the kernel stops after an exec, and holds it in the same way.
    pub(super) fn after_exec(pid: Pid) -> io::Result<Arrival> {
        let until = Instant::now() + TO_STOP;
        loop {
            match wait_with(pid, libc::WNOHANG | libc::WUNTRACED)? {
                Some(Reported::Stopped { .. }) => break,
                Some(Reported::Ended(status)) => return Ok(Arrival::Ended(status)),
                None if Instant::now() >= until => return Ok(Arrival::Runs),
                None => thread::sleep(LOOK_EVERY),
            }
        }
        let held = Held { pid, thread: PhantomData };
        if let Err(e) = held.request(libc::PTRACE_SEIZE, 0, OPTIONS) {
            // Another tracer has it, a debugger for example.
            std::mem::forget(held);
            resume(pid);
            return Err(e);
        }
        if let Reported::Ended(status) = wait(pid)? {
            return Ok(Arrival::Ended(held.has_ended(status)));
        }
        // From here on it would continue if hud ended.
        resume(pid);
        held.run_to_tokio()
    }

    /// Holds the program at its entry point, or if it has no Tokio, the one that it executes.
    fn run_to_tokio(self) -> io::Result<Arrival> {
        loop {
            if let Some(status) = self.run_to_entry()? {
                return Ok(Arrival::Ended(self.has_ended(status)));
            }
            if has_tokio(self.pid) {
                return Ok(Arrival::Held(self));
            }
            match self.run_to_exec()? {
                Wrapper::Executed => {}
                Wrapper::Ended(status) => return Ok(Arrival::Ended(self.has_ended(status))),
                // Dropping it lets it continue.
                Wrapper::Stays => return Ok(Arrival::Runs),
            }
        }
    }

    /// Lets the program continue.
    pub(crate) fn release(self) {
        drop(self);
    }

    /// Kills the program, of which nothing has run.
    pub(crate) fn kill(self) {
        // SAFETY: a system call without pointers.
        let _ = unsafe { libc::kill(self.pid.as_raw_nonzero().get(), libc::SIGKILL) };
        while !matches!(wait(self.pid), Ok(Reported::Ended(_)) | Err(_)) {}
        std::mem::forget(self);
    }

    /// Its end was reported: its pid may be another process's.
    fn has_ended(self, status: ExitStatus) -> ExitStatus {
        std::mem::forget(self);
        status
    }

    /// Runs the program up to its entry point. Returns its status if it ended before.
    fn run_to_entry(&self) -> io::Result<Option<ExitStatus>> {
        let (entry, is_static) = self.entry()?;
        let code = self.peek(entry)?;
        self.poke(entry, (code & !arch::BREAKPOINT_MASK) | arch::BREAKPOINT)?;
        if let Some(status) = self.run_until(libc::PTRACE_CONT, |signal| {
            Ok(signal == libc::SIGTRAP && self.program_counter()? == entry + arch::BEHIND_BREAKPOINT)
        })? {
            return Ok(Some(status));
        }
        self.poke(entry, code)?;
        self.request(libc::PTRACE_POKEUSER, arch::PROGRAM_COUNTER, usize_of(entry)?)?;
        if !is_static {
            return Ok(None);
        }
        self.run_until(libc::PTRACE_SYSCALL, |signal| Ok(signal == (libc::SIGTRAP | 0x80)))
    }

    /// Runs the program until it executes another one.
    fn run_to_exec(&self) -> io::Result<Wrapper> {
        let until = Instant::now() + WRAPPER;
        self.request(libc::PTRACE_CONT, 0, 0)?;
        while Instant::now() < until {
            match try_wait(self.pid)? {
                None => thread::sleep(LOOK_EVERY),
                Some(Reported::Ended(status)) => return Ok(Wrapper::Ended(status)),
                Some(Reported::Stopped { event: libc::PTRACE_EVENT_EXEC, .. }) => return Ok(Wrapper::Executed),
                Some(Reported::Stopped { signal, .. }) => self.request(libc::PTRACE_CONT, 0, number(signal)?)?,
            }
        }
        // To be detached, it must be stopped.
        // SAFETY: a system call without pointers.
        if unsafe { libc::kill(self.pid.as_raw_nonzero().get(), libc::SIGSTOP) } != 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            match wait(self.pid)? {
                Reported::Ended(status) => return Ok(Wrapper::Ended(status)),
                Reported::Stopped { event: libc::PTRACE_EVENT_EXEC, .. } => {
                    // The signal still arrives, at the new program's first instruction.
                    self.request(libc::PTRACE_CONT, 0, 0)?;
                    if let Reported::Ended(status) = wait(self.pid)? {
                        return Ok(Wrapper::Ended(status));
                    }
                    return Ok(Wrapper::Executed);
                }
                Reported::Stopped { signal: libc::SIGSTOP, .. } => return Ok(Wrapper::Stays),
                Reported::Stopped { signal, .. } => self.request(libc::PTRACE_CONT, 0, number(signal)?)?,
            }
        }
    }

    /// Continues the program until a stop is the wanted one. Other signals are passed to it. Returns its status if it ended.
    fn run_until(
        &self,
        request: Request,
        mut is_wanted: impl FnMut(c_int) -> io::Result<bool>,
    ) -> io::Result<Option<ExitStatus>> {
        let mut pass_on = 0;
        loop {
            self.request(request, 0, number(pass_on)?)?;
            match wait(self.pid)? {
                Reported::Ended(status) => return Ok(Some(status)),
                Reported::Stopped { signal, event: 0 } if is_wanted(signal)? => return Ok(None),
                Reported::Stopped { signal, event: 0 } => pass_on = signal,
                Reported::Stopped { .. } => pass_on = 0,
            }
        }
    }

    /// The address of the entry point, and whether the program has no dynamic linker.
    fn entry(&self) -> io::Result<(u64, bool)> {
        let vector = fs::read(format!("/proc/{}/auxv", self.pid.as_raw_nonzero()))?;
        entry_in(&vector).ok_or_else(|| io::Error::other("the kernel gave no entry point"))
    }

    fn program_counter(&self) -> io::Result<u64> {
        self.word(libc::PTRACE_PEEKUSER, arch::PROGRAM_COUNTER)
    }

    /// The word of code at an address.
    fn peek(&self, address: u64) -> io::Result<u64> {
        self.word(libc::PTRACE_PEEKTEXT, usize_of(address)?)
    }

    fn poke(&self, address: u64, word: u64) -> io::Result<()> {
        self.request(libc::PTRACE_POKETEXT, usize_of(address)?, usize_of(word)?)
    }

    /// A request that returns a word: -1 may be one.
    fn word(&self, request: Request, at: usize) -> io::Result<u64> {
        // SAFETY: the C library passes the kernel a place for the word; the other arguments are numbers.
        unsafe {
            *libc::__errno_location() = 0;
            let word = libc::ptrace(request, self.pid.as_raw_nonzero().get(), at, 0);
            match *libc::__errno_location() {
                0 => Ok(word.cast_unsigned()),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    fn request(&self, request: Request, at: usize, data: usize) -> io::Result<()> {
        // SAFETY: these requests take numbers.
        match unsafe { libc::ptrace(request, self.pid.as_raw_nonzero().get(), at, data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If it was killed meanwhile, there is nothing to continue.
        let _ = self.request(libc::PTRACE_DETACH, 0, 0);
    }
}

/// What a program without Tokio did.
enum Wrapper {
    /// It executed another one, and is stopped before that one's first instruction.
    Executed,
    /// It is stopped, and still the same program.
    Stays,
    Ended(ExitStatus),
}

/// Whether the program, or a library that it has mapped, contains Tokio.
fn has_tokio(pid: Pid) -> bool {
    let Ok(process) = Process::by_pid(pid.as_raw_nonzero().get().cast_unsigned()) else { return false };
    let exe = search::open(&process.exe_path()).and_then(|(file, _)| search::search(file));
    exe.is_some() || !search::libraries_with_tokio(&process).is_empty()
}

/// Lets a program continue that a signal has stopped.
pub(super) fn resume(pid: Pid) {
    // SAFETY: a system call without pointers.
    let _ = unsafe { libc::kill(pid.as_raw_nonzero().get(), libc::SIGCONT) };
}

/// Waits until the program stops or ends.
pub(super) fn wait(pid: Pid) -> io::Result<Reported> {
    loop {
        if let Some(reported) = wait_with(pid, 0)? {
            return Ok(reported);
        }
    }
}

/// Whether it has stopped or ended.
pub(super) fn try_wait(pid: Pid) -> io::Result<Option<Reported>> {
    wait_with(pid, libc::WNOHANG)
}

fn wait_with(pid: Pid, options: c_int) -> io::Result<Option<Reported>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status.
        match unsafe { libc::waitpid(pid.as_raw_nonzero().get(), ptr::from_mut(&mut status), options) } {
            0 => return Ok(None),
            -1 => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
            _ if libc::WIFSTOPPED(status) => {
                return Ok(Some(Reported::Stopped { signal: libc::WSTOPSIG(status), event: status >> 16 }));
            }
            _ => return Ok(Some(Reported::Ended(ExitStatus::from_raw(status)))),
        }
    }
}

/// Entry point, and whether there is no dynamic linker, by a process's auxiliary vector: pairs of words.
fn entry_in(vector: &[u8]) -> Option<(u64, bool)> {
    let mut words = vector.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes));
    let (mut entry, mut base) = (None, 0);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        match key {
            AT_ENTRY => entry = Some(value),
            AT_BASE => base = value,
            _ => {}
        }
    }
    Some((entry?, base == 0))
}

fn usize_of(word: u64) -> io::Result<usize> {
    usize::try_from(word).map_err(io::Error::other)
}

fn number(signal: c_int) -> io::Result<usize> {
    usize::try_from(signal).map_err(io::Error::other)
}

/// What differs between processors.
#[cfg(target_arch = "x86_64")]
mod arch {
    use std::mem::offset_of;

    /// `int3`, in the first byte of a word.
    pub(super) const BREAKPOINT: u64 = 0xcc;
    pub(super) const BREAKPOINT_MASK: u64 = 0xff;
    /// The program counter stands behind it.
    pub(super) const BEHIND_BREAKPOINT: u64 = 1;
    /// Where the kernel's `user` structure, which begins with the registers, has the program counter.
    pub(super) const PROGRAM_COUNTER: usize = offset_of!(libc::user_regs_struct, rip);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_entry_point_in_an_auxiliary_vector() {
        let vector = |pairs: &[[u64; 2]]| pairs.as_flattened().iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(entry_in(&vector(&[[3, 64], [7, 0x7f00], [9, 0x5555], [0, 0]])), Some((0x5555, false)));
        assert_eq!(entry_in(&vector(&[[7, 0], [9, 0x40_1000], [0, 0]])), Some((0x40_1000, true)));
        assert_eq!(entry_in(&vector(&[[7, 1], [0, 0]])), None);
        assert_eq!(entry_in(&vector(&[[9, 1]])[..12]), None);
    }
}
