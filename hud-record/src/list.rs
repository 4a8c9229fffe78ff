//! `ls`: running programs that hud can attach to, and sessions in the data directory.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use hud_common::{
    session::{Manifest, SessionDir},
    units,
};
use jiff::{Timestamp, tz::TimeZone};
use memchr::memmem;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    headless,
    inspect::{Process, clean, version_in},
    privilege::{self, Owner},
};

/// Examples, after the help.
pub const EXAMPLES: &str = "\
Examples:
  hud ls                            programs with Tokio, and sessions
  sudo hud ls                       those of all users
  hud ls --format json | jq '.programs[].pid'";

/// Names of worker threads that no program chose: since Tokio 1.44, and before; the kernel keeps 15 bytes.
const WORKERS: [&str; 2] = ["tokio-rt-worker", "tokio-runtime-w"];
/// Bytes of a binary that are searched.
const MOST_BYTES: u64 = 512 << 20;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// Bytes that are searched twice: more than a text that lies across two pieces.
const OVERLAP: usize = 64;
/// Maximum processes, and sessions, that are listed.
const MOST: usize = 10_000;

/// Lists running programs that contain Tokio, and recorded sessions.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Format of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// The format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables
    Text,
    /// One JSON object
    Json,
}

#[derive(Serialize)]
struct Lists {
    programs: Vec<Program>,
    /// Processes that could not be examined for lack of rights.
    unreadable: usize,
    sessions: Vec<Session>,
}

#[derive(Serialize)]
struct Program {
    pid: u32,
    name: String,
    threads: usize,
    /// Threads with the name that Tokio gives to workers and to its pool; a program may choose another.
    tokio_threads: usize,
    tokio_version: Option<String>,
    exe: String,
}

#[derive(Serialize)]
struct Session {
    path: PathBuf,
    program: String,
    pid: u32,
    /// Start (ns since the Unix epoch).
    start: i64,
    /// Its end, if it was closed.
    end: Option<i64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Recording,
    Complete,
    /// Its recorder was killed; opening it for reading or `repair` recovers it.
    Interrupted,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Recording => "recording",
            State::Complete => "complete",
            State::Interrupted => "interrupted",
        }
    }
}

impl ListArgs {
    /// Prints the lists.
    pub fn run(self) -> Result<()> {
        let (programs, unreadable) = programs()?;
        // Sessions belong to a user, and are read as that user.
        let owner = Owner::from_sudo();
        let folder = headless::sessions_folder(owner)?;
        privilege::enter_viewer(&folder);
        let lists = Lists { programs, unreadable, sessions: sessions(&folder) };
        let text = match self.format {
            Format::Text => lists.text(&folder),
            Format::Json => serde_json::to_string_pretty(&lists).unwrap_or_default() + "\n",
        };
        // The reader of stdout may have exited.
        let _ = io::stdout().lock().write_all(text.as_bytes());
        Ok(())
    }
}

impl Lists {
    fn text(&self, folder: &Path) -> String {
        let mut text = String::new();
        let mut line = |of: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{of}");
        };
        if self.programs.is_empty() {
            line(format_args!("No running program that contains Tokio."));
        } else {
            line(format_args!("{:>8}  {:<24} {:>7}  {:<8} BINARY", "PID", "PROGRAM", "THREADS", "TOKIO"));
        }
        for program in &self.programs {
            let version = program.tokio_version.as_deref().unwrap_or("yes");
            let name = program.name.chars().take(24).collect::<String>();
            line(format_args!("{:>8}  {name:<24} {:>7}  {version:<8} {}", program.pid, program.threads, program.exe));
        }
        if self.unreadable > 0 {
            line(format_args!(
                "{} {} not be examined; `sudo hud ls` examines those of all users.",
                units::count(i64::try_from(self.unreadable).unwrap_or(i64::MAX)),
                if self.unreadable == 1 { "process could" } else { "processes could" }
            ));
        }
        line(format_args!(""));
        if self.sessions.is_empty() {
            line(format_args!("No session in {}.", folder.display()));
        } else {
            line(format_args!("{:<19}  {:>9}  {:<11}  SESSION", "START", "DURATION", "STATE"));
        }
        for session in &self.sessions {
            let start = Timestamp::from_nanosecond(i128::from(session.start)).unwrap_or_default();
            let start = start.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
            let duration =
                session.end.map_or("".into(), |end| units::round_duration(end.saturating_sub(session.start)));
            let path = session.path.display().to_string();
            let (state, path) = (session.state.name(), clean(&path));
            line(format_args!("{start:<19}  {duration:>9}  {state:<11}  {path}"));
        }
        text
    }
}

