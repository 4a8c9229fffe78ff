//! The shell: sources of statements, and their execution.

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    control::{Control, lock},
    database::{Catalogue, Database, Summary},
    error::{Result, ShellError},
    interactive,
    pager::{self, Output, Target},
    progress::Progress,
    script::Place,
    settings::{Expanded, Format, Settings},
    signals::Signals,
    text,
};

/// The source of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From the command line (`-c`).
    Sql(String),
    /// From a file (`-f`).
    File(PathBuf),
    /// From standard input.
    Stdin,
}

/// Options of the shell.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name that the prompt begins with.
    pub name: String,
    /// Text before the first prompt, which names the session. A hint of what to do follows it.
    pub greeting: String,
    /// The initial settings of answers.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Options { name: "hud".into(), greeting: String::new(), settings: Settings::default() }
    }
}

/// The outcome of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done, or the user quit.
    Done,
    /// The reader of standard output is gone; that is no error.
    OutputClosed,
    /// A signal ended it (SIGTERM, SIGHUP). The terminal is restored.
    Signal(i32),
}

/// Runs the statements of `inputs`, in order, and stops at the first error, which names its position. Without inputs: a
/// shell if standard input is a terminal, else the statements of standard input.
///
/// In a shell errors are printed and it continues; it ends by `\q`, Ctrl-D or a signal. While this runs, SIGINT,
/// SIGTERM, SIGHUP and SIGPIPE belong to the shell.
pub fn run(database: &dyn Database, inputs: &[Input], options: Options) -> Result<Outcome> {
    let signals = Signals::watch()?;
    let mut runner = Runner::new(database, &signals, options.settings);
    let flow = runner.all(inputs, &options.name, &options.greeting);
    // The program of `\o` is waited for in any case.
    let closed = runner.close_target();
    let flow = match (flow, signals.ended_by()) {
        (_, Some(signal)) => return Ok(Outcome::Signal(signal)),
        (flow, None) => flow?,
    };
    closed?;
    Ok(if flow == Flow::Closed { Outcome::OutputClosed } else { Outcome::Done })
}

/// Whether to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// With the next statement.
    On,
    /// Stop this script.
    Quit,
    /// Stop everything: a signal came.
    Left,
    /// Stop everything: nobody reads the output.
    Closed,
}

/// Options of `\g` for one statement.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// Where the answer is written.
    pub(crate) file: Option<String>,
    /// Whether rows are blocks.
    pub(crate) expanded: bool,
    /// Whether a pager would stand in the way.
    pub(crate) unpaged: bool,
}

/// Executes statements and commands.
pub(crate) struct Runner<'a> {
    pub(crate) database: &'a dyn Database,
    pub(crate) signals: &'a Signals,
    pub(crate) settings: Settings,
    /// Relations and functions, for completion.
    pub(crate) catalogue: Arc<Mutex<Catalogue>>,
    /// Whether the shell is interactive.
    pub(crate) is_interactive: bool,
    /// The last statement that was run.
    pub(crate) last: Option<String>,
    /// An incomplete statement from the editor.
    pub(crate) unfinished: Option<String>,
    /// Text from the editor, to be added to the history.
    pub(crate) edited: Option<String>,
    /// Nesting depth of scripts.
    pub(crate) depth: usize,
    /// Duration of the last statement, cancelled or not.
    pub(crate) took: Duration,
    target: Option<Target>,
}

impl<'a> Runner<'a> {
    fn new(database: &'a dyn Database, signals: &'a Signals, settings: Settings) -> Self {
        Runner {
            database,
            signals,
            settings,
            catalogue: Arc::default(),
            is_interactive: false,
            last: None,
            unfinished: None,
            edited: None,
            depth: 0,
            took: Duration::ZERO,
            target: None,
        }
    }

