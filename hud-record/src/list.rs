//! `ls`: running programs that hud can attach to, and sessions in the data directory.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use hud_common::{
    session::{Manifest, SessionDir},
    units,
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    headless,
    inspect::{
        Process, clean,
        search::{self, FileKey, Found},
    },
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
    /// The shared library with Tokio, if it is not in the binary.
    library: Option<String>,
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
            line(format_args!("{:>8}  {:<24} {:>7}  {:<8} FILE", "PID", "PROGRAM", "THREADS", "TOKIO"));
        }
        for program in &self.programs {
            let version = program.tokio_version.as_deref().unwrap_or("yes");
            let name = program.name.chars().take(24).collect::<String>();
            let file = program.library.as_ref().unwrap_or(&program.exe);
            line(format_args!("{:>8}  {name:<24} {:>7}  {version:<8} {file}", program.pid, program.threads));
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
    let mut known = HashMap::new();
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
        let tokio = file_with_tokio(&process, &mut known);
        if tokio_threads == 0 && tokio.is_none() {
            continue;
        }
        let exe = process.exe.to_string_lossy();
        let (file, version) = tokio.map(|(file, found)| (file, found.version)).unzip();
        let name = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(Program {
            pid,
            name: clean(&name),
            threads: threads.len(),
            tokio_threads,
            tokio_version: version.flatten(),
            library: file.filter(|file| *file != exe).map(|file| clean(&file)),
            exe: clean(&exe),
        });
    }
    Ok((found, unreadable))
}

/// The file with tokio that a process runs: its binary, or the first shared library in which it is.
fn file_with_tokio(process: &Process, known: &mut HashMap<FileKey, Option<Found>>) -> Option<(String, Found)> {
    let mut search = |path: &Path| {
        let (file, key) = search::open(path)?;
        known.entry(key).or_insert_with(|| search::search(file)).clone()
    };
    if let Some(found) = search(&process.exe_path()) {
        return Some((process.exe.to_string_lossy().into_owned(), found));
    }
    let libraries = search::libraries(process).unwrap_or_default();
    libraries.into_iter().find_map(|library| {
        let found = search(&process.mapped_file(&library))?;
        Some((library.path, found))
    })
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
