//! Output of an answer: to the screen, through a pager if it is longer than that, to a file, or to a program.
//!
//! For a screen, output is buffered until it is known not to fit; then the pager receives it and everything after it.
//! No more than a screen is ever buffered.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufWriter, ErrorKind, IsTerminal as _, Write},
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdin, Command, Stdio},
};

use hud_common::files::OutputFile;
use unicode_width::UnicodeWidthChar as _;

use crate::{
    control::Control,
    error::{Result, ShellError},
    progress::Progress,
};

/// Lines that are left for the prompt and the footer.
const SPARE: usize = 2;
/// Bytes that exceed any screen: text may have no width at all.
const LONGEST: usize = 1 << 20;

/// The terminal's columns and rows, if there is one.
pub(crate) fn screen() -> Option<(usize, usize)> {
    let (columns, rows) = crossterm::terminal::size().ok()?;
    (columns > 0 && rows > 0).then_some((usize::from(columns), usize::from(rows)))
}

/// Whether answers are written to a terminal that a pager could use.
pub(crate) fn can_page() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// A file or a program that receives answers.
#[derive(Debug)]
pub(crate) enum Target {
    /// A file.
    File(BufWriter<OutputFile>),
    /// A program, and what it reads.
    Program(Child, Option<BufWriter<ChildStdin>>),
}

impl Target {
    /// Creates a file, or starts the program after a `|`.
    pub(crate) fn open(name: &str) -> Result<Self> {
        if let Some(program) = name.strip_prefix('|') {
            let mut child = shell_command(program.as_ref())
                .stdin(Stdio::piped())
                .spawn()
                .map_err(ShellError::io(format!("start {}", program.trim())))?;
            let input = child.stdin.take().map(BufWriter::new);
            return Ok(Target::Program(child, input));
        }
        let path = crate::complete::paths::expand(name);
        let open = || -> io::Result<OutputFile> {
            let mut file = OutputFile::create(&path)?;
            // Answers are read while more of them follow.
            file.place()?;
            Ok(file)
        };
        let file = open().map_err(ShellError::io(format!("write {}", path.display())))?;
        Ok(Target::File(BufWriter::new(file)))
    }

    fn writer(&mut self) -> io::Result<&mut dyn Write> {
        match self {
            Target::File(file) => Ok(file),
            Target::Program(_, Some(input)) => Ok(input),
            Target::Program(_, None) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends it: the rest is written, and a program is waited for.
    pub(crate) fn close(mut self) -> io::Result<()> {
        let flushed = self.writer().and_then(Write::flush);
        if let Target::Program(child, input) = &mut self {
            drop(input.take());
            child.wait()?;
        }
        match flushed {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// The output of an answer.
pub(crate) struct Output<'a> {
    place: Place<'a>,
    control: Control,
    progress: &'a Progress,
    broken: bool,
}

enum Place<'a> {
    /// Buffered until it does not fit the screen.
    Held { bytes: Vec<u8>, room: Room },
    /// Standard output, unbuffered; whether it is a terminal, where progress must be removed first.
    Straight { out: BufWriter<io::Stdout>, is_terminal: bool },
    /// A pager.
    Paged(Child, Option<BufWriter<ChildStdin>>),
    /// The target of `\o` or `\g`.
    Target(&'a mut Target),
}

impl<'a> Output<'a> {
    /// To standard output; through a pager if `paged` and it is longer than the screen.
    pub(crate) fn standard(paged: bool, control: &Control, progress: &'a Progress) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // Queried only if there is a terminal: else crossterm runs `tput`.
        let place = match (paged && is_terminal).then(screen).flatten().filter(|_| pager().is_some()) {
            Some((columns, rows)) => Place::Held { bytes: Vec::new(), room: Room::new(columns, rows) },
            None => Place::Straight { out: BufWriter::new(io::stdout()), is_terminal },
        };
        Output { place, control: control.clone(), progress, broken: false }
    }

    /// To a file or a program.
    pub(crate) fn target(target: &'a mut Target, control: &Control, progress: &'a Progress) -> Self {
        Output { place: Place::Target(target), control: control.clone(), progress, broken: false }
    }

    /// Whether the reader is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether a pager has it.
    pub(crate) fn is_paged(&self) -> bool {
        matches!(self.place, Place::Paged(..))
    }

    /// Shows the buffered output and waits for the pager. Returns whether the reader was there to the end.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.progress.hide();
        let held = match &mut self.place {
            Place::Held { bytes, .. } => std::mem::take(bytes),
            _ => Vec::new(),
        };
        if !held.is_empty() {
            self.place = Place::Straight { out: BufWriter::new(io::stdout()), is_terminal: true };
            // A failure is kept in `broken`, or comes again at the flush.
            let _ = self.write_all(&held);
        }
        let flushed = self.flush();
        if let Place::Paged(child, input) = &mut self.place {
            // A BufWriter writes its rest when it is dropped; the pager sees the end then.
            drop(input.take());
            let _ = child.wait();
        }
        match flushed {
            Err(error) if !self.broken => Err(ShellError::io("write the answer")(error)),
            _ => Ok(!self.broken),
        }
    }

    fn page(&mut self) -> io::Result<()> {
        let Place::Held { bytes, .. } = &mut self.place else { return Ok(()) };
        let held = std::mem::take(bytes);
        self.progress.hide();
        let started = pager().and_then(|mut command| command.stdin(Stdio::piped()).spawn().ok());
        self.place = match started {
            Some(mut child) => {
                let input = child.stdin.take().map(BufWriter::new);
                Place::Paged(child, input)
            }
            // A pager that does not start is not used.
            None => Place::Straight { out: BufWriter::new(io::stdout()), is_terminal: true },
        };
        self.place.write_all(&held)
    }
}

impl Place<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Place::Held { bytes: held, room } => {
                room.take(bytes);
                held.extend_from_slice(bytes);
                Ok(())
            }
            Place::Straight { out, .. } => out.write_all(bytes),
            Place::Paged(_, input) => input.as_mut().ok_or(ErrorKind::BrokenPipe)?.write_all(bytes),
            Place::Target(target) => target.writer()?.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Place::Held { .. } => Ok(()),
            Place::Straight { out, .. } => out.flush(),
            Place::Paged(_, input) => input.as_mut().map_or(Ok(()), Write::flush),
            Place::Target(target) => target.writer()?.flush(),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An answer can be longer than anyone waits for.
        if self.control.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        if matches!(self.place, Place::Straight { is_terminal: true, .. }) {
            self.progress.hide();
        }
        let mut done = self.place.write_all(bytes);
        if matches!(&self.place, Place::Held { room, .. } if room.is_over()) {
            done = self.page();
        }
        self.note(done).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.place.flush();
        self.note(done)
    }
}

impl Output<'_> {
    /// If the reader is gone, the query need not continue.
    fn note(&mut self, done: io::Result<()>) -> io::Result<()> {
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.broken = true;
            self.control.cancel();
        }
        done
    }
}

