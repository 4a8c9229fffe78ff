//! The output of an export: counted and buffered, so that a format may write small pieces.

use std::io::{self, Write};

/// Bytes that are written at a time.
const ROOM: usize = 256 << 10;

/// Counts the bytes written.
pub(crate) struct Out<'a> {
    to: &'a mut dyn Write,
    gathered: Vec<u8>,
    bytes: u64,
}

impl<'a> Out<'a> {
    pub(crate) fn new(to: &'a mut dyn Write) -> Self {
        Out { to, gathered: Vec::with_capacity(ROOM), bytes: 0 }
    }

    /// Writes the rest; returns the total size.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.bytes)
    }
}

impl Write for Out<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.gathered.extend_from_slice(data);
        if self.gathered.len() >= ROOM {
            self.to.write_all(&self.gathered)?;
            self.gathered.clear();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.gathered)?;
        self.gathered.clear();
        self.to.flush()
    }
}
