//! `dump`: every task of a running program, without recording it.

use std::io::Write as _;

use clap::{Args, ValueEnum};

use crate::{
    allocator,
    error::{Error, Result},
    inspect::Process,
    service,
    service::LogFormat,
    tasks::{Dump, Selection, json, text},
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hud dump my-server                 all tasks, grouped by where they wait
  hud dump --pid 4711 --task 12      one task, and the holders of its resource
  hud dump my-server --type handler  tasks of types with `handler` in their name
  hud dump my-server --format json | jq '.tasks[] | select(.state == \"scheduled\")'

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
    /// Show also the frames of libraries
    #[arg(long)]
    pub all_frames: bool,
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
}

impl DumpArgs {
    /// Reads the program once, and prints.
    pub fn run(self) -> Result<()> {
        allocator::use_one_arena();
        service::log_to_stderr(LogFormat::Text, Some("error"))?;
        let process = match (self.pid, &self.name) {
            (Some(pid), _) => Process::by_pid(pid),
            (None, Some(name)) => Process::by_name(name),
            (None, None) => return Err(Error::NoTarget),
        };
        // It needs fewer rights than recording.
        let dump = process.and_then(Dump::of).map_err(|error| match error {
            Error::Denied { pid, source } => Error::NotReadable { pid, source },
            error => error,
        })?;
        let selection = Selection { task: self.task, of_type: self.of_type, all_frames: self.all_frames };
        let written = match self.format {
            Format::Text => text(&dump, &selection),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(&json(&dump, &selection))
                    .map_err(|e| Error::Unavailable(format!("cannot write JSON: {e}")))?;
                text.push('\n');
                text
            }
        };
        // The reader of stdout may have exited: `hud dump | head`.
        let _ = std::io::stdout().lock().write_all(written.as_bytes());
        Ok(())
    }
}
