//! Which program a process runs: its pid stays when it executes another one.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::inspect::Process;

/// Values that change when a process executes a program: its file, and where its code and stack are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    start_code: u64,
    start_stack: u64,
    start_time: u64,
}

impl Identity {
    /// The process's identity now; `None` if it has exited or is invisible.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let file = fs::metadata(process.exe_path()).ok()?;
        let stat = crate::inspect::read_text(format!("/proc/{}/stat", process.pid)).ok()?;
        let (start_code, start_stack, start_time) = parse(&stat)?;
        Some(Identity { device: file.dev(), inode: file.ino(), start_code, start_stack, start_time })
    }
}

/// Fields 26, 28 and 22 of proc(5)'s `/proc/PID/stat`; the addresses are zero where the process may not be traced.
fn parse(stat: &str) -> Option<(u64, u64, u64)> {
    // The name, in parentheses, may contain anything: fields count from the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(26)?, field(28)?, field(22)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_executes_another_program_is_another_one() {
        use std::io::{Read as _, Write as _};
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo; read go; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let process = Process::by_pid(child.id()).unwrap();
        let before = Identity::of(&process).unwrap();
        assert_eq!(Identity::of(&process), Some(before));
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        while Identity::of(&process) == Some(before) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