/// The processes whose threads or binary show that they use Tokio, and the number of those that could not be examined.
fn programs() -> Result<(Vec<Program>, usize)> {
    let entries = fs::read_dir("/proc").map_err(|source| Error::Io { action: "list /proc", source })?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.truncate(MOST);
    // Many processes may run one binary.
    let mut versions: HashMap<(u64, u64), Option<Option<String>>> = HashMap::new();
    let (mut found, mut unreadable) = (Vec::new(), 0);
    for pid in pids {
        let process = match Process::by_pid(pid) {
            Ok(process) => process,
            Err(Error::Denied { .. }) => {
                unreadable += 1;
                continue;
            }
            // Exited, a kernel thread, or this process.
            Err(_) => continue,
        };
        let threads = process.threads();
        let is_tokios = |tid: &&u32| process.thread_name(**tid).is_some_and(|name| WORKERS.contains(&name.as_str()));
        let tokio_threads = threads.iter().filter(is_tokios).count();
        let file = open_binary(&process.exe_path());
        let version = file.and_then(|(file, key)| versions.entry(key).or_insert_with(|| search(file)).clone());
        if tokio_threads == 0 && version.is_none() {
            continue;
        }
        let exe = process.exe.to_string_lossy();
        let name = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(Program {
            pid,
            name: clean(&name),
            threads: threads.len(),
            tokio_threads,
            tokio_version: version.flatten(),
            exe: clean(&exe),
        });
    }
    Ok((found, unreadable))
}

/// A process's binary, and the device and inode by which it is known again.
fn open_binary(path: &Path) -> Option<(fs::File, (u64, u64))> {
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((file, (metadata.dev(), metadata.ino())))
}

/// Whether a binary contains Tokio, and its version.
///
/// It is read, not mapped, as its owner may truncate it meanwhile.
#[expect(clippy::option_option, reason = "no Tokio, Tokio of an unknown version, this version")]
fn search(file: fs::File) -> Option<Option<String>> {
    let mut file = file.take(MOST_BYTES);
    let workers = [memmem::Finder::new(b"tokio-rt-worker"), memmem::Finder::new(b"tokio-runtime-worker")];
    let mut buffer = Vec::with_capacity(PIECE + OVERLAP);
    let mut is_tokio = false;
    loop {
        let kept = buffer.len().min(OVERLAP);
        buffer.drain(..buffer.len() - kept);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut buffer).ok()?;
        if read == 0 {
            return is_tokio.then_some(None);
        }
        if let Some(version) = version_in(&buffer) {
            return Some(Some(version));
        }
        is_tokio |= workers.iter().any(|name| name.find(&buffer).is_some());
    }
}

/// The sessions in a folder, the newest first.
fn sessions(folder: &Path) -> Vec<Session> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries.flatten().take(MOST).filter_map(|entry| session(entry.path())).collect();
    found.sort_unstable_by_key(|session| std::cmp::Reverse(session.start));
    found
}

fn session(path: PathBuf) -> Option<Session> {
    let manifest = Manifest::read(&path).ok()?;
    let state = match manifest.complete {
        true => State::Complete,
        false if SessionDir::at(&path).is_locked().unwrap_or(false) => State::Recording,
        false => State::Interrupted,
    };
    let program = Path::new(&manifest.exe).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Some(Session { program: clean(&program), pid: manifest.pid, start: manifest.start, end: manifest.end, state, path })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_version_is_found_wherever_it_lies() {
        for at in [0, PIECE - 12, PIECE - 5, PIECE, 3 * PIECE] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![b'x'; at]).unwrap();
            file.write_all(b"registry/src/tokio-1.47.1/src/runtime/mod.rs").unwrap();
            io::Seek::rewind(&mut file).unwrap();
            assert_eq!(search(file), Some(Some("1.47.1".into())), "at {at}");
        }
    }

    #[test]
    fn a_binary_without_sources_is_known_by_its_threads_name() {
        for (text, expected) in [("tokio-rt-worker", Some(None)), ("/tokio-util-0.7.1/", None), ("/tokio-1.9", None)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            io::Seek::rewind(&mut file).unwrap();
            assert_eq!(search(file), expected, "{text}");
        }
    }
}
