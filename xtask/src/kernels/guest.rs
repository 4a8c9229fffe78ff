//! A kernel booted in QEMU, and its serial console.
//!
//! The CPU is emulated (TCG): CI's machines are guests themselves, and have no KVM.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cache::Qemu;
use super::console::Line;
use crate::sh::command;

/// A kernel to boot, and its options.
pub(crate) struct Boot<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) image: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) parameters: &'a str,
    /// Where the console is kept.
    pub(crate) log: PathBuf,
    /// Longest time that the guest may report nothing.
    pub(crate) patience: Duration,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    /// With the kernel's reason.
    Panicked(String),
    /// QEMU ended before the checks did.
    Stopped(String),
    /// Nothing was reported for too long.
    TimedOut,
}

impl Boot<'_> {
    /// Boots the kernel, and passes on each line that the guest reports, until the guest ends.
    pub(crate) fn run(&self, mut on_line: impl FnMut(Line)) -> Result<Ending> {
        let mut guest = self.start()?;
        let console = guest.0.stdout.take().context("QEMU has no console")?;
        let mut log = fs::File::create(&self.log).with_context(|| format!("failed to write {}", self.log.display()))?;
        let (sender, lines) = channel();
        let reader = thread::spawn(move || -> std::io::Result<()> {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console.read_until(b'\n', &mut line)? > 0 {
                log.write_all(&line)?;
                if let Some(line) = Line::parse(&String::from_utf8_lossy(&line)) {
                    // Nobody receives lines after the end.
                    let _ = sender.send(line);
                }
                line.clear();
            }
            Ok(())
        });

        let mut ending = None;
        let mut deadline = Instant::now() + self.patience;
        let ending = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Line::Done) => ending = Some(Ending::Done),
                Ok(Line::Panic(reason)) => ending = Some(Ending::Panicked(reason)),
                Ok(line) => {
                    deadline = Instant::now() + self.patience;
                    on_line(line);
                }
                Err(RecvTimeoutError::Timeout) => break ending.unwrap_or(Ending::TimedOut),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = guest.0.wait()?;
                    break ending.unwrap_or_else(|| Ending::Stopped(format!("QEMU ended with {status}")));
                }
            }
        };
        drop(guest);
        match reader.join() {
            Ok(written) => written.with_context(|| format!("failed to write {}", self.log.display()))?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(ending)
    }

    fn start(&self) -> Result<Guest> {
        // Niced: a guest takes all the time of two CPUs.
        let mut qemu = command("nice");
        qemu.args(["-n", "5"]).arg(self.qemu.program());
        for firmware in self.qemu.firmware() {
            qemu.arg("-L").arg(firmware);
        }
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            // An oops is a panic, and a panic ends QEMU (-no-reboot).
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 oops=panic {}", self.parameters)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(Guest(qemu.spawn().context("failed to start QEMU")?))
    }

    /// The last lines of the console.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(count)).map(|line| (*line).to_owned()).collect()
    }
}

/// QEMU; killed when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
