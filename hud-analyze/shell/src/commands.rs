//! Implementation of the backslash commands.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    command::Command,
    complete::paths::expand,
    control::Control,
    database::RelationKind,
    describe,
    error::{Result, ShellError},
    pager::shell_command,
    run::{Flow, How, Runner, note},
    script::{LONGEST_LINE, Place},
    settings::Format,
    splitter::{self, Splitter},
};

impl Runner<'_> {
    /// Executes a command; `splitter` holds the statement in which it stands.
    pub(crate) fn command(&mut self, command: Command, splitter: &mut Splitter, place: &Place) -> Result<Flow> {
        let width = self.width();
        match command {
            Command::Describe(None) => self.show(&describe::relations(&self.look(), None, width)),
            Command::Describe(Some(name)) => {
                let text = describe::relation(&self.look(), &name, width)?;
                self.show(&text)
            }
            Command::Tables => self.show(&describe::relations(&self.look(), Some(RelationKind::Table), width)),
            Command::Views => self.show(&describe::relations(&self.look(), Some(RelationKind::View), width)),
            Command::Functions(pattern) => {
                let text = describe::functions(&self.look(), pattern.as_deref(), width)?;
                self.show(&text)
            }
            Command::SqlHelp(name) => {
                let text = describe::sql_help(&self.look(), &name, width)?;
                self.show(&text)
            }
            Command::Help => self.show(&describe::help(width)),
            Command::Options => self.show(&describe::options(&self.settings, width)),
            Command::Set { option, value } => {
                self.settings.set(&option, value.as_deref())?;
                if self.is_interactive {
                    note(&format!("{option} is {}", hud_common::clean(&self.settings.get(&option))));
                }
                Ok(Flow::On)
            }
            Command::Include { path, beside } => {
                let path = expand(&path);
                match place.folder.as_deref().filter(|_| beside && path.is_relative()) {
                    Some(folder) => self.include(&folder.join(path)),
                    None => self.include(&path),
                }
            }
            Command::Output(name) => self.redirect(name.as_deref()).map(|()| Flow::On),
            Command::Echo(words) => self.show(&format!("{words}\n")),
            Command::Print => {
                let text = match splitter.pending() {
                    "" => self.last.clone().unwrap_or_default(),
                    pending => pending.to_owned(),
                };
                self.show(&format!("{text}\n"))
            }
            Command::Reset => {
                splitter.take_pending();
                Ok(Flow::On)
            }
            Command::Go { file, expanded } => {
                let sql = self.statement(splitter)?;
                self.execute(&sql, &How { file, expanded, unpaged: false })
            }
            Command::Watch { every, times } => {
                let sql = self.statement(splitter)?;
                self.watch(&sql, every, times)
            }
            Command::Edit(file) => self.edit(file.as_deref(), splitter),
            Command::Quit => Ok(Flow::Quit),
        }
    }

    /// The statement so far, or the last one.
    fn statement(&self, splitter: &mut Splitter) -> Result<String> {
        let pending = splitter.take_pending().map(|statement| statement.sql);
        pending.or_else(|| self.last.clone()).ok_or_else(|| {
            ShellError::usage("there is no statement to run", "type one before the command, or run one first")
        })
    }

    fn watch(&mut self, sql: &str, every: Duration, times: Option<u64>) -> Result<Flow> {
        let mut run = 0;
        while times.is_none_or(|times| run < times) {
            run += 1;
            if matches!(self.settings.format, Format::Table | Format::Markdown) {
                let heading = format!("every {} s, {}\n", every.as_secs_f64(), clock());
                if self.show(&heading)? == Flow::Closed {
                    return Ok(Flow::Closed);
                }
            }
            match self.execute(sql, &How { unpaged: true, ..How::default() }) {
                Ok(Flow::On) => {}
                Err(error) if error.is_cancelled() && self.is_interactive => return Ok(self.stopped()),
                other => return other,
            }
            let control = Control::new();
            if times.is_none_or(|times| run < times) && self.signals.during(&control, || control.wait(every)) {
                return match self.signals.ended_by() {
                    Some(_) => Ok(Flow::Left),
                    None if self.is_interactive => Ok(self.stopped()),
                    None => Err(ShellError::Cancelled),
                };
            }
        }
        Ok(Flow::On)
    }

    /// Ctrl-C has been handled.
    fn stopped(&self) -> Flow {
        self.signals.take_interrupt();
        note("stopped");
        Flow::On
    }

    fn edit(&mut self, file: Option<&str>, splitter: &mut Splitter) -> Result<Flow> {
        let text = match file {
            Some(file) => edit_file(&expand(file))?,
            None => {
                let pending = splitter.take_pending().map(|statement| statement.sql);
                edit_text(&pending.or_else(|| self.last.clone()).unwrap_or_default())?
            }
        };
        if text.trim().is_empty() {
            return Ok(Flow::On);
        }
        if self.is_interactive && self.depth == 0 && !splitter::is_complete(&text) {
            self.unfinished = Some(text.trim_end().to_owned());
        } else {
            if self.is_interactive {
                text.trim().lines().for_each(|line| note(&hud_common::clean(line)));
            }
            splitter.insert(&format!("{}\n", text.trim_end()));
            self.edited = Some(text);
        }
        Ok(Flow::On)
    }
}

/// Opens the user's editor on `text`.
pub(crate) fn edit_text(text: &str) -> Result<String> {
    let mut file = tempfile::Builder::new()
        .prefix("hud-")
        .suffix(".sql")
        .tempfile()
        .map_err(ShellError::io("make a file to edit"))?;
    let written = if text.is_empty() { Ok(()) } else { writeln!(file, "{text}") };
    written.and_then(|()| file.flush()).map_err(ShellError::io("write a file to edit"))?;
    edit_file(file.path())
}

/// Opens the user's editor on a file, and reads it.
fn edit_file(path: &Path) -> Result<String> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| env::var_os(name).filter(|value| !value.is_empty()));
    let mut line = editor.unwrap_or_else(|| "vi".into());
    let name = line.to_string_lossy().into_owned();
    line.push(OsString::from(" \"$1\""));
    let status = shell_command(&line).arg("sh").arg(path).status().map_err(ShellError::io(format!("start {name}")))?;
    if !status.success() {
        return Err(ShellError::usage(
            format!("the editor {name} ended with {status}"),
            "set EDITOR to the editor that you use",
        ));
    }
    // An editor may have replaced the file: it is opened again by name.
    let failed = || ShellError::io(format!("read {}", path.display()));
    let mut text = String::new();
    match fs::metadata(path) {
        // Nothing was written to a new file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed()(error)),
        Ok(_) => {
            File::open(path).and_then(|file| file.take(LONGEST_LINE).read_to_string(&mut text)).map_err(failed())?;
        }
    }
    Ok(text)
}

/// The time of day.
fn clock() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
