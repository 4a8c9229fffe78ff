//! Standard output, and what it is connected to.

use std::io::{self, IsTerminal as _, Write};

/// Standard output. It remembers that the reader closed it, as writers above it wrap or lose that error.
pub(crate) struct Stdout {
    inner: io::BufWriter<io::Stdout>,
    /// Whether the reader closed it.
    pub(crate) broken: bool,
}

impl Stdout {
    pub(crate) fn new() -> Self {
        Self { inner: io::BufWriter::with_capacity(1 << 16, io::stdout()), broken: false }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.broken |= matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

/// Whether text on stdout may be coloured.
pub(crate) fn may_colour() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    io::stdout().is_terminal() && !no_color
}

/// Width of the terminal at stdout, in columns; `None` if there is none.
pub(crate) fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    comfy_table::Table::new().width().map(usize::from)
}
