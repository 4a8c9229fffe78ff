//! A program that forks, and later executes another program.
//!
//! One of its tasks blocks its worker. On SIGUSR1 it forks a child that runs its own runtime and task
//! (`child_sleeper`), and prints `forked child=PID` once that runs. On SIGUSR2, or after `--exec-after`, it executes
//! the given program (`sleep 3600` by default). The child ends with its parent's main thread.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::process::Signal;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use tokio::runtime;
use tokio::time::sleep;

#[derive(Parser)]
#[command(about = "Forks at SIGUSR1, executes another program at SIGUSR2")]
struct Args {
    /// Executes the program after this number of seconds, without SIGUSR2
    #[arg(long, value_name = "SECS")]
    exec_after: Option<u64>,
    /// Program to execute
    #[arg(last = true, value_name = "PROGRAM", default_values = ["sleep", "3600"])]
    program: Vec<OsString>,
}

async fn parent_sleeper() {
    loop {
        thread::sleep(Duration::from_millis(10));
        sleep(Duration::from_millis(10)).await;
    }
}

async fn child_sleeper() {
    loop {
        thread::sleep(Duration::from_millis(10));
        sleep(Duration::from_millis(10)).await;
    }
}

fn workers() -> std::io::Result<runtime::Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()
}

/// The child process. It starts single-threaded, like every forked child.
fn child() -> ! {
    // Ends with its parent.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if let Ok(runtime) = workers() {
        let task = runtime.spawn(child_sleeper());
        runtime.block_on(sleep_a_little());
        // Not by `println!`: another thread may have held its lock at the fork.
        let line = format!("forked child={}\n", std::process::id());
        let _ = rustix::io::write(std::io::stdout(), line.as_bytes());
        let _ = runtime.block_on(task);
    }
    std::process::abort()
}

async fn sleep_a_little() {
    sleep(Duration::from_millis(100)).await;
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = program::signals(&[SIGUSR1, SIGUSR2])?;
    program::end_after(&signals, args.exec_after)?;
    let runtime = workers()?;
    runtime.spawn(parent_sleeper());
    program::say(format_args!("exec-fork pid={}", std::process::id()))?;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => {
                // SAFETY: the child uses no lock that another thread of the parent may have held: it allocates (glibc's
                // allocator survives a fork), creates its own threads and runtime, and writes by a bare system call.
                match unsafe { libc::fork() } {
                    -1 => return Err(std::io::Error::last_os_error().into()),
                    0 => child(),
                    _ => {}
                }
            }
            SIGUSR2 => break,
            _ => return Ok(()),
        }
    }
    let (program, arguments) = args.program.split_first().ok_or("no program to execute")?;
    Err(Command::new(program).args(arguments).exec().into())
}