/// Counts the screen rows of a text, with long lines wrapped.
#[derive(Debug)]
struct Room {
    columns: usize,
    rows: usize,
    column: usize,
    used: usize,
    bytes: usize,
}

impl Room {
    fn new(columns: usize, rows: usize) -> Self {
        Room { columns, rows: rows.saturating_sub(SPARE).max(1), column: 0, used: 0, bytes: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        // A character that is cut in two counts twice: at worst, one row too many is sent to the pager.
        for c in String::from_utf8_lossy(bytes).chars() {
            if c == '\n' {
                self.used += 1;
                self.column = 0;
                continue;
            }
            self.column += c.width().unwrap_or(0);
            if self.column > self.columns {
                self.used += 1;
                self.column = c.width().unwrap_or(0);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.used + usize::from(self.column > 0) > self.rows || self.bytes > LONGEST
    }
}

/// `$PAGER`; `less` if that is not set and `less` exists; none if it is set to nothing.
fn pager() -> Option<Command> {
    match env::var_os("PAGER") {
        Some(pager) if pager.to_string_lossy().trim().is_empty() => None,
        Some(pager) => {
            let mut command = shell_command(&pager);
            if env::var_os("LESS").is_none() {
                command.env("LESS", "RSFX");
            }
            Some(command)
        }
        None => is_there("less").then(|| {
            let mut command = Command::new("less");
            command.arg("-RSFX");
            command
        }),
    }
}

fn is_there(program: &str) -> bool {
    let is_program = |path: std::path::PathBuf| {
        path.join(program).metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(is_program))
}

/// A command line, as the user's `sh` reads it.
pub(crate) fn shell_command(line: &OsStr) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    command
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    #[test]
    fn rows_are_counted_with_wrapped_lines() {
        for (text, rows) in [
            ("", 0),
            ("a", 1),
            ("a\n", 1),
            ("a\nb", 2),
            ("1234567890", 1),
            ("12345678901", 2),
            ("日本日本日本", 2),
            ("\n\n", 2),
        ] {
            let mut room = Room::new(10, 100);
            room.take(text.as_bytes());
            assert_eq!(room.used + usize::from(room.column > 0), rows, "{text:?}");
        }
        let mut room = Room::new(80, 24);
        room.take(&vec![b'x'; 80 * 22]);
        assert!(!room.is_over());
        room.take(b"x");
        assert!(room.is_over());
        let mut room = Room::new(80, 24);
        room.take(&[0x1b; LONGEST + 1]);
        assert!(room.is_over());
    }

    #[test]
    fn answers_go_to_files_and_programs() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copy) = (folder.path().join("a b"), folder.path().join("copy"));
        for name in [file.to_str().unwrap().to_owned(), format!("| cat > '{}'", copy.display())] {
            let mut target = Target::open(&name).unwrap();
            let (control, progress) = (Control::new(), Progress::start(&Control::new(), false));
            let mut out = Output::target(&mut target, &control, &progress);
            out.write_all(b"1\n2\n").unwrap();
            assert!(out.finish().unwrap());
            target.close().unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), b"1\n2\n");
        assert_eq!(fs::read(&copy).unwrap(), b"1\n2\n");
        // The target of a link is not the file that the user named.
        let (kept, planted) = (folder.path().join("kept"), folder.path().join("planted"));
        fs::write(&kept, "kept").unwrap();
        std::os::unix::fs::symlink(&kept, &planted).unwrap();
        if std::os::unix::fs::lchown(&planted, Some(65_534), None).is_ok() {
            let error = Target::open(planted.to_str().unwrap()).unwrap_err().line();
            assert!(error.ends_with("planted is a symbolic link of user 65534"), "{error}");
            assert_eq!(fs::read(&kept).unwrap(), b"kept");
        }
        let error = Target::open("/nowhere/x").unwrap_err().line();
        assert!(error.starts_with("cannot write /nowhere/x: "), "{error}");
    }

    #[test]
    fn a_program_that_reads_no_more_ends_the_query_and_is_no_error() {
        let mut target = Target::open("|exit 0").unwrap();
        let (control, progress) = (Control::new(), Progress::start(&Control::new(), false));
        let mut out = Output::target(&mut target, &control, &progress);
        while out.write_all(&[b'x'; 4096]).and_then(|()| out.flush()).is_ok() {}
        assert!(out.is_broken() && control.is_cancelled());
        assert!(!out.finish().unwrap());
        target.close().unwrap();
    }
}
