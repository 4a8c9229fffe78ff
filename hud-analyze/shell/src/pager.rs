//! Output of results, through a pager if they have more lines than the screen: output is buffered until then.

use std::{
    env,
    io::{self, BufWriter, ErrorKind, IsTerminal as _, Write},
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{
    control::Control,
    error::{Result, ShellError},
    progress::Progress,
};

/// Lines of the screen for the prompt and the footer.
const SPARE: usize = 2;
/// Maximum size of buffered output.
const LONGEST: usize = 1 << 20;

/// The terminal's columns and rows, if there is one.
pub(crate) fn screen() -> Option<(usize, usize)> {
    let (columns, rows) = crossterm::terminal::size().ok()?;
    (columns > 0 && rows > 0).then_some((usize::from(columns), usize::from(rows)))
}

/// The output of a result.
pub(crate) struct Output<'a> {
    target: Target,
    control: Control,
    progress: &'a Progress,
    broken: bool,
}

enum Target {
    /// Buffered, with this number of lines left on the screen.
    Screen(Vec<u8>, usize),
    /// Standard output.
    Direct(BufWriter<io::Stdout>),
    /// A pager.
    Pager(Child, Option<BufWriter<ChildStdin>>),
}

impl<'a> Output<'a> {
    /// Writes to standard output; through a pager if that is a terminal and there are more lines than on the screen.
    pub(crate) fn new(control: &Control, progress: &'a Progress) -> Self {
        // Without a terminal, crossterm would run `tput`.
        let is_paged = io::stdin().is_terminal() && io::stdout().is_terminal() && pager().is_some();
        let target = match is_paged.then(screen).flatten() {
            Some((_, rows)) => Target::Screen(Vec::new(), rows.saturating_sub(SPARE) + 1),
            None => Target::direct(),
        };
        Output { target, control: control.clone(), progress, broken: false }
    }

    /// Whether the reader has closed it.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether a pager receives it.
    pub(crate) fn is_paged(&self) -> bool {
        matches!(self.target, Target::Pager(..))
    }

    /// Writes buffered output and waits for the pager. Returns whether all of it was read.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.progress.hide();
        let mut done = Ok(());
        if let Target::Screen(bytes, _) = &mut self.target {
            let bytes = std::mem::take(bytes);
            self.target = Target::direct();
            done = self.write_all(&bytes);
        }
        let done = done.and_then(|()| self.flush());
        if let Target::Pager(child, input) = &mut self.target {
            // The pager detects the end of its input.
            drop(input.take());
            let _ = child.wait();
        }
        match done {
            Err(error) if !self.broken && !self.control.is_cancelled() => {
                Err(ShellError::io("write the result")(error))
            }
            _ => Ok(!self.broken),
        }
    }

    /// Replaces a full screen by the pager.
    fn page(&mut self) -> io::Result<()> {
        let Target::Screen(bytes, _) = &mut self.target else { return Ok(()) };
        let bytes = std::mem::take(bytes);
        self.progress.hide();
        let started = pager().and_then(|mut command| command.stdin(Stdio::piped()).spawn().ok());
        self.target = started.map_or_else(Target::direct, |mut child| {
            let input = child.stdin.take().map(BufWriter::new);
            Target::Pager(child, input)
        });
        self.target.write_all(&bytes)
    }

    /// Cancels the statement if the reader has closed the output.
    fn check(&mut self, done: io::Result<()>) -> io::Result<()> {
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.broken = true;
            self.control.cancel();
        }
        done
    }
}

impl Target {
    fn direct() -> Self {
        Target::Direct(BufWriter::new(io::stdout()))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Screen(buffer, lines) => {
                buffer.extend_from_slice(bytes);
                *lines = lines.saturating_sub(bytes.iter().filter(|byte| **byte == b'\n').count());
                Ok(())
            }
            Target::Direct(out) => out.write_all(bytes),
            Target::Pager(_, input) => input.as_mut().ok_or(ErrorKind::BrokenPipe)?.write_all(bytes),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A result may be longer than the user waits for.
        if self.control.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        if matches!(self.target, Target::Direct(_)) {
            self.progress.hide();
        }
        let mut done = self.target.write_all(bytes);
        if matches!(&self.target, Target::Screen(bytes, lines) if *lines == 0 || bytes.len() > LONGEST) {
            done = self.page();
        }
        self.check(done).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = match &mut self.target {
            Target::Screen(..) => Ok(()),
            Target::Direct(out) => out.flush(),
            Target::Pager(_, input) => input.as_mut().map_or(Ok(()), Write::flush),
        };
        self.check(done)
    }
}

/// `$PAGER`; `less` if it is not set; none if it is empty.
fn pager() -> Option<Command> {
    let line = match env::var_os("PAGER") {
        Some(pager) if pager.to_string_lossy().trim().is_empty() => return None,
        Some(pager) => pager,
        None if is_installed("less") => "less".into(),
        None => return None,
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    if env::var_os("LESS").is_none() {
        command.env("LESS", "RSFX");
    }
    Some(command)
}

fn is_installed(program: &str) -> bool {
    let is_program = |folder: std::path::PathBuf| {
        folder.join(program).metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(is_program))
}
