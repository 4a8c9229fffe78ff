//! `dump`: every task of a running program, without recording it.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::{
    allocator,
    error::{Error, Result},
    inspect::Process,
    service,
    service::LogFormat,
    tasks::{Dump, Reader, Selection, dot, json, text},
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hud dump my-server                 all tasks, grouped by where they wait
  hud dump --pid 4711 --task 12      one task, and the holders of its resource
  hud dump my-server --threads       also each thread with its stack
  hud dump my-server --type handler  tasks of types with `handler` in their name
  hud dump my-server --watch 2s      a new dump every 2 s, until Ctrl-C
  hud dump my-server --format json | jq '.tasks[] | select(.state == \"scheduled\")'
  hud dump my-server --format dot | dot -Tsvg > waits.svg

The program keeps running: its memory is read from outside, with the rights of a debugger. Await stacks need type \
information (`debug = true` in its profile, or its debug file); without it, tasks are counted by type and state.

Exit codes: 0 done, 1 failed, 2 usage, 77 no permission.";

/// The tasks to show, and how.
#[derive(Args, Clone, Debug)]
pub struct DumpArgs {
    /// Name of the running binary
    pub name: Option<String>,
    /// Process id, if the name is not unique
    #[arg(long, value_name = "PID", conflicts_with = "name")]
    pub pid: Option<u32>,
    /// Show only the task with this id
    #[arg(long, value_name = "ID")]
    pub task: Option<u64>,
    /// Show only tasks whose type has this in its name
    #[arg(long = "type", value_name = "TEXT")]
    pub of_type: Option<String>,
    /// Show also each thread: its role, the task that it is polling, and its stack (text and JSON)
    #[arg(long)]
    pub threads: bool,
    /// Show also the frames of libraries
    #[arg(long)]
    pub all_frames: bool,
    /// Repeat after this time, until Ctrl-C or the program's exit
    #[arg(long, value_name = "TIME", value_parser = hud_common::units::parse_std, conflicts_with = "format")]
    pub watch: Option<Duration>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// The format of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Groups of tasks, as readable text
    Text,
    /// Every task, as one JSON document
    Json,
    /// Tasks that wait for other tasks, as a graph for Graphviz
    Dot,
}

impl DumpArgs {
    /// Reads the program, and prints.
    pub fn run(self) -> Result<()> {
        allocator::use_one_arena();
        service::log_to_stderr(LogFormat::Text, Some("error"))?;
        let process = match (self.pid, &self.name) {
            (Some(pid), _) => Process::by_pid(pid),
            (None, Some(name)) => Process::by_name(name),
            (None, None) => return Err(Error::NoTarget),
        };
        // It needs fewer rights than recording.
        let mut reader =
            process.and_then(|process| Reader::open(process, self.threads)).map_err(|error| match error {
                Error::Denied { pid, source } => Error::NotReadable { pid, source },
                error => error,
            })?;
        let mut written = self.written(&reader.dump()?)?;
        let Some(pause) = self.watch else {
            // The reader of stdout may have exited: `hud dump | head`.
            let _ = stdout().lock().write_all(written.as_bytes());
            return Ok(());
        };
        // Clears the terminal, and begins at its top.
        let before = if stdout().is_terminal() { "\x1b[H\x1b[2J\x1b[3J" } else { "\n" };
        while stdout().lock().write_all(format!("{before}{written}").as_bytes()).is_ok() && stdout().flush().is_ok() {
            thread::sleep(pause);
            written = match reader.dump() {
                Ok(dump) => self.written(&dump)?,
                Err(Error::Exited(pid)) => {
                    eprintln!("the program (pid {pid}) has exited");
                    break;
                }
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn written(&self, dump: &Dump) -> Result<String> {
        let selection = Selection { task: self.task, of_type: self.of_type.clone(), all_frames: self.all_frames };
        match self.format {
            Format::Text => Ok(text(dump, &selection)),
            Format::Dot => Ok(dot(dump, &selection)),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(&json(dump, &selection))
                    .map_err(|e| Error::Unavailable(format!("cannot write JSON: {e}")))?;
                text.push('\n');
                Ok(text)
            }
        }
    }
}