    fn all(&mut self, inputs: &[Input], name: &str, greeting: &str) -> Result<Flow> {
        if inputs.is_empty() && io::stdin().is_terminal() {
            return interactive::run(self, name, greeting);
        }
        let standard = [Input::Stdin];
        for input in if inputs.is_empty() { &standard } else { inputs } {
            match self.input(input)? {
                // `\q` ends the script that contains it.
                Flow::On | Flow::Quit => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::On)
    }

    fn input(&mut self, input: &Input) -> Result<Flow> {
        match input {
            Input::Sql(sql) => {
                // The line number of a single line is omitted.
                let name = sql.trim().contains('\n').then(|| "-c".to_owned());
                self.script(&Place { name, folder: None }, &mut sql.as_bytes())
            }
            Input::File(path) => self.include(path),
            Input::Stdin => {
                self.script(&Place { name: Some("standard input".into()), folder: None }, &mut io::stdin().lock())
            }
        }
    }

    /// The current relations and functions.
    pub(crate) fn look(&self) -> Catalogue {
        let catalogue = Catalogue::of(self.database);
        *lock(&self.catalogue) = catalogue.clone();
        catalogue
    }

    /// Runs a statement and writes its answer.
    pub(crate) fn execute(&mut self, sql: &str, how: &How) -> Result<Flow> {
        self.last = Some(sql.to_owned());
        let mut settings = self.settings.clone();
        if how.expanded {
            settings.expanded = Expanded::On;
        }
        let mut once = how.file.as_deref().map(Target::open).transpose()?;
        let target = once.as_mut().or(self.target.as_mut());
        if target.is_none() && io::stdout().is_terminal() {
            if settings.format.is_binary() {
                return Err(ShellError::usage(
                    format!("a terminal cannot show {}, which is binary", settings.format),
                    "send it to a file by \\o FILE or by a redirection",
                ));
            }
            settings.width = pager::screen().map(|(columns, _)| columns);
        }
        let control = Control::new();
        let progress = Progress::start(&control, io::stderr().is_terminal());
        let is_standard = target.is_none();
        let mut out = match target {
            Some(target) => Output::target(target, &control, &progress),
            None => Output::standard(settings.pager && !how.unpaged && pager::can_page(), &control, &progress),
        };
        let began = Instant::now();
        let (database, signals) = (self.database, self.signals);
        let done = signals.during(&control, || {
            let done = database.run(sql, &settings, &mut out, &control);
            if let Ok(summary) = &done {
                // `out` knows of a reader that is gone.
                let _ = footer(&mut out, &settings, summary);
            }
            done
        });
        self.took = began.elapsed();
        let (was_cancelled, is_paged) = (control.is_cancelled() && !out.is_broken(), out.is_paged());
        let is_whole = out.finish()?;
        drop(progress);
        if let Some(once) = once {
            once.close().map_err(ShellError::io("write the answer"))?;
        }
        if signals.ended_by().is_some() {
            return Ok(Flow::Left);
        }
        if !is_whole {
            return Ok(if is_standard && !is_paged { Flow::Closed } else { Flow::On });
        }
        match done {
            Ok(summary) => {
                self.tell(&settings, &summary);
                Ok(Flow::On)
            }
            Err(_) if was_cancelled => Err(ShellError::Cancelled),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, settings: &Settings, summary: &Summary) {
        if summary.truncated {
            let rows =
                settings.limit.map_or_else(|| "some".into(), |limit| format!("the first {}", text::count(limit)));
            note(&format!("only {rows} rows are shown; \\pset limit off shows all"));
        }
        if settings.timing {
            note(&format!("took {}", text::duration(summary.elapsed)));
        } else if self.is_interactive && summary.rows.is_none() {
            note("done");
        }
    }

    /// The terminal's columns, if text is written to one.
    pub(crate) fn width(&self) -> Option<usize> {
        let is_screen = self.target.is_none() && io::stdout().is_terminal();
        is_screen.then(pager::screen).flatten().map(|(columns, _)| columns)
    }

    /// Writes a command's output.
    pub(crate) fn show(&mut self, text: &str) -> Result<Flow> {
        let control = Control::new();
        let progress = Progress::start(&control, false);
        let is_standard = self.target.is_none();
        let mut out = match &mut self.target {
            Some(target) => Output::target(target, &control, &progress),
            None => Output::standard(self.settings.pager && pager::can_page(), &control, &progress),
        };
        let written = out.write_all(text.as_bytes());
        let is_paged = out.is_paged();
        match (written, out.finish()?) {
            (_, false) if is_standard && !is_paged => Ok(Flow::Closed),
            (_, false) | (Ok(()), _) => Ok(Flow::On),
            (Err(error), true) => Err(ShellError::io("write the answer")(error)),
        }
    }

    /// Writes answers elsewhere from now on, or to standard output again.
    pub(crate) fn redirect(&mut self, name: Option<&str>) -> Result<()> {
        self.close_target()?;
        self.target = name.map(Target::open).transpose()?;
        Ok(())
    }

    fn close_target(&mut self) -> Result<()> {
        self.target.take().map_or(Ok(()), Target::close).map_err(ShellError::io("write the answer"))
    }
}

fn footer(out: &mut dyn Write, settings: &Settings, summary: &Summary) -> io::Result<()> {
    match summary.rows {
        Some(rows) if settings.footer && settings.format == Format::Table => {
            let more = if summary.truncated { " of more" } else { "" };
            writeln!(out, "({rows} row{}{more})", if rows == 1 { "" } else { "s" })
        }
        _ => Ok(()),
    }
}

/// Writes a message that is not part of an answer.
pub(crate) fn note(text: &str) {
    // If nobody reads it, nothing is lost.
    let _ = writeln!(io::stderr(), "{text}");
}
