//! A recorded program and its recorder, as benchmarks and the soak run them, and their figures in /proc.

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde_json::Value;

use crate::sh::{command, output};

/// Timeout of operations that normally take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is recorded; killed when dropped.
pub(crate) struct Target {
    child: Child,
    lines: Receiver<String>,
}

impl Target {
    /// Starts an example program, and waits for its first line.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let out = child.stdout.take();
        let (sender, lines) = channel();
        let target = Self { child, lines };
        let out = BufReader::new(out.context("no pipe")?);
        // Always read, so that the program never blocks on a full pipe.
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        target.lines.recv_timeout(PATIENCE).with_context(|| format!("{} ended at once", program.display()))?;
        Ok(target)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.child.id(), signal)
    }

    /// Its measurements so far, which it prints on SIGUSR1 as a line of JSON.
    pub(crate) fn account(&self) -> Result<Value> {
        self.signal(Signal::USR1)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.context("the target printed no account")?;
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It has nothing to clean up, and may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running recorder; killed when dropped.
pub(crate) struct Recorder {
    child: Child,
    pub(crate) session: PathBuf,
}

/// The result of a recording.
pub(crate) struct Recorded {
    /// Total CPU time, sealing and closing included.
    pub(crate) cpu: Duration,
    pub(crate) manifest: Value,
}

impl Recorder {
    /// Starts it; the session's folder is created anew.
    pub(crate) fn start(program: &Path, pid: u32, session: &Path, arguments: &[&str]) -> Result<Self> {
        if session.exists() {
            fs::remove_dir_all(session).with_context(|| format!("failed to remove {}", session.display()))?;
        }
        let child = command(program)
            .args(["--pid", &pid.to_string(), "--headless", "--export"])
            .arg(session)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Self { child, session: session.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until one of these tables has its first rows on disk.
    pub(crate) fn until_rows(&mut self, tables: &[&str]) -> Result<()> {
        let logs: Vec<_> = tables.iter().map(|table| self.session.join(table).join("000001.arrows.inflight")).collect();
        let until = Instant::now() + PATIENCE;
        while !logs.iter().any(|log| has_rows(log)) {
            if self.has_ended() {
                bail!("hud-record ended: {}", self.stderr());
            }
            ensure!(Instant::now() < until, "hud-record has recorded nothing in {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether it has exited by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        // Without reaping it: its /proc entries are still needed.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match pid_of(self.child.id()) {
            Some(pid) => !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None)),
            None => true,
        }
    }

    /// Requests its end, and waits until the session is closed.
    pub(crate) fn stop(self) -> Result<Recorded> {
        signal_process(self.child.id(), Signal::INT)?;
        self.finish()
    }

    /// Waits until it ends.
    pub(crate) fn finish(mut self) -> Result<Recorded> {
        let pid = pid_of(self.child.id()).context("no pid")?;
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        // Read from the zombie: all its threads, up to their end.
        let cpu = cpu_time(self.child.id())?;
        let status = self.child.wait()?;
        ensure!(status.success(), "hud-record ended with {status}: {}", self.stderr());
        let manifest = self.session.join("manifest.json");
        let manifest = fs::read(&manifest).with_context(|| format!("failed to read {}", manifest.display()))?;
        Ok(Recorded { cpu, manifest: serde_json::from_slice(&manifest)? })
    }

    /// Its standard error.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            // As much as can be read.
            let _ = err.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Recorded {
    /// A number of a stream's account: `produced`, `stored`, `dropped`, `expired`.
    pub(crate) fn account(&self, stream: &str, what: &str) -> u64 {
        self.manifest["streams"][stream][what].as_u64().unwrap_or(0)
    }

    /// Rows stored, in all streams.
    pub(crate) fn stored_in_all(&self) -> u64 {
        let streams = self.manifest["streams"].as_object();
        streams.into_iter().flatten().filter_map(|(_, account)| account["stored"].as_u64()).sum()
    }

    /// Events that are neither stored nor known to be lost or removed, and events known to be lost, in all streams.
    pub(crate) fn unaccounted_and_dropped(&self) -> (u64, u64) {
        let streams = self.manifest["streams"].as_object().map(|s| s.keys().cloned().collect::<Vec<_>>());
        streams.unwrap_or_default().iter().fold((0, 0), |(unaccounted, dropped), stream| {
            let of = |what| self.account(stream, what);
            let known = of("stored") + of("dropped") + of("expired");
            (unaccounted + of("produced").abs_diff(known), dropped + of("dropped"))
        })
    }
}

/// Whether a log has a batch: the schema's message has no body, so bytes after its metadata are a batch.
fn has_rows(log: &Path) -> bool {
    let read = || -> Option<bool> {
        let mut file = fs::File::open(log).ok()?;
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let metadata = u32::from_le_bytes(head[4..].try_into().ok()?);
        Some(file.metadata().ok()?.len() > 8 + u64::from(metadata))
    };
    read().unwrap_or(false)
}

/// A process's figures in /proc at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vitals {
    /// Resident memory now and at most so far, in bytes.
    pub(crate) rss: u64,
    pub(crate) peak_rss: u64,
    pub(crate) threads: u64,
    pub(crate) fds: u64,
}

/// `None` once the process is gone or a zombie.
pub(crate) fn vitals(pid: u32) -> Option<Vitals> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    Some(Vitals {
        rss: field("VmRSS:")? * 1024,
        peak_rss: field("VmHWM:")? * 1024,
        threads: field("Threads:")?,
        fds: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count().try_into().ok()?,
    })
}

/// CPU time of a process, exited threads included.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may contain anything: state is the third field, utime the 14th, stime the 15th.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let a_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / a_second))
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn signal_process(pid: u32, signal: Signal) -> Result<()> {
    let pid = pid_of(pid).context("no pid")?;
    rustix::process::kill_process(pid, signal).context("failed to signal a process")
}

/// Bytes of all files in a folder, subfolders included.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(file) if file.is_dir() => folder_size(&entry.path()),
        Ok(file) => file.len(),
        // Removed meanwhile.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Runs SQL with hud-analyze; returns the first row's columns by name.
pub(crate) fn query(hud_analyze: &Path, session: &Path, sql: &str) -> Result<Value> {
    let mut command = Command::new(hud_analyze);
    command.arg("sql").arg(session).args(["-c", sql, "--format", "json"]);
    let rows: Value = serde_json::from_str(&output(&mut command)?)?;
    Ok(rows[0].clone())
}

/// Whether hud-record accepts this option or value.
pub(crate) fn accepts(hud_record: &Path, option: &str) -> Result<bool> {
    Ok(output(command(hud_record).arg("--help"))?.contains(option))
}
