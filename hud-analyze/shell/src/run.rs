//! Reads statements and commands, and executes them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reedline::Signal;

use crate::{
    command::{self, Command},
    control::{Control, lock},
    database::{Catalogue, Database, Summary},
    describe,
    editor::{self, ShellPrompt},
    error::{Result, ShellError},
    note::note,
    pager::{self, Output},
    progress::Progress,
    settings::{Format, Settings},
    signals::Signals,
    splitter::{self, Piece, Splitter},
};

/// Maximum size of a line and of a statement, in bytes.
pub(crate) const LONGEST: u64 = 16 << 20;

const HINT: &str = "Statements end with `;`. \\d lists tables and views, \\? commands, Tab completes, Ctrl-D quits.";

/// The source of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The command line (`-c`).
    Sql(String),
    /// A file (`-f`); `-` is standard input.
    File(PathBuf),
}

/// Options of the shell.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Text before the first prompt.
    pub greeting: String,
    /// The initial settings.
    pub settings: Settings,
}

/// The outcome of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All statements were executed, or the user quit.
    Done,
    /// The reader of standard output closed it, which is no error.
    OutputClosed,
    /// A signal ended it (SIGTERM, SIGHUP). The terminal is restored.
    Signal(i32),
}

/// Runs the statements of `inputs`, in order, up to the first error, which names its line. Without inputs: a shell if standard
/// input is a terminal, otherwise the statements from standard input.
///
/// A shell prints errors and continues; it ends by `\q`, Ctrl-D or a signal. While this function runs, SIGINT, SIGTERM, SIGHUP
/// and SIGPIPE are handled by the shell.
pub fn run(database: &dyn Database, inputs: &[Input], options: Options) -> Result<Outcome> {
    let signals = Signals::watch()?;
    let mut runner = Runner {
        database,
        signals: &signals,
        settings: options.settings,
        catalogue: Arc::default(),
        is_interactive: false,
        took: Duration::ZERO,
    };
    let flow = runner.run_all(inputs, &options.greeting);
    if let Some(signal) = signals.ended_by() {
        return Ok(Outcome::Signal(signal));
    }
    Ok(if flow? == Flow::OutputClosed { Outcome::OutputClosed } else { Outcome::Done })
}

/// Whether to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// With the next statement.
    Continue,
    /// End this input.
    Quit,
    /// End the shell: a signal arrived.
    Ended,
    /// End the shell: the output was closed.
    OutputClosed,
}

struct Runner<'a> {
    database: &'a dyn Database,
    signals: &'a Signals,
    settings: Settings,
    /// Relations and functions, for completion.
    catalogue: Arc<Mutex<Catalogue>>,
    is_interactive: bool,
    /// Duration of the last statement, cancelled or not.
    took: Duration,
}

