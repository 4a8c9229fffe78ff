//! Statements from a file, from standard input or from the command line: all in order, until one fails.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use crate::{
    command,
    complete::paths::expand,
    error::{Result, ShellError},
    run::{Flow, How, Runner},
    splitter::{Piece, Splitter},
};

/// The longest line and the longest statement, in bytes. A longer file is not SQL.
pub(crate) const LONGEST_LINE: u64 = 16 << 20;
/// Nesting depth of scripts.
const DEEPEST: usize = 16;

/// Identity of a script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Its name in a message; none if its line numbers are omitted.
    pub(crate) name: Option<String>,
    /// The folder that it lies in.
    pub(crate) folder: Option<PathBuf>,
}

impl Place {
    fn of<T>(&self, line: usize, done: Result<T>) -> Result<T> {
        match &self.name {
            Some(name) => done.map_err(|error| error.at(name, line)),
            None => done,
        }
    }
}

impl Runner<'_> {
    /// Runs a file. `-` is standard input.
    pub(crate) fn include(&mut self, path: &Path) -> Result<Flow> {
        if self.depth >= DEEPEST {
            return Err(ShellError::usage(
                format!("{} is {DEEPEST} scripts deep", path.display()),
                "does a script run itself?",
            ));
        }
        let name = path.to_string_lossy();
        if name == "-" {
            let place = Place { name: Some("standard input".into()), folder: None };
            return self.script(&place, &mut std::io::stdin().lock());
        }
        let path = expand(&name);
        let failed = |path: &Path| ShellError::io(format!("read {}", path.display()));
        let file = File::open(&path).map_err(failed(&path))?;
        if file.metadata().map_err(failed(&path))?.is_dir() {
            return Err(ShellError::usage(format!("{} is a folder", path.display()), "name a file of SQL"));
        }
        let place = Place { name: Some(name.into_owned()), folder: path.parent().map(Path::to_owned) };
        self.depth += 1;
        let done = self.script(&place, &mut BufReader::new(file));
        self.depth -= 1;
        match done {
            // It ended itself; its caller continues.
            Ok(Flow::Quit) => Ok(Flow::On),
            other => other,
        }
    }

    /// Runs the statements of `lines`. A last statement without a `;` is run too.
    pub(crate) fn script(&mut self, place: &Place, lines: &mut dyn BufRead) -> Result<Flow> {
        let mut splitter = Splitter::default();
        let mut number = 0;
        loop {
            let mut bytes = Vec::new();
            let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            let read = place.of(number + 1, read.map_err(ShellError::io("read on")))?;
            if read == 0 {
                break;
            }
            number += 1;
            let too_long =
                bytes.len() + splitter.pending().len() >= usize::try_from(LONGEST_LINE).unwrap_or(usize::MAX);
            if too_long {
                let error = ShellError::usage("a statement is longer than 16 MiB", "is this a file of SQL?");
                return place.of(number, Err(error));
            }
            let line = String::from_utf8(bytes)
                .map_err(|_| ShellError::usage("a line is no UTF-8 text", "is this a file of SQL?"));
            let line = place.of(number, line)?;
            // Editors on Windows begin a file with a byte-order mark.
            splitter.push(if number == 1 { line.trim_start_matches('\u{feff}') } else { &line });
            match self.drain(&mut splitter, place)? {
                Flow::On => {}
                other => return Ok(other),
            }
        }
        let open = splitter.open().what();
        let Some(rest) = splitter.take_pending() else {
            return match open {
                Some(what) => place.of(number, Err(unended(what))),
                None => Ok(Flow::On),
            };
        };
        if let Some(what) = open {
            return place.of(rest.line, Err(unended(what)));
        }
        self.check()?;
        let done = self.execute(&rest.sql, &How::default());
        place.of(rest.line, done)
    }

    /// Runs all complete statements and commands.
    pub(crate) fn drain(&mut self, splitter: &mut Splitter, place: &Place) -> Result<Flow> {
        while let Some(piece) = splitter.next() {
            let (line, flow) = match piece {
                Piece::Statement(statement) => {
                    self.check()?;
                    (statement.line, self.execute(&statement.sql, &How::default()))
                }
                Piece::Command { text, line } => {
                    self.check()?;
                    (line, command::parse(&text).and_then(|command| self.command(command, splitter, place)))
                }
            };
            match place.of(line, flow)? {
                Flow::On => {}
                other => return Ok(other),
            }
        }
        Ok(if self.signals.ended_by().is_some() { Flow::Left } else { Flow::On })
    }

    /// Whether a Ctrl-C came between two statements of a script.
    fn check(&self) -> Result<()> {
        if self.signals.take_interrupt() || self.signals.ended_by().is_some() {
            return Err(ShellError::Cancelled);
        }
        Ok(())
    }
}

fn unended(what: &str) -> ShellError {
    ShellError::usage(format!("a {what} has no end"), "close it, or leave it out")
}