impl Runner<'_> {
    fn run_all(&mut self, inputs: &[Input], greeting: &str) -> Result<Flow> {
        if inputs.is_empty() && editor::is_possible() {
            return self.prompt(greeting);
        }
        let standard = [Input::File("-".into())];
        for input in if inputs.is_empty() { &standard } else { inputs } {
            let flow = match input {
                // The line number of a single line is omitted.
                Input::Sql(sql) => self.script(sql.trim().contains('\n').then_some("-c"), &mut sql.as_bytes())?,
                Input::File(path) => self.file(path)?,
            };
            if matches!(flow, Flow::Ended | Flow::OutputClosed) {
                return Ok(flow);
            }
        }
        Ok(Flow::Continue)
    }

    fn file(&mut self, path: &Path) -> Result<Flow> {
        if path.as_os_str() == "-" {
            return self.script(Some("standard input"), &mut io::stdin().lock());
        }
        let failed = || ShellError::io(format!("read {}", path.display()));
        let file = File::open(path).map_err(failed())?;
        if file.metadata().map_err(failed())?.is_dir() {
            return Err(ShellError::usage(format!("{} is a folder", path.display()), "name a file with SQL"));
        }
        self.script(Some(&path.to_string_lossy()), &mut BufReader::new(file))
    }

    /// Runs statements and commands; the last statement need not end with `;`.
    fn script(&mut self, name: Option<&str>, lines: &mut dyn BufRead) -> Result<Flow> {
        let at = |line: usize, error: ShellError| match name {
            Some(name) => error.at(name, line),
            None => error,
        };
        let mut splitter = Splitter::default();
        let mut number = 0;
        loop {
            number += 1;
            let mut line = Vec::new();
            let read = lines.take(LONGEST).read_until(b'\n', &mut line);
            if read.map_err(|error| at(number, ShellError::io("read on")(error)))? == 0 {
                break;
            }
            let size = u64::try_from(line.len() + splitter.len()).unwrap_or(u64::MAX);
            let text = String::from_utf8(line).ok().filter(|_| size < LONGEST);
            let wrong =
                || ShellError::usage("a statement is not UTF-8 text of less than 16 MiB", "is this a file with SQL?");
            let text = text.ok_or_else(|| at(number, wrong()))?;
            match self.pieces(splitter.push(&text), &at)? {
                Flow::Continue => {}
                other => return Ok(other),
            }
        }
        match splitter.finish() {
            None => Ok(Flow::Continue),
            Some((Ok(sql), line)) => self.pieces(vec![Piece::Statement(sql, line)], &at),
            Some((Err(what), line)) => Err(at(line, ShellError::usage(format!("a {what} is not closed"), "close it"))),
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>, at: &dyn Fn(usize, ShellError) -> ShellError) -> Result<Flow> {
        for piece in pieces {
            // Ctrl-C between two statements.
            if self.signals.take_interrupt() || self.signals.ended_by().is_some() {
                return Err(ShellError::Cancelled);
            }
            let (flow, line) = match piece {
                Piece::Statement(sql, line) => (self.execute(&sql), line),
                Piece::Command(text, line) => (command::parse(&text).and_then(|command| self.command(command)), line),
            };
            match flow.map_err(|error| at(line, error))? {
                Flow::Continue => {}
                other => return Ok(other),
            }
        }
        Ok(if self.signals.ended_by().is_some() { Flow::Ended } else { Flow::Continue })
    }

    /// Prompts until the user quits. Errors are printed.
    fn prompt(&mut self, greeting: &str) -> Result<Flow> {
        self.is_interactive = true;
        let mut editor = editor::open(&self.catalogue, self.signals.leave());
        greeting.lines().for_each(|line| note(&hud_common::clean(line)));
        note(HINT);
        let mut splitter = Splitter::default();
        loop {
            self.load_catalogue();
            let is_continued = splitter.is_pending();
            let entered =
                editor.read_line(&ShellPrompt { is_continued }).map_err(ShellError::io("read the terminal"))?;
            // Ctrl-C while nothing ran is discarded.
            self.signals.take_interrupt();
            let text = match entered {
                _ if self.signals.ended_by().is_some() => return Ok(Flow::Ended),
                Signal::CtrlD => return Ok(Flow::Quit),
                Signal::CtrlC => {
                    splitter = Splitter::default();
                    continue;
                }
                // The line end closes a comment.
                Signal::Success(text) => match splitter::plain_word(&text).filter(|_| !is_continued) {
                    Some("help") => "\\?\n".to_owned(),
                    Some(_) => "\\q\n".to_owned(),
                    None => text + "\n",
                },
                _ => return Ok(Flow::Ended),
            };
            // Saved now in case that the shell is killed. If this fails, it is saved at the end.
            let _ = editor.sync_history();
            for line in text.split_inclusive('\n') {
                match self.pieces(splitter.push(line), &|_, error| error) {
                    Ok(Flow::Continue) => continue,
                    Ok(other) => return Ok(other),
                    Err(_) if self.signals.ended_by().is_some() => return Ok(Flow::Ended),
                    Err(error) if error.is_cancelled() => {
                        note(&format!("cancelled after {}", describe::duration(self.took)));
                    }
                    Err(error) => note(&format!("error: {}", error.line())),
                }
                splitter = Splitter::default();
                break;
            }
        }
    }

    /// Loads relations and functions, for completion too.
    fn load_catalogue(&self) -> Catalogue {
        let catalogue = Catalogue::of(self.database);
        *lock(&self.catalogue) = catalogue.clone();
        catalogue
    }

    fn command(&mut self, command: Command) -> Result<Flow> {
        let width = io::stdout().is_terminal().then(pager::screen).flatten().map(|(columns, _)| columns);
        let text = match command {
            Command::Describe(None) => describe::relations(&self.load_catalogue(), width),
            Command::Describe(Some(name)) => describe::relation(&self.load_catalogue(), &name, width)?,
            Command::Functions(part) => {
                describe::functions(&self.load_catalogue(), part.as_deref().unwrap_or_default(), width)?
            }
            Command::Help => describe::help(width),
            Command::Options => describe::options(&self.settings, width),
            Command::Set(option, value) => {
                self.settings.set(&option, value.as_deref())?;
                if self.is_interactive {
                    note(&format!("{option} is {}", self.settings.get(&option)));
                }
                return Ok(Flow::Continue);
            }
            Command::Quit => return Ok(Flow::Quit),
        };
        self.output(&Control::new(), false, |out| {
            out.write_all(text.as_bytes()).map_err(ShellError::io("write the result"))
        })
    }

    /// Runs a statement and writes its result.
    fn execute(&mut self, sql: &str) -> Result<Flow> {
        let mut settings = self.settings.clone();
        if io::stdout().is_terminal() {
            if settings.format.is_binary() {
                return Err(ShellError::usage(
                    format!("a terminal cannot show {}, which is binary", settings.format.name()),
                    "redirect standard output to a file",
                ));
            }
            settings.width = pager::screen().map(|(columns, _)| columns);
        }
        let control = Control::new();
        let (database, signals, began) = (self.database, self.signals, Instant::now());
        let mut summary = Summary::default();
        let flow = self.output(&control, io::stderr().is_terminal(), |out| {
            signals.during(&control, || {
                summary = database.run(sql, &settings, out, &control)?;
                // `out` remembers that the reader closed it.
                let _ = footer(out, &settings, &summary);
                Ok(())
            })
        });
        self.took = began.elapsed();
        if signals.ended_by().is_some() {
            return Ok(Flow::Ended);
        }
        if flow? == Flow::OutputClosed {
            return Ok(Flow::OutputClosed);
        }
        if settings.timing {
            note(&format!("took {}", describe::duration(self.took)));
        } else if self.is_interactive && summary.rows.is_none() && !control.is_cancelled() {
            note("done");
        }
        Ok(Flow::Continue)
    }

    /// Writes the output of `write`, through the pager if necessary.
    fn output(
        &self,
        control: &Control,
        has_progress: bool,
        write: impl FnOnce(&mut Output<'_>) -> Result<()>,
    ) -> Result<Flow> {
        let progress = Progress::start(control, has_progress);
        let mut out = Output::new(control, &progress);
        let done = write(&mut out);
        let (was_cancelled, is_paged) = (control.is_cancelled() && !out.is_broken(), out.is_paged());
        let is_whole = out.finish()?;
        match done {
            _ if !is_whole => Ok(if is_paged { Flow::Continue } else { Flow::OutputClosed }),
            Ok(()) => Ok(Flow::Continue),
            Err(_) if was_cancelled => Err(ShellError::Cancelled),
            Err(error) => Err(error),
        }
    }
}

fn footer(out: &mut dyn Write, settings: &Settings, summary: &Summary) -> io::Result<()> {
    match summary.rows {
        Some(rows) if settings.footer && settings.format == Format::Table => {
            writeln!(out, "({rows} row{})", if rows == 1 { "" } else { "s" })
        }
        _ => Ok(()),
    }
}
